// SPDX-License-Identifier: GPL-2.0

//! The library `lard_run` has loaded into a server. It puts TCP listeners on LARD's family.
//!
//! A socket is converted in `bind()`, not in `socket()`: only then is it known that it gets a port
//! of its own and which one, so that outgoing connections, name service and whatever else a server
//! does with sockets stay on the regular stack. Converting means: a new socket of the family, the
//! options that were set on the old one, the same address, and the new one in the place of the old
//! one's descriptor. `listen()`, `accept()` and everything after are the kernel's own.
//!
//! IPv6 sockets that would take IPv4 connections (bound to `::` without IPV6_V6ONLY, or to a mapped
//! address) are converted into IPv4 ones; `accept()`, `getsockname()` and `getpeername()` show the
//! server mapped addresses, as it expects of such a socket. Other IPv6 sockets are left alone.
//!
//! Apart from that, files of other nodes can be read past the page cache: see `uncached`.
//!
//! # Environment
//!
//! `LARD_FAMILY` number of the family; `LARD_PORTS` ports to convert, all when absent; `LARD_UNCACHED`
//! the document root below which other nodes' files are read directly; `LARD_DEBUG` say on standard
//! error what is done. Read once, when the library is loaded: servers clear their environment.
//!
//! # Context
//!
//! Runs inside functions of the C library in any process: allocates nothing, takes no locks, never
//! panics, and leaves `errno` as the caller of the function expects it.

mod convert;
mod facade;
mod options;
mod real;
mod say;
mod uncached;

use libc::{c_int, sockaddr, socklen_t};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// Number of the family; the documented default until the environment was read.
static FAMILY: AtomicI32 = AtomicI32::new(21);
/// Are all ports converted?
static ALL_PORTS: AtomicBool = AtomicBool::new(true);
/// The ports that are, a bit each.
static PORTS: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

/// Runs when the library is loaded, before the program's `main`.
extern "C" fn initialise() {
    if let Some(family) = variable(c"LARD_FAMILY").and_then(number) {
        FAMILY.store(i32::from(family), Ordering::Relaxed);
    }
    if let Some(list) = variable(c"LARD_PORTS") {
        ALL_PORTS.store(false, Ordering::Relaxed);
        for port in list.split(|&octet| octet == b',').filter_map(number) {
            if let Some(word) = PORTS.get(usize::from(port / 64)) {
                word.fetch_or(1 << (port % 64), Ordering::Relaxed);
            }
        }
    }
    if let Some(docroot) = variable(c"LARD_UNCACHED") {
        uncached::enable(docroot);
    }
    if variable(c"LARD_DEBUG").is_some() {
        say::enable();
    }
}

#[used]
#[link_section = ".init_array"]
static INITIALISE: extern "C" fn() = initialise;

fn variable(name: &std::ffi::CStr) -> Option<&'static [u8]> {
    // SAFETY: the name is terminated. No other thread runs yet that could change the environment.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: getenv returns a terminated string, which is not changed while this runs.
    Some(unsafe { std::ffi::CStr::from_ptr(value) }.to_bytes())
}

fn number(text: &[u8]) -> Option<u16> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Are listeners on this port converted?
fn wants(port: u16) -> bool {
    ALL_PORTS.load(Ordering::Relaxed)
        || PORTS
            .get(usize::from(port / 64))
            .is_some_and(|word| word.load(Ordering::Relaxed) >> (port % 64) & 1 != 0)
}

/// Binds a socket, converting it if it is to become a TCP listener.
///
/// # Safety
///
/// As bind(2).
#[no_mangle]
pub unsafe extern "C" fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the caller promises what bind(2) demands.
    match unsafe { convert::plan(fd, address, length) } {
        Some(plan) => plan.carry_out(fd),
        // SAFETY: as above.
        None => unsafe { real::bind(fd, address, length) },
    }
}

/// Accepts a connection.
///
/// # Safety
///
/// As accept(2).
#[no_mangle]
pub unsafe extern "C" fn accept(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller promises what accept(2) demands.
    unsafe {
        facade::name(fd, address, length, |address, length| {
            real::accept(fd, address, length)
        })
    }
}

/// Accepts a connection.
///
/// # Safety
///
/// As accept4(2).
#[no_mangle]
pub unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller promises what accept4(2) demands.
    unsafe {
        facade::name(fd, address, length, |address, length| {
            real::accept4(fd, address, length, flags)
        })
    }
}

/// The local address.
///
/// # Safety
///
/// As getsockname(2).
#[no_mangle]
pub unsafe extern "C" fn getsockname(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller promises what getsockname(2) demands.
    unsafe {
        facade::name(fd, address, length, |address, length| {
            real::getsockname(fd, address, length)
        })
    }
}

/// The other side's address.
///
/// # Safety
///
/// As getpeername(2).
#[no_mangle]
pub unsafe extern "C" fn getpeername(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller promises what getpeername(2) demands.
    unsafe {
        facade::name(fd, address, length, |address, length| {
            real::getpeername(fd, address, length)
        })
    }
}
