// SPDX-License-Identifier: GPL-2.0

//! Safe Rust over the kernel's networking, as far as the `kernel` crate does not cover it.
//!
//! This crate knows the kernel and nothing of LARD. All unsafe code of the module is here, and what
//! it offers upwards cannot be misused: a [`net::Net`] is only ever borrowed, an [`skb::Skb`] is
//! owned, a registration ends with its value.
//!
//! # Layout
//!
//! * [`sync`], [`counters`], [`time`], [`random`], [`hash`] – locks that softirqs share with processes,
//!   references to the module, per-CPU counters, clocks;
//! * [`net`], [`pernet`] – namespaces, the state a module keeps in each, the hooks it has there;
//! * [`skb`], [`route`], [`segment`] – packets that arrive, where they go, packets of our own;
//! * [`inject`], [`child`], `tcp_state` – making a listener accept a connection that was opened elsewhere, and
//!   learning when it is over;
//! * [`family`] – the address family whose sockets are native TCP sockets;
//! * [`kthread`], [`softwork`], [`control_socket`], [`genl`] – threads, work in softirqs, the sockets
//!   they send on, and generic netlink;
//! * [`sysfs`], [`procfs`] – a directory and tables in every namespace.
//!
//! # Locking
//!
//! No callback into the module is made with a lock of this crate held, but for what a function says of
//! itself. The announced are taken inside a socket's lock and outside the children ([`child`]); every other
//! lock here is a leaf.

#[path = "../bindings/bindings.rs"]
mod bindings;

/// What messages begin with; the kernel's macros look for it here.
const __LOG_PREFIX: &[u8] = b"lard\0";

pub mod child;
pub mod control_socket;
pub mod counters;
pub mod family;
pub mod genl;
pub mod hash;
pub mod inject;
pub mod kthread;
pub mod net;
pub mod pernet;
pub mod procfs;
pub mod random;
pub mod route;
pub mod segment;
pub mod skb;
pub mod softwork;
pub mod sync;
pub mod sysfs;
mod tcp_state;
pub mod time;
