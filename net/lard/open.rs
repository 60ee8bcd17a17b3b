// SPDX-License-Identifier: GPL-2.0

//! A connection that has not been handed over yet: the responder, the bytes of the request head, and
//! the packets that wait for a back-end.
//!
//! Everything here runs under the connection's bucket lock and only changes the connection. What
//! has to be sent, asked or freed comes out as a [`Step`], which the front-end carries out once the
//! bucket is unlocked.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::alloc::flags::__GFP_NOWARN;
use kernel::alloc::Flags;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::skb::Skb;
use lard_core::addr::{Endpoint, NodeId};
use lard_core::follow::Forbidden;
use lard_core::http::http2::Progress;
use lard_core::http::rewrite::is_reserved;
use lard_core::http::{self, target, BadHead, HeadParser, Rewritten};
use lard_core::policy::{Mechanism, NodeSet};
use lard_core::tcp::{
    Accepted, Action, Config, Ended, Head, Output, Reason, Responder, Segment, SegmentOut, Seq,
    Snapshot, Status,
};
use lard_core::time::Instant;

use crate::forward::BackEnd;
use crate::gauge::Held;
use crate::hand_off::Chosen;
use crate::hold::Given;
use crate::http2::Http2;
use crate::packet::Flow;
use crate::parked::Parked;
use crate::persist::{Persist, Unchecked};
use crate::pieces::{self, NotKept};
use crate::rows::ConnState;
use crate::service::{Services, Wanted};
use crate::stats::{Counter, Stats};

/// Hand-offs that are tried for one connection before the client gets a 503.
const TRIES: u8 = 4;

/// Until a hand-off that found no room is tried again. Sending takes a few milliseconds when all is well.
const ROOM_PAUSE: Duration = Duration::from_millis(20);

/// Bytes of a head that do not count in what the node keeps for its clients: a usual request never finds
/// the cap reached.
const UNCOUNTED: usize = 2_048;

/// How far the connection has come.
pub(crate) enum Stage {
    /// The request head is not complete.
    Reading,
    /// The dispatcher has been asked.
    Asking,
    /// It is asked again at this time: there was no room in what is sent to the node it named.
    AskingLater(Instant),
    /// A back-end has, or is being given, the connection.
    HandingOff(HandingOff),
    /// The front-end answers by itself.
    Replying,
}

/// A hand-off under way.
#[derive(Clone)]
pub(crate) struct HandingOff {
    pub(crate) to: Arc<BackEnd>,
    pub(crate) snapshot: Snapshot,
    pub(crate) chosen: Chosen,
    /// The child's end, when it was quicker than the news of its birth.
    pub(crate) ended: Option<Ended>,
}

/// A connection before its hand-off.
pub(crate) struct Open {
    responder: Responder,
    parser: HeadParser,
    /// If the client does not speak what the parser reads.
    http2: Option<Http2>,
    /// All bytes received, in order. Empty while a hand-off on this node borrows them.
    pub(crate) head: KVec<u8>,
    /// Counts what is kept of the client against the node's cap: the head beyond [`UNCOUNTED`] bytes, and
    /// the memory of packets that wait.
    bytes_held: Held,
    /// Counts the connection against the node's limit.
    _open_held: Held,
    /// Counts the connection as half-open for as long as it is.
    half_open: Option<Held>,
    parked: Parked,
    pub(crate) stage: Stage,
    /// What the dispatcher is asked for, once the head is complete.
    wanted: Wanted,
    refused: NodeSet,
    tries: u8,
    /// Until when the hand-off may wait for room, once it does.
    room_by: Option<Instant>,
    /// The address of the node whose content the request is to be answered with, if that is not the one
    /// it is handed to.
    supplier: Option<[u8; 4]>,
    /// What follows the connection's further requests, once the head is complete and if they may move.
    pub(crate) persist: Option<KBox<Persist>>,
}

/// What to do for a connection after its bucket is unlocked.
#[derive(Default)]
pub(crate) struct Step {
    /// Segments for the client, in order. There are never more: one of `on_segment()` or
    /// `on_timer()`, one of `stored()`.
    pub(crate) send: [Option<SegmentOut>; 2],
    pub(crate) then: Then,
}

/// What becomes of the connection.
#[derive(Default)]
pub(crate) enum Then {
    /// It stays.
    #[default]
    Stay,
    /// The head is complete: find a back-end.
    Ask,
    /// It is over.
    Delete(Reason),
    /// It is over, and the SYN in hand opens its successor, with at least this sequence number.
    Restart(Seq),
}

/// A connection's parts of the node's limits.
pub(crate) struct Holds {
    pub(crate) open: Held,
    pub(crate) half_open: Option<Held>,
    pub(crate) bytes: Held,
}

