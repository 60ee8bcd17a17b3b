// SPDX-License-Identifier: GPL-2.0

//! IPv4 sockets a server takes for IPv6 ones: it is shown mapped addresses.
//!
//! Which sockets these are is said by a mark on the socket itself, not by the number of a descriptor: so
//! it is known also of a duplicate, and in another process, as that of an upgraded server, which inherits
//! the listener or is passed it. What a marked listener accepts is marked, too, by the kernel, which
//! copies the listener's options.
//!
//! The mark is IP_MULTICAST_LOOP turned off. It is on for each new socket, says nothing about TCP, which
//! has no multicast, and needs no privilege.

use super::{options, real};
use libc::{c_int, in_addr, sa_family_t, sockaddr, sockaddr_in6, socklen_t};
use std::mem::size_of;
use std::net::Ipv4Addr;

/// Octets of an IPv4 address as far as it says something: family, port and address.
const SAID: usize = 8;

/// Makes `fd` one.
pub(crate) fn mark(fd: c_int) -> bool {
    options::set_number(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0)
}

/// Is `fd`, which has an IPv4 address, one? Not if it is no TCP socket: for datagrams the option means
/// something.
fn is(fd: c_int) -> bool {
    options::number(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP) == Some(0)
        && options::number(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL) == Some(libc::IPPROTO_TCP)
}

/// Calls `name`, which writes an address of `fd` or of what it accepts, and shows the caller the mapped
/// one where it is one.
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
    if address.is_null() || length.is_null() {
        return name(address, length);
    }
    // SAFETY: the caller promises it.
    let room = unsafe { *length };
    let result = name(address, length);
    // SAFETY: it was written now, with the length of the whole address.
    let written = unsafe { *length }.min(room) as usize;
    if result < 0 || written < SAID {
        return result;
    }
    // SAFETY: that many octets were written; programs do not always align them.
    let (family, port, v4) = unsafe {
        let octets = address.cast::<u8>();
        (
            octets.cast::<sa_family_t>().read_unaligned(),
            octets.add(2).cast::<u16>().read_unaligned(),
            octets.add(4).cast::<in_addr>().read_unaligned(),
        )
    };
    if c_int::from(family) != libc::AF_INET {
        return result;
    }
    let saved = real::errno();
    if is(fd) {
        let mapped = map(port, v4);
        let size = size_of::<sockaddr_in6>();
        // SAFETY: the source has `size` octets, and the caller room for as many as it says.
        unsafe {
            let source = (&raw const mapped).cast::<u8>();
            std::ptr::copy_nonoverlapping(source, address.cast(), size.min(room as usize));
            *length = size as socklen_t;
        }
    }
    real::set_errno(saved);
    result
}

/// The address as an IPv6 socket has it; the port is in the order of the network.
fn map(port: u16, v4: in_addr) -> sockaddr_in6 {
    let addr = Ipv4Addr::from(u32::from_be(v4.s_addr));
    // As the kernel has it: nothing is bound to ::, not to the mapped form of 0.0.0.0.
    let octets = if addr.is_unspecified() {
        [0; 16]
    } else {
        addr.to_ipv6_mapped().octets()
    };
    sockaddr_in6 {
        sin6_family: libc::AF_INET6 as sa_family_t,
        sin6_port: port,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: octets },
        sin6_scope_id: 0,
    }
}
