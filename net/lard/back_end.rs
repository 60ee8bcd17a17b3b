// SPDX-License-Identifier: GPL-2.0

//! The back-end: connections that front-ends hand over become accepted sockets of a local server.
//!
//! A HANDOFF is a licence to make a connection from any address, so much is asked before one is
//! believed: that the peer is a member and numbers the connection as its own, that it has announced
//! the address and port the client used, that this node's administrator allows them. Then
//! [`kernel_net::inject`] makes the socket, or says why not.
//!
//! From then on the client's packets, which the front-end forwards unchanged, are claimed in the
//! hook and passed up to that socket. The addresses and ports that front-ends have announced are
//! *owned* by the back-end: a packet for one of them that no socket is there for is dropped and
//! counted. Routed it would travel back to the front-end and round again.
//!
//! Not owned is what is an address of this node as well: a virtual address on `lo`, as other balancers
//! want it, or one that has moved here with its front-end. There other programs may serve the port, and
//! nothing is routed away. So what is for no child goes on to the regular stack, which answers as it
//! would for any connection that is gone.
//!
//! The end of a child is told to its front-end and to the dispatcher, once. What is lost of that on its way
//! a front-end finds out by asking: [`crate::probe`].
//!
//! # Locking
//!
//! `owned` is a leaf. [`BackEnd::handoff`] and [`BackEnd::deliver`] go through the whole of TCP,
//! which may send, so they are called without any lock. The end of a child comes from a work that
//! holds none.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel_net::child::{self, End, GiveUp, GivenUp, How, Kept, Pending, Presence};
use kernel_net::inject::{self, inject, Lent, Listener};
use kernel_net::net::{Net, NetCell, SoftNet};
use kernel_net::skb::{Flow, NotDelivered, Skb, Verdict};
use kernel_net::sync::BhLock;

use crate::config::Config;
use crate::netns::{Node, NODES};
use crate::responses::Responses;
use crate::rows::{ConnRow, ConnState};
use crate::stats::Counter;
use lard_core::addr::{Addr, ConnId, Endpoint, NodeId, Tuple};
use lard_core::policy::NodeSet;
use lard_core::wire::{
    Closed, Gone, Handoff, HowClosed, Load, Probe, Refusal, Release, Released, Roles, TsUnit,
    WhyBusy,
};

/// Ticks between two sweeps: what a sweep finds was missed by everything quicker.
const SWEEP_TICKS: u32 = 50;
/// Addresses and ports that can be owned: as many as all peers can announce.
const MAX_OWNED: usize = 1024;

/// An address and port that a peer's front-end serves.
#[derive(Clone, Copy)]
struct Owned {
    vip: Endpoint,
    peer: NodeId,
    /// The peer is not connected, so no hand-off comes from it; packets do, as long as it forwards.
    gone: bool,
}

/// The back-end of a node.
pub(crate) struct BackEnd {
    cell: NetCell,
    /// No hand-off is taken.
    stopped: Atomic<bool>,
    children: Atomic<i32>,
    ticks: Atomic<u32>,
    /// Requests that wait for the disk of this node's servers, as the owner of the node last said.
    disk_queue: Atomic<u32>,
    /// The nodes whose documents the servers have beside their own, as the owner of the node last said.
    mounted: Atomic<u64>,
    /// One bit for each residue of the owned ports: most packets are for none of them.
    ports: Atomic<u64>,
    owned: BhLock<KVec<Owned>>,
    /// The interface of the internal network: [`ANY`] if it was not named, [`NONE`] while there is
    /// no interface of that name.
    internal: Atomic<u32>,
    /// Listeners of the regular family that were let answer for foreign addresses.
    lent: Lent,
}

/// Packets may come by whatever interface.
const ANY: u32 = 0;
/// No interface has this number.
const NONE: u32 = u32::MAX;

fn port_bit(port: u16) -> u64 {
    1 << (port % 64)
}

/// The tuple as sockets have it; `None` if it is not one of IPv4.
pub(crate) fn flow(tuple: &Tuple) -> Option<Flow> {
    Some(Flow {
        client: tuple.client.addr.to_v4()?,
        client_port: tuple.client.port,
        server: tuple.vip.addr.to_v4()?,
        server_port: tuple.vip.port,
    })
}

