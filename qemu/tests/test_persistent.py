# SPDX-License-Identifier: GPL-2.0
"""Persistent connections: each request is served by the node that its target belongs to, and the
client notices nothing."""

import pytest
from support import FOUR, begin, counted, follows, run, set_mode, totals, wait_idle


def owners(host, targets):
    """Which node serves each target, asked on a connection of its own."""
    return {target: client.get(host, target).node for target in targets}


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


def test_connections_stay_where_they_are_unless_told_otherwise(cluster):
    def nodes(host):
        with client.Connection(host) as connection:
            return [connection.request(f"/who?stay-{n}").node for n in range(20)]

    with counted(cluster, exact_fe_next=0, exact_fe_move_begun=0):
        assert len(set(run(cluster.client, nodes, cluster.fes[0].ext))) == 1


@pytest.mark.layout(**FOUR)
def test_a_hundred_requests_on_one_connection(moving):
    host = moving.fes[0].ext
    sizes = [0, 1, 100, 1460, 10_000, 100_000]
    targets = [f"/size/{sizes[n % 6]}?hundred-{n % 24}" for n in range(100)]
    expected = run(moving.client, owners, host, targets[:24])
    assert set(expected.values()) == {f"node{n}" for n in (1, 2, 3, 4)}
    moves = sum(expected[a] != expected[b] for a, b in zip(targets, targets[1:]))
    with counted(moving, fe_move_begun=moves, be_released=moves, exact_fe_move_failed=0):
        run(moving.client, follow, host, targets, expected)


def test_every_front_end_moves_connections(moving):
    targets = [f"/size/1460?every-{n}" for n in range(12)] * 3
    expected = run(moving.client, owners, moving.fes[0].ext, targets[:12])
    for machine in moving.fes:
        run(moving.client, follow, machine.ext, targets, expected)


def test_turned_off_again_connections_stay(moving):
    targets = [f"/size/100?off-{n}" for n in range(12)]
    expected = run(moving.client, owners, moving.fes[0].ext, targets)

    def nodes(host, targets, go):
        with client.Connection(host) as connection:
            for target in targets:
                connection.request(target)
            open("/run/lard-test/off-begun", "w").close()
            while not os.path.exists("/run/lard-test/" + go):
                time.sleep(0.05)
            return [connection.request(target).node for target in targets]

    moving.client.sh("rm -f /run/lard-test/off-*")
    running = begin(moving.client, nodes, moving.fes[0].ext, targets, "off-go")
    moving.wait(
        lambda: moving.client.sh("test -e /run/lard-test/off-begun", check=False).code == 0,
        what="the connection has moved",
    )
    moving.node(moving.layout.d).sh("cluster_startup set mode=pin")

    moving.wait(
        lambda: not follows(moving, moving.fes[0]), what="the front-end does not follow connections"
    )
    moving.client.sh("touch /run/lard-test/off-go")
    assert len(set(running.result())) == 1
    assert len(set(expected.values())) > 1


@pytest.mark.layout(**FOUR)
def test_pipelined_pairs_and_bursts(moving):
    host = moving.fes[0].ext
    targets = [f"/size/{100 * n}?burst-{n}" for n in range(24)]
    expected = run(moving.client, owners, host, targets)

    def bursts(host, targets, expected, size):
        with client.Connection(host) as connection:
            for at in range(0, len(targets), size):
                batch = targets[at : at + size]
                connection.send(b"".join(client.head(target) for target in batch))
                answers = [connection.answer() for _ in batch]
                for target, answer in zip(batch, answers):
                    length = int(target.partition("?")[0].rpartition("/")[2])
                    assert answer.sha256 == content.sha256(length), target
                # A batch goes where its first request belongs.
                assert {a.node for a in answers} == {expected[batch[0]]}, batch

    for size in (2, 3, 8, 24):
        run(moving.client, bursts, host, targets, expected, size)


