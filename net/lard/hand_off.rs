// SPDX-License-Identifier: GPL-2.0

//! From a complete head to a back-end that has the connection.
//!
//! ```text
//!            ┌────────────── REFUSED, or it never left this node ──────────────┐
//!            ▼                                                                 │
//!   Asking ──┬── ASSIGNED ──▶ HandingOff ──┬── ADOPTED ──▶ Forward             │
//!            │                             ├─────────────────────────────────── ┘
//!            ├── WAIT: later ADMITTED, as ASSIGNED
//!            ├── ADMITTED nobody ──▶ 503   └── silence, or the peer died ──▶ reset
//!            └── dispatcher lost, or ASSIGNED nobody ──▶ consistent hashing over the nodes known here,
//!                                                        if there are none ──▶ 503
//! ```
//!
//! A hand-off is tried elsewhere only when it is certain that nobody has the connection. A back-end
//! that falls silent may be answering already: the client is reset, never served twice, and so is the
//! back-end ([`crate::over`]).
//!
//! # Locking
//!
//! A HANDOFF for another node is written to that node's send queue under the bucket's lock, so its
//! answer cannot overtake the change of state. A back-end on this node is called without any lock:
//! a child can be born, served and dead before the call returns.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::net::SoftNet;
use lard_core::addr::{ConnId, NodeId};
use lard_core::policy::{rendezvous, Admission, Mechanism, NodeSet, Tags};
use lard_core::tcp::{Ended, Status};
use lard_core::wire::{Assign, Closed, HowClosed, Refusal};

use crate::conn_table::{Entry, BUCKETS};
use crate::front_end::{now, Forward, FrontEnd, State};
use crate::handed_over::{handoff, HandedOver};
use crate::netns::Node;
use crate::open::{HandingOff, Open, Stage};
use crate::outbox::SendError;
use crate::persist::Origin;
use crate::service::Wanted;
use crate::stats::Counter;

/// Connections that a change of the cluster concerns, handled at a time.
const BATCH: usize = 256;

/// Who chose a back-end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// The dispatcher, who counts the connection as the node's load until it hears of its end.
    ByDispatcher,
    /// This front-end.
    Here,
}

/// What came of an attempt.
enum Attempt {
    /// Nothing more to do now.
    Settled,
    /// Another node is to be asked for.
    Again,
}

impl FrontEnd {
    /// Finds a back-end for a connection whose head is complete. Bottom halves off.
    pub(crate) fn ask(&self, node: &Node, net: &SoftNet, conn: ConnId) {
        // Each round that comes back has added a node to those that refused, and their number is
        // limited; or the settings of the service have changed meanwhile.
        loop {
            let Some((wanted, exclude)) = self.with_open(conn, |open| match open.stage {
                Stage::Asking => {
                    if node.services.is_outdated(&open.question().0) {
                        self.with_context(node, |cx| open.want_anew(cx));
                    }
                    Some(open.question())
                }
                _ => None,
            }) else {
                return;
            };
            let question = Assign {
                conn,
                key: wanted.key,
                exclude,
                home: None,
                mechanism: Mechanism::Move,
                batch: 1,
                tags: wanted.tags,
            };
            let (to, chosen) = if node.is_dispatcher() {
                match node.dispatcher.assign(node, &question) {
                    Admission::Assigned(to) => (to, Chosen::ByDispatcher),
                    Admission::Refused => (None, Chosen::ByDispatcher),
                    Admission::Waits => {
                        return self.waits(conn, node.dispatcher.queue_time_ms());
                    }
                }
            } else if node
                .control
                .send_assign(node.dispatcher_id(), &question)
                .is_ok()
            {
                return;
            } else {
                node.stats.inc(Counter::AssignFallback);
                (choose(node, &wanted, exclude), Chosen::Here)
            };
            match self.hand_off(node, net, conn, to, chosen) {
                Attempt::Settled => return,
                Attempt::Again => {}
            }
        }
    }

    /// Another node's dispatcher has answered. That it knows nobody is no reason to serve nobody: it may have
    /// begun a moment ago, or have lost a node that this one is connected to. Bottom halves off.
    pub(crate) fn answered(&self, node: &Node, net: &SoftNet, conn: ConnId, to: Option<NodeId>) {
        if self.assigned_next(node, net, conn, to) {
            return;
        }
        match to.is_none().then(|| self.chosen_here(node, conn)).flatten() {
            Some(known) => self.give(node, net, conn, Some(known), Chosen::Here),
            None => self.give(node, net, conn, to, Chosen::ByDispatcher),
        }
    }

