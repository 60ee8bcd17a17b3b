// SPDX-License-Identifier: GPL-2.0

//! Which stack gets a packet: the hook's first decision, and the rules behind it.
//!
//! A packet of a connection that is in the front-end's table is the front-end's whatever the rules say
//! now. A packet for an address and port of another node's front-end was passed on to this back-end.
//! The rules are asked for what is left, that is for new connections.
//!
//! # Locking
//!
//! The rules have a lock of their own, a leaf; it is taken once a new connection. Whether a port is
//! served at all is a bit that is read without it.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel_net::net::SoftNet;
use kernel_net::skb::{Skb, Verdict};
use kernel_net::sync::BhLock;
use lard_core::addr::Tuple;
use lard_core::classify::{self, Action, Rule, To};

use crate::front_end::Claim;
use crate::netns::Node;
use crate::packet::Packet;
use crate::stats::Counter;

const PORT_WORDS: usize = (1 << 16) / u64::BITS as usize;

/// The rules of one namespace.
pub(crate) struct Classify {
    rules: BhLock<Rules>,
    /// A bit a port: can a rule accept a packet for it, or could one before? The connections of
    /// then still have packets; a bit too many costs a look-up.
    ports: KVec<Atomic<u64>>,
}

#[derive(Default)]
struct Rules {
    list: KVec<Rule>,
    needs_local: bool,
}

impl Classify {
    /// No rules: everything passes. May sleep.
    pub(crate) fn new() -> Result<Self> {
        let mut ports = KVec::with_capacity(PORT_WORDS, GFP_KERNEL)?;
        for _ in 0..PORT_WORDS {
            ports.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Self {
            rules: kernel_net::new_bh_lock!(Rules::default(), c"lard:rules"),
            ports,
        })
    }

    /// Replaces all rules. Rules without a port speak about the front-end's port, `fe_port`; without
    /// any rule the front-end serves that port on all addresses of the node. Connections that were
    /// accepted before go on. May sleep.
    pub(crate) fn set(&self, fe_port: u16, rules: &[Rule]) -> Result {
        let mut list = KVec::with_capacity(rules.len().max(1), GFP_KERNEL)?;
        list.extend_from_slice(rules, GFP_KERNEL)?;
        if list.is_empty() {
            let rule = Rule {
                action: Action::Accept,
                to: To::Local,
                port: Some(fe_port),
                ..Rule::default()
            };
            list.push(rule, GFP_KERNEL)?;
        }
        for (word, bits) in self.ports.iter().enumerate() {
            let accepted = list.iter().filter(|r| r.action == Action::Accept);
            let ports = accepted.map(|r| usize::from(r.port.unwrap_or(fe_port)));
            let mask = ports
                .filter(|port| port / 64 == word)
                .fold(0u64, |mask, port| mask | 1 << (port % 64));
            bits.store(mask | bits.load(Relaxed), Relaxed);
        }
        let needs_local = classify::needs_local(&list);
        let old = core::mem::replace(&mut *self.rules.lock(), Rules { list, needs_local });
        drop(old);
        Ok(())
    }

    /// The rules, first match first. May sleep.
    pub(crate) fn rules(&self) -> Result<KVec<Rule>> {
        let mut list = KVec::with_capacity(classify::MAX_RULES, GFP_KERNEL)?;
        let rules = self.rules.lock();
        // Within the capacity: nothing is allocated under the lock.
        list.extend_from_slice(&rules.list, GFP_ATOMIC)?;
        Ok(list)
    }

    /// May a connection to this port be ours?
    fn serves(&self, port: u16) -> bool {
        let port = usize::from(port);
        let word = self
            .ports
            .get(port / 64)
            .map_or(0, |word| word.load(Relaxed));
        word & 1 << (port % 64) != 0
    }

    /// Does a rule give this packet, which opens a connection, to the front-end? Softirq.
    pub(crate) fn accepts(&self, net: &SoftNet, skb: &Skb, tuple: &Tuple) -> bool {
        let Some(dst) = tuple.vip.addr.to_v4() else {
            return false;
        };
        let mut name = [0; 16];
        let len = skb.ifname(&mut name);
        let rules = self.rules.lock();
        let packet = classify::Packet {
            iface: name.get(..len).unwrap_or_default(),
            src: tuple.client.addr,
            dst: tuple.vip.addr,
            dport: tuple.vip.port,
            dst_is_local: rules.needs_local && net.addr_is_local(dst),
        };
        classify::first_match(&rules.list, &packet) == Action::Accept
    }
}

/// The hook: every IPv4 packet that comes in. Softirq, RCU held.
///
/// What is not for this host, a bridge's copy, or of a VRF is none of our business; nor is what the node
/// sends to itself.
pub(crate) fn pre_routing(node: &Node, net: &SoftNet, mut skb: Skb) -> Verdict {
    if !skb.is_for_us() || skb.is_bridged() || skb.is_of_vrf() || skb.is_lo() {
        return Verdict::Accept(skb);
    }
    match Packet::look(&mut skb) {
        Packet::Tcp(flow) => {
            let vip = flow.tuple.vip;
            if !node.classify.serves(vip.port) {
                return node.back_end.packet(node, net, skb, &flow.tuple);
            }
            match node.front_end.packet(node, net, skb, &flow) {
                Claim::Taken(verdict) => verdict,
                Claim::Foreign(skb) => node.back_end.packet(node, net, skb, &flow.tuple),
            }
        }
        Packet::Fragment(tuple) => {
            let ours = node.classify.serves(tuple.vip.port)
                && node.classify.accepts(net, &skb, &tuple)
                || node.back_end.owns(net, tuple.vip);
            if !ours {
                return Verdict::Accept(skb);
            }
            node.stats.inc(Counter::Fragment);
            Verdict::Drop(skb)
        }
        Packet::Error(tuple) => {
            let skb = match node.front_end.error(node, net, skb, &tuple) {
                Claim::Taken(verdict) => return verdict,
                Claim::Foreign(skb) => skb,
            };
            node.back_end.error(node, net, skb, &tuple)
        }
        Packet::Other => Verdict::Accept(skb),
    }
}