@pytest.mark.layout(**FOUR)
def test_posts_between_gets(moving):
    host = moving.fes[0].ext
    targets = [f"/size/1460?post-{n}" for n in range(12)]
    expected = run(moving.client, owners, host, targets)

    def posts(host, targets, expected):
        with client.Connection(host) as connection:
            for number, target in enumerate(targets * 3):
                answer = connection.request(target)
                assert answer.sha256 == content.sha256(1460)
                assert answer.node == expected[target], (target, answer.node)
                size = [0, 1, 1000, 40_000, 300_000][number % 5]
                body = content.stream()[number : number + size]
                if number % 2:
                    fields = [("Content-Length", str(size))]
                    sent = [body]
                else:
                    fields = [("Transfer-Encoding", "chunked")]
                    step = max(1, size // 7)
                    parts = [body[at : at + step] for at in range(0, size, step)]
                    sent = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
                    sent.append(b"0\r\n\r\n")
                head = client.head(f"/echo?{number}", method="POST", fields=fields)
                if number % 3:
                    connection.send(head)
                    for piece in sent:
                        connection.send(piece)
                else:
                    connection.send(head + b"".join(sent))
                got = connection.answer().json()
                assert got == {"length": size, "sha256": hashlib.sha256(body).hexdigest()}, number

    with counted(moving, fe_move_begun=20):
        run(moving.client, posts, host, targets, expected)


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


@pytest.mark.layout(**FOUR)
def test_a_request_that_waits_for_a_slow_answer_stays(moving):
    host = moving.fes[0].ext
    targets = [f"/size/100?slow-{n}" for n in range(12)]
    expected = run(moving.client, owners, host, targets)

    def slow(host, targets, expected):
        for number in range(12):
            name = f"slow-{number}-{os.getpid()}"
            gate = "/run/lard-test/" + name
            here = client.node_behind_gate(host, f"/slow/{name}?{number}", gate)
            target = next(target for target in targets if expected[target] != here)
            with client.Connection(host) as connection:
                connection.send(client.head(f"/slow/{name}?{number}"))
                while not connection.buffer.endswith(b"0123456789"):
                    connection.more()
                # The server has said half, TCP is quiet, and the next request is there.
                connection.send_acknowledged(client.head(target))
                open(gate, "w").close()
                first = connection.answer()
                assert first.body == b"0123456789abcdefghij", first.body
                second = connection.answer()
                assert second.sha256 == content.sha256(100)
                assert second.node == first.node
                # And from then on it moves again.
                for other in targets:
                    assert connection.request(other).node == expected[other]

    with counted(moving, fe_busy_answering=12, exact_fe_move_failed=0):
        run(moving.client, slow, host, targets, expected)


@pytest.mark.layout(**FOUR)
def test_a_server_that_computes_is_not_robbed_of_its_request(moving):
    """The first request is read, nothing is answered, and TCP is as quiet as can be."""
    host = moving.fes[0].ext
    targets = [f"/size/100?compute-{n}" for n in range(12)]
    expected = run(moving.client, owners, host, targets)

    def compute(host, targets, expected):
        for number in range(12):
            name = f"compute-{number}-{os.getpid()}"
            gate = "/run/lard-test/" + name
            here = client.node_behind_gate(host, f"/wait/{name}?{number}", gate)
            target = next(target for target in targets if expected[target] != here)
            with client.Connection(host) as connection:
                connection.send_acknowledged(client.head(f"/wait/{name}?{number}"))
                connection.send_acknowledged(client.head(target))
                open(gate, "w").close()
                first, second = connection.answer(), connection.answer()
                assert first.body.decode().strip() == first.node
                assert second.sha256 == content.sha256(100) and second.node == first.node

    with counted(moving, fe_busy_answering=12):
        run(moving.client, compute, host, targets, expected)


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


@pytest.mark.layout(**FOUR)
def test_the_client_closes_at_each_point(moving):
    host = moving.fes[0].ext
    targets = [f"/size/1460?leave-{n}" for n in range(12)]
    run(moving.client, owners, host, targets)

    def leave(host, targets):
        for number in range(60):
            connection = client.Connection(host)
            for target in targets[: 1 + number % 5]:
                connection.request(target)
            head = client.head(targets[number % 12])
            connection.send(head[: [0, 20, len(head)][number % 3]])
            [connection.close, connection.reset, connection.half_close][number % 4 % 3]()
            if number % 4 == 2:
                # What a client that has only closed its own direction is owed.
                if number % 3 == 2:
                    assert connection.answer().sha256 == content.sha256(1460)
                connection.close()

    run(moving.client, leave, host, targets, timeout=170)


@pytest.mark.long
@pytest.mark.layout(**FOUR, servers={1: "nginx", 2: "nginx", 3: "apache", 4: "nginx"})
@pytest.mark.limit(400)
def test_two_thousand_moves_and_nothing_is_left(moving):
    host = moving.fes[0].ext
    targets = [f"/size/{size}?many-{n}" for n in range(16) for size in (100, 1460, 10_000)]
    expected = run(moving.client, owners, host, targets)
    assert len(set(expected.values())) == 4

    def many(host, targets, connections, rounds):
        wrong = []

        def work(number):
            try:
                own = random.Random(number)
                with client.Connection(host) as connection:
                    for _ in range(rounds):
                        target = own.choice(targets)
                        answer = connection.request(target)
                        size = int(target.partition("?")[0].rpartition("/")[2])
                        assert answer.sha256 == content.sha256(size), target
            except Exception as error:
                wrong.append(f"{number}: {type(error).__name__} {error}")

        client.side_by_side(work, connections)
        return wrong

    with counted(moving, fe_move_begun=2000, exact_fe_move_failed=0, timeout=30):
        assert run(moving.client, many, host, targets, 8, 360, timeout=380) == []
    moving.wait_empty()


@pytest.mark.long
@pytest.mark.layout(**FOUR)
@pytest.mark.parametrize("fault", ["loss 3%", "delay 10ms 4ms reorder 30% 50% duplicate 10%"])
@pytest.mark.parametrize("link", ["client", "front-end", "back-end"])
def test_moves_on_a_bad_link(moving, link, fault):
    host = moving.fes[0].ext
    targets = [f"/size/{size}?bad-{n}" for n in range(8) for size in (100, 10_000)]
    run(moving.client, owners, host, targets)
    for machine in {"client": [moving.client], "front-end": moving.fes, "back-end": moving.bes}[link]:
        machine.netem("int0" if link == "front-end" else "ext0", fault)

    def bad(host, targets):
        with client.Connection(host, timeout=120) as connection:
            for number, target in enumerate(targets * 2):
                answer = connection.request(target)
                size = int(target.partition("?")[0].rpartition("/")[2])
                assert answer.sha256 == content.sha256(size), target
                body = content.stream()[number : number + 3000]
                fields = [("Content-Length", "3000")]
                connection.send(client.head("/echo", method="POST", fields=fields) + body)
                assert connection.answer().json()["sha256"] == hashlib.sha256(body).hexdigest()

    with counted(moving, fe_move_begun=8):
        run(moving.client, bad, host, targets, timeout=170)


@pytest.mark.layout(**FOUR)
def test_ports_are_used_again_after_moves(moving):
    host = moving.fes[0].ext
    targets = [f"/size/100?reuse-{n}" for n in range(12)]
    expected = run(moving.client, owners, host, targets)

    def reuse(host, targets, expected):
        for number in range(60):
            reuse = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)]
            source = ("", 30_000 + number % 3)
            with client.Connection(host, source=source, options=reuse) as connection:
                for target in targets[: 3 + number % 4]:
                    assert connection.request(target).node == expected[target]
                # The server closes first, so that TIME_WAIT stays there and not here.
                connection.request(targets[number % 12], close=True)
                assert connection.at_end()

    with counted(moving, tcp_reused=30, fe_move_begun=60):
        run(moving.client, reuse, host, targets, expected)


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


