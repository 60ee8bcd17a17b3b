# SPDX-License-Identifier: GPL-2.0
"""What tools and files show, and that they agree."""

import json

import pytest
from support import begin, counted, run


def fetch(host, count):
    return [client.check_size(host, 100) for _ in range(count)]


@pytest.mark.vms
def test_status_shows_every_node_up(cluster):
    for number in range(1, len(cluster.nodes) + 1):
        text = cluster.node(number).sh("cluster_startup status").stdout
        for machine in cluster.nodes:
            assert machine.name in text, text
        json.loads(cluster.node(number).sh("cluster_startup status --json").stdout)


def test_sysfs_shows_the_same_counters_as_netlink(cluster):
    run(cluster.client, fetch, cluster.fes[0].ext, 5)
    machine = cluster.fes[0]
    number = int(machine.name[4:])
    text = machine.sh("cd /sys/kernel/lard && grep -r . --include='*' . | head -n 2000").stdout
    files = {}
    for line in text.splitlines():
        path, _, value = line.partition(":")
        files[path.rpartition("/")[2]] = value
    stats = cluster.stats(number)
    missing = set(stats) - set(files)
    assert not missing, sorted(missing)
    for name in ("be_adopted", "fe_adopted", "fe_opened"):
        assert int(files[name]) == stats[name], name


def test_every_node_has_its_own_counters(cluster):
    before = [cluster.stats(n)["fe_opened"] for n in range(1, len(cluster.nodes) + 1)]
    run(cluster.client, fetch, cluster.fes[1].ext, 5)
    after = [cluster.stats(n)["fe_opened"] for n in range(1, len(cluster.nodes) + 1)]
    number = int(cluster.fes[1].name[4:])
    for index, (old, new) in enumerate(zip(before, after), 1):
        assert new - old == (5 if index == number else 0), (index, old, new)


@pytest.mark.vms
def test_a_connection_is_shown_by_its_front_end_and_its_back_end(cluster):
    front_end = cluster.fes[0]
    running = begin(cluster.client, idle_until_told, front_end.ext)
    cluster.wait(lambda: "node" in running.process.stdout(), what="the answer")
    node, port = json.loads(running.process.stdout().strip().splitlines()[0])

    def age(number, state):
        for entry in cluster.connections(number):
            if entry["state"] == state and str(entry["client"]).endswith(f":{port}"):
                return entry["age_ms"] + 1
        return None

    adopted = cluster.wait(lambda: age(int(node[4:]), "adopted"), what="the back-end's entry")
    forwarded = cluster.wait(lambda: age(int(front_end.name[4:]), "forwarding"),
                             what="the front-end's entry")
    # Looked at later, and it began with the SYN.
    assert adopted <= forwarded < 120_000, (adopted, forwarded)
    table = front_end.sh("cat /proc/net/lard_conn").stdout
    assert str(port) in table, table
    running.process.kill()


def idle_until_told(host):
    with client.Connection(host) as connection:
        node = connection.request("/who").node
        print(json.dumps([node, connection.socket.getsockname()[1]]), flush=True)
        time.sleep(600)


def test_reading_files_while_connections_come_and_go_does_no_harm(cluster):
    running = begin(cluster.client, fetch, cluster.fes[0].ext, 200)
    machine = cluster.fes[0]
    while running.process.poll() is None:
        machine.sh(
            "cat /proc/net/lard* >/dev/null; find /sys/kernel/lard -type f -exec cat {} + >/dev/null;"
            "cluster_startup stats --json >/dev/null; cluster_startup status >/dev/null"
        )
    assert len(running.result()) == 200


def test_wrong_usage_is_said_with_exit_code_2(cluster):
    machine = cluster.node(1)
    assert machine.sh("cluster_startup --help").stdout
    assert machine.sh("cluster_startup --version").stdout.startswith("cluster_startup ")
    for words in ("--nonsense", "-fp", "-FE -fp 99999", "frobnicate", "drain"):
        result = machine.sh(f"cluster_startup {words}", check=False)
        assert result.code == 2 and result.stderr.strip(), (words, result)
    result = machine.sh("cluster_startup drain nobody", check=False)
    assert result.code == 1 and "nobody" in result.stderr, result


def test_parameters_are_checked_before_any_is_changed(cluster):
    machine = cluster.node(2)
    before = machine.sh("cluster_startup set").stdout
    for words in ("no-such-thing=1", "head-timeout-ms=never", "head-timeout-ms=-1", "ping-interval-ms=700 a=1"):
        result = machine.sh(f"cluster_startup set {words}", check=False)
        assert result.code in (1, 2) and result.stderr.strip(), (words, result)
    assert machine.sh("cluster_startup set").stdout == before


@pytest.mark.layout(
    nodes=3,
    d=1,
    fe=(2,),
    be=(3,),
    options={1: "--set mode=move --set t-low=30", 2: "--set head-limit=2000"},
)
def test_parameters_given_at_the_start_hold_from_then_on(cluster):
    def has(number, *wanted):
        values = json.loads(cluster.node(number).sh("cluster_startup set --json").stdout)
        return {value["name"]: value["value"] for value in values}.items() >= set(wanted)

    def twice(host):
        with client.Connection(host) as connection:
            return [connection.request("/who").status for _ in range(2)]

    def holds():
        assert has(1, ("mode", "move"), ("t-low", "30")) and has(2, ("head-limit", "2000"))
        # The front-end knows the mode.
        with counted(cluster, exact_fe_next=1):
            assert run(cluster.client, twice, cluster.fes[0].ext) == [200, 200]

    holds()
    # SIGTERM: what the node was is forgotten.
    for number in (1, 2):
        cluster.kill_node(number, 15)
        cluster.start_node(number)
    cluster.wait(cluster.complete, what="the nodes are back")
    holds()
    cluster.spoil()
    cluster.kill_node(1, 15)
    command = f"{cluster.layout.words(1)} --set t-low=0"
    result = cluster.node(1).sh(command, check=False, timeout=60)
    assert result.code == 1 and "t-low" in result.stderr and "--set" in result.stderr, result
    assert not cluster.status(1).get("node")
