// SPDX-License-Identifier: GPL-2.0

//! The state that a module keeps in every network namespace, and its hooks there.
//!
//! C headers: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h),
//! [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h)
//!
//! # Lifetime
//!
//! The state is registered with the *devices* of namespaces, not with the subsystems: devices end
//! first, and among them the one registered last, so everything here is over before the namespace's
//! loopback device is. The order at the end of a namespace: the way back ([`NetCell`]) closed, hooks
//! off, no further tick; a grace period; [`PerNet::stop`]; the local route given up; the state
//! dropped by whoever holds it last.

use crate::bindings;
use crate::child;
use crate::inject;
use crate::net::{Net, NetCell, SoftNet};
use crate::route::LocalRoute;
use crate::skb::{Skb, Verdict, IPPROTO_TCP};
use crate::sync::{BhDisabled, Exclusive};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use kernel::prelude::*;
use kernel::sync::{Arc, ArcBorrow};

/// Between two calls of [`PerNet::tick`]; the finest timer that the module has.
pub const TICK_MS: u32 = 100;

/// After the administrator's raw rules (-300), before connection tracking (-200).
const PRIORITY_PRE_ROUTING: i32 = -299;
/// Before everything: what is filtered there must not reach even the raw rules' counters.
const PRIORITY_LOCAL_OUT: i32 = i32::MIN;

const NFPROTO_IPV4: u8 = 2;
const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_LOCAL_OUT: u32 = 3;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NF_STOLEN: u32 = 2;

