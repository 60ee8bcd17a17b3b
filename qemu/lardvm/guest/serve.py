#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Starts one web server of a test cluster on the module's family and says `ready`.

    serve.py nginx|apache|python --name node2 [--port 7080] [--workers N] [--reuseport]
             [--bind ADDR] [--rcvbuf N] [--backlog N] [--plain] [--no-accept]
             [--root DIR [--uncached]] [--threads]

nginx and Apache are the distribution's, unmodified, started through `lard_run` (`--plain`: on the
regular stack). The python server answers requests that show what really arrived; see `Handler`.
All serve `/who` and `/size/N` of content.py, or with `--root` the files there, and mark answers with
`X-Node`; nginx answers a POST to `/take` once it has the whole body, and with `--reuseport` names the
process that answers in `X-Worker`.

The program stays in the foreground; SIGTERM ends it and the server.
"""

import argparse
import ctypes
import hashlib
import json
import mmap
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import content  # noqa: E402

NGINX = """\
user root;
daemon off;
worker_processes {workers};
worker_rlimit_nofile 40000;
pid {state}/nginx.pid;
error_log {state}/error.log warn;
events {{ worker_connections 16000; }}
http {{
    map $uri $supplier {{
        ~^/(?<node>10[.]20[.]0[.][1-9])/ $node;
    }}
    access_log off;
    sendfile on;
    {threads}{http2}tcp_nopush on;
    keepalive_requests 100000;
    client_body_temp_path {state}/body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    uwsgi_temp_path {state}/uwsgi;
    scgi_temp_path {state}/scgi;
    default_type application/octet-stream;
    server {{
        listen {bind}:{port} backlog={backlog}{reuseport}{rcvbuf};
        root {content};
        add_header X-Node {name} always;
        add_header X-Supplier $supplier always;
        {worker}location = /who {{ return 200 "{name}\\n"; }}
        location = /take {{
            client_max_body_size 0;
            client_body_buffer_size 2m;
            proxy_set_body "";
            proxy_pass http://unix:{state}/taken:/;
        }}
    }}
    # Asked when the body of a request for /take is complete.
    server {{
        listen unix:{state}/taken;
        return 200 "taken\\n";
    }}
}}
"""

APACHE = """\
ServerName {name}
ServerRoot {state}
PidFile {state}/apache.pid
ErrorLog {state}/error.log
Mutex pthread
DefaultRuntimeDir {state}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule setenvif_module {modules}/mod_setenvif.so
Listen {bind}:{port}
ListenBacklog {backlog}
StartServers {workers}
MaxRequestWorkers 150
KeepAliveTimeout 15
MaxKeepAliveRequests 0
DocumentRoot {content}
EnableMMAP {maps}
Alias /who {state}/who
Header always set X-Node {name}
SetEnvIf Request_URI "^/(10[.]20[.]0[.][1-9])/" SUPPLIER=$1
Header always set X-Supplier %{{SUPPLIER}}e env=SUPPLIER
<Directory />
    Require all granted
