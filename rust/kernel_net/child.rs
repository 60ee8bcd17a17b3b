// SPDX-License-Identifier: GPL-2.0

//! The sockets that hand-offs have made, and learning when they are gone.
//!
//! A child's `sk_destruct` is replaced by [`on_destruct`] for as long as the child is registered;
//! the kernel calls it when the last reference to the socket goes, from any context. The table finds
//! the child by the socket's address, because the tuple is cleared in a socket by then. Each entry
//! holds a reference to the module, so unloading is refused while one is left.
//!
//! A process can keep a socket whose connection has ended long ago. [`sweep`] finds those, reports
//! them and lets go of them. Somebody else may save our function and call it later (TLS offload
//! does): then the child stays in the table until that happens.
//!
//! A process can also disconnect a child and listen on it. What that accepts are copies of the child
//! with our function and without an entry in the table: there is no way to learn of them, and none to
//! find them all. But the child itself keeps a mark of having listened. So a marked child leaves its
//! reference to the module behind when it leaves the table, and the module then stays until the
//! machine restarts.
//!
//! [`presence`] asks for one by its connection. `watch` shows what a child sends, and takes its connection
//! from its server; `announced` has the children that are about to be made.
//!
//! A socket can be freed under whatever lock of the network stack, a device's transmit lock for one,
//! which a front-end takes when it sends. So the end is only noted there, and told to the owner by a
//! work, which holds nothing.
//!
//! # Locking
//!
//! One lock a bucket, with softirqs off, taken inside the lock of a socket. A child in the table is a
//! whole socket while its bucket is locked, because `on_destruct` takes the lock before the socket is
//! freed. Nothing that could drop a reference to a socket runs under the lock, since that could end in
//! `on_destruct` and the same lock.

use crate::bindings;
use crate::net::{Net, SoftNet};
use crate::skb::Flow;
use crate::sync::{wait_for_returns, BhLock, ModuleRef};
use crate::tcp_state::{TCP_CLOSE, TCP_LISTEN, TCP_TIME_WAIT};
use crate::time;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use kernel::prelude::*;
use kernel::sync::{rcu, Arc};
use watch::Watched;

mod announced;
mod watch;

pub(crate) use announced::{meet, Announced};
pub(crate) use watch::sent;
pub use watch::{give_up, GiveUp, GivenUp, Kept, Payload, Watch};

/// Chains in the table; a power of two. A few children a chain at the most that one machine serves.
const BUCKETS: usize = 4096;
/// Positions a chain has in [`next`]; a chain is never that long.
const CHAIN: u64 = 1 << 20;
/// Sweeps in a row that must find a child closed before it is let go of: its end is told better by
/// the socket itself, which mostly is freed within moments.
const STRIKES: u8 = 2;

const AF_INET6: u16 = 10;
/// What the server of a connection that is broken off is told.
const ECONNRESET: i32 = 104;

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
    /// The child with this number is gone; called once for each, a moment after it ended.
    ///
    /// # Context
    ///
    /// Process, with no lock held.
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
    end: Option<End>,
    watch: Option<Watched>,
    _module: ModuleRef,
}

// SAFETY: The pointer to the socket is a key; it is dereferenced only as the table's rules say.
unsafe impl Send for Child {}

/// A place in the table, allocated before there is a socket for it.
pub struct Pending(KBox<Child>);

impl Pending {
    /// Memory for a child, or `None` when there is none (or the module is going). `watch` is shown
    /// what it sends, from the byte with the given sequence number on.
    pub fn new(
        net: &Net,
        owner: Arc<dyn Owner>,
        id: u64,
        flow: Flow,
        watch: Option<(KBox<dyn Watch>, u32)>,
    ) -> Option<Self> {
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
            end: None,
            watch: watch.map(|(watch, next)| Watched::new(watch, next)),
            _module: module,
        };
        KBox::new(child, GFP_ATOMIC).ok().map(Self)
    }
}

