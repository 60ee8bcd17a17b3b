// SPDX-License-Identifier: GPL-2.0

//! What a dispatcher keeps of connections, told by front-ends and back-ends whose news can cross.
//! Against a naive model: `policy_models.rs`.

use lard_core::addr::{ConnId, NodeId};
use lard_core::policy::*;
use lard_core::time::Instant;
use proptest::prelude::*;

type Sched = Scheduler<Vec<Slot>>;
type Table = Tracked<Vec<TrackedSlot>>;

const NODES: u16 = 3;

fn scheduler() -> Sched {
    let mut scheduler = Scheduler::new(PolicyKind::Extlard, vec![Slot::EMPTY; 16]);
    for node in 1..=NODES {
        scheduler.add_dest(NodeId(node), 1).unwrap();
    }
    scheduler
}

fn table(connections: usize) -> Table {
    Tracked::new(vec![TrackedSlot::EMPTY; TrackedSlot::needed(connections)])
}

fn request(key: u64) -> Request {
    Request {
        key: (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        exclude: NodeSet::EMPTY,
        tags: Tags::NONE,
        now: Instant::ZERO,
    }
}

fn id(n: u32) -> ConnId {
    ConnId::new(NodeId(4), n % 5, n)
}

fn further(n: u32, home: NodeId, batch: u16, mechanism: Mechanism) -> Further {
    Further {
        conn: id(n),
        home,
        batch,
        mechanism,
    }
}

/// Load, idle connections and parts of each node.
fn counts(scheduler: &Sched) -> Vec<(u32, u32, u32)> {
    let nodes = scheduler.nodes().iter();
    nodes.map(|d| (d.load, d.idle, d.shares)).collect()
}

const NOTHING: [(u32, u32, u32); 3] = [(0, 0, 0); 3];

#[test]
fn an_idle_connection_is_no_load() {
    let (mut s, mut t) = (scheduler(), table(8));
    let home = s.schedule(&request(1)).unwrap();
    assert_eq!(counts(&s)[0], (1, 0, 0));
    t.set_idle(&mut s, id(1), home, true);
    assert_eq!((counts(&s)[0], t.len()), ((0, 1, 0), 1));
    t.set_idle(&mut s, id(1), home, true);
    assert_eq!(counts(&s)[0], (0, 1, 0), "it is already");
    t.set_idle(&mut s, id(1), home, false);
    assert_eq!((counts(&s)[0], t.len()), ((1, 0, 0), 0));
    t.set_idle(&mut s, id(1), home, true);
    // A further request is something to do as well.
    let node = t.next(&mut s, &further(1, home, 1, Mechanism::Move), &request(1));
    assert_eq!((node, counts(&s)[0], t.len()), (Some(home), (1, 0, 0), 0));
    t.set_idle(&mut s, id(1), home, true);
    t.finished(&mut s, id(1), home);
    assert_eq!((counts(&s), t.len()), (NOTHING.to_vec(), 0));
}

#[test]
fn who_supplies_for_a_batch_has_a_part_of_the_connection() {
    let (mut s, mut t) = (scheduler(), table(8));
    let owner = s.schedule(&request(1)).unwrap();
    let home = s.schedule(&request(2)).unwrap();
    s.set_disk_queue(home, 5).unwrap();
    let forward = |batch| further(1, home, batch, Mechanism::Forward);
    for batch in [3, 7, 1, u16::MAX] {
        assert_eq!(t.next(&mut s, &forward(batch), &request(1)), Some(owner));
        let part = UNIT / u32::from(batch);
        assert_eq!(counts(&s), [(1, 0, part), (1, 0, 0), (0, 0, 0)]);
    }
    t.set_idle(&mut s, id(1), home, true);
    assert_eq!(counts(&s), [(1, 0, 0), (0, 1, 0), (0, 0, 0)]);
    t.next(&mut s, &forward(2), &request(1));
    assert_eq!(counts(&s), [(1, 0, UNIT / 2), (1, 0, 0), (0, 0, 0)]);
    t.finished(&mut s, id(1), home);
    t.finished(&mut s, id(2), owner);
    assert_eq!((counts(&s), t.len()), (NOTHING.to_vec(), 0));
}

#[test]
fn what_a_lost_node_had_is_forgotten_once() {
    let (mut s, mut t) = (scheduler(), table(64));
    let lose = |s: &mut Sched, t: &mut Table, node| {
        s.upd_dest(node, None, Some(NodeState::Down)).unwrap();
        t.node_down(s, node);
        s.upd_dest(node, None, Some(NodeState::Up)).unwrap();
    };
    let owner = s.schedule(&request(1)).unwrap();
    let home = s.schedule(&request(2)).unwrap();
    s.set_disk_queue(home, 5).unwrap();
    let question = further(2, home, 2, Mechanism::Forward);
    assert_eq!(t.next(&mut s, &question, &request(1)), Some(owner));
    t.set_idle(&mut s, id(1), owner, true);
    assert_eq!(t.len(), 2);
    // Who supplies is lost: its part must not be taken from what it has later.
    lose(&mut s, &mut t, owner);
    assert_eq!((counts(&s)[0], t.len()), ((0, 0, 0), 0));
    t.next(&mut s, &question, &request(1));
    t.finished(&mut s, id(2), home);
    assert_eq!((counts(&s), t.len()), (NOTHING.to_vec(), 0));
    // Who has the connection is lost: who supplied is free.
    let home = s.schedule(&request(3)).unwrap();
    t.set_idle(&mut s, id(3), home, true);
    lose(&mut s, &mut t, home);
    assert_eq!((counts(&s), t.len()), (NOTHING.to_vec(), 0));
    // The front-end is lost: nobody says any more who is idle.
    let home = s.schedule(&request(4)).unwrap();
    t.set_idle(&mut s, id(4), home, true);
    t.node_down(&mut s, NodeId(4));
    assert_eq!((s.nodes().get(home).unwrap().load, t.len()), (1, 0));
}

#[test]
fn without_room_a_connection_is_one_unit() {
    let (mut s, mut t) = (scheduler(), table(1_000));
    let homes: Vec<_> = (0..4_000)
        .map(|n| s.schedule(&request(n)).unwrap())
        .collect();
    let places = homes.len() / 2;
    for (n, home) in (0..).zip(&homes) {
        t.set_idle(&mut s, id(n), *home, true);
    }
    let kept = t.len();
    assert!(
        kept > places * 9 / 10 && kept <= places,
        "{kept} in {places}"
    );
    assert_eq!(t.overflows(), (homes.len() - kept) as u64);
    let loads: u32 = counts(&s).iter().map(|c| c.0).sum();
    assert_eq!(loads as usize, homes.len() - kept);
    for (n, home) in (0..).zip(&homes) {
        t.finished(&mut s, id(n), *home);
    }
    assert_eq!((counts(&s), t.len()), (NOTHING.to_vec(), 0));
}

#[test]
fn all_the_connections_that_are_asked_for_find_room() {
    let (mut s, mut t) = (scheduler(), table(10_000));
    for n in 0..10_000u32 {
        let home = s.schedule(&request(n.into())).unwrap();
        let conn = ConnId::new(
            NodeId(1 + (n % 3) as u16),
            n.wrapping_mul(0x9e37) >> 8,
            n / 7,
        );
        t.set_idle(&mut s, conn, home, true);
    }
    assert!(t.overflows() < 100, "{}", t.overflows());
}

/// What a front-end says of a connection before it hears of its end.
#[derive(Clone, Debug)]
enum Said {
    Idle(bool),
    Request { key: u64, batch: u16 },
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        2 => any::<bool>().prop_map(Said::Idle),
        1 => (0u64..9, 1u16..9).prop_map(|(key, batch)| Said::Request { key, batch }),
    ]
}

