# SPDX-License-Identifier: GPL-2.0
"""What the tests share.

A function given to `run` runs on another machine: its source goes there with the modules of
`lardvm/guest` imported, and what it returns comes back as JSON. So it uses nothing but its
arguments and those modules. `on_client` makes such a function a test of its own.
"""

import contextlib
import inspect
import itertools
import json
import os
import random
import sys
import textwrap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(__file__)), "lardvm", "guest"))
import client  # noqa: E402
import content  # noqa: E402

PRELUDE = """\
import contextlib, hashlib, json, os, random, re, select, socket, struct, subprocess, sys, threading, time
import client, content, http2, rawtcp
from rawtcp import ACK, AE, CWR, ECE, FIN, PSH, RST, SYN, URG, Link, Peer, difference


def _main(function, arguments):
    try:
        print("\\n" + json.dumps({"value": function(*arguments)}))
    except BaseException as error:
        import traceback
        traceback.print_exc()
        frame = error.__traceback__.tb_next
        while frame:
            for name, value in frame.tb_frame.f_locals.items():
                print(f"    {name} = {value!r:.400}", file=sys.stderr)
            frame = frame.tb_next
        sys.exit(1)


"""

# The first paper's layout, with four nodes that serve; the front-end's own is one of them.
FOUR = {"nodes": 4, "d": 1, "fe": (1,), "be": (1, 2, 3, 4)}
# The same with a front-end that serves nothing itself: all links are crossed.
CROSSED = {"nodes": 4, "d": 1, "fe": (1,), "be": (2, 3, 4)}
# The dispatcher, the front-end and the back-ends on nodes of their own.
APART = {"nodes": 4, "d": 1, "fe": (2,), "be": (3, 4)}

# Which machine's sending side: what the client sends, what the front-end sends to the client and to
# the back-ends, what the back-ends send to the front-end and to the client.
LINKS = ("client-ext0", "front-end-ext0", "front-end-int0", "back-end-int0", "back-end-ext0")

# The files that servers, and clients, wait for.
GATES = "/run/lard-test"

# The modes of persistent connections, and what the dispatcher is told for them. In auto all disks
# count as busy, so that a request leaves for the node that has its target.
MODES = {
    "pin": {"mode": "pin"},
    "move": {"mode": "move"},
    "forward": {"mode": "forward"},
    "auto": {"disk_queue": 0, "mechanism": "move", "mode": "auto"},
}


