// SPDX-License-Identifier: GPL-2.0

//! What children send, and taking a connection from its server.
//!
//! What a child sends can be *watched*: each byte once, in order, as it leaves. Whoever watches can
//! tell whether the server is done with all it was asked, and then [`give_up`] takes the connection
//! from the server in one step under the socket's lock: TCP gets a reset that nobody sent, which it
//! answers with nothing.
//!
//! # Locking
//!
//! The lock of a socket is taken first, that of its bucket of the table inside it.

use super::{bucket_of, find, is_child, restore, unlink, Child};
use crate::bindings;
use crate::inject::Reset;
use crate::net::SoftNet;
use crate::skb::{Flow, IP_LEN};
use crate::tcp_state::{TCP_CLOSE, TCP_ESTABLISHED};
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel::prelude::*;

/// Watches what a child sends.
///
/// # Context
///
/// All methods: any but hard interrupts, with the child's lock held: they call nothing that locks or
/// sends.
pub trait Watch: Send {
    /// The next bytes leave.
    fn sent(&mut self, payload: &Payload<'_>);

    /// Bytes were missed, and nothing more will be shown.
    fn missed(&mut self);

    /// Has the server answered `requests` requests to the end of the last, and said nothing else?
    fn is_done(&self, requests: u32) -> Result<(), Kept>;
}

/// Bytes that a child sends.
pub struct Payload<'a> {
    skb: &'a *mut bindings::sk_buff,
    at: usize,
    len: usize,
}

impl Payload<'_> {
    /// How many.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies those from `offset` on; `false` if there are not so many.
    pub fn copy(&self, offset: usize, to: &mut [u8]) -> bool {
        if offset
            .checked_add(to.len())
            .is_none_or(|end| end > self.len)
        {
            return false;
        }
        let Some(Ok(at)) = self.at.checked_add(offset).map(i32::try_from) else {
            return false;
        };
        // SAFETY: The packet is there while it is shown; the function checks the range against it.
        unsafe {
            bindings::skb_copy_bits(*self.skb, at, to.as_mut_ptr().cast(), to.len() as i32) == 0
        }
    }
}

/// Why a child keeps its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// There is no such child, or its connection is about to end.
    Ending,
    /// The server has not answered everything.
    Answering,
    /// Not all was read, sent or acknowledged.
    InFlight,
    /// The server's process is in a call on the socket.
    InUse,
    /// Nobody can tell, and never will.
    Opaque,
}

/// What was given up.
#[derive(Clone, Copy, Debug)]
pub struct GivenUp {
    /// The next sequence number that would have been sent.
    pub snd_nxt: u32,
    /// The newest timestamp that can have been sent, and whether it counts microseconds.
    pub tsval: Option<(u32, bool)>,
}

/// Who watches a child.
pub(super) struct Watched {
    watch: KBox<dyn Watch>,
    /// The sequence number of the next byte to be shown; `None` when some were missed.
    next: Option<u32>,
}

/// Children that are watched.
static WATCHED: AtomicUsize = AtomicUsize::new(0);

impl Watched {
    pub(super) fn new(watch: KBox<dyn Watch>, next: u32) -> Self {
        WATCHED.fetch_add(1, Ordering::Relaxed);
        Self {
            watch,
            next: Some(next),
        }
    }

