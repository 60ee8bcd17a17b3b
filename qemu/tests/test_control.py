# SPDX-License-Identifier: GPL-2.0
"""The control port against strangers, liars and noise."""

import pytest
from support import counted, numbers, run

# Node 4 has no component: the tests' own member runs there.
pytestmark = pytest.mark.layout(nodes=4, d=1, fe=(2,), be=(3,))


def ids(cluster):
    """The members' ids, which are given in the order of joining, by internal address."""
    number = numbers(cluster)
    return {cluster.node(i).int: number[f"node{i}"] for i in cluster.layout.members()}


def still_serves(cluster):
    def fetch(host):
        return client.check_size(host, 10_000)

    assert run(cluster.client, fetch, cluster.fes[0].ext) == "node3"


@pytest.mark.vms
def test_noise_on_the_control_port_is_hung_up_on(cluster):
    def noise(hosts, count):
        seed = random.randrange(1 << 32)
        print("seed", seed, file=sys.stderr)
        chance = random.Random(seed)
        starts = (b"", b"\0" * 8, b"GET / HTTP/1.1\r\n\r\n", b'{"lard":2', b'{"lard":2,"nonce":"')
        starts += (b'{"lard":3,"nonce":"' + b"00" * 32 + b'"}\n', b"[" * 5000, b'{"a":' * 200)
        for number in range(count):
            host = hosts[number % len(hosts)]
            data = chance.choice(starts) + chance.randbytes(chance.choice((0, 1, 100, 2000)))
            try:
                with socket.create_connection((host, 7021), timeout=10) as stream:
                    stream.sendall(data + chance.choice((b"", b"\n")))
                    stream.shutdown(socket.SHUT_WR)
                    while stream.recv(65536):
                        pass
            except OSError as error:
                # Being hung up on is what is wanted, being left waiting is not.
                assert not isinstance(error, TimeoutError), data[:60]
        return True

    hosts = [machine.int for machine in cluster.nodes[:3]]
    assert run(cluster.node(4), noise, hosts, 1000, timeout=170)
    still_serves(cluster)


def test_silent_callers_do_not_keep_members_out(cluster):
    def silent(host, count):
        import member

        held = [socket.create_connection((host, 7021), timeout=10) for _ in range(count)]
        end = time.monotonic() + 30
        while True:
            # One address has a few places; they are free again when the silent are hung up on.
            caller = member.Member(host, timeout=30)
            try:
                caller.join()
                break
            except ConnectionError:
                assert time.monotonic() < end, "kept out"
                time.sleep(0.2)
        caller.close()
        # They are hung up on in the end.
        ended = 0
        for stream in held:
            stream.settimeout(30)
            try:
                ended += stream.recv(1) == b""
            except ConnectionError:
                ended += 1
        return ended

    assert run(cluster.node(4), silent, cluster.node(1).int, 60) == 60
    still_serves(cluster)


