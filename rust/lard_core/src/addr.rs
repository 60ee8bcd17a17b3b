// SPDX-License-Identifier: GPL-2.0

//! Addresses and identities: the words in which all components speak about a connection.
//!
//! An IPv4 address is kept as `::ffff:a.b.c.d`, so that one table, one wire format and one set of
//! comparisons serve both protocols.

use core::fmt;

/// An IPv6 address, or an IPv4 address mapped into one, in network byte order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// `::`, which stands for "no address" and, on a listener, for any.
    pub const UNSPECIFIED: Addr = Addr([0; 16]);

    /// The mapped form of an IPv4 address.
    #[inline]
    pub const fn from_v4(v4: [u8; 4]) -> Self {
        let [a, b, c, d] = v4;
        Addr([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// An IPv6 address as it stands in a header. A mapped address is taken for the IPv4 one.
    #[inline]
    pub const fn from_v6(v6: [u8; 16]) -> Self {
        Addr(v6)
    }

    /// The IPv4 address, if this is one.
    #[inline]
    pub const fn to_v4(self) -> Option<[u8; 4]> {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
            _ => None,
        }
    }

    /// The upper and the lower half, for hashing.
    #[inline]
    pub const fn to_words(self) -> [u64; 2] {
        let all = u128::from_ne_bytes(self.0);
        // CAST: one half each.
        [all as u64, (all >> 64) as u64]
    }

    /// Is this an IPv4 address?
    #[inline]
    pub const fn is_v4(self) -> bool {
        self.to_v4().is_some()
    }

    /// `0.0.0.0` or `::`.
    #[inline]
    pub const fn is_unspecified(self) -> bool {
        match self.to_v4() {
            Some(v4) => matches!(v4, [0, 0, 0, 0]),
            None => matches!(self.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        }
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline]
    pub const fn is_loopback(self) -> bool {
        match self.to_v4() {
            Some([a, _, _, _]) => a == 127,
            None => matches!(self.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        }
    }

    /// Can a client with this address exist at all? PRE_ROUTING runs before the kernel's own martian
    /// test, so the front-end has to ask. Own and subnet-broadcast addresses are the shell's part.
    #[inline]
    pub const fn is_valid_source(self) -> bool {
        match self.to_v4() {
            // 0/8 "this network", 127/8, and from 224 on multicast, reserved and broadcast.
            Some([a, _, _, _]) => a != 0 && a != 127 && a < 224,
            None => {
                let [first, ..] = self.0;
                first != 0xff && !self.is_unspecified() && !self.is_loopback()
            }
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_v4() {
            Some(v4) => core::net::Ipv4Addr::from(v4).fmt(f),
            None => core::net::Ipv6Addr::from(self.0).fmt(f),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One end of a connection. The port is in host order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub addr: Addr,
    /// The port, in host order.
    pub port: u16,
}

impl Endpoint {
    /// The end at `addr`, `port`.
    #[inline]
    pub const fn new(addr: Addr, port: u16) -> Self {
        Endpoint { addr, port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.addr.is_v4() {
            write!(f, "{}:{}", self.addr, self.port)
        } else {
            write!(f, "[{}]:{}", self.addr, self.port)
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A connection as its packets name it, always seen from the client: what the client calls source
/// is `client`, what it calls destination is `vip`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// The client's end.
    pub client: Endpoint,
    /// The address and port the client connected to.
    pub vip: Endpoint,
}

impl Tuple {
    /// The connection between `client` and `vip`.
    #[inline]
    pub const fn new(client: Endpoint, vip: Endpoint) -> Self {
        Tuple { client, vip }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.client, self.vip)
    }
}

/// The number of a node within its cluster. Zero is no node; the others are given out by the
/// dispatcher's `cluster_startup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// No node.
    pub const NONE: NodeId = NodeId(0);

    /// The largest number a [`ConnId`] can carry.
    pub const MAX: NodeId = NodeId((1 << ConnId::NODE_BITS) - 1);

    /// Is this the number of a node?
    #[inline]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Is this no node?
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of one connection, unique in the cluster for as long as anybody may still speak of it.
///
/// Clients use a port again within milliseconds, so a tuple cannot tell a connection from its
/// successor; every message after HANDOFF carries this instead.
///
/// ```text
///  63        52 51                  32 31                                 0
/// +------------+----------------------+------------------------------------+
/// | front-end  | bucket of its table  | generation                         |
/// +------------+----------------------+------------------------------------+
/// ```
///
/// The bucket is part of the name, so the front-end finds the entry an answer is about without a
/// second index.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// Width of the front-end's number.
    pub const NODE_BITS: u32 = 12;
    /// Width of the bucket index: a table has at most a million buckets.
    pub const BUCKET_BITS: u32 = 20;
    /// No connection.
    pub const NONE: ConnId = ConnId(0);

    const BUCKET_SHIFT: u32 = 32;
    const NODE_SHIFT: u32 = Self::BUCKET_SHIFT + Self::BUCKET_BITS;
    const BUCKET_MASK: u32 = (1 << Self::BUCKET_BITS) - 1;

    /// Names the connection that front-end `node` keeps in `bucket`; the `generation` differs from
    /// that of every other connection that bucket has held. Bits that do not fit are cut off.
    #[inline]
    pub const fn new(node: NodeId, bucket: u32, generation: u32) -> Self {
        let node = (node.0 & NodeId::MAX.0) as u64;
        let bucket = (bucket & Self::BUCKET_MASK) as u64;
        ConnId((node << Self::NODE_SHIFT) | (bucket << Self::BUCKET_SHIFT) | generation as u64)
    }

    /// The name as it travels on the wire.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The name from the wire.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        ConnId(bits)
    }

    /// The front-end that owns the connection.
    #[inline]
    pub const fn node(self) -> NodeId {
        // CAST: twelve bits are left after the shift.
        NodeId((self.0 >> Self::NODE_SHIFT) as u16)
    }

    /// The bucket of the front-end's table that holds the entry.
    #[inline]
    pub const fn bucket(self) -> u32 {
        // CAST: the mask leaves twenty bits.
        (self.0 >> Self::BUCKET_SHIFT) as u32 & Self::BUCKET_MASK
    }

    /// The generation.
    #[inline]
    pub const fn generation(self) -> u32 {
        // CAST: the low half.
        self.0 as u32
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:x}.{:x}",
            self.node(),
            self.bucket(),
            self.generation()
        )
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_addresses_round_trip_through_the_mapped_form() {
        let a = Addr::from_v4([192, 0, 2, 7]);
        assert_eq!(a.to_v4(), Some([192, 0, 2, 7]));
        assert_eq!(a.to_string(), "192.0.2.7");
        assert_eq!(Addr::UNSPECIFIED.to_v4(), None);
        let mut v6 = [0; 16];
        v6[0] = 0x20;
        v6[15] = 1;
        assert_eq!(Addr::from_v6(v6).to_v4(), None);
        assert_eq!(
            Endpoint::new(Addr::from_v6(v6), 80).to_string(),
            "[2000::1]:80"
        );
    }

    #[test]
    fn impossible_sources_are_recognised() {
        for bad in [
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [240, 0, 0, 1],
            [255; 4],
        ] {
            assert!(!Addr::from_v4(bad).is_valid_source(), "{bad:?}");
        }
        assert!(Addr::from_v4([10, 0, 0, 1]).is_valid_source());
        assert!(!Addr::UNSPECIFIED.is_valid_source());
        let mut v6 = [0; 16];
        v6[15] = 1;
        assert!(!Addr(v6).is_valid_source());
        v6[0] = 0xff;
        assert!(!Addr(v6).is_valid_source());
        v6[0] = 0x20;
        assert!(Addr(v6).is_valid_source());
    }

    #[test]
    fn conn_ids_keep_their_parts_apart() {
        let id = ConnId::new(NodeId::MAX, 0xf_ffff, u32::MAX);
        assert_eq!(id.to_bits(), u64::MAX);
        let id = ConnId::new(NodeId(3), 0x12345, 0xdead_beef);
        assert_eq!(id.node(), NodeId(3));
        assert_eq!(id.bucket(), 0x12345);
        assert_eq!(id.generation(), 0xdead_beef);
        assert_eq!(ConnId::from_bits(id.to_bits()), id);
        assert_eq!(ConnId::new(NodeId(0xffff), u32::MAX, 0).node(), NodeId::MAX);
    }
}
