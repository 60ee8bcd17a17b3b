# SPDX-License-Identifier: GPL-2.0
"""Ends of connections that no message told: the front-end finds them by asking."""

import pytest
from support import begin, counted, numbers, run, set_everywhere, set_on, wait_idle

# Control connections of a machine, and nothing else that its internal link has.
CUT = """table ip cut {
chain out { type filter hook output priority -500;
  oifname int0 tcp sport 7021 drop; oifname int0 tcp dport 7021 drop; }
chain in { type filter hook prerouting priority -500;
  iifname int0 tcp sport 7021 drop; iifname int0 tcp dport 7021 drop; }
}
"""


def rest(host, count, gate):
    """Connections that have been answered; what becomes of their next request, when the gate is open."""
    held = [client.Connection(host, timeout=100) for _ in range(count)]
    on = [each.request(f"/who?{host}-{number}").node for number, each in enumerate(held)]
    print("holding", flush=True)
    while not os.path.exists(gate):
        time.sleep(0.05)
    fate = []
    for node, each in zip(on, held):
        try:
            fate.append([node, each.request("/who").node])
        except (client.Closed, OSError):
            fate.append([node, "over"])
    return fate


def entries(cluster, of):
    """Connections that node 2 passes on to the node of this number."""
    passed = ("forwarding", "closing")
    return [e for e in cluster.connections(2) if e["state"] in passed and e["node"] == of]


def children(cluster, number):
    return [c for c in cluster.connections(number) if c["state"] == "adopted"]


def links(cluster, number, name):
    """How the control connection of a node to another one is."""
    return [n["link"] for n in cluster.status(number).get("nodes", []) if n["name"] == name]


def end_all(machine, host):
    """Ends all connections with this address of a front-end, as an administrator can: the client gets a
    reset, and nothing passes the front-end."""
    machine.sh(f"ss -K -t src {host}:8080")


@pytest.mark.vms
@pytest.mark.parametrize("when", ("written", "lost", "no process"))
def test_ends_that_a_front_end_does_not_hear_of_are_found_when_it_can(cluster, when):
    """Said on a control connection that nobody reads any more; with none, after it was lost or because
    cluster_startup is gone."""
    host, other, gate = cluster.node(2).ext, cluster.node(4), "/run/lard-test-lost-ends"
    set_everywhere(cluster, dead_after_ms=8_000)
    cluster.wait_empty()
    cluster.client.sh(f"rm -f {gate}")
    running = begin(cluster.client, rest, host, 24, gate)
    cluster.wait(lambda: "holding" in running.process.stdout(), what="connections")
    number = numbers(cluster)
    there = {name: len(entries(cluster, number[name])) for name in ("node2", "node3", "node4")}
    assert sum(there.values()) == 24 and all(there.values()), there

    def lost():
        return links(cluster, 2, "node4") != ["ready"] and links(cluster, 4, "node2") != ["ready"]

    def end():
        end_all(other, host)
        cluster.wait(lambda: not children(cluster, 4), what="no child is left")

    with counted(cluster, fe_probe_gone=there["node4"]):
        if when == "no process":
            cluster.kill_node(4)
        else:
            other.sh("nft -f -", input=CUT)
        try:
            if when == "written":
                end()
                # So it has said so.
                assert links(cluster, 4, "node2") == ["ready"]
            cluster.wait(lost, what="the control connection is lost")
            if when != "written":
                end()
            assert len(entries(cluster, number["node4"])) == there["node4"]
        finally:
            if when != "no process":
                other.sh("nft delete table ip cut")
        if when == "no process":
            cluster.start_node(4)
        cluster.wait(cluster.complete, timeout=60, what="node4 back in the cluster")
        # A few seconds behind its end an entry is forgotten.
        forgotten = lambda: not entries(cluster, number["node4"])
        cluster.wait(forgotten, timeout=15, what="no entry for node4")
    # Those of the others are as they were, and so are the dispatcher's counts.
    assert {name: len(entries(cluster, number[name])) for name in there} == there | {"node4": 0}
    loads = {n["name"]: n["load"] for n in cluster.status(1)["nodes"] if "BE" in n["roles"]}
    assert loads == there | {"node4": 0}, loads
    cluster.client.sh(f"touch {gate}")
    for node, fate in running.result():
        assert fate == ("over" if node == "node4" else node), (node, fate)
    cluster.wait_empty()


