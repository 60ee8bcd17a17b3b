// SPDX-License-Identifier: GPL-2.0

//! A small TCP to test against: go-back-N, in order only, no congestion control.
//!
//! It is written from RFC 9293 and shares nothing with the code under test but the reader of
//! headers. It plays the client, from its SYN on, and the back-end's kernel, from a hand-off on.

use core::time::Duration;

use lard_core::addr::{Endpoint, Tuple};
use lard_core::tcp::emit::checksum;
use lard_core::tcp::{Flags, Options, Segment, Seq, Snapshot, Timestamp};
use lard_core::time::Instant;

pub const RTO: Duration = Duration::from_millis(200);
const RTO_MAX: Duration = Duration::from_secs(4);
const GIVE_UP: u32 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    SynSent,
    Open,
    /// Reset by the other side, or given up.
    Dead,
}

pub struct Peer {
    pub tuple: Tuple,
    pub local_is_client: bool,
    pub phase: Phase,
    pub reset: bool,
    iss: Seq,
    una: Seq,
    nxt: Seq,
    pub rcv_nxt: Seq,
    /// What is to be sent, and whether a FIN follows.
    pub stream: Vec<u8>,
    pub fin: bool,
    /// How much of the stream the application has written so far.
    pub written: usize,
    pub got: Vec<u8>,
    pub got_fin: bool,
    mss: usize,
    peer_window: u32,
    peer_shift: u8,
    my_shift: u8,
    ts: bool,
    ts_recent: u32,
    clock_offset: u32,
    /// The highest TSval received: the other side's clock must not run back.
    pub rto_at: Instant,
    rto: Duration,
    tries: u32,
    syn_options: Options,
    pub out: Vec<Vec<u8>>,
}

impl Peer {
    pub fn client(tuple: Tuple, iss: Seq, options: Options, stream: Vec<u8>, fin: bool) -> Peer {
        Peer {
            tuple,
            local_is_client: true,
            phase: Phase::SynSent,
            reset: false,
            iss,
            una: iss,
            nxt: iss,
            rcv_nxt: Seq(0),
            written: stream.len(),
            stream,
            fin,
            got: Vec::new(),
            got_fin: false,
            mss: usize::from(options.mss.unwrap_or(536)),
            peer_window: 0,
            peer_shift: 0,
            my_shift: 0,
            ts: false,
            ts_recent: 0,
            clock_offset: 77_000,
            rto_at: Instant::FAR_FUTURE,
            rto: RTO,
            tries: 0,
            syn_options: options,
            out: Vec::new(),
        }
    }

    /// The back-end's socket as the snapshot describes it.
    pub fn adopt(tuple: Tuple, snap: &Snapshot, bytes: &[u8], now: Instant) -> Peer {
        let mut p = Peer::client(tuple, snap.iss, Options::default(), Vec::new(), false);
        p.local_is_client = false;
        p.phase = Phase::Open;
        p.una = snap.snd_nxt;
        p.nxt = snap.snd_nxt;
        p.rcv_nxt = snap.rcv_nxt;
        p.got = bytes.to_vec();
        p.got_fin = snap.fin;
        p.mss = usize::from(snap.mss);
        p.peer_shift = snap.snd_wscale;
        p.my_shift = snap.rcv_wscale;
        p.peer_window = u32::from(snap.window) << snap.snd_wscale;
        p.ts = snap.ts_ok;
        p.ts_recent = snap.ts_recent;
        p.clock_offset = snap.last_tsval.wrapping_sub(now.as_millis() as u32);
        p.ack(now);
        p
    }

    pub fn connect(&mut self, now: Instant) {
        self.nxt = self.iss.add(1);
        self.emit(self.iss, Flags::SYN, 0..0, now);
        self.arm(now);
    }

