// SPDX-License-Identifier: GPL-2.0

//! What waits to be sent to one peer.
//!
//! Any context appends frames, a softirq among them; the peer's sending thread takes everything there
//! is and writes it at once. The room is bounded: a frame that does not fit is refused, and whoever
//! wanted to send it decides what that means.
//!
//! # Batching
//!
//! Questions to the dispatcher are held back while answers to the last batch are outstanding, so that
//! their number in one write follows the dispatcher's load, and nothing is delayed when it is idle:
//!
//! ```text
//! on request q:            if no batch outstanding: send [q]; outstanding := true
//!                          else: append q to pending
//! on replies to a batch:   deliver them
//!                          if pending not empty: send pending as one packet; pending := []
//!                          else: outstanding := false
//! ```
//!
//! A batch is open until it is written, so questions that arrive before that still join it. Answers
//! that never come must not stop the questions for ever: a batch counts as answered after a while.
//!
//! # Locking
//!
//! One lock, a leaf. The thread's own buffer is exchanged for the full one under it, so nothing is
//! copied twice and nothing is sent with it held.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::prelude::*;
use kernel_net::kthread::Waker;
use kernel_net::sync::BhLock;
use lard_core::addr::ConnId;
use lard_core::time::Instant;
use lard_core::wire::{Assign, EncodeError, Frame, Header, Message, HEADER_LEN};

/// Room for frames: a few of the largest hand-offs, or ten thousand answers.
const ROOM: usize = 256 * 1024;

/// Room for questions that are held back: some eighteen hundred.
const ASSIGN_ROOM: usize = 64 * 1024;

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// There is no connection to the node, or it is not ready.
    NoPeer,
    /// Too much is waiting already.
    Full,
    /// The frame has a value that cannot be sent.
    Unencodable,
}

/// Whole frames, one after another.
pub(crate) struct Frames {
    bytes: VVec<u8>,
    len: usize,
    count: u64,
}

impl Frames {
    fn new(room: usize) -> Result<Self> {
        Ok(Self {
            bytes: VVec::from_elem(0, room, GFP_KERNEL)?,
            len: 0,
            count: 0,
        })
    }

    /// All the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// How many frames they are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Forgets them.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.count = 0;
    }

    fn append<'a>(&mut self, frame: &impl Frame<'a>) -> Result<(), SendError> {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        match frame.encode(room) {
            Ok(n) => {
                self.len = self.len.saturating_add(n);
                self.count = self.count.saturating_add(1);
                Ok(())
            }
            Err(EncodeError::NoSpace) => Err(SendError::Full),
            Err(_) => Err(SendError::Unencodable),
        }
    }

    /// Moves all frames of `other` behind these, if there is room for all.
    fn take_over(&mut self, other: &mut Frames) -> bool {
        let end = self.len.saturating_add(other.len);
        let Some(room) = self.bytes.get_mut(self.len..end) else {
            return false;
        };
        room.copy_from_slice(other.bytes());
        self.len = end;
        self.count = self.count.saturating_add(other.count);
        other.clear();
        true
    }

    /// Adds the connections of those ASSIGN and HANDOFF frames to `to` that end behind the first
    /// `sent` bytes: a peer cannot have received the whole of them. Without memory some are missing.
    pub(crate) fn unsent(&self, sent: usize, to: &mut KVec<ConnId>) {
        let mut rest = self.bytes();
        let mut end = 0usize;
        while let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() {
            let Ok(header) = Header::decode(header) else {
                return;
            };
            let Some((body, next)) = body.split_at_checked(header.length) else {
                return;
            };
            rest = next;
            end = end.saturating_add(HEADER_LEN).saturating_add(header.length);
            if end <= sent {
                continue;
            }
            let conn = match Message::decode(header, body) {
                Ok(Message::Assign(assign)) => assign.conn,
                Ok(Message::Handoff(handoff)) => handoff.conn,
                _ => continue,
            };
            if to.push(conn, GFP_KERNEL).is_err() {
                return;
            }
        }
    }
}

/// The frames that wait.
pub(crate) struct Outbox(BhLock<Inner>);

struct Inner {
    /// Frames are taken.
    open: bool,
    /// What the next write takes.
    ready: Frames,
    /// Questions that are held back.
    held: Frames,
    /// Questions that were let go and are not answered.
    outstanding: u64,
    /// Some of these are still in `ready`, so others may join.
    joinable: bool,
    /// When the last batch was let go.
    since: Instant,
    /// The sending thread, once it runs.
    waker: Option<Waker>,
    /// The receiving thread is at work and wakes the other when it is done.
    corked: bool,
}

