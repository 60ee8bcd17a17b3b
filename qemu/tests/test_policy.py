# SPDX-License-Identifier: GPL-2.0
"""What the dispatcher decides, seen by clients and by the tool."""

import random

import pytest
from support import run, wait_idle


def nodes_of(host, targets, rounds=1):
    """Which node answered each target, in order, for each round."""
    return [[client.get(host, target).node for target in targets] for _ in range(rounds)]


@pytest.mark.vms
def test_under_lard_a_target_stays_on_its_node_whichever_front_end_is_used(cluster):
    wait_idle(cluster)
    targets = [f"/who?target-{number}" for number in range(24)]
    seen = [run(cluster.client, nodes_of, fe.ext, targets, 2) for fe in cluster.fes]
    first = seen[0][0]
    for rounds in seen:
        for nodes in rounds:
            assert nodes == first
    assert set(first) == {machine.name for machine in cluster.bes}


@pytest.mark.layout(options={1: "--policy wrr"})
def test_under_wrr_requests_spread_evenly_whatever_they_ask_for(cluster):
    [nodes] = run(cluster.client, nodes_of, cluster.fes[0].ext, ["/who"] * 60)
    for machine in cluster.bes:
        assert 15 <= nodes.count(machine.name) <= 25, nodes


@pytest.mark.layout(options={1: "--policy wrr", 2: "--weight 4"})
def test_under_wrr_a_weight_is_a_share(cluster):
    [nodes] = run(cluster.client, nodes_of, cluster.fes[0].ext, ["/who"] * 60)
    assert 35 <= nodes.count("node2") <= 45, nodes


def test_a_drained_node_gets_nothing_new_and_comes_back(cluster):
    wait_idle(cluster)
    targets = [f"/who?drain-{number}" for number in range(30)]
    cluster.node(1).sh("cluster_startup drain node3")
    [drained] = run(cluster.client, nodes_of, cluster.fes[0].ext, targets)
    assert "node3" not in drained and set(drained) == {"node2", "node4"}, drained
    cluster.node(1).sh("cluster_startup drain node3 --undo")

    rounds = iter(range(1000))

    def back():
        # New targets: the others have found their nodes meanwhile.
        new = next(rounds)
        targets = [f"/who?back-{new}-{number}" for number in range(10)]
        [nodes] = run(cluster.client, nodes_of, cluster.fes[0].ext, targets)
        return "node3" in nodes

    cluster.wait(back, what="node3 in use again")


def test_the_policy_is_changed_while_the_cluster_runs(cluster):
    cluster.set(1, "policy", "wrr")
    [nodes] = run(cluster.client, nodes_of, cluster.fes[0].ext, ["/who"] * 30)
    assert len(set(nodes)) == 3, nodes
    cluster.set(1, "policy", "lard")
    [nodes] = run(cluster.client, nodes_of, cluster.fes[0].ext, ["/who"] * 30)
    assert len(set(nodes)) == 1, nodes


@pytest.mark.parametrize("policy", ["lb", "lard", "lardr", "extlard"])
def test_policies_that_look_at_targets_keep_a_target_on_its_node(cluster, policy):
    cluster.set(1, "policy", policy)
    wait_idle(cluster)
    targets = [f"/who?{policy}-{number}" for number in range(24)]
    first, second = run(cluster.client, nodes_of, cluster.fes[0].ext, targets, 2)
    assert first == second
    assert len(set(first)) > 1, first


@pytest.mark.parametrize("policy", ["lc", "chbl"])
def test_policies_that_look_at_load_use_all_nodes(cluster, policy):
    cluster.set(1, "policy", policy)
    wait_idle(cluster)
    targets = [f"/who?{policy}-{number}" for number in range(30)]
    [nodes] = run(cluster.client, nodes_of, cluster.fes[0].ext, targets)
    assert len(set(nodes)) == 3, nodes


def test_the_parameters_of_policies_are_set_together_or_not_at_all(cluster):
    machine = cluster.node(1)
    machine.sh("cluster_startup set policy=lardr t-low=10 t-high=20 k-s=5")
    listed = machine.sh("cluster_startup set").stdout
    for words in ("t-low=30", "t-low=0", "t-high=never", "k-s=5 no-such-thing=1"):
        result = machine.sh(f"cluster_startup set {words}", check=False)
        assert result.code == 1 and result.stderr.strip(), (words, result)
    assert machine.sh("cluster_startup set").stdout == listed
    assert "the dispatcher's" in cluster.node(2).sh("cluster_startup set t-low=10", check=False).stderr
    machine.sh("cluster_startup set policy=lard t-low=25 t-high=65 k-s=20")


@pytest.mark.vms
def test_what_is_drained_stays_so_when_it_comes_back(cluster):
    def serve():
        # None of them asked for before, so that no node has them yet.
        targets = [f"/who?drained-{random.random()}" for _ in range(24)]
        [nodes] = run(cluster.client, nodes_of, cluster.fes[0].ext, targets)
        return set(nodes)

    [number] = [node["id"] for node in cluster.status(1)["nodes"] if node["name"] == "node3"]

    def seen():
        [row] = [node for node in cluster.status(1)["nodes"] if node["id"] == number]
        return row["link"] == "ready", row["state"]

    dispatcher = cluster.node(1)
    cluster.spoil()
    dispatcher.sh("cluster_startup drain node3")
    cluster.kill_node(3)
    cluster.wait(lambda: seen() == (False, "down"), what="the node is lost")
    cluster.start_node(3)
    cluster.wait(lambda: seen() == (True, "drain"), what="the node is back, and drained")
    assert "node3" not in serve()
    # Undone while it is away, it is used when it is back, and not before.
    cluster.kill_node(3)
    cluster.wait(lambda: seen() == (False, "down"), what="the node is lost again")
    dispatcher.sh(f"cluster_startup drain {number} --undo")
    assert seen() == (False, "down") and "node3" not in serve()
    cluster.start_node(3)
    cluster.wait(cluster.complete, what="the node is up")
    assert "node3" in serve()
