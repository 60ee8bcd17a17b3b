// SPDX-License-Identifier: GPL-2.0

//! Policies and the target table against naive models, over random sequences of operations.
//!
//! The models are written from the papers' pseudo-code, with maps and vectors and no thought for
//! speed, and share no code with what they check.

use lard_core::addr::NodeId;
use lard_core::policy::*;
use lard_core::time::Instant;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, VecDeque};

#[derive(Clone, Debug)]
enum Op {
    Schedule { key: u64, exclude: u64 },
    Finish { node: u16 },
    Add { node: u16, weight: u16 },
    Del { node: u16 },
    Weight { node: u16, weight: u16 },
    State { node: u16, state: NodeState },
    Load { node: u16, load: u32 },
    Params { low: u32, high: u32 },
}

const NODES: u16 = 6;

fn op() -> impl Strategy<Value = Op> {
    let node = || 1..=NODES;
    let states = &[
        NodeState::Up,
        NodeState::Up,
        NodeState::Draining,
        NodeState::Down,
    ];
    prop_oneof![
        60 => (0u64..40, prop_oneof![4 => Just(0), 1 => 0u64..64])
            .prop_map(|(key, exclude)| Op::Schedule { key, exclude }),
        20 => node().prop_map(|node| Op::Finish { node }),
        3 => (node(), 0u16..5).prop_map(|(node, weight)| Op::Add { node, weight }),
        1 => node().prop_map(|node| Op::Del { node }),
        1 => (node(), 0u16..5).prop_map(|(node, weight)| Op::Weight { node, weight }),
        2 => (node(), prop::sample::select(states)).prop_map(|(node, state)| Op::State { node, state }),
        1 => (node(), 0u32..30).prop_map(|(node, load)| Op::Load { node, load }),
        1 => (1u32..10, 1u32..20).prop_map(|(low, high)| Op::Params { low, high }),
    ]
}

#[derive(Clone, Debug)]
struct Node {
    weight: u64,
    state: NodeState,
    load: u64,
    current: i64,
}

/// What the scheduler should do.
struct Model {
    nodes: BTreeMap<u16, Node>,
    low: u64,
    high: u64,
    servers: HashMap<u64, u16>,
    /// Keys, the least recently used one first.
    order: VecDeque<u64>,
    capacity: usize,
    last: u16,
}

impl Model {
    fn new(capacity: usize) -> Self {
        Model {
            nodes: BTreeMap::new(),
            low: 25,
            high: 65,
            servers: HashMap::new(),
            order: VecDeque::new(),
            capacity,
            last: 0,
        }
    }

    fn eligible(&self, exclude: u64) -> Vec<u16> {
        let is = |id: u16, n: &Node| {
            n.state == NodeState::Up && n.weight > 0 && exclude >> (id - 1) & 1 == 0
        };
        self.nodes
            .iter()
            .filter(|(id, n)| is(**id, n))
            .map(|(id, _)| *id)
            .collect()
    }

    fn wrr(&mut self, exclude: u64) -> Option<u16> {
        let eligible = self.eligible(exclude);
        for id in &eligible {
            let n = self.nodes.get_mut(id).unwrap();
            n.current += n.weight as i64;
        }
        let most = eligible.iter().map(|id| self.nodes[id].current).max()?;
        let chosen = *eligible.iter().find(|id| self.nodes[id].current == most)?;
        let total: u64 = eligible.iter().map(|id| self.nodes[id].weight).sum();
        self.nodes.get_mut(&chosen).unwrap().current -= total as i64;
        Some(chosen)
    }

