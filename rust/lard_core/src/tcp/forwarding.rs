// SPDX-License-Identifier: GPL-2.0

//! What the front-end knows of a connection it only forwards.
//!
//! Nearly every packet of the cluster passes through [`Forwarding::on_segment`], so it is a few
//! compares and stores. What it gathers serves two questions: when may the entry be forgotten, and
//! may this SYN have the tuple?
//!
//! # Tuple reuse
//!
//! Clients use a port again within milliseconds, while the back-end still holds the old connection in
//! TIME_WAIT. A SYN that the old connection cannot be confused with (RFC 6191: its sequence number
//! lies after all that was seen, or its timestamp is newer) starts a new connection here, and the
//! hand-off removes the TIME_WAIT there. It must not do so while the old connection is alive:
//! half of all forged SYNs would pass the test. So the client has to have closed first, or the
//! back-end has to have reported the end. Any other SYN goes to the back-end, whose TCP answers it as
//! TCP does; if the client has crashed and knows nothing of the old connection, that answer makes it
//! send a RST, which passes through here.
//!
//! # Forged segments
//!
//! What lies near enough is forwarded, and the back-end's TCP judges it. But it must not be easier to
//! make the front-end forget a connection than to end it there: a RST counts where RFC 5961 lets it,
//! a FIN within an unscaled window of the last byte, and an acknowledgement only of what
//! the back-end can have sent. Where the rule errs, the back-end's report comes all the same.
//!
//! # The end
//!
//! Replies do not come this way, so nothing that passes tells whether the server has closed as well:
//! the back-end has to report it. One that has no way to, its *mute* time, is waited for as other
//! forwarders wait that see one direction only: the client's FIN and then silence is the end. The
//! silence is that of TIME_WAIT, and begins anew when the back-end falls mute, so that it has as long
//! to come back and report.
//!
//! # Ended here
//!
//! Where nobody can say who has a connection, or where it must not go on, the front-end ends it
//! ([`Forwarding::end`]): it resets the client, and the back-end's socket, as if by the client. The
//! back-end may get that socket only later, when it comes to a hand-off that was under way, or may expect
//! another number, which its TCP tells the client, who answers with the right one (RFC 5961). So for a
//! while the client's resets pass, and its SYNs, for which TCP does the same; and when no hand-off can be
//! taken any more the back-end is reset once more. Only then the tuple is free.
//!
//! # Idle connections
//!
//! A connection is idle when the client is silent: it neither sends nor acknowledges anything new (\[2\],
//! footnote 3). But not while it waits for the first bytes of an answer, however long the server takes.
//! A pause in the middle of an answer cannot be told from its end.
//!
//! \[2\] Aron, Druschel, Zwaenepoel: *Efficient Support for P-HTTP in Cluster-Based Web Servers*,
//! USENIX 1999

use super::super::time::Instant;
use super::config::Config;
use super::emit::SegmentOut;
use super::options::Options;
use super::segment::{Flags, Segment};
use super::seq::{ts_newer, Seq};
use super::snapshot::Snapshot;

/// How far the successor's sequence numbers start beyond what the client has acknowledged: a whole
/// unscaled window, and what Linux adds in the same place.
pub(super) const ISS_GAP: u32 = 65_535 + 2;

/// The largest window without a scale.
const WINDOW: u32 = 0xffff;

const TS: u16 = 1 << 0;
const FIN: u16 = 1 << 1;
const RST: u16 = 1 << 2;
const TIME_WAIT: u16 = 1 << 3;
const GONE: u16 = 1 << 4;
/// Somebody wants to know when the connection is idle.
const WATCHED: u16 = 1 << 5;
/// The client waits for an answer, of which nothing was seen to arrive.
const WAITS: u16 = 1 << 6;
const IDLE: u16 = 1 << 7;
/// The front-end has ended it.
const ENDED: u16 = 1 << 8;

/// What to do with a SYN for a forwarded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum OnSyn {
    /// The old connection is over: delete the entry and answer the SYN as a new one.
    Replace {
        /// The least initial sequence number of the new connection.
        min_iss: Seq,
    },
    /// The back-end answers it.
    Forward,
}

/// How a connection ended on the back-end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The back-end still knows the tuple in TIME_WAIT, or in FIN_WAIT_2 without a socket.
    TimeWait,
    /// Nothing is left.
    Gone,
}

/// The state of a forwarded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// When the client last sent anything, or the back-end reported the end.
    last: Instant,
    /// Beyond everything the client was seen to send.
    snd_max: Seq,
    /// The newest acknowledgement of the client.
    ack: Seq,
    /// The newest timestamp of the client.
    tsval: u32,
    /// How far the client can be ahead of what was seen: the largest window of this side.
    reach: u32,
    flags: u16,
    /// The shift of the client's windows.
    snd_wscale: u8,
}

