# SPDX-License-Identifier: GPL-2.0
"""Requests that stay where their connection is, and connections that stay for good: each is served, and
each reason is counted under its name."""

import client
import pytest
from support import FOUR, Talk, begin, counted, owners, run, set_on

pytestmark = pytest.mark.layout(**FOUR)

moving = pytest.mark.parametrize("mode", ["move", "auto"], indirect=True)
only_move = pytest.mark.parametrize("mode", ["move"], indirect=True)
only_forward = pytest.mark.parametrize("mode", ["forward"], indirect=True)

LENGTH_3 = [("Content-Length", "3")]
CHUNKED = [("Transfer-Encoding", "chunked")]
# Why a connection stays for good: a request, and what is behind its head. A server answers each once.
PINNED = {
    "head": (b"GET /who HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", b""),
    "chunk": (client.head("/echo", method="POST", fields=CHUNKED), b"3 \r\nabc\r\n0\r\n\r\n"),
    "content": (client.head("/who", fields=LENGTH_3), b"abc"),
    "expectation": (client.head("/who", fields=[("Expect", "something")]), b""),
    "upgrade": (client.head("/who", fields=[("Connection", "upgrade"), ("Upgrade", "x")]), b""),
}


def by_owner(cluster):
    """One target of each node."""
    targets = [f"/size/100?stays-{n}" for n in range(12)]
    owned = run(cluster.client, owners, cluster.fes[0].ext, targets)
    return {owned[target]: target for target in targets}


@pytest.mark.vms
@moving
def test_a_connection_that_cannot_be_followed_stays_for_good(cluster, mode):
    targets = by_owner(cluster)
    for why, (head, behind) in PINNED.items():
        with counted(cluster, **{f"exact_fe_pinned_{why}": 1}), Talk(cluster) as talk:
            assert talk.who(*targets.values()) == [[node, None] for node in targets]
            talk.send(head)
            if behind:
                talk.send(behind)
            answer = talk.do("answer")
            assert answer["status"] == 200, (why, answer)
            assert talk.who(*targets.values()) == [[answer["node"], None]] * len(targets), why


@pytest.mark.vms
@moving
def test_another_protocol_passes_unread(cluster, mode):
    """A server that agrees to it gets every byte, whatever it looks like."""
    targets = by_owner(cluster)
    upgrade = client.head("/who?echo", fields=[("Connection", "upgrade"), ("Upgrade", "echo")])
    connect = b"CONNECT cluster:8080 HTTP/1.1\r\nHost: cluster:8080\r\n\r\n"
    for why, head, says in (("upgrade", upgrade, "HTTP/1.1 101 "), ("connect", connect, "HTTP/1.1 200 ")):
        for before in (targets, {}):
            with counted(cluster, **{f"exact_fe_pinned_{why}": 1}), Talk(cluster) as talk:
                assert talk.who(*before.values()) == [[node, None] for node in before]
                talk.send(head)
                assert talk.do("read", says) == says
                # The rest of a head with the name of some node.
                length = len("OK\r\nX-Node: node1\r\n\r\n") + (why == "upgrade") * 17
                assert talk.do("read", "." * length).endswith("\r\n\r\n")
                for target in targets.values():
                    sent = client.head(target).decode()
                    talk.send(sent.encode())
                    assert talk.do("read", sent) == sent


@pytest.mark.vms
@only_move
def test_the_last_request_of_a_connection_may_move_once_more(cluster, mode):
    (one, first), (two, second) = list(by_owner(cluster).items())[:2]
    with counted(cluster, exact_fe_pinned_closing=1, exact_fe_move_begun=1), Talk(cluster) as talk:
        assert talk.who(first) == [[one, None]]
        answer = talk.request(second, close=True)
        assert answer["node"] == two
        assert talk.do("end") is True


@only_move
def test_behind_a_head_request_in_a_batch_a_connection_stays(cluster, mode):
    """The back-end does not know of it, and cannot tell where its answer ends."""
    targets = by_owner(cluster)

    def ask(host, first, targets):
        with client.Connection(host) as connection:
            connection.send(client.head(first) + client.head(first, method="HEAD"))
            home = connection.answer().node
            assert connection.answer(method="HEAD").node == home
            return home, [connection.request(target).node for target in targets]

    first = next(iter(targets.values()))
    with counted(cluster, exact_fe_pinned_lost=1):
        home, nodes = run(cluster.client, ask, cluster.fes[0].ext, first, list(targets.values()))
    assert set(nodes) == {home}


@pytest.mark.vms
@moving
def test_requests_that_begin_behind_a_body_stay_with_it(cluster, mode):
    targets = by_owner(cluster)
    fields = [("Content-Length", "5")]

    def ask(host, targets, post):
        nodes = []
        with client.Connection(host) as connection:
            for target in targets:
                connection.request(targets[0])
                connection.send_acknowledged(post.encode())
                # Passed on at once, because nothing of a body is held.
                connection.send(b"12345" + client.head(target))
                nodes.append([connection.answer().node, connection.answer().node])
        return nodes

    post = client.head("/echo", method="POST", fields=fields).decode()
    names = list(targets.values())
    with counted(cluster, fe_next_pipelined=len(names)):
        for one, other in run(cluster.client, ask, cluster.fes[0].ext, names, post):
            assert one == other


