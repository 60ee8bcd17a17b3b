// SPDX-License-Identifier: GPL-2.0

//! What becomes of a client's packet while a request is held, by how far that has come.

use core::time::Duration;
use lard_core::follow::{Follow, Gathered, Take};
use lard_core::http::HeadParser;
use lard_core::tcp::{Flags, Options, Segment, Seq};
use lard_core::time::Instant;

const BASE: Seq = Seq(u32::MAX - 20);
const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const FIN_ACK: Flags = Flags::FIN.with(Flags::ACK);

fn segment(seq: Seq, flags: Flags, len: usize) -> Segment {
    Segment {
        src_port: 1,
        dst_port: 2,
        seq,
        ack: Seq(0),
        flags,
        window: 1,
        header_len: 20,
        payload_len: len as u32,
        options: Options::default(),
    }
}

/// Behind the first request of a connection, with so much of the next one held.
fn holding(len: usize) -> Follow {
    let mut parser = HeadParser::new(4_096);
    parser.feed(GET);
    let mut follow = Follow::new(&parser, BASE, 4_096, false);
    let start = BASE.add(GET.len() as u32);
    follow.read(&mut [], &[]);
    follow.moved(start);
    let take = follow.on_segment(&segment(start, Flags::ACK, len));
    assert_eq!(take, Take::Gather(0));
    let held = &GET[..len];
    let ask = Duration::from_secs(1);
    let gathered = follow.gather(&mut [], held, 0, Instant::ZERO, ask, |_, _| Ok(()));
    assert_eq!(gathered == Gathered::Complete, len == GET.len());
    follow
}

#[test]
fn packets_that_come_while_a_request_is_held() {
    let gathering = holding(5);
    let asking = holding(GET.len());
    let mut releasing = asking.clone();
    let _ = releasing.release(Instant::FAR_FUTURE);
    let mut later = releasing.clone();
    assert!(later.ask_again(Instant::ZERO));
    let ack = Flags::ACK;
    let park = Take::Park;
    for (flags, from, len, expected) in [
        // An acknowledgement is for who has the connection: nobody knows while it is being released.
        (ack, 0, 0, [Take::Pass, Take::Pass, park, Take::Pass]),
        // More of what is held, and what is behind it.
        (ack, 0, 40, [Take::Gather(0), park, park, park]),
        (ack, 1, 40, [Take::Drop, park, park, park]),
        // Once more.
        (ack, -5, 5, [Take::Drop; 4]),
        (FIN_ACK, 0, 0, [Take::Stay, park, park, park]),
        (Flags::RST, 0, 0, [Take::Stay, Take::Stay, park, park]),
    ] {
        let stages = [&gathering, &asking, &releasing, &later];
        let takes = stages.map(|follow| {
            let (_, end) = follow.held();
            let seq = end.add(u32::from_ne_bytes(i32::to_ne_bytes(from)));
            follow.clone().on_segment(&segment(seq, flags, len))
        });
        assert_eq!(takes, expected, "{flags:?} at {from}, {len} bytes");
    }
}
