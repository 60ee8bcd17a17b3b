// SPDX-License-Identifier: GPL-2.0

//! Keyed hashing for tables that strangers fill.
//!
//! C header: [`include/linux/siphash.h`](srctree/include/linux/siphash.h)

use crate::{bindings, random};

/// A secret key for SipHash: without it nobody can aim at a bucket.
pub struct HashKey(bindings::siphash_key_t);

impl HashKey {
    /// A fresh key.
    pub fn random() -> Self {
        Self(bindings::siphash_key_t {
            key: [random::u64(), random::u64()],
        })
    }

    /// SipHash-2-4 of four words. Any context.
    pub fn hash(&self, words: [u64; 4]) -> u64 {
        let [a, b, c, d] = words;
        // SAFETY: The key is valid for the duration of the call.
        unsafe { bindings::siphash_4u64(a, b, c, d, &self.0) }
    }
}
