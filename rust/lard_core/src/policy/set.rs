// SPDX-License-Identifier: GPL-2.0

//! Sets of nodes, and sets of tags.

use super::super::addr::NodeId;
use core::fmt;

/// A set of nodes: bit `n - 1` is node `n`, for nodes 1 to `64 * W`. Others are in no set.
///
/// One word is what a cluster has, and what crosses the wire. More are for those who only calculate
/// with clusters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeSet<const W: usize = 1>([u64; W]);

impl NodeSet {
    /// The set with these bits. Every pattern is a set.
    pub const fn from_bits(bits: u64) -> Self {
        NodeSet([bits])
    }

    /// The bits.
    pub const fn bits(self) -> u64 {
        let [bits] = self.0;
        bits
    }
}

impl<const W: usize> NodeSet<W> {
    /// No node.
    pub const EMPTY: NodeSet<W> = NodeSet([0; W]);

    /// The word that `node` would be in, and its bit there.
    fn place(node: NodeId) -> Option<(usize, u64)> {
        let i = usize::from(node.0).checked_sub(1)?;
        // The remainder is below 64.
        (i / 64 < W).then_some((i / 64, 1 << (i % 64)))
    }

    /// Is `node` in the set?
    pub fn contains(self, node: NodeId) -> bool {
        let place = Self::place(node);
        place.is_some_and(|(word, bit)| self.0.get(word).is_some_and(|w| w & bit != 0))
    }

    /// The set and `node`.
    pub fn with(mut self, node: NodeId) -> Self {
        self.insert(node);
        self
    }

    /// The set without `node`.
    pub fn without(mut self, node: NodeId) -> Self {
        self.remove(node);
        self
    }

    /// Puts `node` in.
    pub fn insert(&mut self, node: NodeId) {
        if let Some((word, bit)) = Self::place(node) {
            if let Some(w) = self.0.get_mut(word) {
                *w |= bit;
            }
        }
    }

    /// Takes `node` out.
    pub fn remove(&mut self, node: NodeId) {
        if let Some((word, bit)) = Self::place(node) {
            if let Some(w) = self.0.get_mut(word) {
                *w &= !bit;
            }
        }
    }

    /// Those that are in this set, but not in `other`.
    pub fn difference(mut self, other: &Self) -> Self {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine &= !theirs;
        }
        self
    }

    /// Those that are in both sets.
    pub fn intersection(mut self, other: &Self) -> Self {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine &= theirs;
        }
        self
    }

    /// Is nobody in it?
    pub fn is_empty(self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    /// The node in it, if there is exactly one.
    pub fn only(self) -> Option<NodeId> {
        let mut nodes = self.iter();
        let node = nodes.next()?;
        nodes.next().is_none().then_some(node)
    }

    /// How many nodes are in it.
    pub fn len(self) -> usize {
        self.0
            .iter()
            .fold(0, |n, w| n.saturating_add(w.count_ones() as usize))
    }

    /// The nodes in ascending order.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        let mut words = self.0.into_iter();
        let mut left = words.next().unwrap_or(0);
        let mut base = 1u16;
        core::iter::from_fn(move || {
            while left == 0 {
                left = words.next()?;
                base = base.saturating_add(64);
            }
            // CAST: at most 63.
            let i = left.trailing_zeros() as u16;
            left &= left.wrapping_sub(1);
            Some(NodeId(base.saturating_add(i)))
        })
    }
}

impl<const W: usize> Default for NodeSet<W> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const W: usize> FromIterator<NodeId> for NodeSet<W> {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        nodes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl<const W: usize> fmt::Debug for NodeSet<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|n| n.0)).finish()
    }
}

/// Properties of a node, or the properties that a request needs: one bit each.
///
/// What a bit means is the administrator's business; to a policy a request with tags concerns only
/// nodes that have all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags(pub u32);

impl Tags {
    /// No property: every node has them all.
    pub const NONE: Tags = Tags(0);

    /// Are all of `wanted` among these?
    pub const fn contain(self, wanted: Tags) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}
