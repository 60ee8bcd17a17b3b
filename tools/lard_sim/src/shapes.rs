// SPDX-License-Identifier: GPL-2.0

//! What must be seen in the figures: relations that the papers report.
//!
//! Relations and not values: the workloads are stand-ins, and the machines of the papers are known
//! only roughly.

mod beyond;

use super::plot::Figure;
use std::ops::RangeInclusive;

/// Something that was looked for.
#[derive(Clone, Debug)]
pub struct Check {
    /// What the papers report.
    pub claim: &'static str,
    /// What is seen.
    pub seen: String,
    /// Is it that?
    pub verdict: Verdict,
}

/// How what is seen compares with what is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the same.
    Holds,
    /// The relation is the same, its size is not. The documentation says why.
    Differs,
    /// It is something else.
    Fails,
}

impl Verdict {
    /// A word for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Holds => "ok",
            Verdict::Differs => "differs",
            Verdict::Fails => "NOT OK",
        }
    }
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        match holds {
            true => Verdict::Holds,
            false => Verdict::Fails,
        }
    }
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
        hot_targets,
        small_set,
        faster_cpus,
        more_disks,
        over_wrr_persistent,
        over_wrr_single,
        gain_of_persistence,
        loss_without_mechanism,
        multiple_hand_off,
        relaying,
        saturation,
        size_at_saturation,
        distributed,
        one_less,
        many_less,
        ceiling,
        ceiling_in_a_cluster,
        batches,
        beyond::crowd,
        beyond::bounded,
        beyond::failure,
        beyond::today,
        beyond::thousand,
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
    Some(Check {
        claim,
        seen,
        verdict: holds.into(),
    })
}

fn times(claim: &'static str, value: f64, range: RangeInclusive<f64>) -> Option<Check> {
    found(claim, format!("{value:.2}"), range.contains(&value))
}

