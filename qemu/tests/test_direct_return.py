# SPDX-License-Identifier: GPL-2.0
"""Who carries which bytes: answers never cross a front-end that does not serve them."""

import pytest
from support import run, wait_idle


def sent(machine):
    return {interface: machine.counters(interface)["tx_bytes"] for interface in ("ext0", "int0")}


@pytest.mark.vms
@pytest.mark.layout(nodes=4, d=1, fe=(1,), be=(2, 3, 4))
def test_no_answer_crosses_the_front_end(cluster):
    def fetch(host, count):
        return [client.check_size(host, content.LARGEST) for _ in range(count)]

    front_end = cluster.fes[0]
    before = sent(front_end)
    servers = sum(machine.counters("ext0")["tx_bytes"] for machine in cluster.bes)
    nodes = run(cluster.client, fetch, front_end.ext, 2, timeout=160)
    after = sent(front_end)
    size = 2 * (16 << 20)
    assert all(name in {machine.name for machine in cluster.bes} for name in nodes)
    # Handshakes only to the client; hand-offs and the client's small packets to the back-ends.
    assert after["ext0"] - before["ext0"] < 20_000, (before, after)
    assert after["int0"] - before["int0"] < size // 16, (before, after)
    assert sum(m.counters("ext0")["tx_bytes"] for m in cluster.bes) - servers > size


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
