// SPDX-License-Identifier: GPL-2.0

//! The control connections of a node: who its peers are, and what their messages mean.
//!
//! `cluster_startup` makes and authenticates the connections and passes their sockets; from then on
//! they belong to [`crate::peer`]. This file finds the peer for a message that is to be sent; `receive`
//! finds the component for one that has come. Here is also kept what the dispatcher says about the
//! nodes of the cluster, so that a front-end can go on without it.
//!
//! # Locking
//!
//! `admin` is held through every change that an administrator makes, also while threads are waited
//! for; no thread of a peer takes it. `peers` and `members` are leaves, taken in any context.

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
use lard_core::policy::{NodeState, Tags, MAX_NODES};
use lard_core::time::Instant;
use lard_core::wire::{
    Assign, DownReason, Drain, Frame, Hello, List, ListenerCaps, NodeDown, NodeUp, Roles, VERSION,
};

use crate::config::{Config, Few, NodeName};
use crate::front_end::now;
use crate::netlink;
use crate::netns::Node;
use crate::outbox::SendError;
use crate::params::Param;
use crate::peer::{Introduction, Link, Lost, Peer};
use crate::service::Service;
use crate::stats::{Counter, Stats};

mod receive;

/// What is taken for the largest packet where it is not known, and more than no client is offered.
const ETHERNET_MTU: u32 = 1_500;

/// An IPv4 and a TCP header, without options.
const HEADERS: u32 = 40;

/// How long all good-byes together may take before the threads are stopped.
const GOODBYE_MS: u32 = 300;

