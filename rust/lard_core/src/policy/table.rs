// SPDX-License-Identifier: GPL-2.0

//! The target table: which nodes serve which target, bounded, the least recently used one goes.
//!
//! Losing a mapping does no harm: a target that was not asked for in so long has left the node's cache
//! as well (\[3\], section 2.4).
//!
//! All operations take constant time. The table lives in the caller's slots; each slot holds one
//! entry, its links in two lists, and the head of one hash chain:
//!
//! ```text
//!   slot i:  key, servers │ newer, older (order of use) │ next (hash chain) │ head of chain i
//! ```
//!
//! Links are slot numbers. Unused slots form a list through `next`.

use super::super::time::Instant;
use super::NodeSet;
use core::ops::DerefMut;

/// No slot.
const NIL: u32 = u32::MAX;

/// The nodes that serve a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Servers<const W: usize = 1> {
    /// Who they are.
    pub nodes: NodeSet<W>,
    /// When that last changed.
    pub changed: Instant,
}

/// Room for one target: 40 bytes where a set of nodes is one word.
#[derive(Clone, Copy, Debug)]
pub struct Slot<const W: usize = 1> {
    key: u64,
    servers: Servers<W>,
    /// The next slot in the order of use, towards the most recent.
    newer: u32,
    /// The same, towards the least recent.
    older: u32,
    /// The next slot in the same hash chain, or the next unused one.
    next: u32,
    /// First slot of the hash chain that has this slot's number. Nothing to do with the entry.
    chain: u32,
}

impl<const W: usize> Slot<W> {
    /// What to fill new storage with.
    pub const EMPTY: Slot<W> = Slot {
        key: 0,
        servers: Servers {
            nodes: NodeSet::EMPTY,
            changed: Instant::ZERO,
        },
        newer: NIL,
        older: NIL,
        next: NIL,
        chain: NIL,
    };
}

impl<const W: usize> Default for Slot<W> {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A bounded map from target keys to sets of nodes.
///
/// `S` is a slice in any kind of ownership: `&mut [Slot]`, `Vec<Slot>`, the kernel's `KVVec<Slot>`.
#[derive(Debug)]
pub struct TargetTable<S, const W: usize = 1> {
    slots: S,
    len: u32,
    /// Number of slots in use as a table: `slots.len()`, unless that is beyond what a link can name.
    capacity: u32,
    newest: u32,
    oldest: u32,
    unused: u32,
    evictions: u64,
    changes: u64,
}

impl<S: DerefMut<Target = [Slot<W>]>, const W: usize> TargetTable<S, W> {
    /// An empty table with room for `slots.len()` targets. What is in the slots does not matter.
    pub fn new(slots: S) -> Self {
        let capacity = u32::try_from(slots.len()).unwrap_or(NIL).min(NIL - 1);
        let mut table = TargetTable {
            slots,
            len: 0,
            capacity,
            newest: NIL,
            oldest: NIL,
            unused: NIL,
            evictions: 0,
            changes: 0,
        };
        table.clear();
        table
    }

    /// Forgets everything. Takes time in proportion to the capacity.
    pub fn clear(&mut self) {
        let capacity = self.capacity;
        for (i, slot) in (0..capacity).zip(self.slots.iter_mut()) {
            let next = i.wrapping_add(1);
            *slot = Slot::EMPTY;
            slot.next = if next < capacity { next } else { NIL };
        }
        self.len = 0;
        self.newest = NIL;
        self.oldest = NIL;
        self.unused = if capacity > 0 { 0 } else { NIL };
    }

    /// Number of targets.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Is there no target?
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Most targets there can be.
    pub const fn capacity(&self) -> usize {
        self.capacity as usize
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
        let i = self.find(key)?;
        self.touch(i);
        self.slot(i).map(|s| s.servers)
    }

    /// Where `key` is mapped to, without consequences.
    pub fn peek(&self, key: u64) -> Option<Servers<W>> {
        self.slot(self.find(key)?).map(|s| s.servers)
    }

