# SPDX-License-Identifier: GPL-2.0
"""The admission limit: with as many connections as the cluster may have, others wait for theirs."""

import contextlib

import pytest
from support import begin, counted, everywhere, wait_idle

pytestmark = pytest.mark.layout(nodes=4, fe=(2, 3), be=(3, 4))


def hold(host, names):
    """A connection for each name, that asks for /wait/NAME; one after the other, so that they are
    in order. Returns status and Retry-After of each answer, and the order in which they came."""
    done, order = {}, []

    def ask(number, connection):
        try:
            answer = connection.answer()
            done[number] = [answer.status, answer.fields.get("retry-after")]
        except (OSError, client.Closed) as error:
            done[number] = [type(error).__name__, None]
        order.append(number)

    threads = []
    for number, name in enumerate(names):
        connection = client.Connection(host, timeout=100)
        connection.send(client.head(f"/wait/{name}?{number}", close=True))
        threads.append(threading.Thread(target=ask, args=(number, connection)))
        threads[-1].start()
    print("asked", flush=True)
    for thread in threads:
        thread.join()
    return [done[number] for number in range(len(names))], order


def leave(host, count):
    """Connections whose clients ask and reset them when they are told to, in a file."""
    held = [client.Connection(host) for _ in range(count)]
    for number, connection in enumerate(held):
        connection.send(client.head(f"/wait/never?{number}"))
    while not os.path.exists("/run/lard-test/leave"):
        time.sleep(0.02)
    for connection in held:
        connection.reset()


def open_gate(cluster, name):
    everywhere(cluster, f"touch /run/lard-test/{name}")


@contextlib.contextmanager
def limited(cluster, limit, **params):
    """A quiet cluster with this many connections at most, and gates that are closed."""
    wait_idle(cluster)
    everywhere(cluster, "rm -rf /run/lard-test; mkdir -p /run/lard-test")
    words = {"max-connections": limit, **{n.replace("_", "-"): v for n, v in params.items()}}
    for name, value in words.items():
        cluster.set(cluster.layout.d, name, value)
    yield
    wait_idle(cluster)


def seen(cluster):
    """What the dispatcher shows: connections that are served, and that wait."""
    status = cluster.status(cluster.layout.d)
    return sum(node["load"] or 0 for node in status["nodes"]), status["node"]["waiting"]


def becomes(cluster, served, waiting):
    cluster.wait(lambda: seen(cluster) == (served, waiting), what=f"{served} served, {waiting} wait")


OK = [200, None]
UNAVAILABLE = [503, "1"]


@pytest.mark.vms
@pytest.mark.parametrize("policy", ["lard", "wrr"])
def test_the_excess_waits_and_is_served_without_a_failure(cluster, policy):
    cluster.set(1, "policy", policy)
    with limited(cluster, 4, queue_time_ms=60000):
        with counted(cluster, exact_dp_waits=10, exact_dp_admitted=10, exact_fe_503=0):
            held = [
                begin(cluster.client, hold, fe.ext, ["gate"] * 7)
                for fe in cluster.fes
            ]
            becomes(cluster, 4, 10)
            assert "10 wait" in cluster.node(1).sh("cluster_startup status").stdout
            open_gate(cluster, "gate")
            for running in held:
                answers, _ = running.result()
                assert answers == [OK] * 7


@pytest.mark.vms
def test_who_came_first_is_served_first(cluster):
    with limited(cluster, 1, queue_time_ms=60000):
        running = begin(cluster.client, hold, cluster.fes[0].ext, [f"turn{i}" for i in range(6)])
        becomes(cluster, 1, 5)
        # Whoever came out of turn would find its gate closed, and hold up the others.
        for turn in range(6):
            becomes(cluster, 1, 5 - turn)
            open_gate(cluster, f"turn{turn}")
        answers, order = running.result()
        assert answers == [OK] * 6
        assert order == list(range(6))


def test_who_waits_for_too_long_is_told_to_come_again(cluster):
    with limited(cluster, 2, queue_time_ms=700):
        with counted(cluster, exact_dp_waits=3, exact_dp_queue_timeout=3, exact_fe_503=3):
            running = begin(cluster.client, hold, cluster.fes[0].ext, ["slow"] * 5)
            cluster.wait(lambda: cluster.stats(1)["dp_queue_timeout"] >= 3, what="three give up")
            becomes(cluster, 2, 0)
            open_gate(cluster, "slow")
            answers, _ = running.result()
            assert answers == [OK] * 2 + [UNAVAILABLE] * 3


def test_many_whose_time_is_over_at_once_are_all_told(cluster):
    """More than are answered in one go."""
    count = 150
    with limited(cluster, 1, queue_time_ms=60000):
        running = begin(cluster.client, hold, cluster.fes[0].ext, ["many"] * count)
        becomes(cluster, 1, count - 1)
        late = count - 1
        with counted(cluster, exact_dp_queue_timeout=late, exact_fe_503=late, exact_dp_admitted=0):
            cluster.node(1).sh("cluster_startup set queue-time-ms=1")
            becomes(cluster, 1, 0)
        open_gate(cluster, "many")
        answers, _ = running.result()
        assert sorted(answers) == [OK] + [UNAVAILABLE] * late


