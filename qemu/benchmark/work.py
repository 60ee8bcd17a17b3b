# SPDX-License-Identifier: GPL-2.0
"""The work that front-ends are measured at."""

import dataclasses

KB, MB = 1 << 10, 1 << 20


@dataclasses.dataclass(frozen=True)
class Work:
    """Connections of one kind. `requests` on each: 0 is one of HTTP/1.0."""

    name: str
    size: int = 6 * KB
    connections: int = 300
    concurrency: int = 32
    requests: int = 0
    head: int = 0
    body: int = 0
    # So many names of the one document, each as likely as the others; 0: only its own.
    names: int = 0

    @property
    def target(self):
        return "/take" if self.body else f"/size/{self.size}"

    @property
    def answer(self):
        """Octets of the answer's body."""
        return len("taken\n") if self.body else self.size

    @property
    def asked(self):
        """Requests in all."""
        return self.connections * max(1, self.requests)

    @property
    def further(self):
        """Those that are not the first of their connection."""
        return self.asked - self.connections

    def smaller(self, part):
        """The same with that part of the connections, but one for each client at least."""
        connections = max(min(self.concurrency, self.connections), self.connections // part)
        return dataclasses.replace(self, connections=connections)

    def words(self):
        """Arguments of load.py."""
        words = f"--target {self.target} --size {self.answer} --connections {self.connections}"
        words += f" --concurrency {self.concurrency} --requests {self.requests} --names {self.names}"
        return f"{words} --head {self.head} --body {self.body}"


# Instructions are counted one by one, so a run need not be long; with three runs of each this is what two
# processors without KVM do in the minutes that the report is waited for.
SIX = Work("6 KB", connections=500, concurrency=64)
# Many enough for what is forgotten of earlier connections in the meantime to be little.
ONE = Work("1 MB", size=MB, connections=96, concurrency=16)

QUICK = [SIX, ONE]
ALL = [
    Work("1 B", size=1),
    SIX,
    Work("13 KB", size=13 * KB),
    Work("100 KB", size=100 * KB, connections=128),
    ONE,
    Work("16 MB", size=16 * MB, connections=4, concurrency=4),
    Work("keep-alive, 1 request", requests=1),
    Work("keep-alive, 10 requests", requests=10, connections=48),
    Work("keep-alive, 100 requests", requests=100, connections=8, concurrency=8),
    Work("head of 200 B", head=200),
    Work("head of 1 KB", head=KB),
    Work("head of 8 KB", head=8 * KB),
    Work("POST of 1 MB", size=0, body=MB, connections=32, concurrency=16),
]

# Persistent connections: as many requests of each kind, and of the smallest and the largest answers one client
# alone, whose times are not those of a queue.
MODES = [
    Work(
        f"{size // KB} KB, {requests} a connection" + ("" if clients > 1 else ", one client"),
        size=size,
        connections=asked // requests,
        concurrency=clients,
        requests=requests,
        names=64,
    )
    for size in (KB, 6 * KB, 100 * KB)
    for requests, asked, clients in ((1, 256, 16), (4, 256, 16), (16, 256, 16), (16, 128, 1))
    if clients > 1 or size != 6 * KB
]
