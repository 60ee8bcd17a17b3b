// SPDX-License-Identifier: GPL-2.0

//! Counters that cost one local addition.

use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// A row of counters of 64 bits, kept once a CPU.
///
/// # Context
///
/// Any; reading is not a snapshot, but never goes backwards by more than what is being added.
pub struct Counters {
    base: NonNull<u64>,
    len: usize,
}

// SAFETY: Per-CPU memory belongs to no thread.
unsafe impl Send for Counters {}
// SAFETY: Additions are atomic on their CPU, and reads of aligned words are whole.
unsafe impl Sync for Counters {}

impl Counters {
    /// `len` counters that are all zero. May sleep.
    pub fn new(len: usize) -> Result<Self> {
        let bytes = len.checked_mul(8).ok_or(EINVAL)?;
        // SAFETY: Process context; an allocation that is too small or too large fails.
        let base = unsafe { bindings::lard_sync_percpu_alloc(bytes) };
        Ok(Self {
            base: NonNull::new(base).ok_or(ENOMEM)?,
            len,
        })
    }

    /// Adds one.
    pub fn inc(&self, index: usize) {
        self.add(index, 1);
    }

    /// Adds `n`; an index beyond the end counts nothing.
    pub fn add(&self, index: usize, n: u64) {
        if index < self.len {
            // SAFETY: The index is within the allocation.
            unsafe { bindings::lard_sync_percpu_add(self.base.as_ptr(), index, n) };
        }
    }

    /// The sum over all CPUs.
    pub fn sum(&self, index: usize) -> u64 {
        let mut total = 0u64;
        if index >= self.len {
            return total;
        }
        // SAFETY: Reads a constant of the running system.
        let end = unsafe { bindings::lard_sync_nr_cpu_ids() };
        // SAFETY: -1 starts the walk.
        let mut cpu = unsafe { bindings::lard_sync_next_cpu(-1) };
        while cpu < end {
            // SAFETY: The CPU is possible and the index within the allocation.
            let value = unsafe {
                bindings::lard_sync_percpu_ptr(self.base.as_ptr(), cpu)
                    .add(index)
                    .read_volatile()
            };
            total = total.wrapping_add(value);
            // SAFETY: Continues the walk from a valid CPU.
            cpu = unsafe { bindings::lard_sync_next_cpu(cpu as i32) };
        }
        total
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new`, and nobody has it any more.
        unsafe { bindings::free_percpu(self.base.as_ptr().cast()) };
    }
}
