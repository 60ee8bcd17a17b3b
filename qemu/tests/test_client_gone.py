# SPDX-License-Identifier: GPL-2.0
"""Clients that leave: by FIN, by RST, or without a word, at every stage. Nothing stays behind."""

import pytest
from support import counted, run, set_everywhere

STAGES = ("syn", "handshake", "inside-head", "request", "inside-answer", "after-answer")
WAYS = ("fin", "reset", "silence")


def leave(host, stage, way, count):
    """Brings connections to a stage and leaves; returns the ports they had."""
    link = Link(f"10.10.0.{random.randrange(200, 250)}")
    ports = []
    for number in range(count):
        peer = Peer(link, host)
        ports.append(peer.sport)
        peer.open()
        if stage != "syn":
            peer.segment(ACK)
        if stage == "inside-head":
            peer.send(b"GET /who HTTP/1.1\r\nHost:")
            peer.expect_ack(peer.seq)
        if stage == "request":
            peer.send(b"GET /size/10000 HTTP/1.1\r\nHost: a\r\n\r\n")
        if stage == "inside-answer":
            peer.window = 20_000
            peer.send(b"GET /size/16777216 HTTP/1.1\r\nHost: a\r\n\r\n")
            first = peer.expect("answer", lambda s: s.data)
            peer.ack = (first.seq + first.length) % (1 << 32)
        if stage == "after-answer":
            peer.send(b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n")
            data = peer.receive_all(length=90)
            assert b"node" in data
        if way == "fin":
            peer.segment(ACK | FIN)
        if way == "reset":
            peer.segment(RST, options=b"")
    # Whatever the cluster still sends, FIN or data, nobody answers any more.
    return ports


def hurry(cluster):
    """Times so short that the end of everything can be waited for."""
    set_everywhere(
        cluster,
        half_open_timeout_ms=3000,
        head_timeout_ms=3000,
        idle_timeout_ms=3000,
        time_wait_ms=2000,
    )
    for machine in cluster.nodes:
        # How long the back-end's kernel sends to somebody who has left.
        machine.sh(
            "sysctl -q -w net.ipv4.tcp_retries2=3 net.ipv4.tcp_orphan_retries=1 "
            "net.ipv4.tcp_fin_timeout=3"
        )


@pytest.mark.vms
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_clients_that_leave_at_any_stage(cluster, way):
    hurry(cluster)
    left = {}
    for stage in STAGES:
        # How long to keep an idle persistent connection is the server's decision.
        if (stage, way) != ("after-answer", "silence"):
            for port in run(cluster.client, leave, cluster.fes[0].ext, stage, way, 3):
                left[port] = stage

    def gone():
        entries = [row for i in cluster.layout.members() for row in cluster.connections(i)]
        still = {left.get(int(row["client"].rpartition(":")[2])) for row in entries}
        return not still - {None} or still

    def all_gone():
        return gone() is True

    try:
        cluster.wait(all_gone, timeout=60, what="the connections gone")
    except AssertionError as error:
        raise AssertionError(f"left of the stages: {gone()}") from error


def test_a_client_that_resets_in_the_middle_of_an_answer_frees_the_server(cluster):
    def cut(host):
        for _ in range(20):
            connection = client.Connection(host)
            connection.send(client.head("/size/16777216"))
            connection.more()
            connection.reset()

    hurry(cluster)
    with counted(cluster, exact_be_adopted=20, be_reset=20):
        run(cluster.client, cut, cluster.fes[0].ext)
    cluster.wait_empty(timeout=60)
