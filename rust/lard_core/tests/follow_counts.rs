// SPDX-License-Identifier: GPL-2.0

//! Requests that come together: each of them is counted, whatever piece it begins and ends in.

use core::time::Duration;
use lard_core::follow::{Follow, Gathered, Take};
use lard_core::http::HeadParser;
use lard_core::tcp::{Flags, Options, Segment, Seq};
use lard_core::time::Instant;

const BASE: Seq = Seq(u32::MAX - 20);
const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const POST: &[u8] = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";

/// Behind the first request of a connection.
fn follow(behind: &[u8]) -> (Follow, Seq, u32) {
    let mut parser = HeadParser::new(4_096);
    parser.feed(GET);
    let mut follow = Follow::new(&parser, BASE, 4_096, false);
    let began = follow.read(&mut [], behind);
    let at = BASE.add((GET.len() + behind.len()) as u32);
    follow.moved(at);
    (follow, at, began)
}

fn segment(seq: Seq, len: usize) -> Segment {
    Segment {
        src_port: 1,
        dst_port: 2,
        seq,
        ack: Seq(0),
        flags: Flags::ACK,
        window: 1,
        header_len: 20,
        payload_len: len as u32,
        options: Options::default(),
    }
}

/// Holds these pieces; what they are, how many are complete, and how many began behind the first.
fn gather(pieces: &[&[u8]]) -> (Gathered, u16, u16) {
    let (mut follow, mut at, _) = follow(b"");
    let mut held = Vec::new();
    let mut last = Gathered::Partial;
    for piece in pieces {
        let take = follow.on_segment(&segment(at, piece.len()));
        assert_eq!(take, Take::Gather(0));
        let from = held.len();
        held.extend_from_slice(piece);
        at = at.add(piece.len() as u32);
        let ask = Duration::from_secs(1);
        last = follow.gather(&mut [], &held, from, Instant::ZERO, ask, |_, _| Ok(()));
    }
    (last, follow.batch(), follow.followers())
}

#[test]
fn what_is_held_together_is_counted() {
    let complete = Gathered::Complete;
    let batch = |parts: &[&[u8]]| parts.concat();
    let line: &[u8] = b"\r\n";
    for (pieces, expected) in [
        (vec![batch(&[GET])], (complete, 1, 0)),
        (vec![batch(&[GET, GET, GET])], (complete, 3, 2)),
        (vec![batch(&[GET, line, POST, GET])], (complete, 3, 2)),
        // One whose head is not complete goes with the others.
        (vec![batch(&[GET, GET, &GET[..5]])], (complete, 2, 2)),
        (vec![batch(&[GET, &POST[..20]])], (complete, 1, 1)),
        (
            vec![GET[..5].to_vec(), batch(&[&GET[5..], GET])],
            (complete, 2, 1),
        ),
        (vec![GET[..5].to_vec()], (Gathered::Partial, 0, 0)),
        // Behind empty lines nothing is held; the first of them is not one that follows.
        (vec![batch(&[line, GET])], (Gathered::Stays, 0, 0)),
        (vec![batch(&[line, GET, GET, GET])], (Gathered::Stays, 0, 2)),
    ] {
        let parts: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let shown = pieces.concat().escape_ascii().to_string();
        assert_eq!(gather(&parts), expected, "{shown}");
    }
}

#[test]
fn what_passes_is_counted_however_it_is_cut() {
    let stream = [POST, GET, b"\r\n", GET, POST, GET].concat();
    let (_, _, began) = follow(&stream);
    assert_eq!(began, 5);
    for piece in [1, 7, 30, 100] {
        let (mut follow, _, began) = follow(b"");
        assert_eq!(began, 0);
        let counts = stream.chunks(piece).map(|part| follow.read(&mut [], part));
        assert_eq!(counts.sum::<u32>(), 5, "{piece}");
    }
}
