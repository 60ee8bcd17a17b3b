// SPDX-License-Identifier: GPL-2.0

//! The module through generic netlink: implements [`Kernel`] for the resident process, and what the
//! other commands read and change.
//!
//! # Locking
//!
//! Two sockets, a mutex each: commands and events. The socket of commands is the owner of the node,
//! so it lives as long as the process. Neither mutex is taken while the other is held.

pub mod channel;
pub mod codec;
pub mod spec;
pub mod view;

use crate::error::{Error, Result};
use crate::kernel::{Attach, Attached, Event, Kernel, LostReason, Peer, Roles};
use channel::{Channel, Family};
use codec::{Answers, Attributes, Body, Request};
use lard_core::addr::{Addr, NodeId};
use lard_core::policy::NodeSet;
use spec::{command, endpoint, node};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Connections that are looked at one by one to see whether they live; of more than that nobody wants
/// to know exactly.
const MAX_COUNTED: u64 = 100_000;
/// State of those that only wait for their last packets.
const ENDED: &str = "closing";

/// The module in this network namespace.
pub struct Lard {
    family: Family,
    commands: Mutex<Channel>,
    events: Mutex<Option<Channel>>,
}

impl Lard {
    /// Finds the module, loading it if need be.
    pub fn open() -> Result<Self> {
        let mut channel = Channel::open()?;
        let family = match channel.find_family()? {
            Some(family) => family,
            None => {
                let tried = load_module();
                channel.find_family()?.ok_or_else(|| {
                    Error::new("find the module")
                        .detail(format!(
                            "the kernel has no netlink family \"lard\", and {tried}"
                        ))
                        .remedy(
                            "load it: `make load` in the source tree, or `modprobe lard` where it \
                             is installed; then try again",
                        )
                })?
            }
        };
        Ok(Lard {
            family,
            commands: Mutex::new(channel),
            events: Mutex::new(None),
        })
    }

    /// Opens the socket on which [`Kernel::next_event`] listens. Before the node is attached, so
    /// that no event is missed.
    pub fn subscribe(&self) -> Result<()> {
        let group = self.family.events.ok_or_else(|| {
            Error::new("subscribe to the module's events")
                .detail("the family \"lard\" has no group \"events\"")
                .remedy("load the module that belongs to this program")
        })?;
        let mut channel = Channel::open()?;
        channel.subscribe(group)?;
        *lock(&self.events) = Some(channel);
        Ok(())
    }

    fn run(&self, what: &str, command: u8, fill: impl FnOnce(&mut Request)) -> Result<()> {
        lock(&self.commands)
            .run(what, self.family, command)
            .with(fill)
            .send()
            .map(drop)
    }

    fn dump(&self, what: &str, command: u8) -> Result<Vec<Vec<u8>>> {
        lock(&self.commands).dump(what, self.family, command)
    }
}

/// A thread that panicked while it held the socket has left at most an unread answer behind, which
/// its number tells apart.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries `modprobe lard`; says what came of it.
fn load_module() -> String {
    if !nix::unistd::geteuid().is_root() {
        return "only root can load the module".to_string();
    }
    // root's PATH need not have it in a minimal environment.
    for modprobe in ["modprobe", "/usr/sbin/modprobe", "/sbin/modprobe"] {
        match Command::new(modprobe).arg(spec::FAMILY).output() {
            Ok(output) if output.status.success() => {
                return "`modprobe lard` succeeded without making one".to_string()
            }
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                let text = text.lines().next().unwrap_or("no reason given");
                return format!("`modprobe lard` failed: {text}");
            }
            Err(_) => continue,
        }
    }
    "there is no modprobe to load it with".to_string()
}

fn mapped(addr: Ipv4Addr) -> [u8; 16] {
    Addr::from_v4(addr.octets()).0
}

fn put_attach(request: &mut Request, attach: &Attach) {
    let settings = &attach.settings;
    request
        .put_u16(node::NODE_ID, attach.node_id.0)
        .put_uint(node::CLUSTER_ID, attach.cluster_id)
        .put_str(node::NAME, &attach.name)
        .put_u32(node::ROLES, settings.roles.to_bits());
    if let Some(port) = settings.fe_port {
        request.put_u16(node::FE_PORT, port);
    }
    if let Some(port) = settings.be_port {
        request.put_u16(node::BE_PORT, port);
    }
    if let Some(addr) = settings.be_addr {
        request.put(node::BE_ADDR, &mapped(addr));
    }
    if let Some(addr) = settings.internal {
        request.put(node::INTERNAL_ADDR, &mapped(addr));
    }
    if let Some(name) = &settings.interface {
        request.put_str(node::INTERNAL_IFNAME, name);
    }
    if settings.any_listener {
        request.put_flag(node::ANY_LISTENER);
    }
    request.put_u32(node::WEIGHT, settings.weight.max(1));
    if let Some(policy) = &settings.policy {
        request.put_str(node::POLICY, policy);
    }
    request.put(node::HASH_KEY, &attach.hash_key);
    for rule in &settings.rules {
        request.put_str(node::RULE, rule);
    }
    if let Some(key) = &settings.service.key {
        request.put_str(node::KEY, key);
    }
    for line in &settings.service.content {
        request.put_str(node::CONTENT, line);
    }
    if !settings.tags.is_empty() {
        request.put_str(node::TAGS, &settings.tags);
    }
    if settings.mounts {
        request.put_uint(node::MOUNTED, NodeSet::EMPTY.bits());
    }
    request.put_u16(node::DISPATCHER, attach.dispatcher.0);
    for (kind, endpoints) in [(node::VIP, &settings.vips), (node::ALLOW, &settings.allow)] {
        for at in endpoints {
            request.put_nest(kind, |nest| {
                nest.put(endpoint::ADDR, &mapped(*at.ip()))
                    .put_u16(endpoint::PORT, at.port());
            });
        }
    }
}

