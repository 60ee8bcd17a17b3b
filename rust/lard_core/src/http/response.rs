// SPDX-License-Identifier: GPL-2.0

//! Counting the responses in what a server sends.
//!
//! A connection may be taken away from a server only when it has answered everything it was asked,
//! and TCP cannot tell: a server that is computing, or that streams with pauses, is as quiet as one
//! that is done. So the back-end follows the responses of its children, once, in order, as they
//! leave.
//!
//! ```text
//!   HTTP/1.1 200 OK CRLF          status line: the code decides whether there is a body at all
//!   Content-Length: 5 CRLF        fields: only the two that frame the body, and Connection
//!   CRLF
//!   hello                         body: counted, not read; of chunks only the frames are read
//! ```
//!
//! Whatever has two readings, or an end that cannot be known, makes the framer *lost* for good:
//! switched protocols, a body until the connection closes, two different lengths, a length with a
//! transfer coding, a line that is none. A connection whose responses are lost stays where it is, so
//! strictness costs a move and never a byte.

use super::body::{Body, BodyScanner, Scanned};
use super::chars;

/// The longest status line or field that is looked at, and the longest head.
const MAX_LINE: u16 = 8_192;
const MAX_HEAD: u16 = 32_768;

/// The shortest status line: a version and a code.
const STATUS_LINE: u16 = 12;

/// What is kept of a field's name and value: enough for the longest that means something.
const NAME: usize = 18;
const VALUE: usize = 24;

/// Follows what a server sends on one connection.
#[derive(Clone, Debug)]
pub struct ResponseFramer {
    state: State,
    /// The next response has no body whatever it says: it answers HEAD.
    to_head: bool,
    completed: u32,
    line: u16,
    head: u16,
    status: u16,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    is_http_1_0: bool,
    name: Word<NAME>,
    value: Word<VALUE>,
    body: BodyScanner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first byte of a response.
    Between,
    /// In the status line.
    Status,
    StatusLf,
    /// At the start of a line behind the status line.
    LineStart,
    Name,
    /// Between the colon and the value.
    ValueStart,
    Value,
    ValueLf,
    EndLf,
    Body,
    Lost,
}

/// The beginning of a word, in lower case.
#[derive(Clone, Copy, Debug)]
struct Word<const N: usize> {
    bytes: [u8; N],
    len: u16,
}

impl<const N: usize> Word<N> {
    const EMPTY: Self = Word {
        bytes: [0; N],
        len: 0,
    };

    fn push(&mut self, b: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
            *place = b.to_ascii_lowercase();
        }
        self.len = self.len.saturating_add(1);
    }

    /// The whole word; `None` if it was longer than what is kept.
    fn whole(&self) -> Option<&[u8]> {
        self.bytes.get(..usize::from(self.len))
    }
}

impl ResponseFramer {
    /// Before the first response. `to_head`: it will answer a HEAD request. Those behind it must not.
    pub const fn new(to_head: bool) -> Self {
        ResponseFramer {
            state: State::Between,
            to_head,
            completed: 0,
            line: 0,
            head: 0,
            status: 0,
            length: None,
            chunked: false,
            close: false,
            keep_alive: false,
            is_http_1_0: false,
            name: Word::EMPTY,
            value: Word::EMPTY,
            body: BodyScanner::new(Body::None),
        }
    }

    /// Final responses that are complete; it wraps.
    pub const fn completed(&self) -> u32 {
        self.completed
    }

    /// Has no byte of an unfinished response been seen?
    pub fn is_between(&self) -> bool {
        self.state == State::Between
    }

    /// Can the responses not be told apart any more?
    pub fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Bytes were not seen: nothing can be known from here on.
    pub fn lose(&mut self) {
        self.state = State::Lost;
    }

    /// How many of the next bytes are of no interest, whatever they are.
    pub fn skippable(&self) -> u64 {
        match self.state {
            State::Body => self.body.skippable(),
            State::Lost => u64::MAX,
            _ => 0,
        }
    }

    /// Goes on behind the next `n` bytes, at most [`ResponseFramer::skippable`]; returns how many.
    pub fn skip(&mut self, n: u64) -> u64 {
        match self.state {
            State::Body => {
                let skipped = self.body.skip(n);
                if self.body.feed(&[]) == Scanned::Complete(0) {
                    self.finish();
                }
                skipped
            }
            State::Lost => n,
            _ => 0,
        }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        while let Some((&b, rest)) = left.split_first() {
            match self.state {
                State::Lost => return,
                State::Body => match self.body.feed(left) {
                    Scanned::Partial => return,
                    Scanned::Complete(n) => {
                        self.finish();
                        left = left.get(n..).unwrap_or_default();
                    }
                    Scanned::Bad(_) => self.lose(),
                },
                _ => {
                    self.state = self.step(b).unwrap_or(State::Lost);
                    left = rest;
                }
            }
        }
    }