    /// The answer of the dispatcher on this node, or any after the connection has waited. Bottom halves off.
    pub(crate) fn assigned(&self, node: &Node, net: &SoftNet, conn: ConnId, to: Option<NodeId>) {
        if !self.assigned_next(node, net, conn, to) {
            self.give(node, net, conn, to, Chosen::ByDispatcher);
        }
    }

    /// Hands a connection to the node that was chosen.
    pub(crate) fn give(
        &self,
        node: &Node,
        net: &SoftNet,
        conn: ConnId,
        to: Option<NodeId>,
        chosen: Chosen,
    ) {
        if let Attempt::Again = self.hand_off(node, net, conn, to, chosen) {
            self.ask(node, net, conn);
        }
    }

    /// A back-end that this node knows, for a connection that the dispatcher knows none for.
    fn chosen_here(&self, node: &Node, conn: ConnId) -> Option<NodeId> {
        let (wanted, exclude) = self.with_open(conn, |open| Some(open.question()))?;
        if node.services.is_outdated(&wanted) {
            return None;
        }
        let to = choose(node, &wanted, exclude)?;
        node.stats.inc(Counter::AssignFallback);
        Some(to)
    }

    fn hand_off(
        &self,
        node: &Node,
        net: &SoftNet,
        conn: ConnId,
        to: Option<NodeId>,
        chosen: Chosen,
    ) -> Attempt {
        let Some(to) = to else {
            let wanted = self.with_open(conn, |open| Some(open.question().0));
            let wanted = wanted.unwrap_or(Wanted::NOTHING);
            if node.services.is_outdated(&wanted) {
                return Attempt::Again;
            }
            node.stats.inc(match wanted.tags {
                Tags::NONE => Counter::NoBackEnd,
                _ => Counter::NoTaggedBackEnd,
            });
            self.fail(node, net, conn);
            return Attempt::Settled;
        };
        let local = to == node.id();
        let back_end = node.forward.back_end(to);
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return Attempt::Settled;
        };
        let entry = bucket.find_id(conn);
        let Some((tuple, open)) = entry
            .and_then(Entry::open_mut)
            .filter(|(_, open)| matches!(open.stage, Stage::Asking))
        else {
            // The client has gone meanwhile.
            drop(bucket);
            self.unassign(node, conn, to, chosen);
            return Attempt::Settled;
        };
        let (Some(back_end), Some(mut snapshot)) =
            (back_end, self.with_context(node, |cx| open.snapshot(cx)))
        else {
            let again = open.refused(to);
            drop(bucket);
            self.unassign(node, conn, to, chosen);
            return self.retry(node, net, conn, again);
        };
        let rewritten = open.rewritten(&node.stats);
        if let Some(data) = &rewritten {
            // CAST: what is received is bounded far below 2^31.
            snapshot = snapshot.with_len(data.len() as u32);
        }
        open.stage = Stage::HandingOff(HandingOff {
            to: back_end,
            snapshot,
            chosen,
            ended: None,
        });
        let expires = self.handoff_expires();
        let deadline = open.deadline();
        let movable = open.persist.is_some();
        if !local {
            let data = rewritten.as_deref().unwrap_or(&open.head);
            let message = handoff(conn, &tuple, &snapshot, expires, movable, data);
            let sent = node.control.send(to, &message);
            if sent.is_ok() {
                node.stats.inc(Counter::HandoffSent);
                bucket.set_deadline(conn, deadline);
                return Attempt::Settled;
            }
            let full = sent == Err(SendError::Full);
            if full && open.wait_for_room(now(), self.handoff_deadline()) {
                node.stats.inc(Counter::HandoffLater);
                let deadline = open.deadline();
                bucket.set_deadline(conn, deadline);
                drop(bucket);
                self.unassign(node, conn, to, chosen);
                return Attempt::Settled;
            }
            node.stats.inc(Counter::HandoffNotSent);
            let again = open.refused(to);
            drop(bucket);
            self.unassign(node, conn, to, chosen);
            return self.retry(node, net, conn, again);
        }
        let head = core::mem::take(&mut open.head);
        bucket.set_deadline(conn, deadline);
        drop(bucket);
        let data = rewritten.as_deref().unwrap_or(&head);
        let message = handoff(conn, &tuple, &snapshot, expires, movable, data);
        match node.back_end.handoff(node, net, None, &message) {
            Ok(()) => {
                node.stats.inc(Counter::HandoffLocal);
                self.adopted(node, net, conn, to);
                Attempt::Settled
            }
            Err(refusal) => {
                let again = self.with_open(conn, |open| {
                    open.head = head;
                    Some(open.refused(to))
                });
                node.stats.inc(refusal.into());
                self.unassign(node, conn, to, chosen);
                self.retry(node, net, conn, again.unwrap_or(false))
            }
        }
    }

    /// `from` has the connection: from now on its packets are passed on. Bottom halves off.
    pub(crate) fn adopted(&self, node: &Node, net: &SoftNet, conn: ConnId, from: NodeId) {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return;
        };
        let stale = || node.stats.inc(Counter::StaleAnswer);
        let Some(entry) = bucket.find_id(conn) else {
            return stale();
        };
        let State::Open(open) = &mut entry.state else {
            stale();
            return self.reset_again(node, net, bucket, conn, from);
        };
        let is_awaited = open.handing_off_to(from).is_some();
        let Some(handed) = is_awaited.then(|| open.hand_over(node)).flatten() else {
            return stale();
        };
        let HandedOver {
            state,
            to,
            snapshot,
            parked,
            ..
        } = handed;
        let mut persist = open.persist.take();
        let goes_on = self.with_context(node, |cx| {
            let persist = persist.as_mut();
            persist.is_some_and(|persist| persist.adopted(cx, &snapshot))
        });
        let forward = Forward {
            state,
            to,
            persist: persist.filter(|_| goes_on),
        };
        let deadline = self.forward_deadline(&forward);
        let old = core::mem::replace(&mut entry.state, State::Forward(forward));
        let tuple = *entry.tuple();
        let first = entry.put_first(&node.stats, parked, Origin::HandedOver);
        bucket.set_deadline(conn, deadline);
        drop(bucket);
        drop(old);
        node.stats.inc(Counter::Adopted);
        if first {
            self.pass_on(node, net, &tuple, conn);
        }
    }

    /// A back-end cannot take the connection. Bottom halves off.
    pub(crate) fn refused(
        &self,
        node: &Node,
        net: &SoftNet,
        conn: ConnId,
        from: NodeId,
        reason: Refusal,
        client_reset: bool,
    ) {
        let Some((chosen, again)) = self.with_open(conn, |open| {
            let chosen = open.handing_off_to(from)?.chosen;
            Some((chosen, open.refused(from)))
        }) else {
            // Given up meanwhile.
            node.stats.inc(Counter::StaleAnswer);
            return self.not_there(node, conn, from, HowClosed::NotAdopted);
        };
        node.stats.inc(reason.into());
        self.unassign(node, conn, from, chosen);
        if client_reset {
            self.delete(node, conn, Counter::ClientResetByRefusal);
        } else if let Attempt::Again = self.retry(node, net, conn, again) {
            self.ask(node, net, conn);
        }
    }

    /// The child of a connection has ended on `from`. Any context with bottom halves off.
    pub(crate) fn closed(&self, node: &Node, conn: ConnId, from: NodeId, how: HowClosed) {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return;
        };
        let Some(entry) = bucket.find_id(conn) else {
            return;
        };
        let how = match how {
            HowClosed::TimeWait => Ended::TimeWait,
            HowClosed::Closed | HowClosed::Reset | HowClosed::NotAdopted => Ended::Gone,
            // It goes on.
            HowClosed::Moved => return,
        };
        match &mut entry.state {
            State::Forward(forward) if forward.to.node() == from => {
                self.tell_busy(node, conn, forward);
                forward.state.ended(how, now());
                let unneeded = forward.persist.as_mut().map(|persist| persist.forget());
                let deadline = self.forward_deadline(forward);
                bucket.set_deadline(conn, deadline);
                drop(bucket);
                drop(unneeded);
            }
            State::Open(open) => {
                if let Some(handing_off) = open.handing_off_to(from) {
                    handing_off.ended = Some(how);
                }
            }
            State::Forward(_) => {}
        }
    }

    /// The control connection to `peer` is gone. `unsent` are, in order, the connections whose ASSIGN or HANDOFF
    /// never left this node, or whose RELEASE. Connections that are passed on stay: the peer may live, and only its
    /// `cluster_startup` have died. Process context.
    pub(crate) fn peer_down(&self, node: &Node, peer: NodeId, unsent: &[ConnId]) {
        let Some(table) = self.table() else { return };
        let Ok(mut concerned) = KVec::with_capacity(BATCH, GFP_KERNEL) else {
            return;
        };
        let is_dispatcher = peer == node.dispatcher_id();
        let mut from = Some(0);
        while let Some(bucket) = from {
            concerned.clear();
            from = table.visit(bucket, BUCKETS, |entry| {
                let waits = match &entry.state {
                    State::Open(open) => match &open.stage {
                        Stage::Asking => is_dispatcher,
                        Stage::HandingOff(handing_off) => handing_off.to.node() == peer,
                        Stage::Reading | Stage::AskingLater(_) | Stage::Replying => false,
                    },
                    State::Forward(forward) => forward.waits_for(peer, is_dispatcher),
                };
                if waits && concerned.len() == concerned.capacity() {
                    return false;
                }
                if waits {
                    // Within the capacity: it allocates nothing and cannot fail.
                    let _ = concerned.push(entry.id(), GFP_ATOMIC);
                }
                true
            });
            for conn in concerned.iter().copied() {
                let unsent = unsent.binary_search(&conn).is_ok();
                node.cell.with(|net| {
                    self.lost(node, net, conn, peer, unsent);
                    self.lost_next(node, net, conn, peer, unsent);
                });
            }
        }
    }

    /// A connection waited for an answer of `peer` that will not come.
    fn lost(&self, node: &Node, net: &SoftNet, conn: ConnId, peer: NodeId, unsent: bool) {
        enum Fate {
            Ask,
            Retry { chosen: Chosen, again: bool },
            Reset,
        }
        let fate = self.with_open(conn, |open| match open.handing_off_to(peer) {
            None => Some(Fate::Ask),
            Some(handing_off) if unsent => {
                let chosen = handing_off.chosen;
                let again = open.refused(peer);
                Some(Fate::Retry { chosen, again })
            }
            Some(_) => Some(Fate::Reset),
        });
        match fate {
            Some(Fate::Ask) => self.ask(node, net, conn),
            Some(Fate::Retry { chosen, again }) => {
                node.stats.inc(Counter::HandoffNotSent);
                self.unassign(node, conn, peer, chosen);
                if let Attempt::Again = self.retry(node, net, conn, again) {
                    self.ask(node, net, conn);
                }
            }
            Some(Fate::Reset) => self.reset(node, net, conn, peer),
            None => {}
        }
    }

    /// Another node, or 503 after too many.
    fn retry(&self, node: &Node, net: &SoftNet, conn: ConnId, again: bool) -> Attempt {
        if again {
            node.stats.inc(Counter::HandoffRetried);
            return Attempt::Again;
        }
        node.stats.inc(Counter::HandoffGivenUp);
        self.fail(node, net, conn);
        Attempt::Settled
    }

    /// The client gets a 503.
    fn fail(&self, node: &Node, net: &SoftNet, conn: ConnId) {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return;
        };
        let Some((_, open)) = bucket.find_id(conn).and_then(Entry::open_mut) else {
            return;
        };
        let step = self.with_context(node, |cx| open.fail(cx, Status::ServiceUnavailable));
        let deadline = open.deadline();
        self.finish(node, net, bucket, conn, deadline, step);
    }

    /// Nobody can say whether `to` has the connection.
    fn reset(&self, node: &Node, net: &SoftNet, conn: ConnId, to: NodeId) {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return;
        };
        let entry = bucket.find_id(conn).and_then(Entry::open_mut);
        if entry.is_some_and(|(_, open)| open.handing_off_to(to).is_some()) {
            self.end_hand_off(node, net, bucket, conn);
        }
    }

    fn delete(&self, node: &Node, conn: ConnId, why: Counter) {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return;
        };
        let gone = bucket.remove(conn);
        drop(bucket);
        if gone.is_some() {
            node.stats.inc(why);
        }
    }

    /// Tells the dispatcher that a connection it has counted for `of` is not there.
    pub(crate) fn unassign(&self, node: &Node, conn: ConnId, of: NodeId, chosen: Chosen) {
        if chosen == Chosen::ByDispatcher {
            self.tell_dispatcher(node, conn, of, HowClosed::NotAdopted);
        }
    }

    /// Tells the dispatcher that a connection is not `of`'s load any more.
    pub(crate) fn tell_dispatcher(&self, node: &Node, conn: ConnId, of: NodeId, how: HowClosed) {
        if node.is_dispatcher() {
            node.dispatcher.finished(node, conn, of);
            return;
        }
        let closed = Closed {
            conn,
            node: of,
            how,
            bytes: 0,
            duration: Default::default(),
        };
        // Without a dispatcher there is nobody who counts.
        let _ = node.control.send(node.dispatcher_id(), &closed);
    }

    fn with_open<R>(&self, conn: ConnId, f: impl FnOnce(&mut Open) -> Option<R>) -> Option<R> {
        let mut bucket = self.table()?.bucket_of(conn)?;
        let (_, open) = bucket.find_id(conn)?.open_mut()?;
        f(open)
    }
}

/// Chooses without a dispatcher, by consistent hashing.
fn choose(node: &Node, wanted: &Wanted, exclude: NodeSet) -> Option<NodeId> {
    let known = node.back_ends(wanted.tags);
    let left = known.iter().filter(|(n, _)| !exclude.contains(*n));
    rendezvous(left.copied(), wanted.key)
}