fn tuple(flow: &Flow) -> Tuple {
    Tuple::new(
        Endpoint::new(Addr::from_v4(flow.client), flow.client_port),
        Endpoint::new(Addr::from_v4(flow.server), flow.server_port),
    )
}

impl BackEnd {
    /// A back-end that takes nothing yet.
    pub(crate) fn new(cell: NetCell) -> Self {
        Self {
            cell,
            stopped: Atomic::new(true),
            children: Atomic::new(0),
            ticks: Atomic::new(0),
            disk_queue: Atomic::new(0),
            mounted: Atomic::new(u64::MAX),
            ports: Atomic::new(0),
            owned: kernel_net::new_bh_lock!(KVec::new(), c"lard:owned"),
            internal: Atomic::new(ANY),
            lent: Lent::new(),
        }
    }

    /// Begins to take connections.
    pub(crate) fn start(&self, net: &Net, config: &Config) {
        self.follow_interface(net, config);
        self.set_mounted(config.mounted);
        self.stopped.store(false, Relaxed);
    }

    /// Takes no more connections, and takes back what was given to listeners of the regular
    /// family. What was adopted lives on. Process context.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.set_disk_queue(0);
        self.lent.restore();
    }

    /// Breaks off the connections of all children, whose clients no forwarded packet would reach any
    /// more, and lets go of them and of what peers served. May sleep.
    pub(crate) fn clear(&self, net: &Net) {
        child::abort(net);
        let owned = core::mem::replace(&mut *self.owned.lock(), KVec::new());
        drop(owned);
        self.ports.store(0, Relaxed);
        // Not to none: ends that are on their way are still to be told.
        let released = i32::try_from(child::release(net)).unwrap_or(i32::MAX);
        self.children.fetch_add(released.saturating_neg(), Relaxed);
        // A hand-off that was under way when the back-end stopped may have lent since.
        self.lent.restore();
    }

    /// Children that are alive.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.children.load(Relaxed)).unwrap_or(0)
    }

    /// Notes how many requests wait for the disk. The module does not count them by itself: it would
    /// have to hold the device open, and only user space knows which one it is.
    pub(crate) fn set_disk_queue(&self, length: u32) {
        self.disk_queue.store(length, Relaxed);
    }

    /// Notes of which nodes this one has the documents beside its own.
    pub(crate) fn set_mounted(&self, mounted: NodeSet) {
        self.mounted.store(mounted.bits(), Relaxed);
    }

    /// What the dispatcher is told.
    pub(crate) fn load(&self) -> Load {
        Load {
            active: self.len(),
            disk_queue: self.disk_queue.load(Relaxed),
        }
    }

    // --- what belongs to the back-end ---

    /// Notes what a peer's front-end serves, in place of what it had announced before. Process context.
    pub(crate) fn learn(&self, peer: NodeId, vips: &[Endpoint]) {
        let mut owned = self.owned.lock();
        owned.retain(|entry| entry.peer != peer);
        for vip in vips.iter().copied() {
            let entry = Owned {
                vip,
                peer,
                gone: false,
            };
            if owned.len() >= MAX_OWNED {
                let Some(oldest) = owned.iter().position(|entry| entry.gone) else {
                    break;
                };
                let _ = owned.remove(oldest);
            }
            // Without memory the peer's hand-offs are refused, which it is told.
            if owned.push(entry, GFP_ATOMIC).is_err() {
                break;
            }
        }
        self.note_ports(&owned);
    }

    /// Notes that a peer is not connected any more. What it served stays owned: its front-end may
    /// still forward, also for children that are gone, and what it forwards must not travel back.
    pub(crate) fn forget(&self, peer: NodeId) {
        let mut owned = self.owned.lock();
        for entry in owned.iter_mut().filter(|entry| entry.peer == peer) {
            entry.gone = true;
        }
    }

    fn note_ports(&self, owned: &[Owned]) {
        let ports = owned
            .iter()
            .fold(0, |bits, entry| bits | port_bit(entry.vip.port));
        self.ports.store(ports, Relaxed);
    }

    /// Is this an address and port that a peer's front-end serves? Any context but hard irq.
    pub(crate) fn is_announced(&self, vip: Endpoint) -> bool {
        self.ports.load(Relaxed) & port_bit(vip.port) != 0
            && self.owned.lock().iter().any(|entry| entry.vip == vip)
    }

    /// Is all that comes for this address and port the back-end's? Asked about each packet that is for
    /// no child, because addresses come and go. Any context but hard irq.
    pub(crate) fn owns(&self, net: &Net, vip: Endpoint) -> bool {
        self.is_announced(vip)
            && vip
                .addr
                .to_v4()
                .is_some_and(|addr| !net.addr_is_local(addr))
    }

    fn serves_for(&self, peer: NodeId, vip: Endpoint) -> bool {
        self.owned
            .lock()
            .iter()
            .any(|entry| entry.peer == peer && entry.vip == vip && !entry.gone)
    }

    // --- packets ---

    /// Decides about a segment that no front-end of this node serves. Softirq.
    ///
    /// Most are for children, and those are known by their sockets; the list of what is owned is
    /// asked about the rest.
    pub(crate) fn packet(&self, node: &Node, net: &SoftNet, skb: Skb, tuple: &Tuple) -> Verdict {
        if self.ports.load(Relaxed) & port_bit(tuple.vip.port) == 0 || !self.is_internal(&skb) {
            return Verdict::Accept(skb);
        }
        let Some(flow) = flow(tuple) else {
            return Verdict::Accept(skb);
        };
        match skb.deliver_established(net, &flow, || self.owns(net, tuple.vip)) {
            Ok(verdict) => {
                node.stats.inc(Counter::BePackets);
                verdict
            }
            Err(NotDelivered::NoSocket(skb)) if !self.owns(net, tuple.vip) => Verdict::Accept(skb),
            Err(why) => not_delivered(node, why),
        }
    }

    /// Passes a segment up to the child whose it is; this node's own front-end sends it. Softirqs
    /// off, RCU held, no lock.
    pub(crate) fn deliver(&self, node: &Node, net: &SoftNet, skb: Skb, tuple: &Tuple) -> Verdict {
        let Some(flow) = flow(tuple) else {
            return Verdict::Drop(skb);
        };
        match skb.deliver_established(net, &flow, || true) {
            Ok(verdict) => {
                node.stats.inc(Counter::BePackets);
                verdict
            }
            Err(why) => not_delivered(node, why),
        }
    }

    /// Decides about an ICMP error. Softirq.
    pub(crate) fn error(&self, node: &Node, net: &SoftNet, skb: Skb, tuple: &Tuple) -> Verdict {
        if self.owns(net, tuple.vip) && self.is_internal(&skb) {
            skb.deliver_local(net)
                .unwrap_or_else(|why| not_delivered(node, why))
        } else {
            Verdict::Accept(skb)
        }
    }

    /// Did it come by the network between the nodes, as far as that is known?
    fn is_internal(&self, skb: &Skb) -> bool {
        let internal = self.internal.load(Relaxed);
        internal == ANY || internal == skb.ifindex()
    }

    // --- hand-offs ---

    /// Takes a connection from a front-end: a peer's, or with `None` this node's own. Softirqs off;
    /// no lock held.
    pub(crate) fn handoff(
        &self,
        node: &Node,
        net: &SoftNet,
        from: Option<NodeId>,
        handoff: &Handoff<'_>,
    ) -> Result<(), Refusal> {
        let config = node.config().ok_or(Refusal::NotAllowed)?;
        self.check(&config, from, handoff)?;
        let owner = NODES.get(net).ok_or(Refusal::NotAllowed)?;
        let handed = convert(handoff)?;
        let watch = match handoff.movable {
            true => Some((Responses::watch(handoff.data)?, handoff.iss.wrapping_add(1))),
            false => None,
        };
        let child = Pending::new(net, owner, handoff.conn.to_bits(), handed.flow, watch)
            .ok_or(Refusal::NoMemory)?;
        let listener = Listener {
            port: config.be_port,
            addr: config.be_addr.and_then(Addr::to_v4),
            lent: config.any_listener.then_some(&self.lent),
        };
        // Before the child can end.
        self.children.fetch_add(1, Relaxed);
        let adopted = inject(
            net,
            self.internal.load(Relaxed),
            &handed,
            handoff.data,
            &listener,
            child,
        );
        match adopted {
            Ok(adopted) => {
                node.stats.inc(Counter::BeAdopted);
                if adopted.replaced_time_wait {
                    node.stats.inc(Counter::BeTimeWaitReplaced);
                }
                Ok(())
            }
            Err(refusal) => {
                self.children.fetch_add(-1, Relaxed);
                Err(reason(refusal))
            }
        }
    }

    /// Is this hand-off one that this node takes?
    fn check(
        &self,
        config: &Config,
        from: Option<NodeId>,
        handoff: &Handoff<'_>,
    ) -> Result<(), Refusal> {
        let vip = handoff.tuple.vip;
        let known = match from {
            Some(peer) => handoff.conn.node() == peer && self.serves_for(peer, vip),
            None => handoff.conn.node() == config.node,
        };
        if self.stopped.load(Relaxed)
            || !config.is(Roles::BACK_END)
            || !known
            || !config.allows(vip)
            || !handoff.tuple.client.addr.is_valid_source()
        {
            return Err(Refusal::NotAllowed);
        }
        Ok(())
    }

    /// Gives a connection back to a front-end, a peer's or with `None` this node's own, if the server is
    /// done with it. Any context but hard irq; no lock held.
    pub(crate) fn release(
        &self,
        node: &Node,
        net: &SoftNet,
        from: Option<NodeId>,
        release: &Release,
    ) -> Result<Released, WhyBusy> {
        let mounted = NodeSet::from_bits(self.mounted.load(Relaxed));
        if release.supplier.is_some_and(|by| !mounted.contains(by)) {
            return Err(WhyBusy::Unmounted);
        }
        let owner = from.unwrap_or(node.id());
        let flow = flow(&release.tuple).filter(|_| release.conn.node() == owner);
        let wish = GiveUp {
            id: release.conn.to_bits(),
            flow: flow.ok_or(WhyBusy::Ending)?,
            next: release.next,
            acked: release.acked,
            requests: release.requests,
        };
        let given_up = child::give_up(net, self.internal.load(Relaxed), &wish);
        let GivenUp { snd_nxt, tsval } = given_up.map_err(|kept| match kept {
            Kept::Ending => WhyBusy::Ending,
            Kept::Answering => WhyBusy::Answering,
            Kept::InFlight => WhyBusy::InFlight,
            Kept::InUse => WhyBusy::InUse,
            Kept::Opaque => WhyBusy::Opaque,
        })?;
        self.children.fetch_add(-1, Relaxed);
        node.stats.inc(Counter::ending(HowClosed::Moved));
        let unit = |usec| match usec {
            true => TsUnit::Micros,
            false => TsUnit::Millis,
        };
        Ok(Released {
            conn: release.conn,
            snd_nxt,
            rcv_nxt: release.next,
            tsval: tsval.map(|(tsval, usec)| (tsval, unit(usec))),
        })
    }

    // --- the end of a child ---

    /// A front-end asks for one of its connections: the answer, if the child is not there. Any context but
    /// hard irq; no lock held.
    pub(crate) fn probed(&self, net: &SoftNet, probe: &Probe) -> Option<Gone> {
        let conn = probe.conn;
        let state = flow(&probe.tuple).map_or(Presence::Gone, |flow| {
            child::presence(net, self.internal.load(Relaxed), conn.to_bits(), &flow)
        });
        let time_wait = match state {
            Presence::There => return None,
            Presence::TimeWait => true,
            Presence::Gone => false,
        };
        Some(Gone { conn, time_wait })
    }

    /// A child is gone. Process context, no lock held.
    pub(crate) fn child_closed(&self, node: &Node, id: u64, end: &End) {
        self.children.fetch_add(-1, Relaxed);
        let conn = ConnId::from_bits(id);
        let how = match end.how {
            How::Closed => HowClosed::Closed,
            How::TimeWait => HowClosed::TimeWait,
            How::Reset => HowClosed::Reset,
        };
        node.stats.inc(Counter::ending(how));
        let Some(config) = node.config() else {
            return;
        };
        let closed = Closed {
            conn,
            node: config.node,
            how,
            bytes: end.bytes_sent,
            duration: Duration::from_micros(end.duration_us),
        };
        let front_end = conn.node();
        if front_end == config.node {
            node.front_end.closed(node, conn, config.node, how);
        } else {
            // Untold it will ask.
            tell(node, front_end, &closed);
        }
        if config.is(Roles::DISPATCHER) {
            node.dispatcher.finished(node, conn, config.node);
        } else if config.dispatcher != front_end || front_end == config.node {
            tell(node, config.dispatcher, &closed);
        }
    }

    /// Does what is due. Process context.
    pub(crate) fn tick(&self, net: &Net, config: Option<&Config>) {
        if let Some(config) = config {
            self.follow_interface(net, config);
        }
        let ticks = self.ticks.load(Relaxed).wrapping_add(1);
        self.ticks.store(ticks, Relaxed);
        if ticks % SWEEP_TICKS == 0 {
            child::sweep(net);
            self.lent.sweep();
        }
    }

    /// The internal interface may be removed and made again, with another number.
    fn follow_interface(&self, net: &Net, config: &Config) {
        let now = match config.internal_ifname() {
            None => ANY,
            Some(name) => net.ifindex(name.as_bytes()).unwrap_or(NONE),
        };
        self.internal.store(now, Relaxed);
    }

    /// The first child at or after a position.
    pub(crate) fn next_conn(&self, from: u64) -> Option<(u64, ConnRow)> {
        let (position, listed) = self.cell.with(|net| child::next(net, from))??;
        let conn = ConnId::from_bits(listed.id);
        let row = ConnRow {
            id: conn,
            state: ConnState::Adopted,
            tuple: tuple(&listed.flow),
            node: conn.node(),
            age: Duration::from_micros(listed.age_us),
            idle: None,
        };
        Some((position, row))
    }
}

