// SPDX-License-Identifier: GPL-2.0

//! The admission limit and those who wait for it, against a model that is nothing but a list.

use lard_core::addr::{ConnId, NodeId};
use lard_core::policy::*;
use lard_core::time::Instant;
use proptest::prelude::*;
use std::collections::VecDeque;

const PLACES: usize = 12;

type Sched = Scheduler<Vec<Slot>>;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A connection of this front-end asks.
    Assign(u16),
    /// The n-th of those that are served ends.
    Finish(usize),
    /// A node goes down with what it has, drains, comes back; another weight.
    Down(u16),
    Drain(u16),
    Up(u16),
    Weight(u16, u16),
    /// The nodes' own counts.
    SetLoad(u16, u32),
    /// The limit, as the parameter has it.
    Limit(u32),
    QueueMax(u32),
    Policy(bool),
    /// A front-end is lost.
    Lose(u16),
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let node = || 1u16..=3;
    let limit = prop_oneof![Just(0), Just(Params::AUTO), 1u32..20];
    let op = prop_oneof![
        12 => (10u16..13).prop_map(Op::Assign),
        8 => any::<prop::sample::Index>().prop_map(|i| Op::Finish(i.index(1000))),
        1 => node().prop_map(Op::Down),
        1 => node().prop_map(Op::Drain),
        2 => node().prop_map(Op::Up),
        1 => (node(), 0u16..3).prop_map(|(n, w)| Op::Weight(n, w)),
        1 => (node(), 0u32..9).prop_map(|(n, l)| Op::SetLoad(n, l)),
        1 => limit.prop_map(Op::Limit),
        1 => (0u32..20).prop_map(Op::QueueMax),
        1 => any::<bool>().prop_map(Op::Policy),
        1 => (10u16..13).prop_map(Op::Lose),
        3 => (1u64..400).prop_map(Op::Pass),
    ];
    prop::collection::vec(op, 1..250)
}

struct Model {
    waiting: VecDeque<(ConnId, u64)>,
    /// The parameter.
    limit: u32,
    most: usize,
    now: u64,
}

/// T_low, T_high and the queue time of the runs.
const LOW: u32 = 2;
const HIGH: u32 = 5;
const PATIENCE_MS: u64 = 500;

impl Model {
    /// Most connections; the papers' formula over the nodes that are there.
    fn most_load(&self, s: &Sched) -> u64 {
        let n: u64 = available(s).map(|d| u64::from(d.weight)).sum();
        match self.limit {
            0 => u64::MAX,
            Params::AUTO if s.policy() == PolicyKind::Wrr => u64::MAX,
            Params::AUTO => (n.saturating_sub(1) * u64::from(HIGH) + u64::from(LOW)).max(2) - 1,
            limit => limit.into(),
        }
    }
}

fn available(s: &Sched) -> impl Iterator<Item = &Dest> {
    let up = |d: &&Dest| d.state == NodeState::Up && d.weight > 0;
    s.nodes().iter().filter(up)
}

fn load(s: &Sched) -> u64 {
    available(s).map(|d| u64::from(d.load)).sum()
}

