# SPDX-License-Identifier: GPL-2.0
"""HANDOFF or RELEASE has left, and no answer comes: nobody can say who has the connection, so its client is
reset. Then the server has to learn of it, too, and the dispatcher."""

import contextlib
import time

import client
import pytest
from support import APART, Talk, counted, enter, everywhere, owners, run, set_everywhere

# Seconds; an emulated guest does between a reset and the last one what a test wants in between.
HANDOFF_TIMEOUT = 10

# What a back-end's internal link loses: what it says to the front-end, what it is told by it, but no
# acknowledgements; and what comes from clients. The shortest frame makes a packet of 68 octets, an
# acknowledgement one of 52 to 64.
FAULTS = {
    "mute": "hook output priority -500; oifname int0 ip daddr {} ip length > 67 drop;",
    "deaf": "hook prerouting priority -500; iifname int0 ip saddr {} ip length > 67 drop;",
    "lost": "hook prerouting priority -500; iifname int0 tcp dport 8080 drop;",
}


def spoil(cluster, *faults):
    for machine in cluster.bes:
        for fault in faults:
            chain = f"chain here {{ type filter {FAULTS[fault].format(cluster.fes[0].int)} }}"
            machine.sh("nft -f -", input=f"table ip {fault} {{\n{chain}\n}}\n")


def mend(cluster, *faults):
    for machine in cluster.bes:
        for fault in faults:
            machine.sh(f"nft delete table ip {fault}", check=False)


@pytest.fixture
def patient(cluster):
    """Nobody takes silence for the death of a node, TCP on new control connections included, and no reports of
    loads come by which they would be repaired. What comes late comes before the connection is forgotten."""
    set_everywhere(
        cluster,
        dead_after_ms=240_000,
        ping_interval_ms=60_000,
        handoff_timeout_ms=HANDOFF_TIMEOUT * 1000,
        time_wait_ms=70_000,
    )
    cluster.kill_node(2)
    cluster.start_node(2)
    cluster.wait(cluster.complete, timeout=60, what="all nodes in the cluster")
    # Others will not want such connections.
    cluster.spoil()
    yield cluster
    mend(cluster, *FAULTS)


def children(cluster, port):
    """What servers have of a client's port."""
    command = f"ss -Htan state established state close-wait 'dport = :{port}'"
    return [line for m in cluster.bes for line in m.sh(command).stdout.splitlines()]


def is_rid_of(cluster, port, timeout=20):
    cluster.wait(lambda: not children(cluster, port), timeout, "no server has the connection")


def loads(cluster, kind="load"):
    """As the dispatcher counts it, by node."""
    return {n["name"]: n[kind] for n in cluster.status(1)["nodes"] if "BE" in n["roles"]}


@contextlib.contextmanager
def others(cluster):
    """A connection with each back-end, which a load that is counted off twice would be missing for."""
    targets = [f"/who?others-{n}" for n in range(12)]
    owned = run(cluster.client, owners, cluster.fes[0].ext, targets)
    with contextlib.ExitStack() as stack:
        for node in sorted(set(owned.values())):
            talk = stack.enter_context(Talk(cluster))
            target = next(target for target in targets if owned[target] == node)
            assert talk.who(target) == [[node, None]]
        expected = {machine.name: 1 for machine in cluster.bes}
        cluster.wait(lambda: loads(cluster) == expected, what="one connection each")
        yield expected


def are(cluster, expected, timeout=5):
    """The loads, at once: what is repaired by reports takes longer, and here does not come at all."""
    cluster.wait(lambda: loads(cluster) == expected, timeout, f"loads {expected}")


def nothing_is_left(cluster, expected):
    """Every end is reported, once."""
    idle = dict.fromkeys(expected, 0)
    cluster.wait(lambda: (loads(cluster), loads(cluster, "idle")) == (expected, idle), what="all ends")


def asks(cluster, target):
    """A connection whose server does not answer, and its client, who waits."""
    talk = Talk(cluster)
    talk.send(client.head(target))
    talk.begin("answer")
    return talk


