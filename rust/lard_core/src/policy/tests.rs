// SPDX-License-Identifier: GPL-2.0

//! What each policy must do, case by case. Random sequences against naive models are in
//! `tests/policy_models.rs`.

use super::super::addr::NodeId;
use super::super::time::Instant;
use super::*;

type Sched = Scheduler<Vec<Slot>>;

fn scheduler(kind: PolicyKind, weights: &[u16]) -> Sched {
    let mut s = Scheduler::new(kind, vec![Slot::EMPTY; 16]);
    for (i, weight) in weights.iter().enumerate() {
        s.add_dest(NodeId(i as u16 + 1), *weight).unwrap();
    }
    s
}

fn request(key: u64) -> Request {
    Request {
        // Spread over the table as a hash would.
        key: key.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        exclude: NodeSet::EMPTY,
        tags: Tags::NONE,
        now: Instant::ZERO,
    }
}

fn choose(s: &mut Sched, key: u64) -> Option<u16> {
    s.schedule(&request(key)).map(|n| n.0)
}

fn load(s: &Sched, node: u16) -> u32 {
    s.nodes().get(NodeId(node)).unwrap().load
}

fn mapped(s: &Sched, key: u64) -> Vec<u16> {
    let servers = s.targets().peek(request(key).key).unwrap_or_default();
    servers.nodes.iter().map(|n| n.0).collect()
}

fn on(node: u16) -> Servers {
    Servers {
        nodes: NodeSet::EMPTY.with(NodeId(node)),
        changed: Instant::ZERO,
    }
}

#[test]
fn round_robin_is_smooth() {
    let mut s = scheduler(PolicyKind::Wrr, &[5, 1, 1]);
    let order: Vec<_> = (0..7).map(|_| choose(&mut s, 0).unwrap()).collect();
    assert_eq!(order, [1, 1, 2, 1, 3, 1, 1]);
    assert_eq!([load(&s, 1), load(&s, 2), load(&s, 3)], [5, 1, 1]);
}

#[test]
fn round_robin_passes_over_who_may_not_be_chosen() {
    let mut s = scheduler(PolicyKind::Wrr, &[1, 1, 1, 0]);
    s.upd_dest(NodeId(1), None, Some(NodeState::Draining))
        .unwrap();
    let mut second = request(0);
    second.exclude.insert(NodeId(2));
    assert_eq!(s.schedule(&second), Some(NodeId(3)));
    s.upd_dest(NodeId(3), None, Some(NodeState::Down)).unwrap();
    assert_eq!(choose(&mut s, 0), Some(2));
    assert_eq!(s.schedule(&second), None);
}

#[test]
fn lard_keeps_a_target_on_its_node() {
    let mut s = scheduler(PolicyKind::Lard, &[1; 4]);
    let first = choose(&mut s, 1).unwrap();
    for _ in 0..64 {
        assert_eq!(choose(&mut s, 1), Some(first));
    }
    assert_eq!(load(&s, first), 65);
}

#[test]
fn lard_spreads_targets_over_idle_nodes() {
    let mut s = scheduler(PolicyKind::Lard, &[1; 4]);
    // One request at a time: every node is idle whenever the next target comes.
    let nodes: Vec<_> = (0..8)
        .map(|key| {
            let node = choose(&mut s, key).unwrap();
            assert!(s.finished(NodeId(node)));
            node
        })
        .collect();
    assert_eq!(nodes, [1, 2, 3, 4, 1, 2, 3, 4]);
    for key in 0..8 {
        assert_eq!(choose(&mut s, key), Some(nodes[key as usize]));
    }
}

#[test]
fn lard_moves_a_target_from_an_overloaded_to_an_idle_node() {
    let mut s = scheduler(PolicyKind::Lard, &[1; 2]);
    s.set_load(NodeId(2), 24).unwrap();
    // Node 1 is the less loaded one.
    for _ in 0..66 {
        assert_eq!(choose(&mut s, 1), Some(1));
    }
    // 66 > T_high, and node 2 is below T_low.
    assert_eq!(choose(&mut s, 1), Some(2));
    assert_eq!(s.targets().changes(), 1);
    assert_eq!(mapped(&s, 1), [2]);
}

