// SPDX-License-Identifier: GPL-2.0

//! Handing a connection over again for its next request: to another back-end, which serves it, or to the
//! same one, which gets it with the name of the node in front that supplies the content.
//!
//! ```text
//!   Forward ── request held ──▶ ASSIGN ──┬── home, nobody, no dispatcher ──▶ Forward, passed on
//!                                        └── another ──▶ RELEASE ──┬── BUSY ──▶ Forward, passed on
//!                                                                  └── RELEASED ──▶ Open, Asking
//! ```
//!
//! From RELEASED on the connection is like one whose first head is complete, and [`crate::hand_off`]
//! does the rest. Until then it stays where it is whenever anything is in doubt, with one exception: a
//! back-end that falls silent after RELEASE has left this node may have let go or not, and both sides are
//! reset ([`crate::over`]).
//!
//! # Locking
//!
//! As in [`crate::hand_off`]: RELEASE is queued under the bucket's lock; a back-end on this node is
//! called without any.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::net::SoftNet;
use kernel_net::pernet;
use kernel_net::skb::Skb;
use lard_core::addr::{ConnId, NodeId};
use lard_core::follow::Expired;
use lard_core::policy::{Admission, Mechanism};
use lard_core::tcp::{Responder, Segment};
use lard_core::wire::{Assign, HowClosed, Release, Released, WhyBusy};

use crate::conn_table::{Bucket, Entry};
use crate::front_end::{now, send, Forward, FrontEnd, State};
use crate::hand_off::Chosen;
use crate::hold::{Gauges, Supplier, Way};
use crate::netns::Node;
use crate::open::{quiet, Open};
use crate::over::Ending;
use crate::packet::Flow;
use crate::persist::{Onward, Origin};
use crate::stats::Counter;

impl FrontEnd {
    /// Decides about a packet of a connection that is followed. Returns the packet if it is to be
    /// passed on; what else there is to do is done. Bottom halves off.
    pub(crate) fn follow(
        &self,
        node: &Node,
        net: &SoftNet,
        mut bucket: Bucket<'_>,
        conn: ConnId,
        packet: (&Flow, &Segment, Skb),
        from: Origin,
    ) -> Option<Skb> {
        let (flow, segment, skb) = packet;
        let entry = bucket.find_id(conn)?;
        let State::Forward(forward) = &mut entry.state else {
            return None;
        };
        let Some(persist) = &mut forward.persist else {
            return Some(skb);
        };
        let gauges = Gauges {
            open: &self.open,
            bytes: &self.head_bytes,
        };
        let mut onward = self.with_context(node, |cx| {
            persist.on_packet(cx, &gauges, flow, segment, skb, from)
        });
        let mut over = None;
        if let Some(why) = persist.is_over() {
            node.stats.inc(why.into());
            over = forward.persist.take();
        }
        let deadline = self.forward_deadline(forward);
        let first = match &mut onward {
            Onward::Again(packets) => {
                entry.put_first(&node.stats, core::mem::take(packets), Origin::Parked)
            }
            _ => false,
        };
        bucket.set_deadline(conn, deadline);
        drop(bucket);
        drop(over);
        match onward {
            Onward::Pass(skb) => return Some(skb),
            Onward::Ask => self.ask_next(node, net, conn),
            Onward::Again(_) if first => self.pass_on(node, net, &flow.tuple, conn),
            Onward::Kept | Onward::Again(_) => {}
            Onward::End(from) => self.end_forbidden(node, net, conn, segment, from),
        }
        None
    }

    /// Asks who serves the request that is held. Bottom halves off, no lock held.
    fn ask_next(&self, node: &Node, net: &SoftNet, conn: ConnId) {
        let asked = self.with_forward(conn, |forward| {
            let persist = forward.persist.as_ref()?;
            let (wanted, batch) = persist.question()?;
            let question = Assign {
                conn,
                key: wanted.key,
                exclude: Default::default(),
                home: Some(forward.to.node()),
                mechanism: persist.mechanism(),
                batch,
                tags: wanted.tags,
            };
            Some((question, persist.unasked().is_none()))
        });
        let Some((question, is_asked)) = asked else {
            return;
        };
        if !is_asked {
            self.assigned_next(node, net, conn, question.home);
            return;
        }
        if node.is_dispatcher() {
            let to = match node.dispatcher.assign(node, &question) {
                Admission::Assigned(to) => to,
                // Only first requests wait.
                Admission::Waits | Admission::Refused => None,
            };
            self.assigned_next(node, net, conn, to);
        } else if node
            .control
            .send_assign(node.dispatcher_id(), &question)
            .is_err()
        {
            self.stay(node, net, conn, false, Counter::NextNoDispatcher);
        }
    }

