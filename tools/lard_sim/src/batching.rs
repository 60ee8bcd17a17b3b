// SPDX-License-Identifier: GPL-2.0

//! The dispatcher's node under load: questions of many front-ends, batched or not (\[1\], section 12).
//!
//! ```text
//! on request q:            if no batch outstanding: send [q]; outstanding := true
//!                          else: append q to pending
//! on replies to a batch:   if pending is not empty: send pending as one message; pending := []
//!                          else: outstanding := false
//! ```
//!
//! Requests come at random (Poisson) and do not wait for each other. A message costs the dispatcher's
//! node something however many questions are in it, and each question costs something more; the
//! decision itself is a small part of that.

use super::hardware::PAPER;
use rand::SeedableRng;
use rand_distr::{Distribution, Exp};
use rand_pcg::Pcg64;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// CPU time for a message and its answer, in nanoseconds, besides its questions: of those a node
/// could answer 50,000 a second if messages cost nothing.
const MESSAGE: u64 = 20_000;

/// Time on the network, one way.
const WIRE: u64 = 60_000;

/// A dispatcher under load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests each second, over all front-ends.
    pub rate: f64,
    /// Number of front-ends.
    pub front_ends: usize,
    /// Are questions held back while answers are outstanding?
    pub batches: bool,
    /// How many requests to simulate.
    pub requests: usize,
    /// What the times of arrival are drawn from.
    pub seed: u64,
}

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Answers each second.
    pub throughput: f64,
    /// Messages to the dispatcher for each decision.
    pub messages: f64,
    /// Mean time from the question to its answer, in milliseconds.
    pub delay_ms: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request(usize),
    Answers(usize, usize),
}

#[derive(Default)]
struct FrontEnd {
    /// When the questions that were not sent yet came up.
    pending: Vec<u64>,
    /// The same for those on their way.
    asked: Vec<u64>,
    outstanding: bool,
}

impl Load {
    /// Simulates it.
    pub fn run(&self) -> Outcome {
        let mut rng = Pcg64::seed_from_u64(self.seed);
        let gap = Exp::new(self.rate / self.front_ends as f64 / 1e9).expect("a positive rate");
        let mut events = BinaryHeap::new();
        let mut front_ends: Vec<FrontEnd> =
            (0..self.front_ends).map(|_| Default::default()).collect();
        let (mut free_at, mut messages, mut answered, mut delay, mut now) = (0u64, 0u64, 0, 0, 0);
        for i in 0..self.front_ends {
            events.push(Reverse((gap.sample(&mut rng) as u64, Event::Request(i))));
        }
        let mut send = |at: u64, from: usize, questions: usize| {
            messages += 1;
            let cost = MESSAGE + questions as u64 * (PAPER.question + PAPER.decision);
            free_at = free_at.max(at + WIRE) + cost;
            Reverse((free_at + WIRE, Event::Answers(from, questions)))
        };
        while answered < self.requests {
            let Some(Reverse((time, event))) = events.pop() else {
                break;
            };
            now = time;
            match event {
                Event::Request(i) => {
                    let next = now + gap.sample(&mut rng) as u64;
                    events.push(Reverse((next, Event::Request(i))));
                    let front_end = &mut front_ends[i];
                    if self.batches && front_end.outstanding {
                        front_end.pending.push(now);
                    } else {
                        front_end.outstanding = true;
                        front_end.asked.push(now);
                        events.push(send(now, i, 1));
                    }
                }
                Event::Answers(i, questions) => {
                    let front_end = &mut front_ends[i];
                    answered += questions;
                    delay += front_end
                        .asked
                        .drain(..questions)
                        .map(|t| now - t)
                        .sum::<u64>();
                    if front_end.pending.is_empty() {
                        front_end.outstanding = false;
                    } else {
                        let questions = front_end.pending.len();
                        front_end.asked.append(&mut front_end.pending);
                        events.push(send(now, i, questions));
                    }
                }
            }
        }
        Outcome {
            throughput: answered as f64 / (now as f64 / 1e9),
            messages: messages as f64 / answered as f64,
            delay_ms: delay as f64 / answered as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_with_the_load_and_raise_the_ceiling() {
        let run = |rate, batches| {
            let load = Load {
                rate,
                front_ends: 8,
                batches,
                requests: 30_000,
                seed: 1,
            };
            load.run()
        };
        let (idle, busy) = (run(1_000.0, true), run(45_000.0, true));
        assert!(idle.messages > 0.9, "{idle:?}");
        assert!(busy.messages < 0.3, "{busy:?}");
        assert!((busy.throughput / 45_000.0 - 1.0).abs() < 0.05, "{busy:?}");
        let single = run(45_000.0, false);
        assert!(single.throughput < 26_000.0, "{single:?}");
        // Without a load to speak of, batching delays nobody.
        assert!(idle.delay_ms < 1.1 * run(1_000.0, false).delay_ms);
    }
}
