// SPDX-License-Identifier: GPL-2.0

//! The target table: which nodes serve which target, bounded, what was not used for long goes.
//!
//! Losing a mapping does no harm: a target that was not asked for in so long has left the node's cache
//! as well (\[3\], section 2.4). So the table is made for the one look that each decision takes, in
//! memory that no CPU caches:
//!
//! ```text
//!   key ── upper half ──▶ slot:  │ 7 keys, order of use │ 7 sets of nodes │ since when │
//!                                └───── cache line ─────┴── cache line ───┴────────────┘
//! ```
//!
//! A key can only be in one slot, as in a CPU's own caches, and makes the least recently used one *of
//! this slot* go when there is no place. There are no links to follow or to mend: a look reads one line
//! and writes the order of use back to it, and what it finds is in one more. All operations take
//! constant time.
//!
//! Keys are the output of a keyed hash, so they spread over the slots at random, and nobody can aim at
//! one. With half as many targets as there are places about one in a hundred has no place for good; see
//! [`Slot::needed`].

use super::super::time::Instant;
use super::NodeSet;
use core::ops::DerefMut;

/// Targets in a slot: with their order of use the keys fill a cache line.
pub const WAYS: usize = 7;

/// The nodes that serve a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Servers<const W: usize = 1> {
    /// Who they are.
    pub nodes: NodeSet<W>,
    /// When that last changed.
    pub changed: Instant,
}

/// Room for seven targets: 192 bytes where a set of nodes is one word.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Slot<const W: usize = 1> {
    keys: [u64; WAYS],
    /// How many of the others were used since.
    ///
    /// INVARIANT: a permutation of `0..WAYS`. Places that are not in use are the last ones.
    ages: [u8; WAYS],
    /// Places in use, as bits.
    used: u8,
    /// The two parts of [`Servers`]. The first fills the next line.
    nodes: [NodeSet<W>; WAYS],
    changed: [Instant; WAYS],
}

impl<const W: usize> Slot<W> {
    /// What to fill new storage with.
    pub const EMPTY: Slot<W> = Slot {
        keys: [0; WAYS],
        ages: [0, 1, 2, 3, 4, 5, 6],
        used: 0,
        nodes: [NodeSet::EMPTY; WAYS],
        changed: [Instant::ZERO; WAYS],
    };

    /// Slots for so many targets: twice the places, with which 99 of 100 have one at any time, and the
    /// others share those of who is not asked for.
    pub const fn needed(targets: usize) -> usize {
        targets.saturating_mul(2).div_ceil(WAYS)
    }

    /// The place of `key`. Looks at all of them, which costs less than to find out when to stop.
    fn find(&self, key: u64) -> Option<usize> {
        let same = self.keys.iter().enumerate();
        let same = same.fold(0u8, |bits, (i, k)| bits | u8::from(*k == key) << i) & self.used;
        // CAST: at most 8.
        (same != 0).then(|| same.trailing_zeros() as usize)
    }

    /// Makes `place` the most recently used one.
    fn touch(&mut self, place: usize) {
        let Some(age) = self.ages.get(place).copied() else {
            return;
        };
        for other in &mut self.ages {
            // No overflow: it is below `age`.
            *other += u8::from(*other < age);
        }
        self.set_age(place, 0);
    }

    /// Makes `place` an unused one.
    fn free(&mut self, place: usize) {
        let Some(age) = self.ages.get(place).copied() else {
            return;
        };
        for other in &mut self.ages {
            // No overflow: it is above `age`.
            *other -= u8::from(*other > age);
        }
        self.set_age(place, WAYS as u8 - 1);
        self.used &= !bit(place);
    }

    fn set_age(&mut self, place: usize, age: u8) {
        if let Some(own) = self.ages.get_mut(place) {
            *own = age;
        }
    }

    /// The place with this age.
    fn aged(&self, age: usize) -> Option<usize> {
        self.ages.iter().position(|a| usize::from(*a) == age)
    }

    /// What is at `place`, if it is in use.
    fn entry(&self, place: usize) -> Option<(u64, Servers<W>)> {
        let key = *self.keys.get(place)?;
        (self.used & bit(place) != 0).then_some((key, self.servers(place)?))
    }

    fn servers(&self, place: usize) -> Option<Servers<W>> {
        Some(Servers {
            nodes: *self.nodes.get(place)?,
            changed: *self.changed.get(place)?,
        })
    }

    /// What is in the slot, the most recently used first.
    fn entries(&self) -> impl DoubleEndedIterator<Item = (u64, Servers<W>)> + '_ {
        (0..WAYS).filter_map(|age| self.entry(self.aged(age)?))
    }
}

impl<const W: usize> Default for Slot<W> {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// The bit of a place, of which there are fewer than bits.
const fn bit(place: usize) -> u8 {
    1u8.wrapping_shl(place as u32)
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
        slot.touch(place);
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
        let place = known.or_else(|| slot.aged(WAYS - 1))?;
        let old = slot.entry(place);
        slot.touch(place);
        slot.used |= bit(place);
        *slot.keys.get_mut(place)? = key;
        *slot.nodes.get_mut(place)? = servers.nodes;
        *slot.changed.get_mut(place)? = servers.changed;
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
        slot.free(place);
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
