// SPDX-License-Identifier: GPL-2.0

//! Packets of no connection that the front-end knows: SYNs, the answers to SYN cookies, and strays.
//!
//! # Under attack
//!
//! A SYN costs an entry only while few handshakes are unfinished; above that its connection is kept in
//! the cookie that answers it, and nothing is allocated before the client has shown that it is there.
//!
//! # Locking
//!
//! The bucket stays locked from the look-up that found nothing until the entry is in it. It is let go
//! of while sockets are looked up, and looked into again: the last reference to a socket may go there,
//! and a child's end asks for its bucket.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel_net::net::{AddrType, SoftNet};
use kernel_net::skb::{BadSource, Skb, Verdict};
use lard_core::addr::{ConnId, Tuple};
use lard_core::tcp::{cookie, reset_for, Config, Reason, Responder, Segment, Seq};
use lard_core::time::Instant;

use crate::conn_table::Bucket;
use crate::front_end::{now, send, Claim, FrontEnd, Settings, State};
use crate::gauge::Held;
use crate::netns::Node;
use crate::open::{quiet, Holds, Open};
use crate::packet::Flow;
use crate::stats::Counter;

impl FrontEnd {
    /// A packet without an entry. `bucket` stays locked until an entry is in it, so that two copies
    /// of a SYN on two processors make one connection.
    pub(crate) fn newcomer(
        &self,
        node: &Node,
        net: &SoftNet,
        mut skb: Skb,
        flow: &Flow,
        bucket: Bucket<'_>,
    ) -> Claim {
        let tuple = &flow.tuple;
        let announced = node.back_end.is_announced(tuple.vip);
        if self.stopping.load(Relaxed)
            || announced && node.back_end.owns(net, tuple.vip)
            || !node.classify.accepts(net, &skb, tuple)
        {
            drop(bucket);
            return Claim::Foreign(skb);
        }
        // Where peers serve the address, too, a SYN may be for a connection that one of them handed
        // over. TCP has to answer it: with an entry here it would take the connection's packets.
        let bucket = match announced {
            false => bucket,
            true => {
                drop(bucket);
                if flow.sockets().is_some_and(|s| skb.has_child(net, &s)) {
                    return Claim::Foreign(skb);
                }
                let bucket = self.table().and_then(|t| t.bucket(tuple));
                let Some(mut bucket) = bucket else {
                    return Claim::Foreign(skb);
                };
                // Its copy was quicker, on another processor; the client sends it again.
                if bucket.find(tuple).is_some() {
                    return refuse(node, Counter::Overtaken, skb);
                }
                bucket
            }
        };
        let segment = match flow.segment(&mut skb) {
            Ok(segment) => segment,
            Err(reason) => return refuse(node, reason.into(), skb),
        };
        if !flow.checksum_ok(&mut skb) {
            return refuse(node, Counter::Checksum, skb);
        }
        if segment.is_syn() {
            if let Err(why) = check_source(net, &mut skb, tuple) {
                return refuse(node, why, skb);
            }
            self.open(node, net, tuple, &segment, bucket, None);
            return Claim::Taken(Verdict::Stolen);
        }
        drop(bucket);
        if flow.sockets().is_some_and(|s| skb.has_socket(net, &s)) {
            return Claim::Foreign(skb);
        }
        if let Err(reason) = segment.check_flags() {
            return refuse(node, reason.into(), skb);
        }
        if let Err(why) = check_source(net, &mut skb, tuple) {
            return refuse(node, why, skb);
        }
        self.returning(node, net, skb, flow, &segment)
    }

    /// A segment that is no SYN, of no connection of this node: the third of a handshake by cookie, or
    /// a stray.
    fn returning(
        &self,
        node: &Node,
        net: &SoftNet,
        skb: Skb,
        flow: &Flow,
        segment: &Segment,
    ) -> Claim {
        let tuple = &flow.tuple;
        let Settings { config, secret, .. } = *self.settings.lock();
        let verdict = match self.cookies_are_out() {
            true => cookie::check(&config, &secret, tuple, segment, now()),
            false => Err(Reason::Stray),
        };
        let responder = match verdict {
            Ok(responder) => responder,
            Err(reason) => {
                node.stats.inc(reason.into());
                // While cookies are out, what checks badly may be a segment that overtook the one
                // with the cookie: a reset would end an honest client's connection.
                let reset = match reason {
                    Reason::Stray => reset_for(segment),
                    _ => None,
                };
                if let Some(reset) = reset {
                    send(node, net, tuple, &reset);
                }
                return Claim::Taken(Verdict::Drop(skb));
            }
        };
        let Some(mut bucket) = self.table().and_then(|t| t.bucket(tuple)) else {
            return Claim::Foreign(skb);
        };
        // Its copy may have been quicker, on another processor; then the client sends it again.
        if bucket.find(tuple).is_some() {
            return refuse(node, Counter::Overtaken, skb);
        }
        let made = self.insert(node, &mut bucket, tuple, responder, &config, None);
        let open = made.and_then(|id| Some((id, bucket.find_id(id)?.open_mut()?.1)));
        let Some((id, open)) = open else {
            // Counted where it could not be made.
            return Claim::Taken(Verdict::Drop(skb));
        };
        node.stats.inc(Counter::CookieAccepted);
        // The segment may carry the request.
        let step = self.with_context(node, |cx| open.on_packet(cx, flow, segment, skb));
        let deadline = open.deadline();
        self.stepped(node, net, flow, segment, bucket, id, deadline, step);
        Claim::Taken(Verdict::Stolen)
    }

