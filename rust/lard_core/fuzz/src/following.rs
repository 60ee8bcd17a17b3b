// SPDX-License-Identifier: GPL-2.0

//! A connection that may move, driven by a script, against the naive reading of its whole stream.

use super::oracle::{self, Said};
use lard_core::follow::{Follow, Gathered, Take};
use lard_core::http::{HeadParser, Status};
use lard_core::tcp::{Flags, Options, Segment, Seq};
use lard_core::time::Instant;
use std::time::Duration;

const LIMIT: usize = 512;

/// What is held of one request, at most.
const HELD: usize = 400;

/// A client's stream behind a script: a byte that says how long the script is, the script, the stream.
/// The script cuts the stream into segments, sends some of them twice, and answers for the dispatcher
/// and the back-ends.
pub fn follow(data: &[u8]) {
    let Some((len, rest)) = data.split_first() else {
        return;
    };
    let (script, stream) = rest.split_at(rest.len().min(usize::from(*len)));
    let mut parser = HeadParser::new(LIMIT);
    let Status::Complete(head) = parser.feed(stream) else {
        return;
    };
    let said = oracle::read(stream, LIMIT);
    let requests = said.iter().filter_map(|said| match said {
        Said::Request { begin, end } => Some((*begin, *end)),
        _ => None,
    });
    let mut run = Run {
        stream,
        requests: requests.collect(),
        script: script.iter(),
        base: Seq(u32::MAX - 300),
        follow: None,
        child: 0,
        delivered: head,
        held: Vec::new(),
        parked: Vec::new(),
    };
    // Its first byte is that of the method, as the front-end gives it.
    let mut follow = Follow::new(&parser, run.base, LIMIT, false);
    let behind = run.next_of(stream.len() - head + 1);
    follow.read(&mut [], &stream[head..head + behind]);
    run.delivered += behind;
    run.keep(follow);
    run.go();
    let is_pinned = run.follow.as_ref().is_none_or(|f| f.pinned().is_some());
    if run.delivered == stream.len() && matches!(said.last(), Some(Said::Pinned(_))) {
        assert!(is_pinned, "{said:?}");
    }
}

struct Run<'a> {
    stream: &'a [u8],
    /// Where heads begin and end.
    requests: Vec<(usize, usize)>,
    script: std::slice::Iter<'a, u8>,
    base: Seq,
    /// None once the connection stays where it is.
    follow: Option<Follow>,
    /// Where what the present child got begins, and where it ends.
    child: usize,
    delivered: usize,
    held: Vec<u8>,
    /// Packets that wait: where they begin, and how long they are.
    parked: Vec<(usize, usize)>,
}

