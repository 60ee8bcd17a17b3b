# SPDX-License-Identifier: GPL-2.0
"""What tells the policies apart: the same connections, held open, are on other nodes under each; and
none is lost when the policy changes under them."""

import contextlib
import itertools

import pytest
from support import GATES, begin, counted, everywhere, run, set_everywhere, totals, wait_idle

names = itertools.count()


def hold(host, targets, gate):
    """A connection for each target, one after the other, that is answered once the gate is open; says
    which nodes answered."""
    held = []
    for target in targets:
        held.append(client.Connection(host, timeout=150))
        held[-1].send(client.head(f"/wait/{gate}?{target}"))
    answers = [connection.answer() for connection in held]
    assert all(answer.status == 200 for answer in answers), [answer.status for answer in answers]
    return [answer.node for answer in answers]


def nodes_of(host, targets):
    return [client.get(host, f"/who?{target}").node for target in targets]


def loads(cluster):
    nodes = cluster.status(cluster.layout.d)["nodes"]
    return {node["name"]: node["load"] for node in nodes if "BE" in node["roles"]}


class Held:
    """Connections that are open; who has them is read from the dispatcher. The gate's name is a part
    of their targets."""

    def __init__(self, cluster, targets, gate=None):
        self.cluster = cluster
        self.gate = gate or f"choice-{next(names)}"
        everywhere(cluster, f"mkdir -p {GATES}; rm -f {GATES}/{self.gate}")
        before = sum(loads(cluster).values())
        self.running = begin(cluster.client, hold, cluster.fes[0].ext, targets, self.gate)
        cluster.wait(
            lambda: sum(loads(cluster).values()) == before + len(targets),
            what=f"{len(targets)} connections more",
        )

    def end(self):
        everywhere(self.cluster, f"touch {GATES}/{self.gate}")
        nodes = self.running.result()
        wait_idle(self.cluster)
        return nodes


def choose(cluster, policy):
    """Thresholds that a few connections reach, and no target loses a node because a test takes long."""
    wait_idle(cluster)
    small = {"policy": policy, "t-low": 2, "t-high": 4, "balance-percent": 125, "k-s": 86_400}
    small |= {"l-idle": 1, "miss-cost": 3}
    for name, value in small.items():
        cluster.set(cluster.layout.d, name, value)


def shape(cluster):
    return sorted(loads(cluster).values(), reverse=True)


@pytest.mark.vms
@pytest.mark.parametrize(
    "policy, first, again",
    [
        # Whatever the node has to do already.
        ("lb", [9, 0, 0], [4, 0, 0]),
        # The sixth finds more than T_high there, and less than T_low elsewhere: the target moves.
        ("lard", [5, 4, 0], [4, 0, 0]),
        # The same, but it has two nodes from then on.
        ("lardr", [5, 4, 0], [2, 2, 0]),
        # Never more than a quarter above the average, rounded up.
        ("chbl", [4, 4, 1], [2, 2, 0]),
        # Whatever is asked for.
        ("lc", [3, 3, 3], [2, 1, 1]),
        ("wrr", [3, 3, 3], [2, 1, 1]),
        # A fifth there would cost more than a miss does elsewhere: the target moves, and again.
        ("extlard", [4, 4, 1], [4, 0, 0]),
    ],
)
def test_where_connections_for_one_target_go(cluster, policy, first, again):
    choose(cluster, policy)
    target = f"hot-{next(names)}"
    held = Held(cluster, [target] * 9)
    assert shape(cluster) == first
    busiest_but_one = sorted(loads(cluster).items(), key=lambda item: -item[1])[1][0]
    answered = held.end()
    assert sorted((answered.count(n) for n in loads(cluster)), reverse=True) == first, answered
    held = Held(cluster, [target] * 4, held.gate)
    assert shape(cluster) == again
    if policy == "lard":
        assert loads(cluster)[busiest_but_one] == 4, "the target has left its first node"
    held.end()


@pytest.mark.vms
@pytest.mark.parametrize("policy, expected", [("lc", [6, 3, 3]), ("wrr", [8, 2, 2])])
def test_lc_looks_at_load_and_wrr_does_not(cluster, policy, expected):
    choose(cluster, "lb")
    target = f"many-{next(names)}"
    busy = Held(cluster, [target] * 6)
    assert shape(cluster) == [6, 0, 0]
    cluster.set(cluster.layout.d, "policy", policy)
    more = Held(cluster, [f"other-{number}" for number in range(6)])
    assert shape(cluster) == expected
    everywhere(cluster, f"touch {GATES}/{busy.gate}")
    more.end()
    assert len(set(busy.running.result())) == 1


def keep_asking(host, flag):
    """Until there is a file: half of the clients on a connection for each request, half on one for
    all. Says how many requests were answered, and what went wrong."""
    counts, failures = [], []

    def ask(number):
        done = 0
        with contextlib.ExitStack() as stack:
            kept = stack.enter_context(client.Connection(host)) if number % 2 else None
            while not os.path.exists(flag):
                target = f"/who?load-{done % 40}"
                try:
                    answer = kept.request(target) if kept else client.get(host, target)
                    assert answer.status == 200, answer.status
                except Exception as error:
                    failures.append(f"{number}, {done}: {error!r}")
                    break
                done += 1
        counts.append(done)

    print("begun", flush=True)
    client.side_by_side(ask, 6)
    return {"done": sum(counts), "failures": failures}


