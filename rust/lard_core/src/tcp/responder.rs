// SPDX-License-Identifier: GPL-2.0

//! The responder: one connection from its SYN until it is handed over or ended.
//!
//! The caller passes segments and the time in, and gets at most one segment to send and one
//! [`Action`] back. The bytes of the head lie in a buffer of the caller; the responder only says
//! which part of which segment belongs there.
//!
//! This file holds the state, the entrances and the tests that every segment has to pass (RFC 9293,
//! 3.10.7; RFC 5961; RFC 7323, 5). `collect` and `closing` hold what the states do with it.

use core::time::Duration;

use super::super::addr::Tuple;
use super::super::time::Instant;
use super::action::{Action, Output};
use super::config::Config;
use super::emit::{reset_for, SegmentOut};
use super::isn::{ts_clock, Secret};
use super::options::{Options, Timestamp, MAX_WSCALE};
use super::reason::Reason;
use super::reply::{Sender, Status};
use super::segment::{Flags, Segment};
use super::seq::{ts_newer, Seq};
use super::snapshot::{Resume, Snapshot};

/// At most one answer to segments without data that fall out of the window in this time, as Linux'
/// `tcp_invalid_ratelimit`: two ends that disagree must not answer each other for ever.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

/// What handshake and options have settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Negotiated {
    pub(super) mss: u16,
    pub(super) snd_wscale: u8,
    pub(super) wscale_ok: bool,
    pub(super) sack_ok: bool,
    pub(super) ts_ok: bool,
    pub(super) ts_recent: u32,
    pub(super) window: u16,
}

