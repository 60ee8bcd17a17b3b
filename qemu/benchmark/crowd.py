#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A crowd of clients, and the back-end that takes their connections, both made of packets only.

    crowd.py --front-end 10.10.0.1 --own 10.10.0.100 --commands /run/crowd

The back-end is a member of the cluster that says ADOPTED to each HANDOFF and has no socket for it, so
that a front-end can have very many connections without a machine that serves them. With `--blind` the
front-end is one that passes on the first packet, too, as IPVS does, and the back-end nothing at all.
Commands come as lines to a Unix socket, each answered by a line of JSON:

    open N      until there are N connections in all
    packets N   N acknowledgements on connections of the crowd, picked at random, each of which the
                front-end must pass on
"""

import argparse
import json
import os
import random
import select
import socket
import struct
import sys
import time

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lardvm", "guest")
)
import member  # noqa: E402
import rawtcp  # noqa: E402

REQUEST = b"GET /crowd HTTP/1.1\r\nHost: crowd\r\n\r\n"
# Connections that are opened together, and packets that are on their way at once.
TOGETHER = 64
# The clients' network and ports: so many ports an address.
NETWORK, PORTS = 0x0A400000, 1000
# Seconds: between two PINGs; after which what got no answer is sent again, and given up.
PING, AGAIN, LIMIT = 0.5, 2.0, 120.0
ETHERNET, IP, TCP = 14, 20, 20


class BackEnd:
    """A member that adopts everything."""

    def __init__(self, front_end, own):
        self.peer = member.Member(front_end, name="crowd", roles=member.BACK_END)
        self.peer.join()
        self.peer.send(member.HELLO, self.peer.hello(own))
        self.data = b""
        self.next_ping = 0.0
        self.tick()
        # Nobody chooses it before its clock is known.
        while self.peer.receive()[0] != member.PONG:
            pass

    def fileno(self):
        return self.peer.socket.fileno()

    def tick(self):
        """The front-end must hear something now and then."""
        if time.monotonic() >= self.next_ping:
            self.next_ping = time.monotonic() + PING
            self.peer.send(member.PING, struct.pack("!Q", time.monotonic_ns() // 1000))

    def receive(self):
        """The clients, (address, port), whose connections have just been adopted."""
        self.data += self.peer.socket.recv(1 << 20)
        adopted, answers, at = [], b"", 0
        while len(self.data) - at >= 8:
            _, kind, _, length = struct.unpack_from("!BBHI", self.data, at)
            if len(self.data) - at < 8 + length:
                break
            body = self.data[at + 8 : at + 8 + length]
            at += 8 + length
            if kind == member.HANDOFF:
                answers += member.frame(member.ADOPTED, body[:8])
                adopted.append((body[20:24], struct.unpack_from("!H", body, 24)[0]))
            elif kind == member.BYE:
                raise ConnectionError("the front-end says good-bye")
        self.data = self.data[at:]
        if answers:
            self.peer.socket.sendall(answers)
        return adopted


class Crowd:
    """Clients of a cluster."""

    def __init__(self, front_end, port, own):
        self.link = rawtcp.Link(own)
        self.to = socket.inet_aton(front_end)
        self.port = port
        # The kernel's own address, so that it answers who asks for it; the frames come to it anyway.
        with open("/sys/class/net/ext0/address") as file:
            self.link.mac = bytes.fromhex(file.read().strip().replace(":", ""))
        mac = self.link.resolve(front_end)
        # From here on each call says itself whether it waits.
        self.link.socket.setblocking(True)
        self.head = mac + self.link.mac + struct.pack("!H", rawtcp.IPV4)
        self.back_end = self.join(front_end, own)
        self.open_ones = []

    def join(self, front_end, own):
        return BackEnd(front_end, own)

    @staticmethod
    def client(number):
        """The address and port of a client."""
        return struct.pack("!I", NETWORK + 256 + number // PORTS), 20000 + number % PORTS

    def send(self, client, flags, seq, ack=0, data=b"", options=b""):
        address, port = client
        tcp = struct.pack("!HHIIHHHH", port, self.port, seq, ack,
                          (5 + len(options) // 4) << 12 | flags, 65535, 0, 0) + options + data
        pseudo = address + self.to + struct.pack("!HH", rawtcp.TCP, len(tcp))
        tcp = tcp[:16] + struct.pack("!H", rawtcp.checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, IP + len(tcp), 0, 0x4000, 64, rawtcp.TCP, 0,
                         address, self.to)
        ip = ip[:10] + struct.pack("!H", rawtcp.checksum(ip)) + ip[12:]
        self.link.socket.send(self.head + ip + tcp)

    def poll(self, seconds):
        """The TCP packets that have come, and the clients that were adopted."""
        self.back_end.tick()
        ready, _, _ = select.select([self.link.socket, self.back_end], [], [], seconds)
        adopted = self.back_end.receive() if self.back_end in ready else []
        return self.come() if self.link.socket in ready else [], adopted

    def come(self):
        """The TCP packets that are there."""
        packets = []
        while True:
            try:
                frame, address = self.link.socket.recvfrom(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return packets
            ours = address[2] != rawtcp.PACKET_OUTGOING and len(frame) >= ETHERNET + IP + TCP
            if ours and frame[12:14] == b"\x08\x00" and frame[ETHERNET + 9] == rawtcp.TCP:
                packets.append(frame[ETHERNET:])

    def open(self, count):
        """Connections up to `count` in all."""
        begin = time.monotonic()
        while len(self.open_ones) < count:
            first = len(self.open_ones)
            numbers = range(first, min(count, first + TOGETHER))
            self.open_ones += self.handshakes([self.client(number) for number in numbers])
        return {"open": len(self.open_ones), "seconds": round(time.monotonic() - begin, 1)}

    def handshakes(self, clients):
        """Each of them connects and sends its request; returns (client, acknowledged) of all."""
        iss = random.randrange(1 << 31)
        waiting, acks = set(clients), {}
        end, again = time.monotonic() + LIMIT, 0.0
        mss = struct.pack("!BBH", 2, 4, 1460)
        while waiting:
            if time.monotonic() >= end:
                raise TimeoutError(f"{len(waiting)} of {len(clients)} connections are not adopted")
            if time.monotonic() >= again:
                again = time.monotonic() + AGAIN
                for client in waiting:
                    if client in acks:
                        self.send(client, rawtcp.ACK | rawtcp.PSH, iss + 1, acks[client], REQUEST)
                    else:
                        self.send(client, rawtcp.SYN, iss, options=mss)
            packets, adopted = self.poll(0.05)
            waiting.difference_update(adopted)
            for packet in packets:
                if packet[12:16] != self.to:
                    continue
                port, seq = struct.unpack_from("!HI", packet, IP + 2)
                flags = packet[IP + 13]
                client = (packet[16:20], port)
                if flags == rawtcp.SYN | rawtcp.ACK and client in waiting and client not in acks:
                    acks[client] = (seq + 1) & 0xFFFFFFFF
                    self.send(client, rawtcp.ACK | rawtcp.PSH, iss + 1, acks[client], REQUEST)
        return [(client, iss + 1 + len(REQUEST), acks[client]) for client in clients]

    def packets(self, count):
        """Sends and sees passed on; counts what was lost."""
        begin = time.monotonic()
        sent = passed = lost = 0
        quiet = time.monotonic() + AGAIN
        while passed + lost < count:
            while sent < count and sent - passed - lost < TOGETHER:
                client, seq, ack = random.choice(self.open_ones)
                self.send(client, rawtcp.ACK, seq, ack)
                sent += 1
            packets, _ = self.poll(0.05)
            got = sum(packet[16:20] == self.to for packet in packets)
            if got:
                passed += got
                quiet = time.monotonic() + AGAIN
            elif time.monotonic() >= quiet:
                lost, quiet = sent - passed, time.monotonic() + AGAIN
        seconds = round(time.monotonic() - begin, 1)
        return {"sent": sent, "passed": passed, "seconds": seconds}

    def idle(self):
        """Keeps the control connection up; what comes by the way is not wanted."""
        self.poll(0)


class BlindCrowd(Crowd):
    """Clients whose handshake comes back as it was sent, by a front-end that sees one way of it only: SYN
    and ACK are an established connection to it."""

    def join(self, front_end, own):
        return None

    def poll(self, seconds):
        ready, _, _ = select.select([self.link.socket], [], [], seconds)
        return self.come() if ready else [], []

    def handshakes(self, clients):
        iss = random.randrange(1 << 31)
        self.back_and_forth(clients, rawtcp.SYN, iss)
        self.back_and_forth(clients, rawtcp.ACK, iss + 1, 1)
        return [(client, iss + 1, 1) for client in clients]

    def back_and_forth(self, clients, flags, seq, ack=0):
        """Sends a packet of each until all have been passed on."""
        waiting, end, again = set(clients), time.monotonic() + LIMIT, 0.0
        while waiting:
            if time.monotonic() >= end:
                raise TimeoutError(f"of {len(clients)} packets {len(waiting)} are not passed on")
            if time.monotonic() >= again:
                again = time.monotonic() + AGAIN
                for client in waiting:
                    self.send(client, flags, seq, ack)
            for packet in self.poll(0.05)[0]:
                if packet[16:20] == self.to and packet[IP + 13] == flags:
                    [port] = struct.unpack_from("!H", packet, IP)
                    waiting.discard((packet[12:16], port))


def serve(crowd, path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        while not select.select([listener], [], [], 0.1)[0]:
            crowd.idle()
        commands, _ = listener.accept()
    text = b""
    with commands:
        while True:
            if not select.select([commands], [], [], 0.1)[0]:
                crowd.idle()
                continue
            more = commands.recv(4096)
            if not more:
                return
            text += more
            while b"\n" in text:
                line, text = text.split(b"\n", 1)
                name, number = line.split()
                answer = {b"open": crowd.open, b"packets": crowd.packets}[name](int(number))
                commands.sendall(json.dumps(answer).encode() + b"\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--front-end", required=True)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--own", required=True, help="this end's address")
    parser.add_argument("--commands", required=True, help="path of a Unix socket")
    parser.add_argument("--blind", action="store_true", help="the front-end passes on all it gets")
    options = parser.parse_args()
    kind = BlindCrowd if options.blind else Crowd
    serve(kind(options.front_end, options.port, options.own), options.commands)


if __name__ == "__main__":
    main()
