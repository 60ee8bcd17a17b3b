// SPDX-License-Identifier: GPL-2.0

//! The figures: which runs, and what is drawn of them.

mod beyond;
mod front_ends;
mod hardware;
mod nodes;
pub mod one_run;
mod persistent;
mod time;

use super::batching::Load;
use super::lab::Lab;
use super::plot::Figure;

/// A group of figures that are made together.
pub struct Group {
    /// Its name in commands.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Runs that this takes, each of as many requests.
    pub runs: u64,
    /// Makes them.
    pub make: fn(&Lab) -> Vec<Figure>,
}

/// All of them, in the order of the documentation.
pub const GROUPS: [Group; 10] = [
    Group {
        name: "nodes",
        about: "policies against the number of nodes",
        runs: 100,
        make: nodes::make,
    },
    Group {
        name: "hardware",
        about: "faster CPUs, more disks",
        runs: 40,
        make: hardware::make,
    },
    Group {
        name: "persistent",
        about: "persistent connections",
        runs: 80,
        make: persistent::make,
    },
    Group {
        name: "front-ends",
        about: "one front-end or many",
        runs: 62,
        make: front_ends::make,
    },
    Group {
        name: "dispatcher",
        about: "batches of questions",
        runs: 0,
        make: dispatcher,
    },
    Group {
        name: "bounded",
        about: "LARD and consistent hashing with bounded loads",
        runs: 40,
        make: beyond::bounded,
    },
    Group {
        name: "failure",
        about: "a node dies and comes back, another one joins",
        runs: 6,
        make: beyond::failure,
    },
    Group {
        name: "flash-crowd",
        about: "everybody wants one thing",
        runs: 6,
        make: beyond::flash_crowd,
    },
    Group {
        name: "today",
        about: "today's hardware",
        runs: 36,
        make: beyond::today,
    },
    Group {
        name: "thousand",
        about: "a thousand nodes",
        runs: 16,
        make: beyond::thousand,
    },
];

/// What a dispatcher's node does with questions of 16 front-ends.
fn dispatcher(lab: &Lab) -> Vec<Figure> {
    let mut messages = Figure::new(
        "dispatcher-messages",
        "Messages to the dispatcher for each decision",
        "requests/s",
        "messages per decision",
    );
    let mut delay = Figure::new(
        "dispatcher-delay",
        "Time from the question to the answer",
        "requests/s",
        "ms",
    );
    let mut throughput = Figure::new(
        "dispatcher-throughput",
        "Decisions of one dispatcher",
        "requests/s",
        "decisions/s",
    );
    for step in 1..=12 {
        let rate = f64::from(step) * 5_000.0;
        for (name, batches) in [("batched", true), ("one by one", false)] {
            let load = Load {
                rate,
                front_ends: 16,
                batches,
                requests: lab.requests.min(200_000),
                seed: lab.seed,
            };
            let outcome = load.run();
            messages.add(name, rate, outcome.messages);
            throughput.add(name, rate, outcome.throughput);
            // Above its ceiling the delay only says how long the simulation was.
            if outcome.throughput > 0.98 * rate {
                delay.add(name, rate, outcome.delay_ms);
            }
        }
    }
    vec![messages, delay, throughput]
}
