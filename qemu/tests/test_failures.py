# SPDX-License-Identifier: GPL-2.0
"""Parts of the cluster that die. Nothing is served twice, nothing hangs, the rest goes on."""

import pytest
from support import ask_new, begin, counted, run, set_everywhere, unloaded, wait_idle


def hold(host, count, gate):
    """Connections with a request in flight; the answers come when the gate opens."""
    held = [client.Connection(host, timeout=100) for _ in range(count)]
    for number, connection in enumerate(held):
        connection.send(client.head(f"/wait/{gate}?{number}", close=True))
    print("holding", flush=True)
    result = []
    for connection in held:
        try:
            result.append(connection.answer().node)
        except (OSError, client.Closed) as error:
            result.append(type(error).__name__)
    return result


class Gate:
    """Opens the python servers' /wait/NAME on all nodes."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self.each(f"mkdir -p /run/lard-test && rm -f /run/lard-test/{name}")

    def each(self, command):
        for machine in self.cluster.nodes:
            if machine not in getattr(self, "dead", ()):
                machine.sh(command)

    def hold(self, host, count):
        running = begin(self.cluster.client, hold, host, count, self.name)
        adopted = lambda: len(children(self.cluster)) >= count
        self.cluster.wait(adopted, what=f"{count} connections in flight")
        return running

    def open(self, dead=()):
        self.dead = dead
        self.each(f"touch /run/lard-test/{self.name}")


def children(cluster):
    return [
        entry
        for machine in cluster.bes
        for entry in cluster.connections(int(machine.name[4:]))
        if entry["state"] == "adopted"
    ]


def all_served(cluster, host, without=()):
    """Waits until every request is served, by other nodes than these."""

    def served():
        try:
            answers = run(cluster.client, ask_new, host, 12)
        except AssertionError:
            return False
        return all(status == 200 and node not in without for status, node in answers)

    cluster.wait(served, timeout=30, what=f"service without {without}")


@pytest.mark.vms
def test_connections_survive_the_end_of_the_back_ends_process(cluster):
    host = cluster.fes[0].ext
    gate = Gate(cluster, "back-end-process")
    running = gate.hold(host, 9)
    for number in (3, 4):
        cluster.kill_node(number)
    all_served(cluster, host, without=("node3", "node4"))
    gate.open()
    nodes = running.result()
    assert set(nodes) <= {"node2", "node3", "node4"} and len(nodes) == 9, nodes
    for number in (3, 4):
        cluster.start_node(number)

    def back():
        return {"node3", "node4"} <= {node for _, node in run(cluster.client, ask_new, host, 24)}

    cluster.wait(back, what="the nodes in use again")


@pytest.mark.vms
def test_connections_survive_the_end_of_the_front_ends_process(cluster):
    front_end, other = cluster.fes[0], cluster.fes[1]
    number = int(front_end.name[4:])
    gate = Gate(cluster, "front-end-process")
    running = gate.hold(front_end.ext, 9)
    cluster.kill_node(number)

    def refused(host):
        try:
            client.Connection(host, timeout=3).close()
        except (ConnectionRefusedError, TimeoutError):
            return True
        return False

    # No new work there; the other front-ends go on.
    cluster.wait(lambda: run(cluster.client, refused, front_end.ext), what="no new connections")
    all_served(cluster, other.ext)
    gate.open()
    nodes = running.result()
    assert all(node.startswith("node") for node in nodes) and len(nodes) == 9, nodes
    cluster.start_node(number)
    all_served(cluster, front_end.ext)


@pytest.mark.vms
def test_front_ends_go_on_without_the_dispatcher_and_say_so(cluster):
    host = cluster.fes[0].ext
    away = "the dispatcher, node 1, is out of reach"

    def said(words):
        """How often each front-end's kernel said so in this test."""
        lines = cluster.kernel_log().splitlines()
        return {m.name: sum(f"{m.name}: {words}" in line for line in lines) for m in cluster.fes}

    def once(words):
        return all(count == 1 for count in said(words).values())

    def shown(machine):
        return away in machine.sh("cluster_startup status").stdout

    assert not any(said(away).values()) and not any(map(shown, cluster.fes))
    cluster.kill_node(1)
    all_served(cluster, host)
    with counted(cluster, fe_assign_fallback=20):
        first = run(cluster.client, ask_new, host, 20, "same")
        again = run(cluster.client, ask_new, cluster.fes[1].ext, 20, "same")
    # By hash: the same node for the same target, whichever front-end is asked.
    assert first == again and len({node for _, node in first}) > 1, (first, again)
    # Once, however many requests were placed.
    cluster.wait(lambda: once(away), what="each front-end says that it has no dispatcher")
    assert all(map(shown, cluster.fes))
    cluster.start_node(1)

    def assigned():
        return sum(node.get("assigned") or 0 for node in cluster.status(1).get("nodes", []))

    def asks():
        before = assigned()
        # All along, also while it knows nobody yet.
        assert {status for status, _ in run(cluster.client, ask_new, host, 5)} == {200}
        return assigned() >= before + 5

    cluster.wait(asks, what="the restarted dispatcher is asked")
    back = "the dispatcher, node 1, is asked again"
    cluster.wait(lambda: once(back), what="each front-end says that it has a dispatcher again")
    assert once(away), said(away)
    cluster.wait(lambda: not any(map(shown, cluster.fes)), what="status without it")


