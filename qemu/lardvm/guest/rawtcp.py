# SPDX-License-Identifier: GPL-2.0
"""A TCP client that builds each segment itself.

It has an Ethernet address and an IPv4 address of its own, which the machine it runs on does not
know; it answers ARP for them. So the machine's kernel neither sees its connections nor resets
them, and nothing but the test decides what is sent: order, overlap, options, checksums, silence.

    link = Link("10.10.0.200")
    peer = Peer(link, "10.10.0.2", 8080)
    peer.handshake()
    peer.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
    answer = peer.receive_all()
"""

import random
import socket
import struct
import time

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
AE = 0x100

ARP, IPV4 = 0x0806, 0x0800
TCP, ICMP = 6, 1
BROADCAST = b"\xff" * 6
PACKET_OUTGOING = 4


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def names(flags):
    text = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE")
    return "+".join(name for bit, name in enumerate(text) if flags >> bit & 1) or "none"


def difference(left, right):
    """left - right in sequence space."""
    return (left - right + (1 << 31)) % (1 << 32) - (1 << 31)


class Segment:
    """A received TCP segment."""

    def __init__(self, packet):
        header = (packet[0] & 15) * 4
        self.total = struct.unpack_from("!H", packet, 2)[0] or len(packet)
        self.tos = packet[1]
        self.ttl = packet[8]
        self.dont_fragment = bool(packet[6] & 0x40)
        self.source = socket.inet_ntoa(packet[12:16])
        tcp = packet[header : self.total]
        self.sport, self.dport, self.seq, self.ack, offset, self.window, self.sum, self.urgent = (
            struct.unpack_from("!HHIIHHHH", tcp)
        )
        self.flags = offset & 0x1FF
        self.options = self._options(tcp[20 : (offset >> 12) * 4])
        self.data = tcp[(offset >> 12) * 4 :]
        pseudo = packet[12:20] + struct.pack("!HH", TCP, len(tcp))
        self.sum_right = checksum(pseudo + tcp) == 0

    @staticmethod
    def _options(data):
        options = {}
        while data:
            kind = data[0]
            if kind == 0:
                break
            if kind == 1:
                data = data[1:]
                continue
            length = data[1] if len(data) > 1 else 0
            if length < 2:
                break
            options[kind] = data[2:length]
            data = data[length:]
        return options

    @property
    def timestamp(self):
        """(TSval, TSecr), or None."""
        return struct.unpack("!II", self.options[8]) if 8 in self.options else None

    @property
    def length(self):
        """What the segment takes in sequence space."""
        return len(self.data) + bool(self.flags & SYN) + bool(self.flags & FIN)

    def __repr__(self):
        return (
            f"<{names(self.flags)} seq={self.seq} ack={self.ack} win={self.window} "
            f"len={len(self.data)} options={sorted(self.options)}>"
        )


