// SPDX-License-Identifier: GPL-2.0

//! The nodes of a cluster as the dispatcher sees them: weight, state, load.

use super::super::addr::NodeId;
use core::fmt;

/// Most nodes in one cluster. Each pair of nodes has a control connection with two kernel threads
/// at either end, so a cluster is small; and a set of nodes fits in one machine word.
pub const MAX_NODES: usize = 64;

/// Largest weight, so that sums and products of weights and loads stay far within 64 bits.
pub const MAX_WEIGHT: u16 = 1_000;

/// A set of nodes: bit `n - 1` is node `n`.
///
/// Nodes beyond [`MAX_NODES`] are in no set.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct NodeSet(u64);

impl NodeSet {
    /// No node.
    pub const EMPTY: NodeSet = NodeSet(0);

    /// The set with these bits. Every pattern is a set.
    pub const fn from_bits(bits: u64) -> Self {
        NodeSet(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    const fn bit(node: NodeId) -> u64 {
        match node.0.checked_sub(1) {
            Some(i) => match 1u64.checked_shl(i as u32) {
                Some(bit) => bit,
                None => 0,
            },
            None => 0,
        }
    }

    /// Is `node` in the set?
    pub const fn contains(self, node: NodeId) -> bool {
        self.0 & Self::bit(node) != 0
    }

    /// The set and `node`.
    pub const fn with(self, node: NodeId) -> Self {
        NodeSet(self.0 | Self::bit(node))
    }

    /// Puts `node` in.
    pub fn insert(&mut self, node: NodeId) {
        self.0 |= Self::bit(node);
    }

    /// Takes `node` out.
    pub fn remove(&mut self, node: NodeId) {
        self.0 &= !Self::bit(node);
    }

    /// Is nobody in it?
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many nodes are in it.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The nodes in ascending order.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            // CAST: at most 63 where there is a bit.
            let i = (left != 0).then(|| left.trailing_zeros() as u16)?;
            left &= left.wrapping_sub(1);
            Some(NodeId(i.wrapping_add(1)))
        })
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|n| n.0)).finish()
    }
}

/// May a node be chosen?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It may.
    #[default]
    Up,
    /// No new connections; those it has go on and are counted.
    Draining,
    /// It is silent; its connections are lost.
    Down,
}

impl NodeState {
    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            NodeState::Up => "up",
            NodeState::Draining => "draining",
            NodeState::Down => "down",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dest {
    /// Its number.
    pub node: NodeId,
    /// Its share of the work; 0 means no new connections.
    pub weight: u16,
    /// May it be chosen?
    pub state: NodeState,
    /// Connections assigned to it and not over yet.
    pub load: u32,
    /// Connections ever assigned to it.
    pub assigned: u64,
}

impl Dest {
    /// Could a policy choose it?
    pub const fn is_available(&self) -> bool {
        matches!(self.state, NodeState::Up) && self.weight > 0
    }

    /// Does this node have less to do than `other`, in proportion to the weights?
    pub fn is_less_loaded_than(&self, other: &Dest) -> bool {
        // No overflow: 32 bits times 16.
        u64::from(self.load) * u64::from(other.weight)
            < u64::from(other.load) * u64::from(self.weight)
    }
}

/// Why a node was not added or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeError {
    /// The number is not one of 1 to [`MAX_NODES`].
    Number,
    /// The node is there already.
    Exists,
    /// The node is not there.
    Unknown,
    /// The weight is above [`MAX_WEIGHT`].
    Weight,
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeError::Number => write!(f, "node numbers are 1 to {MAX_NODES}"),
            NodeError::Exists => f.write_str("the node exists already"),
            NodeError::Unknown => f.write_str("there is no such node"),
            NodeError::Weight => write!(f, "weights are 0 to {MAX_WEIGHT}"),
        }
    }
}

impl core::error::Error for NodeError {}

/// All nodes, found by their numbers.
#[derive(Debug)]
pub struct Nodes {
    /// INVARIANT: node `n` is at `n - 1` if `present` has it.
    dests: [Dest; MAX_NODES],
    present: NodeSet,
    /// Those that are up and have a weight.
    available: NodeSet,
}

impl Default for Nodes {
    fn default() -> Self {
        Self::new()
    }
}

