# SPDX-License-Identifier: GPL-2.0
"""A dispatcher that knows less than a front-end does, or is gone: its last word does not keep connections from
back-ends that the front-end is connected to, and what an administrator told it holds, but not for its successor."""

import json

import pytest
from support import APART, ask_new, counted, run

AWAY = "is out of reach"


def served_by(cluster, count=12):
    """Which nodes serve; each request is answered well."""
    answers = run(cluster.client, ask_new, cluster.fes[0].ext, count)
    assert all(status == 200 for status, _ in answers), answers
    return {node for _, node in answers}


def states(cluster, number):
    """Of the back-ends. A dispatcher does not know the names of nodes that it has lost."""
    nodes = cluster.status(number).get("nodes", [])
    return sorted(node["state"] for node in nodes if node["roles"] in ("-", "BE"))


def end_dispatcher(cluster):
    cluster.kill_node(1)
    front_end = cluster.fes[0]
    gone = lambda: AWAY in front_end.sh("cluster_startup status").stdout
    cluster.wait(gone, what="the front-end has no dispatcher")


@pytest.fixture
def cut_off(cluster):
    """The dispatcher hears nothing of the back-ends, nor they of it."""
    cluster.spoil()
    theirs = ", ".join(machine.int for machine in cluster.bes)
    cluster.node(1).sh(
        "nft -f -",
        input="table ip apart {\n"
        f"chain in {{ type filter hook prerouting priority -500; ip saddr {{ {theirs} }} drop; }}\n"
        f"chain out {{ type filter hook output priority -500; ip daddr {{ {theirs} }} drop; }}\n"
        "}\n",
    )
    yield
    cluster.node(1).sh("nft delete table ip apart")


@pytest.mark.vms
@pytest.mark.layout(**APART)
def test_back_ends_that_only_the_dispatcher_has_lost_serve(cluster, cut_off):
    cluster.wait(lambda: states(cluster, 1) == ["down", "down"], what="the dispatcher has lost the back-ends")
    with counted(cluster, fe_assign_fallback=12):
        assert served_by(cluster) == {"node3", "node4"}
    # What it said of them is still there when it is gone.
    end_dispatcher(cluster)
    assert states(cluster, 2) == ["down", "down"]
    with counted(cluster, fe_assign_fallback=12):
        assert served_by(cluster) == {"node3", "node4"}


@pytest.mark.vms
@pytest.mark.layout(**APART)
def test_a_drained_node_stays_so_for_who_joins_later_and_without_a_dispatcher(cluster):
    cluster.spoil()
    cluster.node(1).sh("cluster_startup drain node3")
    cluster.kill_node(2)
    cluster.start_node(2)
    cluster.wait(lambda: states(cluster, 2) == ["drain", "up"], what="the front-end knows it")
    assert served_by(cluster) == {"node4"}
    end_dispatcher(cluster)
    with counted(cluster, fe_assign_fallback=12):
        assert served_by(cluster) == {"node4"}


@pytest.mark.layout(**APART)
def test_what_was_set_at_run_time_ends_with_the_process(cluster):
    dispatcher = cluster.node(1)

    def settings():
        listed = json.loads(dispatcher.sh("cluster_startup set --json").stdout)
        return {param["name"]: str(param["value"]) for param in listed}

    before = settings()
    changed = {"policy": "wrr", "mode": "forward", "mechanism": "forward", "t-low": "7"}
    assert not changed.items() & before.items()
    cluster.spoil()
    dispatcher.sh("cluster_startup drain node3")
    dispatcher.sh("cluster_startup set " + " ".join(f"{name}={value}" for name, value in changed.items()))
    assert settings() == before | changed
    cluster.kill_node(1)
    cluster.start_node(1)
    cluster.wait(cluster.complete, what="a whole cluster")
    assert settings() == before
    assert states(cluster, 1) == states(cluster, 2) == ["up", "up"]
