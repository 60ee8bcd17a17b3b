// SPDX-License-Identifier: GPL-2.0

//! Random numbers of the kernel's generator, from any context.

use crate::bindings;

/// Fills `out` with random bytes.
pub fn bytes(out: &mut [u8]) {
    // SAFETY: The pointer and the length are those of one slice.
    unsafe { bindings::get_random_bytes(out.as_mut_ptr().cast(), out.len()) };
}

/// A random number of 32 bits.
pub fn u32() -> u32 {
    let mut raw = [0; 4];
    bytes(&mut raw);
    u32::from_ne_bytes(raw)
}

/// A random number of 64 bits.
pub fn u64() -> u64 {
    let mut raw = [0; 8];
    bytes(&mut raw);
    u64::from_ne_bytes(raw)
}
