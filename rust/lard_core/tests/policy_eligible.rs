// SPDX-License-Identifier: GPL-2.0

//! No node that is down or drains, has no weight, has refused the connection or lacks a tag is ever
//! chosen, whoever is asked: for a first request, a further one, or one that waited.

use lard_core::addr::{ConnId, NodeId};
use lard_core::policy::*;
use lard_core::time::Instant;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Debug)]
enum Op {
    Schedule(Ask),
    /// A further request on one of the connections, by itself or by its number.
    Next(prop::sample::Index, Ask, bool),
    Tracked(prop::sample::Index, Ask, bool),
    Wait(Ask),
    LetIn,
    Finish(prop::sample::Index),
    /// What becomes of a node: its state, weight and tags.
    Change(usize, NodeState, u16, u32),
    DiskQueue(usize, u32),
    Policy(PolicyKind),
    ByCost(bool),
    Limit(u32),
}

/// A target, places of nodes that have refused, and tags.
#[derive(Clone, Debug)]
struct Ask {
    target: u64,
    exclude: Vec<usize>,
    tags: u32,
}

const NODES: usize = 6;

fn ask() -> impl Strategy<Value = Ask> {
    let exclude = prop::collection::vec(0..NODES, 0..3);
    (
        0u64..20,
        exclude,
        prop_oneof![3 => Just(0u32), 2 => 0u32..4],
    )
        .prop_map(|(target, exclude, tags)| Ask {
            target,
            exclude,
            tags,
        })
}

fn op() -> impl Strategy<Value = Op> {
    use prop::sample::{select, Index};
    let states = vec![
        NodeState::Up,
        NodeState::Up,
        NodeState::Draining,
        NodeState::Down,
    ];
    prop_oneof![
        8 => ask().prop_map(Op::Schedule),
        6 => (any::<Index>(), ask(), any::<bool>()).prop_map(|(c, a, m)| Op::Next(c, a, m)),
        6 => (any::<Index>(), ask(), any::<bool>()).prop_map(|(c, a, m)| Op::Tracked(c, a, m)),
        6 => ask().prop_map(Op::Wait),
        6 => Just(Op::LetIn),
        4 => any::<Index>().prop_map(Op::Finish),
        6 => (0..NODES, select(states), 0u16..3, 0u32..4)
            .prop_map(|(n, s, w, t)| Op::Change(n, s, w, t)),
        1 => (0..NODES, 0u32..9).prop_map(|(n, q)| Op::DiskQueue(n, q)),
        2 => select(&PolicyKind::ALL[..]).prop_map(Op::Policy),
        1 => any::<bool>().prop_map(Op::ByCost),
        1 => prop_oneof![Just(0), 1u32..12].prop_map(Op::Limit),
    ]
}

