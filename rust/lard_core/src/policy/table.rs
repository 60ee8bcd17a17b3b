// SPDX-License-Identifier: GPL-2.0

//! The target table: which nodes serve which target, bounded, what was not used for long goes.
//!
//! Losing a mapping does no harm: a target that was not asked for in so long has left the node's cache
//! as well (\[3\], section 2.4). So the table is made for the one look that each decision takes, in
//! memory that no CPU caches:
//!
//! ```text
//!   key ── upper half ──▶ slot:  │ 6 keys, their nodes, order of use │ sets of nodes, since when │
//!                                └─────────── cache line ────────────┴── where there are several ┘
//! ```
//!
//! A key can only be in one slot, as in a CPU's own caches, and makes the least recently used one *of
//! this slot* go when there is no place. There are no links to follow or to mend: a look reads one line
//! and writes the order of use back to it. Only what is on several nodes takes one more. All operations
//! take constant time.
//!
//! Keys are the output of a keyed hash, so they spread over the slots at random, and nobody can aim at
//! one. With half as many targets as there are places about one in sixty has no place for good; see
//! [`Slot::needed`].

use super::super::addr::NodeId;
use super::super::time::Instant;
use super::NodeSet;
use core::ops::DerefMut;

/// Targets in a slot: with their nodes and the order of their use the keys fill a cache line.
pub const WAYS: usize = 6;

/// The nodes that serve a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Servers<const W: usize = 1> {
    /// Who they are.
    pub nodes: NodeSet<W>,
    /// When that last changed. It is not kept for one node alone: nobody asks, and it would take a
    /// cache line more.
    pub changed: Instant,
}

/// Room for six targets: 192 bytes where a set of nodes is one word.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Slot<const W: usize = 1> {
    keys: [u64; WAYS],
    /// The node of a target that has one, else nobody: then [`Slot::several`] has the set.
    alone: [NodeId; WAYS],
    order: Order,
    several: [Servers<W>; WAYS],
}

impl<const W: usize> Slot<W> {
    /// What to fill new storage with.
    pub const EMPTY: Slot<W> = Slot {
        keys: [0; WAYS],
        alone: [NodeId::NONE; WAYS],
        order: Order::UNUSED,
        several: [Servers {
            nodes: NodeSet::EMPTY,
            changed: Instant::ZERO,
        }; WAYS],
    };

    /// Where the part begins that few looks need.
    #[cfg(test)]
    pub(super) const SEVERAL: usize = core::mem::offset_of!(Self, several);

    /// Slots for so many targets: twice the places, with which 98 of 100 have one at any time, and the
    /// others share those of who is not asked for.
    pub const fn needed(targets: usize) -> usize {
        targets.saturating_mul(2).div_ceil(WAYS)
    }

    /// The place of `key`. Looks at all of them, which costs less than to find out when to stop.
    fn find(&self, key: u64) -> Option<usize> {
        let same = self.keys.iter().enumerate();
        let same = same.fold(0u32, |bits, (i, k)| bits | u32::from(*k == key) << i);
        let same = same & self.order.used();
        // CAST: below 32.
        (same != 0).then(|| same.trailing_zeros() as usize)
    }

    /// What is at `place`, if it is in use.
    fn entry(&self, place: usize) -> Option<(u64, Servers<W>)> {
        let key = *self.keys.get(place)?;
        (self.order.used() & bit(place) != 0).then_some((key, self.servers(place)?))
    }

    fn servers(&self, place: usize) -> Option<Servers<W>> {
        match *self.alone.get(place)? {
            NodeId::NONE => self.several.get(place).copied(),
            node => Some(Servers {
                nodes: NodeSet::EMPTY.with(node),
                changed: Instant::ZERO,
            }),
        }
    }

    fn put(&mut self, place: usize, key: u64, servers: Servers<W>) -> Option<()> {
        let alone = servers.nodes.only();
        *self.keys.get_mut(place)? = key;
        *self.alone.get_mut(place)? = alone.unwrap_or(NodeId::NONE);
        if alone.is_none() {
            *self.several.get_mut(place)? = servers;
        }
        Some(())
    }

    /// What is in the slot, the most recently used first.
    fn entries(&self) -> impl DoubleEndedIterator<Item = (u64, Servers<W>)> + '_ {
        (0..WAYS).filter_map(|age| self.entry(self.order.aged(age)))
    }
}

impl<const W: usize> Default for Slot<W> {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// The bit of a place, of which there are fewer than bits.
const fn bit(place: usize) -> u32 {
    1u32.wrapping_shl(place as u32)
}

/// The order in which places were used, and which of them are in use.
///
/// Four bits for each place say how many of the others were used since, above them is a bit for each
/// that is in use. So all ages are compared and counted at once.
///
/// INVARIANT: the ages are a permutation of `0..WAYS`. Those of places that are not in use are the
/// highest.
#[derive(Clone, Copy, Debug)]
struct Order(u32);

impl Order {
    const UNUSED: Order = Order(0x54_3210);
    /// The lowest and the highest bit of each age.
    const LOWEST: u32 = 0x11_1111;
    const HIGHEST: u32 = Self::LOWEST << 3;
    const AGES: u32 = 0xff_ffff;

    /// The places in use, as bits.
    const fn used(self) -> u32 {
        self.0 >> Self::AGES.count_ones()
    }

    const fn shift(place: usize) -> u32 {
        // CAST: a few bits.
        (place as u32).wrapping_mul(4)
    }

    const fn age(self, place: usize) -> u32 {
        self.0.wrapping_shr(Self::shift(place)) & 7
    }

