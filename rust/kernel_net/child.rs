// SPDX-License-Identifier: GPL-2.0

//! The sockets that hand-offs have made, and learning when they are gone.
//!
//! A child's `sk_destruct` is replaced by [`on_destruct`] for as long as the child is registered;
//! the kernel calls it when the last reference to the socket goes, from any context. The table finds
//! the child by the socket's address, because the tuple is cleared in a socket by then. Each entry
//! holds a reference to the module, so unloading is refused while one is left.
//!
//! Somebody else may save our function and call it later (TLS offload does): then the entry stays
//! until that happens. [`sweep`] reports children that are not to be found among the established
//! connections any more although the function was not called; it never unregisters them.
//!
//! # Locking
//!
//! One lock a bucket, with softirqs off. Nothing that could drop a reference to a socket runs under
//! it, since that could end in `on_destruct` and the same lock.

use crate::bindings;
use crate::net::Net;
use crate::skb::Flow;
use crate::sync::{wait_for_returns, BhLock, ModuleRef};
use crate::time;
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::prelude::*;
use kernel::sync::{rcu, Arc};

/// Chains in the table; a power of two. A few children a chain at the most that one machine serves.
const BUCKETS: usize = 4096;
/// Positions a chain has in [`next`]; a chain is never that long.
const CHAIN: u64 = 1 << 20;
/// Sweeps that must miss a child in a row before it is reported: between its birth and the second
/// sweep lies a whole period, so one that is being set up is not taken for gone.
const STRIKES: u8 = 2;

const TCP_TIME_WAIT: u8 = 6;

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// Both sides closed it.
    Closed,
    /// Both sides closed it, this one first: the tuple is in TIME_WAIT here.
    TimeWait,
    /// It was broken off.
    Reset,
}

/// What is known of a connection at its end.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// How it ended.
    pub how: How,
    /// Bytes that the client acknowledged.
    pub bytes_sent: u64,
    /// Bytes that came from the client.
    pub bytes_received: u64,
    /// Time since the hand-off.
    pub duration_us: u64,
}

/// Whoever wants to know of the end of a child.
pub trait Owner: Send + Sync {
    /// The child with this number is gone; called once for each.
    ///
    /// # Context
    ///
    /// Any that a socket can be freed in: softirq or process, softirqs perhaps off, locks of the
    /// network stack perhaps held. Not while a lock of this crate is held.
    fn child_closed(&self, id: u64, end: End);
}

/// What a list of children shows.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// Its number.
    pub id: u64,
    /// Its tuple.
    pub flow: Flow,
    /// Time since the hand-off.
    pub age_us: u64,
}

type Destruct = Option<unsafe extern "C" fn(*mut bindings::sock)>;

struct Child {
    next: Option<KBox<Child>>,
    sk: *mut bindings::sock,
    destruct: Destruct,
    owner: Arc<dyn Owner>,
    net: u64,
    id: u64,
    flow: Flow,
    born_us: u64,
    missed: u8,
    reported: bool,
    _module: ModuleRef,
}

// SAFETY: The pointer to the socket is a key; it is dereferenced only as the table's rules say.
unsafe impl Send for Child {}

/// A place in the table, allocated before there is a socket for it.
pub struct Pending(KBox<Child>);

impl Pending {
    /// Memory for a child, or `None` when there is none (or the module is going).
    pub fn new(net: &Net, owner: Arc<dyn Owner>, id: u64, flow: Flow) -> Option<Self> {
        let module = ModuleRef::try_get()?;
        let child = Child {
            next: None,
            sk: core::ptr::null_mut(),
            destruct: None,
            owner,
            net: net.cookie(),
            id,
            flow,
            born_us: time::now_us(),
            missed: 0,
            reported: false,
            _module: module,
        };
        KBox::new(child, GFP_ATOMIC).ok().map(Self)
    }

    /// Registers the child.
    ///
    /// # Safety
    ///
    /// The caller holds a reference to `sk`, a full socket that is not registered.
    pub(crate) unsafe fn adopt(self, sk: *mut bindings::sock) {
        let Some(bucket) = bucket_of(sk) else {
            return;
        };
        let mut child = self.0;
        child.sk = sk;
        let mut chain = bucket.lock();
        loop {
            // SAFETY: The caller holds the socket. The function pointers have the type of the
            // field; the exchange happens only if nobody changed it in between.
            let swapped = unsafe {
                let old = bindings::lard_sock_destruct(sk);
                child.destruct = core::mem::transmute::<*mut core::ffi::c_void, Destruct>(old);
                bindings::lard_sock_swap_destruct(sk, child.destruct, Some(on_destruct)) == old
            };
            if swapped {
                break;
            }
        }
        if let Some(destruct) = child.destruct {
            USUAL.store(destruct as *mut (), Ordering::Relaxed);
        }
        child.next = chain.take();
        *chain = Some(child);
    }
}

