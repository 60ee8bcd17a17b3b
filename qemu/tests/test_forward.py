# SPDX-License-Identifier: GPL-2.0
"""The mode forward: the node that has a connection answers each of its requests, with the content of
the node that the target belongs to; and nobody gets at that node's documents by naming it.

Each server has the directories that would be mounts, with the same content in each; an answer says
which one it is from.
"""

import pytest
from support import FOUR, begin, counted, follows, lose_dispatcher, run, set_mode, wait_idle


@pytest.fixture
def forwarding(cluster):
    """A cluster in the mode forward, and nothing is left of its connections behind the test."""
    set_mode(cluster, mode="forward")
    wait_idle(cluster)
    with counted(cluster, exact_fe_move_failed=0):
        yield cluster
        cluster.wait_empty()
        wait_idle(cluster)


def owners(host, targets, addresses):
    """The address of the node that each target belongs to, asked on connections of their own."""
    return {target: addresses[client.get(host, target).node] for target in targets}


def placed(cluster, targets, host=None):
    """The nodes' addresses, and whose the targets are."""
    addresses = {machine.name: machine.int for machine in cluster.bes}
    host = host or cluster.fes[0].ext
    return addresses, run(cluster.client, owners, host, targets, addresses)


def follow(host, targets, expected, addresses, method="GET"):
    """All targets on one connection: every answer from one node, with the right content of the right
    node; how many had that of another."""
    supplied = 0
    with client.Connection(host) as connection:
        home = None
        for target in targets:
            answer = connection.request(target, method=method)
            assert answer.status == 200, (target, answer.status)
            home = home or answer.node
            assert answer.node == home, f"{target}: {answer.node}, not {home}"
            own = addresses[home] == expected[target]
            assert answer.supplier == (None if own else expected[target]), (target, answer.supplier)
            size = int(target.partition("?")[0].rpartition("/")[2])
            if method != "HEAD":
                assert answer.sha256 == content.sha256(size), f"{target}: {answer.length} octets"
            supplied += not own
    return supplied


@pytest.mark.layout(**FOUR)
def test_heads_are_forwarded_too(forwarding):
    targets = [f"/size/1460?head-{n}" for n in range(12)]
    addresses, expected = placed(forwarding, targets)
    host = forwarding.fes[0].ext
    assert run(forwarding.client, follow, host, targets * 3, expected, addresses, "HEAD") > 0


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_the_name_of_the_node_stands_in_front_of_the_path(forwarding):
    paths = ["/size/100", "/size/100?a=/b&c", "//size//100", "/%73ize/1%30%30?%2e%2e", "/size/100?../x"]
    targets = [f"{path}{'&' if '?' in path else '?'}{n}" for n in range(6) for path in paths]

    def spelt(host, targets):
        found = 0
        for absolute in (False, True):
            with client.Connection(host) as connection:
                connection.request("/who")
                for target in targets:
                    asked = "http://cluster" + target if absolute else target
                    answer = connection.request(asked)
                    line = answer.fields["x-line"]
                    prefix = "/" + answer.supplier if answer.supplier else ""
                    if prefix:
                        assert line == f"GET {prefix}{target} HTTP/1.1", line
                    else:
                        assert line == f"GET {asked} HTTP/1.1", line
                    found += bool(prefix)
        return found

    assert run(forwarding.client, spelt, forwarding.fes[0].ext, targets) >= 20


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_answers_of_every_kind(forwarding):
    kinds = ["/size/0", "/status/204", "/status/304", "/chunked/5000", "/chunked/0", "/size/100000"]
    targets = [f"{kind}?kind-{n}" for n in range(6) for kind in kinds]
    addresses, expected = placed(forwarding, targets)

    def kinds_of(host, targets, expected, addresses):
        with client.Connection(host) as connection:
            home = connection.request("/who").node
            for target in targets:
                answer = connection.request(target)
                own = addresses[home] == expected[target]
                assert answer.supplier == (None if own else expected[target]), target
                word = target.partition("?")[0].rpartition("/")[2]
                if "/status/" not in target:
                    assert answer.sha256 == content.sha256(int(word)), target
            last = connection.request("/close/70000?kind-end")
            assert last.sha256 == content.sha256(70_000)
            assert connection.at_end()

    with counted(forwarding, fe_supplied=20, exact_fe_busy_opaque=0):
        run(forwarding.client, kinds_of, forwarding.fes[0].ext, targets, expected, addresses)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_heads_of_every_length(forwarding):
    """Up to the limit, in one piece and in several: the longest ones are held in part, and grow."""
    targets = [f"/size/1000?long-{n}" for n in range(12)]
    addresses, expected = placed(forwarding, targets)

    def long(host, targets, expected, addresses):
        with client.Connection(host) as connection:
            home = connection.request("/who").node
            for number, target in enumerate(targets * 3):
                head = client.head(target, length=[100, 1000 + 700 * (number % 12), 16_384][number % 3])
                if number % 2:
                    for at in range(0, len(head), 900):
                        connection.send(head[at : at + 900])
                else:
                    connection.send(head)
                answer = connection.answer()
                assert answer.sha256 == content.sha256(1000), target
                own = addresses[home] == expected[target]
                possible = [None if own else expected[target]]
                # What takes longer than a tenth of a second to come stays.
                if len(head) > 1400 or number % 2:
                    possible.append(None)
                assert answer.supplier in possible, (number, target)
            # One that waits for an acknowledgement before it goes on stays, and is checked.
            head = client.head(targets[0])
            connection.send_acknowledged(head[:20], limit=5)
            connection.send(head[20:])
            assert connection.answer().sha256 == content.sha256(1000)
            head = client.head("/10.20.0.1/size/100")
            connection.send_acknowledged(head[:8], limit=5)
            try:
                connection.send(head[8:])
                connection.answer()
            except ConnectionResetError:
                return
            raise AssertionError("it was answered")

    with counted(forwarding, fe_next_expired=2, fe_checked_reserved=1, fe_supplied=3):
        run(forwarding.client, long, forwarding.fes[0].ext, targets, expected, addresses)


