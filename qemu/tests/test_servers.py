# SPDX-License-Identifier: GPL-2.0
"""Servers of every kind, servers that are not there, and what a back-end refuses.

Of the reasons to refuse, `no-memory` is in test_memory.py, for the debug kernel.
"""

import contextlib

import pytest
from support import begin, counted, run, set_on, wait_idle


def ask(host, count):
    """Status and node of requests for different targets, each on a connection of its own."""
    mark = random.randrange(1 << 40)
    answers = [client.get(host, f"/who?{mark}-{number}") for number in range(count)]
    return [[answer.status, answer.node] for answer in answers]


def statuses(answers):
    return sorted({status for status, _ in answers})


def nodes(answers):
    return {node for _, node in answers if node}


@contextlib.contextmanager
def sysctl(machine, name, value):
    before = machine.sh(f"sysctl -n {name}").stdout.strip()
    machine.sh(f"sysctl -q -w {name}={value}")
    try:
        yield
    finally:
        machine.sh(f"sysctl -q -w {name}={before}")


@pytest.mark.vms
def test_without_a_listener_the_request_goes_to_another_node(cluster):
    # Whoever has how much to do: node3 has its turn.
    set_on(cluster, cluster.layout.d, policy="wrr")
    cluster.stop_server(3)
    with counted(cluster, be_no_listener=1, fe_handoff_retried=1, exact_be_adopted=30):
        answers = run(cluster.client, ask, cluster.fes[0].ext, 30)
    assert statuses(answers) == [200] and "node3" not in nodes(answers), answers
    cluster.start_server(3)


@pytest.mark.vms
def test_without_any_listener_the_client_gets_503_and_service_comes_back(cluster):
    for machine in cluster.bes:
        cluster.stop_server(int(machine.name[4:]))
    with counted(cluster, fe_503=5, exact_be_adopted=0):
        assert statuses(run(cluster.client, ask, cluster.fes[0].ext, 5)) == [503]
    for machine in cluster.bes:
        cluster.start_server(int(machine.name[4:]))

    def served():
        return statuses(run(cluster.client, ask, cluster.fes[0].ext, 5)) == [200]

    cluster.wait(served, what="service after the servers are back")


@pytest.mark.vms
@pytest.mark.layout(servers={2: "python", 3: "python --no-accept --backlog 1", 4: "python"})
def test_a_full_accept_queue_is_refused_and_tried_elsewhere(cluster):
    def fill(host, count):
        """Connections that reach node3 hang in its queue; all others must be answered."""
        pending = [client.Connection(host, timeout=20) for _ in range(count)]
        for number, connection in enumerate(pending):
            connection.send(client.head(f"/who?queue-{number}", close=True))
        answered = 0
        for connection in pending:
            try:
                connection.socket.settimeout(2)
                answered += connection.answer().status == 200
            except TimeoutError:
                pass
        return answered

    cluster.spoil()
    with counted(cluster, be_queue_full=1, fe_handoff_retried=1):
        # A backlog of 1 holds two.
        assert run(cluster.client, fill, cluster.fes[0].ext, 30) >= 28
    for machine in cluster.nodes:
        machine.sh("mkdir -p /run/lard-test; touch /run/lard-test/accept-node3")
    for machine in cluster.nodes:
        machine.sh("rm -f /run/lard-test/accept-node3", check=False)


@pytest.mark.layout(nodes=2, d=1, fe=(1,), be=(2,))
def test_a_single_back_end_that_refuses_makes_503(cluster):
    back_end = cluster.bes[0]
    with sysctl(back_end, "net.ipv4.tcp_syncookies", 0):
        with counted(cluster, be_syncookies_off=3, fe_503=3):
            assert statuses(run(cluster.client, ask, cluster.fes[0].ext, 3)) == [503]
    assert statuses(run(cluster.client, ask, cluster.fes[0].ext, 3)) == [200]


def test_a_node_without_syncookies_is_passed_over(cluster):
    wait_idle(cluster)
    with sysctl(cluster.node(4), "net.ipv4.tcp_syncookies", 0):
        with counted(cluster, be_syncookies_off=1):
            answers = run(cluster.client, ask, cluster.fes[0].ext, 30)
    assert statuses(answers) == [200] and "node4" not in nodes(answers), answers


def test_tcp_options_switched_off_on_a_back_end_lose_no_request(cluster):
    for name in ("tcp_timestamps", "tcp_sack", "tcp_window_scaling"):
        with sysctl(cluster.node(3), f"net.ipv4.{name}", 0):
            answers = run(cluster.client, ask, cluster.fes[0].ext, 12)
            assert statuses(answers) == [200], (name, answers)


@pytest.mark.vms
def test_options_switched_off_under_open_connections_are_refused(cluster):
    """The handshake has promised what the back-end does not honour any more; another node does."""

    def ask_late(host, count, gate):
        held = [client.Connection(host) for _ in range(count)]
        print("open", flush=True)
        while not os.path.exists(gate):
            time.sleep(0.05)
        return [c.request(f"/who?late-{n}", close=True).node for n, c in enumerate(held)]

    wait_idle(cluster)
    gate = "/run/lard-test-options"
    cluster.client.sh(f"rm -f {gate}")
    running = begin(cluster.client, ask_late, cluster.fes[0].ext, 12, gate)
    cluster.wait(lambda: "open" in running.process.stdout(), what="handshakes")
    with sysctl(cluster.node(4), "net.ipv4.tcp_sack", 0):
        with counted(cluster, be_options=1, fe_refused_options=1, exact_be_adopted=12):
            cluster.client.sh(f"touch {gate}")
            served = running.result()
    assert set(served) == {"node2", "node3"}, served


