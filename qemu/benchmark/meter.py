# SPDX-License-Identifier: GPL-2.0
"""What a counted guest has done since it was last asked.

The instructions come from the emulator (`counter.c`), by the place in the kernel they are at, so that
asking costs the guest nothing. Packets and what was sent again are the guest's own counters, read
before the instructions at the begin and after them at the end.
"""

import collections
import socket
import statistics
import struct
import time

from lardvm.vm import COUNTED_SHIFT, counter_path

NICS = ("ext0", "int0")
KERNEL = 1 << 63
# What the counter calls the instructions of softirqs, which it has counted where they are as well.
SOFTIRQ = 2
# Instructions in a unit of /proc/stat, which is 10 ms.
STAT_UNIT = 10_000_000 >> COUNTED_SHIFT
# What is measured in a time without work, and taken off.
PARTS = ("instructions", "user", "softirq", "proc_stat")


def instructions(directory):
    """All since the boot: {address: count}; user space has one entry, softirqs another."""
    data = bytearray()
    with socket.socket(socket.AF_UNIX) as counter:
        counter.connect(counter_path(directory))
        while part := counter.recv(1 << 20):
            data += part
    return collections.Counter(dict(struct.iter_unpack("QQ", data)))


def net(dev):
    """Packets and bytes of both interfaces from the text of /proc/net/dev."""
    sums = dict.fromkeys(("rx_bytes", "rx_packets", "tx_bytes", "tx_packets"), 0)
    for line in dev.splitlines():
        name, _, rest = line.strip().partition(":")
        if name in NICS:
            words = [int(word) for word in rest.split()]
            for key, place in zip(sums, (0, 1, 8, 9)):
                sums[key] += words[place]
    return sums


def sent_again(snmp):
    names, values = (line.split() for line in snmp.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def busy(stat):
    """Instructions as /proc/stat has them: the processor's time that it does not call idle."""
    user, nice, system, _, _, irq, softirq = map(int, stat.split()[1:8])
    return STAT_UNIT * (user + nice + system + irq + softirq)


class Meter:
    """One guest. What it does by itself in a second of its clock, and to tell its counters, is taken off
    each of the parts, but not from the places; `calm` finds it out."""

    def __init__(self, machine):
        self.machine = machine
        self.fixed = self.rate = (0,) * len(PARTS)

    def _own(self, seconds):
        return [fixed + seconds * rate for fixed, rate in zip(self.fixed, self.rate)]

    def _clock(self):
        return float(self.machine.get("/proc/uptime").split()[0])

    def _counters(self):
        counters = net(self.machine.get("/proc/net/dev").decode())
        counters["proc_stat"] = busy(self.machine.get("/proc/stat").decode())
        counters["sent_again"] = sent_again(self.machine.get("/proc/net/snmp").decode())
        return counters

    def begin(self):
        self.counters = self._counters()
        self.begun = self._clock()
        self.places = instructions(self.machine.vm.directory)

    def end(self):
        """Counts since `begin`, and those of instructions by their place."""
        places = instructions(self.machine.vm.directory)
        seconds = self._clock() - self.begun
        places.subtract(self.places)
        softirq = places.pop(SOFTIRQ, 0)
        counters = {name: now - self.counters[name] for name, now in self._counters().items()}
        user = sum(count for place, count in places.items() if place < KERNEL)
        counters |= {"instructions": sum(places.values()), "user": user, "softirq": softirq}
        for name, own in zip(PARTS, self._own(seconds)):
            counters[name] -= own
        counters["seconds"] = seconds
        return counters, places


def calm(meters):
    """Has them learn what their guests do in a time without work. They wait for it together."""
    for meter in meters:
        [parts] = _calm([meter], 0)
        meter.fixed = parts[:-1]
    for meter, (*parts, seconds) in zip(meters, _calm(meters, 2)):
        meter.rate = [cost / seconds for cost in parts]


def _calm(meters, seconds):
    """Of each, the parts and the guest's seconds: medians of three times."""
    seen = [[] for _ in meters]
    for _ in range(3):
        for meter in meters:
            meter.begin()
        time.sleep(seconds)
        for meter, runs in zip(meters, seen):
            counts, _ = meter.end()
            runs.append([counts[name] for name in (*PARTS, "seconds")])
    return [[statistics.median(cost) for cost in zip(*runs)] for runs in seen]
