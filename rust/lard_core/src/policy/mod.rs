// SPDX-License-Identifier: GPL-2.0

//! Which node serves a target.
//!
//! The dispatcher owns one [`Scheduler`]: the nodes with their loads, and the policy that chooses
//! among them. A policy is a small object with IPVS's verbs: it hears of nodes that come, go and
//! change (`add_dest`, `del_dest`, `upd_dest`) and is asked for decisions (`schedule`). A front-end
//! that has lost its dispatcher uses [`rendezvous()`] over the nodes it knows.
//!
//! The load of a node is the number of connections assigned to it and not yet over; only the
//! scheduler changes it, so no policy can get it wrong.
//!
//! All arithmetic is on integers, nothing allocates; the target table lives in slots that the caller
//! supplies.
//!
//! ```
//! use lard_core::addr::NodeId;
//! use lard_core::policy::{NodeSet, PolicyKind, Request, Scheduler, Slot};
//! use lard_core::time::Instant;
//!
//! let mut slots = [Slot::EMPTY; 1_024];
//! let mut scheduler = Scheduler::new(PolicyKind::Lard, &mut slots[..]);
//! scheduler.add_dest(NodeId(1), 1)?;
//! scheduler.add_dest(NodeId(2), 1)?;
//!
//! let key = 0x8d1f_52c4_0be3_a977;
//! let request = Request { key, exclude: NodeSet::EMPTY, now: Instant::ZERO };
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
//! * `node` – [`NodeSet`], [`Nodes`]: who there is and how much it has to do
//! * `wrr`, `lard` – the policies; `table` – the bounded target table of `lard`
//! * `scheduler` – the facade: policy, nodes and accounting in one
//! * `rendezvous` – what needs no state at all
//!
//! # References
//!
//! * \[1\] Aron, Sanders, Druschel, Zwaenepoel: *Scalable Content-aware Request Distribution in
//!   Cluster-based Network Servers*, USENIX 2000
//! * \[3\] Pai, Aron, Banga, Svendsen, Druschel, Zwaenepoel, Nahum: *Locality-Aware Request
//!   Distribution in Cluster-based Network Servers*, ASPLOS 1998

mod lard;
mod node;
mod rendezvous;
mod scheduler;
mod table;
mod wrr;

pub use lard::{Lard, Params};
pub use node::{Dest, NodeError, NodeSet, NodeState, Nodes, MAX_NODES, MAX_WEIGHT};
pub use rendezvous::rendezvous;
pub use scheduler::{ParamError, Scheduler};
pub use table::{Slot, TargetTable};
pub use wrr::Wrr;

use super::addr::NodeId;
use super::time::Instant;
use core::fmt;
use core::str::FromStr;

/// What a policy is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Keyed hash of the target. Two targets with the same hash share a mapping, which costs cache
    /// hits but is never wrong.
    pub key: u64,
    /// Nodes that must not be chosen, because they have refused this connection.
    pub exclude: NodeSet,
    /// The time.
    pub now: Instant,
}

/// A way to choose.
pub trait Policy {
    /// `node` has appeared in `nodes`.
    fn add_dest(&mut self, nodes: &Nodes, node: NodeId);

    /// `node` has been taken out of `nodes`.
    fn del_dest(&mut self, nodes: &Nodes, node: NodeId);

    /// The weight or the state of `node` is now what `nodes` says.
    fn upd_dest(&mut self, nodes: &Nodes, node: NodeId);

    /// Chooses among the nodes that [`Nodes::eligible`] yields; `None` if there are none.
    fn schedule(&mut self, nodes: &Nodes, request: &Request) -> Option<NodeId>;
}

/// The policies by name, as the papers name them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// Weighted round robin: [`Wrr`].
    Wrr,
    /// Locality-aware request distribution: [`Lard`].
    #[default]
    Lard,
}

impl PolicyKind {
    /// All policies.
    pub const ALL: [PolicyKind; 2] = [PolicyKind::Wrr, PolicyKind::Lard];

    /// The name that [`PolicyKind::from_str`] understands.
    pub const fn name(self) -> &'static str {
        match self {
            PolicyKind::Wrr => "wrr",
            PolicyKind::Lard => "lard",
        }
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
        f.write_str("unknown policy; known are wrr and lard")
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
