// SPDX-License-Identifier: GPL-2.0

//! The control connections of a node: who its peers are, and what their messages mean.
//!
//! `cluster_startup` makes and authenticates the connections and passes their sockets; from then on
//! they belong to [`crate::peer`]. This file has the connections, and finds the one for a message that is
//! to be sent; `receive` finds the component for a message that has come. `members` is what is known of
//! the nodes, `caps` what they can do with connections.
//!
//! # Locking
//!
//! `admin` is held through every change that an administrator makes, also while threads are waited
//! for; no thread of a peer takes it. Inside it is `word`, under which the dispatcher changes what it says
//! of a node and says it, so that all hear of changes in their order; nobody is waited for under that.
//! `peers` and `members` are taken in any context, `peers` outside a peer's `info`.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, Mutex};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel_net::control_socket::ControlSocket;
use kernel_net::kthread::KThread;
use kernel_net::net::Net;
use kernel_net::sync::BhLock;
use lard_core::addr::{ConnId, NodeId};
use lard_core::policy::{NodeState, MAX_NODES};
use lard_core::time::Instant;
use lard_core::wire::{Assign, Frame, Hello, List, ListenerCaps, Roles, VERSION};

use crate::config::Config;
use crate::front_end::now;
use crate::netlink;
use crate::netns::Node;
use crate::outbox::SendError;
use crate::params::Param;
use crate::peer::{Introduction, Lost, Peer};
use crate::stats::{Counter, Stats};

mod caps;
mod members;
mod receive;

pub(crate) use members::BackEnds;

use caps::own_caps;
use members::Member;

/// How long all good-byes together may take before the threads are stopped.
const GOODBYE: Duration = Duration::from_millis(300);

/// When good-byes that begin now are not waited for any more.
fn goodbye() -> Instant {
    now().saturating_add(GOODBYE)
}

/// A peer and its threads, which are joined in this order.
struct Connection {
    peer: Arc<Peer>,
    receiver: Option<KThread>,
    transmitter: Option<KThread>,
}

/// What only administrators change.
pub(crate) struct Admin {
    /// One place a node.
    links: KVec<Option<Connection>>,
}

/// The control connections of one namespace.
pub(crate) struct Control {
    stats: Arc<Stats>,
    /// The netlink port of the socket that owns the node, 0 for none. Changed under `admin`.
    owner: Atomic<u32>,
    admin: Pin<KBox<Mutex<Admin>>>,
    /// Held by who has the dispatcher's word.
    word: Pin<KBox<Mutex<()>>>,
    peers: BhLock<[Option<Arc<Peer>>; MAX_NODES]>,
    members: BhLock<[Option<Member>; MAX_NODES]>,
    /// What HELLO says of this node's listeners.
    announced: BhLock<ListenerCaps>,
    /// The largest packet of the internal network, as clients were last offered.
    mtu: Atomic<u32>,
    /// When the dispatcher next looks at its own node's load, in µs.
    next_load: Atomic<u64>,
}

/// The place of a node in tables of nodes.
fn place(node: NodeId) -> usize {
    usize::from(node.0).wrapping_sub(1)
}

impl Control {
    /// No connections. May sleep.
    pub(crate) fn new(stats: Arc<Stats>) -> Result<Self> {
        let mut links = KVec::with_capacity(MAX_NODES, GFP_KERNEL)?;
        for _ in 0..MAX_NODES {
            links.push(None, GFP_KERNEL)?;
        }
        let admin = Admin { links };
        Ok(Self {
            stats,
            owner: Atomic::new(0),
            admin: KBox::pin_init(kernel::new_mutex!(admin, "lard:admin"), GFP_KERNEL)?,
            word: KBox::pin_init(kernel::new_mutex!((), "lard:word"), GFP_KERNEL)?,
            peers: kernel_net::new_bh_lock!([const { None }; MAX_NODES], c"lard:peers"),
            members: kernel_net::new_bh_lock!([None; MAX_NODES], c"lard:members"),
            announced: kernel_net::new_bh_lock!(ListenerCaps::default(), c"lard:announced"),
            mtu: Atomic::new(0),
            next_load: Atomic::new(0),
        })
    }

