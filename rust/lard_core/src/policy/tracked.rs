// SPDX-License-Identifier: GPL-2.0

//! The connections that are not simply one unit of load of the node that has them (\[2\], section 4).
//!
//! A dispatcher hears of connections by their numbers. Most of them are one unit of their node's load
//! from their assignment to their end, for which nothing has to be kept. Here are the others:
//!
//! ```text
//!   idle:      −1 at home                            until it has something to do again, or ends
//!   forwarded: +1/N at who supplies, N the batch     until the next batch, idleness, or the end
//! ```
//!
//! A connection that is neither any longer is not here any longer. One for which there is no place
//! counts as one unit, as if nothing had been said about it; [`Tracked::overflows`] tells how many did.
//!
//! # What can cross
//!
//! News of a connection come from its front-end and from its back-end, in any order. That a connection
//! falls idle, or begins a batch that is forwarded, may be heard after its end. So a front-end that hears
//! of the end says that the connection is one unit, [`Tracked::set_idle`] with `false`, if it said
//! anything else before; whichever comes last, the sum is the same.
//!
//! # Storage
//!
//! A hash table with places for eight connections in a row, in the caller's storage. Each operation
//! looks at one row, but for [`Tracked::node_down`] and [`Tracked::resume_all`], which look at all.

use super::super::addr::{ConnId, NodeId};
use super::connection::Connection;
use super::{Mechanism, Request, Scheduler, Slot};
use core::ops::DerefMut;

/// Places in a row: the numbers of as many connections as are one line of a CPU's cache.
const PLACES: usize = 8;

/// One row of places.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct TrackedSlot {
    /// [`ConnId::NONE`] where there is none.
    ids: [ConnId; PLACES],
    conns: [Connection; PLACES],
}

impl TrackedSlot {
    /// What to fill new storage with.
    pub const EMPTY: TrackedSlot = TrackedSlot {
        ids: [ConnId::NONE; PLACES],
        conns: [Connection::NOBODYS; PLACES],
    };

    /// Slots for so many connections: where they fall is chance, so that a few of them find no place
    /// as soon as half of all places are taken.
    pub const fn needed(connections: usize) -> usize {
        connections.div_ceil(PLACES / 2)
    }
}

/// A request on a connection that carried others before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Further {
    /// The connection.
    pub conn: ConnId,
    /// The node that has it.
    pub home: NodeId,
    /// How many requests have come together, of which this is one: a new batch.
    pub batch: u16,
    /// How another node would serve it.
    pub mechanism: Mechanism,
}

/// The connections. `C` are the places, in any kind of ownership.
#[derive(Debug)]
pub struct Tracked<C> {
    slots: C,
    len: usize,
    overflows: u64,
}

