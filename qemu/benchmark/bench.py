# SPDX-License-Identifier: GPL-2.0
"""One comparison: each front-end in turn on the same three machines, all work, several runs of each."""

import json
import os
import sys
import time

from lardvm import log_gate
from lardvm.cluster import FRONT_END_PORT
from lardvm.machine import quoted

from . import profile, work
from .meter import Meter

LOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "load.py")
# Seconds for the clients of one run.
LIMIT = 300
START = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - START:6.1f}s] {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, lab, report, runs, part=1, profiles=False):
        self.lab = lab
        self.report = report
        self.runs = runs
        self.part = part
        self.profiles = profiles
        self.meters = [Meter(machine) for machine in lab.nodes]

    def clients(self, kind):
        """Has the work done; what the clients saw."""
        where = quoted(["--host", self.lab.nodes[0].ext, "--port", str(FRONT_END_PORT)])
        command = f"exec python3 {LOAD} {where} --limit {LIMIT} {kind.words()}"
        return json.loads(self.lab.client.sh(command, timeout=LIMIT + 10).stdout)

    def ready(self):
        """Waits until the front-end's answers are right."""
        end = time.monotonic() + LIMIT
        probe = work.Work("probe", size=1, connections=1, concurrency=1)
        while True:
            try:
                return self.clients(probe)
            except AssertionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def measure(self, front_end, kind, run):
        """One run: what it cost each machine, a request; and the places of the front-end's part."""
        meters = self.meters[: len(front_end.roles)]
        moved = front_end.moved()
        # The front-end's begins last and ends first.
        for meter in reversed(meters):
            meter.begin()
        again = self.lab.client.nstat()["TcpRetransSegs"]
        clients = self.clients(kind)
        time.sleep(front_end.aftermath)
        done, places = zip(*[meter.end() for meter in meters])
        row = {"work": kind.name, "front_end": front_end.name, "run": run, "requests": kind.asked}
        for role, counts in zip(front_end.roles, done):
            name = f"{role}_instructions"
            row[name] = row.get(name, 0) + round(counts["instructions"] / kind.asked)
        row["moved"] = round((front_end.moved() - moved) / kind.asked, 4)
        row["front_end_seconds"] = round(done[0]["seconds"], 2)
        for part in ("user", "softirq", "proc_stat"):
            row[f"front_end_{part}"] = round(done[0][part] / kind.asked)
        for name in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"):
            row[name] = round(done[0][name] / kind.asked, 2)
        row["sent_again"] = sum(counts["sent_again"] for counts in done)
        row["sent_again"] += self.lab.client.nstat()["TcpRetransSegs"] - again
        self.report.add(**row, **clients)
        return row, places[0]

    def work(self, front_end, kind, symbols):
        """All runs of one kind of work, after one that warms up."""
        self.clients(kind.smaller(8))
        for run in range(1, self.runs + 1):
            row, places = self.measure(front_end, kind, run)
            say(f"{front_end.name}, {kind.name}: {row['front_end_instructions']} instructions")
        if self.profiles:
            title = f"{front_end.name}, {kind.name}"
            print(profile.text(title, places, symbols, kind.asked), flush=True)

    def compare(self, kinds, contestants):
        for contestant in contestants:
            front_end = contestant(self.lab)
            say(f"{front_end.name} starts")
            front_end.start()
            self.ready()
            symbols = profile.Symbols(self.lab.nodes[0]) if self.profiles else None
            try:
                for kind in (kind.smaller(self.part) for kind in kinds):
                    self.work(front_end, kind, symbols)
            except AssertionError:
                print(front_end.state(), file=sys.stderr)
                raise
            front_end.stop()
            problems = log_gate.findings(self.lab.kernel_log(forget=True))
            if problems:
                raise AssertionError("kernel messages:\n" + "\n".join(problems[:20]))
