// SPDX-License-Identifier: GPL-2.0

//! The end of connections on which a client asks for what it may not have.
//!
//! In the mode *forward* nodes see each other's documents in directories of their own, which clients must
//! not reach by asking for them. So each request is checked before it is passed on, and a connection that
//! brings one that must not pass, or bytes that cannot be read, ends for both sides: see [`crate::over`].
//!
//! A connection that was handed over before the mode was set was not followed, so that nobody can tell
//! where on it a request begins: it ends with the first bytes that its client sends.

#![forbid(unsafe_code)]

use kernel_net::net::SoftNet;
use lard_core::addr::ConnId;
use lard_core::follow::Forbidden;
use lard_core::policy::Mechanism;
use lard_core::tcp::{reset_for, Segment, Seq};

use crate::conn_table::{Bucket, Entry};
use crate::front_end::{send, FrontEnd, State};
use crate::netns::Node;
use crate::over::Ending;
use crate::stats::Counter;

impl Entry {
    /// Must this segment not be passed on, whatever is in it? Of one that has ended TCP gets to see what it
    /// answers without reading.
    pub(crate) fn is_forbidden(&self, node: &Node, segment: &Segment) -> bool {
        let State::Forward(forward) = &self.state else {
            return false;
        };
        let is_checked = || forward.persist.as_ref().is_some_and(|p| p.is_checked());
        match forward.state.is_ended() {
            true => !segment.is_rst() && !segment.is_syn(),
            false => {
                segment.payload_len > 0
                    && !segment.is_syn()
                    && node.services.further() == Some(Mechanism::Forward)
                    && !is_checked()
            }
        }
    }
}

impl FrontEnd {
    /// A segment that [`Entry::is_forbidden`], with a good checksum. Bottom halves off.
    pub(crate) fn forbid(
        &self,
        node: &Node,
        net: &SoftNet,
        mut bucket: Bucket<'_>,
        conn: ConnId,
        segment: &Segment,
    ) {
        let Some(entry) = bucket.find_id(conn) else {
            return;
        };
        let tuple = *entry.tuple();
        let is_ended = matches!(&entry.state, State::Forward(forward) if forward.state.is_ended());
        drop(bucket);
        if is_ended {
            // The client has missed the reset.
            if let Some(reset) = reset_for(segment) {
                send(node, net, &tuple, &reset);
            }
            return;
        }
        node.stats.inc(Counter::CheckedBefore);
        self.end_forbidden(node, net, conn, segment, segment.seq);
    }

    /// The connection ends because of `segment`; its server has got what lies before `from`. Bottom halves
    /// off, no lock held.
    pub(crate) fn end_forbidden(
        &self,
        node: &Node,
        net: &SoftNet,
        conn: ConnId,
        segment: &Segment,
        from: Seq,
    ) {
        let Some(mut bucket) = self.table().and_then(|t| t.bucket_of(conn)) else {
            return;
        };
        let Some(entry) = bucket.find_id(conn) else {
            return;
        };
        let State::Forward(forward) = &entry.state else {
            return;
        };
        let persist = forward.persist.as_ref();
        match persist.and_then(|persist| persist.forbidden()) {
            Some((Forbidden::Reserved, _)) => node.stats.inc(Counter::CheckedReserved),
            Some((Forbidden::Unread, why)) => {
                node.stats.inc(Counter::CheckedUnread);
                if let Some(why) = why {
                    node.stats.inc(why.into());
                }
            }
            None => {}
        }
        self.end(node, net, bucket, conn, Ending::at(segment, from));
    }
}
