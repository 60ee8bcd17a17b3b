// SPDX-License-Identifier: GPL-2.0

//! One control connection: its socket, its two threads, and what is known of the node at the other
//! end.
//!
//! # Life
//!
//! ```text
//!   peer-add ──▶ Greeting ── HELLO and PING ─────▶ Ready ──┐
//!                   │                                      │ BYE, silence, nonsense, an error,
//!                   └──────────────────────────────────────┤ peer-del, detach, the owner's death
//!                                                          ▼
//!                               Closing ── threads have ended ──▶ gone
//! ```
//!
//! The receiving thread blocks in the socket, without a timer; `transmit` writes. Whichever finds a reason
//! to end names it with [`Peer::fail`], which makes the other one end as well. The sending thread ends
//! last and reports the loss, when it knows what never left this node.
//!
//! # Locking
//!
//! `info` is a leaf. The outbox has its own lock.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::sync::Arc;
use kernel_net::control_socket::{ControlSocket, Failure};
use kernel_net::kthread::Running;
use kernel_net::sync::BhLock;
use lard_core::addr::{Addr, ConnId, NodeId};
use lard_core::time::Instant;
use lard_core::wire::{
    Bye, ByeReason, ClockOffset, Frame, Framer, Hello, ListenerCaps, Ping, Pong, Roles, MAX_FRAME,
};

use crate::config::{Config, Few, NodeName, TagText, Vips};
use crate::front_end::now;
use crate::netns::Node;
use crate::outbox::{Outbox, SendError};
use crate::probe::Round;
use crate::stats::Counter;

mod transmit;

use transmit::Writing;

/// Room for what one call receives: the largest frame and as much again.
const RECEIVE: usize = 2 * MAX_FRAME;

/// State of a control connection. The numbers are those of netlink's `link-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Greeting = 2,
    Ready = 3,
    Closing = 4,
}

/// Why a control connection ended. The numbers are those of netlink's `lost-reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Closed = 0,
    Bye = 1,
    Silent = 2,
    Malformed = 3,
    Mismatch = 4,
    Error = 5,
    Removed = 6,
}

impl Lost {
    const ALL: [Lost; 7] = [
        Lost::Closed,
        Lost::Bye,
        Lost::Silent,
        Lost::Malformed,
        Lost::Mismatch,
        Lost::Error,
        Lost::Removed,
    ];

    /// What the peer is told, if it can still be told something.
    fn bye(self) -> Option<ByeReason> {
        match self {
            Lost::Closed | Lost::Bye | Lost::Silent | Lost::Error => None,
            Lost::Malformed => Some(ByeReason::Protocol),
            Lost::Mismatch => Some(ByeReason::NotMember),
            Lost::Removed => Some(ByeReason::Leaving),
        }
    }

    /// The counter of connections that ended so; the others have one for each kind of nonsense.
    pub(crate) fn counter(self) -> Option<Counter> {
        match self {
            Lost::Closed => Some(Counter::CtLostClosed),
            Lost::Bye => Some(Counter::CtLostBye),
            Lost::Silent => Some(Counter::CtLostSilent),
            Lost::Error => Some(Counter::CtLostError),
            Lost::Mismatch => Some(Counter::CtMismatch),
            Lost::Malformed | Lost::Removed => None,
        }
    }
}

/// What is known of the node at the other end.
#[derive(Clone)]
pub(crate) struct Info {
    pub(crate) link: Link,
    pub(crate) roles: Roles,
    pub(crate) name: Option<NodeName>,
    pub(crate) internal: Addr,
    pub(crate) listeners: Few<ListenerCaps, { Hello::MAX_LISTENERS }>,
    pub(crate) vips: Vips,
    /// What it says it has.
    pub(crate) tags: TagText,
    pub(crate) clock: ClockOffset,
    pub(crate) rtt: Duration,
}

/// Traffic with a peer.
pub(crate) struct Traffic {
    pub(crate) frames_in: Atomic<u64>,
    pub(crate) frames_out: Atomic<u64>,
    pub(crate) bytes_in: Atomic<u64>,
    pub(crate) bytes_out: Atomic<u64>,
    pub(crate) writes: Atomic<u64>,
}

/// One control connection.
pub(crate) struct Peer {
    id: NodeId,
    socket: ControlSocket,
    outbox: Outbox,
    /// Nothing while somebody writes.
    writing: BhLock<Option<Writing>>,
    info: BhLock<Info>,
    /// What user space said it may be.
    introduced: Roles,
    pub(crate) traffic: Traffic,
    /// Share of the node, as its administrator or ours has it.
    weight: u16,
    /// When the peer was last heard, in µs.
    heard: Atomic<u64>,
    /// The reason of the end, plus one; 0 while there is none.
    lost: Atomic<u32>,
    received: Atomic<bool>,
    sent: Atomic<bool>,
    /// Questions about the connections that the node has.
    pub(crate) round: Round,
}

