// SPDX-License-Identifier: GPL-2.0

//! The dispatcher's whole state in one object: nodes, policy, parameters and accounting.
//!
//! ```text
//!   add_dest, upd_dest, del_dest ──▶ Nodes ◀── schedule: +1
//!            │                         ▲   ◀── finished: −1
//!            ▼                         │ reads
//!          policy (wrr | lard) ────────┘
//! ```
//!
//! Both policies are kept, so that one can be changed for the other and back without losing what
//! was learnt; only the chosen one is asked.

use super::super::addr::NodeId;
use super::{
    Dest, Lard, NodeError, NodeState, Nodes, Params, Policy, PolicyKind, Request, Slot, Wrr,
};
use core::fmt;
use core::ops::DerefMut;

/// Why a parameter was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamError {
    /// There is no parameter of that name.
    Unknown,
    /// It cannot have that value, given the others.
    Value,
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamError::Unknown => f.write_str("unknown parameter; known are t-low and t-high"),
            ParamError::Value => write!(
                f,
                "thresholds must satisfy 1 <= t-low < t-high <= {}",
                Params::MAX
            ),
        }
    }
}

impl core::error::Error for ParamError {}

/// Nodes, policy and accounting. `S` are the slots of the target table.
#[derive(Debug)]
pub struct Scheduler<S> {
    kind: PolicyKind,
    nodes: Nodes,
    wrr: Wrr,
    lard: Lard<S>,
}

impl<S: DerefMut<Target = [Slot]>> Scheduler<S> {
    /// No nodes, default parameters.
    pub fn new(kind: PolicyKind, slots: S) -> Self {
        Scheduler {
            kind,
            nodes: Nodes::new(),
            wrr: Wrr::new(),
            lard: Lard::new(Params::DEFAULT, slots),
        }
    }

    /// Lets `node` be chosen from now on.
    pub fn add_dest(&mut self, node: NodeId, weight: u16) -> Result<(), NodeError> {
        self.nodes.add(node, weight)?;
        self.wrr.add_dest(&self.nodes, node);
        self.lard.add_dest(&self.nodes, node);
        Ok(())
    }

    /// Forgets `node` and says what it was.
    pub fn del_dest(&mut self, node: NodeId) -> Result<Dest, NodeError> {
        let dest = self.nodes.remove(node)?;
        self.wrr.del_dest(&self.nodes, node);
        self.lard.del_dest(&self.nodes, node);
        Ok(dest)
    }

    /// Changes the weight, the state or both. A node that goes down loses its load.
    pub fn upd_dest(
        &mut self,
        node: NodeId,
        weight: Option<u16>,
        state: Option<NodeState>,
    ) -> Result<(), NodeError> {
        self.nodes.update(node, weight, state)?;
        self.wrr.upd_dest(&self.nodes, node);
        self.lard.upd_dest(&self.nodes, node);
        Ok(())
    }

    /// Chooses a node and counts the connection as its load; `None`, and nothing is counted, if no
    /// node may be chosen. Each choice must be undone once, by [`Scheduler::finished`].
    pub fn schedule(&mut self, request: &Request) -> Option<NodeId> {
        let node = match self.kind {
            PolicyKind::Wrr => self.wrr.schedule(&self.nodes, request),
            PolicyKind::Lard => self.lard.schedule(&self.nodes, request),
        }?;
        self.nodes.assign(node);
        Some(node)
    }

    /// A connection of `node` is over, or never reached it. `false` if it had none left, which
    /// happens after its load was set from outside; loads never go below zero.
    pub fn finished(&mut self, node: NodeId) -> bool {
        self.nodes.finish(node)
    }

    /// Sets the load of `node` to what the node itself says, when messages were lost.
    pub fn set_load(&mut self, node: NodeId, load: u32) -> Result<(), NodeError> {
        self.nodes.set_load(node, load)
    }

    /// The nodes.
    pub const fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The LARD policy, for its statistics.
    pub const fn lard(&self) -> &Lard<S> {
        &self.lard
    }

    /// The policy that is asked.
    pub const fn policy(&self) -> PolicyKind {
        self.kind
    }

    /// Asks another policy from now on.
    pub fn set_policy(&mut self, kind: PolicyKind) {
        self.kind = kind;
    }

    /// Names and values of all parameters.
    pub fn params(&self) -> [(&'static str, u32); 2] {
        let Params { t_low, t_high } = self.lard.params();
        [("t-low", t_low), ("t-high", t_high)]
    }

    /// Changes some parameters at once: all of them, or none if one is wrong.
    pub fn set_params<'a, I>(&mut self, changes: I) -> Result<(), ParamError>
    where
        I: IntoIterator<Item = (&'a str, u32)>,
    {
        let mut params = self.lard.params();
        for (name, value) in changes {
            match name {
                "t-low" => params.t_low = value,
                "t-high" => params.t_high = value,
                _ => return Err(ParamError::Unknown),
            }
        }
        if self.lard.set_params(params) {
            Ok(())
        } else {
            Err(ParamError::Value)
        }
    }

    /// Moves the target table to other storage and gives the old one back.
    pub fn replace_storage(&mut self, slots: S) -> S {
        self.lard.replace_storage(slots)
    }
}
