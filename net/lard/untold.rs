// SPDX-License-Identifier: GPL-2.0

//! Ends of connections that could not be told to their front-ends, because the control connection was
//! down or full.
//!
//! A front-end that never hears of an end keeps the entry until the client has closed and been silent
//! for a minute, or been idle for hours. So the ends wait here for the control connection to come back.
//! What does not fit is left to those timers.
//!
//! # Locking
//!
//! One lock, under which the ends are queued for their front-end; see [`crate::netns`]. Room is made before
//! it is taken.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::prelude::*;
use kernel_net::sync::BhLock;
use lard_core::addr::{ConnId, NodeId};
use lard_core::wire::{Closed, HowClosed};

use crate::netns::Node;
use crate::stats::Counter;

/// Ends that can wait: 16 bytes each.
const ROOM: usize = 16_384;

/// The ends of one back-end.
pub(crate) struct Untold(BhLock<KVVec<(ConnId, HowClosed)>>);

impl Untold {
    /// None, and no room for any.
    pub(crate) fn new() -> Self {
        Self(kernel_net::new_bh_lock!(KVVec::new(), c"lard:untold"))
    }

    /// Makes room, now that a control connection is lost. May sleep.
    pub(crate) fn prepare(&self) {
        // Without memory the front-end's timer has to do.
        let Ok(room) = KVVec::with_capacity(ROOM, GFP_KERNEL) else {
            return;
        };
        let unused = {
            let mut ends = self.0.lock();
            match ends.capacity() {
                0 => core::mem::replace(&mut *ends, room),
                _ => room,
            }
        };
        drop(unused);
    }

    /// Keeps an end for later; `false` if there is no room. Any context but hard irq.
    pub(crate) fn keep(&self, conn: ConnId, how: HowClosed) -> bool {
        let mut ends = self.0.lock();
        // Within the capacity it allocates nothing.
        ends.len() < ends.capacity() && ends.push((conn, how), GFP_ATOMIC).is_ok()
    }

    /// Tells front-end `to` what waits for it. Bottom halves on or off.
    pub(crate) fn tell(&self, node: &Node, to: NodeId) {
        let own = node.id();
        self.0.lock().retain(|&mut (conn, how)| {
            if conn.node() != to {
                return true;
            }
            // What the connection carried is not kept.
            let closed = Closed {
                conn,
                node: own,
                how,
                bytes: 0,
                duration: Duration::ZERO,
            };
            let told = node.control.send(to, &closed).is_ok();
            if told {
                node.stats.inc(Counter::BeToldLate);
            }
            !told
        });
    }
}