def test_no_more_wait_than_may(cluster):
    with limited(cluster, 1, queue_max=2, queue_time_ms=60000):
        with counted(cluster, exact_dp_waits=2, exact_dp_queue_full=3, exact_fe_503=3):
            running = begin(cluster.client, hold, cluster.fes[0].ext, ["full"] * 6)
            becomes(cluster, 1, 2)
            cluster.wait(lambda: cluster.stats(2)["fe_no_back_end"] >= 3, what="three refused")
            open_gate(cluster, "full")
            answers, _ = running.result()
            # Heads of different connections may overtake each other in a guest of two processors.
            assert sorted(answers) == [OK] * 3 + [UNAVAILABLE] * 3


@pytest.mark.vms
def test_who_leaves_while_it_waits_takes_nobodys_place(cluster):
    with limited(cluster, 1, queue_time_ms=60000):
        first = begin(cluster.client, hold, cluster.fes[0].ext, ["first"])
        becomes(cluster, 1, 0)
        leaving = begin(cluster.client, leave, cluster.fes[0].ext, 3)
        becomes(cluster, 1, 3)
        last = begin(cluster.client, hold, cluster.fes[1].ext, ["last"])
        becomes(cluster, 1, 4)
        open_gate(cluster, "leave")
        leaving.result()
        gone = lambda: not [c for c in cluster.connections(2) if c["state"] == "asking"]
        cluster.wait(gone, what="the front-end knows that they have left")
        open_gate(cluster, "first")
        assert first.result()[0] == [OK]
        becomes(cluster, 1, 0)
        open_gate(cluster, "last")
        assert last.result()[0] == [OK]


def test_a_higher_limit_and_none_let_in_who_waits(cluster):
    with limited(cluster, 1, queue_time_ms=60000):
        running = begin(cluster.client, hold, cluster.fes[0].ext, ["more"] * 8)
        becomes(cluster, 1, 7)
        cluster.node(1).sh("cluster_startup set max-connections=3")
        becomes(cluster, 3, 5)
        # Of two nodes: 6 - 1 + 4.
        cluster.set(1, "t-low", 2)
        cluster.set(1, "t-high", 4)
        cluster.node(1).sh("cluster_startup set max-connections=auto")
        becomes(cluster, 5, 3)
        assert cluster.status(1)["node"]["limit"] == 5
        # A policy without thresholds has no such limit.
        cluster.set(1, "policy", "wrr")
        becomes(cluster, 8, 0)
        assert cluster.status(1)["node"]["limit"] is None
        open_gate(cluster, "more")
        assert running.result()[0] == [OK] * 8
    wrong = cluster.node(1).sh("cluster_startup set max-connections=many", check=False)
    assert wrong.code == 1 and "max-connections" in wrong.stderr, wrong


def test_without_the_dispatcher_who_waits_is_served_all_the_same(cluster):
    with limited(cluster, 2, queue_time_ms=60000):
        running = begin(cluster.client, hold, cluster.fes[0].ext, ["alone"] * 6)
        becomes(cluster, 2, 4)
        with counted(cluster, fe_assign_fallback=4):
            cluster.kill_node(1)
            cluster.wait(
                lambda: sum(cluster.stats(i)["be_adopted"] for i in (3, 4)) and
                not [c for c in cluster.connections(2) if c["state"] == "asking"],
                what="nobody asks any more",
            )
            open_gate(cluster, "alone")
            assert running.result()[0] == [OK] * 6
        cluster.start_node(1)
        cluster.wait(cluster.complete, what="a whole cluster")


def test_a_front_end_that_is_lost_leaves_nobody_waiting(cluster):
    with limited(cluster, 1, queue_time_ms=60000):
        kept = begin(cluster.client, hold, cluster.fes[1].ext, ["lost", "lost"])
        becomes(cluster, 1, 1)
        begin(cluster.client, hold, cluster.fes[0].ext, ["lost"] * 4)
        becomes(cluster, 1, 5)
        cluster.spoil()
        cluster.kill_node(2)
        becomes(cluster, 1, 1)
        open_gate(cluster, "lost")
        assert kept.result()[0] == [OK] * 2


@pytest.mark.layout(nodes=1, d=1, fe=(1,), be=(1,))
def test_on_one_node_alone_they_wait_as_well(cluster):
    with limited(cluster, 2, queue_time_ms=60000):
        with counted(cluster, exact_dp_waits=6, exact_dp_admitted=6):
            running = begin(cluster.client, hold, cluster.fes[0].ext, ["gate"] * 8)
            becomes(cluster, 2, 6)
            open_gate(cluster, "gate")
            assert running.result()[0] == [OK] * 8
        with counted(cluster, exact_dp_queue_timeout=1, exact_fe_503=1):
            cluster.set(1, "queue-time-ms", 500)
            running = begin(cluster.client, hold, cluster.fes[0].ext, ["late"] * 3)
            cluster.wait(lambda: cluster.stats(1)["dp_queue_timeout"], what="one gives up")
            open_gate(cluster, "late")
            assert sorted(map(str, running.result()[0])) == sorted(map(str, [OK, OK, UNAVAILABLE]))
