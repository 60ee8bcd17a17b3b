// SPDX-License-Identifier: GPL-2.0

//! What can be wrong with a frame.

use super::MsgType;
use core::fmt;

/// Why a frame was not understood. Whatever the reason, the control connection it came on is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The header has a version this code does not speak.
    Version(u8),
    /// The header has a type that no message has.
    Type(u8),
    /// The header has flags that are not defined.
    Flags(u16),
    /// The body is shorter or longer than this type can be.
    Length(MsgType),
    /// A reserved bit or byte is not zero.
    Reserved(MsgType),
    /// A field has a value that it cannot have; its name follows.
    Value(MsgType, &'static str),
    /// The first frame on a connection was not HELLO.
    NotIntroduced(MsgType),
}

impl DecodeError {
    /// A stable name, for counters and logs.
    pub const fn name(self) -> &'static str {
        match self {
            DecodeError::Version(_) => "version",
            DecodeError::Type(_) => "type",
            DecodeError::Flags(_) => "flags",
            DecodeError::Length(_) => "length",
            DecodeError::Reserved(_) => "reserved",
            DecodeError::Value(..) => "value",
            DecodeError::NotIntroduced(_) => "not-introduced",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Version(v) => write!(f, "unknown protocol version {v}"),
            DecodeError::Type(t) => write!(f, "unknown message type {t}"),
            DecodeError::Flags(v) => write!(f, "unknown header flags {v:#06x}"),
            DecodeError::Length(k) => write!(f, "{}: impossible length", k.name()),
            DecodeError::Reserved(k) => write!(f, "{}: reserved bits are set", k.name()),
            DecodeError::Value(k, field) => write!(f, "{}: impossible {field}", k.name()),
            DecodeError::NotIntroduced(k) => write!(f, "{} before hello", k.name()),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Why a message could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The caller's slice is shorter than the frame.
    NoSpace,
    /// The message is longer than its type may be.
    TooLong,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncodeError::NoSpace => "the buffer is shorter than the frame",
            EncodeError::TooLong => "the message is longer than its type may be",
        })
    }
}

impl core::error::Error for EncodeError {}
