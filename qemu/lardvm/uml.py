#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs User-Mode Linux with the command channels that QEMU gives a guest by itself.

    uml.py DIRECTORY PORTS -- COMMAND...

Serial line N of the guest is the Unix socket `portN` in the directory, for one user after another;
its console goes to `console.log`. UML ends with this process, and this process with UML.

A serial line of UML stops for good once its reader is behind by 4 KiB. So the agent tells what it
has read, in lines `+OCTETS` between its answers (`+0`: it begins), and no more than a window is
under way.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys


WINDOW = 2048  # octets


class Port:
    """One serial line: the guest's end is a socket pair, the host's a listening Unix socket."""

    def __init__(self, directory, number, selector):
        self.ours, self.theirs = socket.socketpair()
        path = os.path.join(directory, f"port{number}")
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.user = None
        self.selector = selector
        self.room = WINDOW
        self.to_guest = b""
        self.line = b""
        selector.register(self.listener, selectors.EVENT_READ, self.accept)
        selector.register(self.ours, selectors.EVENT_READ, self.from_guest)

    def accept(self):
        connection, _ = self.listener.accept()
        if self.user is not None:
            self.leave()
        self.user = connection
        self.selector.register(connection, selectors.EVENT_READ, self.from_user)

    def leave(self):
        self.selector.unregister(self.user)
        self.user.close()
        self.user = None

    def from_guest(self):
        *lines, self.line = (self.line + self.ours.recv(65536)).split(b"\n")
        for line in lines:
            if line.startswith(b"+"):
                read = int(line[1:])
                self.room = min(self.room + read, WINDOW) if read else WINDOW
            elif self.user is not None:
                try:
                    self.user.sendall(line + b"\n")
                except OSError:
                    self.leave()
        self.push()

    def push(self):
        now, self.to_guest = self.to_guest[: self.room], self.to_guest[self.room :]
        self.room -= len(now)
        self.ours.sendall(now)

    def from_user(self):
        try:
            data = self.user.recv(65536)
        except OSError:
            data = b""
        if data:
            self.to_guest += data
            self.push()
        else:
            self.leave()


def main():
    directory, count = sys.argv[1], int(sys.argv[2])
    command = sys.argv[4:]
    selector = selectors.DefaultSelector()
    ports = [Port(directory, number, selector) for number in range(count)]
    # Not /dev/null as input: UML waits for input by epoll, which does not take it.
    ours, console = socket.socketpair()
    keep = [port.theirs.fileno() for port in ports] + [console.fileno()]
    command += ["con=null", "ssl=null", f"con0=fd:{console.fileno()}"]
    command += [f"ssl{n}=fd:{port.theirs.fileno()}" for n, port in enumerate(ports)]
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        pass_fds=keep,
    )
    console.close()
    for port in ports:
        port.theirs.close()
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    with open(os.path.join(directory, "console.log"), "ab", buffering=0) as log:
        running = True

        def from_console():
            nonlocal running
            data = ours.recv(65536)
            log.write(data.replace(b"\r\n", b"\n"))
            running = bool(data)

        selector.register(ours, selectors.EVENT_READ, from_console)
        while running:
            for key, _ in selector.select():
                try:
                    key.data()
                except (BrokenPipeError, ConnectionResetError):
                    running = False  # UML has ended
    process.wait()


main()