def swallow(dispatcher, front_end, front_end_id, own, seconds):
    """A back-end that takes connections and never says what became of them, unless it is asked: then it has
    lost every other one. Returns how often it was asked about each, in the order in which they came, and
    how soon."""
    import member

    def clock():
        return struct.pack("!Q", time.monotonic_ns() // 1000)

    def keep_up(one):
        while True:
            kind, body = one.receive()
            if kind == member.PING:
                one.send(member.PONG, body + clock())

    joined = member.Member(dispatcher, roles=member.BACK_END)
    joined.join()
    joined.send(member.HELLO, joined.hello(own))
    joined.tell_clock()
    threading.Thread(target=keep_up, args=(joined,), daemon=True).start()
    peer = member.Member(front_end, roles=member.BACK_END)
    peer.link(joined, front_end_id)
    peer.send(member.HELLO, peer.hello(own))
    peer.tell_clock()
    print("member", flush=True)
    heard, asked, soonest = {}, {}, seconds
    end = time.monotonic() + seconds

    def enough():
        # Those that are still there are asked about again.
        counts = [asked.get(conn, 0) >= 3 - number % 2 * 2 for number, conn in enumerate(heard)]
        return len(counts) >= 4 and all(counts)

    while time.monotonic() < end and not enough():
        kind, body = peer.receive()
        conn = struct.unpack("!Q", body[:8])[0]
        if kind == member.PING:
            peer.send(member.PONG, body + clock())
        if kind == member.HANDOFF:
            heard[conn] = time.monotonic()
            peer.send(member.ADOPTED, body[:8])
        if kind == member.PROBE:
            # The first question may be that of the new control connection.
            if conn in asked:
                soonest = min(soonest, time.monotonic() - heard[conn])
            heard[conn] = time.monotonic()
            asked[conn] = asked.get(conn, 0) + 1
            if list(heard).index(conn) % 2:
                peer.send(member.GONE, member.gone(conn))
    return [[asked.get(conn, 0) for conn in heard], soonest]


def hold_unanswered(host, count):
    held = [client.Connection(host, timeout=150) for _ in range(count)]
    for number, connection in enumerate(held):
        connection.send(client.head(f"/who?{number}-{random.random()}"))
    print("sent", flush=True)
    time.sleep(150)


@pytest.mark.vms
# Node 4 has no component: the back-end that is none runs there.
@pytest.mark.layout(nodes=4, d=1, fe=(2,), be=(3,))
def test_a_front_end_asks_for_what_it_hears_nothing_of(cluster):
    # What the strange back-end has had stays.
    cluster.spoil()
    set_on(cluster, 2, time_wait_ms=2000)
    wait_idle(cluster)
    arguments = cluster.node(1).int, cluster.node(2).int, numbers(cluster)["node2"], cluster.node(4).int
    with counted(cluster, fe_probed=4, fe_probe_gone=2):
        strange = begin(cluster.node(4), swallow, *arguments, 120)
        known = lambda: links(cluster, 2, "intruder") == ["ready"]
        cluster.wait(known, what="the strange back-end")
        begin(cluster.client, hold_unanswered, cluster.fes[0].ext, 12)
        asked, soonest = strange.result()
    assert len(asked) >= 4, asked
    assert all(count >= 3 for count in asked[::2]), asked
    # It has ended for the front-end.
    assert all(count == 1 for count in asked[1::2]), asked
    assert soonest > 1.5, soonest


@pytest.mark.layout(nodes=4, d=1, fe=(2,), be=(3,))
def test_a_back_end_says_what_it_has_not(cluster):
    def ask(dispatcher, back_end, back_end_id, own):
        import member

        joined, peer = member.front_end(dispatcher, back_end, back_end_id, own)
        peer.tell_clock()
        answers = []
        for number in range(5):
            conn = joined.id << 52 | number
            peer.send(member.PROBE, member.probe(conn, ("10.10.0.240", 4000 + number), (own, 8080)))
            kind = None
            while kind != member.GONE:
                kind, body = peer.receive()
            answers.append(body == member.gone(conn))
        # Of others it says nothing.
        conn = joined.id + 1 << 52
        peer.send(member.PROBE, member.probe(conn, ("10.10.0.240", 4000), (own, 8080)))
        return [answers, peer.ended()]

    back_end = cluster.node(3).int
    arguments = cluster.node(1).int, back_end, numbers(cluster)["node3"], cluster.node(4).int
    with counted(cluster, ct_out_of_place=1):
        assert run(cluster.node(4), ask, *arguments) == [[True] * 5, True]
