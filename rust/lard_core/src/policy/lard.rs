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
//! * Of several least loaded nodes the one the target is on is taken, else the next one after the
//!   last choice.
//! * The table is bounded; the target that was not asked for for the longest time is forgotten.
//! * A target that another policy has put on several nodes is the least loaded one's.

use super::super::addr::NodeId;
use super::{least_of, Dest, NodeSet, Nodes, Params, Policy, Request, Servers, Slot, View};
use core::ops::DerefMut;

/// Basic LARD.
#[derive(Clone, Debug, Default)]
pub(super) struct Lard {
    last: NodeId,
}

impl<S: DerefMut<Target = [Slot<W>]>, const W: usize> Policy<S, W> for Lard {
    fn schedule(&mut self, view: View<'_, S, W>, request: &Request<W>) -> Option<NodeId> {
        let View {
            nodes,
            targets,
            params,
        } = view;
        let known = targets.lookup(request.key).unwrap_or_default();
        let mapped = least_of(known.nodes, nodes, request);
        if let Some(dest) = mapped.filter(|d| !is_overloaded(d, nodes, request, params)) {
            return Some(dest.node);
        }
        let least = nodes.least_loaded(request, self.last)?;
        if let Some(dest) = mapped.filter(|d| !least.is_less_loaded_than(d)) {
            return Some(dest.node);
        }
        let node = least.node;
        let servers = Servers {
            nodes: NodeSet::EMPTY.with(node),
            changed: request.now,
        };
        targets.insert(request.key, servers);
        self.last = node;
        Some(node)
    }
}

/// Must a target leave `dest`?
pub(super) fn is_overloaded<const W: usize>(
    dest: &Dest,
    nodes: &Nodes<W>,
    request: &Request<W>,
    params: &Params,
) -> bool {
    let (work, high) = (dest.work(), dest.scaled(params.t_high));
    let is_idle = |d: &Dest| d.work() < d.scaled(params.t_low);
    // No overflow: 46 bits doubled.
    work >= 2 * high || work > high && nodes.eligible(request).any(is_idle)
}
