// SPDX-License-Identifier: GPL-2.0

//! An address family whose sockets are native TCP sockets.
//!
//! `socket(family, SOCK_STREAM, protocol)` makes an IPv4 TCP socket (protocol 0, or TCP's own
//! number), or an IPv6 one (protocol 1, as AF_SMC counts). All that happens on it is the kernel's own
//! code; what the family has for itself is a copy of TCP's operation table with a few functions
//! replaced, and only for as long as the socket is unconnected or listening:
//!
//! * `listen` lets the socket answer from addresses that this node does not have, which is what a
//!   target of hand-offs does, and asks for the privilege that `IP_TRANSPARENT` asks for;
//! * `shutdown` and `connect` take that back when the socket listens no more;
//! * `accept` gives the new socket the native table, `connect`, and `sendmsg` where it connects,
//!   change the socket's own table to the native one first.
//!
//! A connected socket must not carry a table of ours: kernel TLS copies the table of the first
//! socket that uses it for all that come later, on the whole machine.
//!
//! # Module references
//!
//! The socket layer takes a reference by `ops->owner` when it makes a socket, and gives back one by
//! the table that the socket has at its end. Where a table is changed, one reference is given back by
//! hand. A function that may block holds a further one, so that at most its last instructions run
//! without; [`crate::sync::wait_for_returns`] waits for those.
//!
//! C header: [`include/linux/net.h`](srctree/include/linux/net.h)

use crate::bindings;
use crate::sync::{wait_for_returns, ModuleRef};
use crate::tcp_state::{TCP_CLOSE, TCP_LISTEN};
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, Ordering};
use kernel::prelude::*;

const AF_INET: c_int = 2;
const AF_INET6: c_int = 10;
/// One more than the highest family number.
const AF_MAX: i32 = 46;
const SOCK_STREAM: c_int = 1;
const IPPROTO_TCP: c_int = 6;
/// The protocol number that asks for IPv6.
const PROTOCOL_IPV6: c_int = 1;
/// A message that is to open the connection.
const MSG_FASTOPEN: core::ffi::c_uint = 0x2000_0000;

/// A table of operations: filled once, before the family is registered.
struct Table(UnsafeCell<bindings::proto_ops>);

// SAFETY: Written only while registering, which happens once at a time and before anybody reads.
unsafe impl Sync for Table {}

static V4: Table = Table(UnsafeCell::new(pin_init::zeroed()));
static V6: Table = Table(UnsafeCell::new(pin_init::zeroed()));

struct Family(UnsafeCell<bindings::net_proto_family>);

// SAFETY: As for `Table`.
unsafe impl Sync for Family {}

static FAMILY: Family = Family(UnsafeCell::new(pin_init::zeroed()));

static REGISTERED: AtomicBool = AtomicBool::new(false);

/// The two tables that go with each other.
struct Tables {
    ours: *const bindings::proto_ops,
    native: *const bindings::proto_ops,
}

fn tables(v6: bool) -> Tables {
    if v6 {
        Tables {
            ours: V6.0.get(),
            native: &raw const bindings::inet6_stream_ops,
        }
    } else {
        Tables {
            ours: V4.0.get(),
            native: &raw const bindings::inet_stream_ops,
        }
    }
}

/// The tables of a socket of which a function of ours was called. The socket may have the native
/// table by now; the version of the protocol is told by either.
///
/// # Safety
///
/// `sock` is a socket with a table.
unsafe fn tables_of(sock: *mut bindings::socket) -> Tables {
    // SAFETY: As the caller says; both kinds of table stay.
    let ops = unsafe { (&raw const (*sock).ops).read_volatile() };
    tables(
        core::ptr::eq(ops, V6.0.get()) || core::ptr::eq(ops, &raw const bindings::inet6_stream_ops),
    )
}

/// Was this listener made by the family?
///
/// # Safety
///
/// RCU is held, and `sk` was found in this section.
pub(crate) unsafe fn is_ours(sk: *mut bindings::sock) -> bool {
    // SAFETY: As the caller says. A socket is freed after a grace period.
    let ops = unsafe { bindings::lard_sock_ops(sk) };
    core::ptr::eq(ops, V4.0.get()) || core::ptr::eq(ops, V6.0.get())
}

