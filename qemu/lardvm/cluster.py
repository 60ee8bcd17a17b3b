# SPDX-License-Identifier: GPL-2.0
"""LARD on the machines of a lab: servers, cluster_startup, the module, and what they tell.

A `Layout` says which node has which component; a `Cluster` brings a lab there and takes it back.
Commands that a person would type are the interface; the harness knows no other.
"""

import dataclasses
import json
import time

from . import lab as labs
from .machine import sh_all, tail

FRONT_END_PORT = 8080
BACK_END_PORT = 7080
# Times are for a machine that runs guests natively; a slower one gets more by `Lab.slow`.
JOIN_LIMIT = 40
SERVER_LIMIT = 40
STOP_LIMIT = 20


@dataclasses.dataclass(frozen=True)
class Layout:
    """Node numbers of each component; servers and options for all nodes, or by node number."""

    nodes: int = 4
    d: int = 1
    fe: tuple = (2, 3, 4)
    be: tuple = (2, 3, 4)
    servers: object = "python"
    options: object = dataclasses.field(default_factory=dict)

    def server(self, number):
        if isinstance(self.servers, dict):
            return self.servers.get(number)
        return self.servers

    def words(self, number):
        """The command line of a node."""
        words = ["cluster_startup"]
        if number == self.d:
            words.append("-D")
        if number in self.fe:
            words += ["-FE", "-fp", str(FRONT_END_PORT)]
        if number in self.be:
            words += ["-BE", "-bp", str(BACK_END_PORT)]
        if number != self.d:
            words += ["-da", labs.int_address(self.d)]
        words += ["--internal", labs.int_address(number), "--name", f"node{number}"]
        options = self.options
        if isinstance(options, dict):
            options = options.get(number, "")
        return " ".join([*words, options]).strip()

    def members(self):
        return sorted({self.d, *self.fe, *self.be})


