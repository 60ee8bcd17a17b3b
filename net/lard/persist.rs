// SPDX-License-Identifier: GPL-2.0

//! A connection that is passed on and whose further requests may be served by other nodes: what is
//! held of the next request while that is found out.
//!
//! [`lard_core::follow`] decides; this gives it memory and packets. As with [`crate::open`], all of it
//! runs under the connection's bucket lock and changes the connection only; [`crate::moving`] does
//! what comes out of it.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::skb::Skb;
use lard_core::addr::NodeId;
use lard_core::follow::{Expired, Follow, Gathered, Take};
use lard_core::http::{HeadParser, Pinned};
use lard_core::tcp::{Resume, Segment, Seq, Snapshot};
use lard_core::time::Instant;
use lard_core::wire::Released;

use crate::gauge::{Gauge, Held};
use crate::open::{quiet, Context};
use crate::packet::Flow;
use crate::parked::Parked;
use crate::service::Wanted;
use crate::stats::Counter;

/// Bytes of a request that are held, at most: they must fit one HANDOFF. What is beyond waits in its
/// packets.
const HELD: usize = 49_152;

/// Bytes that are read at a time of what passes.
const PIECE: usize = 256;

/// What follows one connection.
pub(crate) struct Persist {
    follow: Follow,
    /// What was settled when the connection was handed over first.
    settled: Option<Snapshot>,
    /// What is held of the next request.
    hold: Option<Hold>,
}

/// A request that waits.
struct Hold {
    data: KVec<u8>,
    parked: Parked,
    bytes_held: Held,
    open_held: Held,
    /// The client's newest window field.
    window: u16,
    /// The timestamp of the first packet.
    ts: Option<u32>,
    /// What the dispatcher is asked for, once the head is complete.
    wanted: Wanted,
    /// The node it is for, while its present one is asked to let go.
    to: Option<NodeId>,
}

/// A request that was held, once its connection is free.
pub(crate) struct Given {
    pub(crate) data: KVec<u8>,
    pub(crate) parked: Parked,
    pub(crate) bytes_held: Held,
    pub(crate) open_held: Held,
    pub(crate) wanted: Wanted,
    /// The node that is to have it.
    pub(crate) to: NodeId,
}

/// What becomes of a packet.
pub(crate) enum Onward {
    /// It is passed on.
    Pass(Skb),
    /// It is held, or dropped.
    Kept,
    /// It is held, and a request is complete: ask who serves it.
    Ask,
    /// Nothing is held any more: these are the connection's next packets.
    Again(KVec<Skb>),
}

/// Where a packet comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The network.
    Network,
    /// It came while the connection was handed over; its checksum was verified then. The back-end may
    /// have answered before it was known to have the connection, so a new request may be in it.
    HandedOver,
    /// It was held, and its checksum verified. A request in it is not held again: the client sent it
    /// before it had an answer to the one before.
    Parked,
}

/// The parts of the node's limits that what is held counts in.
pub(crate) struct Gauges<'a> {
    pub(crate) open: &'a Arc<Gauge>,
    pub(crate) bytes: &'a Arc<Gauge>,
}

impl Persist {
    /// For a connection whose first head is complete; `behind` was received with it. `first` is the
    /// number of the client's first byte. `None` if nothing can follow that could move, or without
    /// memory.
    pub(crate) fn new(
        cx: &Context<'_>,
        parser: &HeadParser,
        first: Seq,
        behind: &[u8],
    ) -> Option<KBox<Self>> {
        let mut follow = Follow::new(parser, first, cx.config.head_limit as usize);
        let _ = follow.read(behind);
        let persist = Self {
            follow,
            settled: None,
            hold: None,
        };
        let persist = KBox::new(persist, quiet()).ok()?;
        persist.goes_on(cx).then_some(persist)
    }

    /// May a later request move the connection? Counts why not.
    fn goes_on(&self, cx: &Context<'_>) -> bool {
        match self.follow.pinned() {
            None => true,
            Some(why) => {
                cx.stats.inc(why.into());
                false
            }
        }
    }

    /// A back-end has the connection as `snapshot` says. Returns whether it may still move.
    pub(crate) fn adopted(&mut self, cx: &Context<'_>, snapshot: &Snapshot) -> bool {
        self.settled.get_or_insert(*snapshot);
        self.follow.moved();
        if snapshot.fin {
            self.follow.pin(Pinned::Closing);
        }
        self.goes_on(cx)
    }

    /// Why nothing has to be followed any more, if so.
    pub(crate) fn is_over(&self) -> Option<Pinned> {
        self.follow.pinned().filter(|_| self.hold.is_none())
    }

