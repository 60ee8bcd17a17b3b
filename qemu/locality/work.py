# SPDX-License-Identifier: GPL-2.0
"""The documents of a site and the requests for them: one seed, one site, one sequence.

Popularity is Zipf's, as on the web (its exponent is 0.64 to 0.83 in L. Breslau and others, *Web Caching
and Zipf-like Distributions*, INFOCOM 1999), sizes are log-normal within limits; one has nothing to do
with the other.
"""

import dataclasses
import functools
import ipaddress
import itertools
import os
import random

KB = 1 << 10
# Of an access log: the first one's address.
CLIENTS = 0x0A400000


@dataclasses.dataclass(frozen=True)
class Work:
    seed: int = 1
    targets: int = 3000
    # Octets of a document: the mean they are scaled to, and limits.
    mean: int = 24 * KB
    smallest: int = 2 * KB
    largest: int = 128 * KB
    # The popularity of rank i is proportional to i ** -alpha.
    alpha: float = 0.8
    # Spread of the sizes: standard deviation of their logarithm.
    sigma: float = 0.8
    # Requests that are counted, and those for any document before them.
    requests: int = 3000
    warm_up: int = 5000

    def _random(self, what):
        return random.Random(f"{self.seed} {what}")

    @functools.cached_property
    def sizes(self):
        """Octets of each target."""
        draw = self._random("sizes")
        weights = [draw.lognormvariate(0, self.sigma) for _ in range(self.targets)]
        scale = self.mean * self.targets / sum(weights)
        return [min(self.largest, max(self.smallest, int(w * scale))) for w in weights]

    @property
    def octets(self):
        return sum(self.sizes)

    def _zipf(self, what, count, targets=None):
        """So many requests; ranks are the numbers of the targets."""
        ranks = range(1, (targets or self.targets) + 1)
        weights = list(itertools.accumulate(rank**-self.alpha for rank in ranks))
        return self._random(what).choices(range(len(weights)), cum_weights=weights, k=count)

    def before(self):
        """What fills the memories: each document once, in any order, then as they are popular."""
        once = list(range(self.targets))
        self._random("order").shuffle(once)
        return once + self._zipf("warm-up", self.warm_up)

    def counted(self):
        return self._zipf("requests", self.requests)

    def few(self, octets, count):
        """Requests for as many of the most popular documents as have so many octets."""
        sums = itertools.accumulate(self.sizes)
        return self._zipf("few", count, sum(1 for size in sums if size <= octets))

    def write(self, directory, mounts=()):
        """The documents as files. Each begins with its name. Empty directories are for mounts."""
        for mount in mounts:
            os.mkdir(os.path.join(directory, mount))
        filler = self._random("content").randbytes(self.largest)
        for target, size in enumerate(self.sizes):
            with open(os.path.join(directory, name(target)), "wb") as file:
                file.write((begin(target) + filler)[:size])

    def log(self, targets, requests=1):
        """The requests as lines of an access log, so many by each client."""
        for number, target in enumerate(targets):
            client = ipaddress.IPv4Address(CLIENTS + number // requests)
            yield (
                f'{client} - - [01/Jan/2000:00:00:00 +0000] "GET'
                f' /{name(target)} HTTP/1.0" 200 {self.sizes[target]}\n'
            )


def name(target):
    return f"{target:05}"


def begin(target):
    """The first octets of a document."""
    return f"document {name(target)}\n".encode()
