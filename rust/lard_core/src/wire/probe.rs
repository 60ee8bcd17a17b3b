// SPDX-License-Identifier: GPL-2.0

//! Whether a back-end still has a connection: PROBE, and GONE if not.
//!
//! CLOSED is lost when the control connection ends before it was read. Nobody can tell which ones were,
//! so the front-end asks, in the end about each connection of which it hears nothing.

use super::super::addr::{ConnId, Tuple};
use super::cursor::{Reader, Writer};
use super::{DecodeError, EncodeError, Frame, MsgType};

pub(super) const PROBE_LEN: usize = 44;
pub(super) const GONE_LEN: usize = 12;

/// "Do you still have this connection?" There is no answer while the back-end has it.
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
/// |               | VIP's port    |
/// +---------------+---------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The connection, which the back-end has adopted.
    pub conn: ConnId,
    /// Client and VIP.
    pub tuple: Tuple,
}

impl<'a> Frame<'a> for Probe {
    const KIND: MsgType = MsgType::Probe;

    fn body_len(&self) -> usize {
        PROBE_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        w.endpoint(self.tuple.client);
        w.endpoint(self.tuple.vip);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        let tuple = Tuple::new(r.endpoint(), r.endpoint());
        Ok(Probe { conn, tuple })
    }
}

/// The back-end does not have the connection. Unlike CLOSED this is no news for the dispatcher, which may
/// have counted the end.
///
/// ```text
///  0       8      16              32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +-------+-------+---------------+-------------------------------+
/// | flags | zero                  |
/// +-------+-----------------------+
/// ```
///
/// Flags: bit 0, the tuple is in TIME_WAIT there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The connection that was asked about.
    pub conn: ConnId,
    /// The back-end still knows the tuple in TIME_WAIT.
    pub time_wait: bool,
}

impl<'a> Frame<'a> for Gone {
    const KIND: MsgType = MsgType::Gone;

    fn body_len(&self) -> usize {
        GONE_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        w.u8(u8::from(self.time_wait));
        w.bytes(&[0; 3]);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        let (flags, zero) = (r.u8(), r.array::<3>());
        if flags > 1 || zero != [0; 3] {
            return Err(DecodeError::Reserved(MsgType::Gone));
        }
        let time_wait = flags == 1;
        Ok(Gone { conn, time_wait })
    }
}
