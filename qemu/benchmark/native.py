# SPDX-License-Identifier: GPL-2.0
"""Times that are no emulator's: the module on User-Mode Linux, all nodes in namespaces of one guest.

One processor does everything, the client's part as well, so a time is the sum of what all of them do for
it. What is not wanted in it is measured alone and taken off; where a request is on its way the kernel's
times of packets at the interfaces say when it was where.
"""

import json
import os
import time

from lardvm import lab as labs
from lardvm.cluster import BACK_END_PORT, FRONT_END_PORT, Cluster, Layout

from .bench import say

GUEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "native_guest.py")
DIRECTORY = "/run/lard-clusters/native"
# Where the server that takes connections as usual listens.
PLAIN_PORT = 9000
# A client made of packets, which the client's kernel knows nothing of.
RAW = "10.10.0.201"
LIMIT = 170
# Requests on a connection.
FURTHER = 500
DROP = (
    "nft add table ip native && nft 'add chain ip native early { type filter hook prerouting priority"
    f" -310; }}' && nft add rule ip native early tcp dport {FRONT_END_PORT} drop"
)
UNDROP = "nft delete table ip native"


class Native:
    def __init__(self, runs):
        self.runs = runs
        self.lab = labs.NsLab(DIRECTORY, 3, debug=True).start()
        self.front, self.back, self.other = self.lab.nodes
        self.client = self.lab.client
        self.lab.roots()[0].put("/tmp/native.py", open(GUEST, "rb").read())
        self.rows = []

    def once(self, machine, words):
        """What a command says."""
        command = f"PYTHONPATH=$G exec python3 /tmp/native.py {words}"
        return json.loads(machine.sh(command, timeout=LIMIT).stdout)

    def run(self, machine, words):
        """What it says, each time it is run."""
        return [self.once(machine, words) for _ in range(self.runs)]

    def add(self, what, unit, values):
        values = sorted(values)
        row = {"what": what, "unit": unit, "median": values[len(values) // 2]}
        row |= {"least": values[0], "most": values[-1]}
        self.rows.append(row)
        say(f"{what}: {row['median']} {unit}")

    def answers_cost(self, what, batch, told):
        """What a question takes until its answer is read, and what of it a PING does not."""
        what = f"{what}, {batch} in a write"
        self.add(what, "ns", [one["median"] for one in told])
        self.add(f"{what}, less a PING", "ns", [one["median"] - one["ping"] for one in told])

    def serve(self, machine, port, under="", words=""):
        command = f"PYTHONPATH=$G exec {under} python3 /tmp/native.py serve --port {port} {words}"
        return machine.spawn(command)

    def answers(self, machine, host, port):
        """Waits until a server does."""
        end = time.monotonic() + 60
        words = f"ask --host {host} --port {port}"
        command = f"PYTHONPATH=$G exec python3 /tmp/native.py {words}"
        while machine.sh(command, check=False, timeout=LIMIT).code:
            assert time.monotonic() < end, f"nobody answers at {host}:{port}"

    def flood(self, what, request):
        """Nanoseconds for a packet that the front-end passes on, and that the back-end drops; of which
        what it costs to have the front-end drop it is taken off."""
        until = "/tmp/native.done"
        self.client.sh(f"rm -f {until}")
        words = f"handshake --host {self.front.ext} --source {RAW} --until {until} {request}"
        peer = self.client.spawn(f"PYTHONPATH=$G exec python3 /tmp/native.py {words}")
        end = time.monotonic() + 60
        while not peer.stdout().strip():
            assert peer.poll() is None and time.monotonic() < end, f"no handshake: {peer.stderr()}"
            time.sleep(0.2)
        numbers = json.loads(peer.stdout())
        words = f"flood --host {self.front.ext} --source {RAW} --rounds 20"
        words += f" --seq {numbers['seq']} --ack {numbers['ack']}"
        self.back.sh(DROP)
        passed, dropped = [], []
        # In turns, for the machine is not as fast all the time.
        for _ in range(self.runs):
            passed.append(self.once(self.client, words)["median"])
            self.front.sh(DROP)
            dropped.append(self.once(self.client, words)["median"])
            self.front.sh(UNDROP)
        self.back.sh(UNDROP)
        self.client.sh(f"touch {until}")
        self.add(f"{what}: a packet that the front-end drops", "ns", dropped)
        costs = [one - other for one, other in zip(passed, dropped)]
        self.add(f"{what}: a packet passed on, less that", "ns", costs)

    def latency(self):
        """What a hand-off adds on the way of a request. The server is the same, and so is the hop."""
        self.serve(self.back, PLAIN_PORT, words="--defer")
        self.front.sh("sysctl -qw net.ipv4.ip_forward=1")
        self.client.sh(f"ip route add {self.back.int}/32 via {self.front.ext}")
        self.answers(self.client, self.back.int, PLAIN_PORT)
        words = f"latency --host {self.front.ext} --back-end {self.back.int} --port {PLAIN_PORT}"
        told = self.run(self.lab.roots()[0], f"{words} --rounds 300")
        for what, value in (
            ("request at front-end to read by server: handed over", lambda one: one["handed"]),
            ("the same, routed, accepted natively", lambda one: one["routed"]),
            ("of this after its arrival at the back-end", lambda one: one["back_end"]),
            ("internal round trip", lambda one: one["trip"]),
            ("hand-off latency less a round trip, at most", lambda one: one["handed"] - one["trip"]),
            (
                "the same without what the server takes natively",
                lambda one: one["handed"] - one["back_end"] - one["trip"],
            ),
        ):
            self.add(what, "us", [round(value(one), 1) for one in told])

    def hand_offs(self, ids):
        """At a back-end whose server does not accept; a new one each time, for the queue of the last is
        full."""
        # Without a way to the clients no socket is made for them.
        self.back.sh(f"ip route add 10.10.0.0/16 via {self.client.ext} dev ext0")
        for batch, rounds in ((1, 200), (64, 20)):
            told = []
            for _ in range(self.runs):
                self.back.kill_procs()
                words = f"python --name node2 --port {BACK_END_PORT} --no-accept --backlog 4096"
                server = self.back.spawn(f"exec python3 $G/serve.py {words}")
                end = time.monotonic() + 60
                while "ready" not in server.stdout():
                    assert time.monotonic() < end, server.stderr()
                    time.sleep(0.2)
                words = f"hand-off --host {self.front.int} --source {self.other.int}"
                words += f" --back-end {self.back.int} --back-end-id {ids['node2']}"
                told.append(self.once(self.other, f"{words} --rounds {rounds} --batch {batch}"))
            self.answers_cost("hand-off at the back-end", batch, told)

    def lard(self):
        cluster = Cluster(self.lab, Layout(nodes=3, d=1, fe=(1,), be=(2,), servers=None))
        cluster.load()
        self.serve(self.back, BACK_END_PORT, "lard_run")
        cluster.start()
        self.answers(self.client, self.front.ext, FRONT_END_PORT)
        self.latency()
        self.flood("LARD", "--request")
        for batch in (1, 64):
            words = f"dispatch --host {self.front.int} --source {self.other.int}"
            told = self.run(self.other, f"{words} --rounds 200 --batch {batch}")
            self.answers_cost("decision of the dispatcher", batch, told)
        self.hand_offs({node["name"]: node["id"] for node in cluster.status(1)["nodes"]})
        for machine in self.lab.machines:
            machine.kill_procs()
        cluster.tear_down()
        self.lab.build_network()

    def modes(self):
        """What it takes to answer a further request that belongs to the other one of two back-ends."""
        servers = {2: "nginx", 3: "nginx"}
        layout = Layout(nodes=3, d=1, fe=(1,), be=(2, 3), servers=servers, options={1: "--policy lb"})
        cluster = Cluster(self.lab, layout)
        cluster.load()
        cluster.start()
        words = f"further --host {self.front.ext} --rounds {FURTHER}"
        # Requests are for the two in turn. When it forwards, the connection stays, and half are its own.
        for mode, share in (("pin", 0), ("move", 0.9), ("forward", 0.4)):
            cluster.set(1, "mode", mode)
            before = cluster.stats(1)["fe_move_begun"]
            told = self.run(self.client, words)
            assert all(one["nodes"] == 2 for one in told), told
            moved = cluster.stats(1)["fe_move_begun"] - before
            assert moved >= share * FURTHER * self.runs, f"{mode}: {moved} handed over again"
            self.add(f"further request answered, {mode}", "us", [one["median"] for one in told])
        for machine in self.lab.machines:
            machine.kill_procs()
        cluster.tear_down()
        self.lab.build_network()

    def ipvs(self):
        for machine in self.lab.nodes:
            machine.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
        service = f"{self.front.ext}:{FRONT_END_PORT}"
        made = self.front.sh(
            f"ipvsadm -A -t {service} -s rr &&"
            f" ipvsadm -a -t {service} -r {self.back.int}:{FRONT_END_PORT} -g",
            check=False,
        )
        if made.code:
            say("this kernel has no IPVS")
            return
        self.back.sh(f"ip addr add {self.front.ext}/32 dev lo")
        self.serve(self.back, FRONT_END_PORT)
        self.answers(self.client, self.front.ext, FRONT_END_PORT)
        self.flood("IPVS-DR", "")

    def text(self):
        lines = ["", f"{'natively, on User-Mode Linux':<56}{'median':>10}{'least':>10}{'most':>10}"]
        for row in self.rows:
            numbers = "".join(f"{row[part]:>10}" for part in ("median", "least", "most"))
            lines.append(f"{row['what']:<56}{numbers} {row['unit']}")
        return "\n".join(lines)


def measure(runs):
    native = Native(runs)
    try:
        native.lard()
        native.modes()
        native.ipvs()
    finally:
        native.lab.stop()
    return native
