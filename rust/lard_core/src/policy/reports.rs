// SPDX-License-Identifier: GPL-2.0

//! The repair of loads by what back-ends say of themselves.
//!
//! ```text
//! on report(n, connections):     over[n]  := min(over[n], counted - connections)
//!                                under[n] := min(under[n], connections - counted)
//! on every R-th report of n:     counted := counted - over[n] + under[n];  over, under := none
//! ```
//!
//! Messages about ends are lost with the control connection they were to travel on, and a dispatcher
//! that was restarted knows nothing of what is there. While connections come and go the two counts
//! differ for a moment anyway, by what is on the wire; the least difference of many reports is not that.

use super::super::addr::NodeId;
use super::{Dest, Nodes, Scheduler, Slot, Tracked, TrackedSlot};
use core::ops::DerefMut;

/// How far what a node says lies from what was counted, in a row of reports.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The least by which too much was counted.
    over: u32,
    /// The least by which too little was counted.
    under: u32,
    reports: u8,
}

impl Row {
    const NONE: Row = Row {
        over: u32::MAX,
        under: u32::MAX,
        reports: 0,
    };
}

/// The reports of all nodes.
#[derive(Debug)]
pub struct Reports<const W: usize = 1> {
    rows: [[Row; 64]; W],
}

impl<const W: usize> Default for Reports<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const W: usize> Reports<W> {
    /// Reports of a node after which its load is put right.
    pub const ROW: u8 = 20;

    /// No reports.
    pub const fn new() -> Self {
        Reports {
            rows: [[Row::NONE; 64]; W],
        }
    }

    /// `node` has come or gone: what it said before is about other connections.
    pub fn forget(&mut self, node: NodeId) {
        if let Some(row) = self.row(node) {
            *row = Row::NONE;
        }
    }

    /// `node` says how many connections it has; whether they are idle it does not know. Nothing happens
    /// if it is not there.
    pub fn heard<S, C>(
        &mut self,
        scheduler: &mut Scheduler<S, W>,
        tracked: &mut Tracked<C>,
        node: NodeId,
        connections: u32,
    ) where
        S: DerefMut<Target = [Slot<W>]>,
        C: DerefMut<Target = [TrackedSlot]>,
    {
        let Some(&Dest { load, idle, .. }) = scheduler.nodes().get(node) else {
            return;
        };
        let counted = load.saturating_add(idle);
        let Some(row) = self.row(node) else {
            return;
        };
        row.over = row.over.min(counted.saturating_sub(connections));
        row.under = row.under.min(connections.saturating_sub(counted));
        row.reports = row.reports.saturating_add(1);
        if row.reports < Self::ROW {
            return;
        }
        let Row { over, under, .. } = core::mem::replace(row, Row::NONE);
        let right = match over {
            0 => load.saturating_add(under),
            _ => {
                // Some have ended without a word, idle ones perhaps.
                tracked.resume_all(scheduler, node);
                counted.saturating_sub(over)
            }
        };
        // It is there: it was found above.
        let _ = scheduler.set_load(node, right);
    }

    fn row(&mut self, node: NodeId) -> Option<&mut Row> {
        self.rows
            .as_flattened_mut()
            .get_mut(Nodes::<W>::index(node))
    }
}
