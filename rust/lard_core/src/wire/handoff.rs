// SPDX-License-Identifier: GPL-2.0

//! HANDOFF and its two answers.

use super::super::addr::{ConnId, Tuple};
use super::super::time::Instant;
use super::cursor::{Reader, Writer};
use super::{DecodeError, EncodeError, Frame, MsgType};
use core::fmt;

/// Length of the body before the received bytes.
pub(super) const FIXED_LEN: usize = 76;
pub(super) const ADOPTED_LEN: usize = 8;
pub(super) const REFUSED_LEN: usize = 12;

/// An established connection, with everything that was received on it.
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
/// |               | VIP's port    | irs                           |
/// +---------------+---------------+-------------------------------+
/// | iss                           | client's last TSval           |
/// +-------------------------------+-------------------------------+
/// | our last TSval                | expires …                     |
/// +-------------------------------+---------------+---------------+
/// | … expires                     | mss           | window        |
/// +-------+-------+-------+-------+---------------+---------------+
/// |snd wsc|rcv wsc| flags | zero  | received bytes …
/// +-------+-------+-------+-------+
/// ```
///
/// Flags: bit 0 window scaling, 1 SACK, 2 timestamps, 3 our TSvals count microseconds, 4 a FIN
/// followed the bytes, 5 the front-end may want the connection back. Fields of an option that was not
/// negotiated are zero.
///
/// The first received byte has sequence number `irs + 1`, so `rcv_nxt` is `irs + 1` plus their number,
/// plus 1 for a FIN; nothing was sent yet, so `snd_nxt` is `iss + 1`. For a connection that moves
/// (RELEASED) the two are chosen so that this holds again, and for a rewritten head `irs` is chosen
/// so that the *end* of the bytes stays where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handoff<'a> {
    /// The name under which all further messages speak of the connection.
    pub conn: ConnId,
    /// Client and VIP.
    pub tuple: Tuple,
    /// The client's initial sequence number.
    pub irs: u32,
    /// Our initial sequence number.
    pub iss: u32,
    /// When the front-end will have given up, by its clock. A back-end that reads this later must
    /// refuse ([`ClockOffset`](super::ClockOffset)).
    pub expires: Instant,
    /// The largest segment the client takes.
    pub mss: u16,
    /// The window of the client's newest segment, as it stood in the header.
    pub window: u16,
    /// Window scaling, if both sides offered it.
    pub wscale: Option<WindowScale>,
    /// Did both sides offer selective acknowledgements?
    pub sack: bool,
    /// Timestamps, if both sides offered them.
    pub timestamps: Option<Timestamps>,
    /// Did the client close its direction after these bytes?
    pub fin: bool,
    /// May the front-end want the connection back ([`Release`](super::Release))? Then the back-end
    /// follows the responses from the first one on.
    pub movable: bool,
    /// All bytes received, in order, from the first one of the request head.
    pub data: &'a [u8],
}

/// The shifts that the two sides announced in their SYNs, at most 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowScale {
    /// By how much to shift what the client announces: its own shift.
    pub snd: u8,
    /// By how much the client shifts what we announce: the front-end's shift.
    pub rcv: u8,
}

/// State of the timestamp option (RFC 7323).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// The client's newest TSval, to echo.
    pub recent: u32,
    /// The last TSval that was sent to the client: the successor's must not be below it.
    pub sent: u32,
    /// What a tick of `sent` is.
    pub unit: TsUnit,
}

/// What our TSvals count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TsUnit {
    /// Milliseconds, as Linux does by default.
    #[default]
    Millis,
    /// Microseconds, as Linux does on routes with `tcp_usec_ts`.
    Micros,
}

