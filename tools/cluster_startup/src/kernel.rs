// SPDX-License-Identifier: GPL-2.0

//! What the resident process asks of the module, as a trait, so that membership can be tried
//! without a kernel. [`crate::genl::Lard`] is the implementation that speaks netlink.

use crate::error::Result;
use crate::service::Service;
use lard_core::addr::NodeId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Nodes a cluster can have; the module's own limit.
pub const MAX_NODES: usize = 64;
/// Largest number of a node; the smallest is 1.
pub const MAX_ID: u16 = 64;
/// Largest share of a node under weighted policies.
pub const MAX_WEIGHT: u32 = 1000;
/// Octets in a node's name.
pub const MAX_NAME: usize = lard_core::wire::Name::MAX;
/// Addresses one front-end can own.
pub const MAX_VIPS: usize = 16;

/// The components on a node; any subset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Assigns back-ends to requests; one in a cluster.
    pub dispatcher: bool,
    /// Accepts clients and hands them off.
    pub front_end: bool,
    /// Takes handed-off connections for its servers.
    pub back_end: bool,
}

impl Roles {
    /// The bits the module uses.
    pub fn to_bits(self) -> u32 {
        u32::from(self.dispatcher) | u32::from(self.front_end) << 1 | u32::from(self.back_end) << 2
    }

    /// From the bits the module uses.
    pub fn from_bits(bits: u32) -> Self {
        Roles {
            dispatcher: bits & 1 != 0,
            front_end: bits & 2 != 0,
            back_end: bits & 4 != 0,
        }
    }

    /// No component at all?
    pub fn is_empty(self) -> bool {
        self == Roles::default()
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (present, name) in [
            (self.dispatcher, "D"),
            (self.front_end, "FE"),
            (self.back_end, "BE"),
        ] {
            if present {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        if separator.is_empty() {
            f.write_str("-")?;
        }
        Ok(())
    }
}

/// All the module needs to make this namespace a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Number of the node.
    pub node_id: NodeId,
    /// Number of the cluster.
    pub cluster_id: u64,
    /// Node that is the dispatcher; the node itself if it is.
    pub dispatcher: NodeId,
    /// Key of the target hash, the same on all nodes.
    pub hash_key: [u8; 16],
    /// Name for people.
    pub name: String,
    /// The rest, which the command line says.
    pub settings: Settings,
}

/// The part of [`Attach`] that the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The components of the node.
    pub roles: Roles,
    /// Port the front-end serves.
    pub fe_port: Option<u16>,
    /// Port the servers of the back-end listen on.
    pub be_port: Option<u16>,
    /// Address the servers are bound to.
    pub be_addr: Option<Ipv4Addr>,
    /// Address on the internal network.
    pub internal: Option<Ipv4Addr>,
    /// Interface of the internal network.
    pub interface: Option<String>,
    /// Hand connections to listeners of the regular family too.
    pub any_listener: bool,
    /// Share of the node under weighted policies.
    pub weight: u32,
    /// The dispatcher's policy.
    pub policy: Option<String>,
    /// Parameters that are not to have their defaults, and their values.
    pub params: Vec<(String, String)>,
    /// Classification rules in order.
    pub rules: Vec<String>,
    /// What the front-ends have in common; only of the dispatcher.
    pub service: Service,
    /// What the back-end has that content rules can demand: names joined by commas.
    pub tags: String,
    /// The documents of others are mounted and unmounted by this program, which begins without any.
    pub mounts: bool,
    /// Addresses the front-end owns.
    pub vips: Vec<SocketAddrV4>,
    /// Addresses that clients may have connected to for the back-end to take the connection; none: all
    /// that front-ends announce.
    pub allow: Vec<SocketAddrV4>,
}

/// A node at the other end of a control connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub node_id: NodeId,
    /// Its components.
    pub roles: Roles,
    /// Its address on the internal network.
    pub addr: Ipv4Addr,
    /// Its name.
    pub name: String,
    /// Its share under weighted policies.
    pub weight: u32,
}

/// The node the module has in this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its number.
    pub node_id: NodeId,
    /// Its cluster.
    pub cluster_id: u64,
    /// Its components.
    pub roles: Roles,
    /// Netlink port of the process that owns it, if that lives.
    pub owner: Option<u32>,
    /// Connections the front-end knows.
    pub entries: u32,
    /// Handed-off connections that sockets of this node have.
    pub children: u32,
}

/// What a kernel of a test has, when that was attached.
#[cfg(test)]
impl From<&Attach> for Attached {
    fn from(attach: &Attach) -> Self {
        Attached {
            node_id: attach.node_id,
            cluster_id: attach.cluster_id,
            roles: attach.settings.roles,
            owner: Some(1),
            entries: 0,
            children: 0,
        }
    }
}

impl Attached {
    /// Connections the node has or remembers.
    pub fn connections(&self) -> u64 {
        u64::from(self.entries) + u64::from(self.children)
    }
}

/// Why a control connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostReason {
    /// Closed without BYE.
    Closed,
    /// The peer said BYE: it left on purpose.
    Bye,
    /// Nothing heard for too long.
    Silent,
    /// A frame that cannot be decoded.
    Malformed,
    /// HELLO named another version, cluster or node.
    Mismatch,
    /// The socket reported an error.
    SocketError,
    /// Removed from this side.
    Removed,
    /// A reason this program does not know yet.
    Other(u32),
}

impl LostReason {
    /// From the number the module uses.
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => LostReason::Closed,
            1 => LostReason::Bye,
            2 => LostReason::Silent,
            3 => LostReason::Malformed,
            4 => LostReason::Mismatch,
            5 => LostReason::SocketError,
            6 => LostReason::Removed,
            other => LostReason::Other(other),
        }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LostReason::Closed => "it closed the connection",
            LostReason::Bye => "it left",
            LostReason::Silent => "it fell silent",
            LostReason::Malformed => "it sent a malformed frame",
            LostReason::Mismatch => "its HELLO does not fit",
            LostReason::SocketError => "the connection broke",
            LostReason::Removed => "removed here",
            LostReason::Other(number) => return write!(f, "reason {number}"),
        })
    }
}

/// What the module reports unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// HELLO of a peer was received and found acceptable.
    PeerReady(NodeId),
    /// The control connection to a node ended.
    PeerLost(NodeId, LostReason),
    /// The dispatcher changed the state of a node.
    NodeChange(NodeId, u32),
    /// Events were lost; ask for the state instead.
    Overrun,
}

/// The module, as the resident process sees it.
pub trait Kernel: Send + Sync {
    /// The node of this namespace, if there is one.
    fn attached(&self) -> Result<Option<Attached>>;
    /// Connections that would suffer if the node went away now; those that have ended, and are only
    /// remembered, do not count.
    fn alive(&self) -> Result<u64>;
    /// Makes this namespace a node. One whose parameters the module refuses takes nothing.
    fn attach(&self, attach: &Attach) -> Result<()>;
    /// Stops being one.
    fn detach(&self, force: bool) -> Result<()>;
    /// Gives a connected socket to the module, which closes an older one to the same node.
    fn peer_add(&self, fd: BorrowedFd<'_>, peer: &Peer) -> Result<()>;
    /// The nodes to which a control connection is up.
    fn linked(&self) -> Result<Vec<NodeId>>;
    /// Waits for an event; `None` after the timeout.
    fn next_event(&self, timeout: Duration) -> Result<Option<Event>>;
}
