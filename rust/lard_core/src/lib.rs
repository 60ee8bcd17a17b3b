// SPDX-License-Identifier: GPL-2.0

//! The protocol core of LARD for Linux.
//!
//! Everything here is *sans-io*: time, random keys and storage come in as arguments, actions go out
//! as values. Nothing allocates, nothing blocks, nothing can panic on what a packet, a control
//! message or an administrator hands in, and there is no `unsafe`. Kbuild compiles this crate into
//! the module; cargo compiles the same source for the tests, the fuzzers and the tools.
//!
//! # Layout
//!
//! In the order in which a connection meets them:
//!
//! * [`classify`] – which packets are ours;
//! * [`tcp`] – the responder that completes the handshake and collects the request head, the sender
//!   of the front-end's own replies, SYN cookies, and what is kept of a connection while its packets
//!   are forwarded;
//! * [`http`] – the request-head parser and the target key, and where requests and responses end;
//! * [`content`] – which back-ends may serve a request;
//! * [`policy`] – which node serves a target;
//! * [`follow`] – further requests of a connection, and when it may move for one of them;
//! * [`wire`] – the frames the nodes exchange;
//! * [`icmp`] – which connection an ICMP error is about;
//! * [`addr`], [`time`] – the words all of them share.
//!
//! # Locking
//!
//! None. Whoever owns a value serialises the calls on it; every call is short and may be made in
//! softirq context.
//!
//! Inside the crate paths are spelled with `super::` and `self::`, so that the module can also
//! include it as a plain Rust module.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod addr;
pub mod classify;
pub mod content;
pub mod follow;
pub mod http;
pub mod icmp;
pub mod policy;
pub mod tcp;
pub mod time;
pub mod wire;
