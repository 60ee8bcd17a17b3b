# SPDX-License-Identifier: GPL-2.0
"""What a run leaves in a directory of its own: consoles, statistics, what explains a failure."""

import json
import os

from .channel import GuestGone

# Of the output of each command.
LIMIT = 60_000
SHOWN = ("ss -tnaeim", "nstat -as", "ip -s addr", "ip route", "tc -s qdisc")
SHOWN_OF_NODES = tuple(
    f"cluster_startup {word}" for word in ("status", "stats", "connections", "set")
)
# What may go wrong with a machine that is not well.
TROUBLE = (GuestGone, TimeoutError, OSError, RuntimeError, AssertionError, json.JSONDecodeError)


def write(directory, name, data):
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def append(directory, name, text):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "a") as file:
        file.write(text)


def consoles(lab, directory):
    for guest in lab.guests:
        write(directory, f"console-{guest.spec.name}.log", guest.console())


def statistics(cluster, directory):
    """Adds a line with the counters of a cluster's nodes, and the last test that it served; none for
    machines on which nothing is started."""
    if not cluster.startup:
        return
    asked = {
        machine.name: machine._spawn("cluster_startup stats --json", None)
        for machine in cluster.nodes
        if not machine.gone
    }
    answers = {name: process.wait() for name, process in asked.items()}
    nodes = {name: json.loads(a.stdout) for name, a in answers.items() if a.code == 0}
    if nodes:
        line = json.dumps({"last": cluster.title, "nodes": nodes})
        append(directory, "statistics.jsonl", f"{line}\n")


def failure(cluster, directory, log):
    """What helps to understand one; `log` is what the kernels said. Ends the capture."""
    write(directory, "kernel.log", log)
    consoles(cluster.lab, directory)
    dead = [guest for guest in cluster.lab.guests if not guest.alive()]
    try:
        for machine in [*cluster.nodes, cluster.client]:
            if getattr(machine, "vm", None) not in dead:
                write(directory, f"{machine.name}.txt", _state(cluster, machine))
    except TROUBLE as error:
        append(directory, "incomplete.txt", f"{error!r}\n")
    try:
        packets = cluster.lab.captured()
        if packets:
            write(directory, "capture.pcap", packets)
    except TROUBLE as error:
        append(directory, "incomplete.txt", f"{error!r}\n")


def _state(cluster, machine):
    commands = SHOWN if machine is cluster.client else SHOWN + SHOWN_OF_NODES
    script = "; ".join(f"echo '## {c}'; {c} 2>&1 | head -c {LIMIT}" for c in commands)
    text = [f"# {machine.name}", machine.sh(script, check=False).stdout]
    for kind, procs in (("cluster_startup", cluster.startup), ("server", cluster.server)):
        proc = procs.get(cluster.nodes.index(machine) + 1) if machine.int else None
        if proc:
            text.append(f"## output of {kind}\n{proc.stdout()}\n{proc.stderr()}")
    return "\n".join(text)
