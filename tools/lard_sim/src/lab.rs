// SPDX-License-Identifier: GPL-2.0

//! Where experiments are made: how much, from which seed, and how far it has come.

use super::cluster;
use super::setup::{Report, Setup};
use super::synthetic::Shape;
use super::workload::Trace;
use indicatif::{ProgressBar, ProgressStyle};

/// The means of an experiment.
pub struct Lab {
    /// Requests of each run.
    pub requests: usize,
    /// What synthetic workloads are drawn from.
    pub seed: u64,
    /// By how much there are fewer targets, and less memory for them, than the figures say. What
    /// counts is how they compare, and fewer requests are enough to ask for all of fewer targets.
    pub scale: u32,
    progress: ProgressBar,
}

impl Lab {
    /// A laboratory that keeps its progress for itself.
    pub fn new(requests: usize, seed: u64) -> Self {
        Lab {
            requests,
            seed,
            scale: 1,
            progress: ProgressBar::hidden(),
        }
    }

    /// Shows on a terminal how far it has come, where all runs together have so many requests.
    pub fn show(&mut self, requests: u64) {
        let style = ProgressStyle::with_template(
            "{msg:24} {wide_bar} {human_pos} of {human_len} requests, {per_sec}, {eta} left",
        );
        self.progress = ProgressBar::new(requests);
        self.progress
            .set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    }

    /// How far it has come, in requests of all runs.
    #[cfg(test)]
    pub fn done(&self) -> u64 {
        self.progress.position()
    }

    /// Says what is being done.
    pub fn begin(&self, what: &str) {
        self.progress.set_message(what.to_string());
    }

    /// Nothing more will be done.
    pub fn end(&self) {
        self.progress.finish_and_clear();
    }

    /// A workload on persistent connections.
    pub fn trace(&self, shape: Shape) -> Trace {
        let shape = Shape {
            targets: shape.targets.div_ceil(self.scale),
            bytes: shape.bytes / f64::from(self.scale),
            ..shape
        };
        shape.trace(self.requests, self.seed)
    }

    /// Simulates a cluster.
    pub fn run(&self, setup: &Setup, trace: &Trace) -> Report {
        let mut setup = setup.clone();
        setup.hardware.cache /= u64::from(self.scale);
        cluster::run(&setup, trace, &|requests| self.progress.inc(requests))
    }
}