CHANGES = [
    "policy=wrr",
    "policy=lardr t-low=1 t-high=2 k-s=1",
    "policy=extlard l-idle=1 l-overload=3 miss-cost=1",
    "policy=lb",
    "policy=chbl balance-percent=101",
    "mode=move policy=lc",
    "policy=extlard disk-queue=0",
    "policy=lard max-connections=1000",
    "mode=pin policy=lard t-low=25 t-high=65 k-s=20 l-idle=30 l-overload=130 miss-cost=50"
    " disk-queue=5 balance-percent=125 max-connections=off",
]


@pytest.mark.vms
def test_policies_change_under_load_and_open_connections_without_a_loss(cluster):
    wait_idle(cluster)
    dispatcher, flag = cluster.node(cluster.layout.d), f"{GATES}/enough-{next(names)}"
    before = dispatcher.sh("cluster_startup set").stdout
    with counted(cluster, exact_fe_503=0, exact_fe_assign_fallback=0):
        held = Held(cluster, [f"open-{number}" for number in range(12)])
        running = begin(cluster.client, keep_asking, cluster.fes[1].ext, flag)
        cluster.wait(lambda: "begun" in running.process.stdout(), what="requests under way")
        for words in CHANGES:
            dispatcher.sh(f"cluster_startup set {words}")
            asked = totals(cluster)["be_adopted"]
            # Each of them decides about some.
            cluster.wait(
                lambda: totals(cluster)["be_adopted"] >= asked + 20, what=f"requests under {words}"
            )
        everywhere(cluster, f"touch {flag}")
        result = running.result()
        assert len(held.end()) == 12
    assert result["failures"] == [] and result["done"] > 20 * len(CHANGES), result
    assert dispatcher.sh("cluster_startup set").stdout == before


@pytest.mark.parametrize("policy", ["wrr", "lc", "lb", "chbl", "lardr", "extlard"])
def test_whatever_the_policy_a_draining_node_gets_nothing_new(cluster, policy):
    choose(cluster, policy)
    held = Held(cluster, [f"{policy}-{next(names)}" for _ in range(12)])
    before = loads(cluster)
    victim = max(before, key=before.get)
    dispatcher = cluster.node(cluster.layout.d)
    dispatcher.sh(f"cluster_startup drain {victim}")
    try:
        fresh = [f"drain-{next(names)}" for _ in range(24)]
        seen = run(cluster.client, nodes_of, cluster.fes[0].ext, fresh)
        assert set(seen) == set(before) - {victim}, seen
        # Nor where it has the target already.
        again = run(cluster.client, nodes_of, cluster.fes[1].ext, fresh)
        assert victim not in again, again
        # What it had goes on.
        assert held.end().count(victim) == before[victim]
    finally:
        dispatcher.sh(f"cluster_startup drain {victim} --undo")


def spelt(host, spelling, name, count):
    """Which nodes answer so many targets in this spelling."""
    nodes = []
    for number in range(count):
        with client.Connection(host) as connection:
            answer = connection.request(spelling % number, host=name, close=True)
        nodes.append(answer.node)
    return nodes


@pytest.mark.vms
def test_spellings_of_one_target_are_one_target(cluster):
    """RFC 9110, 4.2.3, and RFC 3986, 6.2.2: what a key is made of has one spelling."""
    cluster.set(cluster.layout.d, "policy", "lb")
    wait_idle(cluster)

    def ask(spelling, name="cluster"):
        return run(cluster.client, spelt, cluster.fes[0].ext, spelling, name, 24)

    usual = ask("/~user/caf%%C3%%A9/%d")
    assert len(set(usual)) == 3, usual
    for spelling, name in (
        ("/%%7Euser/caf%%C3%%A9/%d", "cluster"),
        ("/%%7e%%75ser/caf%%c3%%a9/%d", "cluster"),
        ("/~user/caf%%C3%%A9/%d", "Cluster"),
        ("/~user/caf%%C3%%A9/%d", "CLUSTER:80"),
        ("http://cLuster:80/~user/caf%%C3%%A9/%d", "cluster"),
    ):
        assert ask(spelling, name) == usual, (spelling, name)
    # Other targets, however alike: 24 of them are not all on the same nodes by chance.
    for spelling, name in (
        ("/~user/caf%%C3%%A9/%d", "cluster:8080"),
        ("/~User/caf%%C3%%A9/%d", "cluster"),
        ("/~user%%2Fcaf%%C3%%A9/%d", "cluster"),
        ("/~user/caf%%25C3%%A9/%d", "cluster"),
    ):
        assert ask(spelling, name) != usual, (spelling, name)


def ask_at_once(host, count):
    """Connections that are there already ask all in one moment."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(client.Connection(host)) for _ in range(count)]
        for number, connection in enumerate(held):
            connection.send(client.head(f"/who?at-once-{number}"))
        return [connection.answer().status for connection in held]


@pytest.mark.vms
def test_questions_that_come_while_others_are_out_share_a_write(cluster):
    wait_idle(cluster)
    host = cluster.fes[0].ext
    # Who asks alone waits for nobody.
    with counted(cluster, exact_fe_asked=8, exact_fe_ask_writes=8):
        run(cluster.client, nodes_of, host, [f"alone-{number}" for number in range(8)])
    # Answers take so long that all others ask before the first one has its own.
    set_everywhere(cluster, assign_patience_ms=10_000)
    cluster.node(cluster.layout.d).netem("int0", "delay 1500ms")
    before = totals(cluster)["fe_ask_writes"]
    with counted(cluster, exact_fe_asked=24, exact_fe_assign_fallback=0):
        assert run(cluster.client, ask_at_once, host, 24) == [200] * 24
    writes = totals(cluster)["fe_ask_writes"] - before
    # One where all came in the same round of packets.
    assert 1 <= writes <= 4, writes
