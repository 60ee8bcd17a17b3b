# SPDX-License-Identifier: GPL-2.0
"""Extended LARD: what idle connections and batches count for at the dispatcher, and the mode `auto`,
which prefers the node that has a connection unless its disk is busy."""

import pytest
from support import (
    FOUR,
    begin,
    counted,
    due,
    elsewhere,
    everywhere,
    owners,
    queues,
    read_hard,
    run,
    set_everywhere,
    set_mode,
    wait_idle,
)

IDLE_MS = 300
UNIT = 1 << 16


def counts(cluster):
    """What the dispatcher counts for each back-end: load, idle connections, parts of others'."""
    nodes = cluster.status(cluster.layout.d)["nodes"]
    return {
        node["name"]: (node["load"], node["idle"], node["shares"])
        for node in nodes
        if "BE" in node["roles"]
    }


def sums(cluster):
    """The same of all together, without the parts."""
    found = counts(cluster).values()
    return sum(load for load, _, _ in found), sum(idle for _, idle, _ in found)


def become(cluster, expected, of=sums, timeout=30):
    """Until the counts are these."""
    cluster.wait(lambda: of(cluster) == expected, timeout, what=f"{of.__name__} {expected}")


def touch(cluster, name):
    everywhere(cluster, f"touch /run/lard-test/{name}")


@pytest.fixture
def watched(cluster):
    """A quiet cluster under extended LARD, where connections are idle soon."""
    everywhere(cluster, "mkdir -p /run/lard-test; rm -f /run/lard-test/ext-*")
    cluster.set(cluster.layout.d, "policy", "extlard")
    set_everywhere(cluster, conn_idle_ms=IDLE_MS)
    wait_idle(cluster)
    become(cluster, (0, 0))
    yield cluster
    become(cluster, (0, 0))


def keep(host, count, name):
    """Connections that ask once; when they are told to, they ask for what takes long; and when they
    are told to, they end."""

    def until(word):
        while not os.path.exists(f"/run/lard-test/ext-{name}-{word}"):
            time.sleep(0.02)

    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(client.Connection(host)) for _ in range(count)]
        nodes = [each.request(f"/size/3000?{name}-{n}").node for n, each in enumerate(held)]
        until("ask")
        for number, each in enumerate(held):
            each.send(client.head(f"/wait/ext-{name}-answer?{number}"))
        for each in held:
            assert each.answer().status == 200
        until("leave")
    return nodes


@pytest.mark.vms
@pytest.mark.parametrize("mode", ["pin", "move", "auto"])
def test_idle_connections_are_no_load(watched, mode):
    watched.set(watched.layout.d, "mode", mode)
    host = watched.fes[0].ext
    with counted(watched, fe_forward_idle=25, exact_dp_untracked=0, exact_fe_move_failed=0):
        running = begin(watched.client, keep, host, 12, "many")
        become(watched, (0, 12))
        assert "IDLE" in watched.node(watched.layout.d).sh("cluster_startup status").stdout
        touch(watched, "ext-many-ask")
        become(watched, (12, 0))
        # By now those that wait for their answers have been silent for longer than this one.
        other = begin(watched.client, keep, host, 1, "one")
        become(watched, (12, 1))
        touch(watched, "ext-many-answer")
        become(watched, (0, 13))
        touch(watched, "ext-many-leave")
        become(watched, (0, 1))
        for word in ("ask", "answer", "leave"):
            touch(watched, f"ext-one-{word}")
        become(watched, (0, 0))
        assert len(set(running.result())) == 3
        other.result()


