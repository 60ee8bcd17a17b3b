#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The program inside a guest that does what the harness asks for.

One thread a virtio port `lard.N` (a serial line in User-Mode Linux); a request is one line of JSON,
an answer too, both with the `id` that the asker chose, so that many commands run at once. Lines
that are no JSON (the rest of a message of an asker that died) are ignored. `channel.py` is the
other end, `place.py` what runs the commands.

    {"id": 1, "op": "run", "cmd": "ip addr", "ns": "node1"}     or "python": the text of a program
    {"id": 1, "pid": 77}                                        it runs
    {"id": 1, "code": 0, "out": "...", "err": "..."}            it has ended (base64)

A serial line has no flow control, so there the agent says how much it has read: see `uml.py`.
"""

import base64
import glob
import json
import os
import signal
import socket
import threading
import time
import tty

import place

STATE = "/run/lard-agent"
SO_TIMESTAMP = 29


def encode(data):
    return base64.b64encode(data).decode()


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


class KernelLog:
    """Kernel messages; each is read once, however often it is asked for."""

    def __init__(self):
        self.lock = threading.Lock()
        self.fd = None
        self.known = []  # (number, line) of those after `forgotten`
        self.forgotten = -1

    def after(self, number):
        with self.lock:
            if self.fd is None or number < self.forgotten:
                self.rewind()
            self.read()
            self.known = [message for message in self.known if message[0] > number]
            self.forgotten = number
            last = self.known[-1][0] if self.known else number
            return {"lines": [line for _, line in self.known], "last": last}

    def rewind(self):
        if self.fd is not None:
            os.close(self.fd)
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        self.known = []

    def read(self):
        lost = False
        while True:
            try:
                record = os.read(self.fd, 8192).decode(errors="replace")
            except BlockingIOError:
                break
            except BrokenPipeError:  # messages were lost to the ring's size
                lost = True
                continue
            head, _, text = record.partition(";")
            level, number, microseconds = head.split(",")[:3]
            if lost:
                self.known.append((int(number), "(messages lost)"))
                lost = False
            first = text.split("\n")[0]
            line = f"[{int(microseconds) / 1e6:12.6f}] <{int(level) & 7}> {first}"
            self.known.append((int(number), line))


class Port:
    """One port: requests in, answers out, in any order."""

    def __init__(self, device, number):
        self.fd = os.open(device, os.O_RDWR | os.O_NOCTTY)
        self.number = number
        self.writing = threading.Lock()
        self.log = KernelLog()
        self.serial = os.isatty(self.fd)
        if self.serial:
            tty.setraw(self.fd)  # and forgets what came before
            self.write(b"+0\n")

    def answer(self, message):
        self.write(json.dumps(message).encode() + b"\n")

    def write(self, data):
        with self.writing:
            while data:
                data = data[os.write(self.fd, data) :]

    def serve(self):
        rest = b""
        while True:
            data = os.read(self.fd, 65536)
            if not data:  # nobody at the other end
                rest = b""
                # Most ports stay so, and an emulated guest pays for each look.
                time.sleep(0.3)
                continue
            if self.serial:
                self.write(b"+%d\n" % len(data))
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                try:
                    request = json.loads(line)
                    operation = getattr(self, "do_" + request["op"])
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
                threading.Thread(target=self.do, args=(operation, request), daemon=True).start()

    def do(self, operation, request):
        try:
            answer = operation(request)
        except Exception as error:  # the asker is told, the agent lives on
            answer = {"error": f"{type(error).__name__}: {error}"}
        if answer is not None:
            self.answer({"id": request.get("id"), **answer})

    def do_run(self, request):
        # Output goes to files: a daemon that keeps them open delays no answer.
        files = f"{STATE}/{self.number}-{request['id']}"
        with open(files + ".in", "wb") as stdin:
            stdin.write(base64.b64decode(request.get("input", "")))
        fields = {key: request[key] for key in ("cmd", "python", "env") if key in request}
        pid, end = place.start(request.get("ns"), files=files, **fields)
        self.answer({"id": request["id"], "pid": pid})
        code = end.get()
        output = {"out": encode(read(files + ".out")), "err": encode(read(files + ".err"))}
        for kind in (".in", ".out", ".err"):
            os.unlink(files + kind)
        return {"code": code, **output}

    def do_output(self, request):
        name = f"{STATE}/{self.number}-{request['of']}"
        return {"out": encode(read(name + ".out")), "err": encode(read(name + ".err"))}

    def do_kill(self, request):
        try:
            os.killpg(request["pid"], request.get("signal", signal.SIGKILL))
        except ProcessLookupError:
            pass
        return {}

    def do_put(self, request):
        path = request["path"]
        os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
        # A new file: the old one may be a program that runs.
        with open(path + ".new", "wb") as file:
            file.write(base64.b64decode(request["data"]))
        os.chmod(path + ".new", request.get("mode", 0o644))
        os.rename(path + ".new", path)
        return {}

    def do_get(self, request):
        with open(request["path"], "rb") as file:
            return {"data": encode(file.read())}

    def do_kernel_log(self, request):
        """Kernel messages after the one with that number, and the number of the last."""
        return self.log.after(request.get("after", -1))

    def do_ping(self, _):
        return {"uptime": time.monotonic()}


def hold_timestamps():
    """A socket that wants timestamps of packets, for good. Each ping and tcpdump would else make the
    kernel rewrite its own code twice, which an emulator of two processors may not survive."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    holder.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    return holder


def main():
    os.makedirs(STATE, exist_ok=True)
    holder = hold_timestamps()
    ports = []
    for entry in glob.glob("/sys/class/virtio-ports/*"):
        name = read(entry + "/name").decode().strip()
        if name.startswith("lard."):
            ports.append(Port("/dev/" + os.path.basename(entry), int(name[5:])))
    if not ports:
        ports = [Port(f"/dev/ttyS{number}", number) for number in range(6)]
    threads = [threading.Thread(target=port.serve, daemon=True) for port in ports]
    for thread in threads:
        thread.start()
    with open("/dev/kmsg", "w") as log:
        log.write("lard-guest: ready\n")
    for thread in threads:
        thread.join()
    holder.close()


main()
