// SPDX-License-Identifier: GPL-2.0

//! Keeping TCP quiet while a connection is injected.
//!
//! TCP answers a segment that it does not like with a RST, in the same call and on the same CPU. The
//! front-end still has the connection, and may hand it to another node, so that RST must not leave. An
//! ACK may, but the child that it belongs to is not known as one yet.

use super::packet::TCP_LEN;
use crate::bindings;
use crate::skb::{Flow, IPPROTO_TCP, IP_LEN};

/// While it lives, this CPU knows a packet of the tuple.
pub(super) struct Mark(*mut u32);

impl Mark {
    pub(super) fn set(flow: &Flow) -> Self {
        // SAFETY: Softirqs are off, so the task stays on this CPU and nobody else writes its mark.
        unsafe {
            let mark = bindings::lard_inject_mark();
            mark.write_volatile(u32::from_ne_bytes(flow.client));
            mark.add(1).write_volatile(u32::from_ne_bytes(flow.server));
            mark.add(2).write_volatile(ports(flow));
            mark.add(3).write_volatile(1);
            Self(mark)
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: As in `set`.
        unsafe { self.0.add(3).write_volatile(0) };
    }
}

/// Both ports in one word.
fn ports(flow: &Flow) -> u32 {
    u32::from(flow.client_port) << 16 | u32::from(flow.server_port)
}

/// The TCP flags of a packet, on its way out, of the tuple that is being injected on this CPU.
///
/// # Safety
///
/// `skb` is a packet in the LOCAL_OUT hook.
pub(crate) unsafe fn answers_injection(skb: *mut bindings::sk_buff) -> Option<u8> {
    // SAFETY: Another CPU's mark may be read when the task is moved meanwhile; it says as well which
    // tuple is being injected. The function that copies checks the length.
    unsafe {
        let mark = bindings::lard_inject_mark();
        if mark.add(3).read_volatile() == 0 {
            return None;
        }
        let mut raw = [0u8; IP_LEN + TCP_LEN];
        if bindings::skb_copy_bits(skb, 0, raw.as_mut_ptr().cast(), raw.len() as i32) != 0 {
            return None;
        }
        let [vihl, _, _, _, _, _, _, _, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3, v0, v1, c0, c1, ..] =
            raw;
        // The fourteenth byte of the TCP header.
        let flags = raw.get(IP_LEN + 13).copied().unwrap_or(0);
        let flow = Flow {
            client: [d0, d1, d2, d3],
            client_port: u16::from_be_bytes([c0, c1]),
            server: [s0, s1, s2, s3],
            server_port: u16::from_be_bytes([v0, v1]),
        };
        let matches = vihl == 0x45
            && proto == IPPROTO_TCP
            && mark.read_volatile() == u32::from_ne_bytes(flow.client)
            && mark.add(1).read_volatile() == u32::from_ne_bytes(flow.server)
            && mark.add(2).read_volatile() == ports(&flow);
        matches.then_some(flags)
    }
}
