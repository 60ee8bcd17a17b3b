// SPDX-License-Identifier: GPL-2.0

//! Policies and the target table against naive models, over random sequences of operations.
//!
//! The models (`policy/`) are written from the papers' pseudo-code, with maps and vectors and no
//! thought for speed, and share no code with what they check.

#[path = "policy/model.rs"]
mod model;

use lard_core::addr::{ConnId, NodeId};
use lard_core::policy::*;
use lard_core::time::Instant;
use model::{Model, Set};
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
    Begin {
        key: u64,
        front_end: u16,
    },
    Further {
        conn: usize,
        key: u64,
        batch: u16,
        how: How,
    },
    Say {
        conn: usize,
        idle: bool,
    },
    End {
        conn: usize,
    },
    ResumeAll {
        node: u16,
    },
    ByCost {
        is: bool,
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

/// What becomes of a further request on a tracked connection.
#[derive(Clone, Copy, Debug)]
enum How {
    Forwarded,
    Moved,
    Stays,
}

const NODES: u16 = 6;

/// The nodes' numbers: in one word of a set, and in all of sixteen.
type Ids = [u16; NODES as usize];
const NARROW: Ids = [1, 2, 3, 4, 5, 6];
const WIDE: Ids = [1, 64, 65, 500, 1_000, 1_024];

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
        10 => (key(), node()).prop_map(|(key, front_end)| Op::Begin { key, front_end }),
        20 => (0usize..12, key(), 1u16..5, prop::sample::select(&[How::Forwarded, How::Moved, How::Stays]))
            .prop_map(|(conn, key, batch, how)| Op::Further { conn, key, batch, how }),
        15 => (0usize..12, any::<bool>()).prop_map(|(conn, idle)| Op::Say { conn, idle }),
        5 => (0usize..12).prop_map(|conn| Op::End { conn }),
        1 => node().prop_map(|node| Op::ResumeAll { node }),
        1 => any::<bool>().prop_map(|is| Op::ByCost { is }),
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

fn request<const W: usize>(key: u64, exclude: &Set, tags: u32, ms: u64) -> Request<W> {
    Request {
        key: hashed(key),
        exclude: exclude.iter().copied().map(NodeId).collect(),
        tags: Tags(tags),
        now: Instant::from_millis(ms),
    }
}

fn run<const W: usize>(kind: PolicyKind, ids: Ids, slots: usize, places: usize, ops: &[Op]) {
    let nobody = Set::new();
    // Numbers of nodes in operations are places in the list.
    let id_of = |node: u16| ids[usize::from(node) - 1];
    let mut real: Scheduler<Vec<Slot<W>>, W> = Scheduler::new(kind, vec![Slot::EMPTY; slots]);
    let mut model = Model::new(kind, slots);
    let mut conns: Vec<(Connection, model::Conn)> = Vec::new();
    let mut tracked = Tracked::new(vec![TrackedSlot::EMPTY; places]);
    let mut known: Vec<(ConnId, model::Conn)> = Vec::new();
    let mut overflows = 0;
    let mut ms = 0;
    for op in ops {
        match *op {
            Op::Schedule { key, exclude, tags } => {
                let exclude: Set = (1..=NODES)
                    .filter(|node| exclude >> (node - 1) & 1 == 1)
                    .map(id_of)
                    .collect();
                let chosen = real.schedule(&request(key, &exclude, tags, ms));
                let expected = model.schedule(hashed(key), &exclude, tags, ms);
                assert_eq!(chosen.map(|n| n.0), expected, "{op:?}");
            }
            Op::Finish { node } => {
                let node = id_of(node);
                assert_eq!(real.finished(NodeId(node)), model.finish(node));
            }
            Op::Open { key } => {
                let conn = real.open(&request(key, &nobody, 0, ms));
                let expected = model.schedule(hashed(key), &nobody, 0, ms);
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
                    let node = real.next(conn, &request(key, &nobody, 0, ms), mechanism);
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
                    model.close(&mut theirs);
                }
            }
            Op::Add { node, weight } => {
                let node = id_of(node);
                let is_new = real.add_dest(NodeId(node), weight).is_ok();
                assert_eq!(is_new, model.add(node, weight));
            }
            Op::Del { node } => {
                let node = id_of(node);
                assert_eq!(real.del_dest(NodeId(node)).is_ok(), model.del(node));
            }
            Op::Weight { node, weight } => {
                let node = id_of(node);
                let known = real.upd_dest(NodeId(node), Some(weight), None).is_ok();
                assert_eq!(known, model.update(node, |n| n.weight = weight.into()));
            }
            Op::Begin { key, front_end } => {
                let chosen = real.schedule(&request(key, &nobody, 0, ms));
                assert_eq!(
                    chosen.map(|n| n.0),
                    model.schedule(hashed(key), &nobody, 0, ms)
                );
                let id = ConnId::new(
                    NodeId(id_of(front_end)),
                    ms as u32,
                    known.len() as u32 + ms as u32,
                );
                let is_new = known.iter().all(|(other, _)| *other != id);
                match chosen.filter(|_| is_new && known.len() < 12) {
                    Some(home) => known.push((id, model::Conn::new(home.0))),
                    None => chosen.into_iter().for_each(|home| {
                        real.finished(home);
                        model.finish(home.0);
                    }),
                }
            }
            Op::Further {
                conn,
                key,
                batch,
                how,
            } => {
                let Some((id, theirs)) = known.get_mut(conn) else {
                    continue;
                };
                let (forwards, home) = (matches!(how, How::Forwarded), NodeId(theirs.home));
                let further = Further {
                    conn: *id,
                    home,
                    batch,
                    mechanism: match forwards {
                        true => Mechanism::Forward,
                        false => Mechanism::Move,
                    },
                };
                let node = tracked.next(&mut real, &further, &request(key, &nobody, 0, ms));
                model.batch(theirs, batch);
                let expected = model.next_elsewhere(theirs, hashed(key), forwards, ms);
                assert_eq!(node.map(|n| n.0), expected, "{op:?}");
                // The one node has let go of it, or the other one has not got it.
                let other = node.filter(|node| !forwards && *node != home);
                if let Some(other) = other {
                    let over = match how {
                        How::Moved => core::mem::replace(&mut theirs.home, other.0),
                        _ => other.0,
                    };
                    tracked.finished(&mut real, *id, NodeId(over));
                    model.finish(over);
                }
                if tracked.overflows() != overflows {
                    overflows = tracked.overflows();
                    model.batch(theirs, 1);
                }
            }
            Op::Say { conn, idle } => {
                let Some((id, theirs)) = known.get_mut(conn) else {
                    continue;
                };
                tracked.set_idle(&mut real, *id, NodeId(theirs.home), idle);
                match idle {
                    true => model.idle(theirs),
                    false => model.batch(theirs, 1),
                }
                if tracked.overflows() != overflows {
                    overflows = tracked.overflows();
                    model.batch(theirs, 1);
                }
            }
            Op::End { conn } => {
                if conn < known.len() {
                    let (id, mut theirs) = known.swap_remove(conn);
                    tracked.finished(&mut real, id, NodeId(theirs.home));
                    model.close(&mut theirs);
                }
            }
            Op::ResumeAll { node } => {
                let node = id_of(node);
                tracked.resume_all(&mut real, NodeId(node));
                let here = known
                    .iter_mut()
                    .filter(|(_, c)| c.home == node && !c.active);
                here.for_each(|(_, c)| model.batch(c, 1));
            }
            Op::ByCost { is } => {
                real.set_further_policy(is.then_some(PolicyKind::Extlard));
                model.further = is.then_some(PolicyKind::Extlard);
            }
            Op::State { node, state } => {
                let node = id_of(node);
                let there = real.upd_dest(NodeId(node), None, Some(state)).is_ok();
                assert_eq!(there, model.update(node, |n| n.set_state(state)));
                if state == NodeState::Down {
                    tracked.node_down(&mut real, NodeId(node));
                    for (id, theirs) in &mut known {
                        model.lost(theirs, node);
                        if id.node() == NodeId(node) {
                            model.batch(theirs, 1);
                        }
                    }
                }
            }
            Op::Tag { node, tags } => {
                let node = id_of(node);
                let known = real.set_tags(NodeId(node), Tags(tags)).is_ok();
                assert_eq!(known, model.update(node, |n| n.tags = tags));
            }
            Op::Load { node, load } => {
                let node = id_of(node);
                let known = real.set_load(NodeId(node), load).is_ok();
                let n = model.nodes.get_mut(&node);
                assert_eq!(known, n.is_some());
                n.into_iter().for_each(|n| n.load = load.into());
            }
            Op::Disk { node, length } => {
                let node = id_of(node);
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
        let seen = real.nodes().iter().map(|d| (d.node.0, d.work(), d.idle));
        let expected = model.nodes.iter();
        let expected = expected.map(|(id, n)| (*id, n.work(), n.idle as u32));
        let unusual = known.iter().filter(|(_, c)| !c.is_plain()).count();
        assert_eq!(tracked.len(), unusual, "{op:?}");
        assert!(seen.eq(expected), "{op:?}: {:?}", real.nodes());
        assert_eq!(real.is_saturated(), model.is_saturated(), "{op:?}");
        let seen = real.targets().iter();
        let seen = seen.map(|(k, s)| (k, s.nodes.iter().map(|n| n.0).collect::<Vec<_>>()));
        assert!(seen.eq(model.mappings()), "{op:?}");
    }
    for (conn, mut theirs) in conns {
        real.close(conn);
        model.close(&mut theirs);
    }
    for (id, theirs) in known {
        tracked.finished(&mut real, id, NodeId(theirs.home));
    }
    assert!(tracked.is_empty());
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
                fn $name(ops in sequence(), slots in 1usize..8, places in 0usize..3, wide: bool) {
                    match wide {
                        false => run::<1>(PolicyKind::$kind, NARROW, slots, places, &ops),
                        true => run::<16>(PolicyKind::$kind, WIDE, slots, places, &ops),
                    }
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
