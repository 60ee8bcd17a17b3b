// SPDX-License-Identifier: GPL-2.0

//! What the scheduler should do, said as simply as possible.

use lard_core::addr::NodeId;
use lard_core::policy::{rendezvous, NodeState, PolicyKind, WAYS};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Numbers of nodes.
pub(crate) type Set = BTreeSet<u16>;

const UNIT: u64 = 65_536;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) weight: u64,
    pub(crate) state: NodeState,
    pub(crate) tags: u32,
    pub(crate) load: u64,
    pub(crate) idle: u64,
    pub(crate) shares: u64,
    pub(crate) disk_queue: u32,
    current: i64,
}

impl Node {
    pub(crate) fn work(&self) -> u64 {
        self.load * UNIT + self.shares
    }

    pub(crate) fn set_state(&mut self, state: NodeState) {
        self.state = state;
        if state == NodeState::Down {
            (self.load, self.idle, self.shares, self.disk_queue) = (0, 0, 0, 0);
        }
    }
}

/// A connection: its home, and what it has added elsewhere.
pub(crate) struct Conn {
    pub(crate) home: u16,
    pub(crate) active: bool,
    share: u64,
    added: Vec<u16>,
}

impl Conn {
    pub(crate) fn new(home: u16) -> Self {
        Conn {
            home,
            active: true,
            share: UNIT,
            added: Vec::new(),
        }
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.active && self.added.is_empty()
    }
}

pub(crate) struct Model {
    kind: PolicyKind,
    /// Who is asked about further requests, if not the same.
    pub(crate) further: Option<PolicyKind>,
    pub(crate) nodes: BTreeMap<u16, Node>,
    low: u64,
    high: u64,
    k_ms: u64,
    idle: u64,
    overload: u64,
    miss: u64,
    percent: u64,
    /// The nodes of each target, and when they changed.
    servers: HashMap<u64, (Set, u64)>,
    /// Keys of each slot of the table, the least recently used one first.
    order: Vec<VecDeque<u64>>,
    /// The last choice among equals, of the policy by cost and of the other.
    last_by_cost: u16,
    last: u16,
}

/// A question: who may be chosen, for what, when.
#[derive(Clone, Copy)]
struct Ask<'a> {
    key: u64,
    exclude: &'a Set,
    tags: u32,
    ms: u64,
}

impl Model {
    pub(crate) fn new(kind: PolicyKind, slots: usize) -> Self {
        Model {
            kind,
            further: None,
            nodes: BTreeMap::new(),
            low: 25,
            high: 65,
            k_ms: 20_000,
            idle: 30,
            overload: 130,
            miss: 50,
            percent: 125,
            servers: HashMap::new(),
            order: vec![VecDeque::new(); slots],
            last_by_cost: 0,
            last: 0,
        }
    }

    pub(crate) fn set_params(&mut self, low: u32, high: u32, k: u32, miss: u32, percent: u32) {
        (self.low, self.high) = (low.into(), high.into());
        (self.idle, self.overload) = (low.into(), u64::from(high) * 2);
        (self.k_ms, self.miss, self.percent) = (u64::from(k) * 1_000, miss.into(), percent.into());
    }

    // --- nodes ---

    pub(crate) fn add(&mut self, id: u16, weight: u16) -> bool {
        if self.nodes.contains_key(&id) {
            return false;
        }
        let node = Node {
            weight: weight.into(),
            state: NodeState::Up,
            tags: 0,
            load: 0,
            idle: 0,
            shares: 0,
            disk_queue: 0,
            current: 0,
        };
        self.nodes.insert(id, node);
        self.forget_currents();
        true
    }

    pub(crate) fn del(&mut self, id: u16) -> bool {
        let known = self.nodes.remove(&id).is_some();
        if known {
            self.forget_currents();
        }
        known
    }

    pub(crate) fn update(&mut self, id: u16, change: impl FnOnce(&mut Node)) -> bool {
        let known = self.nodes.get_mut(&id).map(change).is_some();
        if known {
            self.forget_currents();
        }
        known
    }

    fn forget_currents(&mut self) {
        self.nodes.values_mut().for_each(|n| n.current = 0);
    }

    // --- connections ---

    pub(crate) fn schedule(&mut self, key: u64, exclude: &Set, tags: u32, ms: u64) -> Option<u16> {
        let ask = Ask {
            key,
            exclude,
            tags,
            ms,
        };
        let id = self.choose(ask)?;
        self.nodes.get_mut(&id).unwrap().load += 1;
        Some(id)
    }