impl Negotiated {
    /// What follows from a SYN: each option only if the client offers it and the back-ends can.
    pub(super) fn from_syn(cfg: &Config, tuple: &Tuple, seg: &Segment) -> Result<Self, Reason> {
        if !seg.is_syn() {
            return Err(Reason::BadFlags);
        }
        let o = &seg.options;
        if o.md5_or_ao {
            return Err(Reason::Signed);
        }
        let ts = o.ts.filter(|_| cfg.timestamps);
        let snd_wscale = o.wscale.filter(|_| cfg.wscale.is_some());
        Ok(Negotiated {
            mss: Config::client_mss(o.mss, tuple.client.addr.is_v4()),
            snd_wscale: snd_wscale.unwrap_or(0),
            wscale_ok: snd_wscale.is_some(),
            sack_ok: o.sack_perm && cfg.sack,
            ts_ok: ts.is_some(),
            ts_recent: ts.map_or(0, |ts| ts.val),
            window: seg.window,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The SYN-ACK is out.
    SynReceived,
    /// The handshake is complete, the head is not.
    Collecting,
    /// The head is complete; a node is being looked for.
    Waiting,
    /// A snapshot was taken; silence.
    HandedOff,
    /// The front-end ends the connection itself.
    Closing(Sender),
    /// The connection has ended, its tuple is not free yet.
    TimeWait {
        /// The client's FIN has arrived.
        peer_closed: bool,
    },
}

/// A connection that the front-end answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responder {
    pub(super) state: State,
    /// When [`Responder::on_timer`] has something to do.
    pub(super) deadline: Instant,
    /// Before this no unasked-for acknowledgement goes out.
    next_challenge: Instant,
    pub(super) irs: Seq,
    pub(super) iss: Seq,
    /// The next number of this side: the SYN counts, and so do a reply and its FIN.
    pub(super) snd_nxt: Seq,
    /// The next number expected of the client.
    pub(super) rcv_nxt: Seq,
    /// The newest acknowledgement sent.
    pub(super) acked: Seq,
    /// `W0`.
    pub(super) window: u32,
    ts_recent: u32,
    ts_offset: u32,
    last_tsval: u32,
    mss: u16,
    pub(super) peer_window: u16,
    snd_wscale: u8,
    rcv_wscale: u8,
    wscale_ok: bool,
    sack_ok: bool,
    ts_ok: bool,
    /// The client's FIN is consumed.
    pub(super) fin: bool,
    /// The client speaks HTTP/2.
    pub(super) http2: bool,
}

impl Responder {
    /// A SYN arrives for a tuple that is free, or was just freed by [`Action::Restart`] or
    /// [`super::OnSyn::Replace`], which say what `min_iss` is. Gives the entry and the SYN-ACK.
    pub fn open(
        cfg: &Config,
        secret: &Secret,
        tuple: &Tuple,
        seg: &Segment,
        min_iss: Option<Seq>,
        now: Instant,
    ) -> Result<(Responder, SegmentOut), Reason> {
        let negotiated = Negotiated::from_syn(cfg, tuple, seg)?;
        let iss = secret.isn(tuple, min_iss, now);
        let mut r = Self::with(cfg, secret, tuple, seg.seq, iss, &negotiated, now);
        let syn_ack = r.syn_ack(cfg, now);
        Ok((r, syn_ack))
    }

    pub(super) fn with(
        cfg: &Config,
        secret: &Secret,
        tuple: &Tuple,
        irs: Seq,
        iss: Seq,
        n: &Negotiated,
        now: Instant,
    ) -> Responder {
        let window = cfg.window(n.mss);
        let ts_offset = secret.ts_offset(tuple);
        Responder {
            state: State::SynReceived,
            deadline: now.saturating_add(cfg.half_open_timeout),
            next_challenge: now,
            irs,
            iss,
            snd_nxt: iss.add(1),
            rcv_nxt: irs.add(1),
            acked: irs.add(1),
            window: window.size,
            ts_recent: n.ts_recent,
            ts_offset,
            last_tsval: ts_clock(now).wrapping_add(ts_offset),
            mss: n.mss,
            peer_window: n.window,
            snd_wscale: n.snd_wscale,
            rcv_wscale: if n.wscale_ok { window.shift } else { 0 },
            wscale_ok: n.wscale_ok,
            sack_ok: n.sack_ok,
            ts_ok: n.ts_ok,
            fin: false,
            http2: false,
        }
    }

    /// A back-end has given the connection up, and `received` bytes of the client's next request are
    /// stored: it waits for a hand-off, as after its first head. `of` is what was settled when it was
    /// handed over for the first time.
    pub fn resume(cfg: &Config, of: &Snapshot, at: &Resume, now: Instant) -> Responder {
        Responder {
            state: State::Waiting,
            deadline: now.saturating_add(cfg.handoff_timeout),
            next_challenge: now,
            // As if the connection began here: the sequence numbers of the two SYNs would be these.
            irs: at.start.sub(1),
            iss: at.snd_nxt.sub(1),
            snd_nxt: at.snd_nxt,
            rcv_nxt: at.start.add(at.received),
            acked: at.start,
            window: cfg.window(of.mss).size.max(at.received),
            ts_recent: at.ts_recent,
            ts_offset: at.tsval.wrapping_sub(ts_clock(now)),
            last_tsval: at.tsval,
            mss: of.mss,
            peer_window: at.window,
            snd_wscale: of.snd_wscale,
            rcv_wscale: of.rcv_wscale,
            wscale_ok: of.wscale_ok,
            sack_ok: of.sack_ok,
            ts_ok: of.ts_ok,
            fin: false,
            http2: false,
        }
    }

    /// A segment arrives for this entry.
    pub fn on_segment(&mut self, cfg: &Config, seg: &Segment, now: Instant) -> Output {
        if let Err(reason) = seg.check_flags() {
            return Output::drop(reason);
        }
        if seg.options.md5_or_ao {
            return Output::drop(Reason::Signed);
        }
        match self.state {
            State::SynReceived => self.half_open(cfg, seg, now),
            State::Collecting => self.collect(cfg, seg, now),
            State::Waiting => self.wait(seg, false),
            State::HandedOff => self.wait(seg, true),
            State::Closing(sender) => self.close(cfg, sender, seg, now),
            State::TimeWait { peer_closed } => self.time_wait(cfg, peer_closed, seg, now),
        }
    }

    /// The client speaks HTTP/2, and a server can tell better than this what follows: the connection is
    /// handed over even if its first request is not complete, where another one would be answered, and
    /// [`Config::http2_wait`] later at the latest. Replies are frames.
    pub fn speaks_http2(&mut self) {
        self.http2 = true;
    }

    /// When [`Responder::on_timer`] wants to be called.
    #[inline]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Time has passed. Harmless before the deadline.
    pub fn on_timer(&mut self, cfg: &Config, now: Instant) -> Output {
        if now < self.deadline {
            return Output::done();
        }
        match self.state {
            State::SynReceived => Output::delete(None, Reason::HalfOpenExpired),
            // A client that has said nothing is not told that it was slow: it would take the answer
            // for that to its next request.
            State::Collecting if self.received() == 0 => self.begin_close(None, now),
            State::Collecting if self.http2 => self.hand_off(cfg, false, now),
            State::Collecting => self.begin_close(Some(Status::RequestTimeout), now),
            State::Waiting => self.begin_close(Some(Status::ServiceUnavailable), now),
            // The back-end may be answering; a second answer would mix with the first.
            State::HandedOff => Output::delete(Some(self.abort()), Reason::HandoffSilent),
            State::Closing(sender) => self.close_timer(cfg, sender, now),
            State::TimeWait { .. } => Output::delete(None, Reason::ReplyDelivered),
        }
    }

    /// The state to hand over. From here on the responder sends nothing, until the hand-off is
    /// [`refused`](Responder::refused). The back-end has the whole of `handoff_timeout` to answer,
    /// however long the assignment took. `None` unless the head is complete.
    pub fn snapshot(&mut self, cfg: &Config, now: Instant) -> Option<Snapshot> {
        match self.state {
            State::Waiting | State::HandedOff => {
                self.state = State::HandedOff;
                self.deadline = now.saturating_add(cfg.handoff_timeout);
            }
            State::SynReceived | State::Collecting | State::Closing(_) | State::TimeWait { .. } => {
                return None
            }
        }
        Some(Snapshot {
            irs: self.irs,
            iss: self.iss,
            snd_nxt: self.snd_nxt,
            rcv_nxt: self.rcv_nxt,
            mss: self.mss,
            snd_wscale: self.snd_wscale,
            rcv_wscale: self.rcv_wscale,
            wscale_ok: self.wscale_ok,
            sack_ok: self.sack_ok,
            ts_ok: self.ts_ok,
            fin: self.fin,
            ts_recent: self.ts_recent,
            last_tsval: if self.ts_ok { self.last_tsval } else { 0 },
            window: self.peer_window,
        })
    }

    /// The back-end has refused, or the hand-off never left the node: another one may be tried.
    pub fn refused(&mut self) {
        if self.state == State::HandedOff {
            self.state = State::Waiting;
        }
    }

    /// No node has room for the connection yet: it waits until then before it is answered with 503.
    /// Nothing changes unless a node is being looked for.
    pub fn wait_until(&mut self, deadline: Instant) {
        if self.state == State::Waiting {
            self.deadline = deadline;
        }
    }

    /// Ends the connection with a reply of the front-end. Only for hand-offs that no back-end can
    /// have adopted. A client that has not completed the handshake is reset; a connection that is
    /// ending already goes on doing so.
    pub fn fail(&mut self, status: Status, now: Instant) -> Output {
        match self.state {
            State::SynReceived => Output::delete(Some(self.abort()), Reason::HalfOpenExpired),
            State::Collecting | State::Waiting | State::HandedOff => {
                self.begin_close(Some(status), now)
            }
            State::Closing(_) | State::TimeWait { .. } => Output::done(),
        }
    }

    /// The reset that ends the connection for the client. The entry is to be removed afterwards.
    pub fn abort(&self) -> SegmentOut {
        SegmentOut {
            seq: self.snd_nxt,
            ack: self.acked,
            flags: Flags::RST.with(Flags::ACK),
            window: 0,
            options: Options::default(),
            payload: &[],
        }
    }

    /// The handshake is not complete.
    pub const fn is_half_open(&self) -> bool {
        matches!(self.state, State::SynReceived)
    }

    /// The head is complete and no back-end has adopted the connection.
    pub const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting | State::HandedOff)
    }