</Directory>
"""


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
        named = re.match(r"/(10[.]20[.]0[.][1-9])(/.*)", target)
        self.supplier = f"X-Supplier: {named[1]}\r\n" if named else ""
        target = named[2] if named else target
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
            digest = hashlib.sha256(head).hexdigest()
            return "200 OK", json.dumps({"length": len(head), "sha256": digest}).encode()
        if path in ("/echo", "/until-eof"):
            digest = hashlib.sha256(body).hexdigest()
            return "200 OK", json.dumps({"length": len(body), "sha256": digest}).encode()
        if path.startswith("/wait/"):
            self.wait_for(path[6:])
            return "200 OK", f"{self.name}\n".encode()
        if path.startswith("/open/"):
            open("/run/lard-test/" + path[6:], "w").close()
            return "200 OK", b""
        if path in ("/count", "/ends"):
            with self.lock:
                told = self.counts if path == "/count" else self.ends
                return "200 OK", json.dumps(told).encode()
        if path == "/hang":
            return "200 OK", None
        return "404 Not Found", b"no such thing\n"


def python_server(options):
    """The python server itself, already under lard_run."""
    Handler.data = content.stream()
    threading.stack_size(256 << 10)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.reuseport or options.workers > 1:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if options.rcvbuf:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.rcvbuf)
    listener.bind((options.bind, options.port))
    listener.listen(options.backlog)
    if options.no_accept:
        while not os.path.exists(f"/run/lard-test/accept-{options.name}"):
            time.sleep(0.1)
    while True:
        try:
            connection, _ = listener.accept()
        except ConnectionError:
            continue
        handler = Handler(connection, options.name)
        threading.Thread(target=handler.run, daemon=True).start()


def listeners(port):
    """Listening sockets of this namespace on a port."""
    found = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                for line in file.readlines()[1:]:
                    word = line.split()
                    if word[3] == "0A" and int(word[1].rpartition(":")[2], 16) == port:
                        found += 1
        except FileNotFoundError:
            pass
    return found


def command(options, words):
    state = f"/run/lard-test/{options.name}-{options.port}"
    os.makedirs(state, exist_ok=True)
    names = {
        "state": state,
        "content": options.root or content.ROOT,
        "modules": "/usr/lib/apache2/modules",
        "name": options.name,
        "bind": options.bind,
        "port": options.port,
        "workers": options.workers,
        "backlog": options.backlog,
        "reuseport": " reuseport" if options.reuseport else "",
        "worker": "add_header X-Worker $pid always;\n        " if options.reuseport else "",
        "rcvbuf": f" rcvbuf={options.rcvbuf}" if options.rcvbuf else "",
        # What is mapped goes through the cache.
        "maps": "Off" if options.uncached else "On",
        "http2": "http2 on;\n    " if options.http2 else "",
        # A read may wait long for a slow disk that many use.
        "threads": "aio threads;\n    send_timeout 600s;\n    " if options.threads else "",
    }
    if not options.root:
        content.prepare()
    run = [] if options.plain else ["lard_run"]
    if options.uncached:
        run += ["--uncached", options.root]
    if options.kind == "nginx":
        # One that was killed leaves it, and then the next cannot listen there.
        pathlib.Path(state, "taken").unlink(missing_ok=True)
        with open(f"{state}/nginx.conf", "w") as file:
            file.write(NGINX.format(**names))
        return run + ["nginx", "-p", state, "-c", f"{state}/nginx.conf"]
    if options.kind == "apache":
        with open(f"{state}/who", "w") as file:
            file.write(f"{options.name}\n")
        with open(f"{state}/apache.conf", "w") as file:
            file.write(APACHE.format(**names))
        return run + ["apache2", "-DFOREGROUND", "-f", f"{state}/apache.conf"]
    # As a module, of which the bytecode is kept.
    return run + [sys.executable, "-c", "import serve; serve.main()", *words, "--inner"]


def main(words=None):
    """With the words of a command line; without, those of the program's."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="serve.py")
    parser.add_argument("kind", choices=("nginx", "nginx-reuseport", "apache", "python"))
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=7080)
    parser.add_argument("--bind", default="0.0.0.0")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--reuseport", action="store_true")
    parser.add_argument("--rcvbuf", type=int, default=0)
    parser.add_argument("--backlog", type=int, default=4096)
    parser.add_argument("--root", help="nginx and Apache serve these documents, not content.py's")
    parser.add_argument(
        "--threads", action="store_true", help="nginx goes on while files are read from disk"
    )
    parser.add_argument(
        "--uncached", action="store_true", help="what other nodes have in --root is read past the cache"
    )
    parser.add_argument("--http2", action="store_true", help="nginx speaks it, too, without TLS")
    parser.add_argument("--plain", action="store_true", help="on the regular stack")
    parser.add_argument(
        "--no-accept",
        action="store_true",
        help="listen, and accept only once /run/lard-test/accept-NAME exists",
    )
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.kind == "nginx-reuseport":
        options.kind, options.reuseport, options.workers = "nginx", True, 4
    if options.inner:
        for _ in range(options.workers - 1):
            if os.fork() == 0:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
                break
        python_server(options)
    if listeners(options.port) and options.bind == "0.0.0.0":
        sys.exit(f"serve.py: port {options.port} has a listener already")
    server = subprocess.Popen(command(options, words), stdin=subprocess.DEVNULL)

    def end(*_):
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        limit = time.monotonic() + 60
        while listeners(options.port) == 0:
            if server.poll() is not None:
                sys.exit(f"serve.py: {options.kind} ended with {server.returncode} before it listened")
            if time.monotonic() > limit:
                sys.exit(f"serve.py: {options.kind} does not listen after 60 s")
            time.sleep(0.05)
        print("ready", flush=True)
        sys.exit(server.wait())
    finally:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


if __name__ == "__main__":
    main()