/// Gives up the reference that the socket layer took by our table.
fn put_module() {
    // SAFETY: The caller replaced a table of ours, which the socket layer held a reference for.
    unsafe { bindings::module_put(bindings::lard_sync_this_module()) };
}

/// Changes the table of an unconnected socket to the native one.
///
/// # Safety
///
/// `sock` is a socket with an inner socket.
unsafe fn make_native(sock: *mut bindings::socket) {
    // SAFETY: As the caller says; the lock keeps `listen` away.
    unsafe {
        let tables = tables_of(sock);
        let sk = (*sock).sk;
        bindings::lard_sock_lock(sk);
        let unconnected = bindings::lard_sock_state(sk) == TCP_CLOSE;
        let changed = unconnected
            && core::ptr::eq(
                bindings::lard_family_swap_ops(sock, tables.ours, tables.native),
                tables.ours,
            );
        bindings::lard_sock_unlock(sk);
        if changed {
            put_module();
        }
    }
}

/// Takes back what `listen` gave, if the socket listens no more.
///
/// # Safety
///
/// `sk` is a TCP socket that the caller's socket holds.
unsafe fn end_listening(sk: *mut bindings::sock, listened: bool) {
    // SAFETY: As the caller says.
    unsafe {
        if listened && bindings::lard_sock_state(sk) != TCP_LISTEN {
            bindings::lard_sock_clear_transparent(sk);
        }
    }
}

/// # Safety
///
/// Called by the socket layer with a socket that has a table of ours, and that it holds.
unsafe extern "C" fn listen(sock: *mut bindings::socket, backlog: c_int) -> c_int {
    let _module = ModuleRef::try_get();
    // SAFETY: The socket layer calls with a socket of ours and holds it.
    unsafe {
        let Some(native) = (*tables_of(sock).native).listen else {
            return failed(kernel::bindings::EOPNOTSUPP);
        };
        let sk = (*sock).sk;
        if !bindings::lard_family_may_be_transparent(sock) {
            return EPERM.to_errno();
        }
        let had = bindings::lard_sock_is_transparent(sk);
        bindings::lard_sock_set_transparent(sk);
        let err = native(sock, backlog);
        if err != 0 && !had {
            bindings::lard_sock_clear_transparent(sk);
        }
        err
    }
}

/// # Safety
///
/// Called by the socket layer with a socket that has a table of ours, and that it holds.
unsafe extern "C" fn shutdown(sock: *mut bindings::socket, how: c_int) -> c_int {
    let _module = ModuleRef::try_get();
    // SAFETY: The socket layer calls with a socket of ours and holds it.
    unsafe {
        let Some(native) = (*tables_of(sock).native).shutdown else {
            return failed(kernel::bindings::EOPNOTSUPP);
        };
        let listened = bindings::lard_sock_state((*sock).sk) == TCP_LISTEN;
        let err = native(sock, how);
        end_listening((*sock).sk, listened);
        err
    }
}

/// # Safety
///
/// Called by the socket layer with a socket that has a table of ours, and that it holds.
unsafe extern "C" fn connect(
    sock: *mut bindings::socket,
    address: *mut bindings::sockaddr_unsized,
    len: c_int,
    flags: c_int,
) -> c_int {
    let _module = ModuleRef::try_get();
    // SAFETY: The socket layer calls with a socket of ours and holds it.
    unsafe {
        let Some(native) = (*tables_of(sock).native).connect else {
            return failed(kernel::bindings::EOPNOTSUPP);
        };
        let listened = bindings::lard_sock_state((*sock).sk) == TCP_LISTEN;
        make_native(sock);
        let err = native(sock, address, len, flags);
        end_listening((*sock).sk, listened);
        err
    }
}

/// # Safety
///
/// Called by the socket layer with a socket that has a table of ours, and that it holds.
unsafe extern "C" fn sendmsg(
    sock: *mut bindings::socket,
    msg: *mut bindings::msghdr,
    len: usize,
) -> c_int {
    let _module = ModuleRef::try_get();
    // SAFETY: The socket layer calls with a socket of ours and holds it.
    unsafe {
        let Some(native) = (*tables_of(sock).native).sendmsg else {
            return failed(kernel::bindings::EOPNOTSUPP);
        };
        if (*msg).msg_flags & MSG_FASTOPEN != 0 {
            make_native(sock);
        }
        native(sock, msg, len)
    }
}

