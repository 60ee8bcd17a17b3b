// SPDX-License-Identifier: GPL-2.0

//! Faster CPUs and more disks (\[3\], figures 11 to 14): 8 nodes, the Rice-like workload.

use super::super::lab::Lab;
use super::super::plot::Figure;
use super::super::setup::Setup;
use super::super::synthetic::RICE;
use super::nodes::POLICIES;

/// Number of nodes.
const NODES: u16 = 8;

pub fn make(lab: &Lab) -> Vec<Figure> {
    lab.begin("hardware");
    let trace = lab.trace(RICE).http10();
    let mut cpus = Figure::new(
        "hardware-cpu",
        "Faster CPUs with one disk, 8 nodes, rice-like workload",
        "CPU speed",
        "requests/s",
    );
    let mut disks = Figure::new(
        "hardware-disks",
        "More disks, 8 nodes, rice-like workload",
        "disks of a node",
        "requests/s",
    );
    for (policy, kind) in POLICIES {
        for factor in 1..=4u32 {
            let x = f64::from(factor);
            let mut setup = Setup::new(NODES, kind);
            setup.warm_up = 0.5;
            setup.hardware = setup.hardware.with_cpu(factor.into());
            // As in \[3\]: whoever buys a faster CPU buys memory with it, half of it again each time.
            setup.hardware.cache += setup.hardware.cache / 2 * u64::from(factor - 1);
            cpus.add(policy, x, lab.run(&setup, &trace).throughput);
            let mut setup = Setup::new(NODES, kind);
            setup.warm_up = 0.5;
            setup.hardware.disks = factor;
            disks.add(policy, x, lab.run(&setup, &trace).throughput);
        }
    }
    vec![cpus, disks]
}
