// SPDX-License-Identifier: GPL-2.0

//! Locality-aware request distribution, basic form (\[3\], figure 2).
//!
//! ```text
//! for each request r:
//!     if server[r.target] is empty:
//!         n := least loaded node;  server[r.target] := n
//!     else:
//!         n := server[r.target]
//!         if (n.load > T_high and some node m has m.load < T_low) or n.load >= 2*T_high:
//!             n := least loaded node;  server[r.target] := n
//!     send r to n
//! ```
//!
//! So a target stays on one node, whose memory it then is in, until that node is overloaded while
//! another one is idle, or so far overloaded that anything else is better. Where the paper leaves
//! room:
//!
//! * "Node" means an eligible one: up, with a weight, not excluded by the request. A mapping to any
//!   other counts as empty.
//! * A node of weight w counts as w nodes of weight 1: loads are compared per weight, thresholds are
//!   multiplied by it.
//! * Of several least loaded nodes the next one after the last choice is taken. With the first one,
//!   a cluster that is asked for one thing at a time would put everything on its first node.
//! * The table is bounded; the target that was not asked for for the longest time is forgotten.

use super::super::addr::NodeId;
use super::{Dest, NodeSet, Nodes, Policy, Request, Slot, TargetTable};
use core::ops::DerefMut;

/// The thresholds, in active connections for each unit of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Below this a node is potentially idle.
    pub t_low: u32,
    /// Above this a request waits noticeably longer than on an unloaded node.
    pub t_high: u32,
}

impl Params {
    /// The values of \[3\]: 25 connections keep a disk busy, 65 bound the delay.
    pub const DEFAULT: Params = Params {
        t_low: 25,
        t_high: 65,
    };

    /// Largest threshold: beyond what a machine has ports for, and far from any overflow.
    pub const MAX: u32 = 1_000_000;

    /// Can a policy run with these?
    pub const fn is_valid(&self) -> bool {
        self.t_low >= 1 && self.t_low < self.t_high && self.t_high <= Self::MAX
    }
}

impl Default for Params {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Basic LARD over a table in the caller's slots.
#[derive(Debug)]
pub struct Lard<S> {
    params: Params,
    servers: TargetTable<S>,
    last: NodeId,
    moves: u64,
}

impl<S: DerefMut<Target = [Slot]>> Lard<S> {
    /// No target is mapped yet. `params` that are not valid are replaced by the defaults.
    pub fn new(params: Params, slots: S) -> Self {
        let mut lard = Lard {
            params: Params::DEFAULT,
            servers: TargetTable::new(slots),
            last: NodeId::NONE,
            moves: 0,
        };
        lard.set_params(params);
        lard
    }

    /// The thresholds.
    pub const fn params(&self) -> Params {
        self.params
    }

    /// Changes the thresholds; `false`, and nothing is changed, if they are not valid.
    pub fn set_params(&mut self, params: Params) -> bool {
        let valid = params.is_valid();
        if valid {
            self.params = params;
        }
        valid
    }

    /// The mappings.
    pub const fn servers(&self) -> &TargetTable<S> {
        &self.servers
    }

    /// Moves the table to other storage: see [`TargetTable::replace_storage`].
    pub fn replace_storage(&mut self, slots: S) -> S {
        self.servers.replace_storage(slots)
    }

    /// How many targets were moved away from an overloaded node.
    pub const fn moves(&self) -> u64 {
        self.moves
    }

    /// The eligible node with the lowest load for its weight, and of several the first one after the
    /// last choice.
    fn least_loaded(&self, nodes: &Nodes, exclude: NodeSet) -> Option<NodeId> {
        let after = nodes.eligible(exclude).filter(|d| d.node > self.last);
        let upto = nodes.eligible(exclude).filter(|d| d.node <= self.last);
        let least = after.chain(upto).reduce(|least, d| {
            if d.is_less_loaded_than(least) {
                d
            } else {
                least
            }
        });
        least.map(|d| d.node)
    }

    /// Must a target leave `dest`?
    fn is_overloaded(&self, dest: &Dest, nodes: &Nodes, exclude: NodeSet) -> bool {
        // No overflow: a load of 32 bits against 20 bits times 10.
        let (load, weight) = (u64::from(dest.load), u64::from(dest.weight));
        let (low, high) = (u64::from(self.params.t_low), u64::from(self.params.t_high));
        let is_idle = |d: &Dest| u64::from(d.load) < low * u64::from(d.weight);
        load >= 2 * high * weight || load > high * weight && nodes.eligible(exclude).any(is_idle)
    }
}

impl<S: DerefMut<Target = [Slot]>> Policy for Lard<S> {
    fn add_dest(&mut self, _: &Nodes, _: NodeId) {
        // A new node is idle; targets come to it as soon as others are above T_high, or new.
    }

    fn del_dest(&mut self, _: &Nodes, _: NodeId) {
        // Mappings to a node that is gone count as empty. Walking the table to drop them would take
        // long, and if the node comes back soon they are still good.
    }

    fn upd_dest(&mut self, _: &Nodes, _: NodeId) {
        // Weights and states are looked at afresh for every request.
    }

    fn schedule(&mut self, nodes: &Nodes, request: &Request) -> Option<NodeId> {
        let exclude = request.exclude;
        let mapped = self.servers.lookup(request.key);
        let mapped = mapped.filter(|n| nodes.is_eligible(*n, exclude));
        if let Some(dest) = mapped.and_then(|n| nodes.get(n)) {
            if !self.is_overloaded(dest, nodes, exclude) {
                return Some(dest.node);
            }
        }
        let node = self.least_loaded(nodes, exclude)?;
        if mapped.is_some_and(|n| n != node) {
            self.moves = self.moves.wrapping_add(1);
        }
        self.servers.insert(request.key, node);
        self.last = node;
        Some(node)
    }
}