/// A packet of the client.
struct Came {
    skb: Skb,
    payload_at: usize,
    client: Endpoint,
}

/// What the steps of a connection need besides itself.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) stats: &'a Stats,
    pub(crate) hash_key: [u64; 2],
    pub(crate) services: &'a Services,
    pub(crate) now: Instant,
    /// How other nodes serve further requests on a connection, if they do.
    pub(crate) further: Option<Mechanism>,
}

impl Open {
    /// A connection whose SYN, or SYN cookie, has just been accepted.
    pub(crate) fn new(responder: Responder, config: &Config, holds: Holds) -> Self {
        Self {
            responder,
            parser: HeadParser::new(config.head_limit as usize),
            http2: None,
            head: KVec::new(),
            bytes_held: holds.bytes,
            _open_held: holds.open,
            half_open: holds.half_open,
            parked: Parked::new(),
            stage: Stage::Reading,
            wanted: Wanted::NOTHING,
            refused: NodeSet::EMPTY,
            tries: 0,
            room_by: None,
            supplier: None,
            persist: None,
        }
    }

    /// A connection that its back-end has given up, for the request that `given` holds.
    pub(crate) fn resumed(
        cx: &Context<'_>,
        responder: Responder,
        given: Given,
        persist: KBox<Persist>,
    ) -> Self {
        // The settings of the service may change while it waits; a lower limit is not for this one.
        let limit = given.data.len().max(cx.config.head_limit as usize);
        let mut parser = HeadParser::new(limit);
        let _ = parser.feed(&given.data);
        Self {
            responder,
            parser,
            http2: None,
            head: given.data,
            bytes_held: given.bytes_held,
            _open_held: given.open_held,
            half_open: None,
            parked: given.parked,
            stage: Stage::Asking,
            wanted: given.wanted,
            refused: NodeSet::EMPTY,
            tries: 0,
            room_by: None,
            supplier: given.way.supplier.map(|supplier| supplier.addr),
            persist: Some(persist),
        }
    }

    /// A packet of the client. The checksum has been verified.
    pub(crate) fn on_packet(
        &mut self,
        cx: &Context<'_>,
        flow: &Flow,
        segment: &Segment,
        skb: Skb,
    ) -> Step {
        let output = self.responder.on_segment(cx.config, segment, cx.now);
        if !self.responder.is_half_open() {
            self.half_open = None;
        }
        let packet = Came {
            skb,
            payload_at: flow.payload_at(segment),
            client: flow.tuple.client,
        };
        self.run(cx, output, Some(packet))
    }

    /// The time [`Open::deadline`] named has come.
    pub(crate) fn on_timer(&mut self, cx: &Context<'_>) -> Step {
        if matches!(self.stage, Stage::AskingLater(at) if at <= cx.now) {
            self.stage = Stage::Asking;
            return Step {
                then: Then::Ask,
                ..Step::default()
            };
        }
        let output = self.responder.on_timer(cx.config, cx.now);
        self.run(cx, output, None)
    }

    /// No back-end takes the connection: the client gets an answer from the front-end.
    pub(crate) fn fail(&mut self, cx: &Context<'_>, status: Status) -> Step {
        let output = self.responder.fail(status, cx.now);
        self.run(cx, output, None)
    }

    /// The dispatcher lets the connection wait. Nothing changes if it was assigned meanwhile.
    pub(crate) fn wait_until(&mut self, deadline: Instant) {
        self.responder.wait_until(deadline);
    }

    /// When to call [`Open::on_timer`].
    pub(crate) fn deadline(&self) -> Instant {
        match self.stage {
            Stage::AskingLater(at) => at.min(self.responder.deadline()),
            _ => self.responder.deadline(),
        }
    }

    /// What to ask the dispatcher: what is wanted, and who must not be chosen.
    pub(crate) fn question(&self) -> (Wanted, NodeSet) {
        (self.wanted, self.refused)
    }

    /// Looks at the request again: the settings of the service have changed.
    pub(crate) fn want_anew(&mut self, cx: &Context<'_>) {
        // The head was found good before. One that is not good any more is wanted as it was.
        let anew = match (&self.http2, self.parser.status()) {
            (Some(http2), _) => Some(http2.wanted(cx, &self.head).0),
            (None, http::Status::Complete(len)) => self.wanted(len, cx).ok(),
            (None, http::Status::Partial | http::Status::Bad(_)) => None,
        };
        self.wanted = anew.unwrap_or(cx.services.still(self.wanted));
    }

    /// The state to hand over; `None` before the head is complete.
    pub(crate) fn snapshot(&mut self, cx: &Context<'_>) -> Option<Snapshot> {
        self.responder.snapshot(cx.config, cx.now)
    }

