# SPDX-License-Identifier: GPL-2.0
"""The length of a back-end's disk queue, from its block layer to the dispatcher."""

import pytest
from support import begin


def disk_of(machine):
    """The disk that holds the guest's image."""
    return machine.sh("ls /dev/vda /dev/ubda 2>/dev/null", check=False).stdout.split()[0]


def read_hard(disk, seconds):
    """Reads from all over the disk, past the page cache, with many readers at once."""
    import mmap

    size, end = 1 << 16, time.monotonic() + seconds

    def reader(seed):
        places = random.Random(seed)
        handle = os.open(disk, os.O_RDONLY | os.O_DIRECT)
        blocks = os.lseek(handle, 0, os.SEEK_END) // size
        buffer = mmap.mmap(-1, size)
        while time.monotonic() < end:
            os.preadv(handle, [buffer], places.randrange(blocks) * size)

    readers = [threading.Thread(target=reader, args=(seed,)) for seed in range(24)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()


def queues(cluster):
    nodes = cluster.status(cluster.layout.d)["nodes"]
    return {node["name"]: node["disk_queue"] for node in nodes if "BE" in node["roles"]}


@pytest.mark.layout(nodes=3, fe=(2,), be=(2, 3))
def test_the_dispatcher_sees_the_queue_of_a_disk_that_is_busy(cluster):
    machine = cluster.node(2)
    disk = disk_of(machine)
    cluster.spoil()
    cluster.kill_node(2)
    machine.spawn(f"{cluster.layout.words(2)} --disk {disk}")
    cluster.wait(lambda: queues(cluster).get("node2") == 0, what="an idle disk")
    reading = begin(machine, read_hard, disk, 8)
    # As many as make a disk count as busy by default; the other back-end has named no disk.
    seen = cluster.wait(lambda: (q := queues(cluster))["node2"] >= 5 and q, what="a busy disk")
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