@pytest.mark.vms
def test_only_extended_lard_leaves_out_what_is_idle(watched):
    dispatcher = watched.node(watched.layout.d)
    dispatcher.sh("cluster_startup set policy=lard")
    with counted(watched, exact_fe_forward_idle=0):
        running = begin(watched.client, keep, watched.fes[0].ext, 5, "lard")
        become(watched, (5, 0))
        # While these fall idle: who was handed over before the change is not watched.
        dispatcher.sh("cluster_startup set policy=extlard")
        touch(watched, "ext-lard-ask")
        touch(watched, "ext-lard-answer")
    with counted(watched, fe_forward_idle=3):
        other = begin(watched.client, keep, watched.fes[0].ext, 3, "ext")
        # The five have been silent for longer.
        become(watched, (5, 3))
        dispatcher.sh("cluster_startup set policy=lard")
        # And what was told is taken back as ever.
        touch(watched, "ext-ext-ask")
        become(watched, (8, 0))
        for word in ("lard-leave", "ext-answer", "ext-leave"):
            touch(watched, f"ext-{word}")
        running.result(), other.result()


@pytest.mark.layout(nodes=4, fe=(2,), be=(3, 4))
def test_idle_connections_of_a_lost_front_end_are_load_until_they_end(watched):
    running = begin(watched.client, keep, watched.fes[0].ext, 8, "lost")
    become(watched, (0, 8))
    watched.spoil()
    watched.kill_node(2)
    become(watched, (8, 0))
    # It forwards on, and the back-ends tell of the ends.
    for word in ("ask", "answer", "leave"):
        touch(watched, f"ext-lost-{word}")
    running.result()


@pytest.mark.vms
@pytest.mark.layout(nodes=4, fe=(2,), be=(3, 4))
def test_idle_connections_of_a_lost_back_end_are_forgotten(watched):
    running = begin(watched.client, keep, watched.fes[0].ext, 8, "gone")
    become(watched, (0, 8))
    watched.spoil()
    watched.kill_node(3)
    become(watched, (0, 4))
    watched.start_node(3)
    watched.wait(watched.complete, what="all nodes know each other")
    # Its reports tell that it has connections; that they are idle nobody says before they were busy.
    become(watched, (4, 4), timeout=40)
    touch(watched, "ext-gone-ask")
    become(watched, (8, 0))
    touch(watched, "ext-gone-answer")
    become(watched, (0, 8))
    touch(watched, "ext-gone-leave")
    running.result()


# Node 4 has no component: a front-end that is none runs there.
FOREIGN = {"nodes": 4, "d": 1, "fe": (2,), "be": (2, 3)}


def foreign(dispatcher, own):
    """A front-end that says what the test wants, line by line."""
    import member

    joined = member.Member(dispatcher, roles=member.FRONT_END)
    joined.join()
    joined.send(member.HELLO, joined.hello(own))
    joined.send(member.PING, bytes(8))
    kinds = {"assign": member.ASSIGN, "idle": member.IDLE, "closed": member.CLOSED}

    def conn(number):
        return joined.id << 52 | number + 1

    def asked(count):
        nodes = []
        while len(nodes) < count:
            kind, body = joined.receive()
            if kind == member.ASSIGNED:
                nodes.append(struct.unpack("!QHH", body)[1])
        return nodes

    step = 0
    nodes = {}
    while True:
        path = f"/run/lard-test/ext-step-{step}"
        while not os.path.exists(path):
            # So that the dispatcher does not take it for dead.
            joined.send(member.PING, bytes(8))
            time.sleep(0.05)
        for what, first, last, *words in json.load(open(path)):
            if what == "end":
                joined.close()
                return nodes
            for at in range(first, last, 500):
                numbers = range(at, min(at + 500, last))
                frames = []
                for number in numbers:
                    rest = list(words)
                    if what != "assign":
                        rest = [nodes[str(number)], *rest]
                    elif rest[1:]:
                        rest = [rest[0], 0, nodes[str(number)], *rest[1:]]
                    body = getattr(member, what)(conn(number), *rest)
                    frames.append(member.frame(kinds[what], body))
                joined.socket.sendall(b"".join(frames))
                if what == "assign":
                    found = asked(len(numbers))
                    for number, node in zip(numbers, found):
                        nodes.setdefault(str(number), node)
        step += 1


