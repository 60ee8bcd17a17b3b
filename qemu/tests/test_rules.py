# SPDX-License-Identifier: GPL-2.0
"""Which packets belong to the second stack."""

import pytest
from support import begin, counted, run


def reach(host, sources, port=8080):
    """For each source address, who answers there: the cluster, the regular stack, or nobody."""
    result = {}
    for source in sources:
        try:
            with client.Connection(host, port=port, source=(source, 0), timeout=10) as connection:
                result[source] = connection.request("/who", close=True).node
        except ConnectionRefusedError:
            result[source] = "refused"
    return result


def set_rules(cluster, machine, rules):
    words = " ".join(f"--set '{rule}'" for rule in rules)
    machine.sh(f"cluster_startup rules {words}")


@pytest.fixture(autouse=True)
def former_rules(cluster):
    """Every test here leaves the rules as it found them."""
    before = cluster.fes[0].sh("cluster_startup rules").stdout.splitlines()
    yield
    set_rules(cluster, cluster.fes[0], before)


@pytest.fixture
def addresses(cluster):
    """More addresses for the client, of the seed's kind among them."""
    more = ["10.10.0.101", "192.168.2.75", "192.168.2.76", "193.1.2.3"]
    for address in more:
        cluster.client.sh(f"ip addr add {address}/32 dev ext0")
    for machine in cluster.nodes:
        for address in more[1:]:
            machine.sh(f"ip route add {address}/32 dev ext0")
    yield more
    for address in more:
        cluster.client.sh(f"ip addr del {address}/32 dev ext0", check=False)
    for machine in cluster.nodes:
        for address in more[1:]:
            machine.sh(f"ip route del {address}/32 dev ext0", check=False)


def regular_server(cluster, machine):
    machine.spawn("python3 $G/serve.py python --plain --name regular --port 8080")
    cluster.wait(
        lambda: ":8080 " in machine.sh("ss -Hltn").stdout,
        timeout=60,
        what="the regular server listens",
    )


@pytest.mark.vms
def test_the_same_port_serves_both_stacks(cluster, addresses):
    machine = cluster.fes[0]
    regular_server(cluster, machine)
    set_rules(
        cluster, machine, ["pass from 10.10.0.101", "accept from 0.0.0.0/0 to local port 8080"]
    )
    nodes = run(cluster.client, reach, machine.ext, ["10.10.0.100", "10.10.0.101"] * 3)
    assert nodes["10.10.0.101"] == "regular", nodes
    assert nodes["10.10.0.100"] in {m.name for m in cluster.bes}, nodes


@pytest.mark.vms
def test_the_rules_of_the_seed(cluster, addresses):
    machine = cluster.fes[0]
    regular_server(cluster, machine)
    set_rules(
        cluster,
        machine,
        ["pass from 192.168.2.75", "accept if ext0,int0 from 192.0.0.0/8 to local port 8080"],
    )
    nodes = run(cluster.client, reach, machine.ext, ["10.10.0.100", *addresses[1:]])
    names = {m.name for m in cluster.bes}
    assert nodes["192.168.2.75"] == "regular", nodes
    assert nodes["192.168.2.76"] in names, nodes
    assert nodes["193.1.2.3"] == "regular", nodes
    assert nodes["10.10.0.100"] == "regular", nodes


def test_rules_name_interfaces(cluster):
    machine = cluster.fes[0]
    regular_server(cluster, machine)
    set_rules(cluster, machine, ["accept if int0 to local port 8080"])
    assert run(cluster.client, reach, machine.ext, ["10.10.0.100"]) == {"10.10.0.100": "regular"}
    set_rules(cluster, machine, ["accept if int0,ext0 to local port 8080"])
    [node] = run(cluster.client, reach, machine.ext, ["10.10.0.100"]).values()
    assert node in {m.name for m in cluster.bes}


def test_rules_change_while_connections_live(cluster):
    def two_requests(host):
        with client.Connection(host) as connection:
            first = connection.request("/who").node
            print(first, flush=True)
            second = connection.request("/wait/rules-changed").node
            third = connection.request("/who").node
        return [first, second, third]

    machine = cluster.fes[0]
    for each in cluster.nodes:
        each.sh("mkdir -p /run/lard-test; rm -f /run/lard-test/rules-changed")
    running = begin(cluster.client, two_requests, machine.ext)
    cluster.wait(lambda: "node" in running.process.stdout(), what="the first answer")
    set_rules(cluster, machine, ["pass"])
    for each in cluster.nodes:
        each.sh("touch /run/lard-test/rules-changed")
    nodes = running.result()
    assert len(set(nodes)) == 1, nodes
    assert run(cluster.client, reach, machine.ext, ["10.10.0.100"]) == {"10.10.0.100": "refused"}


@pytest.fixture
def rp_filter(cluster):
    """Sets it on the front-end's interface to the clients."""
    name, machine = "net.ipv4.conf.ext0.rp_filter", cluster.fes[0]
    before = machine.sh(f"sysctl -n {name}").stdout.strip()
    yield lambda value: machine.sh(f"sysctl -qw {name}={value}")
    machine.sh(f"sysctl -qw {name}={before}")


def test_sources_of_another_interface_are_dropped_where_rp_filter_asks_for_it(cluster, rp_filter):
    def spoof(router, vips, source):
        """A SYN and a stray ACK to each, on the clients' network and from an address of the other."""
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        for vip in vips:
            peer = Peer(link, vip)
            for flags in (SYN, ACK):
                segment = peer.tcp(flags, seq=peer.iss, source=source, sport=peer.sport + flags)
                link.send(vip, segment, source=source, mac=link.resolve(router))

    machine = cluster.fes[0]
    # The second address is nobody's, so that the kernel has no way for what is sent to it.
    set_rules(cluster, machine, ["accept port 8080"])
    spoofed = (machine.ext, [machine.ext, "198.51.100.7"], "10.20.0.77")
    rp_filter(0)
    with counted(cluster, exact_fe_opened=2, exact_tcp_stray=2, exact_fe_rp_filter=0):
        run(cluster.client, spoof, *spoofed)
    rp_filter(1)
    with counted(cluster, exact_fe_opened=0, exact_tcp_stray=0, exact_fe_rp_filter=4):
        run(cluster.client, spoof, *spoofed)
    [node] = run(cluster.client, reach, machine.ext, ["10.10.0.100"]).values()
    assert node in {m.name for m in cluster.bes}


def test_a_bad_rule_is_refused_and_changes_nothing(cluster):
    machine = cluster.fes[0]
    before = machine.sh("cluster_startup rules").stdout
    for bad in ("accept sometimes", "accept from 10.0.0.0/33", "accept if ", "to local", "x" * 300):
        result = machine.sh(f"cluster_startup rules --set '{bad}'", check=False)
        assert result.code in (1, 2), (bad, result)
        assert result.stderr.strip(), bad
    assert machine.sh("cluster_startup rules").stdout == before
    [node] = run(cluster.client, reach, machine.ext, ["10.10.0.100"]).values()
    assert node.startswith("node")
