# SPDX-License-Identifier: GPL-2.0
"""Processes of a guest that commands are forked from, one in each namespace.

To start a program takes long where every instruction is emulated, Python with its modules most of
all; so a test's program is run by a fork of a process that has them already, and that process, too, is
a fork of the first one, which is outside of the namespaces.

`start` is for the agent, in any thread. The first process is this file as a program: it has one
thread, as what forks must, reads requests from a socket and tells of each its pid and exit code.
"""

import ctypes
import gc
import itertools
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback

ENVIRONMENT = {
    "PATH": "/lard/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "G": "/lard/guest",
    "PYTHONPATH": "/lard/guest",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
}
ATTEMPTS = 3
LIBC = ctypes.CDLL(None, use_errno=True)
MNT_DETACH = 2
MS_REC, MS_SLAVE = 1 << 14, 1 << 19


class Gone(Exception):
    """The process was killed, or its namespace is another one by now."""


class Place:
    def __init__(self, namespace, first):
        """In a namespace it is a fork of the first one."""
        self.socket, theirs = socket.socketpair()
        self.process = None
        if namespace:
            first.start({"namespace": namespace}, theirs)
        else:
            self.process = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=ENVIRONMENT,
                cwd="/root",
            )
        theirs.close()
        self.identity = identity(namespace)
        self.numbers = itertools.count()
        self.waiting = {}
        self.gone = False
        self.lock = threading.Lock()
        threading.Thread(target=self._receive, daemon=True).start()

    def start(self, request, connection=None):
        """The pid, and a queue that gets the exit code; raises Gone."""
        begun, ended = queue.SimpleQueue(), queue.SimpleQueue()
        with self.lock:
            if self.gone:
                raise Gone
            number = next(self.numbers)
            self.waiting[number] = begun, ended
            line = json.dumps([number, request]).encode() + b"\n"
            try:
                if connection:
                    socket.send_fds(self.socket, [line], [connection.fileno()])
                else:
                    self.socket.sendall(line)
            except OSError:
                self.gone = True
                raise Gone from None
        pid = begun.get()
        if pid is None:
            raise Gone
        return pid, ended

    def _receive(self):
        try:
            for line in self.socket.makefile("rb"):
                number, pid, code = json.loads(line)
                begun, ended = self.waiting[number]
                if pid:
                    begun.put(pid)
                else:
                    with self.lock:
                        del self.waiting[number]
                    ended.put(code)
        except OSError:
            pass
        with self.lock:
            self.gone = True
            for begun, ended in self.waiting.values():
                begun.put(None)
                # Whoever killed this process killed what it had started.
                ended.put(-signal.SIGKILL)
        if self.process:
            self.process.wait()
        self.socket.close()


PLACES = {}
PLACES_LOCK = threading.Lock()


def identity(namespace):
    try:
        return os.stat(f"/run/netns/{namespace}").st_ino if namespace else 0
    except FileNotFoundError:
        return None


def start(namespace, **request):
    """Starts {"cmd": a shell's} or {"python": a program's text} with the environment `env`; what
    `files` names, with `.in`, `.out` and `.err`, is its input and output."""
    if identity(namespace) is None:
        # `ip` says it better.
        namespace, request = None, {**request, "cmd": f"exec ip netns exec {namespace} true"}
        request.pop("python", None)
    for _ in range(ATTEMPTS):
        try:
            with PLACES_LOCK:
                place = find(namespace)
            return place.start(request)
        except Gone:
            pass
    raise RuntimeError(f"nothing can be started in namespace {namespace}")


def find(namespace):
    """The place there, which is made when it is not, or is not good any more; raises Gone."""
    place = PLACES.get(namespace)
    if place is None or place.gone or place.identity != identity(namespace):
        place = PLACES[namespace] = Place(namespace, find(None) if namespace else None)
    return place


def enter(namespace):
    """What `ip netns exec` does before the command: /sys is that of the namespace, and what is mounted
    from here on is seen by nobody else."""
    with open(f"/run/netns/{namespace}") as file:
        os.setns(file.fileno(), os.CLONE_NEWNET)
    os.unshare(os.CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_SLAVE)
    LIBC.umount2(b"/sys", MNT_DETACH)
    mount(namespace, "/sys", "sysfs")


def mount(what, where, kind, flags=0):
    kind = kind and kind.encode()
    if LIBC.mount(what.encode(), where.encode(), kind, ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), f"mount {where}")


class Forker:
    """The process: forks what it is asked for."""

    def __init__(self, connection):
        self.connection = connection
        self.running = {}
        self.received = []  # connections for other processes, in the order of their requests
        self.pipe = os.pipe()
        for end in self.pipe:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self.pipe[1])
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self):
        """Returns in the forked child the text of the program that it is to run."""
        rest = b""
        wake = self.pipe[0]
        while True:
            ready, _, _ = select.select([self.connection, wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
                self.reap()
            if self.connection in ready:
                data, received, _, _ = socket.recv_fds(self.connection, 65536, 16)
                self.received += [socket.socket(fileno=fd) for fd in received]
                if not data:
                    os._exit(0)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    number, request = json.loads(line)
                    connection = self.received.pop(0) if "namespace" in request else None
                    if "cmd" in request:
                        try:
                            self.began(number, spawn(request))
                            continue
                        except OSError as error:
                            # It may be too long; that is its failure, not the end of this process.
                            request["python"] = f"raise SystemExit({str(error)!r})"
                    pid = os.fork()
                    if pid == 0:
                        self.leave()
                        if connection:
                            enter(request["namespace"])
                            return Forker(connection).serve()
                        return become(request)
                    if connection:
                        connection.close()
                    self.began(number, pid)

    def began(self, number, pid):
        self.running[pid] = number
        self.tell(number, pid, None)

    def tell(self, number, pid, code):
        self.connection.sendall(json.dumps([number, pid, code]).encode() + b"\n")

    def reap(self):
        while self.running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            self.tell(self.running.pop(pid), None, os.waitstatus_to_exitcode(status))

    def leave(self):
        """In the child: of the parent nothing is left open."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for connection in [self.connection, *self.received]:
            connection.close()
        for end in self.pipe:
            os.close(end)


def opened(request):
    """What is to be standard input, output and error: number, path, flags and mode of each."""
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for fd, (kind, flags) in enumerate([(".in", os.O_RDONLY), (".out", new), (".err", new)]):
        yield fd, request["files"] + kind, flags, 0o644


def spawn(request):
    """A shell, without a copy of this process for the moment until it is one."""
    actions = [(os.POSIX_SPAWN_OPEN, *file) for file in opened(request)]
    words = ["sh", "-c", request["cmd"]]
    environment = {**os.environ, **request.get("env", {})}
    return os.posix_spawn("/bin/sh", words, environment, file_actions=actions, setsid=True)


def become(request):
    """In the child of a fork; returns the text of the program."""
    for fd, path, flags, mode in opened(request):
        file = os.open(path, flags, mode)
        os.dup2(file, fd)
        os.close(file)
    os.environ.update(request.get("env", {}))
    return request["python"]


def preload():
    """What the tests' programs import."""
    import contextlib, hashlib, random, re, struct, time  # noqa: F401, E401

    import client, content, member, rawtcp, serve  # noqa: F401, E401

    # What is there by now is not looked at, and so not copied, in a fork.
    gc.freeze()


def run(program):
    """Runs the text and ends. What Python itself does at its end goes through all modules, and with that
    copies them."""
    code = 0
    try:
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    preload()
    run(Forker(socket.socket(fileno=int(sys.argv[1]))).serve())
