// SPDX-License-Identifier: GPL-2.0

//! A cluster that works through a trace as fast as it can.
//!
//! ```text
//!            admission limit         front-end         dispatcher
//!   trace ───────────────────▶ accept ─────────▶ assign ─────────▶ hand off
//!                                                                     │
//!      ┌── next request ◀── Sent ◀── CPU ◀── hit ─── cache ◀─── CPU ◀─┘
//!      │                              ▲               │ miss
//!      ▼                              └─── disk ◀─────┘
//!   same node, another one, or the end
//! ```
//!
//! Events are handled in the order of their times, and of their making where these are equal, so one
//! setup and one trace have one result. The network costs nothing. `admission` has the way to the
//! dispatcher's answer, `counting` what comes of it all.

mod admission;
mod counting;

use super::event::{Event, Events};
use super::machine::{Look, Machine, Server};
use super::setup::{FrontEnds, Mechanism, Report, Setup};
use super::workload::{Start, Trace};
use admission::Arrivals;
use counting::{Bins, Sums};
use lard_core::addr::NodeId;
use lard_core::policy::{
    self, Connection, NodeSet, NodeState, Request, Scheduler, Slot, Tags, Waiter, WaitingList,
    MAX_NODES, WAYS,
};
use lard_core::time::Instant;

/// Runs a setup. `progress` hears of requests as they are answered, some at a time.
pub fn run(setup: &Setup, trace: &Trace, progress: &dyn Fn(u64)) -> Report {
    match usize::from(setup.nodes) <= MAX_NODES {
        true => Cluster::<1>::new(setup, trace).run(progress),
        false => Cluster::<16>::new(setup, trace).run(progress),
    }
}

/// A client's connection.
struct Client {
    /// The request it waits for, and the one behind its last.
    at: usize,
    end: usize,
    /// The dispatcher's part; none before it was asked.
    state: Option<Connection>,
    /// The node that serves the request, and which of its lives that is.
    serving: NodeId,
    life: u32,
    /// The life of the node that has the connection.
    home_life: u32,
    /// The node that accepted it, where all do.
    front_end: usize,
    since: u64,
    relayed: bool,
}

struct Cluster<'a, const W: usize> {
    setup: &'a Setup,
    trace: &'a Trace,
    scheduler: Scheduler<Vec<Slot<W>>, W>,
    machines: Vec<Machine<u32>>,
    front_end: Server,
    dispatcher: Server,
    waiting: WaitingList<Vec<Waiter<W>>, W>,
    /// When connections come; none where they come as soon as they may.
    arrivals: Option<Arrivals>,
    /// Connections the dispatcher has not been asked about.
    at_front_end: usize,
    turn: usize,
    clients: Vec<Client>,
    unused: Vec<u32>,
    events: Events,
    now: u64,
    /// The first request that has not come.
    next: usize,
    /// Requests that were answered or refused.
    done: u64,
    changes: Vec<super::setup::Change>,
    low: u32,
    sums: Sums,
}

impl<'a, const W: usize> Cluster<'a, W> {
    fn new(setup: &'a Setup, trace: &'a Trace) -> Self {
        // A slot for each target: none has to go because of another.
        let slots = setup.table.map_or(trace.sizes.len(), |t| t.div_ceil(WAYS));
        let mut scheduler = Scheduler::new(setup.policy, vec![Slot::EMPTY; slots]);
        scheduler
            .set_params(setup.params.iter().copied())
            .expect("valid parameters");
        let mut changes = setup.changes.clone();
        changes.sort_by(|a, b| b.after.total_cmp(&a.after));
        for node in (1..=setup.nodes).map(NodeId) {
            scheduler.add_dest(node, 1).expect("a new node");
            let first = changes.iter().rev().find(|c| c.node == node.0);
            if first.is_some_and(|c| c.comes) {
                let down = scheduler.upd_dest(node, None, Some(NodeState::Down));
                down.expect("a known node");
            }
        }
        let popular = if setup.preloaded {
            trace.by_popularity()
        } else {
            Vec::new()
        };
        let machine = |_| {
            let mut machine = Machine::new(&setup.hardware, setup.replacement);
            machine.preload(setup.hardware.cache, &popular);
            machine
        };
        // Two fifths of what makes a node potentially idle: \[3\] calls that underutilised.
        let low = scheduler.params().t_low * 2 / 5;
        let queue = scheduler.params().queue_max as usize;
        Cluster {
            setup,
            trace,
            scheduler,
            machines: (0..setup.nodes).map(machine).collect(),
            front_end: Server::default(),
            dispatcher: Server::default(),
            waiting: WaitingList::new(vec![Waiter::NOBODY; queue]),
            arrivals: setup.rate.map(|rate| Arrivals::new(rate, setup.seed)),
            at_front_end: 0,
            turn: 0,
            clients: Vec::new(),
            unused: Vec::new(),
            events: Events::default(),
            now: 0,
            next: 0,
            done: 0,
            changes,
            low,
            sums: Sums::new(setup.nodes, Bins::new(setup.bin)),
        }
    }

