# SPDX-License-Identifier: GPL-2.0
"""Many connections: none fails, none is left."""

import contextlib
import re

import pytest
from lardvm import crossing
from support import counted, run, set_everywhere, wait_idle


def benchmark(cluster, host, requests, concurrency, target="/size/1460", words="", timeout=170):
    """Runs ab and checks that every request was answered completely."""
    command = f"ab -q -s 60 {words} -n {requests} -c {concurrency} http://{host}:8080{target}"
    text = cluster.client.sh(command, timeout=timeout).stdout

    def number(name):
        found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
        return int(found.group(1)) if found else 0

    assert number("Complete requests") == requests, text
    assert number("Failed requests") == 0, text
    assert number("Non-2xx responses") == 0, text
    assert number("Write errors") == 0, text
    return text


def retransmissions(cluster):
    """Segments sent again, by machine, without those of control connections: any processor of a guest
    sends on them, so they overtake each other between its namespaces, which TCP takes for a loss."""

    def of(machine):
        control = machine.sh("ss -tniH 'sport = :7021 or dport = :7021'").stdout
        again = sum(int(total) for total in re.findall(r"\bretrans:\d+/(\d+)", control))
        return machine.nstat().get("TcpRetransSegs", 0) - again

    return {machine.name: of(machine) for machine in [cluster.client, *cluster.nodes]}


@contextlib.contextmanager
def patient(machines):
    """No timer sends anything again while an emulated processor is only late: what is sent again
    then was lost."""

    def be(words, probes):
        for machine in machines:
            lines = [f"echo {probes} > /proc/sys/net/ipv4/tcp_early_retrans"]
            for net, device, own in (("10.10", "ext0", machine.ext), ("10.20", "int0", machine.int)):
                route = f"{net}.0.0/24 dev {device} proto kernel scope link src {own}"
                lines += [f"ip route change {route} {words}"] if own else []
            machine.sh("set -e; " + "; ".join(lines))

    be("rto_min 30s", 0)
    try:
        yield
    finally:
        be("", 3)


@pytest.mark.vms
@pytest.mark.limit(400)
@pytest.mark.layout(servers="nginx")
def test_ten_thousand_connections_leave_nothing_behind(cluster):
    set_everywhere(cluster, time_wait_ms=5000)
    host = cluster.fes[0].ext
    with patient([cluster.client, *cluster.nodes]):
        # Until the timers of all control connections are the patient ones.
        for _ in range(3):
            benchmark(cluster, host, 300, 16, target="/size/100")
        before = retransmissions(cluster)
        for machine in cluster.fes:
            crossing.count(machine)
        with counted(cluster, exact_be_adopted=10_000):
            benchmark(cluster, host, 10_000, 64, target="/size/100", timeout=300)
        after = retransmissions(cluster)
    assert after == before
    assert {machine.name: crossing.octets(machine) for machine in cluster.fes} == {
        machine.name: 0 for machine in cluster.fes
    }
    for machine in cluster.fes:
        crossing.stop(machine)
    cluster.wait_empty(timeout=100)
    wait_idle(cluster)


@pytest.mark.vms
@pytest.mark.layout(servers="nginx")
def test_one_client_address_uses_its_ports_again_at_once(cluster):
    ports = cluster.client.sh("cat /proc/sys/net/ipv4/ip_local_port_range").stdout.split()
    try:
        cluster.client.sh("echo 20000 20299 > /proc/sys/net/ipv4/ip_local_port_range")
        with counted(cluster, exact_be_adopted=2000, tcp_reused=1):
            benchmark(cluster, cluster.fes[0].ext, 2000, 16, target="/size/100")
    finally:
        line = " ".join(ports)
        cluster.client.sh(f"echo {line} > /proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.layout(servers="nginx")
def test_persistent_connections_under_load(cluster):
    benchmark(cluster, cluster.fes[0].ext, 3000, 32, words="-k")


@pytest.mark.vms
@pytest.mark.layout(servers="nginx-reuseport")
def test_nginx_with_reuseport_and_four_workers(cluster):
    with counted(cluster, exact_be_adopted=600, exact_be_not_created=0):
        benchmark(cluster, cluster.fes[0].ext, 600, 16, target="/size/1460")

    def workers(host, count):
        """Which processes of nginx answered, by node."""
        found = {}
        for number in range(count):
            answer = client.get(host, f"/size/1460?{number}")
            assert answer.sha256 == content.sha256(1460)
            found.setdefault(answer.node, set()).add(answer.fields["x-worker"])
        return {node: sorted(pids) for node, pids in found.items()}

    # Each of four is as likely for each connection, so that 20 for one have a chance of 4^-19.
    found = run(cluster.client, workers, cluster.fes[0].ext, 60)
    assert len(found) == 3 and all(len(pids) > 1 for pids in found.values()), found


@pytest.mark.layout(servers={2: "nginx", 3: "apache", 4: "nginx"})
def test_nginx_and_apache_serve_side_by_side(cluster):
    def fetch(hosts):
        nodes = set()
        for number in range(60):
            answer = client.get(hosts[number % len(hosts)], f"/who?{number}")
            assert answer.status == 200 and answer.body.decode().strip() == answer.node
            nodes.add(answer.node)
        for host in hosts:
            client.check_size(host, content.LARGEST)
        return sorted(nodes)

    wait_idle(cluster)
    hosts = [machine.ext for machine in cluster.fes]
    assert run(cluster.client, fetch, hosts) == ["node2", "node3", "node4"]


def test_all_front_ends_at_once(cluster):
    def fetch(hosts, rounds):
        wrong = []

        def work(host, number):
            try:
                for turn in range(rounds):
                    client.check_size(host, (100, 10_000)[turn % 2])
            except Exception as error:
                wrong.append(f"{host} {number}: {error}")

        pool = [
            threading.Thread(target=work, args=[host, number])
            for host in hosts
            for number in range(6)
        ]
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()
        return wrong

    hosts = [machine.ext for machine in cluster.fes]
    assert run(cluster.client, fetch, hosts, 10) == []
