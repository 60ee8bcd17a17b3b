// SPDX-License-Identifier: GPL-2.0

//! Throughput, misses and idle time against the number of nodes (\[3\], figures 7 to 10).

use super::super::lab::Lab;
use super::super::plot::Figure;
use super::super::setup::Setup;
use super::super::synthetic::{IBM, RICE};
use lard_core::policy::PolicyKind;

/// The policies of \[3\]. Its WRR weighs the nodes by what they have to do: of ours that is LC, while WRR
/// looks at nothing.
pub const POLICIES: [(&str, PolicyKind); 5] = [
    ("WRR", PolicyKind::Wrr),
    ("LC", PolicyKind::Lc),
    ("LB", PolicyKind::Lb),
    ("LARD", PolicyKind::Lard),
    ("LARD/R", PolicyKind::Lardr),
];

/// Numbers of nodes.
const NODES: [u16; 10] = [1, 2, 3, 4, 6, 8, 10, 12, 14, 16];

/// Node caches: \[3\]'s for the first workload. For the second one what makes a node's memory larger
/// than what is asked for, as the trace's authors had it.
const MEMORY: [(&str, u64); 2] = [("rice", 32 << 20), ("ibm", 128 << 20)];

pub fn make(lab: &Lab) -> Vec<Figure> {
    let mut figures = Vec::new();
    for ((name, memory), shape) in MEMORY.into_iter().zip([RICE, IBM]) {
        lab.begin(&format!("nodes, {name}"));
        let trace = lab.trace(shape).http10();
        let mb = memory >> 20;
        let figure = |what: &str, title: &str, y: &str| {
            let title = format!("{title}, {name}-like workload, {mb} MB a node");
            Figure::new(&format!("nodes-{name}-{what}"), &title, "nodes", y)
        };
        let mut throughput = figure("throughput", "Throughput", "requests/s");
        let mut misses = figure("misses", "Cache misses", "part of all requests");
        let mut idle = figure("idle", "Underutilised nodes", "part of the time");
        for (policy, kind) in POLICIES {
            for nodes in NODES {
                let mut setup = Setup::new(nodes, kind);
                setup.hardware.cache = memory;
                setup.warm_up = 0.5;
                // Where a cache holds nearly everything, the first look at each file would be most of
                // the misses; the trace itself was many times as long.
                setup.preloaded = name == "ibm";
                let report = lab.run(&setup, &trace);
                let x = f64::from(nodes);
                throughput.add(policy, x, report.throughput);
                misses.add(policy, x, report.miss_ratio);
                idle.add(policy, x, report.idle);
            }
        }
        figures.extend([throughput, misses, idle]);
    }
    figures
}