SPELLINGS = [
    "/10.20.0.1/size/100",
    "/10.20.0.2/size/100?x",
    "//10.20.0.3/size/100",
    "/./10.20.0.4/size/100",
    "/%31%30.20.0.1/size/100",
    "/10%2e20%2E0%2e2/size/100",
    "/%2f10.20.0.3/size/100",
    "/x/../10.20.0.4/size/100",
    "/x/%2e%2e/10.20.0.1/size/100",
    "/..;/10.20.0.2/size/100",
    "/10.20.0.3;x/size/100",
    "/\\10.20.0.4\\size",
    "/10.20.0.1",
    "/010.020.000.001/size/100",
    "http://cluster/10.20.0.1/size/100",
    "http://cluster//10.20.0.1/size/100",
]


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_nobody_gets_at_a_node_by_naming_it(forwarding):
    def first(host, spellings):
        for target in spellings:
            for method in ("GET", "HEAD", "POST", "DELETE"):
                with client.Connection(host) as connection:
                    answer = connection.request(target, method=method)
                    assert (answer.status, answer.node) == (403, None), (target, method, answer.status)
                    assert connection.at_end()

    def later(host, spellings, how):
        def ends(connection, data):
            try:
                connection.send(data)
                while True:
                    answer = connection.answer()
                    assert answer.supplier is None and answer.status == 200, answer.fields
            except ConnectionResetError:
                return
            raise AssertionError("no reset")

        for target in spellings:
            with client.Connection(host) as connection:
                assert connection.request("/who").status == 200
                good, bad = client.head("/who"), client.head(target)
                body = client.head("/echo", method="POST", fields=[("Content-Length", "5")]) + b"12345"
                chunks = client.head("/echo", method="POST", fields=[("Transfer-Encoding", "chunked")])
                chunks += b"5\r\n12345\r\n0\r\n\r\n"
                ends(connection, {
                    "alone": bad,
                    "behind": good + bad,
                    "behind-three": good * 3 + bad + good,
                    "behind-a-body": body + bad,
                    "behind-chunks": chunks + bad,
                    "empty-lines": b"\r\n\r\n" + bad,
                }[how])

    host = forwarding.fes[0].ext
    count = 4 * len(SPELLINGS)
    with counted(forwarding, http_reserved=count, exact_fe_checked_reserved=0):
        run(forwarding.client, first, host, SPELLINGS)
    for how in ("alone", "behind", "behind-three", "behind-a-body", "behind-chunks", "empty-lines"):
        with counted(forwarding, fe_checked_reserved=len(SPELLINGS)):
            run(forwarding.client, later, host, SPELLINGS, how)

    def together(host, spellings):
        """With the first request, so that the front-end answers by itself."""
        for target in spellings:
            with client.Connection(host) as connection:
                connection.send(client.head("/who") + client.head(target))
                assert connection.answer().status == 403, target

    with counted(forwarding, http_reserved=len(SPELLINGS)):
        run(forwarding.client, together, host, SPELLINGS)


