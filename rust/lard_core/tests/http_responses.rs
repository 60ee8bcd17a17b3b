// SPDX-License-Identifier: GPL-2.0

//! Tests of the response framer: what ends where, in any split, and what cannot be followed.

use lard_core::http::ResponseFramer;

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn follow(to_head: bool, bytes: &[u8]) -> ResponseFramer {
    let mut whole = ResponseFramer::new(to_head);
    whole.feed(bytes);
    // One byte at a time, and with every cut in two: the same.
    for step in [1, 2, 3, 7] {
        let mut pieces = ResponseFramer::new(to_head);
        bytes.chunks(step).for_each(|piece| pieces.feed(piece));
        assert_eq!(facts(&pieces), facts(&whole), "in pieces of {step}");
    }
    for cut in 0..bytes.len().min(512) {
        let mut halves = ResponseFramer::new(to_head);
        halves.feed(&bytes[..cut]);
        halves.feed(&bytes[cut..]);
        assert_eq!(facts(&halves), facts(&whole), "cut at {cut}");
    }
    // Skipping what may be skipped: the same.
    let mut skipped = ResponseFramer::new(to_head);
    let mut left = bytes;
    while let Some((first, rest)) = left.split_first() {
        let n = skipped.skippable().min(left.len() as u64);
        if n > 0 {
            assert_eq!(skipped.skip(n), n);
            left = &left[n as usize..];
        } else {
            skipped.feed(&[*first]);
            left = rest;
        }
    }
    assert_eq!(facts(&skipped), facts(&whole), "skipping");
    whole
}

fn facts(framer: &ResponseFramer) -> (u32, bool, bool) {
    (framer.completed(), framer.is_between(), framer.is_lost())
}

fn assert_complete(responses: u32, text: &str) {
    let framer = follow(false, text.as_bytes());
    assert_eq!(facts(&framer), (responses, true, false), "{text:?}");
    // Nothing before the last byte is the end of the last one.
    let framer = follow(false, &text.as_bytes()[..text.len() - 1]);
    assert_eq!(facts(&framer), (responses - 1, false, false), "{text:?}");
}

fn assert_lost(text: &str) {
    assert!(follow(false, text.as_bytes()).is_lost(), "{text:?}");
}

fn assert_open(completed: u32, text: &str) {
    let framer = follow(false, text.as_bytes());
    assert_eq!(facts(&framer), (completed, false, false), "{text:?}");
}

#[test]
fn ends_are_found() {
    assert_complete(1, &format!("{OK}Content-Length: 5\r\n\r\nhello"));
    assert_complete(
        1,
        &format!("{OK}content-LENGTH:0005  \r\nX: y\r\n\r\nhello"),
    );
    assert_complete(1, &format!("{OK}Content-Length: 0\r\n\r\n"));
    assert_complete(
        1,
        &format!("{OK}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    );
    assert_complete(1, "HTTP/1.1 204 No Content\r\n\r\n");
    assert_complete(1, "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n");
    assert_complete(1, "HTTP/1.1 404\r\nContent-Length: 1\r\n\r\nx");
    assert_complete(
        1,
        &format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    );
    assert_complete(
        1,
        &format!(
            "{OK}Transfer-Encoding: Chunked\r\n\r\na;b=c\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"
        ),
    );
    assert_complete(
        3,
        &format!(
            "{OK}Content-Length: 1\r\n\r\na{OK}Content-Length: 0\r\n\r\nHTTP/1.1 204 \r\n\r\n"
        ),
    );
    assert_complete(
        1,
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
    );
}

#[test]
fn interim_responses_are_no_answer() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let framer = follow(false, interim.as_bytes());
    assert_eq!(facts(&framer), (0, true, false));
    assert_complete(1, &format!("{interim}{OK}Content-Length: 2\r\n\r\nab"));
}

#[test]
fn the_answer_to_head_has_no_body() {
    let head = format!("{OK}Content-Length: 5\r\n\r\n");
    assert_eq!(facts(&follow(true, head.as_bytes())), (1, true, false));
    let chunked = format!("{OK}Transfer-Encoding: chunked\r\n\r\n");
    assert_eq!(facts(&follow(true, chunked.as_bytes())), (1, true, false));
    assert_eq!(
        facts(&follow(true, format!("{OK}\r\n").as_bytes())),
        (1, true, false)
    );
    // The one behind it answers something else.
    let both = format!("{head}{OK}Content-Length: 5\r\n\r\nhello");
    assert_eq!(facts(&follow(true, both.as_bytes())), (2, true, false));
}

#[test]
fn what_has_no_end_or_two_is_lost() {
    assert_lost("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    assert_lost(&format!("{OK}\r\n"));
    assert_lost(&format!(
        "{OK}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    assert_lost(&format!(
        "{OK}Content-Length: 5\r\nContent-Length: 6\r\n\r\n"
    ));
    assert_lost(&format!("{OK}Transfer-Encoding: gzip, chunked\r\n\r\n"));
    assert_lost(&format!(
        "{OK}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    assert_lost("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for length in ["", "5,5", "+5", "-1", "0x5", "5 5", "99999999999999999999"] {
        assert_lost(&format!("{OK}Content-Length: {length}\r\n\r\n"));
    }
    for head in [
        "HTTP/2 200 \r\n",
        "HTTP/1.2 200 OK\r\n",
        "HTTP/1.1 20\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "ICY 200 OK\r\n",
        "\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\n",
        "HTTP/1.1 200 OK\r\n folded\r\n",
        "HTTP/1.1 200 OK\r\nName : x\r\n",
        "HTTP/1.1 200 OK\r\nName\r\n",
        "HTTP/1.1 200 OK\r\n: x\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rc\r\n",
        "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n",
        "HTTP/1.1 200 OK\r\nA: \0\r\n",
    ] {
        assert_lost(head);
    }
    assert_lost(&format!(
        "{OK}Transfer-Encoding: chunked\r\n\r\n5 \r\nhello"
    ));
    let long = "x".repeat(9_000);
    assert_lost(&format!("{OK}A: {long}\r\n"));
    let many = "A: xxxxxxxxxx\r\n".repeat(4_000);
    assert_lost(&format!("{OK}{many}"));
}

#[test]
fn behind_the_last_answer_nothing_is_followed() {
    for field in ["close", "Keep-Alive, Upgrade", "upgrade"] {
        let text = format!("{OK}Connection: {field}\r\nContent-Length: 1\r\n\r\nx");
        let framer = follow(false, text.as_bytes());
        assert_eq!(facts(&framer), (1, false, true), "{field}");
    }
    let old = follow(false, b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(facts(&old), (1, false, true));
}

#[test]
fn an_unfinished_answer_is_open() {
    assert_open(0, "H");
    assert_open(0, &format!("{OK}Content-Length: 5\r\n\r\nhell"));
    assert_open(1, &format!("{OK}Content-Length: 0\r\n\r\n{OK}"));
    assert_open(
        0,
        &format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
    );
}

#[test]
fn a_long_body_is_not_looked_at() {
    let mut framer = ResponseFramer::new(false);
    framer.feed(format!("{OK}Content-Length: 1000000000000\r\n\r\n").as_bytes());
    assert_eq!(framer.skippable(), 1_000_000_000_000);
    assert_eq!(framer.skip(999_999_999_999), 999_999_999_999);
    assert!(!framer.is_between());
    framer.feed(b"x");
    assert_eq!(facts(&framer), (1, true, false));
    framer.lose();
    assert_eq!(framer.skippable(), u64::MAX);
}