class Link:
    """One address on an Ethernet interface, outside of the machine's own stack."""

    def __init__(self, address, interface="ext0"):
        self.address = address
        self.packed = socket.inet_aton(address)
        self.mac = b"\x02\x4c" + self.packed
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        self.socket.bind((interface, 0))
        self.known = {}
        self.waiting = []
        self.identification = random.randrange(1 << 16)

    def _frame(self, timeout):
        """The next IPv4 packet for this address, or None; ARP is answered on the way."""
        end = time.monotonic() + timeout
        while True:
            self.socket.settimeout(max(0.0001, end - time.monotonic()))
            try:
                frame, address = self.socket.recvfrom(1 << 17)
            except (TimeoutError, BlockingIOError):
                return None
            if address[2] == PACKET_OUTGOING:
                frame = b""
            kind = struct.unpack_from("!H", frame, 12)[0] if len(frame) >= 34 else 0
            if kind == ARP:
                self._arp(frame[14:])
            elif kind == IPV4 and frame[30:34] == self.packed:
                return frame[14:]
            if time.monotonic() >= end:
                return None

    def _arp(self, packet):
        operation = struct.unpack_from("!H", packet, 6)[0]
        mac, sender, target = packet[8:14], packet[14:18], packet[24:28]
        if target != self.packed:
            return
        self.known[sender] = mac
        if operation == 1:
            self._send_arp(2, mac, sender)

    def _send_arp(self, operation, mac, target):
        packet = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
        packet += self.mac + self.packed + (mac if operation == 2 else bytes(6)) + target
        self.socket.send(mac + self.mac + struct.pack("!H", ARP) + packet.ljust(46, b"\0"))

    def resolve(self, address):
        target = socket.inet_aton(address)
        for _ in range(20):
            if target in self.known:
                return self.known[target]
            self._send_arp(1, BROADCAST, target)
            end = time.monotonic() + 0.5
            while target not in self.known and time.monotonic() < end:
                packet = self._frame(0.05)
                if packet:
                    self.waiting.append(packet)
        raise TimeoutError(f"nobody answers ARP for {address}")

    def receive(self, timeout):
        """The next IPv4 packet for this address, or None."""
        if self.waiting:
            return self.waiting.pop(0)
        return self._frame(timeout)

    def send(self, destination, payload, protocol=TCP, mac=None, **ip):
        mac = mac or self.resolve(destination)
        packet = self.ip(destination, payload, protocol, **ip)
        self.socket.send(mac + self.mac + struct.pack("!H", IPV4) + packet)

    def ip(
        self,
        destination,
        payload,
        protocol=TCP,
        source=None,
        ttl=64,
        tos=0,
        dont_fragment=True,
        fragment=(0, False),
        identification=None,
        options=b"",
        total=None,
        version_length=None,
        break_checksum=False,
    ):
        self.identification = (self.identification + 1) & 0xFFFF
        offset, more = fragment
        bits = offset // 8 | (0x2000 if more else 0) | (0x4000 if dont_fragment else 0)
        if version_length is None:
            version_length = 0x45 + len(options) // 4
        header = struct.pack(
            "!BBHHHBBH4s4s",
            version_length,
            tos,
            20 + len(options) + len(payload) if total is None else total,
            self.identification if identification is None else identification,
            bits,
            ttl,
            protocol,
            0,
            socket.inet_aton(source) if source else self.packed,
            socket.inet_aton(destination),
        )
        header += options
        value = checksum(header) ^ (0x5555 if break_checksum else 0)
        return header[:10] + struct.pack("!H", value) + header[12:] + payload