impl Run<'_> {
    fn next_of(&mut self, n: usize) -> usize {
        self.script.next().map_or(0, |b| usize::from(*b) % n)
    }

    /// The place in the stream of a sequence number.
    fn place(&self, seq: Seq) -> usize {
        seq.since(self.base) as usize
    }

    fn keep(&mut self, follow: Follow) {
        let over = follow.pinned().is_some() && self.held.is_empty();
        self.follow = (!over).then_some(follow);
    }

    fn go(&mut self) {
        while let Some(step) = self.script.next() {
            let (what, size) = (step % 8, usize::from(step / 8) * 7 + 1);
            let waits = self.parked.iter().map(|(at, len)| at + len).max();
            let next = waits.unwrap_or(self.delivered).max(self.delivered);
            // Now and then what was sent before.
            let at = match what {
                0 => next.saturating_sub(size / 2),
                _ => next,
            };
            let len = size.min(self.stream.len() - at);
            if len > 0 && what != 7 {
                self.packet((at, len), true);
            }
            self.answer(what);
        }
    }

    fn packet(&mut self, packet: (usize, usize), may_hold: bool) {
        let (at, len) = packet;
        let Some(mut follow) = self.follow.take() else {
            return self.pass(packet);
        };
        let segment = Segment {
            src_port: 1,
            dst_port: 2,
            seq: self.base.add(at as u32),
            ack: Seq(0),
            flags: Flags::ACK,
            window: 1,
            header_len: 20,
            payload_len: len as u32,
            options: Options::default(),
        };
        match follow.on_segment(&segment) {
            Take::Pass => self.pass(packet),
            Take::Read(offset) => {
                self.read(&mut follow, packet, offset as usize);
                self.pass(packet);
            }
            Take::Gather(offset) => {
                let (start, offset) = (at + offset as usize, offset as usize);
                if self.held.is_empty() && !may_hold {
                    follow.stay();
                    self.read(&mut follow, packet, offset);
                    self.pass(packet);
                } else {
                    return self.gather(follow, packet, start);
                }
            }
            Take::Park => self.parked.push(packet),
            Take::Drop => {}
            Take::Stay => unreachable!("no RST and no FIN is sent"),
        }
        self.keep(follow);
    }

    fn pass(&mut self, (at, len): (usize, usize)) {
        assert!(at <= self.delivered, "a gap");
        self.delivered = self.delivered.max(at + len);
    }

    fn read(&mut self, follow: &mut Follow, (at, len): (usize, usize), offset: usize) {
        let mut left = &self.stream[at + offset..at + len];
        while !left.is_empty() && follow.pinned().is_none() {
            let skip = follow.skippable().min(left.len() as u64) as usize;
            let n = match skip {
                0 => left.len().min(1 + self.next_of(20)),
                skip => skip,
            };
            match skip {
                0 => drop(follow.read(&mut [], &left[..n])),
                skip => follow.skip(skip as u64),
            }
            left = &left[n..];
        }
    }

    fn gather(&mut self, mut follow: Follow, packet: (usize, usize), start: usize) {
        let end = packet.0 + packet.1;
        let from = self.held.len();
        let new = &self.stream[start..end];
        let new = &new[..new.len().min(HELD - from)];
        self.parked.push(packet);
        if new.is_empty() {
            return self.stay(follow);
        }
        self.held.extend_from_slice(new);
        let begin = self.place(follow.held().0);
        assert_eq!(
            begin + self.held.len(),
            start + new.len(),
            "not in one piece"
        );
        let (stream, requests) = (self.stream, &self.requests);
        let first = |head: &[u8], _: &HeadParser| {
            let known = requests.iter().find(|(at, _)| *at == begin);
            let (begin, end) = known.expect("no request begins here");
            assert_eq!(head, &stream[*begin..*end]);
            Ok(())
        };
        let second = Duration::from_secs(1);
        match follow.gather(&mut [], &self.held, from, Instant::ZERO, second, first) {
            Gathered::Partial => self.keep(follow),
            Gathered::Complete => {
                let whole =
                    |(at, end): &&(usize, usize)| *at >= begin && *end <= begin + self.held.len();
                let batch = self.requests.iter().filter(whole).count();
                let counted = usize::from(follow.batch());
                // Behind what cannot be followed nothing is counted.
                let is_pinned = follow.pinned().is_some();
                assert!(counted == batch || is_pinned && counted < batch);
                self.keep(follow);
            }
            Gathered::Stays => self.stay(follow),
        }
    }

    fn stay(&mut self, mut follow: Follow) {
        follow.stay();
        self.held.clear();
        self.keep(follow);
        for packet in std::mem::take(&mut self.parked) {
            self.packet(packet, false);
        }
    }

    /// What the dispatcher and the back-end say.
    fn answer(&mut self, what: u8) {
        let Some(mut follow) = self.follow.take() else {
            return;
        };
        if follow.is_asking() && what != 1 {
            if what == 2 && !follow.must_hand_over() {
                return self.stay(follow);
            }
            let (start, given) = follow.release(Instant::FAR_FUTURE);
            let start = self.place(start);
            let before = |(at, _): &&(usize, usize)| (self.child..start).contains(at);
            assert_eq!(given as usize, self.requests.iter().filter(before).count());
            assert_eq!(start, self.delivered, "something is under way");
        } else if follow.is_releasing() && what != 1 {
            if what == 3 {
                return self.stay(follow);
            }
            follow.moved(follow.held().1);
            self.child = self.delivered;
            assert!(self.requests.iter().any(|(at, _)| *at == self.child));
            self.delivered += std::mem::take(&mut self.held).len();
            self.keep(follow);
            for (at, len) in std::mem::take(&mut self.parked) {
                if at + len > self.delivered {
                    self.packet((at, len), false);
                }
            }
            return;
        }
        self.follow = Some(follow);
    }
}
