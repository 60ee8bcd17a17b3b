// SPDX-License-Identifier: GPL-2.0

//! The segment that carries a connection into TCP.
//!
//! Its header is made from nothing, so that whatever else the client had in its own stays behind,
//! and its memory is sized so that the socket's window is not cut down for a wasteful packet.

use super::{Handoff, Refusal};
use crate::bindings;
use crate::net::SoftNet;
use crate::pernet;
use crate::segment::ip_header;
use crate::skb::{append, IP_LEN};
use core::ptr::NonNull;

pub(super) const TCP_LEN: usize = 20;
const TS_LEN: usize = 12;
pub(super) const MAX_TCP_LEN: usize = TCP_LEN + TS_LEN;
/// A packet up to this length is one linear piece of a page, charged for what it takes; a longer one
/// is made of whole pages. Either way the socket's window is not cut down for a wasteful packet.
const MAX_LINEAR: usize = 3072;
/// Pages are asked for in pieces up to this power of two.
const PAGE_ORDER: i32 = 3;
/// What the received packet's time to live says; servers with a minimum see a neighbour.
const TTL: u8 = 255;

const FIN: u8 = 0x01;
pub(crate) const RST: u8 = 0x04;
const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// A segment that was never received.
///
/// # Invariants
///
/// The buffer is owned, and its data begins at the TCP header.
pub(super) struct Packet {
    pub(super) skb: NonNull<bindings::sk_buff>,
    pub(super) tcp_len: usize,
    pub(super) ifindex: i32,
}

impl Packet {
    pub(super) fn new(
        net: &SoftNet,
        ifindex: u32,
        handoff: &Handoff,
        payload: &[u8],
    ) -> Result<Self, Refusal> {
        let len = payload.len();
        let mut flags = ACK | PSH;
        if handoff.fin {
            flags |= FIN;
        }
        let seq = handoff.irs.wrapping_add(1);
        let packet = Self::with_header(net, ifindex, handoff, seq, flags, len)?;
        // SAFETY: The packet was made with room for it behind its header; the function checks that, too.
        // Lengths were checked against what a packet can hold.
        let err = unsafe {
            bindings::skb_store_bits(
                packet.skb.as_ptr(),
                packet.tcp_len as i32,
                payload.as_ptr().cast(),
                len as i32,
            )
        };
        if err != 0 {
            return Err(Refusal::NoMemory);
        }
        // Without this TCP takes a merged packet for a driver's mistake, and learns a wrong segment
        // size from it.
        let mss = usize::from(handoff.mss.max(1));
        if len > mss {
            let segs = u16::try_from(len.div_ceil(mss)).unwrap_or(u16::MAX);
            // SAFETY: The buffer is owned.
            unsafe { bindings::lard_skb_set_gso(packet.skb.as_ptr(), handoff.mss, segs) };
        }
        Ok(packet)
    }

    pub(super) fn with_header(
        net: &SoftNet,
        ifindex: u32,
        handoff: &Handoff,
        seq: u32,
        flags: u8,
        len: usize,
    ) -> Result<Self, Refusal> {
        let (tcp, tcp_len) = tcp_header(handoff, seq, flags);
        let tcp = tcp.get(..tcp_len).unwrap_or(&[]);
        let ip = ip_header(
            handoff.flow.client,
            handoff.flow.server,
            TTL,
            tcp_len.saturating_add(len),
        );
        let linear = IP_LEN + tcp_len;
        let dev = device(net, ifindex);
        // SAFETY: The room asked for is the room filled. The device is that of the control link or
        // the loopback, both of which stay for this RCU section, as does the route.
        unsafe {
            let skb = if linear + len <= MAX_LINEAR {
                bindings::lard_skb_alloc(0, (linear + len) as u32)
            } else {
                let mut err = 0;
                bindings::alloc_skb_with_frags(
                    linear,
                    len,
                    PAGE_ORDER,
                    &raw mut err,
                    kernel::bindings::GFP_ATOMIC | kernel::bindings::__GFP_NOWARN,
                )
            };
            let skb = NonNull::new(skb).ok_or(Refusal::NoMemory)?;
            // INVARIANT: The buffer is new; its data begins at the TCP header after the pull below.
            let packet = Self {
                skb,
                tcp_len,
                ifindex: (*dev).ifindex,
            };
            let skb = skb.as_ptr();
            append(skb, &ip);
            append(skb, tcp);
            if linear + len <= MAX_LINEAR {
                bindings::skb_put(skb, len as u32);
            } else {
                bindings::lard_skb_add_paged_len(skb, len as u32);
            }
            bindings::lard_skb_set_ipv4(skb, IP_LEN as u32);
            bindings::lard_skb_set_received(skb, dev);
            let route = pernet::local_route(net).ok_or(Refusal::NoMemory)?;
            bindings::lard_skb_dst_set_noref(skb, route.as_ptr());
            bindings::lard_skb_untrack(skb);
            bindings::skb_pull(skb, IP_LEN as u32);
            Ok(packet)
        }
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: The buffer is owned.
        unsafe { bindings::lard_skb_free(self.skb.as_ptr()) };
    }
}

/// The device with this number, or the loopback device: what a packet that did not just come by a
/// device pretends to have come by.
pub(crate) fn device(net: &SoftNet, ifindex: u32) -> *mut bindings::net_device {
    // SAFETY: RCU is held, and the namespace alive, and so is its loopback device.
    unsafe {
        let dev = bindings::dev_get_by_index_rcu(net.as_ptr(), i32::try_from(ifindex).unwrap_or(0));
        if dev.is_null() {
            (*net.as_ptr()).loopback_dev
        } else {
            dev
        }
    }
}

/// A header made from nothing: whatever else the client had in its own stays behind.
fn tcp_header(handoff: &Handoff, seq: u32, flags: u8) -> ([u8; MAX_TCP_LEN], usize) {
    let [c0, c1] = handoff.flow.client_port.to_be_bytes();
    let [v0, v1] = handoff.flow.server_port.to_be_bytes();
    let [s0, s1, s2, s3] = seq.to_be_bytes();
    let [a0, a1, a2, a3] = handoff.iss.wrapping_add(1).to_be_bytes();
    let [w0, w1] = handoff.window.to_be_bytes();
    let len = if handoff.ts.is_some() {
        MAX_TCP_LEN
    } else {
        TCP_LEN
    };
    let words = (len / 4) as u8;
    let (val, echo) = handoff.ts.map_or((0, 0), |ts| (ts.recent, ts.last_sent));
    let [t0, t1, t2, t3] = val.to_be_bytes();
    let [e0, e1, e2, e3] = echo.to_be_bytes();
    let header = [
        c0,
        c1,
        v0,
        v1,
        s0,
        s1,
        s2,
        s3,
        a0,
        a1,
        a2,
        a3, // ports, sequence, acknowledgement
        words << 4,
        flags,
        w0,
        w1,
        0,
        0,
        0,
        0, // length, flags, window, checksum, urgent
        1,
        1,
        8,
        10,
        t0,
        t1,
        t2,
        t3,
        e0,
        e1,
        e2,
        e3, // two fillers, timestamps
    ];
    (header, len)
}
