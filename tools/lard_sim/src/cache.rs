// SPDX-License-Identifier: GPL-2.0

//! The file cache of a node: whole files, the one with the lowest priority goes first.
//!
//! * Greedy-Dual-Size (Cao and Irani, 1997) with a cost of 1 for each miss: the priority of a file is
//!   `L + 1/size`, where L is that of the last file that went. Small files stay longer.
//! * LRU: the priority is the time of the last use. Files above a limit are not cached, as in \[3\].

use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Which file goes when there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replacement {
    /// Greedy-Dual-Size.
    #[default]
    Gds,
    /// The least recently used one.
    Lru,
}

/// The largest file that LRU caches, in bytes.
const LRU_LIMIT: u32 = 500_000;

/// A cache of files, known by number.
#[derive(Debug)]
pub struct Cache {
    replacement: Replacement,
    capacity: u64,
    used: u64,
    /// The priority of the last file that went; for LRU a clock.
    level: u64,
    files: FxHashMap<u32, File>,
    order: BTreeSet<(u64, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct File {
    size: u32,
    priority: u64,
}

impl Cache {
    /// An empty cache for `capacity` bytes.
    pub fn new(replacement: Replacement, capacity: u64) -> Self {
        Cache {
            replacement,
            capacity,
            used: 0,
            level: 0,
            files: FxHashMap::default(),
            order: BTreeSet::new(),
        }
    }

    /// Is the file there? Counts as a use.
    pub fn get(&mut self, file: u32) -> bool {
        let Some(&File { size, priority }) = self.files.get(&file) else {
            return false;
        };
        let new = self.priority(size);
        if new != priority {
            self.order.remove(&(priority, file));
            self.order.insert((new, file));
            let priority = new;
            self.files.insert(file, File { size, priority });
        }
        true
    }

    /// Puts a file of `size` bytes in, unless it is too large.
    pub fn insert(&mut self, file: u32, size: u32) {
        let too_large = u64::from(size) > self.capacity
            || self.replacement == Replacement::Lru && size > LRU_LIMIT;
        if too_large || self.files.contains_key(&file) {
            return;
        }
        while self.used + u64::from(size) > self.capacity {
            let Some((priority, victim)) = self.order.pop_first() else {
                break;
            };
            let gone = self.files.remove(&victim).map_or(0, |f| f.size);
            self.used -= u64::from(gone);
            if self.replacement == Replacement::Gds {
                self.level = priority;
            }
        }
        let priority = self.priority(size);
        self.used += u64::from(size);
        self.files.insert(file, File { size, priority });
        self.order.insert((priority, file));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Cache::new(self.replacement, self.capacity);
    }

    /// Bytes in use.
    #[cfg(test)]
    pub fn used(&self) -> u64 {
        self.used
    }

    fn priority(&mut self, size: u32) -> u64 {
        match self.replacement {
            // With 44 fractional bits: files of up to 4 GB differ.
            Replacement::Gds => self.level + (1 << 44) / u64::from(size.max(1)),
            Replacement::Lru => {
                self.level += 1;
                self.level
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes() {
        let mut cache = Cache::new(Replacement::Lru, 30);
        (1..=3).for_each(|file| cache.insert(file, 10));
        assert!(cache.get(1));
        cache.insert(4, 10);
        assert!(!cache.get(2));
        assert!([1, 3, 4].into_iter().all(|file| cache.get(file)));
        cache.insert(5, LRU_LIMIT + 1);
        assert!(!cache.get(5));
        assert_eq!(cache.used(), 30);
    }

    #[test]
    fn large_files_go_first_and_age_makes_all_equal() {
        let mut cache = Cache::new(Replacement::Gds, 100);
        cache.insert(1, 60);
        cache.insert(2, 10);
        cache.insert(3, 40);
        assert!(!cache.get(1) && cache.get(2) && cache.get(3));
        // What is not used any more goes in the end, however small.
        for file in 10..100 {
            cache.insert(file, 20);
            cache.get(file);
        }
        assert!(!cache.get(2) && !cache.get(3));
        assert!(cache.used() <= 100);
        cache.insert(200, 101);
        assert!(!cache.get(200));
    }
}
