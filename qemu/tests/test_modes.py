# SPDX-License-Identifier: GPL-2.0
"""Persistent connections in every mode: each request is answered by the node that the mode names, with
the content of the node that it names, and the client notices nothing else."""

import pytest
from support import (
    CROSSED,
    FOUR,
    LINKS,
    MODES,
    Talk,
    counted,
    due,
    elsewhere,
    enter,
    lose_dispatcher,
    owners,
    owners_behind_gates,
    run,
    set_mode,
    spoil_link,
    wait_idle,
)

SERVERS = {1: "nginx", 2: "nginx", 3: "apache", 4: "nginx"}
# In which the dispatcher is asked about further requests.
ASKING = ("move", "forward", "auto")
# Also across machines: where control connections and forwarded packets are.
MARKED = [pytest.param(link, marks=pytest.mark.vms) if "int0" in link else link for link in LINKS]


def owned_by(cluster, targets):
    """Who owns each target: all nodes own some."""
    owned = run(cluster.client, owners, cluster.fes[0].ext, targets)
    assert set(owned.values()) == {machine.name for machine in cluster.bes}, owned
    return owned


def follow(host, targets, answers):
    """All targets on one connection, each answer from its node and right to the last byte."""
    with client.Connection(host) as connection:
        for target, who in zip(targets, answers):
            answer = connection.request(target)
            size = int(target.partition("?")[0].rpartition("/")[2])
            assert answer.status == 200, answer.status
            assert answer.sha256 == content.sha256(size), f"{target}: {answer.length} octets"
            assert [answer.node, answer.supplier] == who, (target, answer.node, answer.supplier)


@pytest.mark.vms
def test_every_front_end_knows_the_mode(cluster, mode):
    targets = [f"/size/1460?every-{n}" for n in range(12)]
    owned = owned_by(cluster, targets)
    answers = [due(cluster, mode, owned)[owned[targets[0]]][target] for target in targets]
    for machine in cluster.fes:
        with counted(cluster, **elsewhere(mode, answers)):
            run(cluster.client, follow, machine.ext, targets, answers)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_a_hundred_requests_on_one_connection(cluster, mode):
    sizes = [0, 1, 100, 1460, 10_000, 100_000]
    targets = [f"/size/{sizes[n % 6]}?hundred-{n}" for n in range(24)]
    owned = owned_by(cluster, targets)
    names = [targets[n % 24] for n in range(100)]
    answers = [due(cluster, mode, owned)[owned[names[0]]][name] for name in names]
    with counted(cluster, **elsewhere(mode, answers)):
        run(cluster.client, follow, cluster.fes[0].ext, names, answers)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_pipelined_pairs_and_bursts(cluster, mode):
    targets = [f"/size/{100 * n}?burst-{n}" for n in range(24)]
    table = due(cluster, mode, owned_by(cluster, targets))

    def bursts(host, targets, table, size):
        with client.Connection(host) as connection:
            home = connection.request(targets[0]).node
            for at in range(0, len(targets), size):
                batch = targets[at : at + size]
                connection.send(b"".join(client.head(target) for target in batch))
                answers = [connection.answer() for _ in batch]
                for target, answer in zip(batch, answers):
                    length = int(target.partition("?")[0].rpartition("/")[2])
                    assert answer.status == 200 and answer.sha256 == content.sha256(length), target
                # The dispatcher is asked about the first one; the others go where that goes.
                node, supplier = table[home][batch[0]]
                who = [[answer.node, answer.supplier] for answer in answers]
                assert who == [[node, supplier]] + [[node, None]] * (len(batch) - 1), (batch, who)

    for size in (2, 3, 8, 24):
        run(cluster.client, bursts, cluster.fes[0].ext, targets, table, size)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_posts_between_gets(cluster, mode):
    targets = [f"/size/1460?post-{n}" for n in range(12)]
    table = due(cluster, mode, owned_by(cluster, targets))

    def posts(host, targets, table, forwards):
        with client.Connection(host) as connection:
            home = connection.request(targets[0]).node
            for number, target in enumerate(targets * 3):
                answer = connection.request(target)
                assert answer.sha256 == content.sha256(1460)
                assert [answer.node, answer.supplier] == table[home][target], (number, target)
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
                answer = connection.answer()
                assert not answer.supplier and (answer.node == home or not forwards)
                got = answer.json()
                assert got == {"length": size, "sha256": hashlib.sha256(body).hexdigest()}, number

    counters = {
        "pin": {"exact_fe_next": 0},
        "forward": {"fe_supplied": 20, "fe_next_method": 20},
    }.get(mode, {"fe_move_begun": 20})
    stays = mode in ("pin", "forward")
    with counted(cluster, **counters):
        run(cluster.client, posts, cluster.fes[0].ext, targets, table, stays)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_bodies_that_wait_to_be_asked_for(cluster, mode):
    """Expect: 100-continue, for targets that belong to other nodes, and requests behind them."""
    gets = [f"/size/1460?expect-{n}" for n in range(8)]
    puts = [f"/echo?expect-{n}" for n in range(8)]
    owned = owned_by(cluster, gets)
    owned |= run(cluster.client, owners, cluster.fes[0].ext, puts)
    table = due(cluster, mode, owned)
    # Only the content of GET is supplied by others.
    table = {home: {t: [who[0], None if t in puts else who[1]] for t, who in row.items()}
             for home, row in table.items()}

    def expect(host, gets, puts, table):
        with client.Connection(host) as connection:
            home = connection.request(gets[0]).node
            for number, (get, put) in enumerate(zip(gets, puts)):
                body = content.stream()[number : number + 3000]
                fields = [("Content-Length", "3000"), ("Expect", "100-continue")]
                connection.send(client.head(put, method="POST", fields=fields))
                asked = b"HTTP/1.1 100 Continue\r\n\r\n"
                assert connection.take(len(asked)) == asked
                connection.send(body)
                answer = connection.answer()
                assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
                assert [answer.node, answer.supplier] == table[home][put], (put, answer.node)
                answer = connection.request(get)
                assert answer.sha256 == content.sha256(1460)
                assert [answer.node, answer.supplier] == table[home][get], (get, answer.node)

    names = [gets[0], *(name for pair in zip(puts, gets) for name in pair)]
    answers = [table[owned[gets[0]]][name] for name in names]
    with counted(cluster, **elsewhere(mode, answers)):
        run(cluster.client, expect, cluster.fes[0].ext, gets, puts, table)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_a_request_that_waits_for_a_slow_answer_stays(cluster, mode):
    targets = [f"/size/100?slow-{n}" for n in range(12)]
    owned = owned_by(cluster, targets)
    table = due(cluster, mode, owned)
    waiting = owners_behind_gates(cluster, [f"/slow/slow-{mode}-{n}" for n in range(12)])
    servers = {machine.name: machine.ext for machine in cluster.bes}

    def slow(host, targets, owned, table, waiting, servers):
        for begun, here in waiting.items():
            target = next(target for target in targets if owned[target] != here)
            with client.Connection(host) as connection:
                connection.send(client.head(begun))
                while not connection.buffer.endswith(b"0123456789"):
                    connection.more()
                # The server has said half, TCP is quiet, and the next request is there.
                connection.send_acknowledged(client.head(target))
                client.open_gate(servers[here], begun.rpartition("/")[2])
                first = connection.answer()
                assert first.node == here
                assert first.body == b"0123456789abcdefghij", first.body
                second = connection.answer()
                assert second.sha256 == content.sha256(100)
                assert [second.node, second.supplier] == [first.node, None]
                # And from then on it is as ever.
                for other in targets:
                    answer = connection.request(other)
                    assert [answer.node, answer.supplier] == table[here][other]

    counters = {"exact_fe_next": 0} if mode == "pin" else {"fe_busy_answering": 12}
    with counted(cluster, **counters):
        run(cluster.client, slow, cluster.fes[0].ext, targets, owned, table, waiting, servers)


