// SPDX-License-Identifier: GPL-2.0

//! How connections come, and how they get to the dispatcher's answer.
//!
//! ```text
//!   closed, as in [3]:   whenever the limit allows ─┐
//!   open:                at random, at a rate ──────┴▶ front-end ─▶ dispatcher ─▶ assigned
//!                                                                     │  ▲
//!                                                       the limit     ▼  │ others end
//!                                                                   waits ─▶ too many, too long: 503
//! ```
//!
//! Who waits and who is let in is decided by the kernel module's [`WaitingList`].

use super::super::event::Event;
use super::super::setup::{FrontEnds, Mechanism};
use super::super::workload::Start;
use super::Cluster;
use lard_core::addr::{ConnId, NodeId};
use lard_core::policy::{Admission, Connection, Outcome};
use lard_core::time::Instant;
use rand::SeedableRng;
use rand_distr::{Distribution, Exp};
use rand_pcg::Pcg64;
use std::time::Duration;

#[cfg(doc)]
use lard_core::policy::WaitingList;

/// Connections at front-ends, at most, for each of them, where they come as soon as they may.
const AT_FRONT_END: usize = 64;

/// Times of connections that come at random and know nothing of each other.
pub(super) struct Arrivals {
    rng: Pcg64,
    gap: Exp<f64>,
}

impl Arrivals {
    /// So many a second.
    pub(super) fn new(rate: f64, seed: u64) -> Self {
        Arrivals {
            rng: Pcg64::seed_from_u64(seed),
            gap: Exp::new(rate / 1e9).expect("a positive rate"),
        }
    }

    /// Nanoseconds to the next one.
    fn gap(&mut self) -> u64 {
        // CAST: saturates, and nobody waits for that long.
        self.gap.sample(&mut self.rng) as u64
    }
}

impl<const W: usize> Cluster<'_, W> {
    /// The first connections come.
    pub(super) fn begin(&mut self) {
        if self.arrivals.is_some() {
            self.expect();
        }
        self.admit();
    }

    /// Lets in who may come in now.
    pub(super) fn admit(&mut self) {
        self.let_in();
        let most = AT_FRONT_END * self.front_ends();
        while self.arrivals.is_none()
            && self.next < self.trace.requests.len()
            && self.at_front_end < most
            && !self.is_full()
        {
            self.enter();
        }
    }

    /// A connection comes, and the one after it will.
    pub(super) fn arrives(&mut self) {
        if self.next < self.trace.requests.len() {
            self.enter();
            self.expect();
        }
    }

    fn expect(&mut self) {
        if let Some(arrivals) = &mut self.arrivals {
            let at = self.now + arrivals.gap();
            self.events.push(at, Event::Arrives);
        }
    }

    fn front_ends(&self) -> usize {
        match self.setup.front_ends {
            FrontEnds::Distributed => self.machines.len(),
            FrontEnds::Free | FrontEnds::Single => 1,
        }
    }

    /// Have the nodes as many connections as they may have? Without a limit of its own a closed
    /// workload has the papers', whatever the policy: there must be some number of clients.
    fn is_full(&self) -> bool {
        match self.scheduler.limit() {
            Some(_) => self.scheduler.is_full(),
            None => self.scheduler.is_saturated(),
        }
    }

    /// The trace's next connection comes to a front-end.
    fn enter(&mut self) {
        let at = self.next;
        let rest = self.trace.requests[at + 1..].iter();
        let further = rest.take_while(|r| r.start != Start::Connection).count();
        self.next = at + 1 + further;
        let client = self.client(at, self.next);
        self.at_front_end += 1;
        let cost = match self.setup.mechanism {
            Mechanism::Relay => 0,
            _ => self.setup.hardware.hand_off,
        };
        let done = match self.setup.front_ends {
            FrontEnds::Free => return self.ask(client),
            FrontEnds::Single => self.front_end.work(self.now, cost),
            FrontEnds::Distributed => {
                self.turn = (self.turn + 1) % self.machines.len();
                self.clients[client as usize].front_end = self.turn;
                self.machines[self.turn].cpu.work(self.now, cost)
            }
        };
        self.events.push(done, Event::Accepted(client));
    }

    /// The dispatcher is asked about the client's next request.
    pub(super) fn ask(&mut self, i: u32) {
        let hardware = &self.setup.hardware;
        let cost = match self.setup.front_ends {
            FrontEnds::Free => return self.decided(i),
            // They are on one machine.
            FrontEnds::Single => hardware.decision,
            FrontEnds::Distributed => hardware.decision + hardware.question,
        };
        let done = self.dispatcher.work(self.now, cost);
        self.events.push(done, Event::Decided(i));
    }

    /// It is the request's turn at the dispatcher.
    pub(super) fn decided(&mut self, i: u32) {
        match self.clients[i as usize].state {
            None => {
                self.at_front_end -= 1;
                self.assign(i);
            }
            Some(_) => self.serve_where_named(i),
        }
    }

    /// Assigns the connection by its next request, or lets it wait.
    pub(super) fn assign(&mut self, i: u32) {
        let request = self.request(self.clients[i as usize].at);
        let conn = ConnId::from_bits(i.into());
        match self.waiting.assign(&mut self.scheduler, conn, &request) {
            Admission::Assigned(Some(node)) => self.start(i, node),
            Admission::Assigned(None) | Admission::Refused => self.refuse(i),
            Admission::Waits => {
                let patience = self.scheduler.params().queue_time_ms.into();
                let patience = Duration::from_millis(patience).as_nanos() as u64;
                self.events.push(self.now + patience, Event::Impatient);
            }
        }
    }

    /// Those that wait: some have room now, and some have waited for too long.
    pub(super) fn let_in(&mut self) {
        let now = Instant::from_nanos(self.now);
        while let Some((conn, outcome)) = self.waiting.next(&mut self.scheduler, now) {
            // CAST: `assign` made it of a client's number.
            let i = conn.to_bits() as u32;
            match outcome {
                Outcome::Assigned(Some(node)) => self.start(i, node),
                Outcome::Assigned(None) | Outcome::Expired => self.refuse(i),
            }
        }
    }

    /// `home` gets the connection.
    fn start(&mut self, i: u32, home: NodeId) {
        self.clients[i as usize].state = Some(Connection::active(home));
        self.clients[i as usize].home_life = self.machine(home).lives;
        self.sync(home);
        let hardware = &self.setup.hardware;
        let cost = match self.setup.mechanism {
            Mechanism::Relay => hardware.request,
            _ => hardware.set_up + hardware.adopt + hardware.request,
        };
        self.serve(i, home, home, cost);
    }

    /// The client is told that nobody can serve it, and goes away with all it wanted.
    fn refuse(&mut self, i: u32) {
        let client = &self.clients[i as usize];
        let left = (client.end - client.at) as u64;
        self.done += left;
        self.sums.refused += left;
        self.unused.push(i);
    }
}
