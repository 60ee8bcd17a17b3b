# SPDX-License-Identifier: GPL-2.0
"""What the tests share.

A function given to `run` runs on another machine: its source goes there with the modules of
`lardvm/guest` imported, and what it returns comes back as JSON. So it uses nothing but its
arguments and those modules. `on_client` makes such a function a test of its own.
"""

import contextlib
import inspect
import json
import os
import random
import sys
import textwrap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(__file__)), "lardvm", "guest"))

PRELUDE = """\
import contextlib, hashlib, json, os, random, re, select, socket, struct, subprocess, sys, threading, time
import client, content, http2, rawtcp
from rawtcp import ACK, AE, CWR, ECE, FIN, PSH, RST, SYN, URG, Link, Peer, difference


def _main(function, arguments):
    try:
        print("\\n" + json.dumps({"value": function(*arguments)}))
    except BaseException as error:
        import traceback
        traceback.print_exc()
        frame = error.__traceback__.tb_next
        while frame:
            for name, value in frame.tb_frame.f_locals.items():
                print(f"    {name} = {value!r:.400}", file=sys.stderr)
            frame = frame.tb_next
        sys.exit(1)


"""

# The first paper's layout, with four nodes that serve; the front-end's own is one of them.
FOUR = {"nodes": 4, "d": 1, "fe": (1,), "be": (1, 2, 3, 4)}


def source(function):
    """The function's text without decorators, at the left margin."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines(keepends=True)
    while not lines[0].startswith("def "):
        del lines[0]
    return "".join(lines)


def program(function, arguments):
    seed = random.randrange(1 << 32)
    return (
        f"{PRELUDE}{source(function)}\n\nrandom.seed({seed})\n"
        f"_main({function.__name__}, json.loads({json.dumps(arguments)!r}))\n"
    )


def value_of(result):
    return json.loads(result.stdout.strip().splitlines()[-1])["value"]


def run(machine, function, *arguments, timeout=120):
    """Runs the function on a machine and returns what it returned."""
    text = program(function, arguments)
    return value_of(machine.python(text, timeout))


class Running:
    """A function that runs on a machine while the test goes on."""

    def __init__(self, machine, function, arguments):
        self.process = machine.spawn_python(program(function, arguments))

    def result(self, timeout=120):
        result = self.process.wait(timeout)
        assert result.code == 0, f"{result.stdout}\n{result.stderr}"
        return value_of(result)


def begin(machine, function, *arguments):
    return Running(machine, function, arguments)


def on_client(function):
    """The body runs on the client machine; its argument is the address of a front-end."""

    def test(cluster):
        run(cluster.client, function, cluster.fes[0].ext)

    test.__name__ = function.__name__
    test.__doc__ = function.__doc__
    test.__module__ = function.__module__
    return test


def set_everywhere(cluster, **params):
    """Parameters of all members, with `_` for `-`, until the end of the test."""
    words = {name.replace("_", "-"): value for name, value in params.items()}
    line = " ".join(f"{name}={value}" for name, value in words.items())
    for number in cluster.layout.members():
        machine = cluster.node(number)
        before = json.loads(machine.sh("cluster_startup set --json").stdout)
        machine.sh(f"cluster_startup set {line}")
        for param in before:
            if param["name"] in words:
                cluster.changed.append((machine, param["name"], param["value"]))


def two_requests(host):
    with client.Connection(host) as connection:
        connection.request("/who?first")
        connection.request("/who?second")


def follows(cluster, front_end):
    """Does this front-end look at further requests?"""
    before = totals(cluster)["fe_next"]
    run(cluster.client, two_requests, front_end.ext)
    return totals(cluster)["fe_next"] > before


def set_mode(cluster, **params):
    """Parameters of the dispatcher, in this order, with which further requests are looked at, until the
    end of the test; returns once they are."""
    for name, value in params.items():
        cluster.set(cluster.layout.d, name.replace("_", "-"), value)
    for machine in cluster.fes:
        cluster.wait(lambda: follows(cluster, machine), what=f"{machine.name} follows connections")


def unloaded(lab):
    """Unloads the module where it is still loaded; true when it is loaded nowhere."""
    results = [
        not lab.loaded(guest) or guest.sh("rmmod lard", check=False, timeout=60).code == 0
        for guest in lab.guests
    ]
    return all(results)


def wait_idle(cluster):
    """Until the dispatcher counts no load: then policies place new targets as if on a new cluster."""

    def idle():
        nodes = cluster.status(cluster.layout.d).get("nodes", [])
        return nodes and not any(node.get("load") for node in nodes)

    cluster.wait(idle, timeout=40, what="no load")


def totals(cluster):
    """Every counter, summed over the nodes."""
    sums = {}
    for number in cluster.layout.members():
        for name, value in cluster.stats(number).items():
            sums[name] = sums.get(name, 0) + value
    # Whatever the reason was.
    causes = ("fe_no_back_end", "fe_no_tagged_back_end", "fe_handoff_given_up")
    sums["fe_503"] = sum(sums[cause] for cause in causes)
    return sums


@contextlib.contextmanager
def counted(cluster, timeout=20, **least):
    """Within the block each named counter rises by at least that much, or exactly with `exact_`.

    Counters are named with `_` for `-` and `.`; they are waited for, since some are counted a
    moment after the client has its answer.
    """
    before = totals(cluster)

    def matches(name, after):
        exact = name.startswith("exact_")
        plain = name.removeprefix("exact_")
        for counter, value in after.items():
            if counter.replace("-", "_").replace(".", "_") == plain:
                rise = value - before.get(counter, 0)
                return rise == least[name] if exact else rise >= least[name]
        raise AssertionError(f"there is no counter {plain}; there are {sorted(after)}")

    yield
    # Exact ones could still rise; they are looked at when the others have arrived.
    def arrived():
        after = totals(cluster)
        return all(matches(name, after) for name in least)

    def risen():
        after = totals(cluster)
        return {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}

    try:
        cluster.wait(arrived, timeout=timeout, what=f"counters {least}")
    except AssertionError as error:
        raise AssertionError(f"counters {least}, but only these rose: {risen()}") from error


def read_hard(disk, readers, until):
    """Reads past the page cache, by so many readers at once, each a few times, or until there is a
    file."""
    import mmap

    def goes_on(times):
        return not os.path.exists(until) if until else times < 5

    def reader(block):
        handle = os.open(disk, os.O_RDONLY | os.O_DIRECT)
        # All at once they would also be done at once, and the disk idle for a moment.
        time.sleep(block / readers)
        times = 0
        while goes_on(times):
            os.preadv(handle, [mmap.mmap(-1, 4096)], block * 4096)
            times += 1
        os.close(handle)

    threads = [threading.Thread(target=reader, args=(block,)) for block in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def queues(cluster):
    """How many requests wait for each back-end's disk, as the dispatcher knows it."""
    nodes = cluster.status(cluster.layout.d)["nodes"]
    return {node["name"]: node["disk_queue"] for node in nodes if "BE" in node["roles"]}