@pytest.mark.layout(**FOUR)
def test_the_client_closes_at_each_point(cluster, mode):
    targets = [f"/size/1460?leave-{n}" for n in range(12)]
    owned_by(cluster, targets)

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

    # Of a request that is gathered when the client ends or resets the connection.
    counters = {"exact_fe_next": 0} if mode == "pin" else {"fe_next_closing": 1}
    with counted(cluster, **counters):
        run(cluster.client, leave, cluster.fes[0].ext, targets, timeout=170)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_ports_are_used_again(cluster, mode):
    targets = [f"/size/100?reuse-{n}" for n in range(12)]
    table = due(cluster, mode, owned_by(cluster, targets))

    def reuse(host, targets, table):
        for number in range(60):
            reuse = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)]
            source = ("", 30_000 + number % 3)
            with client.Connection(host, source=source, options=reuse) as connection:
                home = connection.request(targets[0]).node
                for target in targets[1 : 3 + number % 4]:
                    answer = connection.request(target)
                    assert answer.sha256 == content.sha256(100)
                    assert [answer.node, answer.supplier] == table[home][target]
                # The server closes first, so that TIME_WAIT stays there and not here.
                connection.request(targets[number % 12], close=True)
                assert connection.at_end()

    counters = {"pin": {}, "forward": {"fe_supplied": 60}}.get(mode, {"fe_move_begun": 60})
    with counted(cluster, tcp_reused=30, **counters):
        run(cluster.client, reuse, cluster.fes[0].ext, targets, table)


