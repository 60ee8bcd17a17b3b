# SPDX-License-Identifier: GPL-2.0
"""The front-end's TCP, segment by segment, against a client that builds each of them itself.

Every test here is one row of the responder's table of events. The raw client has addresses of its
own in 10.10.0.200 to 10.10.0.250.
"""

import pytest
from support import counted, on_client, run


# Opening a connection


@on_client
def test_syn_ack_carries_what_was_offered_and_nothing_else(host):
    link = Link(f"10.10.0.{random.randrange(200, 250)}")
    for scale in (None, 0, 7, 14):
        for sack in (False, True):
            for stamps in (False, True):
                peer = Peer(link, host, scale=scale, sack=sack, stamps=stamps)
                answer = peer.open()
                assert answer.flags == SYN | ACK, answer
                assert 2 in answer.options, answer
                assert scale is not None or 3 not in answer.options, answer
                assert sack or 4 not in answer.options, answer
                assert stamps or 8 not in answer.options, answer
                assert answer.sum_right and answer.dont_fragment, answer
                assert answer.urgent == 0 and not answer.data
                if answer.timestamp:
                    assert answer.timestamp[1] != 0
                peer.segment(ACK)
                peer.reset()


@on_client
def test_requests_are_served_whatever_options_the_client_has(host):
    link = Link(f"10.10.0.{random.randrange(200, 250)}")
    for scale, sack, stamps in (
        (None, False, False),
        (None, True, False),
        (0, False, True),
        (7, True, False),
        (14, True, True),
    ):
        peer = Peer(link, host, scale=scale, sack=sack, stamps=stamps)
        peer.handshake()
        answer = peer.request(b"GET /size/100000 HTTP/1.0\r\n\r\n")
        body = answer.partition(b"\r\n\r\n")[2]
        assert body == content.stream()[:100000], (scale, sack, stamps, len(body))
        peer.send(flags=ACK | FIN)


def test_what_a_back_end_stops_to_honour_is_not_offered_any_more(cluster):
    def offered(host):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        peer = Peer(link, host, scale=7, sack=True, stamps=True)
        answer = peer.open()
        peer.segment(ACK)
        body = peer.request(b"GET /who HTTP/1.0\r\n\r\n")
        assert b"\r\n\r\nnode" in body, body
        return [number in answer.options for number in (3, 4, 8)]

    front_end, back_end = cluster.fes[0].ext, cluster.bes[-1]
    settings = ("window_scaling", "sack", "timestamps")
    for place, setting in enumerate(settings):
        want = [number != place for number in range(3)]
        back_end.sh(f"sysctl -q -w net.ipv4.tcp_{setting}=0")
        try:
            cluster.wait(lambda: run(cluster.client, offered, front_end) == want, timeout=10,
                         what=f"no {setting} offered")
            with counted(cluster, exact_fe_refused_options=0):
                run(cluster.client, offered, front_end)
        finally:
            back_end.sh(f"sysctl -q -w net.ipv4.tcp_{setting}=1")
    cluster.wait(lambda: all(run(cluster.client, offered, front_end)), timeout=10,
                 what="everything offered again")


@on_client
def test_the_servers_segments_respect_the_clients_mss(host):
    link = Link(f"10.10.0.{random.randrange(200, 250)}")
    # No option means 536; a tiny one is raised by the kernel's floor, not obeyed to absurdity.
    for mss, limit in ((536, 536), (1000, 1000), (0, 536), (1, 536)):
        peer = Peer(link, host, mss=mss, stamps=False)
        peer.handshake()
        peer.send(b"GET /size/10000 HTTP/1.0\r\n\r\n")
        answer = peer.receive_all()
        assert answer.endswith(content.stream()[9990:10000])
        # Segments may come merged by offloads; then the sum is a multiple of the segment size.
        sizes = [len(s.data) for s in peer.seen if s.data]
        if max(sizes) > limit:
            assert not peer.seen[0].sum_right or len(sizes) < 10000 // limit, (mss, sizes)
        peer.send(flags=ACK | FIN)


