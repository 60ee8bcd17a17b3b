// SPDX-License-Identifier: GPL-2.0

//! The tables `/proc/net/lard_conn` and `/proc/net/lard_nodes`, for people.
//!
//! They show what the dumps of generic netlink show, of the namespace of whoever reads. What one row
//! says is gathered here for both.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};
use core::time::Duration;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;
use kernel_net::net::Net;
use kernel_net::procfs::{File, Out, Table};
use lard_core::addr::{Addr, ConnId, NodeId, Tuple};
use lard_core::policy::{NodeState, MAX_NODES};
use lard_core::wire::Roles;

use crate::config::{Config, NodeName, TagText};
use crate::control::{ms, offset_us};
use crate::front_end::now;
use crate::netns::Node;
use crate::peer::{Link, Peer};

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
    fn name(self) -> &'static str {
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

const LINK_LOCAL: u32 = 1;

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

/// Text of a bounded length, to align it.
struct Cell {
    bytes: [u8; 64],
    len: usize,
}

impl Cell {
    fn new(value: impl fmt::Display) -> Self {
        let mut cell = Self {
            bytes: [0; 64],
            len: 0,
        };
        // What does not fit is left out.
        let _ = write!(cell, "{value}");
        cell
    }

    fn as_str(&self) -> &str {
        self.bytes
            .get(..self.len)
            .and_then(|bytes| core::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

impl Write for Cell {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.saturating_add(text.len());
        let place = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// A number that may not be known.
fn or_dash(value: Option<impl fmt::Display>) -> Cell {
    match value {
        Some(value) => Cell::new(value),
        None => Cell::new("-"),
    }
}

struct Conns;

impl Table for Conns {
    type Source = Node;

    fn head(_: &Node, out: &mut Out<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:<16} {:<11} {:<22} {:<22} {:>4} {:>9} {:>9}",
            "ID", "STATE", "CLIENT", "VIP", "NODE", "AGE_MS", "IDLE_MS"
        )
    }

    fn next(node: &Node, from: u64) -> Option<u64> {
        next_conn(node, from).map(|(position, _)| position)
    }

    fn show(node: &Node, position: u64, out: &mut Out<'_>) -> fmt::Result {
        let Some((_, row)) = next_conn(node, position).filter(|(found, _)| *found == position)
        else {
            return Ok(());
        };
        writeln!(
            out,
            "{:016x} {:<11} {:<22} {:<22} {:>4} {:>9} {:>9}",
            row.id.to_bits(),
            row.state.name(),
            Cell::new(row.tuple.client).as_str(),
            Cell::new(row.tuple.vip).as_str(),
            or_dash(row.node.is_some().then_some(row.node)).as_str(),
            ms(row.age),
            or_dash(row.idle.map(ms)).as_str(),
        )
    }
}

struct Nodes;

impl Table for Nodes {
    type Source = Node;

    fn head(_: &Node, out: &mut Out<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:>4} {:<8} {:<16} {:<16} {:<8} {:<8} {:>6} {:>8} {:>8} {:>10} {:>6} {:>8} {:>8} {:>8} TAGS",
            "NODE",
            "ROLES",
            "NAME",
            "ADDRESS",
            "LINK",
            "STATE",
            "WEIGHT",
            "LOAD",
            "IDLE",
            "ASSIGNED",
            "DISK",
            "QUEUED",
            "RTT_US",
            "HEARD_MS"
        )
    }

    fn next(node: &Node, from: u64) -> Option<u64> {
        next_node(node, from).map(|(position, _)| position)
    }

    fn show(node: &Node, position: u64, out: &mut Out<'_>) -> fmt::Result {
        let Some((_, row)) = next_node(node, position).filter(|(found, _)| *found == position)
        else {
            return Ok(());
        };
        let link = match row.link {
            LINK_LOCAL => "local",
            l if l == Link::Greeting as u32 => "greeting",
            l if l == Link::Ready as u32 => "ready",
            l if l == Link::Closing as u32 => "closing",
            _ => "none",
        };
        let (work, t) = (row.work.as_ref(), row.traffic.as_ref());
        writeln!(
            out,
            "{:>4} {:<8} {:<16} {:<16} {:<8} {:<8} {:>6} {:>8} {:>8} {:>10} {:>6} {:>8} {:>8} {:>8} {}",
            row.id,
            Cell::new(row.roles).as_str(),
            row.name.as_ref().map_or("-", |n| n.as_str()),
            Cell::new(row.internal).as_str(),
            link,
            row.state.map_or("unknown", |s| s.name()),
            row.weight,
            or_dash(work.map(|w| w.load)).as_str(),
            or_dash(work.map(|w| w.idle)).as_str(),
            or_dash(work.map(|w| w.assigned)).as_str(),
            or_dash(work.map(|w| w.disk_queue)).as_str(),
            or_dash(t.map(|t| t.queued)).as_str(),
            or_dash(t.map(|t| t.rtt_us)).as_str(),
            or_dash(t.map(|t| t.heard_ms)).as_str(),
            match row.tags.as_str() {
                "" => "-",
                tags => tags,
            },
        )
    }
}

/// The tables of one namespace; dropping them removes them.
pub(crate) struct Tables {
    _conns: File<Conns>,
    _nodes: File<Nodes>,
}

impl Tables {
    /// Makes both. May sleep.
    pub(crate) fn new(net: &Net, node: &Arc<Node>) -> Result<Self> {
        Ok(Self {
            _conns: File::new(net, c"lard_conn", node.clone())?,
            _nodes: File::new(net, c"lard_nodes", node.clone())?,
        })
    }
}
