# SPDX-License-Identifier: GPL-2.0
"""One comparison: the same documents, memories and requests under each policy in turn.

Node 1 is front-end and dispatcher, nodes 2 to 5 are back-ends with little memory, whose documents are on
a throttled disk. For each policy they begin with nothing in memory and no knowledge of targets; a first
part of the requests fills the memories with the disk as fast as it goes, then the disk is made slow and
the rest is counted.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from lardvm import build, log_gate, nfs
from lardvm.cluster import FRONT_END_PORT, Cluster, Layout
from lardvm.machine import quoted
from lardvm.vm import Disk

from . import disk
from .contestant import Contestant
from .work import name

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS, CACHED = (os.path.join(HERE, name) for name in ("clients.py", "cached.py"))
BACK_ENDS = (2, 3, 4, 5)
# MiB of a back-end that boots, and what is left for documents (and what else is read) later.
MEMORY, LEFT = 256, 24
# Memories of so many MiB are full when the counting begins, and those of WRR stay as good as they are
# then. Larger ones would still be filling, and LARD look better than it is.
FULL = 24
HUGE = 2  # MiB of a huge page
# As many as the papers admit: (n - 1) * T_high + T_low - 1.
UNDER_WAY = 3 * 65 + 25 - 1
# Answers until as many requests wait for disks as there will be.
SETTLE = 2 * UNDER_WAY
DOCUMENTS = "/srv/documents"
SERVER = f"nginx --root {DOCUMENTS} --threads"
# Past the page cache goes only what is read from another node.
SHARING = f"{SERVER} --uncached"
# Documents and requests that tell how fast a back-end is where nothing is read from disk.
FEW_OCTETS, FEW_REQUESTS = 8 << 20, 2000
# Seconds for the clients of one run.
LIMIT = 400
# Part of the requests that may fail before the run counts as failed.
FAILED = 0.01
START = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - START:6.1f}s] {text}", file=sys.stderr, flush=True)


def own(image):
    """What is different at the back-ends' machines."""
    disks = (Disk(disk.NAME, image),)
    return {number: {"memory": MEMORY, "disks": disks} for number in BACK_ENDS}