@pytest.mark.parametrize("mode", ASKING, indirect=True)
def test_without_a_dispatcher_connections_stay(cluster, mode):
    lose_dispatcher(cluster)

    def who(host):
        with client.Connection(host) as connection:
            answers = [connection.request(f"/who?alone-{n}") for n in range(20)]
            return [[answer.node, answer.supplier] for answer in answers]

    before = cluster.stats(2)["fe_next_no_dispatcher"]
    answers = run(cluster.client, who, cluster.fes[0].ext)
    assert answers == [[answers[0][0], None]] * 20
    assert cluster.stats(2)["fe_next_no_dispatcher"] >= before + 19


@pytest.mark.layout(**FOUR, servers=SERVERS)
@pytest.mark.limit(900)
@pytest.mark.parametrize(
    "mode,least",
    [
        pytest.param("move", 1_000, marks=pytest.mark.vms),
        pytest.param("move", 10_000, marks=pytest.mark.long),
        pytest.param("forward", 2_000, marks=[pytest.mark.long, pytest.mark.vms]),
        pytest.param("auto", 2_000, marks=[pytest.mark.long, pytest.mark.vms]),
    ],
    indirect=["mode"],
)
def test_thousands_of_requests_for_other_nodes_and_nothing_is_left(cluster, mode, least):
    targets = [f"/size/{size}?many-{n}" for n in range(16) for size in (100, 1460, 10_000)]
    owned = owned_by(cluster, targets)

    def many(host, targets, owned, connections, rounds):
        wrong = []

        def work(number):
            try:
                own = random.Random(number)
                with client.Connection(host) as connection:
                    at = connection.request(targets[number]).node
                    for _ in range(rounds):
                        target = own.choice([t for t in targets if owned[t] != at])
                        answer = connection.request(target)
                        size = int(target.partition("?")[0].rpartition("/")[2])
                        assert answer.sha256 == content.sha256(size), target
                        at = answer.node
            except Exception as error:
                wrong.append(f"{number}: {type(error).__name__} {error}")

        client.side_by_side(work, connections)
        return wrong

    counter = "fe_supplied" if mode == "forward" else "fe_move_begun"
    connections = 8
    # Some stay, because their server is in a call at that moment.
    rounds = least // connections * 21 // 20
    host = cluster.fes[0].ext
    with counted(cluster, **{counter: least}, exact_fe_move_failed=0, exact_fe_client_reset=0):
        assert run(cluster.client, many, host, targets, owned, connections, rounds, timeout=880) == []
    # Nor does the dispatcher count any.
    wait_idle(cluster)


@pytest.mark.long
@pytest.mark.layout(**CROSSED)
@pytest.mark.parametrize("mode", ASKING, indirect=True)
@pytest.mark.parametrize("fault", ["loss 3%", "delay 10ms 4ms reorder 30% 50% duplicate 10%"])
@pytest.mark.parametrize("link", MARKED)
def test_contents_survive_a_bad_link(cluster, mode, link, fault):
    """As test_links.py has it for connections that stay."""
    targets = [f"/size/{size}?bad-{n}" for n in range(8) for size in (100, 10_000)]
    owned_by(cluster, targets)
    spoil_link(cluster, link, fault)

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
                connection.send(b"".join(client.head(name) for name in (target, targets[0])))
                assert connection.answer().sha256 == content.sha256(size), target
                assert connection.answer().sha256 == content.sha256(100), target

    counter = "fe_supplied" if mode == "forward" else "fe_move_begun"
    with counted(cluster, **{counter: 8}):
        run(cluster.client, bad, cluster.fes[0].ext, targets, timeout=170)


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
def test_the_mode_changes_while_connections_live(cluster):
    """A connection that was not followed from its first hand-off on never is, and one that was not
    checked ends in the mode forward; otherwise what becomes of requests is what the mode says now."""
    enter(cluster, "pin")
    targets = [f"/size/100?change-{n}" for n in range(12)]
    owned = owned_by(cluster, targets)
    talks = {}

    def behaves(talk):
        """As a connection does in which mode?"""
        answers = talk.who(*targets)
        for mode in ("pin", "move", "forward"):
            for row in due(cluster, mode, owned).values():
                if answers == [row[target] for target in targets]:
                    return mode
        return answers

    def change(mode, born=None):
        set_mode(cluster, **MODES[mode])
        if born:
            talks[born] = Talk(cluster)
        return {name: behaves(talk) for name, talk in talks.items()}

    assert change("forward", "F") == {"F": "forward"}
    assert change("pin", "P") == {"F": "pin", "P": "pin"}
    assert change("move", "M") == {"F": "move", "P": "pin", "M": "move"}
    assert change("auto", "A") == {"F": "move", "P": "pin", "M": "move", "A": "move"}
    assert change("pin") == dict.fromkeys("FPMA", "pin")
    with counted(cluster, exact_fe_checked_before=3):
        ended = dict.fromkeys("PMA", "ConnectionResetError")
        assert change("forward") == {"F": "forward", **ended}
    assert talks["F"].do("close") is None
    cluster.wait_empty()