class Foreign:
    """The front-end of `foreign`, told step by step."""

    def __init__(self, cluster):
        self.cluster, self.step = cluster, 0
        machine = cluster.node(4)
        self.running = begin(machine, foreign, cluster.node(1).int, machine.int)

    def say(self, *lines):
        import json

        path = f"/run/lard-test/ext-step-{self.step}"
        self.cluster.node(4).put(path + ".new", json.dumps(lines).encode())
        self.cluster.node(4).sh(f"mv {path}.new {path}")
        self.step += 1


@pytest.mark.layout(**FOREIGN)
def test_who_supplies_for_a_batch_has_a_part_of_the_connection(watched):
    # The disk counts as busy always; and the reports, which would set counts right, are rare.
    watched.set(1, "disk-queue", 0)
    set_everywhere(watched, dead_after_ms=60_000, ping_interval_ms=20_000)
    front_end = Foreign(watched)
    # Two connections, for targets of their own.
    front_end.say(["assign", 0, 1, 77], ["assign", 1, 2, 78])
    become(watched, [(1, 0, 0)] * 2, by_load)
    for batch in (4, 3, 1, 1000):
        # The second asks for what the node of the first has.
        front_end.say(["assign", 1, 2, 77, batch, True])
        become(watched, [(1, 0, 0), (1, 0, UNIT // batch)], by_load)
    shown = watched.node(1).sh("cluster_startup status").stdout
    assert " 1.00 " in shown, shown
    front_end.say(["assign", 1, 2, 77, 2, True])
    become(watched, [(1, 0, 0), (1, 0, UNIT // 2)], by_load)
    assert " 1.50 " in watched.node(1).sh("cluster_startup status").stdout
    front_end.say(["idle", 1, 2, True])
    become(watched, [(0, 1, 0), (1, 0, 0)], by_load)
    # A request of an idle connection is told by nothing else.
    front_end.say(["assign", 1, 2, 77, 5, True])
    become(watched, [(1, 0, 0), (1, 0, UNIT // 5)], by_load)
    front_end.say(["closed", 1, 2])
    become(watched, [(0, 0, 0), (1, 0, 0)], by_load)
    # News that cross: the end is heard of before that it was idle.
    front_end.say(["closed", 0, 1], ["idle", 0, 1, True], ["idle", 0, 1, False])
    become(watched, [(0, 0, 0)] * 2, by_load)
    front_end.say(["end", 0, 0])
    front_end.running.result()


def by_load(cluster):
    return sorted(counts(cluster).values())


@pytest.mark.long
@pytest.mark.layout(**FOREIGN)
@pytest.mark.limit(300)
def test_without_room_connections_count_as_one_and_nothing_is_left(watched):
    many = 150_000
    set_everywhere(watched, dead_after_ms=60_000, ping_interval_ms=20_000)
    front_end = Foreign(watched)
    with counted(watched, dp_untracked=many - 131_072):
        front_end.say(["assign", 0, many, 79])
        become(watched, (many, 0), timeout=90)
        front_end.say(["idle", 0, many, True])
        watched.wait(lambda: sum(sums(watched)) == many and sums(watched)[1] > 100_000, 90)
    load, idle = sums(watched)
    assert idle <= 131_072 and load + idle == many, (load, idle)
    # Some end.
    front_end.say(["closed", 0, many // 2])
    watched.wait(lambda: sum(sums(watched)) == many - many // 2, 90, what="half of them")
    # It falls silent: who is idle is not known any more.
    front_end.say(["end", 0, 0])
    front_end.running.result()
    become(watched, (many - many // 2, 0))
    # And no connection was ever there, as the reports tell.
    set_everywhere(watched, ping_interval_ms=100)
    become(watched, (0, 0), timeout=60)


# --- the mode auto -------------------------------------------------------------------------------

TWO = {"nodes": 3, "d": 1, "fe": (2,), "be": (2, 3)}


def visit(host, steps, name):
    """Targets on one connection, each when it is told; which node answered each, and who supplied."""
    nodes = []
    with client.Connection(host) as connection:
        for step, target in enumerate(steps):
            while not os.path.exists(f"/run/lard-test/ext-{name}-{step}"):
                time.sleep(0.02)
            answer = connection.request(target)
            assert answer.sha256 == content.sha256(2000), target
            nodes.append([answer.node, answer.supplier])
            open(f"/run/lard-test/ext-{name}-did-{step}", "w").close()
        while not os.path.exists(f"/run/lard-test/ext-{name}-leave"):
            time.sleep(0.02)
    return nodes


def did(cluster, name, step):
    touch(cluster, f"ext-{name}-{step}")
    path = f"/run/lard-test/ext-{name}-did-{step}"
    cluster.wait(
        lambda: cluster.client.sh(f"test -e {path}", check=False).code == 0, what=f"step {step}"
    )


@pytest.mark.vms
@pytest.mark.layout(**TWO)
@pytest.mark.parametrize(
    "words",
    ["policy=lard mode=auto", "policy=lard mode=auto mechanism=forward", "policy=extlard mode=move"],
)
def test_a_request_leaves_its_node_when_the_disk_there_is_busy(cluster, slow_disk, words):
    everywhere(cluster, "mkdir -p /run/lard-test; rm -f /run/lard-test/ext-*")
    cluster.spoil()
    machine = cluster.node(2)
    cluster.kill_node(2)
    machine.spawn(f"{cluster.layout.words(2)} --disk {slow_disk}")
    cluster.wait(lambda: queues(cluster).get("node2") == 0, what="an idle disk")
    cluster.wait(cluster.complete, what="all nodes know each other")
    cluster.node(1).sh(f"cluster_startup set {words}")
    set_everywhere(cluster, conn_idle_ms=60_000)
    wait_idle(cluster)

    host = cluster.fes[0].ext
    targets = [f"/size/2000?busy-{n}" for n in range(12)]
    owned = run(cluster.client, owners, host, targets)
    here = [target for target in targets if owned[target] == "node2"]
    there = [target for target in targets if owned[target] == "node3"]
    assert len(here) >= 2 and len(there) >= 3, owned
    wait_idle(cluster)

    steps = [
        here[0],
        there[0],  # The disk is idle: read here, and known to be here.
        "/size/2000?nobody-has",
        there[1],  # Busy.
        here[1],  # Moved, it is where no disk is busy; otherwise it is where this one is.
    ]
    running = begin(cluster.client, visit, host, steps, "busy")
    for step in range(3):
        did(cluster, "busy", step)
    assert {n: c[0] for n, c in counts(cluster).items()} == {"node2": 1, "node3": 0}
    reading = begin(machine, read_hard, slow_disk, 24, "/run/lard-test/ext-read")
    cluster.wait(lambda: queues(cluster)["node2"] == 24, what="a busy disk")
    # What is here is served here however busy the disk is, and what nobody has as well.
    other = begin(
        cluster.client, visit, host, [here[0], there[0], "/size/2000?nobody-has-that"], "stays"
    )
    for step in range(3):
        did(cluster, "stays", step)
    forwards = "forward" in words
    with counted(
        cluster,
        be_released=1,
        exact_fe_move_begun=1,
        exact_fe_move_failed=0,
        exact_fe_supplied=int(forwards),
    ):
        did(cluster, "busy", 3)
        if forwards:
            become(cluster, {"node2": (2, 0, 0), "node3": (0, 0, UNIT)}, counts)
        did(cluster, "busy", 4)
    if forwards:
        left, last = {"node2": (2, 0, 0), "node3": (0, 0, 0)}, ["node2", None]
        leaving = ["node2", cluster.node(3).int]
    else:
        left, last = {"node2": (1, 0, 0), "node3": (1, 0, 0)}, ["node3", None]
        leaving = ["node3", None]
    become(cluster, left, counts)
    touch(cluster, "ext-read")
    touch(cluster, "ext-busy-leave")
    touch(cluster, "ext-stays-leave")
    home = ["node2", None]
    assert running.result() == [home] * 3 + [leaving, last]
    assert other.result() == [home] * 3
    reading.result()
    become(cluster, (0, 0))


def follow(host, targets):
    """All on one connection, every byte right; who served, and who supplied."""
    with client.Connection(host) as connection:
        nodes = []
        for target in targets:
            answer = connection.request(target)
            size = int(target.partition("?")[0].rpartition("/")[2])
            assert answer.sha256 == content.sha256(size), f"{target}: {answer.length} octets"
            nodes.append([answer.node, answer.supplier])
    return nodes


@pytest.mark.vms
@pytest.mark.layout(**FOUR)
@pytest.mark.parametrize("mechanism", ["move", "forward"])
def test_a_hundred_requests_on_one_connection(cluster, mechanism):
    """All disks count as busy, and then as idle."""
    set_mode(cluster, disk_queue=0, mechanism=mechanism, mode="auto")
    wait_idle(cluster)
    host = cluster.fes[0].ext
    sizes = [0, 1, 100, 1460, 10_000, 100_000]
    targets = [f"/size/{sizes[n % 6]}?{mechanism}-{n}" for n in range(24)]
    owned = run(cluster.client, owners, host, targets)
    assert len(set(owned.values())) == 4
    names = [targets[n % 24] for n in range(100)]
    home = owned[names[0]]
    # With all disks busy a request leaves whenever it belongs elsewhere.
    wanted = [due(cluster, mechanism, owned)[home][name] for name in names]
    wait_idle(cluster)
    with counted(cluster, exact_fe_move_failed=0, **elsewhere(mechanism, wanted)):
        assert run(cluster.client, follow, host, names) == wanted
    cluster.set(1, "disk-queue", 1)
    with counted(cluster, fe_next_stays=99, exact_fe_move_begun=0):
        assert run(cluster.client, follow, host, names) == [[home, None]] * 100
    cluster.wait_empty()


@pytest.mark.layout(**FOUR)
def test_with_forwarding_as_its_mechanism_connections_are_checked(cluster):
    set_mode(cluster, mechanism="forward", mode="auto")

    def reserved(host):
        assert client.get(host, "/10.20.0.2/size/100").status == 403
        with client.Connection(host) as connection:
            assert connection.request("/who").status == 200
            try:
                return connection.request("/10.20.0.2/size/100").status
            except ConnectionResetError:
                return "reset"

    with counted(cluster, exact_http_reserved=1, exact_fe_checked_reserved=1):
        assert run(cluster.client, reserved, cluster.fes[0].ext) == "reset"


@pytest.mark.layout(**TWO)
def test_the_mode_and_its_mechanism_are_set_and_shown(cluster):
    machine = cluster.node(1)

    def shown():
        lines = machine.sh("cluster_startup set").stdout.splitlines()
        words = (line.split() for line in lines)
        return {word[0]: word[1] for word in words if word[0] in ("mode", "mechanism")}

    assert shown() == {"mode": "pin", "mechanism": "move"}
    cluster.set(1, "mode", "auto")
    cluster.set(1, "mechanism", "forward")
    assert shown() == {"mode": "auto", "mechanism": "forward"}
    machine.sh("cluster_startup set mechanism=move")
    assert shown() == {"mode": "auto", "mechanism": "move"}
    for words in ("mode=sometimes", "mechanism=teleport"):
        result = machine.sh(f"cluster_startup set {words}", check=False)
        name = words.partition("=")[0]
        assert result.code == 1 and f"the {name}" in result.stderr, result
    refused = cluster.node(2).sh("cluster_startup set mechanism=move", check=False)
    assert "the dispatcher's" in refused.stderr, refused
    assert shown() == {"mode": "auto", "mechanism": "move"}