@pytest.mark.vms
@pytest.mark.limit(300)
def test_malformed_frames_by_the_thousand_change_nothing_but_their_counters(cluster):
    """At the kernel's own end: the test is the owner of a node, and passes it one connection after
    another, as from a peer that has proved who it is."""

    def malform(own, count):
        import genl
        import member

        seed = random.randrange(1 << 32)
        print("seed", seed, file=sys.stderr)
        chance = random.Random(seed)
        node, cluster, roles = 9, chance.randrange(1, 1 << 64), member.FRONT_END | member.BACK_END
        owner = genl.Owner()
        owner.attach(node, cluster, "target", roles, member.mapped(own))
        listener = socket.create_server(("127.0.0.1", 0))

        def peer(number):
            """A connection to the node, from the node of that number."""
            one = member.Member("127.0.0.1", name="liar", roles=roles)
            one.socket = socket.create_connection(listener.getsockname(), timeout=30)
            one.id, one.cluster = number, cluster
            theirs, _ = listener.accept()
            owner.add_peer(theirs, number, roles)
            return one

        def bad(to):
            """The counter that this must raise, and what is sent."""
            hello = member.frame(member.HELLO, to.hello(own))
            ping = bytes(8)
            # Some connections have said much that is right before.
            before = hello + member.frame(member.PONG, bytes(16)) * chance.choice((0, 0, 1, 20))
            way = chance.randrange(16)
            if way == 0:
                other = chance.choice([kind for kind in sizes if kind != member.HELLO])
                return "ct_not_introduced", member.frame(other, b"", length=sizes[other])
            if way == 1:
                version = chance.choice([v for v in range(256) if v != 1])
                return "ct_bad_version", before + member.frame(member.PING, ping, version=version)
            if way == 2:
                unknown = chance.choice([k for k in range(256) if k not in member.TYPES])
                return "ct_bad_type", before + member.frame(unknown, ping)
            if way == 3:
                flags = chance.randrange(1, 1 << 16)
                return "ct_bad_flags", before + member.frame(member.PING, ping, flags=flags)
            if way in (4, 5):
                kind = chance.choice(list(sizes))
                longer = chance.choice((1, 9, 65_536, 70_000, (1 << 32) - 1 - sizes[kind]))
                length = chance.choice((0, sizes[kind] - 1, sizes[kind] + longer))
                if kind in (member.HELLO, member.HANDOFF):
                    length = chance.choice((0, sizes[kind] - 1, 70_000, (1 << 32) - 1))
                return "ct_bad_length", before + member.frame(kind, b"", length=length)
            if way == 6:
                # Longer and shorter than its parts, and still as long as one may be.
                body = chance.choice((to.hello(own, tail=b"zz"), to.hello(own)[:-1]))
                return "ct_bad_length", member.frame(member.HELLO, body)
            if way == 7:
                name = chance.choice(("\1\2", " ", "n\x7f", "n" * 64))
                return "ct_bad_value", member.frame(member.HELLO, to.hello(own, name=name))
            if way == 8:
                number = chance.choice((4096, 10_000, 65_535))
                return "ct_bad_value", member.frame(member.HELLO, to.hello(own, node=number))
            if way == 9:
                tags = chance.choice(("a b", ",", "a,,b", "t" * 40))
                return "ct_bad_value", member.frame(member.HELLO, to.hello(own, tags=tags))
            if way == 10:
                body = bytearray(to.hello(own))
                # The roles, and the last octet of the fixed part.
                at, bit = chance.choice(((12, 3), (12, 7), (37, 0), (37, 7)))
                body[at] ^= 1 << bit
                return "ct_bad_reserved", member.frame(member.HELLO, bytes(body))
            if way == 11:
                other = {"cluster": cluster ^ 1 << chance.randrange(64)}
                return "ct_mismatch", member.frame(member.HELLO, to.hello(own, **other))
            if way == 12:
                other = {"node": to.id % 64 + 1}
                return "ct_mismatch", member.frame(member.HELLO, to.hello(own, **other))
            if way == 13:
                kind, body = chance.choice(
                    (
                        (member.ASSIGN, member.assign(to.id << 52 | 1, 1)),
                        (member.IDLE, member.idle(to.id << 52 | 1, to.id)),
                        (member.ADOPTED, struct.pack("!Q", to.id << 52 | 1)),
                        (member.CLOSED, member.closed(node << 52 | 1, node)),
                        (member.PROBE, member.probe(node << 52 | 1, (own, 4242), (own, 8080))),
                        (member.GONE, member.gone(to.id << 52 | 1)),
                    )
                )
                return "ct_out_of_place", before + member.frame(kind, body)
            if way == 14:
                # Ends within a header, or within a body.
                text = before + member.frame(member.PING, ping)
                return "ct_lost_closed", text[: len(text) - chance.randrange(1, 16)]
            noise = chance.choice((b"\0", b"GET", b"\xff")) + chance.randbytes(chance.randrange(8, 3000))
            return "ct_bad_version", before + noise

        # Of a body, the least.
        sizes = {member.HELLO: 38, member.PING: 8, member.PONG: 16, member.BYE: 1, member.ASSIGN: 32}
        sizes |= {member.ASSIGNED: 12, member.LOAD: 8, member.HANDOFF: 76, member.CLOSED: 28}
        sizes |= {member.PROBE: 44, member.GONE: 12}
        done = {}
        for turn in range(count):
            one = peer(10 + turn % 40)
            name, data = bad(one)
            try:
                one.socket.sendall(data)
                if name == "ct_lost_closed":
                    one.socket.shutdown(socket.SHUT_WR)
            except ConnectionError:
                pass
            assert one.ended(30), f"still open after {name}: {data[-60:]}"
            one.close()
            done[name] = done.get(name, 0) + 1
        # It still speaks to who makes sense.
        one = peer(60)
        one.send(member.HELLO, one.hello(own))
        assert one.tell_clock()
        owner.detach()
        assert one.ended()
        return done

    own = cluster.node(4)
    before, count = cluster.stats(4), 1000
    done = run(own, malform, own.int, count, timeout=280)
    assert sum(done.values()) == count, done
    after = cluster.stats(4)
    risen = {name: after[name] - before[name] for name in after}
    assert {name: risen[name] for name in done} == done
    # No connection was made of it.
    assert not [name for name, rise in risen.items() if rise and not name.startswith("ct_")]
    assert cluster.connections(4) == []
    still_serves(cluster)


