# SPDX-License-Identifier: GPL-2.0
"""The length of a back-end's disk queue, from its block layer to the dispatcher."""

import pytest
from support import begin


DISKS = "/sys/kernel/config/nullb"


@pytest.fixture
def slow_disk(cluster):
    """A disk of node 2 that takes a second for each read, however fast the machine is."""
    machine = cluster.node(2)
    machine.sh("modprobe null_blk nr_devices=0", check=False)
    machine.sh(
        "mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config\n"
        f"mkdir {DISKS}/slow && cd {DISKS}/slow\n"
        "echo 64 >size; echo 64 >hw_queue_depth; echo 2 >irqmode; echo 1000000000 >completion_nsec\n"
        "echo 1 >power"
    )
    yield "/dev/slow"
    machine.sh(f"echo 0 >{DISKS}/slow/power; rmdir {DISKS}/slow")


def read_hard(disk, readers):
    """Reads past the page cache, by so many readers at once, each a few times."""
    import mmap

    def reader(block):
        handle = os.open(disk, os.O_RDONLY | os.O_DIRECT)
        for _ in range(5):
            os.preadv(handle, [mmap.mmap(-1, 4096)], block * 4096)
        os.close(handle)

    threads = [threading.Thread(target=reader, args=(block,)) for block in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def queues(cluster):
    nodes = cluster.status(cluster.layout.d)["nodes"]
    return {node["name"]: node["disk_queue"] for node in nodes if "BE" in node["roles"]}


@pytest.mark.layout(nodes=3, fe=(2,), be=(2, 3))
def test_the_dispatcher_sees_the_queue_of_a_disk_that_is_busy(cluster, slow_disk):
    machine = cluster.node(2)
    cluster.spoil()
    cluster.kill_node(2)
    machine.spawn(f"{cluster.layout.words(2)} --disk {slow_disk}")
    cluster.wait(lambda: queues(cluster).get("node2") == 0, what="an idle disk")
    reading = begin(machine, read_hard, slow_disk, 24)
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