@pytest.mark.vms
@pytest.mark.layout(**APART)
def test_a_server_learns_that_its_hand_off_was_given_up(patient):
    """It was taken, and ADOPTED never came."""
    with others(patient) as expected:
        spoil(patient, "mute")
        with counted(patient, exact_be_adopted=1, exact_tcp_handoff_silent=1, exact_be_reset=1):
            talk = asks(patient, "/hang?given-up")
            assert talk.result() == "ConnectionResetError"
            is_rid_of(patient, talk.port, timeout=2)
        nothing_is_left(patient, expected)
        # What comes now changes nothing.
        with counted(patient, fe_stale_answer=1):
            mend(patient, "mute")
        nothing_is_left(patient, expected)


@pytest.mark.vms
@pytest.mark.layout(**APART)
def test_a_server_learns_it_when_the_control_connection_is_lost(patient):
    with others(patient) as expected:
        spoil(patient, "mute")
        set_everywhere(patient, handoff_timeout_ms=2_000 * HANDOFF_TIMEOUT)
        with counted(patient, exact_be_adopted=1, exact_tcp_handoff_silent=1, ct_lost_silent=1):
            talk = asks(patient, "/hang?no-control")
            patient.wait(lambda: children(patient, talk.port), what="the server has it")
            # Of the front-end alone: the others hear of each other.
            patient.set(2, "dead-after-ms", 3_000)
            patient.set(2, "ping-interval-ms", 500)
            assert talk.result() == "ConnectionResetError"
        is_rid_of(patient, talk.port, timeout=2)
        nothing_is_left(patient, expected)
    mend(patient, "mute")
    patient.wait(patient.complete, timeout=60, what="all nodes in the cluster")


@pytest.mark.vms
@pytest.mark.layout(**APART)
def test_a_hand_off_that_did_not_arrive_is_no_load(patient):
    with others(patient) as expected:
        spoil(patient, "deaf")
        with counted(patient, exact_be_adopted=0, exact_tcp_handoff_silent=1):
            talk = asks(patient, "/hang?not-there")
            assert talk.result() == "ConnectionResetError"
        are(patient, expected)
        # Now it comes, and is too old.
        with counted(patient, fe_stale_answer=1, be_expired=1, exact_be_adopted=0):
            mend(patient, "deaf")
        are(patient, expected)


@pytest.mark.vms
@pytest.mark.layout(**APART)
@pytest.mark.parametrize("late", ["again", "adopted", "client"])
def test_a_server_that_missed_the_reset_gets_another_one(patient, late):
    """When no hand-off can be taken any more, when ADOPTED comes at last, or when it speaks to the client."""
    gate = f"/run/lard-test/missed-{late}"
    everywhere(patient, f"mkdir -p /run/lard-test; rm -f {gate}")
    with others(patient) as expected:
        spoil(patient, "mute", "lost")
        with counted(patient, exact_be_adopted=1, exact_tcp_handoff_silent=1):
            talk = asks(patient, f"/wait/missed-{late}")
            assert talk.result() == "ConnectionResetError"
        are(patient, expected)
        assert children(patient, talk.port)
        if late == "again":
            mend(patient, "lost")
        else:
            # The last one is lost, too.
            time.sleep(HANDOFF_TIMEOUT + 2)
            mend(patient, "lost")
            assert children(patient, talk.port)
            if late == "adopted":
                mend(patient, "mute")
            else:
                everywhere(patient, f"touch {gate}")
        is_rid_of(patient, talk.port)
        everywhere(patient, f"touch {gate}")
        nothing_is_left(patient, expected)


@pytest.mark.vms
@pytest.mark.layout(**APART)
@pytest.mark.parametrize("fault", ["mute", "deaf"])
def test_a_server_learns_that_its_connection_was_given_up_in_a_move(patient, fault):
    """It has let go and is not heard, or was not asked."""
    enter(patient, "move")
    targets = [f"/who?unanswered-{n}" for n in range(12)]
    owned = run(patient.client, owners, patient.fes[0].ext, targets)
    first, second = (next(t for t in targets if owned[t] == node) for node in ("node3", "node4"))
    with others(patient) as expected:
        talk = Talk(patient)
        assert talk.who(first) == [["node3", None]]
        spoil(patient, fault)
        with counted(patient, exact_fe_move_failed=1, exact_fe_move_begun=0):
            assert talk.request(second) == "ConnectionResetError"
        is_rid_of(patient, talk.port, timeout=2)
        are(patient, expected)
        with counted(patient, fe_stale_answer=1, exact_fe_move_begun=0):
            mend(patient, fault)
        nothing_is_left(patient, expected)
