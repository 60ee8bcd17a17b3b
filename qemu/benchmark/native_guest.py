#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What `native.py` has done in the namespaces of one guest. Each command prints one line of JSON.

    flood       acknowledgements of one connection, from the memory that a ring shares with the kernel
    handshake   a connection of a client that is made of packets, which stays; waits for `--until PATH`
    dispatch    questions to the dispatcher, so many in one write
    hand-off    connections to a back-end, so many in one write
    serve       a server that answers with the time at which it has read a request, under lard_run or not
    ask         one request to it
    latency     how long a request takes to such servers: handed over, and by a router; and a round trip
    further     requests on one connection, that belong to one node and another in turn
"""

import argparse
import json
import mmap
import os
import select
import socket
import statistics
import struct
import time

import client
import member
import rawtcp

SOL_PACKET, PACKET_TX_RING, PACKET_QDISC_BYPASS = 263, 13, 20
FRAMES, FRAME, DATA_AT = 1024, 256, 32
SEND_REQUEST = 1
ETH_P_ALL, SO_TIMESTAMPNS = 3, 35
PORT = 8080
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
# Exchanges before those that count.
WARM_UP = 20


def told(**values):
    print(json.dumps(values), flush=True)


def tcp(host, source, sport, dport, flags, seq, ack):
    header = struct.pack("!HHIIHHHH", sport, dport, seq, ack, 5 << 12 | flags, 65535, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(host) + struct.pack("!HH", 6, len(header))
    return header[:16] + struct.pack("!H", rawtcp.checksum(pseudo + header)) + header[18:]


def flood(options):
    """Nanoseconds a packet, of each round of the ring."""
    link = rawtcp.Link(options.source)
    mac = link.resolve(options.host)
    segment = tcp(options.host, options.source, options.sport, PORT, rawtcp.ACK, options.seq, options.ack)
    frame = mac + link.mac + struct.pack("!H", rawtcp.IPV4) + link.ip(options.host, segment)
    ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    ring.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    ring.setsockopt(SOL_PACKET, PACKET_TX_RING, struct.pack("IIII", 4096, FRAMES * FRAME // 4096, FRAME, FRAMES))
    ring.bind(("ext0", 0))
    memory = mmap.mmap(ring.fileno(), FRAMES * FRAME)
    one = struct.pack("LIIHHII", SEND_REQUEST, len(frame), 0, 0, 0, 0, 0)
    one = (one.ljust(DATA_AT, b"\0") + frame).ljust(FRAME, b"\0")
    costs = []
    for _ in range(options.rounds):
        memory[:] = one * FRAMES
        begin = time.perf_counter_ns()
        ring.send(b"")
        costs.append((time.perf_counter_ns() - begin) / FRAMES)
    told(median=round(statistics.median(costs)), least=round(min(costs)), most=round(max(costs)))


def handshake(options):
    link = rawtcp.Link(options.source)
    peer = rawtcp.Peer(link, options.host, PORT, sport=options.sport, stamps=False)
    peer.handshake()
    if options.request:
        peer.send(b"GET /who HTTP/1.1\r\nHost: native\r\n\r\n")
        peer.receive_all(length=10)
    told(seq=peer.seq, ack=peer.ack)
    while not os.path.exists(options.until):
        link.receive(0.1)


def joined(options, roles):
    """A member that looks like a front-end."""
    one = member.Member(options.host, name="native", roles=roles)
    one.join()
    one.send(member.HELLO, one.hello(options.source))
    one.send(member.PING, struct.pack("!Q", time.monotonic_ns() // 1000))
    return one


def answered(peer, frames, wanted, count):
    """Sends the frames in one write; nanoseconds for each of the answers, read as they come."""
    begin = time.perf_counter_ns()
    peer.socket.sendall(frames)
    data, got = b"", 0
    # Others may come as well.
    while got < count or data:
        more = peer.socket.recv(1 << 16)
        if not more:
            raise ConnectionError("closed by the peer")
        data += more
        while len(data) >= 8:
            _, kind, _, length = struct.unpack_from("!BBHI", data)
            if len(data) < 8 + length:
                break
            if kind == member.REFUSED:
                raise ConnectionError(f"refused: {data[8:8 + length]!r}")
            got += kind == wanted
            data = data[8 + length :]
    return (time.perf_counter_ns() - begin) / count


def pinged(peer, count):
    """The same for PINGs, which cost nothing but to be received and answered."""
    ping = member.frame(member.PING, struct.pack("!Q", time.monotonic_ns() // 1000))
    return answered(peer, ping * count, member.PONG, count)


def tell_costs(costs, pings):
    told(median=round(statistics.median(costs)), ping=round(statistics.median(pings)))


def dispatch(options):
    one = joined(options, member.FRONT_END)
    conn, costs, pings = one.id << 52, [], []
    for _ in range(options.rounds):
        questions = b""
        for _ in range(options.batch):
            conn += 1
            key = conn * 0x9E3779B97F4A7C15 & (1 << 64) - 1
            questions += member.frame(member.ASSIGN, member.assign(conn, key))
        pings.append(pinged(one, options.batch))
        costs.append(answered(one, questions, member.ASSIGNED, options.batch))
    tell_costs(costs, pings)


def hand_off(options):
    """At a back-end whose server does not accept: the cost is that of the module and TCP alone."""
    first = joined(options, member.FRONT_END)
    peer = member.Member(options.back_end, name="native", roles=member.FRONT_END)
    peer.link(first, options.back_end_id)
    hello = bytearray(peer.hello(options.source, tail=b""))
    name = peer.name.encode()
    hello[14] = 1
    vip = (options.source, PORT)
    body = bytes(hello[: -len(name)]) + member.mapped(vip[0]) + struct.pack("!H", vip[1]) + name
    peer.send(member.HELLO, body)
    clock = peer.tell_clock()
    conn, costs, pings = first.id << 52, [], []
    text = b"GET /who HTTP/1.0\r\n\r\n"
    for round_ in range(options.rounds):
        frames = b""
        for number in range(options.batch):
            conn += 1
            client = (f"10.10.{1 + round_}.{1 + number // 200}", 20000 + number)
            body = member.handoff(conn, client, vip, text, expires=clock + 3_600_000_000)
            frames += member.frame(member.HANDOFF, body)
        pings.append(pinged(peer, options.batch))
        costs.append(answered(peer, frames, member.ADOPTED, options.batch))
    tell_costs(costs, pings)


def serve(options):
    """Answers each connection with the time at which its request had been read. On the regular stack the
    connection is accepted when the request is there, as it is where connections are handed over."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.defer:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
    listener.bind(("0.0.0.0", options.port))
    listener.listen(128)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"%d" % time.time_ns())