impl Outbox {
    /// An open one, and the spare buffer for the thread. May sleep.
    pub(crate) fn new() -> Result<(Self, Frames)> {
        let inner = Inner {
            open: true,
            ready: Frames::new(ROOM)?,
            held: Frames::new(ASSIGN_ROOM)?,
            outstanding: 0,
            joinable: false,
            since: Instant::ZERO,
            waker: None,
            corked: false,
        };
        let outbox = Self(kernel_net::new_bh_lock!(inner, c"lard:outbox"));
        Ok((outbox, Frames::new(ROOM)?))
    }

    /// Says who is to be woken.
    pub(crate) fn set_waker(&self, waker: Waker) {
        self.0.lock().waker = Some(waker);
    }

    /// Takes a frame. Any context but hard irq.
    pub(crate) fn send<'a>(&self, frame: &impl Frame<'a>) -> Result<(), SendError> {
        let mut inner = self.0.lock();
        if !inner.open {
            return Err(SendError::NoPeer);
        }
        inner.ready.append(frame)?;
        inner.wake();
        Ok(())
    }

    /// Takes a last frame and no more after it. Without room for it there will be none.
    pub(crate) fn close_with<'a>(&self, frame: &impl Frame<'a>) {
        let mut inner = self.0.lock();
        if inner.open {
            let _ = inner.ready.append(frame);
        }
        inner.open = false;
        inner.corked = false;
        inner.wake();
    }

    /// Takes no more frames.
    pub(crate) fn close(&self) {
        let mut inner = self.0.lock();
        inner.open = false;
        inner.corked = false;
        inner.wake();
    }

    /// Are frames taken?
    pub(crate) fn is_open(&self) -> bool {
        self.0.lock().open
    }

    /// Takes a question to the dispatcher, perhaps to hold it back. Any context but hard irq.
    pub(crate) fn ask(&self, question: &Assign, now: Instant) -> Result<(), SendError> {
        let mut inner = self.0.lock();
        if !inner.open {
            return Err(SendError::NoPeer);
        }
        if inner.outstanding != 0 && !inner.joinable {
            return inner.held.append(question);
        }
        inner.ready.append(question)?;
        if inner.outstanding == 0 {
            inner.since = now;
        }
        inner.outstanding = inner.outstanding.saturating_add(1);
        inner.joinable = true;
        inner.wake();
        Ok(())
    }

    /// An answer came. The last one of a batch lets the next batch go.
    pub(crate) fn answered(&self, now: Instant) {
        let mut inner = self.0.lock();
        inner.outstanding = inner.outstanding.saturating_sub(1);
        if inner.outstanding == 0 {
            inner.release(now);
        }
    }

    /// Keeps the sending thread asleep until [`Outbox::uncork`], so that the answers to a batch leave
    /// together.
    pub(crate) fn cork(&self) {
        self.0.lock().corked = true;
    }

    /// Ends [`Outbox::cork`].
    pub(crate) fn uncork(&self) {
        let mut inner = self.0.lock();
        inner.corked = false;
        if inner.ready.len != 0 {
            inner.wake();
        }
    }

    /// Is there something to write, or nothing ever again?
    pub(crate) fn is_ready(&self) -> bool {
        let inner = self.0.lock();
        !inner.corked && inner.ready.len != 0 || !inner.open
    }

    /// Exchanges `spare`, which is empty, for what there is to write. A batch whose answers are not
    /// there after `patience` counts as answered. False if there is nothing.
    pub(crate) fn take(&self, spare: &mut Frames, now: Instant, patience: Duration) -> bool {
        let mut inner = self.0.lock();
        if inner.held.len != 0 && now.saturating_since(inner.since) >= patience {
            inner.release(now);
        }
        core::mem::swap(&mut inner.ready, spare);
        inner.joinable = false;
        spare.len != 0
    }

    /// Bytes that wait.
    pub(crate) fn queued(&self) -> usize {
        let inner = self.0.lock();
        inner.ready.len.saturating_add(inner.held.len)
    }

    /// The connections of all frames that are left. Closes the box. May sleep.
    pub(crate) fn drain(&self, spare: &mut Frames, to: &mut KVec<ConnId>) {
        spare.clear();
        // What is taken out is read without the lock, for which memory is needed.
        {
            let mut inner = self.0.lock();
            inner.open = false;
            core::mem::swap(&mut inner.ready, spare);
        }
        spare.unsent(0, to);
        spare.clear();
        {
            let mut inner = self.0.lock();
            let Inner { held, .. } = &mut *inner;
            spare.take_over(held);
        }
        spare.unsent(0, to);
        spare.clear();
    }
}

impl Inner {
    fn wake(&self) {
        if let (false, Some(waker)) = (self.corked, &self.waker) {
            waker.wake();
        }
    }

    /// Lets the questions that were held back go. Those for which there is no room stay held.
    fn release(&mut self, now: Instant) {
        let count = self.held.count;
        let Inner { ready, held, .. } = self;
        if count == 0 || !ready.take_over(held) {
            return;
        }
        self.outstanding = count;
        self.joinable = true;
        self.since = now;
        self.wake();
    }
}