    fn run(mut self, progress: &dyn Fn(u64)) -> Report {
        let all = self.trace.requests.len() as u64;
        let warm = (self.setup.warm_up * all as f64) as u64;
        let (mut seen, mut told) = (0, 0);
        let mut is_warm = warm == 0;
        self.begin();
        // What is left when nothing more can come is not counted: the cluster empties.
        while self.next < self.trace.requests.len() {
            let Some((time, event)) = self.events.pop() else {
                break;
            };
            self.now = time;
            self.handle(event);
            if self.done == seen {
                continue;
            }
            seen = self.done;
            if seen - told >= 1_024 {
                progress(seen - told);
                told = seen;
            }
            if !is_warm && seen >= warm {
                is_warm = true;
                self.start_counting();
            }
            self.change(seen as f64 / all as f64);
        }
        progress(all - told);
        self.report()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrives => self.arrives(),
            Event::Accepted(client) => self.ask(client),
            Event::Decided(client) => {
                self.decided(client);
                self.admit();
            }
            Event::Impatient => self.let_in(),
            Event::Parsed(client) => self.parsed(client),
            Event::Read { node, life, file } => self.read(node, life, file),
            Event::Passed(client) => self.passed(client),
            Event::Resumed(client) => self.resumed(client),
            Event::Sent(client) => self.sent(client),
        }
    }

    // --- the way of a connection ---

    fn client(&mut self, at: usize, end: usize) -> u32 {
        let client = Client {
            at,
            end,
            state: None,
            serving: NodeId::NONE,
            life: 0,
            home_life: 0,
            front_end: 0,
            since: self.now,
            relayed: false,
        };
        match self.unused.pop() {
            Some(i) => {
                self.clients[i as usize] = client;
                i
            }
            None => {
                self.clients.push(client);
                (self.clients.len() - 1) as u32
            }
        }
    }

    /// `node` is to serve the client's request, which the CPU of `reader` has to read first.
    fn serve(&mut self, i: u32, node: NodeId, reader: NodeId, cost: u64) {
        let life = self.machine(node).lives;
        let now = self.now;
        let client = &mut self.clients[i as usize];
        (client.serving, client.life) = (node, life);
        let done = self.machine(reader).cpu.work(now, cost);
        self.events.push(done, Event::Parsed(i));
    }

    fn parsed(&mut self, i: u32) {
        if self.is_lost(i) {
            return self.again(i);
        }
        let (now, hardware) = (self.now, &self.setup.hardware);
        let node = self.clients[i as usize].serving;
        let (file, size) = self.wanted(i);
        let look = self.machine(node).look(hardware, now, file, size, i);
        self.sums.looks += 1;
        let bin = self.sums.bins.at(now);
        bin.looks += 1;
        if look == Look::Hit {
            return self.send(i);
        }
        bin.misses += 1;
        self.sums.misses += 1;
        if let Look::Reading(done) = look {
            self.sums.reads += 1;
            let life = self.machine(node).lives;
            self.events.push(done, Event::Read { node, life, file });
            self.report_disk(node);
        }
    }

    fn read(&mut self, node: NodeId, life: u32, file: u32) {
        if self.machine(node).lives != life {
            return;
        }
        let size = self.trace.sizes[file as usize];
        for client in self.machine(node).has_read(file, size) {
            if self.is_lost(client) {
                self.again(client);
            } else {
                self.send(client);
            }
        }
        self.report_disk(node);
    }

    /// The node that serves the request has the content.
    fn send(&mut self, i: u32) {
        let (node, home) = (self.clients[i as usize].serving, self.home(i));
        if node == home {
            return self.transmit(i, 0);
        }
        let hardware = &self.setup.hardware;
        let (_, size) = self.wanted(i);
        let cost = hardware.forward + hardware.pass(size);
        let now = self.now;
        let done = self.machine(node).cpu.work(now, cost);
        self.events.push(done, Event::Passed(i));
    }

    fn passed(&mut self, i: u32) {
        if self.is_lost(i) {
            return self.again(i);
        }
        let (_, size) = self.wanted(i);
        self.transmit(i, self.setup.hardware.pass(size));
    }

    /// The node that has the connection sends the response, after work that costs `more`.
    fn transmit(&mut self, i: u32, more: u64) {
        let (_, size) = self.wanted(i);
        let hardware = &self.setup.hardware;
        let client = &self.clients[i as usize];
        let is_last = client.at + 1 == client.end && self.setup.mechanism != Mechanism::Relay;
        let end = if is_last { hardware.tear_down } else { 0 };
        let cost = more + hardware.transmit(size) + end;
        let (now, home) = (self.now, self.home(i));
        let done = self.machine(home).cpu.work(now, cost);
        self.events.push(done, Event::Sent(i));
    }

    /// A response is out, to the client or to a front-end that relays it.
    fn sent(&mut self, i: u32) {
        if self.is_lost(i) {
            return self.again(i);
        }
        let (now, hardware) = (self.now, &self.setup.hardware);
        let (_, size) = self.wanted(i);
        let (home, client) = (self.home(i), &mut self.clients[i as usize]);
        match (self.setup.front_ends, self.setup.mechanism) {
            (FrontEnds::Free, _) => {}
            (_, Mechanism::Relay) if !client.relayed => {
                client.relayed = true;
                let done = match self.setup.front_ends {
                    FrontEnds::Distributed => {
                        let machine = &mut self.machines[client.front_end];
                        machine.cpu.work(now, hardware.relayed(size))
                    }
                    _ => self.front_end.work(now, hardware.relayed(size)),
                };
                return self.events.push(done, Event::Sent(i));
            }
            (_, Mechanism::Relay) => {}
            (FrontEnds::Single, _) => {
                self.front_end.work(now, hardware.acks(size));
            }
            (FrontEnds::Distributed, _) if client.front_end != usize::from(home.0) - 1 => {
                let machine = &mut self.machines[client.front_end];
                machine.cpu.work(now, hardware.acks(size));
            }
            (FrontEnds::Distributed, _) => {}
        }
        client.relayed = false;
        client.at += 1;
        let is_over = client.at == client.end;
        let (serving, since) = (client.serving, client.since);
        self.done += 1;
        self.sums.requests += 1;
        self.sums.bytes += u64::from(size);
        self.sums.delay += now - since;
        self.sums.served[usize::from(serving.0) - 1] += 1;
        self.sums.bins.at(now).requests += 1;
        if is_over {
            self.close(i);
        } else {
            self.proceed(i);
        }
        self.admit();
    }

    /// The next request of a connection.
    fn proceed(&mut self, i: u32) {
        let at = self.clients[i as usize].at;
        match self.trace.requests[at].start {
            Start::Same => self.serve_next(i),
            Start::Batch(pause) if pause > 0 => {
                self.with_state(i, |scheduler, state| scheduler.idle(state));
                let at = self.now + u64::from(pause) * 1_000;
                self.events.push(at, Event::Resumed(i));
            }
            Start::Batch(_) | Start::Connection => self.resumed(i),
        }
    }

    fn resumed(&mut self, i: u32) {
        if self.is_lost(i) {
            return self.again(i);
        }
        let at = self.clients[i as usize].at;
        let rest = self.trace.requests[at + 1..].iter();
        let batch = 1 + rest.take_while(|r| r.start == Start::Same).count();
        let batch = u16::try_from(batch).unwrap_or(u16::MAX);
        self.with_state(i, |scheduler, state| scheduler.batch(state, batch));
        self.serve_next(i);
    }

    fn serve_next(&mut self, i: u32) {
        self.clients[i as usize].since = self.now;
        if self.setup.mechanism == Mechanism::Single {
            let home = self.home(i);
            return self.serve(i, home, home, self.setup.hardware.request);
        }
        self.ask(i);
    }

    /// Serves a further request, where the dispatcher says.
    fn serve_where_named(&mut self, i: u32) {
        if self.is_lost(i) {
            return self.again(i);
        }
        let home = self.home(i);
        let request = self.request(self.clients[i as usize].at);
        let hardware = self.setup.hardware;
        let how = match self.setup.mechanism {
            Mechanism::Single | Mechanism::Multiple | Mechanism::Relay => policy::Mechanism::Move,
            Mechanism::Forwarding => policy::Mechanism::Forward,
        };
        let node = self
            .with_state(i, |scheduler, state| scheduler.next(state, &request, how))
            .unwrap_or(home);
        if node == home {
            return self.serve(i, home, home, hardware.request);
        }
        self.sync(node);
        match self.setup.mechanism {
            Mechanism::Forwarding => {
                self.sums.forwarded += 1;
                self.serve(i, node, home, hardware.request + hardware.forward);
            }
            Mechanism::Relay => {
                self.clients[i as usize].home_life = self.machine(node).lives;
                self.serve(i, node, node, hardware.request);
            }
            Mechanism::Multiple | Mechanism::Single => {
                self.sums.moved += 1;
                self.clients[i as usize].home_life = self.machine(node).lives;
                let front_end = self.clients[i as usize].front_end;
                match self.setup.front_ends {
                    FrontEnds::Free => {}
                    FrontEnds::Single => {
                        self.front_end.work(self.now, hardware.hand_off);
                    }
                    FrontEnds::Distributed => {
                        let machine = &mut self.machines[front_end];
                        machine.cpu.work(self.now, hardware.hand_off);
                    }
                }
                // It is given up at one end and taken at the other.
                let now = self.now;
                self.machine(home).cpu.work(now, hardware.adopt);
                self.serve(i, node, node, hardware.adopt + hardware.request);
            }
        }
    }

    fn close(&mut self, i: u32) {
        if let Some(state) = self.clients[i as usize].state.take() {
            let home = state.home();
            self.scheduler.close(state);
            self.sync(home);
        }
        self.unused.push(i);
    }

    // --- nodes come and go ---

    fn change(&mut self, part: f64) {
        while self.changes.last().is_some_and(|c| c.after <= part) {
            let Some(change) = self.changes.pop() else {
                break;
            };
            let node = NodeId(change.node);
            let state = if change.comes {
                NodeState::Up
            } else {
                NodeState::Down
            };
            let changed = self.scheduler.upd_dest(node, None, Some(state));
            changed.expect("a known node");
            if !change.comes {
                let now = self.now;
                let waiting = self.machine(node).die(now);
                self.sync(node);
                waiting.into_iter().for_each(|client| self.again(client));
            }
            self.admit();
        }
    }

    /// Has the node that has the connection, or the one that serves its request, died meanwhile?
    fn is_lost(&mut self, i: u32) -> bool {
        let client = &self.clients[i as usize];
        let (serving, life, home_life) = (client.serving, client.life, client.home_life);
        let home = self.home(i);
        self.machine(serving).lives != life || self.machine(home).lives != home_life
    }

    /// The client asks again for what it has not got, on a new connection.
    fn again(&mut self, i: u32) {
        if let Some(state) = self.clients[i as usize].state.take() {
            let home = state.home();
            self.scheduler.close(state);
            self.sync(home);
        }
        self.assign(i);
        self.let_in();
    }

    // --- small things ---

    fn request(&self, at: usize) -> Request<W> {
        let target = u64::from(self.trace.requests[at].target);
        Request {
            // The front-ends' keyed hash.
            key: mix(target),
            exclude: NodeSet::EMPTY,
            tags: Tags::NONE,
            now: Instant::from_nanos(self.now),
        }
    }

    fn wanted(&self, i: u32) -> (u32, u32) {
        let file = self.trace.requests[self.clients[i as usize].at].target;
        (file, self.trace.sizes[file as usize])
    }

    fn home(&self, i: u32) -> NodeId {
        let state = self.clients[i as usize].state.as_ref();
        state.map_or(NodeId(1), Connection::home)
    }

    fn machine(&mut self, node: NodeId) -> &mut Machine<u32> {
        &mut self.machines[usize::from(node.0) - 1]
    }

    /// Lets the dispatcher do something with a connection.
    fn with_state<R>(
        &mut self,
        i: u32,
        f: impl FnOnce(&mut Scheduler<Vec<Slot<W>>, W>, &mut Connection) -> R,
    ) -> R {
        let state = self.clients[i as usize].state.as_mut();
        let state = state.expect("it was assigned");
        let before = state.home();
        let result = f(&mut self.scheduler, state);
        self.sync(before);
        result
    }

    /// The node's load as the dispatcher sees it may have changed.
    fn sync(&mut self, node: NodeId) {
        let load = self.scheduler.nodes().get(node).map_or(0, |d| d.load);
        let (now, low) = (self.now, self.low);
        self.machine(node).set_active(now, load, low);
    }

    fn report_disk(&mut self, node: NodeId) {
        let queue = self.machine(node).disk_queue();
        let known = self.scheduler.set_disk_queue(node, queue);
        known.expect("a known node");
    }
}

/// Spreads numbers over all 64 bits, as a hash would (the finaliser of SplitMix64).
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