class Peer:
    """One connection. `seq` and `ack` are what the next segment will carry."""

    def __init__(
        self, link, host, port=8080, sport=None, iss=None, mss=1460, scale=7, sack=True, stamps=True
    ):
        self.link, self.host, self.port = link, host, port
        self.sport = sport or random.randrange(20000, 60000)
        self.iss = random.randrange(1 << 32) if iss is None else iss
        self.seq, self.ack = self.iss, 0
        self.mss, self.scale, self.sack, self.stamps = mss, scale, sack, stamps
        self.window = 65535
        self.stamp_base = random.randrange(1 << 30)
        self.echo = 0
        self.syn_ack = None
        self.seen = []

    # Sending

    def stamp(self):
        return (self.stamp_base + int(time.monotonic() * 1000)) & 0xFFFFFFFF

    def syn_options(self):
        options = struct.pack("!BBH", 2, 4, self.mss) if self.mss else b""
        if self.sack:
            options += b"\x04\x02"
        if self.stamps:
            options += struct.pack("!BBII", 8, 10, self.stamp(), 0)
        if self.scale is not None:
            options += struct.pack("!BBB", 3, 3, self.scale)
        return options + b"\x01" * (-len(options) % 4)

    def tcp(
        self,
        flags,
        data=b"",
        seq=None,
        ack=None,
        window=None,
        options=None,
        urgent=0,
        stamp=None,
        break_checksum=False,
        offset=None,
        sport=None,
        source=None,
    ):
        """The octets of a segment."""
        if options is None:
            if flags & SYN:
                options = self.syn_options()
            elif self.stamps:
                value = self.stamp() if stamp is None else stamp
                options = b"\1\1" + struct.pack("!BBII", 8, 10, value, self.echo)
            else:
                options = b""
        if offset is None:
            offset = 5 + len(options) // 4
        header = struct.pack(
            "!HHIIHHHH",
            sport or self.sport,
            self.port,
            (self.seq if seq is None else seq) % (1 << 32),
            ((self.ack if flags & ACK else 0) if ack is None else ack) % (1 << 32),
            offset << 12 | flags,
            self.window if window is None else window,
            0,
            urgent,
        )
        segment = header + options + data
        pseudo = socket.inet_aton(source) if source else self.link.packed
        pseudo += socket.inet_aton(self.host) + struct.pack("!HH", TCP, len(segment))
        value = checksum(pseudo + segment) ^ (0x1234 if break_checksum else 0)
        return segment[:16] + struct.pack("!H", value) + segment[18:]

    def segment(self, flags, data=b"", ip=None, **fields):
        """Sends a segment as it is told to and leaves `seq` alone."""
        self.link.send(self.host, self.tcp(flags, data, **fields), **(ip or {}))

    def send(self, data=b"", flags=ACK | PSH, **fields):
        """Sends a segment in order and moves `seq` on."""
        self.segment(flags, data, **fields)
        self.seq = (self.seq + len(data) + bool(flags & (SYN | FIN))) % (1 << 32)

    # Receiving

    def receive(self, timeout=5.0):
        """The next segment of this connection, or None."""
        end = time.monotonic() + timeout
        while True:
            packet = self.link.receive(max(0.0, end - time.monotonic()))
            if packet is None:
                return None
            if packet[9] != TCP or len(packet) < 40:
                continue
            segment = Segment(packet)
            if (segment.sport, segment.dport) != (self.port, self.sport):
                continue
            if segment.source != self.host:
                continue
            self.seen.append(segment)
            if segment.timestamp and not segment.flags & RST:
                self.echo = segment.timestamp[0]
            return segment

    def expect(self, what, condition, timeout=10.0):
        """The next segment that fulfils the condition; others are passed over."""
        end = time.monotonic() + timeout
        passed = []
        while (left := end - time.monotonic()) > 0:
            segment = self.receive(left)
            if segment is None:
                break
            if condition(segment):
                return segment
            passed.append(segment)
        raise AssertionError(f"no {what} within {timeout} s; got {passed}")

    def quiet(self, what, condition, seconds=1.0):
        """Nothing that fulfils the condition comes within the time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            segment = self.receive(left)
            if segment is not None and condition(segment):
                raise AssertionError(f"{what}: {segment}")

    def expect_ack(self, number, timeout=10.0):
        return self.expect(
            f"ACK of {number}",
            lambda s: s.flags & ACK and not s.flags & (SYN | RST) and s.ack == number % (1 << 32),
            timeout,
        )

    def expect_reset(self, timeout=10.0):
        return self.expect("RST", lambda s: s.flags & RST, timeout)

    def open(self, timeout=20.0, **fields):
        """SYN and its answer. The SYN is sent again when nothing comes, as any client would."""
        end = time.monotonic() + timeout
        while True:
            self.segment(SYN, seq=self.iss, **fields)
            try:
                # A SYN without ACK is the other side calling this port, not an answer.
                answer = self.expect("SYN+ACK", lambda s: s.flags & ACK and s.flags & SYN or s.flags & RST, 3.0)
                break
            except AssertionError:
                if time.monotonic() > end:
                    raise
        if answer.flags & RST:
            raise AssertionError("the SYN was answered with RST")
        assert answer.flags & 0x1FF == SYN | ACK, answer
        assert answer.ack == (self.iss + 1) % (1 << 32), answer
        self.syn_ack = answer
        self.seq = (self.iss + 1) % (1 << 32)
        self.ack = (answer.seq + 1) % (1 << 32)
        if 8 not in answer.options:
            self.stamps = False
        return answer

    def handshake(self, **fields):
        answer = self.open(**fields)
        self.segment(ACK)
        return answer

    def receive_all(self, limit=60.0, length=None, acknowledge=True, quiet_limit=None):
        """Takes data in order, acknowledging, until FIN or `length` octets; returns it."""
        end = time.monotonic() + limit
        held, data, last = {}, b"", None
        while last is None or difference(last, self.ack) > 0:
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no end after {limit} s, {len(data)} octets: {self.seen[-5:]}")
            segment = self.receive(min(left, quiet_limit or left))
            if segment is None:
                if quiet_limit:
                    return data
                continue
            if segment.flags & RST:
                raise ConnectionResetError(f"reset after {len(data)} octets: {segment}")
            if segment.flags & SYN or not segment.length:
                continue
            if segment.flags & FIN:
                last = (segment.seq + segment.length) % (1 << 32)
            held[segment.seq] = segment
            progress = True
            while progress:
                progress = False
                for seq, part in list(held.items()):
                    skip = difference(self.ack, seq)
                    if skip < 0:
                        continue
                    del held[seq]
                    if skip < part.length:
                        data += part.data[skip:]
                        self.ack = (seq + part.length) % (1 << 32)
                        progress = True
            if acknowledge:
                self.segment(ACK)
            if length is not None and len(data) >= length:
                break
        return data

    def request(self, text, **fields):
        """One request that ends the connection; returns the answer, head and body."""
        self.send(text, **fields)
        return self.receive_all()

    def close(self):
        """FIN, the peer's FIN, the last ACK."""
        self.send(flags=ACK | FIN)
        self.expect_ack(self.seq)
        if not any(s.flags & FIN for s in self.seen):
            self.receive_all(limit=15)
        self.segment(ACK)

    def reset(self):
        self.segment(RST, seq=self.seq, options=b"")
