// SPDX-License-Identifier: GPL-2.0

//! A segment to send, and how it becomes bytes.
//!
//! ```text
//! src port, dst port  |  seq  |  ack  |  offset flags window  |  checksum 0  |  options  |  payload
//! ```
//!
//! Own segments are small and rare, at most a few per connection, so their checksum is computed
//! here in full and the shell need not know how.

use super::super::addr::{Addr, Tuple};
use super::options::Options;
use super::segment::{Flags, Segment, MIN_HEADER};
use super::seq::Seq;

/// A segment from the front-end to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentOut {
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgement number; zero without [`Flags::ACK`].
    pub ack: Seq,
    /// Flags.
    pub flags: Flags,
    /// The window field as it goes out, scaled already.
    pub window: u16,
    /// Options.
    pub options: Options,
    /// Payload: nothing, or one of the front-end's own replies.
    pub payload: &'static [u8],
}

impl SegmentOut {
    /// A buffer of this size takes every segment the front-end makes.
    pub const MAX_LEN: usize = MIN_HEADER + Options::MAX_EMITTED + super::reply::MAX_REPLY;

    /// A reset with this number, and without an acknowledgement.
    pub fn reset(seq: Seq) -> Self {
        SegmentOut {
            seq,
            ack: Seq(0),
            flags: Flags::RST,
            window: 0,
            options: Options::default(),
            payload: &[],
        }
    }

    /// Writes the segment, checksum included, into `out`. Returns its length, or `None` if `out` is
    /// too short.
    pub fn emit(&self, tuple: &Tuple, out: &mut [u8]) -> Option<usize> {
        let options_len = self.options.emit(out.get_mut(MIN_HEADER..)?)?;
        let header_len = MIN_HEADER.checked_add(options_len)?;
        let len = header_len.checked_add(self.payload.len())?;
        out.get_mut(header_len..len)?.copy_from_slice(self.payload);

        let (src, dst) = (tuple.vip, tuple.client);
        let [s0, s1] = src.port.to_be_bytes();
        let [d0, d1] = dst.port.to_be_bytes();
        let [q0, q1, q2, q3] = self.seq.0.to_be_bytes();
        let [a0, a1, a2, a3] = self.ack.0.to_be_bytes();
        let [w0, w1] = self.window.to_be_bytes();
        // CAST: at most 40 bytes, ten words.
        let offset = ((header_len / 4) as u8) << 4;
        let flags = self.flags.0;
        out.get_mut(..MIN_HEADER)?.copy_from_slice(&[
            s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, 0, 0, 0, 0,
        ]);
        let sum = checksum(src.addr, dst.addr, out.get(..len)?);
        out.get_mut(16..18)?.copy_from_slice(&sum.to_be_bytes());
        Some(len)
    }
}

/// The reset that answers a segment no connection claims (RFC 9293, 3.10.7.1), unless it is a reset
/// itself.
pub fn reset_for(seg: &Segment) -> Option<SegmentOut> {
    if seg.is_rst() {
        return None;
    }
    if seg.flags.contains(Flags::ACK) {
        return Some(SegmentOut::reset(seg.ack));
    }
    Some(SegmentOut {
        ack: seg.seq_end(),
        flags: Flags::RST.with(Flags::ACK),
        ..SegmentOut::reset(Seq(0))
    })
}

/// The checksum of `segment` between two addresses. Over a segment that carries its checksum the
/// result is zero if that is right.
pub fn checksum(src: Addr, dst: Addr, segment: &[u8]) -> u16 {
    const TCP: u64 = 6;
    // CAST: segments are shorter than 4 GiB, as the IPv6 pseudo header's length field is.
    let mut sum = TCP + segment.len() as u64;
    sum = match (src.to_v4(), dst.to_v4()) {
        (Some(src), Some(dst)) => add_words(add_words(sum, &src), &dst),
        (Some(_), None) | (None, Some(_)) | (None, None) => {
            add_words(add_words(sum, &src.0), &dst.0)
        }
    };
    sum = add_words(sum, segment);
    // 2⁶⁴ leaves room for the words of any buffer; fold what gathered above sixteen bits.
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // CAST: folded.
    !(sum as u16)
}

fn add_words(mut sum: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    if let &[last] = words.remainder() {
        sum = sum.wrapping_add(u64::from(last) << 8);
    }
    for word in words {
        if let &[a, b] = word {
            sum = sum.wrapping_add(u64::from(u16::from_be_bytes([a, b])));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::super::addr::Endpoint;
    use super::super::options::Timestamp;
    use super::*;

    fn tuple(v6: bool) -> Tuple {
        let addr = |last| match v6 {
            true => Addr([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
            false => Addr::from_v4([192, 0, 2, last]),
        };
        Tuple::new(Endpoint::new(addr(1), 40_000), Endpoint::new(addr(2), 8080))
    }

    fn segment() -> SegmentOut {
        SegmentOut {
            seq: Seq(0x0102_0304),
            ack: Seq(0x0506_0708),
            flags: Flags::ACK.with(Flags::PSH),
            window: 0x1234,
            options: Options {
                ts: Some(Timestamp { val: 5, ecr: 6 }),
                ..Options::default()
            },
            payload: b"abc",
        }
    }

    #[test]
    fn what_is_emitted_parses_and_sums_up() {
        for v6 in [false, true] {
            let t = tuple(v6);
            let mut buf = [0xa5; SegmentOut::MAX_LEN];
            let out = segment();
            let n = out.emit(&t, &mut buf).unwrap();
            assert_eq!(checksum(t.vip.addr, t.client.addr, &buf[..n]), 0);
            let back = Segment::parse(&buf, n).unwrap();
            assert_eq!((back.src_port, back.dst_port), (8080, 40_000));
            assert_eq!(
                (back.seq, back.ack, back.window),
                (out.seq, out.ack, out.window)
            );
            assert_eq!((back.flags, back.options), (out.flags, out.options));
            assert_eq!(&buf[usize::from(back.header_len)..n], b"abc");
            assert!(out.emit(&t, &mut buf[..n - 1]).is_none());
        }
    }

    #[test]
    fn the_checksum_is_the_one_of_rfc_1071() {
        // The RFC's example words 0001 f203 f4f5 f6f7 sum to ddf2; here with a zero pseudo header
        // plus protocol 6 and length 8.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let sum = checksum(Addr::from_v4([0; 4]), Addr::from_v4([0; 4]), &bytes);
        assert_eq!(!sum, 0xddf2 + 6 + 8);
        let odd = checksum(Addr::from_v4([0; 4]), Addr::from_v4([0; 4]), &[0x12]);
        assert_eq!(!odd, 0x1200 + 6 + 1);
    }

    #[test]
    fn resets_are_never_answered_and_fit_what_they_answer() {
        let mut bytes = [0; 20];
        assert!(segment().emit(&tuple(false), &mut bytes).is_none());
        let mut seg = Segment {
            src_port: 1,
            dst_port: 2,
            seq: Seq(100),
            ack: Seq(200),
            flags: Flags::ACK,
            window: 0,
            header_len: 20,
            payload_len: 10,
            options: Options::default(),
        };
        let r = reset_for(&seg).unwrap();
        assert_eq!((r.seq, r.flags), (Seq(200), Flags::RST));
        seg.flags = Flags::FIN;
        let r = reset_for(&seg).unwrap();
        assert_eq!(
            (r.seq, r.ack, r.flags),
            (Seq(0), Seq(111), Flags::RST.with(Flags::ACK))
        );
        seg.flags = Flags::RST;
        assert_eq!(reset_for(&seg), None);
    }
}