    pub(crate) fn finish(&mut self, id: u16) -> bool {
        match self.nodes.get_mut(&id) {
            Some(n) if n.load > 0 => n.load -= 1,
            Some(n) if n.idle > 0 => n.idle -= 1,
            _ => return false,
        }
        true
    }

    pub(crate) fn batch(&mut self, conn: &mut Conn, requests: u16) {
        self.settle(conn);
        conn.share = UNIT / u64::from(requests);
        if !conn.active {
            conn.active = true;
            if let Some(n) = self.nodes.get_mut(&conn.home).filter(|n| n.idle > 0) {
                n.load += 1;
                n.idle -= 1;
            }
        }
    }

    pub(crate) fn next(&mut self, conn: &mut Conn, key: u64, moves: bool, ms: u64) -> Option<u16> {
        let id = self.next_elsewhere(conn, key, !moves, ms)?;
        if moves && id != conn.home {
            self.leave(conn);
            (conn.home, conn.active) = (id, true);
        }
        Some(id)
    }

    /// The same; but a connection that moves has not left its home yet.
    pub(crate) fn next_elsewhere(
        &mut self,
        conn: &mut Conn,
        key: u64,
        forwards: bool,
        ms: u64,
    ) -> Option<u16> {
        let ask = Ask {
            key,
            exclude: &Set::new(),
            tags: 0,
            ms,
        };
        let id = self.choose_next(ask, conn.home)?;
        if id == conn.home {
        } else if forwards {
            self.nodes.get_mut(&id).unwrap().shares += conn.share;
            conn.added.push(id);
        } else {
            self.nodes.get_mut(&id).unwrap().load += 1;
        }
        Some(id)
    }

    pub(crate) fn idle(&mut self, conn: &mut Conn) {
        self.settle(conn);
        let home = self.nodes.get_mut(&conn.home);
        if let Some(n) = home.filter(|n| conn.active && n.load > 0) {
            conn.active = false;
            n.load -= 1;
            n.idle += 1;
        }
    }

    pub(crate) fn close(&mut self, conn: &mut Conn) {
        self.settle(conn);
        self.leave(conn);
    }

    fn leave(&mut self, conn: &Conn) {
        match self.nodes.get_mut(&conn.home) {
            Some(n) if !conn.active && n.idle > 0 => n.idle -= 1,
            _ => drop(self.finish(conn.home)),
        }
    }

    /// `id` is lost, and what was counted there.
    pub(crate) fn lost(&mut self, conn: &mut Conn, id: u16) {
        conn.added.retain(|node| *node != id);
        if conn.home == id {
            self.settle(conn);
            conn.active = true;
        }
    }

    fn settle(&mut self, conn: &mut Conn) {
        for id in conn.added.drain(..) {
            if let Some(n) = self.nodes.get_mut(&id) {
                n.shares = n.shares.saturating_sub(conn.share);
            }
        }
    }

    /// `(n-1) * T_high + T_low - 1` connections, where a node of weight w is w nodes.
    pub(crate) fn is_saturated(&self) -> bool {
        let up = || {
            self.nodes
                .values()
                .filter(|n| n.state == NodeState::Up && n.weight > 0)
        };
        let n: u64 = up().map(|n| n.weight).sum();
        let limit = (n.saturating_sub(1) * self.high + self.low - 1).max(1);
        up().map(Node::work).sum::<u64>() >= limit * UNIT
    }

    // --- choices ---

    fn eligible(&self, ask: Ask<'_>) -> Vec<u16> {
        let is = |id: u16, n: &Node| {
            n.state == NodeState::Up
                && n.weight > 0
                && !ask.exclude.contains(&id)
                && n.tags & ask.tags == ask.tags
        };
        let found = self.nodes.iter().filter(|(id, n)| is(**id, n));
        found.map(|(id, _)| *id).collect()
    }

    /// Work for a unit of weight as an exact fraction of 12: weights are at most 4.
    fn relative(&self, id: u16) -> u64 {
        let n = &self.nodes[&id];
        n.work() * 12 / n.weight.max(1)
    }

    fn least(&self, of: &[u16]) -> Option<u16> {
        of.iter()
            .copied()
            .min_by_key(|id| (self.relative(*id), *id))
    }