    /// A packet of the client, other than a SYN.
    pub(crate) fn on_packet(
        &mut self,
        cx: &Context<'_>,
        gauges: &Gauges<'_>,
        flow: &Flow,
        segment: &Segment,
        mut skb: Skb,
        from: Origin,
    ) -> Onward {
        let take = self.follow.on_segment(segment);
        // What is read decides, so it must be what the client has sent.
        let is_read = matches!(take, Take::Read(_) | Take::Gather(_) | Take::Park);
        if is_read && from == Origin::Network && !flow.checksum_ok(&mut skb) {
            cx.stats.inc(Counter::Checksum);
            self.unhold();
            return Onward::Kept;
        }
        match take {
            Take::Pass => Onward::Pass(skb),
            Take::Read(offset) => {
                self.read(cx, flow, segment, &skb, offset);
                Onward::Pass(skb)
            }
            Take::Gather(offset) => self.gather(cx, gauges, flow, segment, skb, offset, from),
            Take::Park => {
                if let Some(hold) = &mut self.hold {
                    // The client sends again what does not fit.
                    let _ = hold.parked.keep(cx.stats, &mut hold.bytes_held, skb);
                }
                Onward::Kept
            }
            Take::Drop => {
                cx.stats.inc(Counter::NextDropped);
                Onward::Kept
            }
            Take::Stay => {
                cx.stats.inc(Counter::NextClosing);
                self.again(skb)
            }
        }
    }

    /// The framer waits for a request, and nothing of one is held.
    fn unhold(&mut self) {
        if self.hold.is_none() {
            self.follow.stay();
        }
    }

    /// Lets go, with `skb` as the last packet.
    fn again(&mut self, skb: Skb) -> Onward {
        let mut packets = self.stay();
        // Without memory it is as if it had been lost.
        let _ = packets.push(skb.park(), quiet());
        Onward::Again(packets)
    }

    /// Reads what passes, from `offset` of the payload on.
    fn read(&mut self, cx: &Context<'_>, flow: &Flow, segment: &Segment, skb: &Skb, offset: u32) {
        let mut at = flow.payload_at(segment).saturating_add(offset as usize);
        let mut left = segment.payload_len.saturating_sub(offset);
        let mut piece = [0; PIECE];
        while left > 0 && self.follow.pinned().is_none() {
            let skip = self.follow.skippable().min(u64::from(left));
            // CAST: at most `left`.
            let n = if skip > 0 {
                self.follow.skip(skip);
                skip as u32
            } else {
                let n = left.min(PIECE as u32);
                let Some(to) = piece.get_mut(..n as usize).filter(|_| skip == 0) else {
                    return;
                };
                if !skb.copy(at, to) {
                    self.follow.pin(Pinned::Lost);
                    return;
                }
                if self.follow.read(to) {
                    cx.stats.inc(Counter::NextPipelined);
                }
                n
            };
            at = at.saturating_add(n as usize);
            left = left.saturating_sub(n);
        }
    }

    /// A request begins, or goes on, at `offset` of the payload.
    #[expect(clippy::too_many_arguments)]
    fn gather(
        &mut self,
        cx: &Context<'_>,
        gauges: &Gauges<'_>,
        flow: &Flow,
        segment: &Segment,
        skb: Skb,
        offset: u32,
        from: Origin,
    ) -> Onward {
        if self.hold.is_none() {
            cx.stats.inc(Counter::Next);
            let hold = match from {
                Origin::Network | Origin::HandedOver if cx.further.is_some() => Hold::new(gauges),
                Origin::Network | Origin::HandedOver => None,
                Origin::Parked => {
                    cx.stats.inc(Counter::NextPipelined);
                    None
                }
            };
            if hold.is_none() {
                self.follow.stay();
                self.read(cx, flow, segment, &skb, offset);
                return Onward::Pass(skb);
            }
            self.hold = hold;
        }
        let Some(hold) = &mut self.hold else {
            return Onward::Pass(skb);
        };
        let before = hold.data.len();
        let at = flow.payload_at(segment).saturating_add(offset as usize);
        let len = segment.payload_len.saturating_sub(offset) as usize;
        if !hold.add(&skb, at, len) {
            cx.stats.inc(Counter::NextNoRoom);
            return self.again(skb);
        }
        hold.window = segment.window;
        // The oldest one: what else waits must not be older than what the back-end was told.
        if let (Some(ts), None) = (segment.options.ts, hold.ts) {
            hold.ts = Some(ts.val);
        }
        if let Err(skb) = hold.parked.keep(cx.stats, &mut hold.bytes_held, skb) {
            return self.again(skb);
        }
        let wanted = &mut hold.wanted;
        let ask = |head: &[u8], parser: &HeadParser| {
            *wanted = cx.services.ask(head, parser, cx.hash_key)?;
            Ok(())
        };
        match self
            .follow
            .gather(&hold.data, before, cx.now, cx.config.handoff_timeout, ask)
        {
            Gathered::Partial => Onward::Kept,
            Gathered::Complete => Onward::Ask,
            Gathered::Stays => Onward::Again(self.stay()),
        }
    }

