// SPDX-License-Identifier: GPL-2.0

//! A connection that is passed on and whose further requests may be served by other nodes, or with what
//! other nodes have: what is held of the next request while that is found out.
//!
//! [`lard_core::follow`] decides; this gives it memory and packets. As with [`crate::open`], all of it
//! runs under the connection's bucket lock and changes the connection only; [`crate::moving`] does
//! what comes out of it.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::skb::Skb;
use lard_core::follow::{Expired, Follow, Forbidden, Gathered, Take};
use lard_core::http::{HeadParser, Method, Pinned, Rewritten};
use lard_core::policy::Mechanism;
use lard_core::tcp::{Resume, Segment, Seq, Snapshot, Status};
use lard_core::time::Instant;
use lard_core::wire::Released;

use crate::hold::{Gauges, Given, Hold, Way};
use crate::open::{quiet, Context};
use crate::packet::Flow;
use crate::pieces::{self, Reader};
use crate::service::Wanted;
use crate::stats::Counter;

/// Bytes of a checked client that are remembered, of what may come again.
const RING: usize = 8_192;

/// What follows one connection.
pub(crate) struct Persist {
    follow: Follow,
    /// What was settled when the connection was handed over first.
    settled: Option<Snapshot>,
    /// What is held of the next request.
    hold: Option<Hold>,
    /// What a checked client must not change; empty until something passes that could be changed.
    ring: KVec<u8>,
    /// How the node that was asked for last would serve.
    asked: Mechanism,
}

/// Why a first request is not handed over.
pub(crate) struct Unchecked(pub(crate) Counter, pub(crate) Status);

impl From<Forbidden> for Unchecked {
    fn from(why: Forbidden) -> Self {
        match why {
            Forbidden::Reserved => Unchecked(Counter::HttpReserved, Status::Forbidden),
            Forbidden::Unread => Unchecked(Counter::HttpUnread, Status::BadRequest),
        }
    }
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
    /// It is not passed on, and the connection ends; the server has got what lies before this.
    End(Seq),
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

impl Persist {
    /// For a connection whose first head is complete; `behind` was received with it. `first` is the
    /// number of the client's first byte. `None` if nothing can follow that another node could serve,
    /// or without memory, unless the connection is checked: then that is an error.
    pub(crate) fn new(
        cx: &Context<'_>,
        parser: &HeadParser,
        first: Seq,
        behind: &[u8],
    ) -> Result<Option<KBox<Self>>, Unchecked> {
        let checked = cx.further == Some(Mechanism::Forward);
        let limit = cx.config.head_limit as usize;
        let mut follow = Follow::new(parser, first, limit, checked);
        // All of it is handed over at once, so none can change.
        let batched = follow.read(&mut [], behind);
        if let Some(why) = follow.forbidden() {
            return Err(why.into());
        }
        cx.stats.add(Counter::NextBatched, batched.into());
        let persist = Self {
            follow,
            settled: None,
            hold: None,
            ring: KVec::new(),
            asked: Mechanism::Move,
        };
        match KBox::new(persist, quiet()) {
            Ok(persist) => Ok(persist.goes_on(cx).then_some(persist)),
            Err(_) if checked => Err(Unchecked(Counter::NoMemory, Status::ServiceUnavailable)),
            Err(_) => Ok(None),
        }
    }

    /// Does nothing of the client pass that was not read?
    pub(crate) fn is_checked(&self) -> bool {
        self.follow.is_checked()
    }

    /// Why the connection has ended, and why the rest of it could not be read, if that was it.
    pub(crate) fn forbidden(&self) -> Option<(Forbidden, Option<Pinned>)> {
        let why = self.follow.forbidden()?;
        let unread = self.follow.pinned().filter(|_| why == Forbidden::Unread);
        Some((why, unread))
    }

    /// May a later request move the connection? Counts why not.
    fn goes_on(&self, cx: &Context<'_>) -> bool {
        match self.follow.pinned() {
            Some(why) if !self.is_checked() => {
                cx.stats.inc(why.into());
                false
            }
            Some(_) | None => true,
        }
    }

