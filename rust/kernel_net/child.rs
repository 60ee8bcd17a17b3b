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
//! What a child sends can be *watched*: each byte once, in order, as it leaves. Whoever watches can
//! tell whether the server is done with all it was asked, and then [`give_up`] takes the connection
//! from the server in one step under the socket's lock: TCP gets a reset that nobody sent, which it
//! answers with nothing.
//!
//! A socket can be freed under whatever lock of the network stack, a device's transmit lock for one,
//! which a front-end takes when it sends. So the end is only noted there, and told to the owner by a
//! work, which holds nothing.
//!
//! # Locking
//!
//! One lock a bucket, with softirqs off, taken inside the lock of a socket. A child in the table is a whole socket while its bucket is
//! locked, because `on_destruct` takes the lock before the socket is freed. Nothing that could drop a
//! reference to a socket runs under the lock, since that could end in `on_destruct` and the same
//! lock.

use crate::bindings;
use crate::inject::Reset;
use crate::net::Net;
use crate::skb::{Flow, IP_LEN};
use crate::sync::{wait_for_returns, BhDisabled, BhLock, ModuleRef};
use crate::time;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use kernel::prelude::*;
use kernel::sync::{rcu, Arc};

/// Chains in the table; a power of two. A few children a chain at the most that one machine serves.
const BUCKETS: usize = 4096;
/// Positions a chain has in [`next`]; a chain is never that long.
const CHAIN: u64 = 1 << 20;
/// Sweeps in a row that must find a child closed before it is let go of: its end is told better by
/// the socket itself, which mostly is freed within moments.
const STRIKES: u8 = 2;

const AF_INET6: u16 = 10;
const TCP_ESTABLISHED: u8 = 1;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;

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
    /// What the child has done so far.
    pub end: End,
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

/// Who watches a child.
struct Watched {
    watch: KBox<dyn Watch>,
    /// The sequence number of the next byte to be shown; `None` when some were missed.
    next: Option<u32>,
}

/// Children that are watched.
static WATCHED: AtomicUsize = AtomicUsize::new(0);

impl Watched {
    fn new(watch: KBox<dyn Watch>, next: u32) -> Self {
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
}

type Bucket = BhLock<Option<KBox<Child>>>;

/// All children.
struct Table {
    buckets: KVVec<Bucket>,
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

/// What a sweep does with a child.
enum Judgement {
    Keep,
    /// Its connection has ended: it is reported, and let go of if that is possible.
    Ended(End, i32),
}

/// # Safety
///
/// The child is in the table, and its bucket is locked.
unsafe fn judge(child: &mut Child) -> Judgement {
    // SAFETY: The socket is whole while its child is in the table.
    unsafe {
        let state = bindings::lard_sock_state(child.sk);
        if state != TCP_CLOSE && state != TCP_LISTEN {
            child.missed = 0;
            return Judgement::Keep;
        }
        child.missed = child.missed.saturating_add(1);
        if child.missed < STRIKES || child.reported {
            return Judgement::Keep;
        }
        child.reported = true;
        let end = sum_up(child.sk, child);
        Judgement::Ended(end, bindings::lard_sock_bound_dev(child.sk))
    }
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
        loop {
            let mut report = None;
            let child = {
                let mut chain = bucket.lock();
                unlink(&mut chain, |child| {
                    if child.net != cookie || report.is_some() {
                        return false;
                    }
                    // SAFETY: The child is in the table, and the bucket is locked.
                    match unsafe { judge(child) } {
                        Judgement::Keep => false,
                        Judgement::Ended(end, dev) => {
                            report = Some((child.owner.clone(), child.id, child.flow, end, dev));
                            // SAFETY: As above.
                            unsafe { restore(child) }
                        }
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

fn find(chain: &mut Option<KBox<Child>>, sk: *mut bindings::sock) -> Option<&mut Child> {
    let mut link = chain.as_deref_mut();
    while let Some(child) = link {
        if core::ptr::eq(child.sk, sk) {
            return Some(child);
        }
        link = child.next.as_deref_mut();
    }
    None
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
/// Any but hard interrupts, no lock held.
pub fn give_up(net: &Net, ifindex: u32, wish: &GiveUp) -> Result<GivenUp, Kept> {
    let _bh = BhDisabled::new();
    let _rcu = rcu::read_lock();
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
        let mut end = None;
        let mut chain = bucket.lock();
        let child = unlink(&mut chain, |child| {
            if !core::ptr::eq(child.sk, sk) {
                return false;
            }
            end = Some(sum_up(sk, child));
            // If somebody has saved our function the child stays here until that is called.
            child.reported = true;
            restore(child)
        });
        let end = end.ok_or(Kept::Ending)?;
        let given_up = GivenUp {
            snd_nxt,
            tsval,
            end,
        };
        Ok((given_up, child))
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
            buckets.push(
                crate::new_bh_lock!(None::<KBox<Child>>, c"lard:children"),
                GFP_KERNEL,
            )?;
        }
        let mut table = KBox::new(
            Table {
                buckets,
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
