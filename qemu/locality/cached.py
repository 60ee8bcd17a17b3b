#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Which files of a directory are in this machine's memory: pages of each, as JSON.

    cached.py DIR

In a back-end its text is run by a process that is there already: a new one would take memory from files.
"""

import ctypes
import json
import os
import sys

# cachestat(2): the number is the same on all architectures.
CACHESTAT = 451


class Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class Pages(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    ]


def cached(path):
    """Pages of a file that are in the page cache."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    everything, pages = Range(0, 0), Pages()
    file = os.open(path, os.O_RDONLY)
    try:
        if call(CACHESTAT, file, ctypes.byref(everything), ctypes.byref(pages), 0):
            raise OSError(ctypes.get_errno(), "cachestat")
    finally:
        os.close(file)
    return pages.cached


def main():
    directory = sys.argv[1]
    found = {entry.name: cached(entry.path) for entry in os.scandir(directory) if entry.is_file()}
    json.dump({name: pages for name, pages in found.items() if pages}, sys.stdout)


if __name__ == "__main__":
    main()
