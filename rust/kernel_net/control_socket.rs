// SPDX-License-Identifier: GPL-2.0

//! Connected TCP sockets that user space passes to the kernel.
//!
//! `cluster_startup` makes and authenticates a connection and gives its descriptor away. From then
//! on a [`ControlSocket`] owns a reference to the open file. That keeps the socket, and with it the
//! network namespace, so a namespace cannot go away under its control connections: whoever holds the
//! sockets must let them go when the process that gave them dies.
//!
//! No callback of the socket is replaced, so it may carry what any TCP socket may, and nothing of this
//! module has to be taken out of it. Its options and time limits become those of a control connection, and
//! stay so for a process that keeps its descriptor. Its lock classes stay those of user sockets: a name in
//! this module's memory would outlive the module. A thread or softirq that takes the socket's lock here
//! holds no other.
//!
//! C header: [`include/linux/net.h`](srctree/include/linux/net.h)

use core::ptr::NonNull;
use kernel::error::code::ERESTARTSYS;
use kernel::prelude::*;

use crate::bindings;
use crate::kthread::Running;
use crate::net::Net;

/// A connected TCP socket.
///
/// # Invariants
///
/// `socket` is valid, is a TCP socket with an open file, and holds a reference to that file.
pub struct ControlSocket {
    socket: NonNull<bindings::socket>,
}

// SAFETY: A reference to an open file belongs to no thread, and the socket calls lock the socket.
unsafe impl Send for ControlSocket {}
// SAFETY: As above; one thread may receive while another sends.
unsafe impl Sync for ControlSocket {}

/// Why a descriptor cannot become a control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsuitable {
    /// It is not open, or no socket.
    NoSocket,
    /// Not TCP, or Multipath TCP, which the hand-off cannot use.
    NotTcp,
    /// Not connected.
    NotConnected,
    /// Connected in another network namespace.
    OtherNamespace,
    /// Something else in the kernel uses the socket.
    InUse,
    /// A protocol on top of TCP, such as kernel TLS, is on the socket.
    UpperProtocol,
}

impl Unsuitable {
    /// The error number user space gets.
    pub fn errno(self) -> Error {
        match self {
            Self::NoSocket => EBADF,
            Self::NotTcp => EPROTOTYPE,
            Self::NotConnected => ENOTCONN,
            Self::OtherNamespace => EXDEV,
            Self::InUse => EBUSY,
            Self::UpperProtocol => EOPNOTSUPP,
        }
    }

    /// What the error says to a person.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoSocket => "fd is not an open socket",
            Self::NotTcp => "fd is not a plain TCP socket",
            Self::NotConnected => "the socket is not connected",
            Self::OtherNamespace => "the socket belongs to another network namespace",
            Self::InUse => "the socket is already in use by the kernel",
            Self::UpperProtocol => "the socket has a protocol on top of TCP",
        }
    }
}

/// How a receiving or sending call ended, when not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer closed its side.
    Closed,
    /// Nothing moved within the time set by [`ControlSocket::set_timeouts`].
    Timeout,
    /// The thread is to stop.
    Stop,
    /// The socket reported an error.
    Error(Error),
}

impl ControlSocket {
    /// Takes the socket behind descriptor `fd` of the calling process, if it is a connected TCP
    /// socket of `net` that nobody else in the kernel uses.
    ///
    /// # Context
    ///
    /// In a system call of the process that owns the descriptor.
    pub fn from_fd(fd: u32, net: &Net) -> Result<Self, Unsuitable> {
        let fd = i32::try_from(fd).map_err(|_| Unsuitable::NoSocket)?;
        let mut err = 0;
        // SAFETY: Process context; the call looks the descriptor up in the current process and takes
        // a reference to its file.
        let socket = unsafe { bindings::sockfd_lookup(fd, &mut err) };
        let Some(socket) = NonNull::new(socket) else {
            return Err(Unsuitable::NoSocket);
        };
        // INVARIANT: The reference is ours; should the socket prove not to be TCP, `this` is dropped
        // before any other method sees it.
        let this = Self { socket };
        let socket = this.socket.as_ptr();
        // SAFETY: The socket is valid as long as `this`, and what comes after the first test is told
        // of a TCP socket.
        unsafe {
            if !bindings::lard_socket_is_tcp(socket) || bindings::lard_socket_is_mptcp(socket) {
                return Err(Unsuitable::NotTcp);
            }
            if !bindings::lard_socket_has_shutdown(socket)
                || !bindings::lard_socket_is_established(socket)
            {
                return Err(Unsuitable::NotConnected);
            }
            if bindings::lard_socket_net(socket) != net.as_ptr() {
                return Err(Unsuitable::OtherNamespace);
            }
            if bindings::lard_socket_has_user(socket) {
                return Err(Unsuitable::InUse);
            }
            if bindings::lard_socket_has_ulp(socket) {
                return Err(Unsuitable::UpperProtocol);
            }
        }
        Ok(this)
    }

    /// Are these two references to one socket?
    pub fn is_same(&self, other: &Self) -> bool {
        self.socket == other.socket
    }