/// Puts a child into the table.
///
/// # Safety
///
/// The caller holds a reference to `sk`, a full socket that is not registered.
unsafe fn register(mut child: KBox<Child>, sk: *mut bindings::sock) {
    let Some(bucket) = bucket_of(sk) else {
        return;
    };
    child.sk = sk;
    let mut chain = bucket.lock();
    loop {
        // SAFETY: The caller holds the socket. The function pointers have the type of the
        // field; the exchange happens only if nobody changed it in between.
        let swapped = unsafe {
            let old = bindings::lard_sock_destruct(sk);
            let before = core::mem::transmute::<*mut core::ffi::c_void, Destruct>(old);
            // A clone of a child carries our function already.
            child.destruct = if is_child(sk) { usual(sk) } else { before };
            bindings::lard_sock_swap_destruct(sk, before, Some(on_destruct)) == old
        };
        if swapped {
            break;
        }
    }
    if let Some(destruct) = child.destruct {
        // SAFETY: The caller holds the socket.
        let usual = unsafe { usual_of(sk) };
        usual.store(destruct as *mut (), Ordering::Relaxed);
    }
    child.next = chain.take();
    *chain = Some(child);
}

type Bucket = BhLock<Option<KBox<Child>>>;

/// All children.
struct Table {
    buckets: KVVec<Bucket>,
    /// Those that TCP has made no socket of yet.
    announced: KVVec<Bucket>,
    /// Children that have ended, until `work` has told their owners.
    ended: Bucket,
    work: UnsafeCell<bindings::work_struct>,
}

/// The table, while the module is set up.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(core::ptr::null_mut());
/// What `sk_destruct` is of sockets like ours, IPv4 and IPv6, for a call that comes for a socket that
/// is not registered.
static USUAL: [AtomicPtr<()>; 2] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 2];

/// # Safety
///
/// `sk` is a full socket that is not freed yet.
unsafe fn usual_of(sk: *const bindings::sock) -> &'static AtomicPtr<()> {
    let [v4, v6] = &USUAL;
    // SAFETY: As the caller says.
    match unsafe { bindings::lard_sock_family(sk) } {
        AF_INET6 => v6,
        _ => v4,
    }
}

/// # Safety
///
/// As for [`usual_of`].
unsafe fn usual(sk: *const bindings::sock) -> Destruct {
    // SAFETY: As the caller says. Null or a function of this type was stored.
    unsafe {
        let usual = usual_of(sk).load(Ordering::Relaxed);
        core::mem::transmute::<*mut (), Destruct>(usual)
    }
}

/// Has a hand-off made this socket?
///
/// # Safety
///
/// `sk` is a full socket that is not freed yet.
pub(crate) unsafe fn is_child(sk: *const bindings::sock) -> bool {
    // SAFETY: As the caller says.
    unsafe { bindings::lard_sock_destruct(sk) == on_destruct as *mut core::ffi::c_void }
}

fn table() -> Option<&'static Table> {
    // SAFETY: Null, or a table that is freed when nobody can get here any more.
    unsafe { TABLE.load(Ordering::Acquire).as_ref() }
}

fn bucket(index: usize) -> Option<&'static Bucket> {
    table()?.buckets.get(index)
}

fn bucket_of(sk: *mut bindings::sock) -> Option<&'static Bucket> {
    // The golden ratio spreads addresses, of which the lowest bits are all alike.
    let hash = (sk as usize as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    bucket(hash as usize & (BUCKETS - 1))
}

/// Takes the first child that `want` wants out of a chain.
fn unlink(
    chain: &mut Option<KBox<Child>>,
    mut want: impl FnMut(&mut Child) -> bool,
) -> Option<KBox<Child>> {
    let mut link = chain;
    loop {
        if want(link.as_deref_mut()?) {
            let mut child = link.take()?;
            *link = child.next.take();
            return Some(child);
        }
        link = &mut link.as_mut()?.next;
    }
}

/// The first child in a chain that `want` wants.
fn first(
    chain: &mut Option<KBox<Child>>,
    mut want: impl FnMut(&Child) -> bool,
) -> Option<&mut Child> {
    let mut link = chain.as_deref_mut();
    while let Some(child) = link {
        if want(child) {
            return Some(child);
        }
        link = child.next.as_deref_mut();
    }
    None
}

