// SPDX-License-Identifier: GPL-2.0

//! Packets of our own.

use crate::bindings;
use crate::net::Net;
use crate::route::{Error, Route};
use crate::skb::{append, Skb, IPPROTO_TCP, IP_LEN};
use crate::sync::BhDisabled;
use core::ptr::NonNull;
use kernel::sync::rcu;

/// Room in front of a packet for the headers of whatever device sends it.
const HEADROOM: usize = 128;
/// Linear packets of ours; what we have to say ourselves is short.
const MAX_LEN: usize = 4096;
/// "Do not fragment", as TCP's packets say.
const IP_DF: [u8; 2] = [0x40, 0];
/// The time to live of a packet that came from nowhere.
const HOPS: u8 = 64;

/// Bytes of an IPv4 header for a TCP segment of `len` bytes; the checksum is left to the stack.
pub(crate) fn ip_header(src: [u8; 4], dst: [u8; 4], ttl: u8, len: usize) -> [u8; IP_LEN] {
    let total = u16::try_from(len.saturating_add(IP_LEN)).unwrap_or(0);
    let [total_high, total_low] = total.to_be_bytes();
    let [df_high, df_low] = IP_DF;
    let [s0, s1, s2, s3] = src;
    let [d0, d1, d2, d3] = dst;
    [
        0x45,
        0,
        total_high,
        total_low, // version and length, service, total length
        0,
        0,
        df_high,
        df_low, // identification, flags
        ttl,
        IPPROTO_TCP,
        0,
        0, // hops, protocol, checksum
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ]
}

/// Sends a TCP segment, complete with its checksum, from any address.
///
/// # Context
///
/// Any but hard interrupts.
pub fn send(net: &Net, src: [u8; 4], dst: [u8; 4], tcp: &[u8]) -> Result<(), Error> {
    let _bh = BhDisabled::new();
    let _rcu = rcu::read_lock();
    let route = Route::from_any(net, src, dst)?;
    let packet = packet(src, dst, route.hop_limit(), tcp).ok_or(Error::NoMemory)?;
    // SAFETY: The packet is ours; it and the route's reference go to the stack.
    unsafe {
        let skb = packet.into_raw();
        bindings::lard_skb_untrack(skb);
        bindings::lard_skb_dst_set(skb, route.into_raw());
        bindings::ip_local_out(net.as_ptr(), core::ptr::null_mut(), skb);
    }
    Ok(())
}

/// A TCP segment, complete with its checksum, as if it had been received from `src` and then parked.
/// `None` without memory. Any context.
pub fn received(src: [u8; 4], dst: [u8; 4], tcp: &[u8]) -> Option<Skb> {
    let mut packet = packet(src, dst, HOPS, tcp)?;
    packet.untrack();
    Some(packet)
}

fn packet(src: [u8; 4], dst: [u8; 4], hops: u8, tcp: &[u8]) -> Option<Skb> {
    if tcp.len() > MAX_LEN {
        return None;
    }
    let header = ip_header(src, dst, hops, tcp.len());
    // SAFETY: The room that is asked for is the room that is filled, from the IP header on.
    unsafe {
        let raw = bindings::lard_skb_alloc(HEADROOM as u32, (IP_LEN + tcp.len()) as u32);
        let skb = NonNull::new(raw)?;
        append(raw, &header);
        append(raw, tcp);
        bindings::lard_skb_set_ipv4(raw, IP_LEN as u32);
        Some(Skb::from_raw(skb))
    }
}
