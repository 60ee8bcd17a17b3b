// SPDX-License-Identifier: GPL-2.0

//! What must be seen in the figures that the papers do not have.

use super::{found, Check, Figures};
use std::ops::Range;

impl Figures<'_> {
    /// The mean of a line over part of its length.
    fn mean(&self, figure: &str, series: &str, part: Range<f64>) -> Option<f64> {
        let figure = self.0.iter().find(|f| f.name == figure)?;
        let series = figure.series.iter().find(|s| s.name == series)?;
        let within = series.points.iter().filter(|p| part.contains(&p.0));
        let (sum, n) = within.fold((0.0, 0.0), |(sum, n), p| (sum + p.1, n + 1.0));
        (n > 0.0).then_some(sum / n)
    }
}

pub fn crowd(f: &Figures<'_>) -> Option<Check> {
    let mean = |series| f.mean("flash-crowd-throughput", series, 0.5..0.7);
    let (lb, lard, lardr) = (mean("LB")?, mean("LARD")?, mean("LARD/R")?);
    found(
        "a target that is too much for one node stops LB, not LARD, nor LARD/R",
        format!("{:.1} and {:.1} times LB", lard / lb, lardr / lb),
        lard > 2.0 * lb && lardr > 2.0 * lb,
    )
}

pub fn bounded(f: &Figures<'_>) -> Option<Check> {
    let of_lard = |bound, x| f.ratio("bounded-throughput", [bound, "LARD"], x);
    let (tight, usual, loose) = (
        of_lard("CHBL 110 %", 8.0)?,
        of_lard("CHBL 125 %", 8.0)?,
        of_lard("CHBL 200 %", 8.0)?,
    );
    let many = of_lard("CHBL 125 %", 16.0)?;
    let [few_missed, many_missed] = f.two("bounded-misses", "CHBL 125 %", [2.0, 16.0])?;
    found(
        "consistent hashing serves a little less than LARD, the more the tighter its bound (8 nodes), and \
         misses less with every node (2, 16)",
        format!(
            "{tight:.2} {usual:.2} {loose:.2}, {many:.2} at 16; misses {few_missed:.2} {many_missed:.2}"
        ),
        tight < usual
            && usual < loose
            && [usual, loose, many].iter().all(|r| (0.7..1.05).contains(r))
            && many_missed < 0.7 * few_missed,
    )
}

pub fn failure(f: &Figures<'_>) -> Option<Check> {
    let mut seen = Vec::new();
    let mut holds = true;
    for series in ["WRR", "LC", "LB", "CHBL", "LARD", "LARD/R"] {
        let mean = |part| f.mean("failure-throughput", series, part);
        let (before, without, again, more) = (
            mean(0.3..0.4)?,
            mean(0.5..0.6)?,
            mean(0.7..0.8)?,
            mean(0.9..1.0)?,
        );
        let [without, again, more] = [without, again, more].map(|part| part / before);
        seen.push(format!("{series} {without:.2} {again:.2} {more:.2}"));
        // Seven eighths of the work; where the set does not fit into seven caches it is less.
        holds &= (0.55..1.05).contains(&without) && again > 0.75 && more > 0.85;
    }
    found(
        "no policy loses more with one node of eight than it has to, and all have it back (without it, \
         with it again, with a ninth, over before)",
        seen.join(", "),
        holds,
    )
}

pub fn today(f: &Figures<'_>) -> Option<Check> {
    let ratio = |kb| f.at("today-ratio", "LARD/WRR", kb);
    let (small, large) = (
        [ratio(4.0)?, ratio(64.0)?],
        [ratio(1_024.0)?, ratio(4_096.0)?],
    );
    found(
        "with NVMe drives LARD gains nothing for small files, and much for large ones (4, 64; 1,024, \
         4,096 KB)",
        format!("{small:.2?}, {large:.2?}"),
        small.iter().all(|r| (0.9..=1.1).contains(r)) && large.iter().all(|r| *r > 1.2),
    )
}

pub fn thousand(f: &Figures<'_>) -> Option<Check> {
    let figure = "thousand-throughput";
    let [few, many] = f.two(figure, "WRR", [125.0, 1_000.0])?;
    let over = |series| f.ratio(figure, [series, "WRR"], 1_000.0);
    let (lc, lard, lardr) = (over("LC")?, over("LARD")?, over("LARD/R")?);
    found(
        "WRR grows in proportion up to a thousand nodes, LC is like it, and LARD and LARD/R serve many \
         times as much",
        format!("{:.2} of 8, {lc:.2} {lard:.2} {lardr:.2}", many / few),
        (7.0..=9.5).contains(&(many / few))
            && (0.9..=1.1).contains(&lc)
            && lard > 3.0
            && lardr > 3.0,
    )
}
