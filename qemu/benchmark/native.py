# SPDX-License-Identifier: GPL-2.0
"""Times that are no emulator's: the module on User-Mode Linux, all nodes in namespaces of one guest.

One processor does everything, the client's part as well, so a time is the sum of what all of them do for
it. What is not wanted in it is measured alone and taken off.
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
DROP = (
    "nft add table ip native && nft 'add chain ip native early { type filter hook prerouting priority"
    f" -310; }}' && nft add rule ip native early tcp dport {FRONT_END_PORT} drop"
)


class Native:
    def __init__(self, runs):
        self.runs = runs
        self.lab = labs.NsLab(DIRECTORY, 3, debug=True).start()
        self.front, self.back, self.other = self.lab.nodes
        self.client = self.lab.client
        self.lab.roots()[0].put("/tmp/native.py", open(GUEST, "rb").read())
        self.rows = []

    def run(self, machine, words):
        """What a command says, each time it is run."""
        command = f"PYTHONPATH=$G exec python3 /tmp/native.py {words}"
        return [json.loads(machine.sh(command, timeout=LIMIT).stdout) for _ in range(self.runs)]

    def add(self, what, unit, values):
        values = sorted(values)
        row = {"what": what, "unit": unit, "median": values[len(values) // 2]}
        row |= {"least": values[0], "most": values[-1]}
        self.rows.append(row)
        say(f"{what}: {row['median']} {unit}")

    def medians(self, what, unit, machine, words):
        self.add(what, unit, [told["median"] for told in self.run(machine, words)])

    def serve(self, machine, port, under=""):
        return machine.spawn(f"PYTHONPATH=$G exec {under} python3 /tmp/native.py serve --port {port}")

    def answers(self, machine, host, port):
        """Waits until a server does."""
        end = time.monotonic() + 60
        words = f"latency --host {host} --port {port} --rounds 1"
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
        passed = [told["median"] for told in self.run(self.client, words)]
        self.front.sh(DROP)
        dropped = [told["median"] for told in self.run(self.client, words)]
        for machine in (self.front, self.back):
            machine.sh("nft delete table ip native")
        self.client.sh(f"touch {until}")
        base = sorted(dropped)[len(dropped) // 2]
        self.add(f"{what}: a packet that the front-end drops", "ns", dropped)
        self.add(f"{what}: a packet passed on, less that", "ns", [one - base for one in passed])

    def lard(self):
        cluster = Cluster(self.lab, Layout(nodes=3, d=1, fe=(1,), be=(2,), servers=None))
        cluster.load()
        self.serve(self.back, BACK_END_PORT, "lard_run")
        cluster.start()
        self.answers(self.client, self.front.ext, FRONT_END_PORT)
        self.serve(self.back, PLAIN_PORT)
        self.answers(self.client, self.back.ext, PLAIN_PORT)
        rounds = "--rounds 500"
        for what, machine, host, port in (
            ("request readable, hand-off", self.client, self.front.ext, FRONT_END_PORT),
            ("request readable, directly", self.client, self.back.ext, PLAIN_PORT),
            ("between the nodes, one way", self.front, self.back.int, PLAIN_PORT),
        ):
            words = f"latency --host {host} --port {port} {rounds}"
            self.medians(what, "us", machine, words)
        self.flood("LARD", "--request")
        for batch in (1, 64):
            words = f"dispatch --host {self.front.int} --source {self.other.int}"
            what = f"decision of the dispatcher, {batch} in a write"
            self.medians(what, "ns", self.other, f"{words} --rounds 200 --batch {batch}")
        # Without a way to the clients no socket is made for them.
        self.back.sh(f"ip route add 10.10.0.0/16 via {self.client.ext} dev ext0")
        ids = {node["name"]: node["id"] for node in cluster.status(1)["nodes"]}
        for batch in (1, 64):
            self.back.kill_procs()
            words = f"python --name node2 --port {BACK_END_PORT} --no-accept --backlog 4096"
            server = self.back.spawn(f"exec python3 $G/serve.py {words}")
            end = time.monotonic() + 60
            while "ready" not in server.stdout():
                assert time.monotonic() < end, server.stderr()
                time.sleep(0.2)
            words = f"hand-off --host {self.front.int} --source {self.other.int}"
            words += f" --back-end {self.back.int} --back-end-id {ids['node2']} --rounds 10"
            what = f"hand-off at the back-end, {batch} in a write"
            told = self.client_of_back_end(f"{words} --batch {batch}")
            self.add(what, "ns", [told["median"]])
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
        words = f"further --host {self.front.ext} --rounds 500"
        for mode in ("pin", "move", "forward"):
            cluster.set(1, "mode", mode)
            before = cluster.stats(1)["fe_move_begun"]
            told = self.run(self.client, words)
            assert all(one["nodes"] == 2 for one in told), told
            moved = cluster.stats(1)["fe_move_begun"] - before
            assert mode == "pin" or moved >= 400 * self.runs, f"{mode}: {moved} handed over again"
            self.add(f"further request answered, {mode}", "us", [one["median"] for one in told])
        for machine in self.lab.machines:
            machine.kill_procs()
        cluster.tear_down()
        self.lab.build_network()

    def client_of_back_end(self, words):
        return json.loads(
            self.other.sh(f"PYTHONPATH=$G exec python3 /tmp/native.py {words}", timeout=LIMIT).stdout
        )

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
        lines = ["", f"{'natively, on User-Mode Linux':<52}{'median':>10}{'least':>10}{'most':>10}"]
        for row in self.rows:
            numbers = "".join(f"{row[part]:>10}" for part in ("median", "least", "most"))
            lines.append(f"{row['what']:<52}{numbers} {row['unit']}")
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