    /// Opens a connection: an entry and a SYN-ACK, or a cookie.
    ///
    /// If it `follows` one of the same tuple that is over, with at least that sequence number, its entry
    /// takes the place of that one's. This also holds while too many handshakes are unfinished, as for a
    /// SYN that meets a TIME_WAIT in TCP: the entries do not become more, the client is evidently real,
    /// and a cookie cannot promise to lie above the former numbers. Where no entry can be made the
    /// former one stays, and the SYN finds it when it comes again. The same goes for a front-end that does
    /// not know the settings of the service: what it let pass unread could ask for another node's mount.
    pub(crate) fn open(
        &self,
        node: &Node,
        net: &SoftNet,
        tuple: &Tuple,
        segment: &Segment,
        mut bucket: Bucket<'_>,
        follows: Option<(ConnId, Seq)>,
    ) {
        if !node.services.are_known() {
            node.stats.inc(Counter::NoService);
            return;
        }
        let Settings { config, secret, .. } = *self.settings.lock();
        let half_open = Held::one(&self.half_open);
        let answer = if half_open.is_none() && follows.is_none() {
            node.stats.inc(Counter::CookieSent);
            self.cookie_sent.store(now().as_micros().max(1), Relaxed);
            cookie::answer(&config, &secret, tuple, segment, now()).map(Some)
        } else {
            let min_iss = follows.map(|(_, min_iss)| min_iss);
            Responder::open(&config, &secret, tuple, segment, min_iss, now()).map(
                |(responder, syn_ack)| {
                    self.insert(node, &mut bucket, tuple, responder, &config, half_open)
                        .map(|_| syn_ack)
                },
            )
        };
        let mut old = None;
        if let (Ok(Some(_)), Some((id, _))) = (&answer, follows) {
            node.stats.inc(Reason::Reused.into());
            old = bucket.remove(id);
        }
        drop(bucket);
        drop(old);
        match answer {
            Ok(Some(syn_ack)) => send(node, net, tuple, &syn_ack),
            Ok(None) => {}
            Err(reason) => node.stats.inc(reason.into()),
        }
    }

    /// Makes an entry; `None`, and counted, at the limit or without memory.
    fn insert(
        &self,
        node: &Node,
        bucket: &mut Bucket<'_>,
        tuple: &Tuple,
        responder: Responder,
        config: &Config,
        half_open: Option<Held>,
    ) -> Option<ConnId> {
        let Some(open) = Held::one(&self.open) else {
            node.stats.inc(Counter::OpenMax);
            return None;
        };
        let bytes = Held::none(&self.head_bytes);
        let open = Open::new(
            responder,
            config,
            Holds {
                open,
                half_open,
                bytes,
            },
        );
        let deadline = open.deadline();
        let boxed = KBox::new(open, quiet()).ok();
        let id = boxed.and_then(|open| bucket.insert(*tuple, State::Open(open), deadline));
        node.stats.inc(match id {
            Some(_) => Counter::Opened,
            None => Counter::NoMemory,
        });
        id
    }

    /// Was a cookie sent so recently that its answer may still come?
    fn cookies_are_out(&self) -> bool {
        let sent = self.cookie_sent.load(Relaxed);
        sent != 0 && now().saturating_since(Instant::from_micros(sent)) < cookie::MAX_AGE
    }
}

/// What the regular stack would think of the source of a packet, behind the hook. Asked about what may
/// open a connection, and costs two or three look-ups; packets of connections do not pay for it.
pub(crate) fn check_source(net: &SoftNet, skb: &mut Skb, tuple: &Tuple) -> Result<(), Counter> {
    let (Some(client), Some(vip)) = (tuple.client.addr.to_v4(), tuple.vip.addr.to_v4()) else {
        return Err(Counter::MartianSource);
    };
    // Routing lets a broadcast address of a network pass unless it has to look at the reverse path.
    if !tuple.client.addr.is_valid_source() || net.addr_type(client) != AddrType::Unicast {
        return Err(Counter::MartianSource);
    }
    skb.check_source(net, vip).map_err(|why| match why {
        BadSource::Martian => Counter::MartianSource,
        BadSource::ReversePath => Counter::ReversePath,
    })
}

/// Drops a packet, and counts it.
fn refuse(node: &Node, why: Counter, skb: Skb) -> Claim {
    node.stats.inc(why);
    Claim::Taken(Verdict::Drop(skb))
}
