// SPDX-License-Identifier: GPL-2.0

//! What holds for policies whatever happens: invariants, the agreement of the two forms of LARD, the
//! bounds of the table, and loads when nodes and messages are lost.

use lard_core::addr::NodeId;
use lard_core::policy::*;
use lard_core::time::Instant;
use proptest::prelude::*;
use std::collections::HashSet;

type Sched = Scheduler<Vec<Slot>>;

fn scheduler(kind: PolicyKind, nodes: u16, slots: usize) -> Sched {
    let mut s = Scheduler::new(kind, vec![Slot::EMPTY; slots]);
    for node in 1..=nodes {
        s.add_dest(NodeId(node), 1).unwrap();
    }
    s
}

fn request(key: u64) -> Request {
    Request {
        key: key.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        exclude: NodeSet::EMPTY,
        tags: Tags::NONE,
        now: Instant::ZERO,
    }
}

fn set_loads(s: &mut Sched, loads: &[u32]) {
    for (node, load) in (1..).zip(loads) {
        s.set_load(NodeId(node), *load).unwrap();
    }
}

/// Where each form sends a target that is mapped to node 1.
fn both_forms(costs: &mut Sched, thresholds: &mut Sched, loads: &[u32]) -> (u16, u16) {
    [costs, thresholds]
        .map(|s| {
            // Nobody else may be chosen: that maps the target to node 1.
            let others = (2..=loads.len() as u16).map(NodeId);
            let exclude = others.collect();
            s.schedule(&Request {
                exclude,
                ..request(1)
            })
            .unwrap();
            set_loads(s, loads);
            s.schedule(&request(1)).unwrap().0
        })
        .into()
}

