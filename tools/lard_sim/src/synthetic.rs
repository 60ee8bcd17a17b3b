// SPDX-License-Identifier: GPL-2.0

//! Synthetic workloads: Zipf popularity, log-normal sizes.
//!
//! The stand-ins for the traces of the papers have their number of targets and their total size. The
//! exponents are chosen so that the bytes that 97 % of the requests go to, and the mean size of a
//! response, come close to theirs. (The traces themselves are not public.)

use super::workload::{Request, Start, Trace};
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Geometric, LogNormal, Zipf};
use rand_pcg::Pcg64;

/// The shape of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of targets.
    pub targets: u32,
    /// Their size together, in bytes.
    pub bytes: f64,
    /// The popularity of rank i is proportional to `i ^ -alpha`.
    pub alpha: f64,
    /// The mean size of rank i is proportional to `i ^ gamma`: popular files are small.
    pub gamma: f64,
    /// Spread of the sizes: standard deviation of their logarithm.
    pub sigma: f64,
    /// Mean number of objects on a page, besides the page itself.
    pub embedded: f64,
}

/// The trace of Rice's departments: one node's cache holds a small part of what is asked for.
pub const RICE: Shape = Shape {
    targets: 31_000,
    bytes: 1.015e9,
    alpha: 1.1,
    gamma: 0.15,
    sigma: 1.0,
    embedded: 5.0,
};

/// The trace of www.ibm.com: one node's cache holds nearly all that is asked for.
pub const IBM: Shape = Shape {
    targets: 38_500,
    bytes: 0.984e9,
    alpha: 1.34,
    gamma: 0.35,
    sigma: 1.5,
    embedded: 5.0,
};

/// Chance that a client follows a link on the same connection.
const ANOTHER_PAGE: f64 = 0.4;

/// Longest time a client reads a page before it does, in microseconds: connections that are idle for
/// longer are closed.
const READING: u32 = 15_000_000;

impl Shape {
    /// Files of one size, equally popular or not.
    pub const fn equal(targets: u32, size: u32, alpha: f64) -> Self {
        Shape {
            targets,
            bytes: targets as f64 * size as f64,
            alpha,
            gamma: 0.0,
            sigma: 0.0,
            embedded: 5.0,
        }
    }

    /// `requests` requests, on persistent connections. The same seed makes the same trace.
    pub fn trace(&self, requests: usize, seed: u64) -> Trace {
        let mut rng = Pcg64::seed_from_u64(seed);
        let sizes = self.sizes(&mut rng);
        // Targets are numbered by rank, the most popular one first.
        let zipf = Zipf::new(f64::from(self.targets), self.alpha).expect("a valid exponent");
        let embedded = Geometric::new(1.0 / (1.0 + self.embedded)).expect("a probability");
        let mut trace = Trace {
            sizes,
            requests: Vec::with_capacity(requests),
        };
        let draw = |rng: &mut Pcg64, start| Request {
            // CAST: ranks are 1 to the number of targets.
            target: zipf.sample(rng) as u32 - 1,
            start,
        };
        while trace.requests.len() < requests {
            let mut start = Start::Connection;
            loop {
                trace.requests.push(draw(&mut rng, start));
                // The page is there; what is on it is asked for together.
                start = Start::Batch(0);
                for _ in 0..embedded.sample(&mut rng) {
                    trace.requests.push(draw(&mut rng, start));
                    start = Start::Same;
                }
                if !rng.random_bool(ANOTHER_PAGE) {
                    break;
                }
                start = Start::Batch(rng.random_range(1_000_000..READING));
            }
        }
        trace.requests.truncate(requests);
        trace
    }

    fn sizes(&self, rng: &mut Pcg64) -> Vec<u32> {
        let spread = LogNormal::new(0.0, self.sigma).expect("a finite spread");
        let weights: Vec<f64> = (1..=self.targets)
            .map(|rank| spread.sample(rng) * f64::from(rank).powf(self.gamma))
            .collect();
        let scale = self.bytes / weights.iter().sum::<f64>();
        // CAST: saturates, and nothing is that large.
        weights
            .iter()
            .map(|w| (w * scale).max(1.0) as u32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_are_like_the_traces() {
        for (shape, covered, transfer) in [(RICE, 526.0, 12_000.0), (IBM, 43.0, 3_000.0)] {
            let trace = shape.trace(1_000_000, 1);
            let bytes = trace.bytes() as f64;
            assert!((bytes / shape.bytes - 1.0).abs() < 0.01);
            let needed = trace.needed_for(0.97) as f64 / 1e6;
            assert!((0.6..1.5).contains(&(needed / covered)), "{needed} MB");
            let mean = trace.mean_transfer();
            assert!((0.6..1.5).contains(&(mean / transfer)), "{mean} bytes");
        }
    }

    #[test]
    fn a_seed_makes_a_trace() {
        let targets = |seed| {
            let trace = RICE.trace(1_000, seed);
            trace.requests.iter().map(|r| r.target).collect::<Vec<_>>()
        };
        assert_eq!(targets(7), targets(7));
        assert_ne!(targets(7), targets(8));
    }
}
