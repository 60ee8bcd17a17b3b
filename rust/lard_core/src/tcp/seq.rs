// SPDX-License-Identifier: GPL-2.0

//! Sequence numbers.
//!
//! They live on a circle of 2³², so they are compared by the sign of their difference (RFC 9293,
//! 3.4) and every sum wraps. There is deliberately no `Ord`: an order that wraps is none.

use core::fmt;

/// A sequence or acknowledgement number.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// The number `n` further on.
    #[inline]
    #[must_use]
    pub const fn add(self, n: u32) -> Self {
        Seq(self.0.wrapping_add(n))
    }

    /// The number `n` before.
    #[inline]
    #[must_use]
    pub const fn sub(self, n: u32) -> Self {
        Seq(self.0.wrapping_sub(n))
    }

    /// Bytes from `earlier` to `self`. Meaningful when `self` is not before `earlier`.
    #[inline]
    pub const fn since(self, earlier: Seq) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Does `self` lie after `other`?
    #[inline]
    pub const fn after(self, other: Seq) -> bool {
        // CAST: the sign of the wrapped difference is the order.
        (other.0.wrapping_sub(self.0) as i32) < 0
    }

    /// Does `self` lie before `other`?
    #[inline]
    pub const fn before(self, other: Seq) -> bool {
        other.after(self)
    }

    /// Is `self` within `first ..= last`?
    #[inline]
    pub const fn between(self, first: Seq, last: Seq) -> bool {
        last.since(first) >= self.since(first)
    }

    /// The later of the two.
    #[inline]
    #[must_use]
    pub const fn max(self, other: Seq) -> Self {
        if other.after(self) {
            other
        } else {
            self
        }
    }

    /// The earlier of the two.
    #[inline]
    #[must_use]
    pub const fn min(self, other: Seq) -> Self {
        if other.before(self) {
            other
        } else {
            self
        }
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Is timestamp `a` newer than `b`? Timestamps wrap like sequence numbers (RFC 7323, 5.2).
#[inline]
pub(super) const fn ts_newer(a: u32, b: u32) -> bool {
    Seq(a).after(Seq(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let (a, b) = (Seq(u32::MAX - 1), Seq(3));
        assert!(b.after(a) && a.before(b));
        assert!(!a.after(a) && !a.before(a));
        assert_eq!(b.since(a), 5);
        assert_eq!(a.add(5), b);
        assert_eq!(b.sub(5), a);
        assert_eq!((a.max(b), a.min(b)), (b, a));
    }

    #[test]
    fn between_takes_both_ends() {
        let (first, last) = (Seq(u32::MAX), Seq(2));
        for inside in [u32::MAX, 0, 1, 2] {
            assert!(Seq(inside).between(first, last), "{inside}");
        }
        for outside in [u32::MAX - 1, 3, 1 << 31] {
            assert!(!Seq(outside).between(first, last), "{outside}");
        }
    }
}
