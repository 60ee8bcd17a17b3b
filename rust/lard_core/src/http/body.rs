// SPDX-License-Identifier: GPL-2.0

//! Where a request ends: the framing of its body, and a scanner that finds the end.

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
/// trailer-section = *( field-line CRLF )
/// ```
///
/// Line ends are CRLF and nothing else, and an extension holds no control characters: the same
/// strictness as in the head, for the same reason.
#[derive(Clone, Debug)]
pub struct BodyScanner {
    state: State,
    /// Bytes of data still to come in a body or chunk of known length, or the size read so far.
    left: u64,
    /// Bytes of the extension or trailer line so far.
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
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
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
    /// Longest chunk extension and longest trailer section. Neither means anything to a front-end;
    /// without a bound they could be used to keep it busy with lines that carry no content.
    const MAX_EXTRA: u16 = 4_096;

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
                State::Length | State::Data => self.skip(left.len()),
                _ => {
                    self.state = self.step(*b).unwrap_or(State::Bad);
                    1
                }
            };
            at = at.saturating_add(n);
        }
    }

    /// Passes over data without looking at it.
    fn skip(&mut self, available: usize) -> usize {
        let n = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(available);
        self.left = self.left.saturating_sub(n as u64);
        if self.left == 0 {
            self.state = match self.state {
                State::Data => State::DataCr,
                _ => State::Done,
            };
        }
        n
    }

    fn step(&mut self, b: u8) -> Option<State> {
        let next = match (self.state, b) {
            (State::SizeStart | State::Size, b) if b.is_ascii_hexdigit() => {
                let digit = char::from(b).to_digit(16)?;
                let size = self.left.checked_mul(16)?;
                self.left = size.checked_add(u64::from(digit))?;
                State::Size
            }
            (State::Size, b'\r') => State::SizeLf,
            // chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
            (State::Size, b';') => {
                self.line = 0;
                State::Extension
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b) => {
                self.line = bounded(self.line, b)?;
                State::Extension
            }
            (State::SizeLf, b'\n') if self.left == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, b' ' | b'\t') => return None,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, b) => {
                self.trailer = bounded(self.trailer, b)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return None,
        };
        Some(next)
    }
}

/// Counts a byte of a line that is passed over.
fn bounded(count: u16, b: u8) -> Option<u16> {
    let fits = count < BodyScanner::MAX_EXTRA && super::chars::is(b, super::chars::VALUE);
    fits.then(|| count.saturating_add(1))
}
