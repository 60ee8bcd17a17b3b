# SPDX-License-Identifier: GPL-2.0
"""What all clients together may take of a front-end before their hand-off."""

import pytest
from support import Talk, begin, counted, run, set_on

# That of test_starts_and_stops.
pytestmark = pytest.mark.layout(nodes=3, d=1, fe=(2,), be=(1, 3))

GATE = "/run/lard-test-caps"


def once(host):
    return client.get(host, "/who").status


def wait_for(cluster, counter, running):
    """Until it rises for what runs, which must not end before."""
    before = cluster.stats(2)[counter]

    def rises():
        assert running.process.poll() is None, running.result()
        return cluster.stats(2)[counter] > before

    cluster.wait(rises, what=f"{counter} rises")


def begin_closed(cluster, function, *arguments):
    """Something that goes on when GATE is there."""
    cluster.client.sh(f"rm -f {GATE}")
    return begin(cluster.client, function, *arguments, GATE)


def test_unfinished_heads_have_room_together_and_short_ones_always(cluster):
    def send_heads(host, count, gate):
        held = [client.Connection(host, timeout=100) for _ in range(count)]
        head = client.head("/who", length=16_000, close=True)
        for connection in held:
            connection.send(head[:-1])
        while not os.path.exists(gate):
            time.sleep(0.02)
        held.pop(0).reset()
        for connection in held:
            connection.send(head[-1:])
        return [connection.answer().status for connection in held]

    host, room = cluster.fes[0].ext, 65_536
    # Of each head 2048 octets are not counted: no five fit.
    set_on(cluster, 2, head_memory=room, head_timeout_ms=600_000, time_wait_ms=1000)
    with Talk(cluster) as earlier:
        assert earlier.request("/who")["status"] == 200
        running = begin_closed(cluster, send_heads, host, 6)
        wait_for(cluster, "fe_head_memory", running)
        assert room // 2 < cluster.status(2)["node"]["head_memory"] <= room
        assert earlier.request("/who")["status"] == 200
        assert run(cluster.client, once, host) == 200
        cluster.client.sh(f"touch {GATE}")
        # What found no room was sent again.
        assert running.result() == [200] * 5
        assert earlier.request("/who")["status"] == 200
    cluster.wait_empty()


def test_more_connections_than_may_wait_for_their_hand_off_are_let_in_later(cluster):
    def crowd(host, count, gate):
        held = [client.Connection(host, timeout=100) for _ in range(count)]
        late = []

        def come_late():
            late.append(client.get(host, "/who").status)

        thread = threading.Thread(target=come_late)
        thread.start()
        while not os.path.exists(gate):
            time.sleep(0.02)
        assert late == []
        first = held[0].request("/who").status
        # It has got the place, while the others hold theirs.
        thread.join()
        return [first, *late, *(connection.request("/who").status for connection in held[1:])]

    most = 8
    set_on(cluster, 2, open_max=most, time_wait_ms=1000)
    with Talk(cluster) as earlier:
        assert earlier.request("/who")["status"] == 200
        running = begin_closed(cluster, crowd, cluster.fes[0].ext, most)
        wait_for(cluster, "fe_open_max", running)
        assert cluster.status(2)["node"]["open"] == most
        assert earlier.request("/who")["status"] == 200
        with counted(cluster, exact_fe_opened=1):
            cluster.client.sh(f"touch {GATE}")
            assert running.result() == [200] * (most + 1)
    cluster.wait_empty()
