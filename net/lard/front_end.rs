// SPDX-License-Identifier: GPL-2.0

//! The front-end: clients' connections from their SYN to the last packet that is passed on.
//!
//! ```text
//!   SYN ──▶ Open ─── head complete ──▶ hand_off.rs ─── ADOPTED ──▶ Forward ──▶ forward.rs
//!             │ 400, 408, 431, 503
//!             ▼
//!        own reply, then gone
//! ```
//!
//! This file decides about packets of connections that are known, and about time; [`crate::newcomer`]
//! about those that are not. [`crate::open`] is the connection before its hand-off, [`crate::hand_off`]
//! finds it a back-end. [`crate::persist`] follows one whose further requests may be served elsewhere, and
//! [`crate::moving`] takes it there. [`crate::over`] ends one that must not go on. [`crate::idle`] tells
//! the dispatcher which have nothing to do, and [`crate::absence`] the administrator when there is no
//! dispatcher.
//!
//! # Locking
//!
//! Each packet takes the lock of its connection's bucket once, and works on the connection under it;
//! messages to other nodes are queued there, and sending and injecting come after the unlock. Packets that
//! waited are passed on in their order, with the later ones behind them: [`crate::line`]. The settings' lock
//! is taken for packets of open connections only, and is a leaf there; who changes them looks at the peers.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, SetOnce};
use kernel_net::net::SoftNet;
use kernel_net::segment;
use kernel_net::skb::{Skb, Verdict};
use kernel_net::sync::BhLock;
use lard_core::addr::{ConnId, NodeId, Tuple};
use lard_core::tcp::{Config, Forwarding, OnSyn, Reason, Secret, Segment, SegmentOut};
use lard_core::time::Instant;

use crate::absence::Absence;
use crate::conn_table::{Bucket, ConnTable, Entry};
use crate::forward::BackEnd;
use crate::gauge::Gauge;
use crate::handed_over::look;
use crate::netns::Node;
use crate::newcomer::check_source;
use crate::open::{Context, Open, Step, Then};
use crate::over::Ending;
use crate::packet::Flow;
use crate::params::Param;
use crate::persist::{Origin, Persist};
use crate::stats::Counter;

/// Due connections that one round of the tick handles.
const TICK_BATCH: usize = 256;

/// What a client's connection is to the front-end.
pub(crate) enum State {
    /// Not handed over yet.
    Open(KBox<Open>),
    /// A back-end has it.
    Forward(Forward),
}

/// A connection that is passed on.
pub(crate) struct Forward {
    pub(crate) state: Forwarding,
    pub(crate) to: Arc<BackEnd>,
    /// What follows its requests, if another node may serve one.
    pub(crate) persist: Option<KBox<Persist>>,
}

impl Forward {
    /// Does it wait for an answer of `peer`?
    pub(crate) fn waits_for(&self, peer: NodeId, is_dispatcher: bool) -> bool {
        self.persist.as_ref().is_some_and(|persist| {
            let releasing = persist.is_in_doubt() && self.to.node() == peer;
            releasing || (is_dispatcher && persist.question().is_some())
        })
    }
}

/// Is a packet the front-end's?
pub(crate) enum Claim {
    /// It was.
    Taken(Verdict),
    /// It is not.
    Foreign(Skb),
}

/// The front-end of one namespace.
pub(crate) struct FrontEnd {
    /// Made when the component is first started, kept until the namespace ends.
    table: SetOnce<ConnTable>,
    pub(crate) settings: BhLock<Settings>,
    pub(crate) open: Arc<Gauge>,
    pub(crate) half_open: Arc<Gauge>,
    pub(crate) head_bytes: Arc<Gauge>,
    /// No new connections; those that are there go on.
    pub(crate) stopping: Atomic<bool>,
    /// When the last cookie was sent, in µs; 0 for never.
    pub(crate) cookie_sent: Atomic<u64>,
    absence: Absence,
}

/// What new connections are offered. Copied out for each packet of an open connection.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) secret: Secret,
    hash_key: [u64; 2],
}

