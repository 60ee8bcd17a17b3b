// SPDX-License-Identifier: GPL-2.0

//! Points in time, as the shell passes them in.
//!
//! The core never reads a clock. An [`Instant`] is microseconds since boot on the node that made it;
//! instants of different nodes cannot be compared without the offset that PING and PONG measure.
//! Arithmetic saturates: a timer that would lie beyond the end of time simply never fires, and the
//! difference of two instants in the wrong order is zero.

use core::time::Duration;

/// Microseconds since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment of boot.
    pub const ZERO: Instant = Instant(0);

    /// A moment no clock reaches: the expiry of a timer that is not set.
    pub const FAR_FUTURE: Instant = Instant(u64::MAX);

    /// The instant `us` microseconds after boot.
    #[inline]
    pub const fn from_micros(us: u64) -> Self {
        Instant(us)
    }

    /// The instant `ms` milliseconds after boot.
    #[inline]
    pub const fn from_millis(ms: u64) -> Self {
        Instant(ms.saturating_mul(1_000))
    }

    /// The instant `ns` nanoseconds after boot, as the kernel's clocks count.
    #[inline]
    pub const fn from_nanos(ns: u64) -> Self {
        Instant(ns / 1_000)
    }

    /// Microseconds since boot.
    #[inline]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since boot.
    #[inline]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole seconds since boot.
    #[inline]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The instant `d` later, at most [`Instant::FAR_FUTURE`].
    #[inline]
    pub const fn saturating_add(self, d: Duration) -> Self {
        Instant(self.0.saturating_add(micros(d)))
    }

    /// The instant `d` earlier, at least [`Instant::ZERO`].
    #[inline]
    pub const fn saturating_sub(self, d: Duration) -> Self {
        Instant(self.0.saturating_sub(micros(d)))
    }

    /// The instant `d` later, or `None` where the clock ends.
    #[inline]
    pub const fn checked_add(self, d: Duration) -> Option<Self> {
        match self.0.checked_add(micros(d)) {
            Some(us) => Some(Instant(us)),
            None => None,
        }
    }

    /// The instant `d` earlier, or `None` if that lies before boot.
    #[inline]
    pub const fn checked_sub(self, d: Duration) -> Option<Self> {
        match self.0.checked_sub(micros(d)) {
            Some(us) => Some(Instant(us)),
            None => None,
        }
    }

    /// Time since `earlier`; zero if `earlier` is later than `self`.
    #[inline]
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Time since `earlier`, or `None` if `earlier` is later than `self`.
    #[inline]
    pub const fn checked_since(self, earlier: Instant) -> Option<Duration> {
        match self.0.checked_sub(earlier.0) {
            Some(us) => Some(Duration::from_micros(us)),
            None => None,
        }
    }
}

/// Whole microseconds of `d`, saturating, without 128-bit arithmetic.
#[inline]
const fn micros(d: Duration) -> u64 {
    d.as_secs()
        .saturating_mul(1_000_000)
        .saturating_add(d.subsec_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_convert() {
        assert_eq!(Instant::from_millis(3), Instant::from_micros(3_000));
        assert_eq!(Instant::from_nanos(3_999), Instant::from_micros(3));
        assert_eq!(Instant::from_micros(2_500_000).as_secs(), 2);
        assert_eq!(Instant::from_micros(2_500_999).as_millis(), 2_500);
    }

    #[test]
    fn arithmetic_stops_at_the_ends() {
        let d = Duration::from_secs(1);
        assert_eq!(Instant::FAR_FUTURE.saturating_add(d), Instant::FAR_FUTURE);
        assert_eq!(Instant::ZERO.saturating_sub(d), Instant::ZERO);
        assert_eq!(Instant::FAR_FUTURE.checked_add(d), None);
        assert_eq!(Instant::ZERO.checked_sub(d), None);
        assert_eq!(
            Instant::ZERO.saturating_add(Duration::MAX),
            Instant::FAR_FUTURE
        );
    }

    #[test]
    fn differences_never_run_backwards() {
        let (a, b) = (Instant::from_millis(5), Instant::from_millis(9));
        assert_eq!(b.saturating_since(a), Duration::from_millis(4));
        assert_eq!(a.saturating_since(b), Duration::ZERO);
        assert_eq!(a.checked_since(b), None);
    }
}
