# SPDX-License-Identifier: GPL-2.0
"""The last packets of both networks: a ring of files that one tcpdump fills beside the bridges.

A frame is there once, as it comes from the machine that sends it: the hardware address says which, and
on which network (`lab.station`).
"""

import time

FILES = 4
SIZE = 2  # millions of octets a file
HEADS = 160  # octets of a frame
HEADER = 24  # octets of a file before its packets
# Seconds that the kernel may keep packets to itself before tcpdump gets them.
HELD = 1.5
END_LIMIT = 20


class Capture:
    """One in a directory of a machine; `inside` is what runs a command where the bridges are."""

    def __init__(self, machine, directory, inside=""):
        self.machine = machine
        # Debian's AppArmor lets tcpdump write to names like this one.
        self.path = f"{directory}/capture.pcap"
        self.process = machine._spawn(
            f"mkdir -p {directory}; rm -f {self.path}*\n"
            # It ends with the process that has it, as the guests do.
            f"exec setpriv --pdeathsig KILL {inside} tcpdump -Z root -n -i any -y LINUX_SLL -s {HEADS}"
            f" -C {SIZE} -W {FILES} -w {self.path} inbound",
            None,
        )

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()

    def end(self):
        """Ends it; its packets as one file for `tcpdump -r`, the oldest first."""
        if self.process.poll() is None:
            time.sleep(HELD)
            self.process.kill(2)
            self.process.wait(END_LIMIT)
        names = self.machine.sh(f"ls -tr {self.path}*").stdout.split()
        files = [self.machine.get(name) for name in names]
        return b"".join([files[0], *(data[HEADER:] for data in files[1:])])
