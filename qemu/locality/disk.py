# SPDX-License-Identifier: GPL-2.0
"""The papers' machines, and the disk that is to an emulated one what theirs was to them.

[3] (ASPLOS 1998) has 145 us of CPU each for the set-up and the end of a connection and 40 us for 512
octets sent; a disk with 28 ms for the first 44 KB of a file and 14 ms for each 44 KB more, besides
410 us for 4 KB. An emulated machine is slower by some factor, and by the same one its disk is made
slower. QEMU's throttle counts reads a second; one of more than 44 KB counts as more, in proportion.
What is transferred is not throttled besides: it is a tenth of the time.
"""

import dataclasses
import json
import os
import subprocess
import tempfile

from lardvm import build

NAME = "documents"
# Seconds, and octets that are read in it.
LATENCY = 0.028
UNIT = 44 << 10
# Parts of an image that are no documents: bitmaps, inodes, the directory.
OVERHEAD = 8 << 20


def paper_cpu(size):
    """Seconds of CPU that a document from memory takes a machine of the papers."""
    return 290e-6 + 40e-6 * -(-size // 512)


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A disk as many times slower than the papers' as the machine is."""

    machine: float
    reads: int

    @classmethod
    def by(cls, machine):
        return cls(machine, max(1, round(1 / (LATENCY * machine))))

    @property
    def disk(self):
        """The disk's own factor: the throttle takes whole numbers only."""
        return 1 / (LATENCY * self.reads)


def image(work, path, mounts):
    """Makes the image with the documents and directories for mounts, unless it is there."""
    record = f"{path}.json"
    wanted = {**dataclasses.asdict(work), "requests": None, "warm_up": None, "mounts": mounts}
    if os.path.exists(record) and json.loads(build.read(record)) == wanted:
        return path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    blocks = sum(-(-size // 4096) for size in work.sizes) + OVERHEAD // 4096
    with tempfile.TemporaryDirectory(prefix="lard-documents-") as directory:
        work.write(directory, mounts)
        words = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^has_journal"]
        words += ["-N", str(work.targets + 64), "-d", directory, path, str(blocks)]
        result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode:
        raise build.SetupFailed(f"mke2fs failed: {result.stderr}")
    with open(record, "w") as file:
        json.dump(wanted, file)
    return path
