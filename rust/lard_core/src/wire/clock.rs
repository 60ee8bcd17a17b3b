// SPDX-License-Identifier: GPL-2.0

//! The offset between this node's clock and a peer's, learnt from PING and PONG.
//!
//! A HANDOFF carries the moment at which it expires by the sender's clock. A back-end that was
//! stuck must be able to tell that the front-end has given up meanwhile, otherwise two servers would
//! answer one client.
//!
//! ```text
//! ours:    sent ───────────────────── now         offset = clock − (sent + now) / 2
//!               \                   /             error  ≤ (now − sent) / 2
//! theirs:        ────── clock ──────
//! ```
//!
//! The sample with the shortest round trip is the best one, as in NTP (RFC 5905, 10). It grows stale
//! as clocks drift apart, so its claim to precision is lowered with age.

use super::super::time::Instant;
use super::Pong;
use core::time::Duration;

/// What is known about a peer's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockOffset {
    best: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Theirs minus ours, in microseconds, modulo 2^64.
    offset: u64,
    /// Half the round trip: how far off the offset can be.
    error: Duration,
    taken: Instant,
}

/// Clocks of two machines part by no more than this, the 200 ppm of a bad crystal: 200 µs a second.
const DRIFT_DIVISOR: u32 = 5_000;

impl ClockOffset {
    /// Nothing is known yet.
    pub const fn new() -> Self {
        ClockOffset { best: None }
    }

    /// Learns from a PONG that arrived at `now`. One that claims to answer a PING of the future is
    /// ignored.
    pub fn on_pong(&mut self, pong: Pong, now: Instant) {
        let Some(round_trip) = now.checked_since(pong.sent) else {
            return;
        };
        let error = round_trip / 2;
        if self.error(now).is_some_and(|known| known < error) {
            return;
        }
        let middle = pong.sent.saturating_add(error);
        self.best = Some(Sample {
            offset: pong.clock.as_micros().wrapping_sub(middle.as_micros()),
            error,
            taken: now,
        });
    }

    /// How far off [`ClockOffset::to_local`] can be at `now`; `None` before the first PONG.
    pub fn error(&self, now: Instant) -> Option<Duration> {
        let best = self.best?;
        let drift = now.saturating_since(best.taken) / DRIFT_DIVISOR;
        Some(best.error.saturating_add(drift))
    }

    /// An instant of the peer's clock by ours; `None` before the first PONG.
    pub fn to_local(&self, theirs: Instant) -> Option<Instant> {
        let offset = self.best?.offset;
        Some(Instant::from_micros(
            theirs.as_micros().wrapping_sub(offset),
        ))
    }

    /// Has the moment `expires` of the peer's clock surely passed, or is it not known that it has
    /// not? Without an offset everything counts as expired: refusing is always safe.
    pub fn is_expired(&self, expires: Instant, now: Instant) -> bool {
        match (self.to_local(expires), self.error(now)) {
            (Some(local), Some(error)) => now.saturating_add(error) >= local,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(v: u64) -> Instant {
        Instant::from_millis(v)
    }

    fn pong(sent: u64, clock: u64) -> Pong {
        Pong {
            sent: ms(sent),
            clock: ms(clock),
        }
    }

    #[test]
    fn everything_is_expired_until_a_pong_was_heard() {
        let c = ClockOffset::new();
        assert!(c.is_expired(Instant::FAR_FUTURE, Instant::ZERO));
        assert_eq!(c.to_local(ms(1)), None);
    }

    #[test]
    fn a_peer_ahead_and_a_peer_behind_are_translated() {
        for theirs in [50_000, 10] {
            let mut c = ClockOffset::new();
            c.on_pong(pong(1_000, theirs), ms(1_004));
            assert_eq!(c.to_local(ms(theirs)), Some(ms(1_002)));
            assert!(!c.is_expired(ms(theirs + 100), ms(1_004)));
            assert!(c.is_expired(ms(theirs + 100), ms(1_101)));
            // Within the error it might have passed, so it counts as passed.
            assert!(c.is_expired(ms(theirs + 100), ms(1_100)));
        }
    }

    #[test]
    fn the_shortest_round_trip_wins_until_it_is_stale() {
        let mut c = ClockOffset::new();
        c.on_pong(pong(0, 500), ms(2));
        c.on_pong(pong(100, 700), ms(180));
        assert_eq!(c.to_local(ms(500)), Some(ms(1)));
        // 39 ms of error against 1 ms that has drifted for ten minutes (120 ms).
        c.on_pong(pong(600_000, 600_600), ms(600_078));
        assert_eq!(c.error(ms(600_078)), Some(Duration::from_millis(39)));
    }

    #[test]
    fn a_pong_from_the_future_is_ignored() {
        let mut c = ClockOffset::new();
        c.on_pong(pong(100, 500), ms(99));
        assert_eq!(c.error(ms(99)), None);
    }
}
