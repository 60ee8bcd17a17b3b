// SPDX-License-Identifier: GPL-2.0

//! What must be seen in the figures: relations that the papers report.
//!
//! Relations and not values: the workloads are stand-ins, and the machines of the papers are known
//! only roughly.

use super::plot::Figure;

/// Something that was looked for.
#[derive(Clone, Debug)]
pub struct Check {
    /// What the papers report.
    pub claim: &'static str,
    /// What is seen.
    pub seen: String,
    /// Is it that?
    pub holds: bool,
}

/// Looks for everything that can be seen in these figures; what is about a missing one is left out.
pub fn check(figures: &[Figure]) -> Vec<Check> {
    let figures = Figures(figures);
    let all = [
        growth_of_wrr,
        constant_misses_of_wrr,
        lard_over_wrr,
        falling_misses_of_lard,
        hash_partition,
        replication,
        small_set,
        faster_cpus,
        more_disks,
        over_wrr_persistent,
        gain_of_persistence,
        loss_without_mechanism,
        multiple_hand_off,
        saturation,
        distributed,
        one_less,
        ceiling,
        batches,
        crowd,
    ];
    all.into_iter().filter_map(|look| look(&figures)).collect()
}

struct Figures<'a>(&'a [Figure]);

impl Figures<'_> {
    fn at(&self, figure: &str, series: &str, x: f64) -> Option<f64> {
        self.0.iter().find(|f| f.name == figure)?.at(series, x)
    }

    /// The values of one line at two places.
    fn two(&self, figure: &str, series: &str, xs: [f64; 2]) -> Option<[f64; 2]> {
        let [a, b] = xs.map(|x| self.at(figure, series, x));
        Some([a?, b?])
    }

    /// One line over another one.
    fn ratio(&self, figure: &str, [over, under]: [&str; 2], x: f64) -> Option<f64> {
        Some(self.at(figure, over, x)? / self.at(figure, under, x)?)
    }
}

fn found(claim: &'static str, seen: String, holds: bool) -> Option<Check> {
    Some(Check { claim, seen, holds })
}

fn times(claim: &'static str, value: f64, range: std::ops::RangeInclusive<f64>) -> Option<Check> {
    found(claim, format!("{value:.2}"), range.contains(&value))
}

const RICE: &str = "nodes-rice-throughput";
const RICE_MISSES: &str = "nodes-rice-misses";

fn growth_of_wrr(f: &Figures<'_>) -> Option<Check> {
    let [one, many] = f.two(RICE, "WRR", [1.0, 16.0])?;
    times(
        "WRR grows in proportion to the nodes: 16 over 1, divided by 16",
        many / one / 16.0,
        0.75..=1.1,
    )
}

fn constant_misses_of_wrr(f: &Figures<'_>) -> Option<Check> {
    let [one, many] = f.two(RICE_MISSES, "WRR", [1.0, 16.0])?;
    times(
        "WRR's miss ratio does not fall with the nodes: 16 over 1",
        many / one,
        0.9..=1.4,
    )
}

fn lard_over_wrr(f: &Figures<'_>) -> Option<Check> {
    let ratios: Vec<f64> = [8.0, 12.0, 16.0]
        .into_iter()
        .map(|x| f.ratio(RICE, ["LARD", "WRR"], x))
        .collect::<Option<_>>()?;
    let all = ratios.iter().all(|r| (1.5..=5.0).contains(r));
    found(
        "LARD serves 2 to 4 times as much as WRR (8, 12, 16 nodes)",
        format!("{ratios:.2?}"),
        all,
    )
}

fn falling_misses_of_lard(f: &Figures<'_>) -> Option<Check> {
    let [one, four] = f.two(RICE_MISSES, "LARD", [1.0, 4.0])?;
    let eight = f.at(RICE_MISSES, "LARD", 8.0)?;
    let [t1, t8] = f.two(RICE, "LARD", [1.0, 8.0])?;
    found(
        "LARD's miss ratio falls with the nodes, and it gains more than they add (1, 4, 8 nodes)",
        format!("{one:.3} {four:.3} {eight:.3}, {:.1} times at 8", t8 / t1),
        one > four && four > eight && t8 / t1 > 8.0,
    )
}

fn hash_partition(f: &Figures<'_>) -> Option<Check> {
    let miss = f.ratio(RICE_MISSES, ["LB", "LARD"], 16.0)?;
    let [low, high] = ["LARD", "LB"].map(|s| f.at("nodes-rice-idle", s, 16.0));
    let (over, under) = (
        f.ratio(RICE, ["LB", "WRR"], 16.0)?,
        f.ratio(RICE, ["LB", "LARD"], 16.0)?,
    );
    let (low, high) = (low?, high?);
    found(
        "LB misses as little as LARD but leaves nodes idle; its throughput lies between WRR and LARD (16 nodes)",
        format!("misses {miss:.2} of LARD's, idle {high:.2} for {low:.2}, {over:.2} of WRR, {under:.2} of LARD"),
        miss < 1.3 && high > low && over > 1.0 && under < 1.0,
    )
}

fn replication(f: &Figures<'_>) -> Option<Check> {
    let ratio = f.ratio(RICE, ["LARD/R", "LARD"], 16.0)?;
    times(
        "LARD/R is about equal to LARD (16 nodes)",
        ratio,
        0.85..=1.25,
    )
}

fn small_set(f: &Figures<'_>) -> Option<Check> {
    let ratio = f.ratio("nodes-ibm-throughput", ["LARD", "WRR"], 8.0)?;
    times(
        "LARD gains little where all fits into one node's memory (8 nodes)",
        ratio,
        0.9..=1.35,
    )
}