def source(function):
    """The function's text without decorators, at the left margin."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines(keepends=True)
    while not lines[0].startswith("def "):
        del lines[0]
    return "".join(lines)


def program(function, arguments):
    seed = random.randrange(1 << 32)
    return (
        f"{PRELUDE}{source(function)}\n\nrandom.seed({seed})\n"
        f"_main({function.__name__}, json.loads({json.dumps(arguments)!r}))\n"
    )


def value_of(result):
    return json.loads(result.stdout.strip().splitlines()[-1])["value"]


def run(machine, function, *arguments, timeout=120):
    """Runs the function on a machine and returns what it returned."""
    text = program(function, arguments)
    return value_of(machine.python(text, timeout))


class Running:
    """A function that runs on a machine while the test goes on."""

    def __init__(self, machine, function, arguments):
        self.process = machine.spawn_python(program(function, arguments))

    def result(self, timeout=120):
        result = self.process.wait(timeout)
        assert result.code == 0, f"{result.stdout}\n{result.stderr}"
        return value_of(result)


def begin(machine, function, *arguments):
    return Running(machine, function, arguments)


def converse(host, steps):
    """One connection that does what it is told, file by file, and says in a line what came of it."""
    connection = client.Connection(host, timeout=150)
    print(json.dumps(connection.socket.getsockname()[1]), flush=True)

    def who(target):
        answer = connection.request(target)
        assert answer.status == 200, (target, answer.status)
        if target.startswith("/size/"):
            size = int(target.partition("?")[0].rpartition("/")[2])
            assert answer.sha256 == content.sha256(size), (target, answer.length)
        return [answer.node, answer.supplier]

    def do(what, text):
        if what == "who":
            return [who(target) for target in text]
        if what == "send":
            return connection.send(text.encode("latin-1"))
        if what == "answer":
            answer = connection.answer()
            names = ("status", "node", "supplier", "length", "sha256")
            return {name: getattr(answer, name) for name in names}
        if what == "read":
            while len(connection.buffer) < len(text):
                connection.more()
            return connection.take(len(text)).decode("latin-1")
        if what == "end":
            return connection.at_end()
        return getattr(connection, what)()

    for number in range(1 << 30):
        while True:
            try:
                what, text = json.load(open(f"{steps}-{number}"))
                break
            except (FileNotFoundError, ValueError):
                # Not there, or not all of it.
                time.sleep(0.02)
        os.unlink(f"{steps}-{number}")
        try:
            print(json.dumps(do(what, text)), flush=True)
        except (OSError, client.Closed) as error:
            print(json.dumps(type(error).__name__), flush=True)
        if what == "close":
            return None


class Talk:
    """A connection of the client machine that the test leads step by step."""

    numbers = itertools.count()

    def __init__(self, cluster, front_end=None):
        self.cluster = cluster
        self.steps = f"/tmp/talk-{os.getpid()}-{next(self.numbers)}"
        self.begun = self.heard = 0
        host = (front_end or cluster.fes[0]).ext
        self.running = begin(cluster.client, converse, host, self.steps)
        self.port = self.result()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.do("close")
            self.running.result()

    def begin(self, what, text=""):
        """Has it do something, and does not wait."""
        self.cluster.client.write(f"{self.steps}-{self.begun}", json.dumps([what, text]))
        self.begun += 1

    def result(self):
        """What came of the next thing: a value, or the name of an error."""

        def line():
            lines = self.running.process.stdout().split("\n")[:-1]
            assert len(lines) > self.heard or self.running.process.poll() is None, self.running.result()
            return lines[self.heard :]

        found = self.cluster.wait(line, timeout=170, what="an answer")[0]
        self.heard += 1
        return json.loads(found)

    def do(self, what, text=""):
        self.begin(what, text)
        return self.result()

    def send(self, data):
        assert self.do("send", data.decode("latin-1")) is None

    def request(self, target, **named):
        """Its answer, or the name of an error."""
        self.begin("send", client.head(target, **named).decode("latin-1"))
        self.begin("answer")
        return [self.result(), self.result()][1]

    def who(self, *targets):
        """For each the node that answers and the address of the one that supplies the content, or the
        name of an error."""
        return self.do("who", targets)


def on_client(function):
    """The body runs on the client machine; its argument is the address of a front-end."""

    def test(cluster):
        run(cluster.client, function, cluster.fes[0].ext)

    test.__name__ = function.__name__
    test.__doc__ = function.__doc__
    test.__module__ = function.__module__
    return test


def set_everywhere(cluster, **params):
    """Parameters of all members, with `_` for `-`, until the end of the test."""
    for number in cluster.layout.members():
        set_on(cluster, number, **params)


def set_on(cluster, number, **params):
    """Parameters of one node, in this order, with `_` for `-`, until the end of the test."""
    words = {name.replace("_", "-"): value for name, value in params.items()}
    line = " ".join(f"{name}={value}" for name, value in words.items())
    machine = cluster.node(number)
    before = json.loads(machine.sh("cluster_startup set --json").stdout)
    machine.sh(f"cluster_startup set {line}")
    for param in before:
        if param["name"] in words:
            cluster.changed.append((machine, param["name"], param["value"]))


def two_requests(host):
    with client.Connection(host) as connection:
        connection.request("/who?first")
        try:
            connection.request("/who?second")
        except client.Closed:
            # The mode became `forward` behind the first request, which nobody had checked.
            pass


def follows(cluster, front_end):
    """Does this front-end look at further requests?"""
    number = int(front_end.name.removeprefix("node"))
    before = cluster.stats(number)["fe_next"]
    run(cluster.client, two_requests, front_end.ext)
    return cluster.stats(number)["fe_next"] > before


def set_mode(cluster, **params):
    """Parameters of the dispatcher, in this order, until the end of the test; returns once front-ends look
    at further requests, or with mode="pin" do not."""
    set_on(cluster, cluster.layout.d, **params)
    wanted = params["mode"] != "pin"
    for machine in cluster.fes:
        cluster.wait(lambda: follows(cluster, machine) == wanted, what=f"{machine.name}: {params}")


def enter(cluster, mode):
    """The cluster is in this mode of MODES, and quiet."""
    set_mode(cluster, **MODES[mode])
    wait_idle(cluster)


def everywhere(cluster, command):
    """Wherever files are other files: in each guest, and where the client is."""
    for machine in [*cluster.guests, *([cluster.client] if cluster.mode == "vms" else [])]:
        machine.sh(command)


def ask_new(host, count, mark=None):
    """Requests for targets that nobody has asked for yet, unless they are marked."""
    mark = mark or random.randrange(1 << 40)
    answers = [client.get(host, f"/who?{mark}-{number}") for number in range(count)]
    return [[answer.status, answer.node] for answer in answers]


def owners(host, targets):
    """Which node serves each target, asked on a connection of its own."""
    return {target: client.get(host, target).node for target in targets}


def owners_behind_gates(cluster, targets):
    """The same for targets like /wait/NAME, whose servers find the gates of those names open meanwhile,
    and closed from then on."""
    names = " ".join(target.split("/")[2] for target in targets)
    everywhere(cluster, f"mkdir -p {GATES}; cd {GATES}; touch {names}")
    owned = run(cluster.client, owners, cluster.fes[0].ext, targets)
    everywhere(cluster, f"cd {GATES}; rm -f {names}")
    return owned


def due(cluster, mode, owned):
    """Who answers in a mode, when targets are owned so: {the node of the first request: {target: [the
    node that answers, the address of the one that supplies the content, if it is another]}}."""
    addresses = {machine.name: machine.int for machine in cluster.bes}

    def who(home, owner):
        if mode == "forward" and owner != home:
            return [home, addresses[owner]]
        return [home if mode in ("pin", "forward") else owner, None]

    homes = sorted(set(owned.values()))
    return {home: {target: who(home, owner) for target, owner in owned.items()} for home in homes}


def elsewhere(mode, answers):
    """What is counted for requests of one connection that were answered by these."""
    nodes = [node for node, _ in answers]
    return {
        "pin": {"exact_fe_next": 0},
        "forward": {"fe_supplied": sum(supplier is not None for _, supplier in answers)},
    }.get(mode, {"fe_move_begun": sum(a != b for a, b in zip(nodes, nodes[1:]))})


def spoil_link(cluster, link, fault):
    """What is sent on this link of LINKS suffers from netem's fault, until the end of the test."""
    role, _, interface = link.rpartition("-")
    if role == "client" and cluster.mode == "vms":
        # It is a namespace of the host, whose kernel may have no netem.
        return cluster.fes[0].netem_arriving(interface, fault)
    group = {"client": [cluster.client], "front-end": cluster.fes[:1], "back-end": cluster.bes}
    for machine in group[role]:
        machine.netem(interface, fault)


