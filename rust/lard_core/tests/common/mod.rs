// SPDX-License-Identifier: GPL-2.0

//! What the TCP tests share: addresses, segments by hand, and a responder in each state.

#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part.

pub mod peer;
pub mod scenario;

use core::time::Duration;

use lard_core::addr::{Addr, Endpoint, Tuple};
use lard_core::tcp::{
    Accepted, Action, Config, Flags, Head, Options, Output, Responder, Secret, Segment, SegmentOut,
    Seq, Timestamp,
};
use lard_core::time::Instant;

pub const IRS: Seq = Seq(u32::MAX - 5);
pub const W: u16 = 0x4000;

pub fn secret() -> Secret {
    Secret::from_bytes(*b"sixteen byte key")
}

pub fn tuple() -> Tuple {
    Tuple::new(
        Endpoint::new(Addr::from_v4([192, 0, 2, 1]), 40_000),
        Endpoint::new(Addr::from_v4([198, 51, 100, 1]), 8_080),
    )
}

/// Well after boot, so that "before" exists.
pub fn start() -> Instant {
    Instant::from_millis(1_000_000)
}

pub fn after(t: Instant, ms: u64) -> Instant {
    t.saturating_add(Duration::from_millis(ms))
}

pub fn segment(seq: Seq, ack: Seq, flags: Flags, payload_len: u32) -> Segment {
    Segment {
        src_port: tuple().client.port,
        dst_port: tuple().vip.port,
        seq,
        ack,
        flags,
        window: W,
        header_len: 20,
        payload_len,
        options: Options::default(),
    }
}

pub fn with_ts(mut seg: Segment, val: u32) -> Segment {
    seg.options.ts = Some(Timestamp { val, ecr: 0 });
    seg
}

/// The SYN of a client with all options, as Linux sends it.
pub fn syn() -> Segment {
    let options = Options {
        mss: Some(1_460),
        wscale: Some(8),
        sack_perm: true,
        ts: Some(Timestamp { val: 1_000, ecr: 0 }),
        ..Options::default()
    };
    Segment {
        options,
        ..segment(IRS, Seq(0), Flags::SYN, 0)
    }
}

/// A responder in the middle of a test, with the counterpart's numbers.
pub struct Pair {
    pub cfg: Config,
    pub r: Responder,
    pub syn_ack: SegmentOut,
    pub now: Instant,
}

impl Pair {
    /// Half-open.
    pub fn half_open() -> Pair {
        Self::open(Config::default(), &syn())
    }

    pub fn open(cfg: Config, syn: &Segment) -> Pair {
        let now = start();
        let (r, syn_ack) = Responder::open(&cfg, &secret(), &tuple(), syn, None, now).unwrap();
        Pair {
            cfg,
            r,
            syn_ack,
            now,
        }
    }

    /// The handshake is complete.
    pub fn established() -> Pair {
        let mut p = Self::half_open();
        let ack = p.client(0, Flags::ACK, 0);
        assert_eq!(
            p.on(&ack),
            Output {
                send: None,
                action: Action::Done
            }
        );
        p
    }

    /// The head is complete; `len` bytes are stored.
    pub fn waiting(len: u32) -> Pair {
        let mut p = Self::established();
        let data = p.client(0, Flags::ACK, len);
        let out = p.on_stored(&data, Head::Complete);
        assert_eq!(
            out,
            Output {
                send: None,
                action: Action::HandOff { queue: false }
            }
        );
        p
    }

    /// The front-end has sent an own reply to a client that was still sending.
    pub fn replying() -> (Pair, SegmentOut) {
        let mut p = Self::established();
        let data = p.client(0, Flags::ACK, 10);
        let out = p.on_stored(&data, Head::Bad(lard_core::tcp::Status::BadRequest));
        assert_eq!(out.action, Action::Done);
        (p, out.send.unwrap())
    }

    /// A segment of the client, `offset` bytes into its stream, that acknowledges the SYN-ACK.
    pub fn client(&self, offset: u32, flags: Flags, len: u32) -> Segment {
        segment(IRS.add(1).add(offset), self.syn_ack.seq.add(1), flags, len)
    }

    pub fn on(&mut self, seg: &Segment) -> Output {
        self.r.on_segment(&self.cfg, seg, self.now)
    }

    #[track_caller]
    pub fn accept(&mut self, seg: &Segment) -> Accepted {
        match self.on(seg) {
            Output {
                send: None,
                action: Action::Store(part),
            } => part,
            other => panic!("not stored: {other:?}"),
        }
    }

    #[track_caller]
    pub fn on_stored(&mut self, seg: &Segment, head: Head) -> Output {
        let part = self.accept(seg);
        self.r.stored(&self.cfg, part, head, self.now)
    }

    pub fn wait_ms(&mut self, ms: u64) {
        self.now = after(self.now, ms);
    }

    pub fn timer(&mut self) -> Output {
        self.now = self.now.max(self.r.deadline());
        self.r.on_timer(&self.cfg, self.now)
    }
}

/// Did the segment go out as an acknowledgement of `offset` bytes?
#[track_caller]
pub fn assert_ack(p: &Pair, send: Option<SegmentOut>, offset: u32) {
    let s = send.expect("an acknowledgement");
    assert_eq!(s.flags, Flags::ACK);
    assert_eq!(
        s.ack,
        IRS.add(1).add(offset),
        "acknowledged {} bytes",
        s.ack.since(IRS.add(1))
    );
    assert!(s.payload.is_empty());
    let _ = p;
}