    /// Everything is sent and acknowledged, and the other side has closed.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Dead || (self.got_fin && self.fin && self.una == self.end())
    }

    /// The shift of the windows this side is told.
    pub fn shift(&self) -> u8 {
        self.peer_shift
    }

    /// The segment size the other side was told.
    pub fn mss_used(&self) -> u16 {
        self.syn_options.mss.unwrap_or(536)
    }

    fn end(&self) -> Seq {
        self.iss
            .add(1)
            .add(self.stream.len() as u32)
            .add(u32::from(self.fin))
    }

    pub fn send_reset(&mut self, now: Instant) {
        self.emit(self.nxt, Flags::RST, 0..0, now);
        self.phase = Phase::Dead;
        self.rto_at = Instant::FAR_FUTURE;
    }

    pub fn on_packet(&mut self, bytes: &[u8], now: Instant) {
        let (src, dst) = self.far_near();
        assert_eq!(checksum(src.addr, dst.addr, bytes), 0, "bad checksum");
        let seg = Segment::parse(bytes, bytes.len()).expect("a segment");
        assert_eq!((seg.src_port, seg.dst_port), (src.port, dst.port));
        let payload = &bytes[usize::from(seg.header_len)..];
        match self.phase {
            Phase::SynSent => self.on_syn_ack(&seg, now),
            Phase::Open => self.on_segment(&seg, payload, now),
            Phase::Dead => {
                if !seg.is_rst() && !self.reset {
                    self.emit(seg.ack, Flags::RST, 0..0, now);
                }
            }
        }
    }

    fn on_syn_ack(&mut self, seg: &Segment, now: Instant) {
        if !seg.flags.contains(Flags::ACK) || seg.ack != self.nxt {
            if seg.flags.contains(Flags::ACK) && !seg.is_rst() {
                self.emit(seg.ack, Flags::RST, 0..0, now);
            }
            return;
        }
        if seg.is_rst() {
            self.die(true);
            return;
        }
        if !seg.flags.contains(Flags::SYN) {
            return;
        }
        self.phase = Phase::Open;
        self.una = seg.ack;
        self.rcv_nxt = seg.seq.add(1);
        self.mss = self.mss.min(usize::from(seg.options.mss.unwrap_or(536)));
        if let (Some(theirs), Some(mine)) = (seg.options.wscale, self.syn_options.wscale) {
            self.peer_shift = theirs;
            self.my_shift = mine;
        }
        assert!(seg.options.wscale.is_none() || self.syn_options.wscale.is_some());
        assert!(!seg.options.sack_perm || self.syn_options.sack_perm);
        if let Some(ts) = seg.options.ts {
            assert!(self.syn_options.ts.is_some());
            self.ts = true;
            self.ts_recent = ts.val;
        }
        self.peer_window = u32::from(seg.window);
        self.tries = 0;
        self.rto = RTO;
        self.ack(now);
        self.push(now);
    }

    fn on_segment(&mut self, seg: &Segment, payload: &[u8], now: Instant) {
        if let (Some(ts), true) = (seg.options.ts, self.ts) {
            if !seg.is_rst() && Seq(self.ts_recent).after(Seq(ts.val)) {
                self.ack(now);
                return;
            }
        }
        if seg.is_rst() {
            if seg.seq == self.rcv_nxt {
                self.die(true);
            } else if seg.seq.after(self.rcv_nxt) {
                self.ack(now);
            }
            return;
        }
        if seg.flags.contains(Flags::SYN) || seg.seq.after(self.rcv_nxt.add(1 << 20)) {
            self.ack(now);
            return;
        }
        if seg.ack.after(self.nxt) {
            self.ack(now);
            return;
        }
        if let (Some(ts), true) = (seg.options.ts, self.ts) {
            if !seg.seq.after(self.rcv_nxt) {
                self.ts_recent = ts.val;
            }
        }
        if seg.ack.after(self.una) {
            self.una = seg.ack;
            self.tries = 0;
            self.rto = RTO;
            self.arm(now);
        }
        if !seg.ack.before(self.una) {
            self.peer_window = u32::from(seg.window) << self.peer_shift;
        }
        if !payload.is_empty() || seg.is_fin() {
            self.receive(seg, payload);
            self.ack(now);
        }
        self.push(now);
    }

    fn receive(&mut self, seg: &Segment, payload: &[u8]) {
        if seg.seq.after(self.rcv_nxt) || self.got_fin {
            return;
        }
        let skip = self.rcv_nxt.since(seg.seq) as usize;
        if let Some(new) = payload.get(skip..) {
            self.got.extend_from_slice(new);
            self.rcv_nxt = self.rcv_nxt.add(new.len() as u32);
            if seg.is_fin() {
                self.got_fin = true;
                self.rcv_nxt = self.rcv_nxt.add(1);
            }
        }
    }

    /// Sends what the window and the application allow.
    pub fn push(&mut self, now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        let base = self.iss.add(1);
        let edge = self.una.add(self.peer_window);
        loop {
            let at = self.nxt.since(base) as usize;
            if at > self.written {
                break;
            }
            let room = if edge.after(self.nxt) {
                edge.since(self.nxt) as usize
            } else {
                0
            };
            let len = (self.written - at).min(self.mss).min(room);
            let last = at + len == self.stream.len();
            let fin = last && self.fin && room > len;
            if len == 0 && !fin {
                break;
            }
            let mut flags = Flags::ACK;
            if fin {
                flags = flags.with(Flags::FIN);
            }
            if last {
                flags = flags.with(Flags::PSH);
            }
            let seq = self.nxt;
            self.nxt = self.nxt.add(len as u32 + u32::from(fin));
            self.emit(seq, flags, at..at + len, now);
            if self.rto_at == Instant::FAR_FUTURE {
                self.arm(now);
            }
            if fin {
                break;
            }
        }
    }

    pub fn on_timer(&mut self, now: Instant) {
        if now < self.rto_at {
            return;
        }
        self.tries += 1;
        if self.tries > GIVE_UP {
            self.die(false);
            return;
        }
        self.rto = (self.rto * 2).min(RTO_MAX);
        if self.phase == Phase::SynSent {
            self.emit(self.iss, Flags::SYN, 0..0, now);
        } else {
            // Go back; with a closed window, probe it.
            self.nxt = self.una;
            let window = self.peer_window;
            self.peer_window = window.max(1);
            self.push(now);
            self.peer_window = window;
        }
        self.rto_at = now.saturating_add(self.rto);
    }

    fn arm(&mut self, now: Instant) {
        let pending = self.una != self.nxt || self.una != self.end();
        self.rto_at = if pending {
            now.saturating_add(self.rto)
        } else {
            Instant::FAR_FUTURE
        };
    }

    fn die(&mut self, reset: bool) {
        self.phase = Phase::Dead;
        self.reset = reset;
        self.rto_at = Instant::FAR_FUTURE;
    }

    pub fn ack(&mut self, now: Instant) {
        self.emit(self.nxt, Flags::ACK, 0..0, now);
    }

    fn far_near(&self) -> (Endpoint, Endpoint) {
        match self.local_is_client {
            true => (self.tuple.vip, self.tuple.client),
            false => (self.tuple.client, self.tuple.vip),
        }
    }

    fn emit(&mut self, seq: Seq, flags: Flags, range: std::ops::Range<usize>, now: Instant) {
        let (far, near) = self.far_near();
        let mut options = match self.phase {
            Phase::SynSent => self.syn_options,
            Phase::Open | Phase::Dead => Options::default(),
        };
        let clock = (now.as_millis() as u32).wrapping_add(self.clock_offset);
        let uses_ts = self.ts || (self.phase == Phase::SynSent && options.ts.is_some());
        options.ts = uses_ts.then_some(Timestamp {
            val: clock,
            ecr: self.ts_recent,
        });
        let mut flags = flags;
        if self.phase == Phase::Open {
            flags = flags.with(Flags::ACK);
        }
        let ack = if flags.contains(Flags::ACK) {
            self.rcv_nxt
        } else {
            Seq(0)
        };
        let mut bytes = vec![0u8; 20];
        bytes[0..2].copy_from_slice(&near.port.to_be_bytes());
        bytes[2..4].copy_from_slice(&far.port.to_be_bytes());
        bytes[4..8].copy_from_slice(&seq.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&ack.0.to_be_bytes());
        bytes[14..16].copy_from_slice(&0x7fffu16.to_be_bytes());
        bytes[13] = flags.0;
        let mut buf = [0; Options::MAX_EMITTED];
        let n = options.emit(&mut buf).unwrap();
        bytes.extend_from_slice(&buf[..n]);
        bytes[12] = (bytes.len() as u8 / 4) << 4;
        bytes.extend_from_slice(&self.stream[range]);
        let sum = checksum(near.addr, far.addr, &bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        self.out.push(bytes);
    }
}
