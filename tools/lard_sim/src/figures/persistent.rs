// SPDX-License-Identifier: GPL-2.0

//! Persistent connections and what can be done with them (\[2\], figures 5 to 8): the prototype's
//! machines, the Rice-like workload.

use super::super::hardware::PROTOTYPE;
use super::super::lab::Lab;
use super::super::plot::Figure;
use super::super::setup::{FrontEnds, Mechanism, Setup};
use super::super::synthetic::RICE;
use lard_core::policy::PolicyKind::{self, Extlard, Lard, Wrr};

/// What is compared: policy, mechanism, persistent or not.
const CASES: [(&str, PolicyKind, Mechanism, bool); 8] = [
    ("extLARD, forwarding", Extlard, Mechanism::Forwarding, true),
    (
        "extLARD, multiple hand-off",
        Extlard,
        Mechanism::Multiple,
        true,
    ),
    ("extLARD, relaying", Extlard, Mechanism::Relay, true),
    ("extLARD, HTTP/1.0", Extlard, Mechanism::Single, false),
    ("LARD, HTTP/1.0", Lard, Mechanism::Single, false),
    ("LARD, single hand-off", Lard, Mechanism::Single, true),
    ("WRR, HTTP/1.0", Wrr, Mechanism::Single, false),
    ("WRR, persistent", Wrr, Mechanism::Single, true),
];

pub fn make(lab: &Lab) -> Vec<Figure> {
    lab.begin("persistent connections");
    let persistent = lab.trace(RICE);
    let single = persistent.clone().http10();
    let mut throughput = Figure::new(
        "persistent-throughput",
        "Persistent connections, one front-end, prototype's machines",
        "nodes",
        "requests/s",
    );
    let mut front_end = Figure::new(
        "persistent-front-end",
        "CPU of the front-end",
        "nodes",
        "part of the time",
    );
    for (name, policy, mechanism, is_persistent) in CASES {
        for nodes in 1..=8 {
            let mut setup = Setup::new(nodes, policy);
            setup.hardware = PROTOTYPE;
            setup.mechanism = mechanism;
            setup.front_ends = FrontEnds::Single;
            setup.warm_up = 0.5;
            let trace = if is_persistent { &persistent } else { &single };
            let report = lab.run(&setup, trace);
            let x = f64::from(nodes);
            throughput.add(name, x, report.throughput);
            front_end.add(name, x, report.front_end);
        }
    }
    vec![throughput, front_end]
}