@pytest.mark.layout(**FOUR)
def test_what_cannot_be_followed_ends(forwarding):
    """Each of these is answered, and then nothing passes any more."""

    def unread(host):
        bad = client.head("/10.20.0.1/size/100")
        good = client.head("/who")
        upgrade = client.head("/who", fields=[("Connection", "upgrade"), ("Upgrade", "x")])
        content = client.head("/who", fields=[("Content-Length", "3")])
        closing = client.head("/who", close=True)
        for first, then in (
            (upgrade, good),
            (upgrade, bad),
            (content, b"abc"),
            (closing, good),
            (closing, bad),
            (good, b"GET /who HTTP/1.1\r\nHost: h\r\n folded: x\r\n\r\n"),
            (good, b"GET /who HTTP/2.0\r\n\r\n"),
            (good, b"GET /10.20.0.1/size/100\r\n"),
            (good, b"\x16\x03\x01\x02\x00\x01\x00"),
            (good, client.head("/echo", method="POST", fields=[("Transfer-Encoding", "chunked")])
             + b"5;\n12345\r\n0\r\n\r\n"),
            (good, client.head("/echo", method="POST", fields=[("Transfer-Encoding", "chunked"),
                                                               ("Content-Length", "3")]) + b"abc"),
        ):
            with client.Connection(host) as connection:
                connection.send(first)
                if first is not content:
                    assert connection.answer().status == 200
                try:
                    connection.send(then)
                    answer = connection.answer()
                except (ConnectionResetError, BrokenPipeError, client.Closed):
                    continue
                raise AssertionError((first, then, answer.status))

    # A connection that the server has closed already is reset by nobody in particular.
    with counted(forwarding, fe_checked_unread=8):
        run(forwarding.client, unread, forwarding.fes[0].ext)

    def with_it(host):
        content = client.head("/who", fields=[("Content-Length", "3")]) + b"abc"
        upgrade = client.head("/who", fields=[("Connection", "upgrade"), ("Upgrade", "x")])
        closing = client.head("/who", close=True)
        for data in (content, upgrade + b"x", closing + client.head("/10.20.0.1/who")):
            with client.Connection(host) as connection:
                connection.send(data)
                assert connection.answer().status == 400, data
        # Old clients send an empty line behind a body.
        with client.Connection(host) as connection:
            connection.send(client.head("/who", close=True) + b"\r\n")
            assert connection.answer().status == 200

    with counted(forwarding, http_unread=3):
        run(forwarding.client, with_it, forwarding.fes[0].ext)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_what_was_checked_cannot_be_changed(forwarding):
    """The server's TCP throws a segment away that the front-end has read, and gets another one."""

    def change(host):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        good = b"GET /aa.bb.c.d/size/100 HTTP/1.1\r\nHost: h\r\n\r\n"
        evil = b"GET /10.20.0.1/size/100 HTTP/1.1\r\nHost: h\r\n\r\n"
        assert len(good) == len(evil)
        for number in range(4):
            peer = Peer(link, host)
            peer.handshake()
            peer.send(b"GET /who HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b"node" in peer.receive_all(length=100, quiet_limit=1.0)
            old = (peer.stamp() - 100_000) & 0xFFFFFFFF
            if number % 2:
                # In one piece: it is held, assigned, and passed on to the child, which drops it.
                peer.segment(ACK | PSH, b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx" + good,
                             stamp=old)
                peer.segment(ACK | PSH, b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx" + evil)
            else:
                peer.segment(ACK | PSH, good[:20], stamp=old)
                time.sleep(0.5)
                peer.segment(ACK | PSH, evil[:20])
                peer.segment(ACK | PSH, good[20:], seq=peer.seq + 20)
            got = peer.receive_all(length=1, quiet_limit=2.0) if number % 2 == 0 else b""
            seen = b"".join(segment.data for segment in peer.seen)
            assert b"X-Supplier" not in seen and b"10.20.0.1" not in seen, (number, got, seen[-300:])
            peer.reset()

    with counted(forwarding, fe_checked_changed=4):
        run(forwarding.client, change, forwarding.fes[0].ext)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_connections_of_another_mode_end_with_the_next_bytes(cluster):
    def before(host, number):
        gate = f"/run/lard-test/before-{number}"
        with client.Connection(host) as connection:
            assert connection.request("/who").status == 200
            open(gate + "-begun", "w").close()
            while not os.path.exists(gate):
                time.sleep(0.05)
            try:
                return connection.request("/10.20.0.1/size/100").supplier
            except ConnectionResetError:
                return "reset"

    cluster.client.sh("mkdir -p /run/lard-test; rm -f /run/lard-test/before-*")
    host = cluster.fes[0].ext

    def begun(number):
        running = begin(cluster.client, before, host, number)
        file = f"/run/lard-test/before-{number}"
        cluster.wait(
            lambda: cluster.client.sh(f"test -e {file}-begun", check=False).code == 0,
            what="the connection is there",
        )
        return running, lambda: cluster.client.sh(f"touch {file}")

    running, go = begun(1)
    go()
    assert running.result() == "10.20.0.1"
    running, go = begun(2)
    set_mode(cluster, mode="forward")
    with counted(cluster, fe_checked_before=1):
        go()
        assert running.result() == "reset"
    # And one of this mode is checked in another, too.
    running, go = begun(3)
    cluster.node(cluster.layout.d).sh("cluster_startup set mode=pin")

    cluster.wait(
        lambda: not follows(cluster, cluster.fes[0]), what="the front-end does not follow connections"
    )
    with counted(cluster, fe_checked_reserved=1):
        go()
        assert running.result() == "reset"
    cluster.wait_empty()


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_a_server_that_is_gone_is_replaced_and_serves_by_itself(forwarding):
    """Between two requests the server's listener ends, its process lives: home refuses."""
    targets = [f"/size/100?gone-{n}" for n in range(24)]
    addresses, expected = placed(forwarding, targets)
    host = forwarding.fes[0].ext
    first = next(target for target in targets if expected[target] == addresses["node3"])
    rest = [target for target in targets if expected[target] != addresses["node3"]]
    forwarding.client.sh("mkdir -p /run/lard-test; rm -f /run/lard-test/gone-*")

    def serve(host, first, rest):
        with client.Connection(host) as connection:
            assert connection.request(first).node == "node3"
            open("/run/lard-test/gone-begun", "w").close()
            while not os.path.exists("/run/lard-test/gone-go"):
                time.sleep(0.05)
            answer = connection.request(rest)
            return [answer.node, answer.supplier, answer.sha256 == content.sha256(100)]

    running = begin(forwarding.client, serve, host, first, rest[0])
    forwarding.wait(
        lambda: forwarding.client.sh("test -e /run/lard-test/gone-begun", check=False).code == 0,
        what="the connection is there",
    )
    forwarding.spoil()
    # New connections are refused there from now on, the one it has goes on.
    forwarding.node(3).sh("sysctl -q -w net.ipv4.tcp_syncookies=0")
    try:
        with counted(forwarding, fe_refused_syncookies_off=1):
            forwarding.client.sh("touch /run/lard-test/gone-go")
            node, supplier, right = running.result()
    finally:
        forwarding.node(3).sh("sysctl -q -w net.ipv4.tcp_syncookies=1")
    assert node != "node3" and supplier is None and right


def test_without_a_dispatcher_connections_are_checked(cluster):
    set_mode(cluster, mode="forward")
    lose_dispatcher(cluster)

    def nodes(host):
        with client.Connection(host) as connection:
            answers = [connection.request(f"/who?alone-{n}") for n in range(20)]
            assert not any(answer.supplier for answer in answers)
            try:
                connection.request("/10.20.0.3/who")
            except ConnectionResetError:
                return [answer.node for answer in answers]

    before = cluster.stats(2)
    assert len(set(run(cluster.client, nodes, cluster.fes[0].ext))) == 1
    after = cluster.stats(2)
    assert after["fe_next_no_dispatcher"] >= before["fe_next_no_dispatcher"] + 19
    assert after["fe_checked_reserved"] == before["fe_checked_reserved"] + 1
