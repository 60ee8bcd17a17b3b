# SPDX-License-Identifier: GPL-2.0
"""What a node says while it starts and stops, and what becomes of the connections it has."""

import json
import time

import pytest
from support import Talk, begin, counted, run, set_everywhere, unloaded

# The dispatcher's node serves, too: it can have connections of its own.
pytestmark = pytest.mark.layout(nodes=3, d=1, fe=(2,), be=(1, 3))

BEFORE = "waiting for connections of before to end"


def place(host):
    """A target of either back-end: {node: target}."""
    found = {}
    for number in range(100):
        target = f"/who?{number}"
        found.setdefault(client.get(host, target).node, target)
        if len(found) == 2:
            return found
    raise AssertionError(f"all at one back-end: {found}")


def status_of(host, target):
    """Of an answer; or the name of the error."""
    try:
        answer = client.get(host, target)
        return [answer.status, answer.node]
    except OSError as error:
        return [type(error).__name__, None]


def ask(cluster, target):
    return run(cluster.client, status_of, cluster.fes[0].ext, target)


def start_as(cluster, number, command):
    """In place of what the layout says."""
    process = cluster.node(number)._spawn(f"exec {command}", None)
    cluster.startup[number] = process
    return process


def says(cluster, process, words):
    cluster.wait(lambda: words in process.stderr(), timeout=40, what=words)


def has_children(cluster, number, count):
    """Those of connections that have been closed are gone in a moment."""
    exact = lambda: cluster.status(number)["node"]["children"] == count
    cluster.wait(exact, what=f"{count} connections of node{number}")


# --- to a service manager


