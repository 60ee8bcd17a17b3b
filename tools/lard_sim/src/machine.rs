// SPDX-License-Identifier: GPL-2.0

//! A machine: a CPU, disks and a file cache. Work waits for its turn; its end is known when it comes.

use super::cache::{Cache, Replacement};
use super::hardware::Hardware;
use rustc_hash::FxHashMap;

/// Something that does one thing after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Server {
    free_at: u64,
    busy: u64,
}

impl Server {
    /// Takes `cost` nanoseconds of work; says when it is done.
    pub fn work(&mut self, now: u64, cost: u64) -> u64 {
        self.free_at = self.free_at.max(now) + cost;
        self.busy += cost;
        self.free_at
    }

    /// Nanoseconds of work taken so far.
    pub fn busy(&self) -> u64 {
        self.busy
    }
}

/// What a look into the cache and at the disk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The file is in the cache.
    Hit,
    /// It is being read for somebody else already.
    Shared,
    /// It will have been read at this time.
    Reading(u64),
}

/// A back-end machine. `waiting` are those who wait for a file.
#[derive(Debug)]
pub struct Machine<T> {
    /// Its CPU.
    pub cpu: Server,
    disks: Vec<Server>,
    cache: Cache,
    reading: FxHashMap<u32, Vec<T>>,
    /// How often it died; what was begun before is void.
    pub lives: u32,
    /// Connections it handles that have something to do.
    pub active: u32,
    /// For how long it had too few of them to be busy, and since when that is counted.
    pub idle: u64,
    since: u64,
}

impl<T> Machine<T> {
    /// A machine with an empty cache.
    pub fn new(hardware: &Hardware, replacement: Replacement) -> Self {
        Machine {
            cpu: Server::default(),
            disks: vec![Server::default(); hardware.disks as usize],
            cache: Cache::new(replacement, hardware.cache),
            reading: FxHashMap::default(),
            lives: 0,
            active: 0,
            idle: 0,
            since: 0,
        }
    }

    /// Puts the first of these files, with their sizes, into a cache of `capacity` bytes.
    pub fn preload(&mut self, capacity: u64, files: &[(u32, u32)]) {
        let mut left = capacity;
        for (file, size) in files {
            match left.checked_sub(u64::from(*size)) {
                Some(less) => left = less,
                None => break,
            }
            self.cache.insert(*file, *size);
        }
    }

    /// `who` needs a file, and waits for it if it must be read.
    pub fn look(&mut self, hardware: &Hardware, now: u64, file: u32, size: u32, who: T) -> Look {
        if self.cache.get(file) {
            return Look::Hit;
        }
        if let Some(waiting) = self.reading.get_mut(&file) {
            waiting.push(who);
            return Look::Shared;
        }
        self.reading.insert(file, vec![who]);
        let disk = file as usize % self.disks.len();
        Look::Reading(self.disks[disk].work(now, hardware.read(size)))
    }

    /// A file has been read: those who waited.
    pub fn has_read(&mut self, file: u32, size: u32) -> Vec<T> {
        let waiting = self.reading.remove(&file).unwrap_or_default();
        self.cache.insert(file, size);
        waiting
    }

    /// Reads that are not done.
    pub fn disk_queue(&self) -> u32 {
        // CAST: one for each connection at most.
        self.reading.len() as u32
    }

    /// Busy time of all disks.
    pub fn disk_busy(&self) -> u64 {
        self.disks.iter().map(Server::busy).sum()
    }

    /// It has `active` connections from now on; fewer than `low` leave it idle.
    pub fn set_active(&mut self, now: u64, active: u32, low: u32) {
        if self.active < low {
            self.idle += now - self.since;
        }
        self.since = now;
        self.active = active;
    }

    /// It dies: what it did and knew is gone. Returns those who waited for its disks.
    pub fn die(&mut self, now: u64) -> Vec<T> {
        self.cache.clear();
        self.cpu.free_at = now;
        self.disks.iter_mut().for_each(|d| d.free_at = now);
        self.lives += 1;
        self.reading
            .drain()
            .flat_map(|(_, waiting)| waiting)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::hardware::PAPER;
    use super::*;

    #[test]
    fn work_waits_for_its_turn() {
        let mut server = Server::default();
        assert_eq!(server.work(10, 5), 15);
        assert_eq!(server.work(12, 5), 20);
        assert_eq!(server.work(100, 1), 101);
        assert_eq!(server.busy(), 11);
    }

    #[test]
    fn who_needs_the_same_file_shares_the_read() {
        let mut machine = Machine::new(&PAPER, Replacement::Gds);
        let read = PAPER.read(4_096);
        assert_eq!(machine.look(&PAPER, 0, 7, 4_096, 'a'), Look::Reading(read));
        assert_eq!(machine.look(&PAPER, 1, 7, 4_096, 'b'), Look::Shared);
        assert_eq!(
            machine.look(&PAPER, 1, 8, 4_096, 'c'),
            Look::Reading(2 * read)
        );
        assert_eq!(machine.disk_queue(), 2);
        assert_eq!(machine.has_read(7, 4_096), ['a', 'b']);
        assert_eq!(machine.look(&PAPER, 2, 7, 4_096, 'd'), Look::Hit);
        assert_eq!(machine.die(3), ['c']);
        assert_eq!(
            machine.look(&PAPER, 4, 7, 4_096, 'd'),
            Look::Reading(4 + read)
        );
    }

    #[test]
    fn idle_time_is_that_with_few_connections() {
        let mut machine: Machine<()> = Machine::new(&PAPER, Replacement::Gds);
        machine.set_active(10, 9, 10);
        machine.set_active(15, 10, 10);
        machine.set_active(30, 9, 10);
        machine.set_active(31, 0, 10);
        assert_eq!(machine.idle, 10 + 5 + 1);
    }
}
