# SPDX-License-Identifier: GPL-2.0
"""The module's netlink family, as far as a program that owns a node needs it.

`cluster_startup` is what attaches nodes and passes sockets to them; a test that does it itself gets
at the kernel's end of control connections without a membership protocol before each.
Documentation/netlink/specs/lard.yaml has the numbers.
"""

import os
import socket
import struct

NETLINK_GENERIC = 16
CONTROLLER, GET_FAMILY, FAMILY_ID, FAMILY_NAME = 16, 3, 1, 2
ERROR, REQUEST, ACKNOWLEDGE = 2, 1, 4

ATTACH, DETACH, PEER_ADD = 1, 2, 3
NODE_ID, CLUSTER_ID, NAME, ROLES, FE_PORT, BE_PORT, INTERNAL_ADDR = 1, 2, 3, 4, 5, 6, 8
FD = 17


def attributes(values):
    data = b""
    for kind, value in values:
        data += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return data


def u16(value):
    return struct.pack("=H", value)


def u32(value):
    return struct.pack("=I", value)


class Owner:
    """A netlink socket; the node that it attaches lasts for as long as it."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self.socket.bind((0, 0))
        self.number = 0
        answer = self.ask(CONTROLLER, GET_FAMILY, [(FAMILY_NAME, b"lard\0")], REQUEST)
        self.family = self.family_id(answer)

    @staticmethod
    def family_id(data):
        while data:
            length, kind = struct.unpack_from("=HH", data)
            if kind == FAMILY_ID:
                return struct.unpack_from("=H", data, 4)[0]
            data = data[(length + 3) & ~3 :]
        raise LookupError("no family id in the answer")

    def ask(self, family, command, values, flags=REQUEST | ACKNOWLEDGE):
        """Sends a request; returns the attributes of the answer, raises what the kernel refuses."""
        self.number += 1
        body = struct.pack("=BBH", command, 1, 0) + attributes(values)
        header = struct.pack("=IHHII", 16 + len(body), family, flags, self.number, 0)
        self.socket.send(header + body)
        answer = self.socket.recv(65536)
        length, kind = struct.unpack_from("=IH", answer)
        if kind == ERROR:
            code = -struct.unpack_from("=i", answer, 16)[0]
            if code:
                raise OSError(code, os.strerror(code))
        return answer[20:length]

    def attach(self, node, cluster, name, roles, address):
        values = [(NODE_ID, u16(node)), (CLUSTER_ID, struct.pack("=Q", cluster))]
        values += [(NAME, name.encode() + b"\0"), (ROLES, u32(roles)), (FE_PORT, u16(8080))]
        values += [(BE_PORT, u16(7080)), (INTERNAL_ADDR, address)]
        self.ask(self.family, ATTACH, values)

    def add_peer(self, stream, node, roles):
        """Gives the kernel a connected socket; the caller's is closed."""
        values = [(FD, u32(stream.fileno())), (NODE_ID, u16(node)), (ROLES, u32(roles))]
        self.ask(self.family, PEER_ADD, values)
        stream.close()

    def detach(self):
        self.ask(self.family, DETACH, [])
