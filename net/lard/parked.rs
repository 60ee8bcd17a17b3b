// SPDX-License-Identifier: GPL-2.0

//! Packets of a connection that wait until it is known which back-end gets them.
//!
//! None of them was acknowledged, so there is a bound, and the client sends again what does not fit.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::skb::Skb;

use crate::gauge::Held;
use crate::open::quiet;
use crate::stats::{Counter, Stats};

/// Packets that wait, at most.
const PACKETS: usize = 32;

/// Bytes that wait, at most.
const BYTES: usize = 128 * 1024;

/// The packets of one connection, oldest first.
pub(crate) struct Parked {
    packets: KVec<Skb>,
    bytes: usize,
}

impl Parked {
    pub(crate) const fn new() -> Self {
        Self {
            packets: KVec::new(),
            bytes: 0,
        }
    }

    /// Keeps a packet, whose bytes count in `held`. Gives it back, and counts, if there is no room.
    pub(crate) fn keep(&mut self, stats: &Stats, held: &mut Held, skb: Skb) -> Result<(), Skb> {
        let bytes = self.bytes.saturating_add(skb.len());
        if self.packets.len() >= PACKETS || bytes > BYTES || !held.grow(skb.len()) {
            stats.inc(Counter::ParkedFull);
            return Err(skb);
        }
        match self.packets.push(skb.park(), quiet()) {
            Ok(()) => self.bytes = bytes,
            // It is as if it had been lost.
            Err(_) => stats.inc(Counter::NoMemory),
        }
        Ok(())
    }

    /// Takes them all.
    pub(crate) fn take(&mut self) -> KVec<Skb> {
        self.bytes = 0;
        core::mem::take(&mut self.packets)
    }
}
