# SPDX-License-Identifier: GPL-2.0
"""Persistent connections: each request is served by the node that its target belongs to, and the
client notices nothing."""

import pytest
from support import FOUR, counted, owners, owners_behind_gates, run, set_mode, totals, wait_idle


@pytest.fixture
def moving(cluster):
    """A cluster in which connections move, and nothing is left of them behind the test."""
    set_mode(cluster, mode="move")
    wait_idle(cluster)
    with counted(cluster, exact_fe_move_failed=0):
        yield cluster
        cluster.wait_empty()


def follow(host, targets, expected):
    """All targets on one connection, each answer from its node and right to the last byte."""
    sockets = set()
    with client.Connection(host) as connection:
        for target in targets:
            answer = connection.request(target)
            size = int(target.partition("?")[0].rpartition("/")[2])
            assert answer.status == 200, answer.status
            assert answer.sha256 == content.sha256(size), f"{target}: {answer.length} octets"
            assert answer.node == expected[target], f"{target}: {answer.node}"
            sockets.add((answer.node, answer.fields["x-request"]))
    return sorted(sockets)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_answers_of_every_kind(moving):
    host = moving.fes[0].ext
    kinds = ["/size/0", "/status/204", "/status/304", "/chunked/5000", "/chunked/0", "/size/100000"]
    targets = [f"{kind}?kind-{n}" for n in range(6) for kind in kinds]
    expected = run(moving.client, owners, host, targets)

    def kinds_of(host, targets, expected):
        for method in ("GET", "HEAD"):
            with client.Connection(host) as connection:
                for number, target in enumerate(targets):
                    used = method if number % 2 else "GET"
                    if used == "HEAD" and "/size/" not in target:
                        used = "GET"
                    answer = connection.request(target, method=used)
                    assert answer.node == expected[target], (target, used, answer.node)
                    word = target.partition("?")[0].rpartition("/")[2]
                    if used == "GET" and "/status/" not in target:
                        assert answer.sha256 == content.sha256(int(word)), target
                last = connection.request("/close/70000?kind-end")
                assert last.sha256 == content.sha256(70_000)
                assert connection.at_end()

    with counted(moving, fe_move_begun=20, exact_fe_busy_opaque=0):
        run(moving.client, kinds_of, host, targets, expected)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_a_server_that_computes_is_not_robbed_of_its_request(moving):
    """The first request is read, nothing is answered, and TCP is as quiet as can be."""
    host = moving.fes[0].ext
    targets = [f"/size/100?compute-{n}" for n in range(12)]
    expected = run(moving.client, owners, host, targets)
    waiting = owners_behind_gates(moving, [f"/wait/compute-{n}" for n in range(12)])
    servers = {machine.name: machine.ext for machine in moving.bes}

    def compute(host, targets, expected, waiting, servers):
        for begun, here in waiting.items():
            target = next(target for target in targets if expected[target] != here)
            with client.Connection(host) as connection:
                connection.send_acknowledged(client.head(begun))
                connection.send_acknowledged(client.head(target))
                client.open_gate(servers[here], begun.rpartition("/")[2])
                first, second = connection.answer(), connection.answer()
                assert first.body.decode().strip() == first.node
                assert second.sha256 == content.sha256(100) and second.node == first.node

    with counted(moving, fe_busy_answering=12):
        run(moving.client, compute, host, targets, expected, waiting, servers)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_heads_in_several_segments(moving):
    host = moving.fes[0].ext
    targets = [f"/size/1000?long-{n}" for n in range(12)]
    expected = run(moving.client, owners, host, targets)

    def long(host, targets, expected):
        with client.Connection(host) as connection:
            node, stayed = None, 0
            for number, target in enumerate(targets * 2):
                head = client.head(target, length=1000 + 700 * (number % 12))
                if number % 2:
                    # In pieces without a pause.
                    for at in range(0, len(head), 900):
                        connection.send(head[at : at + 900])
                else:
                    connection.send(head)
                answer = connection.answer()
                assert answer.sha256 == content.sha256(1000), target
                # On a host that is busy a head may take too long, and then its request stays.
                assert answer.node in (expected[target], node), (number, answer.node)
                stayed += answer.node != expected[target]
                node = answer.node
            # One that waits for an acknowledgement before it goes on is not kept waiting for ever.
            head = client.head(targets[0])
            connection.send_acknowledged(head[:20], limit=5)
            connection.send(head[20:])
            assert connection.answer().sha256 == content.sha256(1000)
        return stayed

    before = totals(moving)["fe_next_expired"]
    stayed = run(moving.client, long, host, targets, expected)
    assert stayed < totals(moving)["fe_next_expired"] - before


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_a_server_that_is_gone_is_replaced_in_the_middle_of_a_connection(moving):
    host = moving.fes[0].ext
    targets = [f"/size/100?gone-{n}" for n in range(24)]
    expected = run(moving.client, owners, host, targets)
    elsewhere = [t for t in targets if expected[t] != "node3"]
    there = [t for t in targets if expected[t] == "node3"]
    moving.stop_server(3)
    moving.spoil()

    def serve(host, elsewhere, there):
        nodes = []
        with client.Connection(host) as connection:
            for a, b in zip(elsewhere, there):
                connection.request(a)
                answer = connection.request(b)
                assert answer.sha256 == content.sha256(100)
                nodes.append(answer.node)
        return nodes

    with counted(moving, fe_refused_no_listener=1, exact_fe_move_failed=0):
        assert "node3" not in run(moving.client, serve, host, elsewhere, there)
