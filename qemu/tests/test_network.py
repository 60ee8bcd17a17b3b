# SPDX-License-Identifier: GPL-2.0
"""Packets beside the main road: strays, ICMP errors, and services that are none of our business."""

import contextlib

import pytest
from support import begin, counted, run


@contextlib.contextmanager
def offloads_off(machine):
    machine.sh("ethtool -K ext0 tso off gso off gro off")
    try:
        yield
    finally:
        machine.sh("ethtool -K ext0 tso on gso on gro on", check=False)


def mac(machine, interface="ext0"):
    return machine.sh(f"cat /sys/class/net/{interface}/address").stdout.strip()


@pytest.mark.vms
def test_a_stray_packet_at_a_forwarding_back_end_ends_there(cluster):
    def strays(host, station, count):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        station = bytes.fromhex(station.replace(":", ""))
        for number in range(count):
            peer = Peer(link, host, sport=30000 + number)
            for flags in (ACK, ACK | PSH, FIN | ACK, RST):
                link.send(host, peer.tcp(flags, b"x" if flags & PSH else b"", ack=1), mac=station)
            # Sent on to the front-end, it would come back as RST.
            peer.quiet("an answer to a stray packet", lambda s: True, 0.1)
        link.resolve(host)

    back_end = [machine for machine in cluster.bes if machine is not cluster.fes[0]][0]
    host = cluster.fes[0].ext
    back_end.sh("sysctl -q -w net.ipv4.ip_forward=1")
    try:
        with counted(cluster, be_unknown_tuple=40, exact_tcp_stray=0):
            run(cluster.client, strays, host, mac(back_end), 10)
    finally:
        back_end.sh("sysctl -q -w net.ipv4.ip_forward=0")


@pytest.mark.vms
@pytest.mark.layout(nodes=4, d=1, fe=(1,), be=(2, 3, 4))
def test_the_offered_mss_follows_the_internal_network(cluster):
    def offered(host):
        peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
        peer.segment(SYN, seq=peer.iss)
        answer = peer.expect("SYN/ACK", lambda s: s.flags & SYN)
        peer.segment(RST, seq=answer.ack)
        return struct.unpack("!H", answer.options[2])[0]

    (machine,) = cluster.fes

    def offers(mss):
        return lambda: run(cluster.client, offered, machine.ext) == mss

    assert offers(1460)()
    machine.sh("ip link set int0 mtu 1400")
    try:
        cluster.wait(offers(1360), what="packets of 1400 octets are offered")
    finally:
        machine.sh("ip link set int0 mtu 1500")
    cluster.wait(offers(1460), what="packets of 1500 octets are offered again")


@pytest.mark.vms
@pytest.mark.layout(nodes=4, d=1, fe=(1,), be=(2, 3, 4))
def test_a_packet_without_a_hop_left_is_not_passed_on(cluster):
    def ask(host):
        peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
        peer.handshake()
        peer.send(client.head("/who"))
        peer.receive_all(length=1)
        peer.segment(ACK | PSH, client.head("/who"), ip={"ttl": 1})
        peer.quiet("an answer to what ends here", lambda s: s.length, 0.5)
        answer = peer.request(client.head("/who", close=True))
        peer.close()
        return answer.startswith(b"HTTP/1.1 200 ")

    with counted(cluster, exact_fw_ttl=1, exact_fw_no_route=0):
        assert run(cluster.client, ask, cluster.fes[0].ext)