    /// A segment leaves: `len` bytes at `at` of the packet, the first of which has number `seq`.
    fn sent(&mut self, skb: &*mut bindings::sk_buff, seq: u32, at: usize, len: usize) {
        let Some(next) = self.next else {
            return;
        };
        let known = next.wrapping_sub(seq);
        // Sent again, as far as it was shown.
        if (known as i32) < 0 {
            self.next = None;
            self.watch.missed();
            return;
        }
        let skip = known as usize;
        let (Some(at), Some(len)) = (at.checked_add(skip), len.checked_sub(skip)) else {
            return;
        };
        if len > 0 {
            self.next = Some(next.wrapping_add(len as u32));
            self.watch.sent(&Payload { skb, at, len });
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        WATCHED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Shows a packet that leaves to whoever watches its child.
///
/// # Safety
///
/// `skb` is an IPv4 packet in the LOCAL_OUT hook, and `sk`, its socket, one for which [`is_child`]
/// said yes.
pub(crate) unsafe fn sent(sk: *mut bindings::sock, skb: *mut bindings::sk_buff) {
    if WATCHED.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut header = [0u8; IP_LEN + 20];
    // SAFETY: The packet is the hook's to look at; the function checks the length.
    let len = unsafe {
        if bindings::skb_copy_bits(skb, 0, header.as_mut_ptr().cast(), header.len() as i32) != 0 {
            return;
        }
        (*skb).len as usize
    };
    // TCP sends without options of IP unless the server asks for them; then nothing is shown, and the
    // server is never done.
    let [0x45, .., _, _, _, _, s0, s1, s2, s3, _, _, _, _, offset, _, _, _, _, _, _, _] = header
    else {
        return;
    };
    let at = IP_LEN.saturating_add(usize::from(offset >> 4) * 4);
    let len = len.saturating_sub(at);
    if len == 0 {
        return;
    }
    let Some(bucket) = bucket_of(sk) else {
        return;
    };
    let mut chain = bucket.lock();
    if let Some(watched) = find(&mut chain, sk).and_then(|child| child.watch.as_mut()) {
        watched.sent(&skb, u32::from_be_bytes([s0, s1, s2, s3]), at, len);
    }
}

/// What a connection has to be like to be given up.
#[derive(Clone, Copy, Debug)]
pub struct GiveUp {
    /// The child's number.
    pub id: u64,
    /// The connection.
    pub flow: Flow,
    /// What has to be the next sequence number from the client.
    pub next: u32,
    /// What the client has acknowledged: all that was sent.
    pub acked: u32,
    /// Requests that the server was given.
    pub requests: u32,
}

/// Takes a connection from its server, if that is done with it. The server learns that it was reset;
/// the client learns nothing. Nobody is told of the child's end.
///
/// # Context
///
/// No lock held.
pub fn give_up(net: &SoftNet, ifindex: u32, wish: &GiveUp) -> Result<GivenUp, Kept> {
    let reset = Reset::new(net, &wish.flow, wish.next).ok_or(Kept::InUse)?;
    // SAFETY: RCU is held; the reference is given back below.
    let sk = unsafe { wish.flow.established(net.as_ptr(), ifindex as i32) };
    if sk.is_null() {
        return Err(Kept::Ending);
    }
    // SAFETY: The lookup gave a reference, which is given back without the lock. A full socket is
    // locked, and softirqs are off.
    unsafe {
        let given_up = match bindings::lard_sock_is_full(sk) && is_child(sk) {
            false => Err(Kept::Ending),
            true => {
                bindings::lard_sock_lock_bh(sk);
                let given_up = give_up_locked(sk, wish, reset);
                bindings::lard_sock_unlock_bh(sk);
                given_up
            }
        };
        bindings::sock_gen_put(sk);
        let (given_up, child) = given_up?;
        // Without the locks: it may hold the last reference to something.
        drop(child);
        Ok(given_up)
    }
}

/// # Safety
///
/// `sk` is a full socket, locked with softirqs off, and RCU is held.
unsafe fn give_up_locked(
    sk: *mut bindings::sock,
    wish: &GiveUp,
    reset: Reset,
) -> Result<(GivenUp, Option<KBox<Child>>), Kept> {
    // SAFETY: As the caller says.
    unsafe {
        if bindings::lard_sock_owned_by_user(sk) {
            return Err(Kept::InUse);
        }
        if bindings::lard_sock_state(sk) != TCP_ESTABLISHED || bindings::lard_sock_is_shut(sk) {
            return Err(Kept::Ending);
        }
        if !bindings::lard_sock_is_plain(sk) {
            return Err(Kept::Opaque);
        }
        let bucket = bucket_of(sk).ok_or(Kept::Ending)?;
        {
            let mut chain = bucket.lock();
            let child = find(&mut chain, sk).filter(|child| child.id == wish.id);
            let watched = &child.ok_or(Kept::Ending)?.watch;
            let watched = watched.as_ref().ok_or(Kept::Opaque)?;
            watched.watch.is_done(wish.requests)?;
        }
        let snd_nxt = bindings::lard_sock_snd_nxt(sk);
        if !bindings::lard_sock_is_drained(sk)
            || bindings::lard_sock_rcv_nxt(sk) != wish.next
            || snd_nxt != wish.acked
        {
            return Err(Kept::InFlight);
        }
        let tsval = bindings::lard_sock_has_timestamps(sk).then(|| {
            (
                bindings::lard_sock_tsval(sk),
                bindings::lard_sock_counts_usec(sk),
            )
        });
        reset.receive(sk, wish.next);
        if bindings::lard_sock_state(sk) != TCP_CLOSE {
            return Err(Kept::Opaque);
        }
        let mut is_there = false;
        let mut chain = bucket.lock();
        let child = unlink(&mut chain, |child| {
            if !core::ptr::eq(child.sk, sk) {
                return false;
            }
            is_there = true;
            // If somebody has saved our function the child stays here until that is called.
            child.reported = true;
            restore(child)
        });
        match is_there {
            true => Ok((GivenUp { snd_nxt, tsval }, child)),
            false => Err(Kept::Ending),
        }
    }
}