    /// Keeps other administrators out. May sleep.
    pub(crate) fn admin(
        &self,
    ) -> kernel::sync::lock::Guard<'_, Admin, kernel::sync::lock::mutex::MutexBackend> {
        self.admin.lock()
    }

    /// The netlink port of the socket that owns the node.
    pub(crate) fn owner(&self) -> Option<u32> {
        match self.owner.load(Relaxed) {
            0 => None,
            port => Some(port),
        }
    }

    /// Changes the owner; the lock is shown to be held.
    pub(crate) fn set_owner(&self, _admin: &mut Admin, port: Option<u32>) {
        self.owner.store(port.unwrap_or(0), Relaxed);
    }

    // --- sending ---

    /// The connection to a node, in whatever state. Any context but hard irq.
    pub(crate) fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.lock().get(place(node))?.clone()
    }

    /// The connection to a node, if messages can be sent on it.
    pub(crate) fn ready(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peer(node).filter(|peer| peer.is_ready())
    }

    /// All connections, in the order of the nodes. May sleep.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Peer>> + '_ {
        (1..=MAX_NODES).filter_map(|id| self.peer(NodeId(u16::try_from(id).ok()?)))
    }

    /// Sends a message. Any context but hard irq; it only queues.
    pub(crate) fn send<'a>(&self, to: NodeId, frame: &impl Frame<'a>) -> Result<(), SendError> {
        let sent = match self.ready(to) {
            Some(peer) => peer.send(frame),
            None => Err(SendError::NoPeer),
        };
        self.count(sent)
    }

    /// Sends a message that can wait for others, for a few milliseconds. Any context but hard irq.
    pub(crate) fn send_later<'a>(
        &self,
        to: NodeId,
        frame: &impl Frame<'a>,
    ) -> Result<(), SendError> {
        let sent = match self.ready(to) {
            Some(peer) => peer.send_later(frame),
            None => Err(SendError::NoPeer),
        };
        self.count(sent)
    }

    /// Asks the dispatcher on another node; see [`crate::outbox`] about batches.
    pub(crate) fn send_assign(&self, to: NodeId, question: &Assign) -> Result<(), SendError> {
        let sent = match self.ready(to) {
            Some(peer) => peer.ask(question, now()),
            None => Err(SendError::NoPeer),
        };
        self.count(sent)
    }

    /// Sends a message to all nodes that listen, but one.
    fn broadcast<'a>(&self, frame: &impl Frame<'a>, but: NodeId) {
        for peer in self.all().filter(|p| p.id() != but && p.is_ready()) {
            self.must_hear(&peer, peer.send(frame));
        }
    }

    /// Ends the connection to a front-end to which something could not be sent without which it would go
    /// on with what holds no longer. When it is back all is said again. Others only show what they hear.
    fn must_hear(&self, peer: &Peer, sent: Result<(), SendError>) {
        if self.count(sent).is_err() && peer.introduced().contains(Roles::FRONT_END) {
            peer.fail(Lost::Error);
        }
    }

    /// Counts a frame that could not be sent.
    fn count(&self, sent: Result<(), SendError>) -> Result<(), SendError> {
        match sent {
            Ok(()) => {}
            Err(SendError::NoPeer) => self.stats.inc(Counter::CtNoPeer),
            Err(SendError::Full) => self.stats.inc(Counter::CtQueueFull),
            Err(SendError::Unencodable) => self.stats.inc(Counter::CtUnencodable),
        }
        sent
    }

    // --- connections come and go ---

    /// This node is attached: it knows itself.
    pub(crate) fn started(&self, node: &Node, net: &Net, config: &Config) {
        *self.announced.lock() = own_caps(net, config);
        if config.is(Roles::DISPATCHER) && config.is(Roles::BACK_END) {
            let known = node.dispatcher.node(config.node);
            let state = known.map_or(NodeState::Up, |dest| dest.state);
            self.note(node, config.node, state, Some(config.weight));
            self.note_tags(config.node, self.own_tags(node, config, config.node));
        }
    }

    /// Takes a connection to a peer over and starts to speak on it. An older one to the same node
    /// gives way. May sleep.
    pub(crate) fn add(
        &self,
        node: &Arc<Node>,
        config: &Arc<Config>,
        net: &Net,
        admin: &mut Admin,
        introduction: Introduction,
        socket: ControlSocket,
    ) -> Result {
        let id = introduction.id;
        if let Some(old) = admin.links.get_mut(place(id)).and_then(Option::take) {
            old.peer.replace();
            self.join(node, old, goodbye());
        }
        let peer = Peer::new(introduction, socket)?;
        peer.prepare(node.params.get_u32(Param::DeadAfter));
        greet(&peer, config, own_caps(net, config)).map_err(|_| ENOBUFS)?;
        if config.is(Roles::DISPATCHER) {
            // Behind HELLO and before the PING that lets the peer ask.
            tell_service(node, &peer).map_err(|_| ENOBUFS)?;
        }

        let mut link = Connection {
            peer: peer.clone(),
            receiver: None,
            transmitter: None,
        };
        if let Some(place) = self.peers.lock().get_mut(place(id)) {
            *place = Some(peer.clone());
        }
        let started = self.start(node, config, &mut link);
        if started.is_err() {
            link.peer.fail(Lost::Error);
            self.join(node, link, goodbye());
            return started;
        }
        if let Some(place) = admin.links.get_mut(place(id)) {
            *place = Some(link);
        }
        Ok(())
    }

    /// Does what is due. Process context, from the namespace's tick.
    pub(crate) fn tick(&self, node: &Node, net: &Net) {
        let Some(config) = node.config() else {
            return;
        };
        if config.is(Roles::FRONT_END) {
            self.follow_mtu(node, &config, net);
        }
        if !config.is(Roles::BACK_END) {
            return;
        }
        self.announce_caps(node, &config, net);
        if config.is(Roles::DISPATCHER) {
            self.note_load(node, &config);
        }
    }

    /// What other back-ends say in LOAD, and as often, the dispatcher sees of its own node.
    fn note_load(&self, node: &Node, config: &Config) {
        let now = now();
        if now.as_micros() >= self.next_load.load(Relaxed) {
            let interval = Duration::from_millis(node.params.get(Param::PingInterval));
            let next = now.saturating_add(interval);
            self.next_load.store(next.as_micros(), Relaxed);
            node.dispatcher
                .load(node, config.node, &node.back_end.load());
        }
    }

    fn start(&self, node: &Arc<Node>, config: &Arc<Config>, link: &mut Connection) -> Result {
        Peer::write_softly(&link.peer, node)?;
        let (peer, node2, config2) = (link.peer.clone(), node.clone(), config.clone());
        link.receiver = Some(KThread::spawn(c"lard-rx", move |thread| {
            peer.receive(thread, &node2, &config2)
        })?);
        let (peer, node2, config2) = (link.peer.clone(), node.clone(), config.clone());
        link.transmitter = Some(KThread::spawn(c"lard-tx", move |thread| {
            peer.transmit(thread, &node2, &config2)
        })?);
        Ok(())
    }

    /// Waits until a connection that is ending has said its last word, or it is `late`, and for its threads.
    fn join(&self, node: &Node, mut link: Connection, late: Instant) {
        while !link.peer.is_sent() && link.transmitter.is_some() && now() < late {
            fsleep(Delta::from_millis(5));
        }
        link.peer.socket().shutdown();
        link.receiver = None;
        link.transmitter = None;
        link.peer.stop_writing();
        // If the thread that reports was stopped before it could.
        link.peer.report(node, &[]);
    }

    /// Ends the connection to one node. May sleep.
    pub(crate) fn remove(&self, node: &Node, admin: &mut Admin, id: NodeId) -> Result {
        let link = admin.links.get_mut(place(id)).and_then(Option::take);
        let link = link.ok_or(ENOENT)?;
        link.peer.fail(Lost::Removed);
        self.join(node, link, goodbye());
        Ok(())
    }

    /// Ends all connections. May sleep.
    pub(crate) fn stop(&self, node: &Node, admin: &mut Admin) {
        {
            // All of them before the first is forgotten, for which the lock is taken: nobody is to be told
            // that another one has gone, nor be given an answer as if it had.
            let peers = self.peers.lock();
            for peer in peers.iter().flatten() {
                peer.fail(Lost::Removed);
            }
        }
        let late = goodbye();
        for link in admin.links.iter_mut() {
            if let Some(link) = link.take() {
                self.join(node, link, late);
            }
        }
        for member in self.members.lock().iter_mut() {
            *member = None;
        }
    }

    /// A connection has ended. `unsent` are, in order, those whose question or hand-off never left. Called by
    /// the connection's sending thread, once.
    pub(crate) fn forget(&self, node: &Node, peer: &Peer, lost: Lost, unsent: &[ConnId]) {
        let id = peer.id();
        let gone = {
            let mut peers = self.peers.lock();
            match peers.get_mut(place(id)) {
                Some(place) if place.as_ref().is_some_and(|p| core::ptr::eq(&**p, peer)) => {
                    place.take()
                }
                _ => None,
            }
        };
        if gone.is_none() {
            return;
        }
        if let Some(counter) = lost.counter() {
            node.stats.inc(counter);
        }
        node.back_end.forget(id);
        node.forward.lost(id, now(), lost == Lost::Silent);
        let config = node.config();
        if let Some(config) = &config {
            let was = peer.with_info(|info| info.roles);
            if config.is(Roles::DISPATCHER) {
                self.node_lost(node, id, was, lost);
            }
        }
        node.cell.with(|net| {
            if let Some(config) = &config {
                self.refresh(node, config, net);
            }
            netlink::peer_lost(net, id, lost);
        });
        node.front_end.peer_down(node, id, unsent);
    }
}