    /// The front-end is ending the connection itself: the stored bytes are not needed any more.
    pub const fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_) | State::TimeWait { .. })
    }

    /// Has the client closed its direction?
    #[inline]
    pub const fn has_fin(&self) -> bool {
        self.fin
    }

    /// The number of the client's first byte.
    pub const fn first(&self) -> Seq {
        self.irs.add(1)
    }

    /// How many bytes are stored.
    pub const fn received(&self) -> u32 {
        self.rcv_nxt
            .since(self.irs.add(1))
            .saturating_sub(self.fin as u32)
    }

    /// The tests every segment of a synchronised connection has to pass, in the order of RFC 9293
    /// with those of RFC 7323 and RFC 5961. `Err` is the answer to one that does not.
    pub(super) fn screen(&mut self, seg: &Segment, now: Instant) -> Result<(), Output> {
        if let (Some(ts), true) = (seg.options.ts, self.ts_ok) {
            if ts_newer(self.ts_recent, ts.val) && !seg.is_rst() {
                return Err(self.unexpected(seg, Reason::Paws, now));
            }
        }
        let edge = self.edge();
        if seg.seq.after(edge) || (seg.seq == edge && has_text(seg)) {
            return Err(if seg.is_rst() {
                Output::drop(Reason::RstOutOfWindow)
            } else {
                self.unexpected(seg, Reason::BeyondWindow, now)
            });
        }
        let old =
            seg.seq_end().before(self.rcv_nxt) || (has_text(seg) && seg.seq_end() == self.rcv_nxt);
        if seg.is_rst() {
            return Err(if seg.seq == self.rcv_nxt {
                Output::delete(None, Reason::ClientReset)
            } else if seg.seq.after(self.rcv_nxt) {
                self.challenge(Reason::RstInWindow, now)
            } else {
                Output::drop(Reason::RstOutOfWindow)
            });
        }
        if seg.flags.contains(Flags::SYN) {
            return Err(self.challenge(Reason::SynInConnection, now));
        }
        if old {
            return Err(self.unexpected(seg, Reason::Duplicate, now));
        }
        if !seg.flags.contains(Flags::ACK) {
            return Err(Output::drop(Reason::NoAck));
        }
        Ok(())
    }

    /// Takes over what an acceptable segment says about its sender.
    pub(super) fn note(&mut self, seg: &Segment) {
        self.peer_window = seg.window;
        if let (Some(ts), true) = (seg.options.ts, self.ts_ok) {
            // RFC 7323, 4.3: only from a segment that covers the last acknowledgement, or a
            // retransmission's round trip would be measured wrong.
            if !seg.seq.after(self.acked) && !ts_newer(self.ts_recent, ts.val) {
                self.ts_recent = ts.val;
            }
        }
    }

    /// The right edge of the window. Fixed, until the front-end ends the connection itself: then
    /// nothing is kept, and the window moves so that the client gets its FIN across.
    pub(super) fn edge(&self) -> Seq {
        match self.state {
            State::SynReceived | State::Collecting | State::Waiting | State::HandedOff => {
                self.irs.add(1).add(self.window)
            }
            State::Closing(_) | State::TimeWait { .. } => self.rcv_nxt.add(self.window),
        }
    }

    /// The largest window the negotiated scale can express.
    pub(super) fn largest_window(&self) -> u32 {
        0xffff << self.rcv_wscale.min(MAX_WSCALE)
    }

    /// The SYN-ACK; the same each time but for the timestamps.
    pub(super) fn syn_ack(&mut self, cfg: &Config, now: Instant) -> SegmentOut {
        let ts = self.timestamp(now);
        SegmentOut {
            seq: self.iss,
            ack: self.irs.add(1),
            flags: Flags::SYN.with(Flags::ACK),
            // CAST: W0 is below 64 KiB. The window of a SYN is never scaled.
            window: self.window.min(0xffff) as u16,
            options: Options {
                ts,
                mss: Some(cfg.mss),
                wscale: self.wscale_ok.then_some(self.rcv_wscale),
                sack_perm: self.sack_ok,
                ..Options::default()
            },
            payload: &[],
        }
    }

    /// The newest timestamp the client has seen, where this entry did not send it.
    pub(super) fn resume_clock(&mut self, tsval: u32) {
        self.last_tsval = tsval;
    }

    /// The newest timestamp of a SYN seen again.
    pub(super) fn note_syn(&mut self, seg: &Segment) {
        if let (Some(ts), true) = (seg.options.ts, self.ts_ok) {
            if ts_newer(ts.val, self.ts_recent) {
                self.ts_recent = ts.val;
            }
        }
    }

    /// Is `val` newer than every timestamp of the client?
    pub(super) fn is_newer_ts(&self, val: u32) -> bool {
        self.ts_ok && ts_newer(val, self.ts_recent)
    }

    /// An acknowledgement of everything received.
    pub(super) fn ack(&mut self, now: Instant) -> SegmentOut {
        self.acked = self.rcv_nxt;
        self.data(self.snd_nxt, Flags::ACK, &[], now)
    }

    /// The window to advertise, rounded down: the right edge is never overstated.
    pub(super) fn window_field(&self) -> u16 {
        let window = self.edge().since(self.rcv_nxt) >> self.rcv_wscale;
        // CAST: W0 is below 64 KiB, and the edge is never behind rcv_nxt.
        window.min(0xffff) as u16
    }

    /// A segment of the established connection.
    pub(super) fn data(
        &mut self,
        seq: Seq,
        flags: Flags,
        payload: &'static [u8],
        now: Instant,
    ) -> SegmentOut {
        SegmentOut {
            seq,
            ack: self.rcv_nxt,
            flags,
            window: self.window_field(),
            options: Options {
                ts: self.timestamp(now),
                ..Options::default()
            },
            payload,
        }
    }

    /// Answers a segment that does not fit: at once if it carries something, for then the client is
    /// waiting; otherwise with restraint.
    pub(super) fn unexpected(&mut self, seg: &Segment, reason: Reason, now: Instant) -> Output {
        if has_text(seg) {
            Output {
                send: Some(self.ack(now)),
                action: Action::Drop(reason),
            }
        } else {
            self.challenge(reason, now)
        }
    }

    /// An acknowledgement that lets an honest client prove itself (RFC 5961), with restraint.
    pub(super) fn challenge(&mut self, reason: Reason, now: Instant) -> Output {
        if now < self.next_challenge {
            return Output::drop(reason);
        }
        self.next_challenge = now.saturating_add(CHALLENGE_INTERVAL);
        Output {
            send: Some(self.ack(now)),
            action: Action::Drop(reason),
        }
    }

    fn half_open(&mut self, cfg: &Config, seg: &Segment, now: Instant) -> Output {
        if seg.is_syn() {
            if seg.seq != self.irs {
                return self.challenge(Reason::SynConflict, now);
            }
            self.note_syn(seg);
            return Output {
                send: Some(self.syn_ack(cfg, now)),
                action: Action::Done,
            };
        }
        if let Err(output) = self.screen(seg, now) {
            return output;
        }
        if seg.ack != self.snd_nxt {
            return Output {
                send: reset_for(seg),
                action: Action::Drop(Reason::WrongAck),
            };
        }
        self.state = State::Collecting;
        self.deadline = now.saturating_add(cfg.idle_timeout);
        self.collect_screened(cfg, seg, now)
    }

    fn timestamp(&mut self, now: Instant) -> Option<Timestamp> {
        if !self.ts_ok {
            return None;
        }
        let val = ts_clock(now).wrapping_add(self.ts_offset);
        // A cookie's stamp is never newer than the clock was, so this never runs back.
        self.last_tsval = val;
        Some(Timestamp {
            val,
            ecr: self.ts_recent,
        })
    }

    /// The SYN-ACK of a cookie, with its own timestamp.
    pub(super) fn stamped(mut syn_ack: SegmentOut, tsval: u32) -> SegmentOut {
        if let Some(ts) = &mut syn_ack.options.ts {
            ts.val = tsval;
        }
        syn_ack
    }
}

/// Does the segment occupy sequence numbers?
fn has_text(seg: &Segment) -> bool {
    seg.payload_len > 0 || seg.is_fin()
}
