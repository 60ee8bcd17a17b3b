// SPDX-License-Identifier: GPL-2.0

//! Address prefixes of both protocols, in one form.

use super::super::addr::Addr;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// The bits in front of an IPv4 address when it is mapped.
const MAPPED: u8 = 96;

/// An address and how many of its leading bits count. The default, length 0, contains everything;
/// `0.0.0.0/0` contains all IPv4 addresses.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// INVARIANT: zero behind the prefix.
    addr: Addr,
    /// INVARIANT: at most 128, and at least 96 if `addr` is an IPv4 address.
    len: u8,
}

/// Why something is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// It is not an address, or not one and a length.
    Syntax,
    /// The length is beyond that of the address.
    Length,
    /// There are bits behind the prefix: probably the length is wrong.
    HostBits,
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PrefixError::Syntax => "not an address with a prefix length",
            PrefixError::Length => "the prefix length is beyond that of the address",
            PrefixError::HostBits => "bits are set behind the prefix length",
        })
    }
}

impl core::error::Error for PrefixError {}

impl Prefix {
    /// Every address of either protocol.
    pub const ANY: Prefix = Prefix {
        addr: Addr::UNSPECIFIED,
        len: 0,
    };

    /// The first `len` bits of `addr`, counted as its protocol does.
    pub fn new(addr: Addr, len: u8) -> Result<Self, PrefixError> {
        let (offset, max) = if addr.is_v4() { (MAPPED, 32) } else { (0, 128) };
        if len > max {
            return Err(PrefixError::Length);
        }
        let prefix = Prefix {
            addr,
            len: len.saturating_add(offset),
        };
        if (addr.to_bits() & !prefix.mask()) != 0 {
            return Err(PrefixError::HostBits);
        }
        Ok(prefix)
    }

    /// Just this address.
    pub fn host(addr: Addr) -> Self {
        Prefix { addr, len: 128 }
    }

    /// Is `addr` in it?
    pub fn contains(&self, addr: Addr) -> bool {
        (addr.to_bits() ^ self.addr.to_bits()) & self.mask() == 0
    }

    fn mask(&self) -> u128 {
        let behind = 128u32.saturating_sub(u32::from(self.len));
        u128::MAX.checked_shl(behind).unwrap_or(0)
    }
}

/// The address as a number. Only masks and comparisons are made with it, which need no help from a
/// 128-bit runtime.
trait Bits {
    fn to_bits(self) -> u128;
}

impl Bits for Addr {
    fn to_bits(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(s: &str) -> Result<Self, PrefixError> {
        let (text, len) = match s.split_once('/') {
            Some((text, len)) => (text, Some(number(len).ok_or(PrefixError::Syntax)?)),
            None => (s, None),
        };
        let addr = if let Ok(v4) = text.parse::<Ipv4Addr>() {
            Addr::from_v4(v4.octets())
        } else if let Ok(v6) = text.parse::<Ipv6Addr>() {
            Addr::from_v6(v6.octets())
        } else {
            return Err(PrefixError::Syntax);
        };
        match len {
            None => Ok(Prefix::host(addr)),
            Some(len) => Prefix::new(addr, u8::try_from(len).unwrap_or(u8::MAX)),
        }
    }
}

/// A decimal number without sign or leading zeros.
pub(super) fn number(s: &str) -> Option<u16> {
    let plain = s.bytes().all(|b| b.is_ascii_digit()) && (s.len() == 1 || !s.starts_with('0'));
    if plain {
        s.parse().ok()
    } else {
        None
    }
}

impl fmt::Display for Prefix {
    /// The shortest form that parses to the same prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Prefix::ANY {
            return f.write_str("any");
        }
        self.addr.fmt(f)?;
        let offset = if self.addr.is_v4() { MAPPED } else { 0 };
        match self.len {
            128 => Ok(()),
            len => write!(f, "/{}", len.saturating_sub(offset)),
        }
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
