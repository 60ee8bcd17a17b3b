// SPDX-License-Identifier: GPL-2.0

//! Policies and the target table against naive models, over random sequences of operations.
//!
//! The models (`policy/`) are written from the papers' pseudo-code, with maps and vectors and no
//! thought for speed, and share no code with what they check.

#[path = "policy/model.rs"]
mod model;

use lard_core::addr::NodeId;
use lard_core::policy::*;
use lard_core::time::Instant;
use model::Model;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Schedule {
        key: u64,
        exclude: u64,
        tags: u32,
    },
    Finish {
        node: u16,
    },
    Open {
        key: u64,
    },
    Batch {
        conn: usize,
        requests: u16,
    },
    Next {
        conn: usize,
        key: u64,
        moves: bool,
    },
    Idle {
        conn: usize,
    },
    Close {
        conn: usize,
    },
    Add {
        node: u16,
        weight: u16,
    },
    Del {
        node: u16,
    },
    Weight {
        node: u16,
        weight: u16,
    },
    State {
        node: u16,
        state: NodeState,
    },
    Tag {
        node: u16,
        tags: u32,
    },
    Load {
        node: u16,
        load: u32,
    },
    Disk {
        node: u16,
        length: u32,
    },
    Params {
        low: u32,
        high: u32,
        k: u32,
        miss: u32,
        percent: u32,
    },
    Pass {
        ms: u64,
    },
}

const NODES: u16 = 6;

fn op() -> impl Strategy<Value = Op> {
    let node = || 1..=NODES;
    let key = || 0u64..40;
    let states = &[
        NodeState::Up,
        NodeState::Up,
        NodeState::Draining,
        NodeState::Down,
    ];
    let tags = || prop_oneof![6 => Just(0u32), 1 => 0u32..4];
    prop_oneof![
        60 => (key(), prop_oneof![4 => Just(0), 1 => 0u64..64], tags())
            .prop_map(|(key, exclude, tags)| Op::Schedule { key, exclude, tags }),
        20 => node().prop_map(|node| Op::Finish { node }),
        10 => key().prop_map(|key| Op::Open { key }),
        5 => (0usize..8, 1u16..5).prop_map(|(conn, requests)| Op::Batch { conn, requests }),
        15 => (0usize..8, key(), any::<bool>())
            .prop_map(|(conn, key, moves)| Op::Next { conn, key, moves }),
        3 => (0usize..8).prop_map(|conn| Op::Idle { conn }),
        4 => (0usize..8).prop_map(|conn| Op::Close { conn }),
        3 => (node(), 0u16..5).prop_map(|(node, weight)| Op::Add { node, weight }),
        1 => node().prop_map(|node| Op::Del { node }),
        1 => (node(), 0u16..5).prop_map(|(node, weight)| Op::Weight { node, weight }),
        2 => (node(), prop::sample::select(states)).prop_map(|(node, state)| Op::State { node, state }),
        1 => (node(), 0u32..4).prop_map(|(node, tags)| Op::Tag { node, tags }),
        3 => (node(), 0u32..40).prop_map(|(node, load)| Op::Load { node, load }),
        2 => (node(), 0u32..10).prop_map(|(node, length)| Op::Disk { node, length }),
        2 => (1u32..10, 1u32..20, 1u32..4, 1u32..20, 101u32..300)
            .prop_map(|(low, high, k, miss, percent)| Op::Params { low, high, k, miss, percent }),
        10 => (0u64..3_000).prop_map(|ms| Op::Pass { ms }),
    ]
}