impl Handoff<'_> {
    /// The most bytes one HANDOFF can carry: what fits into one injected segment of 65,535 bytes
    /// next to an IPv4 and a TCP header of 20 bytes each and 12 bytes of timestamp option.
    pub const MAX_DATA: usize = 65_535 - 40 - 12;

    const WSCALE: u8 = 1;
    const SACK: u8 = 2;
    const TIMESTAMPS: u8 = 4;
    const MICROS: u8 = 8;
    const FIN: u8 = 16;
    const MOVABLE: u8 = 32;
    const FLAGS: u8 = 63;
    const MAX_WSCALE: u8 = 14;

    /// The next sequence number expected from the client once the bytes (and the FIN) are taken.
    pub const fn rcv_nxt(&self) -> u32 {
        // CAST: at most MAX_DATA.
        let len = self.data.len() as u32;
        self.irs
            .wrapping_add(1)
            .wrapping_add(len)
            .wrapping_add(self.fin as u32)
    }
}

impl<'a> Frame<'a> for Handoff<'a> {
    const KIND: MsgType = MsgType::Handoff;

    fn body_len(&self) -> usize {
        FIXED_LEN.saturating_add(self.data.len())
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        let mut flags = 0;
        let mut set = |on: bool, bit: u8| flags |= if on { bit } else { 0 };
        set(self.wscale.is_some(), Self::WSCALE);
        set(self.sack, Self::SACK);
        set(self.timestamps.is_some(), Self::TIMESTAMPS);
        set(
            self.timestamps.is_some_and(|t| t.unit == TsUnit::Micros),
            Self::MICROS,
        );
        set(self.fin, Self::FIN);
        set(self.movable, Self::MOVABLE);
        let (snd, rcv) = self.wscale.map_or((0, 0), |w| (w.snd, w.rcv));
        let (recent, sent) = self.timestamps.map_or((0, 0), |t| (t.recent, t.sent));

        w.u64(self.conn.to_bits());
        w.endpoint(self.tuple.client);
        w.endpoint(self.tuple.vip);
        w.u32(self.irs);
        w.u32(self.iss);
        w.u32(recent);
        w.u32(sent);
        w.u64(self.expires.as_micros());
        w.u16(self.mss);
        w.u16(self.window);
        w.u8(snd.min(Self::MAX_WSCALE));
        w.u8(rcv.min(Self::MAX_WSCALE));
        w.u8(flags);
        w.u8(0);
        w.bytes(self.data);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let value = |field| DecodeError::Value(MsgType::Handoff, field);
        let conn = ConnId::from_bits(r.u64());
        let tuple = Tuple::new(r.endpoint(), r.endpoint());
        let (irs, iss) = (r.u32(), r.u32());
        let (recent, sent) = (r.u32(), r.u32());
        let expires = Instant::from_micros(r.u64());
        let (mss, window) = (r.u16(), r.u16());
        let (snd, rcv) = (r.u8(), r.u8());
        let (flags, zero) = (r.u8(), r.u8());
        let data = r.rest();

        if flags & !Self::FLAGS != 0 || zero != 0 {
            return Err(DecodeError::Reserved(MsgType::Handoff));
        }
        let has = |bit: u8| flags & bit != 0;
        if snd.max(rcv)
            > if has(Self::WSCALE) {
                Self::MAX_WSCALE
            } else {
                0
            }
        {
            return Err(value("window scale"));
        }
        if !has(Self::TIMESTAMPS) && (recent != 0 || sent != 0 || has(Self::MICROS)) {
            return Err(value("timestamps"));
        }
        if mss == 0 {
            return Err(value("mss"));
        }
        if tuple.client.port == 0 || tuple.vip.port == 0 {
            return Err(value("port"));
        }
        Ok(Handoff {
            conn,
            tuple,
            irs,
            iss,
            expires,
            mss,
            window,
            wscale: has(Self::WSCALE).then_some(WindowScale { snd, rcv }),
            sack: has(Self::SACK),
            timestamps: has(Self::TIMESTAMPS).then_some(Timestamps {
                recent,
                sent,
                unit: if has(Self::MICROS) {
                    TsUnit::Micros
                } else {
                    TsUnit::Millis
                },
            }),
            fin: has(Self::FIN),
            movable: has(Self::MOVABLE),
            data,
        })
    }
}