impl Forwarding {
    /// The state of the connection that `snapshot` handed over.
    pub fn new(snapshot: &Snapshot, now: Instant) -> Self {
        let mut flags = 0;
        if snapshot.ts_ok {
            flags |= TS;
        }
        if snapshot.fin {
            flags |= FIN;
        }
        Forwarding {
            last: now,
            snd_max: snapshot.rcv_nxt,
            ack: snapshot.snd_nxt,
            tsval: snapshot.ts_recent,
            // At most 2^30.
            reach: WINDOW << snapshot.rcv_wscale.min(super::options::MAX_WSCALE),
            flags,
            snd_wscale: snapshot.snd_wscale.min(super::options::MAX_WSCALE),
        }
    }

    /// [`Forwarding::falls_idle`] is wanted. The connection was handed over with a request.
    pub fn watched(mut self) -> Self {
        self.flags |= WATCHED | WAITS;
        self
    }

    /// A segment other than a SYN passes through. Returns whether [`Forwarding::deadline`] may be earlier
    /// than before.
    #[inline]
    pub fn on_segment(&mut self, seg: &Segment, now: Instant) -> bool {
        // A forged segment would have to guess this much; it is forwarded like any other.
        let near = self.snd_max.sub(self.reach);
        if seg.seq.since(near) > self.reach.wrapping_mul(2) {
            return false;
        }
        // It is over, whatever the client says, and what the back-end expects does not change any more.
        if self.has(ENDED) {
            return false;
        }
        // Who speaks to a connection that is gone has to find out soon. So has a client that goes on after the
        // server has closed and had its FIN acknowledged: what is left of the server's side ends by itself.
        if !self.has(GONE) && (!self.has(TIME_WAIT) || self.has(FIN) || seg.is_fin()) {
            self.last = now;
        }
        let before = self.flags;
        if seg.is_rst() && seg.seq != self.snd_max {
            return false;
        }
        let far = seg.seq.after(self.snd_max.add(WINDOW))
            || self.snd_max.sub(WINDOW).after(seg.seq_end());
        let closes = seg.is_fin() && !far;
        let ack = Some(seg.ack).filter(|_| seg.flags.contains(Flags::ACK));
        // 0 where it acknowledges nothing new.
        let ahead = ack.map_or(0, |ack| ack.max(self.ack).since(self.ack));
        let acknowledges = ahead != 0 && ahead <= WINDOW << self.snd_wscale;
        if before & WATCHED != 0 {
            self.watch(seg, acknowledges);
        }
        if seg.is_rst() {
            self.flags |= RST;
            return self.flags != before;
        }
        self.snd_max = self.snd_max.max(seg.seq_end());
        if acknowledges {
            self.ack = seg.ack;
        }
        if let Some(ts) = seg.options.ts {
            if ts_newer(ts.val, self.tsval) {
                self.tsval = ts.val;
            }
        }
        if closes {
            self.flags |= FIN;
        }
        // Whoever goes on speaking was not reset.
        self.flags &= !RST;
        self.flags != before
    }

    /// The client sends something, if it is new, or acknowledges something new.
    fn watch(&mut self, seg: &Segment, acknowledges: bool) {
        if seg.is_rst() || acknowledges {
            self.flags &= !(WAITS | IDLE);
        }
        if seg.seq_end().after(self.snd_max) {
            self.flags = (self.flags | WAITS) & !IDLE;
        }
    }

    /// Is the connection idle, as [`Forwarding::falls_idle`] has said?
    #[inline]
    pub const fn is_idle(&self) -> bool {
        self.has(IDLE)
    }

    /// Has the connection just fallen idle? It is until the client sends or acknowledges something, or it
    /// ends.
    pub fn falls_idle(&mut self, cfg: &Config, now: Instant) -> bool {
        let falls = self.idle_at(cfg).is_some_and(|at| at <= now);
        if falls {
            self.flags |= IDLE;
        }
        falls
    }

    /// When it will, if nothing more happens.
    fn idle_at(&self, cfg: &Config) -> Option<Instant> {
        const NOT: u16 = WAITS | IDLE | FIN | RST | TIME_WAIT | GONE;
        let may = self.flags & (WATCHED | NOT) == WATCHED;
        may.then(|| self.last.saturating_add(cfg.conn_idle))
    }

    /// A SYN arrives for the tuple.
    pub fn on_syn(&self, seg: &Segment) -> OnSyn {
        let newer_ts = match seg.options.ts {
            Some(ts) => self.has(TS) && ts_newer(ts.val, self.tsval),
            None => false,
        };
        let distinct = seg.seq.after(self.snd_max) || newer_ts;
        // Where nothing is left, nothing can be confused, and nobody would answer.
        if self.has(GONE) || (distinct && self.has(FIN | RST | TIME_WAIT)) {
            OnSyn::Replace {
                min_iss: self.ack.add(ISS_GAP),
            }
        } else {
            OnSyn::Forward
        }
    }

