// SPDX-License-Identifier: GPL-2.0

//! What can be wrong with a request head, by the place where it shows.

use core::fmt;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadHead {
    /// Too many empty lines before the request line.
    EmptyLines,
    /// The method has a character that a token cannot have, or is missing.
    Method,
    /// The method is longer than any there is.
    MethodTooLong,
    /// The request target has a character it cannot have, is missing, or has a form that does not
    /// go with the method.
    Target,
    /// The head reached its limit within the request target.
    TargetTooLong,
    /// What follows the target is not `HTTP/digit.digit` and CRLF.
    Version,
    /// A version of HTTP other than 1.0 and 1.1.
    VersionUnsupported,
    /// A line feed without a carriage return.
    BareLf,
    /// A carriage return without a line feed.
    BareCr,
    /// A line that begins with white space: a folded field, or a trick.
    Fold,
    /// The name of a field has a character that a token cannot have, is missing, or is that of a
    /// field that matters here with `_` in place of `-`.
    FieldName,
    /// White space between the name of a field and the colon.
    SpaceBeforeColon,
    /// The value of a field has a control character.
    FieldValue,
    /// The head reached its limit within the fields.
    TooLarge,
    /// HTTP/1.1 without Host.
    NoHost,
    /// More than one Host.
    DuplicateHost,
    /// Host, or the authority in the target, is not a host with an optional port.
    Host,
    /// The authority in the target and Host name different hosts.
    HostMismatch,
    /// Content-Length is not a number, begins with a needless 0, does not fit in 63 bits, or comes
    /// twice.
    ContentLength,
    /// Transfer-Encoding is empty, applies chunked twice, or comes with HTTP/1.0.
    TransferEncoding,
    /// A transfer coding other than chunked.
    TransferCoding,
    /// Both Content-Length and Transfer-Encoding.
    LengthConflict,
    /// CONNECT with a body.
    ConnectBody,
    /// The client closed its direction before the head was complete.
    Truncated,
    /// The head did not arrive in time.
    TooSlow,
}

impl BadHead {
    /// All of them, for tables of counters.
    pub const ALL: [BadHead; 25] = [
        BadHead::EmptyLines,
        BadHead::Method,
        BadHead::MethodTooLong,
        BadHead::Target,
        BadHead::TargetTooLong,
        BadHead::Version,
        BadHead::VersionUnsupported,
        BadHead::BareLf,
        BadHead::BareCr,
        BadHead::Fold,
        BadHead::FieldName,
        BadHead::SpaceBeforeColon,
        BadHead::FieldValue,
        BadHead::TooLarge,
        BadHead::NoHost,
        BadHead::DuplicateHost,
        BadHead::Host,
        BadHead::HostMismatch,
        BadHead::ContentLength,
        BadHead::TransferEncoding,
        BadHead::TransferCoding,
        BadHead::LengthConflict,
        BadHead::ConnectBody,
        BadHead::Truncated,
        BadHead::TooSlow,
    ];

    /// The status code of the answer.
    pub const fn status(self) -> u16 {
        match self {
            BadHead::TooSlow => 408,
            BadHead::TargetTooLong => 414,
            BadHead::TooLarge => 431,
            // RFC 9112, 3: a method longer than any the server implements. RFC 9112, 6.1: a
            // transfer coding it does not understand.
            BadHead::MethodTooLong | BadHead::TransferCoding => 501,
            BadHead::VersionUnsupported => 505,
            BadHead::EmptyLines
            | BadHead::Method
            | BadHead::Target
            | BadHead::Version
            | BadHead::BareLf
            | BadHead::BareCr
            | BadHead::Fold
            | BadHead::FieldName
            | BadHead::SpaceBeforeColon
            | BadHead::FieldValue
            | BadHead::NoHost
            | BadHead::DuplicateHost
            | BadHead::Host
            | BadHead::HostMismatch
            | BadHead::ContentLength
            | BadHead::TransferEncoding
            | BadHead::LengthConflict
            | BadHead::ConnectBody
            | BadHead::Truncated => 400,
        }
    }

    /// A stable name, for counters and logs.
    pub const fn name(self) -> &'static str {
        match self {
            BadHead::EmptyLines => "empty-lines",
            BadHead::Method => "method",
            BadHead::MethodTooLong => "method-too-long",
            BadHead::Target => "target",
            BadHead::TargetTooLong => "target-too-long",
            BadHead::Version => "version",
            BadHead::VersionUnsupported => "version-unsupported",
            BadHead::BareLf => "bare-lf",
            BadHead::BareCr => "bare-cr",
            BadHead::Fold => "fold",
            BadHead::FieldName => "field-name",
            BadHead::SpaceBeforeColon => "space-before-colon",
            BadHead::FieldValue => "field-value",
            BadHead::TooLarge => "too-large",
            BadHead::NoHost => "no-host",
            BadHead::DuplicateHost => "duplicate-host",
            BadHead::Host => "host",
            BadHead::HostMismatch => "host-mismatch",
            BadHead::ContentLength => "content-length",
            BadHead::TransferEncoding => "transfer-encoding",
            BadHead::TransferCoding => "transfer-coding",
            BadHead::LengthConflict => "length-conflict",
            BadHead::ConnectBody => "connect-body",
            BadHead::Truncated => "truncated",
            BadHead::TooSlow => "too-slow",
        }
    }
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for BadHead {}
