# SPDX-License-Identifier: GPL-2.0
"""Pipelined requests: each of them is counted, by how it came, and goes where the documentation says."""

import pytest
from support import FOUR, counted, run, set_mode, wait_idle

pytestmark = pytest.mark.layout(**FOUR)


def owners(host, targets):
    return [client.get(host, target).node for target in targets]


@pytest.fixture(params=("move", "forward"))
def mode(request, cluster):
    set_mode(cluster, mode=request.param)
    wait_idle(cluster)
    # What the front-end was asked for to find out.
    cluster.wait_empty()
    return request.param


@pytest.mark.vms
def test_requests_that_come_together_go_where_the_first_of_them_goes(cluster, mode):
    host = cluster.fes[0].ext
    targets = [f"/size/100?together-{mode}-{n}" for n in range(24)]
    nodes = run(cluster.client, owners, host, targets)

    def bursts(host, targets, size):
        seen = []
        with client.Connection(host) as connection:
            for at in range(0, len(targets), size):
                batch = targets[at : at + size]
                connection.send(b"".join(client.head(target) for target in batch))
                answers = [connection.answer() for _ in batch]
                assert all(a.sha256 == content.sha256(100) for a in answers), batch
                seen += [[a.node, bool(a.supplier)] for a in answers]
        return seen

    firsts = nodes[::3]
    if mode == "move":
        wanted = [[first, False] for first in firsts for _ in range(3)]
        elsewhere = sum(a != b for a, b in zip(firsts, firsts[1:]))
        counts = {"exact_fe_move_begun": elsewhere, "exact_fe_next_stays": 7 - elsewhere}
    else:
        home = firsts[0]
        wanted = [[home, n == 0 and first != home] for first in firsts for n in range(3)]
        counts = {"exact_fe_supplied": sum(first != home for first in firsts)}
    # Of each burst one, but the first of all was no further request.
    counts |= {"exact_fe_next": 7, "exact_fe_next_batched": 16, "exact_fe_next_pipelined": 0}
    with counted(cluster, **counts):
        assert run(cluster.client, bursts, host, targets, 3) == wanted


@pytest.mark.vms
def test_a_request_behind_a_body_stays(cluster, mode):
    def post(host):
        with client.Connection(host) as connection:
            connection.request("/who?post")
            body = content.stream()[:2000]
            fields = [("Content-Length", "2000")]
            text = client.head("/echo?post", method="POST", fields=fields) + body
            # Once the server has this nothing is held any more.
            connection.send_acknowledged(text[:-1000])
            connection.send(text[-1000:] + client.head("/who?behind") + client.head("/who?that"))
            echoed = connection.answer()
            assert echoed.json()["sha256"] == hashlib.sha256(body).hexdigest()
            node = echoed.node
            behind = [connection.answer() for _ in range(2)]
            assert [(a.node, a.supplier) for a in behind] == [(node, None)] * 2

    with counted(cluster, exact_fe_next=1, exact_fe_next_pipelined=2, exact_fe_next_batched=0):
        run(cluster.client, post, cluster.fes[0].ext)


@pytest.mark.layout(**FOUR, servers="nginx")
def test_a_request_behind_an_empty_line_stays(cluster, mode):
    def lines(host):
        with client.Connection(host) as connection:
            node = connection.request("/who?line").node
            for number in range(6):
                text = b"\r\n" + client.head(f"/who?a-{number}") + client.head(f"/who?b-{number}")
                connection.send(text)
                answers = [connection.answer() for _ in range(2)]
                assert [(a.node, a.supplier) for a in answers] == [(node, None)] * 2

    exact = {"exact_fe_next": 6, "exact_fe_next_empty_lines": 6, "exact_fe_next_batched": 6}
    with counted(cluster, exact_fe_next_pipelined=0, exact_fe_move_begun=0, **exact):
        run(cluster.client, lines, cluster.fes[0].ext)