    /// The lowest bit of each place whose age is at least `age`, which is at most [`WAYS`].
    const fn not_below(self, age: u32) -> u32 {
        // No borrow: ages and `age` are below 8.
        let ages = self.0 & Self::AGES | Self::HIGHEST;
        (ages.wrapping_sub(age.wrapping_mul(Self::LOWEST)) & Self::HIGHEST) >> 3
    }

    /// The place with this age.
    const fn aged(self, age: usize) -> usize {
        // CAST: below `WAYS`.
        let age = age as u32;
        let (from, above) = (self.not_below(age), self.not_below(age.wrapping_add(1)));
        (from & !above).trailing_zeros() as usize / 4
    }

    /// `place` is in use, and the most recently used one.
    fn touch(&mut self, place: usize) {
        let below = Self::LOWEST & !self.not_below(self.age(place));
        // No overflow: what is counted up is below another age.
        let ages = self.0.wrapping_add(below) & !7u32.wrapping_shl(Self::shift(place));
        self.0 = ages | bit(place).wrapping_shl(Self::AGES.count_ones());
    }

    /// `place` is not in use any more.
    fn free(&mut self, place: usize) {
        let above = self.not_below(self.age(place).wrapping_add(1));
        // No overflow: what is counted down is above another age.
        let ages = self.0.wrapping_sub(above) & !7u32.wrapping_shl(Self::shift(place));
        let last = (WAYS as u32 - 1).wrapping_shl(Self::shift(place));
        self.0 = (ages | last) & !bit(place).wrapping_shl(Self::AGES.count_ones());
    }
}

/// A bounded map from target keys to sets of nodes.
///
/// `S` is a slice in any kind of ownership: `&mut [Slot]`, `Vec<Slot>`, the kernel's `KVVec<Slot>`.
#[derive(Debug)]
pub struct TargetTable<S, const W: usize = 1> {
    slots: S,
    len: usize,
    evictions: u64,
    changes: u64,
}

impl<S: DerefMut<Target = [Slot<W>]>, const W: usize> TargetTable<S, W> {
    /// An empty table. What is in the slots does not matter.
    pub fn new(slots: S) -> Self {
        let mut table = TargetTable {
            slots,
            len: 0,
            evictions: 0,
            changes: 0,
        };
        table.clear();
        table
    }

    /// Forgets everything. Takes time in proportion to the capacity.
    pub fn clear(&mut self) {
        self.slots.fill(Slot::EMPTY);
        self.len = 0;
    }

    /// Number of targets.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Is there no target?
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Most targets there can be.
    pub fn capacity(&self) -> usize {
        self.slots.len().saturating_mul(WAYS)
    }

    /// How many targets had to go to make room for others.
    pub const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// How often a target got other nodes than it had.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Where `key` is mapped to, which makes it the most recently used one.
    pub fn lookup(&mut self, key: u64) -> Option<Servers<W>> {
        let slot = self.slot_mut(key)?;
        let place = slot.find(key)?;
        slot.order.touch(place);
        slot.servers(place)
    }

    /// Where `key` is mapped to, without consequences.
    pub fn peek(&self, key: u64) -> Option<Servers<W>> {
        let slot = self.slots.get(self.index(key))?;
        slot.servers(slot.find(key)?)
    }

    /// Maps `key` to `servers` and makes it the most recently used one. If there is no place for it, the
    /// least recently used key of its slot goes and is returned.
    pub fn insert(&mut self, key: u64, servers: Servers<W>) -> Option<u64> {
        let slot = self.slot_mut(key)?;
        let known = slot.find(key);
        let place = known.unwrap_or_else(|| slot.order.aged(WAYS - 1));
        let old = slot.entry(place);
        slot.put(place, key, servers)?;
        slot.order.touch(place);
        match (old, known) {
            (None, _) => {
                self.len = self.len.saturating_add(1);
                None
            }
            (Some((_, old)), Some(_)) => {
                let changed = u64::from(old.nodes != servers.nodes);
                self.changes = self.changes.wrapping_add(changed);
                None
            }
            (Some((evicted, _)), None) => {
                self.evictions = self.evictions.wrapping_add(1);
                Some(evicted)
            }
        }
    }

    /// Forgets `key`; where was it?
    pub fn remove(&mut self, key: u64) -> Option<Servers<W>> {
        let slot = self.slot_mut(key)?;
        let place = slot.find(key)?;
        slot.order.free(place);
        let servers = slot.servers(place);
        self.len = self.len.saturating_sub(1);
        servers
    }

    /// All mappings, slot by slot, of each the most recently used first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Servers<W>)> + '_ {
        self.slots.iter().flat_map(Slot::entries)
    }

    /// Moves the table into other storage, larger or smaller, and gives the old one back. What finds a
    /// place there is kept.
    pub fn replace_storage(&mut self, slots: S) -> S {
        let mut moved = TargetTable::new(slots);
        for slot in self.slots.iter() {
            for (key, servers) in slot.entries().rev() {
                moved.insert(key, servers);
            }
        }
        moved.evictions = self.evictions;
        moved.changes = self.changes;
        core::mem::replace(self, moved).slots
    }

    /// The slot of `key`: its upper half, scaled to their number. Every bit of a key is as good as
    /// another.
    fn index(&self, key: u64) -> usize {
        let slots = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        // CAST: below the length of a slice. No overflow: of more than 2^32 slots the others are not
        // used.
        (((key >> 32) * slots.min(1 << 32)) >> 32) as usize
    }

    fn slot_mut(&mut self, key: u64) -> Option<&mut Slot<W>> {
        let index = self.index(key);
        self.slots.get_mut(index)
    }
}