#[test]
fn lard_does_not_move_while_no_node_is_idle() {
    let mut s = scheduler(PolicyKind::Lard, &[1; 2]);
    assert_eq!(choose(&mut s, 1), Some(1));
    s.set_load(NodeId(1), 129).unwrap();
    s.set_load(NodeId(2), 25).unwrap();
    assert_eq!(choose(&mut s, 1), Some(1));
    // Now it has 2 * T_high.
    assert_eq!(choose(&mut s, 1), Some(2));
    // Above the limit on every node there is nowhere to go but to the least loaded.
    s.set_load(NodeId(2), 131).unwrap();
    assert_eq!(choose(&mut s, 1), Some(1));
}

#[test]
fn weights_scale_loads_and_thresholds() {
    let mut s = scheduler(PolicyKind::Lard, &[1, 3]);
    s.set_load(NodeId(1), 10).unwrap();
    s.set_load(NodeId(2), 29).unwrap();
    // 29/3 < 10/1.
    assert_eq!(choose(&mut s, 1), Some(2));
    s.set_load(NodeId(2), 3 * 65).unwrap();
    assert_eq!(choose(&mut s, 1), Some(2));
    assert_eq!(choose(&mut s, 1), Some(1));
}

#[test]
fn a_mapping_to_a_node_that_may_not_be_chosen_counts_as_none() {
    for state in [NodeState::Draining, NodeState::Down] {
        let mut s = scheduler(PolicyKind::Lard, &[1; 3]);
        let first = choose(&mut s, 1).unwrap();
        s.upd_dest(NodeId(first), None, Some(state)).unwrap();
        let second = choose(&mut s, 1).unwrap();
        assert_ne!(first, second);
        s.upd_dest(NodeId(first), None, Some(NodeState::Up))
            .unwrap();
        assert_eq!(
            choose(&mut s, 1),
            Some(second),
            "the target has moved for good"
        );
    }
    let mut s = scheduler(PolicyKind::Lard, &[1; 2]);
    let first = choose(&mut s, 1).unwrap();
    let mut again = request(1);
    again.exclude.insert(NodeId(first));
    let second = s.schedule(&again).unwrap();
    assert_ne!(second, NodeId(first));
    again.exclude.insert(second);
    assert_eq!(s.schedule(&again), None);
    s.del_dest(second).unwrap();
    assert_eq!(choose(&mut s, 1), Some(first));
}

#[test]
fn loads_are_counted_and_never_negative() {
    let mut s = scheduler(PolicyKind::Lard, &[1]);
    assert!(!s.finished(NodeId(1)));
    choose(&mut s, 1);
    assert!(s.finished(NodeId(1)));
    assert!(!s.finished(NodeId(1)));
    assert!(!s.finished(NodeId(2)));
    assert_eq!(load(&s, 1), 0);
    choose(&mut s, 1);
    s.upd_dest(NodeId(1), None, Some(NodeState::Down)).unwrap();
    assert_eq!(load(&s, 1), 0, "a dead node serves nothing");
    assert_eq!(s.nodes().get(NodeId(1)).unwrap().assigned, 2);
    s.set_load(NodeId(1), u32::MAX).unwrap();
    s.upd_dest(NodeId(1), None, Some(NodeState::Up)).unwrap();
    s.set_load(NodeId(1), u32::MAX).unwrap();
    choose(&mut s, 1);
    assert_eq!(load(&s, 1), u32::MAX);
}

