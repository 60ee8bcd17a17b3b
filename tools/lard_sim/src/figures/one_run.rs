// SPDX-License-Identifier: GPL-2.0

//! What is drawn of a table of runs: throughput against the number of nodes or, where that is always
//! the same, in the course of the run.

use super::super::plot::Figure;
use super::super::setup::Report;
use super::time::steps;
use lard_core::policy::PolicyKind;

/// A line of the table.
pub struct Row {
    pub policy: PolicyKind,
    pub nodes: u16,
    pub report: Report,
}

/// Draws it.
pub fn figure(name: &str, rows: &[Row]) -> Figure {
    let nodes = rows.first().map_or(0, |row| row.nodes);
    if rows.iter().any(|row| row.nodes != nodes) {
        let mut figure = Figure::new(name, "Throughput", "nodes", "requests/s");
        for row in rows {
            let x = f64::from(row.nodes);
            figure.add(row.policy.name(), x, row.report.throughput);
        }
        return figure;
    }
    let title = format!("Throughput, nodes: {nodes}");
    let mut figure = Figure::new(name, &title, "part of all requests so far", "requests/s");
    for row in rows {
        for step in steps(&row.report) {
            figure.add(row.policy.name(), step.at, step.throughput);
        }
    }
    figure
}
