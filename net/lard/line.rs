// SPDX-License-Identifier: GPL-2.0

//! The order of a connection's packets while some that waited are passed on.
//!
//! They are passed on one by one without the bucket's lock, by whoever learned where they go. What comes
//! from the network meanwhile, on another processor, gets in line behind them: a packet that overtakes
//! others is a gap to whoever reads the stream, and makes the client send again.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::skb::Skb;

use crate::open::quiet;
use crate::persist::Origin;
use crate::stats::{Counter, Stats};

/// Packets from the network in a line, at most.
const LATE: usize = 32;

/// Packets from the network in the whole life of a line: whoever passes them on has softirqs off, and must
/// come to an end while a client sends as fast as they are passed on.
const IN_ALL: u32 = 128;

/// The packets of one connection, while somebody passes them on.
pub(crate) struct Line {
    /// The next ones, the very next last.
    first: KVec<(Skb, Origin)>,
    /// Those behind them, oldest first.
    late: KVec<(Skb, Origin)>,
    /// How many have been put there.
    in_all: u32,
}

impl Line {
    pub(crate) const fn new() -> Self {
        Self {
            first: KVec::new(),
            late: KVec::new(),
            in_all: 0,
        }
    }

    /// Puts packets before all others; without memory it is as if they had been lost.
    pub(crate) fn put_first(&mut self, stats: &Stats, mut packets: KVec<Skb>, from: Origin) {
        if self.first.reserve(packets.len(), quiet()).is_err() {
            stats.add(Counter::NoMemory, packets.len() as u64);
            return;
        }
        packets.reverse();
        for skb in packets {
            // There is room.
            let _ = self.first.push((skb, from), quiet());
        }
    }

    /// Puts a packet from the network behind all others. Gives it back, and counts, if there is no room.
    pub(crate) fn put_last(&mut self, stats: &Stats, skb: Skb) -> Result<(), Skb> {
        if self.late.len() >= LATE || self.in_all >= IN_ALL {
            stats.inc(Counter::ParkedFull);
            return Err(skb);
        }
        if self.late.reserve(1, quiet()).is_err() {
            stats.inc(Counter::NoMemory);
            return Err(skb);
        }
        // There is room.
        let _ = self.late.push((skb.park(), Origin::Network), quiet());
        self.in_all = self.in_all.saturating_add(1);
        Ok(())
    }

    /// Takes the next one.
    pub(crate) fn next(&mut self) -> Option<(Skb, Origin)> {
        if self.first.is_empty() {
            core::mem::swap(&mut self.first, &mut self.late);
            self.first.reverse();
        }
        self.first.pop()
    }
}
