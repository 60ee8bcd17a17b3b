// SPDX-License-Identifier: GPL-2.0

//! What happens in the course of one run.

use super::super::setup::Report;

/// Steps of a run: as many points as a line needs.
const STEPS: u64 = 50;

/// One step.
pub struct Step {
    /// How far the run is behind it, of 1. Time is counted in requests, which is the same for all
    /// policies.
    pub at: f64,
    /// Requests answered each second.
    pub throughput: f64,
    /// Of the looks into caches, those that found nothing.
    pub misses: f64,
}

/// A run in at most [`STEPS`] steps.
pub fn steps(report: &Report) -> Vec<Step> {
    let all: u64 = report.bins.iter().map(|bin| bin.requests).sum();
    let seconds = report.bin as f64 / 1e9;
    let (mut so_far, mut done, mut missed, mut looks, mut bins) = (0, 0, 0, 0, 0.0);
    let mut steps = Vec::new();
    for bin in &report.bins {
        so_far += bin.requests;
        done += bin.requests;
        missed += bin.misses;
        looks += bin.looks;
        bins += 1.0;
        if done * STEPS >= all && looks > 0 {
            steps.push(Step {
                at: (so_far as f64 / all as f64 * 1e3).round() / 1e3,
                throughput: done as f64 / (bins * seconds),
                misses: missed as f64 / looks as f64,
            });
            (done, missed, looks, bins) = (0, 0, 0, 0.0);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::super::super::setup::Bin;
    use super::*;

    #[test]
    fn bins_are_put_together_until_they_are_a_step() {
        let bin = |requests, misses| Bin {
            requests,
            misses,
            looks: requests,
        };
        let bins = vec![bin(1, 1), bin(1, 0), bin(98, 49), bin(0, 0), bin(100, 0)];
        let report = Report {
            bins,
            bin: 500_000_000,
            ..Report::default()
        };
        let seen: Vec<_> = steps(&report)
            .iter()
            .map(|s| (s.at, s.throughput, s.misses))
            .collect();
        assert_eq!(seen, [(0.5, 100.0 / 1.5, 0.5), (1.0, 100.0, 0.0)]);
    }
}
