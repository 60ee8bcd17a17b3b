# SPDX-License-Identifier: GPL-2.0
"""What ends in the middle of a persistent connection: the client's side of it, a server's, a server, a
node."""

import client
import pytest
from support import APART, CROSSED, FOUR, Talk, counted, enter, owners, run


def machine_of(cluster, name):
    return cluster.node(int(name.removeprefix("node")))


def sockets(machine, port, states=""):
    """What the machine has for a client's port, in these states or in any."""
    return machine.sh(f"ss -Htan {states} 'dport = :{port}'").stdout.splitlines()


def ends(host, port):
    """How connections of a client's port have ended at a server, asked of its own port."""
    with client.Connection(host, port=7080) as connection:
        return connection.request("/ends", close=True).json().get(str(port), [])


def has_ended(cluster, machine, port, how):
    cluster.wait(
        lambda: run(cluster.client, ends, machine.ext, port) == [how], what=f"the server sees {how}"
    )


def begun(hosts, targets):
    """How often each server has begun with one of these, be it for another node."""
    times = []
    for host in hosts:
        with client.Connection(host, port=7080) as connection:
            counts = connection.request("/count", close=True).json()
        times.append(sum(counts[t] for t in counts if t.endswith(tuple(targets))))
    return times


def by_owner(cluster, kind="/size/100"):
    """Targets of each node, by node."""
    targets = [f"{kind}?ends-{n}" for n in range(12)]
    owned = run(cluster.client, owners, cluster.fes[0].ext, targets)
    return {node: [t for t in targets if owned[t] == node] for node in sorted(set(owned.values()))}


def leave(host, first, part):
    """Connections that have had an answer, and end with this part of the next request: by FIN, by RST, and
    of the client's direction only."""
    for way in ("close", "reset", "half_close"):
        connection = client.Connection(host)
        assert connection.request(first).status == 200
        connection.send(part.encode())
        getattr(connection, way)()
        if way == "half_close":
            assert connection.at_end()


@pytest.mark.vms
@pytest.mark.layout(**APART)
@pytest.mark.parametrize("mode", ["move", "forward"], indirect=True)
def test_the_client_leaves_in_the_middle_of_its_next_request(cluster, mode):
    """The server gets what is there of it, and the end."""
    (_, (first, *_)), (_, (second, *_)) = by_owner(cluster).items()
    host, servers = cluster.fes[0].ext, [machine.ext for machine in cluster.bes]
    before = run(cluster.client, begun, servers, [second])

    def all_while_it_is_gathered():
        gathered = cluster.stats(2)["fe_next_closing"]
        with counted(cluster, fe_next=3, be_reset=1, exact_be_adopted=3, exact_fe_move_begun=0):
            run(cluster.client, leave, host, first, f"GET {second} HTTP/1.1\r\n")
        return cluster.stats(2)["fe_next_closing"] == gathered + 3

    # On a busy machine more than a tenth of a second can pass, for which a request is gathered.
    assert any(all_while_it_is_gathered() for _ in range(5))
    assert run(cluster.client, begun, servers, [second]) == before


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
@pytest.mark.parametrize("mode", ["move", "forward", "auto"], indirect=True)
def test_the_old_server_sees_the_end_of_its_connection(cluster, mode):
    """And nobody else does."""
    (old, first), (other, second) = list(by_owner(cluster).items())[:2]
    new = old if mode == "forward" else other
    with Talk(cluster) as talk:
        assert talk.who(first[0]) == [[old, None]]
        before = sockets(machine_of(cluster, old), talk.port, "state established")
        assert len(before) == 1, before
        assert talk.who(second[0])[0][0] == new
        has_ended(cluster, machine_of(cluster, old), talk.port, "ConnectionResetError")
        # Handed over again to the same node, it is another socket there.
        assert len(sockets(machine_of(cluster, old), talk.port)) == (new == old)
        assert len(sockets(machine_of(cluster, new), talk.port, "state established")) == 1
        assert talk.who(second[0])[0][0] == new


@pytest.mark.vms
@pytest.mark.layout(**APART)
@pytest.mark.parametrize("mode", ["move", "forward"], indirect=True)
def test_the_old_server_closes_while_the_next_request_is_held(cluster, mode):
    """The client sees it close, as any that has let its connection idle for too long, and nobody serves
    the request."""
    gate = f"/run/lard-test/close-{mode}"
    leaving = f"/leave/close-{mode}"

    def each(command):
        for machine in cluster.bes:
            machine.sh(f"mkdir -p /run/lard-test; {command} {gate}")

    each("touch")
    old = run(cluster.client, owners, cluster.fes[0].ext, [leaving])[leaving]
    each("rm -f")
    targets = by_owner(cluster)
    asks_for = next(targets[node][0] for node in targets if node != old)
    head = client.head(asks_for)

    servers = [machine.ext for machine in cluster.bes]
    before = run(cluster.client, begun, servers, [asks_for])
    # What is gathered is not held for longer than a tenth of a second.
    with Talk(cluster) as talk, counted(
        cluster, exact_fe_move_begun=0, exact_fe_supplied=0, fe_next_expired=1
    ):
        assert talk.who(leaving) == [[old, None]]
        gathered = cluster.stats(2)["fe_next"]
        talk.send(head[:20])
        cluster.wait(lambda: cluster.stats(2)["fe_next"] > gathered, what="the request is gathered")
        each("touch")
        cluster.wait(
            lambda: not sockets(machine_of(cluster, old), talk.port, "state established"),
            what="the server has closed",
        )
        talk.send(head[20:])
        assert talk.do("answer") in ("Closed", "ConnectionResetError")

    assert run(cluster.client, begun, servers, [asks_for]) == before


