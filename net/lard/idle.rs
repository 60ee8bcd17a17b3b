// SPDX-License-Identifier: GPL-2.0

//! Telling the dispatcher of connections that have nothing to do.
//!
//! An idle connection is no load ([2], footnote 3). The front-end sees it by the absence of the client's
//! acknowledgements: [`lard_core::tcp::Forwarding`] says when. That it is busy again is told when its
//! client sends something, and also when its end is heard of: the dispatcher may have heard of the end
//! before it heard that the connection was idle.
//!
//! # Locking
//!
//! It is told under the lock of the connection's bucket, so that what is told keeps its order: a frame is
//! queued for another node, and the dispatcher of this one only changes its counts.

#![forbid(unsafe_code)]

use lard_core::addr::{ConnId, NodeId};
use lard_core::policy::Mechanism;
use lard_core::wire::Idle;

use crate::front_end::{Forward, FrontEnd};
use crate::netns::Node;

impl FrontEnd {
    /// Tells the dispatcher that a connection that `of` has is idle, or is not. Bottom halves off.
    pub(crate) fn tell_idle(&self, node: &Node, conn: ConnId, of: NodeId, is_idle: bool) {
        let idle = Idle {
            conn,
            node: of,
            is_idle,
        };
        if node.is_dispatcher() {
            node.dispatcher.set_idle(node, &idle);
        } else {
            // Without a dispatcher there is nobody who counts.
            let _ = node.control.send_later(node.dispatcher_id(), &idle);
        }
    }

    /// A connection is about to end, and takes back that it is idle if that was told, or that others work
    /// for it.
    pub(crate) fn tell_busy(&self, node: &Node, conn: ConnId, forward: &Forward) {
        let asked = forward.persist.as_ref().map(|persist| persist.mechanism());
        if forward.state.is_idle() || asked == Some(Mechanism::Forward) {
            self.tell_idle(node, conn, forward.to.node(), false);
        }
    }
}