fn find(chain: &mut Option<KBox<Child>>, sk: *mut bindings::sock) -> Option<&mut Child> {
    first(chain, |child| core::ptr::eq(child.sk, sk))
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
        Some(mut child) => {
            let destruct = child.destruct;
            // SAFETY: The socket is being freed, and is whole until the function that is called last
            // here returns; the child has a reference to the module.
            unsafe { outlive_copies(sk) };
            if !child.reported {
                // SAFETY: The socket is being freed, and is whole until the function that is called
                // last here returns.
                child.end = Some(unsafe { end_of(sk, &child) });
                tell_later(child);
            }
            destruct
        }
        // SAFETY: The socket is being freed, and is whole until the function below returns.
        None => unsafe { usual(sk) },
    };
    // SAFETY: The function that the socket had before ours, or the one that such sockets have.
    unsafe {
        match destruct {
            Some(destruct) => destruct(sk),
            None => bindings::inet_sock_destruct(sk),
        }
    }
}

/// Leaves it to the work to tell the owner.
fn tell_later(mut child: KBox<Child>) {
    let Some(table) = table() else {
        return;
    };
    {
        let mut ended = table.ended.lock();
        child.next = ended.take();
        *ended = Some(child);
    }
    // SAFETY: The work was initialised with the table.
    unsafe { bindings::lard_sync_schedule_work(table.work.get()) };
}

/// Tells the owners of all children that have ended.
///
/// # Safety
///
/// Called by the work queue.
unsafe extern "C" fn tell(_work: *mut bindings::work_struct) {
    let Some(table) = table() else {
        return;
    };
    let mut ended = table.ended.lock().take();
    while let Some(mut child) = ended {
        ended = child.next.take();
        if let Some(end) = child.end {
            child.owner.child_closed(child.id, end);
        }
    }
}

/// # Safety
///
/// `sk` is a full TCP socket that is being freed; no lock of the table is held.
unsafe fn end_of(sk: *mut bindings::sock, child: &Child) -> End {
    // SAFETY: As the caller says; a socket holds its namespace until after its destructor.
    unsafe {
        let mut end = sum_up(sk, child);
        let net = bindings::lard_sock_net(sk);
        if is_time_wait(net, &child.flow, bindings::lard_sock_bound_dev(sk)) {
            end.how = How::TimeWait;
        }
        end
    }
}

/// What the socket itself knows of its end.
///
/// # Safety
///
/// `sk` is a full TCP socket that is not freed yet.
unsafe fn sum_up(sk: *mut bindings::sock, child: &Child) -> End {
    // SAFETY: As the caller says.
    unsafe {
        End {
            how: match bindings::lard_sock_got_fin(sk) {
                true => How::Closed,
                false => How::Reset,
            },
            bytes_sent: bindings::lard_sock_bytes_acked(sk),
            bytes_received: bindings::lard_sock_bytes_received(sk),
            duration_us: time::now_us().saturating_sub(child.born_us),
        }
    }
}

/// Is the tuple in TIME_WAIT?
///
/// # Safety
///
/// `net` is alive; no lock of the table is held.
unsafe fn is_time_wait(net: *mut bindings::net, flow: &Flow, bound_dev: i32) -> bool {
    let _rcu = rcu::read_lock();
    // SAFETY: RCU is held, the namespace alive; the reference is given back.
    unsafe {
        let found = flow.established(net, bound_dev);
        if found.is_null() {
            return false;
        }
        let state = bindings::lard_sock_state(found);
        bindings::sock_gen_put(found);
        state == TCP_TIME_WAIT
    }
}

/// Is a child there, as far as packets are concerned?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// The connection is there, be it by now the server's alone.
    There,
    /// The connection has ended, and its tuple is in TIME_WAIT.
    TimeWait,
    /// There is no such connection; the server may still have its socket open.
    Gone,
}

