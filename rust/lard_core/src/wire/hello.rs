// SPDX-License-Identifier: GPL-2.0

//! HELLO: who a node is, what it serves and what its listeners can take.

use super::super::addr::{Addr, Endpoint, NodeId};
use super::super::content::is_tags;
use super::cursor::{Reader, Writer};
use super::{DecodeError, EncodeError, Frame, Item, List, MsgType};
use core::fmt;

/// Length of the body before the lists and the name.
pub(super) const FIXED_LEN: usize = 38;

/// Length of the longest body.
pub(super) const MAX_LEN: usize = FIXED_LEN
    + Hello::MAX_LISTENERS * ListenerCaps::LEN
    + Hello::MAX_VIPS * <Endpoint as Item>::LEN
    + Name::MAX
    + Hello::MAX_TAGS;

/// The first frame on every control connection, in both directions, and sent again whenever
/// something in it changes (a server starts to listen, a front-end gets an address). The last one
/// holds.
///
/// ```text
///  0              16              32                              64
/// +---------------+---------------+-------------------------------+
/// | version       | node          | cluster …                     |
/// +---------------+---------------+-------+-------+-------+-------+
/// | … cluster                     | roles |n lstn |n vips |n name |
/// +-------------------------------+-------+-------+-------+-------+
/// | internal address                                              |
/// |                                                               |
/// +---------------+---------------+-------------------------------+
/// | front-end port| back-end port |n tags | zero  |
/// +---------------+---------------+-------+-------+---------------+
/// | listeners: 24 bytes each …                                    |
/// +---------------------------------------------------------------+
/// | VIPs: address 16, port 2 bytes each …                         |
/// +---------------------------------------------------------------+
/// | name … tags …                                                 |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The highest protocol version the sender speaks. The header says which one it is speaking.
    pub version: u16,
    /// The sender's number.
    pub node: NodeId,
    /// The cluster it belongs to; a peer of another cluster is sent away.
    pub cluster: u64,
    /// The components it runs.
    pub roles: Roles,
    /// The address its peers forward packets to.
    pub internal: Addr,
    /// The port clients connect to, 0 if it is no front-end.
    pub fe_port: u16,
    /// The port its server listens on, 0 if it is no back-end.
    pub be_port: u16,
    /// What each of its listeners can take. Empty while no server is running.
    pub listeners: List<'a, ListenerCaps>,
    /// The addresses and ports that clients connect to on this front-end, so that back-ends know
    /// which forwarded packets are theirs. An unspecified address means any of the node's.
    pub vips: List<'a, Endpoint>,
    /// What people call the node.
    pub name: Name<'a>,
    /// What it has that content rules can demand: names of tags, joined by commas, or nothing.
    pub tags: &'a str,
}

impl Hello<'_> {
    /// Most listeners one HELLO can announce. A front-end needs the weakest of them, so a node with
    /// more of them loses nothing by merging.
    pub const MAX_LISTENERS: usize = 16;

    /// Most VIPs one HELLO can announce.
    pub const MAX_VIPS: usize = 16;

    /// Bytes of the tags of a node.
    pub const MAX_TAGS: usize = 255;
}

impl<'a> Frame<'a> for Hello<'a> {
    const KIND: MsgType = MsgType::Hello;

    fn body_len(&self) -> usize {
        FIXED_LEN
            .saturating_add(self.listeners.len().saturating_mul(ListenerCaps::LEN))
            .saturating_add(self.vips.len().saturating_mul(Endpoint::LEN))
            .saturating_add(self.name.as_bytes().len())
            .saturating_add(self.tags.len())
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        let (listeners, vips) = (self.listeners.len(), self.vips.len());
        if listeners > Self::MAX_LISTENERS || vips > Self::MAX_VIPS {
            return Err(EncodeError::TooLong);
        }
        let n_tags = u8::try_from(self.tags.len()).map_err(|_| EncodeError::TooLong)?;
        w.u16(self.version);
        w.u16(self.node.0);
        w.u64(self.cluster);
        w.u8(self.roles.bits());
        // CAST: all three are below 64.
        w.u8(self.listeners.len() as u8);
        w.u8(self.vips.len() as u8);
        w.u8(self.name.as_bytes().len() as u8);
        w.bytes(&self.internal.0);
        w.u16(self.fe_port);
        w.u16(self.be_port);
        w.u8(n_tags);
        w.u8(0);
        self.listeners.write(w);
        self.vips.write(w);
        w.bytes(self.name.as_bytes());
        w.bytes(self.tags.as_bytes());
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let value = |field| DecodeError::Value(MsgType::Hello, field);
        let version = r.u16();
        let node = NodeId(r.u16());
        let cluster = r.u64();
        let roles = r.u8();
        let (listeners, vips) = (usize::from(r.u8()), usize::from(r.u8()));
        let name = usize::from(r.u8());
        let internal = Addr(r.array());
        let (fe_port, be_port) = (r.u16(), r.u16());
        let (n_tags, zero) = (usize::from(r.u8()), r.u8());
        if version == 0 {
            return Err(value("version"));
        }
        if node.is_none() || node > NodeId::MAX {
            return Err(value("node"));
        }
        if listeners > Self::MAX_LISTENERS {
            return Err(value("number of listeners"));
        }
        if vips > Self::MAX_VIPS {
            return Err(value("number of addresses"));
        }
        if zero != 0 {
            return Err(DecodeError::Reserved(MsgType::Hello));
        }
        let roles = Roles::from_bits(roles).ok_or(DecodeError::Reserved(MsgType::Hello))?;
        // No overflow: both factors are small.
        let listeners = List::from_wire(r.bytes(listeners * ListenerCaps::LEN))
            .ok_or(DecodeError::Reserved(MsgType::Hello))?;
        let vips = List::from_wire(r.bytes(vips * Endpoint::LEN)).unwrap_or_default();
        let name = Name::new(r.bytes(name)).ok_or(value("name"))?;
        let tags = core::str::from_utf8(r.bytes(n_tags)).ok();
        let tags = tags.filter(|tags| tags.is_empty() || is_tags(tags));
        let tags = tags.ok_or(value("tags"))?;
        Ok(Hello {
            version,
            node,
            cluster,
            roles,
            internal,
            fe_port,
            be_port,
            listeners,
            vips,
            name,
            tags,
        })
    }
}

