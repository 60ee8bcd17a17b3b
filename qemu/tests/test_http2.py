# SPDX-License-Identifier: GPL-2.0
"""HTTP/2 with prior knowledge: a connection goes to the node that its first request belongs to, as if
it had been asked for in HTTP/1.1, and stays there."""

import re

import pytest
from support import FOUR, counted, run, set_everywhere, set_mode, wait_idle

HTTP2 = dict(FOUR, servers="nginx --http2")
UNREAD = ("fe_http2_no_request", "fe_http2_frames", "fe_http2_cut", "fe_http2_fields")
# Routed by their first requests, and no later one is looked at.
ALL_READ = {f"exact_{name}": 0 for name in (*UNREAD, "fe_next", "fe_move_begun")}

pytestmark = pytest.mark.layout(**HTTP2)


@pytest.fixture(autouse=True)
def left(cluster):
    """Nothing is left behind a test."""
    wait_idle(cluster)
    # However busy the machine is; what a moment means is tested by itself.
    set_everywhere(cluster, http2_wait_ms=20_000)
    yield
    cluster.wait_empty()


@pytest.fixture(params=("pin", "move", "auto"))
def mode(request, cluster):
    if request.param == "auto":
        set_mode(cluster, mechanism="move", mode="auto")
    elif request.param == "move":
        set_mode(cluster, mode="move")
    wait_idle(cluster)
    return request.param


def owners(host, targets):
    """Which node serves each target in HTTP/1.1. Clients name the port, which is a part of the target."""
    nodes = {}
    for target in targets:
        with client.Connection(host) as connection:
            answer = connection.request(target, host=f"{host}:{client.PORT}", close=True)
            nodes[target] = answer.node
    return nodes


def targets_of(name, size=1460, count=12):
    return [f"/size/{size}?{name}-{n}" for n in range(count)]


