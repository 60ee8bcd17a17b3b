// SPDX-License-Identifier: GPL-2.0

//! Connections that carry more than one request, and what they count for (\[2\], section 4).
//!
//! ```text
//!            open            batch, next …          idle           batch, next …      close
//!   home    +1               (moves: −1, +1)        −1             +1                 −1
//!   others                   +1/N each              −1/N each      +1/N each          −1/N each
//! ```
//!
//! A connection is one [`UNIT`] of load on the node that handles it, for as long as it has something
//! to do: an idle connection is no load. Requests that came together are a batch; of a batch of N,
//! each request whose content comes from another node is 1/N of a unit there. When the next batch
//! comes, or none does, the one before is over.
//!
//! Whatever was added is kept here and taken away again exactly.

use super::super::addr::NodeId;
use super::{Request, Scheduler, Slot, UNIT};
use core::fmt;
use core::ops::DerefMut;
use core::str::FromStr;

/// How a node that does not handle the connection serves one of its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mechanism {
    /// The connection is handed to it, for this request and those that follow.
    #[default]
    Move,
    /// The node that handles the connection gets the content from it.
    Forward,
}

impl Mechanism {
    /// Those that a service can be told to use.
    pub const ALL: [Mechanism; 2] = [Mechanism::Move, Mechanism::Forward];

    /// The name that administrators use.
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::Move => "move",
            Mechanism::Forward => "forward",
        }
    }
}

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    fn from_str(name: &str) -> Result<Self, UnknownMechanism> {
        let found = Mechanism::ALL.into_iter().find(|m| m.name() == name);
        found.ok_or(UnknownMechanism)
    }
}

/// There is no mechanism of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownMechanism;

impl fmt::Display for UnknownMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the mechanisms are move and forward")
    }
}

impl core::error::Error for UnknownMechanism {}

/// Other nodes that one batch is counted on, at most. Requests for further ones are not counted.
const OTHERS: usize = 8;

/// What the dispatcher keeps of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    home: NodeId,
    is_active: bool,
    /// What one request of the batch counts for elsewhere.
    share: u32,
    /// Who else works for the batch, and on how many requests; nobody where the number is 0.
    others: [(NodeId, u16); OTHERS],
}

impl Connection {
    /// What fills the storage of a table.
    pub(super) const NOBODYS: Connection = Connection::active(NodeId::NONE);

    /// One that `home` handles and that is counted there, with nothing elsewhere: for who has assigned
    /// it by [`Scheduler::schedule`] or a [`WaitingList`](super::WaitingList).
    pub const fn active(home: NodeId) -> Self {
        Connection {
            home,
            is_active: true,
            share: UNIT,
            others: [(NodeId::NONE, 0); OTHERS],
        }
    }

    /// Is it one unit of its home's load, and of nobody else's?
    pub(super) fn is_plain(&self) -> bool {
        self.is_active && self.others.iter().all(|(_, count)| *count == 0)
    }

    /// `node` is lost, and with it what was counted there.
    pub(super) fn forget(&mut self, node: NodeId) {
        for (of, count) in &mut self.others {
            if *of == node {
                *count = 0;
            }
        }
    }

    /// The node that handles it.
    pub const fn home(&self) -> NodeId {
        self.home
    }

    /// Has it something to do, as far as is known?
    pub const fn is_active(&self) -> bool {
        self.is_active
    }

    /// The place where requests to `node` are counted; `None` if there is no room for another node.
    fn place(&mut self, node: NodeId) -> Option<&mut u16> {
        let known = self
            .others
            .iter()
            .position(|(n, count)| *n == node && *count > 0);
        let place = known.or_else(|| self.others.iter().position(|(_, count)| *count == 0))?;
        let (of, count) = self.others.get_mut(place)?;
        *of = node;
        Some(count)
    }
}

impl<S: DerefMut<Target = [Slot<W>]>, const W: usize> Scheduler<S, W> {
    /// Assigns the first request of a connection: [`Scheduler::schedule`]. The connection must be
    /// given back by [`Scheduler::close`].
    pub fn open(&mut self, request: &Request<W>) -> Option<Connection> {
        self.schedule(request).map(Connection::active)
    }

    /// `requests` have come together on the connection, and will be assigned one by one.
    pub fn batch(&mut self, conn: &mut Connection, requests: u16) {
        self.settle(conn);
        conn.share = UNIT.checked_div(requests.into()).unwrap_or(UNIT);
        self.resume(conn);
    }

    /// The connection has something to do, if it had not.
    pub fn resume(&mut self, conn: &mut Connection) {
        if !core::mem::replace(&mut conn.is_active, true) {
            self.nodes.resume(conn.home);
        }
    }

    /// Assigns the next request of a batch: the node that is to serve it. With [`Mechanism::Move`]
    /// this node handles the connection from now on.
    pub fn next(
        &mut self,
        conn: &mut Connection,
        request: &Request<W>,
        mechanism: Mechanism,
    ) -> Option<NodeId> {
        let home = conn.home;
        let node = self.decide_next(request, home)?;
        if node == home {
            return Some(node);
        }
        match mechanism {
            Mechanism::Move => {
                self.leave(conn);
                self.nodes.assign(node);
                conn.home = node;
                conn.is_active = true;
            }
            Mechanism::Forward => {
                let share = conn.share;
                let place = conn.place(node);
                if let Some((count, more)) = place.and_then(|c| Some((c.checked_add(1)?, c))) {
                    *more = count;
                    self.nodes.add_share(node, share);
                }
            }
        }
        Some(node)
    }

    /// The connection has nothing to do: it waits for its client.
    pub fn idle(&mut self, conn: &mut Connection) {
        self.settle(conn);
        if conn.is_active {
            conn.is_active = !self.nodes.rest(conn.home);
        }
    }

    /// The connection is over.
    pub fn close(&mut self, mut conn: Connection) {
        self.settle(&mut conn);
        self.leave(&conn);
    }

    /// The connection is its home's no longer.
    fn leave(&mut self, conn: &Connection) {
        let _ = match conn.is_active {
            true => self.nodes.finish(conn.home),
            false => self.nodes.finish_idle(conn.home),
        };
    }

    /// Takes away what the last batch added elsewhere.
    pub(super) fn settle(&mut self, conn: &mut Connection) {
        for (node, count) in &mut conn.others {
            let count = u32::from(core::mem::take(count));
            self.nodes
                .take_share(*node, conn.share.saturating_mul(count));
        }
    }
}
