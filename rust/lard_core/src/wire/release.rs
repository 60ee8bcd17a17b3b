// SPDX-License-Identifier: GPL-2.0

//! The end of a connection on a back-end: CLOSED, and RELEASE with its answers.

use super::super::addr::{ConnId, NodeId, Tuple};
use super::cursor::{Reader, Writer};
use super::{DecodeError, EncodeError, Frame, MsgType, TsUnit};
use core::fmt;
use core::time::Duration;

pub(super) const CLOSED_LEN: usize = 28;
pub(super) const RELEASE_LEN: usize = 60;
pub(super) const RELEASED_LEN: usize = 24;
pub(super) const BUSY_LEN: usize = 12;

/// A connection is over: its node has one less to serve.
///
/// The back-end tells the front-end, which may forget the entry (or keep it for as long as the
/// TIME_WAIT lasts), and the dispatcher. A front-end tells the dispatcher when a connection it had
/// assigned never reached a node ([`HowClosed::NotAdopted`]), so that no load is left behind.
///
/// ```text
///  0              16      24      32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +---------------------------------------------------------------+
/// | bytes sent to the client                                      |
/// +---------------------------------------------------------------+
/// | duration in microseconds                                      |
/// +---------------+-------+-------+-------------------------------+
/// | node          | how   | zero  |
/// +---------------+-------+-------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The connection.
    pub conn: ConnId,
    /// The node whose load it was.
    pub node: NodeId,
    /// How it ended.
    pub how: HowClosed,
    /// Bytes the node sent on it.
    pub bytes: u64,
    /// Time from its adoption to its end.
    pub duration: Duration,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HowClosed {
    /// Both sides closed it and nothing of it is left.
    Closed = 1,
    /// The server closed first: the tuple lives on in TIME_WAIT for a minute.
    TimeWait = 2,
    /// One side reset it, or it timed out.
    Reset = 3,
    /// It was assigned but no node ever had it.
    NotAdopted = 4,
    /// It goes on at another node.
    Moved = 5,
}

impl HowClosed {
    /// All of them, for tables of counters.
    pub const ALL: [HowClosed; 5] = [
        HowClosed::Closed,
        HowClosed::TimeWait,
        HowClosed::Reset,
        HowClosed::NotAdopted,
        HowClosed::Moved,
    ];

    /// A stable name, for counters and messages.
    pub const fn name(self) -> &'static str {
        match self {
            HowClosed::Closed => "closed",
            HowClosed::TimeWait => "time-wait",
            HowClosed::Reset => "reset",
            HowClosed::NotAdopted => "not-adopted",
            HowClosed::Moved => "moved",
        }
    }
}

impl fmt::Display for HowClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a> Frame<'a> for Closed {
    const KIND: MsgType = MsgType::Closed;

    fn body_len(&self) -> usize {
        CLOSED_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        let us = self.duration.as_secs().saturating_mul(1_000_000);
        w.u64(self.conn.to_bits());
        w.u64(self.bytes);
        w.u64(us.saturating_add(u64::from(self.duration.subsec_micros())));
        w.u16(self.node.0);
        w.u8(self.how as u8);
        w.u8(0);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        let bytes = r.u64();
        let duration = Duration::from_micros(r.u64());
        let node = super::dispatch::node(r, MsgType::Closed)?;
        let (how, zero) = (r.u8(), r.u8());
        if zero != 0 {
            return Err(DecodeError::Reserved(MsgType::Closed));
        }
        let how = HowClosed::ALL.into_iter().find(|v| *v as u8 == how);
        let how = how.ok_or(DecodeError::Value(MsgType::Closed, "end"))?;
        Ok(Closed {
            conn,
            node,
            how,
            bytes,
            duration,
        })
    }
}

/// "Give the connection up, if it is idle": the front-end wants to move it for its next request, or to
/// hand it over again with the name of the node in front that supplies the content.
///
/// ```text
///  0              16              32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +---------------------------------------------------------------+
/// | client's address                                              |
/// |                                                               |
/// +---------------+-----------------------------------------------+
/// | client's port | VIP                                           |
/// |                                                               |
/// |               +---------------+-------------------------------+
/// |               | VIP's port    | start of the next request     |
/// +---------------+---------------+-------------------------------+
/// | client's last ACK             | requests                      |
/// +---------------+---------------+-------------------------------+
/// | supplier      | zero          |
/// +---------------+---------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The connection.
    pub conn: ConnId,
    /// Client and VIP.
    pub tuple: Tuple,
    /// Sequence number of the first byte that the back-end must not have: its `rcv_nxt`.
    pub next: u32,
    /// The newest acknowledgement of the client: the back-end's `snd_nxt`, if it is idle.
    pub acked: u32,
    /// Requests that the back-end got on it since it was handed over. It is idle only if so many
    /// responses are complete: a server that is still working on one may be as quiet as TCP can be.
    pub requests: u32,
    /// The node whose content the connection comes back for, if it does: without that it stays.
    pub supplier: Option<NodeId>,
}

impl<'a> Frame<'a> for Release {
    const KIND: MsgType = MsgType::Release;

