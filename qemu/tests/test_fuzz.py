# SPDX-License-Identifier: GPL-2.0
"""Malformed packets by the thousand: nothing but counters changes."""

import random

import pytest
from support import begin, counted, run, set_everywhere


def malformed(host, count, seed):
    """Sends packets that are wrong in random ways; answers are not looked at."""
    chance = random.Random(seed)
    link = Link(f"10.10.0.{chance.randrange(200, 225)}")
    mac = link.resolve(host)
    text = b"GET /size/100 HTTP/1.1\r\nHost: a\r\n\r\n"
    peers = []
    while len(peers) < 20:
        # Real connections in several states, whose segments are then spoilt.
        peer = Peer(link, host, sport=1024 + chance.randrange(60000))
        peer.open()
        if len(peers) % 4 > 0:
            peer.segment(ACK)
        if len(peers) % 4 > 1:
            peer.send(text[:15])
        if len(peers) % 4 > 2:
            peer.send(text[15:])
        peers.append(peer)

    def number():
        return chance.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, chance.randrange(1 << 32)))

    for turn in range(count):
        peer = chance.choice(peers)
        data = chance.choice((b"", text, chance.randbytes(chance.randrange(1400)), b"\r\n" * 9))
        fields = {
            "seq": chance.choice((peer.seq, peer.seq + chance.randrange(-70000, 70000), number())),
            "ack": chance.choice((peer.ack, peer.ack + chance.randrange(-3, 70000), number())),
            "window": chance.choice((0, 1, 65535, chance.randrange(65536))),
            "urgent": chance.choice((0, 0, chance.randrange(65536))),
            "options": bytes(4 * chance.randrange(11)),
        }
        if fields["options"]:
            size = len(fields["options"])
            fields["options"] = chance.choice(
                (chance.randbytes(size), b"\1" * size, (peer.syn_options() + bytes(40))[:size])
            )
        flags = chance.choice((ACK, ACK | PSH, chance.randrange(512)))
        segment = bytearray(peer.tcp(flags, data, **fields))
        ip = {}
        way = chance.randrange(10)
        if way == 0:
            segment = segment[: chance.randrange(len(segment) + 1)]
        elif way == 1:
            segment[12] = chance.randrange(256)  # the header's length
        elif way == 2:
            ip["total"] = chance.choice((0, 19, 20, 21, 39, 40, 65535, chance.randrange(65536)))
        elif way == 3:
            ip["version_length"] = chance.choice((0x40, 0x44, 0x4F, 0x46, 0x55, chance.randrange(256)))
        elif way == 4:
            ip["fragment"] = (8 * chance.randrange(8192), chance.random() < 0.5)
            ip["dont_fragment"] = False
        elif way == 5:
            for _ in range(chance.randrange(1, 10)):
                segment[chance.randrange(len(segment))] = chance.randrange(256)
        elif way == 6:
            ip["options"] = chance.randbytes(4 * chance.randrange(11))
        elif way == 7:
            ip["break_checksum"] = True
        if way in (1, 2, 5) and chance.random() < 0.7 and len(segment) >= 20:
            # A right checksum, so that more than the checksum is tested.
            segment[16:18] = b"\0\0"
            pseudo = link.packed + socket.inet_aton(host) + struct.pack("!HH", 6, len(segment))
            segment[16:18] = struct.pack("!H", rawtcp.checksum(pseudo + bytes(segment)))
        packet = link.ip(host, bytes(segment), **ip)
        if chance.random() < 0.02:
            packet = packet[: chance.randrange(1, len(packet))]
        try:
            link.socket.send(mac + link.mac + b"\x08\x00" + packet)
        except OSError as error:
            if error.errno != 90:  # EMSGSIZE: larger than the link takes
                raise
        if chance.random() < 0.01:
            segment = peer.receive(0.01)
            if segment:
                peer.ack = (segment.seq + segment.length) % (1 << 32)
    return count


def fetch(host, count):
    for _ in range(count):
        client.check_size(host, 10_000)
    return count


def drain(cluster):
    """Ends what servers have of clients that are silent for good; then nothing is left anywhere."""
    for machine in cluster.bes:
        # So that the kernel does not ask them for an answer for minutes.
        machine.sh("sysctl -qw net.ipv4.tcp_orphan_retries=1")
        cluster.stop_server(int(machine.name[4:]))
    cluster.wait_empty()
    for machine in cluster.bes:
        machine.sh("sysctl -qw net.ipv4.tcp_orphan_retries=0")
        cluster.start_server(int(machine.name[4:]))


@pytest.mark.vms
@pytest.mark.limit(400)
@pytest.mark.parametrize("count", [2_000, pytest.param(6_000, marks=pytest.mark.long)])
def test_malformed_packets_have_no_effect_but_counters(cluster, count):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    set_everywhere(cluster, head_timeout_ms=10_000, idle_timeout_ms=10_000)
    with counted(cluster, fe_checksum=10, tcp_bad_data_offset=1):
        noise = begin(cluster.client, malformed, cluster.fes[0].ext, count, seed)
        # Other clients do not notice.
        assert run(cluster.client, fetch, cluster.fes[0].ext, 20) == 20
        assert noise.result(timeout=170) == count
    assert run(cluster.client, fetch, cluster.fes[0].ext, 5) == 5
    drain(cluster)


@pytest.mark.vms
def test_malformed_packets_for_back_ends_have_no_effect_but_counters(cluster):
    """The same at a back-end's own hook: packets for a front-end's address that end up there."""

    def at_back_end(host, station, count, seed):
        chance = random.Random(seed)
        link = Link(f"10.10.0.{chance.randrange(225, 250)}")
        station = bytes.fromhex(station.replace(":", ""))
        peer = Peer(link, host)
        for turn in range(count):
            segment = bytearray(peer.tcp(chance.randrange(512), chance.randbytes(chance.randrange(200))))
            for _ in range(chance.randrange(4)):
                segment[chance.randrange(len(segment))] = chance.randrange(256)
            if chance.random() < 0.2:
                segment = segment[: chance.randrange(len(segment))]
            ip = {"total": chance.randrange(2000)} if chance.random() < 0.1 else {}
            link.send(host, bytes(segment), mac=station, **ip)
        return count

    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    back_end = [machine for machine in cluster.bes if machine is not cluster.fes[0]][0]
    station = back_end.sh("cat /sys/class/net/ext0/address").stdout.strip()
    with counted(cluster, be_unknown_tuple=1000):
        run(cluster.client, at_back_end, cluster.fes[0].ext, station, 3000, seed)
    assert run(cluster.client, fetch, cluster.fes[0].ext, 5) == 5