#[test]
fn nodes_are_checked() {
    let mut s = scheduler(PolicyKind::Wrr, &[1]);
    assert_eq!(s.add_dest(NodeId(1), 1), Err(NodeError::Exists));
    assert_eq!(s.add_dest(NodeId(0), 1), Err(NodeError::Number));
    assert_eq!(s.add_dest(NodeId(65), 1), Err(NodeError::Number));
    assert_eq!(s.add_dest(NodeId(2), 1_001), Err(NodeError::Weight));
    assert_eq!(s.add_dest(NodeId(64), 1_000), Ok(()));
    assert_eq!(
        s.upd_dest(NodeId(2), Some(1), None),
        Err(NodeError::Unknown)
    );
    assert_eq!(
        s.upd_dest(NodeId(1), Some(2_000), None),
        Err(NodeError::Weight)
    );
    assert_eq!(s.set_load(NodeId(3), 1), Err(NodeError::Unknown));
    assert_eq!(s.del_dest(NodeId(3)).unwrap_err(), NodeError::Unknown);
    assert_eq!(s.del_dest(NodeId(1)).unwrap().node, NodeId(1));
    assert_eq!(s.nodes().iter().map(|d| d.node.0).collect::<Vec<_>>(), [64]);
    assert_eq!(s.nodes().present().len(), 1);
}

