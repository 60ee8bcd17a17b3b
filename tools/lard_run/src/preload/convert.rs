// SPDX-License-Identifier: GPL-2.0

//! Which sockets are converted in `bind()`, and how.

use super::{facade, options, real, say, wants, FAMILY};
use libc::{c_int, in6_addr, sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, socklen_t};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

/// An IPv6 address without its scope, which old programs leave out.
const SHORTEST_IN6: usize = size_of::<sockaddr_in6>() - size_of::<u32>();

/// A socket that is to be converted.
pub(crate) struct Plan {
    addr: Ipv4Addr,
    port: u16,
    /// Does the server take it for an IPv6 socket?
    is_facade: bool,
}

/// Reads an address the server passes, of which the kernel takes as many octets as `T` has.
///
/// # Safety
///
/// `address` must point to `length` octets, which must be at least as many as `T` has, of which any
/// octets are a valid value.
unsafe fn read<T: Copy>(address: *const sockaddr) -> T {
    // SAFETY: the caller promises the octets; programs do not always align them.
    unsafe { address.cast::<T>().read_unaligned() }
}

/// Is the socket, about to be bound to `address`, one to convert?
///
/// # Safety
///
/// As bind(2): `address` must point to `length` octets.
pub(crate) unsafe fn plan(fd: c_int, address: *const sockaddr, length: socklen_t) -> Option<Plan> {
    let saved = real::errno();
    // SAFETY: as the caller promises.
    let plan = unsafe { destination(fd, address, length) }.filter(|plan| {
        plan.port != 0
            && wants(plan.port)
            && options::number(fd, libc::SOL_SOCKET, libc::SO_TYPE) == Some(libc::SOCK_STREAM)
            && matches!(
                options::number(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL),
                Some(libc::IPPROTO_TCP | libc::IPPROTO_MPTCP)
            )
            && !is_bound(fd)
    });
    real::set_errno(saved);
    plan
}

/// Has it a port already? Then the kernel refuses another one.
fn is_bound(fd: c_int) -> bool {
    // SAFETY: octets of zero are a valid value.
    let mut own: sockaddr_in6 = unsafe { zeroed() };
    let mut length = size_of::<sockaddr_in6>() as socklen_t;
    // SAFETY: address and length belong together.
    let result = unsafe { real::getsockname(fd, (&raw mut own).cast(), &mut length) };
    // An IPv4 address has its port at the same place.
    result == 0 && own.sin6_port != 0
}

/// # Safety
///
/// As [`plan`].
unsafe fn destination(fd: c_int, address: *const sockaddr, length: socklen_t) -> Option<Plan> {
    let length = usize::try_from(length).ok()?;
    if address.is_null() || length < size_of::<sa_family_t>() {
        return None;
    }
    // SAFETY: at least the family is there.
    let family = c_int::from(unsafe { read::<sa_family_t>(address) });
    let domain = options::number(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    match (domain, family) {
        (libc::AF_INET, libc::AF_INET) if length >= size_of::<sockaddr_in>() => {
            // SAFETY: it is long enough.
            let address: sockaddr_in = unsafe { read(address) };
            Some(Plan {
                addr: Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)),
                port: u16::from_be(address.sin_port),
                is_facade: false,
            })
        }
        (libc::AF_INET6, libc::AF_INET6) if length >= SHORTEST_IN6 => {
            // SAFETY: it is long enough for the port and the address, which come first.
            let (port, address) = unsafe {
                let octets = address.cast::<u8>();
                (
                    octets.add(2).cast::<u16>().read_unaligned(),
                    octets.add(8).cast::<in6_addr>().read_unaligned(),
                )
            };
            Some(Plan {
                addr: taken_as_v4(fd, Ipv6Addr::from(address.s6_addr))?,
                port: u16::from_be(port),
                is_facade: true,
            })
        }
        _ => None,
    }
}

/// The IPv4 address at which an IPv6 socket bound to `addr` is reached.
fn taken_as_v4(fd: c_int, addr: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(mapped) = addr.to_ipv4_mapped() {
        return Some(mapped);
    }
    let v6_only = options::number(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    (addr.is_unspecified() && v6_only == 0).then_some(Ipv4Addr::UNSPECIFIED)
}

impl Plan {
    /// Makes, equips and binds the new socket and puts it in the place of `fd`. As bind(2), of which
    /// it has the result.
    pub(crate) fn carry_out(&self, fd: c_int) -> c_int {
        let family = FAMILY.load(Ordering::Relaxed);
        // SAFETY: socket(2) demands nothing.
        let new = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if new < 0 {
            let errno = real::errno();
            let hint = match errno {
                libc::EAFNOSUPPORT => ": is the module lard loaded?",
                _ => "",
            };
            say::error(format_args!(
                "cannot make a socket of family {family} for port {} (errno {errno}){hint}",
                self.port
            ));
            return -1;
        }
        let saved = real::errno();
        options::copy(fd, new);
        if self.is_facade && !facade::mark(new) {
            say::debug(format_args!(
                "descriptor {fd} will show IPv4 addresses: errno {}",
                real::errno()
            ));
        }
        let result = self.bind(new).and_then(|()| self.replace(fd, new));
        // SAFETY: it is ours, and under its own number nobody knows it.
        unsafe { libc::close(new) };
        match result {
            Ok(()) => {
                say::debug(format_args!(
                    "descriptor {fd}, {}:{}, is on family {family}",
                    self.addr, self.port
                ));
                real::set_errno(saved);
                0
            }
            Err(errno) => {
                real::set_errno(errno);
                -1
            }
        }
    }

    fn bind(&self, new: c_int) -> Result<(), c_int> {
        let address = sockaddr_in {
            sin_family: libc::AF_INET as sa_family_t,
            sin_port: self.port.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(self.addr).to_be(),
            },
            sin_zero: [0; 8],
        };
        // SAFETY: address and length belong together.
        let result = unsafe {
            real::bind(
                new,
                (&raw const address).cast(),
                size_of::<sockaddr_in>() as socklen_t,
            )
        };
        check(result).map(drop)
    }

    /// The flags of the old descriptor are those of the new one.
    fn replace(&self, fd: c_int, new: c_int) -> Result<(), c_int> {
        // SAFETY: fcntl with these commands and dup3 touch no memory.
        unsafe {
            let status = check(libc::fcntl(fd, libc::F_GETFL))?;
            let own = check(libc::fcntl(new, libc::F_GETFL))?;
            let status = own | status & libc::O_NONBLOCK;
            check(libc::fcntl(new, libc::F_SETFL, status))?;
            let descriptor = check(libc::fcntl(fd, libc::F_GETFD))?;
            let close = if descriptor & libc::FD_CLOEXEC != 0 {
                libc::O_CLOEXEC
            } else {
                0
            };
            check(libc::dup3(new, fd, close)).map(drop)
        }
    }
}

fn check(result: c_int) -> Result<c_int, c_int> {
    if result < 0 {
        return Err(real::errno());
    }
    Ok(result)
}
