// SPDX-License-Identifier: GPL-2.0

//! The front-end's TCP: a receiver that knows how to stop.
//!
//! It completes the handshake, collects the request head, and hands the connection to a back-end
//! whose kernel does all the rest. It sends no data but its own replies, so there is no congestion
//! control here, no retransmission queue and no round-trip time.
//!
//! # Layout
//!
//! * [`segment`], [`options`], [`emit`], [`seq`] – segments, in and out;
//! * [`config`] – what is offered, the window rule, the timeouts;
//! * [`isn`], [`cookie`] – numbers nobody can guess;
//! * [`responder`] – the state machine, from the SYN to the hand-off; `collect` and `closing` are its
//!   two halves, [`action`] is what it asks of its caller;
//! * [`reply`] – the front-end's own replies;
//! * [`snapshot`] – what is handed over;
//! * [`forwarding`] – what is kept afterwards;
//! * [`reason`] – why something was dropped.
//!
//! # States
//!
//! ```text
//!           SYN                   ACK                 head complete
//!  (none) ───────▶ SynReceived ───────▶ Collecting ─────────────────▶ Waiting
//!     │                │                 │      ▲                     │  ▲ │
//!     │ cookie         │ timeout, RST    │      │ part of a head      │  │ │ no node, timeout
//!     └────────────────┼─────────────────┼──────┘           snapshot  │  │ │
//!                      ▼                 │ bad head, FIN,             ▼  │ ▼
//!                   (deleted)            │ timeout          HandedOff ───┘ │  refused
//!                      ▲                 ▼                  │              │
//!                      │              Closing ◀─────────────┼──────────────┘
//!          60 s        │                 │                  │ adopted
//!         TimeWait ────┤◀────────────────┘                  ▼
//!                      │     all acknowledged           (forwarding)
//! ```
//!
//! # What holds at any time
//!
//! * Nothing is acknowledged that is not stored.
//! * Nothing is acknowledged beyond `irs + 1 + W0`, before an own reply is begun; the advertised
//!   right edge never lies beyond it.
//! * Once the head is complete nothing more is acknowledged, unless by an own reply.
//! * Between the snapshot and a refusal nothing is sent at all.

pub mod action;
pub mod config;
pub mod cookie;
pub mod emit;
pub mod forwarding;
pub mod isn;
pub mod options;
pub mod reason;
pub mod reply;
pub mod responder;
pub mod segment;
pub mod seq;
pub mod snapshot;

mod closing;
mod collect;

pub use self::action::{Accepted, Action, Head, Output};
pub use self::config::{Config, Window};
pub use self::emit::{reset_for, SegmentOut};
pub use self::forwarding::{Ended, Forwarding, OnSyn};
pub use self::isn::Secret;
pub use self::options::{Options, Timestamp};
pub use self::reason::Reason;
pub use self::reply::Status;
pub use self::responder::Responder;
pub use self::segment::{Flags, Segment};
pub use self::seq::Seq;
pub use self::snapshot::{Resume, Snapshot};