#[test]
fn parameters_change_together_or_not_at_all() {
    let mut s = scheduler(PolicyKind::Lard, &[1]);
    for (i, spec) in Params::ALL.iter().enumerate() {
        assert_eq!(s.params().value(i), spec.default, "{}", spec.name);
        let is_named = spec.word(spec.default).is_some();
        assert!(is_named || (spec.min..=spec.max).contains(&spec.default));
    }
    let set =
        |s: &mut Sched, changes: &[(&'static str, u32)]| s.set_params(changes.iter().copied());
    assert_eq!(
        set(&mut s, &[("t-low", 100), ("t-high", 200), ("k-s", 5)]),
        Ok(())
    );
    let order = Err(ParamError::Order("t-low", "t-high"));
    assert_eq!(set(&mut s, &[("t-low", 200)]), order);
    let range = Err(ParamError::Range("t-high", 1, Params::MAX));
    assert_eq!(set(&mut s, &[("t-high", u32::MAX)]), range);
    assert_eq!(set(&mut s, &[("t-high", 0)]), range);
    assert_eq!(
        set(&mut s, &[("t-low", 1), ("k", 1)]),
        Err(ParamError::Unknown)
    );
    let order = Err(ParamError::Order("l-idle", "l-overload"));
    assert_eq!(set(&mut s, &[("l-idle", 130)]), order);
    assert_eq!(
        (s.params().t_low, s.params().t_high, s.params().k_s),
        (100, 200, 5)
    );
}

#[test]
fn policies_can_be_changed_while_running() {
    let mut s = scheduler(PolicyKind::Lard, &[1; 2]);
    let mapped = choose(&mut s, 1);
    s.set_policy("wrr".parse().unwrap());
    assert_eq!([choose(&mut s, 1), choose(&mut s, 1)], [Some(1), Some(2)]);
    s.set_policy(PolicyKind::Lardr);
    assert_eq!(choose(&mut s, 1), mapped);
    for kind in PolicyKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    assert_eq!("rr".parse::<PolicyKind>(), Err(UnknownPolicy));
}

#[test]
fn a_restart_forgets_what_was_set_and_keeps_what_was_learnt() {
    let mut s = scheduler(PolicyKind::Lard, &[1; 2]);
    let mapped = choose(&mut s, 1);
    s.set_params([("t-low", 1), ("t-high", 2)]).unwrap();
    s.set_policy(PolicyKind::Wrr);
    s.set_further_policy(Some(PolicyKind::Wrr));
    s.restart(PolicyKind::Lard);
    assert_eq!(*s.params(), Params::DEFAULT);
    assert_eq!(choose(&mut s, 1), mapped);
    let home = mapped.map(NodeId).unwrap();
    assert_eq!(s.schedule_next(&request(1), home), Some(home));
}

#[test]
fn the_table_forgets_what_was_not_used_for_longest() {
    let mut t = TargetTable::new(vec![Slot::EMPTY; 1]);
    for key in 1..=6 {
        assert_eq!(t.insert(key, on(1)), None);
    }
    assert_eq!(t.lookup(1), Some(on(1)));
    assert_eq!(t.insert(2, on(2)), None);
    assert_eq!(t.changes(), 1);
    assert_eq!(t.insert(7, on(1)), Some(3));
    assert_eq!(t.peek(3), None);
    let keys = |t: &TargetTable<Vec<Slot>>| t.iter().map(|(k, _)| k).collect::<Vec<_>>();
    assert_eq!(keys(&t), [7, 2, 1, 6, 5, 4]);
    assert_eq!((t.len(), t.capacity(), t.evictions()), (6, 6, 1));
    assert_eq!(t.remove(2), Some(on(2)));
    assert_eq!(t.remove(2), None);
    assert_eq!(t.insert(0, on(1)), None);
    assert_eq!(keys(&t), [0, 7, 1, 6, 5, 4]);
    t.clear();
    assert!(t.is_empty());
    assert_eq!(t.iter().count(), 0);
}

#[test]
fn a_table_moves_to_other_storage_with_its_newest_entries() {
    let mut t = TargetTable::new(vec![Slot::EMPTY; 4]);
    for key in 1..=12 {
        t.insert(key << 60 | key, on(key as u16));
    }
    let keys = |t: &TargetTable<Vec<Slot>>| {
        let mut keys: Vec<_> = t.iter().map(|(k, _)| k >> 60).collect();
        keys.sort();
        keys
    };
    assert_eq!(t.replace_storage(vec![Slot::EMPTY; 100]).len(), 4);
    assert_eq!(keys(&t), (1..=12).collect::<Vec<_>>());
    assert_eq!((t.len(), t.capacity()), (12, 600));
    t.lookup(1 << 60 | 1);
    t.replace_storage(vec![Slot::EMPTY; 1]);
    assert_eq!((t.len(), t.evictions()), (6, 0));
    t.replace_storage(Vec::new());
    assert!(t.is_empty());
}

#[test]
fn a_slot_is_whole_cache_lines() {
    assert_eq!((size_of::<Slot>(), align_of::<Slot>()), (192, 64));
    // What a look reads is in the first.
    assert_eq!(Slot::<1>::SEVERAL, 64);
    assert_eq!(Slot::<16>::SEVERAL, 64);
    let t = TargetTable::new(vec![Slot::<1>::EMPTY; Slot::<1>::needed(65_536)]);
    assert!(t.capacity() >= 2 * 65_536 && t.capacity() < 2 * 65_536 + WAYS);
}

#[test]
fn a_table_without_slots_maps_nothing_and_lard_still_works() {
    let mut s = Scheduler::new(PolicyKind::Lard, Vec::new());
    s.add_dest(NodeId(1), 1).unwrap();
    s.add_dest(NodeId(2), 1).unwrap();
    assert_eq!(choose(&mut s, 1), Some(1));
    assert_eq!(choose(&mut s, 1), Some(2));
    assert!(s.targets().is_empty());
}

#[test]
fn sets_hold_the_nodes_they_can() {
    let mut set = NodeSet::<1>::EMPTY.with(NodeId(1)).with(NodeId(64));
    assert_eq!(set.bits(), 1 << 63 | 1);
    assert_eq!(
        set.with(NodeId(0)).with(NodeId(65)).with(NodeId(4_095)),
        set
    );
    assert_eq!(set.iter().map(|n| n.0).collect::<Vec<_>>(), [1, 64]);
    assert!(!set.contains(NodeId(0)) && !set.contains(NodeId(65)));
    assert_eq!(format!("{set:?}"), "{1, 64}");
    set.remove(NodeId(64));
    assert_eq!(set.len(), 1);
    assert_eq!(NodeSet::from_bits(u64::MAX).iter().count(), 64);
    let wide: NodeSet<3> = [1, 64, 65, 192, 193].map(NodeId).into_iter().collect();
    assert_eq!(
        wide.iter().map(|n| n.0).collect::<Vec<_>>(),
        [1, 64, 65, 192]
    );
    assert_eq!(wide.without(NodeId(65)).len(), 3);
    assert_eq!(
        wide.difference(&wide.without(NodeId(65))).iter().next(),
        Some(NodeId(65))
    );
}

#[test]
fn least_connections_takes_turns_among_equals() {
    let mut s = scheduler(PolicyKind::Lc, &[1, 1, 2]);
    let order: Vec<_> = (0..8).map(|_| choose(&mut s, 0).unwrap()).collect();
    assert_eq!(order, [1, 2, 3, 3, 1, 2, 3, 3]);
}

#[test]
fn a_partition_does_not_look_at_load() {
    let mut s = scheduler(PolicyKind::Lb, &[1; 4]);
    for key in 0..50 {
        let first = choose(&mut s, key);
        s.set_load(NodeId(first.unwrap()), 10_000).unwrap();
        assert_eq!(choose(&mut s, key), first);
    }
}

#[test]
fn bounded_loads_send_on_what_is_too_much() {
    let mut s = scheduler(PolicyKind::Chbl, &[1; 4]);
    for _ in 0..80 {
        choose(&mut s, 1);
    }
    // 81 * 1.25 / 4 = 25.3: nobody was given a 27th.
    let mut loads: Vec<_> = (1..=4).map(|n| load(&s, n)).collect();
    loads.sort();
    assert!(loads[3] <= 26, "{loads:?}");
    assert_eq!(loads.iter().sum::<u32>(), 80);
    assert!(
        loads[0] < 10,
        "the last one in the order gets what is left: {loads:?}"
    );
}

#[test]
fn replication_adds_nodes_for_a_hot_target_and_drops_them_later() {
    let mut s = scheduler(PolicyKind::Lardr, &[1; 3]);
    let mut ask = |second: u64, loads: [u32; 3]| {
        for (node, load) in (1..).zip(loads) {
            s.set_load(NodeId(node), load).unwrap();
        }
        let mut request = request(1);
        request.now = Instant::from_millis(second * 1_000);
        let node = s.schedule(&request).unwrap().0;
        (node, mapped(&s, 1))
    };
    assert_eq!(ask(0, [0, 1, 1]), (1, vec![1]));
    assert_eq!(
        ask(100, [66, 30, 24]),
        (3, vec![1, 3]),
        "added and not moved"
    );
    assert_eq!(ask(101, [66, 30, 65]), (3, vec![1, 3]));
    assert_eq!(ask(102, [140, 30, 131]), (2, vec![1, 2, 3]));
    assert_eq!(
        ask(122, [140, 30, 131]),
        (2, vec![1, 2, 3]),
        "not longer than K"
    );
    assert_eq!(
        ask(123, [40, 30, 50]),
        (2, vec![1, 2]),
        "the most loaded one goes"
    );
    assert_eq!(
        ask(124, [40, 30, 0]),
        (2, vec![1, 2]),
        "one every K seconds"
    );
    assert_eq!(ask(144, [40, 30, 0]), (2, vec![2]));
    assert_eq!(ask(944, [40, 30, 0]), (2, vec![2]), "one stays");
}

#[test]
fn costs_decide_where_a_target_goes() {
    let mut s = scheduler(PolicyKind::Extlard, &[1; 3]);
    let mut ask = |loads: [u32; 3]| {
        for (node, load) in (1..).zip(loads) {
            s.set_load(NodeId(node), load).unwrap();
        }
        choose(&mut s, 1).unwrap()
    };
    assert_eq!(ask([10, 9, 9]), 2);
    // Mapped: load - 30 + 1. Idle and not mapped: 50.
    assert_eq!(ask([0, 78, 40]), 2);
    assert_eq!(ask([0, 79, 40]), 2, "equal costs stay");
    assert_eq!(ask([0, 80, 40]), 1);
    // Loaded and not mapped: load - 30 + 100.
    assert_eq!(ask([130, 131, 31]), 1, "equal costs, within the limit");
    assert_eq!(ask([131, 131, 130]), 3, "beyond the limit");
    assert_eq!(
        ask([132, 131, 133]),
        2,
        "the least loaded where all are beyond"
    );
}

#[test]
fn later_requests_are_read_here_while_the_disk_is_idle() {
    let mut s = scheduler(PolicyKind::Extlard, &[1; 2]);
    let elsewhere = s.open(&request(7)).unwrap();
    let mut conn = s.open(&request(1)).unwrap();
    assert_eq!((elsewhere.home(), conn.home()), (NodeId(1), NodeId(2)));
    s.batch(&mut conn, 3);
    // Busy: the content comes from where it is, and is not mapped here.
    s.set_disk_queue(NodeId(2), 5).unwrap();
    let next = |s: &mut Sched, conn: &mut _, key| s.next(conn, &request(key), Mechanism::Forward);
    assert_eq!(next(&mut s, &mut conn, 7), Some(NodeId(1)));
    assert_eq!(next(&mut s, &mut conn, 7), Some(NodeId(1)));
    assert_eq!(mapped(&s, 7), [1]);
    assert_eq!(s.nodes().get(NodeId(1)).unwrap().shares, 2 * (UNIT / 3));
    // Nobody has it: it is read here after all.
    assert_eq!(next(&mut s, &mut conn, 8), Some(NodeId(2)));
    assert_eq!(mapped(&s, 8), [2]);
    // Idle again.
    s.batch(&mut conn, 1);
    assert_eq!(s.nodes().get(NodeId(1)).unwrap().shares, 0);
    s.set_disk_queue(NodeId(2), 4).unwrap();
    assert_eq!(next(&mut s, &mut conn, 7), Some(NodeId(2)));
    assert_eq!(mapped(&s, 7), [1, 2]);
    s.idle(&mut conn);
    assert_eq!((load(&s, 1), load(&s, 2)), (1, 0));
    s.batch(&mut conn, 1);
    s.close(conn);
    s.close(elsewhere);
    assert_eq!((load(&s, 1), load(&s, 2)), (0, 0));
}

#[test]
fn a_connection_moves_with_its_load() {
    let mut s = scheduler(PolicyKind::Lard, &[1; 2]);
    let mut conn = s.open(&request(1)).unwrap();
    let other = s.open(&request(2)).unwrap();
    s.batch(&mut conn, 1);
    let node = s.next(&mut conn, &request(2), Mechanism::Move);
    assert_eq!((node, conn.home()), (Some(NodeId(2)), NodeId(2)));
    assert_eq!((load(&s, 1), load(&s, 2)), (0, 2));
    s.close(conn);
    s.close(other);
    assert_eq!((load(&s, 1), load(&s, 2)), (0, 0));
}

#[test]
fn tags_narrow_the_choice_for_every_policy() {
    for kind in PolicyKind::ALL {
        let mut s = scheduler(kind, &[1; 4]);
        s.set_tags(NodeId(3), Tags(0b11)).unwrap();
        s.set_tags(NodeId(4), Tags(0b10)).unwrap();
        for key in 0..20 {
            let ask = |s: &mut Sched, tags| {
                let request = Request {
                    tags: Tags(tags),
                    ..request(key)
                };
                s.schedule(&request).map(|n| n.0)
            };
            assert!(matches!(ask(&mut s, 0b10), Some(3 | 4)), "{kind}");
            assert_eq!(ask(&mut s, 0b01), Some(3), "{kind}");
            assert_eq!(ask(&mut s, 0b100), None, "{kind}");
        }
    }
}

#[test]
fn a_further_request_stays_only_where_its_tags_are() {
    for kind in PolicyKind::ALL {
        let mut s = scheduler(kind, &[1; 3]);
        s.set_tags(NodeId(1), Tags(0b01)).unwrap();
        s.set_tags(NodeId(2), Tags(0b10)).unwrap();
        let mut ask = |home, tags| {
            let request = Request {
                tags: Tags(tags),
                ..request(7)
            };
            s.schedule_next(&request, NodeId(home)).map(|n| n.0)
        };
        assert_eq!(ask(1, 0b01), Some(1), "{kind}");
        assert_eq!(ask(1, 0b10), Some(2), "{kind}");
        assert_eq!(ask(3, 0b01), Some(1), "{kind}");
        assert_eq!(ask(1, 0b100), None, "{kind}");
    }
}

#[test]
fn further_requests_can_be_decided_by_another_policy() {
    let mut s = scheduler(PolicyKind::Lard, &[1; 2]);
    assert_eq!([choose(&mut s, 1), choose(&mut s, 2)], [Some(1), Some(2)]);
    let next = |s: &mut Sched| {
        let node = s.schedule_next(&request(2), NodeId(1)).unwrap();
        if node != NodeId(1) {
            assert!(s.finished(node));
        }
        node.0
    };
    assert_eq!(next(&mut s), 2, "as a first one");
    s.set_further_policy(Some(PolicyKind::Extlard));
    s.set_disk_queue(NodeId(1), 5).unwrap();
    assert_eq!((next(&mut s), mapped(&s, 2)), (2, vec![2]), "a busy disk");
    s.set_disk_queue(NodeId(1), 4).unwrap();
    assert_eq!((next(&mut s), mapped(&s, 2)), (1, vec![1, 2]));
    assert_eq!(choose(&mut s, 3), Some(1), "first ones as before");
    s.set_further_policy(None);
    assert_eq!(s.policy(), PolicyKind::Lard);
}

#[test]
fn the_admission_limit_is_the_papers() {
    let mut s = scheduler(PolicyKind::Lard, &[1, 1, 1, 1]);
    s.set_params([("max-connections", Params::AUTO)]).unwrap();
    assert_eq!(s.limit(), Some(3 * 65 + 25 - 1));
    s.set_load(NodeId(1), 218).unwrap();
    assert!(!s.is_full());
    s.set_load(NodeId(2), 1).unwrap();
    assert!(s.is_full() && s.is_saturated());
    s.upd_dest(NodeId(1), None, Some(NodeState::Draining))
        .unwrap();
    assert!(
        !s.is_full(),
        "what a draining node has is no load of the others"
    );
}

#[test]
fn the_papers_admission_limit_is_for_policies_with_thresholds() {
    let mut s = scheduler(PolicyKind::Lardr, &[3]);
    assert_eq!(s.limit(), None, "unless one is asked for");
    s.set_params([("max-connections", Params::AUTO)]).unwrap();
    assert_eq!(s.limit(), Some(2 * 65 + 25 - 1));
    for kind in PolicyKind::ALL {
        s.set_policy(kind);
        let has_limit = matches!(kind, PolicyKind::Lard | PolicyKind::Lardr);
        assert_eq!(s.limit().is_some(), has_limit, "{kind}");
    }
    s.set_params([("max-connections", 7)]).unwrap();
    assert_eq!(s.limit(), Some(7));
    s.set_policy(PolicyKind::Lard);
    s.set_params([("max-connections", Params::OFF)]).unwrap();
    assert_eq!(s.limit(), None);
    // With the smallest thresholds one connection can still be served.
    s.set_params([("max-connections", Params::AUTO), ("t-low", 1)])
        .unwrap();
    s.upd_dest(NodeId(1), Some(1), None).unwrap();
    assert_eq!(s.limit(), Some(1));
}

#[test]
fn values_of_parameters_can_have_names() {
    let spec = |name| Params::ALL.into_iter().find(|s| s.name == name).unwrap();
    let limit = spec("max-connections");
    assert_eq!(limit.parse("auto"), Some(Params::AUTO));
    assert_eq!(limit.parse("off"), Some(Params::OFF));
    assert_eq!(limit.parse("250"), Some(250));
    assert_eq!(limit.parse("many"), None);
    assert_eq!(limit.word(Params::AUTO), Some("auto"));
    assert_eq!(limit.word(250), None);
    assert_eq!(spec("t-low").parse("auto"), None);
    let beyond = Params::DEFAULT.with([("max-connections", Params::MAX + 1)]);
    assert_eq!(
        beyond,
        Err(ParamError::Range("max-connections", 0, Params::MAX))
    );
}
