// SPDX-License-Identifier: GPL-2.0

//! The numbers of `Documentation/netlink/specs/lard.yaml`: positions in its lists, from 1. A test of
//! `cluster_startup` compares the two.

#![forbid(unsafe_code)]

use lard_core::policy::NodeState;

/// Values of `node-state`.
pub(super) const STATE_UNKNOWN: u32 = 0;
pub(super) const STATE_UP: u32 = 1;
pub(super) const STATE_DRAIN: u32 = 2;
pub(super) const STATE_DOWN: u32 = 3;

/// The `node-state` of a state; the dispatcher may not have said anything.
pub(super) fn state_number(state: Option<NodeState>) -> u32 {
    match state {
        None => STATE_UNKNOWN,
        Some(NodeState::Up) => STATE_UP,
        Some(NodeState::Draining) => STATE_DRAIN,
        Some(NodeState::Down) => STATE_DOWN,
    }
}

pub(super) mod cmd {
    pub(crate) const ATTACH: u8 = 1;
    pub(crate) const DETACH: u8 = 2;
    pub(crate) const PEER_ADD: u8 = 3;
    pub(crate) const PEER_DEL: u8 = 4;
    pub(crate) const SELF_GET: u8 = 5;
    pub(crate) const NODE_GET: u8 = 6;
    pub(crate) const NODE_SET: u8 = 7;
    pub(crate) const CONN_GET: u8 = 8;
    pub(crate) const STATS_GET: u8 = 9;
    pub(crate) const RULE_SET: u8 = 10;
    pub(crate) const RULE_GET: u8 = 11;
    pub(crate) const PARAM_SET: u8 = 12;
    pub(crate) const PARAM_GET: u8 = 13;
    pub(crate) const PEER_READY: u8 = 14;
    pub(crate) const PEER_LOST: u8 = 15;
    pub(crate) const NODE_CHANGE: u8 = 16;
    pub(crate) const SERVICE_SET: u8 = 17;
    pub(crate) const SERVICE_GET: u8 = 18;
    pub(crate) const DISK_SET: u8 = 19;
    pub(crate) const MOUNTS_SET: u8 = 20;
}

pub(super) mod node {
    pub(crate) const NODE_ID: u16 = 1;
    pub(crate) const CLUSTER_ID: u16 = 2;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const ROLES: u16 = 4;
    pub(crate) const FE_PORT: u16 = 5;
    pub(crate) const BE_PORT: u16 = 6;
    pub(crate) const BE_ADDR: u16 = 7;
    pub(crate) const INTERNAL_ADDR: u16 = 8;
    pub(crate) const INTERNAL_IFNAME: u16 = 9;
    pub(crate) const ANY_LISTENER: u16 = 10;
    pub(crate) const WEIGHT: u16 = 11;
    pub(crate) const POLICY: u16 = 12;
    pub(crate) const HASH_KEY: u16 = 13;
    pub(crate) const RULE: u16 = 14;
    pub(crate) const DISPATCHER: u16 = 15;
    pub(crate) const FORCE: u16 = 16;
    pub(crate) const FD: u16 = 17;
    pub(crate) const STATE: u16 = 18;
    pub(crate) const LINK: u16 = 19;
    pub(crate) const REASON: u16 = 20;
    pub(crate) const LOAD: u16 = 21;
    pub(crate) const ASSIGNED: u16 = 22;
    pub(crate) const FRAMES_IN: u16 = 23;
    pub(crate) const FRAMES_OUT: u16 = 24;
    pub(crate) const BYTES_IN: u16 = 25;
    pub(crate) const BYTES_OUT: u16 = 26;
    pub(crate) const WRITES: u16 = 27;
    pub(crate) const QUEUED: u16 = 28;
    pub(crate) const RTT_US: u16 = 29;
    pub(crate) const CLOCK_OFFSET_US: u16 = 30;
    pub(crate) const HEARD_MS: u16 = 31;
    pub(crate) const VIP: u16 = 32;
    pub(crate) const ALLOW: u16 = 33;
    pub(crate) const ENTRIES: u16 = 34;
    pub(crate) const CHILDREN: u16 = 35;
    pub(crate) const OWNER: u16 = 36;
    pub(crate) const STOPPING: u16 = 37;
    pub(crate) const KEY: u16 = 38;
    pub(crate) const CONTENT: u16 = 39;
    pub(crate) const TAGS: u16 = 40;
    pub(crate) const DISK_QUEUE: u16 = 41;
    pub(crate) const LIMIT: u16 = 42;
    pub(crate) const WAITING: u16 = 43;
    pub(crate) const SHARES: u16 = 44;
    pub(crate) const IDLE: u16 = 45;
    pub(crate) const OPEN: u16 = 46;
    pub(crate) const HALF_OPEN: u16 = 47;
    pub(crate) const HEAD_MEMORY: u16 = 48;
    pub(crate) const MOUNTED: u16 = 49;
}

pub(super) mod conn {
    pub(crate) const ID: u16 = 1;
    pub(crate) const STATE: u16 = 2;
    pub(crate) const CLIENT: u16 = 3;
    pub(crate) const VIP: u16 = 4;
    pub(crate) const NODE_ID: u16 = 5;
    pub(crate) const AGE_MS: u16 = 6;
    pub(crate) const IDLE_MS: u16 = 7;
}

pub(super) mod endpoint {
    pub(crate) const ADDR: u16 = 1;
    pub(crate) const PORT: u16 = 2;
}

pub(super) mod stat {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const VALUE: u16 = 2;
}

pub(super) mod rule {
    pub(crate) const INDEX: u16 = 1;
    pub(crate) const TEXT: u16 = 2;
    pub(crate) const RULE: u16 = 3;
}

pub(super) mod service {
    pub(crate) const INDEX: u16 = 1;
    pub(crate) const TEXT: u16 = 2;
    pub(crate) const CONTENT: u16 = 3;
    pub(crate) const KEY: u16 = 4;
}

pub(super) mod param {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const VALUE: u16 = 2;
    pub(crate) const SET: u16 = 3;
    pub(crate) const DEFAULT: u16 = 4;
    pub(crate) const MIN: u16 = 5;
    pub(crate) const MAX: u16 = 6;
}
