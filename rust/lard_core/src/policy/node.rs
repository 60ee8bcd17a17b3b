// SPDX-License-Identifier: GPL-2.0

//! The nodes of a cluster as the dispatcher sees them: weight, state, tags, load.
//!
//! Load is counted in [`UNIT`]s, so that a node can have a part of a connection: the content of one
//! of the N requests of a batch is 1/N of the connection's work (\[2\]). A policy compares loads in
//! proportion to the weights; a node of weight w counts as w nodes of weight 1.

use super::super::addr::NodeId;
use super::{NodeSet, Request, Tags};
use core::cmp::Ordering;
use core::fmt;

/// Most nodes in one cluster. Each pair of nodes has a control connection with two kernel threads
/// at either end, so a cluster is small; and a set of nodes fits in one machine word.
pub const MAX_NODES: usize = 64;

/// The load of one active connection.
pub const UNIT: u32 = 1 << 16;

/// Largest weight, so that sums and products of weights and loads stay far within 64 bits.
pub const MAX_WEIGHT: u16 = 1_000;

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
    /// What it has that others have not.
    pub tags: Tags,
    /// Connections assigned to it and not over yet, without those that are idle.
    pub load: u32,
    /// Connections that wait for their client, as far as that is known. They are no load.
    pub idle: u32,
    /// Requests of other nodes' connections that it serves content for, in parts of a [`UNIT`].
    pub shares: u32,
    /// Requests that wait for its disk, as it said last.
    pub disk_queue: u32,
    /// Connections ever assigned to it.
    pub assigned: u64,
}

impl Dest {
    /// Could a policy choose it?
    pub const fn is_available(&self) -> bool {
        matches!(self.state, NodeState::Up) && self.weight > 0
    }

    /// All it has to do, in [`UNIT`]s: 49 bits.
    pub fn work(&self) -> u64 {
        (u64::from(self.load) * u64::from(UNIT)).saturating_add(u64::from(self.shares))
    }

    /// Its weight and its work, as far as they count for the cluster.
    fn share(&self) -> (u64, u64) {
        match self.is_available() {
            true => (u64::from(self.weight), self.work()),
            false => (0, 0),
        }
    }

    /// What `connections` for each unit of weight are for this node, in [`UNIT`]s: 58 bits.
    pub(super) fn scaled(&self, connections: u32) -> u64 {
        u64::from(connections.min(super::Params::MAX)) * u64::from(UNIT) * u64::from(self.weight)
    }

    /// Which of the two has less to do, in proportion to the weights?
    pub(super) fn cmp_load(&self, other: &Dest) -> Ordering {
        // Who takes nothing new may still have something to do. No overflow: 49 bits times 10.
        let [mine, theirs] = [self, other].map(|d| u64::from(d.weight.max(1)));
        (self.work() * theirs).cmp(&(other.work() * mine))
    }

    /// Does this node have less to do than `other`, in proportion to the weights?
    pub fn is_less_loaded_than(&self, other: &Dest) -> bool {
        self.cmp_load(other).is_lt()
    }

