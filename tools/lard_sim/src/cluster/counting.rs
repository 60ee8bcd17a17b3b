// SPDX-License-Identifier: GPL-2.0

//! What is counted while a cluster works, and what it comes to.

use super::super::machine::Machine;
use super::super::setup::{Bin, Report};
use super::Cluster;
use lard_core::addr::NodeId;

/// What is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) looks: u64,
    pub(super) misses: u64,
    pub(super) reads: u64,
    pub(super) delay: u64,
    /// Requests of clients that were turned away.
    pub(super) refused: u64,
    pub(super) forwarded: u64,
    pub(super) moved: u64,
    pub(super) served: Vec<u64>,
    pub(super) bins: Bins,
    /// Busy and idle times when counting began.
    base: Base,
}

/// What happened when.
#[derive(Clone, Debug, Default)]
pub(super) struct Bins {
    bins: Vec<Bin>,
    width: u64,
}

/// Bins of a run: many more than a line has points.
const MAX_BINS: usize = 1 << 16;

impl Bins {
    pub(super) fn new(width: u64) -> Self {
        Bins {
            bins: Vec::new(),
            width,
        }
    }

    /// The bin of a time. They become twice as wide when they would be too many.
    pub(super) fn at(&mut self, now: u64) -> &mut Bin {
        while now / self.width >= MAX_BINS as u64 {
            let sum = |pair: &[Bin], of: fn(&Bin) -> u64| pair.iter().map(of).sum();
            let pairs = self.bins.chunks(2).map(|pair| Bin {
                requests: sum(pair, |bin| bin.requests),
                misses: sum(pair, |bin| bin.misses),
                looks: sum(pair, |bin| bin.looks),
            });
            self.bins = pairs.collect();
            self.width *= 2;
        }
        let at = (now / self.width) as usize;
        if at >= self.bins.len() {
            self.bins.resize(at + 1, Bin::default());
        }
        &mut self.bins[at]
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Base {
    time: u64,
    cpu: u64,
    disk: u64,
    idle: u64,
    front_end: u64,
    dispatcher: u64,
    changes: u64,
}

impl Sums {
    /// Nothing yet, for so many nodes.
    pub(super) fn new(nodes: u16, bins: Bins) -> Self {
        Sums {
            served: vec![0; nodes.into()],
            bins,
            ..Sums::default()
        }
    }
}

impl<const W: usize> Cluster<'_, W> {
    fn base(&mut self) -> Base {
        for node in (1..=self.setup.nodes).map(NodeId) {
            self.sync(node);
        }
        Base {
            time: self.now,
            cpu: self.machines.iter().map(|m| m.cpu.busy()).sum(),
            disk: self.machines.iter().map(Machine::disk_busy).sum(),
            idle: self.machines.iter().map(|m| m.idle).sum(),
            front_end: self.front_end.busy(),
            dispatcher: self.dispatcher.busy(),
            changes: self.scheduler.targets().changes(),
        }
    }

    pub(super) fn start_counting(&mut self) {
        let bins = std::mem::take(&mut self.sums.bins);
        self.sums = Sums {
            base: self.base(),
            ..Sums::new(self.setup.nodes, bins)
        };
    }

    pub(super) fn report(mut self) -> Report {
        let end = self.base();
        let sums = self.sums;
        let begin = sums.base;
        let time = (end.time - begin.time).max(1) as f64;
        let seconds = time / 1e9;
        let nodes = f64::from(self.setup.nodes);
        let requests = sums.requests.max(1) as f64;
        let disks = nodes * f64::from(self.setup.hardware.disks);
        let most = sums.served.iter().max().copied().unwrap_or(0) as f64;
        // What is begun counts as work, so a queue can make this more than the time there was.
        let part = |work: u64, of: f64| (work as f64 / (time * of)).min(1.0);
        Report {
            requests: sums.requests,
            throughput: sums.requests as f64 / seconds,
            bits: sums.bytes as f64 * 8.0 / seconds,
            miss_ratio: sums.misses as f64 / sums.looks.max(1) as f64,
            disk_reads: sums.reads as f64 / requests,
            idle: part(end.idle - begin.idle, nodes),
            cpu: part(end.cpu - begin.cpu, nodes),
            disk: part(end.disk - begin.disk, disks),
            front_end: part(end.front_end - begin.front_end, 1.0),
            dispatcher: part(end.dispatcher - begin.dispatcher, 1.0),
            refused: sums.refused as f64 / (sums.requests + sums.refused).max(1) as f64,
            delay_ms: sums.delay as f64 / requests / 1e6,
            imbalance: most * nodes / requests,
            forwarded: sums.forwarded as f64 / requests,
            moved: sums.moved as f64 / requests,
            changes: end.changes - begin.changes,
            bins: sums.bins.bins,
            bin: sums.bins.width,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_become_wider_instead_of_too_many() {
        let mut bins = Bins::new(10);
        for now in [0, 9, 10, 25, 10 * MAX_BINS as u64 - 1] {
            bins.at(now).requests += 1;
        }
        let seen = |bins: &Bins| -> Vec<_> { bins.bins.iter().map(|b| b.requests).collect() };
        assert_eq!((bins.width, bins.bins.len()), (10, MAX_BINS));
        assert_eq!(seen(&bins)[..4], [2, 1, 1, 0]);

        bins.at(10 * MAX_BINS as u64).requests += 1;
        assert_eq!((bins.width, bins.bins.len()), (20, MAX_BINS / 2 + 1));
        assert_eq!(seen(&bins)[..3], [3, 1, 0]);
        assert_eq!(seen(&bins)[MAX_BINS / 2 - 1..], [1, 1]);

        bins.at(u64::MAX).looks += 1;
        assert!(bins.bins.len() <= MAX_BINS);
        assert_eq!(seen(&bins).iter().sum::<u64>(), 6);
    }
}