impl Nodes {
    /// No nodes.
    pub const fn new() -> Self {
        const NOBODY: Dest = Dest {
            node: NodeId::NONE,
            weight: 0,
            state: NodeState::Down,
            load: 0,
            assigned: 0,
        };
        Nodes {
            dests: [NOBODY; MAX_NODES],
            present: NodeSet::EMPTY,
            available: NodeSet::EMPTY,
        }
    }

    /// The index of a node's place, for policies that keep something for each.
    pub(super) fn index(node: NodeId) -> Option<usize> {
        let i = usize::from(node.0).checked_sub(1)?;
        (i < MAX_NODES).then_some(i)
    }

    /// The node, if it is there.
    pub fn get(&self, node: NodeId) -> Option<&Dest> {
        if !self.present.contains(node) {
            return None;
        }
        self.dests.get(Self::index(node)?)
    }

    fn get_mut(&mut self, node: NodeId) -> Result<&mut Dest, NodeError> {
        if !self.present.contains(node) {
            return Err(NodeError::Unknown);
        }
        let i = Self::index(node).ok_or(NodeError::Number)?;
        self.dests.get_mut(i).ok_or(NodeError::Number)
    }

    /// All nodes in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &Dest> {
        self.present.iter().filter_map(|n| self.get(n))
    }

    /// The nodes that may be chosen now, in ascending order, without those in `exclude`.
    pub fn eligible(&self, exclude: NodeSet) -> impl Iterator<Item = &Dest> {
        let set = NodeSet(self.available.0 & !exclude.0);
        set.iter().filter_map(|n| self.get(n))
    }

    /// May `node` be chosen, given what is excluded?
    pub fn is_eligible(&self, node: NodeId, exclude: NodeSet) -> bool {
        self.available.contains(node) && !exclude.contains(node)
    }

    /// The set of all nodes.
    pub const fn present(&self) -> NodeSet {
        self.present
    }

    pub(super) fn add(&mut self, node: NodeId, weight: u16) -> Result<(), NodeError> {
        let i = Self::index(node).ok_or(NodeError::Number)?;
        if weight > MAX_WEIGHT {
            return Err(NodeError::Weight);
        }
        if self.present.contains(node) {
            return Err(NodeError::Exists);
        }
        let place = self.dests.get_mut(i).ok_or(NodeError::Number)?;
        *place = Dest {
            node,
            weight,
            ..Dest::default()
        };
        self.present.insert(node);
        self.settle(node);
        Ok(())
    }

    pub(super) fn remove(&mut self, node: NodeId) -> Result<Dest, NodeError> {
        let dest = core::mem::take(self.get_mut(node)?);
        self.present.remove(node);
        self.available.remove(node);
        Ok(dest)
    }

    pub(super) fn update(
        &mut self,
        node: NodeId,
        weight: Option<u16>,
        state: Option<NodeState>,
    ) -> Result<(), NodeError> {
        if weight.is_some_and(|w| w > MAX_WEIGHT) {
            return Err(NodeError::Weight);
        }
        let dest = self.get_mut(node)?;
        dest.weight = weight.unwrap_or(dest.weight);
        dest.state = state.unwrap_or(dest.state);
        if state == Some(NodeState::Down) {
            // Whatever it was serving is lost.
            dest.load = 0;
        }
        self.settle(node);
        Ok(())
    }

    pub(super) fn set_load(&mut self, node: NodeId, load: u32) -> Result<(), NodeError> {
        self.get_mut(node)?.load = load;
        Ok(())
    }

    /// One connection more.
    pub(super) fn assign(&mut self, node: NodeId) {
        if let Ok(dest) = self.get_mut(node) {
            dest.load = dest.load.saturating_add(1);
            dest.assigned = dest.assigned.wrapping_add(1);
        }
    }

    /// One connection less; `false` if none was left, as after a node came back with connections
    /// that were written off.
    pub(super) fn finish(&mut self, node: NodeId) -> bool {
        let left = self.get_mut(node).map(|d| (d.load.checked_sub(1), d));
        if let Ok((Some(load), dest)) = left {
            dest.load = load;
            return true;
        }
        false
    }

    /// Brings `available` in line with what `node` is now.
    fn settle(&mut self, node: NodeId) {
        if self.get(node).is_some_and(Dest::is_available) {
            self.available.insert(node);
        } else {
            self.available.remove(node);
        }
    }
}
