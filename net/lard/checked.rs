// SPDX-License-Identifier: GPL-2.0

//! The end of connections on which a client asks for what it may not have.
//!
//! In the mode *forward* nodes see each other's documents in directories of their own, which clients must
//! not reach by asking for them. So each request is checked before it is passed on, and a connection that
//! brings one that must not pass, or bytes that cannot be read, ends: the client is reset, and so is the
//! server's socket, as if by the client. Nothing of such a connection passes any more but the client's
//! resets, in case the server did not believe ours.
//!
//! A connection that was handed over before the mode was set was not followed, so that nobody can tell
//! where on it a request begins: it ends with the first bytes that its client sends.

#![forbid(unsafe_code)]

use kernel_net::net::SoftNet;
use kernel_net::segment;
use kernel_net::skb::Skb;
use lard_core::addr::{ConnId, Tuple};
use lard_core::follow::Forbidden;
use lard_core::policy::Mechanism;
use lard_core::tcp::{reset_for, Segment, SegmentOut, Seq};

use crate::conn_table::{Bucket, Entry};
use crate::front_end::{send, FrontEnd, State};
use crate::netns::Node;
use crate::stats::Counter;

impl Entry {
    /// Must this segment not be passed on, whatever is in it? One that has ended passes resets only.
    pub(crate) fn is_forbidden(&self, node: &Node, segment: &Segment) -> bool {
        let State::Forward(forward) = &self.state else {
            return false;
        };
        let is_checked = || forward.persist.as_ref().is_some_and(|p| p.is_checked());
        match self.forbidden {
            true => !segment.is_rst(),
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
        if entry.forbidden {
            drop(bucket);
            // The client has missed the reset.
            return reset_client(node, net, &tuple, segment);
        }
        drop(bucket);
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
        let tuple = *entry.tuple();
        let State::Forward(forward) = &mut entry.state else {
            return;
        };
        self.tell_busy(node, conn, forward);
        entry.forbidden = true;
        let persist = forward.persist.take();
        let to = forward.to.clone();
        let deadline = self.forward_deadline(forward);
        bucket.set_deadline(conn, deadline);
        drop(bucket);
        match persist.as_ref().and_then(|persist| persist.forbidden()) {
            Some((Forbidden::Reserved, _)) => node.stats.inc(Counter::CheckedReserved),
            Some((Forbidden::Unread, why)) => {
                node.stats.inc(Counter::CheckedUnread);
                if let Some(why) = why {
                    node.stats.inc(why.into());
                }
            }
            None => {}
        }
        drop(persist);
        reset_client(node, net, &tuple, segment);
        match reset_of(&tuple, from) {
            Some(skb) => node.deliver(net, to.pass(node, net, skb, &tuple)),
            None => node.stats.inc(Counter::OwnSegmentLost),
        }
    }
}

/// Tells the client, with the number it expects.
fn reset_client(node: &Node, net: &SoftNet, tuple: &Tuple, segment: &Segment) {
    if let Some(reset) = reset_for(segment) {
        send(node, net, tuple, &reset);
    }
}

/// A client's reset.
fn reset_of(tuple: &Tuple, seq: Seq) -> Option<Skb> {
    let (src, dst) = (tuple.client.addr.to_v4()?, tuple.vip.addr.to_v4()?);
    let mut bytes = [0; SegmentOut::MAX_LEN];
    let turned = Tuple::new(tuple.vip, tuple.client);
    let len = SegmentOut::reset(seq).emit(&turned, &mut bytes)?;
    segment::received(src, dst, bytes.get(..len)?)
}