impl FrontEnd {
    /// A front-end that takes nothing. May sleep.
    pub(crate) fn new() -> Result<Self> {
        let mut secret = [0; 16];
        kernel_net::random::bytes(&mut secret);
        let settings = Settings {
            config: Config::default(),
            secret: Secret::from_bytes(secret),
            hash_key: [0; 2],
        };
        Ok(Self {
            table: SetOnce::new(),
            settings: kernel_net::new_bh_lock!(settings, c"lard:front-end"),
            open: Gauge::new()?,
            half_open: Gauge::new()?,
            head_bytes: Gauge::new()?,
            stopping: Atomic::new(true),
            cookie_sent: Atomic::new(0),
            absence: Absence::new(),
        })
    }

    /// Starts to take connections for node `id`. May sleep.
    pub(crate) fn start(&self, id: NodeId, hash_key: [u64; 2]) -> Result {
        if self.table.as_ref().is_none() {
            let table = ConnTable::new()?;
            self.table.populate(table);
        }
        if let Some(table) = self.table.as_ref() {
            table.set_node(id);
        }
        self.settings.lock().hash_key = hash_key;
        self.stopping.store(false, Relaxed);
        Ok(())
    }

    /// Takes no more connections. Those that are there go on until they end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Gives up all connections, silently. Process context.
    pub(crate) fn clear(&self) {
        let Some(table) = self.table.as_ref() else {
            return;
        };
        table.clear();
    }

