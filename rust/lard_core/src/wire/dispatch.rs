// SPDX-License-Identifier: GPL-2.0

//! Messages to and from the dispatcher: assignments, load and membership.

use super::super::addr::{Addr, ConnId, NodeId};
use super::super::policy::{Mechanism, NodeSet, Tags};
use super::cursor::{Reader, Writer};
use super::{DecodeError, EncodeError, Frame, MsgType, Roles};

pub(super) const ASSIGN_LEN: usize = 32;
pub(super) const ASSIGNED_LEN: usize = 12;
pub(super) const IDLE_LEN: usize = 12;
pub(super) const LOAD_LEN: usize = 8;
pub(super) const NODE_UP_LEN: usize = 28;
pub(super) const NODE_DOWN_LEN: usize = 4;
pub(super) const DRAIN_LEN: usize = 2;

/// "Which node serves this target?"
///
/// Many of them share one write: while the answers to the last batch are outstanding, new requests
/// accumulate (\[1\], section 4). Frames are simply put one after another for that.
///
/// ```text
///  0              16              32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +---------------------------------------------------------------+
/// | keyed hash of the target                                      |
/// +---------------------------------------------------------------+
/// | nodes that must not be chosen: bit n-1 is node n              |
/// +-------+-------+---------------+-------------------------------+
/// | home          | batch         | tags the node must have       |
/// +---------------+---------------+-------------------------------+
/// ```
///
/// The topmost bit of *home* is set for [`Mechanism::Forward`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assign {
    /// The connection that waits for the answer.
    pub conn: ConnId,
    /// What [`http::KeyParts::hash`](super::super::http::KeyParts::hash) made of its target.
    pub key: u64,
    /// Nodes that have refused this connection already.
    pub exclude: NodeSet,
    /// For a further request on a connection: the node that has it.
    pub home: Option<NodeId>,
    /// How another node than that would serve it.
    pub mechanism: Mechanism,
    /// How many requests arrived together on the connection, at least 1.
    pub batch: u16,
    /// What its content rule demands of the node, in the bits of the last
    /// [`Service`](super::Service).
    pub tags: Tags,
}

impl<'a> Frame<'a> for Assign {
    const KIND: MsgType = MsgType::Assign;

    fn body_len(&self) -> usize {
        ASSIGN_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        w.u64(self.key);
        w.u64(self.exclude.bits());
        let home = self.home.unwrap_or_default().0;
        w.u16(match (self.home, self.mechanism) {
            (Some(_), Mechanism::Forward) => home | FORWARD,
            _ => home,
        });
        w.u16(self.batch.max(1));
        w.u32(self.tags.0);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        let key = r.u64();
        let exclude = NodeSet::from_bits(r.u64());
        let (home, batch) = (r.u16(), r.u16());
        let tags = Tags(r.u32());
        let mechanism = match home & FORWARD {
            0 => Mechanism::Move,
            _ => Mechanism::Forward,
        };
        let home = NodeId(home & !FORWARD);
        if home > NodeId::MAX || (home.is_none() && mechanism == Mechanism::Forward) {
            return Err(DecodeError::Value(MsgType::Assign, "home"));
        }
        if batch == 0 {
            return Err(DecodeError::Value(MsgType::Assign, "batch"));
        }
        Ok(Assign {
            conn,
            key,
            exclude,
            home: home.is_some().then_some(home),
            mechanism,
            batch,
            tags,
        })
    }
}

/// In the field of the home: how another node would serve the request.
const FORWARD: u16 = 1 << 15;

/// The dispatcher's answer.
///
/// ```text
///  0              16              32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +---------------+---------------+-------------------------------+
/// | node          | tag           |
/// +---------------+---------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The connection asked about.
    pub conn: ConnId,
    /// The node to hand it to. None (0 on the wire): the dispatcher knows none.
    pub node: Option<NodeId>,
    /// The node to fetch the content from, when that is another one (back-end forwarding).
    pub tag: Option<NodeId>,
}

impl<'a> Frame<'a> for Assigned {
    const KIND: MsgType = MsgType::Assigned;

    fn body_len(&self) -> usize {
        ASSIGNED_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        w.u16(self.node.unwrap_or_default().0);
        w.u16(self.tag.unwrap_or_default().0);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        let (node, tag) = (NodeId(r.u16()), NodeId(r.u16()));
        if node > NodeId::MAX || tag > NodeId::MAX {
            return Err(DecodeError::Value(MsgType::Assigned, "node"));
        }
        Ok(Assigned {
            conn,
            node: node.is_some().then_some(node),
            tag: tag.is_some().then_some(tag),
        })
    }
}

/// A connection has fallen idle, or is one unit of its node's load again and of nobody else's. Only if
/// [`Service::tells_idle`](super::Service::tells_idle); and in any case of a connection that the front-end
/// has ended without knowing whether the node has it.
///
/// A front-end that has called a connection idle also takes that back when it hears of its end: the
/// dispatcher may have heard of the end first, and of the idleness then.
///
/// ```text
///  0              16      24      32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +---------------+-------+-------+-------------------------------+
/// | node          | idle  | zero  |
/// +---------------+-------+-------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The connection.
    pub conn: ConnId,
    /// The node that has it.
    pub node: NodeId,
    /// Has it nothing to do?
    pub is_idle: bool,
}

impl<'a> Frame<'a> for Idle {
    const KIND: MsgType = MsgType::Idle;