/// Keys as a hash would make them.
fn hashed(key: u64) -> u64 {
    (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn request(key: u64, exclude: u64, tags: u32, ms: u64) -> Request {
    Request {
        key: hashed(key),
        exclude: NodeSet::from_bits(exclude),
        tags: Tags(tags),
        now: Instant::from_millis(ms),
    }
}

fn run(kind: PolicyKind, slots: usize, ops: &[Op]) {
    let mut real: Scheduler<Vec<Slot>> = Scheduler::new(kind, vec![Slot::EMPTY; slots]);
    let mut model = Model::new(kind, slots);
    let mut conns: Vec<(Connection, model::Conn)> = Vec::new();
    let mut ms = 0;
    for op in ops {
        match *op {
            Op::Schedule { key, exclude, tags } => {
                let chosen = real.schedule(&request(key, exclude, tags, ms));
                let expected = model.schedule(hashed(key), exclude, tags, ms);
                assert_eq!(chosen.map(|n| n.0), expected, "{op:?}");
            }
            Op::Finish { node } => {
                assert_eq!(real.finished(NodeId(node)), model.finish(node));
            }
            Op::Open { key } => {
                let conn = real.open(&request(key, 0, 0, ms));
                let expected = model.schedule(hashed(key), 0, 0, ms);
                assert_eq!(conn.as_ref().map(|c| c.home().0), expected);
                conns.extend(conn.map(|c| (c, model::Conn::new(expected.unwrap()))));
            }
            Op::Batch { conn, requests } => {
                if let Some((conn, theirs)) = conns.get_mut(conn) {
                    real.batch(conn, requests);
                    model.batch(theirs, requests);
                }
            }
            Op::Next { conn, key, moves } => {
                if let Some((conn, theirs)) = conns.get_mut(conn) {
                    let mechanism = match moves {
                        true => Mechanism::Move,
                        false => Mechanism::Forward,
                    };
                    let node = real.next(conn, &request(key, 0, 0, ms), mechanism);
                    let expected = model.next(theirs, hashed(key), moves, ms);
                    assert_eq!(node.map(|n| n.0), expected, "{op:?}");
                    assert_eq!(conn.home().0, theirs.home);
                    assert_eq!(conn.is_active(), theirs.active);
                }
            }
            Op::Idle { conn } => {
                if let Some((conn, theirs)) = conns.get_mut(conn) {
                    real.idle(conn);
                    model.idle(theirs);
                }
            }
            Op::Close { conn } => {
                if conn < conns.len() {
                    let (conn, mut theirs) = conns.swap_remove(conn);
                    real.close(conn);
                    model.idle(&mut theirs);
                }
            }
            Op::Add { node, weight } => {
                let is_new = real.add_dest(NodeId(node), weight).is_ok();
                assert_eq!(is_new, model.add(node, weight));
            }
            Op::Del { node } => {
                assert_eq!(real.del_dest(NodeId(node)).is_ok(), model.del(node));
            }
            Op::Weight { node, weight } => {
                let known = real.upd_dest(NodeId(node), Some(weight), None).is_ok();
                assert_eq!(known, model.update(node, |n| n.weight = weight.into()));
            }
            Op::State { node, state } => {
                let known = real.upd_dest(NodeId(node), None, Some(state)).is_ok();
                assert_eq!(known, model.update(node, |n| n.set_state(state)));
            }
            Op::Tag { node, tags } => {
                let known = real.set_tags(NodeId(node), Tags(tags)).is_ok();
                assert_eq!(known, model.update(node, |n| n.tags = tags));
            }
            Op::Load { node, load } => {
                let known = real.set_load(NodeId(node), load).is_ok();
                let n = model.nodes.get_mut(&node);
                assert_eq!(known, n.is_some());
                n.into_iter().for_each(|n| n.load = load.into());
            }
            Op::Disk { node, length } => {
                let known = real.set_disk_queue(NodeId(node), length).is_ok();
                let n = model.nodes.get_mut(&node);
                assert_eq!(known, n.is_some());
                n.into_iter().for_each(|n| n.disk_queue = length);
            }
            Op::Params {
                low,
                high,
                k,
                miss,
                percent,
            } => {
                let changes = [
                    ("t-low", low),
                    ("t-high", high),
                    ("k-s", k),
                    ("l-idle", low),
                    ("l-overload", 2 * high),
                    ("miss-cost", miss),
                    ("balance-percent", percent),
                ];
                let valid = real.set_params(changes).is_ok();
                assert_eq!(valid, low < high);
                if valid {
                    model.set_params(low, high, k, miss, percent);
                }
            }
            Op::Pass { ms: more } => ms += more,
        }
        let seen = real.nodes().iter().map(|d| (d.node.0, d.work()));
        let expected = model.nodes.iter().map(|(id, n)| (*id, n.work()));
        assert!(seen.eq(expected), "{op:?}: {:?}", real.nodes());
        assert_eq!(real.is_saturated(), model.is_saturated(), "{op:?}");
        let seen = real.targets().iter().map(|(k, s)| (k, s.nodes.bits()));
        assert!(seen.eq(model.mappings()), "{op:?}");
    }
    for (conn, mut theirs) in conns {
        real.close(conn);
        model.idle(&mut theirs);
    }
    assert!(
        real.nodes().iter().all(|d| d.shares == 0),
        "shares cancel exactly"
    );
}

fn sequence() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 0..300).prop_map(|mut ops| {
        let first = (1..=3).map(|node| Op::Add { node, weight: 1 });
        ops.splice(0..0, first);
        ops
    })
}