impl<C: DerefMut<Target = [TrackedSlot]>> Tracked<C> {
    /// None. The slots must be empty.
    pub fn new(slots: C) -> Self {
        Tracked {
            slots,
            len: 0,
            overflows: 0,
        }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How often a connection found no place, and counted as one unit.
    pub const fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Chooses the node that serves a further request. With [`Mechanism::Move`] it counts as
    /// [`Scheduler::schedule_next`] says; with [`Mechanism::Forward`] the node has `1 / batch` of a unit
    /// until the batch is over, and nobody needs to end that.
    pub fn next<S: DerefMut<Target = [Slot<W>]>, const W: usize>(
        &mut self,
        scheduler: &mut Scheduler<S, W>,
        further: &Further,
        request: &Request<W>,
    ) -> Option<NodeId> {
        let Further {
            conn: id,
            home,
            batch,
            mechanism,
        } = *further;
        let mut conn = self.take(scheduler, id, home);
        scheduler.batch(&mut conn, batch);
        let node = match mechanism {
            Mechanism::Move => scheduler.schedule_next(request, home),
            Mechanism::Forward => scheduler.next(&mut conn, request, mechanism),
        };
        self.keep(scheduler, id, conn);
        node
    }

    /// A connection that `home` has falls idle, or is one unit of `home` again and of nobody else.
    pub fn set_idle<S: DerefMut<Target = [Slot<W>]>, const W: usize>(
        &mut self,
        scheduler: &mut Scheduler<S, W>,
        id: ConnId,
        home: NodeId,
        is_idle: bool,
    ) {
        let mut conn = self.take(scheduler, id, home);
        match is_idle {
            true => scheduler.idle(&mut conn),
            false => scheduler.batch(&mut conn, 1),
        }
        self.keep(scheduler, id, conn);
    }

    /// A connection of `node` is over, or never reached it, or has left it: [`Scheduler::finished`].
    pub fn finished<S: DerefMut<Target = [Slot<W>]>, const W: usize>(
        &mut self,
        scheduler: &mut Scheduler<S, W>,
        id: ConnId,
        node: NodeId,
    ) {
        match self.remove_if(id, |conn| conn.home() == node) {
            Some(conn) => scheduler.close(conn),
            None => {
                let _ = scheduler.finished(node);
            }
        }
    }

    /// `node` is lost, as a back-end with all that was counted for it, and as a front-end: nobody will
    /// say of its connections whether they are idle. Takes time in proportion to the storage.
    pub fn node_down<S: DerefMut<Target = [Slot<W>]>, const W: usize>(
        &mut self,
        scheduler: &mut Scheduler<S, W>,
        node: NodeId,
    ) {
        self.retain(|id, conn| {
            conn.forget(node);
            if conn.home() == node {
                scheduler.settle(conn);
                return false;
            }
            if id.node() == node {
                scheduler.batch(conn, 1);
            }
            true
        });
    }

    /// The connections of `node` count as one unit each, whatever was said: some have ended without a
    /// word, and nobody knows which. Takes time in proportion to the storage.
    pub fn resume_all<S: DerefMut<Target = [Slot<W>]>, const W: usize>(
        &mut self,
        scheduler: &mut Scheduler<S, W>,
        node: NodeId,
    ) {
        self.retain(|_, conn| {
            if conn.home() == node {
                scheduler.resume(conn);
            }
            true
        });
    }

    /// Takes a connection out; one that is not here is one unit of `home`.
    fn take<S: DerefMut<Target = [Slot<W>]>, const W: usize>(
        &mut self,
        scheduler: &mut Scheduler<S, W>,
        id: ConnId,
        home: NodeId,
    ) -> Connection {
        let known = self.remove_if(id, |_| true);
        let known = known.and_then(|mut conn| {
            if conn.home() == home {
                return Some(conn);
            }
            // It has left the other node, whose news are late.
            scheduler.batch(&mut conn, 1);
            None
        });
        known.unwrap_or(Connection::active(home))
    }

    /// Puts a connection back, if it needs to be here.
    fn keep<S: DerefMut<Target = [Slot<W>]>, const W: usize>(
        &mut self,
        scheduler: &mut Scheduler<S, W>,
        id: ConnId,
        mut conn: Connection,
    ) {
        if conn.is_plain() {
            return;
        }
        match self.place(id, ConnId::NONE).filter(|_| id != ConnId::NONE) {
            Some((free, place)) => {
                (*free, *place) = (id, conn);
                self.len = self.len.saturating_add(1);
            }
            None => {
                scheduler.batch(&mut conn, 1);
                self.overflows = self.overflows.wrapping_add(1);
            }
        }
    }

    fn remove_if(
        &mut self,
        id: ConnId,
        is_right: impl FnOnce(&Connection) -> bool,
    ) -> Option<Connection> {
        if self.is_empty() || id == ConnId::NONE {
            return None;
        }
        let (known, conn) = self.place(id, id).filter(|(_, conn)| is_right(conn))?;
        *known = ConnId::NONE;
        let conn = conn.clone();
        self.len = self.len.saturating_sub(1);
        Some(conn)
    }

    /// Where `holds` is in the row of `id`.
    fn place(&mut self, id: ConnId, holds: ConnId) -> Option<(&mut ConnId, &mut Connection)> {
        // The upper half of the product depends on all bits of the number.
        let hash = id.to_bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let scaled = u128::from(hash) * self.slots.len() as u128;
        // CAST: below the number of slots.
        let slot = self.slots.get_mut((scaled >> 32) as usize)?;
        let at = slot.ids.iter().position(|known| *known == holds)?;
        slot.ids.get_mut(at).zip(slot.conns.get_mut(at))
    }

    /// Takes out those that `f` says, and those that need not be here behind it.
    fn retain(&mut self, mut f: impl FnMut(ConnId, &mut Connection) -> bool) {
        if self.is_empty() {
            return;
        }
        for slot in self.slots.iter_mut() {
            for (id, conn) in slot.ids.iter_mut().zip(&mut slot.conns) {
                if *id != ConnId::NONE && (!f(*id, conn) || conn.is_plain()) {
                    *id = ConnId::NONE;
                    self.len = self.len.saturating_sub(1);
                }
            }
        }
    }
}