    /// Is it this node's turn rather than that of `other`, which has a lower number, when `last` had
    /// the last one?
    pub(super) fn comes_first_after(&self, last: NodeId, other: &Dest) -> bool {
        self.node > last && other.node <= last
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

/// All nodes, found by their numbers: 1 to `64 * W`.
#[derive(Debug)]
pub struct Nodes<const W: usize = 1> {
    /// INVARIANT: node `n` is at place `n - 1`, all words' places in a row, if `present` has it.
    dests: [[Dest; 64]; W],
    present: NodeSet<W>,
    /// Those that are up and have a weight.
    available: NodeSet<W>,
    /// Their weights together, and what they have to do together, in [`UNIT`]s.
    totals: (u64, u64),
}

impl<const W: usize> Default for Nodes<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const W: usize> Nodes<W> {
    /// No nodes.
    pub const fn new() -> Self {
        const NOBODY: Dest = Dest {
            node: NodeId::NONE,
            weight: 0,
            state: NodeState::Down,
            tags: Tags::NONE,
            load: 0,
            idle: 0,
            shares: 0,
            disk_queue: 0,
            assigned: 0,
        };
        Nodes {
            dests: [[NOBODY; 64]; W],
            present: NodeSet::EMPTY,
            available: NodeSet::EMPTY,
            totals: (0, 0),
        }
    }

    /// The index of a node's place, for policies that keep something for each.
    pub(super) fn index(node: NodeId) -> usize {
        usize::from(node.0).wrapping_sub(1)
    }

    /// The node, if it is there.
    pub fn get(&self, node: NodeId) -> Option<&Dest> {
        let dest = self.dests.as_flattened().get(Self::index(node))?;
        self.present.contains(node).then_some(dest)
    }

    /// Changes a node that is there, and all that depends on it.
    fn change<R>(&mut self, node: NodeId, f: impl FnOnce(&mut Dest) -> R) -> Result<R, NodeError> {
        if !self.present.contains(node) {
            return Err(NodeError::Unknown);
        }
        let dest = self.dests.as_flattened_mut().get_mut(Self::index(node));
        let dest = dest.ok_or(NodeError::Number)?;
        let (weights, work) = self.totals;
        let (old_weight, old_work) = dest.share();
        let result = f(dest);
        let (new_weight, new_work) = dest.share();
        // No overflow: 10 and 49 bits for each node. What is taken away was added before.
        self.totals = (
            weights.wrapping_sub(old_weight).wrapping_add(new_weight),
            work.wrapping_sub(old_work).wrapping_add(new_work),
        );
        if dest.is_available() {
            self.available.insert(node);
        } else {
            self.available.remove(node);
        }
        Ok(result)
    }

    /// The weights of all that are up together, and what they have to do together, in [`UNIT`]s.
    pub(super) const fn totals(&self) -> (u64, u64) {
        self.totals
    }

    /// All nodes in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &Dest> {
        self.present.iter().filter_map(|n| self.get(n))
    }

    /// The nodes that `request` may be assigned to now, in ascending order.
    pub fn eligible(&self, request: &Request<W>) -> impl Iterator<Item = &Dest> {
        let (set, tags) = (self.available.difference(&request.exclude), request.tags);
        // Who is available is present.
        let dests = self.dests.as_flattened();
        let dests = set.iter().filter_map(|n| dests.get(Self::index(n)));
        dests.filter(move |d| d.tags.contain(tags))
    }

    /// The node that handles a connection, if it may serve a further request of it: draining does not
    /// keep it from that.
    pub(super) fn get_home(&self, home: NodeId, request: &Request<W>) -> Option<&Dest> {
        self.get(home).filter(|home| {
            home.state != NodeState::Down
                && !request.exclude.contains(home.node)
                && home.tags.contain(request.tags)
        })
    }

    /// `node`, if `request` may be assigned to it now.
    pub fn get_eligible(&self, node: NodeId, request: &Request<W>) -> Option<&Dest> {
        if !self.available.contains(node) || request.exclude.contains(node) {
            return None;
        }
        self.get(node).filter(|d| d.tags.contain(request.tags))
    }

    /// The eligible node with the least to do for its weight, and of several the first one after
    /// `last`: with the lowest number, a cluster that is asked for one thing at a time would put
    /// everything on its first node.
    pub(super) fn least_loaded(&self, request: &Request<W>, last: NodeId) -> Option<&Dest> {
        let eligible = self.eligible(request);
        eligible.reduce(|best, new| match new.cmp_load(best) {
            Ordering::Less => new,
            Ordering::Equal if new.comes_first_after(last, best) => new,
            Ordering::Equal | Ordering::Greater => best,
        })
    }

    /// The set of all nodes.
    pub const fn present(&self) -> NodeSet<W> {
        self.present
    }

    /// The set of those that are up and have a weight.
    pub const fn available(&self) -> NodeSet<W> {
        self.available
    }

    pub(super) fn add(&mut self, node: NodeId, weight: u16) -> Result<(), NodeError> {
        if weight > MAX_WEIGHT {
            return Err(NodeError::Weight);
        }
        if self.present.contains(node) {
            return Err(NodeError::Exists);
        }
        if self.dests.as_flattened().get(Self::index(node)).is_none() {
            return Err(NodeError::Number);
        }
        self.present.insert(node);
        self.change(node, |dest| {
            *dest = Dest {
                node,
                weight,
                ..Dest::default()
            }
        })
    }

    pub(super) fn remove(&mut self, node: NodeId) -> Result<Dest, NodeError> {
        // An empty place has no weight.
        let dest = self.change(node, core::mem::take)?;
        self.present.remove(node);
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
        self.change(node, |dest| {
            dest.weight = weight.unwrap_or(dest.weight);
            dest.state = state.unwrap_or(dest.state);
            if state == Some(NodeState::Down) {
                // Whatever it was serving is lost.
                dest.load = 0;
                dest.idle = 0;
                dest.shares = 0;
                dest.disk_queue = 0;
            }
        })
    }

    pub(super) fn set_tags(&mut self, node: NodeId, tags: Tags) -> Result<(), NodeError> {
        self.change(node, |dest| dest.tags = tags)
    }

    pub(super) fn set_load(&mut self, node: NodeId, load: u32) -> Result<(), NodeError> {
        self.change(node, |dest| dest.load = load)
    }

    pub(super) fn set_disk_queue(&mut self, node: NodeId, length: u32) -> Result<(), NodeError> {
        self.change(node, |dest| dest.disk_queue = length)
    }

    /// One connection more. Nothing happens, here and below, if the node is not there any more.
    pub(super) fn assign(&mut self, node: NodeId) {
        let _ = self.change(node, |dest| {
            dest.load = dest.load.saturating_add(1);
            dest.assigned = dest.assigned.wrapping_add(1);
        });
    }

    /// One connection less; `false` if none was left, as after a node came back with connections
    /// that were written off. One that has something to do if there is one: news can cross, and the number
    /// of all connections is right whichever is taken.
    pub(super) fn finish(&mut self, node: NodeId) -> bool {
        let finished = self.change(node, |dest| take(&mut dest.load) || take(&mut dest.idle));
        finished.unwrap_or(false)
    }

    /// The same, of a connection that was idle.
    pub(super) fn finish_idle(&mut self, node: NodeId) -> bool {
        let finished = self.change(node, |dest| take(&mut dest.idle) || take(&mut dest.load));
        finished.unwrap_or(false)
    }

    /// A connection has nothing to do; `false` if there was none that had.
    pub(super) fn rest(&mut self, node: NodeId) -> bool {
        let rests = self.change(node, |dest| {
            let rests = take(&mut dest.load);
            dest.idle = dest.idle.saturating_add(rests.into());
            rests
        });
        rests.unwrap_or(false)
    }

    /// A connection that was idle has something to do again; it is no new one.
    pub(super) fn resume(&mut self, node: NodeId) {
        let _ = self.change(node, |dest| {
            let resumes = take(&mut dest.idle);
            dest.load = dest.load.saturating_add(resumes.into());
        });
    }

    /// A part of a connection more.
    pub(super) fn add_share(&mut self, node: NodeId, share: u32) {
        let _ = self.change(node, |dest| dest.shares = dest.shares.saturating_add(share));
    }

    /// The same part less.
    pub(super) fn take_share(&mut self, node: NodeId, share: u32) {
        let _ = self.change(node, |dest| dest.shares = dest.shares.saturating_sub(share));
    }
}

/// One less, if there is one.
fn take(count: &mut u32) -> bool {
    let left = count.checked_sub(1);
    *count = left.unwrap_or(0);
    left.is_some()
}
