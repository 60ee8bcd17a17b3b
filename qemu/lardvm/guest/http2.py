# SPDX-License-Identifier: GPL-2.0
"""As much of HTTP/2 as a test needs to decide which frame comes when, and in which segment."""

import struct

import client

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
NO_ERROR, HTTP_1_1_REQUIRED = 0, 13


def frame(kind, payload=b"", flags=0, stream=0):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def opening():
    """What a client may send without having heard of the server."""
    return PREFACE + frame(SETTINGS) + frame(WINDOW_UPDATE, struct.pack(">I", 1 << 20))


def string(text):
    length = len(text)
    if length < 127:
        return bytes([length]) + text
    length, spelt = length - 127, b"\x7f"
    while length >= 128:
        spelt, length = spelt + bytes([length % 128 | 128]), length // 128
    return spelt + bytes([length]) + text


def block(target, authority="cluster", fields=()):
    """The fields of a GET, none of them compressed but by the static table."""
    text = b"\x82\x86\x04" + string(target.encode()) + b"\x01" + string(authority.encode())
    for name, value in fields:
        text += b"\x00" + string(name.encode()) + string(value.encode())
    return text


def request(target, stream=1, **named):
    return frame(HEADERS, block(target, **named), END_HEADERS | END_STREAM, stream)


class Connection(client.Connection):
    """A client that answers nothing by itself."""

    def frame(self):
        """The next frame: its type, flags and stream, and what is in it."""
        head = self.take(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return kind, flags, stream, self.take(int.from_bytes(head[:3], "big"))

    def until(self, kind):
        """The first frame of this type."""
        while True:
            found = self.frame()
            if found[0] == kind:
                return found

    def body(self, stream=1):
        """What is in the DATA frames of a response, whose head nobody reads."""
        body = b""
        while True:
            kind, flags, of, payload = self.frame()
            if kind in (RST_STREAM, GOAWAY):
                raise client.Closed(f"frame of type {kind}: {payload!r}")
            if of == stream and kind == DATA:
                body += payload
            if of == stream and flags & END_STREAM:
                return body

    def goaway(self):
        """Why the server does not go on."""
        _, _, _, payload = self.until(GOAWAY)
        last, code = struct.unpack(">II", payload[:8])
        return [last, code]
