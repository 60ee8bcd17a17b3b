// SPDX-License-Identifier: GPL-2.0

//! Network namespaces.
//!
//! C header: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h)

use crate::bindings;
use crate::sync::BhDisabled;
use core::marker::PhantomData;
use core::ops::Deref;
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::prelude::*;
use kernel::sync::{rcu, Arc};
use kernel::types::Opaque;

/// Length of an interface name's buffer, with its NUL.
pub const IFNAMSIZ: usize = 16;

/// A network namespace that is alive.
///
/// Only ever borrowed: from a callback that the namespace makes, or inside [`NetCell::with`].
#[repr(transparent)]
pub struct Net(Opaque<bindings::net>);

// SAFETY: A namespace is shared by everybody in it; what is called here locks for itself.
unsafe impl Sync for Net {}

/// A namespace inside an RCU section with softirqs off: what looking sockets up, delivering and
/// injecting demand.
///
/// Only ever borrowed, for as long as that lasts: in a hook, or inside [`NetCell::with`].
#[repr(transparent)]
pub struct SoftNet {
    net: Net,
    /// The section is this processor's.
    _not_sync: PhantomData<*mut ()>,
}

impl Deref for SoftNet {
    type Target = Net;

    fn deref(&self) -> &Net {
        &self.net
    }
}

impl SoftNet {
    /// # Safety
    ///
    /// `ptr` is a namespace that stays alive for `'a`, and for as long softirqs are off and RCU is held.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::net) -> &'a Self {
        // SAFETY: As the caller says; the types are transparent.
        unsafe { &*ptr.cast::<Self>() }
    }
}

/// What kind of address an IPv4 address is to a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddrType {
    /// One of its own.
    Local,
    /// Somebody's.
    Unicast,
    /// A broadcast address of one of its links.
    Broadcast,
    /// A multicast group.
    Multicast,
    /// Unroutable, blackholed, prohibited.
    Other,
}

/// The settings of a namespace's TCP that decide what can be handed over to it.
#[derive(Clone, Copy, Debug)]
pub struct TcpSysctls {
    /// `tcp_syncookies` is not 0.
    pub syncookies: bool,
    /// `tcp_window_scaling`.
    pub window_scaling: bool,
    /// `tcp_sack`.
    pub sack: bool,
    /// `tcp_timestamps` is not 0.
    pub timestamps: bool,
    /// `tcp_rmem`, the default.
    pub rmem_default: u32,
    /// `tcp_rmem`, the maximum.
    pub rmem_max: u32,
}