/// What user space says about a peer.
pub(crate) struct Introduction {
    pub(crate) id: NodeId,
    pub(crate) roles: Roles,
    pub(crate) internal: Addr,
    pub(crate) name: Option<NodeName>,
    pub(crate) weight: u16,
}

/// Adds to a number that one thread at a time changes.
fn bump(number: &Atomic<u64>, n: u64) {
    number.store(number.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Peer {
    /// A connection that has not begun to speak. May sleep.
    pub(crate) fn new(introduction: Introduction, socket: ControlSocket) -> Result<Arc<Self>> {
        let (outbox, frames) = Outbox::new()?;
        let Introduction {
            id,
            roles,
            internal,
            name,
            weight,
        } = introduction;
        let info = Info {
            link: Link::Greeting,
            roles,
            name,
            internal,
            listeners: Few::new(),
            vips: Few::new(),
            tags: Few::new(),
            clock: ClockOffset::new(),
            rtt: Duration::ZERO,
        };
        let peer = Self {
            id,
            socket,
            outbox,
            writing: kernel_net::new_bh_lock!(Some(Writing::new(frames)), c"lard:writing"),
            info: kernel_net::new_bh_lock!(info, c"lard:peer"),
            introduced: roles,
            traffic: Traffic {
                frames_in: Atomic::new(0),
                frames_out: Atomic::new(0),
                bytes_in: Atomic::new(0),
                bytes_out: Atomic::new(0),
                writes: Atomic::new(0),
            },
            weight,
            heard: Atomic::new(now().as_micros()),
            lost: Atomic::new(0),
            received: Atomic::new(false),
            sent: Atomic::new(false),
            round: Round::new(),
        };
        Ok(Arc::new(peer, GFP_KERNEL)?)
    }

    /// The node at the other end.
    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    /// The roles it was introduced with.
    pub(crate) fn introduced(&self) -> Roles {
        self.introduced
    }

    /// The share it was introduced with.
    pub(crate) fn weight(&self) -> u16 {
        self.weight
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &ControlSocket {
        &self.socket
    }

    /// A copy of what is known of it.
    pub(crate) fn info(&self) -> Info {
        self.info.lock().clone()
    }

    /// Looks at, or changes, what is known of it.
    pub(crate) fn with_info<R>(&self, f: impl FnOnce(&mut Info) -> R) -> R {
        f(&mut self.info.lock())
    }

    /// Has it said HELLO and asked for our clock, and is it still there?
    pub(crate) fn is_ready(&self) -> bool {
        self.info.lock().link == Link::Ready
    }

    /// Bytes that wait to be sent.
    pub(crate) fn queued(&self) -> usize {
        self.outbox.queued()
    }

    /// How long ago it was last heard.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_since(Instant::from_micros(self.heard.load(Relaxed)))
    }

    /// Queues a frame, before HELLO was received too. Any context but hard irq.
    pub(crate) fn send<'a>(&self, frame: &impl Frame<'a>) -> Result<(), SendError> {
        self.outbox.send(frame)
    }

    /// Queues a frame that can wait for others, for a few milliseconds. Any context but hard irq.
    pub(crate) fn send_later<'a>(&self, frame: &impl Frame<'a>) -> Result<(), SendError> {
        self.outbox.send_later(frame)
    }

    /// Queues a question to the dispatcher.
    pub(crate) fn ask(
        &self,
        question: &lard_core::wire::Assign,
        now: Instant,
    ) -> Result<(), SendError> {
        self.outbox.ask(question, now)
    }

    /// An answer of the dispatcher has come.
    pub(crate) fn answered(&self) {
        self.outbox.answered(now());
    }

    /// Ends the connection. The first reason holds. Any thread, also from outside; does not wait.
    pub(crate) fn fail(&self, reason: Lost) {
        let code = u32::from(reason as u8).wrapping_add(1);
        if self.lost.cmpxchg(0, code, Relaxed).is_err() {
            return;
        }
        self.info.lock().link = Link::Closing;
        match reason.bye() {
            // The sending thread says good-bye, then shuts the socket down.
            Some(reason) => self.outbox.close_with(&Bye { reason }),
            None => {
                self.outbox.close();
                self.socket.shutdown();
            }
        }
    }

    /// Ends the connection in favour of a newer one.
    pub(crate) fn replace(&self) {
        let code = u32::from(Lost::Removed as u8).wrapping_add(1);
        if self.lost.cmpxchg(0, code, Relaxed).is_ok() {
            self.info.lock().link = Link::Closing;
            let reason = ByeReason::Replaced;
            self.outbox.close_with(&Bye { reason });
        }
    }

    /// Why the connection ended, if it has.
    pub(crate) fn lost(&self) -> Option<Lost> {
        let code = self.lost.load(Relaxed).checked_sub(1)?;
        Lost::ALL.into_iter().find(|l| u32::from(*l as u8) == code)
    }

    /// Has the sending thread written all it will ever write?
    pub(crate) fn is_sent(&self) -> bool {
        self.sent.load(Acquire)
    }

    /// The receiving thread.
    pub(crate) fn receive(&self, thread: &Running, node: &Node, config: &Config) {
        if let Ok(mut buffer) = VVec::from_elem(0, RECEIVE, GFP_KERNEL) {
            self.receive_into(thread, node, config, &mut buffer);
        }
        self.fail(Lost::Error);
        self.received.store(true, Release);
        // The sending thread may be waiting for this; a closed box always wakes it.
        self.outbox.close();
    }

    fn receive_into(&self, thread: &Running, node: &Node, config: &Config, buffer: &mut [u8]) {
        let mut framer = Framer::new();
        let mut have = 0usize;
        loop {
            let Some(room) = buffer.get_mut(have..).filter(|room| !room.is_empty()) else {
                // A frame is never longer than half the buffer.
                return self.fail(Lost::Malformed);
            };
            match self.socket.recv(thread, room) {
                Ok(n) => {
                    self.heard.store(now().as_micros(), Relaxed);
                    bump(&self.traffic.bytes_in, n as u64);
                    have = have.saturating_add(n);
                }
                Err(failure) => return self.fail(lost_by(failure)),
            }
            self.outbox.cork();
            let received = buffer.get(..have).unwrap_or_default();
            let left = self.read(node, config, &mut framer, received);
            self.outbox.uncork();
            let Some(left) = left else {
                return;
            };
            let used = have.saturating_sub(left);
            if used != 0 {
                buffer.copy_within(used..have, 0);
                have = left;
            }
        }
    }

    /// Reads all whole frames of `bytes` and says how many bytes are left over. `None`: the
    /// connection has ended.
    fn read(
        &self,
        node: &Node,
        config: &Config,
        framer: &mut Framer,
        bytes: &[u8],
    ) -> Option<usize> {
        let mut rest = bytes;
        let mut count = 0;
        let end = loop {
            let Some((piece, next)) = rest.split_at_checked(framer.need()) else {
                break None;
            };
            rest = next;
            let lost = match framer.push(piece) {
                Ok(None) => continue,
                Ok(Some(message)) => {
                    count += 1;
                    match node.control.dispatch(node, config, self, &message) {
                        Ok(()) => continue,
                        Err(lost) => lost,
                    }
                }
                Err(error) => {
                    node.stats.inc(error.into());
                    Lost::Malformed
                }
            };
            break Some(lost);
        };
        bump(&self.traffic.frames_in, count);
        node.stats.add(Counter::CtFramesIn, count);
        match end {
            None => Some(rest.len()),
            Some(lost) => {
                self.fail(lost);
                None
            }
        }
    }

    /// The connection is gone, and everybody is told.
    pub(crate) fn report(&self, node: &Node, unsent: &[ConnId]) {
        self.fail(Lost::Error);
        let lost = self.lost().unwrap_or(Lost::Error);
        node.control.forget(node, self, lost, unsent);
    }

    /// Sets the socket up, before the threads use it.
    pub(crate) fn prepare(&self, dead_after_ms: u32) {
        self.socket.configure(dead_after_ms);
        self.socket.set_timeouts(dead_after_ms);
    }

    /// PING: the peer wants to know our clock.
    pub(crate) fn on_ping(&self, ping: &Ping) {
        let pong = Pong {
            sent: ping.sent,
            clock: now(),
        };
        // Without room for it the peer hears other things of us.
        let _ = self.send(&pong);
    }

    /// PONG: what the peer's clock says.
    pub(crate) fn on_pong(&self, pong: &Pong) {
        let now = now();
        let mut info = self.info.lock();
        info.clock.on_pong(*pong, now);
        info.rtt = now.saturating_since(pong.sent);
    }
}

/// What a failure of the socket says about the connection.
fn lost_by(failure: Failure) -> Lost {
    match failure {
        Failure::Timeout => Lost::Silent,
        Failure::Stop => Lost::Removed,
        Failure::Closed => Lost::Closed,
        Failure::Error(_) => Lost::Error,
    }
}
