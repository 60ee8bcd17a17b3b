// SPDX-License-Identifier: GPL-2.0

//! Bytes of a packet: looked at a few at a time, because packets need not be in one piece and a kernel's
//! stack is small, or kept.

#![forbid(unsafe_code)]

use kernel::alloc::AllocError;
use kernel::prelude::*;
use kernel_net::child::Payload;
use kernel_net::skb::Skb;

use crate::gauge::Held;
use crate::open::quiet;

/// Bytes that are looked at at a time.
const PIECE: usize = 256;

/// Where bytes are copied from.
pub(crate) trait Source {
    /// Copies bytes from `at` on; `false` if there are not that many.
    fn copy(&self, at: usize, to: &mut [u8]) -> bool;
}

impl Source for Skb {
    fn copy(&self, at: usize, to: &mut [u8]) -> bool {
        Skb::copy(self, at, to)
    }
}

impl Source for Payload<'_> {
    fn copy(&self, at: usize, to: &mut [u8]) -> bool {
        Payload::copy(self, at, to)
    }
}

/// Who follows a stream of bytes of which not all matter.
pub(crate) trait Reader {
    /// Is there anything still to be found out?
    fn is_reading(&self) -> bool;

    /// How many of the next bytes need only be counted.
    fn skippable(&self) -> u64;

    /// Counts so many bytes.
    fn skip(&mut self, n: u64);

    /// Looks at the next bytes.
    fn feed(&mut self, bytes: &[u8]);

    /// The next bytes cannot be had.
    fn lose(&mut self);
}

fn copied<'a>(source: &impl Source, at: usize, to: Option<&'a mut [u8]>) -> Option<&'a [u8]> {
    let to = to?;
    source.copy(at, to).then_some(to)
}

/// Shows `len` bytes at `at` to a reader, in order.
pub(crate) fn read(source: &impl Source, at: usize, len: usize, reader: &mut impl Reader) {
    let (mut at, mut left) = (at, len);
    let mut piece = [0; PIECE];
    while left > 0 && reader.is_reading() {
        let skip = usize::try_from(reader.skippable()).unwrap_or(usize::MAX);
        let n = match skip.min(left) {
            0 => {
                let n = left.min(PIECE);
                match copied(source, at, piece.get_mut(..n)) {
                    Some(bytes) => reader.feed(bytes),
                    None => return reader.lose(),
                }
                n
            }
            n => {
                reader.skip(n as u64);
                n
            }
        };
        at = at.saturating_add(n);
        left = left.saturating_sub(n);
    }
}

/// Does `f` hold for all of `len` bytes at `at`, shown piece by piece with the offset of each?
pub(crate) fn all(
    source: &impl Source,
    at: usize,
    len: usize,
    mut f: impl FnMut(usize, &[u8]) -> bool,
) -> bool {
    let mut piece = [0; PIECE];
    let mut done = 0usize;
    while done < len {
        let n = len.saturating_sub(done).min(PIECE);
        let bytes = copied(source, at.saturating_add(done), piece.get_mut(..n));
        if !bytes.is_some_and(|bytes| f(done, bytes)) {
            return false;
        }
        done = done.saturating_add(n);
    }
    true
}

/// Why bytes were not kept.
pub(crate) enum NotKept {
    /// As many are kept already as may be.
    Full,
    /// No memory.
    NoMemory,
    /// The packet does not have them.
    Short,
}

/// Adds `len` bytes at `at` to what is kept; `charged` of them count in `held`. All or none.
pub(crate) fn append(
    skb: &Skb,
    at: usize,
    len: usize,
    kept: &mut KVec<u8>,
    held: &mut Held,
    charged: usize,
) -> Result<(), NotKept> {
    if !held.grow(charged) {
        return Err(NotKept::Full);
    }
    // As much as the allocator gives anyway, so that the next segment needs no other memory, which would
    // be cleared and copied to.
    let whole = kept.len().saturating_add(len);
    let block = whole.checked_next_power_of_two().unwrap_or(whole);
    let room = kept.reserve(block.saturating_sub(kept.len()), quiet());
    let why = match room.and_then(|()| skb.append(at, len, kept, quiet())) {
        Ok(true) => return Ok(()),
        Ok(false) => NotKept::Short,
        Err(AllocError) => NotKept::NoMemory,
    };
    held.shrink(charged);
    Err(why)
}