@pytest.mark.vms
def test_malformed_frames_end_their_connection_and_nothing_else(cluster):
    def malform(dispatcher, ids, own):
        """Joins over and over, and sends something that makes no sense each time, of each kind twice."""
        import member

        seed = random.randrange(1 << 32)
        print("seed", seed, file=sys.stderr)
        chance = random.Random(seed)
        targets = {number: address for address, number in ids.items()}
        was, done = None, {}

        def bad(to, way):
            kind = chance.choice(member.TYPES)
            hello = member.frame(member.HELLO, to.hello(own))
            if way == 0:
                return "not introduced", member.frame(member.PING, bytes(8))
            if way == 1:
                return "version", hello + member.frame(kind, bytes(8), version=chance.choice((0, 2, 255)))
            if way == 2:
                unknown = chance.choice([k for k in range(256) if k not in member.TYPES])
                return "type", hello + member.frame(unknown, bytes(8))
            if way == 3:
                return "flags", hello + member.frame(member.PING, bytes(8), flags=1 << chance.randrange(16))
            if way == 4:
                length = chance.choice((0, 7, 9, 65_536, 100_000, (1 << 32) - 1))
                return "length", hello + member.frame(member.PING, b"", length=length)
            if way == 5:
                return "huge hand-off", hello + member.frame(member.HANDOFF, b"", length=70_000)
            if way == 6:
                return "mismatch", member.frame(member.HELLO, to.hello(own, cluster=to.cluster ^ 1))
            if way == 7:
                return "mismatch", member.frame(member.HELLO, to.hello(own, node=to.id ^ 1))
            if way == 8:
                return "bad hello", member.frame(member.HELLO, to.hello(own, name="\1\2"))
            if way == 9:
                return "bad hello", member.frame(member.HELLO, to.hello(own, tail=b"zz"))
            if way == 10:
                return "noise", hello + chance.randbytes(chance.randrange(8, 3000)) + bytes(9)
            return "noise", chance.randbytes(chance.randrange(8, 100)) + bytes(9)

        ways = 2 * list(range(12))
        chance.shuffle(ways)
        while ways:
            number = chance.choice([ids[dispatcher], *targets])
            joined = member.Member(dispatcher, name="intruder")
            try:
                joined.join(was)
            except ConnectionError:
                # The dispatcher still takes the former connection for alive.
                time.sleep(0.05)
                continue
            was = (joined.cluster, joined.id)
            one = joined
            if number != ids[dispatcher]:
                one = member.Member(targets[number], name="intruder")
                try:
                    one.link(joined, number)
                except ConnectionError:
                    joined.close()
                    continue
            name, data = bad(one, ways.pop())
            try:
                one.socket.sendall(data)
            except ConnectionError:
                pass
            assert one.ended(20), f"still open after {name}"
            one.close()
            joined.close()
            done[name] = done.get(name, 0) + 1
        return done

    with counted(cluster, ct_not_introduced=1, ct_bad_type=1, ct_bad_length=1, ct_mismatch=1):
        own = cluster.node(4).int
        done = run(cluster.node(4), malform, cluster.node(1).int, ids(cluster), own, timeout=120)
    assert sum(done.values()) == 24, done
    still_serves(cluster)


@pytest.mark.vms
def test_hand_offs_from_strangers_and_for_strange_addresses_make_no_socket(cluster):
    def hand_off(dispatcher, back_end, back_end_id, own):
        import member

        joined, peer = member.front_end(dispatcher, back_end, back_end_id, own)
        expires = peer.tell_clock() + 60_000_000
        outcome = {}
        text = b"GET /who HTTP/1.0\r\n\r\n"
        client_end = ("10.10.0.241", 4242)
        for name, vip, conn in (
            ("ssh", (back_end, 22), 1),
            ("foreign", ("198.51.100.7", 8080), 2),
            ("server's port", (back_end, 7080), 3),
            ("not announced", (own, 8080), 4),
        ):
            number = joined.id << 52 | conn
            body = member.handoff(number, client_end, vip, text, expires=expires)
            peer.send(member.HANDOFF, body)
            while True:
                kind, body = peer.receive()
                if kind in (member.ADOPTED, member.REFUSED) and body[:8] == struct.pack("!Q", number):
                    outcome[name] = "adopted" if kind == member.ADOPTED else "refused"
                    break
        return outcome

    with counted(cluster, be_not_allowed=4, exact_be_adopted=0):
        back_end = cluster.node(3).int
        outcome = run(
            cluster.node(4),
            hand_off,
            cluster.node(1).int,
            back_end,
            ids(cluster)[back_end],
            cluster.node(4).int,
        )
    assert set(outcome.values()) == {"refused"}, outcome
    still_serves(cluster)


