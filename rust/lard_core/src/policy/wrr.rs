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
//!
//! Source: the smooth weighted round robin of nginx (`ngx_http_upstream_round_robin.c`, 2012). The WRR of
//! \[3\] is another one, weighted by the nodes' load; of the policies here `lc` comes closest to it.

use super::super::addr::NodeId;
use super::{Nodes, Policy, Request, View};

/// Smooth weighted round robin.
#[derive(Clone, Debug)]
pub(super) struct Wrr<const W: usize> {
    current: [[i64; 64]; W],
}

impl<const W: usize> Wrr<W> {
    /// Nobody was chosen yet.
    pub(super) const fn new() -> Self {
        Wrr {
            current: [[0; 64]; W],
        }
    }
}

impl<S, const W: usize> Policy<S, W> for Wrr<W> {
    fn looks_at_targets(&self) -> bool {
        false
    }

    fn add_dest(&mut self, _: NodeId) {
        // Currents that were earned among others would pull the next choices to one side.
        *self = Self::new();
    }

    fn del_dest(&mut self, _: NodeId) {
        *self = Self::new();
    }

    fn upd_dest(&mut self, _: NodeId) {
        *self = Self::new();
    }

    fn schedule(&mut self, view: View<'_, S, W>, request: &Request<W>) -> Option<NodeId> {
        let currents = self.current.as_flattened_mut();
        let mut total = 0i64;
        let mut best: Option<(NodeId, i64)> = None;
        for dest in view.nodes.eligible(request) {
            let weight = i64::from(dest.weight);
            total = total.saturating_add(weight);
            let Some(current) = currents.get_mut(Nodes::<W>::index(dest.node)) else {
                continue;
            };
            *current = current.saturating_add(weight);
            if best.is_none_or(|(_, most)| *current > most) {
                best = Some((dest.node, *current));
            }
        }
        let (node, _) = best?;
        if let Some(current) = currents.get_mut(Nodes::<W>::index(node)) {
            *current = current.saturating_sub(total);
        }
        Some(node)
    }
}
