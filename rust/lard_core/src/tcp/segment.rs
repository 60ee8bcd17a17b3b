// SPDX-License-Identifier: GPL-2.0

//! A received segment, checked once.
//!
//! The payload stays where it is, possibly in page fragments; only its length is known here. The
//! checksum is the shell's part, because the network card may have verified it.

use super::options::Options;
use super::reason::Reason;
use super::seq::Seq;

/// The fixed part of a TCP header.
pub const MIN_HEADER: usize = 20;

/// The longest TCP header there can be: what the shell should make readable, if there is as much.
pub const MAX_HEADER: usize = 60;

/// The flag bits of a header, FIN to CWR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The sender is done.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronise.
    pub const SYN: Flags = Flags(0x02);
    /// Reset.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgement field is significant.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer is significant.
    pub const URG: Flags = Flags(0x20);

    /// Are all flags of `other` set?
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Is any flag of `other` set?
    #[inline]
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// The flags of both.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// The header of a received segment, and how much payload follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first payload byte, or of the SYN.
    pub seq: Seq,
    /// Acknowledgement number; meaningful with [`Flags::ACK`] only.
    pub ack: Seq,
    /// Flags.
    pub flags: Flags,
    /// The window field as it stands there, not scaled.
    pub window: u16,
    /// Length of the header: where the payload begins.
    pub header_len: u8,
    /// Bytes of payload. Merged segments may be longer than 64 KiB.
    pub payload_len: u32,
    /// Options.
    pub options: Options,
}

impl Segment {
    /// Reads a header. `header` are the bytes from the start of the TCP header on, as many as lie
    /// linear; it has to cover the header, more does not hurt. `segment_len` is the length of header
    /// and payload, from the length of the packet and not from the IP header, which says 0 for very
    /// long merged packets.
    #[inline]
    pub fn parse(header: &[u8], segment_len: usize) -> Result<Segment, Reason> {
        let &[s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, _, _, ref rest @ ..] =
            header
        else {
            return Err(Reason::Truncated);
        };
        // CAST: at most 60.
        let header_len = (offset >> 4) * 4;
        let Some(options_len) = usize::from(header_len).checked_sub(MIN_HEADER) else {
            return Err(Reason::BadDataOffset);
        };
        let Some(payload_len) = segment_len.checked_sub(usize::from(header_len)) else {
            return Err(Reason::BadDataOffset);
        };
        let Some(options) = rest.get(..options_len) else {
            return Err(Reason::Truncated);
        };
        // Half the sequence space is the most that keeps comparisons meaningful; no packet is near.
        let Ok(payload_len) = u32::try_from(payload_len) else {
            return Err(Reason::BadDataOffset);
        };
        if payload_len > i32::MAX as u32 {
            return Err(Reason::BadDataOffset);
        }
        let src_port = u16::from_be_bytes([s0, s1]);
        if src_port == 0 {
            return Err(Reason::BadPort);
        }
        Ok(Segment {
            src_port,
            dst_port: u16::from_be_bytes([d0, d1]),
            seq: Seq(u32::from_be_bytes([q0, q1, q2, q3])),
            ack: Seq(u32::from_be_bytes([a0, a1, a2, a3])),
            flags: Flags(flags),
            window: u16::from_be_bytes([w0, w1]),
            header_len,
            payload_len,
            options: Options::parse(options),
        })
    }

    /// Does this segment ask for a new connection?
    #[inline]
    pub const fn is_syn(&self) -> bool {
        self.flags.contains(Flags::SYN)
            && !self
                .flags
                .intersects(Flags::ACK.with(Flags::RST).with(Flags::FIN))
    }

    /// Does this segment reset the connection?
    #[inline]
    pub const fn is_rst(&self) -> bool {
        self.flags.contains(Flags::RST)
    }

    /// Does the urgent pointer mean something?
    #[inline]
    pub const fn is_urgent(&self) -> bool {
        self.flags.contains(Flags::URG)
    }

