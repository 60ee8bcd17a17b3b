# SPDX-License-Identifier: GPL-2.0
"""What very many connections cost the front-end: memory of each, and a packet among so many."""

import csv
import json
import os
import socket
import statistics
import time

from lardvm.cluster import Cluster, Layout
from lardvm.machine import quoted

from .bench import say
from .meter import Meter

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

    def __init__(self, lab):
        self.path = os.path.join(lab.directory, "crowd")
        if os.path.exists(self.path):
            os.unlink(self.path)
        words = ["--front-end", lab.nodes[0].ext, "--own", lab.client.ext, "--commands", self.path]
        self.process = lab.client.spawn(f"exec python3 {CROWD} {quoted(words)}")
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


def measure(lab, path, most):
    """All figures up to that many connections, as rows; they are written to a table as well."""
    front = lab.nodes[0]
    cluster = Cluster(lab, OnClientsNetwork(nodes=3, d=1, fe=(1,), be=(), servers=None))
    cluster.load()
    # Once, so that the table is there when memory is looked at first.
    cluster.start()
    front.sh(f"ip route add {NETWORK} via {lab.client.ext} dev ext0")
    meter = Meter(front)
    crowd = Crowd(lab)
    rows = []
    before = None
    for count in (count for count in CROWDS if count <= most):
        opened = crowd.ask(f"open {count}")
        have = (slabs(front), available(front))
        say(f"{count} connections, opened in {opened['seconds']} s")
        row = {"connections": count}
        if before:
            more = count - before[0]
            row["slab_octets"] = round((have[0] - before[1]) / more, 1)
            row["memory_octets"] = round((before[2] - have[1]) / more, 1)
        before = before or (count, *have)
        costs = []
        for _ in range(RUNS):
            meter.begin()
            done = crowd.ask(f"packets {PACKETS}")
            counts, _ = meter.end()
            if done["passed"] != PACKETS:
                raise AssertionError(f"of {PACKETS} packets {done['passed']} were passed on")
            costs.append(counts["instructions"] / PACKETS)
        row["instructions_a_packet"] = round(statistics.median(costs))
        row["spread"] = round((max(costs) - min(costs)) / 2 / statistics.median(costs), 3)
        rows.append(row)
        say(f"{count} connections: {row}")
    crowd.socket.close()
    front.sh(f"ip route del {NETWORK}")
    front.sh("cluster_startup stop --force", check=False)
    cluster.tear_down()
    save(rows, path)
    return rows


def save(rows, path):
    with open(path, "w", newline="") as file:
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def text(rows):
    lines = ["", "a front-end with many connections, dispatcher on the same node",
             f"{'connections':<14}{'octets each: slabs':>20}{'of all memory':>16}{'a packet':>18}"]
    for row in rows:
        cost = f"{row['instructions_a_packet'] / 1000:.1f} ±{100 * row['spread']:.1f}%"
        lines.append(f"{row['connections']:<14}{row.get('slab_octets', '-'):>20}"
                     f"{row.get('memory_octets', '-'):>16}{cost:>18}")
    return "\n".join(lines)