def hear(address):
    """What is told to the socket of a service manager, message by message."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if os.path.exists(address):
        os.unlink(address)
    manager.bind(address)
    print("listening", flush=True)
    while True:
        print(json.dumps(manager.recv(4096).decode()), flush=True)


def test_a_service_manager_is_told_when_the_node_is_ready_and_when_it_stops(cluster):
    address = "/run/lard-test-notify"
    for number in (1, 3):
        cluster.kill_node(number)
    running = begin(cluster.node(3), hear, address)
    cluster.wait(lambda: "listening" in running.process.stdout(), what="the manager's socket")

    def told():
        return [json.loads(line) for line in running.process.stdout().split("\n")[1:-1]]

    def is_told(start):
        cluster.wait(lambda: any(text.startswith(start) for text in told()), what=start)

    start_as(cluster, 3, f"env NOTIFY_SOCKET={address} {cluster.layout.words(3)}")
    is_told("STATUS=waiting for the dispatcher at 10.20.0.1:7021")
    cluster.start_node(1)
    is_told("READY=1\nSTATUS=node ")
    assert "(node3) of cluster" in told()[-1], told()
    cluster.kill_node(3, 15)
    is_told("STOPPING=1\n")
    texts = told()
    # Once, and not while there was no dispatcher.
    assert [text.startswith("READY=1\n") for text in texts].count(True) == 1, texts
    assert texts[-1] == "STOPPING=1\n" and texts[-2].startswith("READY=1\n"), texts
    cluster.start_node(3)
    cluster.wait(cluster.complete, what="all nodes again")


# --- with connections


def test_a_dispatcher_does_not_become_another_one_over_connections(cluster):
    host, node = cluster.fes[0].ext, cluster.node(1)
    target = run(cluster.client, place, host)["node1"]

    def identity():
        status = cluster.status(1)
        ids = {each["name"]: each["id"] for each in status["nodes"]}
        return status["node"]["cluster_id"], ids

    before = identity()
    with Talk(cluster) as talk:
        assert talk.who(target) == [["node1", None]]
        cluster.kill_node(1)
        for words in (
            "cluster_startup -D --internal 10.20.0.1 --name node1",
            f"{cluster.layout.words(1)} --cluster-id 77",
        ):
            refused = node.sh(words, check=False)
            assert refused.code == 1 and "EBUSY" in refused.stderr, refused
            assert "cluster_startup stop --force" in refused.stderr, refused
        assert talk.who(target) == [["node1", None]]
        # As it was, it goes on with what it has, under the same numbers.
        cluster.start_node(1)
        cluster.wait(cluster.complete, what="all nodes again")
        assert identity() == before
        assert talk.who(target) == [["node1", None]]


@pytest.mark.vms
@pytest.mark.parametrize("change", ["components", pytest.param("cluster", marks=pytest.mark.long)])
def test_a_node_takes_nothing_as_another_one_until_its_connections_have_ended(cluster, change):
    target = run(cluster.client, place, cluster.fes[0].ext)["node3"]
    set_everywhere(cluster, time_wait_ms=1000)
    with Talk(cluster) as talk:
        assert talk.who(target) == [["node3", None]]
        has_children(cluster, 1, 0)
        if change == "components":
            cluster.kill_node(3)
            changed = start_as(cluster, 3, f"{cluster.layout.words(3)} -FE -fp 8080")
        else:
            changed = cluster.startup[3]
            cluster.kill_node(1)
            start_as(cluster, 1, f"{cluster.layout.words(1)} --cluster-id 77")
        says(cluster, changed, BEFORE)
        if change == "components":
            assert ask(cluster, target) == [200, "node1"]
        else:
            # The front-end has the connection, too.
            says(cluster, cluster.startup[2], BEFORE)
            assert ask(cluster, target) == ["ConnectionRefusedError", None]
        assert talk.who(target) == [["node3", None]]
    cluster.wait(cluster.complete, timeout=40, what="a member again")
    node = cluster.status(3)["node"]
    assert node["roles"] == ("FE,BE" if change == "components" else "BE"), node
    if change == "components":
        cluster.kill_node(3)
        cluster.start_node(3)
        cluster.wait(cluster.complete, what="all nodes again")
    else:
        assert int(node["cluster_id"], 16) == 0x77
    assert ask(cluster, target)[0] == 200


@pytest.mark.long
def test_connections_of_a_node_that_becomes_another_one_are_cut_after_a_minute(cluster):
    target = run(cluster.client, place, cluster.fes[0].ext)["node3"]
    with Talk(cluster) as talk:
        assert talk.who(target) == [["node3", None]]
        cluster.kill_node(3)
        changed = start_as(cluster, 3, f"{cluster.layout.words(3)} -FE -fp 8080")
        says(cluster, changed, BEFORE)
        began = time.monotonic()
        with counted(cluster, exact_be_reset=1):
            cluster.wait(lambda: "ready" in changed.stderr(), timeout=60, what="a member again")
            assert time.monotonic() - began > 50
            # Nor has the client to say something first.
            assert talk.do("end") == "ConnectionResetError"
    cluster.kill_node(3)
    cluster.start_node(3)
    cluster.wait(cluster.complete, what="all nodes again")


@pytest.mark.long
@pytest.mark.vms
def test_a_back_end_that_is_stopped_lets_connections_go_on_and_by_force_cuts_them(cluster):
    host, node = cluster.fes[0].ext, cluster.node(3)
    target = run(cluster.client, place, host)["node3"]
    set_everywhere(cluster, time_wait_ms=1000)
    with Talk(cluster) as idle, Talk(cluster) as waits:
        assert idle.who(target) == [["node3", None]]
        assert waits.who(target) == [["node3", None]]
        waits.send(b"GET /wait/never HTTP/1.1\r\nHost: cluster\r\n\r\n")
        has_children(cluster, 3, 2)
        stopped = node.sh("cluster_startup stop")
        assert "2 connections go on" in stopped.stdout, stopped
        assert cluster.startup.pop(3).wait().code == 0
        assert cluster.status(3)["node"]["children"] == 2
        assert idle.who(target) == [["node3", None]]
        assert ask(cluster, target) == [200, "node1"]
        with counted(cluster, exact_be_reset=2):
            # There is no process any more that would have to be asked.
            assert node.sh("cluster_startup stop --force").stdout == ""
            # The clients say nothing; they are told.
            assert idle.do("end") == waits.do("end") == "ConnectionResetError"
        assert cluster.status(3)["node"] is None
        assert node.sh("tail -n +2 /proc/net/lard_conn").stdout == ""
        sockets = "ss -tnH state connected exclude time-wait 'sport = 8080'"
        assert node.sh(sockets).stdout == ""

        def server_of(host, port):
            with client.Connection(host, port=7080) as connection:
                return connection.request("/ends", close=True).json().get(str(port), [])[-1:]

        def is_told():
            return run(cluster.client, server_of, node.ext, idle.port) == ["ConnectionResetError"]

        cluster.wait(is_told, what="the server, which reads from that client, is told")
    cluster.start_node(3)
    cluster.wait(cluster.complete, what="all nodes again")
    # The front-end hears of the ends when there is a control connection again.
    cluster.wait_empty()


@pytest.mark.vms
def test_a_cluster_that_is_stopped_by_force_leaves_nothing_and_the_module_unloads(cluster):
    # The last of this layout.
    cluster.spoil()
    target = run(cluster.client, place, cluster.fes[0].ext)["node3"]
    with Talk(cluster) as idle, Talk(cluster) as reading:
        assert idle.who(target) == [["node3", None]]
        reading.send(b"GET /who HTTP/1.1\r\nHost:")
        for number in cluster.layout.members():
            cluster.node(number).sh("cluster_startup stop --force", timeout=60)
            assert cluster.startup.pop(number).wait().code == 0
        for machine in cluster.nodes:
            assert machine.sh("tail -n +2 /proc/net/lard_conn").stdout == "", machine
        assert idle.do("end") == "ConnectionResetError"
        # Of what had no back-end yet, the regular stack knows nothing.
        assert reading.request("/who") == "ConnectionResetError"
    for number in list(cluster.server):
        cluster.stop_server(number)
    cluster.wait(lambda: unloaded(cluster), timeout=10, what="the module unloads")