/// Looks for the child with number `id` among the sockets of a connection.
///
/// # Context
///
/// No lock held.
pub fn presence(net: &SoftNet, ifindex: u32, id: u64, flow: &Flow) -> Presence {
    // SAFETY: RCU is held; the reference is given back below, without a lock. Only a full socket is
    // asked whose child it is.
    unsafe {
        let sk = flow.established(net.as_ptr(), ifindex as i32);
        if sk.is_null() {
            return Presence::Gone;
        }
        let found = if bindings::lard_sock_state(sk) == TCP_TIME_WAIT {
            Presence::TimeWait
        } else if bindings::lard_sock_is_full(sk) && is_another(sk, id) {
            Presence::Gone
        } else {
            Presence::There
        };
        bindings::sock_gen_put(sk);
        found
    }
}

/// Is this the child with another number?
///
/// # Safety
///
/// The caller holds a reference to `sk`, a full socket.
unsafe fn is_another(sk: *mut bindings::sock, id: u64) -> bool {
    bucket_of(sk).is_some_and(|bucket| {
        let mut chain = bucket.lock();
        find(&mut chain, sk).is_some_and(|child| child.id != id)
    })
}

/// Counts the sweeps in a row that find the connection of a child ended.
///
/// # Safety
///
/// The child is in the table, and its bucket is locked.
unsafe fn count(child: &mut Child) {
    // SAFETY: The socket is whole while its child is in the table.
    let state = unsafe { bindings::lard_sock_state(child.sk) };
    child.missed = match state {
        TCP_CLOSE | TCP_LISTEN => child.missed.saturating_add(1),
        _ => 0,
    };
}

/// Reports children of this namespace whose connection has ended, though the process that accepted
/// one may still have it open. To be called every few seconds.
///
/// # Context
///
/// Process; not with a lock held that [`Owner::child_closed`] takes.
pub fn sweep(net: &Net) {
    let cookie = net.cookie();
    for bucket in (0..BUCKETS).filter_map(bucket) {
        {
            // Each once; below a chain is walked again for each child that is reported.
            let mut chain = bucket.lock();
            let mut link = chain.as_deref_mut();
            while let Some(child) = link {
                if child.net == cookie {
                    // SAFETY: The child is in the table, and the bucket is locked.
                    unsafe { count(child) };
                }
                link = child.next.as_deref_mut();
            }
        }
        loop {
            let mut report = None;
            let child = {
                let mut chain = bucket.lock();
                unlink(&mut chain, |child| {
                    let is_due = child.net == cookie && child.missed >= STRIKES && !child.reported;
                    if !is_due || report.is_some() {
                        return false;
                    }
                    child.reported = true;
                    // SAFETY: The child is in the table, and the bucket is locked: its socket is whole.
                    unsafe {
                        let end = sum_up(child.sk, child);
                        let dev = bindings::lard_sock_bound_dev(child.sk);
                        report = Some((child.owner.clone(), child.id, child.flow, end, dev));
                        restore(child)
                    }
                })
            };
            let Some((owner, id, flow, mut end, dev)) = report else {
                break;
            };
            // SAFETY: The namespace is borrowed; no lock is held.
            if unsafe { is_time_wait(net.as_ptr(), &flow, dev) } {
                end.how = How::TimeWait;
            }
            owner.child_closed(id, end);
            drop(child);
        }
    }
}

/// Breaks off the connections of a namespace's children: client and server learn that they were reset.
/// Each end is reported.
///
/// # Context
///
/// Process, and waits for servers that are in a call on their socket; not with a lock held that
/// [`Owner::child_closed`] takes.
pub fn abort(net: &Net) {
    let cookie = net.cookie();
    for bucket in (0..BUCKETS).filter_map(bucket) {
        loop {
            let held = {
                let mut chain = bucket.lock();
                // One without a reference waits for the lock, and is then reported by its end.
                let child = first(&mut chain, |child| {
                    // SAFETY: The child is in the table, and the lock is held.
                    child.net == cookie && !child.reported && unsafe { hold(child) }
                });
                child.map(|child| {
                    child.reported = true;
                    // SAFETY: As above.
                    let end = unsafe { sum_up(child.sk, child) };
                    (child.sk, child.owner.clone(), child.id, end)
                })
            };
            let Some((sk, owner, id, mut end)) = held else {
                break;
            };
            // SAFETY: The socket is a whole one of TCP; the reference from above is given back, without
            // the lock, because it may be the last.
            unsafe {
                if bindings::tcp_abort(sk, ECONNRESET) == 0 {
                    end.how = How::Reset;
                }
                bindings::lard_sock_put(sk);
            }
            owner.child_closed(id, end);
        }
    }
}

