// SPDX-License-Identifier: GPL-2.0

//! The frames that nodes exchange on their control connections.
//!
//! Every pair of nodes shares one TCP connection. It carries frames back to back, each a fixed
//! header and a body whose layout the type decides. Only integers in network byte order cross the
//! wire, never a structure of the kernel, so nodes of different versions and architectures agree.
//!
//! ```text
//!  0       8      16              32                              64
//! +-------+-------+---------------+-------------------------------+
//! |version| type  | flags         | length of the body            |   header, 8 bytes
//! +-------+-------+---------------+-------------------------------+
//! | body …                                                        |
//! ```
//!
//! | type | message | from → to | body |
//! |---|---|---|---|
//! | 1 | [`Hello`] | both | who a node is and what its listeners can take |
//! | 2, 3 | [`Ping`], [`Pong`] | both | liveness and clock offset |
//! | 4 | [`Bye`] | both | why the connection ends |
//! | 16, 17 | [`Assign`], [`Assigned`] | FE → D → FE | which node serves this target? |
//! | 18 | [`Load`] | BE → D | connections and disk queue of a node |
//! | 19, 20, 21 | [`NodeUp`], [`NodeDown`], [`Drain`] | D → all | membership |
//! | 22 | [`Service`] | D → all | target key, content rules, further requests |
//! | 23 | [`Idle`] | FE → D | a connection has, or has no longer, nothing to do |
//! | 24, 25 | [`Wait`], [`Admitted`] | D → FE | the cluster is full; there is room |
//! | 32 | [`Handoff`] | FE → BE | a connection with the bytes received on it |
//! | 33, 34 | [`Adopted`], [`Refused`] | BE → FE | what became of it |
//! | 35 | [`Closed`] | BE → FE, D; FE → D | a connection is over |
//! | 36, 37, 38 | [`Release`], [`Released`], [`Busy`] | FE → BE → FE | giving a connection up again |
//! | 39, 40 | [`Probe`], [`Gone`] | FE → BE → FE | is a connection still there? |
//!
//! Decoding is total: a version, type, flag, reserved bit or value that is not in these tables is an
//! error, as is a body that is shorter or longer than its type says. An error on a control
//! connection is not repaired, it ends the connection: a peer that once sent nonsense cannot be
//! trusted about where its next frame begins.
//!
//! ```
//! use lard_core::addr::{ConnId, NodeId};
//! use lard_core::wire::{Assigned, DecodeError, Frame, Framer, MsgType};
//!
//! let answer = Assigned { conn: ConnId::NONE, node: Some(NodeId(3)), tag: None };
//! let mut buf = [0; 64];
//! let len = answer.encode(&mut buf)?;
//! assert_eq!(len, answer.frame_len());
//!
//! let mut framer = Framer::new();
//! let early = framer.push(&buf[..framer.need()]);
//! assert_eq!(early, Err(DecodeError::NotIntroduced(MsgType::Assigned)));
//! # Ok::<(), lard_core::wire::EncodeError>(())
//! ```
//!
//! # Layout
//!
//! [`Frame`] is what every message implements, [`Message`] their sum, [`Framer`] the incremental
//! receiver, [`Outbox`] what waits to be sent; `link`, `dispatch`, `wait`, `handoff`, `release` and `probe`
//! hold messages, `clock` turns PONGs into a clock offset.

mod clock;
mod cursor;
mod dispatch;
mod error;
mod framer;
mod handoff;
mod hello;
mod link;
mod list;
mod outbox;
mod probe;
mod release;
mod service;
mod wait;

pub use clock::ClockOffset;
pub use cursor::{Reader, Writer};
pub use dispatch::{Assign, Assigned, DownReason, Drain, Idle, Load, NodeDown, NodeUp};
pub use error::{DecodeError, EncodeError};
pub use framer::Framer;
pub use handoff::{Adopted, Handoff, Refusal, Refused, Timestamps, TsUnit, WindowScale};
pub use hello::{Hello, ListenerCaps, Name, Roles};
pub use link::{Bye, ByeReason, Ping, Pong};
pub use list::{Item, List};
pub use outbox::{Frames, Outbox};
pub use probe::{Gone, Probe};
pub use release::{Busy, Closed, HowClosed, Release, Released, WhyBusy};
pub use service::Service;
pub use wait::{Admitted, Wait};

/// The version this code speaks. A node that speaks another one is told so by BYE and left out.
pub const VERSION: u8 = 1;

/// Length of the fixed header.
pub const HEADER_LEN: usize = 8;

/// The longest body: a HANDOFF with as many bytes as one injected segment can hold, and room for
/// its fixed part. A receiver never needs a larger buffer than [`MAX_FRAME`].
pub const MAX_BODY: usize = 65_536 + 256;

