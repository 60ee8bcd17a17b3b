// SPDX-License-Identifier: GPL-2.0

//! Which connection an ICMP error is about.
//!
//! An error quotes the head of the packet that caused it. For a connection that was handed over
//! that packet left a back-end with the front-end's address as its source, so the error arrives at
//! the front-end and has to follow the client's packets. Without it path-MTU discovery of every
//! response is dead (kernel-rules 5).
//!
//! Source: RFC 792, RFC 1191 (type 3, code 4), RFC 1812 4.3.2.3 (how much is quoted).

use super::addr::{Addr, Endpoint, Tuple};

/// Bytes of an ICMP message that [`quoted_tuple`] reads at most: the ICMP header, an IPv4 header
/// with all options, and the first eight bytes of TCP.
pub const QUOTE_MAX: usize = 8 + 60 + 8;

const IPPROTO_TCP: u8 = 6;

const DEST_UNREACH: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// The connection that an ICMP error names, as the front-end keys it: the quoted packet went from
/// the VIP to the client, so its source is the VIP.
///
/// `icmp` starts at the ICMP header and may be cut off anywhere. `None` for what is not an error,
/// for a quoted packet that is not the first fragment of TCP, and for a quote too short to hold
/// both ports.
pub fn quoted_tuple(icmp: &[u8]) -> Option<Tuple> {
    let (head, quote) = icmp.split_first_chunk::<8>()?;
    let [kind, ..] = *head;
    if !matches!(kind, DEST_UNREACH | TIME_EXCEEDED | PARAMETER_PROBLEM) {
        return None;
    }
    let (ip, _) = quote.split_first_chunk::<20>()?;
    let [ver_ihl, _, _, _, _, _, frag_hi, frag_lo, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        *ip;
    let header_len = usize::from(ver_ihl & 0x0f).checked_mul(4)?;
    let fragment_offset = u16::from_be_bytes([frag_hi, frag_lo]) & 0x1fff;
    if ver_ihl >> 4 != 4 || header_len < 20 || proto != IPPROTO_TCP || fragment_offset != 0 {
        return None;
    }
    let [p0, p1, q0, q1] = *quote.get(header_len..)?.first_chunk::<4>()?;
    Some(Tuple {
        client: Endpoint {
            addr: Addr::from_v4([d0, d1, d2, d3]),
            port: u16::from_be_bytes([q0, q1]),
        },
        vip: Endpoint {
            addr: Addr::from_v4([s0, s1, s2, s3]),
            port: u16::from_be_bytes([p0, p1]),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A "fragmentation needed" about a packet from 10.0.0.2:8080 to 10.0.0.9:40000.
    fn frag_needed() -> [u8; 8 + 20 + 8] {
        let mut m = [0u8; 36];
        m[0] = 3;
        m[1] = 4;
        m[6..8].copy_from_slice(&1400u16.to_be_bytes());
        m[8] = 0x45;
        m[8 + 9] = 6;
        m[8 + 12..8 + 16].copy_from_slice(&[10, 0, 0, 2]);
        m[8 + 16..8 + 20].copy_from_slice(&[10, 0, 0, 9]);
        m[28..30].copy_from_slice(&8080u16.to_be_bytes());
        m[30..32].copy_from_slice(&40000u16.to_be_bytes());
        m
    }

    #[test]
    fn names_the_connection_as_the_front_end_keys_it() {
        let tuple = quoted_tuple(&frag_needed()).unwrap();
        assert_eq!(tuple.vip.port, 8080);
        assert_eq!(tuple.client.port, 40000);
        assert_eq!(tuple.vip.addr, Addr::from_v4([10, 0, 0, 2]));
        assert_eq!(tuple.client.addr, Addr::from_v4([10, 0, 0, 9]));
    }

    #[test]
    fn skips_options_of_the_quoted_header() {
        let plain = frag_needed();
        let mut m = [0u8; 36 + 40];
        m[..28].copy_from_slice(&plain[..28]);
        m[8] = 0x4f;
        m[68..76].copy_from_slice(&plain[28..]);
        assert_eq!(quoted_tuple(&m), quoted_tuple(&plain));
    }

    #[test]
    fn refuses_what_is_no_error_about_tcp() {
        for (at, value) in [(0, 8), (8, 0x65), (8, 0x44), (8 + 9, 17), (8 + 7, 1)] {
            let mut m = frag_needed();
            m[at] = value;
            assert_eq!(quoted_tuple(&m), None, "byte {at} = {value}");
        }
    }

    #[test]
    fn a_quote_cut_off_anywhere_is_refused_or_whole() {
        let m = frag_needed();
        for len in 0..m.len() {
            assert_eq!(quoted_tuple(&m[..len]).is_some(), len >= 32, "{len} bytes");
        }
    }
}