/// Takes a reference to the socket of a child, unless that is being freed or has become a listener.
///
/// # Safety
///
/// The child is in the table, and its bucket is locked.
unsafe fn hold(child: &Child) -> bool {
    // SAFETY: The socket is whole while its child is in the table.
    unsafe {
        bindings::lard_sock_state(child.sk) != TCP_LISTEN
            && bindings::lard_sock_hold_not_zero(child.sk)
    }
}

/// Lets go of the children of a namespace: they live on as plain connections whose end nobody is
/// told. Returns of how many nobody was told before; some stay, because somebody else saved our function.
///
/// # Context
///
/// Process.
pub fn release(net: &Net) -> usize {
    let cookie = net.cookie();
    let mut count = 0usize;
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
            let Some(child) = released else {
                break;
            };
            count = count.saturating_add(usize::from(!child.reported));
        }
    }
    count
}

/// # Safety
///
/// The child is in the table, and its bucket is locked.
unsafe fn restore(child: &Child) -> bool {
    let ours = on_destruct as *mut core::ffi::c_void;
    // SAFETY: The socket is whole while its child is in the table.
    unsafe {
        let old = bindings::lard_sock_swap_destruct(child.sk, Some(on_destruct), child.destruct);
        if old == ours {
            // After the exchange: what is accepted from now on has the function of before.
            outlive_copies(child.sk);
        }
        old == ours
    }
}

/// Has copies of a child been made that call our function one day? Then this code stays for good.
///
/// # Safety
///
/// `sk` is a full socket that is not freed yet, and whose child holds the module.
unsafe fn outlive_copies(sk: *const bindings::sock) {
    static STAYS: AtomicBool = AtomicBool::new(false);
    // SAFETY: As the caller says.
    if unsafe { bindings::lard_sock_has_listened(sk) } && !STAYS.swap(true, Ordering::Relaxed) {
        core::mem::forget(ModuleRef::try_get());
        pr_notice!("a server listened on a connection that was handed over; lard stays loaded\n");
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
    table: KBox<Table>,
}

// SAFETY: The work is the work queue's, everything else can be shared.
unsafe impl Send for Registration {}
// SAFETY: As above.
unsafe impl Sync for Registration {}

impl Registration {
    /// Sets the table up. May sleep.
    pub fn new() -> Result<Self> {
        let mut buckets = KVVec::with_capacity(BUCKETS, GFP_KERNEL)?;
        for _ in 0..BUCKETS {
            let bucket = crate::new_bh_lock!(None::<KBox<Child>>, c"lard:children");
            buckets.push(bucket, GFP_KERNEL)?;
        }
        let mut announced = KVVec::with_capacity(announced::BUCKETS, GFP_KERNEL)?;
        for _ in 0..announced::BUCKETS {
            let bucket = crate::new_bh_lock!(None::<KBox<Child>>, c"lard:announced");
            announced.push(bucket, GFP_KERNEL)?;
        }
        let mut table = KBox::new(
            Table {
                buckets,
                announced,
                ended: crate::new_bh_lock!(None, c"lard:ended"),
                work: UnsafeCell::new(bindings::work_struct::default()),
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The work stays where it is, in the box, until it was cancelled.
        unsafe { bindings::lard_sync_init_work(table.work.get(), Some(tell)) };
        TABLE.store(&raw mut *table, Ordering::Release);
        Ok(Self { table })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // No child is left, each of them kept the module loaded; the calls that ended the last ones
        // may still be returning.
        wait_for_returns();
        // SAFETY: The work was initialised with the table.
        unsafe { bindings::cancel_work_sync(self.table.work.get()) };
        TABLE.store(core::ptr::null_mut(), Ordering::Release);
        wait_for_returns();
    }
}