    /// Does this segment end the client's stream?
    #[inline]
    pub const fn is_fin(&self) -> bool {
        self.flags.contains(Flags::FIN)
    }

    /// The sequence number after the segment: payload, SYN and FIN counted.
    #[inline]
    pub const fn seq_end(&self) -> Seq {
        let mut end = self.seq.add(self.payload_len);
        if self.flags.contains(Flags::SYN) {
            end = end.add(1);
        }
        if self.flags.contains(Flags::FIN) {
            end = end.add(1);
        }
        end
    }

    /// The sequence number after the payload: where a FIN stands.
    #[inline]
    pub const fn payload_end(&self) -> Seq {
        self.seq.add(self.payload_len)
    }

    /// Refuses combinations of flags that no correct client sends.
    pub const fn check_flags(&self) -> Result<(), Reason> {
        const SIGNIFICANT: Flags = Flags::SYN
            .with(Flags::FIN)
            .with(Flags::RST)
            .with(Flags::ACK);
        let f = self.flags;
        let contradictory =
            f.contains(Flags::SYN) && f.intersects(Flags::FIN.with(Flags::RST).with(Flags::ACK));
        if contradictory || !f.intersects(SIGNIFICANT) {
            return Err(Reason::BadFlags);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> [u8; 20] {
        [
            0x30, 0x39, 0x1f, 0x90, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x11, 0x20, 0, 0, 0, 0, 0,
        ]
    }

    #[test]
    fn the_fields_are_where_rfc_9293_puts_them() {
        let s = Segment::parse(&header(), 25).unwrap();
        assert_eq!((s.src_port, s.dst_port), (12345, 8080));
        assert_eq!((s.seq, s.ack, s.window), (Seq(7), Seq(9), 0x2000));
        assert_eq!((s.header_len, s.payload_len), (20, 5));
        assert!(s.is_fin() && !s.is_syn() && !s.is_rst());
        assert_eq!((s.payload_end(), s.seq_end()), (Seq(12), Seq(13)));
    }

    #[test]
    fn broken_headers_are_refused() {
        let h = header();
        assert_eq!(Segment::parse(&h[..19], 19), Err(Reason::Truncated));
        assert_eq!(Segment::parse(&h, 19), Err(Reason::BadDataOffset));
        let mut short = h;
        short[12] = 0x40;
        assert_eq!(Segment::parse(&short, 40), Err(Reason::BadDataOffset));
        let mut long = h;
        long[12] = 0x60;
        assert_eq!(Segment::parse(&long, 40), Err(Reason::Truncated));
        assert_eq!(Segment::parse(&long, 23), Err(Reason::BadDataOffset));
        let mut port = h;
        port[..2].fill(0);
        assert_eq!(Segment::parse(&port, 20), Err(Reason::BadPort));
        assert_eq!(Segment::parse(&h, usize::MAX), Err(Reason::BadDataOffset));
    }

    #[test]
    fn contradictory_flags_are_refused() {
        let with = |flags| Segment {
            flags: Flags(flags),
            ..Segment::parse(&header(), 20).unwrap()
        };
        for bad in [0x00, 0x03, 0x06, 0x07, 0x08, 0x12, 0x20] {
            assert_eq!(with(bad).check_flags(), Err(Reason::BadFlags), "{bad:#x}");
        }
        for good in [0x01, 0x02, 0x04, 0x10, 0x11, 0x14, 0x18, 0xc2] {
            assert_eq!(with(good).check_flags(), Ok(()), "{good:#x}");
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_read(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            len in any::<u32>(),
        ) {
            if let Ok(s) = Segment::parse(&bytes, len as usize) {
                prop_assert!(usize::from(s.header_len) <= bytes.len());
                prop_assert_eq!(u32::from(s.header_len) + s.payload_len, len);
            }
        }
    }
}