    /// The same, but of several the next one after the last choice.
    fn least_in_turn(&self, of: &[u16]) -> Option<u16> {
        let key = |id: &u16| (self.relative(*id), *id <= self.last, *id);
        of.iter().copied().min_by_key(key)
    }

    fn choose(&mut self, ask: Ask<'_>) -> Option<u16> {
        match self.kind {
            PolicyKind::Wrr => self.wrr(ask),
            PolicyKind::Lc => {
                self.last = self.least_in_turn(&self.eligible(ask))?;
                Some(self.last)
            }
            PolicyKind::Lb => self.hashed(&self.eligible(ask), ask.key),
            PolicyKind::Chbl => self.chbl(ask),
            PolicyKind::Lard => self.lard(ask),
            PolicyKind::Lardr => self.lardr(ask),
            PolicyKind::Extlard => self.extlard(ask),
        }
    }

    fn choose_next(&mut self, ask: Ask<'_>, home: u16) -> Option<u16> {
        let here = self.nodes.get(&home);
        let here = here.filter(|n| n.state != NodeState::Down && n.tags & ask.tags == ask.tags);
        match self.further.unwrap_or(self.kind) {
            PolicyKind::Wrr | PolicyKind::Lc if here.is_some() => Some(home),
            PolicyKind::Extlard if here.is_some() => Some(self.extlard_next(ask, home)),
            PolicyKind::Extlard => self.extlard(ask),
            _ => self.choose(ask),
        }
    }

    /// The node with the lowest `-log2(u) / weight`, where u is its hash as a fraction of 1.
    fn hashed(&self, of: &[u16], key: u64) -> Option<u16> {
        let cost = |id: u16| {
            let u = ((splitmix(key, id) | 1) as f64) / 2f64.powi(64);
            -u.log2() / self.nodes[&id].weight as f64
        };
        let mut ranked: Vec<_> = of.iter().map(|id| (cost(*id), *id)).collect();
        ranked.sort_by(|a, b| a.partial_cmp(b).unwrap());
        match ranked[..] {
            // Closer than the library's logarithm is exact: one in a million is its to decide.
            [first, second, ..] if second.0 - first.0 < 4e-6 * second.0.max(1e-6) => {
                let nodes = of
                    .iter()
                    .map(|id| (NodeId(*id), self.nodes[id].weight as u16));
                rendezvous(nodes, key).map(|n| n.0)
            }
            _ => ranked.first().map(|(_, id)| *id),
        }
    }

