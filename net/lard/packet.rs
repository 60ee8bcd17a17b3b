// SPDX-License-Identifier: GPL-2.0

//! What the hook needs to know of a packet before anybody claims it: one look at the headers.
//!
//! `PRE_ROUTING` comes after `ip_rcv()`, so the IPv4 header is whole, its checksum is right and the
//! packet is cut to its length; nothing else about it can be trusted.

#![forbid(unsafe_code)]

use kernel_net::skb::Skb;
use lard_core::addr::{Addr, Endpoint, Tuple};
use lard_core::icmp;
use lard_core::tcp::{Reason, Segment};

use crate::back_end;

const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;

/// More fragments, and the offset.
const FRAGMENT: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// The longest TCP header.
const TCP_HEADER_MAX: usize = 60;

/// A packet as far as it has been looked at.
pub(crate) enum Packet {
    /// TCP from a client, or what a front-end passed on.
    Tcp(Flow),
    /// A piece of a TCP packet that was not put together again before the hook.
    Fragment(Tuple),
    /// An ICMP error about a packet that left with one of the cluster's addresses as its source.
    Error(Tuple),
    /// Nothing of ours.
    Other,
}

/// Where a TCP packet belongs, and where its TCP header starts.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) tuple: Tuple,
    tcp_at: usize,
}

impl Packet {
    /// Looks at a packet. Softirq.
    pub(crate) fn look(skb: &mut Skb) -> Packet {
        let Some((
            &[ver_ihl, _, _, _, _, _, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3],
            ports,
        )) = skb.pull(24).and_then(|b| b.split_first_chunk::<20>())
        else {
            return Packet::Other;
        };
        let tcp_at = usize::from(ver_ihl & 0x0f) * 4;
        let fragment = u16::from_be_bytes([f0, f1]);
        let (src, dst) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
        match proto {
            IPPROTO_TCP if fragment & FRAGMENT_OFFSET == 0 => {
                let without_options = ports.first_chunk::<4>().copied();
                let ports = match tcp_at {
                    20 => without_options,
                    // With IP options: twelve at a time is rare enough to look a second time.
                    _ => skb
                        .pull(tcp_at + 4)
                        .and_then(|b| b.last_chunk::<4>().copied()),
                };
                let Some([p0, p1, q0, q1]) = ports else {
                    return Packet::Other;
                };
                let tuple = Tuple::new(
                    Endpoint::new(Addr::from_v4(src), u16::from_be_bytes([p0, p1])),
                    Endpoint::new(Addr::from_v4(dst), u16::from_be_bytes([q0, q1])),
                );
                match fragment & FRAGMENT {
                    0 => Packet::Tcp(Flow { tuple, tcp_at }),
                    _ => Packet::Fragment(tuple),
                }
            }
            IPPROTO_ICMP if fragment & FRAGMENT == 0 => Self::error(skb, tcp_at),
            _ => Packet::Other,
        }
    }

    fn error(skb: &mut Skb, icmp_at: usize) -> Packet {
        let len = skb.len().min(icmp_at + icmp::QUOTE_MAX);
        let quoted = skb
            .pull(len)
            .and_then(|b| icmp::quoted_tuple(b.get(icmp_at..)?));
        quoted.map_or(Packet::Other, Packet::Error)
    }
}

impl Flow {
    /// Parses the TCP header.
    pub(crate) fn segment(&self, skb: &mut Skb) -> Result<Segment, Reason> {
        let len = skb.len();
        let bytes = skb
            .pull(len.min(self.tcp_at + TCP_HEADER_MAX))
            .unwrap_or_default();
        Segment::parse(
            bytes.get(self.tcp_at..).unwrap_or_default(),
            len.saturating_sub(self.tcp_at),
        )
    }

    /// Is the TCP checksum right?
    pub(crate) fn checksum_ok(&self, skb: &mut Skb) -> bool {
        skb.tcp_checksum_ok(self.tcp_at)
    }

    /// Where the payload of `segment` starts in the packet.
    pub(crate) fn payload_at(&self, segment: &Segment) -> usize {
        self.tcp_at + usize::from(segment.header_len)
    }

    /// The sockets that the packet could belong to.
    pub(crate) fn sockets(&self) -> Option<kernel_net::skb::Flow> {
        back_end::flow(&self.tuple)
    }

    /// Takes the urgent pointer away: the server would skip the urgent byte, and the head parser did
    /// not. `false` without memory: then it must not be passed on.
    pub(crate) fn strip_urgent(&self, skb: &mut Skb) -> bool {
        skb.strip_urg(self.tcp_at)
    }
}
