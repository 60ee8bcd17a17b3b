// SPDX-License-Identifier: GPL-2.0

//! Which node serves a target.
//!
//! The dispatcher owns one [`Scheduler`]: the nodes with their loads, the target table, and the
//! policy that chooses. A policy is a small object with IPVS's verbs: it hears of nodes that come, go
//! and change and is asked for decisions. A front-end that has lost its dispatcher uses
//! [`rendezvous()`] over the nodes it knows.
//!
//! The load of a node is the number of connections assigned to it and not yet over, without those that
//! are known to be idle; only the scheduler changes it, so no policy can get it wrong.
//!
//! All arithmetic is on integers, nothing allocates; the target table lives in slots that the caller
//! supplies.
//!
//! ```
//! use lard_core::addr::NodeId;
//! use lard_core::policy::{NodeSet, PolicyKind, Request, Scheduler, Slot, Tags};
//! use lard_core::time::Instant;
//!
//! let mut slots = [Slot::EMPTY; Slot::<1>::needed(1_000)];
//! let mut scheduler: Scheduler<_> = Scheduler::new(PolicyKind::Lard, &mut slots[..]);
//! scheduler.add_dest(NodeId(1), 1)?;
//! scheduler.add_dest(NodeId(2), 1)?;
//!
//! let key = 0x8d1f_52c4_0be3_a977;
//! let request = Request { key, exclude: NodeSet::EMPTY, tags: Tags::NONE, now: Instant::ZERO };
//! let node = scheduler.schedule(&request);
//! assert_eq!(scheduler.schedule(&request), node, "one target, one node");
//!
//! // It has refused the connection; another one may be asked.
//! scheduler.finished(NodeId(1));
//! let exclude = NodeSet::EMPTY.with(NodeId(1));
//! assert_eq!(scheduler.schedule(&Request { exclude, ..request }), Some(NodeId(2)));
//! # Ok::<(), lard_core::policy::NodeError>(())
//! ```
//!
//! # Layout
//!
//! * `set` – [`NodeSet`], [`Tags`]; `node` – [`Nodes`]: who there is and how much it has to do
//! * `table` – the bounded [`TargetTable`]; `params` – [`Params`]: names, defaults, limits
//! * `wrr`, `lc`, `lb`, `chbl`, `lard`, `lardr`, `extlard` – the policies
//! * `scheduler` – the facade: policy, nodes and accounting in one
//! * `waiting` – [`WaitingList`]: connections for which the cluster has no room yet
//! * `connection` – the same for connections with more than one request; `tracked` – [`Tracked`]: a
//!   bounded table of them, for a dispatcher that hears of connections by their numbers
//! * `reports` – [`Reports`]: loads are put right by what nodes say of themselves
//! * `rendezvous` – a choice that needs no state at all
//!
//! # References
//!
//! * \[1\] Aron, Sanders, Druschel, Zwaenepoel: *Scalable Content-aware Request Distribution in
//!   Cluster-based Network Servers*, USENIX 2000
//! * \[2\] Aron, Druschel, Zwaenepoel: *Efficient Support for P-HTTP in Cluster-Based Web Servers*,
//!   USENIX 1999
//! * \[3\] Pai, Aron, Banga, Svendsen, Druschel, Zwaenepoel, Nahum: *Locality-Aware Request
//!   Distribution in Cluster-based Network Servers*, ASPLOS 1998

mod chbl;
mod connection;
mod extlard;
mod lard;
mod lardr;
mod lb;
mod lc;
mod node;
mod params;
mod rendezvous;
mod reports;
mod scheduler;
mod set;
mod table;
mod tracked;
mod waiting;
mod wrr;

pub use connection::{Connection, Mechanism, UnknownMechanism};
pub use node::{Dest, NodeError, NodeState, Nodes, MAX_NODES, MAX_WEIGHT, UNIT};
pub use params::{ParamError, ParamSpec, Params, PARAMS};
pub use rendezvous::rendezvous;
pub use reports::Reports;
pub use scheduler::Scheduler;
pub use set::{NodeSet, Tags};
pub use table::{Servers, Slot, TargetTable, WAYS};
pub use tracked::{Further, Tracked, TrackedSlot};
pub use waiting::{Admission, Outcome, Waiter, WaitingList};

use super::addr::NodeId;
use super::time::Instant;
use core::fmt;
use core::str::FromStr;