@pytest.mark.layout(
    servers="python --plain", options={number: "--any-listener" for number in (2, 3, 4)}
)
def test_ordinary_listeners_serve_when_the_administrator_says_so(cluster):
    with counted(cluster, exact_be_adopted=12):
        answers = run(cluster.client, ask, cluster.fes[0].ext, 12)
    assert statuses(answers) == [200] and len(nodes(answers)) > 1, answers


@pytest.mark.layout(servers="python --plain")
def test_ordinary_listeners_do_not_serve_unless_the_administrator_says_so(cluster):
    with counted(cluster, be_not_allowed=3, exact_be_adopted=0):
        assert statuses(run(cluster.client, ask, cluster.fes[0].ext, 3)) == [503]


@pytest.mark.layout(nodes=3, d=1, fe=(1, 2), be=(3,), options={3: "--allow 10.10.0.1:8080"})
def test_a_back_end_takes_no_connections_but_for_the_addresses_that_it_allows(cluster):
    allowed, other = cluster.fes
    with counted(cluster, exact_be_not_allowed=3, exact_fe_refused_not_allowed=3, exact_be_adopted=3):
        assert statuses(run(cluster.client, ask, allowed.ext, 3)) == [200]
        assert statuses(run(cluster.client, ask, other.ext, 3)) == [503]


@pytest.mark.layout(nodes=2, d=1, fe=(1,), be=(2,), servers=None, options={2: "--any-listener"})
def test_an_mptcp_listener_is_refused(cluster):
    def listen(port):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
        listener.bind(("0.0.0.0", port))
        listener.listen(16)
        print("listening", flush=True)
        time.sleep(600)

    running = begin(cluster.bes[0], listen, 7080)
    cluster.wait(lambda: "listening" in running.process.stdout(), what="MPTCP listener")
    with counted(cluster, be_mptcp_listener=3, fe_503=3):
        assert statuses(run(cluster.client, ask, cluster.fes[0].ext, 3)) == [503]
    running.process.kill()


# Listens on both stacks, leaves that to a program in its place, as an upgraded server does, and says what
# the ends of a connection are.
DUAL = """\
import json, os, socket, sys
if sys.argv[1:]:
    listener = socket.socket(fileno=int(sys.argv[1]))
else:
    listener = socket.create_server(("::", 7080), family=socket.AF_INET6, dualstack_ipv6=True)
    os.set_inheritable(listener.fileno(), True)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], str(listener.fileno())])
print("listening", flush=True)
while True:
    stream, peer = listener.accept()
    stream.recv(65536)
    body = json.dumps([peer[:2], stream.getpeername()[:2], stream.getsockname()[:2]])
    stream.send(f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}".encode())
    stream.close()
"""


@pytest.mark.layout(nodes=2, d=1, fe=(1,), be=(2,), servers=None)
def test_a_dual_listener_that_is_inherited_shows_what_it_is_handed_as_ipv6(cluster):
    def ask_for_ends(host):
        with client.Connection(host) as connection:
            own = connection.socket.getsockname()
            return own, connection.request("/", close=True).json()

    back_end, host = cluster.bes[0], cluster.fes[0].ext
    back_end.write("/tmp/dual.py", DUAL)
    running = back_end.spawn("exec lard_run python3 /tmp/dual.py")
    cluster.wait(lambda: "listening" in running.stdout(), what="the listener is inherited")
    with counted(cluster, exact_be_adopted=1):
        (address, port), (accepted, peer, own) = run(cluster.client, ask_for_ends, host)
    assert accepted == peer == [f"::ffff:{address}", port], (accepted, peer)
    assert own == [f"::ffff:{host}", 8080], own
    running.kill()


@pytest.mark.layout(nodes=2, d=1, fe=(1,), be=(2,))
def test_a_live_socket_with_the_same_ends_is_refused(cluster):
    def occupy(vip, address, port):
        """A socket of the back-end's regular stack that has the tuple the client will use."""
        taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((vip, 8080))
        taken.setblocking(False)
        taken.connect_ex((address, port))
        print("taken", flush=True)
        time.sleep(600)

    def request(host, address, port):
        peer = Peer(Link(address), host, sport=port)
        peer.handshake()
        return peer.request(b"GET /who HTTP/1.0\r\n\r\n").decode()

    host = cluster.fes[0].ext
    running = begin(cluster.bes[0], occupy, host, "10.10.0.240", 33333)
    cluster.wait(lambda: "taken" in running.process.stdout(), what="the tuple is taken")
    with counted(cluster, be_tuple_in_use=1, fe_503=1):
        answer = run(cluster.client, request, host, "10.10.0.240", 33333)
    assert answer.startswith("HTTP/1.1 503"), answer
    running.process.kill()


@pytest.mark.vms
@pytest.mark.layout(
    servers={i: f"python --bind 10.20.0.{i}" for i in (2, 3, 4)},
    options={i: f"--bind-addr 10.20.0.{i}" for i in (2, 3, 4)},
)
def test_servers_bound_to_one_address_serve(cluster):
    answers = run(cluster.client, ask, cluster.fes[0].ext, 12)
    assert statuses(answers) == [200] and len(nodes(answers)) > 1, answers


def test_a_restarted_server_serves_again(cluster):
    for _ in range(3):
        cluster.stop_server(3)
        cluster.start_server(3)

    def served():
        answers = run(cluster.client, ask, cluster.fes[0].ext, 20)
        return statuses(answers) == [200] and "node3" in nodes(answers)

    wait_idle(cluster)
    cluster.wait(served, what="node3 serving again")