/// Drops what could not be passed up, and counts it.
fn not_delivered(node: &Node, why: NotDelivered) -> Verdict {
    let (counter, skb) = match why {
        NotDelivered::NoSocket(skb) => (Counter::BeUnknownTuple, skb),
        NotDelivered::NoRoute(skb) => (Counter::BeNoRoute, skb),
    };
    node.stats.inc(counter);
    Verdict::Drop(skb)
}

/// Tells a node of the end of a child.
fn tell(node: &Node, to: NodeId, closed: &Closed) {
    if node.control.send_later(to, closed).is_err() {
        node.stats.inc(Counter::BeUnreported);
    }
}

/// What injection wants to know.
fn convert(handoff: &Handoff<'_>) -> Result<inject::Handoff, Refusal> {
    Ok(inject::Handoff {
        flow: flow(&handoff.tuple).ok_or(Refusal::Options)?,
        irs: handoff.irs,
        iss: handoff.iss,
        mss: handoff.mss.max(inject::MIN_MSS),
        wscale: handoff.wscale.map(|scale| (scale.snd, scale.rcv)),
        sack: handoff.sack,
        ts: handoff.timestamps.map(|ts| inject::Timestamps {
            recent: ts.recent,
            last_sent: ts.sent,
            usec: ts.unit == TsUnit::Micros,
        }),
        window: handoff.window,
        fin: handoff.fin,
    })
}

fn reason(refusal: inject::Refusal) -> Refusal {
    match refusal {
        inject::Refusal::NoListener => Refusal::NoListener,
        inject::Refusal::NotAllowed => Refusal::NotAllowed,
        inject::Refusal::MptcpListener => Refusal::MptcpListener,
        inject::Refusal::QueueFull => Refusal::QueueFull,
        inject::Refusal::TupleInUse => Refusal::TupleInUse,
        inject::Refusal::SyncookiesOff => Refusal::SyncookiesOff,
        inject::Refusal::Options => Refusal::Options,
        inject::Refusal::NoMemory => Refusal::NoMemory,
        inject::Refusal::Failed => Refusal::NotCreated,
    }
}