class Bench:
    def __init__(self, lab, work):
        self.lab = lab
        self.work = work
        self.back_ends = [lab.nodes[number - 1] for number in BACK_ENDS]
        self.servers = {}
        self.cluster = None
        self.server = SERVER

    def prepare(self, shares):
        """Once for all policies. Do some share the documents over NFS?"""
        for machine in self.back_ends:
            machine.sh(f"mkdir -p {DOCUMENTS} && mount -t ext4 -o ro,noatime /dev/vdb {DOCUMENTS}")
            if shares:
                nfs.start(machine)
        if shares:
            self.server = SHARING
        self.start(Contestant("wrr"), load=True)
        if shares:
            self.cluster.wait(
                lambda: all(nfs.ready(machine) for machine in self.back_ends), what="the NFS servers"
            )
        for machine in self.back_ends:
            squeeze(machine)
        self.stop()

    def layout(self, contestant):
        options = f"--disk {DOCUMENTS}"
        if contestant.forwards:
            options += f" --nfs {DOCUMENTS}"
        return Layout(
            nodes=len(self.lab.nodes),
            fe=(1,),
            be=BACK_ENDS,
            servers=self.server,
            options={1: f"--policy {contestant.policy}", **dict.fromkeys(BACK_ENDS, options)},
        )

    def start(self, contestant, load=False):
        """A new cluster, whose dispatcher knows no target, with nothing in memory."""
        self.cluster = Cluster(self.lab, self.layout(contestant))
        # The servers stay.
        self.cluster.server = self.servers
        if load:
            self.cluster.load()
        self.cluster.start()
        self.set(contestant, filling=True)
        if contestant.forwards:
            self.cluster.wait(
                lambda: nfs.complete(self.back_ends, DOCUMENTS), what="the documents are shared"
            )
        for machine in self.back_ends:
            machine.sh("echo 3 > /proc/sys/vm/drop_caches")

    def set(self, contestant, filling):
        self.lab.nodes[0].sh(f"cluster_startup set {contestant.parameters(filling)}")

    def stop(self):
        self.cluster.stop_nodes()
        problems = log_gate.findings(self.lab.kernel_log(forget=True))
        if problems:
            raise AssertionError("kernel messages:\n" + "\n".join(problems[:20]))

    def ask(self, targets, settle=SETTLE, requests=1):
        """Has the clients ask for all of that; what they saw."""
        with tempfile.NamedTemporaryFile("w") as file:
            file.writelines(f"{name(t)} {self.work.sizes[t]}\n" for t in targets)
            file.flush()
            where = quoted(["--host", self.lab.nodes[0].ext, "--port", str(FRONT_END_PORT)])
            words = f"{where} --clients {UNDER_WAY} --settle {settle} --limit {LIMIT} --requests {requests}"
            answer = self.lab.client.sh(f"exec python3 {CLIENTS} {words} {file.name}", timeout=LIMIT + 10)
        seen = json.loads(answer.stdout)
        if seen["failed"]:
            say(f"{seen['failed']} requests failed: {seen['errors']}")
        if seen["failed"] > FAILED * seen["asked"]:
            raise AssertionError(f"{seen['failed']} of {seen['asked']} requests failed: {seen['errors']}")
        return seen

    def reads(self):
        """Reads and octets from the disks of documents since the boot."""
        sums = [0, 0]
        for machine in self.back_ends:
            [line] = [
                line.split()
                for line in machine.sh("cat /proc/diskstats").stdout.splitlines()
                if line.split()[2] == "vdb"
            ]
            # Documentation/admin-guide/iostats.rst: reads completed, and sectors read.
            sums = [sums[0] + int(line[3]), sums[1] + 512 * int(line[5])]
        return sums

    def cached(self):
        """Pages of each document in each back-end's memory."""
        program = f"import sys; sys.argv = ['', '{DOCUMENTS}']\n{build.read(CACHED).decode()}"
        return [json.loads(m.python(program, timeout=LIMIT).stdout) for m in self.back_ends]

    def calibrate(self):
        """How much slower than the papers' machines these serve what is in memory."""
        self.start(Contestant("wrr"))
        self.throttle(None)
        targets = self.work.few(FEW_OCTETS, FEW_REQUESTS)
        seen = self.ask(targets, settle=FEW_REQUESTS // 2)
        self.stop()
        paper = sum(disk.paper_cpu(self.work.sizes[t]) for t in targets) / len(targets)
        scale = len(self.back_ends) / seen["rate"] / paper
        say(f"from memory: {seen['rate']} requests/s; {scale:.1f} times as slow as the papers' machines")
        return seen["rate"], disk.Scaled.by(scale)

    def throttle(self, scaled):
        """The disks as slow as that, or as fast as they go."""
        limits = (scaled.reads, disk.UNIT) if scaled else ()
        for machine in self.back_ends:
            machine.vm.throttle(disk.NAME, *limits)

    def elsewhere(self):
        """Requests so far that were handed over on a connection that had been before."""
        return self.cluster.stats(1)["fe_move_begun"]

    def measure(self, contestant, scaled):
        """One policy; a row of the report."""
        name, requests = contestant.name, contestant.requests
        say(f"{name}: filling the memories")
        self.throttle(None)
        self.start(contestant)
        self.ask(self.work.before(), requests=requests)
        self.set(contestant, filling=False)
        self.throttle(scaled)
        say(f"{name}: counting")
        (reads, octets), moved = self.reads(), self.elsewhere()
        seen = self.ask(self.work.counted(), requests=requests)
        reads, octets = (now - then for now, then in zip(self.reads(), (reads, octets)))
        moved = self.elsewhere() - moved
        cached = self.cached()
        self.throttle(None)
        self.stop()
        asked = sum(self.work.sizes[t] for t in self.work.counted())
        served = list(seen["nodes"].values())
        row = {
            "policy": name,
            "requests": requests,
            "rate": seen["rate"],
            "moved": round(moved / seen["asked"], 4),
            "reads": round(reads / seen["asked"], 4),
            "read_octets": round(octets / asked, 4),
            "disks_busy": round(reads / seen["all_seconds"] / len(BACK_ENDS) / scaled.reads, 3),
            "median_ms": seen["median_ms"],
            "p99_ms": seen["p99_ms"],
            "busiest": round(max(served) * len(BACK_ENDS) / sum(served), 3),
            "cached_mb": round(sum(megabytes(pages.values()) for pages in cached), 1),
            "distinct_mb": round(megabytes(together(cached).values()), 1),
            "counted": seen["counted"],
            "seconds": seen["seconds"],
            "failed": seen["failed"],
        }
        say(f"{name}: {row['rate']} requests/s, {row['reads']} reads a request")
        return row


def squeeze(machine):
    """Takes a back-end's memory, as huge pages that nobody uses, until little is left: a kernel needs
    more for its boot than later."""
    [line] = machine.sh("grep MemAvailable /proc/meminfo").stdout.splitlines()
    number = (int(line.split()[1]) // 1024 - LEFT) // HUGE
    file = "/proc/sys/vm/nr_hugepages"
    taken = int(machine.sh(f"echo {number} > {file} && cat {file}").stdout)
    say(f"{machine.name}: {HUGE * taken} MB of memory taken, {HUGE * (number - taken)} not found")


def megabytes(pages):
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def together(cached):
    """What is in any memory."""
    most = {}
    for pages in cached:
        for document, number in pages.items():
            most[document] = max(number, most.get(document, 0))
    return most


def simulated(work, contestant, cache):
    """What lard_sim says of the same requests: its row."""
    before, counted = work.before(), work.counted()
    part = (len(before) + SETTLE) / (len(before) + len(counted))
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        log.writelines(work.log(before + counted, contestant.requests))
        log.flush()
        words = [build.tool_path("lard_sim"), "run", "--log", log.name, "--lru"]
        words += ["--nodes", str(len(BACK_ENDS)), *contestant.simulated()]
        words += ["--cache", str(cache), "--warm-up", str(part)]
        result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode:
        raise build.SetupFailed(f"lard_sim failed: {result.stderr}")
    names, row = (line.split(",") for line in result.stdout.splitlines())
    return dict(zip(names, row))