    /// The bytes to hand over, if they are to name the node that supplies the content: then those that
    /// were received stay as they are, for another attempt. Without memory there is no such node.
    pub(crate) fn rewritten(&self, stats: &Stats) -> Option<KVec<u8>> {
        let http::Status::Complete(len) = self.parser.status() else {
            return None;
        };
        let (head, behind) = self.head.split_at_checked(len)?;
        // Found possible before the dispatcher was asked.
        let new = Rewritten::new(head, &self.parser, self.supplier?).ok()?;
        let room = new.head_len().saturating_add(behind.len());
        let Ok(mut data) = KVec::with_capacity(room, quiet()) else {
            stats.inc(Counter::NoMemory);
            return None;
        };
        let [before, prefix, path, rest] = new.parts();
        for part in [before, prefix, path, rest, behind] {
            // Within the capacity: it allocates nothing and cannot fail.
            data.extend_from_slice(part, quiet()).ok()?;
        }
        stats.inc(Counter::Supplied);
        Some(data)
    }

    /// `by` cannot take the connection. Returns whether another node may be tried.
    pub(crate) fn refused(&mut self, by: NodeId) -> bool {
        self.responder.refused();
        self.refused.insert(by);
        // Whoever is tried next serves it itself.
        self.supplier = None;
        self.stage = Stage::Asking;
        self.tries = self.tries.saturating_add(1);
        self.tries < TRIES
    }

    /// There is no room now in what is sent to the back-end, which is none of its faults: until
    /// `deadline` it may be chosen again, a moment later. Returns whether that is to come.
    pub(crate) fn wait_for_room(&mut self, now: Instant, deadline: Instant) -> bool {
        if now >= *self.room_by.get_or_insert(deadline) {
            return false;
        }
        self.responder.refused();
        self.supplier = None;
        self.stage = Stage::AskingLater(now.saturating_add(ROOM_PAUSE));
        true
    }

    /// The packets that waited for the back-end, oldest first.
    pub(crate) fn take_parked(&mut self) -> KVec<Skb> {
        self.parked.take()
    }

    /// What to show of the connection.
    pub(crate) fn state(&self) -> ConnState {
        match &self.stage {
            Stage::Reading if self.responder.is_half_open() => ConnState::HalfOpen,
            Stage::Reading => ConnState::Head,
            Stage::Asking | Stage::AskingLater(_) => ConnState::Asking,
            Stage::HandingOff(_) => ConnState::HandingOff,
            Stage::Replying => ConnState::Replying,
        }
    }

    /// The back-end that is being given the connection, or none.
    pub(crate) fn back_end(&self) -> NodeId {
        match &self.stage {
            Stage::HandingOff(handing_off) => handing_off.to.node(),
            _ => NodeId::NONE,
        }
    }

    fn run(&mut self, cx: &Context<'_>, output: Output, packet: Option<Came>) -> Step {
        let mut step = Step::default();
        let timed = packet.is_none();
        let [first, second] = &mut step.send;
        *first = output.send;
        let mut packet = packet;
        let action = match (output.action, &mut packet) {
            (Action::Store(accepted), Some(packet)) => {
                let Some(head) = self.store(cx, packet, &accepted) else {
                    return step;
                };
                let output = self.responder.stored(cx.config, accepted, head, cx.now);
                *second = output.send;
                output.action
            }
            (action, _) => action,
        };
        step.then = match action {
            Action::HandOff { queue } => {
                self.stage = Stage::Asking;
                self.settle_http2(cx);
                if let Some(packet) = packet.filter(|_| queue) {
                    self.park(cx, packet.skb);
                }
                Then::Ask
            }
            Action::Queue => {
                if let Some(packet) = packet {
                    self.park(cx, packet.skb);
                }
                Then::Stay
            }
            Action::Drop(reason) => {
                cx.stats.inc(reason.into());
                Then::Stay
            }
            Action::Delete(reason) => Then::Delete(reason),
            Action::Restart { min_iss } => Then::Restart(min_iss),
            // A second Store cannot follow the first; dropping it means the segment never came.
            Action::Done | Action::Store(_) => Then::Stay,
        };
        if self.responder.is_closing() {
            self.count_unfinished(cx, timed);
            self.close();
        }
        step
    }

    /// Counts why a head is answered that is neither complete nor refused by the parser.
    fn count_unfinished(&self, cx: &Context<'_>, timed: bool) {
        let is_unfinished = matches!(self.parser.status(), http::Status::Partial);
        if !matches!(self.stage, Stage::Reading) || self.head.is_empty() || !is_unfinished {
            return;
        }
        let why = match (timed, self.responder.has_fin()) {
            (true, _) => BadHead::TooSlow,
            (false, true) => BadHead::Truncated,
            // There is no window for the rest.
            (false, false) => BadHead::TooLarge,
        };
        cx.stats.inc(why.into());
    }

