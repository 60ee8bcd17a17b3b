// SPDX-License-Identifier: GPL-2.0

//! Children on their way through TCP.
//!
//! A server may answer on another processor before the injection has come back with the new socket; a
//! hypervisor can make that any time. What it sends is watched from the first byte on and kept from
//! connection tracking, and its end must be told even if it has come already. So a child is announced
//! by its tuple before TCP gets the segment, and whoever meets the socket first registers it: the
//! injection, or the LOCAL_OUT hook.
//!
//! # Locking
//!
//! One lock a bucket, with softirqs off, taken inside the lock of a socket and outside that of a
//! child's bucket.

use super::{is_child, register, table, unlink, Bucket, Child, Pending};
use crate::bindings;
use crate::net::Net;
use crate::skb::{Flow, IP_LEN};
use crate::tcp_state::{
    TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_LAST_ACK,
};
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel::prelude::*;

/// Chains of the announced; a power of two. There is about one a processor.
pub(super) const BUCKETS: usize = 256;

/// Children that are announced. It falls after a child is registered, so that who finds nobody
/// announced finds the child.
static ANNOUNCED: AtomicUsize = AtomicUsize::new(0);

/// An announcement; dropping it takes the child back unless that is registered.
pub(crate) struct Announced {
    bucket: &'static Bucket,
    net: u64,
    flow: Flow,
    id: u64,
}

impl Pending {
    /// Announces the child. `None` if there is no table.
    pub(crate) fn announce(self) -> Option<Announced> {
        let mut child = self.0;
        let announced = Announced {
            bucket: bucket_of(&child.flow)?,
            net: child.net,
            flow: child.flow,
            id: child.id,
        };
        ANNOUNCED.fetch_add(1, Ordering::Relaxed);
        let mut chain = announced.bucket.lock();
        child.next = chain.take();
        *chain = Some(child);
        drop(chain);
        Some(announced)
    }
}

impl Announced {
    /// Registers the child, unless the hook has done it.
    ///
    /// # Safety
    ///
    /// The caller holds a reference to `sk`, the full socket of the tuple.
    pub(crate) unsafe fn register(self, sk: *mut bindings::sock) {
        let mut chain = self.bucket.lock();
        if let Some(child) = unlink(&mut chain, |child| self.is(child)) {
            // SAFETY: As the caller says; only who finds the announcement registers.
            unsafe { register(child, sk) };
        }
    }

    /// Takes the child back; `false` if the hook has registered it, so that its end will be told.
    pub(crate) fn withdraw(self) -> bool {
        self.take().is_some()
    }

    fn take(&self) -> Option<KBox<Child>> {
        unlink(&mut self.bucket.lock(), |child| self.is(child))
    }

    fn is(&self, child: &Child) -> bool {
        child.net == self.net && child.id == self.id && child.flow == self.flow
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let left = self.take();
        ANNOUNCED.fetch_sub(1, Ordering::Release);
        // What it refers to is dropped without the lock.
        drop(left);
    }
}

fn bucket_of(flow: &Flow) -> Option<&'static Bucket> {
    let port = usize::from(flow.client_port);
    let [.., host] = flow.client;
    table()?
        .announced
        .get((port ^ usize::from(host)) & (BUCKETS - 1))
}

/// Is the sender of a packet a child? One that was announced becomes one.
///
/// # Safety
///
/// `skb` is an IPv4 packet in the LOCAL_OUT hook of `net`, and `sk`, a full socket, its sender.
pub(crate) unsafe fn meet(net: &Net, sk: *mut bindings::sock, skb: *mut bindings::sk_buff) -> bool {
    let announced = ANNOUNCED.load(Ordering::Acquire) > 0;
    // SAFETY: As the caller says; the hook keeps the socket.
    unsafe {
        if is_child(sk) {
            return true;
        }
        if !announced || !is_connected(sk) {
            return false;
        }
        if let Some(flow) = flow_of(skb) {
            let cookie = net.cookie();
            if let Some(bucket) = bucket_of(&flow) {
                let mut chain = bucket.lock();
                let wanted = |child: &mut Child| child.net == cookie && child.flow == flow;
                if let Some(child) = unlink(&mut chain, wanted) {
                    register(child, sk);
                }
            }
        }
        is_child(sk)
    }
}

/// Is it a TCP socket with a connection? Only such a one sends with the tuple of another.
///
/// # Safety
///
/// `sk` is a full socket.
unsafe fn is_connected(sk: *mut bindings::sock) -> bool {
    // SAFETY: As the caller says.
    let (is_tcp, state) = unsafe {
        (
            bindings::lard_sock_is_tcp(sk),
            bindings::lard_sock_state(sk),
        )
    };
    let states = [
        TCP_ESTABLISHED,
        TCP_FIN_WAIT1,
        TCP_FIN_WAIT2,
        TCP_CLOSE_WAIT,
        TCP_LAST_ACK,
        TCP_CLOSING,
    ];
    is_tcp && states.contains(&state)
}

/// The connection of a packet that its server sends.
///
/// # Safety
///
/// `skb` is an IPv4 packet whose data begins at its header.
unsafe fn flow_of(skb: *mut bindings::sk_buff) -> Option<Flow> {
    let mut header = [0u8; IP_LEN + 4];
    // SAFETY: As the caller says; the function checks the length.
    let copied =
        unsafe { bindings::skb_copy_bits(skb, 0, header.as_mut_ptr().cast(), header.len() as i32) };
    // With options of IP the ports are further behind, and a server has to ask for those first.
    let [0x45, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, s0, s1, c0, c1] = header
    else {
        return None;
    };
    (copied == 0).then_some(Flow {
        client: [e, f, g, h],
        client_port: u16::from_be_bytes([c0, c1]),
        server: [a, b, c, d],
        server_port: u16::from_be_bytes([s0, s1]),
    })
}