    /// Lets go of what is held: the connection stays where it is. Returns the packets, which are the
    /// connection's next ones.
    #[must_use]
    pub(crate) fn stay(&mut self) -> KVec<Skb> {
        self.follow.stay();
        match self.hold.take() {
            Some(mut hold) => hold.parked.take(),
            None => KVec::new(),
        }
    }

    /// The connection never moves: its back-end says so.
    pub(crate) fn pin(&mut self, why: Pinned) {
        self.follow.pin(why);
    }

    /// What to ask the dispatcher, and about how many requests, if it is to be asked.
    pub(crate) fn question(&self) -> Option<(Wanted, u16)> {
        let hold = self.hold.as_ref().filter(|_| self.follow.is_asking());
        hold.map(|hold| (hold.wanted, self.follow.batch()))
    }

    /// Must the request be handed over, even to the node that has the connection?
    pub(crate) fn must_hand_over(&self) -> bool {
        self.follow.must_hand_over()
    }

    /// The request is for node `to`, and the back-end is asked to let go by `deadline`. Returns what
    /// RELEASE says: where the request begins, and how many the back-end was given.
    pub(crate) fn release(&mut self, to: NodeId, deadline: Instant) -> (Seq, u32) {
        if let Some(hold) = &mut self.hold {
            hold.to = Some(to);
        }
        self.follow.release(deadline)
    }

    /// The node that the request is for while the back-end is asked to let go.
    pub(crate) fn releasing_for(&self) -> Option<NodeId> {
        let hold = self.hold.as_ref().filter(|_| self.follow.is_releasing());
        hold.and_then(|hold| hold.to)
    }

    /// The back-end was asked at a bad moment. Returns whether it is to be asked again soon.
    pub(crate) fn ask_again(&mut self, now: Instant) -> bool {
        self.follow.ask_again(now)
    }

    /// Is the back-end's answer awaited?
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.follow.is_in_doubt()
    }

    /// The back-end has let go: gives what was held, where the connection stands, and what was settled
    /// once. `None` if what the back-end says cannot be.
    pub(crate) fn released(
        &mut self,
        acked: Seq,
        ts_recent: u32,
        released: &Released,
    ) -> Option<(Given, Resume, Snapshot)> {
        let settled = self.settled?;
        let (start, _) = self.follow.held();
        let hold = self.hold.take()?;
        let to = hold.to?;
        let tsval = match released.tsval {
            None if !settled.ts_ok => 0,
            Some((tsval, lard_core::wire::TsUnit::Millis)) if settled.ts_ok => tsval,
            _ => return None,
        };
        if Seq(released.rcv_nxt) != start || Seq(released.snd_nxt) != acked {
            return None;
        }
        let resume = Resume {
            start,
            received: u32::try_from(hold.data.len()).ok()?,
            snd_nxt: acked,
            tsval,
            ts_recent: hold.ts.unwrap_or(ts_recent),
            window: hold.window,
        };
        let given = Given {
            data: hold.data,
            parked: hold.parked,
            bytes_held: hold.bytes_held,
            open_held: hold.open_held,
            wanted: hold.wanted,
            to,
        };
        Some((given, resume, settled))
    }

    /// When [`Persist::on_timer`] has something to do.
    pub(crate) fn deadline(&self) -> Instant {
        self.follow.deadline()
    }

    /// What the time says about what is held.
    pub(crate) fn on_timer(&self, now: Instant) -> Expired {
        self.follow.on_timer(now)
    }
}

impl Hold {
    /// Nothing yet; `None` at the limit of connections that wait.
    fn new(gauges: &Gauges<'_>) -> Option<Self> {
        Some(Self {
            data: KVec::new(),
            parked: Parked::new(),
            bytes_held: Held::none(gauges.bytes),
            open_held: Held::one(gauges.open)?,
            window: 0,
            ts: None,
            wanted: Wanted::NOTHING,
            to: None,
        })
    }

    /// Adds as many of `len` bytes at `at` of a packet as there is room for; `false` if that is none.
    fn add(&mut self, skb: &Skb, at: usize, len: usize) -> bool {
        let start = self.data.len();
        let len = len.min(HELD.saturating_sub(start));
        if len == 0 || !self.bytes_held.grow(len) {
            return false;
        }
        if self
            .data
            .resize(start.saturating_add(len), 0, quiet())
            .is_err()
        {
            self.bytes_held.shrink(len);
            return false;
        }
        let copied = self
            .data
            .get_mut(start..)
            .is_some_and(|to| skb.copy(at, to));
        if !copied {
            self.data.truncate(start);
            self.bytes_held.shrink(len);
        }
        copied
    }
}

/// Do these bytes of a client begin with a HEAD request? Its response ends with its head.
pub(crate) fn is_to_head(data: &[u8]) -> bool {
    data.trim_ascii_start().starts_with(b"HEAD ")
}
