// SPDX-License-Identifier: GPL-2.0

//! What waits to be sent to one peer: [`lard_core::wire::Outbox`] with memory, a lock, and somebody
//! to wake.
//!
//! Any context appends frames, a softirq among them; a work in a softirq takes everything there is and
//! writes it at once. The room is bounded: a frame that does not fit is refused, and whoever wanted to
//! send it decides what that means.
//!
//! Frames that can wait wake the sending thread once, so that it knows since when; it sleeps on until
//! something cannot wait, or for a few milliseconds.
//!
//! # Locking
//!
//! One lock, a leaf. The writer's own buffer is exchanged for the full one under it, so nothing is
//! copied twice and nothing is sent with it held.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::kthread::Waker;
use kernel_net::softwork::SoftWork;
use kernel_net::sync::BhLock;
use lard_core::addr::ConnId;
use lard_core::time::Instant;
use lard_core::wire::{self, Assign, EncodeError, Frame};

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

impl From<EncodeError> for SendError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::NoSpace => SendError::Full,
            EncodeError::TooLong => SendError::Unencodable,
        }
    }
}

/// Whole frames, one after another.
pub(crate) type Frames = wire::Frames<VVec<u8>>;

fn room(len: usize) -> Result<VVec<u8>> {
    Ok(VVec::from_elem(0, len, GFP_KERNEL)?)
}

/// Adds what [`wire::Frames::unsent`] finds to `to`. Without memory some are missing, and count as
/// sent.
pub(crate) fn note_unsent(frames: &Frames, sent: usize, to: &mut KVec<ConnId>) {
    for conn in frames.unsent(sent) {
        if to.push(conn, GFP_KERNEL).is_err() {
            return;
        }
    }
}

/// The frames that wait.
pub(crate) struct Outbox(BhLock<Inner>);

struct Inner {
    frames: wire::Outbox<VVec<u8>>,
    /// Frames are taken.
    open: bool,
    /// The receiving thread is at work, and asks for its answers to be written when it is done.
    corked: bool,
    /// The work has written as much as the socket took, and left the rest to the thread.
    unfinished: bool,
    /// The work that writes, while the connection is there.
    writer: Option<Arc<SoftWork>>,
    /// The sending thread, once it runs.
    waker: Option<Waker>,
}

impl Outbox {
    /// An open one, and the spare buffer for the thread. May sleep.
    pub(crate) fn new() -> Result<(Self, Frames)> {
        let inner = Inner {
            frames: wire::Outbox::new(room(ROOM)?, room(ASSIGN_ROOM)?),
            open: true,
            corked: false,
            unfinished: false,
            writer: None,
            waker: None,
        };
        let outbox = Self(kernel_net::new_bh_lock!(inner, c"lard:outbox"));
        Ok((outbox, Frames::new(room(ROOM)?)))
    }

    /// Says who is to be woken.
    pub(crate) fn set_waker(&self, waker: Waker) {
        self.0.lock().waker = Some(waker);
    }

    /// Says who writes, or with `None` that nobody does but the thread. May sleep.
    pub(crate) fn set_writer(&self, writer: Option<Arc<SoftWork>>) {
        let old = core::mem::replace(&mut self.0.lock().writer, writer);
        drop(old);
    }

