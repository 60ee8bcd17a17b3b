// SPDX-License-Identifier: GPL-2.0

//! Messages about connections that wait until the cluster has room for them.
//!
//! The dispatcher answers each ASSIGN at once, because front-ends hold further questions back while
//! answers are outstanding: with ASSIGNED, or with WAIT, on which ADMITTED follows later.

use super::super::addr::{ConnId, NodeId};
use super::cursor::{Reader, Writer};
use super::{DecodeError, EncodeError, Frame, MsgType};

pub(super) const WAIT_LEN: usize = 12;
pub(super) const ADMITTED_LEN: usize = 12;

/// The cluster is full: the connection is to wait for ADMITTED.
///
/// ```text
///  0                              32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +-------------------------------+-------------------------------+
/// | milliseconds                  |
/// +-------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The connection asked about.
    pub conn: ConnId,
    /// After this time in milliseconds the dispatcher gives up.
    pub at_most_ms: u32,
}

impl<'a> Frame<'a> for Wait {
    const KIND: MsgType = MsgType::Wait;

    fn body_len(&self) -> usize {
        WAIT_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        w.u32(self.at_most_ms);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (conn, at_most_ms) = (ConnId::from_bits(r.u64()), r.u32());
        Ok(Wait { conn, at_most_ms })
    }
}

/// The end of a connection's waiting.
///
/// ```text
///  0              16              32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +---------------+---------------+-------------------------------+
/// | node          | zero          |
/// +---------------+---------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The connection that waited.
    pub conn: ConnId,
    /// The node to hand it to. None (0 on the wire): there was no room in time, answer 503.
    pub node: Option<NodeId>,
}

impl<'a> Frame<'a> for Admitted {
    const KIND: MsgType = MsgType::Admitted;

    fn body_len(&self) -> usize {
        ADMITTED_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        w.u16(self.node.unwrap_or_default().0);
        w.u16(0);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        let (node, zero) = (NodeId(r.u16()), r.u16());
        if node > NodeId::MAX {
            return Err(DecodeError::Value(MsgType::Admitted, "node"));
        }
        if zero != 0 {
            return Err(DecodeError::Reserved(MsgType::Admitted));
        }
        let node = node.is_some().then_some(node);
        Ok(Admitted { conn, node })
    }
}