    /// A back-end has the connection as `snapshot` says. Returns whether it may still move.
    pub(crate) fn adopted(&mut self, cx: &Context<'_>, snapshot: &Snapshot) -> bool {
        self.settled.get_or_insert(*snapshot);
        let delivered = snapshot.irs.add(1).add(snapshot.len());
        self.follow.moved(delivered);
        if snapshot.fin {
            self.follow.pin(Pinned::Closing);
        }
        self.goes_on(cx)
    }

    /// Why nothing has to be followed any more, if so.
    pub(crate) fn is_over(&self) -> Option<Pinned> {
        let pinned = self.follow.pinned();
        pinned.filter(|_| self.hold.is_none() && !self.is_checked())
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
        if self.is_changed(flow, segment, &skb, from) {
            cx.stats.inc(Counter::CheckedChanged);
            return Onward::Kept;
        }
        let take = self.follow.on_segment(segment);
        // What is read decides, so it must be what the client has sent.
        let is_read = matches!(take, Take::Read(_) | Take::Gather(_) | Take::Park);
        if is_read && from == Origin::Network && !flow.checksum_ok(&mut skb) {
            cx.stats.inc(Counter::Checksum);
            self.unhold();
            return Onward::Kept;
        }
        // Before anything is read that could have to be remembered.
        if is_read && !self.remembers() {
            cx.stats.inc(Counter::NoMemory);
            self.unhold();
            return Onward::Kept;
        }
        match take {
            Take::Pass => {
                if let Some(hold) = &mut self.hold {
                    // The client has sent it behind what is held.
                    if segment.seq == self.follow.held().1 && flow.checksum_ok(&mut skb) {
                        hold.window = segment.window;
                    }
                }
                Onward::Pass(skb)
            }
            Take::Read(offset) => {
                let (began, onward) = self.read_on(flow, segment, skb, offset);
                cx.stats.add(Counter::NextPipelined, began);
                onward
            }
            Take::Gather(offset) => self.gather(cx, gauges, flow, segment, skb, offset, from),
            Take::Park => {
                if let Some(hold) = &mut self.hold {
                    // What does not fit is as if it had been lost.
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
                self.again(cx, skb)
            }
        }
    }

    /// Is there memory for what a checked client must not change?
    fn remembers(&mut self) -> bool {
        !self.is_checked() || !self.ring.is_empty() || self.ring.resize(RING, 0, quiet()).is_ok()
    }

    /// The server has closed: gives up what is remembered of the client, to be freed without the lock.
    pub(crate) fn forget(&mut self) -> KVec<u8> {
        self.follow.forget();
        core::mem::take(&mut self.ring)
    }

    /// The framer waits for a request, and nothing of one is held.
    fn unhold(&mut self) {
        if self.hold.is_none() {
            self.follow.stay();
        }
    }

    /// Lets go, with `skb` as the last packet.
    fn again(&mut self, cx: &Context<'_>, skb: Skb) -> Onward {
        let mut packets = self.stay();
        if packets.push(skb.park(), quiet()).is_err() {
            // It is as if it had been lost.
            cx.stats.inc(Counter::NoMemory);
        }
        Onward::Again(packets)
    }

    /// Is a part of a segment of a checked client different from what was read in its place?
    fn is_changed(&self, flow: &Flow, segment: &Segment, skb: &Skb, from: Origin) -> bool {
        let was_held = from == Origin::Parked;
        let read = self.follow.repeated(segment, was_held);
        let mut same = read.is_none_or(|(offset, len)| {
            let from = segment.seq.add(offset);
            let at = flow.payload_at(segment).saturating_add(offset as usize);
            pieces::all(skb, at, len as usize, |done, piece| {
                // CAST: a place in a packet.
                self.follow.agrees(&self.ring, from.add(done as u32), piece)
            })
        });
        if let Some(hold) = self.hold.as_ref().filter(|_| self.is_checked()) {
            let (start, _) = self.follow.held();
            let (first, last) = (segment.seq.max(start), segment.seq.add(segment.payload_len));
            // CAST: what is held is bounded far below 2^31.
            let last = last.min(start.add(hold.data.len() as u32));
            if last.after(first) {
                let at = flow.payload_at(segment);
                let at = at.saturating_add(first.since(segment.seq) as usize);
                let known = first.since(start) as usize;
                same &= pieces::all(skb, at, last.since(first) as usize, |done, piece| {
                    let held = hold.data.get(known.saturating_add(done)..);
                    held.unwrap_or_default().starts_with(piece)
                });
            }
        }
        !same
    }

    /// Reads what is to pass, from `offset` of the payload on, and passes it if it may; with how many
    /// requests began in it.
    fn read_on(&mut self, flow: &Flow, segment: &Segment, skb: Skb, offset: u32) -> (u64, Onward) {
        let at = flow.payload_at(segment).saturating_add(offset as usize);
        let len = segment.payload_len.saturating_sub(offset);
        let mut passing = Passing {
            follow: &mut self.follow,
            ring: &mut self.ring,
            began: 0,
        };
        pieces::read(&skb, at, len as usize, &mut passing);
        let began = passing.began;
        let onward = match self.follow.forbidden() {
            Some(_) => Onward::End(segment.seq.add(offset)),
            None => Onward::Pass(skb),
        };
        (began, onward)
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
            let Some(mechanism) = cx.further.filter(|_| from != Origin::Parked) else {
                self.follow.stay();
                let (began, onward) = self.read_on(flow, segment, skb, offset);
                // Otherwise connections do not move any more, and nothing is counted of them.
                if from == Origin::Parked {
                    cx.stats.add(Counter::NextPipelined, began);
                }
                return onward;
            };
            cx.stats.inc(Counter::Next);
            let Some(hold) = Hold::new(gauges) else {
                cx.stats.inc(Counter::NextNoRoom);
                self.follow.stay();
                let (began, onward) = self.read_on(flow, segment, skb, offset);
                let batched = began.saturating_sub(1);
                cx.stats.add(Counter::NextBatched, batched);
                return onward;
            };
            self.asked = mechanism;
            self.hold = Some(hold);
        }
        let Some(hold) = &mut self.hold else {
            return Onward::Pass(skb);
        };
        let before = hold.data.len();
        let at = flow.payload_at(segment).saturating_add(offset as usize);
        let len = segment.payload_len.saturating_sub(offset) as usize;
        if !hold.add(&skb, at, len) {
            cx.stats.inc(Counter::NextNoRoom);
            return self.again(cx, skb);
        }
        hold.window = segment.window;
        // The oldest one: what else waits must not be older than what the back-end was told.
        if let (Some(ts), None) = (segment.options.ts, hold.ts) {
            hold.ts = Some(ts.val);
        }
        if let Err(skb) = hold.parked.keep(cx.stats, &mut hold.bytes_held, skb) {
            return self.again(cx, skb);
        }
        let (wanted, unasked) = (&mut hold.wanted, &mut hold.unasked);
        let forwards = self.asked == Mechanism::Forward;
        let ask = |head: &[u8], parser: &HeadParser| {
            *wanted = cx.services.ask(head, parser, cx.hash_key)?;
            *unasked = match forwards {
                true => why_unsuited(head, parser),
                false => None,
            };
            Ok(())
        };
        let gathered = self.follow.gather(
            &mut self.ring,
            &hold.data,
            before,
            cx.now,
            cx.config.handoff_timeout,
            ask,
        );
        if self.follow.forbidden().is_some() {
            let (start, _) = self.follow.held();
            return Onward::End(start);
        }
        if gathered == Gathered::Partial {
            return Onward::Kept;
        }
        let batched = self.follow.followers();
        cx.stats.add(Counter::NextBatched, batched.into());
        if gathered == Gathered::Complete {
            return Onward::Ask;
        }
        if self.follow.pinned().is_none() {
            cx.stats.inc(Counter::NextEmptyLines);
        }
        Onward::Again(self.stay())
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
    pub(crate) fn settle(&mut self) {
        self.follow.settle();
    }

    /// What to ask the dispatcher, and about how many requests, if it is to be asked.
    pub(crate) fn question(&self) -> Option<(Wanted, u16)> {
        let hold = self.hold.as_ref().filter(|_| self.follow.is_asking());
        hold.map(|hold| (hold.wanted, self.follow.batch()))
    }

    /// Why nobody is asked about the request, if so: the node that has the connection serves it.
    pub(crate) fn unasked(&self) -> Option<Counter> {
        self.hold.as_ref()?.unasked
    }

    /// How another node would serve the request that the dispatcher was asked about last.
    pub(crate) fn mechanism(&self) -> Mechanism {
        self.asked
    }

    /// Must the request be handed over, even to the node that has the connection?
    pub(crate) fn must_hand_over(&self) -> bool {
        self.follow.must_hand_over()
    }

    /// The request goes this way, and the back-end is asked to let go by `deadline`. Returns what
    /// RELEASE says: where the request begins, and how many the back-end was given.
    pub(crate) fn release(&mut self, way: Way, deadline: Instant) -> (Seq, u32) {
        if let Some(hold) = &mut self.hold {
            hold.to = Some(way);
        }
        self.follow.release(deadline)
    }

    /// Is the back-end to let go, be it asked already or to be asked again?
    pub(crate) fn is_releasing(&self) -> bool {
        self.follow.is_releasing()
    }

    /// Where the request goes, while the back-end is asked to let go.
    pub(crate) fn releasing_for(&self) -> Option<Way> {
        let hold = self.hold.as_ref().filter(|_| self.follow.is_releasing());
        hold.and_then(|hold| hold.to)
    }

    /// What the back-end expects of the client next, while a request is held.
    pub(crate) fn expected(&self) -> Seq {
        self.follow.held().0
    }

    /// The back-end cannot answer with the supplier's content. Returns whether it is to be asked to let go
    /// all the same, so that the request is handed over to it without.
    pub(crate) fn without_supplier(&mut self) -> bool {
        if let Some(way) = self.hold.as_mut().and_then(|hold| hold.to.as_mut()) {
            way.supplier = None;
        }
        self.follow.must_hand_over()
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
        let way = hold.to?;
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
            way,
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

/// Reads what passes.
struct Passing<'a> {
    follow: &'a mut Follow,
    ring: &'a mut [u8],
    /// Requests that began in it.
    began: u64,
}

impl Reader for Passing<'_> {
    fn is_reading(&self) -> bool {
        self.follow.is_reading()
    }

    fn skippable(&self) -> u64 {
        self.follow.skippable()
    }

    fn skip(&mut self, n: u64) {
        self.follow.skip(n);
    }

    fn feed(&mut self, bytes: &[u8]) {
        let began = self.follow.read(self.ring, bytes);
        self.began = self.began.saturating_add(began.into());
    }

    fn lose(&mut self) {
        self.follow.pin(Pinned::Lost);
    }
}

/// Why a request cannot be answered with the content of another node, if so.
fn why_unsuited(head: &[u8], parser: &HeadParser) -> Option<Counter> {
    if !matches!(parser.method(), Method::Get | Method::Head) {
        return Some(Counter::NextMethod);
    }
    // Which node it would be changes nothing.
    let rewritten = Rewritten::new(head, parser, [0; 4]);
    rewritten.is_err().then_some(Counter::NextUnsuited)
}

/// Do these bytes of a client begin with a HEAD request? Its response ends with its head.
pub(crate) fn is_to_head(data: &[u8]) -> bool {
    data.trim_ascii_start().starts_with(b"HEAD ")
}