type Bucket = BhLock<Option<KBox<Child>>>;

/// The buckets, while the module is set up.
static TABLE: AtomicPtr<Bucket> = AtomicPtr::new(core::ptr::null_mut());
/// What `sk_destruct` is of sockets like ours, for a call that comes after its child was released.
static USUAL: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

fn bucket(index: usize) -> Option<&'static Bucket> {
    let table = TABLE.load(Ordering::Acquire);
    if table.is_null() || index >= BUCKETS {
        return None;
    }
    // SAFETY: The table has that many buckets, and is freed when nobody can get here any more.
    Some(unsafe { &*table.add(index) })
}

fn bucket_of(sk: *mut bindings::sock) -> Option<&'static Bucket> {
    // The golden ratio spreads addresses, of which the lowest bits are all alike.
    let hash = (sk as usize as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    bucket(hash as usize & (BUCKETS - 1))
}

/// Takes the first child that `want` wants out of a chain.
fn unlink(
    chain: &mut Option<KBox<Child>>,
    mut want: impl FnMut(&Child) -> bool,
) -> Option<KBox<Child>> {
    let mut link = chain;
    loop {
        match link {
            None => return None,
            Some(child) if want(child) => {
                let next = child.next.take();
                return core::mem::replace(link, next);
            }
            Some(child) => link = &mut child.next,
        }
    }
}

fn walk(chain: &Option<KBox<Child>>) -> impl Iterator<Item = &Child> {
    core::iter::successors(chain.as_deref(), |child| child.next.as_deref())
}

/// What a registered child's `sk_destruct` is.
///
/// # Safety
///
/// Called by the kernel with a socket that is being freed.
unsafe extern "C" fn on_destruct(sk: *mut bindings::sock) {
    let child = bucket_of(sk).and_then(|bucket| {
        let mut chain = bucket.lock();
        unlink(&mut chain, |child| core::ptr::eq(child.sk, sk))
    });
    let destruct = match child {
        Some(child) => {
            if !child.reported {
                // SAFETY: The socket is being freed, and is whole until the function that is called
                // last here returns.
                let end = unsafe { end_of(sk, &child) };
                child.owner.child_closed(child.id, end);
            }
            child.destruct
        }
        None => {
            let usual = USUAL.load(Ordering::Relaxed);
            // SAFETY: Null or a function of this type was stored.
            unsafe { core::mem::transmute::<*mut (), Destruct>(usual) }
        }
    };
    // SAFETY: The function that the socket had before ours, or the one that such sockets have.
    unsafe {
        match destruct {
            Some(destruct) => destruct(sk),
            None => bindings::inet_sock_destruct(sk),
        }
    }
}

/// # Safety
///
/// `sk` is a full TCP socket that is being freed.
unsafe fn end_of(sk: *mut bindings::sock, child: &Child) -> End {
    // SAFETY: As the caller says; a socket holds its namespace until after its destructor.
    unsafe {
        let state = established_state(bindings::lard_sock_net(sk), &child.flow, sk);
        End {
            how: if state == Some(TCP_TIME_WAIT) {
                How::TimeWait
            } else if bindings::lard_sock_got_fin(sk) {
                How::Closed
            } else {
                How::Reset
            },
            bytes_sent: bindings::lard_sock_bytes_acked(sk),
            bytes_received: bindings::lard_sock_bytes_received(sk),
            duration_us: time::now_us().saturating_sub(child.born_us),
        }
    }
}

/// The state of the socket that the tuple leads to, if it is `sk` or its TIME_WAIT.
///
/// # Safety
///
/// `net` is alive; no lock of the table is held.
unsafe fn established_state(
    net: *mut bindings::net,
    flow: &Flow,
    sk: *const bindings::sock,
) -> Option<u8> {
    let _rcu = rcu::read_lock();
    // SAFETY: RCU is held, the namespace alive; the reference is given back.
    unsafe {
        let found = bindings::__inet_lookup_established(
            net,
            u32::from_ne_bytes(flow.client),
            flow.client_port.to_be(),
            u32::from_ne_bytes(flow.server),
            flow.server_port,
            0,
            0,
        );
        if found.is_null() {
            return None;
        }
        let state = bindings::lard_sock_state(found);
        let ours = core::ptr::eq(found, sk) || state == TCP_TIME_WAIT;
        bindings::sock_gen_put(found);
        ours.then_some(state)
    }
}

