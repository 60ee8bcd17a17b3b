// SPDX-License-Identifier: GPL-2.0

//! Extended LARD: the cost formulation, and requests that follow on a connection (\[2\], figure 4).
//!
//! ```text
//! cost_balancing(t,s)   = 0                     if load(s) < L_idle
//!                       = infinity              if load(s) > L_overload
//!                       = load(s) - L_idle      otherwise
//! cost_locality(t,s)    = 1                     if t is mapped to s
//!                       = MissCost              otherwise
//! cost_replacement(t,s) = 0                     if load(s) < L_idle or t is mapped to s
//!                       = MissCost              otherwise
//! cost(t,s)             = the sum of the three
//!
//! the first request of a connection:
//!     choose the s with the lowest cost;  map t to s
//! a later request, on a connection that h handles:
//!     if t is mapped to h:                choose h
//!     if disk_queue(h) < disk-queue or t is mapped to nobody:
//!                                         choose h;  map t to h as well
//!     choose the s with the lowest cost among h and the nodes that t is mapped to
//! ```
//!
//! The content of a later request comes from the node that is chosen here; how, is not the policy's
//! business. A node whose disk is busy is taken to have no room in its cache, so what it reads then
//! is not mapped to it. Where the paper leaves room:
//!
//! * Among equal costs a node that t is mapped to goes first, then the least loaded, then the next
//!   one after the last choice.
//! * If every node is above L_overload, the least loaded one is chosen.
//! * The first request moves a target: t is then mapped to s alone.
//! * h may be draining: what it has goes on.
//! * A target that nobody has is mapped to h even if the disk is busy: somebody must read it, and it
//!   should not be somebody else each time.

use super::super::addr::NodeId;
use super::{Dest, NodeSet, Params, Policy, Request, Servers, Slot, View, UNIT};
use core::cmp::Ordering;
use core::ops::DerefMut;

/// Extended LARD.
#[derive(Clone, Debug, Default)]
pub(super) struct ExtLard {
    last: NodeId,
}

impl ExtLard {
    /// The best of `dests` for a target that is mapped to `set`.
    fn best<'n, const W: usize>(
        &self,
        dests: impl Iterator<Item = &'n Dest>,
        set: NodeSet<W>,
        params: &Params,
    ) -> Option<&'n Dest> {
        dests.reduce(|best, new| {
            let [is_new, was_best] = [new, best].map(|d| {
                let is_mapped = set.contains(d.node);
                (rank(d, is_mapped, params), is_mapped)
            });
            let order = is_new.0.cmp(&was_best.0);
            let order = order.then(new.cmp_load(best));
            match order.then(was_best.1.cmp(&is_new.1)) {
                Ordering::Less => new,
                Ordering::Equal if new.comes_first_after(self.last, best) => new,
                Ordering::Equal | Ordering::Greater => best,
            }
        })
    }
}

impl<S: DerefMut<Target = [Slot<W>]>, const W: usize> Policy<S, W> for ExtLard {
    fn schedule(&mut self, view: View<'_, S, W>, request: &Request<W>) -> Option<NodeId> {
        let known = view.targets.lookup(request.key).unwrap_or_default();
        let eligible = view.nodes.eligible(request);
        let node = self.best(eligible, known.nodes, view.params)?.node;
        if !known.nodes.contains(node) {
            self.last = node;
            let servers = Servers {
                nodes: NodeSet::EMPTY.with(node),
                changed: request.now,
            };
            view.targets.insert(request.key, servers);
        }
        Some(node)
    }

    fn schedule_next(
        &mut self,
        view: View<'_, S, W>,
        request: &Request<W>,
        home: NodeId,
    ) -> Option<NodeId> {
        let known = view.targets.lookup(request.key).unwrap_or_default();
        let Some(here) = view.nodes.get_home(home, request) else {
            return self.schedule(view, request);
        };
        if known.nodes.contains(home) {
            return Some(home);
        }
        let there = known.nodes.iter();
        let mut there = there
            .filter_map(|n| view.nodes.get_eligible(n, request))
            .peekable();
        if here.disk_queue < view.params.disk_queue || there.peek().is_none() {
            let servers = Servers {
                nodes: known.nodes.with(home),
                changed: request.now,
            };
            view.targets.insert(request.key, servers);
            return Some(home);
        }
        let best = self.best(
            core::iter::once(here).chain(there),
            known.nodes,
            view.params,
        );
        best.map(|d| d.node)
    }
}

/// What it costs to serve a target at `dest`, in [`UNIT`]s, and whether the target would be new to
/// it. Beyond the limit all nodes rank the same, and last.
fn rank(dest: &Dest, is_mapped: bool, params: &Params) -> (u64, bool) {
    let unit = u64::from(UNIT);
    let load = dest.work() / u64::from(dest.weight.max(1));
    let idle = u64::from(params.l_idle) * unit;
    if load > u64::from(params.l_overload) * unit {
        return (u64::MAX, true);
    }
    let miss = u64::from(params.miss_cost) * unit;
    let balancing = load.saturating_sub(idle);
    let locality = if is_mapped { unit } else { miss };
    let replacement = if is_mapped || load < idle { 0 } else { miss };
    let cost = balancing
        .saturating_add(locality)
        .saturating_add(replacement);
    (cost, !is_mapped)
}
