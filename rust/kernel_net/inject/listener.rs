// SPDX-License-Identifier: GPL-2.0

//! The listener that gets a connection: finding the one that TCP will take, asking whether it can be
//! had, and lending listeners of the regular family the right to answer from foreign addresses.

use super::packet::Packet;
use super::{Handoff, Refusal};
use crate::bindings;
use crate::child;
use crate::family;
use crate::net::SoftNet;
use crate::sync::BhLock;
use crate::tcp_state::TCP_LISTEN;
use core::ptr::NonNull;
use kernel::prelude::*;

/// Where to look for the listener.
#[derive(Clone, Copy)]
pub struct Listener<'a> {
    /// Its port.
    pub port: u16,
    /// Its address, if it is neither the client's destination nor all addresses.
    pub addr: Option<[u8; 4]>,
    /// May it be a listener of the regular family? Then here is noted what was changed in it.
    pub lent: Option<&'a Lent>,
}

/// Finds the socket that TCP will take for the listener, and asks whether it can be had.
pub(super) fn find_listener(
    net: &SoftNet,
    packet: &Packet,
    handoff: &Handoff,
    listener: &Listener<'_>,
) -> Result<NonNull<bindings::sock>, Refusal> {
    let flow = &handoff.flow;
    // The lookup by the client's destination finds listeners on all addresses as well.
    let sk = [Some(flow.server), listener.addr]
        .into_iter()
        .flatten()
        .find_map(|addr| {
            // SAFETY: RCU is held until the segment was delivered; listeners are freed after a
            // grace period.
            NonNull::new(unsafe {
                bindings::__inet_lookup_listener(
                    net.as_ptr(),
                    packet.skb.as_ptr(),
                    packet.tcp_len as i32,
                    u32::from_ne_bytes(flow.client),
                    flow.client_port.to_be(),
                    u32::from_ne_bytes(addr),
                    listener.port,
                    packet.ifindex,
                    0,
                )
            })
        })
        .ok_or(Refusal::NoListener)?;
    // In a group of listeners TCP selects again, with the packet's own port in the hash.
    // SAFETY: As above.
    let again = unsafe {
        bindings::lard_inject_lookup_reuseport(
            net.as_ptr(),
            sk.as_ptr(),
            packet.skb.as_ptr(),
            packet.tcp_len as i32,
            u32::from_ne_bytes(flow.client),
            flow.client_port.to_be(),
            u32::from_ne_bytes(flow.server),
            flow.server_port,
        )
    };
    // A selection program may answer with an error in place of a socket.
    if again as usize > usize::MAX - 4096 {
        return Err(Refusal::NoListener);
    }
    let sk = NonNull::new(again).unwrap_or(sk);
    // SAFETY: RCU is held.
    unsafe { admit(sk.as_ptr(), listener)? };
    Ok(sk)
}

/// Can this listener have the connection?
///
/// # Safety
///
/// `sk` was found by a lookup in this RCU section.
unsafe fn admit(sk: *mut bindings::sock, listener: &Listener<'_>) -> Result<(), Refusal> {
    // SAFETY: As the caller says.
    unsafe {
        if bindings::lard_sock_state(sk) != TCP_LISTEN || !bindings::lard_sock_is_stream(sk) {
            return Err(Refusal::NoListener);
        }
        // A child that was made a listener gives our function to everything it accepts.
        if child::is_child(sk) {
            return Err(Refusal::NotAllowed);
        }
        // The request would be taken for an MPTCP one, which is larger.
        if bindings::lard_sock_is_mptcp(sk) {
            return Err(Refusal::MptcpListener);
        }
        if bindings::lard_sock_acceptq_is_full(sk) {
            return Err(Refusal::QueueFull);
        }
        if !family::is_ours(sk) {
            let lent = listener.lent.ok_or(Refusal::NotAllowed)?;
            if !bindings::lard_sock_is_transparent(sk) && !lent.take(sk) {
                return Err(Refusal::NoMemory);
            }
        } else if !bindings::lard_sock_is_transparent(sk) {
            return Err(Refusal::NotAllowed);
        }
    }
    Ok(())
}

/// Listeners of the regular family that were given the right to answer from foreign addresses.
///
/// The right is taken back from those that had not had it before, by [`Lent::restore`] or when the
/// value is dropped.
pub struct Lent(BhLock<KVec<*mut bindings::sock>>);

// SAFETY: The pointers carry references, and references to sockets belong to no thread.
unsafe impl Send for Lent {}
// SAFETY: As above; the lock serialises.
unsafe impl Sync for Lent {}

impl Lent {
    /// Listeners that can be lent at a time; a server has one a worker and address at the most.
    pub const MAX: usize = 128;

    /// None lent yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(crate::new_bh_lock!(KVec::new(), c"lard:lent"))
    }

    /// # Safety
    ///
    /// RCU is held, and `sk` was found in this section.
    unsafe fn take(&self, sk: *mut bindings::sock) -> bool {
        let mut lent = self.0.lock();
        if lent.len() >= Self::MAX || lent.reserve(1, GFP_ATOMIC).is_err() {
            return false;
        }
        // SAFETY: As the caller says.
        unsafe {
            if !bindings::lard_sock_hold_not_zero(sk) {
                return false;
            }
            bindings::lard_sock_set_transparent(sk);
        }
        // There is room.
        lent.push(sk, GFP_ATOMIC).is_ok()
    }

    fn give_back(&self, which: impl Fn(*mut bindings::sock) -> bool) {
        loop {
            let found = {
                let mut lent = self.0.lock();
                let found = lent.iter().position(|sk| which(*sk));
                found.and_then(|at| lent.remove(at).ok())
            };
            let Some(sk) = found else {
                return;
            };
            // SAFETY: The reference that `take` took is given back, outside the lock.
            unsafe {
                bindings::lard_sock_clear_transparent(sk);
                bindings::lard_sock_put(sk);
            }
        }
    }

    /// Lets go of listeners that listen no more. To be called every few seconds: what is lent keeps
    /// a closed socket's memory and its namespace.
    pub fn sweep(&self) {
        // SAFETY: The place holds a reference.
        self.give_back(|sk| unsafe { bindings::lard_sock_state(sk) } != TCP_LISTEN);
    }

    /// Takes the right back from all.
    pub fn restore(&self) {
        self.give_back(|_| true);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.restore();
    }
}
