// SPDX-License-Identifier: GPL-2.0

//! What one row of the tables of connections and of nodes says, for [`crate::proc`] and netlink's dumps.
//!
//! A table is read row by row, from a position on, and may change in between: a row is of one moment, a
//! table is not.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;
use lard_core::addr::{Addr, ConnId, NodeId, Tuple};
use lard_core::policy::{NodeState, MAX_NODES};
use lard_core::wire::Roles;

use crate::config::{Config, NodeName, TagText};
use crate::conn_table::{Entry, BUCKETS};
use crate::control::{ms, offset_us};
use crate::front_end::{now, FrontEnd, State};
use crate::netns::Node;
use crate::peer::{Link, Peer};

/// Bits of a position that count the entries of one bucket.
const PLACE_BITS: u32 = 16;

/// What a connection is doing. The numbers are those of netlink's `conn-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnState {
    HalfOpen = 0,
    Head = 1,
    Asking = 2,
    HandingOff = 3,
    Forwarding = 4,
    Replying = 5,
    Closing = 6,
    Adopted = 7,
}

impl ConnState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Head => "head",
            Self::Asking => "asking",
            Self::HandingOff => "handing-off",
            Self::Forwarding => "forwarding",
            Self::Replying => "replying",
            Self::Closing => "closing",
            Self::Adopted => "adopted",
        }
    }
}

/// A connection, as it is shown.
#[derive(Clone, Copy)]
pub(crate) struct ConnRow {
    pub(crate) id: ConnId,
    pub(crate) state: ConnState,
    pub(crate) tuple: Tuple,
    /// The back-end that has it, or on a back-end the front-end it came from; none before.
    pub(crate) node: NodeId,
    /// Since its first packet, or on a back-end since its adoption.
    pub(crate) age: Duration,
    /// Since the client's last packet, if that is known.
    pub(crate) idle: Option<Duration>,
}

/// Where the back-end's connections begin among the positions of all.
const BACK_END: u64 = 1 << 61;

/// The first connection of a namespace at or after a position: those of the front-end, then those of
/// the back-end.
pub(crate) fn next_conn(node: &Node, from: u64) -> Option<(u64, ConnRow)> {
    if from < BACK_END {
        if let Some(found) = node.front_end.next_conn(from) {
            return Some(found);
        }
    }
    let (position, row) = node.back_end.next_conn(from.saturating_sub(BACK_END))?;
    Some((position.checked_add(BACK_END)?, row))
}

impl FrontEnd {
    /// The first connection at or after a position: bucket times 2^16 plus place in it.
    fn next_conn(&self, from: u64) -> Option<(u64, ConnRow)> {
        let first = usize::try_from(from >> PLACE_BITS).ok()?;
        let mut position = (first as u64) << PLACE_BITS;
        let mut found = None;
        self.table()?.visit(first, BUCKETS, |entry| {
            let bucket = u64::from(entry.id().bucket()) << PLACE_BITS;
            position = position.max(bucket);
            if position >= from {
                found = Some((position, entry.row()));
                return false;
            }
            position = position.saturating_add(1);
            true
        });
        found
    }
}

impl Entry {
    fn row(&self) -> ConnRow {
        let now = now();
        let (state, node, idle) = match &self.state {
            State::Open(open) => (open.state(), open.back_end(), None),
            State::Forward(forward) => {
                let idle = now.saturating_since(forward.state.last_packet());
                let state = match forward.state.is_over() {
                    true => ConnState::Closing,
                    false => ConnState::Forwarding,
                };
                (state, forward.to.node(), Some(idle))
            }
        };
        ConnRow {
            id: self.id(),
            state,
            tuple: *self.tuple(),
            node,
            age: now.saturating_since(self.born()),
            idle,
        }
    }
}

/// What is known of a node besides its number.
pub(crate) struct NodeRow {
    pub(crate) id: NodeId,
    pub(crate) name: Option<NodeName>,
    pub(crate) roles: Roles,
    pub(crate) internal: Addr,
    /// What the dispatcher says.
    pub(crate) state: Option<NodeState>,
    pub(crate) weight: u16,
    /// What it has, as far as this node knows.
    pub(crate) tags: TagText,
    /// Netlink's `link-state`.
    pub(crate) link: u32,
    /// What only the dispatcher knows.
    pub(crate) work: Option<Work>,
    /// What there is to say about the control connection.
    pub(crate) traffic: Option<Traffic>,
}