macro_rules! models {
    ($($name:ident = $kind:ident;)+) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(100))]
            $(
                #[test]
                fn $name(ops in sequence(), slots in 1usize..8) {
                    run(PolicyKind::$kind, slots, &ops);
                }
            )+
        }
    };
}

models! {
    round_robin_follows_its_model = Wrr;
    least_connections_follows_its_model = Lc;
    partition_follows_its_model = Lb;
    bounded_loads_follow_their_model = Chbl;
    lard_follows_its_model = Lard;
    replication_follows_its_model = Lardr;
    costs_follow_their_model = Extlard;
}

/// The slot of a key is its upper half, scaled to the number of slots.
fn slot_of(key: u64, slots: usize) -> usize {
    ((u128::from(key >> 32) * slots as u128) >> 32) as usize
}

/// What the table keeps: of one node alone it does not know since when.
fn kept(servers: Servers) -> Servers {
    match servers.nodes.len() {
        1 => Servers {
            changed: Instant::ZERO,
            ..servers
        },
        _ => servers,
    }
}

proptest! {
    /// The table against a list for each slot, with keys that fall into few of them.
    #[test]
    fn the_table_is_a_bounded_map(
        slots in 1usize..4,
        ops in prop::collection::vec((0u8..8, 0u64..40, 0u64..64, 0u64..9), 0..600),
    ) {
        let mut table = TargetTable::new(vec![Slot::EMPTY; slots]);
        // The most recently used one last.
        let mut models: Vec<Vec<(u64, Servers)>> = vec![Vec::new(); slots];
        let mut evictions = 0;
        for (op, key, nodes, ms) in ops {
            let key = key << 59 | key;
            let servers = Servers {
                nodes: NodeSet::from_bits(nodes),
                changed: Instant::from_millis(ms),
            };
            let model = &mut models[slot_of(key, slots)];
            let at = model.iter().position(|(k, _)| *k == key);
            match op {
                0..=3 => {
                    let evicted = table.insert(key, servers);
                    if let Some(at) = at {
                        model.remove(at);
                    }
                    model.push((key, kept(servers)));
                    let expected = (model.len() > WAYS).then(|| model.remove(0).0);
                    prop_assert_eq!(evicted, expected);
                    evictions += u64::from(evicted.is_some());
                }
                4 | 5 => {
                    let found = at.map(|at| model.remove(at));
                    prop_assert_eq!(table.lookup(key), found.map(|e| e.1));
                    model.extend(found);
                }
                6 => {
                    let found = at.map(|at| model.remove(at).1);
                    prop_assert_eq!(table.remove(key), found);
                }
                _ => {
                    prop_assert_eq!(table.peek(key), at.map(|at| model[at].1));
                }
            }
            let seen: Vec<_> = table.iter().collect();
            let expected: Vec<_> = models.iter().flat_map(|m| m.iter().rev().copied()).collect();
            prop_assert_eq!(table.len(), expected.len());
            prop_assert_eq!(table.evictions(), evictions);
            prop_assert_eq!(seen, expected);
        }
    }
}
