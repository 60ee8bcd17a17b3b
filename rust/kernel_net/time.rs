// SPDX-License-Identifier: GPL-2.0

//! Clocks.

use crate::bindings;

/// Microseconds of the monotonic clock.
pub fn now_us() -> u64 {
    // SAFETY: Callable from any context.
    let ns = unsafe { bindings::ktime_get() };
    u64::try_from(ns).unwrap_or(0) / 1000
}
