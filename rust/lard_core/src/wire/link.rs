// SPDX-License-Identifier: GPL-2.0

//! PING, PONG and BYE: the life of a control connection.

use super::super::time::Instant;
use super::cursor::{Reader, Writer};
use super::{DecodeError, EncodeError, Frame, MsgType};

pub(super) const PING_LEN: usize = 8;
pub(super) const PONG_LEN: usize = 16;
pub(super) const BYE_LEN: usize = 1;

/// "Are you there?", with the sender's clock: u64, microseconds. Sent at a steady pace; whoever hears
/// nothing at all for longer than the limit takes the peer for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// When the PING was sent, by the sender's clock.
    pub sent: Instant,
}

/// The answer to a PING: two u64. From the three instants the asker learns the offset between the
/// clocks (see [`ClockOffset`](super::ClockOffset)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// [`Ping::sent`], returned unchanged.
    pub sent: Instant,
    /// When the PONG was sent, by the clock of the one who answers.
    pub clock: Instant,
}

/// The last frame on a connection: one byte, the reason. Its absence says that the node died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye {
    /// Why the sender leaves.
    pub reason: ByeReason,
}

/// Why a node closes a control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ByeReason {
    /// The node leaves the cluster.
    Leaving = 1,
    /// The peer speaks no version this node speaks.
    Version = 2,
    /// The peer belongs to another cluster.
    Cluster = 3,
    /// The peer sent a frame that makes no sense.
    Protocol = 4,
    /// A newer connection to the same peer takes over.
    Replaced = 5,
    /// The peer's number is already another node's, or not that of a member.
    NotMember = 6,
}

impl ByeReason {
    /// All reasons.
    pub const ALL: [ByeReason; 6] = [
        ByeReason::Leaving,
        ByeReason::Version,
        ByeReason::Cluster,
        ByeReason::Protocol,
        ByeReason::Replaced,
        ByeReason::NotMember,
    ];

    /// A stable name, for events and logs.
    pub const fn name(self) -> &'static str {
        match self {
            ByeReason::Leaving => "leaving",
            ByeReason::Version => "version",
            ByeReason::Cluster => "cluster",
            ByeReason::Protocol => "protocol",
            ByeReason::Replaced => "replaced",
            ByeReason::NotMember => "not-member",
        }
    }
}

impl<'a> Frame<'a> for Ping {
    const KIND: MsgType = MsgType::Ping;

    fn body_len(&self) -> usize {
        PING_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.sent.as_micros());
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let sent = Instant::from_micros(r.u64());
        Ok(Ping { sent })
    }
}

impl<'a> Frame<'a> for Pong {
    const KIND: MsgType = MsgType::Pong;

    fn body_len(&self) -> usize {
        PONG_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.sent.as_micros());
        w.u64(self.clock.as_micros());
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let sent = Instant::from_micros(r.u64());
        let clock = Instant::from_micros(r.u64());
        Ok(Pong { sent, clock })
    }
}

impl<'a> Frame<'a> for Bye {
    const KIND: MsgType = MsgType::Bye;

    fn body_len(&self) -> usize {
        BYE_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u8(self.reason as u8);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let code = r.u8();
        let reason = ByeReason::ALL.into_iter().find(|v| *v as u8 == code);
        let reason = reason.ok_or(DecodeError::Value(MsgType::Bye, "reason"))?;
        Ok(Bye { reason })
    }
}
