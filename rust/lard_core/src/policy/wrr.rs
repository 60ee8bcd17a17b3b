// SPDX-License-Identifier: GPL-2.0

//! Weighted round robin, in its smooth form: no target is looked at.
//!
//! ```text
//! for each request r:
//!     for each eligible node n:  n.current := n.current + n.weight
//!     choose the eligible n with the largest n.current, the lowest number on a tie
//!     n.current := n.current - sum of the weights of the eligible nodes
//! ```
//!
//! Over as many requests as the weights sum up to, each node is chosen as often as its weight says,
//! and spread out as evenly as can be: weights 5, 1, 1 give `a a b a c a a`. All currents add up to
//! zero as long as the set of eligible nodes stays the same.

use super::super::addr::NodeId;
use super::{Nodes, Policy, Request, MAX_NODES};

/// Smooth weighted round robin.
#[derive(Clone, Debug)]
pub struct Wrr {
    current: [i64; MAX_NODES],
}

impl Wrr {
    /// Nobody was chosen yet.
    pub const fn new() -> Self {
        Wrr {
            current: [0; MAX_NODES],
        }
    }
}

impl Default for Wrr {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for Wrr {
    fn add_dest(&mut self, nodes: &Nodes, node: NodeId) {
        self.upd_dest(nodes, node);
    }

    fn del_dest(&mut self, nodes: &Nodes, node: NodeId) {
        self.upd_dest(nodes, node);
    }

    fn upd_dest(&mut self, _: &Nodes, _: NodeId) {
        // Currents that were earned under other weights would pull the next choices to one side.
        *self = Self::new();
    }

    fn schedule(&mut self, nodes: &Nodes, request: &Request) -> Option<NodeId> {
        let mut total = 0i64;
        let mut best: Option<(NodeId, i64)> = None;
        for dest in nodes.eligible(request.exclude) {
            let weight = i64::from(dest.weight);
            total = total.saturating_add(weight);
            let Some(current) = Nodes::index(dest.node).and_then(|i| self.current.get_mut(i))
            else {
                continue;
            };
            *current = current.saturating_add(weight);
            if best.is_none_or(|(_, most)| *current > most) {
                best = Some((dest.node, *current));
            }
        }
        let (node, _) = best?;
        if let Some(current) = Nodes::index(node).and_then(|i| self.current.get_mut(i)) {
            *current = current.saturating_sub(total);
        }
        Some(node)
    }
}