@on_client
def test_a_repeated_syn_gets_the_same_syn_ack(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    first = peer.open()
    for _ in range(3):
        again = peer.open()
        assert (again.seq, again.ack) == (first.seq, first.ack), (first, again)
        assert sorted(again.options) == sorted(first.options)
        assert again.window == first.window
    peer.segment(ACK)
    assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n")


@on_client
def test_a_syn_with_another_number_does_not_replace_a_half_open_connection(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.open()
    peer.segment(SYN, seq=peer.iss + 1_000_000)
    challenge = peer.expect("answer", lambda s: True)
    assert not challenge.flags & (SYN | RST) and challenge.flags & ACK, challenge
    assert challenge.ack == (peer.iss + 1) % (1 << 32), challenge
    peer.segment(ACK)
    assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n")


@on_client
def test_a_reset_clears_a_half_open_connection(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    first = peer.open()
    peer.segment(RST, seq=peer.iss + 1, options=b"")
    other = Peer(peer.link, host, sport=peer.sport, iss=peer.iss + 5_000_000)
    second = other.open()
    assert second.ack == (other.iss + 1) % (1 << 32)
    assert second.seq != first.seq
    other.segment(ACK)
    assert b"\r\n\r\nnode" in other.request(b"GET /who HTTP/1.0\r\n\r\n")


@on_client
def test_data_on_a_syn_is_left_for_the_client_to_send_again(host):
    text = b"GET /who HTTP/1.0\r\n\r\n"
    link = Link(f"10.10.0.{random.randrange(200, 250)}")
    fast_open = b"\x22\x02\x01\x01"
    cookie = b"\x22\x0a12345678"
    for extra in (b"", fast_open, cookie):
        peer = Peer(link, host)
        options = peer.syn_options() + extra
        peer.open(data=text, options=options + b"\1" * (-len(options) % 4))
        peer.segment(ACK)
        assert b"\r\n\r\nnode" in peer.request(text)


@on_client
def test_ecn_is_declined(host):
    link = Link(f"10.10.0.{random.randrange(200, 250)}")
    for flags in (SYN | ECE | CWR, SYN | ECE | CWR | AE):
        peer = Peer(link, host)
        peer.segment(flags, seq=peer.iss)
        answer = peer.expect("SYN+ACK", lambda s: s.flags & SYN)
        assert answer.flags == SYN | ACK, answer
        peer.seq, peer.ack = (peer.iss + 1) % (1 << 32), (answer.seq + 1) % (1 << 32)
        # Such clients may still mark their packets; the answer is not changed by it.
        peer.segment(ACK, ip={"tos": 2})
        peer.send(b"GET /who HTTP/1.0\r\n\r\n", ip={"tos": 2})
        assert b"\r\n\r\nnode" in peer.receive_all()


def test_flag_combinations_no_client_sends_are_dropped_and_counted(cluster):
    def combinations(host):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        for flags in (SYN | FIN, SYN | RST, 0, SYN | FIN | RST | PSH | URG, SYN | ACK):
            peer = Peer(link, host)
            peer.segment(flags, seq=peer.iss, ack=12345, options=b"")
            peer.quiet("an answer to " + rawtcp.names(flags), lambda s: s.flags & SYN, 0.3)

    with counted(cluster, tcp_bad_flags=4):
        run(cluster.client, combinations, cluster.fes[0].ext)


@on_client
def test_a_wrong_ack_is_reset_and_the_half_open_connection_stays(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.open()
    for wrong in (peer.ack + 1, peer.ack - 2, peer.ack + 1_000_000):
        peer.segment(ACK, ack=wrong)
        reset = peer.expect_reset()
        assert reset.seq == wrong % (1 << 32), reset
    peer.segment(ACK)
    assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n")


@on_client
def test_the_request_may_come_with_the_third_segment(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.open()
    assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n")


@on_client
def test_an_ack_without_connection_is_reset(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host, stamps=False)
    peer.segment(ACK, seq=100, ack=4711)
    reset = peer.expect_reset()
    assert reset.seq == 4711, reset
    peer.segment(RST, seq=100)
    peer.quiet("an answer to RST", lambda s: True, 0.5)


def test_signed_connections_are_not_answered(cluster):
    def signed(host):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        for option in (b"\x13\x12" + b"m" * 16 + b"\1\1", b"\x1d\x10" + b"a" * 14):
            peer = Peer(link, host)
            peer.segment(SYN, seq=peer.iss, options=b"\x02\x04\x05\xb4" + option)
            peer.quiet("an answer to a signed SYN", lambda s: True, 0.5)

    with counted(cluster, tcp_signed=2):
        run(cluster.client, signed, cluster.fes[0].ext)


@on_client
def test_an_mptcp_client_falls_back_to_tcp(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    options = peer.syn_options() + b"\x1e\x04\x01\x00"
    answer = peer.open(options=options)
    assert 30 not in answer.options, answer
    peer.segment(ACK)
    assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n")


@on_client
def test_garbage_among_the_options_does_no_harm(host):
    link = Link(f"10.10.0.{random.randrange(200, 250)}")
    for options in (
        b"\x02\x04\x05\xb4\xfd\x04ab",  # unknown kind
        b"\x02\x04\x05\xb4\x08\x00\x01\x01",  # length 0
        b"\x02\x04\x05\xb4\x08\x01\x01\x01",  # length 1
        b"\x02\x04\x05\xb4\x08\xff\x01\x01",  # beyond the header
        b"\x02\x03\x05\x01",  # MSS of the wrong length
        b"\x03\x03\x0f\x01\x03\x03\xff\x01",  # scales beyond 14
        b"\x02\x04\x00\x00",  # MSS 0
        b"\x02\x04\x00\x01\x02\x04\xff\xff",  # two MSS
        b"\x00\xff\xff\xff",  # end, then anything
        b"\x01" * 40,
    ):
        peer = Peer(link, host, stamps=False)
        peer.open(options=options)
        peer.segment(ACK)
        assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n"), options


# Data


@pytest.mark.vms
@on_client
def test_an_incomplete_head_is_acknowledged_at_once_and_within_a_fixed_window(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    answer = peer.handshake()
    scale = answer.options[3][0] if 3 in answer.options else 0
    right_edge = peer.iss + 1 + answer.window
    for part in (b"GET /who HTTP/1.0\r\n", b"X: 1\r\n", b"Y: " + b"y" * 700 + b"\r\n"):
        peer.send(part)
        ack = peer.expect_ack(peer.seq, 2.0)
        assert not ack.data and not ack.flags & FIN
        # The edge neither slides on nor comes back, but for the rounding of the scale.
        edge = ack.ack + (ack.window << scale)
        assert -(1 << scale) < difference(edge % (1 << 32), right_edge % (1 << 32)) <= 0, ack
    assert b"\r\n\r\nnode" in peer.request(b"\r\n")


@on_client
def test_segments_out_of_order_are_put_in_order(host):
    link = Link(f"10.10.0.{random.randrange(200, 250)}")
    text = client.head("/head?order", close=True, length=3000)
    want = hashlib.sha256(text).hexdigest()
    parts = [(start, text[start : start + 500]) for start in range(0, 3000, 500)]
    for turn in range(6):
        peer = Peer(link, host)
        peer.handshake()
        order = list(reversed(parts)) if turn == 0 else random.sample(parts, len(parts))
        base = peer.seq
        # What was dropped is sent again until all is acknowledged or the answer is there.
        for _ in range(8):
            for start, part in order:
                peer.segment(ACK | PSH, part, seq=base + start)
            segment = peer.receive(1.0)
            while segment and not segment.data:
                segment = peer.receive(0.3)
            if segment:
                break
        assert segment, "no answer"
        peer.seq = base + 3000
        peer.ack = segment.seq
        answer = segment.data + b""
        peer.ack = (segment.seq + segment.length) % (1 << 32)
        if not segment.flags & FIN:
            answer += peer.receive_all()
        assert want.encode() in answer, (order, answer)
        peer.reset()


@on_client
def test_out_of_order_data_gets_a_duplicate_ack_at_once(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    text = b"GET /who HTTP/1.0\r\n\r\n"
    peer.segment(ACK | PSH, text[10:15], seq=peer.seq + 10)
    duplicate = peer.expect_ack(peer.seq, 2.0)
    assert not duplicate.data
    assert b"\r\n\r\nnode" in peer.request(text)


@on_client
def test_of_overlapping_data_the_first_octets_count(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    base = peer.seq
    peer.send(b"GET /head HTTP/1.0\r\nX: first")
    peer.expect_ack(peer.seq)
    # The same stretch again, with other octets, and the end of the head behind it.
    other = b"GET /size/1 HTTP/1.0\r\nX: sec"[: peer.seq - base] + b"\r\n\r\n"
    peer.segment(ACK | PSH, other, seq=base)
    peer.seq = base + len(other)
    answer = peer.receive_all()
    text = b"GET /head HTTP/1.0\r\nX: first\r\n\r\n"
    assert hashlib.sha256(text).hexdigest().encode() in answer, answer


@on_client
def test_a_retransmitted_request_is_served_once(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    mark = f"/head?once-{random.randrange(1 << 40)}"
    text = f"GET {mark} HTTP/1.0\r\n\r\n".encode()
    for _ in range(5):
        peer.segment(ACK | PSH, text)
    peer.seq += len(text)
    answer = peer.receive_all()
    assert answer.count(b"HTTP/1.0 200 OK") == 1, answer


@on_client
def test_a_keep_alive_probe_is_acknowledged(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.send(b"GET /who HTTP/1.0\r\n")
    peer.expect_ack(peer.seq)
    for data in (b"", b"?"):
        peer.segment(ACK, data, seq=peer.seq - 1)
        peer.expect_ack(peer.seq, 2.0)
    assert b"\r\n\r\nnode" in peer.request(b"\r\n")


@on_client
def test_data_beyond_the_window_is_not_taken(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    answer = peer.handshake()
    for distance in (answer.window, answer.window + 1, 1 << 20, 1 << 30, 3 << 30):
        peer.segment(ACK | PSH, b"POST /bad HTTP/9.9\r\n\r\n", seq=peer.seq + distance)
    peer.quiet("an answer to data beyond the window", lambda s: s.data or s.flags & RST, 0.5)
    assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n")


@on_client
def test_data_across_the_right_edge_is_trimmed(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host, mss=9000)
    answer = peer.handshake()
    # A complete head, then more body than the window takes: it is all delivered in the end.
    length = answer.window + 5000
    body = content.stream()[:length]
    text = b"POST /echo HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % length + body
    base, sent = peer.seq, 0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for start in range(sent, min(sent + 65536, len(text)), 1400):
            peer.segment(ACK | PSH, text[start : start + 1400], seq=base + start)
        segment = peer.receive(1.0)
        while segment and not segment.data:
            sent = max(sent, difference(segment.ack, base))
            segment = peer.receive(0.3)
        if segment:
            break
    assert segment, f"no answer; {sent} of {len(text)} acknowledged"
    peer.seq, peer.ack = base + len(text), segment.seq
    peer.segment(ACK)
    answer = peer.receive_all() if not segment.flags & FIN else segment.data
    assert hashlib.sha256(body).hexdigest().encode() in answer + segment.data


@on_client
def test_urgent_data_is_ordinary_data(host):
    text = b"GET /head HTTP/1.0\r\nX: urgent\r\n\r\n"
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.send(text[:25], flags=ACK | PSH | URG, urgent=25)
    peer.expect_ack(peer.seq)
    peer.send(text[25:], flags=ACK | PSH | URG, urgent=4)
    answer = peer.receive_all()
    assert hashlib.sha256(text).hexdigest().encode() in answer, answer


@on_client
def test_a_client_with_a_closed_window_is_served_when_it_opens(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.window = 0
    peer.handshake()
    peer.send(b"GET /size/10000 HTTP/1.0\r\n\r\n")
    peer.expect_ack(peer.seq)
    peer.quiet("data into a closed window", lambda s: len(s.data) > 1, 1.0)
    peer.window = 65535
    peer.segment(ACK)
    assert peer.receive_all().endswith(content.stream()[9990:10000])


def test_a_broken_checksum_is_dropped_and_counted(cluster):
    def broken(host):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        peer = Peer(link, host)
        peer.segment(SYN, seq=peer.iss, break_checksum=True)
        peer.quiet("an answer to a broken SYN", lambda s: True, 0.5)
        peer.handshake()
        peer.segment(ACK | PSH, b"DELETE / HTTP/1.0\r\n\r\n", break_checksum=True)
        peer.segment(RST, seq=peer.seq, options=b"", break_checksum=True)
        assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n")

    with counted(cluster, fe_checksum=3):
        run(cluster.client, broken, cluster.fes[0].ext)


# Resets, old segments, SYNs in a connection


@on_client
def test_a_reset_at_the_left_edge_ends_the_connection(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.send(b"GET /who")
    peer.expect_ack(peer.seq)
    peer.segment(RST, seq=peer.seq, options=b"")
    # The connection is unknown from now on.
    peer.segment(ACK)
    peer.expect_reset()


@pytest.mark.vms
@on_client
def test_a_reset_elsewhere_in_the_window_is_challenged(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.send(b"GET /who HTTP/1.0\r\n")
    peer.expect_ack(peer.seq)
    peer.segment(RST, seq=peer.seq + 100, options=b"")
    peer.expect_ack(peer.seq, 2.0)
    for outside in (-1, -1000, 1 << 20, 1 << 31):
        peer.segment(RST, seq=peer.seq + outside, options=b"")
    peer.quiet("an answer to RST outside of the window", lambda s: s.flags & RST, 0.3)
    assert b"\r\n\r\nnode" in peer.request(b"\r\n")


@on_client
def test_a_syn_in_a_connection_is_challenged(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.send(b"GET /who HTTP/1.0\r\n")
    peer.expect_ack(peer.seq)
    peer.segment(SYN, seq=peer.seq + 50)
    challenge = peer.expect("challenge ACK", lambda s: True, 2.0)
    assert challenge.flags & ACK and not challenge.flags & (SYN | RST), challenge
    assert challenge.ack == peer.seq % (1 << 32), challenge
    assert b"\r\n\r\nnode" in peer.request(b"\r\n")


@on_client
def test_segments_with_an_old_timestamp_are_not_taken(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    if not peer.stamps:
        return
    peer.send(b"GET /head HTTP/1.0\r\n")
    peer.expect_ack(peer.seq)
    peer.segment(ACK | PSH, b"Evil: 1\r\n\r\n", stamp=(peer.stamp() - 100_000) & 0xFFFFFFFF)
    old = peer.expect_ack(peer.seq, 2.0)
    assert not old.data
    answer = peer.request(b"\r\n")
    assert hashlib.sha256(b"GET /head HTTP/1.0\r\n\r\n").hexdigest().encode() in answer, answer


@on_client
def test_segments_without_the_agreed_timestamp_are_taken(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.send(b"GET /who HTTP/1.0\r\n", options=b"")
    peer.expect_ack(peer.seq)
    assert b"\r\n\r\nnode" in peer.request(b"\r\n")


@on_client
def test_an_ack_of_what_was_never_sent_is_not_taken(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.segment(ACK | PSH, b"DELETE / HTTP/1.0\r\n\r\n", ack=peer.ack + 100_000)
    peer.quiet("an answer to a bad ACK", lambda s: s.data, 0.5)
    assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n")


# Ends


@pytest.mark.vms
@on_client
def test_fin_with_the_request_gets_the_whole_answer(host):
    link = Link(f"10.10.0.{random.randrange(200, 250)}")
    for size in (100, 100_000):
        peer = Peer(link, host)
        peer.handshake()
        peer.send(f"GET /size/{size} HTTP/1.0\r\n\r\n".encode(), flags=ACK | PSH | FIN)
        answer = peer.receive_all()
        assert answer.partition(b"\r\n\r\n")[2] == content.stream()[:size]
    # FIN in a segment of its own, right behind.
    peer = Peer(link, host)
    peer.handshake()
    peer.send(b"GET /size/1000 HTTP/1.0\r\n\r\n")
    peer.send(flags=ACK | FIN)
    data = b""
    for _ in range(40):
        segment = peer.receive(1.0)
        if segment is None or segment.ack != peer.seq % (1 << 32):
            # Left to the client, the FIN comes again.
            peer.segment(ACK | FIN, seq=peer.seq - 1)
        data = b"".join(s.data for s in peer.seen)
        if len(data) > 1000:
            break
    assert len(data) > 1000, data


@on_client
def test_fin_before_any_data_ends_the_connection_cleanly(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.send(flags=ACK | FIN)
    fin = peer.expect("FIN", lambda s: s.flags & FIN)
    assert fin.ack == peer.seq % (1 << 32), fin
    assert not fin.data and not fin.flags & RST
    peer.ack = (fin.seq + 1) % (1 << 32)
    peer.segment(ACK)
    peer.quiet("more after the last ACK", lambda s: s.flags & FIN, 2.5)


@on_client
def test_fin_inside_the_head_is_answered_with_400(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.send(b"GET /who HTT", flags=ACK | PSH | FIN)
    answer = peer.receive_all()
    assert answer.startswith(b"HTTP/1.1 400 "), answer


@on_client
def test_an_own_answer_is_sent_again_until_it_is_acknowledged(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.send(b"GARBAGE\r\n\r\n")
    first = peer.expect("answer", lambda s: s.data)
    assert first.data.startswith(b"HTTP/1.1 400 ") and first.flags & FIN, first
    began = time.monotonic()
    again = peer.expect("the answer again", lambda s: s.data, 10)
    assert again.seq == first.seq and again.data == first.data
    assert time.monotonic() - began > 0.3
    peer.ack = (first.seq + first.length) % (1 << 32)
    peer.segment(ACK)
    peer.send(flags=ACK | FIN)
    peer.expect_ack(peer.seq)
    peer.quiet("the answer after its ACK", lambda s: s.data, 5)


# Reuse of a tuple


def reuse(host):
    """The same port again and again, as soon as the server has closed."""
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    last = 0
    for turn in range(20):
        peer.handshake()
        # Above everything the old connection acknowledged, else the back-end could not tell.
        if turn:
            assert difference(peer.ack, last) > 0, (peer.ack, last)
        # The server closes first (HTTP/1.0) and has the TIME_WAIT.
        assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n"), turn
        peer.send(flags=ACK | FIN)
        peer.expect_ack(peer.seq)
        last = peer.ack
        peer = Peer(peer.link, host, sport=peer.sport, iss=peer.seq + 100_000)
    return turn


@pytest.mark.vms
def test_a_port_is_used_again_while_the_back_end_is_in_time_wait(cluster):
    # Other nodes than the one before, which keeps its TIME_WAIT, are chosen now and then.
    with counted(cluster, tcp_reused=19, exact_be_adopted=20, be_time_wait_replaced=1):
        run(cluster.client, reuse, cluster.fes[0].ext)


def test_a_port_is_used_again_while_too_many_handshakes_are_unfinished(cluster):
    """The first connection is opened by a cookie; those after it take its entry's place."""
    host = cluster.fes[0]
    cluster.set(int(host.name[4:]), "half-open-max", 0)
    counts = {"exact_fe_cookie_sent": 1, "exact_fe_cookie_accepted": 1, "exact_be_adopted": 20}
    with counted(cluster, tcp_reused=19, **counts):
        run(cluster.client, reuse, host.ext)


@on_client
def test_an_old_syn_does_not_disturb_a_forwarded_connection(host):
    peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
    peer.handshake()
    peer.send(b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n")
    peer.expect("answer", lambda s: s.data)
    peer.receive(0.2)
    first = peer.seen[-1] if peer.seen[-1].data else [s for s in peer.seen if s.data][-1]
    peer.ack = (first.seq + first.length) % (1 << 32)
    peer.segment(ACK)
    # An old duplicate of the opening SYN: the back-end answers it with a challenge.
    peer.segment(SYN, seq=peer.iss, options=b"\x02\x04\x05\xb4")
    challenge = peer.expect("challenge", lambda s: True, 5)
    assert not challenge.flags & (SYN | RST), challenge
    peer.send(b"GET /who HTTP/1.0\r\n\r\n")
    assert b"\r\n\r\nnode" in peer.receive_all()


# IP


def test_fragments_reach_the_front_end_whole_or_not_at_all(cluster):
    def fragments(host):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")

        def send_in_fragments(peer, segment, sizes, last=True):
            number, offset = random.randrange(1 << 16), 0
            for size in sizes:
                part = segment[offset : offset + size]
                more = offset + size < len(segment) or not last
                link.send(
                    host,
                    part,
                    fragment=(offset, more),
                    identification=number,
                    dont_fragment=False,
                )
                offset += size

        answered = 0
        for sizes in ([8, 8, 8, 99], [16, 99], [24, 99], [32, 99]):
            peer = Peer(link, host)
            send_in_fragments(peer, peer.tcp(SYN, seq=peer.iss), sizes)
            segment = peer.receive(0.5)
            answered += bool(segment and segment.flags == SYN | ACK)
        # First fragments whose rest never comes, and overlapping ones.
        for offset in (0, 8, 16, 1480, 65528):
            peer = Peer(link, host)
            part = peer.tcp(SYN, seq=peer.iss)[:24]
            link.send(host, part, fragment=(offset, True), dont_fragment=False)
            peer.quiet("an answer to a lone fragment", lambda s: s.flags & SYN, 0.1)
        peer = Peer(link, host)
        peer.handshake()
        assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n")
        # A request in fragments is served or left to the retransmission in one piece.
        peer = Peer(link, host)
        peer.handshake()
        text = b"GET /who HTTP/1.0\r\nX: " + b"f" * 200 + b"\r\n\r\n"
        send_in_fragments(peer, peer.tcp(ACK | PSH, text), [64, 64, 999])
        segment = peer.receive(0.5)
        if segment is None:
            peer.segment(ACK | PSH, text)
        peer.seq += len(text)
        assert b"\r\n\r\nnode" in peer.receive_all()
        return answered

    # All or none: the front-end either has packets reassembled or takes no fragments, and says so.
    before = cluster.stat_sum("fe_fragment")
    answered = run(cluster.client, fragments, cluster.fes[0].ext)
    dropped = cluster.stat_sum("fe_fragment") - before
    # Of four SYNs in eleven fragments, five lone ones and a request in three: nobody puts them together.
    assert (answered, dropped > 0) in ((0, True), (4, False)), (answered, dropped)


@pytest.mark.vms
def test_sources_that_cannot_be_answered_are_dropped_and_counted(cluster):
    def sources(host, own):
        link = Link(f"10.10.0.{random.randrange(200, 250)}")
        bad = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "224.0.0.1", "239.255.255.250"]
        bad += ["255.255.255.255", "240.0.0.1", host, own]
        for source in bad:
            peer = Peer(link, host)
            segment = peer.tcp(SYN, seq=peer.iss, source=source)
            link.send(host, segment, source=source)
        return len(bad)

    with counted(cluster, fe_martian_source=8):
        run(cluster.client, sources, cluster.fes[0].ext, cluster.fes[0].int)


def test_source_port_zero_is_dropped_and_counted(cluster):
    def port_zero(host):
        peer = Peer(Link(f"10.10.0.{random.randrange(200, 250)}"), host)
        peer.link.send(host, b"\0\0" + peer.tcp(SYN, seq=peer.iss)[2:])
        segment = bytearray(peer.tcp(SYN, seq=peer.iss))
        segment[0:2], segment[16:18] = b"\0\0", b"\0\0"
        pseudo = peer.link.packed + socket.inet_aton(host) + struct.pack("!HH", 6, len(segment))
        segment[16:18] = struct.pack("!H", rawtcp.checksum(pseudo + bytes(segment)))
        peer.link.send(host, bytes(segment))

    with counted(cluster, tcp_bad_port=1):
        run(cluster.client, port_zero, cluster.fes[0].ext)


@on_client
def test_ip_options_and_low_ttl_do_not_matter_to_the_front_end(host):
    link = Link(f"10.10.0.{random.randrange(200, 250)}")
    peer = Peer(link, host)
    peer.handshake(ip={"ttl": 2})
    assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n", ip={"ttl": 2})
    peer = Peer(link, host)
    peer.open(ip={"options": b"\x01\x01\x01\x00"})
    peer.segment(ACK)
    assert b"\r\n\r\nnode" in peer.request(b"GET /who HTTP/1.0\r\n\r\n")


def test_a_syn_flood_neither_fills_the_table_nor_keeps_clients_out(cluster):
    def flood(host, count):
        link = Link(f"10.10.0.{random.randrange(200, 225)}")
        answered = 0
        for number in range(count):
            peer = Peer(link, host, sport=1024 + number % 60000)
            peer.segment(SYN, seq=peer.iss)
            # In bursts that fit what waits for a processor, else most would be lost on a slow machine.
            if number % 100 == 99:
                while link.receive(0.1):
                    answered += 1
        # While the table is full, a connection is opened by cookie and works like any other.
        other = Link(f"10.10.0.{random.randrange(225, 250)}")
        for stamps in (True, False):
            peer = Peer(other, host, stamps=stamps)
            peer.handshake()
            answer = peer.request(b"GET /size/100000 HTTP/1.0\r\n\r\n")
            assert answer.endswith(content.stream()[99_990:100_000]), stamps
            peer.send(flags=ACK | FIN)
        assert client.check_size(host, 10_000)
        return answered

    node = int(cluster.fes[0].name[4:])
    cluster.set(node, "half-open-max", 256)
    # However long it takes, the table stays full.
    cluster.set(node, "half-open-timeout-ms", 60_000)
    # Three connections by cookie: two that the test makes segment by segment, and the kernel's one.
    with counted(cluster, fe_cookie_sent=1000, exact_fe_cookie_accepted=3):
        answered = run(cluster.client, flood, cluster.fes[0].ext, 3000)
    assert answered > 1000
    half_open = [c for c in cluster.connections(node) if c["state"] == "half-open"]
    assert len(half_open) <= 256 + 16, len(half_open)