@only_forward
def test_a_target_with_the_host_in_it_alone_is_served_at_home(cluster, mode):
    targets = by_owner(cluster)
    home, first = next(iter(targets.items()))
    with counted(cluster, exact_fe_next_unsuited=len(targets), exact_fe_supplied=0), Talk(cluster) as talk:
        assert talk.who(first) == [[home, None]]
        for target in targets.values():
            head = f"GET http://cluster{target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            talk.send(head.encode())
            answer = talk.do("answer")
            assert (answer["status"], answer["node"], answer["supplier"]) == (200, home, None)


@pytest.mark.vms
@pytest.mark.parametrize("mode", ["move", "forward"], indirect=True)
def test_without_room_to_hold_it_a_request_stays(cluster, mode):
    """Unfinished heads of other connections take all there is."""
    (home, first), (_, second) = list(by_owner(cluster).items())[:2]
    room = 65_536
    set_on(cluster, 1, head_memory=room, head_timeout_ms=600_000)

    def fill(host, count):
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                connection = stack.enter_context(client.Connection(host))
                # Of each head the first segment is not counted, and with 16 KiB it would be too long.
                head = client.head("/who", length=16_000)
                for at in range(0, 15_000, 1000):
                    try:
                        connection.send_acknowledged(head[at : at + 1000], limit=2)
                    except TimeoutError:
                        print("full", flush=True)
                        while not os.path.exists("/run/lard-test/no-room"):
                            time.sleep(0.05)
                        return at
            return None

    cluster.client.sh("mkdir -p /run/lard-test; rm -f /run/lard-test/no-room")
    with Talk(cluster) as talk:
        assert talk.who(first) == [[home, None]]
        running = begin(cluster.client, fill, cluster.fes[0].ext, 8)
        cluster.wait(lambda: "full" in running.process.stdout(), what="no room")
        assert room - 1500 < cluster.status(1)["node"]["head_memory"] <= room
        with counted(cluster, exact_fe_next_no_room=1, exact_fe_move_begun=0):
            talk.send(client.head(second, length=1448))
            answer = talk.do("answer")
            assert (answer["status"], answer["node"], answer["supplier"]) == (200, home, None)
        cluster.client.sh("touch /run/lard-test/no-room")
        assert running.result() is not None


@pytest.mark.vms
@only_move
def test_before_the_client_has_all_of_an_answer_the_next_request_stays(cluster, mode):
    (home, first), (_, second) = list(by_owner(cluster).items())[:2]

    def ask(host, first, second):
        peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
        peer.handshake()
        peer.send(client.head(first))
        answers = peer.receive_all(length=1, acknowledge=False)
        # The last octets of it are not acknowledged.
        peer.send(client.head(second), ack=peer.ack - 10)
        answers += peer.receive_all(length=1)
        peer.reset()
        return [node.decode() for node in re.findall(rb"X-Node: (\w+)", answers)]

    with counted(cluster, exact_fe_busy_in_flight=1, exact_fe_move_begun=0):
        assert run(cluster.client, ask, cluster.fes[0].ext, first, second) == [home, home]


@pytest.mark.vms
@only_move
def test_while_the_server_is_in_a_call_on_the_socket_the_next_request_stays(cluster, mode, slow_disk):
    """For longer than it is waited for: the server sends what has to be read from a slow disk first."""
    targets = by_owner(cluster)

    def ask(host, targets):
        with client.Connection(host) as connection:
            connection.send(client.head("/page/0"))
            while b"\r\n\r\n" not in connection.buffer:
                connection.more()
            home = re.search(rb"X-Node: (\w+)", connection.buffer)[1].decode()
            # From the head to the disk, where it is for a second at least.
            time.sleep(0.3)
            connection.send(client.head(next(targets[node] for node in targets if node != home)))
            page, other = connection.answer(), connection.answer()
            assert page.length == 4096 and other.sha256 == content.sha256(100)
            return [home, page.node, other.node]

    with counted(cluster, exact_fe_busy_in_use=1, fe_release_again=8, exact_fe_move_begun=0):
        assert len(set(run(cluster.client, ask, cluster.fes[0].ext, targets))) == 1


@pytest.mark.vms
@only_move
def test_what_a_client_acknowledges_during_a_move_is_for_who_gets_the_connection(cluster, mode):
    """The node that has let go knows nothing of it; where the service's address is local, it would answer RST."""
    others = [(node, first) for node, first in by_owner(cluster).items() if node != cluster.fes[0].name]
    (home, first), (there, second) = others[:2]

    def ask(host, first, second):
        peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
        peer.handshake()
        peer.send(client.head(first))
        answers = peer.receive_all(length=1)
        peer.send(client.head(second))
        for window in range(30_000, 30_020):
            peer.segment(ACK, window=window)
            time.sleep(0.02)
        answers += peer.receive_all(length=1)
        peer.reset()
        return [node.decode() for node in re.findall(rb"X-Node: (\w+)", answers)]

    cluster.fes[0].netem("int0", "delay 200ms")
    with counted(cluster, exact_fe_move_begun=1, exact_be_unknown_tuple=0):
        assert run(cluster.client, ask, cluster.fes[0].ext, first, second) == [home, there]