/// A factor for which the papers have a number, which is met to 15 %; within `range` it is at least
/// the same relation.
fn factor(
    claim: &'static str,
    value: f64,
    reported: f64,
    range: RangeInclusive<f64>,
) -> Option<Check> {
    let verdict = match range.contains(&value) {
        true if (value / reported - 1.0).abs() <= 0.15 => Verdict::Holds,
        true => Verdict::Differs,
        false => Verdict::Fails,
    };
    Some(Check {
        claim,
        seen: format!("{value:.2}"),
        verdict,
    })
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
    // LC is what the papers call so.
    let over = |wrr| [8.0, 12.0, 16.0].map(|x| f.ratio(RICE, ["LARD", wrr], x));
    let ratios: Vec<f64> = over("WRR")
        .into_iter()
        .chain(over("LC"))
        .collect::<Option<_>>()?;
    let all = ratios.iter().all(|r| (1.5..=5.0).contains(r));
    found(
        "LARD serves 2 to 4 times as much as WRR, and as LC (8, 12, 16 nodes)",
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
    let [few, many] = [8.0, 16.0].map(|x| f.ratio(RICE, ["LARD/R", "LARD"], x));
    let (few, many) = (few?, many?);
    found(
        "LARD/R is about equal to LARD where no target is too much for a node (8, 16 nodes)",
        format!("{few:.2} {many:.2}"),
        [few, many].iter().all(|r| (0.85..=1.15).contains(r)),
    )
}

fn hot_targets(f: &Figures<'_>) -> Option<Check> {
    // The same targets for as many times more nodes: the popular ones are that much hotter.
    let ratio = f.ratio("thousand-throughput", ["LARD/R", "LARD"], 1_000.0)?;
    times(
        "LARD/R serves more than LARD where targets are very hot (1,000 nodes)",
        ratio,
        1.1..=3.0,
    )
}

fn small_set(f: &Figures<'_>) -> Option<Check> {
    let [wrr, lc] = ["WRR", "LC"].map(|s| f.ratio("nodes-ibm-throughput", ["LARD", s], 8.0));
    let (wrr, lc) = (wrr?, lc?);
    found(
        "LARD gains nothing to speak of where all fits into one node's memory: over WRR, over LC (8 nodes)",
        format!("{wrr:.2} {lc:.2}"),
        [wrr, lc].iter().all(|r| (0.9..=1.15).contains(r)),
    )
}

fn faster_cpus(f: &Figures<'_>) -> Option<Check> {
    let gain = |s| f.two("hardware-cpu", s, [1.0, 4.0]).map(|[a, b]| b / a);
    let (wrr, lc, lard) = (gain("WRR")?, gain("LC")?, gain("LARD")?);
    found(
        "four times the CPU, with memory, gives WRR and LC little and LARD much",
        format!("WRR {wrr:.2}, LC {lc:.2}, LARD {lard:.2}"),
        wrr < 1.6 && lc < 1.6 && lard > 2.0,
    )
}

fn more_disks(f: &Figures<'_>) -> Option<Check> {
    let gain = |s, xs| f.two("hardware-disks", s, xs).map(|[a, b]| b / a);
    let (first, further) = ([1.0, 2.0], [2.0, 4.0]);
    let (wrr, lc) = (gain("WRR", further)?, gain("LC", further)?);
    let (begins, lard) = (gain("LARD", first)?, gain("LARD", further)?);
    let verdict = match wrr > 1.6 && lc > 1.6 && lard < 1.2 {
        true if begins < 1.2 => Verdict::Holds,
        true => Verdict::Differs,
        false => Verdict::Fails,
    };
    Some(Check {
        claim: "more disks give WRR and LC much and LARD barely anything (4 over 2; LARD 2 over 1)",
        seen: format!("WRR {wrr:.2}, LC {lc:.2}, LARD {lard:.2}; {begins:.2}"),
        verdict,
    })
}

const PERSISTENT: &str = "persistent-throughput";

fn over_wrr_persistent(f: &Figures<'_>) -> Option<Check> {
    let ratio = f.ratio(PERSISTENT, ["extLARD, forwarding", "LC, persistent"], 6.0)?;
    factor(
        "extended LARD with forwarding serves 4 times as much as WRR (LC), persistent (6 nodes)",
        ratio,
        4.0,
        2.0..=5.0,
    )
}

fn over_wrr_single(f: &Figures<'_>) -> Option<Check> {
    let ratio = f.ratio(PERSISTENT, ["extLARD, HTTP/1.0", "LC, HTTP/1.0"], 6.0)?;
    factor(
        "and as much without persistent connections (6 nodes)",
        ratio,
        4.0,
        2.0..=5.0,
    )
}

fn gain_of_persistence(f: &Figures<'_>) -> Option<Check> {
    let ratio = f.ratio(
        PERSISTENT,
        ["extLARD, forwarding", "extLARD, HTTP/1.0"],
        6.0,
    )?;
    factor(
        "persistent connections give extended LARD 26 % (6 nodes)",
        ratio,
        1.26,
        1.02..=1.45,
    )
}

fn loss_without_mechanism(f: &Figures<'_>) -> Option<Check> {
    let ratio = f.ratio(PERSISTENT, ["LARD, single hand-off", "LARD, HTTP/1.0"], 6.0)?;
    factor(
        "with a single hand-off they cost LARD 35 % (6 nodes)",
        ratio,
        0.65,
        0.25..=0.85,
    )
}

fn multiple_hand_off(f: &Figures<'_>) -> Option<Check> {
    let pair = ["extLARD, multiple hand-off", "extLARD, forwarding"];
    times(
        "multiple hand-off is about equal to forwarding (6 nodes)",
        f.ratio(PERSISTENT, pair, 6.0)?,
        0.85..=1.15,
    )
}

fn relaying(f: &Figures<'_>) -> Option<Check> {
    let figure = "persistent-relaying";
    let over = |relay| f.ratio(figure, [relay, "extLARD, forwarding"], 6.0);
    let (at_no_cost, at_its_cost) = (
        over("extLARD, relaying at no cost")?,
        over("extLARD, relaying")?,
    );
    found(
        "a front-end that relays gains nothing to speak of, even where that costs it nothing (6 nodes)",
        format!("{at_no_cost:.2} of forwarding; {at_its_cost:.2} where it costs what it costs"),
        at_no_cost < 1.15 && at_its_cost < 1.0,
    )
}

const PAGE: &str = "front-ends-page";

const IBM: &str = "front-ends-ibm";

fn saturation(f: &Figures<'_>) -> Option<Check> {
    let most = f.at(PAGE, "one front-end", 16.0)?;
    found(
        "one front-end hands off 3,300 connections/s at most",
        format!("{most:.0}"),
        (2_970.0..=3_400.0).contains(&most),
    )
}

fn size_at_saturation(f: &Figures<'_>) -> Option<Check> {
    // How many back-ends it takes to do as much as the front-end can.
    let needed =
        |figure| Some(f.at(figure, "one front-end", 16.0)? / f.at(figure, "one front-end", 2.0)?);
    let (page, ibm) = (needed(PAGE)?, needed(IBM)?);
    found(
        "one front-end is busy with 4 to 5 back-ends (pages of 6 KB, IBM)",
        format!("{page:.1}, {ibm:.1}"),
        [page, ibm].iter().all(|n| (3.5..=5.5).contains(n)),
    )
}

fn distributed(f: &Figures<'_>) -> Option<Check> {
    let scaling = |figure| {
        f.two(figure, "distributed", [4.0, 16.0])
            .map(|[few, many]| many / few)
    };
    let (page, ibm) = (scaling(PAGE)?, scaling(IBM)?);
    found(
        "front-ends on all nodes scale linearly: 16 over 4 (pages of 6 KB, IBM)",
        format!("{page:.2}, {ibm:.2}"),
        [page, ibm].iter().all(|n| (3.6..=4.4).contains(n)),
    )
}

/// What n machines with front-ends serve, of what n-1 back-ends do behind one that is not the limit.
fn of_one_less(f: &Figures<'_>, figure: &str, n: f64) -> Option<f64> {
    f.ratio(figure, ["distributed", "one that costs nothing"], n)
}

fn one_less(f: &Figures<'_>) -> Option<Check> {
    let [page4, page5] = [4.0, 5.0].map(|n| of_one_less(f, PAGE, n));
    let seen = [page4?, page5?];
    found(
        "n nodes with front-ends serve as much as n-1 back-ends behind one (pages of 6 KB; n = 4, 5)",
        format!("{seen:.2?}"),
        seen.iter().all(|r| (0.9..=1.1).contains(r)),
    )
}

fn many_less(f: &Figures<'_>) -> Option<Check> {
    let at = |n| Some([of_one_less(f, PAGE, n)?, of_one_less(f, IBM, n)?]);
    let seen = [at(6.0)?, at(8.0)?, at(16.0)?];
    let all_in = |range: RangeInclusive<f64>| seen.as_flattened().iter().all(|r| range.contains(r));
    let over_one = |n| f.ratio(PAGE, ["distributed", "one front-end"], n);
    let scales = over_one(6.0)? > 1.0 && over_one(16.0)? > 3.0;
    // Each of n machines gives its front-end the same part of its time, so that they are worth n-1 at one
    // n only, and less with more.
    let verdict = match scales && all_in(0.8..=1.1) {
        true if all_in(0.9..=1.1) => Verdict::Holds,
        true => Verdict::Differs,
        false => Verdict::Fails,
    };
    Some(Check {
        claim: "and so at 6, 8, 16 (pages of 6 KB, IBM), where one front-end serves no more",
        seen: format!("{seen:.2?}"),
        verdict,
    })
}

fn ceiling(f: &Figures<'_>) -> Option<Check> {
    let most = f.at("dispatcher-throughput", "batched", 60_000.0)?;
    found(
        "one dispatcher decides for about 50,000 connections/s",
        format!("{most:.0}"),
        (45_000.0..=55_000.0).contains(&most),
    )
}

fn ceiling_in_a_cluster(f: &Figures<'_>) -> Option<Check> {
    let at = |series, n| f.at("front-ends-dispatcher", series, n);
    let most = at("one dispatcher", 128.0)?;
    let below = at("one dispatcher", 64.0)? / at("one that costs nothing", 64.0)?;
    found(
        "and is the limit of a cluster only there: at 128 machines, at 64 over one that costs nothing",
        format!("{most:.0}, {below:.2}"),
        (45_000.0..=55_000.0).contains(&most) && (0.9..=1.1).contains(&below),
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

#[cfg(test)]
mod tests {
    use super::super::figures::{Group, GROUPS};
    use super::super::lab::Lab;
    use super::*;

    /// How many checks there are for each group of figures.
    const CHECKS: [(&str, usize); 10] = [
        ("nodes", 7),
        ("hardware", 2),
        ("persistent", 6),
        ("front-ends", 6),
        ("dispatcher", 2),
        ("bounded", 1),
        ("failure", 1),
        ("flash-crowd", 1),
        ("today", 1),
        ("thousand", 2),
    ];

    /// The figures of a group, checked.
    fn checked(group: &Group) -> Vec<Check> {
        let mut lab = Lab::new(150_000, 1);
        lab.scale = 4;
        let figures = (group.make)(&lab);
        // What the progress bar promises.
        assert_eq!(lab.done(), group.runs * 150_000, "{}", group.name);
        check(&figures)
    }

    #[test]
    fn all_figures_have_their_shapes() {
        let mut wrong = Vec::new();
        std::thread::scope(|scope| {
            let threads = GROUPS
                .each_ref()
                .map(|group| scope.spawn(|| checked(group)));
            for ((group, thread), (name, checks)) in GROUPS.iter().zip(threads).zip(CHECKS) {
                let found = thread.join().expect("a group was simulated");
                assert_eq!((group.name, found.len()), (name, checks));
                wrong.extend(found.into_iter().filter(|c| c.verdict == Verdict::Fails));
            }
        });
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_figure_without_its_shape_is_noticed() {
        let mut figure = Figure::new(RICE, "", "", "");
        for (x, y) in [(1.0, 100.0), (16.0, 1_600.0)] {
            figure.add("WRR", x, y);
        }
        let verdict = |figure: &Figure| check(std::slice::from_ref(figure))[0].verdict;
        assert_eq!(verdict(&figure), Verdict::Holds);
        figure.series[0].points[1].1 = 800.0;
        assert_eq!(verdict(&figure), Verdict::Fails);
    }

    #[test]
    fn a_factor_is_met_or_differs_or_is_another_relation() {
        let verdict = |seen| factor("", seen, 4.0, 2.0..=5.0).unwrap().verdict;
        assert_eq!(verdict(3.5), Verdict::Holds);
        assert_eq!(verdict(3.3), Verdict::Differs);
        assert_eq!(verdict(1.9), Verdict::Fails);
        assert_eq!(verdict(f64::NAN), Verdict::Fails);
    }
}