/// Says HELLO.
fn greet(peer: &Peer, config: &Config, caps: ListenerCaps) -> Result<(), SendError> {
    let caps = [caps];
    let listeners: &[_] = match config.is(Roles::BACK_END) {
        true => &caps,
        false => &[],
    };
    let name = config.name.as_name().ok_or(SendError::Unencodable)?;
    peer.send(&Hello {
        version: VERSION.into(),
        node: config.node,
        cluster: config.cluster,
        roles: config.roles,
        internal: config.internal,
        fe_port: config.fe_port,
        be_port: config.be_port,
        listeners: List::new(listeners),
        vips: List::new(&config.vips),
        name,
        tags: config.tags.as_str(),
    })
}

/// Tells a node the settings of the service.
fn tell_service(node: &Node, peer: &Peer) -> Result<(), SendError> {
    match node.services.get() {
        Some(service) => peer.send(&service.message()),
        None => Ok(()),
    }
}

/// Time in milliseconds, for tables.
pub(crate) fn ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// The offset of a peer's clock in microseconds: theirs minus ours; `None` before it is known.
pub(crate) fn offset_us(clock: &lard_core::wire::ClockOffset) -> Option<i64> {
    // Any instant does; the middle of the range cannot wrap around.
    let theirs = Instant::from_micros(1 << 62);
    let ours = clock.to_local(theirs)?;
    Some(theirs.as_micros().wrapping_sub(ours.as_micros()) as i64)
}
