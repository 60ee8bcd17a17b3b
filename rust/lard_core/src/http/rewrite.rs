// SPDX-License-Identifier: GPL-2.0

//! A request for content that another node supplies.
//!
//! In the mode `forward` a node answers requests for content that it reads from another one, through a
//! mount in its document root that has the name of that node's internal address:
//!
//! ```text
//! GET /a%20b?c HTTP/1.1          ─▶  GET /10.1.0.3/a%20b?c HTTP/1.1
//! GET http://h/a HTTP/1.1        ─▶  GET /10.1.0.3/a HTTP/1.1
//! ```
//!
//! Only the target changes, and what it keeps it keeps byte for byte. Since a mount must not be
//! reachable by asking for it, [`is_reserved`] has to be asked about each request of a client, whether
//! or not it is rewritten.

use super::normal::value;
use super::{target, BadHead, Form, HeadParser, TargetKey};
use core::fmt::{self, Write};

/// A head whose target names a node, as the parts that make it up.
#[derive(Clone, Debug)]
pub struct Rewritten<'h> {
    before: &'h [u8],
    prefix: Prefix,
    path: &'h [u8],
    behind: &'h [u8],
}

/// Why a request cannot be served with another node's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadRewrite {
    /// The target is no target.
    Head(BadHead),
    /// It asks for no content: CONNECT, or `OPTIONS *`.
    Form,
    /// Without the host in the target the request would name none.
    NoHost,
    /// The target names a scheme that would be lost.
    Scheme,
    /// The target could already name a node.
    Reserved,
}

impl fmt::Display for BadRewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRewrite::Head(bad) => bad.fmt(f),
            BadRewrite::Form => f.write_str("the target is no path"),
            BadRewrite::NoHost => f.write_str("the host stands in the target only"),
            BadRewrite::Scheme => f.write_str("the target has a scheme other than http"),
            BadRewrite::Reserved => f.write_str("the target could name a node"),
        }
    }
}

impl core::error::Error for BadRewrite {}

impl<'h> Rewritten<'h> {
    /// By how many bytes a head grows at most. (It can shrink: the host in an absolute target goes.)
    pub const MAX_GROWTH: usize = "/255.255.255.255".len();

    /// The head that asks for the content of `node`, an IPv4 address. `head` is the complete head that
    /// `parser` has read.
    pub fn new(head: &'h [u8], parser: &HeadParser, node: [u8; 4]) -> Result<Self, BadRewrite> {
        let span = parser.target_span();
        let target = span.of(head);
        let key = target::key(head, parser).map_err(BadRewrite::Head)?;
        match parser.form() {
            Form::Origin => {}
            Form::Absolute if parser.host_span().is_none() => return Err(BadRewrite::NoHost),
            Form::Absolute => {
                let scheme = target.get(..5).unwrap_or_default();
                if !scheme.eq_ignore_ascii_case(b"http:") {
                    return Err(BadRewrite::Scheme);
                }
            }
            Form::Authority | Form::Asterisk => return Err(BadRewrite::Form),
        }
        if is_reserved(&key) {
            return Err(BadRewrite::Reserved);
        }
        Ok(Rewritten {
            before: head.get(..usize::from(span.start)).unwrap_or_default(),
            prefix: Prefix::of(node, key.path),
            path: key.path,
            behind: head.get(usize::from(span.end)..).unwrap_or_default(),
        })
    }

    /// The bytes of the new head, in order.
    pub fn parts(&self) -> [&[u8]; 4] {
        [self.before, self.prefix.get(), self.path, self.behind]
    }

    /// Length of the new head, in bytes.
    pub fn head_len(&self) -> usize {
        let lens = self.parts().map(<[u8]>::len);
        lens.into_iter().fold(0, usize::saturating_add)
    }
}

/// What stands before a path: `/10.1.0.3`, and a slash if the path has none.
#[derive(Clone, Debug)]
struct Prefix {
    bytes: [u8; Self::MAX_LEN],
    len: usize,
}

impl Prefix {
    /// The slash at the end adds no growth: only the path of an absolute target may lack one, and
    /// more than a slash is taken from there.
    const MAX_LEN: usize = "/255.255.255.255/".len();

