# SPDX-License-Identifier: GPL-2.0
"""Requests as clients send them: every split, size, version and way to end."""

import pytest
from support import counted, on_client, run, set_everywhere

HEAD_LIMIT = 16384


@pytest.mark.vms
def test_every_front_end_serves_content_of_every_size(cluster):
    def fetch(hosts, sizes):
        return {host: [client.check_size(host, size) for size in sizes] for host in hosts}

    with counted(cluster, exact_be_adopted=7 * len(cluster.fes)):
        served = run(
            cluster.client,
            fetch,
            [machine.ext for machine in cluster.fes],
            [0, 1, 100, 1460, 10_000, 100_000, 1_000_000],
        )
    names = {machine.name for machine in cluster.bes}
    for nodes in served.values():
        assert set(nodes) <= names


@pytest.mark.vms
def test_a_head_split_at_every_octet_arrives_whole(cluster):
    def split_everywhere(host):
        text = client.head("/head?split", close=True)
        want = {"length": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        for at in range(1, len(text)):
            with client.Connection(host) as connection:
                # The pause is over when the front-end has acknowledged the first part.
                connection.send_acknowledged(text[:at])
                connection.send(text[at:])
                answer = connection.answer()
                assert answer.json() == want, at
                assert connection.at_end()
        return len(text) - 1

    assert run(cluster.client, split_everywhere, cluster.fes[0].ext, timeout=170) > 40


@on_client
def test_a_head_sent_octet_by_octet_arrives_whole(host):
    text = client.head("/head?octets", close=True)
    with client.Connection(host) as connection:
        for octet in text:
            connection.send_acknowledged(bytes([octet]))
        answer = connection.answer()
    assert answer.json()["sha256"] == hashlib.sha256(text).hexdigest()


@pytest.mark.vms
def test_heads_of_every_length_up_to_the_limit_are_served(cluster):
    def lengths(host, limit):
        def served(text, status=200):
            with client.Connection(host) as connection:
                connection.send(text)
                answer = connection.answer()
            assert answer.status == status and answer.node, (len(text), answer.status)
            want = {"length": len(text), "sha256": hashlib.sha256(text).hexdigest()}
            assert status != 200 or answer.json() == want, len(text)

        # None is shorter; the server does not know the method, but answers.
        served(b"A / HTTP/1.0\r\n\r\n", status=404)
        served(b"GET / HTTP/1.0\r\n\r\n", status=404)
        for size in range(22, 300):
            target = "/head" + "?" * (size > 22) + "q" * (size - 23)
            text = f"GET {target} HTTP/1.0\r\n\r\n".encode()
            assert len(text) == size
            served(text)
        sizes = [535, 536, 537, 1447, 1448, 1449, 1460, 1461, 2896, 2897, 4096, 8192]
        for size in [*sizes, *range(300, limit, 163), limit - 1, limit]:
            served(client.head("/head", close=True, length=size))

    run(cluster.client, lengths, cluster.fes[0].ext, HEAD_LIMIT, timeout=170)


@pytest.mark.vms
def test_a_head_one_octet_over_the_limit_is_answered_with_431(cluster):
    def over(host, limit):
        # In one piece, and in pieces that are acknowledged one by one.
        for step in (limit + 1, 1000):
            text = client.head("/head", close=True, length=limit + 1)
            with client.Connection(host) as connection:
                for start in range(0, len(text), step):
                    connection.send(text[start : start + step])
                answer = connection.answer()
                assert answer.status == 431, answer.status
                assert connection.at_end()

    run(cluster.client, over, cluster.fes[0].ext, HEAD_LIMIT)
    assert client_still_served(cluster)


def client_still_served(cluster):
    def who(host):
        return client.get(host, "/who").status

    return run(cluster.client, who, cluster.fes[0].ext) == 200


@pytest.mark.vms
@on_client
def test_a_request_body_of_a_megabyte_arrives_whole(host):
    body = content.stream()[:1_000_000]
    want = {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    fields = [("Content-Length", str(len(body)))]
    # Head and body at once, and the body only after the head was acknowledged.
    with client.Connection(host) as connection:
        connection.send(client.head("/echo", method="POST", fields=fields, close=True) + body)
        assert connection.answer().json() == want
    with client.Connection(host) as connection:
        connection.send_acknowledged(client.head("/echo", method="POST", fields=fields, close=True))
        connection.send(body)
        assert connection.answer().json() == want


@on_client
def test_bodies_around_the_window_of_the_front_end_arrive_whole(host):
    for size in (1, 1459, 14600, 60000, 64240, 65535, 65536, 70000):
        body = content.stream()[:size]
        fields = [("Content-Length", str(size))]
        with client.Connection(host) as connection:
            connection.send(client.head("/echo", method="POST", fields=fields) + body)
            answer = connection.answer().json()
            assert answer == {"length": size, "sha256": hashlib.sha256(body).hexdigest()}, size


@on_client
def test_expect_100_continue_is_the_servers_business(host):
    fields = [("Content-Length", "5"), ("Expect", "100-continue")]
    with client.Connection(host) as connection:
        connection.send_acknowledged(client.head("/echo", method="POST", fields=fields))
        connection.more()
        assert connection.buffer.startswith(b"HTTP/1.1 100 ")
        connection.send(b"hello")
        assert connection.answer().json()["length"] == 5


@on_client
def test_a_chunked_body_arrives_whole(host):
    fields = [("Transfer-Encoding", "chunked")]
    with client.Connection(host) as connection:
        connection.send(client.head("/echo", method="POST", fields=fields))
        for size in (1, 10, 5000, 40000):
            connection.send(b"%x\r\n" % size + b"c" * size + b"\r\n")
        connection.send(b"0\r\n\r\n")
        answer = connection.answer().json()
    assert answer["sha256"] == hashlib.sha256(b"c" * 45011).hexdigest(), answer


@pytest.mark.vms
@on_client
def test_two_pipelined_requests_in_one_segment_are_both_answered(host):
    with client.Connection(host) as connection:
        connection.send(client.head("/head?one") + client.head("/who", close=True))
        first, second = connection.answer(), connection.answer()
        assert first.json()["length"] == len(client.head("/head?one"))
        assert second.body.decode().strip() == first.node == second.node
        assert connection.at_end()


@on_client
def test_fifty_pipelined_requests_are_answered_in_order(host):
    with client.Connection(host) as connection:
        for size in range(50):
            connection.send(client.head(f"/size/{size}"))
        for size in range(50):
            assert connection.answer().length == size


@pytest.mark.vms
@on_client
def test_http_1_0_and_1_1_end_connections_in_their_own_way(host):
    with client.Connection(host) as connection:
        connection.send(b"GET /who HTTP/1.0\r\n\r\n")
        assert connection.answer().status == 200
        assert connection.at_end()
    with client.Connection(host) as connection:
        for number in range(1, 4):
            answer = connection.request("/who", version="1.0", fields=[("Connection", "keep-alive")])
            assert answer.fields["x-request"] == str(number)
    with client.Connection(host) as connection:
        for number in range(1, 4):
            assert connection.request("/who").fields["x-request"] == str(number)
        assert connection.request("/who", close=True).fields["x-request"] == "4"
        assert connection.at_end()


@on_client
def test_a_persistent_connection_stays_on_the_node_of_its_first_request(host):
    with client.Connection(host) as connection:
        nodes = {connection.request(f"/head?{number}").node for number in range(30)}
    assert len(nodes) == 1, nodes


@on_client
def test_head_and_options_requests_pass(host):
    with client.Connection(host) as connection:
        answer = connection.request("/size/10000", method="HEAD")
        assert answer.status == 200 and answer.fields["content-length"] == "10000"
        assert connection.request("/who").status == 200


@pytest.mark.vms
@on_client
def test_a_client_that_half_closes_gets_its_whole_answer(host):
    with client.Connection(host) as connection:
        connection.send(client.head("/size/1000000"))
        connection.half_close()
        answer = connection.answer(keep_body=False)
        assert answer.sha256 == content.sha256(1000000)
    with client.Connection(host) as connection:
        connection.send(client.head("/until-eof", method="POST"))
        connection.send(b"b" * 300_000)
        connection.half_close()
        answer = connection.answer().json()
        assert answer == {"length": 300_000, "sha256": hashlib.sha256(b"b" * 300_000).hexdigest()}


@pytest.mark.vms
@on_client
def test_sixteen_mebibytes_arrive_with_the_right_checksum(host):
    client.check_size(host, content.LARGEST)


@on_client
def test_a_slow_reader_gets_everything(host):
    options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]
    with client.Connection(host, options=options) as connection:
        connection.send(client.head("/size/1000000", close=True))
        # The window closes before the client begins to read.
        end = time.monotonic() + 30
        queued, before = -1, -2
        while queued != before and time.monotonic() < end:
            before = queued
            time.sleep(0.3)
            queued = len(connection.socket.recv(65536, socket.MSG_PEEK))
        assert connection.answer(keep_body=False).sha256 == content.sha256(1000000)


BAD_HEADS = {
    "no version": b"GET /who\r\n\r\n",
    "bare LF inside a field": b"GET /who HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "folded field": b"GET /who HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "space before colon": b"GET /who HTTP/1.1\r\nHost : a\r\n\r\n",
    "no host": b"GET /who HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /who HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "length and chunked": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
    b"Content-Length: 4\r\n\r\n",
    "negative length": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n",
    "huge length": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "NUL in the target": b"GET /wh\0o HTTP/1.1\r\nHost: a\r\n\r\n",
    "control octets": b"\x01\x02\x03\x04 / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS ClientHello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x55" * 64 + b"\r\n\r\n",
    "almost HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nMS\r\n\r\n",
    "only a colon": b"GET /who HTTP/1.1\r\nHost: a\r\n:\r\n\r\n",
    "version 3.0": b"GET /who HTTP/3.0\r\nHost: a\r\n\r\n",
}


@pytest.mark.vms
def test_a_bad_head_is_answered_by_the_front_end_and_never_handed_over(cluster):
    def send_bad(host, heads):
        wrong = {}
        for name, text in heads.items():
            with client.Connection(host) as connection:
                connection.send(text.encode("latin-1"))
                answer = connection.answer()
                if not 400 <= answer.status < 600 or answer.node or not connection.at_end():
                    wrong[name] = [answer.status, answer.node]
        return wrong

    heads = {name: text.decode("latin-1") for name, text in BAD_HEADS.items()}
    with counted(cluster, exact_be_adopted=0):
        assert run(cluster.client, send_bad, cluster.fes[0].ext, heads) == {}
    assert client_still_served(cluster)


def test_late_data_does_not_eat_the_answer_to_a_bad_head(cluster):
    def late(host):
        with client.Connection(host) as connection:
            connection.send(b"GET /who HTTP/1.1\r\n\r\n")
            for _ in range(50):
                try:
                    connection.send(b"x" * 10_000)
                except (BrokenPipeError, ConnectionResetError):
                    break
            return connection.answer().status

    assert run(cluster.client, late, cluster.fes[0].ext) == 400


@pytest.mark.vms
def test_a_head_that_never_ends_is_answered_with_408(cluster):
    def slow(host):
        with client.Connection(host, timeout=60) as connection:
            connection.send_acknowledged(b"GET /who HTTP/1.1\r\nHost: a\r\n")
            began = time.monotonic()
            status = connection.answer().status
            return [status, time.monotonic() - began, connection.at_end()]

    set_everywhere(cluster, head_timeout_ms=3000)
    with counted(cluster, exact_http_too_slow=1):
        status, seconds, ended = run(cluster.client, slow, cluster.fes[0].ext)
    assert status == 408 and ended
    assert 1.5 < seconds < 30


def test_a_head_that_keeps_dripping_is_ended_too(cluster):
    def drip(host):
        with client.Connection(host, timeout=60) as connection:
            connection.send(b"GET /who HTTP/1.1\r\nHost: a\r\nX: ")
            end = time.monotonic() + 40
            while time.monotonic() < end:
                if select.select([connection.socket], [], [], 0.5)[0]:
                    return connection.answer().status
                connection.send(b"a")
        return None

    set_everywhere(cluster, head_timeout_ms=3000)
    with counted(cluster, exact_http_too_slow=1):
        assert run(cluster.client, drip, cluster.fes[0].ext) == 408


def test_a_head_that_ends_before_it_is_complete_is_answered_with_400(cluster):
    def cut(host):
        statuses = []
        # The FIN comes by itself, and with the last octets.
        for flags in (ACK | PSH, ACK | PSH | FIN):
            peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
            peer.handshake()
            peer.send(b"GET /who HTTP/1.1\r\nHost: a\r\n", flags=flags)
            if not flags & FIN:
                peer.send(flags=ACK | FIN)
            statuses.append(peer.receive_all()[9:12].decode())
        return statuses

    with counted(cluster, exact_http_truncated=2):
        assert run(cluster.client, cut, cluster.fes[0].ext) == ["400", "400"]


@pytest.mark.vms
@pytest.mark.layout(servers="python --rcvbuf 4096")
def test_servers_with_a_small_receive_buffer_lose_nothing(cluster):
    def upload(host):
        for size in (0, 1, 3000, 9000, 16384, 60_000, 250_000, 1_000_000):
            body = content.stream()[:size]
            fields = [("Content-Length", str(size))]
            text = client.head("/echo", method="POST", fields=fields)
            with client.Connection(host) as connection:
                connection.send(text + body)
                answer = connection.answer().json()
                want = {"length": size, "sha256": hashlib.sha256(body).hexdigest()}
                assert answer == want, (size, answer)
        for size in (100, 4000, 8000):
            text = client.head("/head", length=size)
            with client.Connection(host) as connection:
                half = size // 2
                connection.send_acknowledged(text[:half])
                connection.send(text[half:])
                answer = connection.answer()
                assert answer.status == 200, (size, answer.status)
                assert answer.json()["sha256"] == hashlib.sha256(text).hexdigest()

    run(cluster.client, upload, cluster.fes[0].ext)
