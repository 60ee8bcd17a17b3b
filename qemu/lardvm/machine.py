# SPDX-License-Identifier: GPL-2.0
"""One machine of a cluster as a test sees it, wherever it runs.

A node is a guest or a namespace in one; a client is a namespace on the host or in a guest. All
are commanded the same way.
"""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import tempfile
import threading

from . import build
from .channel import decode, encode

# Each command of a test ends; this is for one that names no time.
COMMAND_LIMIT = 60


@dataclasses.dataclass
class Result:
    stdout: str
    stderr: str
    code: int


class Machine:
    """What is common: commands are made of `_spawn`, `_program`, `put` and `get`."""

    # Has a test killed it?
    gone = False

    def __init__(self, name, ext=None, int_=None, slow=1):
        self.name = name
        self.ext = ext
        self.int = int_
        self.slow = slow
        self.procs = []
        self.shaped = set()
        self.redirected = set()

    def __repr__(self):
        return f"<{self.name}>"

    def sh(self, cmd, check=True, timeout=COMMAND_LIMIT, input=None):
        if isinstance(input, str):
            input = input.encode()
        return self._end(self._spawn(cmd, input), cmd, check, timeout)

    def python(self, text, timeout=COMMAND_LIMIT):
        """Runs the text of a Python program."""
        return self._end(self._program(text), "a program", True, timeout)

    def _end(self, proc, what, check, timeout):
        try:
            result = proc.wait(timeout)
        except TimeoutError:
            text = tail(proc.stdout())
            proc.kill()
            raise AssertionError(
                f"{self.name}: no end within {timeout} s: {what}\n{text}"
            ) from None
        if check and result.code:
            raise AssertionError(
                f"{self.name}: exit code {result.code} of: {what}\n{tail(result.stdout)}\n"
                f"{tail(result.stderr)}"
            )
        return result

    def spawn(self, cmd):
        """Starts a command in the background; it is killed at the end of the test."""
        return self._background(self._spawn(cmd, None))

    def spawn_python(self, text):
        return self._background(self._program(text))

    def _background(self, proc):
        self.procs.append(proc)
        return proc

    def kill_procs(self):
        for proc in self.procs:
            if proc.poll() is None:
                proc.kill()
        self.procs.clear()

    def netem(self, iface, spec):
        """Sets, or with None removes, what happens to the packets that leave by the interface."""
        if spec is None:
            self.sh(f"tc qdisc del dev {iface} root", check=False)
            self.shaped.discard(iface)
        else:
            self.sh(f"tc qdisc replace dev {iface} root netem {spec}")
            self.shaped.add(iface)

    def netem_arriving(self, iface, spec):
        """Sets what happens to the packets that come in by the interface; for links whose other end has
        no netem."""
        through = f"{iface}-in"
        self.sh(
            f"ip link add {through} type ifb && ip link set {through} up"
            f" && tc qdisc add dev {through} root netem {spec}"
        )
        self.redirected.add(iface)
        self.sh(
            f"tc qdisc add dev {iface} ingress && tc filter add dev {iface} ingress matchall"
            f" action mirred egress redirect dev {through}"
        )

    def undo_netem(self):
        for iface in list(self.shaped):
            self.netem(iface, None)
        for iface in self.redirected:
            self.sh(f"tc qdisc del dev {iface} ingress; ip link del {iface}-in", check=False)
        self.redirected.clear()

    def counters(self, iface):
        links = json.loads(self.sh(f"ip -s -s -j link show dev {iface}").stdout)
        stats = links[0]["stats64"]
        return {
            f"{way}_{name}": value
            for way in ("rx", "tx")
            for name, value in stats[way].items()
        }

    def nstat(self):
        text = self.sh("nstat -asz --json").stdout
        return json.loads(text)["kernel"]

    def write(self, path, text):
        self.put(path, text.encode())


def sh_each(commands, check=True, timeout=COMMAND_LIMIT):
    """{machine: command}, side by side; what came of them, in their order."""
    running = [(machine, cmd, machine._spawn(cmd, None)) for machine, cmd in commands.items()]
    return [machine._end(process, cmd, check, timeout) for machine, cmd, process in running]


def sh_all(machines, cmd, check=True, timeout=COMMAND_LIMIT):
    """The same on each machine."""
    return sh_each(dict.fromkeys(machines, cmd), check, timeout)


def tail(text, size=3000):
    return text if len(text) <= size else "... " + text[-size:]


