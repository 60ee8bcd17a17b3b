// SPDX-License-Identifier: GPL-2.0

//! Big-endian cursors over caller-owned slices, on which every message is built.
//!
//! Both remember that they ran out instead of panicking or returning early: a message is read or
//! written field by field, and the outcome is asked for once, at the end.

use super::super::addr::{Addr, Endpoint};

/// Takes fields off the front of a body.
///
/// A read beyond the end yields zeros and leaves a mark that `is_short` reports, so that a
/// decoder has one place to fail. Nothing decoded is handed out before that.
#[derive(Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
    short: bool,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `body`.
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Reader {
            left: body,
            short: false,
        }
    }

    /// The next `n` bytes; none at all if there are fewer.
    pub(super) fn bytes(&mut self, n: usize) -> &'a [u8] {
        match self.left.split_at_checked(n) {
            Some((head, tail)) => {
                self.left = tail;
                head
            }
            None => {
                self.short = true;
                self.left = &[];
                &[]
            }
        }
    }

    /// Whatever is left: the open end of a message.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.left)
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.left.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.left = tail;
                *head
            }
            None => {
                self.short = true;
                self.left = &[];
                [0; N]
            }
        }
    }

    pub(super) fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    pub(super) fn endpoint(&mut self) -> Endpoint {
        let addr = Addr(self.array());
        Endpoint::new(addr, self.u16())
    }

    /// Did a read go beyond the end?
    pub(super) const fn is_short(&self) -> bool {
        self.short
    }

    /// Is there anything left that nobody read?
    pub(super) const fn has_more(&self) -> bool {
        !self.left.is_empty()
    }
}

/// Puts fields one after another into a slice.
#[derive(Debug)]
pub struct Writer<'a> {
    left: &'a mut [u8],
    short: bool,
}

impl<'a> Writer<'a> {
    /// Writes from the start of `buf`.
    pub(super) fn new(buf: &'a mut [u8]) -> Self {
        Writer {
            left: buf,
            short: false,
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        match core::mem::take(&mut self.left).split_at_mut_checked(bytes.len()) {
            Some((head, tail)) => {
                head.copy_from_slice(bytes);
                self.left = tail;
            }
            None => self.short = true,
        }
    }

    pub(super) fn u8(&mut self, v: u8) {
        self.bytes(&v.to_be_bytes());
    }

    pub(super) fn u16(&mut self, v: u16) {
        self.bytes(&v.to_be_bytes());
    }

    pub(super) fn u32(&mut self, v: u32) {
        self.bytes(&v.to_be_bytes());
    }

    pub(super) fn u64(&mut self, v: u64) {
        self.bytes(&v.to_be_bytes());
    }

    pub(super) fn endpoint(&mut self, e: Endpoint) {
        self.bytes(&e.addr.0);
        self.u16(e.port);
    }

    /// Did everything fit, to the byte?
    pub(super) const fn is_exact(&self) -> bool {
        !self.short && self.left.is_empty()
    }
}