def test_the_dispatcher_may_start_last(cluster):
    cluster.stop()
    for machine in cluster.bes:
        cluster.start_server(int(machine.name[4:]))
    cluster.start(nodes=[2, 3, 4], wait=False)
    cluster.start(nodes=[1])
    all_served(cluster, cluster.fes[0].ext)


@pytest.mark.vms
@pytest.mark.limit(300)
def test_a_back_end_that_dies_silently_is_noticed_and_nothing_is_served_twice(cluster):
    def keep_asking(hosts, seconds):
        """Each request once, never repeated; says what came of it and how long it took."""
        outcome = []
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            host = hosts[number % len(hosts)]
            began = time.monotonic()
            try:
                with client.Connection(host, timeout=45) as connection:
                    result = connection.request(f"/who?silent-{number}", close=True).node
            except ConnectionResetError:
                result = "reset"
            except (TimeoutError, client.Closed) as error:
                result = type(error).__name__
            outcome.append([f"/who?silent-{number}", result, time.monotonic() - began])
            number += 1
            if number == 3:
                print("asking", flush=True)
        return outcome

    def counts(host, port):
        with client.Connection(host, port=port) as connection:
            return connection.request("/count", close=True).json()

    cluster.spoil()
    dead = cluster.node(4)
    hosts = [cluster.node(2).ext, cluster.node(3).ext]
    running = begin(cluster.client, keep_asking, hosts, 20)
    cluster.wait(lambda: "asking" in running.process.stdout(), what="requests")
    dead.kill()
    outcome = running.result(timeout=120)
    # What the dead node has adopted in its last moment waits as for any dead server; the others are
    # answered or reset, and soon.
    odd = [entry for entry in outcome if not entry[1].startswith(("node", "reset"))]
    assert len(odd) <= 2, odd
    late = [entry for entry in outcome if entry[2] > 30 and entry not in odd]
    assert not late, late
    assert [entry[1] for entry in outcome[-3:]].count("reset") == 0, outcome[-5:]
    seen = {}
    for machine in cluster.nodes[1:3]:
        for target, times in run(cluster.client, counts, machine.ext, 7080).items():
            seen[target] = seen.get(target, 0) + times
    twice = {target: times for target, times in seen.items() if "silent" in target and times > 1}
    assert not twice, twice
    all_served(cluster, hosts[0], without=("node4",))


# What a machine's internal link swallows: all words that it says, but not that it has heard; or all.
CUTS = {
    "one way": "chain out { type filter hook output priority -500; oifname int0 ip length > 67 drop; }",
    "both ways": "chain out { type filter hook output priority -500; oifname int0 drop; }\n"
    "chain in { type filter hook prerouting priority -500; iifname int0 drop; }",
}


def cut_off(machine, ways):
    # The shortest frame makes a packet of 68 octets, an acknowledgement one of 52 to 64.
    machine.sh("nft -f -", input=f"table ip cut {{\n{CUTS[ways]}\n}}\n")


def mend(machine):
    machine.sh("nft delete table ip cut")


