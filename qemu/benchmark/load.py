#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Clients of a benchmark: so many connections, so many requests on each, as fast as they are answered.

    load.py --host 10.10.0.1 --port 8080 --target /size/6144 --size 6144 --connections 2000

Each of `--concurrency` processes has one connection at a time. `--requests 0` is HTTP/1.0, where the
end of the connection is the end of the answer; from 1 on it is HTTP/1.1 and the client closes after
that many. Every answer's status and length are checked. One line of JSON tells what it took, in
milliseconds: connect to first byte, all of the connection, and, of requests that are not the first of
their connection, request to first byte (`next`).
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import statistics
import socket
import sys
import time

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lardvm", "guest")
)
import client  # noqa: E402

BUFFER = bytearray(1 << 20)


class Wrong(Exception):
    """An answer is not what was asked for."""


def request(options, target):
    """The bytes of one request."""
    version = "1.1" if options.requests else "1.0"
    fields = [("Content-Length", options.body)] if options.body else []
    head = client.head(
        target,
        method="POST" if options.body else "GET",
        version=version,
        fields=fields,
        length=options.head or None,
    )
    return head + b"x" * options.body


def answer(connection, size, to_end):
    """Reads one answer with a body of that size; the time of its first byte."""
    got = connection.recv_into(BUFFER)
    first = time.monotonic()
    begin = bytes(BUFFER[: min(got, 4096)])
    while b"\r\n\r\n" not in begin:
        more = connection.recv(4096)
        if not more:
            raise Wrong(f"closed after {begin!r}")
        begin += more
        got += len(more)
    if b" 200 " not in begin.partition(b"\r\n")[0]:
        raise Wrong(f"answered {begin[:100]!r}")
    want = begin.index(b"\r\n\r\n") + 4 + size
    while got < want or to_end:
        more = connection.recv_into(BUFFER)
        if not more:
            break
        got += more
    if got != want:
        raise Wrong(f"{got} octets of {want}")
    return first


def requests(options):
    """All that may be asked for."""
    names = [f"{options.target}?{number}" for number in range(options.names)]
    return [request(options, target) for target in names or [options.target]]


def work(job):
    """The connections of one client: (connect to first byte, connect to end) of each; and of each of
    the further requests the time to the first byte."""
    options, client, connections = job
    texts = requests(options)
    # The same for each front-end.
    chosen = random.Random(client)
    times, further = [], []
    for _ in range(connections):
        begin = time.monotonic()
        with socket.create_connection((options.host, options.port), options.limit) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(chosen.choice(texts))
            first = answer(connection, options.size, not options.requests)
            for _ in range(options.requests - 1):
                asked = time.monotonic()
                connection.sendall(chosen.choice(texts))
                further.append(1000 * (answer(connection, options.size, False) - asked))
        times.append((1000 * (first - begin), 1000 * (time.monotonic() - begin)))
    return times, further


def quantile(values, part):
    return round(sorted(values)[min(len(values) - 1, int(part * len(values)))], 2)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--size", type=int, required=True, help="of the answer's body")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--requests", type=int, default=0, help="on a connection")
    parser.add_argument("--head", type=int, default=0, help="octets of the request's head")
    parser.add_argument("--body", type=int, default=0, help="octets that are sent")
    parser.add_argument("--names", type=int, default=0, help="of the target, asked for at random")
    parser.add_argument("--limit", type=int, default=60, help="seconds for all of it")
    options = parser.parse_args()
    signal.alarm(options.limit)
    each, more = divmod(options.connections, options.concurrency)
    jobs = [(options, number, each + (number < more)) for number in range(options.concurrency)]
    begin = time.monotonic()
    with multiprocessing.Pool(options.concurrency) as pool:
        done = pool.map(work, jobs, chunksize=1)
    seconds = time.monotonic() - begin
    first, total = zip(*(pair for times, _ in done for pair in times))
    further = [value for _, values in done for value in values]
    result = {"connections": len(first), "seconds": round(seconds, 3)}
    for name, values in (("first", first), ("total", total), ("next", further)):
        if values:
            result[f"{name}_median_ms"] = quantile(values, 0.5)
            result[f"{name}_p99_ms"] = quantile(values, 0.99)
            result[f"{name}_mean_ms"] = round(statistics.mean(values), 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
