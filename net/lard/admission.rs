// SPDX-License-Identifier: GPL-2.0

//! Connections that waited for room in the cluster, and how their front-ends hear of it.
//!
//! ```text
//!                                 ┌─ too many wait ──▶ WAIT no time, ADMITTED nobody ──▶ 503
//!   ASSIGN ──▶ Dispatcher::assign ┴─ full ──▶ WAIT, and the front-end keeps the connection
//!                                                      │
//!   a connection ends, a node comes, a limit changes   │
//!        └──▶ Dispatcher::admit ── room, oldest first ─┴─▶ ADMITTED ──▶ hand-off
//!                    ▲                └── too long ──────▶ ADMITTED nobody ──▶ 503
//!   the tick ────────┘
//! ```
//!
//! A client that leaves while it waits is not taken out: its turn comes, its front-end gives the place
//! back, and the next one has it.
//!
//! # Locking
//!
//! The dispatcher's lock is taken for each connection and given back before the front-end is told,
//! which on this node is a hand-off. In that more connections may end, so that whoever is telling
//! already goes on, and nobody else begins: calls do not nest, however many back-ends refuse.
//!
//! Many may be answered at once, as when the time of a full list is over or a limit is taken away, and
//! whoever made the room may be a softirq. It answers a few of them, and the tick does the rest.

#![forbid(unsafe_code)]

use kernel_net::pernet;
use lard_core::addr::{ConnId, NodeId};
use lard_core::policy::Outcome;
use lard_core::wire::Admitted;

use core::time::Duration;

use crate::dispatcher::{Dispatcher, Inner};
use crate::front_end::{now, FrontEnd};
use crate::netns::Node;
use crate::stats::Counter;

/// Those who are answered in one go.
const BATCH: usize = 64;

/// How long after the dispatcher should have answered the front-end does so itself.
const GRACE: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// Lets in who waits, as far as there is room, and turns away who has waited for too long. Any
    /// context but hard irq, with no lock held that a front-end takes.
    pub(crate) fn admit(&self, here: &Node) {
        if self.admit_some(here) {
            here.cell.with(|net| pernet::hasten(net));
        }
    }

    /// The same for so many as one go may be about. Returns whether there may be more.
    fn admit_some(&self, here: &Node) -> bool {
        let begins = self.with(|inner| !core::mem::replace(&mut inner.admitting, true));
        if begins != Some(true) {
            return false;
        }
        for _ in 0..BATCH {
            let Some((conn, outcome)) = self.with(Inner::next).flatten() else {
                return false;
            };
            let to = match outcome {
                Outcome::Assigned(to) => {
                    here.stats.inc(Counter::DpAdmitted);
                    to
                }
                Outcome::Expired => {
                    here.stats.inc(Counter::DpQueueTimeout);
                    None
                }
            };
            self.tell(here, conn, to);
        }
        self.with(|inner| inner.admitting = false);
        true
    }

    fn tell(&self, here: &Node, conn: ConnId, to: Option<NodeId>) {
        let front_end = conn.node();
        if front_end == here.id() {
            here.cell
                .with(|net| here.front_end.assigned(here, net, conn, to));
            return;
        }
        let told = here.control.send(front_end, &Admitted { conn, node: to });
        if let (Err(_), Some(to)) = (told, to) {
            self.finished(here, conn, to);
        }
    }

    /// Does what is due: those who have waited for too long. Process context.
    pub(crate) fn tick(&self, here: &Node) {
        while self.with(|inner| !inner.waiting.is_empty()) == Some(true) && self.admit_some(here) {}
    }

    /// For how long a connection waits at most, in milliseconds.
    pub(crate) fn queue_time_ms(&self) -> u32 {
        self.params().map_or(0, |params| params.queue_time_ms)
    }
}

impl Inner {
    /// The next one to be told of. When there is none, others may begin.
    fn next(&mut self) -> Option<(ConnId, Outcome)> {
        let next = self.waiting.next(&mut self.scheduler, now());
        self.admitting = next.is_some();
        next
    }
}

impl FrontEnd {
    /// The dispatcher has no room for the connection now, and will say so when it has, or when this
    /// time is over. Bottom halves off.
    pub(crate) fn waits(&self, conn: ConnId, at_most_ms: u32) {
        let at_most = Duration::from_millis(at_most_ms.into()).saturating_add(GRACE);
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return;
        };
        let Some((_, open)) = bucket.find_id(conn).and_then(|e| e.open_mut()) else {
            return;
        };
        open.wait_until(now().saturating_add(at_most));
        let deadline = open.deadline();
        bucket.set_deadline(conn, deadline);
    }
}
