// SPDX-License-Identifier: GPL-2.0

//! Connections that wait until the cluster has room for them (\[3\], section 2.4).
//!
//! ```text
//!   assign ──▶ room, and nobody waits? ── yes ──▶ Scheduler::schedule ──▶ Assigned
//!                      │ no                               ▲
//!                      ▼                                  │ as others end
//!               Waiting, oldest first ── next ────────────┤
//!               │ full: Refused                           ▼
//!                                         too long: Expired
//! ```
//!
//! They wait in the order in which they came, and nobody waits while there is room: whoever ends a
//! connection, or changes nodes or limits, then calls [`WaitingList::next`] until there is nothing
//! more to do. A waiting connection is no load.
//!
//! The list is a ring in the caller's storage. All operations take constant time, but for
//! [`WaitingList::forget`], which is for the loss of a front-end.

use super::super::addr::{ConnId, NodeId};
use super::super::time::Instant;
use super::{NodeSet, Request, Scheduler, Slot, Tags};
use core::ops::DerefMut;
use core::time::Duration;

/// A connection that waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiter<const W: usize = 1> {
    conn: ConnId,
    /// With the time since which it waits.
    request: Request<W>,
}

impl<const W: usize> Waiter<W> {
    /// What to fill new storage with.
    pub const NOBODY: Waiter<W> = Waiter {
        conn: ConnId::NONE,
        request: Request {
            key: 0,
            exclude: NodeSet::EMPTY,
            tags: Tags::NONE,
            now: Instant::ZERO,
        },
    };
}

/// What becomes of a connection that asks to be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is the load of this node from now on; `None` if no node may be chosen.
    Assigned(Option<NodeId>),
    /// It waits; the answer comes out of [`WaitingList::next`].
    Waits,
    /// Too many wait already.
    Refused,
}

/// What has become of one that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As [`Admission::Assigned`].
    Assigned(Option<NodeId>),
    /// There was no room for it in time.
    Expired,
}

/// The connections that wait, the oldest first. `Q` are the places, in any kind of ownership.
#[derive(Debug)]
pub struct WaitingList<Q, const W: usize = 1> {
    places: Q,
    /// INVARIANT: below `places.len()`, if there are any.
    first: usize,
    /// INVARIANT: at most `places.len()`.
    len: usize,
}

impl<Q: DerefMut<Target = [Waiter<W>]>, const W: usize> WaitingList<Q, W> {
    /// Nobody waits. What is in the places does not matter.
    pub fn new(places: Q) -> Self {
        WaitingList {
            places,
            first: 0,
            len: 0,
        }
    }

    /// How many wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Does nobody wait?
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Assigns the connection, or lets it wait.
    pub fn assign<S: DerefMut<Target = [Slot<W>]>>(
        &mut self,
        scheduler: &mut Scheduler<S, W>,
        conn: ConnId,
        request: &Request<W>,
    ) -> Admission {
        if self.is_empty() && !scheduler.is_full() {
            return Admission::Assigned(scheduler.schedule(request));
        }
        // CAST: 32 bits fit in a usize.
        let most = self.places.len().min(scheduler.params().queue_max as usize);
        if self.len >= most {
            return Admission::Refused;
        }
        let request = *request;
        self.put(self.len, Waiter { conn, request });
        self.len = self.len.saturating_add(1);
        Admission::Waits
    }

    /// The next one that need not wait any longer, because there is room, or because it has waited
    /// for as long as it may.
    pub fn next<S: DerefMut<Target = [Slot<W>]>>(
        &mut self,
        scheduler: &mut Scheduler<S, W>,
        now: Instant,
    ) -> Option<(ConnId, Outcome)> {
        let Waiter { conn, request } = self.get(0)?;
        let patience = Duration::from_millis(scheduler.params().queue_time_ms.into());
        let outcome = if now.saturating_since(request.now) >= patience {
            Outcome::Expired
        } else if !scheduler.is_full() {
            Outcome::Assigned(scheduler.schedule(&Request { now, ..request }))
        } else {
            return None;
        };
        self.first = self.place(1);
        self.len = self.len.saturating_sub(1);
        Some((conn, outcome))
    }

    /// Forgets the connections of a front-end that is lost, and says how many they were. Takes time in
    /// proportion to their number and that of the others.
    pub fn forget(&mut self, front_end: NodeId) -> usize {
        let before = self.len;
        let mut kept = 0;
        for i in 0..before {
            let Some(waiter) = self.get(i).filter(|w| w.conn.node() != front_end) else {
                continue;
            };
            self.put(kept, waiter);
            kept = kept.saturating_add(1);
        }
        self.len = kept;
        before.saturating_sub(kept)
    }

    /// The place of the `i`-th in the ring.
    fn place(&self, i: usize) -> usize {
        let place = self.first.wrapping_add(i);
        // No overflow: both are at most the length of a slice.
        match place.checked_sub(self.places.len()) {
            Some(wrapped) => wrapped,
            None => place,
        }
    }

    fn get(&self, i: usize) -> Option<Waiter<W>> {
        (i < self.len).then(|| self.places.get(self.place(i)).copied())?
    }

    fn put(&mut self, i: usize, waiter: Waiter<W>) {
        let place = self.place(i);
        if let Some(place) = self.places.get_mut(place) {
            *place = waiter;
        }
    }
}
