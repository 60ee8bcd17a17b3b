// SPDX-License-Identifier: GPL-2.0

//! Says in the kernel log that a front-end goes on without its dispatcher, and that it no longer has
//! to.
//!
//! Requests that were placed by hashing meanwhile are counted one by one; the log has one line when
//! that begins and one when it ends. Packets only count: the tick looks at the control connection,
//! and a state is said once it has lasted a second, so that neither a connection that comes and goes
//! nor a node that has just been attached, and is still greeting, fills the log.
//!
//! # Locking
//!
//! None. Only the tick of the namespace changes it.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel_net::pernet::TICK_MS;
use lard_core::wire::Roles;

use crate::netns::Node;

/// Ticks that a state lasts before it is said.
const LASTS: u32 = 1_000 / TICK_MS;

/// What has been said about the dispatcher, and since when it is otherwise.
pub(crate) struct Absence {
    said: Atomic<bool>,
    /// Ticks in a row that found the other state than the one that was said.
    ticks: Atomic<u32>,
}

impl Absence {
    /// The dispatcher counts as present until it was away for a while.
    pub(crate) fn new() -> Self {
        Self {
            said: Atomic::new(false),
            ticks: Atomic::new(0),
        }
    }

    /// Looks for the dispatcher of a front-end that `takes` connections. From the namespace's tick.
    pub(crate) fn tick(&self, node: &Node, takes: bool) {
        let config = node
            .config()
            .filter(|config| takes && config.is(Roles::FRONT_END) && !config.is(Roles::DISPATCHER));
        let Some(config) = config else {
            self.said.store(false, Relaxed);
            self.ticks.store(0, Relaxed);
            return;
        };
        let is_away = node.control.ready(config.dispatcher).is_none();
        if is_away == self.said.load(Relaxed) {
            self.ticks.store(0, Relaxed);
            return;
        }
        let ticks = self.ticks.load(Relaxed).saturating_add(1);
        if ticks < LASTS {
            self.ticks.store(ticks, Relaxed);
            return;
        }
        self.said.store(is_away, Relaxed);
        self.ticks.store(0, Relaxed);
        let (name, dispatcher) = (config.name.as_str(), config.dispatcher.0);
        if is_away {
            pr_warn!(
                "{name}: the dispatcher, node {dispatcher}, is out of reach; requests are placed by \
                 consistent hashing\n"
            );
        } else {
            pr_notice!("{name}: the dispatcher, node {dispatcher}, is asked again\n");
        }
    }
}