    /// The dispatcher's answer about a further request. `false` if the connection is not one that is
    /// passed on. Bottom halves off.
    pub(crate) fn assigned_next(
        &self,
        node: &Node,
        net: &SoftNet,
        conn: ConnId,
        to: Option<NodeId>,
    ) -> bool {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return false;
        };
        let Some(entry) = bucket.find_id(conn) else {
            return false;
        };
        let State::Forward(forward) = &mut entry.state else {
            return false;
        };
        let home = forward.to.node();
        let persist = forward.persist.as_mut();
        let asked = persist.as_ref().map(|persist| persist.mechanism());
        // Who only supplies content was not counted for the whole connection.
        let moves = asked != Some(Mechanism::Forward);
        let Some(persist) = persist.filter(|persist| persist.question().is_some()) else {
            // It was not waited for any longer.
            drop(bucket);
            if let Some(to) = to.filter(|to| *to != home && moves) {
                self.unassign(node, conn, to, Chosen::ByDispatcher);
            }
            return true;
        };
        let supplier = to.filter(|to| *to != home && !moves);
        let supplier = supplier.and_then(|to| {
            Some(Supplier {
                node: to,
                addr: node.forward.back_end(to)?.addr(),
            })
        });
        let to = match moves {
            true => to,
            false => to.map(|_| home),
        };
        let to = match to {
            Some(to) if to != home || supplier.is_some() || persist.must_hand_over() => to,
            _ => {
                let why = match to {
                    Some(_) => persist.unasked().unwrap_or(Counter::NextStays),
                    None => Counter::NextNoBackEnd,
                };
                drop(bucket);
                self.stay(node, net, conn, false, why);
                return true;
            }
        };
        self.release(node, net, bucket, conn, Way { to, supplier });
        true
    }

    /// Asks the back-end once more to let go. Bottom halves off, no lock held.
    fn release_again(&self, node: &Node, net: &SoftNet, conn: ConnId) {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return;
        };
        let way = match bucket.find_id(conn).map(|entry| &entry.state) {
            Some(State::Forward(forward)) => forward.persist.as_ref(),
            _ => None,
        };
        if let Some(way) = way.and_then(|persist| persist.releasing_for()) {
            self.release(node, net, bucket, conn, way);
        }
    }

    /// Asks the back-end that has the connection to let go of it, so that its request goes this way. Bottom
    /// halves off.
    fn release(&self, node: &Node, net: &SoftNet, mut bucket: Bucket<'_>, conn: ConnId, way: Way) {
        let Some(entry) = bucket.find_id(conn) else {
            return;
        };
        let tuple = *entry.tuple();
        let State::Forward(forward) = &mut entry.state else {
            return;
        };
        let home = forward.to.node();
        let acked = forward.state.acked().0;
        let Some(persist) = &mut forward.persist else {
            return;
        };
        let deadline = self.handoff_deadline();
        let (next, requests) = persist.release(way, deadline);
        let release = Release {
            conn,
            tuple,
            next: next.0,
            acked,
            requests,
            supplier: way.supplier.map(|supplier| supplier.node),
        };
        bucket.set_deadline(conn, deadline);
        if home == node.id() {
            drop(bucket);
            match node.back_end.release(node, net, None, &release) {
                Ok(released) => self.released(node, net, conn, home, &released),
                Err(why) => self.busy(node, net, conn, home, why),
            }
            return;
        }
        let sent = node.control.send(home, &release).is_ok();
        drop(bucket);
        match sent {
            true => node.stats.inc(Counter::ReleaseSent),
            false => self.not_released(node, net, conn, home, Counter::ReleaseNotSent),
        }
    }

    /// `from` has let go of the connection: it is handed over anew. Bottom halves off, no lock held.
    pub(crate) fn released(
        &self,
        node: &Node,
        net: &SoftNet,
        conn: ConnId,
        from: NodeId,
        released: &Released,
    ) {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return;
        };
        let Some(entry) = bucket.find_id(conn) else {
            return;
        };
        let tuple = *entry.tuple();
        let State::Forward(forward) = &mut entry.state else {
            node.stats.inc(Counter::StaleAnswer);
            return;
        };
        let is_awaited = forward.to.node() == from
            && forward
                .persist
                .as_ref()
                .is_some_and(|p| p.releasing_for().is_some());
        let persist = match is_awaited {
            true => forward.persist.take(),
            false => None,
        };
        let Some(mut persist) = persist else {
            drop(bucket);
            node.stats.inc(Counter::StaleAnswer);
            return self.not_there(node, conn, from, HowClosed::Moved);
        };
        let way = persist.releasing_for();
        let given = persist.released(forward.state.acked(), forward.state.ts_recent(), released);
        let resumed = given.and_then(|(given, at, settled)| {
            let to = given.way.to;
            let open = self.with_context(node, |cx| {
                let responder = Responder::resume(cx.config, &settled, &at, cx.now);
                Open::resumed(cx, responder, given, persist)
            });
            Some((KBox::new(open, quiet()).ok()?, to))
        });
        let Some((open, to)) = resumed else {
            // Nobody has it.
            let reset = forward.state.abort();
            let gone = bucket.remove(conn);
            drop(bucket);
            drop(gone);
            node.stats.inc(Counter::MoveFailed);
            send(node, net, &tuple, &reset);
            self.tell_dispatcher(node, conn, from, HowClosed::Moved);
            return self.unassign_way(node, conn, way, from);
        };
        let deadline = open.deadline();
        let old = core::mem::replace(&mut entry.state, State::Open(open));
        bucket.set_deadline(conn, deadline);
        drop(bucket);
        drop(old);
        node.stats.inc(Counter::MoveBegun);
        if to != from {
            self.tell_dispatcher(node, conn, from, HowClosed::Moved);
        }
        self.give(node, net, conn, Some(to), Chosen::ByDispatcher);
    }

    /// `from` keeps the connection. Bottom halves off, no lock held.
    pub(crate) fn busy(
        &self,
        node: &Node,
        net: &SoftNet,
        conn: ConnId,
        from: NodeId,
        why: WhyBusy,
    ) {
        if why == WhyBusy::Opaque {
            self.with_forward(conn, |forward| {
                forward.persist.as_mut()?.settle();
                Some(())
            });
        }
        if why == WhyBusy::InUse && self.ask_again(conn, from) {
            node.stats.inc(Counter::ReleaseAgain);
            pernet::hasten(net);
            return;
        }
        if why == WhyBusy::Unmounted && self.without_supplier(conn, from) {
            node.stats.inc(why.into());
            self.release_again(node, net, conn);
            return;
        }
        self.not_released(node, net, conn, from, why.into());
    }

    /// Has the request to be handed over to `from` again, which is to answer it by itself?
    fn without_supplier(&self, conn: ConnId, from: NodeId) -> bool {
        let again = self.with_forward(conn, |forward| {
            let persist = forward.persist.as_mut();
            let persist = persist.filter(|p| forward.to.node() == from && p.is_in_doubt())?;
            Some(persist.without_supplier())
        });
        again.unwrap_or(false)
    }

    /// Has `from` soon to be asked again to let go?
    fn ask_again(&self, conn: ConnId, from: NodeId) -> bool {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return false;
        };
        let entry = bucket.find_id(conn);
        let Some(State::Forward(forward)) = entry.map(|entry| &mut entry.state) else {
            return false;
        };
        let persist = forward.persist.as_mut();
        let Some(persist) = persist.filter(|p| forward.to.node() == from && p.is_in_doubt()) else {
            return false;
        };
        let again = persist.ask_again(now());
        let deadline = persist.deadline();
        bucket.set_deadline(conn, deadline);
        again
    }

    /// The connection stays at `home`, which was asked to let go of it.
    fn not_released(&self, node: &Node, net: &SoftNet, conn: ConnId, home: NodeId, why: Counter) {
        let to = self.with_forward(conn, |forward| {
            let persist = forward.persist.as_ref()?;
            let way = persist.releasing_for();
            way.filter(|_| forward.to.node() == home).map(|way| way.to)
        });
        let Some(to) = to else {
            node.stats.inc(Counter::StaleAnswer);
            return;
        };
        if to != home {
            self.unassign(node, conn, to, Chosen::ByDispatcher);
        }
        self.stay(node, net, conn, true, why);
    }

    /// The connection stays where it is, and gets what was held, if its back-end is still, or still is not,
    /// `releasing` it: another answer may have come in the meantime.
    fn stay(&self, node: &Node, net: &SoftNet, conn: ConnId, releasing: bool, why: Counter) {
        let first = self.with_entry(conn, |entry| {
            let State::Forward(forward) = &mut entry.state else {
                return None;
            };
            let persist = forward.persist.as_mut();
            let packets = persist.filter(|p| p.is_releasing() == releasing)?.stay();
            node.stats.inc(why);
            let first = entry.put_first(&node.stats, packets, Origin::Parked);
            first.then_some(*entry.tuple())
        });
        if let Some(tuple) = first {
            self.pass_on(node, net, &tuple, conn);
        }
    }

    /// The wait for an answer is over.
    pub(crate) fn waited(&self, node: &Node, net: &SoftNet, conn: ConnId) {
        let expired = self.with_forward(conn, |forward| {
            Some(forward.persist.as_ref()?.on_timer(now()))
        });
        match expired {
            Some(Expired::Stay) => self.stay(node, net, conn, false, Counter::NextExpired),
            Some(Expired::Again) => self.release_again(node, net, conn),
            Some(Expired::Reset) => self.abort(node, net, conn),
            Some(Expired::No) | None => {}
        }
    }

    /// The control connection to `peer` is gone, and the connection waited for an answer of it.
    pub(crate) fn lost_next(
        &self,
        node: &Node,
        net: &SoftNet,
        conn: ConnId,
        peer: NodeId,
        unsent: bool,
    ) {
        let releasing = self.with_forward(conn, |forward| {
            let waits = forward.waits_for(peer, peer == node.dispatcher_id());
            let persist = forward.persist.as_ref().filter(|_| waits)?;
            Some(persist.is_in_doubt())
        });
        match releasing {
            None => {}
            Some(false) => self.stay(node, net, conn, false, Counter::NextNoDispatcher),
            Some(true) if unsent => {
                self.not_released(node, net, conn, peer, Counter::ReleaseNotSent);
            }
            Some(true) => self.abort(node, net, conn),
        }
    }

    /// Nobody knows whether the back-end has let go of the connection: it ends.
    fn abort(&self, node: &Node, net: &SoftNet, conn: ConnId) {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return;
        };
        let entry = bucket.find_id(conn);
        let Some(State::Forward(forward)) = entry.map(|entry| &mut entry.state) else {
            return;
        };
        let Some(persist) = forward.persist.as_ref().filter(|p| p.is_in_doubt()) else {
            return;
        };
        let (way, home) = (persist.releasing_for(), forward.to.node());
        let ending = Ending {
            to_client: Some(forward.state.abort()),
            expected: persist.expected(),
            chosen: Chosen::ByDispatcher,
        };
        node.stats.inc(Counter::MoveFailed);
        self.end(node, net, bucket, conn, ending);
        self.unassign_way(node, conn, way, home);
    }

    /// The node that was to get the connection from `home` does not.
    fn unassign_way(&self, node: &Node, conn: ConnId, way: Option<Way>, home: NodeId) {
        if let Some(way) = way.filter(|way| way.to != home) {
            self.unassign(node, conn, way.to, Chosen::ByDispatcher);
        }
    }

    pub(crate) fn with_forward<R>(
        &self,
        conn: ConnId,
        f: impl FnOnce(&mut Forward) -> Option<R>,
    ) -> Option<R> {
        let mut bucket = self.table()?.bucket_of(conn)?;
        match &mut bucket.find_id(conn)?.state {
            State::Forward(forward) => f(forward),
            State::Open(_) => None,
        }
    }

    fn with_entry<R>(&self, conn: ConnId, f: impl FnOnce(&mut Entry) -> Option<R>) -> Option<R> {
        let mut bucket = self.table()?.bucket_of(conn)?;
        f(bucket.find_id(conn)?)
    }
}