def test_without_a_dispatcher_connections_stay(cluster):
    set_mode(cluster, mode="move")
    wait_idle(cluster)
    cluster.kill_node(1)
    cluster.spoil()

    def lost():
        return all(
            node["link"] != "ready"
            for node in cluster.status(2)["nodes"]
            if node["name"] == "node1"
        )

    cluster.wait(lost, what="the front-end misses its dispatcher")

    def nodes(host):
        with client.Connection(host) as connection:
            return [connection.request(f"/who?alone-{n}").node for n in range(20)]

    before = cluster.stats(2)["fe_next_no_dispatcher"]
    assert len(set(run(cluster.client, nodes, cluster.fes[0].ext))) == 1
    assert cluster.stats(2)["fe_next_no_dispatcher"] >= before + 19


@pytest.mark.layout(nodes=4, d=1, fe=(1,), be=(2, 3, 4))
@pytest.mark.parametrize("who", ["old", "new"])
def test_a_node_that_falls_silent_in_a_move_costs_its_connection(cluster, who):
    """Nobody can say who has the connection: the client is told at once, and never served twice."""
    set_mode(cluster, mode="move")
    wait_idle(cluster)
    host = cluster.fes[0].ext
    targets = [f"/size/100?silent-{n}" for n in range(12)]
    expected = run(cluster.client, owners, host, targets)
    here, there = expected[targets[0]], next(n for n in expected.values() if n != expected[targets[0]])
    other = next(target for target in targets if expected[target] == there)
    silent = cluster.node(int({"old": here, "new": there}[who].removeprefix("node")))
    cluster.client.sh("rm -f /run/lard-test/silent-*")

    def move(host, first, second):
        with client.Connection(host) as connection:
            connection.request(first)
            open("/run/lard-test/silent-begun", "w").close()
            while not os.path.exists("/run/lard-test/silent-go"):
                time.sleep(0.05)
            try:
                return connection.request(second).status
            except ConnectionResetError:
                return "reset"

    running = begin(cluster.client, move, host, targets[0], other)
    cluster.wait(
        lambda: cluster.client.sh("test -e /run/lard-test/silent-begun", check=False).code == 0,
        what="the connection is there",
    )
    cluster.spoil()
    silent.sh("ip link set int0 down")
    cluster.client.sh("touch /run/lard-test/silent-go")
    assert running.result() == "reset"
    counter = {"old": "fe_move_failed", "new": "tcp_handoff_silent"}[who]
    assert cluster.stats(1)[counter] >= 1
    # The others go on.
    rest = [target for target in targets if expected[target] not in (here, there)]
    run(cluster.client, follow, host, rest, expected)
