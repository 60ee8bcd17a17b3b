// SPDX-License-Identifier: GPL-2.0

//! Short lists inside a message, without a copy on either side.

use super::super::addr::Endpoint;
use super::cursor::{Reader, Writer};
use core::fmt;

/// An element of a [`List`]: fixed length, and every pattern of bytes that passed
/// [`Item::is_valid`] is a value.
pub trait Item: Copy + PartialEq + fmt::Debug {
    /// Encoded length.
    const LEN: usize;

    /// Writes [`Item::LEN`] bytes.
    fn put(&self, w: &mut Writer<'_>);

    /// Takes [`Item::LEN`] bytes.
    fn take(r: &mut Reader<'_>) -> Self;

    /// May these bytes be taken? Called once for each element when a message is decoded.
    fn is_valid(bytes: &[u8]) -> bool;
}

/// A list that is either a slice of the sender's values or the receiver's bytes, decoded as they are
/// looked at.
#[derive(Clone, Copy)]
pub struct List<'a, T>(Repr<'a, T>);

#[derive(Clone, Copy)]
enum Repr<'a, T> {
    Values(&'a [T]),
    /// INVARIANT: a whole number of elements, each of them valid.
    Wire(&'a [u8]),
}

impl<'a, T: Item> List<'a, T> {
    /// The list of these values.
    pub const fn new(values: &'a [T]) -> Self {
        List(Repr::Values(values))
    }

    /// The list in these bytes, if they are one.
    pub(super) fn from_wire(bytes: &'a [u8]) -> Option<Self> {
        let chunks = bytes.chunks_exact(T::LEN);
        let whole = chunks.remainder().is_empty();
        let mut chunks = chunks;
        // INVARIANT: both halves are checked here.
        (whole && chunks.all(T::is_valid)).then_some(List(Repr::Wire(bytes)))
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        match self.0 {
            Repr::Values(values) => values.len(),
            Repr::Wire(bytes) => bytes.len() / T::LEN,
        }
    }

    /// Is there no element?
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        let (values, bytes): (&'a [T], &'a [u8]) = match self.0 {
            Repr::Values(values) => (values, &[]),
            Repr::Wire(bytes) => (&[], bytes),
        };
        let wire = bytes.chunks_exact(T::LEN);
        values
            .iter()
            .copied()
            .chain(wire.map(|chunk| T::take(&mut Reader::new(chunk))))
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        match self.0 {
            Repr::Values(values) => values.iter().for_each(|v| v.put(w)),
            Repr::Wire(bytes) => w.bytes(bytes),
        }
    }
}

impl<T: Item> Default for List<'_, T> {
    fn default() -> Self {
        List(Repr::Values(&[]))
    }
}

impl<T: Item> PartialEq for List<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<T: Item + Eq> Eq for List<'_, T> {}

impl<T: Item> fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Item for Endpoint {
    const LEN: usize = 18;

    fn put(&self, w: &mut Writer<'_>) {
        w.endpoint(*self);
    }

    fn take(r: &mut Reader<'_>) -> Self {
        r.endpoint()
    }

    fn is_valid(_: &[u8]) -> bool {
        true
    }
}
