// SPDX-License-Identifier: GPL-2.0

//! IPv4 sockets a server takes for IPv6 ones: it is shown mapped addresses.
//!
//! Which descriptors these are is kept in a bit each. A descriptor that was closed keeps its bit
//! until `socket()` or `accept()` gives its number out again; what else may get the number has no
//! IPv4 address to be shown.

use libc::{c_int, sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};
use std::mem::{size_of, zeroed};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Descriptors that are kept track of: as many as the kernel allows by default (fs.nr_open).
const DESCRIPTORS: usize = 1 << 20;

static BITS: [AtomicU64; DESCRIPTORS / 64] = [const { AtomicU64::new(0) }; DESCRIPTORS / 64];
/// Was there ever one? Most servers have none, and should not pay.
static ANY: AtomicBool = AtomicBool::new(false);

/// Says whether `fd` is one.
pub(crate) fn set(fd: c_int, is_one: bool) {
    if !is_one && !ANY.load(Ordering::Relaxed) {
        return;
    }
    let Ok(index) = usize::try_from(fd) else {
        return;
    };
    let Some(word) = BITS.get(index / 64) else {
        return;
    };
    let bit = 1 << (index % 64);
    if is_one {
        ANY.store(true, Ordering::Relaxed);
        word.fetch_or(bit, Ordering::Relaxed);
    } else {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Is `fd` one?
fn is(fd: c_int) -> bool {
    ANY.load(Ordering::Relaxed)
        && usize::try_from(fd)
            .ok()
            .and_then(|index| Some((BITS.get(index / 64)?, index % 64)))
            .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) >> bit & 1 != 0)
}

/// Calls `name`, which writes an address, and shows the caller the mapped one.
///
/// # Safety
///
/// `address` and `length` must be as getsockname(2) demands, and `name` must write as it does.
pub(crate) unsafe fn name(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    name: impl FnOnce(*mut sockaddr, *mut socklen_t) -> c_int,
) -> c_int {
    if !is(fd) || address.is_null() || length.is_null() {
        return name(address, length);
    }
    // SAFETY: octets of zero are a valid value.
    let mut found: sockaddr_storage = unsafe { zeroed() };
    let mut size = size_of::<sockaddr_storage>() as socklen_t;
    let result = name((&raw mut found).cast(), &mut size);
    if result >= 0 {
        // SAFETY: the caller promises the two.
        unsafe { show(&found, size, address, length) };
    }
    result
}

/// As [`name`] for `accept`; what is accepted is one too.
///
/// # Safety
///
/// As [`name`].
pub(crate) unsafe fn accept(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    accept: impl FnOnce(*mut sockaddr, *mut socklen_t) -> c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    let new = unsafe { name(fd, address, length, accept) };
    if new >= 0 {
        set(new, is(fd));
    }
    new
}

/// Gives the caller as much of the address as it has room for, and its whole length.
///
/// # Safety
///
/// `address` must have room for `*length` octets.
unsafe fn show(
    found: &sockaddr_storage,
    size: socklen_t,
    address: *mut sockaddr,
    length: *mut socklen_t,
) {
    let mapped;
    let (source, size) = if c_int::from(found.ss_family) == libc::AF_INET {
        // SAFETY: the kernel wrote an IPv4 address, for which the storage is large and aligned.
        let v4 = unsafe { (&raw const *found).cast::<sockaddr_in>().read() };
        mapped = map(&v4);
        (
            (&raw const mapped).cast::<u8>(),
            size_of::<sockaddr_in6>() as socklen_t,
        )
    } else {
        ((&raw const *found).cast::<u8>(), size)
    };
    // SAFETY: the source has `size` octets, the destination `*length`.
    unsafe {
        let room = (*length).min(size);
        std::ptr::copy_nonoverlapping(source, address.cast(), room as usize);
        *length = size;
    }
}

fn map(v4: &sockaddr_in) -> sockaddr_in6 {
    let addr = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
    // As the kernel has it: nothing is bound to ::, not to the mapped form of 0.0.0.0.
    let octets = if addr.is_unspecified() {
        [0; 16]
    } else {
        addr.to_ipv6_mapped().octets()
    };
    sockaddr_in6 {
        sin6_family: libc::AF_INET6 as sa_family_t,
        sin6_port: v4.sin_port,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: octets },
        sin6_scope_id: 0,
    }
}
