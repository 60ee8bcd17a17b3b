// SPDX-License-Identifier: GPL-2.0

//! One front-end that does nothing else, or one on every node (\[1\], figures 5 to 8), and how many
//! of these one dispatcher answers.
//!
//! The cluster's size counts all machines: n nodes are one front-end and n-1 back-ends, or n machines
//! that are both.

use super::super::hardware::PROTOTYPE;
use super::super::lab::Lab;
use super::super::plot::Figure;
use super::super::setup::{FrontEnds, Setup};
use super::super::synthetic::{Shape, IBM};
use super::super::workload::Trace;
use lard_core::policy::PolicyKind;

/// Numbers of machines.
const SIZES: [u16; 8] = [2, 3, 4, 5, 6, 8, 12, 16];

pub fn make(lab: &Lab) -> Vec<Figure> {
    // As many as the scale takes away.
    let page = Shape::equal(lab.scale, 6 << 10, 1.0);
    let mut figures = Vec::new();
    for (name, title, shape) in [("page", "one page of 6 KB", page), ("ibm", "IBM-like", IBM)] {
        lab.begin(&format!("front-ends, {name}"));
        let trace = lab.trace(shape).http10();
        let mut figure = Figure::new(
            &format!("front-ends-{name}"),
            &format!("Front-ends, {title}, prototype's machines"),
            "machines",
            "requests/s",
        );
        for (series, front_ends, dedicated) in [
            ("distributed", FrontEnds::Distributed, 0),
            ("one front-end", FrontEnds::Single, 1),
            ("one that costs nothing", FrontEnds::Free, 1),
        ] {
            for size in SIZES {
                let mut setup = Setup::new(size - dedicated, PolicyKind::Lard);
                setup.hardware = PROTOTYPE;
                setup.front_ends = front_ends;
                setup.warm_up = 0.5;
                let report = lab.run(&setup, &trace);
                figure.add(series, f64::from(size), report.throughput);
            }
        }
        figures.push(figure);
    }
    figures.push(dispatcher(lab, &lab.trace(page).http10()));
    figures
}

/// Front-ends on all of many machines, which ask one dispatcher for each connection.
fn dispatcher(lab: &Lab, trace: &Trace) -> Figure {
    let mut figure = Figure::new(
        "front-ends-dispatcher",
        "Front-ends on all machines and one dispatcher, one page of 6 KB",
        "machines",
        "requests/s",
    );
    for size in [16, 32, 48, 64, 80, 96, 128] {
        for (series, costs) in [("one dispatcher", true), ("one that costs nothing", false)] {
            let mut setup = Setup::new(size, PolicyKind::Lard);
            setup.hardware = PROTOTYPE;
            setup.front_ends = FrontEnds::Distributed;
            setup.warm_up = 0.5;
            if !costs {
                (setup.hardware.decision, setup.hardware.question) = (0, 0);
            }
            let report = lab.run(&setup, trace);
            figure.add(series, f64::from(size), report.throughput);
        }
    }
    figure
}
