// SPDX-License-Identifier: GPL-2.0

//! What the responder asks of its caller.

use super::emit::SegmentOut;
use super::reason::Reason;
use super::reply::Status;
use super::seq::Seq;

/// What the caller has to do: send the segment, if there is one, then take the action.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Output {
    /// The segment to send to the client.
    pub send: Option<SegmentOut>,
    /// What to do with the packet, or with the entry.
    pub action: Action,
}

/// What to do with a packet, or with the entry it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// The packet is used up.
    Done,
    /// Store this part of the payload, parse it, and report with [`Responder::stored`](super::Responder::stored). Not to report
    /// is as if the packet had been lost.
    Store(Accepted),
    /// The head is complete: have the connection assigned.
    HandOff {
        /// The segment holds more than was stored: keep it as with [`Action::Queue`].
        queue: bool,
    },
    /// Keep the packet and forward it after the back-end has adopted the connection. It is not
    /// acknowledged, so it may as well be dropped.
    Queue,
    /// Drop the packet, and count.
    Drop(Reason),
    /// Remove the entry, and count.
    Delete(Reason),
    /// This SYN begins a new connection in place of the ended one: remove the entry and
    /// [`open`](super::Responder::open) another.
    Restart {
        /// The least initial sequence number of the new connection.
        min_iss: Seq,
    },
}

/// A part of a segment's payload that continues the stored bytes. Whoever has stored it gives it
/// back to [`Responder::stored`](super::Responder::stored).
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Accepted {
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) position: u32,
    pub(super) fin: bool,
    pub(super) more: bool,
}

impl Accepted {
    /// Where the part begins in the payload.
    pub const fn offset(&self) -> u32 {
        self.offset
    }

    /// How long it is; at least one byte.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Never; an empty part is not offered.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it belongs in the buffer: how much is stored already. With the length this never
    /// exceeds the head limit.
    pub const fn position(&self) -> u32 {
        self.position
    }
}

/// What the parser says after the new bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// There is more to come.
    Partial,
    /// The head is complete.
    Complete,
    /// The head is refused.
    Bad(Status),
}

impl Output {
    pub(super) const fn done() -> Self {
        Output {
            send: None,
            action: Action::Done,
        }
    }

    pub(super) const fn drop(reason: Reason) -> Self {
        Output {
            send: None,
            action: Action::Drop(reason),
        }
    }

    pub(super) const fn delete(send: Option<SegmentOut>, reason: Reason) -> Self {
        Output {
            send,
            action: Action::Delete(reason),
        }
    }

    pub(super) const fn send(segment: SegmentOut) -> Self {
        Output {
            send: Some(segment),
            action: Action::Done,
        }
    }
}
