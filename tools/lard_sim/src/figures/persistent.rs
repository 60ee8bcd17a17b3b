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
        "Persistent connections, rice-like workload, prototype's machines",
        "nodes",
        "requests/s",
    );
    for (name, policy, mechanism, is_persistent) in CASES {
        for nodes in 1..=8 {
            let mut setup = Setup::new(nodes, policy);
            setup.hardware = PROTOTYPE;
            setup.mechanism = mechanism;
            // Only a front-end that relays is the bottleneck.
            if mechanism == Mechanism::Relay {
                setup.front_ends = FrontEnds::Single;
            }
            setup.warm_up = 0.5;
            let trace = if is_persistent { &persistent } else { &single };
            let report = lab.run(&setup, trace);
            throughput.add(name, nodes.into(), report.throughput);
        }
    }
    vec![throughput]
}