/// The state of one namespace.
pub trait PerNet: Sized + Send + Sync + 'static {
    /// Makes the state of a new namespace, or of one that was there when the module was loaded.
    ///
    /// # Context
    ///
    /// Process; may sleep.
    fn init(net: &Net, cell: NetCell) -> Result<Arc<Self>>;

    /// Decides about a packet that has arrived.
    ///
    /// # Context
    ///
    /// Softirq, RCU held.
    fn pre_routing(this: ArcBorrow<'_, Self>, net: &SoftNet, skb: Skb) -> Verdict;

    /// A reset that TCP wanted to send to the client of a failing injection was kept back.
    ///
    /// # Context
    ///
    /// Any but hard irq.
    fn reset_held(this: ArcBorrow<'_, Self>);

    /// Does what is due; called every [`TICK_MS`] while the hooks are on, and when one is hastened.
    ///
    /// # Context
    ///
    /// Process.
    fn tick(this: ArcBorrow<'_, Self>, net: &Net);

    /// Ends the state: the namespace goes, or the module. Hooks and ticks are over.
    ///
    /// # Context
    ///
    /// Process; may sleep.
    fn stop(this: ArcBorrow<'_, Self>, net: &Net);
}

/// What the namespace itself holds: zeroed memory of its own allocation, filled by `on_init`.
///
/// # Invariants
///
/// When `state` is not null, everything is filled, and `state` is a reference to the type of the one
/// registered slot.
#[repr(C)]
struct Entry {
    /// First, so that the work's address is the entry's.
    work: UnsafeCell<bindings::delayed_work>,
    hooks: UnsafeCell<[bindings::nf_hook_ops; 2]>,
    /// Under the mutex of [`Exclusive`]: one namespace at a time switches its hooks.
    enabled: UnsafeCell<bool>,
    /// The next tick comes at once.
    hastened: AtomicBool,
    net: *mut bindings::net,
    state: *const c_void,
    cell: Option<NetCell>,
    local: Option<LocalRoute>,
}

/// A slot is registered; a module has only one, because C's callbacks do not say for which
/// operations they are called.
static REGISTERED: AtomicBool = AtomicBool::new(false);
/// The number under which namespaces keep the entry; C writes it while the slot is registered.
static ID: AtomicU32 = AtomicU32::new(0);

/// The memory of a namespace's entry, filled or not.
///
/// # Safety
///
/// The slot is registered, or is being registered or ended by the caller's caller.
unsafe fn entry_memory(net: *mut bindings::net) -> *mut Entry {
    // SAFETY: The number is valid, as the caller says.
    unsafe { bindings::lard_net_generic(net, ID.load(Ordering::Relaxed)).cast() }
}

/// The entry of a namespace, when the slot is registered and the namespace has got that far.
fn entry(net: &Net) -> Option<NonNull<Entry>> {
    if !REGISTERED.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: The slot is registered.
    let entry = NonNull::new(unsafe { entry_memory(net.as_ptr()) })?;
    // SAFETY: The memory is zeroed or filled.
    (!unsafe { (*entry.as_ptr()).state }.is_null()).then_some(entry)
}

/// The route into this node's own stack, for a packet that does not leave this RCU section.
///
/// # Context
///
/// RCU held, softirqs off.
pub(crate) fn local_route(net: &SoftNet) -> Option<NonNull<bindings::rtable>> {
    // SAFETY: The entry stays while the namespace is borrowed, and is filled.
    unsafe { (*entry(net)?.as_ptr()).local.as_ref()?.get(net) }
}

/// Lets the next tick of a namespace come at once, that is with the kernel's next timer tick. Until it has
/// come the timer is not set anew, which would put it off.
///
/// # Context
///
/// Any.
pub fn hasten(net: &Net) {
    if let Some(entry) = entry(net) {
        // SAFETY: The entry is filled, and stays while the namespace is borrowed; while its hooks are
        // off the work is disabled.
        unsafe {
            if !(*entry.as_ptr()).hastened.swap(true, Ordering::SeqCst) {
                bindings::lard_net_hasten_delayed_work((*entry.as_ptr()).work.get());
            }
        }
    }
}

/// The place of a type's state in every namespace; a static of the module.
pub struct Slot<T: PerNet> {
    ops: UnsafeCell<Option<bindings::pernet_operations>>,
    _state: PhantomData<fn() -> T>,
}

// SAFETY: The cell is written while registering only, which happens once at a time.
unsafe impl<T: PerNet> Sync for Slot<T> {}

impl<T: PerNet> Slot<T> {
    /// A slot that is not registered yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            ops: UnsafeCell::new(None),
            _state: PhantomData,
        }
    }

    /// Makes the state in all namespaces, present and future. A module has one slot. May sleep.
    pub fn register(&'static self) -> Result<Registration<T>> {
        if REGISTERED.swap(true, Ordering::AcqRel) {
            return Err(EBUSY);
        }
        // SAFETY: The swap above makes this the only access, and the slot is static.
        let err = unsafe {
            let ops = &mut *self.ops.get();
            let ops = ops.insert(bindings::pernet_operations {
                init: Some(Self::on_init),
                pre_exit: Some(Self::on_pre_exit),
                exit: Some(Self::on_exit),
                id: ID.as_ptr(),
                size: core::mem::size_of::<Entry>(),
                ..pin_init::zeroed()
            });
            bindings::register_pernet_device(ops)
        };
        if let Err(err) = kernel::error::to_result(err) {
            REGISTERED.store(false, Ordering::Release);
            return Err(err);
        }
        Ok(Registration { slot: self })
    }

    /// The state of a namespace.
    pub fn get(&self, net: &Net) -> Option<Arc<T>> {
        let entry = entry(net)?;
        // SAFETY: The entry holds a reference while the namespace is alive.
        Some(unsafe { Self::state(entry.as_ptr()) }.into())
    }

    /// Switches the hooks and the tick of a namespace on; nothing when they are on. May sleep.
    pub fn enable_hooks(&self, net: &Net) -> Result {
        let entry = entry(net).ok_or(ENOENT)?.as_ptr();
        let _exclusive = Exclusive::new();
        // SAFETY: The entry is valid while the namespace is, and the mutex is held.
        unsafe {
            if *(*entry).enabled.get() {
                return Ok(());
            }
            kernel::error::to_result(bindings::nf_register_net_hooks(
                net.as_ptr(),
                (*entry).hooks.get().cast(),
                2,
            ))?;
            *(*entry).enabled.get() = true;
            (*entry).hastened.store(false, Ordering::Relaxed);
            bindings::enable_delayed_work((*entry).work.get());
            bindings::lard_net_schedule_delayed_work((*entry).work.get(), TICK_MS);
        }
        Ok(())
    }

    /// Switches the hooks and the tick of a namespace off, and waits until none of them runs. May
    /// sleep; not to be called from a tick.
    pub fn disable_hooks(&self, net: &Net) {
        if let Some(entry) = entry(net) {
            // SAFETY: The entry is valid while the namespace is; process context.
            unsafe {
                if quiet(entry.as_ptr()) {
                    bindings::synchronize_net();
                }
            }
        }
    }

    /// # Safety
    ///
    /// `entry` is filled, and stays for `'a`.
    unsafe fn state<'a>(entry: *mut Entry) -> ArcBorrow<'a, T> {
        // SAFETY: By the invariants of the entry.
        unsafe { ArcBorrow::from_raw((*entry).state.cast()) }
    }

    /// # Safety
    ///
    /// Called by the core once for each namespace, while that is being set up.
    unsafe extern "C" fn on_init(net: *mut bindings::net) -> core::ffi::c_int {
        // SAFETY: The caller sets the namespace up and holds it, and calls once.
        match unsafe { Self::init(Net::from_raw(net)) } {
            Ok(()) => 0,
            Err(err) => err.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called once for the namespace, while it is being set up.
    unsafe fn init(net: &Net) -> Result {
        let cell = NetCell::new(net)?;
        let state = T::init(net, cell.clone())?;
        // SAFETY: The memory is this entry's, and nobody else looks at it before `state` is there.
        unsafe {
            let entry = entry_memory(net.as_ptr());
            (&raw mut (*entry).net).write(net.as_ptr());
            (&raw mut (*entry).cell).write(Some(cell));
            (&raw mut (*entry).local).write(Some(LocalRoute::new()));
            (*entry).enabled.get().write(false);
            (&raw mut (*entry).hastened).write(AtomicBool::new(false));
            (*entry).hooks.get().write([
                bindings::nf_hook_ops {
                    hook: Some(Self::on_pre_routing),
                    priv_: entry.cast(),
                    pf: NFPROTO_IPV4,
                    hooknum: NF_INET_PRE_ROUTING,
                    priority: PRIORITY_PRE_ROUTING,
                    ..pin_init::zeroed()
                },
                bindings::nf_hook_ops {
                    hook: Some(Self::on_local_out),
                    priv_: entry.cast(),
                    pf: NFPROTO_IPV4,
                    hooknum: NF_INET_LOCAL_OUT,
                    priority: PRIORITY_LOCAL_OUT,
                    ..pin_init::zeroed()
                },
            ]);
            bindings::lard_net_init_delayed_work((*entry).work.get(), Some(Self::on_tick));
            // Nobody can make it run while the hooks are off.
            bindings::disable_delayed_work_sync((*entry).work.get());
            // INVARIANT: Everything else is filled.
            (&raw mut (*entry).state).write(Arc::into_raw(state).cast());
        }
        Ok(())
    }

    /// # Safety
    ///
    /// Called by the core at the end of a namespace, a grace period after `on_pre_exit`.
    unsafe extern "C" fn on_exit(net: *mut bindings::net) {
        // SAFETY: The caller is ending the namespace's entry and waited for a grace period since
        // `on_pre_exit`; hooks and ticks, which borrow the state, are over, and the namespace is
        // there until this returns.
        unsafe {
            let entry = entry_memory(net);
            let state = core::mem::replace(&mut (*entry).state, core::ptr::null());
            if state.is_null() {
                return;
            }
            let state: Arc<T> = Arc::from_raw(state.cast());
            T::stop(state.as_arc_borrow(), Net::from_raw(net));
            if let Some(local) = (&raw mut (*entry).local).replace(None) {
                local.flush();
            }
            drop((&raw mut (*entry).cell).replace(None));
        }
    }

    /// # Safety
    ///
    /// Called by the work queue with the work of an entry.
    unsafe extern "C" fn on_tick(work: *mut bindings::work_struct) {
        let entry = work.cast::<Entry>();
        // SAFETY: The work is the first field of a delayed work, and that of an entry, which stays
        // until the work was cancelled; so does its namespace.
        unsafe {
            // What comes from now on may be too late for this one.
            let was_hastened = (*entry).hastened.swap(false, Ordering::SeqCst);
            T::tick(Self::state(entry), Net::from_raw((*entry).net));
            if was_hastened {
                // Who was not the first to hasten it may have wanted it a moment later than it came.
                bindings::lard_net_hasten_delayed_work((*entry).work.get());
            } else {
                bindings::lard_net_schedule_delayed_work((*entry).work.get(), TICK_MS);
            }
        }
    }

    /// # Safety
    ///
    /// Called by netfilter with what the hook was registered with, and a packet.
    unsafe extern "C" fn on_pre_routing(
        this: *mut c_void,
        skb: *mut bindings::sk_buff,
        _state: *const bindings::nf_hook_state,
    ) -> core::ffi::c_uint {
        let entry = this.cast::<Entry>();
        // Packets come from a softirq; but one that was queued to a process by an earlier hook goes on in
        // that process's system call, with softirqs on (`nf_reinject`).
        let _bh = BhDisabled::new();
        // SAFETY: The hook was registered with an entry, which stays until a grace period after the
        // hook was removed; the packet is the hook's to decide about. Netfilter holds RCU, and softirqs are
        // off.
        let verdict = unsafe {
            T::pre_routing(
                Self::state(entry),
                SoftNet::from_raw((*entry).net),
                Skb::from_raw(NonNull::new_unchecked(skb)),
            )
        };
        match verdict {
            Verdict::Accept(skb) => {
                skb.into_raw();
                NF_ACCEPT
            }
            Verdict::Drop(skb) => {
                skb.into_raw();
                NF_DROP
            }
            Verdict::Stolen => NF_STOLEN,
        }
    }

    /// # Safety
    ///
    /// Called by netfilter with what the hook was registered with, and a packet.
    unsafe extern "C" fn on_local_out(
        this: *mut c_void,
        skb: *mut bindings::sk_buff,
        _state: *const bindings::nf_hook_state,
    ) -> core::ffi::c_uint {
        let entry = this.cast::<Entry>();
        // SAFETY: The hook was registered with an entry, which stays until a grace period after the
        // hook was removed; so does its namespace. The packet is the hook's to look at and to mark; it
        // holds its socket, and begins with its IP header, whose tenth byte is the protocol.
        unsafe {
            let sk = bindings::lard_skb_full_sk(skb);
            let net = Net::from_raw((*entry).net);
            // A tunnel and IPsec leave its socket with what they wrap its packet in.
            let is_tcp = *(*skb).data.add(9) == IPPROTO_TCP;
            let child = (is_tcp && !sk.is_null() && child::meet(net, sk, skb)).then_some(sk);
            let is_childs = match inject::answers_injection(skb) {
                // The front-end still has the connection.
                Some(flags) if flags & inject::RST != 0 => {
                    T::reset_held(Self::state(entry));
                    return NF_DROP;
                }
                Some(_) => true,
                None => child.is_some(),
            };
            // Connection tracking has not seen the handshake, and does not see what the client sends.
            if is_childs {
                bindings::lard_skb_untrack(skb);
            }
            if let Some(sk) = child {
                child::sent(sk, skb);
            }
        }
        NF_ACCEPT
    }

    /// # Safety
    ///
    /// Called by the core when a namespace begins to end.
    unsafe extern "C" fn on_pre_exit(net: *mut bindings::net) {
        // SAFETY: The caller is ending the namespace's entry.
        unsafe {
            let entry = entry_memory(net);
            if (*entry).state.is_null() {
                return;
            }
            if let Some(cell) = &(*entry).cell {
                cell.clear();
            }
            quiet(entry);
        }
    }
}

/// Hooks and tick off, without waiting for packets that are in the hooks; were they on?
///
/// # Safety
///
/// `entry` is filled, and its namespace alive.
unsafe fn quiet(entry: *mut Entry) -> bool {
    let _exclusive = Exclusive::new();
    // SAFETY: As the caller says; the mutex is held.
    unsafe {
        if !core::mem::replace(&mut *(*entry).enabled.get(), false) {
            return false;
        }
        bindings::nf_unregister_net_hooks((*entry).net, (*entry).hooks.get().cast(), 2);
        bindings::disable_delayed_work_sync((*entry).work.get());
    }
    true
}

/// The state exists in all namespaces while this value lives.
pub struct Registration<T: PerNet> {
    slot: &'static Slot<T>,
}

impl<T: PerNet> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: Registered by `register`; ends the state in all namespaces before it returns.
        unsafe {
            if let Some(ops) = &mut *self.slot.ops.get() {
                bindings::unregister_pernet_device(ops);
            }
        }
        REGISTERED.store(false, Ordering::Release);
    }
}