/// # Safety
///
/// Called by the socket layer with a socket that has a table of ours, and that it holds.
unsafe extern "C" fn accept(
    sock: *mut bindings::socket,
    newsock: *mut bindings::socket,
    arg: *mut bindings::proto_accept_arg,
) -> c_int {
    let _module = ModuleRef::try_get();
    // SAFETY: The socket layer calls with a socket of ours and a new one, holds both, and gave the
    // new one the table of the first together with a reference for it.
    unsafe {
        let tables = tables_of(sock);
        let Some(native) = (*tables.native).accept else {
            return failed(kernel::bindings::EOPNOTSUPP);
        };
        // A part of the kernel that accepts gives the new socket the listener's table afterwards.
        if (*arg).kern {
            return failed(kernel::bindings::EOPNOTSUPP);
        }
        if core::ptr::eq(
            bindings::lard_family_swap_ops(newsock, tables.ours, tables.native),
            tables.ours,
        ) {
            put_module();
        }
        native(sock, newsock, arg)
    }
}

/// # Safety
///
/// Called by the socket layer with a new socket of the family.
unsafe extern "C" fn create(
    net: *mut bindings::net,
    sock: *mut bindings::socket,
    protocol: c_int,
    kern: c_int,
) -> c_int {
    // SAFETY: The socket layer calls with a new socket, and holds the module meanwhile.
    unsafe {
        if c_int::from((*sock).type_) != SOCK_STREAM {
            return failed(kernel::bindings::ESOCKTNOSUPPORT);
        }
        let v6 = match protocol {
            0 | IPPROTO_TCP => false,
            PROTOCOL_IPV6 => true,
            _ => return failed(kernel::bindings::EPROTONOSUPPORT),
        };
        let mut inner = core::ptr::null_mut();
        let family = if v6 { AF_INET6 } else { AF_INET };
        let err =
            bindings::__sock_create(net, family, SOCK_STREAM, IPPROTO_TCP, &raw mut inner, kern);
        if err < 0 {
            return err;
        }
        bindings::lard_family_graft((*inner).sk, inner, sock);
        (*sock).ops = tables(v6).ours;
        bindings::sock_release(inner);
    }
    0
}

/// What C returns for an error number.
const fn failed(number: u32) -> c_int {
    -(number as c_int)
}

/// The family exists while this value lives. Sockets of it that are unconnected or listening keep
/// the module; connected ones are plain TCP sockets and do not.
pub struct Registration {
    family: c_int,
}

impl Registration {
    /// Registers the family under a number of its own. Fails with `EEXIST` when somebody has it.
    /// May sleep.
    pub fn new(family: i32) -> Result<Self> {
        if !(1..AF_MAX).contains(&family) {
            return Err(EINVAL);
        }
        if REGISTERED.swap(true, Ordering::AcqRel) {
            return Err(EBUSY);
        }
        // SAFETY: The swap above makes this the only writer; nobody reads the tables before the
        // family is registered. The native tables are constants of the kernel.
        let err = unsafe {
            for v6 in [false, true] {
                let tables = tables(v6);
                let ours = tables.ours.cast_mut();
                ours.write(tables.native.read());
                (*ours).owner = bindings::lard_sync_this_module();
                (*ours).listen = Some(listen);
                (*ours).shutdown = Some(shutdown);
                (*ours).connect = Some(connect);
                (*ours).sendmsg = Some(sendmsg);
                (*ours).accept = Some(accept);
            }
            let ops = FAMILY.0.get();
            (*ops).family = family;
            (*ops).create = Some(create);
            (*ops).owner = bindings::lard_sync_this_module();
            bindings::sock_register(ops)
        };
        if let Err(err) = kernel::error::to_result(err) {
            REGISTERED.store(false, Ordering::Release);
            return Err(err);
        }
        Ok(Self { family })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Registered by `new`.
        unsafe { bindings::sock_unregister(self.family) };
        wait_for_returns();
        REGISTERED.store(false, Ordering::Release);
    }
}