    fn of(node: [u8; 4], path: &[u8]) -> Self {
        let mut prefix = Prefix {
            bytes: [0; Self::MAX_LEN],
            len: 0,
        };
        let [a, b, c, d] = node;
        let slash = if path.starts_with(b"/") { "" } else { "/" };
        // No error: the longest one fits.
        let _ = write!(prefix, "/{a}.{b}.{c}.{d}{slash}");
        prefix
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Write for Prefix {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let end = self.len.saturating_add(s.len());
        let place = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        place.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Could some server take the target for something below a directory that has the name of a node?
///
/// So it is if the first segment of the path that means anything has the form of an IPv4 address,
/// where everything counts that anyone is known to do with a path: escapes are decoded, up to three
/// times over; `\` separates segments as `/` does; empty segments and `.` mean nothing; and what
/// follows `;`, `?`, `#`, a space or a control character does not belong to a name (so a first name
/// with nothing before that is reserved as well: where it ends depends on when `%2F` is decoded). A
/// path with `..` in it is reserved wherever that leads: browsers resolve it themselves.
pub fn is_reserved(target: &TargetKey<'_>) -> bool {
    let (path, _) = target.split();
    let mut segments = Segments::default();
    let mut decoder = Decoder::default();
    for b in path {
        decoder.step(0, *b, &mut segments);
    }
    decoder.end(&mut segments);
    segments.end();
    segments.reserved
}

/// The same as [`is_reserved`], of a head that comes in pieces and is not kept.
///
/// The head has to be one that [`HeadParser`] finds good, and begin with its request line; of others
/// nothing follows.
#[derive(Clone, Debug, Default)]
pub struct ReservedScan {
    part: Part,
    decoder: Decoder,
    segments: Segments,
}

/// The part of a request line that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Method,
    Target,
    /// Of an absolute target; so many slashes have been seen together.
    Scheme(u8),
    Authority,
    Path,
    /// What does not matter any more.
    Behind,
}

impl ReservedScan {
    /// The next bytes of the head.
    pub fn feed(&mut self, bytes: &[u8]) {
        for b in bytes.iter().copied() {
            let path = matches!(self.part, Part::Path)
                || (b == b'/' && matches!(self.part, Part::Target | Part::Authority));
            self.part = match (self.part, b) {
                (Part::Behind, _) => return,
                (Part::Method, b' ') => Part::Target,
                (Part::Method, _) => Part::Method,
                (_, b' ') | (Part::Authority | Part::Path, b'?') => Part::Behind,
                (Part::Target | Part::Authority, b'/') | (Part::Path, _) => Part::Path,
                (Part::Scheme(1), b'/') => Part::Authority,
                (Part::Scheme(_), b'/') => Part::Scheme(1),
                (Part::Target | Part::Scheme(_), _) => Part::Scheme(0),
                (Part::Authority, _) => Part::Authority,
            };
            if path && self.part == Part::Path {
                self.decoder.step(0, b, &mut self.segments);
            }
        }
    }

    /// Is the target reserved? To be asked once the head is complete.
    pub fn is_reserved(mut self) -> bool {
        self.decoder.end(&mut self.segments);
        self.segments.end();
        self.segments.reserved
    }
}

/// Decodes escapes as often as it has stages.
#[derive(Clone, Debug, Default)]
struct Decoder {
    stages: [Escape; 3],
}

/// The part of an escape that a stage has seen.
#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    None,
    Percent,
    High(u8),
}

impl Decoder {
    /// A byte enters a stage, or behind the last one the path. Recursion ends there.
    fn step(&mut self, stage: usize, b: u8, out: &mut Segments) {
        let Some(escape) = self.stages.get_mut(stage) else {
            out.step(b);
            return;
        };
        let seen = *escape;
        *escape = Escape::None;
        let next = stage.saturating_add(1);
        match (seen, value(b)) {
            (Escape::Percent, Some(_)) => {
                *escape = Escape::High(b);
                return;
            }
            (Escape::High(high), Some(low)) => {
                let high = value(high).unwrap_or_default();
                self.step(next, high << 4 | low, out);
                return;
            }
            // It was none.
            (seen, _) => self.flush(seen, next, out),
        }
        if b != b'%' {
            self.step(next, b, out);
        } else if let Some(escape) = self.stages.get_mut(stage) {
            *escape = Escape::Percent;
        }
    }

    /// What looked like the beginning of an escape enters the next stage as it is.
    fn flush(&mut self, seen: Escape, next: usize, out: &mut Segments) {
        if !matches!(seen, Escape::None) {
            self.step(next, b'%', out);
        }
        if let Escape::High(high) = seen {
            self.step(next, high, out);
        }
    }

    fn end(&mut self, out: &mut Segments) {
        for stage in 0..self.stages.len() {
            let seen = self.stages.get_mut(stage).map(core::mem::take);
            self.flush(seen.unwrap_or_default(), stage.saturating_add(1), out);
        }
    }
}

/// Looks at the segments of a path.
#[derive(Clone, Debug, Default)]
struct Segments {
    reserved: bool,
    /// Has a segment been seen that means anything?
    begun: bool,
    name: Name,
}

/// The name of a segment so far.
#[derive(Clone, Debug, Default)]
struct Name {
    /// What follows does not belong to it.
    ended: bool,
    /// It has other bytes than digits and dots, or too many digits together.
    other: bool,
    /// Numbers, and digits of the last one.
    numbers: u8,
    digits: u8,
    dots: u8,
}

impl Segments {
    fn step(&mut self, b: u8) {
        let name = &mut self.name;
        match b {
            b'/' | b'\\' => self.end(),
            _ if name.ended => {}
            b';' | b'?' | b'#' | 0..=b' ' | 0x7f => name.ended = true,
            b'0'..=b'9' => {
                if name.digits == 0 {
                    name.numbers = name.numbers.saturating_add(1);
                }
                name.digits = name.digits.saturating_add(1);
                name.other |= name.digits > 3;
            }
            b'.' => {
                name.dots = name.dots.saturating_add(1);
                name.digits = 0;
            }
            _ => name.other = true,
        }
    }

    /// The end of a segment.
    fn end(&mut self) {
        let name = core::mem::take(&mut self.name);
        match (name.other, name.numbers, name.dots) {
            // Cut off to nothing. How far that goes depends on when a server decodes `%2f`.
            (false, 0, 0 | 1) if name.ended && !self.begun => self.reserved = true,
            (false, 0, 0 | 1) => {}
            (false, 0, 2) => self.reserved = true,
            // Two dots together, or one at an end, leave fewer numbers than dots make.
            (false, 4, 3) if !self.begun => self.reserved = true,
            _ => self.begun = true,
        }
    }
}