    /// The newest acknowledgement of the client.
    pub const fn acked(&self) -> Seq {
        self.ack
    }

    /// The newest timestamp of the client.
    pub const fn ts_recent(&self) -> u32 {
        self.tsval
    }

    /// The front-end ends the connection, whose back-end, if it has it, expects this number of the client.
    pub fn end(&mut self, expected: Seq, now: Instant) {
        self.last = now;
        self.snd_max = expected;
        // What the client has closed is not free while the back-end may still take it.
        self.flags &= !(WATCHED | WAITS | FIN | RST);
        self.flags |= ENDED;
    }

    /// Has the front-end ended the connection?
    #[inline]
    pub const fn is_ended(&self) -> bool {
        self.has(ENDED)
    }

    /// Somebody is told that the connection has nothing to do any more: [`Forwarding::is_idle`].
    pub fn rest(&mut self) {
        self.flags |= IDLE;
    }

    /// What resets the back-end's socket of a connection that the front-end has ended, unless its end was
    /// reported.
    pub fn client_reset(&self) -> Option<SegmentOut> {
        let may = self.flags & (ENDED | TIME_WAIT | GONE) == ENDED;
        may.then(|| SegmentOut::reset(self.snd_max))
    }

    /// Has the back-end by now taken the connection, or never will, so that it is time for the last
    /// [`Forwarding::client_reset`]? Once.
    pub fn settles(&mut self, cfg: &Config, now: Instant) -> bool {
        let settles = self.settles_at(cfg).is_some_and(|at| at <= now);
        if settles {
            self.last = now;
            self.flags |= RST;
        }
        settles
    }

    /// The back-end says that it has not got the connection, which the front-end has ended. Returns whether
    /// somebody still has to be told that it does not rest but is over: later, what is counted has been
    /// compared with what the back-end has.
    pub fn denied(&mut self, now: Instant) -> bool {
        let tells = self.is_unsettled() && self.is_idle();
        if self.is_ended() {
            self.ended(Ended::Gone, now);
        }
        tells
    }

    fn settles_at(&self, cfg: &Config) -> Option<Instant> {
        let at = || self.last.saturating_add(cfg.handoff_timeout);
        self.is_unsettled().then(at)
    }

    const fn is_unsettled(&self) -> bool {
        self.flags & (ENDED | RST | TIME_WAIT | GONE) == ENDED
    }

    /// The reset that ends the connection for the client, if nobody else can.
    pub fn abort(&self) -> SegmentOut {
        SegmentOut {
            seq: self.ack,
            ack: self.snd_max,
            flags: Flags::RST.with(Flags::ACK),
            window: 0,
            options: Options::default(),
            payload: &[],
        }
    }

    /// When something was last heard of the connection.
    pub const fn last_packet(&self) -> Instant {
        self.last
    }

    /// The back-end reports the end of the connection.
    pub fn ended(&mut self, how: Ended, now: Instant) {
        self.last = now;
        self.flags &= !IDLE;
        self.flags |= match how {
            Ended::TimeWait => TIME_WAIT,
            Ended::Gone => GONE,
        };
    }

    /// Has the end been reported, or has the client reset the connection, or the front-end ended it?
    pub fn is_over(&self) -> bool {
        self.has(RST | TIME_WAIT | GONE | ENDED)
    }

    /// When the entry may be forgotten, if nothing more happens. `mute` is since when the back-end has
    /// had no way to report an end.
    pub fn expires(&self, cfg: &Config, mute: Option<Instant>) -> Instant {
        let wait = if self.has(GONE) {
            cfg.forward_gone
        } else if self.has(TIME_WAIT | RST | ENDED) {
            cfg.time_wait
        } else if self.has(FIN) {
            cfg.forward_closing
        } else {
            cfg.forward_idle
        };
        let expires = self.last.saturating_add(wait);
        match mute.filter(|_| self.has(FIN)) {
            Some(since) => {
                let silent = self.last.max(since);
                expires.min(silent.saturating_add(cfg.time_wait))
            }
            None => expires,
        }
    }

    /// When to ask [`Forwarding::expires`] again: no later than it says now, and soon enough for a
    /// back-end that falls mute meanwhile; and when to ask [`Forwarding::falls_idle`], or
    /// [`Forwarding::settles`].
    pub fn deadline(&self, cfg: &Config, mute: Option<Instant>, now: Instant) -> Instant {
        let expires = self.expires(cfg, mute);
        if let Some(at) = self.settles_at(cfg) {
            return expires.min(at);
        }
        match self.has(FIN) {
            true => expires.min(now.saturating_add(cfg.time_wait)),
            false => expires.min(self.idle_at(cfg).unwrap_or(expires)),
        }
    }

    #[inline]
    const fn has(&self, any: u16) -> bool {
        self.flags & any != 0
    }
}
