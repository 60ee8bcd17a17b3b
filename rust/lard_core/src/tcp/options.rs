// SPDX-License-Identifier: GPL-2.0

//! TCP options, read and written.
//!
//! The reader is as forgiving as Linux' own: an option with an impossible length ends the list,
//! what was read up to there counts. Every forwarded segment passes through it, so the layout that
//! nearly all of them have, `NOP NOP TIMESTAMP`, is recognised by one comparison.

/// The largest window scale (RFC 7323, 2.3); greater ones count as this.
pub const MAX_WSCALE: u8 = 14;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WSCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const TIMESTAMP: u8 = 8;
const MD5: u8 = 19;
const AUTHENTICATION: u8 = 29;
const MPTCP: u8 = 30;
const FAST_OPEN: u8 = 34;

/// The timestamp option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// TSval: the sender's clock.
    pub val: u32,
    /// TSecr: the newest TSval the sender has seen.
    pub ecr: u32,
}

/// The options of a segment, as far as the front-end cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Timestamps.
    pub ts: Option<Timestamp>,
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale, at most [`MAX_WSCALE`].
    pub wscale: Option<u8>,
    /// SACK permitted.
    pub sack_perm: bool,
    /// TCP-MD5 or TCP-AO is present.
    pub md5_or_ao: bool,
    /// An MPTCP option is present. The front-end ignores it, and the client falls back.
    pub mptcp: bool,
    /// A fast-open option is present. The front-end ignores it, and the client sends its data again.
    pub fast_open: bool,
}

impl Options {
    /// Reads the options, which are the header's bytes from the 21st on.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Options {
        match *bytes {
            [] => Options::default(),
            [NOP, NOP, TIMESTAMP, 10, v0, v1, v2, v3, e0, e1, e2, e3] => Options {
                ts: Some(Timestamp {
                    val: u32::from_be_bytes([v0, v1, v2, v3]),
                    ecr: u32::from_be_bytes([e0, e1, e2, e3]),
                }),
                ..Options::default()
            },
            _ => Self::parse_list(bytes),
        }
    }

    fn parse_list(mut rest: &[u8]) -> Options {
        let mut options = Options::default();
        loop {
            rest = match *rest {
                [] | [END, ..] => return options,
                [NOP, ref after @ ..] => after,
                [kind, len, ..] => match rest.split_at_checked(usize::from(len)) {
                    // A length of 0 or 1 does not even cover itself.
                    Some(([_, _, value @ ..], after)) => {
                        options.take(kind, value);
                        after
                    }
                    Some(_) | None => return options,
                },
                [_] => return options,
            };
        }
    }

    fn take(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (MSS, &[a, b]) => self.mss = Some(u16::from_be_bytes([a, b])),
            (WSCALE, &[shift]) => self.wscale = Some(shift.min(MAX_WSCALE)),
            (SACK_PERMITTED, &[]) => self.sack_perm = true,
            (TIMESTAMP, &[v0, v1, v2, v3, e0, e1, e2, e3]) => {
                self.ts = Some(Timestamp {
                    val: u32::from_be_bytes([v0, v1, v2, v3]),
                    ecr: u32::from_be_bytes([e0, e1, e2, e3]),
                })
            }
            (MD5 | AUTHENTICATION, _) => self.md5_or_ao = true,
            (MPTCP, _) => self.mptcp = true,
            (FAST_OPEN, _) => self.fast_open = true,
            _ => {}
        }
    }

    /// Bytes [`Options::emit`] writes at most: MSS, SACK permitted, timestamp, window scale.
    pub const MAX_EMITTED: usize = 4 + 12 + 4;

    /// Writes the options the front-end sends, padded to whole words, in the order Linux uses.
    /// Returns how much was written, or `None` if `out` is too short.
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let mut at = 0usize;
        let mut put = |bytes: &[u8]| -> Option<()> {
            let end = at.checked_add(bytes.len())?;
            out.get_mut(at..end)?.copy_from_slice(bytes);
            at = end;
            Some(())
        };
        if let Some(mss) = self.mss {
            let [a, b] = mss.to_be_bytes();
            put(&[MSS, 4, a, b])?;
        }
        match (self.ts, self.sack_perm) {
            (Some(_), true) => put(&[SACK_PERMITTED, 2])?,
            (Some(_), false) => put(&[NOP, NOP])?,
            (None, true) => put(&[NOP, NOP, SACK_PERMITTED, 2])?,
            (None, false) => {}
        }
        if let Some(ts) = self.ts {
            put(&[TIMESTAMP, 10])?;
            put(&ts.val.to_be_bytes())?;
            put(&ts.ecr.to_be_bytes())?;
        }
        if let Some(shift) = self.wscale {
            put(&[NOP, WSCALE, 3, shift])?;
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_fast_path_agrees_with_the_list() {
        let bytes = [1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4];
        let o = Options::parse(&bytes);
        assert_eq!(o, Options::parse_list(&bytes));
        assert_eq!(
            o.ts,
            Some(Timestamp {
                val: 0x102,
                ecr: 0x304
            })
        );
    }

    #[test]
    fn impossible_lengths_end_the_list() {
        let mss = [2, 4, 5, 0xb4];
        for tail in [
            &[3u8, 0, 7][..],
            &[3, 1, 7],
            &[3, 9, 7],
            &[3],
            &[0, 3, 3, 7],
        ] {
            let o = Options::parse(&[&mss[..], tail].concat());
            assert_eq!(
                o,
                Options {
                    mss: Some(1460),
                    ..Options::default()
                },
                "{tail:?}"
            );
        }
    }

    #[test]
    fn wrong_sizes_of_known_options_are_passed_over() {
        let o = Options::parse(&[2, 3, 5, 3, 4, 1, 1, 4, 3, 0, 8, 4, 1, 1, 3, 3, 15]);
        assert_eq!(
            o,
            Options {
                wscale: Some(14),
                ..Options::default()
            }
        );
    }

    #[test]
    fn signatures_multipath_and_fast_open_are_noticed() {
        assert!(Options::parse(&[19, 4, 1, 1]).md5_or_ao);
        assert!(Options::parse(&[29, 4, 1, 1]).md5_or_ao);
        assert!(Options::parse(&[30, 4, 1, 1]).mptcp);
        assert!(Options::parse(&[34, 2]).fast_open);
    }

    proptest! {
        #[test]
        fn anything_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Options::parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read_back(
            mss in any::<Option<u16>>(),
            ts in any::<Option<(u32, u32)>>(),
            wscale in proptest::option::of(0u8..=14),
            sack_perm in any::<bool>(),
        ) {
            let ts = ts.map(|(val, ecr)| Timestamp { val, ecr });
            let o = Options { mss, ts, wscale, sack_perm, ..Options::default() };
            let mut buf = [0; Options::MAX_EMITTED];
            let n = o.emit(&mut buf).unwrap();
            prop_assert_eq!(n % 4, 0);
            prop_assert_eq!(Options::parse(&buf[..n]), o);
            prop_assert!(n == 0 || o.emit(&mut buf[..n - 1]).is_none());
        }
    }
}
