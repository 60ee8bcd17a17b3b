// SPDX-License-Identifier: GPL-2.0

//! How far the cost form of LARD agrees with the threshold form, with the papers' constants and any
//! number of nodes. With two nodes and all loads: `policy_properties.rs`.
//!
//! ```text
//!   some node below T_low, MissCost = T_high - T_low        the same, but at load = T_high
//!   some node below T_low, MissCost = T_high - T_low + 1    the same
//!   no node below T_low                                     a rule of its own for each
//! ```

use lard_core::addr::NodeId;
use lard_core::policy::*;
use lard_core::time::Instant;
use proptest::prelude::*;

type Sched = Scheduler<Vec<Slot<W>>, W>;

/// Up to 128 nodes, so that a set is more than one word.
const W: usize = 2;

fn scheduler(kind: PolicyKind, nodes: usize, params: &[(&'static str, u32)]) -> Sched {
    let mut s = Scheduler::new(kind, vec![Slot::EMPTY; 1]);
    for node in 1..=nodes as u16 {
        s.add_dest(NodeId(node), 1).unwrap();
    }
    s.set_params(params.iter().copied()).unwrap();
    s
}

/// Where a target goes that is mapped to node 1, with these loads.
fn goes_to(s: &mut Sched, loads: &[u32]) -> u16 {
    let request = Request {
        key: 1 << 60,
        exclude: NodeSet::EMPTY,
        tags: Tags::NONE,
        now: Instant::ZERO,
    };
    // Nobody else may be chosen: that maps the target to node 1.
    let exclude = (2..=loads.len() as u16).map(NodeId).collect();
    s.schedule(&Request { exclude, ..request }).unwrap();
    for (node, load) in (1..).zip(loads) {
        s.set_load(NodeId(node), *load).unwrap();
    }
    s.schedule(&request).unwrap().0
}

/// T_low and T_high of \[3\], and what is said to correspond in \[2\].
const PAPERS: [(u32, u32); 2] = [(25, 65), (30, 80)];

/// Loads around all that counts, and any others.
fn loads(nodes: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u32>> {
    let edges: Vec<u32> = [0, 25, 30, 65, 80, 105, 130, 160]
        .iter()
        .flat_map(|edge: &u32| edge.saturating_sub(1)..=edge + 1)
        .collect();
    let load = prop_oneof![2 => prop::sample::select(edges), 1 => 0u32..200];
    prop::collection::vec(load, nodes)
}

/// The loads, one of them below T_low.
fn beside(mut loads: Vec<u32>, (which, idle): (prop::sample::Index, u32)) -> Vec<u32> {
    *which.get_mut(&mut loads) = idle;
    loads
}

struct Forms {
    costs: Sched,
    thresholds: Sched,
}

impl Forms {
    /// The two of them, with `more` than T_high - T_low for a miss.
    fn new(nodes: usize, (low, high): (u32, u32), more: u32) -> Self {
        let costs = [
            ("l-idle", low),
            ("l-overload", 2 * high - 1),
            ("miss-cost", high - low + more),
        ];
        let thresholds = [("t-low", low), ("t-high", high)];
        Forms {
            costs: scheduler(PolicyKind::Extlard, nodes, &costs),
            thresholds: scheduler(PolicyKind::Lard, nodes, &thresholds),
        }
    }

    fn both(&mut self, loads: &[u32]) -> (u16, u16) {
        (
            goes_to(&mut self.costs, loads),
            goes_to(&mut self.thresholds, loads),
        )
    }
}

/// The nodes with the least load of all.
fn is_least(loads: &[u32], node: u16) -> bool {
    loads.iter().min() == loads.get(usize::from(node) - 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn beside_an_idle_node_they_agree_but_for_one_connection(
        loads in loads(2..9),
        idle in (any::<prop::sample::Index>(), 0u32..25),
        papers in prop::sample::select(&PAPERS[..]),
        more in 0u32..=1,
    ) {
        let (_, high) = papers;
        let loads = beside(loads, idle);
        let (by_costs, by_thresholds) = Forms::new(loads.len(), papers, more).both(&loads);
        if more == 0 && loads[0] == high {
            prop_assert!(by_costs != 1 && by_thresholds == 1, "{by_costs} {by_thresholds}");
        } else {
            prop_assert_eq!(by_costs, by_thresholds);
        }
    }

    #[test]
    fn without_an_idle_node_each_has_its_rule(
        loads in loads(2..9),
        papers in prop::sample::select(&PAPERS[..]),
        more in 0u32..=1,
    ) {
        let (low, high) = papers;
        let loads: Vec<_> = loads.into_iter().map(|load| load.max(low)).collect();
        let (by_costs, by_thresholds) = Forms::new(loads.len(), papers, more).both(&loads);
        let (mapped, others) = (loads[0], &loads[1..]);
        let least = *others.iter().min().unwrap();
        let moves = mapped >= 2 * high && least < mapped;
        prop_assert_eq!(by_thresholds != 1, moves);
        let (overload, miss) = (2 * high - 1, high - low + more);
        let moves = match (mapped > overload, least > overload) {
            (true, true) => least < mapped,
            (true, false) => true,
            (false, true) => false,
            // One for the mapped target; twice a miss for another.
            (false, false) => mapped + 1 > least + 2 * miss,
        };
        prop_assert_eq!(by_costs != 1, moves);
        // Who moves goes to who has the least to do.
        for chosen in [by_costs, by_thresholds] {
            prop_assert!(chosen == 1 || is_least(&loads, chosen));
        }
    }

    #[test]
    fn with_more_nodes_than_a_word_has_bits_they_still_agree(
        loads in loads(65..129),
        idle in (any::<prop::sample::Index>(), 0u32..25),
    ) {
        let loads = beside(loads, idle);
        let (by_costs, by_thresholds) = Forms::new(loads.len(), PAPERS[0], 1).both(&loads);
        prop_assert_eq!(by_costs, by_thresholds);
        prop_assert!(by_costs == 1 || is_least(&loads, by_costs));
    }
}

/// With the constants that \[2\] used as they are, L_overload and all.
#[test]
fn the_constants_of_the_prototype_move_as_its_figure_says() {
    let params = [("l-idle", 30), ("l-overload", 130), ("miss-cost", 50)];
    let mut s = scheduler(PolicyKind::Extlard, 3, &params);
    for (loads, moves) in [
        // Beside an idle node: from T_high = L_idle + MissCost on.
        ([79, 29, 100], false),
        ([80, 29, 100], true),
        // Beside others that are busy: twice a miss apart, less the 1 of what is there.
        ([129, 30, 31], false),
        ([130, 30, 31], true),
        ([130, 31, 32], false),
        // Overloaded: to whoever is not.
        ([131, 130, 131], true),
        ([131, 131, 131], false),
        ([132, 131, 133], true),
    ] {
        let node = goes_to(&mut s, &loads);
        assert_eq!(node == 2, moves, "{loads:?} {node}");
    }
}
