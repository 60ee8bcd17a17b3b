# SPDX-License-Identifier: GPL-2.0
"""kTLS: sockets of the family must not spoil those of anybody else."""

import pytest
from support import begin, run, unloaded


def serve(port, family):
    """A TLS server whose sockets do their records in the kernel."""
    import ctypes
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/run/lard-test/cert.pem", "/run/lard-test/key.pem")
    context.options |= ssl.OP_ENABLE_KTLS
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + bytes(12)
    assert ctypes.CDLL(None).bind(listener.fileno(), address, 16) == 0
    listener.listen(20)
    print("listening", flush=True)
    while True:
        number, _ = listener._accept()
        accepted = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=number)
        try:
            stream = context.wrap_socket(accepted, server_side=True)
            stream.recv(1000)
            stream.sendall(content.stream()[:100_000])
            stream.unwrap()
        except OSError:
            pass
        accepted.close()


def fetch(host, port, count):
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(count):
        with socket.create_connection((host, port), timeout=30) as plain:
            with context.wrap_socket(plain) as stream:
                stream.sendall(b"go")
                data = b""
                while len(data) < 100_000:
                    part = stream.recv(65536)
                    assert part, len(data)
                    data += part
        assert data == content.stream()[:100_000]
    return count


def in_kernel(machine):
    """How many sockets have ever sent TLS records from this namespace's kernel."""
    for line in machine.sh("cat /proc/net/tls_stat", check=False).stdout.splitlines():
        if line.startswith("TlsTxSw"):
            return int(line.split()[1])
    return 0


def kernel_tls_anew(lab, guest):
    """The kernel's TLS as if nobody had used it, where it is a module; it keeps what it learnt of the
    first socket of all."""
    if guest.sh("test -e /sys/module/tls/refcnt", check=False).code == 0:
        lab.wait(lambda: guest.sh("rmmod tls", check=False).code == 0, what="nobody uses kTLS")
    guest.sh("modprobe tls", check=False)
    assert "tls" in guest.sh("cat /proc/sys/net/ipv4/tcp_available_ulp").stdout.split()


OURS, THEIRS = (7443, 21), (8443, 2)


@pytest.mark.vms
@pytest.mark.parametrize("first", ["regular", "family"])
def test_ktls_works_on_both_stacks_in_either_order_and_after_unloading(lab, first):
    machine = lab.node(2)
    guest = lab.guests[1 if lab.mode == "vms" else 0]
    machine.sh(
        "mkdir -p /run/lard-test && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
        "-nodes -days 2 -subj /CN=test -keyout /run/lard-test/key.pem -out /run/lard-test/cert.pem"
    )
    kernel_tls_anew(lab, guest)
    fetched = in_kernel(machine)

    def start(server):
        running = begin(machine, serve, *server)
        lab.wait(lambda: "listening" in running.process.stdout(), what="the TLS server")
        return running.process

    def check(*servers):
        nonlocal fetched
        for port, _ in servers:
            assert run(lab.client, fetch, machine.ext, port, 3) == 3
            fetched += 3
        assert in_kernel(machine) >= fetched, "the kernel did not do the records"

    if first == "regular":
        # It is there before the module is.
        lab.unload()
        theirs = start(THEIRS)
        check(THEIRS)
        lab.load()
        ours = start(OURS)
    else:
        ours = start(OURS)
        check(OURS)
        theirs = start(THEIRS)
    check(THEIRS, OURS, THEIRS, OURS)
    ours.kill()
    lab.wait(lambda: unloaded(lab), timeout=60, what="unloading")
    check(THEIRS)
    lab.load()
    theirs.kill()
