# SPDX-License-Identifier: GPL-2.0
"""Who carries which bytes: answers never cross a front-end that does not serve them."""

import pytest
from lardvm import crossing
from support import run, wait_idle


@pytest.mark.vms
@pytest.mark.layout(nodes=4, d=1, fe=(1,), be=(2, 3, 4))
def test_no_answer_crosses_the_front_end(cluster):
    def fetch(host, count):
        return [client.check_size(host, content.LARGEST) for _ in range(count)]

    front_end = cluster.fes[0]
    crossing.count(front_end)
    servers = sum(machine.counters("ext0")["tx_bytes"] for machine in cluster.bes)
    nodes = run(cluster.client, fetch, front_end.ext, 2, timeout=160)
    assert all(name in {machine.name for machine in cluster.bes} for name in nodes)
    assert crossing.octets(front_end) == 0
    crossing.stop(front_end)
    sent = sum(machine.counters("ext0")["tx_bytes"] for machine in cluster.bes) - servers
    assert sent > 2 * (16 << 20)


def test_what_would_cross_a_front_end_is_counted(cluster):
    """That the count is zero above says nothing unless it can be more."""

    def fetch(host, count):
        return [client.get(host, f"/size/10000?{number}").node for number in range(count)]

    machine, other = cluster.fes[:2]
    wait_idle(cluster)
    crossing.count(machine)
    # As a client it gets what it does not serve itself.
    nodes = run(machine, fetch, other.ext, 6)
    least = 10_000 * sum(node != machine.name for node in nodes)
    assert crossing.octets(machine) > least > 0, nodes
    crossing.stop(machine)


@pytest.mark.vms
def test_a_front_end_that_serves_itself_hands_over_locally(cluster):
    def fetch(host, targets):
        return {target: client.get(host, target).node for target in targets}

    wait_idle(cluster)
    targets = [f"/who?{number}" for number in range(30)]
    before = cluster.stat_sum("fe_handoff_local")
    nodes = run(cluster.client, fetch, cluster.fes[0].ext, targets)
    here = sum(node == cluster.fes[0].name for node in nodes.values())
    assert here > 0 and cluster.stat_sum("fe_handoff_local") - before == here, nodes
    assert len(set(nodes.values())) == len(cluster.bes), nodes


@pytest.mark.layout(nodes=1, d=1, fe=(1,), be=(1,))
def test_a_cluster_of_one_node_serves(cluster):
    def fetch(host):
        return [client.check_size(host, size) for size in (0, 100, 1_000_000)]

    assert run(cluster.client, fetch, cluster.fes[0].ext) == ["node1"] * 3