def fetch(host, targets):
    """With curl, on one connection: version, status, node and number of new connections of each."""
    import tempfile

    words = ["curl", "-sS", "--fail", "--http2-prior-knowledge", "-w"]
    words += ["%{http_version} %{response_code} %header{x-node} %{num_connects}\\n"]
    with tempfile.TemporaryDirectory() as directory:
        for number, target in enumerate(targets):
            words += ["-o", f"{directory}/{number}", f"http://{host}:8080{target}"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done
        for number, target in enumerate(targets):
            size = int(target.partition("?")[0].rpartition("/")[2])
            with open(f"{directory}/{number}", "rb") as file:
                assert hashlib.sha256(file.read()).hexdigest() == content.sha256(size), target
    return [line.split() for line in done.stdout.splitlines()]


def placed(cluster, targets):
    nodes = run(cluster.client, owners, cluster.fes[0].ext, targets)
    assert len(set(nodes.values())) > 1, nodes
    return nodes


@pytest.mark.vms
def test_curl_is_served_by_the_node_that_serves_the_same_in_http_1(cluster, mode):
    targets = [t for size in (0, 100, 100_000) for t in targets_of(f"one-{mode}", size, 4)]
    nodes = placed(cluster, targets)
    with counted(cluster, exact_fe_pinned_http2=len(targets), **ALL_READ):
        for target in targets:
            lines = run(cluster.client, fetch, cluster.fes[0].ext, [target])
            assert lines == [["2", "200", nodes[target], "1"]], target


# Not across machines, where the client is this machine's: the curl of Debian 12 ends a connection of this kind
# after the first answer.
def test_a_connection_stays_with_the_node_of_its_first_request(cluster, mode):
    targets = targets_of(f"many-{mode}") * 2
    nodes = placed(cluster, targets)
    with counted(cluster, exact_fe_pinned_http2=1, **ALL_READ):
        lines = run(cluster.client, fetch, cluster.fes[0].ext, targets)
    new = ["1"] + ["0"] * (len(targets) - 1)
    assert lines == [["2", "200", nodes[targets[0]], n] for n in new]


def test_h2load(cluster, mode):
    urls = " ".join(f"'http://{cluster.fes[0].ext}:8080{t}'" for t in targets_of("load"))
    with counted(cluster, exact_fe_pinned_http2=8, **ALL_READ):
        done = cluster.client.sh(f"h2load -t 1 -n 800 -c 8 -m 8 {urls}", timeout=170).stdout
    assert "Application protocol: h2c" in done, done
    whole = "800 total, 800 started, 800 done, 800 succeeded, 0 failed, 0 errored, 0 timeout"
    assert whole in done and "800 2xx, 0 3xx, 0 4xx, 0 5xx" in done, done
    assert re.search(rf"\({800 * 1460}\) data", done), done


def test_an_upload_that_begins_with_the_request(cluster):
    def upload(host, size):
        with open("/tmp/upload", "wb") as file:
            file.write(content.stream()[:size])
        words = ["curl", "-sS", "--fail", "--http2-prior-knowledge", "--data-binary", "@/tmp/upload"]
        words += [f"http://{host}:8080/take"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.stdout == "taken\n", done

    with counted(cluster, exact_fe_pinned_http2=4, **ALL_READ):
        for size in (1, 10_000, 70_000, 1_000_000):
            run(cluster.client, upload, cluster.fes[0].ext, size)


@pytest.mark.vms
def test_the_first_request_may_come_in_any_pieces(cluster):
    def pieces(host):
        nodes = [client.get(host, f"/who?pieces-{n}").node for n in range(12)]
        assert len(set(nodes)) > 1, nodes
        for number, node in enumerate(nodes):
            block = http2.block(f"/who?pieces-{number}", fields=[("x-long", "a" * 3000)])
            frames = [block] if number % 2 else [block[:2], block[2:9], b"", block[9:]]
            stream = http2.opening()
            for at, part in enumerate(frames):
                kind = http2.CONTINUATION if at else http2.HEADERS
                flags = 0 if at else http2.END_STREAM
                flags |= http2.END_HEADERS if part is frames[-1] else 0
                stream += http2.frame(kind, part, flags, 1)
            size = (1, 7, 500, 3000)[number % 4]
            with http2.Connection(host) as connection:
                end = 0
                while end < len(stream):
                    # A few octets a packet at first, where it matters.
                    start, end = end, end + (size if end < 120 else 1400)
                    if end < len(stream):
                        connection.send_acknowledged(stream[start:end])
                    else:
                        connection.send(stream[start:])
                assert connection.body() == f"{node}\n".encode(), (number, node)

    with counted(cluster, exact_fe_pinned_http2=12, **ALL_READ):
        run(cluster.client, pieces, cluster.fes[0].ext)


def test_a_client_that_waits_for_the_servers_settings_is_routed_by_itself(cluster):
    """It gets them a moment later, and is served by whichever node that is, but not by the same one
    each time."""

    def wait(host):
        served = set()
        for number in range(12):
            with http2.Connection(host) as connection:
                connection.send(http2.opening())
                _, flags, _, _ = connection.until(http2.SETTINGS)
                assert flags == 0
                connection.send(http2.frame(http2.SETTINGS, flags=http2.ACK))
                for stream in (1, 3):
                    connection.send(http2.request("/who", stream))
                    served.add(connection.body(stream))
        return len(served)

    set_everywhere(cluster, http2_wait_ms=100)
    with counted(cluster, exact_fe_pinned_http2=12, exact_fe_http2_no_request=12):
        assert run(cluster.client, wait, cluster.fes[0].ext) > 1


def test_a_client_that_closes_before_it_asks_is_the_servers(cluster):
    def close(host):
        for part in (http2.opening(), http2.opening() + http2.request("/who")[:20]):
            for together in (True, False):
                with http2.Connection(host) as connection:
                    if together:
                        connection.send(part)
                    else:
                        connection.send_acknowledged(part)
                    connection.half_close()
                    # Whatever the server says to that.
                    while connection.socket.recv(65536):
                        pass

    unread = {"exact_fe_http2_no_request": 2, "exact_fe_http2_cut": 2}
    with counted(cluster, exact_fe_pinned_http2=4, exact_be_adopted=4, **unread):
        run(cluster.client, close, cluster.fes[0].ext)


def malformed(host, kind):
    """Streams that are HTTP/2 for sure, and no requests; what the server says is its own affair."""
    begun = http2.PREFACE + http2.frame(http2.SETTINGS)
    flood = http2.frame(http2.CONTINUATION, b"", 0, 1)
    known = http2.block("/who")
    streams = {
        "frames": [
            http2.PREFACE + http2.frame(http2.DATA, b"data", 0, 1),
            http2.PREFACE + b"GET /who HTTP/1.1\r\nHost: h\r\n\r\n",
            begun + b"\xff\xff\xff\x01\x04\0\0\0\x01" + bytes(1000),
            begun + b"\x00\x40\x01\x04\0\0\0\0\0" + bytes(20_000),
            begun + http2.frame(http2.RST_STREAM, bytes(4), 0, 1),
            begun + http2.frame(http2.CONTINUATION, known, http2.END_HEADERS, 1),
            begun + http2.frame(http2.HEADERS, known, http2.END_HEADERS, 0),
            begun + http2.frame(http2.HEADERS, known[:3], 0, 1) + http2.frame(http2.PING, bytes(8)),
        ],
        "fields": [
            begun + http2.frame(http2.HEADERS, bad, http2.END_HEADERS | http2.END_STREAM, 1)
            for bad in (
                b"",
                b"\xff\xff\xff\xff\xff\xff",
                b"\x82\x86\x84",
                b"\x82\x86\x84\x41\x7f\xff\xff\xff\xff",
                b"\x82\x86\x84\x41\x84\xff\xff\xff\xff",
                b"\x82\x86\x84\x84\x41\x01a",
                b"\xbe\x82\x86\x84\x41\x01a",
                known[:-2],
                random.randbytes(8).replace(b"\x82", b"\0") + b"\xff" * 8,
            )
        ],
        # Longer than any head may be.
        "cut": [
            begun + http2.frame(http2.HEADERS, b"\x82", 0, 1) + flood * 3000,
            begun + http2.frame(http2.HEADERS, known[:9], 0, 1) + flood * 3000,
        ],
        "no_request": [
            begun + http2.frame(http2.PING, bytes(8)) * 2000,
            http2.PREFACE + http2.frame(http2.SETTINGS, bytes(6)) * 2000,
            begun + http2.frame(0xBE, bytes(16_000)) * 2,
        ],
    }[kind]
    for stream in streams:
        with http2.Connection(host) as connection:
            try:
                connection.send(stream)
                connection.half_close()
                while connection.socket.recv(65536):
                    pass
            except (ConnectionResetError, BrokenPipeError):
                pass
    return len(streams)


@pytest.mark.parametrize("kind", ["frames", "fields", "cut", "no_request"])
def test_malformed_beginnings_are_the_servers_and_counted(cluster, kind):
    numbers = {"frames": 8, "fields": 9, "cut": 2, "no_request": 3}
    others = {f"exact_{name}": 0 for name in UNREAD if name != f"fe_http2_{kind}"}
    count = numbers[kind]
    exact = {"exact_fe_pinned_http2": count, f"exact_fe_http2_{kind}": count, **others}
    with counted(cluster, exact_be_adopted=count, **exact):
        assert run(cluster.client, malformed, cluster.fes[0].ext, kind) == count
    target = targets_of("after", 100, 1)
    assert run(cluster.client, fetch, cluster.fes[0].ext, target)[0][:2] == ["2", "200"]


def test_a_request_longer_than_a_head_may_be_is_read_all_the_same(cluster):
    """What says where it goes comes first."""

    def long(host):
        for number in range(8):
            target = f"/who?long-{number}"
            node = client.get(host, target).node
            block = http2.block(target, fields=[("x-long", "a" * 3000) for _ in range(6)])
            parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
            stream = http2.opening() + http2.frame(http2.HEADERS, parts[0], http2.END_STREAM, 1)
            stream += http2.frame(http2.CONTINUATION, parts[1], http2.END_HEADERS, 1)
            with http2.Connection(host) as connection:
                connection.send(stream)
                assert connection.body() == f"{node}\n".encode(), number

    with counted(cluster, exact_fe_pinned_http2=8, **ALL_READ):
        run(cluster.client, long, cluster.fes[0].ext)


def refused(host, sent, times):
    """What the front-end says instead of a server, and that it then closes."""
    said = []
    for _ in range(times):
        with http2.Connection(host) as connection:
            connection.send(http2.opening() + (http2.request("/who") if sent else b""))
            _, flags, _, payload = connection.frame()
            assert (flags, payload) == (0, b"")
            said.append(connection.goaway())
            assert connection.at_end()
    return said


@pytest.mark.parametrize("settings", [{"mode": "forward"}, {"mode": "auto", "mechanism": "forward"}])
def test_where_everything_is_read_it_has_to_be_http_1(cluster, settings):
    """Nobody could see that a later request names the directory of a node."""
    set_mode(cluster, **settings)
    host = cluster.fes[0].ext
    with counted(cluster, http_unread=4, exact_fe_pinned_http2=0, exact_be_adopted=0):
        for sent in (True, False):
            assert run(cluster.client, refused, host, sent, 2) == [[0, 13]] * 2


def test_without_a_back_end_it_is_said_in_frames(cluster):
    dispatcher = cluster.node(cluster.layout.d)
    try:
        dispatcher.sh("for n in 1 2 3 4; do cluster_startup drain node$n; done")
        with counted(cluster, exact_fe_no_back_end=3, exact_be_adopted=0):
            assert run(cluster.client, refused, cluster.fes[0].ext, True, 3) == [[0, 0]] * 3
    finally:
        dispatcher.sh("for n in 1 2 3 4; do cluster_startup drain node$n --undo; done")


def test_content_rules_know_method_host_and_path(cluster):
    """And no fields: what rules demand of them does not hold, and a target made of them is the client."""
    dispatcher = cluster.node(cluster.layout.d)

    def put(text):
        dispatcher.write("/run/lard-test-service", text)
        dispatcher.sh("cluster_startup service --file /run/lard-test-service")

        def told():
            said = [
                cluster.node(n).sh("cluster_startup service --json").stdout
                for n in cluster.layout.members()
            ]
            return len(set(said)) == 1

        cluster.wait(told, what="all nodes have the service")

    def ask(host, targets):
        nodes = set()
        for target in targets:
            with http2.Connection(host) as connection:
                block = http2.block(target, fields=[("x-tag", "yes")])
                flags = http2.END_HEADERS | http2.END_STREAM
                connection.send(http2.opening() + http2.frame(http2.HEADERS, block, flags, 1))
                nodes.add(connection.body().decode().strip())
        return sorted(nodes)

    host = cluster.fes[0].ext
    few = [f"/who?two-{n}" for n in range(12)]
    try:
        put(
            "header x-tag tag one\n"
            "prefix /who method GET host cluster tag two\n"
            "tag three\n"
            "node node2 tag one\nnode node3 tag two\nnode node4 tag three\n"
        )
        assert run(cluster.client, ask, host, few) == ["node3"]
        with counted(cluster, exact_fe_http2_no_request=1):
            set_everywhere(cluster, http2_wait_ms=0)
            assert run(cluster.client, waits, host) == "node4"
        put("key cookie:session\n")
        assert len(run(cluster.client, ask, host, few[:1] * 12)) > 1
    finally:
        put("key host+path+query\n")


def waits(host):
    """Who serves a client that asks for nothing yet."""
    with http2.Connection(host) as connection:
        connection.send(http2.opening())
        connection.until(http2.SETTINGS)
        connection.send(http2.request("/who"))
        return connection.body().decode().strip()