@pytest.mark.vms
def test_hand_offs_that_come_too_late_make_no_socket(cluster):
    """Nor do those of which the back-end cannot tell, because it does not know the sender's clock."""

    def hand_off(dispatcher, back_end, back_end_id, own):
        import member

        joined, peer = member.front_end(dispatcher, back_end, back_end_id, own)

        def reason(conn, expires):
            number = struct.pack("!Q", joined.id << 52 | conn)
            ends = ("10.10.0.241", 4242), (own, 8080)
            text = b"GET /who HTTP/1.0\r\n\r\n"
            body = member.handoff(joined.id << 52 | conn, *ends, text, expires=expires)
            peer.send(member.HANDOFF, body)
            kind, body = None, b""
            while kind not in (member.ADOPTED, member.REFUSED) or body[:8] != number:
                kind, body = peer.receive()
            return body[8] if kind == member.REFUSED else None

        unknown = reason(1, 1 << 62)
        clock = peer.tell_clock()
        return [unknown, reason(2, clock - 1_000_000), reason(3, clock + 60_000_000)]

    with counted(cluster, exact_be_expired=2, be_not_allowed=1, exact_be_adopted=0):
        back_end = cluster.node(3).int
        arguments = (ids(cluster)[back_end], cluster.node(4).int)
        reasons = run(cluster.node(4), hand_off, cluster.node(1).int, back_end, *arguments)
    # The last one is in time, but the member has announced no address to serve.
    expired, not_allowed = 7, 8
    assert reasons == [expired, expired, not_allowed], reasons
    still_serves(cluster)


@pytest.mark.layout(nodes=4, d=1, fe=(2,), be=(1, 3))
def test_what_a_lost_front_end_asked_for_is_no_load_for_ever(cluster):
    """Neither of the dispatcher's own node, nor of another."""

    def ask(dispatcher, own, count):
        import member

        joined = member.Member(dispatcher, roles=member.FRONT_END)
        joined.join()
        joined.send(member.HELLO, joined.hello(own))
        joined.send(member.PING, bytes(8))
        for number in range(count):
            key = random.getrandbits(64)
            conn = joined.id << 52 | number
            joined.send(member.ASSIGN, member.assign(conn, key))
        chosen, body = {}, None
        while sum(chosen.values()) < count:
            kind, body = joined.receive()
            if kind == member.ASSIGNED:
                node = struct.unpack("!QHH", body)[1]
                chosen[node] = chosen.get(node, 0) + 1
        # And ends without a word.
        joined.close()
        return chosen

    chosen = run(cluster.node(4), ask, cluster.node(1).int, cluster.node(4).int, 20)
    assert len(chosen) == 2, chosen

    def loads():
        nodes = cluster.status(1)["nodes"]
        return {node["name"]: node["load"] for node in nodes if "BE" in node["roles"]}

    assert sum(loads().values()) >= 20, loads()
    # Ten seconds' worth of reports.
    cluster.wait(lambda: loads() == {"node1": 0, "node3": 0}, timeout=25, what="no load")


@pytest.mark.layout(nodes=4, d=1, fe=(2,), be=(3,), options="--secret-file /run/lard-secret")
def test_a_wrong_secret_keeps_a_node_out(lab):
    def join(host, secret):
        import member

        caller = member.Member(host, secret=secret.encode())
        try:
            caller.join()
        except ConnectionError as error:
            return str(error)
        return "joined"

    for machine in lab.nodes:
        machine.put("/run/lard-secret", b"the right one")
        machine.sh("chmod 600 /run/lard-secret")
    for machine in lab.bes:
        lab.start_server(int(machine.name[4:]))
    lab.start()
    answer = run(lab.node(4), join, lab.node(1).int, "the wrong one")
    assert "joined" not in answer, answer
    assert run(lab.node(4), join, lab.node(1).int, "the right one") == "joined"
    still_serves(lab)


def test_a_user_namespace_of_its_own_is_not_privileged(cluster):
    """What a node costs the machine is not accounted to who asks, so anybody must not ask."""
    machine = cluster.node(2)
    if machine.sh("unshare -U true", check=False).code:
        pytest.skip("this kernel has no user namespaces")
    done = machine.sh("unshare -Urn cluster_startup set mode=move", check=False)
    assert done.code == 1 and "needs CAP_NET_ADMIN" in done.stderr, done