/// The components a node runs: any subset. The bits are those of netlink's `roles` as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// No component at all.
    pub const NONE: Roles = Roles(0);
    /// The dispatcher.
    pub const DISPATCHER: Roles = Roles(1);
    /// A front-end.
    pub const FRONT_END: Roles = Roles(2);
    /// A back-end.
    pub const BACK_END: Roles = Roles(4);

    const ALL: u8 = 7;

    /// The roles with these bits, if all of them are defined.
    pub const fn from_bits(bits: u8) -> Option<Roles> {
        if bits & !Self::ALL == 0 {
            Some(Roles(bits))
        } else {
            None
        }
    }

    /// The bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// These roles and those.
    pub const fn with(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }

    /// Are all of `other` among these?
    pub const fn contains(self, other: Roles) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for Roles {
    /// `D+FE+BE`, as the command line of `cluster_startup` names them, or `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        for (role, name) in [
            (Roles::DISPATCHER, "D"),
            (Roles::FRONT_END, "FE"),
            (Roles::BACK_END, "BE"),
        ] {
            if self.contains(role) {
                write!(f, "{sep}{name}")?;
                sep = "+";
            }
        }
        if sep.is_empty() {
            f.write_str("-")?;
        }
        Ok(())
    }
}

/// What connections handed to a listener can have. A front-end offers its clients no more than every
/// back-end can honour.
///
/// ```text
///  0              16              32      40      48              64
/// +---------------------------------------------------------------+
/// | address the listener is bound to                              |
/// |                                                               |
/// +---------------+---------------+---------------+-------+-------+
/// | port          | space …       | … space       |wscale | flags |
/// +---------------+---------------+---------------+-------+-------+
/// ```
///
/// Flags: bit 0 SACK, bit 1 timestamps, bit 2 window scaling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerCaps {
    /// The address it is bound to; unspecified for any.
    pub addr: Addr,
    /// The port it is bound to.
    pub port: u16,
    /// Bytes a new connection has room for before the server reads any: its initial window before
    /// it is rounded down to segments.
    pub space: u32,
    /// The window scale the node would choose, at most 14.
    pub wscale: u8,
    /// Selective acknowledgements are on.
    pub sack: bool,
    /// Timestamps are on.
    pub timestamps: bool,
    /// Window scaling is on.
    pub scaling: bool,
}

impl ListenerCaps {
    const SACK: u8 = 1;
    const TIMESTAMPS: u8 = 2;
    const SCALING: u8 = 4;
    const WSCALE_AT: usize = 22;
    const FLAGS_AT: usize = 23;

    /// RFC 7323, 2.3: a larger shift counts as 14.
    const MAX_WSCALE: u8 = 14;
}

impl Item for ListenerCaps {
    const LEN: usize = 24;

    fn put(&self, w: &mut Writer<'_>) {
        let flag = |on, bit| if on { bit } else { 0 };
        w.bytes(&self.addr.0);
        w.u16(self.port);
        w.u32(self.space);
        w.u8(self.wscale.min(Self::MAX_WSCALE));
        w.u8(flag(self.sack, Self::SACK)
            | flag(self.timestamps, Self::TIMESTAMPS)
            | flag(self.scaling, Self::SCALING));
    }

    fn take(r: &mut Reader<'_>) -> Self {
        let Endpoint { addr, port } = r.endpoint();
        let (space, wscale, flags) = (r.u32(), r.u8(), r.u8());
        ListenerCaps {
            addr,
            port,
            space,
            wscale,
            sack: flags & Self::SACK != 0,
            timestamps: flags & Self::TIMESTAMPS != 0,
            scaling: flags & Self::SCALING != 0,
        }
    }

    fn is_valid(bytes: &[u8]) -> bool {
        let known = Self::SACK | Self::TIMESTAMPS | Self::SCALING;
        let wscale = bytes.get(Self::WSCALE_AT);
        let flags = bytes.get(Self::FLAGS_AT);
        wscale.is_some_and(|w| *w <= Self::MAX_WSCALE) && flags.is_some_and(|f| f & !known == 0)
    }
}

/// The name of a node: 1 to 63 letters, digits, dots, hyphens and underscores, so that it can go
/// into a log, a file name or a table without a thought.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Longest name: that of a DNS label.
    pub const MAX: usize = 63;

    /// The name in these bytes, if they are one.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let ok = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let len = bytes.len();
        (len > 0 && len <= Self::MAX && bytes.iter().all(ok)).then_some(Name(bytes))
    }

    /// The bytes, all of them ASCII.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The name as text.
    pub fn as_str(&self) -> &'a str {
        // Only ASCII passes new().
        core::str::from_utf8(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}
