// SPDX-License-Identifier: GPL-2.0

//! The responder in the hands of somebody who means no good: arbitrary configurations, segments near
//! and far, control messages and timers in any order. It stays within its bounds, keeps its promises
//! and comes to an end.

mod common;

use common::*;
use lard_core::tcp::{
    reset_for, Action, Config, Flags, Head, Options, Output, Responder, Segment, SegmentOut, Seq,
    Status, Timestamp,
};
use lard_core::time::Instant;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// Relative to what is expected next, so that most of them get somewhere.
    Segment {
        seq: i32,
        ack: i32,
        flags: u8,
        len: u32,
        ts: Option<u32>,
        window: u16,
    },
    Wild {
        seq: u32,
        ack: u32,
        flags: u8,
        len: u32,
    },
    Timer,
    Wait(u64),
    Snapshot,
    Refused,
    Fail,
}

fn near() -> impl Strategy<Value = i32> {
    prop_oneof![8 => Just(0), 3 => -2..3i32, 2 => -3_000..70_000i32, 1 => any::<i32>()]
}

fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![10 => Just(0x10), 4 => Just(0x18), 3 => Just(0x11), 2 => Just(0x02), 2 => Just(0x04),
        1 => Just(0x14), 2 => any::<u8>()]
}

fn op() -> impl Strategy<Value = Op> {
    let len = || prop_oneof![Just(0), 1..2_000u32, 0..200_000u32];
    prop_oneof![
        20 => (near(), near(), flags(), len(), any::<Option<u32>>(), any::<u16>()).prop_map(
            |(seq, ack, flags, len, ts, window)| Op::Segment { seq, ack, flags, len, ts, window }),
        2 => (any::<u32>(), any::<u32>(), any::<u8>(), len())
            .prop_map(|(seq, ack, flags, len)| Op::Wild { seq, ack, flags, len }),
        1 => Just(Op::Timer),
        2 => (0..10_000u64).prop_map(Op::Wait),
        2 => Just(Op::Snapshot),
        2 => Just(Op::Refused),
        1 => Just(Op::Fail),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    (
        any::<u32>(),
        any::<u32>(),
        any::<Option<u8>>(),
        any::<u16>(),
        any::<u32>(),
        any::<bool>(),
    )
        .prop_flat_map(|(space, slack, wscale, mss, limit, flag)| {
            let wild = Config {
                back_end_space: space,
                rewrite_slack: slack,
                wscale,
                mss,
                head_limit: limit,
                sack: flag,
                timestamps: !flag,
                ..Config::default()
            };
            prop_oneof![3 => Just(Config::default()), 1 => Just(wild)]
        })
}

/// What the tests know about the connection.
struct Watch {
    cfg: Config,
    iss: Seq,
    bound: u32,
    window: u32,
    shift: u8,
    heads: Vec<u8>,
    deleted: bool,
}

impl Watch {
    fn next_head(&mut self) -> Head {
        match self.heads.pop() {
            Some(0) => Head::Complete,
            Some(1) => Head::Bad(Status::BadRequest),
            Some(_) | None => Head::Partial,
        }
    }

    /// Checks and obeys an output.
    fn obey(&mut self, r: &mut Responder, out: Output, len: u32, was_waiting: bool, now: Instant) {
        if let Some(s) = &out.send {
            self.sent(r, s, was_waiting);
        }
        match out.action {
            Action::Store(part) => {
                assert_eq!(out.send, None);
                assert_eq!(part.position(), r.received());
                assert!(!part.is_empty());
                assert!(part
                    .offset()
                    .checked_add(part.len())
                    .is_some_and(|end| end <= len));
                assert!(part.position() + part.len() <= self.bound);
                if self.heads.last() == Some(&2) {
                    r.speaks_http2();
                }
                let head = self.next_head();
                let out = r.stored(&self.cfg, part, head, now);
                assert!(!matches!(out.action, Action::Store(_)));
                self.obey(r, out, len, false, now);
            }
            Action::HandOff { .. } => {
                assert_eq!(out.send, None);
                assert!(r.is_waiting() && r.received() > 0);
            }
            Action::Queue => assert!(r.is_waiting()),
            Action::Delete(_) => self.deleted = true,
            Action::Restart { min_iss } => {
                assert!(r.is_closing() && min_iss.after(self.iss));
            }
            Action::Done | Action::Drop(_) => {}
        }
        assert!(r.is_closing() || r.received() <= self.bound);
    }

    fn sent(&self, r: &Responder, s: &SegmentOut, was_waiting: bool) {
        let reset = s.flags.contains(Flags::RST);
        assert!(
            !was_waiting || reset || r.is_closing(),
            "spoke while waiting: {s:?}"
        );
        if !r.is_closing() && !reset {
            assert!(s.ack.since(IRS.add(1)) <= r.received() + 1);
            let shift = if s.flags.contains(Flags::SYN) {
                0
            } else {
                self.shift
            };
            let edge = s.ack.since(IRS.add(1)) + (u32::from(s.window) << shift);
            assert!(
                edge <= self.window,
                "right edge at {edge} of {}",
                self.window
            );
        }
        let mut buf = [0; SegmentOut::MAX_LEN];
        assert!(s.emit(&tuple(), &mut buf).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_keeps_its_promises_whatever_comes(
        cfg in config(),
        ops in proptest::collection::vec(op(), 1..60),
        heads in proptest::collection::vec(0u8..6, 0..30),
        offers in any::<bool>(),
    ) {
        let options = if offers { syn().options } else { Options::default() };
        let first = Segment { options, ..syn() };
        let p = Pair::open(cfg, &first);
        let (mut r, mut now) = (p.r, p.now);
        let w = cfg.window(options.mss.unwrap_or(536).max(536));
        let bound = w.size.min(cfg.head_limit);
        let shift = p.syn_ack.options.wscale.unwrap_or(0);
        prop_assert!(shift == 0 || shift == w.shift);
        let iss = p.syn_ack.seq;
        let mut watch = Watch { cfg, iss, bound, window: w.size, shift, heads, deleted: false };
        for op in ops {
            let waiting = r.is_waiting();
            let (out, len) = match op {
                Op::Segment { seq, ack, flags, len, ts, window } => {
                    let seq = IRS.add(1).add(r.received()).add(seq as u32);
                    let ack = p.syn_ack.seq.add(1).add(ack as u32);
                    let mut seg = Segment { window, ..segment(seq, ack, Flags(flags), len) };
                    seg.options.ts = ts.map(|val| Timestamp { val, ecr: 0 });
                    let _ = reset_for(&seg);
                    (r.on_segment(&cfg, &seg, now), len)
                }
                Op::Wild { seq, ack, flags, len } => {
                    let seg = segment(Seq(seq), Seq(ack), Flags(flags), len);
                    (r.on_segment(&cfg, &seg, now), len)
                }
                Op::Timer => {
                    now = now.max(r.deadline());
                    (r.on_timer(&cfg, now), 0)
                }
                Op::Wait(ms) => {
                    now = after(now, ms);
                    continue;
                }
                Op::Snapshot => {
                    if let Some(snap) = r.snapshot(&cfg, now) {
                        prop_assert!(waiting);
                        prop_assert_eq!(snap.len(), r.received());
                        prop_assert!(snap.len() <= bound);
                    }
                    continue;
                }
                Op::Refused => {
                    r.refused();
                    continue;
                }
                Op::Fail => (r.fail(Status::ServiceUnavailable, now), 0),
            };
            watch.obey(&mut r, out, len, waiting, now);
            if watch.deleted {
                return Ok(());
            }
        }
        // Left alone, it ends.
        for _ in 0..12 {
            now = now.max(r.deadline());
            let waiting = r.is_waiting();
            let out = r.on_timer(&cfg, now);
            watch.obey(&mut r, out, 0, waiting, now);
            if watch.deleted {
                return Ok(());
            }
        }
        prop_assert!(false, "it lives for ever: {:?}", r);
    }
}