class Cluster:
    """A lab with a layout; `start` makes it a running cluster."""

    def __init__(self, lab, layout):
        self.lab = lab
        self.layout = layout
        self.title = ""  # of what it was used for last
        self.spoilt = False
        self.startup = {}
        self.server = {}
        self.changed = []

    # --- the machines

    @property
    def mode(self):
        return self.lab.mode

    @property
    def slow(self):
        return self.lab.slow

    @property
    def nodes(self):
        return self.lab.nodes[: self.layout.nodes]

    @property
    def client(self):
        return self.lab.client

    @property
    def guests(self):
        return self.lab.roots()

    def node(self, number):
        return self.lab.nodes[number - 1]

    @property
    def fes(self):
        return [self.node(i) for i in self.layout.fe]

    @property
    def bes(self):
        return [self.node(i) for i in self.layout.be]

    def spoil(self):
        """This cluster is not what it was; the next test gets another one."""
        self.spoilt = True

    # --- the module

    def load(self, params=""):
        for guest in self.guests:
            guest.sh(f"insmod /lard/lard.ko {params}", timeout=30 * self.slow)

    def unload(self, force=False, check=True):
        result = None
        for guest in self.guests:
            words = "rmmod -f lard" if force else "rmmod lard"
            result = guest.sh(words, check=check, timeout=30 * self.slow)
            if result.code:
                return result
        return result

    def loaded(self, guest):
        return guest.sh("test -d /sys/module/lard", check=False).code == 0

    # --- nodes and servers

    def start(self, nodes=None, wait=True):
        """Servers and nodes of the layout; with `wait`, until all know all."""
        numbers = self.layout.members() if nodes is None else nodes
        started = [
            (i, self._spawn_server(i, self.layout.server(i)))
            for i in numbers
            if i in self.layout.be and self.layout.server(i) and i not in self.server
        ]
        for number in numbers:
            self.start_node(number)
        for number, proc in started:
            self._server_ready(number, proc)
        if wait:
            self.wait(self.complete, timeout=JOIN_LIMIT, what="all nodes know each other")

    def _spawn_server(self, number, kind):
        kind, _, words = kind.partition(" ")
        machine = self.node(number)
        words = [kind, "--name", machine.name, "--port", str(BACK_END_PORT), *words.split()]
        proc = machine._program(f"import serve; serve.main({words})")
        self.server[number] = proc
        return proc

    def _server_ready(self, number, proc):
        def ready():
            if proc.poll() is not None:
                result = proc.wait()
                raise AssertionError(
                    f"the server of node{number} ended: {tail(result.stdout)} {tail(result.stderr)}"
                )
            return "ready" in proc.stdout().split()

        self.wait(ready, timeout=SERVER_LIMIT, what=f"the server of node{number}")
        return proc

    def start_server(self, number, kind=None):
        kind = kind or self.layout.server(number)
        return self._server_ready(number, self._spawn_server(number, kind))

    def stop_server(self, number, sig=9):
        proc = self.server.pop(number, None)
        if proc:
            proc.kill(sig)
            proc.wait(STOP_LIMIT)

    def start_node(self, number):
        """cluster_startup of a node, which stays for as long as the node is one."""
        proc = self.node(number)._spawn(f"exec {self.layout.words(number)}", None)
        self.startup[number] = proc
        return proc

    def kill_node(self, number, sig=9):
        """Ends cluster_startup of a node; the machine and its server go on."""
        proc = self.startup.pop(number)
        proc.kill(sig)
        proc.wait(STOP_LIMIT * self.slow)

    def complete(self):
        """True when each node sees each other one up, by a working connection."""
        names = {f"node{i}" for i in self.layout.members()}
        for number, status in self.statuses().items():
            proc = self.startup.get(number)
            if proc is not None and proc.poll() is not None:
                result = proc.wait()
                raise AssertionError(
                    f"cluster_startup of node{number} ended with {result.code}: "
                    f"{tail(result.stdout)} {tail(result.stderr)}"
                )
            seen = {
                node["name"]
                for node in status.get("nodes", [])
                if node["link"] in ("ready", "local")
                and (node["state"] == "up" or "BE" not in node["roles"])
            }
            if not names <= seen | {f"node{number}"}:
                return False
        return True

    def _end_startup(self):
        """Ends cluster_startup everywhere; connections are left to themselves."""
        procs = list(self.startup.values())
        self.startup.clear()
        for proc in procs:
            proc.kill(15)
        for proc in procs:
            try:
                proc.wait(STOP_LIMIT * self.slow)
            except TimeoutError:
                proc.kill(9)

    def stop_nodes(self):
        """Takes all nodes out of the cluster, with their connections; servers go on."""
        self._end_startup()
        sh_all(self.nodes, "cluster_startup stop --force", check=False, timeout=20 * self.slow)

    def stop(self):
        """Ends the cluster's processes; connections are left to themselves."""
        self._end_startup()
        for number in list(self.server):
            self.stop_server(number)

    def tear_down(self):
        """Back to a lab with nothing on it; raises when something cannot be removed."""
        for machine in [*self.nodes, self.client]:
            machine.kill_procs()
        self.stop()
        self.stop_nodes()
        if self.mode == "ns":
            self.lab.remove_network()
        unload = "! test -d /sys/module/lard || rmmod lard"
        self.wait(
            lambda: all(result.code == 0 for result in sh_all(self.guests, unload, check=False)),
            timeout=40,
            what="the module can be unloaded",
        )

    # --- what it tells

    def status(self, number):
        return self._json(number, "status")

    def statuses(self):
        """Of each member; {} of one that is no node of a cluster."""
        members = self.layout.members()
        machines = [self.node(number) for number in members]
        results = sh_all(machines, "cluster_startup status --json", check=False)
        told = [{} if result.code else json.loads(result.stdout) for result in results]
        return dict(zip(members, told, strict=True))

    def stats(self, number):
        return self._json(number, "stats")

    def connections(self, number):
        return self._json(number, "connections")

    def _json(self, number, command):
        result = self.node(number).sh(f"cluster_startup {command} --json", check=False)
        if result.code:
            if command == "status":
                return {}
            raise AssertionError(f"node{number}: {command}: {tail(result.stderr)}")
        return json.loads(result.stdout)

    def stat_sum(self, name):
        return sum(self.stats(i).get(name, 0) for i in self.layout.members())

    def set(self, number, name, value):
        """Changes a parameter of the module until the end of the test."""
        machine = self.node(number)
        params = json.loads(machine.sh("cluster_startup set --json").stdout)
        before = next(param["value"] for param in params if param["name"] == name)
        machine.sh(f"cluster_startup set {name}={value}")
        self.changed.append((machine, name, before))

    def wait(self, predicate, timeout=30, what="a condition"):
        """Asks again and again until the answer is true, and returns it."""
        end = time.monotonic() + timeout * self.slow
        pause = 0.05
        while True:
            value = predicate()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout * self.slow:.0f} s: {what} ({value!r})")
            time.sleep(pause)
            # To ask costs an emulated guest more than a moment.
            pause = min(2 * pause, 0.5)

    def wait_empty(self, timeout=90):
        """Until no node has a connection, nor anything that it keeps for one."""
        kinds = ("entries", "children", "open", "half_open", "head_memory")
        left = {}

        def empty():
            left.clear()
            for number, status in self.statuses().items():
                node = status.get("node") or {}
                counts = {kind: node[kind] for kind in kinds if node.get(kind)}
                if counts:
                    left[number] = counts
            return not left

        try:
            self.wait(empty, timeout, "no connection is left")
        except AssertionError as error:
            rows = {number: self.connections(number)[:5] for number in left}
            raise AssertionError(f"{error}: {left}: {rows}") from None

    # --- around each test

    def begin_test(self):
        """What the kernels said so far belongs to nobody any more."""
        self.lab.kernel_log(forget=True)

    def kernel_log(self):
        """What the kernels of all guests said for this test: since the last one ended."""
        return self.lab.kernel_log()

    def undo(self):
        """Takes back what a test changed for its own time."""
        for machine in [*self.nodes, self.client]:
            if not machine.gone:
                machine.kill_procs()
                machine.undo_netem()
        before = {}
        for machine, name, value in self.changed:
            # The first change of a parameter knows what it was before the test.
            before.setdefault(machine, {}).setdefault(name, value)
        for machine, params in before.items():
            words = " ".join(f"{name}={value}" for name, value in params.items())
            if not machine.gone:
                machine.sh(f"cluster_startup set {words}", check=False)
        self.changed.clear()