proptest! {
    #[test]
    fn who_waits_is_served_in_order_and_as_soon_as_there_is_room(ops in ops()) {
        let mut s = Sched::new(PolicyKind::Lard, vec![Slot::EMPTY; 64]);
        for node in 1..=3 {
            s.add_dest(NodeId(node), 1).unwrap();
        }
        s.set_params([
            ("t-low", LOW), ("t-high", HIGH), ("queue-time-ms", PATIENCE_MS as u32), ("queue-max", 10),
            ("max-connections", Params::AUTO),
        ]).unwrap();
        let mut list = WaitingList::new(vec![Waiter::NOBODY; PLACES]);
        let mut model = Model {
            waiting: VecDeque::new(), limit: Params::AUTO, most: 10, now: 0,
        };
        let mut served: Vec<NodeId> = Vec::new();
        let (mut asked, mut answered, mut lost) = (0u32, 0u32, 0u32);

        for op in ops {
            let time = Instant::from_millis(model.now);
            match op {
                Op::Assign(front_end) => {
                    asked += 1;
                    let conn = ConnId::new(NodeId(front_end), 0, asked);
                    let request = Request {
                        key: u64::from(asked % 7), exclude: NodeSet::EMPTY, tags: Tags::NONE, now: time,
                    };
                    let room = model.waiting.is_empty() && load(&s) < model.most_load(&s);
                    let before = load(&s);
                    match list.assign(&mut s, conn, &request) {
                        Admission::Assigned(to) => {
                            prop_assert!(room);
                            prop_assert_eq!(to.is_none(), available(&s).count() == 0);
                            prop_assert_eq!(load(&s), before + u64::from(to.is_some()));
                            served.extend(to);
                            answered += 1;
                        }
                        Admission::Waits => {
                            prop_assert!(!room && model.waiting.len() < model.most.min(PLACES));
                            model.waiting.push_back((conn, model.now));
                        }
                        Admission::Refused => {
                            prop_assert!(!room && model.waiting.len() >= model.most.min(PLACES));
                            answered += 1;
                        }
                    }
                }
                Op::Finish(i) if !served.is_empty() => {
                    let node = served.swap_remove(i % served.len());
                    s.finished(node);
                }
                Op::Finish(_) => {}
                Op::Down(n) => s.upd_dest(NodeId(n), None, Some(NodeState::Down)).unwrap(),
                Op::Drain(n) => s.upd_dest(NodeId(n), None, Some(NodeState::Draining)).unwrap(),
                Op::Up(n) => s.upd_dest(NodeId(n), None, Some(NodeState::Up)).unwrap(),
                Op::Weight(n, w) => s.upd_dest(NodeId(n), Some(w), None).unwrap(),
                Op::SetLoad(n, l) => s.set_load(NodeId(n), l).unwrap(),
                Op::Limit(limit) => {
                    s.set_params([("max-connections", limit)]).unwrap();
                    model.limit = limit;
                }
                Op::QueueMax(most) => {
                    s.set_params([("queue-max", most)]).unwrap();
                    model.most = most as usize;
                }
                Op::Policy(lard) => {
                    s.set_policy(if lard { PolicyKind::Lardr } else { PolicyKind::Wrr });
                }
                Op::Lose(front_end) => {
                    let front_end = NodeId(front_end);
                    let before = model.waiting.len();
                    model.waiting.retain(|(conn, _)| conn.node() != front_end);
                    lost += (before - model.waiting.len()) as u32;
                    prop_assert_eq!(list.forget(front_end), before - model.waiting.len());
                }
                Op::Pass(ms) => model.now += ms,
            }
            // Whatever has happened, those whose turn it is are let in now.
            let time = Instant::from_millis(model.now);
            loop {
                let (before, most) = (load(&s), model.most_load(&s));
                let Some((conn, outcome)) = list.next(&mut s, time) else {
                    break;
                };
                answered += 1;
                let (oldest, since) = model.waiting.pop_front().unwrap();
                prop_assert_eq!(conn, oldest);
                let late = model.now - since >= PATIENCE_MS;
                prop_assert_eq!(outcome == Outcome::Expired, late);
                if let Outcome::Assigned(to) = outcome {
                    prop_assert!(before < most);
                    prop_assert_eq!(to.is_none(), available(&s).count() == 0);
                    served.extend(to);
                }
            }
            prop_assert_eq!(list.len(), model.waiting.len());
            prop_assert_eq!(list.is_empty(), model.waiting.is_empty());
            if !list.is_empty() {
                prop_assert!(load(&s) >= model.most_load(&s), "somebody waits while there is room");
            }
            prop_assert_eq!(asked, answered + lost + list.len() as u32, "a connection was lost");
        }
    }
}

#[test]
fn a_list_without_places_refuses_instead_of_waiting() {
    let mut s = Sched::new(PolicyKind::Wrr, vec![Slot::EMPTY; 4]);
    s.add_dest(NodeId(1), 1).unwrap();
    s.set_params([("max-connections", 1)]).unwrap();
    let mut list = WaitingList::<Vec<Waiter>>::new(Vec::new());
    let request = Request {
        key: 1,
        exclude: NodeSet::EMPTY,
        tags: Tags::NONE,
        now: Instant::ZERO,
    };
    let mut ask = || list.assign(&mut s, ConnId::NONE, &request);
    assert_eq!(ask(), Admission::Assigned(Some(NodeId(1))));
    assert_eq!(ask(), Admission::Refused);
    assert_eq!(list.next(&mut s, Instant::from_millis(9_000)), None);
}