/// What a policy is asked, in a cluster of up to `64 * W` nodes.
#[derive(Clone, Copy, Debug)]
pub struct Request<const W: usize = 1> {
    /// Keyed hash of the target. Two targets with the same hash share a mapping, which costs cache
    /// hits but is never wrong.
    pub key: u64,
    /// Nodes that must not be chosen, because they have refused this connection.
    pub exclude: NodeSet<W>,
    /// What a node must have to be chosen.
    pub tags: Tags,
    /// The time.
    pub now: Instant,
}

/// What a policy decides from.
struct View<'a, S, const W: usize> {
    nodes: &'a Nodes<W>,
    targets: &'a mut TargetTable<S, W>,
    params: &'a Params,
}

/// A way to choose.
trait Policy<S, const W: usize> {
    /// `node` has appeared.
    fn add_dest(&mut self, _node: NodeId) {}

    /// `node` has been taken out.
    fn del_dest(&mut self, _node: NodeId) {}

    /// The weight, the state or the tags of `node` have changed.
    fn upd_dest(&mut self, _node: NodeId) {}

    /// Chooses among the nodes that [`Nodes::eligible`] yields; `None` if there are none.
    fn schedule(&mut self, view: View<'_, S, W>, request: &Request<W>) -> Option<NodeId>;

    /// Does it matter to this policy what is asked for? To who does not look, a later request is no
    /// reason to name another node.
    fn looks_at_targets(&self) -> bool {
        true
    }

    /// The node that should serve a later request of a connection that `home` handles.
    fn schedule_next(
        &mut self,
        view: View<'_, S, W>,
        request: &Request<W>,
        home: NodeId,
    ) -> Option<NodeId> {
        match view.nodes.get_home(home, request) {
            Some(_) if !self.looks_at_targets() => Some(home),
            _ => self.schedule(view, request),
        }
    }
}

/// The least loaded node of `set` that `request` may be assigned to, the lowest number on a tie.
fn least_of<'n, const W: usize>(
    set: NodeSet<W>,
    nodes: &'n Nodes<W>,
    request: &Request<W>,
) -> Option<&'n Dest> {
    let dests = set.iter().filter_map(|n| nodes.get_eligible(n, request));
    dests.reduce(|least, d| {
        if d.is_less_loaded_than(least) {
            d
        } else {
            least
        }
    })
}

/// The policies by name, as the papers name them where they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// Weighted round robin.
    Wrr,
    /// Weighted least connections.
    Lc,
    /// A static partition of the targets by hash.
    Lb,
    /// Consistent hashing with bounded loads.
    Chbl,
    /// Locality-aware request distribution.
    #[default]
    Lard,
    /// LARD with replication.
    Lardr,
    /// Extended LARD: costs, and requests that follow on a connection.
    Extlard,
}

impl PolicyKind {
    /// All policies.
    pub const ALL: [PolicyKind; 7] = [
        PolicyKind::Wrr,
        PolicyKind::Lc,
        PolicyKind::Lb,
        PolicyKind::Chbl,
        PolicyKind::Lard,
        PolicyKind::Lardr,
        PolicyKind::Extlard,
    ];

    /// The name that [`PolicyKind::from_str`] understands.
    pub const fn name(self) -> &'static str {
        match self {
            PolicyKind::Wrr => "wrr",
            PolicyKind::Lc => "lc",
            PolicyKind::Lb => "lb",
            PolicyKind::Chbl => "chbl",
            PolicyKind::Lard => "lard",
            PolicyKind::Lardr => "lardr",
            PolicyKind::Extlard => "extlard",
        }
    }

    /// Is an idle connection no load to it?
    pub const fn leaves_out_idle(self) -> bool {
        matches!(self, PolicyKind::Extlard)
    }

    /// Does the policy move targets by T_low and T_high, for which the papers' admission limit is made?
    const fn has_thresholds(self) -> bool {
        matches!(self, PolicyKind::Lard | PolicyKind::Lardr)
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no policy of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPolicy;

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown policy; known are")?;
        PolicyKind::ALL.iter().try_for_each(|k| write!(f, " {k}"))
    }
}

impl core::error::Error for UnknownPolicy {}

impl FromStr for PolicyKind {
    type Err = UnknownPolicy;

    fn from_str(s: &str) -> Result<Self, UnknownPolicy> {
        let found = Self::ALL.into_iter().find(|k| k.name() == s);
        found.ok_or(UnknownPolicy)
    }
}

#[cfg(test)]
mod tests;
