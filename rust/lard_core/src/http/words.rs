// SPDX-License-Identifier: GPL-2.0

//! The words in which a parsed head is described.

use super::BadHead;

/// Where something stands in the head, counted from the first byte ever fed, or in another text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u16,
    /// Offset behind the last byte.
    pub end: u16,
}

impl Span {
    /// The bytes in `head`; none if `head` is not the head the span is about.
    pub fn of<'h>(&self, head: &'h [u8]) -> &'h [u8] {
        let range = usize::from(self.start)..usize::from(self.end);
        head.get(range).unwrap_or_default()
    }

    /// Where `part` stands in `whole`, from which it was taken.
    pub fn within(whole: &[u8], part: &[u8]) -> Option<Span> {
        let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
        let end = start.checked_add(part.len())?;
        whole.get(start..end)?;
        Some(Span {
            start: u16::try_from(start).ok()?,
            end: u16::try_from(end).ok()?,
        })
    }

    /// Number of bytes.
    pub const fn len(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Are there no bytes?
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How far a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Some of it is missing.
    Partial,
    /// It is complete: this many bytes, from the first one fed to the empty line, which is included.
    /// What was fed behind it was not looked at.
    Complete(usize),
    /// It is refused.
    Bad(BadHead),
}

/// The versions we serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    #[default]
    Http10,
    /// HTTP/1.1
    Http11,
}

/// The methods that matter here. Names are case-sensitive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`, whose response has no body whatever its head says.
    Head,
    /// `CONNECT`, which has a target form of its own.
    Connect,
    /// `OPTIONS`, the only one that may ask for `*`.
    Options,
    /// `DELETE`
    Delete,
    /// `TRACE`
    Trace,
    /// `PRI`, which no request has: HTTP/2 begins with it.
    Pri,
    /// Any other.
    #[default]
    Other,
}

/// The four forms of a request target.
///
/// ```text
/// request-target = origin-form / absolute-form / authority-form / asterisk-form
///                                                                 ; RFC 9112, 3.2
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `host:port`, for CONNECT.
    Authority,
    /// `*`, for OPTIONS.
    Asterisk,
}

impl Method {
    /// Does a body mean nothing in such a request (RFC 9110, 9.3)? Then there are servers that read
    /// it, that refuse it, and that take it for the next request.
    pub const fn ignores_content(self) -> bool {
        match self {
            Method::Get | Method::Head | Method::Delete | Method::Trace | Method::Connect => true,
            Method::Options | Method::Pri | Method::Other => false,
        }
    }

    /// The name, empty for all the others.
    pub(super) const fn name(self) -> &'static [u8] {
        match self {
            Method::Get => b"GET",
            Method::Head => b"HEAD",
            Method::Connect => b"CONNECT",
            Method::Options => b"OPTIONS",
            Method::Delete => b"DELETE",
            Method::Trace => b"TRACE",
            Method::Pri => b"PRI",
            Method::Other => b"",
        }
    }

    /// The method that begins with this letter: no two of ours share one.
    pub(super) const fn with_initial(b: u8) -> Method {
        match b {
            b'G' => Method::Get,
            b'H' => Method::Head,
            b'C' => Method::Connect,
            b'O' => Method::Options,
            b'D' => Method::Delete,
            b'T' => Method::Trace,
            b'P' => Method::Pri,
            _ => Method::Other,
        }
    }
}
