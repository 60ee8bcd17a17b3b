# SPDX-License-Identifier: GPL-2.0
"""A node that is none: joins a cluster as `cluster_startup` does and then says what a test wants.

The membership protocol is JSON lines (tools/cluster_startup/src/membership); after the reply the
socket carries the kernel's frames (rust/lard_core/src/wire), which this module builds by hand, so
that they can be wrong.
"""

import hashlib
import hmac
import json
import os
import socket
import struct
import time

CONTROL_PORT = 7021
HELLO, PING, PONG, BYE = 1, 2, 3, 4
ASSIGN, ASSIGNED, LOAD, NODE_UP, NODE_DOWN, DRAIN, SERVICE, IDLE, WAIT, ADMITTED = range(16, 26)
HANDOFF, ADOPTED, REFUSED, CLOSED, RELEASE, RELEASED, BUSY, PROBE, GONE = range(32, 41)
TYPES = (HELLO, PING, PONG, BYE, *range(16, 26), *range(32, 41))

DISPATCHER, FRONT_END, BACK_END = 1, 2, 4


def mapped(address):
    """An IPv4 address in 16 octets."""
    return bytes(10) + b"\xff\xff" + socket.inet_aton(address)


def frame(kind, body, version=1, flags=0, length=None):
    return struct.pack("!BBHI", version, kind, flags, len(body) if length is None else length) + body


class Member:
    """A connection to one member's control port."""

    def __init__(self, host, name="intruder", roles=FRONT_END | BACK_END, secret=b"", timeout=10):
        self.host, self.name, self.roles = host, name, roles
        self.secret, self.timeout = secret, timeout
        self.socket = None
        self.id = None
        self.cluster = None

    def connect(self):
        self.socket = socket.create_connection((self.host, CONTROL_PORT), timeout=self.timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def line(self):
        data = b""
        while not data.endswith(b"\n"):
            octet = self.socket.recv(1)
            if not octet:
                raise ConnectionError(f"closed after {data!r}")
            data += octet
        return json.loads(data)

    def say(self, **values):
        self.socket.sendall(json.dumps(values).encode() + b"\n")

    def prove(self):
        ours = os.urandom(32)
        self.say(lard=2, nonce=ours.hex())
        theirs = bytes.fromhex(self.line()["nonce"])
        text = b"lard membership 2\0caller\0" + ours + theirs
        for host, port in (self.socket.getsockname(), self.socket.getpeername()):
            text += socket.inet_aton(host) + struct.pack("!H", port)
        self.say(proof=hmac.new(self.secret, text, hashlib.sha256).hexdigest())
        answer = self.line()
        if "proof" not in answer:
            raise ConnectionError(f"not accepted: {answer}")

    def roles_map(self):
        names = {"dispatcher": DISPATCHER, "front_end": FRONT_END, "back_end": BACK_END}
        return {name: bool(self.roles & bit) for name, bit in names.items()}

    def join(self, was=None):
        """Becomes a member; the socket is then the control connection to the dispatcher."""
        self.connect()
        self.prove()
        request = {"request": "join", "name": self.name, "roles": self.roles_map()}
        request["port"] = CONTROL_PORT
        if was:
            request["was"] = {"cluster_id": was[0], "id": was[1]}
        self.say(**request)
        answer = self.line()
        if answer.get("reply") != "welcome":
            raise ConnectionError(f"not welcome: {answer}")
        self.cluster, self.id = answer["cluster_id"], answer["id"]
        return answer

    def link(self, other, to):
        """Links to another member, as the member that `other` has become."""
        self.cluster, self.id = other.cluster, other.id
        self.connect()
        self.prove()
        self.say(
            request="link",
            cluster_id=self.cluster,
            id=self.id,
            name=self.name,
            roles=self.roles_map(),
            port=CONTROL_PORT,
            to=to,
        )
        answer = self.line()
        if answer.get("reply") != "linked":
            raise ConnectionError(f"not linked: {answer}")

    def send(self, kind, body=b"", **fields):
        self.socket.sendall(frame(kind, body, **fields))

    def receive(self):
        """The next frame: (type, body)."""
        header = self._exactly(8)
        _, kind, _, length = struct.unpack("!BBHI", header)
        return kind, self._exactly(length)

    def tell_clock(self):
        """Has the peer know our clock, without which a hand-off counts as too late; returns it, in
        microseconds."""
        clock = time.monotonic_ns() // 1000
        self.send(PING, struct.pack("!Q", clock))
        kind = None
        while kind != PING:
            kind, body = self.receive()
        self.send(PONG, body + struct.pack("!Q", clock))
        return clock

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("closed by the peer")
            data += part
        return data

    def ended(self, limit=15):
        """True once the peer has closed; frames that come before are thrown away."""
        self.socket.settimeout(limit)
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True

    def hello(self, address, version=1, cluster=None, node=None, name=None, tags="", tail=b""):
        name, tags = (name or self.name).encode(), tags.encode()
        body = struct.pack("!HHQ", version, node or self.id, cluster or self.cluster)
        body += struct.pack("!BBBB", self.roles, 0, 0, len(name)) + mapped(address)
        body += struct.pack("!HHBB", 8080, 7080, len(tags), 0)
        return body + name + tags + tail

    def close(self):
        self.socket.close()


def front_end(dispatcher, back_end, back_end_id, own):
    """A member that has a front-end, and its connection with a back-end, both past their HELLO."""
    joined = Member(dispatcher, roles=FRONT_END)
    joined.join()
    joined.send(HELLO, joined.hello(own))
    peer = Member(back_end, roles=FRONT_END)
    peer.link(joined, back_end_id)
    peer.send(HELLO, peer.hello(own))
    return joined, peer


def assign(conn, key, tags=0, home=0, batch=1, forwards=False):
    """Body of an ASSIGN."""
    return struct.pack("!QQQHHI", conn, key, 0, home | forwards << 15, batch, tags)


def idle(conn, node, is_idle=True):
    """Body of an IDLE."""
    return struct.pack("!QHBB", conn, node, is_idle, 0)


def closed(conn, node, how=1):
    """Body of a CLOSED."""
    return struct.pack("!QQQHBB", conn, 0, 0, node, how, 0)


def probe(conn, client, vip):
    """Body of a PROBE; `client` and `vip` are (address, port)."""
    ends = (mapped(address) + struct.pack("!H", port) for address, port in (client, vip))
    return struct.pack("!Q", conn) + b"".join(ends)


def gone(conn, time_wait=False):
    """Body of a GONE."""
    return struct.pack("!QB3x", conn, time_wait)


def service(key, tags, lines):
    """Body of a SERVICE; the three are texts."""
    texts = [text.encode() for text in (key, tags, lines)]
    return struct.pack("!HHHH", *map(len, texts), 0) + b"".join(texts)


def handoff(conn, client, vip, data, irs=1000, iss=2000, expires=1 << 62, mss=1460, flags=0):
    """Body of a HANDOFF; `client` and `vip` are (address, port)."""
    body = struct.pack("!Q", conn) + mapped(client[0]) + struct.pack("!H", client[1])
    body += mapped(vip[0]) + struct.pack("!H", vip[1]) + struct.pack("!IIII", irs, iss, 0, 0)
    body += struct.pack("!QHH", expires, mss, 65535) + struct.pack("!BBBB", 0, 0, flags, 0)
    return body + data
