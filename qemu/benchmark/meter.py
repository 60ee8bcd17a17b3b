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

from lardvm.vm import counter_path

NICS = ("ext0", "int0")
KERNEL = 1 << 63


def instructions(directory):
    """All since the boot: {address: count}; user space has one entry."""
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


class Meter:
    """One guest. What it does by itself in a second of its clock, and to tell its counters, is
    measured at first and taken off; from the user's part as well, but not from the places."""

    def __init__(self, machine):
        self.machine = machine
        self.fixed = self.rate = (0, 0)
        self.fixed, _ = self._calm(0)
        above, seconds = self._calm(2)
        self.rate = tuple(cost / seconds for cost in above)

    def _calm(self, seconds):
        """Instructions, and those of user space, in a time without work; and that time."""
        costs = []
        for _ in range(3):
            self.begin()
            time.sleep(seconds)
            counts, _ = self.end()
            costs.append((counts["instructions"], counts["user"], counts["seconds"]))
        total, user, passed = (statistics.median(cost) for cost in zip(*costs))
        return (total, user), passed

    def _own(self, seconds):
        return [fixed + seconds * rate for fixed, rate in zip(self.fixed, self.rate)]

    def _clock(self):
        return float(self.machine.get("/proc/uptime").split()[0])

    def _counters(self):
        counters = net(self.machine.get("/proc/net/dev").decode())
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
        own, own_user = self._own(seconds)
        places.subtract(self.places)
        counters = {name: now - self.counters[name] for name, now in self._counters().items()}
        user = sum(count for place, count in places.items() if place < KERNEL)
        total = sum(places.values())
        counters |= {"instructions": total - own, "user": user - own_user, "seconds": seconds}
        return counters, places