    /// The address of the other end, an IPv4 address mapped.
    pub fn peer(&self) -> [u8; 16] {
        let mut addr = bindings::in6_addr::default();
        // SAFETY: The socket is valid and TCP by the invariant; `addr` is written.
        unsafe { bindings::lard_socket_peer(self.socket.as_ptr(), &mut addr) };
        // SAFETY: All members of the union are 16 bytes of integers.
        unsafe { addr.in6_u.u6_addr8 }
    }

    /// Prepares the socket for small messages that must not wait, and for peers that may vanish.
    ///
    /// # Context
    ///
    /// Sleeps.
    pub fn configure(&self, dead_after_ms: u32) {
        let socket = self.socket.as_ptr();
        let timeout = i32::try_from(dead_after_ms).unwrap_or(i32::MAX);
        let seconds = (timeout / 3000).clamp(1, 32_767);
        // SAFETY: The socket is valid and TCP by the invariant. The calls lock it.
        unsafe {
            bindings::lard_socket_set_atomic(socket);
            bindings::lard_socket_set_nodelay(socket);
            bindings::lard_socket_set_user_timeout(socket, timeout);
            bindings::lard_socket_set_keepalive(socket, seconds, seconds, 3);
        }
    }

    /// Lets [`Self::recv`] wait for ever, and bounds how long [`Self::send_all`] waits for the peer.
    pub fn set_timeouts(&self, send_ms: u32) {
        let socket = self.socket.as_ptr();
        // SAFETY: The socket is valid by the invariant; each call stores one word.
        unsafe {
            bindings::lard_socket_set_rcvtimeo_max(socket);
            bindings::lard_socket_set_sndtimeo(socket, send_ms);
        }
    }

    /// Receives what is there, at least one byte, into `buffer`.
    ///
    /// # Context
    ///
    /// Sleeps. `thread` is asked whether an interruption means to stop.
    pub fn recv(&self, thread: &Running, buffer: &mut [u8]) -> Result<usize, Failure> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            // SAFETY: The socket is valid by the invariant, and `buffer` may be written for its
            // length.
            let n = unsafe {
                bindings::lard_socket_recv(
                    self.socket.as_ptr(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                )
            };
            match transferred(n, thread) {
                None => continue,
                Some(Ok(0)) => return Err(Failure::Closed),
                Some(result) => return result,
            }
        }
    }

    /// Sends all of `data`, or tells how many bytes the socket took before it failed. A byte that
    /// was not taken has certainly not left this machine.
    ///
    /// # Context
    ///
    /// As [`Self::recv`]. Not by two threads at once.
    pub fn send_all(&self, thread: &Running, data: &[u8]) -> Result<(), (usize, Failure)> {
        let mut sent = 0;
        while let Some(rest) = data.get(sent..) {
            if rest.is_empty() {
                break;
            }
            // SAFETY: The socket is valid by the invariant, and `rest` may be read for its length.
            let n = unsafe {
                bindings::lard_socket_send(self.socket.as_ptr(), rest.as_ptr().cast(), rest.len())
            };
            match transferred(n, thread) {
                None => continue,
                Some(Ok(n)) => sent = sent.saturating_add(n),
                Some(Err(failure)) => return Err((sent, failure)),
            }
        }
        Ok(())
    }

    /// Sends as much of `data` as the socket takes at once; returns how many bytes that are. None, too,
    /// while a thread is in a call on the socket, and when the connection has failed, which
    /// [`Self::send_all`] then tells.
    ///
    /// # Context
    ///
    /// Softirq. Not while a thread is in [`Self::send_all`].
    pub fn send_softly(&self, data: &[u8]) -> usize {
        // SAFETY: The socket is valid by the invariant, and `data` may be read for its length.
        let n = unsafe {
            bindings::lard_socket_send_atomic(
                self.socket.as_ptr(),
                data.as_ptr().cast(),
                data.len(),
            )
        };
        usize::try_from(n).unwrap_or(0)
    }

    /// Ends the connection in both directions: blocked calls return, later ones fail.
    ///
    /// # Context
    ///
    /// Sleeps.
    pub fn shutdown(&self) {
        // SAFETY: The socket is valid by the invariant. An error says that it was not connected any
        // more, which is as good.
        unsafe {
            bindings::kernel_sock_shutdown(
                self.socket.as_ptr(),
                bindings::sock_shutdown_cmd_SHUT_RDWR,
            )
        };
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // SAFETY: Gives back the file reference that the invariant speaks of.
        unsafe { bindings::lard_socket_put(self.socket.as_ptr()) };
    }
}

/// Reads the result of a socket call; `None` means to try again.
fn transferred(n: i32, thread: &Running) -> Option<Result<usize, Failure>> {
    if let Ok(n) = usize::try_from(n) {
        return Some(Ok(n));
    }
    let error = Error::from_errno(n);
    if error == ERESTARTSYS || error == EINTR {
        return thread.interrupted().then_some(Err(Failure::Stop));
    }
    if error == EAGAIN {
        return Some(Err(Failure::Timeout));
    }
    Some(Err(Failure::Error(error)))
}