impl Kernel for Lard {
    fn attached(&self) -> Result<Option<Attached>> {
        let answer = lock(&self.commands)
            .run("ask for this node", self.family, command::SELF_GET)
            .send();
        let parts = match answer {
            Ok(parts) => parts,
            Err(error) if error.is(libc::ENOTCONN) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(parts.first().and_then(|part| {
            let all = Attributes::new(part);
            let number = |kind| all.first(kind).and_then(|a| a.u32());
            Some(Attached {
                node_id: NodeId(all.first(node::NODE_ID)?.u16()?),
                cluster_id: all.first(node::CLUSTER_ID)?.uint()?,
                roles: Roles::from_bits(number(node::ROLES)?),
                owner: number(node::OWNER),
                entries: number(node::ENTRIES).unwrap_or(0),
                children: number(node::CHILDREN).unwrap_or(0),
            })
        }))
    }

    fn alive(&self) -> Result<u64> {
        let all = self.attached()?.map_or(0, |node| node.connections());
        if all == 0 || all > MAX_COUNTED {
            return Ok(all);
        }
        let connections = self.connections()?;
        let alive = connections.iter().filter(|conn| conn.state != ENDED);
        Ok(u64::try_from(alive.count()).unwrap_or(all))
    }

    fn attach(&self, attach: &Attach) -> Result<()> {
        self.run("attach the node", command::ATTACH, |request| {
            put_attach(request, attach);
        })?;
        let params = &attach.settings.params;
        if params.is_empty() {
            return Ok(());
        }
        // Before there are peers: the dispatcher's are those of all front-ends.
        self.set_params(params).map_err(|error| {
            // It takes connections already, with values that were not asked for.
            let _ = self.detach(false);
            error.remedy("`cluster_startup set` lists what --set can change, with its ranges")
        })
    }

    fn detach(&self, force: bool) -> Result<()> {
        self.run("detach the node", command::DETACH, |request| {
            if force {
                request.put_flag(node::FORCE);
            }
        })
    }

    fn peer_add(&self, fd: BorrowedFd<'_>, peer: &Peer) -> Result<()> {
        let what = format!("give the connection to {} to the module", peer.name);
        let fd = u32::try_from(fd.as_raw_fd()).map_err(|_| Error::new(what.as_str()))?;
        self.run(&what, command::PEER_ADD, |request| {
            request
                .put_u32(node::FD, fd)
                .put_u16(node::NODE_ID, peer.node_id.0)
                .put_u32(node::ROLES, peer.roles.to_bits())
                .put(node::INTERNAL_ADDR, &mapped(peer.addr))
                .put_str(node::NAME, &peer.name)
                .put_u32(node::WEIGHT, peer.weight);
        })
    }

    fn linked(&self) -> Result<Vec<NodeId>> {
        let nodes = self.nodes()?;
        Ok(nodes
            .iter()
            .filter(|node| matches!(node.link.as_str(), "greeting" | "ready"))
            .map(|node| NodeId(node.id))
            .collect())
    }

    fn next_event(&self, timeout: Duration) -> Result<Option<Event>> {
        let guard = lock(&self.events);
        let Some(channel) = guard.as_ref() else {
            return Err(Error::new("wait for events").detail("not subscribed"));
        };
        let datagram = match channel.receive(timeout) {
            Ok(Some(datagram)) => datagram,
            Ok(None) => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Ok(Some(Event::Overrun))
            }
            Err(error) => return Err(Error::io("wait for events", &error)),
        };
        // Events come one in a datagram.
        Ok(
            Answers::new(&datagram).find_map(|answer| match answer.body {
                Body::Message {
                    command,
                    attributes,
                    ..
                } => event(command, Attributes::new(attributes)),
                _ => None,
            }),
        )
    }
}

fn event(command: u8, attributes: Attributes<'_>) -> Option<Event> {
    let id = NodeId(attributes.first(node::NODE_ID)?.u16()?);
    match command {
        command::PEER_READY => Some(Event::PeerReady(id)),
        command::PEER_LOST => {
            let reason = attributes.first(node::REASON)?.u32()?;
            Some(Event::PeerLost(id, LostReason::from_number(reason)))
        }
        command::NODE_CHANGE => {
            let state = attributes.first(node::STATE)?.u32()?;
            Some(Event::NodeChange(id, state))
        }
        _ => None,
    }
}