/// Reports children of this namespace that are no connections any more, though the process that
/// accepted one may still have it open. To be called every few seconds.
///
/// # Context
///
/// Process; not with a lock held that [`Owner::child_closed`] takes.
pub fn sweep(net: &Net) {
    for bucket in (0..BUCKETS).filter_map(bucket) {
        let mut nth = 0;
        loop {
            let next = {
                let chain = bucket.lock();
                let child = walk(&chain).filter(|c| !c.reported).nth(nth);
                child.map(|child| (child.sk, child.flow, child.net))
            };
            let Some((sk, flow, of)) = next else {
                break;
            };
            nth = nth.saturating_add(1);
            if of != net.cookie() {
                continue;
            }
            // SAFETY: The namespace is borrowed; no lock is held. The pointer is only compared.
            let state = unsafe { established_state(net.as_ptr(), &flow, sk) };
            if let Some((owner, id, end)) = judge(bucket, sk, state) {
                owner.child_closed(id, end);
                nth = nth.saturating_sub(1);
            }
        }
    }
}

/// Notes what a sweep found out; returns what is to be reported.
fn judge(
    bucket: &Bucket,
    sk: *mut bindings::sock,
    state: Option<u8>,
) -> Option<(Arc<dyn Owner>, u64, End)> {
    let mut chain = bucket.lock();
    let mut link = chain.as_deref_mut();
    while let Some(child) = link {
        if core::ptr::eq(child.sk, sk) {
            if state.is_some_and(|state| state != TCP_TIME_WAIT) {
                child.missed = 0;
                return None;
            }
            child.missed = child.missed.saturating_add(1);
            if child.missed < STRIKES {
                return None;
            }
            child.reported = true;
            let end = End {
                how: if state.is_some() {
                    How::TimeWait
                } else {
                    How::Reset
                },
                bytes_sent: 0,
                bytes_received: 0,
                duration_us: time::now_us().saturating_sub(child.born_us),
            };
            return Some((child.owner.clone(), child.id, end));
        }
        link = child.next.as_deref_mut();
    }
    None
}

/// Lets go of the children of a namespace: they live on as plain connections whose end nobody is
/// told. Returns how many could not be released, because somebody else saved our function.
///
/// # Context
///
/// Process.
pub fn release(net: &Net) -> usize {
    let cookie = net.cookie();
    let mut kept = 0usize;
    for bucket in (0..BUCKETS).filter_map(bucket) {
        loop {
            let released = {
                let mut chain = bucket.lock();
                unlink(&mut chain, |child| {
                    // SAFETY: The child is in the table, and the lock is held.
                    child.net == cookie && unsafe { restore(child) }
                })
            };
            // The references that the child held are dropped here, without the lock.
            if released.is_none() {
                break;
            }
        }
        kept = kept.saturating_add(walk(&bucket.lock()).filter(|c| c.net == cookie).count());
    }
    kept
}

/// # Safety
///
/// The child is in the table, and its bucket is locked.
unsafe fn restore(child: &Child) -> bool {
    let ours = on_destruct as *mut core::ffi::c_void;
    // SAFETY: The socket is whole while its child is in the table.
    unsafe {
        bindings::lard_sock_swap_destruct(child.sk, Some(on_destruct), child.destruct) == ours
    }
}

/// The first child of a namespace at or after a position, with its position. What is added or goes
/// between two calls may be seen twice or not at all.
///
/// # Context
///
/// Any.
pub fn next(net: &Net, from: u64) -> Option<(u64, Listed)> {
    let (cookie, now) = (net.cookie(), time::now_us());
    let mut index = usize::try_from(from / CHAIN).ok()?;
    let mut nth = usize::try_from(from % CHAIN).ok()?;
    while let Some(bucket) = bucket(index) {
        let chain = bucket.lock();
        for (at, child) in walk(&chain).enumerate().skip(nth) {
            if child.net == cookie && !child.reported {
                let position = (index as u64).checked_mul(CHAIN)?.checked_add(at as u64)?;
                let listed = Listed {
                    id: child.id,
                    flow: child.flow,
                    age_us: now.saturating_sub(child.born_us),
                };
                return Some((position, listed));
            }
        }
        index = index.checked_add(1)?;
        nth = 0;
    }
    None
}

/// The table exists while this value lives. It must be the last thing of the module to go.
pub struct Registration {
    buckets: KVVec<Bucket>,
}

impl Registration {
    /// Sets the table up. May sleep.
    pub fn new() -> Result<Self> {
        let mut buckets = KVVec::with_capacity(BUCKETS, GFP_KERNEL)?;
        for _ in 0..BUCKETS {
            buckets.push(
                crate::new_bh_lock!(None::<KBox<Child>>, c"lard:children"),
                GFP_KERNEL,
            )?;
        }
        TABLE.store(buckets.as_mut_ptr(), Ordering::Release);
        Ok(Self { buckets })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // No child is left, each of them kept the module loaded; the calls that ended the last ones
        // may still be returning.
        wait_for_returns();
        TABLE.store(core::ptr::null_mut(), Ordering::Release);
        wait_for_returns();
        self.buckets.clear();
    }
}
