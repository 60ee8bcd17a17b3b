# SPDX-License-Identifier: GPL-2.0
"""Coming and going of the module."""

import os
import re

import pytest
from lardvm import build
from support import begin, run, set_everywhere, unloaded


def loaded(lab):
    return "lard " in lab.guests[0].sh("cat /proc/modules").stdout


def fetch(host):
    return [client.check_size(host, 1000) for _ in range(5)]


def unload_when_idle(lab):
    lab.stop()
    lab.wait(lambda: unloaded(lab), timeout=120, what="unloading")


@pytest.mark.long
@pytest.mark.vms
@pytest.mark.limit(400)
@pytest.mark.layout(nodes=1, d=1, fe=(1,), be=(1,))
def test_it_loads_and_unloads_fifty_times(lab):
    """Each fifth time with a node that has served."""
    again = "insmod /lard/lard.ko && test -d /sys/module/lard && rmmod lard || exit 1"
    guest = lab.guests[0]
    for _ in range(10):
        guest.sh(f"rmmod lard; for n in 1 2 3 4; do {again}; done", timeout=100)
        assert not loaded(lab)
        guest.sh("insmod /lard/lard.ko")
        lab.start()
        set_everywhere(lab, time_wait_ms=1000)
        assert run(lab.client, fetch, lab.fes[0].ext) == ["node1"] * 5
        unload_when_idle(lab)
        guest.sh("insmod /lard/lard.ko")


@pytest.mark.limit(300)
def test_it_loads_serves_and_unloads_again_and_again(lab):
    for _ in range(3):
        lab.start()
        set_everywhere(lab, time_wait_ms=1000)
        run(lab.client, fetch, lab.fes[0].ext)
        unload_when_idle(lab)
        lab.load()


def test_a_taken_slot_is_named_when_loading_fails(lab):
    lab.unload()
    guest = lab.guests[0]
    # 2 is AF_INET's.
    try:
        lab.load("family=2")
    except AssertionError as error:
        assert "exists" in str(error).lower() or "busy" in str(error).lower(), error
    else:
        raise AssertionError("loaded on AF_INET's slot")
    assert not loaded(lab)
    log = guest.sh("dmesg | tail -n 20").stdout
    assert "family" in log and "2" in log, log
    lab.load("family=22")

    def make(family):
        socket.socket(family, socket.SOCK_STREAM).close()

    run(lab.node(2), make, 22)
    lab.unload()
    for bad in ("family=0", "family=-1", "family=46", "family=1000"):
        try:
            lab.load(bad)
        except AssertionError:
            continue
        raise AssertionError(f"loaded with {bad}")
    lab.load()


def test_it_says_so_when_rds_has_the_family(lab):
    guest = lab.guests[0]
    lab.unload()
    if guest.sh("modprobe rds", check=False).code:
        lab.load()
        pytest.skip("this kernel has no RDS")
    try:
        lab.load()
    except AssertionError:
        log = guest.sh("dmesg | tail -n 20").stdout
        assert "family=" in log, log
    else:
        raise AssertionError("loaded beside RDS on the same family")
    finally:
        guest.sh("modprobe -r rds")
    lab.load()


def hold(host, count):
    held = [client.Connection(host, timeout=100) for _ in range(count)]
    for number, connection in enumerate(held):
        connection.send(client.head(f"/wait/unload?{number}", close=True))
    print("holding", flush=True)
    return [connection.answer().status for connection in held]


@pytest.mark.vms
@pytest.mark.limit(300)
def test_unloading_is_refused_while_connections_live_and_they_end_well(lab):
    for machine in lab.nodes:
        machine.sh("mkdir -p /run/lard-test && rm -f /run/lard-test/unload")
    lab.start()
    set_everywhere(lab, time_wait_ms=1000)
    running = begin(lab.client, hold, lab.fes[0].ext, 6)
    lab.wait(lambda: "holding" in running.process.stdout(), what="connections")

    def adopted():
        numbers = [int(machine.name[4:]) for machine in lab.bes]
        entries = [entry for number in numbers for entry in lab.connections(number)]
        return sum(entry["state"] == "adopted" for entry in entries) >= 6

    lab.wait(adopted, what="six connections in flight")
    # The front-end's machine, in either mode.
    guest = lab.guests[1 if lab.mode == "vms" else 0]
    refused = guest.sh("rmmod lard", check=False)
    assert refused.code != 0 and lab.loaded(guest), refused
    # What `make unload` says on the front-end.
    with open(os.path.join(build.TOP, "scripts", "unload"), "rb") as script:
        lab.fes[0].put("/run/lard-test/unload-script", script.read(), 0o755)
    refused = lab.fes[0].sh("/run/lard-test/unload-script", check=False)
    held = re.match(r"lard is in use by (\d+) connections .*\((\d+) references", refused.stderr)
    assert refused.code == 1 and held, refused
    assert 6 <= int(held[1]) <= int(held[2]), refused
    assert "cluster_startup stop --force" in refused.stderr and refused.stderr.count("\n") == 1
    for number in range(1, len(lab.nodes) + 1):
        lab.kill_node(number)
    assert guest.sh("rmmod lard", check=False).code != 0 and lab.loaded(guest)
    for machine in lab.nodes:
        machine.sh("touch /run/lard-test/unload")
    assert running.result() == [200] * 6
    lab.stop()
    lab.wait(lambda: unloaded(lab), timeout=150, what="unloading after the end")
    lab.load()


def test_namespaces_come_and_go(lab):
    guest = lab.guests[0]
    guest.sh(
        "for n in $(seq 40); do ip netns add short$n && ip -n short$n link set lo up; done; "
        "for n in $(seq 40); do ip netns del short$n; done",
        timeout=120,
    )
    # Nothing of them is left that keeps the module.
    lab.wait(lambda: unloaded(lab), timeout=60, what="unloading")
    lab.load()
