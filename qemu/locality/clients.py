#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Clients that work through a list of requests, so many on a connection: one of HTTP/1.0, or more of
HTTP/1.1, each of which is sent when the one before is answered.

    clients.py --host 10.10.0.1 --port 8080 --clients 219 --settle 400 requests.txt

A line of the list is a name and the octets of what it names. So many requests are under way at any
time; the next connection begins as soon as one ends. Status, length and the first octets of each answer are
checked. What is told, as one line of JSON, is of the time from the `--settle`th answer to the last
request's begin: the tail, where fewer and fewer are under way, is no part of it.
"""

import argparse
import collections
import json
import os
import select
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from locality import work  # noqa: E402

BUFFER = bytearray(1 << 20)
# What the head of an answer and the first octets of a document take at most.
BEGIN = 2048


class Wrong(Exception):
    """An answer is not what was asked for."""


class Connection:
    """One connection, and the request on it that is not answered yet."""

    def __init__(self, address, requests):
        self.rest = iter(requests)
        self.version = "1.1" if len(requests) > 1 else "1.0"
        self.next()
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(address)

    def next(self):
        """To the next request; False if there is none."""
        self.target, self.size = next(self.rest, (None, 0))
        self.begun = time.monotonic()
        self.got = 0
        self.begin = b""
        return self.target is not None

    def connected(self):
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def ask(self):
        head = f"GET /{self.target} HTTP/{self.version}\r\nHost: documents\r\n\r\n"
        self.socket.sendall(head.encode())

    def is_good(self):
        return b" 200 " in self.begin.partition(b"\r\n")[0]

    def complete(self):
        head, end, _ = self.begin.partition(b"\r\n\r\n")
        if end and not self.is_good():
            return True
        # Without persistence the end of the connection is that of the answer.
        return self.version == "1.1" and end and self.got >= len(head) + len(end) + self.size

    def read(self):
        """True once all of the answer has come."""
        while not self.complete():
            try:
                more = self.socket.recv_into(BUFFER)
            except BlockingIOError:
                return False
            if more == 0:
                return True
            if len(self.begin) < BEGIN:
                self.begin += BUFFER[: min(more, BEGIN)]
            self.got += more
        return True

    def node(self):
        """Who has answered; raises when it is not the answer."""
        head, end, body = self.begin.partition(b"\r\n\r\n")
        if not self.is_good():
            raise Wrong(f"{self.target}: answered {head[:100]!r}")
        want = work.begin(int(self.target))
        if self.got != len(head) + len(end) + self.size or body[: len(want)] != want:
            raise Wrong(f"{self.target}: {self.got} octets, {body[:40]!r}")
        for line in head.split(b"\r\n"):
            key, _, value = line.partition(b":")
            if key.lower() == b"x-node":
                return value.strip().decode()
        raise Wrong(f"{self.target}: no X-Node")


class Clients:
    def __init__(self, options, requests):
        self.address = (options.host, options.port)
        self.settle = options.settle
        each = options.requests
        self.rest = iter([requests[at : at + each] for at in range(0, len(requests), each)])
        self.under_way = {}
        self.poll = select.epoll()
        self.nodes = collections.Counter()
        self.errors = []
        self.answered = 0
        self.started = self.ended = None
        self.octets = 0
        self.times = []

    def begin(self):
        """Begins the next connection, if there is one."""
        requests = next(self.rest, None)
        if requests is None:
            self.ended = self.ended or time.monotonic()
            return
        connection = Connection(self.address, requests)
        self.under_way[connection.socket.fileno()] = connection
        self.poll.register(connection.socket, select.EPOLLOUT)

    def step(self, fd, events):
        connection = self.under_way[fd]
        try:
            if events & select.EPOLLOUT:
                connection.connected()
                connection.ask()
                self.poll.modify(fd, select.EPOLLIN)
                return
            if not connection.read():
                return
            self.count(connection, connection.node())
            if connection.next():
                connection.ask()
                return
        except (OSError, Wrong) as error:
            self.errors.append(f"{connection.target}: {error}")
            # What it had still to ask for.
            self.errors.extend(f"{target}: not asked for" for target, _ in connection.rest)
        del self.under_way[fd]
        connection.socket.close()
        self.begin()

    def count(self, connection, node):
        now = time.monotonic()
        self.answered += 1
        if self.answered == self.settle:
            self.started = now
        elif self.started and not self.ended:
            self.nodes[node] += 1
            self.octets += connection.size
            self.times.append(1000 * (now - connection.begun))

    def run(self, number):
        for _ in range(number):
            self.begin()
        while self.under_way:
            for fd, events in self.poll.poll():
                self.step(fd, events)


def quantile(values, part):
    return round(sorted(values)[min(len(values) - 1, int(part * len(values)))], 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--requests", type=int, default=1, help="on a connection")
    parser.add_argument("--settle", type=int, required=True, help="answers that are not counted")
    parser.add_argument("--limit", type=int, default=300, help="seconds for all of it")
    parser.add_argument("list", help="file of lines NAME OCTETS")
    options = parser.parse_args()
    signal.alarm(options.limit)
    with open(options.list) as file:
        requests = [(name, int(size)) for name, size in (line.split() for line in file)]
    clients = Clients(options, requests)
    begun = time.monotonic()
    clients.run(options.clients)
    everything = time.monotonic() - begun
    if not clients.times:
        sys.exit(f"clients.py: nothing to count: {clients.errors[:3]}")
    seconds = clients.ended - clients.started
    result = {
        "asked": len(requests),
        "failed": len(clients.errors),
        "errors": clients.errors[:5],
        "counted": len(clients.times),
        "seconds": round(seconds, 2),
        "all_seconds": round(everything, 2),
        "rate": round(len(clients.times) / seconds, 2),
        "octets": clients.octets,
        "median_ms": quantile(clients.times, 0.5),
        "p99_ms": quantile(clients.times, 0.99),
        "nodes": clients.nodes,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