    fn wrr(&mut self, ask: Ask<'_>) -> Option<u16> {
        let eligible = self.eligible(ask);
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

    fn chbl(&mut self, ask: Ask<'_>) -> Option<u16> {
        let eligible = self.eligible(ask);
        let load = |id: &u16| self.nodes[id].work().div_ceil(UNIT) as f64;
        let all = eligible.iter().map(load).sum::<f64>() + 1.0;
        let weights: u64 = eligible.iter().map(|id| self.nodes[id].weight).sum();
        let has_room = |id: &u16| {
            let average = all * self.nodes[id].weight as f64 / weights as f64;
            // A hair below, so that rounding does not lift a whole number.
            let bound = (self.percent as f64 / 100.0 * average - 1e-9).ceil();
            load(id) + 1.0 <= bound
        };
        let with_room: Vec<u16> = eligible.iter().copied().filter(has_room).collect();
        self.hashed(&with_room, ask.key)
    }

    fn lard(&mut self, ask: Ask<'_>) -> Option<u16> {
        let eligible = self.eligible(ask);
        let (set, _) = self.lookup(ask.key);
        if let Some(n) = self.least(&within(&eligible, &set)) {
            let least = self.relative(self.least(&eligible)?);
            if !self.is_overloaded(n, &eligible) || self.relative(n) == least {
                return Some(n);
            }
        }
        let n = self.least_in_turn(&eligible)?;
        self.last = n;
        self.map(ask, Set::from([n]));
        Some(n)
    }

    fn lardr(&mut self, ask: Ask<'_>) -> Option<u16> {
        let eligible = self.eligible(ask);
        let (set, changed) = self.lookup(ask.key);
        let r = within(&eligible, &set);
        let available = self.eligible(Ask {
            exclude: &Set::new(),
            tags: 0,
            ..ask
        });
        let mut kept: Set = within(&available, &set).into_iter().collect();
        match self.least(&r) {
            Some(n)
                if !self.is_overloaded(n, &eligible)
                    || self.relative(n) == self.relative(self.least(&eligible)?) =>
            {
                if r.len() > 1 && ask.ms - changed > self.k_ms {
                    let others = r.into_iter().filter(|id| *id != n);
                    let m = others.max_by_key(|id| (self.relative(*id), *id)).unwrap();
                    kept.remove(&m);
                    self.map(ask, kept);
                }
                Some(n)
            }
            _ => {
                let p = self.least_in_turn(&eligible)?;
                self.last = p;
                if !set.contains(&p) {
                    kept.insert(p);
                    self.map(ask, kept);
                }
                Some(p)
            }
        }
    }

    fn extlard(&mut self, ask: Ask<'_>) -> Option<u16> {
        let (set, _) = self.lookup(ask.key);
        let s = self.cheapest(&self.eligible(ask), &set)?;
        if !set.contains(&s) {
            self.last_by_cost = s;
            self.map(ask, Set::from([s]));
        }
        Some(s)
    }

    fn extlard_next(&mut self, ask: Ask<'_>, home: u16) -> u16 {
        let (mut set, _) = self.lookup(ask.key);
        if set.contains(&home) {
            return home;
        }
        let mut candidates = within(&self.eligible(ask), &set);
        if self.nodes[&home].disk_queue < 5 || candidates.is_empty() {
            set.insert(home);
            self.map(ask, set);
            return home;
        }
        candidates.insert(0, home);
        self.cheapest(&candidates, &set).unwrap()
    }

    fn cheapest(&self, of: &[u16], set: &Set) -> Option<u16> {
        let rank = |id: &u16| {
            let n = &self.nodes[id];
            let load = n.work() / n.weight.max(1);
            let mapped = set.contains(id);
            // Last by turns, where the home of a connection comes first.
            let tie = (self.relative(*id), !mapped, *id <= self.last_by_cost);
            if load > self.overload * UNIT {
                return (u64::MAX, true, tie);
            }
            let cost_balancing = load.saturating_sub(self.idle * UNIT);
            let cost_locality = if mapped { UNIT } else { self.miss * UNIT };
            let cost_replacement = match load < self.idle * UNIT || mapped {
                true => 0,
                false => self.miss * UNIT,
            };
            (
                cost_balancing + cost_locality + cost_replacement,
                !mapped,
                tie,
            )
        };
        of.iter().copied().min_by_key(rank)
    }

    fn is_overloaded(&self, id: u16, eligible: &[u16]) -> bool {
        let above = |id: &u16, connections: u64| {
            let n = &self.nodes[id];
            n.work().cmp(&(connections * UNIT * n.weight))
        };
        let idle = eligible.iter().any(|q| above(q, self.low).is_lt());
        above(&id, self.high).is_gt() && idle || above(&id, 2 * self.high).is_ge()
    }

    // --- targets ---

    fn lookup(&mut self, key: u64) -> (Set, u64) {
        let order = self.slot_of(key);
        if order.contains(&key) {
            order.retain(|k| *k != key);
            order.push_back(key);
        }
        self.servers.get(&key).cloned().unwrap_or_default()
    }

    fn map(&mut self, ask: Ask<'_>, set: Set) {
        self.servers.insert(ask.key, (set, ask.ms));
        let order = self.slot_of(ask.key);
        order.retain(|k| *k != ask.key);
        order.push_back(ask.key);
        if order.len() > WAYS {
            let oldest = order.pop_front().unwrap();
            self.servers.remove(&oldest);
        }
    }

    fn slot_of(&mut self, key: u64) -> &mut VecDeque<u64> {
        let slots = self.order.len();
        &mut self.order[crate::slot_of(key, slots)]
    }

    /// Of each slot the most recently used one first.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = (u64, Vec<u16>)> + '_ {
        let keys = self.order.iter().flat_map(|keys| keys.iter().rev());
        keys.map(|k| (*k, self.servers[k].0.iter().copied().collect()))
    }
}

fn within(of: &[u16], set: &Set) -> Vec<u16> {
    of.iter().copied().filter(|id| set.contains(id)).collect()
}

/// The n-th number of SplitMix64 from this seed.
fn splitmix(seed: u64, n: u16) -> u64 {
    let step = |state: u64| state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = (0..n).fold(seed, |state, _| step(state));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