    /// Takes a frame. Any context but hard irq.
    pub(crate) fn send<'a>(&self, frame: &impl Frame<'a>) -> Result<(), SendError> {
        let mut inner = self.0.lock();
        if !inner.open {
            return Err(SendError::NoPeer);
        }
        inner.frames.send(frame)?;
        inner.wake();
        Ok(())
    }

    /// Takes a frame that can wait for others, for a few milliseconds. Any context but hard irq.
    pub(crate) fn send_later<'a>(&self, frame: &impl Frame<'a>) -> Result<(), SendError> {
        let mut inner = self.0.lock();
        if !inner.open {
            return Err(SendError::NoPeer);
        }
        let first = !inner.frames.is_ready();
        inner.frames.send_later(frame)?;
        match first {
            true => inner.wake_thread(),
            false => inner.wake(),
        }
        Ok(())
    }

    /// Takes a question to the dispatcher, perhaps to hold it back. Any context but hard irq.
    pub(crate) fn ask(&self, question: &Assign, now: Instant) -> Result<(), SendError> {
        let mut inner = self.0.lock();
        if !inner.open {
            return Err(SendError::NoPeer);
        }
        inner.frames.ask(question, now)?;
        inner.wake();
        Ok(())
    }

    /// An answer came.
    pub(crate) fn answered(&self, now: Instant) {
        let mut inner = self.0.lock();
        inner.frames.answered(now);
        inner.wake();
    }

    /// Takes a last frame and no more after it. Without room for it there will be none.
    pub(crate) fn close_with<'a>(&self, frame: &impl Frame<'a>) {
        let mut inner = self.0.lock();
        if inner.open {
            let _ = inner.frames.send(frame);
        }
        inner.close();
    }

    /// Takes no more frames.
    pub(crate) fn close(&self) {
        self.0.lock().close();
    }

    /// Are frames taken?
    pub(crate) fn is_open(&self) -> bool {
        self.0.lock().open
    }

    /// Writes nothing until [`Outbox::uncork`], so that the answers to a batch leave together.
    pub(crate) fn cork(&self) {
        self.0.lock().corked = true;
    }

    /// Ends [`Outbox::cork`].
    pub(crate) fn uncork(&self) {
        let mut inner = self.0.lock();
        inner.corked = false;
        match inner.is_urgent() {
            true => inner.wake(),
            false => inner.wake_thread(),
        }
    }

    /// Leaves to the thread what there is to write, and the rest of a write that has begun.
    pub(crate) fn leave(&self, unfinished: bool) {
        let mut inner = self.0.lock();
        inner.unfinished |= unfinished;
        inner.wake_thread();
    }

    /// The thread begins to write, first of all what was left to it.
    pub(crate) fn begin(&self) {
        self.0.lock().unfinished = false;
    }

    /// Is there something to write, or nothing ever again?
    pub(crate) fn is_ready(&self) -> bool {
        let inner = self.0.lock();
        !inner.corked && inner.has_any() || !inner.open
    }

    /// The same, at once.
    pub(crate) fn is_urgent(&self) -> bool {
        let inner = self.0.lock();
        !inner.corked && inner.is_urgent() || !inner.open
    }

    /// Exchanges `spare`, which is empty, for what there is to write; false if there is nothing.
    pub(crate) fn take(&self, spare: &mut Frames, now: Instant, patience: Duration) -> bool {
        self.0.lock().frames.take(spare, now, patience)
    }

    /// Bytes that wait.
    pub(crate) fn queued(&self) -> usize {
        self.0.lock().frames.queued()
    }

    /// Adds the connections of all frames that are left to `to`. Nothing is taken any more. May sleep.
    pub(crate) fn drain(&self, spare: &mut Frames, to: &mut KVec<ConnId>) {
        self.close();
        spare.clear();
        // What is taken out is read without the lock, for which memory is needed.
        while self.0.lock().frames.give_up(spare) {
            note_unsent(spare, 0, to);
            spare.clear();
        }
    }
}

impl Inner {
    fn is_urgent(&self) -> bool {
        self.unfinished || self.frames.is_urgent()
    }

    fn has_any(&self) -> bool {
        self.unfinished || self.frames.is_ready()
    }

    /// Has what cannot wait written, by the work if there is one.
    fn wake(&self) {
        if self.corked || !self.is_urgent() {
            return;
        }
        match &self.writer {
            Some(writer) => writer.queue(),
            None => self.wake_thread(),
        }
    }

    fn wake_thread(&self) {
        if self.corked || !self.has_any() {
            return;
        }
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }

    /// The thread has to notice, whatever there is to write.
    fn close(&mut self) {
        self.open = false;
        self.corked = false;
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}
