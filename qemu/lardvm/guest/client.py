# SPDX-License-Identifier: GPL-2.0
"""An HTTP client on ordinary sockets that decides what goes into which segment.

A test writes a short script that imports this module and runs on the client machine; see
`qemu/tests/support.py`. Waiting for an acknowledgement is waiting for the send queue to be empty
(SIOCOUTQ), so that a pause between two pieces is a condition, not a time.
"""

import fcntl
import hashlib
import json
import socket
import struct
import termios
import threading
import time

import content

PORT = 8080


class Closed(Exception):
    """The server ended the connection in the middle of an answer."""


class Answer:
    def __init__(self, status, fields, body, length, sha256):
        self.status = status
        self.fields = fields
        self.body = body
        self.length = length
        self.sha256 = sha256

    @property
    def node(self):
        return self.fields.get("x-node")

    @property
    def supplier(self):
        """The address of the node whose content this is, if it is another one's."""
        return self.fields.get("x-supplier")

    def json(self):
        return json.loads(self.body)


class Connection:
    def __init__(self, host, port=PORT, timeout=60, source=None, options=()):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for level, name, value in options:
            self.socket.setsockopt(level, name, value)
        if source:
            self.socket.bind(source)
        self.socket.connect((host, port))
        self.buffer = b""
        self.timeout = timeout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data):
        self.socket.sendall(data)

    def unacknowledged(self):
        buffer = fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0\0\0\0")
        return struct.unpack("i", buffer)[0]

    def send_acknowledged(self, data, limit=30):
        """Sends and waits until the peer's TCP has acknowledged all of it."""
        self.send(data)
        end = time.monotonic() + limit
        while self.unacknowledged():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.unacknowledged()} octets are not acknowledged")
            time.sleep(0.0005)

    def retransmissions(self):
        """Retransmitted segments of this connection, as TCP_INFO counts them."""
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return struct.unpack_from("I", info, 100)[0]

    def more(self):
        data = self.socket.recv(262144)
        if not data:
            raise Closed(f"closed after {self.buffer[:200]!r}")
        self.buffer += data

    def answer(self, method="GET", keep_body=True):
        """Reads one answer. Bodies that are not kept are only counted and hashed."""
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        if status == 100:
            return self.answer(method, keep_body)
        fields = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        digest, kept, length = hashlib.sha256(), [], 0
        if fields.get("transfer-encoding") == "chunked" and method != "HEAD":
            body = self.chunks()
            return Answer(status, fields, body, len(body), hashlib.sha256(body).hexdigest())
        want = int(fields["content-length"]) if "content-length" in fields else None
        if method == "HEAD" or status in (204, 304):
            want = 0
        while want is None or length < want:
            if not self.buffer:
                try:
                    self.more()
                except Closed:
                    if want is None:
                        break
                    raise
            part = self.buffer if want is None else self.buffer[: want - length]
            self.buffer = self.buffer[len(part) :]
            length += len(part)
            digest.update(part)
            if keep_body:
                kept.append(part)
        return Answer(status, fields, b"".join(kept), length, digest.hexdigest())

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def chunks(self):
        body = b""
        while True:
            while b"\r\n" not in self.buffer:
                self.more()
            size, _, self.buffer = self.buffer.partition(b"\r\n")
            chunk = self.take(int(size, 16) + 2)
            if chunk == b"\r\n":
                return body
            body += chunk[:-2]

    def request(self, target, method="GET", keep_body=True, **named):
        self.send(head(target, method=method, **named))
        return self.answer(method, keep_body)

    def at_end(self):
        """True when the server has closed and nothing is left; an error when there is more."""
        data = self.buffer or self.socket.recv(65536)
        if data:
            raise AssertionError(f"more than was asked for: {data[:200]!r}")
        return True


def head(target, method="GET", version="1.1", host="cluster", fields=(), length=None, close=False):
    """A request head; with `length` it has exactly that many octets."""
    lines = [f"{method} {target} HTTP/{version}", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields]
    if close:
        lines.append("Connection: close")
    text = "\r\n".join(lines) + "\r\n"
    if length is not None:
        # Fields of at most 1000 octets: a single huge one is another limit than the head's.
        missing = length - len(text) - 2
        while missing:
            part = missing if missing <= 1000 else min(1000, missing - 10)
            if part < 6:
                raise ValueError(f"a head of {length} octets cannot be padded to fit")
            text += "X: " + "a" * (part - 5) + "\r\n"
            missing -= part
    return (text + "\r\n").encode()


def get(host, target, keep_body=True, **named):
    """One request on a connection of its own."""
    with Connection(host) as connection:
        return connection.request(target, keep_body=keep_body, close=True, **named)


def check_size(host, size, **named):
    """Fetches `/size/<size>` and compares every octet by checksum; returns the node's name."""
    answer = get(host, f"/size/{size}", keep_body=False, **named)
    assert answer.status == 200, f"status {answer.status}"
    assert answer.length == size, f"{answer.length} octets of {size}"
    assert answer.sha256 == content.sha256(size), f"checksum of /size/{size} is wrong"
    return answer.node


def open_gate(address, name):
    """Lets the server there, asked at its own port, go on with what waits for that name."""
    with Connection(address, port=7080) as connection:
        assert connection.request(f"/open/{name}", close=True).status == 200


def side_by_side(work, count):
    """Runs `work(number)` in so many threads at once, to the end of all."""
    threads = [threading.Thread(target=work, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def report(**values):
    """What the test on the other side of the channel gets."""
    print(json.dumps(values), flush=True)