fn with(kind: PolicyKind, nodes: u16, changes: &[(&'static str, u32)]) -> Sched {
    let mut s = scheduler(kind, nodes, 4);
    s.set_params(changes.iter().copied()).unwrap();
    s
}

/// Small thresholds, so that two nodes can have all loads: T_low 5, T_high 13, and what corresponds.
const LOW: u32 = 5;
const HIGH: u32 = 13;

fn cost_form(miss: u32) -> Sched {
    let changes = [
        ("l-idle", LOW),
        ("l-overload", 2 * HIGH - 1),
        ("miss-cost", miss),
    ];
    with(PolicyKind::Extlard, 2, &changes)
}

fn threshold_form() -> Sched {
    with(PolicyKind::Lard, 2, &[("t-low", LOW), ("t-high", HIGH)])
}

fn all_loads() -> impl Iterator<Item = [u32; 2]> {
    (0..40).flat_map(|mapped| (0..40).map(move |other| [mapped, other]))
}

/// With MissCost = T_high - T_low the cost form moves one connection earlier.
#[test]
fn beside_an_idle_node_the_cost_form_moves_at_t_high_and_the_threshold_form_above() {
    let (mut costs, mut thresholds) = (cost_form(HIGH - LOW), threshold_form());
    for loads in all_loads().filter(|loads| loads[1] < LOW) {
        let (by_costs, by_thresholds) = both_forms(&mut costs, &mut thresholds, &loads);
        if loads[0] == HIGH {
            assert_eq!((by_costs, by_thresholds), (2, 1), "{loads:?}");
        } else {
            assert_eq!(by_costs, by_thresholds, "{loads:?}");
        }
    }
}

#[test]
fn beside_an_idle_node_both_forms_agree_with_one_more_for_a_miss() {
    let (mut costs, mut thresholds) = (cost_form(HIGH - LOW + 1), threshold_form());
    for loads in all_loads().filter(|loads| loads.iter().any(|load| *load < LOW)) {
        let (by_costs, by_thresholds) = both_forms(&mut costs, &mut thresholds, &loads);
        assert_eq!(by_costs, by_thresholds, "{loads:?}");
    }
}

/// Without an idle node they are different rules: that of each, for all loads.
#[test]
fn without_an_idle_node_each_form_has_its_own_rule() {
    let miss = HIGH - LOW;
    let (mut costs, mut thresholds) = (cost_form(miss), threshold_form());
    let mut differ = 0;
    for loads in all_loads().filter(|loads| loads.iter().all(|load| *load >= LOW)) {
        let [mapped, other] = loads;
        let (by_costs, by_thresholds) = both_forms(&mut costs, &mut thresholds, &loads);
        let moves = mapped >= 2 * HIGH && other < mapped;
        assert_eq!(by_thresholds == 2, moves, "{loads:?}");
        let limit = 2 * HIGH - 1;
        let moves = match (mapped > limit, other > limit) {
            (false, true) => false,
            // Its cost is 2 * miss more, less the 1 of a mapped target.
            (false, false) => mapped + 1 > other + 2 * miss,
            (true, false) => true,
            (true, true) => other < mapped,
        };
        assert_eq!(by_costs == 2, moves, "{loads:?}");
        differ += u32::from(by_costs != by_thresholds);
    }
    assert!(differ > 0);
}

proptest! {
    #[test]
    fn an_unmapped_target_goes_to_the_same_node_in_both_forms(
        loads in prop::collection::vec(0u32..200, 2..10),
    ) {
        let [mut costs, mut thresholds] = [PolicyKind::Extlard, PolicyKind::Lard]
            .map(|kind| scheduler(kind, loads.len() as u16, 4));
        set_loads(&mut costs, &loads);
        set_loads(&mut thresholds, &loads);
        let by_costs = costs.schedule(&request(9)).unwrap();
        // Below L_idle all loads cost the same; ties go to the least loaded.
        prop_assert_eq!(Some(by_costs), thresholds.schedule(&request(9)));
    }

    /// No request stays on its node while that one is above T_high and another is below T_low.
    #[test]
    fn nobody_waits_beside_an_idle_node(
        loads in prop::collection::vec(0u32..140, 2..20),
        key: u64,
        replicates: bool,
    ) {
        let kind = if replicates { PolicyKind::Lardr } else { PolicyKind::Lard };
        let mut s = scheduler(kind, loads.len() as u16, 4);
        s.schedule(&request(key)).unwrap();
        set_loads(&mut s, &loads);
        let chosen = s.schedule(&request(key)).unwrap();
        let load = loads[usize::from(chosen.0) - 1];
        let least = *loads.iter().min().unwrap();
        prop_assert!(load <= 65 || least >= 25, "{load} {least}");
        prop_assert!(load < 130 || load == least);
    }

    /// No policy chooses a node that is down, drains, has no weight or is excluded, whatever it has
    /// learnt before.
    #[test]
    fn who_may_not_be_chosen_is_not(
        steps in prop::collection::vec(
            (0u64..30, 1u16..=6, 0usize..5, 0u64..64, any::<prop::sample::Index>()), 1..200),
    ) {
        let mut s = scheduler(PolicyKind::Wrr, 6, 8);
        for (key, node, change, exclude, policy) in steps {
            s.set_policy(*policy.get(&PolicyKind::ALL));
            let states = [NodeState::Up, NodeState::Up, NodeState::Draining, NodeState::Down];
            let weight = if change == 4 { 0 } else { 1 };
            s.upd_dest(NodeId(node), Some(weight), states.get(change).copied()).unwrap();
            let request = Request { exclude: NodeSet::from_bits(exclude), ..request(key) };
            match s.schedule(&request) {
                Some(node) => {
                    let dest = s.nodes().get(node).unwrap();
                    prop_assert!(dest.is_available() && !request.exclude.contains(node));
                }
                None => prop_assert_eq!(s.nodes().eligible(&request).count(), 0),
            }
        }
    }

    /// Bounded loads are bounded when connections only come.
    #[test]
    fn no_node_is_given_more_than_its_part(
        keys in prop::collection::vec(0u64..3, 1..400),
        percent in 101u32..200,
    ) {
        let mut s = scheduler(PolicyKind::Chbl, 5, 0);
        s.set_params([("balance-percent", percent)]).unwrap();
        for (all, key) in (1u32..).zip(keys) {
            let node = s.schedule(&request(key)).unwrap();
            let load = s.nodes().get(node).unwrap().load;
            prop_assert!(load <= (percent * all).div_ceil(500), "{load} of {all}");
        }
    }

    /// The sum of the loads is what was assigned, less what was closed, less what nodes took with
    /// them; and messages that were lost stay until the node reports.
    #[test]
    fn loads_are_conserved(
        ops in prop::collection::vec((0u8..12, 0u64..30, any::<prop::sample::Index>()), 0..400),
        policy in any::<prop::sample::Index>(),
    ) {
        let mut s = scheduler(*policy.get(&PolicyKind::ALL), 4, 16);
        let mut open: Vec<(NodeId, bool)> = Vec::new();
        let mut lost = [0u32; 5];
        for (op, key, pick) in ops {
            match op {
                0..=4 => open.extend(s.schedule(&request(key)).map(|n| (n, true))),
                5..=7 if !open.is_empty() => {
                    let (node, known) = open.swap_remove(pick.index(open.len()));
                    if known {
                        prop_assert!(s.finished(node));
                    }
                }
                // The connection is over, but nobody hears of it.
                8 if !open.is_empty() => {
                    let (node, known) = open.swap_remove(pick.index(open.len()));
                    lost[usize::from(node.0)] += u32::from(known);
                }
                // The node says what it has.
                9 => {
                    let node = NodeId(1 + pick.index(4) as u16);
                    let has = open.iter().filter(|(n, known)| *n == node && *known).count();
                    s.set_load(node, has as u32).unwrap();
                    lost[usize::from(node.0)] = 0;
                }
                10 => {
                    let node = NodeId(1 + pick.index(4) as u16);
                    s.upd_dest(node, None, Some(NodeState::Down)).unwrap();
                    open.iter_mut().filter(|(n, _)| *n == node).for_each(|(_, known)| *known = false);
                    lost[usize::from(node.0)] = 0;
                }
                11 => {
                    let node = NodeId(1 + pick.index(4) as u16);
                    s.upd_dest(node, None, Some(NodeState::Up)).unwrap();
                }
                _ => {}
            }
            for dest in s.nodes().iter() {
                let has = open.iter().filter(|(n, known)| *n == dest.node && *known).count();
                prop_assert_eq!(dest.load, has as u32 + lost[usize::from(dest.node.0)]);
            }
        }
    }
}

#[test]
fn a_replicated_target_has_no_more_nodes_than_there_are() {
    let mut s = scheduler(PolicyKind::Lardr, 5, 4);
    for _ in 0..2_000 {
        s.schedule(&request(1)).unwrap();
    }
    assert_eq!(s.targets().peek(request(1).key).unwrap().nodes.len(), 5);
    let loads: HashSet<_> = s.nodes().iter().map(|d| d.load).collect();
    assert_eq!(loads, HashSet::from([400]));
}

#[test]
fn a_table_of_one_slot_is_a_bound() {
    for kind in [PolicyKind::Lard, PolicyKind::Lardr, PolicyKind::Extlard] {
        let mut s = scheduler(kind, 4, 1);
        for key in 0..100 {
            s.schedule(&request(key)).unwrap();
            assert_eq!(s.targets().len(), WAYS.min(key as usize + 1));
            assert!(s.targets().peek(request(key).key).is_some());
        }
        assert_eq!(s.targets().evictions(), 100 - WAYS as u64);
    }
}

#[test]
fn a_table_for_a_million_targets_holds_nearly_all_of_them_and_is_a_bound() {
    const MANY: u64 = 1_000_000;
    let slots = Slot::<1>::needed(MANY as usize);
    let mut s = scheduler(PolicyKind::Lard, 8, slots);
    let key = |n: u64| {
        // Keys as a keyed hash makes them: those of request() are spread too evenly.
        let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for shift in [30, 27, 31] {
            x = (x ^ x >> shift).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        x
    };
    let mut assign = |n: u64| {
        let request = Request {
            key: key(n),
            ..request(0)
        };
        let node = s.schedule(&request).unwrap();
        s.finished(node);
    };
    (0..MANY).for_each(&mut assign);
    let held = s.targets().len() as u64;
    assert_eq!(held + s.targets().evictions(), MANY);
    assert!(held > MANY / 100 * 98, "{held}");
    // What is asked for again is still there when as many others have come.
    let mut assign = |n: u64| {
        let request = Request {
            key: key(n),
            ..request(0)
        };
        let known = s.targets().peek(request.key).is_some();
        let node = s.schedule(&request).unwrap();
        s.finished(node);
        known
    };
    let mut kept = 0;
    for n in MANY..2 * MANY {
        assign(n);
        kept += u32::from(assign(n % 1_000));
    }
    assert!(kept > 999_000, "{kept}");
    for n in 2 * MANY..6 * MANY {
        assign(n);
    }
    assert!(s.targets().len() <= s.targets().capacity());
    assert_eq!(s.targets().capacity(), slots * WAYS);
}