impl Net {
    /// Borrows a namespace from C.
    ///
    /// # Safety
    ///
    /// `ptr` is a namespace that stays alive for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::net) -> &'a Self {
        // SAFETY: As the caller says; the type is transparent.
        unsafe { &*ptr.cast::<Self>() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::net {
        self.0.get()
    }

    /// A number that no other namespace has had since boot.
    pub fn cookie(&self) -> u64 {
        // SAFETY: The namespace is alive; the field never changes.
        unsafe { (*self.as_ptr()).net_cookie }
    }

    /// What kind of address `addr` is here.
    pub fn addr_type(&self, addr: [u8; 4]) -> AddrType {
        // SAFETY: The namespace is alive; the function holds RCU itself.
        match unsafe { bindings::inet_addr_type(self.as_ptr(), u32::from_ne_bytes(addr)) } {
            // The numbers of enum rtn_type, which are user API.
            1 => AddrType::Unicast,
            2 => AddrType::Local,
            3 => AddrType::Broadcast,
            5 => AddrType::Multicast,
            _ => AddrType::Other,
        }
    }

    /// Is `addr` one of this namespace's own?
    pub fn addr_is_local(&self, addr: [u8; 4]) -> bool {
        self.addr_type(addr) == AddrType::Local
    }

    /// The number of the interface with this name.
    pub fn ifindex(&self, name: &[u8]) -> Option<u32> {
        let _rcu = rcu::read_lock();
        let dev = self.device(name);
        if dev.is_null() {
            return None;
        }
        // SAFETY: RCU is held until after the device was read.
        u32::try_from(unsafe { (*dev).ifindex }).ok()
    }

    /// The largest packet that the interface with this name sends, in bytes.
    pub fn mtu(&self, name: &[u8]) -> Option<u32> {
        let _rcu = rcu::read_lock();
        let dev = self.device(name);
        // SAFETY: RCU is held until after the device was read.
        (!dev.is_null()).then(|| unsafe { bindings::lard_net_dev_mtu(dev) })
    }

    /// The same of the interface that has the address.
    pub fn mtu_at(&self, addr: [u8; 4]) -> Option<u32> {
        let _rcu = rcu::read_lock();
        // SAFETY: RCU is held until after the device was read.
        unsafe {
            let dev = bindings::__ip_dev_find(self.as_ptr(), u32::from_ne_bytes(addr), false);
            (!dev.is_null()).then(|| bindings::lard_net_dev_mtu(dev))
        }
    }

    /// The interface with this name, or null. It stays for as long as RCU is held, which it is.
    fn device(&self, name: &[u8]) -> *mut bindings::net_device {
        let mut buf = [0u8; IFNAMSIZ];
        match buf.get_mut(..name.len()) {
            // The last octet stays what ends the name.
            Some(place) if name.len() < IFNAMSIZ => place.copy_from_slice(name),
            _ => return core::ptr::null_mut(),
        }
        // SAFETY: The name ends with NUL; RCU is held.
        unsafe { bindings::lard_net_dev_by_name_rcu(self.as_ptr(), buf.as_ptr().cast()) }
    }

    /// Stops the interfaces that there are from merging packets in a way that cannot be undone when
    /// they are forwarded. May sleep.
    pub fn disable_lro(&self) {
        // SAFETY: Process context; the lock keeps the list of devices and is the one that changing
        // them wants.
        unsafe {
            bindings::lard_net_rtnl_lock();
            let mut dev = bindings::lard_net_first_dev(self.as_ptr());
            while !dev.is_null() {
                bindings::dev_disable_lro(dev);
                dev = bindings::lard_net_next_dev(dev);
            }
            bindings::lard_net_rtnl_unlock();
        }
    }

    /// The settings of this namespace's TCP.
    pub fn options(&self) -> TcpSysctls {
        let net = self.as_ptr();
        // SAFETY: The namespace is alive; the fields may change any time, and are read whole.
        unsafe {
            let ipv4 = &raw const (*net).ipv4;
            let rmem = (&raw const (*ipv4).sysctl_tcp_rmem).read_volatile();
            TcpSysctls {
                syncookies: (&raw const (*ipv4).sysctl_tcp_syncookies).read_volatile() != 0,
                window_scaling: (&raw const (*ipv4).sysctl_tcp_window_scaling).read_volatile() != 0,
                sack: (&raw const (*ipv4).sysctl_tcp_sack).read_volatile() != 0,
                timestamps: (&raw const (*ipv4).sysctl_tcp_timestamps).read_volatile() != 0,
                rmem_default: u32::try_from(rmem[1]).unwrap_or(0),
                rmem_max: u32::try_from(rmem[2]).unwrap_or(0),
            }
        }
    }
}

/// Copies a device's name; returns its length.
///
/// # Safety
///
/// `dev` is null, or a device that stays for the call.
pub(crate) unsafe fn copy_name(
    dev: *const bindings::net_device,
    name: &mut [u8; IFNAMSIZ],
) -> Option<usize> {
    if dev.is_null() {
        return None;
    }
    // SAFETY: As the caller says. A rename at the same time gives a mixture of two names, which
    // matches neither; the buffer is as long as the field.
    let raw = unsafe {
        bindings::lard_net_dev_name(dev)
            .cast::<[u8; IFNAMSIZ]>()
            .read_volatile()
    };
    let mut len = 0;
    for (to, from) in name.iter_mut().zip(raw) {
        *to = from;
        if *to == 0 {
            break;
        }
        len += 1;
    }
    Some(len)
}

/// The way from a namespace's state back to the namespace, for as long as that exists.
#[derive(Clone)]
pub struct NetCell(Arc<AtomicPtr<bindings::net>>);

impl NetCell {
    pub(crate) fn new(net: &Net) -> Result<Self> {
        Ok(Self(Arc::new(AtomicPtr::new(net.as_ptr()), GFP_KERNEL)?))
    }

    /// Calls `f` with the namespace, or not at all when it is going away.
    ///
    /// RCU is held and softirqs are off meanwhile: `f` cannot sleep.
    pub fn with<R>(&self, f: impl FnOnce(&SoftNet) -> R) -> Option<R> {
        let _bh = BhDisabled::new();
        let _rcu = rcu::read_lock();
        let net = self.0.load(Ordering::Acquire);
        if net.is_null() {
            return None;
        }
        // SAFETY: `clear` was not called before this RCU section began, and the namespace waits
        // for a grace period after it; softirqs are off and RCU is held until `f` has returned.
        Some(f(unsafe { SoftNet::from_raw(net) }))
    }

    /// Ends the way; the caller waits for a grace period before the namespace goes.
    pub(crate) fn clear(&self) {
        self.0.store(core::ptr::null_mut(), Ordering::Release);
    }
}