fn request<const W: usize>(ids: &[u16; NODES], ask: &Ask) -> Request<W> {
    Request {
        key: (ask.target + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        exclude: ask.exclude.iter().map(|n| NodeId(ids[*n])).collect(),
        tags: Tags(ask.tags),
        now: Instant::ZERO,
    }
}

/// May it be chosen? A further request can stay where the connection is, even if that node drains or
/// has no weight any more.
fn check<const W: usize>(
    s: &Scheduler<Vec<Slot<W>>, W>,
    request: &Request<W>,
    node: NodeId,
    home: Option<NodeId>,
) {
    let dest = s.nodes().get(node).expect("it is there");
    assert!(dest.tags.contain(request.tags), "{dest:?}");
    assert!(!request.exclude.contains(node), "{dest:?}");
    match home == Some(node) {
        true => assert_ne!(dest.state, NodeState::Down),
        false => assert!(dest.state == NodeState::Up && dest.weight > 0, "{dest:?}"),
    }
}

fn run<const W: usize>(ids: [u16; NODES], ops: &[Op]) {
    let mut s: Scheduler<Vec<Slot<W>>, W> = Scheduler::new(PolicyKind::Wrr, vec![Slot::EMPTY; 3]);
    for (id, tags) in ids.into_iter().zip(0u32..) {
        s.add_dest(NodeId(id), 1).unwrap();
        s.set_tags(NodeId(id), Tags(tags % 4)).unwrap();
    }
    s.set_params([
        ("t-low", 1),
        ("t-high", 2),
        ("l-idle", 1),
        ("l-overload", 4),
    ])
    .unwrap();
    let mut open: Vec<Connection> = Vec::new();
    let mut tracked = Tracked::new(vec![TrackedSlot::EMPTY; 2]);
    let mut waiting = WaitingList::new(vec![Waiter::NOBODY; 8]);
    let mut asked: HashMap<ConnId, Request<W>> = HashMap::new();
    for (op, n) in ops.iter().zip(0u32..) {
        match op {
            Op::Schedule(ask) => {
                let request = request(&ids, ask);
                match s.open(&request) {
                    Some(conn) => {
                        check(&s, &request, conn.home(), None);
                        open.push(conn);
                    }
                    None => assert_eq!(s.nodes().eligible(&request).count(), 0),
                }
            }
            Op::Next(which, ask, moves) if !open.is_empty() => {
                let conn = which.get_mut(&mut open);
                let (request, home) = (request(&ids, ask), conn.home());
                let mechanism = if *moves {
                    Mechanism::Move
                } else {
                    Mechanism::Forward
                };
                if let Some(node) = s.next(conn, &request, mechanism) {
                    check(&s, &request, node, Some(home));
                }
            }
            Op::Tracked(which, ask, moves) if !open.is_empty() => {
                let at = which.index(open.len());
                let (request, home) = (request(&ids, ask), open[at].home());
                let further = Further {
                    conn: ConnId::new(NodeId(1), n, 1),
                    home,
                    batch: 2,
                    mechanism: if *moves {
                        Mechanism::Move
                    } else {
                        Mechanism::Forward
                    },
                };
                if let Some(node) = tracked.next(&mut s, &further, &request) {
                    check(&s, &request, node, Some(home));
                    if *moves && node != home {
                        tracked.finished(&mut s, further.conn, node);
                    }
                }
                tracked.set_idle(&mut s, further.conn, home, false);
            }
            Op::Wait(ask) => {
                let (conn, request) = (ConnId::new(NodeId(1), n, 2), request(&ids, ask));
                match waiting.assign(&mut s, conn, &request) {
                    Admission::Assigned(Some(node)) => {
                        check(&s, &request, node, None);
                        open.push(Connection::active(node));
                    }
                    Admission::Waits => drop(asked.insert(conn, request)),
                    Admission::Assigned(None) | Admission::Refused => {}
                }
            }
            Op::LetIn => {
                while let Some((conn, outcome)) = waiting.next(&mut s, Instant::ZERO) {
                    let request = asked.remove(&conn).expect("it waited");
                    match outcome {
                        Outcome::Assigned(Some(node)) => {
                            check(&s, &request, node, None);
                            open.push(Connection::active(node));
                        }
                        Outcome::Assigned(None) => {
                            assert_eq!(s.nodes().eligible(&request).count(), 0);
                        }
                        Outcome::Expired => unreachable!("no time has passed"),
                    }
                }
            }
            Op::Finish(which) if !open.is_empty() => {
                let conn = open.swap_remove(which.index(open.len()));
                s.close(conn);
            }
            Op::Change(node, state, weight, tags) => {
                let id = NodeId(ids[*node]);
                s.upd_dest(id, Some(*weight), Some(*state)).unwrap();
                s.set_tags(id, Tags(*tags)).unwrap();
                if *state == NodeState::Down {
                    tracked.node_down(&mut s, id);
                    open.retain(|conn| conn.home() != id);
                }
            }
            Op::DiskQueue(node, length) => {
                s.set_disk_queue(NodeId(ids[*node]), *length).unwrap();
            }
            Op::Policy(kind) => s.set_policy(*kind),
            Op::ByCost(is) => s.set_further_policy(is.then_some(PolicyKind::Extlard)),
            Op::Limit(limit) => s.set_params([("max-connections", *limit)]).unwrap(),
            Op::Next(..) | Op::Tracked(..) | Op::Finish(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn who_may_not_be_chosen_is_not(ops in prop::collection::vec(op(), 1..200), wide: bool) {
        match wide {
            false => run::<1>([1, 2, 3, 4, 5, 64], &ops),
            true => run::<16>([1, 64, 65, 128, 700, 1_024], &ops),
        }
    }
}
