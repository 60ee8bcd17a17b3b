// SPDX-License-Identifier: GPL-2.0

//! Persistent connections and what can be done with them (\[2\], figures 5 to 8): the prototype's
//! machines, the Rice-like workload.

use super::super::hardware::PROTOTYPE;
use super::super::lab::Lab;
use super::super::plot::Figure;
use super::super::setup::{FrontEnds, Mechanism, Setup};
use super::super::synthetic::RICE;
use lard_core::policy::PolicyKind::{self, Extlard, Lard, Lc, Wrr};

/// What is compared: policy, mechanism, persistent or not.
const CASES: [(&str, PolicyKind, Mechanism, bool); 8] = [
    (FORWARDING, Extlard, Mechanism::Forwarding, true),
    (
        "extLARD, multiple hand-off",
        Extlard,
        Mechanism::Multiple,
        true,
    ),
    ("extLARD, HTTP/1.0", Extlard, Mechanism::Single, false),
    ("LARD, HTTP/1.0", Lard, Mechanism::Single, false),
    ("LARD, single hand-off", Lard, Mechanism::Single, true),
    ("LC, HTTP/1.0", Lc, Mechanism::Single, false),
    ("LC, persistent", Lc, Mechanism::Single, true),
    ("WRR, persistent", Wrr, Mechanism::Single, true),
];

const FORWARDING: &str = "extLARD, forwarding";

/// Front-ends that relay.
const RELAYS: [(&str, FrontEnds); 2] = [
    ("extLARD, relaying", FrontEnds::Single),
    ("extLARD, relaying at no cost", FrontEnds::Free),
];

pub fn make(lab: &Lab) -> Vec<Figure> {
    lab.begin("persistent connections");
    let persistent = lab.trace(RICE);
    let single = persistent.clone().http10();
    let figure = |name, title: &str| {
        let title = format!("{title}, rice-like workload, prototype's machines");
        Figure::new(name, &title, "nodes", "requests/s")
    };
    let mut throughput = figure("persistent-throughput", "Persistent connections");
    let mut relaying = figure("persistent-relaying", "Front-ends that relay");
    for nodes in 1..=8 {
        let run = |policy, mechanism, front_ends, trace| {
            let mut setup = Setup::new(nodes, policy);
            setup.hardware = PROTOTYPE;
            setup.mechanism = mechanism;
            setup.front_ends = front_ends;
            setup.warm_up = 0.5;
            lab.run(&setup, trace).throughput
        };
        let x = f64::from(nodes);
        for (name, policy, mechanism, is_persistent) in CASES {
            let trace = if is_persistent { &persistent } else { &single };
            let seen = run(policy, mechanism, FrontEnds::Free, trace);
            throughput.add(name, x, seen);
            if name == FORWARDING {
                relaying.add(name, x, seen);
            }
        }
        for (name, front_ends) in RELAYS {
            let seen = run(Extlard, Mechanism::Relay, front_ends, &persistent);
            relaying.add(name, x, seen);
        }
    }
    vec![throughput, relaying]
}