@pytest.mark.vms
@pytest.mark.layout(nodes=4, d=1, fe=(1,), be=(2, 3, 4))
def test_a_small_path_mtu_is_learnt_by_the_back_end(cluster):
    def small_path(host, size, mtu):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        peer = Peer(link, host)
        peer.handshake()
        peer.send(f"GET /size/{size} HTTP/1.0\r\n\r\n".encode())
        # Two full segments, unacknowledged, and a router that cannot pass them on.
        while not any(len(s.data) > mtu for s in peer.seen):
            assert peer.receive(10), peer.seen
        big = next(s for s in peer.seen if len(s.data) > mtu)
        header = link.ip(host, b"", source=host, total=20 + 32 + len(big.data))
        header = bytearray(header)
        header[12:16], header[16:20] = socket.inet_aton(host), link.packed
        header[10:12] = b"\0\0"
        header[10:12] = struct.pack("!H", rawtcp.checksum(bytes(header)))
        quoted = bytes(header) + struct.pack("!HHI", big.sport, big.dport, big.seq)
        message = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
        message = message[:2] + struct.pack("!H", rawtcp.checksum(message)) + message[4:]
        peer.seen.clear()
        link.send(host, message, protocol=rawtcp.ICMP)
        answer = peer.receive_all()
        large = sum(len(s.data) for s in peer.seen if len(s.data) > mtu - 40)
        return [answer.endswith(content.stream()[size - 100 : size]), large]

    with contextlib.ExitStack() as stack:
        for machine in cluster.bes:
            stack.enter_context(offloads_off(machine))
        with counted(cluster, fw_icmp=1):
            whole, large = run(cluster.client, small_path, cluster.fes[0].ext, 200_000, 1000)
    # Large ones are those that were on their way already: one initial window.
    assert whole and large <= 12 * 1460, large


def test_a_path_mtu_message_about_nothing_is_ignored(cluster):
    def nonsense(host):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        for kind, code in ((3, 4), (3, 1), (11, 0), (12, 0)):
            for length in (0, 8, 20, 27, 28, 40):
                quoted = link.ip(host, struct.pack("!HHI", 8080, 4711, 1), source=host)[:length]
                message = struct.pack("!BBHHH", kind, code, 0, 0, 68) + quoted
                message = message[:2] + struct.pack("!H", rawtcp.checksum(message)) + message[4:]
                link.send(host, message, protocol=rawtcp.ICMP)
        assert client.check_size(host, 100_000)

    run(cluster.client, nonsense, cluster.fes[0].ext)


@pytest.mark.vms
def test_regular_services_on_a_front_end_are_untouched(cluster):
    def fetch(host, count):
        for _ in range(count):
            with client.Connection(host, port=9080) as connection:
                answer = connection.request("/size/100000", keep_body=False, close=True)
                assert answer.sha256 == content.sha256(100_000)

    def cluster_fetch(host, count):
        for _ in range(count):
            client.check_size(host, 100_000)

    machine = cluster.fes[0]
    machine.spawn(f"python3 $G/serve.py python --plain --name {machine.name} --port 9080")
    cluster.wait(
        lambda: ":9080 " in machine.sh("ss -Hltn").stdout, what="the regular server listens"
    )
    with counted(cluster, exact_be_adopted=30):
        regular = begin(cluster.client, fetch, machine.ext, 30)
        run(cluster.client, cluster_fetch, machine.ext, 30)
        regular.result()
    ping = cluster.client.sh(f"ping -c 3 -i 0.2 -w 10 {machine.ext}")
    assert " 0% packet loss" in ping.stdout


def test_addresses_of_a_front_end_that_no_rule_names_stay_with_the_regular_stack(cluster):
    """The port that the cluster serves is closed in the regular stack, and says so."""

    def closed(host):
        try:
            client.Connection(host, port=8081).close()
        except ConnectionRefusedError:
            return True
        return False

    assert run(cluster.client, closed, cluster.fes[0].ext)


@pytest.mark.vms
def test_firewall_rules_in_raw_still_protect_the_port(cluster):
    def blocked(host):
        link = Link("10.10.0.210")
        peer = Peer(link, host)
        peer.segment(SYN, seq=peer.iss)
        peer.quiet("an answer through the firewall", lambda s: True, 1.0)
        other = Peer(Link("10.10.0.211"), host)
        other.handshake()
        assert b"\r\n\r\nnode" in other.request(b"GET /who HTTP/1.0\r\n\r\n")

    machine = cluster.fes[0]
    machine.sh(
        "nft 'add table ip guard; add chain ip guard early { type filter hook prerouting "
        "priority raw; }; add rule ip guard early ip saddr 10.10.0.210 counter drop'"
    )
    try:
        run(cluster.client, blocked, machine.ext)
    finally:
        machine.sh("nft delete table ip guard")


