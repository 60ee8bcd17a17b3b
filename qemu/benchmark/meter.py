# SPDX-License-Identifier: GPL-2.0
"""What a counted guest has done since it was last asked.

A counted guest's clock goes on by a fixed time with each instruction, and with the world's while the
processor has nothing to do. The kernel knows exactly for how long that was (`idle_sleeptime`, from
each halt to each interrupt), so the rest of the time is a count of instructions. How it is shared
between user, system and softirq is known from the samples of the kernel's tick only.
"""

import dataclasses
import re
import statistics
import time

from lardvm.vm import COUNTED_SHIFT

NICS = ("ext0", "int0")


@dataclasses.dataclass(frozen=True)
class Reading:
    now: int  # ns
    idle: int  # ns
    ticks: dict  # user, system, softirq: samples
    net: dict  # packets and bytes, both ways, of all interfaces
    retransmissions: int

    def since(self, before):
        """The difference as a dictionary."""
        busy = (self.now - before.now) - (self.idle - before.idle)
        ticks = {name: self.ticks[name] - before.ticks[name] for name in self.ticks}
        net = {name: self.net[name] - before.net[name] for name in self.net}
        again = self.retransmissions - before.retransmissions
        return {
            "instructions": busy >> COUNTED_SHIFT,
            "seconds": (self.now - before.now) / 1e9,
            **ticks,
            **net,
            "retransmissions": again,
        }


def ticks(stat):
    user, nice, system, _, _, irq, softirq = map(int, stat.split()[1:8])
    return {"user": user + nice, "system": system, "softirq": irq + softirq}


def net(dev):
    sums = dict.fromkeys(("rx_bytes", "rx_packets", "tx_bytes", "tx_packets"), 0)
    for line in dev.splitlines():
        name, _, rest = line.strip().partition(":")
        if name in NICS:
            words = [int(word) for word in rest.split()]
            for key, place in zip(sums, (0, 1, 8, 9)):
                sums[key] += words[place]
    return sums


def retransmissions(snmp):
    names, values = (line.split() for line in snmp.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


class Meter:
    """One guest. What a reading itself costs is measured once, and taken off."""

    def __init__(self, machine):
        self.machine = machine
        self.begun = None
        self.own = 0
        self.own = self._own()

    def _own(self):
        costs = []
        for _ in range(5):
            self.begin()
            time.sleep(0.2)
            costs.append(self.end()["instructions"])
        return int(statistics.median(costs))

    def _counters(self):
        def text(path):
            return self.machine.get(path).decode()

        return ticks(text("/proc/stat")), net(text("/proc/net/dev")), retransmissions(
            text("/proc/net/snmp")
        )

    def _clock(self):
        text = self.machine.get("/proc/timer_list").decode()

        def number(pattern):
            return sum(int(value) for value in re.findall(pattern, text))

        idle = number(r"\.idle_sleeptime *: (\d+)") + number(r"\.iowait_sleeptime *: (\d+)")
        return number(r"now at (\d+) nsecs"), idle

    def begin(self):
        counters = self._counters()
        self.begun = Reading(*self._clock(), *counters)

    def end(self):
        """What was done since `begin`."""
        clock = self._clock()
        done = Reading(*clock, *self._counters()).since(self.begun)
        done["instructions"] -= self.own
        return done
