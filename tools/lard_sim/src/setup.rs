// SPDX-License-Identifier: GPL-2.0

//! What is simulated, and what comes of it.

use super::cache::Replacement;
use super::hardware::{Hardware, PAPER};
use lard_core::policy::PolicyKind;

/// How a persistent connection's requests reach the nodes that should serve them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mechanism {
    /// All go to the node of the first one.
    #[default]
    Single,
    /// The connection is handed over again.
    Multiple,
    /// The node that has the connection fetches the content from the one that has that.
    Forwarding,
    /// The front-end keeps the connection and relays.
    Relay,
}

/// Who accepts the clients' connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrontEnds {
    /// Somebody for whom it costs nothing.
    #[default]
    Free,
    /// One machine that does nothing else.
    Single,
    /// Every back-end, in turn.
    Distributed,
}

/// A node dies or comes (back).
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// After this part of the requests.
    pub after: f64,
    /// Number of the node, from 1.
    pub node: u16,
    /// Does it come?
    pub comes: bool,
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Number of back-ends.
    pub nodes: u16,
    /// The policy.
    pub policy: PolicyKind,
    /// Its parameters, where they are not the defaults.
    pub params: Vec<(&'static str, u32)>,
    /// Targets the dispatcher remembers; all of them if it is not said.
    pub table: Option<usize>,
    /// What a back-end, and a front-end, is made of.
    pub hardware: Hardware,
    /// What its cache does when it is full.
    pub replacement: Replacement,
    /// What happens to persistent connections.
    pub mechanism: Mechanism,
    /// Who accepts connections.
    pub front_ends: FrontEnds,
    /// Connections that come each second, at random; none where they come as soon as the admission
    /// limit allows.
    pub rate: Option<f64>,
    /// What their times are drawn from.
    pub seed: u64,
    /// What happens on the way. A node whose first change is to come is not there before.
    pub changes: Vec<Change>,
    /// Do all caches begin with the most popular files, as if the trace had gone on for long?
    pub preloaded: bool,
    /// The part of the requests that fill the caches and are not counted.
    pub warm_up: f64,
    /// Width of the bins of [`Report::bins`] in simulated nanoseconds, as long as these are not too
    /// many.
    pub bin: u64,
}

impl Setup {
    /// The papers' cluster.
    pub fn new(nodes: u16, policy: PolicyKind) -> Self {
        Setup {
            nodes,
            policy,
            params: Vec::new(),
            table: None,
            hardware: PAPER,
            replacement: Replacement::default(),
            mechanism: Mechanism::default(),
            front_ends: FrontEnds::default(),
            rate: None,
            seed: 1,
            changes: Vec::new(),
            preloaded: false,
            warm_up: 0.25,
            bin: 1_000_000_000,
        }
    }
}

/// What happened within one bin of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bin {
    /// Requests that were answered.
    pub requests: u64,
    /// Looks into caches that found nothing.
    pub misses: u64,
    /// All looks.
    pub looks: u64,
}

/// What a run came to, after the warm-up. Parts are of 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Requests answered.
    pub requests: u64,
    /// Requests answered each second.
    pub throughput: f64,
    /// Bits of content sent each second.
    pub bits: f64,
    /// Requests that were not in the cache of the node that served them.
    pub miss_ratio: f64,
    /// Reads from disk for each request.
    pub disk_reads: f64,
    /// Part of the time in which a node had less than 0.4 * T_low connections, over all nodes.
    pub idle: f64,
    /// Part of the time in which a CPU worked, over all nodes.
    pub cpu: f64,
    /// The same for disks.
    pub disk: f64,
    /// The same for the CPU of a single front-end.
    pub front_end: f64,
    /// The same for the dispatcher's.
    pub dispatcher: f64,
    /// Requests of clients that were answered with 503, of all that came.
    pub refused: f64,
    /// Mean time from when a request comes to the end of its response, in milliseconds.
    pub delay_ms: f64,
    /// Requests of the busiest node over the mean.
    pub imbalance: f64,
    /// Requests served by another node than the one with the connection.
    pub forwarded: f64,
    /// Hand-offs after the first one of a connection, for each request.
    pub moved: f64,
    /// Times a target got other nodes than it had.
    pub changes: u64,
    /// What happened when, from the very start.
    pub bins: Vec<Bin>,
    /// Their width in simulated nanoseconds.
    pub bin: u64,
}
