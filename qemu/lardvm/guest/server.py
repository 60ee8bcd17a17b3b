# SPDX-License-Identifier: GPL-2.0
"""The Python server of a test cluster, which answers requests that show what really arrived.

Its words are `serve`'s. `serve.py` starts it for most tests, in emulated guests; so it has few modules.
"""

import hashlib
import mmap
import os
import signal
import socket
import sys
import threading
import time

import content


def as_json(value):
    # Most servers are not asked for it.
    import json

    return json.dumps(value).encode()


def checksum(data):
    return as_json({"length": len(data), "sha256": hashlib.sha256(data).hexdigest()})


class Handler:
    """One connection of the python server.

    GET /who          the node's name
    GET /size/N       N bytes of the stream
    GET /head…        JSON: length and checksum of the request head as it was read
    POST /echo        JSON: length and checksum of the body
    POST /until-eof   JSON: length and checksum of everything up to the client's FIN
    GET /wait/NAME    answers once the file /run/lard-test/NAME exists
    GET /slow/NAME    half of an answer, and the rest once the file /run/lard-test/NAME exists
    GET /open/NAME    makes that file
    GET /chunked/N    N bytes of the stream in chunks
    GET /status/204   and 304: answers without a body
    GET /close/N      N bytes of the stream, and the end of the connection for their end
    GET /hang         never answers; ends when the client does
    GET /leave/NAME   answers, and ends the connection once the file /run/lard-test/NAME exists
    GET /linger/MS    answers, and ends the connection after so many milliseconds
    GET /drop         ends the connection, without an answer
    GET /page/N       4096 bytes from page N of /dev/slow, which are first read when they are sent
    GET /count        requests this server process has begun, by target, as JSON
    GET /ends         how connections have ended so far, by the client's port, as JSON
    CONNECT           and Upgrade: echo; from there the client gets back what it sends

    Below /10.20.0.N/ is all of that once more, and the answer names the node in X-Supplier.
    """

    counts = {}
    ends = {}
    lock = threading.Lock()
    data = None

    def __init__(self, connection, name):
        self.connection = connection
        self.name = name
        self.buffer = b""
        self.requests = 0

    def run(self):
        end = "closed"
        port = None
        try:
            port = self.connection.getpeername()[1]
            while self.request():
                pass
            self.connection.shutdown(socket.SHUT_WR)
            # Lingers for what the client still sends, but not for one that has left.
            self.connection.settimeout(2)
            while self.connection.recv(65536):
                pass
        except OSError as error:
            end = type(error).__name__
        finally:
            self.connection.close()
            with self.lock:
                self.ends.setdefault(port, []).append(end)

    def more(self):
        data = self.connection.recv(262144)
        self.buffer += data
        return data

    def request(self):
        while b"\r\n\r\n" not in self.buffer:
            if not self.more():
                return False
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        head += b"\r\n\r\n"
        lines = head.decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
        fields = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                fields[name.lower()] = value.strip()
        self.requests += 1
        with self.lock:
            self.counts[target] = self.counts.get(target, 0) + 1
        if method == "CONNECT" or fields.get("upgrade") == "echo":
            return self.tunnel("200 OK" if method == "CONNECT" else "101 Switching Protocols")
        if fields.get("expect", "").lower() == "100-continue":
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.body(fields, target)
        keep = fields.get("connection", "").lower()
        keep = keep == "keep-alive" if version == "HTTP/1.0" else keep != "close"
        parts = target.split("/", 2)
        of_another = len(parts) == 3 and parts[1].startswith("10.20.0.")
        self.supplier = f"X-Supplier: {parts[1]}\r\n" if of_another else ""
        target = f"/{parts[2]}" if of_another else target
        special = self.special(target.partition("?")[0])
        if special is not None:
            return special and keep
        status, answer = self.answer(method, target, head, body)
        if answer is None:
            while self.more():
                pass
            return False
        reply = (
            f"{version} {status}\r\nX-Node: {self.name}\r\nX-Request: {self.requests}\r\n"
            f"{self.supplier}X-Line: {lines[0]}\r\n"
            f"Content-Length: {len(answer)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        if method == "HEAD":
            answer = b""
        self.connection.sendall(reply.encode() + bytes(answer))
        return keep and target != "/until-eof"

    def tunnel(self, status):
        self.connection.sendall(f"HTTP/1.1 {status}\r\nX-Node: {self.name}\r\n\r\n".encode())
        while self.buffer or self.more():
            self.connection.sendall(self.buffer)
            self.buffer = b""
        return False

    def special(self, path):
        """Answers without a length of their own; whether the connection goes on, None for others."""
        _, kind, word = (path + "//").split("/")[:3]
        start = f"X-Node: {self.name}\r\nX-Request: {self.requests}\r\n{self.supplier}"
        if kind == "slow":
            reply = f"HTTP/1.1 200 OK\r\n{start}Content-Length: 20\r\n\r\n0123456789"
            self.connection.sendall(reply.encode())
            self.wait_for(word)
            self.connection.sendall(b"abcdefghij")
        elif kind == "chunked":
            self.connection.sendall(
                f"HTTP/1.1 200 OK\r\n{start}Transfer-Encoding: chunked\r\n\r\n".encode()
            )
            for at in range(0, int(word), 1000):
                part = bytes(self.data[at : min(at + 1000, int(word))])
                self.connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            self.connection.sendall(b"0\r\n\r\n")
        elif kind == "status":
            self.connection.sendall(f"HTTP/1.1 {word} No Body\r\n{start}\r\n".encode())
        elif kind == "close":
            reply = f"HTTP/1.1 200 OK\r\n{start}Connection: close\r\n\r\n".encode()
            self.connection.sendall(reply + bytes(self.data[: int(word)]))
            return False
        elif kind in ("leave", "linger"):
            self.connection.sendall(f"HTTP/1.1 200 OK\r\n{start}Content-Length: 0\r\n\r\n".encode())
            if kind == "leave":
                self.wait_for(word)
            else:
                time.sleep(int(word) / 1000)
            return False
        elif kind == "drop":
            return False
        elif kind == "page":
            head = f"HTTP/1.1 200 OK\r\n{start}Content-Length: 4096\r\n\r\n"
            self.connection.sendall(head.encode())
            with open("/dev/slow", "rb") as disk:
                page = mmap.mmap(disk.fileno(), 4096, prot=mmap.PROT_READ, offset=int(word) * 4096)
            # The socket is locked while the page is read.
            self.connection.sendall(page)
        else:
            return None
        return True

    @staticmethod
    def wait_for(name):
        while not os.path.exists("/run/lard-test/" + name):
            time.sleep(0.05)

    def body(self, fields, target):
        if target == "/until-eof":
            while self.more():
                pass
            body, self.buffer = self.buffer, b""
            return body
        if fields.get("transfer-encoding", "").lower() == "chunked":
            return self.chunked()
        length = int(fields.get("content-length", 0))
        chunks, have = [self.buffer], len(self.buffer)
        self.buffer = b""
        while have < length:
            data = self.connection.recv(262144)
            if not data:
                raise OSError("the client left in the body")
            chunks.append(data)
            have += len(data)
        body = b"".join(chunks)
        body, self.buffer = body[:length], body[length:]
        return body

    def line(self):
        while b"\r\n" not in self.buffer:
            if not self.more():
                raise OSError("the client left in a chunk")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def chunked(self):
        body = b""
        while size := int(self.line(), 16):
            while len(self.buffer) < size + 2:
                if not self.more():
                    raise OSError("the client left in a chunk")
            body += self.buffer[:size]
            self.buffer = self.buffer[size + 2 :]
        self.line()
        return body

    def answer(self, method, target, head, body):
        path = target.partition("?")[0]
        if path.startswith("http://"):
            path = "/" + path[7:].partition("/")[2]
        if path == "/who":
            return "200 OK", f"{self.name}\n".encode()
        if path.startswith("/size/"):
            return "200 OK", self.data[: int(path[6:])]
        if path.startswith("/head"):
            return "200 OK", checksum(head)
        if path in ("/echo", "/until-eof"):
            return "200 OK", checksum(body)
        if path.startswith("/wait/"):
            self.wait_for(path[6:])
            return "200 OK", f"{self.name}\n".encode()
        if path.startswith("/open/"):
            open("/run/lard-test/" + path[6:], "w").close()
            return "200 OK", b""
        if path in ("/count", "/ends"):
            with self.lock:
                return "200 OK", as_json(self.counts if path == "/count" else self.ends)
        if path == "/hang":
            return "200 OK", None
        return "404 Not Found", b"no such thing\n"


def main():
    serve(*sys.argv[1:3], *map(int, sys.argv[3:]))


def serve(name, bind, port, backlog, workers, reuseport, rcvbuf, no_accept):
    Handler.data = content.stream()
    for _ in range(workers - 1):
        if os.fork() == 0:
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            break
    threading.stack_size(256 << 10)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuseport or workers > 1:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if rcvbuf:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    listener.bind((bind, port))
    listener.listen(backlog)
    if no_accept:
        Handler.wait_for(f"accept-{name}")
    while True:
        try:
            connection, _ = listener.accept()
        except ConnectionError:
            continue
        handler = Handler(connection, name)
        threading.Thread(target=handler.run, daemon=True).start()
