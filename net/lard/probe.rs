// SPDX-License-Identifier: GPL-2.0

//! Finding connections whose back-end does not have them any more, without the front-end's having heard
//! of their end.
//!
//! Replies do not come this way, so an entry ends when its back-end says CLOSED. That is lost if it was
//! written to a control connection that broke before it was read, if there was none when the child
//! ended, if there was no room in the queue, and if the back-end has forgotten its children. None of
//! these is told apart here: the front-end goes through its table and asks about what it has, with PROBE,
//! and the back-end answers GONE for what it has not.
//!
//! A round through the table begins with each control connection, about all that its node has. Later ones
//! begin as long after the one before as a TIME_WAIT lasts, and are about those connections of which
//! nothing was heard since: that heals what nobody has thought of. It is in no hurry, and to look into
//! each bucket costs as much as many packets, so these take their time.
//!
//! # Locking
//!
//! PROBE is queued under the bucket's lock, so it leaves before a RELEASE and behind the HANDOFF. What is
//! about to be released is not asked about: it may come back to the same node, and GONE would be late.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::sync::atomic::{Atomic, Relaxed};
use lard_core::addr::NodeId;
use lard_core::time::Instant;
use lard_core::wire::{Gone, HowClosed, Probe, Roles};

use crate::conn_table::{ConnTable, Entry, BUCKETS};
use crate::front_end::{now, FrontEnd, State};
use crate::netns::Node;
use crate::peer::Peer;
use crate::stats::Counter;

/// Connections of one node that are asked about in one tick, and those of the last one's bucket: a
/// hundred thousand in ten seconds.
const LOT: u32 = 1_024;

/// Buckets that later rounds look into in one tick: the table in thirteen seconds.
const PACE: usize = 512;

/// Bytes in the queue beyond which nothing is added to it: the rest is for hand-offs.
const CROWDED: usize = 64 * 1_024;

/// How far the questions to one node have got. Only the tick of the namespace changes it.
pub(crate) struct Round {
    /// The bucket to go on with.
    bucket: Atomic<usize>,
    /// When to go on, in µs.
    due: Atomic<u64>,
    /// It is not the first one.
    again: Atomic<bool>,
}

impl Round {
    /// The first one, which is due.
    pub(crate) fn new() -> Self {
        Self {
            bucket: Atomic::new(0),
            due: Atomic::new(0),
            again: Atomic::new(false),
        }
    }

    /// This many buckets are done; `None` for all of them.
    fn got_to(&self, bucket: Option<usize>, next: Instant) {
        self.bucket.store(bucket.unwrap_or(0), Relaxed);
        if bucket.is_none() {
            self.again.store(true, Relaxed);
            self.due.store(next.as_micros(), Relaxed);
        }
    }
}

impl FrontEnd {
    /// Asks back-ends what is due. Process context, from the namespace's tick.
    pub(crate) fn probe(&self, node: &Node) {
        let Some(table) = self.table() else {
            return;
        };
        let pause = self.settings.lock().config.time_wait;
        for peer in node.control.all() {
            let is_asked = peer.is_ready()
                && peer.with_info(|info| info.roles.contains(Roles::BACK_END))
                && peer.queued() <= CROWDED;
            if is_asked && peer.round.due.load(Relaxed) <= now().as_micros() {
                probe_some(node, table, &peer, pause);
            }
        }
    }

    /// `from` does not have a connection. Called by the receiving thread of its control connection.
    pub(crate) fn gone(&self, node: &Node, from: NodeId, gone: &Gone) {
        let conn = gone.conn;
        let unheard = self.with_forward(conn, |forward| {
            (forward.to.node() == from && !forward.state.is_over()).then_some(())
        });
        // The report was on its way, or the client has opened another connection.
        if unheard.is_none() {
            return;
        }
        node.stats.inc(Counter::ProbeGone);
        let how = match gone.time_wait {
            true => HowClosed::TimeWait,
            false => HowClosed::Closed,
        };
        self.closed(node, conn, from, how);
    }
}

/// Asks a back-end about a lot of the connections that it should have.
fn probe_some(node: &Node, table: &ConnTable, peer: &Peer, pause: Duration) {
    let round = &peer.round;
    let (silence, buckets) = match round.again.load(Relaxed) {
        true => (pause, PACE),
        false => (Duration::ZERO, BUCKETS),
    };
    let (mut asked, mut last) = (0, None);
    let next = table.visit(round.bucket.load(Relaxed), buckets, |entry| {
        let bucket = entry.id().bucket();
        // Whole buckets only, so that each tick gets on.
        if asked >= LOT && last != Some(bucket) {
            return false;
        }
        if !is_in_question(entry, peer.id(), silence) {
            return true;
        }
        last = Some(bucket);
        let (conn, tuple) = (entry.id(), *entry.tuple());
        let sent = peer.send_later(&Probe { conn, tuple }).is_ok();
        asked = asked.saturating_add(u32::from(sent));
        sent
    });
    round.got_to(next, now().saturating_add(pause));
    node.stats.add(Counter::Probed, asked.into());
}

/// Should `of` have this connection, and was nothing heard of it for so long?
fn is_in_question(entry: &Entry, of: NodeId, silence: Duration) -> bool {
    let State::Forward(forward) = &entry.state else {
        return false;
    };
    let is_releasing = forward.persist.as_ref().is_some_and(|p| p.is_in_doubt());
    forward.to.node() == of
        && !forward.state.is_over()
        && !is_releasing
        && now().saturating_since(forward.state.last_packet()) >= silence
}
