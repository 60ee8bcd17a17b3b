# SPDX-License-Identifier: GPL-2.0
"""The length of a back-end's disk queue, from its block layer to the dispatcher."""

import pytest
from support import begin, queues, read_hard


@pytest.mark.vms
@pytest.mark.layout(nodes=3, fe=(2,), be=(2, 3))
def test_the_dispatcher_sees_the_queue_of_a_disk_that_is_busy(cluster, slow_disk):
    machine = cluster.node(2)
    cluster.spoil()
    cluster.kill_node(2)
    machine.spawn(f"{cluster.layout.words(2)} --disk {slow_disk}")
    cluster.wait(lambda: queues(cluster).get("node2") == 0, what="an idle disk")
    reading = begin(machine, read_hard, slow_disk, 24, None)
    seen = cluster.wait(lambda: (q := queues(cluster))["node2"] == 24 and q, what="a busy disk")
    # It has named no disk.
    assert seen["node3"] == 0, seen
    assert "DISK" in cluster.node(1).sh("cluster_startup status").stdout
    reading.result()
    cluster.wait(lambda: queues(cluster)["node2"] == 0, what="an idle disk again")


@pytest.mark.layout(nodes=3, fe=(2,), be=(2, 3))
def test_what_is_on_no_disk_is_refused_with_the_remedy(cluster):
    for place, words in (("/proc", "--disk /dev/"), ("/no/such/place", "No such file")):
        started = cluster.node(2).sh(
            f"cluster_startup -BE -da node1 --name x --disk {place}", check=False
        )
        assert started.code == 1 and words in started.stderr, started