fn faster_cpus(f: &Figures<'_>) -> Option<Check> {
    let gain = |s| f.two("hardware-cpu", s, [1.0, 4.0]).map(|[a, b]| b / a);
    let (wrr, lard) = (gain("WRR")?, gain("LARD")?);
    found(
        "a faster CPU, with memory, gives LARD more than WRR (4 over 1)",
        format!("WRR {wrr:.2}, LARD {lard:.2}"),
        lard > wrr,
    )
}

fn more_disks(f: &Figures<'_>) -> Option<Check> {
    let gain = |s| f.two("hardware-disks", s, [1.0, 4.0]).map(|[a, b]| b / a);
    let (wrr, lard) = (gain("WRR")?, gain("LARD")?);
    found(
        "more disks give WRR more than LARD (4 over 1)",
        format!("WRR {wrr:.2}, LARD {lard:.2}"),
        wrr > 1.2 * lard,
    )
}

const PERSISTENT: &str = "persistent-throughput";

fn over_wrr_persistent(f: &Figures<'_>) -> Option<Check> {
    let ratio = f.ratio(PERSISTENT, ["extLARD, forwarding", "WRR, persistent"], 6.0)?;
    times(
        "extended LARD with forwarding serves 4 times as much as WRR (6 nodes)",
        ratio,
        2.0..=5.0,
    )
}

fn gain_of_persistence(f: &Figures<'_>) -> Option<Check> {
    let ratio = f.ratio(
        PERSISTENT,
        ["extLARD, forwarding", "extLARD, HTTP/1.0"],
        6.0,
    )?;
    times(
        "persistent connections give extended LARD 26 % (6 nodes)",
        ratio,
        1.0..=1.45,
    )
}

fn loss_without_mechanism(f: &Figures<'_>) -> Option<Check> {
    let ratio = f.ratio(PERSISTENT, ["LARD, single hand-off", "LARD, HTTP/1.0"], 6.0)?;
    times(
        "with a single hand-off they cost LARD 35 % (6 nodes)",
        ratio,
        0.3..=0.85,
    )
}

fn multiple_hand_off(f: &Figures<'_>) -> Option<Check> {
    let pair = ["extLARD, multiple hand-off", "extLARD, forwarding"];
    times(
        "multiple hand-off is about equal to forwarding (6 nodes)",
        f.ratio(PERSISTENT, pair, 6.0)?,
        0.8..=1.2,
    )
}

const PAGE: &str = "front-ends-page";

fn saturation(f: &Figures<'_>) -> Option<Check> {
    let most = f.at(PAGE, "one front-end", 16.0)?;
    found(
        "one front-end hands off 3,300 connections/s at most",
        format!("{most:.0}"),
        (2_800.0..=3_400.0).contains(&most),
    )
}

fn distributed(f: &Figures<'_>) -> Option<Check> {
    let [four, many] = f.two(PAGE, "distributed", [4.0, 16.0])?;
    times(
        "front-ends on all nodes scale linearly: 16 over 4",
        many / four,
        3.6..=4.4,
    )
}

fn one_less(f: &Figures<'_>) -> Option<Check> {
    let ratio = f.at(PAGE, "distributed", 5.0)? / f.at(PAGE, "one front-end", 5.0)?;
    times(
        "5 nodes with front-ends serve as much as 4 back-ends behind one",
        ratio,
        0.85..=1.15,
    )
}

fn ceiling(f: &Figures<'_>) -> Option<Check> {
    let most = f.at("dispatcher-throughput", "batched", 60_000.0)?;
    found(
        "one dispatcher decides for about 50,000 connections/s",
        format!("{most:.0}"),
        (45_000.0..=55_000.0).contains(&most),
    )
}

fn batches(f: &Figures<'_>) -> Option<Check> {
    let [idle, busy] = f.two("dispatcher-messages", "batched", [5_000.0, 45_000.0])?;
    found(
        "the busier the dispatcher, the fewer messages for each decision (5,000/s, 45,000/s)",
        format!("{idle:.2} {busy:.2}"),
        idle > 0.8 && busy < 0.5,
    )
}

fn crowd(f: &Figures<'_>) -> Option<Check> {
    let figure = f.0.iter().find(|f| f.name == "flash-crowd-throughput")?;
    let mean = |name: &str| {
        let series = figure.series.iter().find(|s| s.name == name)?;
        let within = series.points.iter().filter(|p| (0.5..0.7).contains(&p.0));
        let (sum, n) = within.fold((0.0, 0.0), |(sum, n), p| (sum + p.1, n + 1.0));
        (n > 0.0).then_some(sum / n)
    };
    let (lb, lard, lardr) = (mean("LB")?, mean("LARD")?, mean("LARD/R")?);
    found(
        "a target that is too much for one node stops LB, not LARD, nor LARD/R",
        format!("{:.1} and {:.1} times LB", lard / lb, lardr / lb),
        lard > 2.0 * lb && lardr > 2.0 * lb,
    )
}

#[cfg(test)]
mod tests {
    use super::super::figures::GROUPS;
    use super::super::lab::Lab;
    use super::*;

    #[test]
    fn the_figures_have_the_papers_shapes() {
        let mut lab = Lab::new(150_000, 1);
        lab.scale = 4;
        let about_papers = GROUPS.iter().take_while(|g| g.name != "bounded");
        let crowd = GROUPS.iter().filter(|g| g.name == "flash-crowd");
        let figures: Vec<_> = about_papers
            .chain(crowd)
            .flat_map(|g| (g.make)(&lab))
            .collect();
        let checks = check(&figures);
        assert_eq!(checks.len(), 19);
        let wrong: Vec<_> = checks.iter().filter(|c| !c.holds).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