    /// Changes what new connections are offered and how long they may take.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Config)) {
        change(&mut self.settings.lock().config);
    }

    /// Changes the limits on connections before their hand-off, on half-open ones among them, and on
    /// the bytes kept for them.
    pub(crate) fn set_limits(&self, open: u32, half_open: u32, head_bytes: u32) {
        self.open.set_limit(open);
        self.half_open.set_limit(half_open);
        self.head_bytes.set_limit(head_bytes);
    }

    /// Connections in the table.
    pub(crate) fn len(&self) -> u32 {
        self.table.as_ref().map_or(0, ConnTable::len)
    }

    pub(crate) fn table(&self) -> Option<&ConnTable> {
        self.table.as_ref()
    }

    /// Runs `f` with what the steps of a connection need.
    pub(crate) fn with_context<R>(&self, node: &Node, f: impl FnOnce(&Context<'_>) -> R) -> R {
        let Settings {
            config, hash_key, ..
        } = *self.settings.lock();
        f(&Context {
            config: &config,
            stats: &node.stats,
            hash_key,
            services: &node.services,
            now: now(),
            further: node.services.further(),
        })
    }

    /// A TCP packet for a port that is served. Softirq.
    pub(crate) fn packet(&self, node: &Node, net: &SoftNet, mut skb: Skb, flow: &Flow) -> Claim {
        let Some(mut bucket) = self.table.as_ref().and_then(|t| t.bucket(&flow.tuple)) else {
            return Claim::Foreign(skb);
        };
        let Some(entry) = bucket.find(&flow.tuple) else {
            return self.newcomer(node, net, skb, flow, bucket);
        };
        let segment = match flow.segment(&mut skb) {
            Ok(segment) => segment,
            Err(reason) => {
                node.stats.inc(reason.into());
                return Claim::Taken(Verdict::Drop(skb));
            }
        };
        // It may open the tuple's next connection.
        if segment.is_syn() {
            if let Err(why) = check_source(net, &mut skb, &flow.tuple) {
                node.stats.inc(why);
                return Claim::Taken(Verdict::Drop(skb));
            }
        }
        let id = entry.id();
        if let Some(line) = entry.line().filter(|_| !segment.is_syn()) {
            return Claim::Taken(match line.put_last(&node.stats, skb) {
                Ok(()) => Verdict::Stolen,
                Err(skb) => Verdict::Drop(skb),
            });
        }
        let packet = (flow, &segment, skb);
        Claim::Taken(self.known(node, net, bucket, id, packet, Origin::Network))
    }

    /// A packet of a connection that is known. Bottom halves off.
    fn known(
        &self,
        node: &Node,
        net: &SoftNet,
        mut bucket: Bucket<'_>,
        id: ConnId,
        packet: (&Flow, &Segment, Skb),
        from: Origin,
    ) -> Verdict {
        let (flow, segment, mut skb) = packet;
        let Some(entry) = bucket.find_id(id) else {
            node.stats.inc(Counter::Overtaken);
            return Verdict::Drop(skb);
        };
        if entry.is_forbidden(node, segment) {
            if !flow.checksum_ok(&mut skb) {
                node.stats.inc(Counter::Checksum);
                return Verdict::Drop(skb);
            }
            self.forbid(node, net, bucket, id, segment);
            return Verdict::Drop(skb);
        }
        match &mut entry.state {
            State::Forward(forward) => {
                if forward.to.is_silent()
                    && node.params.get(Param::ExpireNodest) == 1
                    && !segment.is_syn()
                    && !forward.state.is_ended()
                {
                    return self.expire(node, net, skb, flow, segment, bucket, id);
                }
                let mut sooner = false;
                if segment.is_syn() {
                    if !flow.checksum_ok(&mut skb) {
                        node.stats.inc(Counter::Checksum);
                        return Verdict::Drop(skb);
                    }
                    match forward.state.on_syn(segment) {
                        OnSyn::Replace { min_iss } if !self.stopping.load(Relaxed) => {
                            let follows = Some((id, min_iss));
                            self.open(node, net, &flow.tuple, segment, bucket, follows);
                            return Verdict::Stolen;
                        }
                        // The back-end's TCP answers.
                        OnSyn::Replace { .. } | OnSyn::Forward => {}
                    }
                } else {
                    // What may end the entry has to be the client's.
                    let ends = segment.is_fin() || segment.is_rst();
                    if ends && from == Origin::Network && !flow.checksum_ok(&mut skb) {
                        node.stats.inc(Counter::Checksum);
                        return Verdict::Drop(skb);
                    }
                    let was_idle = forward.state.is_idle();
                    sooner = forward.state.on_segment(segment, now());
                    if was_idle && !forward.state.is_idle() {
                        self.tell_idle(node, id, forward.to.node(), false);
                    }
                }
                let to = forward.to.clone();
                let follows = forward.persist.is_some() && !segment.is_syn();
                if sooner && !follows {
                    let deadline = self.forward_deadline(forward);
                    bucket.set_deadline(id, deadline);
                }
                if follows {
                    match self.follow(node, net, bucket, id, (flow, segment, skb), from) {
                        Some(passed) => skb = passed,
                        None => return Verdict::Stolen,
                    }
                } else {
                    drop(bucket);
                }
                if segment.is_urgent() && !flow.strip_urgent(&mut skb) {
                    node.stats.inc(Counter::NoMemory);
                    return Verdict::Drop(skb);
                }
                to.pass(node, net, skb, &flow.tuple)
            }
            State::Open(open) => {
                if from == Origin::Network && !flow.checksum_ok(&mut skb) {
                    node.stats.inc(Counter::Checksum);
                    return Verdict::Drop(skb);
                }
                let step = self.with_context(node, |cx| open.on_packet(cx, flow, segment, skb));
                let deadline = open.deadline();
                self.stepped(node, net, flow, segment, bucket, id, deadline, step);
                Verdict::Stolen
            }
        }
    }

    /// Passes on what is in line, in its order, until nothing is. Bottom halves off, no lock held.
    pub(crate) fn pass_on(&self, node: &Node, net: &SoftNet, tuple: &Tuple, id: ConnId) {
        // By the tuple, because ids are not known any more when this node gets another number.
        while let Some(mut bucket) = self.table.as_ref().and_then(|t| t.bucket(tuple)) {
            let Some((mut skb, from)) = bucket.find_id(id).and_then(Entry::next_in_line) else {
                return;
            };
            let verdict = match look(&mut skb) {
                Some((flow, segment)) => {
                    self.known(node, net, bucket, id, (&flow, &segment, skb), from)
                }
                None => {
                    drop(bucket);
                    node.stats.inc(Counter::NoMemory);
                    Verdict::Drop(skb)
                }
            };
            node.deliver(net, verdict);
        }
    }

    /// A packet of a connection whose back-end is dead, or out of reach: the connection ends.
    #[expect(clippy::too_many_arguments)]
    fn expire(
        &self,
        node: &Node,
        net: &SoftNet,
        mut skb: Skb,
        flow: &Flow,
        segment: &Segment,
        bucket: Bucket<'_>,
        id: ConnId,
    ) -> Verdict {
        if !flow.checksum_ok(&mut skb) {
            node.stats.inc(Counter::Checksum);
            return Verdict::Drop(skb);
        }
        node.stats.inc(Counter::ForwardNodest);
        self.end(node, net, bucket, id, Ending::at(segment, segment.seq));
        Verdict::Drop(skb)
    }

    /// Carries out what a packet of an open connection has led to.
    #[expect(clippy::too_many_arguments)]
    pub(crate) fn stepped(
        &self,
        node: &Node,
        net: &SoftNet,
        flow: &Flow,
        segment: &Segment,
        bucket: Bucket<'_>,
        id: ConnId,
        deadline: Instant,
        step: Step,
    ) {
        if let Then::Restart(min_iss) = step.then {
            self.open(node, net, &flow.tuple, segment, bucket, Some((id, min_iss)));
        } else {
            self.finish(node, net, bucket, id, deadline, step);
        }
    }

    /// An ICMP error about `tuple`. Softirq.
    pub(crate) fn error(&self, node: &Node, net: &SoftNet, skb: Skb, tuple: &Tuple) -> Claim {
        let Some(mut bucket) = self.table.as_ref().and_then(|t| t.bucket(tuple)) else {
            return Claim::Foreign(skb);
        };
        let to = match bucket.find(tuple).map(|entry| &entry.state) {
            Some(State::Forward(forward)) => forward.to.clone(),
            // The front-end's own segments are small, and a client that cannot be reached will not
            // complete its handshake: the timers see to it.
            Some(State::Open(_)) => {
                node.stats.inc(Counter::IcmpIgnored);
                return Claim::Taken(Verdict::Drop(skb));
            }
            None => return Claim::Foreign(skb),
        };
        drop(bucket);
        Claim::Taken(to.pass_error(node, net, skb))
    }

    /// Carries out what a step of an open connection left to do.
    pub(crate) fn finish(
        &self,
        node: &Node,
        net: &SoftNet,
        mut bucket: Bucket<'_>,
        id: ConnId,
        deadline: Instant,
        step: Step,
    ) {
        let Some(tuple) = bucket.find_id(id).map(|entry| *entry.tuple()) else {
            return;
        };
        let mut gone: Option<KBox<Entry>> = None;
        match &step.then {
            // A back-end may have it.
            Then::Delete(Reason::HandoffSilent) => {
                return self.end_hand_off(node, net, bucket, id);
            }
            Then::Delete(reason) => {
                node.stats.inc((*reason).into());
                gone = bucket.remove(id);
            }
            _ => bucket.set_deadline(id, deadline),
        }
        drop(bucket);
        for out in step.send.iter().flatten() {
            send(node, net, &tuple, out);
        }
        drop(gone);
        if let Then::Ask = step.then {
            self.ask(node, net, id);
        }
    }

    /// Says so when the dispatcher is out of reach, or back. From the namespace's tick.
    pub(crate) fn watch_dispatcher(&self, node: &Node) {
        self.absence.tick(node, !self.stopping.load(Relaxed));
    }

    /// Looks at the connections whose time has come. Process context, from the namespace's tick.
    pub(crate) fn tick(&self, node: &Node) {
        let Some(table) = self.table.as_ref() else {
            return;
        };
        let Ok(mut ids) = KVec::with_capacity(TICK_BATCH, GFP_KERNEL) else {
            return;
        };
        let mut more = true;
        while more {
            more = table.due(now(), &mut ids);
            for id in ids.iter() {
                // What waited may be injected or delivered here, as if it came just now.
                let done = node.cell.with(|net| self.on_time(node, net, table, *id));
                if done.is_none() {
                    return;
                }
            }
        }
    }

    /// Bottom halves off.
    fn on_time(&self, node: &Node, net: &SoftNet, table: &ConnTable, id: ConnId) {
        let Some(mut bucket) = table.bucket_of(id) else {
            return;
        };
        let Some(entry) = bucket.find_id(id) else {
            return;
        };
        if entry.deadline() > now() {
            return;
        }
        match &mut entry.state {
            State::Open(open) => {
                let step = self.with_context(node, |cx| open.on_timer(cx));
                let deadline = open.deadline();
                self.finish(node, net, bucket, id, deadline, step);
            }
            State::Forward(forward) => {
                let waits = forward.persist.as_ref().map(|persist| persist.deadline());
                if waits.is_some_and(|until| until <= now()) {
                    drop(bucket);
                    self.waited(node, net, id);
                    return;
                }
                if self.settles(&mut forward.state) {
                    let to = forward.to.node();
                    let deadline = self.forward_deadline(forward);
                    bucket.set_deadline(id, deadline);
                    return self.reset_again(node, net, bucket, id, to);
                }
                if self.falls_idle(&mut forward.state) {
                    node.stats.inc(Counter::ForwardIdle);
                    self.tell_idle(node, id, forward.to.node(), true);
                }
                let deadline = self.forward_deadline(forward);
                if deadline > now() {
                    bucket.set_deadline(id, deadline);
                    return;
                }
                if forward.state.is_ended() {
                    self.tell_busy(node, id, forward);
                }
                node.stats.inc(match forward.state.is_over() {
                    true => Counter::ForwardEnded,
                    false => Counter::ForwardExpired,
                });
                let gone = bucket.remove(id);
                drop(bucket);
                drop(gone);
            }
        }
    }

    /// When the tick looks at a connection that is passed on.
    pub(crate) fn forward_deadline(&self, forward: &Forward) -> Instant {
        let config = &self.settings.lock().config;
        let deadline = forward.state.deadline(config, forward.to.mute(), now());
        let waits = forward.persist.as_ref().map(|persist| persist.deadline());
        deadline.min(waits.unwrap_or(deadline))
    }

    /// Has a connection that is passed on just fallen idle?
    fn falls_idle(&self, state: &mut Forwarding) -> bool {
        state.falls_idle(&self.settings.lock().config, now())
    }

    /// Has the back-end of a connection that was ended here had its time to take it?
    fn settles(&self, state: &mut Forwarding) -> bool {
        state.settles(&self.settings.lock().config, now())
    }

    /// Until when a back-end may take to let go of a connection that it is asked for now.
    pub(crate) fn handoff_deadline(&self) -> Instant {
        now().saturating_add(self.settings.lock().config.handoff_timeout)
    }

    /// Until when a back-end may take a connection that is handed off now. Earlier than this
    /// front-end gives up, so that a late hand-off and a reset never cross.
    pub(crate) fn handoff_expires(&self) -> Instant {
        now().saturating_add(self.settings.lock().config.handoff_timeout * 3 / 4)
    }
}

/// Sends one of the front-end's own segments to the client. Bottom halves off.
pub(crate) fn send(node: &Node, net: &SoftNet, tuple: &Tuple, out: &SegmentOut) {
    let mut bytes = [0; SegmentOut::MAX_LEN];
    let (Some(src), Some(dst)) = (tuple.vip.addr.to_v4(), tuple.client.addr.to_v4()) else {
        return;
    };
    let sent = out
        .emit(tuple, &mut bytes)
        .and_then(|len| bytes.get(..len))
        .is_some_and(|tcp| segment::send(net, src, dst, tcp).is_ok());
    if !sent {
        node.stats.inc(Counter::OwnSegmentLost);
    }
}

pub(crate) fn now() -> Instant {
    Instant::from_micros(kernel_net::time::now_us())
}