    fn lard(&mut self, key: u64, exclude: u64) -> Option<u16> {
        let eligible = self.eligible(exclude);
        let mapped = self.servers.get(&key).copied();
        if mapped.is_some() {
            self.order.retain(|k| *k != key);
            self.order.push_back(key);
        }
        if let Some(id) = mapped.filter(|id| eligible.contains(id)) {
            let n = &self.nodes[&id];
            let idle = eligible.iter().any(|m| {
                let m = &self.nodes[m];
                m.load < self.low * m.weight
            });
            let move_it =
                n.load > self.high * n.weight && idle || n.load >= 2 * self.high * n.weight;
            if !move_it {
                return Some(id);
            }
        }
        // Exact fractions, by a common denominator: weights are at most 4.
        let per_weight = |id: &u16| self.nodes[id].load * 12 / self.nodes[id].weight;
        let least = eligible.iter().map(per_weight).min()?;
        let candidates: Vec<u16> = eligible
            .iter()
            .copied()
            .filter(|id| per_weight(id) == least)
            .collect();
        let after = candidates.iter().find(|id| **id > self.last);
        let chosen = *after.or(candidates.first())?;
        self.last = chosen;
        self.servers.insert(key, chosen);
        self.order.retain(|k| *k != key);
        self.order.push_back(key);
        if self.order.len() > self.capacity {
            let oldest = self.order.pop_front().unwrap();
            self.servers.remove(&oldest);
        }
        Some(chosen)
    }
}