/// The longest frame.
pub const MAX_FRAME: usize = HEADER_LEN + MAX_BODY;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MsgType {
    /// [`Hello`]
    Hello = 1,
    /// [`Ping`]
    Ping = 2,
    /// [`Pong`]
    Pong = 3,
    /// [`Bye`]
    Bye = 4,
    /// [`Assign`]
    Assign = 16,
    /// [`Assigned`]
    Assigned = 17,
    /// [`Load`]
    Load = 18,
    /// [`NodeUp`]
    NodeUp = 19,
    /// [`NodeDown`]
    NodeDown = 20,
    /// [`Drain`]
    Drain = 21,
    /// [`Service`]
    Service = 22,
    /// [`Idle`]
    Idle = 23,
    /// [`Wait`]
    Wait = 24,
    /// [`Admitted`]
    Admitted = 25,
    /// [`Handoff`]
    Handoff = 32,
    /// [`Adopted`]
    Adopted = 33,
    /// [`Refused`]
    Refused = 34,
    /// [`Closed`]
    Closed = 35,
    /// [`Release`]
    Release = 36,
    /// [`Released`]
    Released = 37,
    /// [`Busy`]
    Busy = 38,
    /// [`Probe`]
    Probe = 39,
    /// [`Gone`]
    Gone = 40,
}

impl MsgType {
    /// All types, for tables of counters.
    pub const ALL: [MsgType; 23] = [
        MsgType::Hello,
        MsgType::Ping,
        MsgType::Pong,
        MsgType::Bye,
        MsgType::Assign,
        MsgType::Assigned,
        MsgType::Load,
        MsgType::NodeUp,
        MsgType::NodeDown,
        MsgType::Drain,
        MsgType::Service,
        MsgType::Idle,
        MsgType::Wait,
        MsgType::Admitted,
        MsgType::Handoff,
        MsgType::Adopted,
        MsgType::Refused,
        MsgType::Closed,
        MsgType::Release,
        MsgType::Released,
        MsgType::Busy,
        MsgType::Probe,
        MsgType::Gone,
    ];

    /// The type with this number.
    pub fn from_u8(v: u8) -> Option<MsgType> {
        Self::ALL.into_iter().find(|t| *t as u8 == v)
    }

    /// The name of the message, for logs.
    pub const fn name(self) -> &'static str {
        match self {
            MsgType::Hello => "hello",
            MsgType::Ping => "ping",
            MsgType::Pong => "pong",
            MsgType::Bye => "bye",
            MsgType::Assign => "assign",
            MsgType::Assigned => "assigned",
            MsgType::Load => "load",
            MsgType::NodeUp => "node-up",
            MsgType::NodeDown => "node-down",
            MsgType::Drain => "drain",
            MsgType::Service => "service",
            MsgType::Idle => "idle",
            MsgType::Wait => "wait",
            MsgType::Admitted => "admitted",
            MsgType::Handoff => "handoff",
            MsgType::Adopted => "adopted",
            MsgType::Refused => "refused",
            MsgType::Closed => "closed",
            MsgType::Release => "release",
            MsgType::Released => "released",
            MsgType::Busy => "busy",
            MsgType::Probe => "probe",
            MsgType::Gone => "gone",
        }
    }

    /// The shortest and the longest body of this type. Checked on the header, before a receiver
    /// waits for, or makes room for, a body that cannot be right.
    pub const fn body_range(self) -> (usize, usize) {
        match self {
            MsgType::Hello => (hello::FIXED_LEN, hello::MAX_LEN),
            MsgType::Ping => (link::PING_LEN, link::PING_LEN),
            MsgType::Pong => (link::PONG_LEN, link::PONG_LEN),
            MsgType::Bye => (link::BYE_LEN, link::BYE_LEN),
            MsgType::Assign => (dispatch::ASSIGN_LEN, dispatch::ASSIGN_LEN),
            MsgType::Assigned => (dispatch::ASSIGNED_LEN, dispatch::ASSIGNED_LEN),
            MsgType::Load => (dispatch::LOAD_LEN, dispatch::LOAD_LEN),
            MsgType::NodeUp => (dispatch::NODE_UP_LEN, dispatch::NODE_UP_LEN),
            MsgType::NodeDown => (dispatch::NODE_DOWN_LEN, dispatch::NODE_DOWN_LEN),
            MsgType::Drain => (dispatch::DRAIN_LEN, dispatch::DRAIN_LEN),
            MsgType::Service => (service::FIXED_LEN, service::MAX_LEN),
            MsgType::Idle => (dispatch::IDLE_LEN, dispatch::IDLE_LEN),
            MsgType::Wait => (wait::WAIT_LEN, wait::WAIT_LEN),
            MsgType::Admitted => (wait::ADMITTED_LEN, wait::ADMITTED_LEN),
            MsgType::Handoff => (handoff::FIXED_LEN, handoff::FIXED_LEN + Handoff::MAX_DATA),
            MsgType::Adopted => (handoff::ADOPTED_LEN, handoff::ADOPTED_LEN),
            MsgType::Refused => (handoff::REFUSED_LEN, handoff::REFUSED_LEN),
            MsgType::Closed => (release::CLOSED_LEN, release::CLOSED_LEN),
            MsgType::Release => (release::RELEASE_LEN, release::RELEASE_LEN),
            MsgType::Released => (release::RELEASED_LEN, release::RELEASED_LEN),
            MsgType::Busy => (release::BUSY_LEN, release::BUSY_LEN),
            MsgType::Probe => (probe::PROBE_LEN, probe::PROBE_LEN),
            MsgType::Gone => (probe::GONE_LEN, probe::GONE_LEN),
        }
    }
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: MsgType,
    /// Length of the body, within the range of its type.
    pub length: usize,
}

