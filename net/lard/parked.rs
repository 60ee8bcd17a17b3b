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

/// Bytes of memory that wait, at most: one merged packet of 64 KB, in the worst of buffers, and as much again.
const MEMORY: usize = 256 * 1024;

/// The packets of one connection, oldest first.
pub(crate) struct Parked {
    packets: KVec<Skb>,
    memory: usize,
}

impl Parked {
    pub(crate) const fn new() -> Self {
        Self {
            packets: KVec::new(),
            memory: 0,
        }
    }

    /// Keeps a packet, whose memory counts in `held`. Gives it back, and counts, if there is no room.
    pub(crate) fn keep(&mut self, stats: &Stats, held: &mut Held, skb: Skb) -> Result<(), Skb> {
        let taken = skb.memory();
        let memory = self.memory.saturating_add(taken);
        if self.packets.len() >= PACKETS || memory > MEMORY || !held.grow(taken) {
            stats.inc(Counter::ParkedFull);
            return Err(skb);
        }
        match self.packets.push(skb.park(), quiet()) {
            Ok(()) => self.memory = memory,
            // It is as if it had been lost.
            Err(_) => {
                held.shrink(taken);
                stats.inc(Counter::NoMemory);
            }
        }
        Ok(())
    }

    /// Takes them all.
    pub(crate) fn take(&mut self) -> KVec<Skb> {
        self.memory = 0;
        core::mem::take(&mut self.packets)
    }
}
