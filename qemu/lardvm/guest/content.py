# SPDX-License-Identifier: GPL-2.0
"""The bytes every server of a test cluster serves, known to every client too.

`/size/N` is the first N bytes of one pseudo-random stream, so that a lost, doubled or moved byte
changes the checksum wherever it is. The stream is written once per machine.

Below `/10.20.0.N` is what node N has, which is the same, as if it were mounted there.
"""

import contextlib
import hashlib
import mmap
import os

ROOT = "/var/tmp/lard-www"
LARGEST = 16 << 20
NODES = range(1, 9)
SIZES = (0, 1, 100, 1460, 10_000, 100_000, 1_000_000, LARGEST)


def _write(path, data):
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(data)
    os.rename(temporary, path)


def write(root, sizes):
    """Makes one file a size; returns the largest one's octets."""
    directory = os.path.join(root, "size")
    os.makedirs(directory, exist_ok=True)
    data = hashlib.shake_128(b"content").digest(max(sizes))
    for size in sizes:
        _write(os.path.join(directory, str(size)), data[:size])
    return data


def prepare(root=ROOT):
    """Makes the stream, one file a size, and the nodes' directories; does nothing when they are there."""
    stream = os.path.join(root, "stream")
    if not os.path.exists(stream) or os.path.getsize(stream) != LARGEST:
        _write(stream, write(root, SIZES))
    for number in NODES:
        with contextlib.suppress(FileExistsError):
            os.symlink(".", os.path.join(root, f"10.20.0.{number}"))
    return stream


def stream(root=ROOT):
    """The stream as a read-only map."""
    with open(prepare(root), "rb") as file:
        return mmap.mmap(file.fileno(), LARGEST, prot=mmap.PROT_READ)


def sha256(size):
    """Checksum of `/size/<size>`."""
    return hashlib.sha256(stream()[:size]).hexdigest()


if __name__ == "__main__":
    prepare()
