// SPDX-License-Identifier: GPL-2.0

//! What writes to a control connection: a work in a softirq, and the sending thread.
//!
//! Frames are written by the work, as far as the socket takes them at once: to wake a thread costs as much
//! as the rest of a hand-off on its way out. The thread writes what the work leaves: frames that have
//! waited long enough, what did not fit the socket's buffer, PINGs. It also looks whether the peer has
//! fallen silent.
//!
//! # Locking
//!
//! Who writes has taken `writing` out from under its lock, which is a leaf.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Release};
use kernel::sync::Arc;
use kernel_net::kthread::{Running, Woken};
use kernel_net::softwork::{SoftWork, Task};
use lard_core::wire::{Ping, Roles};

use super::{bump, lost_by, Lost, Peer};
use crate::config::Config;
use crate::front_end::now;
use crate::netns::Node;
use crate::outbox::{note_unsent, Frames};
use crate::params::Param;
use crate::stats::Counter;

/// How soon a change of the parameters holds.
const PARAMS: Duration = Duration::from_secs(1);

/// How long frames that can wait do so at most.
const LATER_MS: u32 = 10;

/// Frames that are being written; none between two writes, unless the socket did not take all of them.
pub(super) struct Writing {
    frames: Frames,
    /// Bytes of them that the socket has taken.
    sent: usize,
    /// It will not take more.
    failed: bool,
}

impl Writing {
    /// Nothing is being written yet.
    pub(super) fn new(frames: Frames) -> Self {
        Self {
            frames,
            sent: 0,
            failed: false,
        }
    }
}

/// What writes in a softirq.
struct Writer {
    peer: Arc<Peer>,
    node: Arc<Node>,
}

impl Task for Writer {
    fn run(&self) {
        let peer = &self.peer;
        let Some(mut writing) = peer.take_writing() else {
            return peer.outbox.leave(false);
        };
        // What is left of the write before must come first, and that is the thread's.
        if writing.frames.is_empty() && peer.take(&self.node, &mut writing) {
            writing.sent = peer.socket.send_softly(writing.frames.bytes());
            if writing.sent == writing.frames.bytes().len() {
                peer.wrote(&self.node, &mut writing);
            }
        }
        let unfinished = !writing.frames.is_empty();
        peer.give_writing(writing);
        if unfinished {
            peer.outbox.leave(true);
        }
    }
}

impl Peer {
    /// Has frames written in a softirq from now on. May sleep.
    pub(crate) fn write_softly(this: &Arc<Self>, node: &Arc<Node>) -> Result {
        let (peer, node) = (this.clone(), node.clone());
        let task = Arc::new(Writer { peer, node }, GFP_KERNEL)?;
        this.outbox.set_writer(Some(SoftWork::new(task)?));
        Ok(())
    }

    /// Ends that, and waits for it. May sleep.
    pub(crate) fn stop_writing(&self) {
        self.outbox.set_writer(None);
    }

    fn take_writing(&self) -> Option<Writing> {
        self.writing.lock().take()
    }

    fn give_writing(&self, writing: Writing) {
        *self.writing.lock() = Some(writing);
    }

    /// The sending thread.
    pub(crate) fn transmit(&self, thread: &Running, node: &Node, config: &Config) {
        self.outbox.set_waker(thread.waker());
        self.write_all(thread, node, config);
        self.socket.shutdown();
        self.sent.store(true, Release);
        // What was received must have had its effect before the peer is called lost.
        while !self.received.load(Acquire) {
            if thread.wait_until(1_000, || self.received.load(Acquire)) == Woken::Stop {
                break;
            }
        }
        let mut unsent = KVec::new();
        self.stop_writing();
        // Nobody else writes any more.
        if let Some(mut writing) = self.take_writing() {
            note_unsent(&writing.frames, writing.sent, &mut unsent);
            self.outbox.drain(&mut writing.frames, &mut unsent);
        }
        unsent.sort_unstable();
        self.report(node, &unsent);
    }

    /// Writes until the connection ends.
    fn write_all(&self, thread: &Running, node: &Node, config: &Config) {
        let mut next_ping = now();
        loop {
            let interval = Duration::from_millis(node.params.get(Param::PingInterval));
            // It may have become shorter.
            next_ping = next_ping.min(now().saturating_add(interval));
            if now() >= next_ping && self.outbox.is_open() {
                next_ping = now().saturating_add(interval);
                // A full box is being emptied, which is as good as a PING.
                let _ = self.send(&Ping { sent: now() });
                self.report_load(node, config);
            }
            let limit = Duration::from_millis(node.params.get(Param::DeadAfter));
            let silence = self.silence(now());
            if silence >= limit {
                return self.fail(Lost::Silent);
            }
            let mut pause = next_ping
                .saturating_since(now())
                .min(limit.saturating_sub(silence))
                .min(PARAMS);
            if self.id == config.dispatcher {
                pause = pause.min(patience(node));
            }
            let pause = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
            let mut woken = thread.wait_until(pause.saturating_add(1), || self.outbox.is_ready());
            if woken == Woken::Ready {
                woken = thread.wait_until(LATER_MS, || self.outbox.is_urgent());
            }
            if woken == Woken::Stop || !self.write(thread, node) {
                return;
            }
        }
    }

    /// Writes what there is; `false` at the end of the connection.
    fn write(&self, thread: &Running, node: &Node) -> bool {
        let Some(mut writing) = self.take_writing() else {
            // A softirq on another processor is at it, and will not take long.
            thread.wait_until(1, || self.writing.lock().is_some());
            return true;
        };
        let goes_on = self.write_waiting(thread, node, &mut writing);
        self.give_writing(writing);
        goes_on
    }

    fn write_waiting(&self, thread: &Running, node: &Node, writing: &mut Writing) -> bool {
        self.outbox.begin();
        if writing.failed {
            return false;
        }
        if writing.frames.is_empty() && !self.take(node, writing) {
            return self.outbox.is_open();
        }
        let rest = writing.frames.bytes().get(writing.sent..);
        match self.socket.send_all(thread, rest.unwrap_or_default()) {
            Ok(()) => self.wrote(node, writing),
            Err((sent, failure)) => {
                writing.sent = writing.sent.saturating_add(sent);
                writing.failed = true;
                self.fail(lost_by(failure));
            }
        }
        !writing.failed
    }

    /// Takes what there is to write; `false` if there is nothing.
    fn take(&self, node: &Node, writing: &mut Writing) -> bool {
        writing.sent = 0;
        self.outbox.take(&mut writing.frames, now(), patience(node))
    }

    /// All that was to be written is.
    fn wrote(&self, node: &Node, writing: &mut Writing) {
        let frames = &mut writing.frames;
        bump(&self.traffic.writes, 1);
        node.stats.inc(Counter::CtWrites);
        if frames.questions() != 0 {
            node.stats.add(Counter::Asked, frames.questions());
            node.stats.inc(Counter::AskWrites);
        }
        bump(&self.traffic.bytes_out, frames.bytes().len() as u64);
        bump(&self.traffic.frames_out, frames.count());
        node.stats.add(Counter::CtFramesOut, frames.count());
        frames.clear();
    }

    /// A back-end tells the dispatcher how many connections it has.
    fn report_load(&self, node: &Node, config: &Config) {
        if self.id == config.dispatcher && config.is(Roles::BACK_END) && self.is_ready() {
            let _ = self.send(&node.back_end.load());
        }
    }
}

/// How long an answer of the dispatcher is waited for before more is asked.
fn patience(node: &Node) -> Duration {
    Duration::from_millis(node.params.get(Param::AssignPatience))
}