def pass_queued(number):
    """Accepts what netfilter queues, in the verdict's own system call; see libnetfilter_queue."""
    queue = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    queue.bind((0, 0))

    def say(message, kind, data):
        attribute = struct.pack("=HH", 4 + len(data), kind) + data
        attribute += bytes(-len(attribute) % 4)
        length = 16 + 4 + len(attribute)
        header = struct.pack("=IHHII", length, 3 << 8 | message, 1, 0, 0)
        queue.send(header + struct.pack("!BBH", 0, 0, number) + attribute)

    say(2, 1, struct.pack("!BBH", 1, 0, 0))
    say(2, 2, struct.pack("!IB", 0, 1))
    print("ready", flush=True)
    while True:
        data = queue.recv(1 << 16)
        while len(data) >= 16:
            length, kind = struct.unpack_from("=IH", data)
            # Else it is an error.
            assert kind == 3 << 8, data
            # The first attribute: the packet's number.
            (packet,) = struct.unpack_from("!I", data, 24)
            say(1, 2, struct.pack("!II", 1, packet))
            data = data[(length + 3) & ~3 :]


def test_packets_that_a_process_lets_pass_are_taken_from_it(cluster):
    """They come in the process's system call, not in a softirq."""

    def fetch(host):
        for size in (100, 30_000, 100, 30_000):
            client.check_size(host, size)

    machine = cluster.fes[0]
    passing = begin(machine, pass_queued, 7)
    cluster.wait(lambda: "ready" in passing.process.stdout(), what="the queue is there")
    machine.sh(
        "nft 'add table ip queued; add chain ip queued early { type filter hook prerouting priority raw; };"
        " add rule ip queued early tcp dport 8080 counter queue num 7'"
    )
    try:
        with counted(cluster, fe_adopted=4):
            run(cluster.client, fetch, machine.ext)
        seen = machine.sh("nft list table ip queued").stdout
        assert int(seen.partition("packets ")[2].split()[0]) >= 16, seen
    finally:
        machine.sh("nft delete table ip queued")


def test_connection_tracking_does_not_disturb_connections(cluster):
    def fetch(host):
        for size in (100, 100_000, 1_000_000):
            client.check_size(host, size)

    for machine in cluster.nodes:
        machine.sh(
            "nft 'add table ip track; add chain ip track in { type filter hook input priority 0; };"
            " add rule ip track in tcp dport 8080 ct state invalid counter drop;"
            " add chain ip track out { type filter hook output priority 0; };"
            " add rule ip track out tcp sport 8080 ct state invalid counter drop';"
            # A connection of which it has not seen the beginning is invalid then.
            " sysctl -q -w net.netfilter.nf_conntrack_tcp_loose=0"
        )
    try:
        run(cluster.client, fetch, cluster.fes[0].ext)
        for machine in cluster.nodes:
            # It does not see them at all: a busy server's would fill its table.
            tracked = machine.sh("conntrack -L -p tcp 2>/dev/null | grep port=8080", check=False)
            assert tracked.stdout == "", f"{machine.name}: {tracked.stdout}"
    finally:
        for machine in cluster.nodes:
            machine.sh("sysctl -q -w net.netfilter.nf_conntrack_tcp_loose=1", check=False)
            machine.sh("nft delete table ip track", check=False)


VIP = "10.10.0.50"


