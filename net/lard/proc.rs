// SPDX-License-Identifier: GPL-2.0

//! The tables `/proc/net/lard_conn` and `/proc/net/lard_nodes`, for people.
//!
//! They show what the dumps of generic netlink show ([`crate::rows`]), of the namespace of whoever reads.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::net::Net;
use kernel_net::procfs::{File, Out, Table};

use crate::control::ms;
use crate::netns::Node;
use crate::peer::Link;
use crate::rows::{next_conn, next_node, LINK_LOCAL};

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
