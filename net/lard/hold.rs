// SPDX-License-Identifier: GPL-2.0

//! A further request that is held until it is known where it goes: its bytes, its packets, and the way it
//! is to take.
//!
//! It belongs to [`crate::persist`], and with it to the connection's bucket lock, until its back-end has let
//! go; then to [`crate::open`].

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::skb::Skb;
use lard_core::addr::NodeId;
use lard_core::http::Rewritten;
use lard_core::wire::Handoff;

use crate::gauge::{Gauge, Held};
use crate::parked::Parked;
use crate::pieces;
use crate::service::Wanted;
use crate::stats::Counter;

/// Bytes of a request that are held, at most: they must fit one HANDOFF. What is beyond waits in its
/// packets.
const HELD: usize = 49_152;

// Also with the name of a node in front.
const _: () = assert!(HELD + Rewritten::MAX_GROWTH <= Handoff::MAX_DATA);

/// The parts of the node's limits that what is held counts in.
pub(crate) struct Gauges<'a> {
    pub(crate) open: &'a Arc<Gauge>,
    pub(crate) bytes: &'a Arc<Gauge>,
}

/// A request that waits.
pub(crate) struct Hold {
    pub(crate) data: KVec<u8>,
    pub(crate) parked: Parked,
    pub(crate) bytes_held: Held,
    pub(crate) open_held: Held,
    /// The client's newest window field.
    pub(crate) window: u16,
    /// The timestamp of the first packet.
    pub(crate) ts: Option<u32>,
    /// What the dispatcher is asked for, once the head is complete.
    pub(crate) wanted: Wanted,
    /// Why it is not asked, if so.
    pub(crate) unasked: Option<Counter>,
    /// Where it is to go, while its present node is asked to let go.
    pub(crate) to: Option<Way>,
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// The node that is to have it.
    pub(crate) to: NodeId,
    /// The node whose content that one answers with, if not its own.
    pub(crate) supplier: Option<Supplier>,
}

/// A node that supplies content, and its internal address.
#[derive(Clone, Copy)]
pub(crate) struct Supplier {
    pub(crate) node: NodeId,
    pub(crate) addr: [u8; 4],
}

/// A request that was held, once its connection is free.
pub(crate) struct Given {
    pub(crate) data: KVec<u8>,
    pub(crate) parked: Parked,
    pub(crate) bytes_held: Held,
    pub(crate) open_held: Held,
    pub(crate) wanted: Wanted,
    pub(crate) way: Way,
}

impl Hold {
    /// Nothing yet; `None` at the limit of connections that wait.
    pub(crate) fn new(gauges: &Gauges<'_>) -> Option<Self> {
        Some(Self {
            data: KVec::new(),
            parked: Parked::new(),
            bytes_held: Held::none(gauges.bytes),
            open_held: Held::one(gauges.open)?,
            window: 0,
            ts: None,
            wanted: Wanted::NOTHING,
            unasked: None,
            to: None,
        })
    }

    /// Adds as many of `len` bytes at `at` of a packet as there is room for; `false` if that is none.
    pub(crate) fn add(&mut self, skb: &Skb, at: usize, len: usize) -> bool {
        let len = len.min(HELD.saturating_sub(self.data.len()));
        len > 0 && pieces::append(skb, at, len, &mut self.data, &mut self.bytes_held, len).is_ok()
    }
}