def unloaded(lab):
    """Unloads the module where it is still loaded; true when it is loaded nowhere."""
    results = [
        not lab.loaded(guest) or guest.sh("rmmod lard", check=False, timeout=60).code == 0
        for guest in lab.guests
    ]
    return all(results)


def lose_dispatcher(cluster):
    """Ends that of node 1; returns once the front-end of node 2 misses it."""
    cluster.kill_node(1)
    cluster.spoil()

    def lost():
        return all(
            node["link"] != "ready"
            for node in cluster.status(2)["nodes"]
            if node["name"] == "node1"
        )

    cluster.wait(lost, what="the front-end misses its dispatcher")


def wait_idle(cluster):
    """Until the dispatcher counts no load: then policies place new targets as if on a new cluster."""

    def idle():
        nodes = cluster.status(cluster.layout.d).get("nodes", [])
        kinds = ("load", "idle", "shares")
        return nodes and not any(node.get(kind) for node in nodes for kind in kinds)

    cluster.wait(idle, timeout=40, what="no load")


def numbers(cluster):
    """The numbers of the nodes, by name."""
    return {node["name"]: node["id"] for node in cluster.status(cluster.layout.d)["nodes"]}


def totals(cluster):
    """Every counter, summed over the nodes."""
    sums = {}
    for number in cluster.layout.members():
        for name, value in cluster.stats(number).items():
            sums[name] = sums.get(name, 0) + value
    # Whatever the reason was.
    causes = ("fe_no_back_end", "fe_no_tagged_back_end", "fe_handoff_given_up")
    sums["fe_503"] = sum(sums[cause] for cause in causes)
    return sums


@contextlib.contextmanager
def counted(cluster, timeout=20, **least):
    """Within the block each named counter rises by at least that much, or exactly with `exact_`.

    Counters are named with `_` for `-` and `.`; they are waited for, since some are counted a
    moment after the client has its answer.
    """
    before = totals(cluster)

    def matches(name, after):
        exact = name.startswith("exact_")
        plain = name.removeprefix("exact_")
        for counter, value in after.items():
            if counter.replace("-", "_").replace(".", "_") == plain:
                rise = value - before.get(counter, 0)
                return rise == least[name] if exact else rise >= least[name]
        raise AssertionError(f"there is no counter {plain}; there are {sorted(after)}")

    yield
    # Exact ones could still rise; they are looked at when the others have arrived.
    def arrived():
        after = totals(cluster)
        return all(matches(name, after) for name in least)

    def risen():
        after = totals(cluster)
        return {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}

    try:
        cluster.wait(arrived, timeout=timeout, what=f"counters {least}")
    except AssertionError as error:
        raise AssertionError(f"counters {least}, but only these rose: {risen()}") from error


def read_hard(disk, readers, until):
    """Reads past the page cache, by so many readers at once, each a few times, or until there is a
    file."""
    import mmap

    def goes_on(times):
        return not os.path.exists(until) if until else times < 5

    def reader(block):
        handle = os.open(disk, os.O_RDONLY | os.O_DIRECT)
        # All at once they would also be done at once, and the disk idle for a moment.
        time.sleep(block / readers)
        times = 0
        while goes_on(times):
            os.preadv(handle, [mmap.mmap(-1, 4096)], block * 4096)
            times += 1
        os.close(handle)

    threads = [threading.Thread(target=reader, args=(block,)) for block in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def queues(cluster):
    """How many requests wait for each back-end's disk, as the dispatcher knows it."""
    nodes = cluster.status(cluster.layout.d)["nodes"]
    return {node["name"]: node["disk_queue"] for node in nodes if "BE" in node["roles"]}
