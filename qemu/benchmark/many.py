# SPDX-License-Identifier: GPL-2.0
"""What very many connections cost the front-end: memory of each, and a packet among so many; and what the
same packet costs IPVS."""

import json
import os
import socket
import statistics
import time

from lardvm.cluster import FRONT_END_PORT, Cluster, Layout
from lardvm.machine import quoted

from .bench import say
from .meter import Meter, calm

CROWD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "crowd.py")
# Connections; packets of a run, and runs.
CROWDS = (1_000, 10_000, 100_000)
MOST = CROWDS[-1]
PACKETS, RUNS = 5_000, 3
# Where the crowd lives, as seen from the front-end.
NETWORK = "10.64.0.0/10"
# Seconds for a command to the crowd.
LIMIT = 900
PAGE = 4096


class OnClientsNetwork(Layout):
    """One node, which has its control port and its back-end in the clients' network."""

    def words(self, number):
        return "cluster_startup -D -FE -fp 8080 --policy wrr --internal 10.10.0.1 --name node1"


class Crowd:
    """The process in the clients' namespace."""

    def __init__(self, lab, more=""):
        self.path = os.path.join(lab.directory, "crowd")
        if os.path.exists(self.path):
            os.unlink(self.path)
        words = ["--front-end", lab.nodes[0].ext, "--own", lab.client.ext, "--commands", self.path]
        self.process = lab.client.spawn(f"exec python3 {CROWD} {quoted(words)} {more}")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        end = time.monotonic() + 60
        while True:
            try:
                self.socket.connect(self.path)
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"the crowd does not come: {self.process.stderr()}") from None
                time.sleep(0.1)

    def ask(self, command):
        self.socket.sendall(command.encode() + b"\n")
        text = b""
        while not text.endswith(b"\n"):
            part = self.socket.recv(4096)
            if not part:
                raise AssertionError(f"the crowd has gone: {self.process.stderr()}")
            text += part
        return json.loads(text)

    def end(self):
        self.socket.close()
        self.process.wait(LIMIT)


def slabs(machine):
    """Octets of the pages of all slab caches, and of those in use as large blocks."""
    total = 0
    for line in machine.get("/proc/slabinfo").decode().splitlines()[2:]:
        words = line.split()
        pages, slabs_ = int(words[5]), int(words[14])
        total += PAGE * pages * slabs_
    return total


def available(machine):
    """Octets of free memory."""
    for line in machine.get("/proc/meminfo").decode().splitlines():
        if line.startswith("MemFree:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("/proc/meminfo has no MemFree")


def packets(meter, crowd):
    """Runs of packets: what one costs the front-end, and how far the runs are apart."""
    costs = []
    for _ in range(RUNS):
        meter.begin()
        done = crowd.ask(f"packets {PACKETS}")
        counts, _ = meter.end()
        if done["passed"] != PACKETS:
            raise AssertionError(f"of {PACKETS} packets {done['passed']} were passed on")
        costs.append(counts["instructions"] / PACKETS)
    middle = statistics.median(costs)
    spread = round((max(costs) - min(costs)) / 2 / middle, 3)
    return {"instructions_a_packet": round(middle), "spread": spread}


def ipvs(lab, meter, count):
    """The same packets on as many connections that IPVS knows, passed on by direct routing."""
    front = lab.nodes[0]
    service = f"{front.ext}:{FRONT_END_PORT}"
    front.sh(
        f"modprobe ip_vs_rr && ipvsadm --set {LIMIT} 60 60 && ipvsadm -A -t {service} -s rr &&"
        f" ipvsadm -a -t {service} -r {lab.client.ext}:{FRONT_END_PORT} -g"
    )
    crowd = Crowd(lab, "--blind")
    crowd.ask(f"open {count}")
    known = front.sh("grep -c ESTABLISHED /proc/net/ip_vs_conn", check=False).stdout.strip()
    if int(known or 0) != count:
        raise AssertionError(f"of {count} connections IPVS has {known}")
    row = {"front_end": "IPVS-DR", "connections": count, **packets(meter, crowd)}
    say(f"IPVS-DR: {row}")
    crowd.end()
    front.sh("ipvsadm -C && rmmod ip_vs_rr ip_vs")
    return row


def lard(lab, meter, counts):
    """A row for each number of connections."""
    front = lab.nodes[0]
    cluster = Cluster(lab, OnClientsNetwork(nodes=3, d=1, fe=(1,), be=(), servers=None))
    cluster.load()
    # Once, so that the table is there when memory is looked at first.
    cluster.start()
    crowd = Crowd(lab)
    rows = []
    before = None
    for count in counts:
        opened = crowd.ask(f"open {count}")
        have = (slabs(front), available(front))
        say(f"{count} connections, opened in {opened['seconds']} s")
        row = {"front_end": "LARD", "connections": count}
        if before:
            more = count - before[0]
            row["slab_octets"] = round((have[0] - before[1]) / more, 1)
            row["memory_octets"] = round((before[2] - have[1]) / more, 1)
        before = before or (count, *have)
        rows.append(row | packets(meter, crowd))
        say(f"LARD: {rows[-1]}")
    crowd.end()
    front.sh("cluster_startup stop --force", check=False)
    cluster.tear_down()
    return rows


def measure(lab, most):
    """All figures up to that many connections, as rows."""
    front = lab.nodes[0]
    meter = Meter(front)
    calm([meter])
    front.sh(f"ip route add {NETWORK} via {lab.client.ext} dev ext0")
    counts = [count for count in CROWDS if count <= most] or [most]
    rows = [ipvs(lab, meter, counts[0]), *lard(lab, meter, counts)]
    front.sh(f"ip route del {NETWORK}")
    return rows


def text(rows):
    lines = ["", "a front-end with many connections: octets of each, thousand instructions a packet passed on",
             f"{'front-end':<12}{'connections':>12}{'slabs':>10}{'of all memory':>16}{'a packet':>16}"]
    for row in rows:
        cost = f"{row['instructions_a_packet'] / 1000:.2f} ±{100 * row['spread']:.1f}%"
        memory = f"{row.get('slab_octets', '-'):>10}{row.get('memory_octets', '-'):>16}"
        lines.append(f"{row['front_end']:<12}{row['connections']:>12}{memory}{cost:>16}")
    return "\n".join(lines)