class GuestMachine(Machine):
    """A guest, or one namespace of it."""

    def __init__(self, vm, name, netns=None, **places):
        super().__init__(name, **places)
        self.vm = vm
        self.netns = netns

    def _spawn(self, cmd, input):
        fields = {} if input is None else {"input": encode(input)}
        return self._run(cmd=cmd, **fields)

    def _program(self, text):
        return self._run(python=text)

    def _run(self, **fields):
        place = {"ns": self.netns, "env": {"LARD_NODE": self.name}}
        return GuestProc(self.vm, self.vm.channel.ask("run", **place, **fields))

    def put(self, path, data, mode=0o644):
        self.vm.channel.call("put", path=path, data=encode(data), mode=mode, timeout=60)

    def get(self, path):
        return decode(self.vm.channel.call("get", path=path, timeout=60)["data"])

    @property
    def gone(self):
        return self.netns is None and self.vm.killed

    def kill(self):
        """The machine is gone without a word."""
        if self.netns is None:
            self.vm.killed = True
            self.vm.stop()
        else:
            root = GuestMachine(self.vm, self.vm.spec.name)
            self.sh("ip link set ext0 down; ip link set int0 down", check=False)
            root.sh(f"kill -9 $(ip netns pids {self.netns})", check=False)


class GuestProc:
    """A command that runs in a guest."""

    def __init__(self, vm, request):
        self.vm = vm
        self.request = request
        self.pid = request.answer(30)["pid"]
        self.result = None
        self.lock = threading.Lock()

    def wait(self, timeout=COMMAND_LIMIT):
        with self.lock:
            if self.result is None:
                answer = self.request.answer(timeout)
                self.request.forget()
                self.result = Result(
                    decode(answer["out"]).decode(errors="replace"),
                    decode(answer["err"]).decode(errors="replace"),
                    answer["code"],
                )
        return self.result

    def poll(self):
        try:
            return self.wait(0).code
        except TimeoutError:
            return None

    def kill(self, sig=signal.SIGKILL):
        self.vm.channel.call("kill", pid=self.pid, signal=int(sig))

    def _output(self, kind):
        if self.result is None:
            answer = self.vm.channel.call("output", of=self.request.number)
            if answer["out"] or answer["err"] or self.poll() is None:
                return decode(answer[kind]).decode(errors="replace")
        result = self.wait(5)
        return result.stdout if kind == "out" else result.stderr

    def stdout(self):
        return self._output("out")

    def stderr(self):
        return self._output("err")


class HostMachine(Machine):
    """A network namespace of this machine: ordinary processes of the host."""

    def __init__(self, name, netns, **places):
        super().__init__(name, **places)
        self.netns = netns

    def _spawn(self, cmd, input):
        tools = os.path.dirname(build.tool_path("x"))
        environment = {
            **os.environ,
            "G": build.GUEST_PROGRAMS,
            "PYTHONPATH": build.GUEST_PROGRAMS,
            "PYTHONDONTWRITEBYTECODE": "1",
            "LARD_NODE": self.name,
            "PATH": f"{tools}:{os.environ['PATH']}:/usr/sbin:/sbin",
        }
        return HostProc(["ip", "netns", "exec", self.netns, "sh", "-c", cmd], input, environment)

    def _program(self, text):
        return self._spawn("exec python3 -", text.encode())

    def put(self, path, data, mode=0o644):
        # Whoever waits for it finds it whole.
        with open(path + ".new", "wb") as file:
            file.write(data)
        os.chmod(path + ".new", mode)
        os.rename(path + ".new", path)

    def get(self, path):
        return build.read(path)

    def kill(self):
        for link in ("ext0", "int0"):
            self.sh(f"ip link set {link} down", check=False)


class HostProc:
    def __init__(self, command, input, environment):
        self.out = tempfile.TemporaryFile()
        self.err = tempfile.TemporaryFile()
        with tempfile.TemporaryFile() as stdin:
            stdin.write(input or b"")
            stdin.seek(0)
            self.process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=self.out,
                stderr=self.err,
                start_new_session=True,
                env=environment,
            )
        self.pid = self.process.pid

    def wait(self, timeout=COMMAND_LIMIT):
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"no end within {timeout} s") from None
        return Result(self.stdout(), self.stderr(), code)

    def poll(self):
        return self.process.poll()

    def kill(self, sig=signal.SIGKILL):
        try:
            os.killpg(self.pid, sig)
        except ProcessLookupError:
            pass

    def stdout(self):
        return self._text(self.out)

    def stderr(self):
        return self._text(self.err)

    @staticmethod
    def _text(file):
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), size, 0).decode(errors="replace")


def quoted(words):
    return " ".join(shlex.quote(word) for word in words)
