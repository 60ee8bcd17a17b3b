# SPDX-License-Identifier: GPL-2.0
"""Where a guest's instructions are, by function: counted places and the guest's /proc/kallsyms."""

import bisect
import collections
import subprocess

from .meter import KERNEL

# Lines that are shown.
TOP = 60


class Symbols:
    def __init__(self, machine):
        text = machine.get("/proc/kallsyms").decode()
        entries = []
        for line in text.splitlines():
            address, kind, *names = line.split()
            if kind in "tTwW":
                entries.append((int(address, 16), " ".join(names)))
        entries.sort()
        self.addresses = [address for address, _ in entries]
        self.names = [name for _, name in entries]

    def name(self, place):
        if place < KERNEL:
            return "all [user space]"
        # A place is 16 octets; a function may begin at any of them.
        return self.names[max(0, bisect.bisect_right(self.addresses, place + 15) - 1)]


def softirq_place(machine):
    """Where the kernel has handle_softirqs(), as the counter wants to be told."""
    symbols = Symbols(machine)
    at = symbols.names.index("handle_softirqs")
    begin = symbols.addresses[at]
    end = next(address for address in symbols.addresses[at:] if address > begin)
    return f"{begin:x}-{end:x}"


def demangled(names):
    result = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()


def text(title, places, symbols, requests):
    counts = collections.Counter()
    for place, count in places.items():
        if count:
            counts[symbols.name(place)] += count
    total = sum(counts.values())
    modules = collections.Counter()
    for name, count in counts.items():
        modules[name.partition(" [")[2].rstrip("]") or "the kernel itself"] += count
    ordered = counts.most_common(TOP)
    lines = [f"\n{title}: {total / requests:.0f} instructions a request, of these in"]
    for name, count in modules.most_common():
        lines.append(f"{count / requests:10.0f} {100 * count / total:6.2f}%  all of {name}")
    lines.append("and by function")
    for (_, count), name in zip(ordered, demangled([name for name, _ in ordered])):
        lines.append(f"{count / requests:10.0f} {100 * count / total:6.2f}%  {name}")
    return "\n".join(lines)
