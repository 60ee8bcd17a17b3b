// SPDX-License-Identifier: GPL-2.0

//! The states of a TCP socket: the kernel's `enum` in `net/tcp_states.h`, whose numbers are user API.

pub(crate) const TCP_ESTABLISHED: u8 = 1;
pub(crate) const TCP_FIN_WAIT1: u8 = 4;
pub(crate) const TCP_FIN_WAIT2: u8 = 5;
pub(crate) const TCP_TIME_WAIT: u8 = 6;
pub(crate) const TCP_CLOSE: u8 = 7;
pub(crate) const TCP_CLOSE_WAIT: u8 = 8;
pub(crate) const TCP_LAST_ACK: u8 = 9;
pub(crate) const TCP_LISTEN: u8 = 10;
pub(crate) const TCP_CLOSING: u8 = 11;
