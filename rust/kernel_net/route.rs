// SPDX-License-Identifier: GPL-2.0

//! Where packets go: to a back-end's own address whatever their destination says, to the client,
//! or up the stack of this node.
//!
//! C header: [`include/net/route.h`](srctree/include/net/route.h)

use crate::bindings;
use crate::net::{Net, SoftNet};
use crate::sync::BhLock;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::prelude::*;

/// Why a packet could not be sent. It is freed in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// No route to where it has to go.
    NoRoute,
    /// The route is to this node itself, to a broadcast address or to a group.
    NotUnicast,
    /// The route leads through a gateway, which would send the packet where its destination says.
    Gateway,
    /// The packet has no hop left.
    Ttl,
    /// No memory.
    NoMemory,
}

/// Flags of a flow: any source address, whether or not it is one of ours.
const FLOWI_FLAG_ANYSRC: u8 = 0x01;
/// Flags of a flow: the next hop is the destination, so the route is not shared.
const FLOWI_FLAG_KNOWN_NH: u8 = 0x02;

const RTCF_LOCAL: u32 = 0x8000_0000;
const RTCF_MULTICAST: u32 = 0x2000_0000;
const RTCF_BROADCAST: u32 = 0x1000_0000;
const RTN_LOCAL: u16 = 2;
const DST_OBSOLETE_FORCE_CHK: i16 = -1;
/// Pointers beyond this are error numbers.
const MAX_ERRNO: usize = 4095;

/// A route that carries a reference.
pub(crate) struct Route(NonNull<bindings::rtable>);

impl Route {
    fn lookup(net: &Net, to: [u8; 4], from: [u8; 4], flags: u8) -> Result<Self, Error> {
        // SAFETY: The namespace is alive.
        let rt = unsafe {
            bindings::lard_route_output(
                net.as_ptr(),
                u32::from_ne_bytes(to),
                u32::from_ne_bytes(from),
                flags,
            )
        };
        if rt as usize >= usize::MAX - (MAX_ERRNO - 1) {
            return Err(Error::NoRoute);
        }
        NonNull::new(rt).map(Self).ok_or(Error::NoRoute)
    }

    /// The route for a packet of ours, with whatever source address.
    pub(crate) fn from_any(net: &Net, from: [u8; 4], to: [u8; 4]) -> Result<Self, Error> {
        let route = Self::lookup(net, to, from, FLOWI_FLAG_ANYSRC)?;
        if route.flags() & (RTCF_BROADCAST | RTCF_MULTICAST) != 0 {
            return Err(Error::NotUnicast);
        }
        Ok(route)
    }

    fn flags(&self) -> u32 {
        // SAFETY: The reference keeps the route.
        unsafe { (*self.0.as_ptr()).rt_flags }
    }

    /// Hops that a packet on this route may take.
    pub(crate) fn hop_limit(&self) -> u8 {
        // SAFETY: The reference keeps the route.
        u8::try_from(unsafe { bindings::lard_route_hoplimit(self.0.as_ptr()) }).unwrap_or(64)
    }

    /// Gives the reference to whoever gets the pointer.
    pub(crate) fn into_raw(self) -> *mut bindings::rtable {
        let raw = self.0.as_ptr();
        core::mem::forget(self);
        raw
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        // SAFETY: The value holds a reference.
        unsafe { bindings::dst_release(&raw mut (*self.0.as_ptr()).dst) };
    }
}

/// The route to one back-end, remembered on each CPU and looked up again when it is out of date.
///
/// The next hop is the back-end's own address, whatever the destination of the packets: the network
/// between the two is one link.
pub struct RouteCache {
    to: [u8; 4],
    cache: UnsafeCell<bindings::dst_cache>,
}

// SAFETY: The cache is per-CPU and used with softirqs off.
unsafe impl Send for RouteCache {}
// SAFETY: As above.
unsafe impl Sync for RouteCache {}

impl RouteCache {
    /// An empty cache for the route to `to`. May sleep.
    pub fn new(to: [u8; 4]) -> Result<Self> {
        let mut cache = bindings::dst_cache::default();
        // SAFETY: The cache is ours and not in use yet; it can be moved, all it holds is a pointer.
        let err = unsafe { bindings::dst_cache_init(&raw mut cache, kernel::bindings::GFP_KERNEL) };
        kernel::error::to_result(err)?;
        Ok(Self {
            to,
            cache: UnsafeCell::new(cache),
        })
    }

    /// Where the route leads.
    pub fn address(&self) -> [u8; 4] {
        self.to
    }