proptest! {
    /// The end of each connection is heard of at any time, and afterwards nothing is left.
    #[test]
    fn news_may_cross(
        conns in prop::collection::vec((prop::collection::vec(said(), 0..8), 0usize..10), 1..12),
        order in prop::collection::vec(0usize..12, 0..200),
        disk in prop::collection::vec(0u32..10, 3),
        places in 0usize..3,
    ) {
        let mut s = scheduler();
        let mut t = Tracked::new(vec![TrackedSlot::EMPTY; places]);
        for (node, length) in (1..).zip(disk) {
            s.set_disk_queue(NodeId(node), length).unwrap();
        }
        let homes: Vec<_> = (0..conns.len()).map(|n| s.schedule(&request(n as u64)).unwrap()).collect();
        // How much of each connection's news was heard.
        let mut heard = vec![0; conns.len()];
        let rest = (0..conns.len()).flat_map(|n| [n; 10]);
        for n in order.into_iter().filter(|n| *n < conns.len()).chain(rest) {
            let (said, end) = &conns[n];
            let (conn, home) = (id(n as u32), homes[n]);
            // The end is the one piece of news that another node tells; behind all the front-end says
            // that the connection is nothing special.
            let at = heard[n];
            heard[n] += 1;
            let end = *end.min(&(said.len() + 1));
            match at.cmp(&end) {
                std::cmp::Ordering::Equal => {
                    t.finished(&mut s, conn, home);
                    continue;
                }
                std::cmp::Ordering::Less | std::cmp::Ordering::Greater => {}
            }
            let at = at - usize::from(at > end);
            match said.get(at) {
                Some(Said::Idle(is)) => t.set_idle(&mut s, conn, home, *is),
                Some(Said::Request { key, batch }) => {
                    let question = further(n as u32, home, *batch, Mechanism::Forward);
                    t.next(&mut s, &question, &request(*key));
                }
                None if at == said.len() => t.set_idle(&mut s, conn, home, false),
                None => {}
            }
        }
        prop_assert_eq!(counts(&s), NOTHING.to_vec());
        prop_assert!(t.is_empty());
    }
}