    /// The front-end has begun to answer by itself: nothing will be handed over.
    fn close(&mut self) {
        self.stage = Stage::Replying;
        self.head = KVec::new();
        self.bytes_held.release();
        self.parked = Parked::new();
    }

    /// Copies what the responder accepted and lets the parser see it. `None`: no room, and the
    /// segment counts as never received.
    fn store(&mut self, cx: &Context<'_>, packet: &Came, accepted: &Accepted) -> Option<Head> {
        let start = self.head.len();
        let len = accepted.len() as usize;
        let at = packet.payload_at.checked_add(accepted.offset() as usize)?;
        let charged = start
            .saturating_add(len)
            .saturating_sub(start.max(UNCOUNTED));
        let bytes_held = &mut self.bytes_held;
        if let Err(why) = pieces::append(&packet.skb, at, len, &mut self.head, bytes_held, charged)
        {
            match why {
                NotKept::Full => cx.stats.inc(Counter::HeadMemory),
                NotKept::NoMemory => cx.stats.inc(Counter::NoMemory),
                // The length was checked against the packet.
                NotKept::Short => {}
            }
            return None;
        }
        let new = self.head.get(start..).unwrap_or_default();
        Some(match self.parser.feed(new) {
            http::Status::Partial => Head::Partial,
            http::Status::Complete(len) => match self.wanted(len, cx) {
                Ok(wanted) => {
                    self.wanted = wanted;
                    match self.follow(cx, len) {
                        Ok(()) => Head::Complete,
                        Err(Unchecked(why, status)) => {
                            cx.stats.inc(why);
                            Head::Bad(status)
                        }
                    }
                }
                Err(bad) => self.bad(cx, bad),
            },
            http::Status::Bad(bad) if self.parser.is_http2() => self
                .http2(cx, packet.client)
                .unwrap_or_else(|| self.bad(cx, bad)),
            http::Status::Bad(bad) => self.bad(cx, bad),
        })
    }

    /// What begins like HTTP/2 has grown; `None` if it is something else.
    fn http2(&mut self, cx: &Context<'_>, client: Endpoint) -> Option<Head> {
        let http2 = self.http2.get_or_insert_with(|| Http2::new(client));
        let head = match http2.feed(&self.head) {
            Progress::Other => return None,
            Progress::Preface => return Some(Head::Partial),
            Progress::Frames => Head::Partial,
            Progress::Whole => Head::Complete,
        };
        self.responder.speaks_http2();
        if cx.further == Some(Mechanism::Forward) {
            cx.stats.inc(Counter::HttpUnread);
            return Some(Head::Bad(Status::VersionNotSupported));
        }
        Some(head)
    }

    /// A node is to be found: on a connection of HTTP/2 that is when its first request is read.
    fn settle_http2(&mut self, cx: &Context<'_>) {
        if let Some(http2) = &self.http2 {
            let (wanted, unread) = http2.wanted(cx, &self.head);
            self.wanted = wanted;
            cx.stats.inc(Counter::PinnedHttp2);
            if let Some(why) = unread {
                cx.stats.inc(why);
            }
        }
    }

    /// The first head is complete, so many bytes long: further requests are followed, if another node may
    /// serve them. In the mode *forward* this may be none that is handed over.
    fn follow(&mut self, cx: &Context<'_>, len: usize) -> Result<(), Unchecked> {
        let Some(mechanism) = cx.further else {
            return Ok(());
        };
        let (head, behind) = self.head.split_at_checked(len).unwrap_or_default();
        if mechanism == Mechanism::Forward
            && target::key(head, &self.parser).is_ok_and(|target| is_reserved(&target))
        {
            return Err(Forbidden::Reserved.into());
        }
        self.persist = Persist::new(cx, &self.parser, self.responder.first(), behind)?;
        Ok(())
    }

    fn wanted(&self, head_len: usize, cx: &Context<'_>) -> Result<Wanted, BadHead> {
        let head = self.head.get(..head_len).unwrap_or_default();
        cx.services.ask(head, &self.parser, cx.hash_key)
    }

    fn bad(&mut self, cx: &Context<'_>, bad: BadHead) -> Head {
        cx.stats.inc(bad.into());
        Head::Bad(Status::from_code(bad.status()))
    }

    fn park(&mut self, cx: &Context<'_>, skb: Skb) {
        // The client sends again what does not fit.
        let _ = self.parked.keep(cx.stats, &mut self.bytes_held, skb);
    }
}

/// For memory that clients cause to be asked for: they must not fill the kernel's log.
pub(crate) fn quiet() -> Flags {
    GFP_ATOMIC | __GFP_NOWARN
}
