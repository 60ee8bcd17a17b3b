// SPDX-License-Identifier: GPL-2.0

//! Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018).
//!
//! ```text
//! for each request r:
//!     m := connections of all eligible nodes and one more;  c := balance-percent / 100
//!     choose the first node n in the order of r.target with
//!         n.load + 1 <= ceil(c * m * n.weight / sum of the weights)
//! ```
//!
//! So no node has more than c times the average, and a target leaves its first node only for as long
//! as that one is full. There is always a node with room, because c is above 1. The paper's order is
//! that of a ring with the nodes on it; here it is that of weighted rendezvous hashing, which needs no
//! ring and spreads the targets of a full node over all others instead of its neighbour's.

use super::super::addr::NodeId;
use super::{rendezvous, Dest, Policy, Request, View, UNIT};

/// Hashing with bounded loads.
#[derive(Clone, Debug, Default)]
pub(super) struct Chbl;

impl<S, const W: usize> Policy<S, W> for Chbl {
    fn schedule(&mut self, view: View<'_, S, W>, request: &Request<W>) -> Option<NodeId> {
        // Whole connections: what is begun counts.
        let load = |d: &Dest| d.work().div_ceil(u64::from(UNIT));
        let sum = |(all, weights): (u64, u64), d: &Dest| {
            let all = all.saturating_add(load(d));
            (all, weights.saturating_add(u64::from(d.weight)))
        };
        let (all, weights) = view.nodes.eligible(request).fold((1, 0), sum);
        let percent = u64::from(view.params.balance_percent);
        // No overflow: 10 bits times 33, for each of the nodes, times 10.
        let has_room = |d: &&Dest| {
            let bound = (percent * all * u64::from(d.weight)).div_ceil(100 * weights);
            load(d) < bound
        };
        let with_room = view.nodes.eligible(request).filter(has_room);
        rendezvous(with_room.map(|d| (d.node, d.weight)), request.key)
    }
}
