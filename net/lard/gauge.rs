// SPDX-License-Identifier: GPL-2.0

//! Limits on what clients can make the node keep.
//!
//! Whoever keeps something [`Held`] gives it back by being dropped, so no way of a connection to its
//! end can forget to.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;

/// How much of something is in use, and how much may be.
pub(crate) struct Gauge {
    used: Atomic<i64>,
    limit: Atomic<i64>,
}

/// A part of a gauge.
pub(crate) struct Held {
    gauge: Arc<Gauge>,
    amount: i64,
}

impl Gauge {
    /// Nothing in use, and nothing allowed before a limit is set. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                used: Atomic::new(0),
                limit: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// Changes the limit; what is in use stays in use.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(i64::from(limit), Relaxed);
    }

    /// How much is in use.
    pub(crate) fn used(&self) -> u64 {
        u64::try_from(self.used.load(Relaxed)).unwrap_or(0)
    }

    fn take(&self, amount: i64) -> bool {
        let before = self.used.fetch_add(amount, Relaxed);
        if before.saturating_add(amount) <= self.limit.load(Relaxed) {
            return true;
        }
        self.used.fetch_add(-amount, Relaxed);
        false
    }
}

impl Held {
    /// Holds nothing yet.
    pub(crate) fn none(gauge: &Arc<Gauge>) -> Self {
        Self {
            gauge: gauge.clone(),
            amount: 0,
        }
    }

    /// Holds one; `None` at the limit.
    pub(crate) fn one(gauge: &Arc<Gauge>) -> Option<Self> {
        let mut held = Self::none(gauge);
        held.grow(1).then_some(held)
    }

    /// Holds `more` than before; `false`, and nothing changes, beyond the limit.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let Ok(more) = i32::try_from(more).map(i64::from) else {
            return false;
        };
        let taken = self.gauge.take(more);
        if taken {
            self.amount = self.amount.saturating_add(more);
        }
        taken
    }

    /// Gives a part back.
    pub(crate) fn shrink(&mut self, less: usize) {
        let less = i64::try_from(less).unwrap_or(0).min(self.amount);
        self.gauge.used.fetch_add(-less, Relaxed);
        self.amount = self.amount.saturating_sub(less);
    }

    /// Gives back what it holds.
    pub(crate) fn release(&mut self) {
        self.gauge.used.fetch_add(-self.amount, Relaxed);
        self.amount = 0;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}