@pytest.mark.layout(nodes=4, d=1, fe=(2,), be=(3, 4))
def test_back_ends_may_have_the_virtual_address_on_lo(lab):
    """As IPVS wants it of its real servers."""

    def fetch(host):
        return [client.check_size(host, 100_000) for _ in range(8)]

    def stray(host, station):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        station = bytes.fromhex(station.replace(":", ""))
        peer = Peer(link, host)
        link.send(host, peer.tcp(ACK, ack=1), mac=station)
        assert peer.expect("the regular stack's answer", lambda s: True).flags & RST

    lab.node(2).sh(f"ip addr add {VIP}/24 dev ext0")
    for machine in lab.bes:
        machine.sh("sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2;"
                   f" ip addr add {VIP}/32 dev lo")
    try:
        lab.start()
        with counted(lab, be_adopted=8, exact_be_not_allowed=0):
            assert set(run(lab.client, fetch, VIP)) <= {"node3", "node4"}
        # What is for no connection is not dropped: another program may serve this address.
        run(lab.client, stray, VIP, mac(lab.node(3)))
    finally:
        for machine in lab.bes:
            machine.sh(f"ip addr del {VIP}/32 dev lo", check=False)
            machine.sh("sysctl -q -w net.ipv4.conf.all.arp_ignore=0"
                       " net.ipv4.conf.all.arp_announce=0")
        lab.node(2).sh(f"ip addr del {VIP}/24 dev ext0", check=False)


@pytest.mark.layout(nodes=4, d=1, fe=(2, 3), be=(3, 4),
                    options={2: f"--vip {VIP}", 3: f"--vip {VIP}"})
def test_a_virtual_address_moves_to_another_front_end(lab):
    def fetch(host):
        return [client.check_size(host, 10_000) for _ in range(4)]

    old, new = lab.node(2), lab.node(3)
    old.sh(f"ip addr add {VIP}/24 dev ext0")
    try:
        lab.start()
        run(lab.client, fetch, VIP)
        lab.kill_node(2)
        old.sh(f"ip addr del {VIP}/24 dev ext0")
        new.sh(f"ip addr add {VIP}/24 dev ext0")
        lab.client.sh(f"ip neigh del {VIP} dev ext0", check=False)
        assert set(run(lab.client, fetch, VIP)) <= {"node3", "node4"}
    finally:
        for machine in (old, new):
            machine.sh(f"ip addr del {VIP}/24 dev ext0", check=False)


@pytest.fixture
def tunnels(cluster):
    """The replies to this address of the client go through IPIP tunnels; its own packets do not."""
    inner, client_machine = "10.99.0.1", cluster.client
    if any(guest.sh("modprobe ipip", check=False).code for guest in cluster.guests):
        pytest.skip("this kernel has no IPIP")
    client_machine.sh(f"ip addr add {inner}/32 dev ext0")
    cluster.fes[0].sh(f"ip route add {inner} via {client_machine.ext} dev ext0")
    for machine in cluster.bes:
        ends = (machine.ext, client_machine.ext)
        for here, (local, remote) in ((machine, ends), (client_machine, ends[::-1])):
            here.sh(f"ip tunnel add {machine.name} mode ipip local {local} remote {remote}")
            here.sh(f"ip link set {machine.name} up")
        machine.sh(f"ip route add {inner} dev {machine.name}")
    yield inner
    cluster.fes[0].sh(f"ip route del {inner}")
    client_machine.sh(f"ip addr del {inner}/32 dev ext0")
    for machine in cluster.bes:
        for here in (machine, client_machine):
            here.sh(f"ip link del {machine.name}")


@pytest.mark.layout(nodes=4, d=1, fe=(1,), be=(2, 3, 4))
@pytest.mark.parametrize("mode", ["move"], indirect=True)
def test_replies_may_take_a_tunnel_and_their_connections_move_all_the_same(cluster, mode, tunnels):
    """What carries a packet of a child through the tunnel is not one of the child's."""

    def ask(host, source, count):
        with client.Connection(host, source=(source, 0)) as connection:
            return [connection.request(f"/size/5000?tunnel-{n}").node for n in range(count)]

    carried = lambda: sum(m.counters(m.name)["tx_packets"] for m in cluster.bes)
    before = carried()
    with counted(cluster, exact_fe_busy_opaque=0, fe_move_begun=1):
        assert len(set(run(cluster.client, ask, cluster.fes[0].ext, tunnels, 12))) > 1
    assert carried() > before
