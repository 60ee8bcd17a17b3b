// SPDX-License-Identifier: GPL-2.0

//! The node's secret, and the numbers made from it: initial sequence numbers (RFC 6528), timestamp
//! offsets (RFC 7323, 7.1) and SYN cookies.
//!
//! One SipHash key serves all three; the first byte hashed says which, so no number gives another
//! one away. The secret never leaves the node: a hand-off carries the numbers themselves.

use core::hash::Hasher;

// The replacement named by the deprecation lives in std; the kernel has only core, and this is the
// one keyed hash in it.
#[allow(deprecated)]
use core::hash::SipHasher;

use super::super::addr::{Addr, Tuple};
use super::super::time::Instant;
use super::seq::Seq;

/// A random key, made anew at each start of the front-end.
#[derive(Clone, Copy)]
pub struct Secret {
    k0: u64,
    k1: u64,
}

/// What a number is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Sequence = 1,
    Timestamp = 2,
    Cookie = 3,
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Makes a secret of sixteen random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = bytes;
        Secret {
            k0: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            k1: u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
        }
    }

    #[allow(deprecated)]
    fn hasher(&self, purpose: Purpose, a: &Addr, b: &Addr) -> SipHasher {
        let mut h = SipHasher::new_with_keys(self.k0, self.k1);
        // CAST: the discriminants above.
        h.write_u8(purpose as u8);
        h.write(&a.0);
        h.write(&b.0);
        h
    }

    /// A keyed hash of the connection and `extra`.
    pub(super) fn hash(&self, purpose: Purpose, tuple: &Tuple, extra: u64) -> u64 {
        let mut h = self.hasher(purpose, &tuple.client.addr, &tuple.vip.addr);
        h.write_u16(tuple.client.port);
        h.write_u16(tuple.vip.port);
        h.write_u64(extra);
        h.finish()
    }

    /// The initial sequence number of a connection begun `now`: a clock of 4 µs steps plus a keyed
    /// hash of the tuple. Where the tuple was in use before, the number is at least `min`, which
    /// lies beyond everything the predecessor can have sent.
    pub fn isn(&self, tuple: &Tuple, min: Option<Seq>, now: Instant) -> Seq {
        // CAST: the clock wraps every 4.77 hours, as RFC 9293 has it.
        let clock = (now.as_micros() / 4) as u32;
        let isn = Seq(clock).add(self.hash(Purpose::Sequence, tuple, 0) as u32);
        match min {
            Some(min) => isn.max(min),
            None => isn,
        }
    }

    /// What is added to the millisecond clock to give the timestamps sent to a client. The same for
    /// all connections of a pair of hosts, so that a port used again sees no clock running back.
    pub fn ts_offset(&self, tuple: &Tuple) -> u32 {
        // CAST: any 32 bits of the hash will do.
        self.hasher(Purpose::Timestamp, &tuple.client.addr, &tuple.vip.addr)
            .finish() as u32
    }
}

/// The timestamp clock: milliseconds, which wrap after 49 days as RFC 7323 allows.
#[inline]
pub(super) const fn ts_clock(now: Instant) -> u32 {
    // CAST: wraps by intention.
    now.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::super::super::addr::Endpoint;
    use super::*;
    use core::time::Duration;

    fn tuple(port: u16) -> Tuple {
        Tuple::new(
            Endpoint::new(Addr::from_v4([10, 0, 0, 1]), port),
            Endpoint::new(Addr::from_v4([10, 0, 0, 2]), 80),
        )
    }

    #[test]
    fn isns_of_one_tuple_follow_the_clock() {
        let s = Secret::from_bytes([7; 16]);
        let t0 = Instant::from_millis(5);
        let a = s.isn(&tuple(1), None, t0);
        let b = s.isn(
            &tuple(1),
            None,
            t0.saturating_add(Duration::from_micros(400)),
        );
        assert_eq!(b.since(a), 100);
        assert_ne!(s.isn(&tuple(2), None, t0), a);
        assert_ne!(Secret::from_bytes([8; 16]).isn(&tuple(1), None, t0), a);
    }

    #[test]
    fn isns_respect_the_predecessor() {
        let s = Secret::from_bytes([7; 16]);
        let free = s.isn(&tuple(1), None, Instant::ZERO);
        let min = free.add(100_000);
        assert_eq!(s.isn(&tuple(1), Some(min), Instant::ZERO), min);
        assert_eq!(s.isn(&tuple(1), Some(free.sub(9)), Instant::ZERO), free);
    }

    #[test]
    fn timestamp_offsets_are_per_pair_of_hosts() {
        let s = Secret::from_bytes([7; 16]);
        assert_eq!(s.ts_offset(&tuple(1)), s.ts_offset(&tuple(2)));
        let mut other = tuple(1);
        other.client.addr = Addr::from_v4([10, 0, 0, 3]);
        assert_ne!(s.ts_offset(&tuple(1)), s.ts_offset(&other));
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::from_bytes([7; 16])), "Secret(..)");
    }
}
