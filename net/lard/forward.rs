// SPDX-License-Identifier: GPL-2.0

//! Passing a client's packets on to the back-end that has its connection.
//!
//! Last station of a packet on the front-end. Transmission is direct (`dr`): the packet leaves as it
//! came, with its TTL one lower, towards the back-end's address on the common link. A back-end's
//! route is looked up once and kept.
//!
//! # Locking
//!
//! The list of back-ends has a lock of its own, taken when a connection is handed off. A connection
//! in forwarding state holds a reference, so the way of a packet takes no lock here.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;
use kernel_net::net::SoftNet;
use kernel_net::route::{Error, RouteCache};
use kernel_net::skb::{Skb, Verdict};
use kernel_net::sync::BhLock;
use lard_core::addr::{Addr, NodeId, Tuple};
use lard_core::policy::MAX_NODES;
use lard_core::time::Instant;

use crate::netns::Node;
use crate::stats::Counter;

/// A back-end as the destination of packets.
pub(crate) struct BackEnd {
    node: NodeId,
    addr: [u8; 4],
    /// `None`: the back-end is this node itself.
    route: Option<RouteCache>,
    /// Since when there has been no control connection to report ends on, in µs; 0 while there is.
    mute: Atomic<u64>,
    /// Was that because nothing was heard of it any more?
    silent: Atomic<bool>,
}

/// The back-ends that connections have been handed to.
pub(crate) struct Forward {
    back_ends: BhLock<[Option<Arc<BackEnd>>; MAX_NODES]>,
}

impl Forward {
    pub(crate) fn new() -> Self {
        Self {
            back_ends: kernel_net::new_bh_lock!([const { None }; MAX_NODES], c"lard:back-ends"),
        }
    }

    /// Learns that `node` is reached at `addr`, or is this node itself, and that it can report the end
    /// of connections. May sleep.
    pub(crate) fn learn(&self, node: NodeId, addr: Addr, local: bool) -> Result {
        let addr = addr.to_v4().ok_or(EAFNOSUPPORT)?;
        let route = match local {
            true => None,
            false => Some(RouteCache::new(addr)?),
        };
        let fresh = Arc::new(
            BackEnd {
                node,
                addr,
                route,
                mute: Atomic::new(0),
                silent: Atomic::new(false),
            },
            GFP_KERNEL,
        )?;
        let old = {
            let mut all = self.back_ends.lock();
            let place = usize::from(node.0)
                .checked_sub(1)
                .and_then(|i| all.get_mut(i));
            let place = place.ok_or(EINVAL)?;
            match place {
                // Routes that are in use are better than new ones.
                Some(known) if known.addr == addr && known.route.is_none() == local => {
                    known.mute.store(0, Relaxed);
                    known.silent.store(false, Relaxed);
                    Some(fresh)
                }
                _ => place.replace(fresh),
            }
        };
        drop(old);
        Ok(())
    }

    /// Notes that `node` has no way any more to report the end of connections, and whether that is
    /// because it has fallen silent. Any context but hard irq.
    pub(crate) fn lost(&self, node: NodeId, now: Instant, silent: bool) {
        if let Some(back_end) = self.back_end(node) {
            back_end.silent.store(silent, Relaxed);
            back_end.mute.store(now.as_micros().max(1), Relaxed);
        }
    }

    /// The way to `node`, if it has ever been learnt. Any context but hard irq.
    pub(crate) fn back_end(&self, node: NodeId) -> Option<Arc<BackEnd>> {
        let all = self.back_ends.lock();
        all.get(usize::from(node.0).checked_sub(1)?)?.clone()
    }
}

impl BackEnd {
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Its internal address.
    pub(crate) fn addr(&self) -> [u8; 4] {
        self.addr
    }

    /// Since when it has had no way to report the end of connections.
    pub(crate) fn mute(&self) -> Option<Instant> {
        match self.mute.load(Relaxed) {
            0 => None,
            since => Some(Instant::from_micros(since)),
        }
    }

    /// Is its machine dead, or out of reach? A node whose control connection was closed goes on with
    /// what it has.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Relaxed)
    }

    /// Passes a packet of an adopted connection on. Softirq, or bottom halves off.
    pub(crate) fn pass(&self, node: &Node, net: &SoftNet, skb: Skb, tuple: &Tuple) -> Verdict {
        let Some(route) = &self.route else {
            return node.back_end.deliver(node, net, skb, tuple);
        };
        match skb.forward(net, route) {
            Ok(()) => node.stats.inc(Counter::Forwarded),
            Err(why) => node.stats.inc(not_passed(why)),
        }
        Verdict::Stolen
    }

    /// Passes an ICMP error about an adopted connection on. One about a local child needs no help:
    /// its address is local, and the regular stack finds the socket.
    pub(crate) fn pass_error(&self, node: &Node, net: &SoftNet, skb: Skb) -> Verdict {
        let Some(route) = &self.route else {
            return Verdict::Accept(skb);
        };
        match skb.forward(net, route) {
            Ok(()) => node.stats.inc(Counter::ForwardedIcmp),
            Err(why) => node.stats.inc(not_passed(why)),
        }
        Verdict::Stolen
    }
}

/// What counts a packet that was not passed on.
fn not_passed(why: Error) -> Counter {
    match why {
        Error::NoRoute | Error::NotUnicast | Error::Gateway => Counter::ForwardNoRoute,
        Error::Ttl => Counter::ForwardTtl,
        Error::NoMemory => Counter::NoMemory,
    }
}
