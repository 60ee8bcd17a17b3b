# SPDX-License-Identifier: GPL-2.0
"""One comparison: each front-end in turn on the same three machines, all work, several runs of each."""

import json
import os
import sys
import time

from lardvm import log_gate
from lardvm.cluster import FRONT_END_PORT
from lardvm.machine import quoted

from . import front_ends, profile, work
from .meter import Meter, calm
from .report import IN

LOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "load.py")
# Seconds for the clients of one run.
LIMIT = 300
# The part of a run's connections that goes before it.
WARM_UP = 8
START = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - START:6.1f}s] {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, lab, report, runs, areas, part=1, profiles=False):
        self.lab = lab
        self.report = report
        self.runs = runs
        self.part = part
        self.profiles = profiles
        self.areas = areas
        self.meters = [Meter(machine) for machine in lab.nodes]
        calm(self.meters)

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
        if kind.further:
            row["moved"] = round((front_end.moved() - moved) / kind.further, 4)
        row["front_end_seconds"] = round(done[0]["seconds"], 2)
        for part in ("user", "softirq", "proc_stat"):
            row[f"front_end_{part}"] = round(done[0][part] / kind.asked)
        for name in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"):
            row[name] = round(done[0][name] / kind.asked, 2)
        for area, count in self.areas.sums(places[0]).items():
            row[IN + area] = round(count / kind.asked)
        row["sent_again"] = sum(counts["sent_again"] for counts in done)
        row["sent_again"] += self.lab.client.nstat()["TcpRetransSegs"] - again
        self.report.add(**row, **clients)
        return row, places[0]

    def turn(self, front_end, kinds, run):
        """One run of each kind of work by one front-end, each after a part of it that warms up."""
        say(f"{front_end.name} starts")
        front_end.start()
        self.ready()
        self.areas.look(self.lab.nodes[0])
        last = self.profiles and run == self.runs
        symbols = profile.of(self.lab.nodes[0]) if last else None
        try:
            for kind in kinds:
                self.clients(kind.smaller(WARM_UP))
                row, places = self.measure(front_end, kind, run)
                say(f"{front_end.name}, {kind.name}: {row['front_end_instructions']} instructions")
                if last:
                    title = f"{front_end.name}, {kind.name}"
                    print(profile.text(title, places, symbols, kind.asked), flush=True)
        except AssertionError:
            print(front_end.state(), file=sys.stderr)
            raise
        front_end.stop()
        problems = log_gate.findings(self.lab.kernel_log(forget=True))
        if problems:
            raise AssertionError("kernel messages:\n" + "\n".join(problems[:20]))

    def compare(self, kinds, contestants):
        """In each round all front-ends have their turn, so that what else the machine under them does in
        the course of time is in the runs of all."""
        kinds = [kind.smaller(self.part) for kind in kinds]
        stage = front_ends.Stage(self.lab)
        for run in range(1, self.runs + 1):
            for contestant in contestants:
                self.turn(contestant(stage), kinds, run)
        stage.end()
