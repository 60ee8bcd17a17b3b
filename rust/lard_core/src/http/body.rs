// SPDX-License-Identifier: GPL-2.0

//! Where a request ends: the framing of its body, and a scanner that finds the end.

use super::chars::{self, TOKEN, VALUE};
use super::field::{Field, Name};

/// How the body of a request is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    #[default]
    None,
    /// By its length, more than 0.
    Length(u64),
    /// By the chunked coding.
    Chunked,
}

/// Finds the end of a body in the bytes behind the head, fed in any pieces.
///
/// ```text
/// chunked-body   = *chunk last-chunk trailer-section CRLF        ; RFC 9112, 7.1
/// chunk          = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
/// chunk-size     = 1*HEXDIG
/// last-chunk     = 1*("0") [ chunk-ext ] CRLF
/// chunk-ext      = *( ";" chunk-ext-name [ "=" chunk-ext-val ] )
/// trailer-section = *( field-line CRLF )
/// ```
///
/// As in the head, only what has one reading is taken: line ends are CRLF and nothing else, a size
/// fits in 31 bits and is written with at most eight digits, names and values of extensions are tokens
/// without white space around them, and no trailer has the name of a field that frames a message.
#[derive(Clone, Debug)]
pub struct BodyScanner {
    state: State,
    /// The name of the trailer so far.
    name: Name,
    /// Bytes of data still to come in a body or chunk of known length, or the size read so far.
    left: u64,
    /// Digits of the size, or bytes of the extensions, so far.
    line: u16,
    trailer: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a body of known length.
    Length,
    /// At a chunk's size, of which no digit was seen.
    SizeStart,
    Size,
    ExtensionStart,
    Extension,
    /// Behind the `=` of an extension.
    ExtensionValueStart,
    ExtensionValue,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    TrailerName,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
    Bad,
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// All bytes fed belong to it and more must come.
    Partial,
    /// It ends behind so many of the bytes just fed.
    Complete(usize),
    /// It is not a body.
    Bad(BadBody),
}

/// A chunked body that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBody;

impl core::fmt::Display for BadBody {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("malformed chunked body")
    }
}

impl core::error::Error for BadBody {}

impl BodyScanner {
    /// Longest extensions of a chunk and longest trailer section. Neither means anything to a
    /// front-end; without a bound they could be used to keep it busy with lines that carry no content.
    const MAX_EXTRA: u16 = 4_096;

    /// Most digits of a size: 31 bits take eight.
    const MAX_DIGITS: u16 = 8;

    /// The largest chunk: what a reader with 32 bits, signed or not, reads like one with 64.
    const MAX_CHUNK: u64 = i32::MAX as u64;

    /// For the body that [`HeadParser::body`](super::HeadParser::body) announced.
    pub const fn new(body: Body) -> Self {
        let (state, left) = match body {
            Body::None => (State::Done, 0),
            Body::Length(0) => (State::Done, 0),
            Body::Length(length) => (State::Length, length),
            Body::Chunked => (State::SizeStart, 0),
        };
        BodyScanner {
            state,
            name: Name::START,
            left,
            line: 0,
            trailer: 0,
        }
    }

    /// Takes the next bytes. After the end, and after an error, further bytes change nothing.
    pub fn feed(&mut self, new: &[u8]) -> Scanned {
        let mut at = 0usize;
        loop {
            match self.state {
                State::Done => return Scanned::Complete(at),
                State::Bad => return Scanned::Bad(BadBody),
                _ => {}
            }
            let Some(left @ [b, ..]) = new.get(at..) else {
                return Scanned::Partial;
            };
            let n = match self.state {
                // CAST: at most the length of `left`.
                State::Length | State::Data => self.skip(left.len() as u64) as usize,
                _ => {
                    self.state = self.step(*b).unwrap_or(State::Bad);
                    1
                }
            };
            at = at.saturating_add(n);
        }
    }

    /// How many of the next bytes are data, whatever they are.
    pub const fn skippable(&self) -> u64 {
        match self.state {
            State::Length | State::Data => self.left,
            _ => 0,
        }
    }

    /// Passes over up to `n` bytes of data without looking at them, and says over how many.
    pub fn skip(&mut self, n: u64) -> u64 {
        let n = n.min(self.skippable());
        if n > 0 {
            self.left = self.left.saturating_sub(n);
            self.state = match self.state {
                state if self.left > 0 => state,
                State::Data => State::DataCr,
                _ => State::Done,
            };
        }
        n
    }

    fn step(&mut self, b: u8) -> Option<State> {
        let next = match (self.state, b) {
            (State::SizeStart, b) => {
                self.left = 0;
                self.line = 0;
                self.digit(b)?
            }
            (State::Size, b) if b.is_ascii_hexdigit() => self.digit(b)?,
            (State::Size | State::Extension | State::ExtensionValue, b'\r') => State::SizeLf,
            (State::Size, b';') => {
                self.line = 0;
                State::ExtensionStart
            }
            (State::Extension | State::ExtensionValue, b';') => State::ExtensionStart,
            (State::Extension, b'=') => State::ExtensionValueStart,
            (State::ExtensionStart | State::Extension, b) => {
                self.line = bounded(self.line, b, TOKEN)?;
                State::Extension
            }
            (State::ExtensionValueStart | State::ExtensionValue, b) => {
                self.line = bounded(self.line, b, TOKEN)?;
                State::ExtensionValue
            }
            (State::SizeLf, b'\n') if self.left == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, b) => {
                self.name = Name::START;
                self.trailer_name(b)?
            }
            (State::TrailerName, b':') => {
                // RFC 9110, 6.5.1: fields that frame or route a message are no trailers.
                if self.name.end() != Ok(Field::Other) {
                    return None;
                }
                State::Trailer
            }
            (State::TrailerName, b) => self.trailer_name(b)?,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, b) => {
                self.trailer = bounded(self.trailer, b, VALUE)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return None,
        };
        Some(next)
    }

    fn digit(&mut self, b: u8) -> Option<State> {
        let digit = char::from(b).to_digit(16)?;
        self.line = self.line.saturating_add(1);
        self.left = self.left.checked_mul(16)?.checked_add(u64::from(digit))?;
        let fits = self.line <= Self::MAX_DIGITS && self.left <= Self::MAX_CHUNK;
        fits.then_some(State::Size)
    }

    fn trailer_name(&mut self, b: u8) -> Option<State> {
        self.trailer = bounded(self.trailer, b, TOKEN)?;
        self.name.step(b);
        Some(State::TrailerName)
    }
}

/// Counts a byte of a line that is passed over.
fn bounded(count: u16, b: u8, class: u8) -> Option<u16> {
    let fits = count < BodyScanner::MAX_EXTRA && chars::is(b, class);
    fits.then(|| count.saturating_add(1))
}
