// SPDX-License-Identifier: GPL-2.0

//! What bindgen made of `bindings_helper.h`: kernel structures and functions that the `kernel` crate
//! does not bind, and the C helpers of `rust/helpers`.
//!
//! The types are this crate's own copies; where a pointer of the `kernel` crate's bindings and one of
//! these meet, they are cast.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

use kernel::ffi;
use pin_init::{MaybeZeroable, Zeroable};

type __kernel_size_t = usize;
type __kernel_ssize_t = isize;
type __kernel_ptrdiff_t = isize;

// SAFETY: `__BindgenBitfieldUnit<Storage>` is a newtype around `Storage`.
unsafe impl<Storage> Zeroable for __BindgenBitfieldUnit<Storage> where Storage: Zeroable {}

include!(concat!(
    env!("LARD_OBJ"),
    "/rust/bindings/bindings_generated.rs"
));