/// What the dispatcher says about a node.
#[derive(Clone, Copy)]
struct Member {
    state: NodeState,
    weight: u16,
    tags: Tags,
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

/// Back-ends that may be chosen, with their weights.
pub(crate) type BackEnds = Few<(NodeId, u16), MAX_NODES>;

/// The control connections of one namespace.
pub(crate) struct Control {
    stats: Arc<Stats>,
    /// The netlink port of the socket that owns the node, 0 for none. Changed under `admin`.
    owner: Atomic<u32>,
    admin: Pin<KBox<Mutex<Admin>>>,
    peers: BhLock<[Option<Arc<Peer>>; MAX_NODES]>,
    members: BhLock<[Option<Member>; MAX_NODES]>,
    /// What HELLO says of this node's listeners.
    announced: BhLock<ListenerCaps>,
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
            peers: kernel_net::new_bh_lock!([const { None }; MAX_NODES], c"lard:peers"),
            members: kernel_net::new_bh_lock!([None; MAX_NODES], c"lard:members"),
            announced: kernel_net::new_bh_lock!(ListenerCaps::default(), c"lard:announced"),
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
    fn ready(&self, node: NodeId) -> Option<Arc<Peer>> {
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
            let _ = self.count(peer.send(frame));
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

    // --- what is known of the cluster ---

    /// The back-ends this node could hand a connection to by itself, of those that have `tags`.
    pub(crate) fn back_ends(&self, config: &Config, tags: Tags) -> BackEnds {
        let mut found = BackEnds::new();
        let members = *self.members.lock();
        let weight = |id: NodeId, default| match members.get(place(id)).copied().flatten() {
            Some(member) if member.state != NodeState::Up || !member.tags.contain(tags) => 0,
            Some(member) => member.weight,
            None if tags != Tags::NONE => 0,
            None => default,
        };
        if config.is(Roles::BACK_END) {
            found.push((config.node, weight(config.node, config.weight)));
        }
        let peers = self.peers.lock();
        for peer in peers.iter().flatten() {
            let usable = peer
                .with_info(|info| info.link == Link::Ready && info.roles.contains(Roles::BACK_END));
            if usable {
                found.push((peer.id(), weight(peer.id(), peer.weight())));
            }
        }
        found
    }

    /// What the dispatcher says about a node.
    pub(crate) fn state_of(&self, node: NodeId) -> Option<(NodeState, u16)> {
        let members = self.members.lock();
        let member = members.get(place(node)).copied().flatten()?;
        Some((member.state, member.weight))
    }

    fn note(&self, node: &Node, of: NodeId, state: NodeState, weight: Option<u16>) {
        let changed = {
            let mut members = self.members.lock();
            let Some(place) = members.get_mut(place(of)) else {
                return;
            };
            let old = *place;
            let weight = weight.or(old.map(|m| m.weight)).unwrap_or(1);
            let tags = old.map_or(Tags::NONE, |m| m.tags);
            *place = Some(Member {
                state,
                weight,
                tags,
            });
            old.is_none_or(|m| m.state != state)
        };
        if changed {
            node.cell.with(|net| netlink::node_changed(net, of, state));
        }
    }

    /// What a node has is known.
    fn note_tags(&self, of: NodeId, tags: Tags) {
        if let Some(Some(member)) = self.members.lock().get_mut(place(of)) {
            member.tags = tags;
        }
    }

    /// What a node has, in the bits of the service.
    pub(crate) fn tags_of(&self, node: NodeId) -> Tags {
        let members = self.members.lock();
        let member = members.get(place(node)).copied().flatten();
        member.map_or(Tags::NONE, |member| member.tags)
    }

    /// What a node has, in the bits of these settings.
    fn weigh(&self, config: &Config, service: &Service, of: NodeId) -> Tags {
        if of == config.node {
            return service.tags_of(config.name.as_str(), config.tags.as_str());
        }
        let Some(peer) = self.peer(of) else {
            return Tags::NONE;
        };
        let (name, itself) = peer.with_info(|info| (info.name, info.tags));
        let name = name.as_ref().map_or("", NodeName::as_str);
        service.tags_of(name, itself.as_str())
    }

    /// The dispatcher, which is this node, learns what a back-end has.
    fn note_own_tags(&self, node: &Node, config: &Config, of: NodeId) {
        if let Some(service) = node.services.get() {
            let tags = self.weigh(config, &service, of);
            self.note_tags(of, tags);
            node.dispatcher.set_tags(of, tags);
        }
    }

    /// Changes the settings of the service on this node, the dispatcher. All others are told, also those
    /// that have not said anything yet. May sleep.
    pub(crate) fn change_service(
        &self,
        node: &Node,
        config: &Config,
        _admin: &mut Admin,
        service: Arc<Service>,
    ) {
        let nodes = || (1..=MAX_NODES).filter_map(|n| u16::try_from(n).ok().map(NodeId));
        // While some ask by the former settings and some by these, nodes have what either says.
        for of in nodes() {
            let (before, after) = (self.tags_of(of), self.weigh(config, &service, of));
            node.dispatcher.set_tags(of, Tags(before.0 | after.0));
        }
        node.services.put(service.clone());
        node.dispatcher.note_mode(service.mode());
        for peer in self.all() {
            if self.count(peer.send(&service.message())).is_err() {
                // It would go on with settings of its own; when it is back it is told again.
                peer.fail(Lost::Error);
            }
        }
        // Who asked by the former settings for what nobody has now will ask again.
        for of in nodes() {
            let after = self.weigh(config, &service, of);
            node.dispatcher.set_tags(of, after);
            if self.tags_of(of) != after {
                self.note_tags(of, after);
                self.announce(node, of);
            }
        }
    }

    /// An administrator tells the dispatcher, which is this node, about a node. May sleep.
    pub(crate) fn set_node(
        &self,
        node: &Node,
        of: NodeId,
        state: Option<NodeState>,
        weight: Option<u16>,
    ) {
        let (old, _) = self.state_of(of).unwrap_or((NodeState::Up, 1));
        let state = state.unwrap_or(old);
        self.note(node, of, state, weight);
        self.announce(node, of);
    }

    /// Tells all nodes what this node, the dispatcher, thinks of a node.
    fn announce(&self, node: &Node, of: NodeId) {
        let Some(config) = node.config() else { return };
        match self.state_of(of).map(|(state, _)| state) {
            Some(NodeState::Up) => {
                if let Some(up) = self.node_up(&config, of) {
                    self.broadcast(&up, NodeId::NONE);
                }
            }
            Some(NodeState::Down) => {
                let reason = DownReason::Removed;
                self.broadcast(&NodeDown { node: of, reason }, of);
            }
            Some(_) => self.broadcast(&Drain { node: of }, NodeId::NONE),
            None => {}
        }
    }

    /// The message about a node that may be chosen.
    fn node_up(&self, config: &Config, of: NodeId) -> Option<NodeUp> {
        let (state, weight) = self.state_of(of)?;
        if state != NodeState::Up {
            return None;
        }
        let tags = self.tags_of(of);
        if of == config.node {
            return Some(NodeUp {
                node: of,
                roles: config.roles,
                weight,
                internal: config.internal,
                tags,
            });
        }
        let peer = self.ready(of)?;
        let (roles, internal) = peer.with_info(|info| (info.roles, info.internal));
        Some(NodeUp {
            node: of,
            roles,
            weight,
            internal,
            tags,
        })
    }

    /// What connections must do with if any back-end is to be able to take them: the weakest of what
    /// the listeners announce. `None` while there is no back-end.
    fn weakest(&self, own: Option<ListenerCaps>) -> Option<ListenerCaps> {
        let mut weakest = own;
        let peers = self.peers.lock();
        for peer in peers.iter().flatten() {
            peer.with_info(|info| {
                if info.link != Link::Ready {
                    return;
                }
                for caps in info.listeners.iter() {
                    weakest = Some(match weakest {
                        None => *caps,
                        Some(w) => ListenerCaps {
                            space: w.space.min(caps.space),
                            // The largest any of them would choose: the others take it as well.
                            wscale: w.wscale.max(caps.wscale),
                            sack: w.sack && caps.sack,
                            timestamps: w.timestamps && caps.timestamps,
                            scaling: w.scaling && caps.scaling,
                            ..w
                        },
                    });
                }
            });
        }
        weakest
    }

    /// Gives the front-end the parameters and what the back-ends can do.
    pub(crate) fn refresh(&self, node: &Node, config: &Config, net: &Net) {
        let own = config.is(Roles::BACK_END).then(|| own_caps(net, config));
        let weakest = self.weakest(own);
        // Clients' packets have to pass the network between the nodes whole.
        let mtu = net.mtu(config.internal_ifindex).unwrap_or(ETHERNET_MTU);
        let mss = mtu.min(ETHERNET_MTU).saturating_sub(HEADERS);
        node.front_end.configure(|tcp| {
            node.params.apply(tcp);
            tcp.mss = u16::try_from(mss).unwrap_or(u16::MAX);
            if let Some(caps) = weakest {
                tcp.back_end_space = caps.space;
                tcp.wscale = caps.scaling.then_some(caps.wscale);
                tcp.sack = caps.sack;
                tcp.timestamps = caps.timestamps;
            }
        });
        node.front_end.set_limits(
            node.params.get_u32(Param::OpenMax),
            node.params.get_u32(Param::HalfOpenMax),
            node.params.get_u32(Param::HeadMemory),
        );
    }

    // --- connections come and go ---

    /// This node is attached: it knows itself.
    pub(crate) fn started(&self, node: &Node, net: &Net, config: &Config) {
        *self.announced.lock() = own_caps(net, config);
        if config.is(Roles::DISPATCHER) && config.is(Roles::BACK_END) {
            self.note(node, config.node, NodeState::Up, Some(config.weight));
            self.note_own_tags(node, config, config.node);
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
            self.join(node, old);
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
            self.join(node, link);
            return started;
        }
        if let Some(place) = admin.links.get_mut(place(id)) {
            *place = Some(link);
        }
        Ok(())
    }

    /// Does what is due. Process context, from the namespace's tick.
    pub(crate) fn tick(&self, node: &Node, net: &Net) {
        let Some(config) = node.config().filter(|c| c.is(Roles::BACK_END)) else {
            return;
        };
        self.announce_caps(node, &config, net);
        if config.is(Roles::DISPATCHER) {
            self.note_load(node, &config);
        }
    }

    /// Says HELLO again when the administrator has changed what connections handed to this node can
    /// have: a front-end that went on offering more would have every hand-off refused.
    fn announce_caps(&self, node: &Node, config: &Config, net: &Net) {
        let caps = own_caps(net, config);
        let told = core::mem::replace(&mut *self.announced.lock(), caps);
        if told == caps {
            return;
        }
        for peer in self.all() {
            // A peer that is going needs no news.
            let _ = self.count(greet(&peer, config, caps));
        }
        self.refresh(node, config, net);
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

    /// Waits until a connection that is ending has said its last word, and for its threads.
    fn join(&self, node: &Node, mut link: Connection) {
        let mut waited = 0;
        while !link.peer.is_sent() && link.transmitter.is_some() && waited < GOODBYE_MS {
            fsleep(Delta::from_millis(5));
            waited = waited.saturating_add(5);
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
        self.join(node, link);
        Ok(())
    }

    /// Ends all connections. May sleep.
    pub(crate) fn stop(&self, node: &Node, admin: &mut Admin) {
        for link in admin.links.iter().flatten() {
            link.peer.fail(Lost::Removed);
        }
        for link in admin.links.iter_mut() {
            if let Some(link) = link.take() {
                self.join(node, link);
            }
        }
        for member in self.members.lock().iter_mut() {
            *member = None;
        }
    }

    /// A connection has ended. `unsent` are those whose question or hand-off never left. Called by
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
        node.forward.lost(id, now());
        let config = node.config();
        if let Some(config) = &config {
            let was = peer.with_info(|info| info.roles);
            if config.is(Roles::DISPATCHER) {
                node.dispatcher.node_down(node, id);
            }
            if config.is(Roles::DISPATCHER) && was.contains(Roles::BACK_END) {
                self.note(node, id, NodeState::Down, None);
                let reason = match lost {
                    Lost::Bye => DownReason::Left,
                    Lost::Removed => DownReason::Removed,
                    _ => DownReason::Silent,
                };
                self.broadcast(&NodeDown { node: id, reason }, id);
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

/// What connections handed to this node's listeners can have.
///
/// The space is that of a socket with default buffers, although a server may give its listener smaller
/// ones. Nothing is lost by that: all that was acknowledged comes in one segment, which TCP takes whole
/// into an empty queue of whatever size, and what was not is sent again. The other way round, one small
/// listener would make all front-ends refuse longer request heads.
fn own_caps(net: &Net, config: &Config) -> ListenerCaps {
    let options = net.options();
    ListenerCaps {
        addr: config.be_addr.unwrap_or_default(),
        port: config.be_port,
        // What tcp_full_space() makes of a fresh socket: half of its buffer.
        space: options.rmem_default / 2,
        wscale: window_scale(options.rmem_max),
        sack: options.sack,
        timestamps: options.timestamps,
        scaling: options.window_scaling,
    }
}

/// The shift with which a receive buffer of this size can be announced, as the kernel chooses it
/// (tcp_select_initial_window()).
fn window_scale(space: u32) -> u8 {
    let bits = u32::BITS.saturating_sub(space.leading_zeros());
    u8::try_from(bits.saturating_sub(16).min(14)).unwrap_or(14)
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
