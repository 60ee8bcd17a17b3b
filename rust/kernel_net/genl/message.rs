// SPDX-License-Identifier: GPL-2.0

//! Messages of a family, while they are written.

use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::bindings as c;
use kernel::error::to_result;
use kernel::ffi::{c_int, c_long, c_void};
use kernel::prelude::*;

use crate::bindings;
use crate::net::Net;

/// A message that is being written.
pub struct Message<'a> {
    skb: NonNull<bindings::sk_buff>,
    _owner: PhantomData<&'a mut ()>,
}

/// A message that is complete, and owned.
pub(super) struct Built(NonNull<bindings::sk_buff>);

impl Built {
    pub(super) fn into_raw(self) -> *mut bindings::sk_buff {
        let skb = self.0.as_ptr();
        core::mem::forget(self);
        skb
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        // SAFETY: The message is ours.
        unsafe { bindings::lard_genl_free(self.0.as_ptr()) };
    }
}

/// Makes a message of one command.
///
/// # Safety
///
/// `family` must be registered, or have been.
pub(super) unsafe fn build(
    family: *const bindings::genl_family,
    port: u32,
    seq: u32,
    command: u8,
    flags: c::gfp_t,
    fill: impl FnOnce(&mut Message<'_>) -> Result,
) -> Result<Built> {
    // SAFETY: Takes integers only.
    let skb = NonNull::new(unsafe { bindings::lard_genl_new(flags) }).ok_or(ENOMEM)?;
    let built = Built(skb);
    // SAFETY: The message is ours and the family's number is set, by the requirement.
    let header = unsafe { bindings::genlmsg_put(skb.as_ptr(), port, seq, family, 0, command) };
    if header.is_null() {
        return Err(EMSGSIZE);
    }
    fill(&mut Message {
        skb,
        _owner: PhantomData,
    })?;
    // SAFETY: `header` belongs to the message.
    unsafe { bindings::lard_genl_end(skb.as_ptr(), header) };
    Ok(built)
}

impl Message<'_> {
    /// Adds an attribute of any bytes. Fails with EMSGSIZE when the message is full.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> Result {
        let len = c_int::try_from(value.len()).map_err(|_| EMSGSIZE)?;
        // SAFETY: The message is valid and `value` can be read for its length.
        to_result(unsafe {
            bindings::nla_put(
                self.skb.as_ptr(),
                kind.into(),
                len,
                value.as_ptr().cast::<c_void>(),
            )
        })
    }

    /// Adds a flag.
    pub fn put_flag(&mut self, kind: u16) -> Result {
        self.put(kind, &[])
    }

    /// Adds an integer of 16 bits.
    pub fn put_u16(&mut self, kind: u16, value: u16) -> Result {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds an integer of 32 bits.
    pub fn put_u32(&mut self, kind: u16, value: u32) -> Result {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds an unsigned integer of 32 or 64 bits.
    pub fn put_uint(&mut self, kind: u16, value: u64) -> Result {
        // SAFETY: The message is valid.
        to_result(unsafe { bindings::lard_genl_put_uint(self.skb.as_ptr(), kind.into(), value) })
    }

    /// Adds a signed integer of 32 or 64 bits.
    pub fn put_sint(&mut self, kind: u16, value: i64) -> Result {
        // SAFETY: The message is valid.
        to_result(unsafe { bindings::lard_genl_put_sint(self.skb.as_ptr(), kind.into(), value) })
    }

    /// Adds text. It ends at a NUL, or after 255 bytes.
    pub fn put_text(&mut self, kind: u16, text: &str) -> Result {
        let mut buffer = [0; 256];
        let bytes = text.bytes().take_while(|b| *b != 0);
        let mut len = 1usize;
        // The last place stays for the NUL.
        for (to, from) in buffer.iter_mut().take(255).zip(bytes) {
            *to = from;
            len = len.saturating_add(1);
        }
        self.put(kind, buffer.get(..len).unwrap_or_default())
    }

    /// Adds an attribute that holds others.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self) -> Result) -> Result {
        let skb = self.skb.as_ptr();
        // SAFETY: The message is valid.
        let start = unsafe { bindings::lard_genl_nest_start(skb, kind.into()) };
        if start.is_null() {
            return Err(EMSGSIZE);
        }
        let result = fill(self);
        // SAFETY: `start` is the attribute begun above; the message does not move, because nothing
        // makes it larger.
        unsafe {
            match result {
                Ok(()) => bindings::lard_genl_nest_end(skb, start),
                Err(_) => bindings::lard_genl_nest_cancel(skb, start),
            }
        }
        result
    }
}

/// A dump that is going on: one of the messages of the answer.
pub struct Dump<'a> {
    pub(super) skb: NonNull<bindings::sk_buff>,
    pub(super) cb: NonNull<bindings::netlink_callback>,
    pub(super) net: &'a Net,
    pub(super) wrote: bool,
}

impl<'a> Dump<'a> {
    /// The namespace of the asker.
    pub fn net(&self) -> &'a Net {
        self.net
    }

    /// Where this message goes on: what [`Self::advance`] was last given, 0 at the beginning.
    pub fn position(&self) -> u64 {
        // SAFETY: The callback structure is valid as long as `self`; its `args` are ours to use.
        let [low, high, ..] = unsafe { (*self.cb.as_ptr()).__bindgen_anon_1.args };
        // CAST: Both were stored from 32 bits.
        u64::from(low as u32) | u64::from(high as u32) << 32
    }

    /// Says where the next message goes on.
    pub fn advance(&mut self, position: u64) {
        // SAFETY: As in `position`.
        let args = unsafe { &mut (*self.cb.as_ptr()).__bindgen_anon_1.args };
        let [low, high, ..] = args;
        // CAST: The two halves.
        *low = position as u32 as c_long;
        *high = (position >> 32) as c_long;
    }

    /// Writes one entry. False: the message is full, and the entry is for the next one.
    pub fn entry(&mut self, fill: impl FnOnce(&mut Message<'_>) -> Result) -> Result<bool> {
        let skb = self.skb.as_ptr();
        // SAFETY: The callback structure and what it points to are valid during the dump.
        let header = unsafe {
            let info = &*bindings::lard_genl_dump_info(self.cb.as_ptr());
            bindings::genlmsg_put(
                skb,
                info.snd_portid,
                info.snd_seq,
                info.family,
                bindings::NLM_F_MULTI as c_int,
                (*info.genlhdr).cmd,
            )
        };
        if header.is_null() {
            return self.full();
        }
        let result = fill(&mut Message {
            skb: self.skb,
            _owner: PhantomData,
        });
        match result {
            Ok(()) => {
                // SAFETY: `header` belongs to the message.
                unsafe { bindings::lard_genl_end(skb, header) };
                self.wrote = true;
                Ok(true)
            }
            Err(e) => {
                // SAFETY: As above.
                unsafe { bindings::lard_genl_cancel(skb, header) };
                if e == EMSGSIZE {
                    self.full()
                } else {
                    Err(e)
                }
            }
        }
    }

    /// An entry that does not even fit an empty message never will.
    fn full(&self) -> Result<bool> {
        if self.wrote {
            Ok(false)
        } else {
            Err(EMSGSIZE)
        }
    }
}
