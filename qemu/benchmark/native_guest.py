#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What `native.py` has done in the namespaces of one guest. Each command prints one line of JSON.

    flood       acknowledgements of one connection, from the memory that a ring shares with the kernel
    handshake   a connection of a client that is made of packets, which stays; waits for `--until PATH`
    dispatch    questions to the dispatcher, so many in one write
    hand-off    connections to a back-end, so many in one write
    latency     connect, wait, send the request; the server says when it could read it
    serve       that server, under lard_run or not
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
PORT = 8080


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


def dispatch(options):
    one = joined(options, member.FRONT_END)
    conn, costs = one.id << 52, []
    for _ in range(options.rounds):
        questions = b""
        for _ in range(options.batch):
            conn += 1
            body = struct.pack("!QQQBBH", conn, conn * 0x9E3779B97F4A7C15 & (1 << 64) - 1, 0, 0, 0, 1)
            questions += member.frame(member.ASSIGN, body)
        # HEADER and body of ASSIGNED.
        wanted, got = options.batch, 0
        begin = time.perf_counter_ns()
        one.socket.sendall(questions)
        while got < wanted:
            kind, _ = one.receive()
            got += kind == member.ASSIGNED
        costs.append((time.perf_counter_ns() - begin) / options.batch)
    told(median=round(statistics.median(costs)), least=round(min(costs)), most=round(max(costs)))


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
    conn, costs = first.id << 52, []
    text = b"GET /who HTTP/1.0\r\n\r\n"
    for round_ in range(options.rounds):
        frames = b""
        for number in range(options.batch):
            conn += 1
            client = (f"10.10.{1 + round_}.{1 + number // 200}", 20000 + number)
            body = member.handoff(conn, client, vip, text, expires=clock + 3_600_000_000)
            frames += member.frame(member.HANDOFF, body)
        got = 0
        begin = time.perf_counter_ns()
        peer.socket.sendall(frames)
        while got < options.batch:
            kind, body = peer.receive()
            if kind == member.REFUSED:
                raise ConnectionError(f"refused: {body!r}")
            got += kind == member.ADOPTED
        costs.append((time.perf_counter_ns() - begin) / options.batch)
    told(median=round(statistics.median(costs)), least=round(min(costs)), most=round(max(costs)))


def serve(options):
    """Answers each connection with the time at which its request could be read."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", options.port))
    listener.listen(128)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"%d" % time.monotonic_ns())


def latency(options):
    """Microseconds from the send of the request until the server has read it."""
    times = []
    for _ in range(options.rounds):
        with socket.create_connection((options.host, options.port), 10) as connection:
            # Until the handshake has been dealt with everywhere.
            select.select([], [], [], 0.005)
            begin = time.monotonic_ns()
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            times.append((int(connection.recv(100)) - begin) / 1000)
    times.sort()
    told(median=round(statistics.median(times), 1), p99=round(times[len(times) * 99 // 100], 1))


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
    commands = ("flood", "handshake", "dispatch", "hand-off", "latency", "serve", "further")
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
    parser.add_argument("--until")
    options = parser.parse_args()
    globals()[options.what.replace("-", "_")](options)


main()