    fn body_len(&self) -> usize {
        RELEASE_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        w.endpoint(self.tuple.client);
        w.endpoint(self.tuple.vip);
        w.u32(self.next);
        w.u32(self.acked);
        w.u32(self.requests);
        w.u16(self.supplier.unwrap_or(NodeId::NONE).0);
        w.u16(0);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        let tuple = Tuple::new(r.endpoint(), r.endpoint());
        let (next, acked, requests) = (r.u32(), r.u32(), r.u32());
        let (supplier, zero) = (NodeId(r.u16()), r.u16());
        if zero != 0 {
            return Err(DecodeError::Reserved(MsgType::Release));
        }
        Ok(Release {
            conn,
            tuple,
            next,
            acked,
            requests,
            supplier: (supplier != NodeId::NONE).then_some(supplier),
        })
    }
}

/// The socket is gone without a sound; the connection can be handed over again.
///
/// ```text
///  0                              32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +-------------------------------+-------------------------------+
/// | snd_nxt                       | rcv_nxt                       |
/// +-------------------------------+-------+-----------------------+
/// | last TSval sent               | flags | zero                  |
/// +-------------------------------+-------+-----------------------+
/// ```
///
/// Flags: bit 0, timestamps are in use; bit 1, they count microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The connection.
    pub conn: ConnId,
    /// The next sequence number the server would have sent.
    pub snd_nxt: u32,
    /// The next sequence number it expected.
    pub rcv_nxt: u32,
    /// The last TSval it sent and its unit, if timestamps are in use.
    pub tsval: Option<(u32, TsUnit)>,
}

impl Released {
    const TIMESTAMPS: u8 = 1;
    const MICROS: u8 = 2;
}

impl<'a> Frame<'a> for Released {
    const KIND: MsgType = MsgType::Released;

    fn body_len(&self) -> usize {
        RELEASED_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        let (tsval, flags) = match self.tsval {
            None => (0, 0),
            Some((tsval, TsUnit::Millis)) => (tsval, Self::TIMESTAMPS),
            Some((tsval, TsUnit::Micros)) => (tsval, Self::TIMESTAMPS | Self::MICROS),
        };
        w.u64(self.conn.to_bits());
        w.u32(self.snd_nxt);
        w.u32(self.rcv_nxt);
        w.u32(tsval);
        w.u8(flags);
        w.bytes(&[0; 3]);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        const BOTH: u8 = Released::TIMESTAMPS | Released::MICROS;
        let conn = ConnId::from_bits(r.u64());
        let (snd_nxt, rcv_nxt, tsval) = (r.u32(), r.u32(), r.u32());
        let (flags, zero) = (r.u8(), r.array::<3>());
        if flags & !BOTH != 0 || zero != [0; 3] {
            return Err(DecodeError::Reserved(MsgType::Released));
        }
        let tsval = match flags {
            Self::TIMESTAMPS => Some((tsval, TsUnit::Millis)),
            BOTH => Some((tsval, TsUnit::Micros)),
            0 if tsval == 0 => None,
            _ => return Err(DecodeError::Value(MsgType::Released, "timestamps")),
        };
        Ok(Released {
            conn,
            snd_nxt,
            rcv_nxt,
            tsval,
        })
    }
}

/// The connection stays where it is.
///
/// ```text
///  0       8      16              32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +-------+-------+---------------+-------------------------------+
/// | why   | zero                  |
/// +-------+-----------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The connection.
    pub conn: ConnId,
    /// Why.
    pub why: WhyBusy,
}

/// Why a back-end keeps a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WhyBusy {
    /// There is no such connection, or it is about to end.
    Ending = 1,
    /// A request is not answered, or not to its end.
    Answering = 2,
    /// The server has not read everything, or the client has not acknowledged everything.
    InFlight = 3,
    /// The server is in a call on the socket.
    InUse = 4,
    /// What the server sends, or how it uses the socket, cannot be followed: this connection will
    /// never move.
    Opaque = 5,
    /// The supplier's content is not mounted.
    Unmounted = 6,
}

impl WhyBusy {
    /// All of them, for tables of counters.
    pub const ALL: [WhyBusy; 6] = [
        WhyBusy::Ending,
        WhyBusy::Answering,
        WhyBusy::InFlight,
        WhyBusy::InUse,
        WhyBusy::Opaque,
        WhyBusy::Unmounted,
    ];

    /// A stable name, for counters and messages.
    pub const fn name(self) -> &'static str {
        match self {
            WhyBusy::Ending => "ending",
            WhyBusy::Answering => "answering",
            WhyBusy::InFlight => "in-flight",
            WhyBusy::InUse => "in-use",
            WhyBusy::Opaque => "opaque",
            WhyBusy::Unmounted => "unmounted",
        }
    }
}

impl fmt::Display for WhyBusy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a> Frame<'a> for Busy {
    const KIND: MsgType = MsgType::Busy;

    fn body_len(&self) -> usize {
        BUSY_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        w.u8(self.why as u8);
        w.bytes(&[0; 3]);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        let (why, zero) = (r.u8(), r.array::<3>());
        if zero != [0; 3] {
            return Err(DecodeError::Reserved(MsgType::Busy));
        }
        let why = WhyBusy::ALL.into_iter().find(|v| *v as u8 == why);
        let why = why.ok_or(DecodeError::Value(MsgType::Busy, "reason"))?;
        Ok(Busy { conn, why })
    }
}
