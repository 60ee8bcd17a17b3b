// SPDX-License-Identifier: GPL-2.0

//! What the papers do not show.

use super::super::hardware::TODAY;
use super::super::lab::Lab;
use super::super::plot::Figure;
use super::super::setup::{Change, Report, Setup};
use super::super::synthetic::{Shape, RICE};
use super::time::steps;
use lard_core::policy::PolicyKind::{self, Chbl, Lard, Lardr, Lb, Lc, Wrr};

const COMPARED: [(&str, PolicyKind); 6] = [
    ("WRR", Wrr),
    ("LC", Lc),
    ("LB", Lb),
    ("CHBL", Chbl),
    ("LARD", Lard),
    ("LARD/R", Lardr),
];

/// LARD, and consistent hashing with several bounds.
pub fn bounded(lab: &Lab) -> Vec<Figure> {
    lab.begin("bounded loads");
    let trace = lab.trace(RICE).http10();
    let mut throughput = Figure::new(
        "bounded-throughput",
        "LARD and consistent hashing with bounded loads, rice-like workload",
        "nodes",
        "requests/s",
    );
    let mut misses = Figure::new(
        "bounded-misses",
        "The same: cache misses",
        "nodes",
        "part of all requests",
    );
    let bound = |percent| vec![("balance-percent", percent)];
    for (name, policy, params) in [
        ("LARD", Lard, Vec::new()),
        ("LARD/R", Lardr, Vec::new()),
        ("CHBL 110 %", Chbl, bound(110)),
        ("CHBL 125 %", Chbl, bound(125)),
        ("CHBL 200 %", Chbl, bound(200)),
    ] {
        for nodes in [2, 4, 6, 8, 10, 12, 14, 16] {
            let mut setup = Setup::new(nodes, policy);
            setup.params.clone_from(&params);
            setup.warm_up = 0.5;
            let report = lab.run(&setup, &trace);
            throughput.add(name, f64::from(nodes), report.throughput);
            misses.add(name, f64::from(nodes), report.miss_ratio);
        }
    }
    vec![throughput, misses]
}

/// Eight nodes; one dies after 40 % of the requests and comes back after 60 %, a ninth one joins after
/// 80 %.
pub fn failure(lab: &Lab) -> Vec<Figure> {
    lab.begin("failure");
    let trace = lab.trace(RICE).http10();
    let mut throughput = over_time(
        "failure-throughput",
        "A node dies, comes back, one joins",
        "requests/s",
    );
    let mut misses = over_time(
        "failure-misses",
        "The same: cache misses",
        "part of all requests",
    );
    for (name, policy) in COMPARED {
        let mut setup = Setup::new(9, policy);
        let change = |after, node, comes| Change { after, node, comes };
        setup.changes = vec![
            change(0.4, 3, false),
            change(0.6, 3, true),
            change(0.8, 9, true),
        ];
        let report = lab.run(&setup, &trace);
        add_steps(name, &report, &mut throughput, &mut misses);
    }
    vec![throughput, misses]
}

/// Sixteen nodes; from 40 % to 70 % of the requests every second one is for the same target.
pub fn flash_crowd(lab: &Lab) -> Vec<Figure> {
    lab.begin("flash crowd");
    let mut trace = lab.trace(RICE).http10();
    let all = trace.requests.len();
    // Something small that was not asked for before.
    let target = trace.sizes.len() as u32;
    trace.sizes.push(8 << 10);
    for request in trace.requests[all * 4 / 10..all * 7 / 10]
        .iter_mut()
        .step_by(2)
    {
        request.target = target;
    }
    let mut throughput = over_time(
        "flash-crowd-throughput",
        "Half of all requests for one target",
        "requests/s",
    );
    let mut misses = over_time(
        "flash-crowd-misses",
        "The same: cache misses",
        "part of all requests",
    );
    for (name, policy) in COMPARED {
        let setup = Setup::new(16, policy);
        let report = lab.run(&setup, &trace);
        add_steps(name, &report, &mut throughput, &mut misses);
    }
    vec![throughput, misses]
}

fn over_time(name: &str, title: &str, y: &str) -> Figure {
    Figure::new(
        name,
        &format!("{title}, rice-like workload"),
        "part of all requests so far",
        y,
    )
}

/// Adds what happened in the course of a run.
fn add_steps(name: &str, report: &Report, throughput: &mut Figure, misses: &mut Figure) {
    for step in steps(report) {
        throughput.add(name, step.at, step.throughput);
        misses.add(name, step.at, step.misses);
    }
}

/// Eight servers of today, whose caches hold a thirtieth of the content each, for content of several
/// sizes: small files, where NVMe drives keep up with the CPU, and large ones, where they do not.
pub fn today(lab: &Lab) -> Vec<Figure> {
    let mut throughput = Figure::new(
        "today-throughput",
        "Today's hardware, 8 nodes, by size of the objects",
        "mean size of an object, KB",
        "Gbit/s",
    );
    let mut ratio = Figure::new(
        "today-ratio",
        "Today's hardware: LARD over WRR",
        "mean size of an object, KB",
        "factor",
    );
    throughput.log_x = true;
    ratio.log_x = true;
    for kb in [4u32, 16, 64, 256, 1_024, 4_096] {
        lab.begin(&format!("today, {kb} KB"));
        let bytes = f64::from(RICE.targets) * f64::from(kb) * 1024.0;
        let trace = lab
            .trace(Shape {
                bytes,
                gamma: 0.0,
                ..RICE
            })
            .http10();
        let mut at = Vec::new();
        for (name, policy) in COMPARED {
            let mut setup = Setup::new(8, policy);
            setup.hardware = TODAY;
            setup.hardware.cache = (bytes / 30.0) as u64;
            setup.warm_up = 0.5;
            let report = lab.run(&setup, &trace);
            throughput.add(name, f64::from(kb), report.bits / 1e9);
            at.push(report.throughput);
        }
        if let [wrr, .., lard, _] = at[..] {
            ratio.add("LARD/WRR", f64::from(kb), lard / wrr);
        }
    }
    vec![throughput, ratio]
}

/// Up to a thousand nodes, each with a thirtieth of the memory: all of them together have what 32 have
/// otherwise.
pub fn thousand(lab: &Lab) -> Vec<Figure> {
    lab.begin("a thousand nodes");
    let trace = lab.trace(RICE).http10();
    let mut throughput = Figure::new(
        "thousand-throughput",
        "Up to a thousand nodes of 1 MB, rice-like workload",
        "nodes",
        "requests/s",
    );
    let mut misses = Figure::new(
        "thousand-misses",
        "The same: cache misses",
        "nodes",
        "part of all requests",
    );
    for (name, policy) in [("WRR", Wrr), ("LC", Lc), ("LARD", Lard), ("LARD/R", Lardr)] {
        for nodes in [125, 250, 500, 1_000] {
            let mut setup = Setup::new(nodes, policy);
            setup.hardware.cache = 1 << 20;
            setup.warm_up = 0.5;
            let report = lab.run(&setup, &trace);
            throughput.add(name, f64::from(nodes), report.throughput);
            misses.add(name, f64::from(nodes), report.miss_ratio);
        }
    }
    vec![throughput, misses]
}