    /// The route. Called with softirqs off.
    pub(crate) fn get(&self, net: &Net) -> Result<Route, Error> {
        let mut source = 0;
        // SAFETY: Softirqs are off, as the function wants.
        let rt = unsafe { bindings::dst_cache_get_ip4(self.cache.get(), &raw mut source) };
        if let Some(rt) = NonNull::new(rt) {
            return Ok(Route(rt));
        }
        let route = Route::lookup(net, self.to, [0; 4], FLOWI_FLAG_KNOWN_NH)?;
        if route.flags() & (RTCF_LOCAL | RTCF_BROADCAST | RTCF_MULTICAST) != 0 {
            return Err(Error::NotUnicast);
        }
        // SAFETY: The reference keeps the route. On a link the next hop is the address itself, which
        // does not count as a gateway.
        if unsafe { (*route.0.as_ptr()).rt_uses_gateway } != 0 {
            return Err(Error::Gateway);
        }
        // SAFETY: Softirqs are off; the cache takes a reference of its own.
        unsafe {
            bindings::dst_cache_set_ip4(self.cache.get(), &raw mut (*route.0.as_ptr()).dst, 0)
        };
        Ok(route)
    }
}

impl Drop for RouteCache {
    fn drop(&mut self) {
        // SAFETY: Nobody uses the cache any more.
        unsafe { bindings::dst_cache_destroy(self.cache.get()) };
    }
}

/// The route into this node's own stack: one entry a namespace, on its loopback device.
///
/// Sockets may keep the entry of the last packet for long. An entry on a real device would make the
/// removal of that device wait for them; the loopback device goes last, and [`LocalRoute::flush`] is
/// called before it does. Packets carry the entry without a reference.
pub(crate) struct LocalRoute {
    entry: AtomicPtr<bindings::rtable>,
    replacing: BhLock<bool>,
}

impl LocalRoute {
    pub(crate) fn new() -> Self {
        Self {
            entry: AtomicPtr::new(core::ptr::null_mut()),
            replacing: crate::new_bh_lock!(false, c"lard:local_route"),
        }
    }

    /// Is the entry there and up to date?
    fn usable(net: &Net, rt: *mut bindings::rtable) -> bool {
        if rt.is_null() {
            return false;
        }
        // SAFETY: Entries are freed after a grace period, and the caller holds RCU.
        unsafe {
            (&raw const (*rt).dst.obsolete).read_volatile() == DST_OBSOLETE_FORCE_CHK
                && (*rt).rt_genid == bindings::lard_route_genid(net.as_ptr())
        }
    }

    /// The entry, for a packet that does not leave this RCU section.
    pub(crate) fn get(&self, net: &SoftNet) -> Option<NonNull<bindings::rtable>> {
        let rt = self.entry.load(Ordering::Acquire);
        if Self::usable(net, rt) {
            return NonNull::new(rt);
        }
        self.renew(net)
    }

    fn renew(&self, net: &SoftNet) -> Option<NonNull<bindings::rtable>> {
        let flushed = self.replacing.lock();
        let old = self.entry.load(Ordering::Acquire);
        if *flushed {
            return None;
        }
        if Self::usable(net, old) {
            return NonNull::new(old);
        }
        // SAFETY: The namespace and so its loopback device are alive: `flush` comes before.
        let new = unsafe {
            bindings::rt_dst_alloc((*net.as_ptr()).loopback_dev, RTCF_LOCAL, RTN_LOCAL, true)
        };
        let new = NonNull::new(new)?;
        // SAFETY: The entry is new, nobody else has it.
        unsafe { (*new.as_ptr()).rt_is_input = 1 };
        self.entry.store(new.as_ptr(), Ordering::Release);
        // Packets of this moment still carry the old entry and need its device; a socket that keeps
        // it finds it expired with its next packet.
        if !old.is_null() {
            // SAFETY: The reference of `rt_dst_alloc`; the entry is freed after a grace period.
            unsafe { bindings::dst_release(&raw mut (*old).dst) };
        }
        Some(new)
    }

    /// Gives the entry up for good. The caller makes sure that nobody calls `get` any more.
    pub(crate) fn flush(&self) {
        let mut flushed = self.replacing.lock();
        *flushed = true;
        let rt = self.entry.swap(core::ptr::null_mut(), Ordering::AcqRel);
        if !rt.is_null() {
            // SAFETY: The reference of `rt_dst_alloc` is given up. Sockets may hold further ones;
            // without the device the entry keeps nobody waiting.
            unsafe {
                bindings::dst_dev_put(&raw mut (*rt).dst);
                bindings::dst_release(&raw mut (*rt).dst);
            }
        }
    }
}
