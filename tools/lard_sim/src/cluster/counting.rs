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
    pub(super) bins: Vec<Bin>,
    /// Busy and idle times when counting began.
    base: Base,
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
    pub(super) fn new(nodes: u16) -> Self {
        Sums {
            served: vec![0; nodes.into()],
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
            bins,
            base: self.base(),
            ..Sums::new(self.setup.nodes)
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
            bins: sums.bins,
        }
    }
}
