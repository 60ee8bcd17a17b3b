# SPDX-License-Identifier: GPL-2.0
"""The family's sockets behave as TCP's do."""

import pytest
from support import run

FAMILY = 21


@pytest.mark.vms
def test_the_socket_calls_of_a_server_work(cluster):
    def server_calls(family):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
        # The address is IPv4's: Python cannot make it for a family it does not know.
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 7555) + bytes(12)
        assert libc.bind(listener.fileno(), address, 16) == 0, os.strerror(ctypes.get_errno())
        listener.listen(5)
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        poll = select.epoll()
        poll.register(listener.fileno(), select.EPOLLIN)
        assert poll.poll(0) == []
        caller = socket.create_connection(("127.0.0.1", 7555))
        assert poll.poll(5)[0][1] & select.EPOLLIN
        number, _ = listener._accept()
        accepted = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=number)
        assert accepted.getpeername() == caller.getsockname()
        assert accepted.getsockname()[1] == 7555
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        poll.register(accepted.fileno(), select.EPOLLIN)
        caller.sendall(b"question")
        assert any(fd == number for fd, _ in poll.poll(5))
        assert accepted.recv(100) == b"question"
        with open(content.prepare(), "rb") as file:
            sent = 0
            reader = []

            def read():
                while sum(map(len, reader)) < 1_000_000:
                    reader.append(caller.recv(1 << 20))

            thread = threading.Thread(target=read)
            thread.start()
            while sent < 1_000_000:
                sent += os.sendfile(number, file.fileno(), sent, 1_000_000 - sent)
            thread.join()
        assert b"".join(reader) == content.stream()[:1_000_000]
        # splice from the socket to a pipe
        read_end, write_end = os.pipe()
        caller.sendall(b"x" * 5000)
        moved = os.splice(number, write_end, 5000)
        assert 0 < moved <= 5000 and os.read(read_end, moved) == b"x" * moved
        accepted.shutdown(socket.SHUT_WR)
        assert caller.recv(1) == b""
        # The same port again: as on TCP.
        second = socket.socket(family, socket.SOCK_STREAM)
        assert libc.bind(second.fileno(), address, 16) == -1
        assert ctypes.get_errno() == 98
        for each in (second, accepted, caller, listener):
            each.close()

    run(cluster.node(2), server_calls, FAMILY)


def test_a_socket_of_the_family_connects_as_tcp_does(cluster):
    def connect(family):
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        caller = socket.socket(family, socket.SOCK_STREAM)
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port)
        address += socket.inet_aton("127.0.0.1") + bytes(8)
        assert libc.connect(caller.fileno(), address, 16) == 0, os.strerror(ctypes.get_errno())
        accepted, _ = listener.accept()
        caller.send(b"hello")
        assert accepted.recv(10) == b"hello"
        accepted.send(b"answer")
        assert caller.recv(10) == b"answer"
        caller.close()
        assert accepted.recv(10) == b""
        # Refused, and without blocking.
        listener.close()
        second = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        result = libc.connect(second.fileno(), address, 16)
        assert result == -1 and ctypes.get_errno() in (111, 115)
        poll = select.poll()
        poll.register(second.fileno(), select.POLLOUT)
        assert poll.poll(5000)
        third = socket.socket(family, socket.SOCK_STREAM, 1)
        third.close()

    run(cluster.node(2), connect, FAMILY)


def test_what_the_family_does_not_have_is_refused(cluster):
    def refused(family):
        import errno

        wrong = {}
        for kind, protocol in (
            (socket.SOCK_DGRAM, 0),
            (socket.SOCK_RAW, 0),
            (socket.SOCK_SEQPACKET, 0),
            (socket.SOCK_STREAM, 17),
            (socket.SOCK_STREAM, 262),
        ):
            try:
                socket.socket(family, kind, protocol).close()
                wrong[f"{kind} {protocol}"] = "made"
            except OSError as error:
                if error.errno not in (
                    errno.ESOCKTNOSUPPORT,
                    errno.EPROTONOSUPPORT,
                    errno.EPROTOTYPE,
                    errno.EINVAL,
                ):
                    wrong[f"{kind} {protocol}"] = error.errno
        return wrong

    assert run(cluster.node(2), refused, FAMILY) == {}


def test_nobody_gets_the_right_to_foreign_addresses_by_the_family(cluster):
    """IP_TRANSPARENT demands privileges; what listen() gives must not be had without them."""

    def foreign(family, user):
        import ctypes
        import errno

        libc = ctypes.CDLL(None, use_errno=True)

        def address(host, port):
            packed = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port)
            return packed + socket.inet_aton(host) + bytes(8)

        one = socket.socket(family, socket.SOCK_STREAM)
        # Not before listen(), whoever asks.
        assert libc.bind(one.fileno(), address("192.0.2.1", 7999), 16) == -1
        assert ctypes.get_errno() == errno.EADDRNOTAVAIL
        if user:
            os.setgid(user)
            os.setuid(user)
        two = socket.socket(family, socket.SOCK_STREAM)
        assert libc.bind(two.fileno(), address("0.0.0.0", 7998), 16) == 0
        result = libc.listen(two.fileno(), 5)
        if result == 0:
            bit = two.getsockopt(socket.SOL_IP, 19)
            assert bit == (0 if user else 1), bit
        else:
            assert user and ctypes.get_errno() in (errno.EPERM, errno.EACCES), ctypes.get_errno()

    run(cluster.node(2), foreign, FAMILY, 0)
    run(cluster.node(2), foreign, FAMILY, 65534)