    /// Maps `key` to `servers` and makes it the most recently used one. If the table is full, the least
    /// recently used key goes and is returned.
    pub fn insert(&mut self, key: u64, servers: Servers<W>) -> Option<u64> {
        if let Some(i) = self.find(key) {
            if self
                .slot(i)
                .is_some_and(|s| s.servers.nodes != servers.nodes)
            {
                self.changes = self.changes.wrapping_add(1);
            }
            self.with(i, |s| s.servers = servers);
            self.touch(i);
            return None;
        }
        let mut evicted = None;
        if self.unused == NIL {
            let oldest = self.oldest;
            evicted = self.slot(oldest).map(|s| s.key);
            self.free(oldest);
            self.evictions = self.evictions.wrapping_add(1);
        }
        let i = self.unused;
        // Only a table without slots has nothing to free.
        let next = self.slot(i)?.next;
        self.unused = next;
        self.len = self.len.saturating_add(1);
        let bucket = self.bucket(key);
        let chain = self.slot(bucket).map_or(NIL, |s| s.chain);
        self.with(bucket, |s| s.chain = i);
        self.with(i, |s| {
            s.key = key;
            s.servers = servers;
            s.next = chain;
        });
        self.link_newest(i);
        evicted
    }

    /// Forgets `key`; where was it?
    pub fn remove(&mut self, key: u64) -> Option<Servers<W>> {
        let i = self.find(key)?;
        let servers = self.slot(i).map(|s| s.servers);
        self.free(i);
        servers
    }

    /// All mappings, the most recently used first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Servers<W>)> + '_ {
        let mut i = self.newest;
        core::iter::from_fn(move || {
            let slot = self.slot(i)?;
            i = slot.older;
            Some((slot.key, slot.servers))
        })
    }

    /// Moves the table into other storage, larger or smaller, and gives the old one back. The most
    /// recently used mappings are kept, as many as fit.
    pub fn replace_storage(&mut self, slots: S) -> S {
        let mut moved = TargetTable::new(slots);
        moved.evictions = self.evictions;
        moved.changes = self.changes;
        let skip = self.len.saturating_sub(moved.capacity);
        let mut i = self.oldest;
        for n in 0..self.len {
            let Some(slot) = self.slot(i).copied() else {
                break;
            };
            if n >= skip {
                moved.insert(slot.key, slot.servers);
            }
            i = slot.newer;
        }
        core::mem::replace(self, moved).slots
    }

    fn slot(&self, i: u32) -> Option<&Slot<W>> {
        // CAST: 32 bits fit in a usize. NIL is beyond every slice.
        self.slots.get(i as usize)
    }

    fn with(&mut self, i: u32, f: impl FnOnce(&mut Slot<W>)) {
        // CAST: as in slot().
        if let Some(slot) = self.slots.get_mut(i as usize) {
            f(slot);
        }
    }

    /// The chain that `key` is in: its upper half, scaled to the number of chains. Keys are the output
    /// of a keyed hash, so every bit is as good as another.
    fn bucket(&self, key: u64) -> u32 {
        // CAST: less than capacity. No overflow: 32 bits times 32.
        (((key >> 32) * u64::from(self.capacity)) >> 32) as u32
    }

    fn find(&self, key: u64) -> Option<u32> {
        let mut i = self.slot(self.bucket(key))?.chain;
        while let Some(slot) = self.slot(i) {
            if slot.key == key {
                return Some(i);
            }
            i = slot.next;
        }
        None
    }

    fn touch(&mut self, i: u32) {
        if self.newest != i {
            self.unlink(i);
            self.link_newest(i);
        }
    }

    fn link_newest(&mut self, i: u32) {
        let newest = self.newest;
        self.with(i, |s| {
            s.newer = NIL;
            s.older = newest;
        });
        self.with(newest, |s| s.newer = i);
        self.newest = i;
        if self.oldest == NIL {
            self.oldest = i;
        }
    }

    fn unlink(&mut self, i: u32) {
        let Some((newer, older)) = self.slot(i).map(|s| (s.newer, s.older)) else {
            return;
        };
        match newer {
            NIL => self.newest = older,
            _ => self.with(newer, |s| s.older = older),
        }
        match older {
            NIL => self.oldest = newer,
            _ => self.with(older, |s| s.newer = newer),
        }
    }

    /// Takes slot `i` out of both lists and puts it with the unused ones.
    fn free(&mut self, i: u32) {
        let Some((key, next)) = self.slot(i).map(|s| (s.key, s.next)) else {
            return;
        };
        let bucket = self.bucket(key);
        let mut at = self.slot(bucket).map_or(NIL, |s| s.chain);
        if at == i {
            self.with(bucket, |s| s.chain = next);
        } else {
            while let Some(after) = self.slot(at).map(|s| s.next) {
                if after == i {
                    self.with(at, |s| s.next = next);
                    break;
                }
                at = after;
            }
        }
        self.unlink(i);
        let unused = self.unused;
        self.with(i, |s| s.next = unused);
        self.unused = i;
        self.len = self.len.saturating_sub(1);
    }
}
