// SPDX-License-Identifier: GPL-2.0

//! What a namespace was told to be: the node's number, roles, addresses and ports.
//!
//! Made once by `attach`, checked there, and never changed; attaching again puts another one in its
//! place. What can change while a node works is in [`crate::params`].

#![forbid(unsafe_code)]

use kernel_net::net::IFNAMSIZ;
use lard_core::addr::{Addr, Endpoint, NodeId};
use lard_core::policy::NodeSet;
use lard_core::wire::{Hello, Name, Roles};

/// A few values in a row, without memory of their own.
#[derive(Clone, Copy)]
pub(crate) struct Few<T, const N: usize> {
    items: [T; N],
    len: usize,
}

impl<T: Copy + Default, const N: usize> Few<T, N> {
    /// None of them.
    pub(crate) fn new() -> Self {
        Self {
            items: [T::default(); N],
            len: 0,
        }
    }

    /// As many of the values as fit.
    pub(crate) fn collect(values: impl Iterator<Item = T>) -> Self {
        let mut few = Self::new();
        for value in values {
            if !few.push(value) {
                break;
            }
        }
        few
    }

    /// Adds one; false if there is no room.
    pub(crate) fn push(&mut self, value: T) -> bool {
        let Some(place) = self.items.get_mut(self.len) else {
            return false;
        };
        *place = value;
        self.len = self.len.saturating_add(1);
        true
    }

    /// All of them.
    pub(crate) fn as_slice(&self) -> &[T] {
        self.items.get(..self.len).unwrap_or_default()
    }
}

impl<T: Copy + Default, const N: usize> core::ops::Deref for Few<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

/// The name of a node.
#[derive(Clone, Copy)]
pub(crate) struct NodeName(Few<u8, { Name::MAX }>);

impl NodeName {
    /// A copy of a name that was found to be one.
    pub(crate) fn new(name: Name<'_>) -> Self {
        Self(Few::collect(name.as_bytes().iter().copied()))
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The name as it goes into a message.
    pub(crate) fn as_name(&self) -> Option<Name<'_>> {
        Name::new(&self.0)
    }
}

/// Addresses and ports that clients connect to.
pub(crate) type Vips = Few<Endpoint, { Hello::MAX_VIPS }>;

/// The name of an interface; none if it is empty.
pub(crate) type IfName = Few<u8, { IFNAMSIZ - 1 }>;

/// Names of tags, joined by commas.
pub(crate) type TagText = Few<u8, { Hello::MAX_TAGS }>;

impl TagText {
    /// A copy of what was found to be names.
    pub(crate) fn of(tags: &str) -> Self {
        Self::collect(tags.bytes())
    }

    /// The names.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(self).unwrap_or_default()
    }
}

/// What this namespace's node is.
pub(crate) struct Config {
    /// The number all nodes of the cluster share.
    pub(crate) cluster: u64,
    /// The node's number.
    pub(crate) node: NodeId,
    /// Its name.
    pub(crate) name: NodeName,
    /// What it does.
    pub(crate) roles: Roles,
    /// The port the front-end serves, 0 if there is none.
    pub(crate) fe_port: u16,
    /// The port the servers listen on, 0 if there is no back-end.
    pub(crate) be_port: u16,
    /// The address the servers are bound to, if it is neither the VIP nor any.
    pub(crate) be_addr: Option<Addr>,
    /// The node's address on the internal network.
    pub(crate) internal: Addr,
    /// The interface of the internal network, if it was named. It may be removed and made again, with
    /// another number.
    pub(crate) internal_ifname: IfName,
    /// Connections may go to listeners of the regular families.
    pub(crate) any_listener: bool,
    /// Share of the node, if it is a back-end.
    pub(crate) weight: u16,
    /// What it has that content rules can demand, if it is a back-end.
    pub(crate) tags: TagText,
    /// Of which nodes its servers have the documents, to begin with: all of them, unless the owner of the
    /// node says otherwise, for an administrator may see to that.
    pub(crate) mounted: NodeSet,
    /// The key of the target hash.
    pub(crate) hash_key: [u64; 2],
    /// The node that is the dispatcher, or none.
    pub(crate) dispatcher: NodeId,
    /// What clients connect to at this front-end.
    pub(crate) vips: Vips,
    /// What the back-end takes connections for; empty for whatever members announce.
    pub(crate) allow: Vips,
}

impl Config {
    /// Does the node have this role?
    pub(crate) fn is(&self, role: Roles) -> bool {
        self.roles.contains(role)
    }

    /// The interface of the internal network, if it was named.
    pub(crate) fn internal_ifname(&self) -> Option<&str> {
        let name = core::str::from_utf8(&self.internal_ifname).unwrap_or_default();
        (!name.is_empty()).then_some(name)
    }

    /// May a connection to `vip` be taken, as far as the administrator of this node has a say?
    pub(crate) fn allows(&self, vip: Endpoint) -> bool {
        self.allow.is_empty() || self.allow.contains(&vip)
    }
}