impl Header {
    /// Checks a header. No flag is defined in version 1, so all of them must be clear.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, DecodeError> {
        let mut r = Reader::new(bytes);
        let (version, kind, flags, length) = (r.u8(), r.u8(), r.u16(), r.u32());
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let kind = MsgType::from_u8(kind).ok_or(DecodeError::Type(kind))?;
        if flags != 0 {
            return Err(DecodeError::Flags(flags));
        }
        // CAST: 32 bits fit in a usize on every machine this runs on.
        let length = length as usize;
        let (min, max) = kind.body_range();
        if length < min || length > max {
            return Err(DecodeError::Length(kind));
        }
        Ok(Header { kind, length })
    }

    /// The header as it travels.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut w = Writer::new(&mut out);
        w.u8(VERSION);
        w.u8(self.kind as u8);
        w.u16(0);
        // CAST: at most MAX_BODY.
        w.u32(self.length as u32);
        out
    }
}

/// A message that travels in a frame of its own.
///
/// Implementors only say how their body is laid out; length checks, headers and trailing bytes are
/// dealt with here, once.
pub trait Frame<'a>: Sized {
    /// The type in the header.
    const KIND: MsgType;

    /// Length of the body as it would be encoded.
    fn body_len(&self) -> usize;

    /// Writes exactly [`Frame::body_len`] bytes, or says which value cannot be sent.
    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError>;

    /// Takes the body off `r`. Need not care whether `r` ran out or has something left.
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// Length of the whole frame.
    fn frame_len(&self) -> usize {
        HEADER_LEN.saturating_add(self.body_len())
    }

    /// Writes the frame to the start of `out` and says how long it is. Nothing useful is in `out`
    /// after an error.
    fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let len = self.frame_len();
        let (min, max) = Self::KIND.body_range();
        if self.body_len() < min || self.body_len() > max {
            return Err(EncodeError::TooLong);
        }
        let frame = out.get_mut(..len).ok_or(EncodeError::NoSpace)?;
        let (header, body) = frame
            .split_at_mut_checked(HEADER_LEN)
            .ok_or(EncodeError::NoSpace)?;
        let length = self.body_len();
        let kind = Self::KIND;
        header.copy_from_slice(&Header { kind, length }.encode());
        let mut w = Writer::new(body);
        self.write(&mut w)?;
        if w.is_exact() {
            Ok(len)
        } else {
            Err(EncodeError::NoSpace)
        }
    }

    /// Reads a body of this type, all of it.
    fn decode_body(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        let message = Self::read(&mut r);
        // A body that ran out was read as zeros; say that rather than what the zeros lead to.
        if r.is_short() {
            return Err(DecodeError::Length(Self::KIND));
        }
        let message = message?;
        if r.has_more() {
            return Err(DecodeError::Length(Self::KIND));
        }
        Ok(message)
    }
}

macro_rules! messages {
    ($($kind:ident: $ty:ty),* $(,)?) => {
        /// Any message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Message<'a> {
            $(
                #[doc = concat!("[`", stringify!($kind), "`]")]
                $kind($ty),
            )*
        }

        impl<'a> Message<'a> {
            /// Reads the body that belongs to `header`.
            pub fn decode(header: Header, body: &'a [u8]) -> Result<Self, DecodeError> {
                if body.len() != header.length {
                    return Err(DecodeError::Length(header.kind));
                }
                match header.kind {
                    $(MsgType::$kind => <$ty>::decode_body(body).map(Message::$kind),)*
                }
            }

            /// What the frame's header says.
            pub const fn kind(&self) -> MsgType {
                match self {
                    $(Message::$kind(_) => MsgType::$kind,)*
                }
            }

            /// Length of the whole frame.
            pub fn frame_len(&self) -> usize {
                match self {
                    $(Message::$kind(m) => m.frame_len(),)*
                }
            }

            /// Writes the frame to the start of `out` and says how long it is.
            pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
                match self {
                    $(Message::$kind(m) => m.encode(out),)*
                }
            }
        }

        $(
            impl<'a> From<$ty> for Message<'a> {
                fn from(m: $ty) -> Self {
                    Message::$kind(m)
                }
            }
        )*
    };
}

messages! {
    Hello: Hello<'a>,
    Ping: Ping,
    Pong: Pong,
    Bye: Bye,
    Assign: Assign,
    Assigned: Assigned,
    Load: Load,
    NodeUp: NodeUp,
    NodeDown: NodeDown,
    Drain: Drain,
    Service: Service<'a>,
    Idle: Idle,
    Wait: Wait,
    Admitted: Admitted,
    Handoff: Handoff<'a>,
    Adopted: Adopted,
    Refused: Refused,
    Closed: Closed,
    Release: Release,
    Released: Released,
    Busy: Busy,
    Probe: Probe,
    Gone: Gone,
}

#[cfg(test)]
mod tests;