    /// The final response is complete.
    fn finish(&mut self) {
        self.completed = self.completed.wrapping_add(1);
        // What a server says behind "close" is not a response to anything.
        let goes_on = !self.close && (self.keep_alive || !self.is_http_1_0);
        self.state = if goes_on { State::Between } else { State::Lost };
        self.to_head = false;
    }

    fn step(&mut self, b: u8) -> Option<State> {
        self.head = self.head.checked_add(1).filter(|n| *n <= MAX_HEAD)?;
        self.line = self.line.checked_add(1).filter(|n| *n <= MAX_LINE)?;
        let is_text = chars::is(b, chars::VALUE);
        Some(match (self.state, b) {
            (State::Between, _) => {
                (self.status, self.length, self.chunked) = (0, None, false);
                (self.close, self.keep_alive) = (false, false);
                self.status_line(b)?
            }
            (State::Status, b'\r') if self.line > STATUS_LINE => State::StatusLf,
            (State::Status, b) => self.status_line(b)?,
            (State::StatusLf | State::ValueLf, b'\n') => {
                if self.state == State::ValueLf {
                    self.field()?;
                }
                (self.name, self.value, self.line) = (Word::EMPTY, Word::EMPTY, 0);
                State::LineStart
            }
            (State::LineStart, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => {
                (self.head, self.line) = (0, 0);
                self.begin_body()?
            }
            (State::Name, b':') => State::ValueStart,
            (State::LineStart | State::Name, b) if chars::is(b, chars::TOKEN) => {
                self.name.push(b);
                State::Name
            }
            (State::ValueStart, b' ' | b'\t') => State::ValueStart,
            (State::ValueStart | State::Value, b'\r') => State::ValueLf,
            (State::ValueStart | State::Value, b) if is_text => {
                self.value.push(b);
                State::Value
            }
            _ => return None,
        })
    }

    /// `HTTP/1.x SP 3DIGIT [ SP reason ]`, of which this is byte number `line`.
    fn status_line(&mut self, b: u8) -> Option<State> {
        let fits = match self.line {
            n @ 1..=7 => b"\0HTTP/1.".get(usize::from(n)) == Some(&b),
            8 => {
                self.is_http_1_0 = b == b'0';
                b == b'0' || b == b'1'
            }
            9 | 13 => b == b' ',
            10..=STATUS_LINE => {
                let digit = b.wrapping_sub(b'0');
                self.status = self.status.checked_mul(10)?.checked_add(digit.into())?;
                b.is_ascii_digit()
            }
            _ => chars::is(b, chars::VALUE),
        };
        fits.then_some(State::Status)
    }

    /// A field is complete.
    fn field(&mut self) -> Option<()> {
        match self.name.whole() {
            Some(b"content-length") => {
                let length = decimal(trimmed(self.value.whole()?))?;
                if self.length.is_some_and(|other| other != length) {
                    return None;
                }
                self.length = Some(length);
            }
            Some(b"transfer-encoding") => {
                if self.chunked || trimmed(self.value.whole()?) != b"chunked" {
                    return None;
                }
                self.chunked = true;
            }
            Some(b"connection") => match self.value.whole().map(trimmed) {
                Some(b"keep-alive") => self.keep_alive = true,
                // A list, or close, or what only this hop understands.
                _ => self.close = true,
            },
            Some(_) | None => {}
        }
        Some(())
    }

    /// The head is complete (RFC 9112, 6.3).
    fn begin_body(&mut self) -> Option<State> {
        if self.chunked && (self.length.is_some() || self.is_http_1_0) {
            return None;
        }
        let body = match self.status {
            // The protocol changes.
            101 => return None,
            100..=199 => return Some(State::Between),
            200..=599 if self.to_head => Body::None,
            204 | 304 => Body::None,
            200..=599 if self.chunked => Body::Chunked,
            // Without a length it ends with the connection.
            200..=599 => match self.length? {
                0 => Body::None,
                length => Body::Length(length),
            },
            _ => return None,
        };
        if body == Body::None {
            self.finish();
            return Some(self.state);
        }
        self.body = BodyScanner::new(body);
        Some(State::Body)
    }
}

/// Without white space behind it.
fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii_end()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    digits.iter().try_fold(0u64, |n, b| {
        n.checked_mul(10)?
            .checked_add(u64::from(b.wrapping_sub(b'0')))
    })
}