@pytest.mark.vms
@pytest.mark.parametrize("ways", CUTS)
def test_a_back_end_lost_before_it_answers_the_hand_off_costs_only_resets(cluster, ways):
    """HANDOFF leaves, and ADOPTED never comes: one way HANDOFF arrives, both ways it does not."""

    def ask_each(host, count):
        result = []

        def work(number):
            try:
                answer = client.get(host, f"/who?lost-{number}")
                result.append(answer.node if answer.status == 200 else str(answer.status))
            except ConnectionResetError:
                result.append("reset")
            except OSError as error:
                result.append(type(error).__name__)

        client.side_by_side(work, count)
        return result

    def counters():
        sent = cluster.stats(2)["fe_handoff_sent"]
        return sent, *(cluster.stats(number)["be_adopted"] for number in (3, 4))

    host, lost = cluster.node(2).ext, cluster.node(4)
    # It is a member for as long as it takes to ask, and nothing that waits for an acknowledgement keeps
    # HANDOFF from leaving.
    wait_idle(cluster)
    set_everywhere(cluster, dead_after_ms=240_000, ping_interval_ms=60_000)
    before = counters()
    cut_off(lost, ways)
    try:
        result = run(cluster.client, ask_each, host, 30)
        # Served elsewhere; or by node4, whose answers to clients still pass; or reset because node4
        # may be answering already. 503 is no excuse here.
        assert len(result) == 30 and set(result) <= {"node2", "node3", "node4", "reset"}, result
        set_everywhere(cluster, dead_after_ms=3_000, ping_interval_ms=500)
        all_served(cluster, host, without=("node4",))
    finally:
        mend(lost)
    # The link is mended, and the node is a member again.
    cluster.wait(cluster.complete, timeout=60, what="node4 back in the cluster")
    sent, by_3, by_4 = (now - then for now, then in zip(counters(), before, strict=True))
    # Each HANDOFF that nobody else took was node4's.
    assert sent > by_3, (sent, by_3, result)
    if ways == "one way":
        assert by_4 > 0, result
    else:
        # Nor has it come late, to a client that had been reset.
        assert by_4 == 0 and "node4" not in result and "reset" in result, (by_4, result)


@pytest.fixture
def little_room(cluster):
    """In the socket of the control connection from node 2 to node 4."""
    sysctl, front_end = "sysctl -qw net.ipv4.tcp_wmem", cluster.node(2)
    before = front_end.sh("sysctl -n net.ipv4.tcp_wmem").stdout.strip()
    front_end.sh(f"{sysctl}='4096 16384 32768'")
    # The one that is there may have grown.
    cluster.kill_node(4)
    cluster.start_node(4)
    cluster.wait(cluster.complete, timeout=60, what="node4 again")
    yield
    front_end.sh(f"{sysctl}='{before}'")


@pytest.mark.vms
def test_hand_offs_that_have_not_left_go_to_another_node(cluster, little_room):
    """The heads are so long that the control connection of a back-end whose link is lost does not take
    them all."""

    def ask_each(host, count, gate):
        result = []
        # All handshakes are done before the link is lost.
        held = [client.Connection(host) for _ in range(count)]
        print("open", flush=True)
        while not os.path.exists(gate):
            time.sleep(0.05)

        def work(number):
            try:
                head = client.head(f"/who?lost-{number}", length=14_000, close=True)
                held[number].send(head)
                answer = held[number].answer()
                result.append(answer.node if answer.status == 200 else str(answer.status))
            except ConnectionResetError:
                result.append("reset")
            except OSError as error:
                result.append(type(error).__name__)

        client.side_by_side(work, count)
        return result

    front_end, gate = cluster.node(2), "/run/lard-test-lost"
    # Longer than it takes to notice the silence.
    set_everywhere(cluster, handoff_timeout_ms=30_000)
    cluster.client.sh(f"rm -f {gate}")
    running = begin(cluster.client, ask_each, front_end.ext, 60, gate)
    cluster.wait(lambda: "open" in running.process.stdout(), what="connections")
    with counted(cluster, ct_lost_silent=1, fe_handoff_not_sent=1, fe_handoff_retried=1):
        cluster.node(4).netem("int0", "loss 100%")
        cluster.client.sh(f"touch {gate}")
        result = running.result()
    assert len(result) == 60
    # Served elsewhere; or by node4, whose answers to clients still pass; or reset because node4 may
    # be answering already. 503 is no excuse here.
    assert set(result) <= {"node2", "node3", "node4", "reset"}, result
    all_served(cluster, front_end.ext, without=("node4",))
    # The link is mended, and the node is a member again. Who has not noticed the loss so far may give up its
    # connection later than this, and what is handed over then is not for another test.
    cluster.spoil()
    cluster.node(4).netem("int0", None)
    cluster.wait(cluster.complete, timeout=60, what="node4 back in the cluster")


def go_on(host, count, of):
    """Connections, and what becomes of further requests on those that node `of` has, sent until one is
    refused, or answered after the node was out of reach."""
    held = [client.Connection(host, timeout=100) for _ in range(count)]
    on = [(c, c.request(f"/who?{host}-{n}").node) for n, c in enumerate(held)]
    print("holding", flush=True)

    fate = []

    def last(number):
        longest = 0
        while longest < 2:
            began = time.monotonic()
            try:
                assert there[number].request("/who").node == of
            except ConnectionResetError:
                return fate.append("reset")
            longest = time.monotonic() - began
            time.sleep(0.05)
        fate.append("came back")

    there = [connection for connection, node in on if node == of]
    client.side_by_side(last, len(there))
    others = [connection.request("/who").node == node for connection, node in on if node != of]
    return [fate, others]