@pytest.mark.vms
@pytest.mark.layout(**APART)
@pytest.mark.parametrize("mode", ["move", "forward"], indirect=True)
def test_the_old_server_closes_about_when_it_is_asked_to_let_go(cluster, mode):
    """Before the request, while the dispatcher is asked, while RELEASE is under way, or too late: the
    request is served once, by whom the mode names, or not at all."""

    def race(host, last, targets, count, lingers):
        """Requests of which each comes about when the server of the one before closes."""
        outcomes = []
        for number in range(count):
            with client.Connection(host) as connection:
                assert connection.request(f"{last}-{number}").status == 200
                time.sleep(random.uniform(0, 2 * lingers))
                try:
                    answer = connection.request(targets[number % len(targets)])
                    outcomes.append([answer.status, answer.node, answer.supplier])
                except (client.Closed, OSError) as error:
                    outcomes.append(type(error).__name__)
        return outcomes

    host, servers = cluster.fes[0].ext, [machine.ext for machine in cluster.bes]
    targets, count, lingers = by_owner(cluster)["node3"], 60, 20
    before = run(cluster.client, begun, servers, targets)
    moved = "fe_supplied" if mode == "forward" else "fe_move_begun"
    with counted(cluster, fe_busy_ending=1, **{moved: 1}):
        arguments = (host, f"/linger/{lingers}?{mode}", targets, count, lingers / 1000)
        outcomes = run(cluster.client, race, *arguments)
    served = [outcome for outcome in outcomes if isinstance(outcome, list)]
    assert 0 < len(served) < count and {status for status, *_ in served} == {200}, outcomes
    by = {supplier or node for _, node, supplier in served}
    assert by <= {"node3", cluster.node(3).int}, outcomes
    after = run(cluster.client, begun, servers, targets)
    assert sum(after) == sum(before) + len(served)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
@pytest.mark.parametrize("mode", ["move", "forward"], indirect=True)
def test_the_new_server_closes_without_an_answer(cluster, mode):
    home, (first, *_) = list(by_owner(cluster).items())[0]
    with counted(cluster, fe_move_begun=3):
        for number in range(6):
            with Talk(cluster) as talk:
                assert talk.who(first) == [[home, None]]
                assert talk.request(f"/drop?{mode}-{number}") == "Closed"


def has_missed(cluster, name):
    """Does the front-end know that it cannot reach a node any more?"""
    links = [node["link"] for node in cluster.status(1)["nodes"] if node["name"] == name]
    return "ready" not in links


@pytest.mark.vms
@pytest.mark.layout(**CROSSED)
def test_a_node_dies_before_its_connection_moves(cluster):
    """As without moves: the client waits for a server that is gone, or is reset."""
    enter(cluster, "move")
    (old, (first, *_)), (_, (second, *_)), *_ = by_owner(cluster).items()
    with Talk(cluster) as talk:
        assert talk.who(first) == [[old, None]]
        cluster.spoil()
        machine_of(cluster, old).kill()
        cluster.wait(lambda: has_missed(cluster, old), what="the node is missed")
        before = cluster.stats(1)
        talk.send(client.head(second))
        talk.begin("answer")
        cluster.wait(
            lambda: cluster.stats(1)["fe_release_not_sent"] > before["fe_release_not_sent"],
            what="the request stays",
        )
        cluster.set(1, "expire-nodest", 1)
        assert talk.result() == "ConnectionResetError"
        after = cluster.stats(1)
    assert after["fe_forward_nodest"] == before["fe_forward_nodest"] + 1
    assert after["fe_move_failed"] == before["fe_move_failed"]


@pytest.mark.vms
@pytest.mark.layout(**CROSSED)
@pytest.mark.parametrize("mode,who", [("move", "old"), ("move", "new"), ("forward", "old")])
def test_a_node_that_dies_in_a_move_costs_its_connection(cluster, mode, who):
    """Nobody can say who has the connection: the client is told, and never served twice."""
    enter(cluster, mode)
    (old, (first, *_)), (new, (second, *_)), (third, rest) = by_owner(cluster).items()
    # The dead one is not missed before it is asked.
    cluster.set(1, "dead-after-ms", 60_000)
    with Talk(cluster) as talk:
        assert talk.who(first) == [[old, None]]
        cluster.spoil()
        machine_of(cluster, {"old": old, "new": new}[who]).kill()
        counter = {"old": "fe_move_failed", "new": "tcp_handoff_silent"}[who]
        before = cluster.stats(1)[counter]
        assert talk.request(second) == "ConnectionResetError"
        assert cluster.stats(1)[counter] == before + 1
    # The others go on.
    with Talk(cluster) as talk:
        assert talk.who(*rest) == [[third, None]] * len(rest)


@pytest.mark.vms
@pytest.mark.layout(**CROSSED)
def test_a_node_that_dies_after_its_connection_has_moved_is_not_missed_by_it(cluster):
    enter(cluster, "move")
    (old, (first, *_)), (new, (second, *_)), (third, (last, *_)) = by_owner(cluster).items()
    with Talk(cluster) as talk:
        assert talk.who(first, second) == [[old, None], [new, None]]
        before = cluster.stats(1)
        cluster.spoil()
        machine_of(cluster, old).kill()
        assert talk.who(second, last) == [[new, None], [third, None]]
        cluster.wait(lambda: has_missed(cluster, old), what="the node is missed")
        # What was its own belongs to another one now.
        assert talk.who(first)[0][0] in (new, third)
        assert talk.who(second) == [[new, None]]
        after = cluster.stats(1)
    for counter in ("fe_move_failed", "fe_forward_nodest", "tcp_handoff_silent"):
        assert after[counter] == before[counter], counter
