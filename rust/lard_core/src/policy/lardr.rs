// SPDX-License-Identifier: GPL-2.0

//! Locality-aware request distribution with replication (\[3\], figure 3).
//!
//! ```text
//! for each request r:
//!     R := serverSet[r.target]
//!     if R is empty:
//!         n := least loaded node;  R := {n}
//!     else:
//!         n := least loaded node in R
//!         m := most loaded node in R
//!         if (n.load > T_high and some node q has q.load < T_low) or n.load >= 2*T_high:
//!             p := least loaded node;  add p to R;  n := p
//!         if |R| > 1 and now - lastMod[r.target] > K:
//!             remove m from R
//!     send r to n
//!     if R changed in this iteration: lastMod[r.target] := now
//! ```
//!
//! A target that is too much for one node gets more of them, and loses them again, one every K
//! seconds, when they are not needed any more. Where the paper leaves room:
//!
//! * Nodes that may not be chosen are not in R. They leave it when R is changed for another reason,
//!   so that a node that was away for a moment finds its targets again.
//! * A request that adds a node does not remove one. Otherwise a target that had its node for longer
//!   than K would, when that is overloaded, be moved and not replicated.
//! * Of several most loaded nodes the one that is not n is removed, else the highest number.
//!
//! `lblcr` of IPVS does nearly the same by destination address.

use super::super::addr::NodeId;
use super::super::time::Instant;
use super::lard::is_overloaded;
use super::{least_of, NodeSet, Nodes, Params, Policy, Request, Servers, Slot, View};
use core::ops::DerefMut;
use core::time::Duration;

/// LARD with replication.
#[derive(Clone, Debug, Default)]
pub(super) struct Lardr {
    last: NodeId,
}

impl<S: DerefMut<Target = [Slot<W>]>, const W: usize> Policy<S, W> for Lardr {
    fn schedule(&mut self, view: View<'_, S, W>, request: &Request<W>) -> Option<NodeId> {
        let View {
            nodes,
            targets,
            params,
        } = view;
        let known = targets.lookup(request.key).unwrap_or_default();
        let usable = known.nodes.intersection(&nodes.available());
        let mapped = least_of(known.nodes, nodes, request);
        let dest = match mapped {
            Some(dest) if !is_overloaded(dest, nodes, request, params) => dest,
            _ => {
                let least = nodes.least_loaded(request, self.last)?;
                let as_good = mapped.filter(|d| !least.is_less_loaded_than(d));
                as_good.unwrap_or(least)
            }
        };
        let node = dest.node;
        let changed = if !known.nodes.contains(node) {
            self.last = node;
            Some(usable.with(node))
        } else if is_long_ago(known.changed, request.now, params) {
            let most = most_loaded(known.nodes.without(node), nodes, request);
            most.map(|m| usable.without(m))
        } else {
            None
        };
        if let Some(nodes) = changed {
            let changed = request.now;
            targets.insert(request.key, Servers { nodes, changed });
        }
        Some(node)
    }
}

/// Has nobody joined or left for longer than K?
fn is_long_ago(changed: Instant, now: Instant, params: &Params) -> bool {
    now.saturating_since(changed) > Duration::from_secs(params.k_s.into())
}

/// The eligible node in `set` with the most to do.
fn most_loaded<const W: usize>(
    set: NodeSet<W>,
    nodes: &Nodes<W>,
    request: &Request<W>,
) -> Option<NodeId> {
    let dests = set.iter().filter_map(|n| nodes.get_eligible(n, request));
    let most = dests.reduce(|most, d| if d.is_less_loaded_than(most) { most } else { d });
    most.map(|d| d.node)
}
