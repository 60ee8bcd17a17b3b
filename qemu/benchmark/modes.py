# SPDX-License-Identifier: GPL-2.0
"""Requests on persistent connections: the modes of LARD, and relaying by HAProxy.

Node 1 is the front-end, with the dispatcher, nodes 2 and 3 are back-ends. A document belongs to one of
them by a hash of its name, so that a further request belongs to the other node half of the time; in the
mode auto, to those that LARD and its extension have mapped it to. All have the same servers and documents;
for the mode forward these are shared over NFS.
"""

import time

from lardvm import nfs

from . import front_ends

ROLES = ("front_end", "back_end", "back_end")
DOCROOT = "/srv/www"
# Seconds.
LIMIT = 120


class Relay(front_ends.Haproxy):
    """Each request to the back-end it belongs to, on a connection that is there already."""

    roles = ROLES
    documents = f"--root {DOCROOT}"
    balance = "uri whole"


class Pin(front_ends.Lard):
    name = mode = "pin"
    roles = ROLES
    # Past the page cache goes only what is read from another node.
    documents = f"--root {DOCROOT} --uncached"
    options = {1: "--policy lb"}
    parameters = {}

    def start(self):
        super().start()
        words = " ".join(f"{key}={value}" for key, value in {"mode": self.mode, **self.parameters}.items())
        self.front.sh(f"cluster_startup set {words}")

    def moved(self):
        return self.cluster.stats(1)["fe_move_begun"]


class Move(Pin):
    name = mode = "move"


class Forward(Pin):
    name = mode = "forward"
    options = {**Pin.options, **dict.fromkeys((2, 3), f"--nfs {DOCROOT}")}

    def start(self):
        super().start()
        self.cluster.wait(lambda: nfs.complete(self.backs, DOCROOT), what="the documents are shared")


class AutoMove(Move):
    """Extended LARD decides, with disks that count as busy whatever waits for them: else it leaves each
    connection where it is. Its rule knows only what is in the table of targets, which `lb` has not."""

    name, mode = "auto, move", "auto"
    options = {**Move.options, 1: "--policy lard"}
    parameters = {"mechanism": "move", "disk-queue": 0}


class AutoForward(Forward):
    """The same, with content read from the other node."""

    name, mode = "auto, forward", "auto"
    options = {**Forward.options, 1: AutoMove.options[1]}
    parameters = {"mechanism": "forward", "disk-queue": 0}


ALL = [Relay, Pin, Move, Forward, AutoMove, AutoForward]
FLOOR = Relay.name


def prepare(lab, sizes):
    """The documents, and NFS servers for them."""
    for machine in lab.nodes[1:]:
        if nfs.ready(machine):
            continue
        nfs.start(machine, DOCROOT)
        for size in sizes:
            machine.sh(f"mkdir -p {DOCROOT}/size; head -c {size} /dev/urandom > {DOCROOT}/size/{size}")
    end = time.monotonic() + LIMIT
    while not all(nfs.ready(machine) for machine in lab.nodes[1:]):
        assert time.monotonic() < end, "the NFS servers do not answer"
        time.sleep(0.5)