def in_namespace(name, make, *words):
    """What is made there: a socket keeps the namespace that it was made in."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        os.setns(there, os.CLONE_NEWNET)
        return make(*words)
    finally:
        os.setns(own, os.CLONE_NEWNET)
        os.close(there)
        os.close(own)


class Tap:
    """Sees an interface's packets, with the time at which each of them was there. Nobody waits for it, so
    that it has nobody woken in what is measured."""

    def __init__(self, interface):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.bind((interface, 0))
        self.socket.setblocking(False)

    def packets(self):
        """All since the last call: (nanoseconds, did it leave, the IPv4 packet)."""
        found = []
        while True:
            try:
                frame, more, _, address = self.socket.recvmsg(1 << 16, 64)
            except BlockingIOError:
                return found
            if address[1] == rawtcp.IPV4:
                [(_, _, stamp)] = more
                seconds, ns = struct.unpack("qq", stamp)
                left = address[2] == rawtcp.PACKET_OUTGOING
                found.append((seconds * 10**9 + ns, left, frame[14:]))

    def request(self):
        """When the request came, which is in one packet."""
        [came] = [at for at, left, packet in self.packets() if not left and REQUEST in packet]
        return came


def exchange(host, port):
    """A connection with one request, sent once the handshake has been dealt with everywhere; when the
    server had read it."""
    with socket.create_connection((host, port), 10) as connection:
        select.select([], [], [], 0.005)
        connection.sendall(REQUEST)
        return int(connection.recv(100))


def ask(options):
    told(read=exchange(options.host, options.port))


def latency(options):
    """Microseconds, from the begin to the end of the way: of a request from the front-end's interface
    until the back-end's server has read it, handed over or routed; of the latter, from the back-end's
    interface; and of a packet from the front-end to the back-end and back."""
    # What somebody else has to do goes first, as on processors of their own.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    outer, inner = (in_namespace("node1", Tap, name) for name in ("ext0", "int0"))
    back_end = in_namespace("node2", Tap, "int0")
    pinger = in_namespace("node1", socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    times = {name: [] for name in ("handed", "routed", "back_end", "trip")}
    for number in range(options.rounds + WARM_UP):
        read = in_namespace("client", exchange, options.host, PORT)
        handed = read - outer.request()
        for tap in (inner, back_end):
            tap.packets()
        read = in_namespace("client", exchange, options.back_end, options.port)
        routed, at_back_end = read - outer.request(), read - back_end.request()
        inner.packets()
        echo = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, number)
        echo = echo[:2] + struct.pack("!H", rawtcp.checksum(echo)) + echo[4:]
        pinger.sendto(echo, (options.back_end, 0))
        pinger.recv(100)
        (out, _, _), (back, _, _) = (p for p in inner.packets() if p[2][9] == rawtcp.ICMP)
        for tap in (outer, back_end):
            tap.packets()
        if number >= WARM_UP:
            for name, value in zip(times, (handed, routed, at_back_end, back - out)):
                times[name].append(value / 1000)
    told(**{name: round(statistics.median(values), 1) for name, values in times.items()})


def further(options):
    """Microseconds from a request that is not the first of its connection until it is answered."""
    owners = {}
    for number in range(100):
        target = f"/size/1?{number}"
        owners.setdefault(client.get(options.host, target).node, target)
    targets, times = sorted(owners.values()), []
    with client.Connection(options.host) as connection:
        connection.request(targets[-1])
        for number in range(options.rounds):
            begin = time.monotonic_ns()
            answer = connection.request(targets[number % len(targets)])
            times.append((time.monotonic_ns() - begin) / 1000)
            assert answer.status == 200, answer.status
    told(median=round(statistics.median(times), 1), nodes=len(targets))


def main():
    parser = argparse.ArgumentParser()
    commands = ("flood", "handshake", "dispatch", "hand-off", "serve", "ask", "latency", "further")
    parser.add_argument("what", choices=commands)
    parser.add_argument("--host")
    parser.add_argument("--source")
    parser.add_argument("--sport", type=int, default=20000)
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--seq", type=int, default=1)
    parser.add_argument("--ack", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--back-end")
    parser.add_argument("--back-end-id", type=int)
    parser.add_argument("--request", action="store_true")
    parser.add_argument("--defer", action="store_true", help="accept with the request")
    parser.add_argument("--until")
    options = parser.parse_args()
    globals()[options.what.replace("-", "_")](options)


main()
