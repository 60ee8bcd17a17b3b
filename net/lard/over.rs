// SPDX-License-Identifier: GPL-2.0

//! Connections that the front-end ends although a back-end has them, or may have them.
//!
//! ```text
//!   HANDOFF or RELEASE has left, and no answer comes ──┐
//!   what is for a back-end that is out of reach ───────┼──▶ client and back-end ──▶ client's ──▶ forgotten
//!   what a client may not send ────────────────────────┘    are reset               resets pass
//! ```
//!
//! Without a reset of its own the back-end's socket, which is of use to nobody, would live for as long as
//! its server waits for more, or for the quarter of an hour after which TCP gives up a client that is
//! silent, and the server's worker with it. The reset is one of the client's and goes the way of the
//! client's packets, so it needs no control connection. [`lard_core::tcp::Forwarding`] says how a back-end
//! is reached that gets the connection late, or expects another number.
//!
//! # The dispatcher
//!
//! Who has a connection reports its end, and here nobody can say who has it. So the dispatcher is told that
//! it is idle, which is no load at once. Its end is reported by the back-end, if that has it; if it answers
//! in time that it has not, by this front-end. So nothing counts twice; and if no answer comes, the
//! back-end's reports show that an idle connection is not there. When the entry is forgotten that is taken
//! back, in case the dispatcher had heard of the end before it heard of this.

#![forbid(unsafe_code)]

use kernel_net::net::SoftNet;
use kernel_net::segment;
use kernel_net::skb::Skb;
use lard_core::addr::{ConnId, NodeId, Tuple};
use lard_core::tcp::{reset_for, Reason, Segment, SegmentOut, Seq};
use lard_core::wire::HowClosed;

use crate::conn_table::Bucket;
use crate::forward::BackEnd;
use crate::front_end::{now, send, Forward, FrontEnd, State};
use crate::hand_off::Chosen;
use crate::handed_over::HandedOver;
use crate::netns::Node;
use crate::stats::Counter;

/// How a connection ends.
pub(crate) struct Ending {
    /// The client's reset.
    pub(crate) to_client: Option<SegmentOut>,
    /// What the back-end expects of the client next.
    pub(crate) expected: Seq,
    /// Who chose its back-end.
    pub(crate) chosen: Chosen,
}

impl Ending {
    /// In answer to a segment.
    pub(crate) fn at(segment: &Segment, expected: Seq) -> Self {
        Self {
            to_client: reset_for(segment),
            expected,
            chosen: Chosen::ByDispatcher,
        }
    }
}

impl FrontEnd {
    /// Nobody can say whether the back-end that is being given the connection has it. Bottom halves off.
    pub(crate) fn end_hand_off(
        &self,
        node: &Node,
        net: &SoftNet,
        mut bucket: Bucket<'_>,
        conn: ConnId,
    ) {
        let Some(entry) = bucket.find_id(conn) else {
            return;
        };
        let State::Open(open) = &mut entry.state else {
            return;
        };
        let Some(handed) = open.hand_over(node) else {
            return;
        };
        let HandedOver {
            state,
            to,
            snapshot,
            chosen,
            parked,
        } = handed;
        let ending = Ending {
            to_client: Some(state.abort()),
            // What has waited here has not reached it.
            expected: snapshot.rcv_nxt,
            chosen,
        };
        let forward = Forward {
            state,
            to,
            persist: None,
        };
        let old = core::mem::replace(&mut entry.state, State::Forward(forward));
        node.stats.inc(Reason::HandoffSilent.into());
        self.end(node, net, bucket, conn, ending);
        drop((old, parked));
    }

    /// Ends a connection that is passed on. Bottom halves off.
    pub(crate) fn end(
        &self,
        node: &Node,
        net: &SoftNet,
        mut bucket: Bucket<'_>,
        conn: ConnId,
        ending: Ending,
    ) {
        let Some(entry) = bucket.find_id(conn) else {
            return;
        };
        let tuple = *entry.tuple();
        let State::Forward(forward) = &mut entry.state else {
            return;
        };
        let persist = forward.persist.take();
        forward.state.end(ending.expected, now());
        let reset = forward.state.client_reset();
        if reset.is_some() && ending.chosen == Chosen::ByDispatcher && !forward.state.is_idle() {
            forward.state.rest();
            self.tell_idle(node, conn, forward.to.node(), true);
        }
        let to = forward.to.clone();
        let deadline = self.forward_deadline(forward);
        bucket.set_deadline(conn, deadline);
        drop(bucket);
        drop(persist);
        if let Some(reset) = &ending.to_client {
            send(node, net, &tuple, reset);
        }
        if let Some(reset) = &reset {
            reset_back_end(node, net, &to, &tuple, reset);
        }
    }

    /// Resets `to` again, which has got the connection after its end, or may have. Bottom halves off.
    pub(crate) fn reset_again(
        &self,
        node: &Node,
        net: &SoftNet,
        mut bucket: Bucket<'_>,
        conn: ConnId,
        to: NodeId,
    ) {
        let Some(entry) = bucket.find_id(conn) else {
            return;
        };
        let tuple = *entry.tuple();
        let State::Forward(forward) = &entry.state else {
            return;
        };
        let reset = forward.state.client_reset();
        let back_end = forward.to.clone();
        drop(bucket);
        if let Some(reset) = reset.filter(|_| back_end.node() == to) {
            reset_back_end(node, net, &back_end, &tuple, &reset);
        }
    }

    /// `of` answers, after the connection has ended here, that it has not got it. Bottom halves off, no lock
    /// held.
    pub(crate) fn not_there(&self, node: &Node, conn: ConnId, of: NodeId, how: HowClosed) {
        let untold = self.with_forward(conn, |forward| {
            let denied = forward.to.node() == of && forward.state.denied(now());
            denied.then_some(())
        });
        if untold.is_some() {
            self.tell_dispatcher(node, conn, of, how);
        }
    }
}

/// Sends a back-end what looks like a reset of the client. Bottom halves off, no lock held.
fn reset_back_end(node: &Node, net: &SoftNet, to: &BackEnd, tuple: &Tuple, reset: &SegmentOut) {
    match received(tuple, reset) {
        Some(skb) => node.deliver(net, to.pass(node, net, skb, tuple)),
        None => node.stats.inc(Counter::OwnSegmentLost),
    }
}

/// A segment as if the client had sent it.
fn received(tuple: &Tuple, out: &SegmentOut) -> Option<Skb> {
    let (src, dst) = (tuple.client.addr.to_v4()?, tuple.vip.addr.to_v4()?);
    let mut bytes = [0; SegmentOut::MAX_LEN];
    let turned = Tuple::new(tuple.vip, tuple.client);
    let len = out.emit(&turned, &mut bytes)?;
    segment::received(src, dst, bytes.get(..len)?)
}
