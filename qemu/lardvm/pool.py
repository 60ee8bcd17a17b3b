# SPDX-License-Identifier: GPL-2.0
"""Clusters for one test after another: the lab is booted once, a cluster kept while it is good."""

import time

from . import artefacts
from . import lab as labs
from .channel import GuestGone
from .cluster import Cluster
from .machine import sh_all

TIME_WAIT_MS = 3000
# Seconds; kmemleak suspects nothing younger than five.
LEAK_AGE = 6


class Reported(AssertionError):
    """What a kernel has reported that no test saw: memory that leaked, or its end between two tests."""


class Pool:
    """`artefacts` is the directory for what clusters leave; with `capture` packets are among it. A guest
    that holds all nodes has so many `processors`."""

    def __init__(
        self, mode, count, directory, debug=False, artefacts=None, capture=False, processors=2
    ):
        self.mode = mode
        self.count = count
        self.directory = directory
        self.debug = debug
        self.artefacts = artefacts
        self.capture = capture
        self.processors = processors
        self.lab = None
        self.current = None

    def get(self, layout, started):
        """A cluster of that layout; a started one is given again while it is not spoilt."""
        current = self.current
        if current and not current.spoilt and started and current.layout == layout:
            if all(guest.alive() for guest in self.lab.guests):
                return current
        self.drop()
        try:
            return self._make(layout, started)
        except (GuestGone, TimeoutError):
            # A guest that died in between is not the next test's failure.
            self.stop()
            return self._make(layout, started)

    def _make(self, layout, started):
        self._boot()
        cluster = Cluster(self.lab, layout)
        self.current = cluster
        if self.mode == "ns":
            self.lab.build_network(layout.nodes)
        if self.capture:
            self.lab.start_capture()
        sh_all(cluster.guests, "test -d /sys/module/lard || insmod /lard/lard.ko")
        if started:
            try:
                cluster.start()
                # A test that waits for empty tables does not wait for those of earlier ones.
                members = [cluster.node(number) for number in layout.members()]
                sh_all(members, f"cluster_startup set time-wait-ms={TIME_WAIT_MS}")
            except BaseException:
                cluster.spoil()
                raise
        else:
            cluster.spoil()
        return cluster

    def _boot(self):
        if self.lab and self.mode == "vms":
            for number in self.lab.broken():
                self.lab.reboot(number)
        if self.lab is None:
            if self.mode == "ns":
                lab = labs.NsLab(self.directory, self.count, self.debug, self.processors)
            else:
                lab = labs.VmLab(self.directory, self.count, self.debug)
            # One that does not come up is none for the next test either.
            self.lab = lab.start()

    def drop(self):
        """Takes the current cluster off the lab; a lab that cannot be cleaned is ended. Raises
        Reported when a guest has crashed, and on a debug kernel when memory has leaked."""
        current, self.current = self.current, None
        if current is None or self.lab is None:
            return
        if not all(guest.alive() for guest in self.lab.guests):
            # What was begun there cannot be ended any more.
            crashed = [g for g in self.lab.guests if not g.alive() and not g.killed]
            log = self.lab.kernel_log() if crashed else ""
            self.stop()
            if crashed:
                raise Reported(f"a guest has ended by itself:\n{log}")
            return
        try:
            if self.artefacts:
                artefacts.statistics(current, self.artefacts)
            current.tear_down()
            self._no_leaks()
        except BaseException:
            self.stop()
            raise

    def _no_leaks(self):
        leaks = self.lab.leaks()
        if leaks:
            raise Reported(f"memory leaked:\n{leaks}")

    def finish(self):
        """The end of a run: looks also at what was too young for kmemleak until now."""
        self.drop()
        if self.debug and self.lab:
            time.sleep(LEAK_AGE)
            self._no_leaks()

    def stop(self):
        self.current = None
        if self.lab:
            self.lab.stop()
            self.lab = None