    fn body_len(&self) -> usize {
        IDLE_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        w.u16(self.node.0);
        w.u8(self.is_idle.into());
        w.u8(0);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        let node = node(r, MsgType::Idle)?;
        let (is_idle, zero) = (r.u8(), r.u8());
        if zero != 0 {
            return Err(DecodeError::Reserved(MsgType::Idle));
        }
        let is_idle = match is_idle {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Value(MsgType::Idle, "idle")),
        };
        Ok(Idle {
            conn,
            node,
            is_idle,
        })
    }
}

/// What a back-end has to do, for policies that look at more than what they assigned, and to set
/// the dispatcher's count right again after messages were lost with a connection.
///
/// ```text
///  0                              32                              64
/// +-------------------------------+-------------------------------+
/// | active connections            | requests waiting for the disk |
/// +-------------------------------+-------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Connections handed to the node and not over yet.
    pub active: u32,
    /// Length of its disk queue.
    pub disk_queue: u32,
}

impl<'a> Frame<'a> for Load {
    const KIND: MsgType = MsgType::Load;

    fn body_len(&self) -> usize {
        LOAD_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u32(self.active);
        w.u32(self.disk_queue);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (active, disk_queue) = (r.u32(), r.u32());
        Ok(Load { active, disk_queue })
    }
}

/// A node may be chosen from now on, or its weight or its tags have changed. Ends a [`Drain`].
///
/// Front-ends keep these to go on without a dispatcher.
///
/// ```text
///  0              16      24      32                              64
/// +---------------+-------+-------+-------------------------------+
/// | node          | roles | zero  | weight        | zero          |
/// +---------------+-------+-------+-------------------------------+
/// | internal address                                              |
/// |                                                               |
/// +-------------------------------+-------------------------------+
/// | tags                          |
/// +-------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeUp {
    /// The node.
    pub node: NodeId,
    /// The components it runs.
    pub roles: Roles,
    /// Its share of the work; 0 takes no new connections.
    pub weight: u16,
    /// The address its peers forward packets to.
    pub internal: Addr,
    /// What it has, in the bits of the last [`Service`](super::Service).
    pub tags: Tags,
}

impl<'a> Frame<'a> for NodeUp {
    const KIND: MsgType = MsgType::NodeUp;

    fn body_len(&self) -> usize {
        NODE_UP_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u16(self.node.0);
        w.u8(self.roles.bits());
        w.u8(0);
        w.u16(self.weight);
        w.u16(0);
        w.bytes(&self.internal.0);
        w.u32(self.tags.0);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let node = node(r, MsgType::NodeUp)?;
        let (roles, zero) = (Roles::from_bits(r.u8()), r.u8());
        let (weight, zeros) = (r.u16(), r.u16());
        let internal = Addr(r.array());
        let tags = Tags(r.u32());
        match roles {
            Some(roles) if zero == 0 && zeros == 0 => Ok(NodeUp {
                node,
                roles,
                weight,
                internal,
                tags,
            }),
            _ => Err(DecodeError::Reserved(MsgType::NodeUp)),
        }
    }
}

/// A node is gone.
///
/// ```text
///  0              16      24      32
/// +---------------+-------+-------+
/// | node          |reason | zero  |
/// +---------------+-------+-------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeDown {
    /// The node.
    pub node: NodeId,
    /// How the dispatcher knows.
    pub reason: DownReason,
}

/// How a node left the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DownReason {
    /// It said BYE.
    Left = 1,
    /// It was silent for too long, or its connection broke.
    Silent = 2,
    /// It was removed by an administrator.
    Removed = 3,
}

impl DownReason {
    /// All reasons.
    pub const ALL: [DownReason; 3] = [DownReason::Left, DownReason::Silent, DownReason::Removed];

    /// A stable name, for events and logs.
    pub const fn name(self) -> &'static str {
        match self {
            DownReason::Left => "left",
            DownReason::Silent => "silent",
            DownReason::Removed => "removed",
        }
    }
}

impl<'a> Frame<'a> for NodeDown {
    const KIND: MsgType = MsgType::NodeDown;

    fn body_len(&self) -> usize {
        NODE_DOWN_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u16(self.node.0);
        w.u8(self.reason as u8);
        w.u8(0);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let node = node(r, MsgType::NodeDown)?;
        let (code, zero) = (r.u8(), r.u8());
        if zero != 0 {
            return Err(DecodeError::Reserved(MsgType::NodeDown));
        }
        let reason = DownReason::ALL.into_iter().find(|v| *v as u8 == code);
        let reason = reason.ok_or(DecodeError::Value(MsgType::NodeDown, "reason"))?;
        Ok(NodeDown { node, reason })
    }
}

/// A node takes no new connections until the next [`NodeUp`]; those it has go on. The body is its
/// number, a u16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The node.
    pub node: NodeId,
}

impl<'a> Frame<'a> for Drain {
    const KIND: MsgType = MsgType::Drain;

    fn body_len(&self) -> usize {
        DRAIN_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u16(self.node.0);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let node = node(r, MsgType::Drain)?;
        Ok(Drain { node })
    }
}

/// A node's number where there must be one.
pub(super) fn node(r: &mut Reader<'_>, kind: MsgType) -> Result<NodeId, DecodeError> {
    let node = NodeId(r.u16());
    if node.is_none() || node > NodeId::MAX {
        return Err(DecodeError::Value(kind, "node"));
    }
    Ok(node)
}