/// What a back-end has to do, as the dispatcher counts it.
pub(crate) struct Work {
    pub(crate) load: u32,
    /// In parts of [`UNIT`](lard_core::policy::UNIT).
    pub(crate) shares: u32,
    pub(crate) idle: u32,
    pub(crate) assigned: u64,
    pub(crate) disk_queue: u32,
}

/// Numbers of a control connection.
pub(crate) struct Traffic {
    pub(crate) frames_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) writes: u64,
    pub(crate) queued: u32,
    pub(crate) rtt_us: u32,
    pub(crate) offset_us: Option<i64>,
    pub(crate) heard_ms: u32,
}

/// [`NodeRow::link`] of the node itself.
pub(crate) const LINK_LOCAL: u32 = 1;

/// The first node at or after a position that this node knows, itself included.
pub(crate) fn next_node(node: &Node, from: u64) -> Option<(u64, NodeRow)> {
    let config = node.config()?;
    (from..=MAX_NODES as u64).find_map(|position| {
        let id = NodeId(u16::try_from(position).ok()?);
        Some((position, node_row(node, &config, id)?))
    })
}

fn node_row(node: &Node, config: &Config, id: NodeId) -> Option<NodeRow> {
    let dest = node.dispatcher.node(id);
    let member = node.control.state_of(id);
    let work = dest.map(|d| Work {
        load: d.load,
        shares: d.shares,
        idle: d.idle,
        assigned: d.assigned,
        disk_queue: d.disk_queue,
    });
    let state = dest.map(|d| d.state).or(member.map(|(state, _)| state));
    let weight = dest.map(|d| d.weight).or(member.map(|(_, weight)| weight));
    if id == config.node {
        return Some(NodeRow {
            id,
            name: Some(config.name),
            roles: config.roles,
            internal: config.internal,
            state: state.or(Some(NodeState::Up)),
            weight: weight.unwrap_or(config.weight),
            tags: tags(node, id, config.tags),
            link: LINK_LOCAL,
            work,
            traffic: None,
        });
    }
    let peer = node.control.peer(id);
    if peer.is_none() && state.is_none() {
        return None;
    }
    let info = peer.as_ref().map(|peer| peer.info());
    // The dispatcher only speaks about back-ends; of another node its connection is all there is.
    let is_ready = info.as_ref().is_some_and(|i| i.link == Link::Ready);
    let state = state.or(is_ready.then_some(NodeState::Up));
    Some(NodeRow {
        id,
        name: info.as_ref().and_then(|i| i.name),
        roles: info.as_ref().map_or(Roles::NONE, |i| i.roles),
        internal: info.as_ref().map_or(Addr::UNSPECIFIED, |i| i.internal),
        state,
        weight: weight.or(peer.as_ref().map(|p| p.weight())).unwrap_or(1),
        tags: tags(node, id, info.as_ref().map_or(TagText::new(), |i| i.tags)),
        link: info.as_ref().map_or(0, |i| i.link as u32),
        work,
        traffic: peer.map(|peer| traffic(&peer)),
    })
}

/// What a node says it has, and what else the dispatcher says.
fn tags(node: &Node, id: NodeId, itself: TagText) -> TagText {
    let mut all = itself;
    let Some(service) = node.services.get() else {
        return all;
    };
    for name in service.names().names(node.control.tags_of(id)) {
        if !itself.as_str().split(',').any(|known| known == name) {
            let comma = if all.is_empty() { "" } else { "," };
            for text in [comma, name] {
                // What does not fit is left out.
                text.bytes().all(|b| all.push(b));
            }
        }
    }
    all
}

fn traffic(peer: &Arc<Peer>) -> Traffic {
    let info = peer.info();
    let t = &peer.traffic;
    Traffic {
        frames_in: t.frames_in.load(Relaxed),
        frames_out: t.frames_out.load(Relaxed),
        bytes_in: t.bytes_in.load(Relaxed),
        bytes_out: t.bytes_out.load(Relaxed),
        writes: t.writes.load(Relaxed),
        queued: u32::try_from(peer.queued()).unwrap_or(u32::MAX),
        rtt_us: u32::try_from(info.rtt.as_micros()).unwrap_or(u32::MAX),
        offset_us: offset_us(&info.clock),
        heard_ms: ms(peer.silence(now())),
    }
}
