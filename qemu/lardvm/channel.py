# SPDX-License-Identifier: GPL-2.0
"""The host's end of a guest's command channel; `agent.py` is the guest's.

A guest has several virtio ports, each a Unix socket on the host that one process at a time may
use: who holds the lock on the file beside it. So tests, a person and the demo can command one
guest at the same time.
"""

import base64
import fcntl
import itertools
import json
import os
import queue
import socket
import threading

PORTS = 6


class GuestGone(Exception):
    """The guest does not answer any more."""


class Channel:
    """One port of a guest; used by any number of threads."""

    def __init__(self, directory, timeout=30):
        self.lock, path = self._take(directory)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.socket.settimeout(None)
        # Ends what an earlier user of this port may have left half sent.
        self.socket.sendall(b"\n")
        self.numbers = (f"{os.getpid()}.{n}" for n in itertools.count(1))
        self.waiting = {}
        self.writing = threading.Lock()
        self.gone = False
        threading.Thread(target=self._receive, daemon=True).start()

    @staticmethod
    def _take(directory):
        for number in range(PORTS):
            lock = open(os.path.join(directory, f"port{number}.lock"), "w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            return lock, os.path.join(directory, f"port{number}")
        raise GuestGone(f"all {PORTS} ports of the guest in {directory} are in use")

    def close(self):
        self.socket.close()
        self.lock.close()

    def _receive(self):
        rest = b""
        while True:
            try:
                data = self.socket.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                break
            if b"\n" not in data:
                rest += data
                continue
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                try:
                    message = json.loads(line)
                except ValueError:
                    continue
                # A serial line that the agent has not opened yet may echo the request.
                if "op" in message:
                    continue
                answers = self.waiting.get(message.get("id"))
                if answers is not None:
                    answers.put(message)
        self.gone = True
        for answers in list(self.waiting.values()):
            answers.put(None)

    def ask(self, op, **fields):
        """Sends a request and returns what gives its answers."""
        number = next(self.numbers)
        request = Request(self, number)
        self.waiting[number] = request.answers
        data = json.dumps({"id": number, "op": op, **fields}).encode() + b"\n"
        try:
            with self.writing:
                self.socket.sendall(data)
        except OSError as error:
            raise GuestGone(str(error)) from error
        if self.gone:
            request.answers.put(None)
        return request

    def call(self, op, timeout=30, **fields):
        """Sends a request that has one answer, and returns it."""
        request = self.ask(op, **fields)
        try:
            return request.answer(timeout)
        finally:
            request.forget()


class Request:
    def __init__(self, channel, number):
        self.channel = channel
        self.number = number
        self.answers = queue.SimpleQueue()

    def answer(self, timeout):
        """The next answer; raises TimeoutError, or GuestGone when the guest ended."""
        try:
            message = self.answers.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"no answer of the guest within {timeout:.0f} s") from None
        if message is None:
            self.answers.put(None)
            raise GuestGone("the guest ended")
        if "error" in message:
            raise RuntimeError(f"in the guest: {message['error']}")
        return message

    def forget(self):
        self.channel.waiting.pop(self.number, None)


def encode(data):
    return base64.b64encode(data).decode()


def decode(text):
    return base64.b64decode(text)
