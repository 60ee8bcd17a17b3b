// SPDX-License-Identifier: GPL-2.0

//! Safe Rust over the kernel's networking, as far as the `kernel` crate does not cover it.

#[path = "../bindings/bindings.rs"]
mod bindings;

/// x
pub fn x() -> usize {
    // SAFETY: test
    unsafe { bindings::lard_net_generic(core::ptr::null(), 0) as usize }
}