/// Keys as a hash would make them.
fn hashed(key: u64) -> u64 {
    (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn run(kind: PolicyKind, capacity: usize, ops: &[Op]) {
    let mut real = Scheduler::new(kind, vec![Slot::EMPTY; capacity]);
    let mut model = Model::new(capacity);
    for op in ops {
        match *op {
            Op::Schedule { key, exclude } => {
                let request = Request {
                    key: hashed(key),
                    exclude: NodeSet::from_bits(exclude),
                    now: Instant::ZERO,
                };
                let chosen = real.schedule(&request).map(|n| n.0);
                let expected = match kind {
                    PolicyKind::Wrr => model.wrr(exclude),
                    PolicyKind::Lard => model.lard(key, exclude),
                };
                assert_eq!(chosen, expected, "{op:?}");
                if let Some(node) = chosen {
                    model.nodes.get_mut(&node).unwrap().load += 1;
                }
            }
            Op::Finish { node } => {
                let n = model.nodes.get_mut(&node).filter(|n| n.load > 0);
                assert_eq!(real.finished(NodeId(node)), n.is_some());
                if let Some(n) = n {
                    n.load -= 1;
                }
            }
            Op::Add { node, weight } => {
                let new = !model.nodes.contains_key(&node);
                assert_eq!(real.add_dest(NodeId(node), weight).is_ok(), new);
                if new {
                    let n = Node {
                        weight: weight.into(),
                        state: NodeState::Up,
                        load: 0,
                        current: 0,
                    };
                    model.nodes.insert(node, n);
                    model.nodes.values_mut().for_each(|n| n.current = 0);
                }
            }
            Op::Del { node } => {
                let old = model.nodes.remove(&node);
                assert_eq!(real.del_dest(NodeId(node)).is_ok(), old.is_some());
                if old.is_some() {
                    model.nodes.values_mut().for_each(|n| n.current = 0);
                }
            }
            Op::Weight { node, weight } => {
                let known = real.upd_dest(NodeId(node), Some(weight), None).is_ok();
                assert_eq!(known, model.nodes.contains_key(&node));
                if let Some(n) = model.nodes.get_mut(&node) {
                    n.weight = weight.into();
                    model.nodes.values_mut().for_each(|n| n.current = 0);
                }
            }
            Op::State { node, state } => {
                let known = real.upd_dest(NodeId(node), None, Some(state)).is_ok();
                assert_eq!(known, model.nodes.contains_key(&node));
                if let Some(n) = model.nodes.get_mut(&node) {
                    n.state = state;
                    if state == NodeState::Down {
                        n.load = 0;
                    }
                    model.nodes.values_mut().for_each(|n| n.current = 0);
                }
            }
            Op::Load { node, load } => {
                let known = real.set_load(NodeId(node), load).is_ok();
                assert_eq!(known, model.nodes.contains_key(&node));
                if let Some(n) = model.nodes.get_mut(&node) {
                    n.load = load.into();
                }
            }
            Op::Params { low, high } => {
                let valid = real.set_params([("t-low", low), ("t-high", high)]).is_ok();
                assert_eq!(valid, low < high);
                if valid {
                    (model.low, model.high) = (low.into(), high.into());
                }
            }
        }
        let seen: Vec<_> = real
            .nodes()
            .iter()
            .map(|d| (d.node.0, u64::from(d.load)))
            .collect();
        let expected: Vec<_> = model.nodes.iter().map(|(id, n)| (*id, n.load)).collect();
        assert_eq!(seen, expected);
        if kind == PolicyKind::Lard {
            let seen: Vec<_> = real
                .lard()
                .servers()
                .iter()
                .map(|(k, n)| (k, n.0))
                .collect();
            let keys = model.order.iter().rev();
            let expected: Vec<_> = keys.map(|k| (hashed(*k), model.servers[k])).collect();
            assert_eq!(seen, expected);
        }
    }
}

fn sequence() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 0..300).prop_map(|mut ops| {
        let first = (1..=3).map(|node| Op::Add { node, weight: 1 });
        ops.splice(0..0, first);
        ops
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn round_robin_follows_its_model(ops in sequence()) {
        run(PolicyKind::Wrr, 4, &ops);
    }

    #[test]
    fn lard_follows_its_model(ops in sequence(), capacity in 1usize..50) {
        run(PolicyKind::Lard, capacity, &ops);
    }

    /// The table against a map and a list, with keys that fall into few chains.
    #[test]
    fn the_table_is_a_bounded_map(
        capacity in 1usize..12,
        ops in prop::collection::vec((0u8..8, 0u64..20, 1u16..9), 0..400),
    ) {
        let mut table = TargetTable::new(vec![Slot::EMPTY; capacity]);
        // The most recently used one last.
        let mut model: Vec<(u64, u16)> = Vec::new();
        for (op, key, node) in ops {
            let key = key << 61 | key;
            let at = model.iter().position(|(k, _)| *k == key);
            match op {
                0..=3 => {
                    let evicted = table.insert(key, NodeId(node));
                    if let Some(at) = at {
                        model.remove(at);
                    }
                    model.push((key, node));
                    let expected = (model.len() > capacity).then(|| model.remove(0).0);
                    prop_assert_eq!(evicted, expected);
                }
                4 | 5 => {
                    let found = at.map(|at| model.remove(at));
                    prop_assert_eq!(table.lookup(key).map(|n| n.0), found.map(|e| e.1));
                    model.extend(found);
                }
                6 => {
                    let found = at.map(|at| model.remove(at).1);
                    prop_assert_eq!(table.remove(key).map(|n| n.0), found);
                }
                _ => {
                    prop_assert_eq!(table.peek(key).map(|n| n.0), at.map(|at| model[at].1));
                }
            }
            let seen: Vec<_> = table.iter().map(|(k, n)| (k, n.0)).collect();
            let expected: Vec<_> = model.iter().rev().copied().collect();
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(table.len(), model.len());
        }
    }

    /// No request stays on its node while that one is above T_high and another is below T_low.
    #[test]
    fn nobody_waits_beside_an_idle_node(loads in prop::collection::vec(0u32..140, 2..20), key: u64) {
        let mut s = Scheduler::new(PolicyKind::Lard, vec![Slot::EMPTY; 4]);
        for id in 1..=loads.len() as u16 {
            s.add_dest(NodeId(id), 1).unwrap();
        }
        let request = Request { key, exclude: NodeSet::EMPTY, now: Instant::ZERO };
        s.schedule(&request).unwrap();
        for (id, load) in (1..).zip(&loads) {
            s.set_load(NodeId(id), *load).unwrap();
        }
        let chosen = s.schedule(&request).unwrap();
        let load = loads[usize::from(chosen.0) - 1];
        let least = *loads.iter().min().unwrap();
        prop_assert!(load <= 65 || least >= 25, "{load} {least}");
        prop_assert!(load < 130 || load == least);
    }
}