@pytest.mark.parametrize("expire", [0, 1])
def test_clients_of_a_dead_back_end_wait_for_it_or_are_reset(cluster, expire):
    front_end = cluster.node(2)
    set_everywhere(cluster, expire_nodest=expire)
    running = begin(cluster.client, go_on, front_end.ext, 12, "node4")
    cluster.wait(lambda: "holding" in running.process.stdout(), what="connections")

    def is_silent():
        nodes = [node for node in cluster.status(2)["nodes"] if node["name"] == "node4"]
        return not nodes or nodes[0]["link"] != "ready"

    before = cluster.stats(2)["fe_forward_nodest"]
    # Servers of connections that were reset may keep them.
    cluster.spoil()
    cluster.node(4).sh("ip link set int0 down")
    try:
        cluster.wait(is_silent, what="the node is silent")
        fate, others = running.result(timeout=60) if expire else (None, None)
    finally:
        cluster.node(4).sh("ip link set int0 up")
    if not expire:
        fate, others = running.result(timeout=100)
    expired = cluster.stats(2)["fe_forward_nodest"] - before
    assert expired == (len(fate) if expire else 0), (expired, fate)
    assert set(fate) == {"reset" if expire else "came back"}, fate
    assert others and all(others), others


@pytest.mark.vms
def test_connections_end_when_the_server_process_is_killed(cluster):
    gate = Gate(cluster, "never-opened")
    set_everywhere(cluster, time_wait_ms=2000)
    running = gate.hold(cluster.fes[0].ext, 9)
    for machine in cluster.bes:
        cluster.stop_server(int(machine.name[4:]))
    outcome = running.result(timeout=30)
    assert all(not node.startswith("node") for node in outcome), outcome
    cluster.wait_empty(timeout=60)
    for machine in cluster.bes:
        cluster.start_server(int(machine.name[4:]))


def remove_interface(cluster, machine, name):
    if cluster.mode == "ns":
        machine.sh(f"ip link del {name}", timeout=20)
    else:
        machine.sh(
            f"d=$(readlink -f /sys/class/net/{name}/device); basename $d > $d/driver/unbind",
            timeout=20,
        )
    assert name not in machine.sh("ip -br link").stdout


@pytest.mark.vms
def test_an_interface_goes_while_connections_live(cluster):
    cluster.spoil()
    host = cluster.fes[0].ext
    gate = Gate(cluster, "interface")
    running = gate.hold(host, 9)
    remove_interface(cluster, cluster.node(4), "int0")
    all_served(cluster, host, without=("node4",))
    running.process.kill()
    assert "waiting for" not in cluster.kernel_log()


@pytest.mark.vms
@pytest.mark.layout(nodes=4, d=1, fe=(1, 2), be=(3, 4))
def test_the_clients_interface_of_a_front_end_goes_while_connections_live(cluster):
    cluster.spoil()
    lost, other = cluster.node(2), cluster.node(1)
    gate = Gate(cluster, "front-end-interface")
    running = gate.hold(lost.ext, 9)
    remove_interface(cluster, lost, "ext0")
    # Its rules, its table and its links to the others are there; it gets no packets any more.
    all_served(cluster, other.ext)
    assert cluster.complete()
    assert sum(entry["state"] == "forwarding" for entry in cluster.connections(2)) >= 9
    # The answers do not come through it; only what acknowledges them would.
    gate.open()
    nodes = running.result()
    assert len(nodes) == 9 and set(nodes) <= {"node3", "node4"}, nodes
    assert "waiting for" not in cluster.kernel_log()


def remove_namespace(cluster, number):
    """Takes a node's namespace away, with all that runs in it."""
    words = f"ip netns pids node{number} | xargs -r kill -9; ip netns del node{number}"
    cluster.guests[0].sh(words, timeout=30)
    # Who would tell how these ended is gone too.
    cluster.startup.pop(number)
    cluster.server.pop(number)


def test_a_namespace_goes_while_connections_live(cluster):
    if cluster.mode != "ns":
        pytest.skip("namespaces are nodes only in namespace mode")
    cluster.spoil()
    host = cluster.fes[0].ext
    gate = Gate(cluster, "namespace")
    running = gate.hold(host, 9)
    set_everywhere(cluster, time_wait_ms=1000)
    for machine in cluster.nodes:
        # What servers leave unacknowledged would hold the module for two minutes.
        machine.sh("sysctl -qw net.ipv4.tcp_orphan_retries=1")
    remove_namespace(cluster, 4)
    all_served(cluster, host, without=("node4",))
    # The front-end of the running connections too.
    remove_namespace(cluster, 2)
    running.process.kill()
    # Nothing holds the namespaces any more: the module can go once the others are down.
    cluster.stop()
    cluster.wait(lambda: unloaded(cluster), timeout=60, what="the module unloads")
    assert "waiting for" not in cluster.kernel_log()