/// The back-end has the connection: a socket exists and has taken every byte. The body is the
/// connection, a u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The connection.
    pub conn: ConnId,
}

impl<'a> Frame<'a> for Adopted {
    const KIND: MsgType = MsgType::Adopted;

    fn body_len(&self) -> usize {
        ADOPTED_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        Ok(Adopted { conn })
    }
}

/// The back-end does not take the connection, and nothing of it is left there: the only answer after
/// which another node may be tried.
///
/// ```text
///  0                              32                              64
/// +---------------------------------------------------------------+
/// | connection                                                    |
/// +-------+-------+---------------+-------------------------------+
/// |reason | flags | zero          |
/// +-------+-------+---------------+
/// ```
///
/// Flags: bit 0, the client was sent a RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The connection.
    pub conn: ConnId,
    /// Why.
    pub reason: Refusal,
    /// The client has been reset in the attempt: there is nothing left to hand to another node.
    pub client_reset: bool,
}

impl Refused {
    const CLIENT_RESET: u8 = 1;
}

impl<'a> Frame<'a> for Refused {
    const KIND: MsgType = MsgType::Refused;

    fn body_len(&self) -> usize {
        REFUSED_LEN
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.u64(self.conn.to_bits());
        w.u8(self.reason as u8);
        w.u8(if self.client_reset {
            Self::CLIENT_RESET
        } else {
            0
        });
        w.u16(0);
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let conn = ConnId::from_bits(r.u64());
        let (reason, flags, zero) = (r.u8(), r.u8(), r.u16());
        if flags & !Self::CLIENT_RESET != 0 || zero != 0 {
            return Err(DecodeError::Reserved(MsgType::Refused));
        }
        let reason = Refusal::from_u8(reason);
        let reason = reason.ok_or(DecodeError::Value(MsgType::Refused, "reason"))?;
        Ok(Refused {
            conn,
            reason,
            client_reset: flags & Self::CLIENT_RESET != 0,
        })
    }
}

/// Why a back-end does not take a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// No server listens: not on the VIP, not on any address, not on the one named by `-bp`.
    NoListener = 1,
    /// The server's accept queue is full.
    QueueFull = 2,
    /// A live socket with this tuple exists (one in TIME_WAIT is removed if that is allowed).
    TupleInUse = 3,
    /// `net.ipv4.tcp_syncookies` is 0, and the injection goes through the SYN cookie path.
    SyncookiesOff = 4,
    /// The listener speaks MPTCP, whose sockets cannot be made this way.
    MptcpListener = 5,
    /// The connection uses an option (scaling, SACK, timestamps) that is switched off here.
    Options = 6,
    /// The HANDOFF was read too late, or it cannot be told whether it was.
    Expired = 7,
    /// The peer, the VIP or the port is not among those this node's administrator allowed.
    NotAllowed = 8,
    /// No memory.
    NoMemory = 9,
    /// The segment was delivered but no socket came of it.
    NotCreated = 10,
}

impl Refusal {
    /// All reasons, for tables of counters.
    pub const ALL: [Refusal; 10] = [
        Refusal::NoListener,
        Refusal::QueueFull,
        Refusal::TupleInUse,
        Refusal::SyncookiesOff,
        Refusal::MptcpListener,
        Refusal::Options,
        Refusal::Expired,
        Refusal::NotAllowed,
        Refusal::NoMemory,
        Refusal::NotCreated,
    ];

    /// The reason with this number.
    pub fn from_u8(v: u8) -> Option<Refusal> {
        Self::ALL.into_iter().find(|r| *r as u8 == v)
    }

    /// A stable name, for counters and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::NoListener => "no-listener",
            Refusal::QueueFull => "queue-full",
            Refusal::TupleInUse => "tuple-in-use",
            Refusal::SyncookiesOff => "syncookies-off",
            Refusal::MptcpListener => "mptcp-listener",
            Refusal::Options => "options",
            Refusal::Expired => "expired",
            Refusal::NotAllowed => "not-allowed",
            Refusal::NoMemory => "no-memory",
            Refusal::NotCreated => "not-created",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
