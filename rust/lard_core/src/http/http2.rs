// SPDX-License-Identifier: GPL-2.0

//! The first request of a connection that speaks HTTP/2 from its first byte (RFC 9113, 3.3).
//!
//! Such a connection stays with one server, since its requests share their compression. But it should
//! be the right one for the first request at least, which clients send without waiting:
//!
//! ```text
//! preface  SETTINGS  [WINDOW_UPDATE …]  HEADERS  [CONTINUATION …]
//! ```
//!
//! [`Opening`] looks at the header of each frame once, however the stream is cut, and says when the
//! fields of that request are there. They are read once, and only those that say what is asked for: the
//! pseudo-header fields, which come first, as the static table of HPACK (RFC 7541) or the frames
//! themselves spell them. What is behind them need not have arrived. Everything else is unreadable, which
//! costs nothing but the better choice: the server reads the same bytes for itself.

use self::hpack::Fields;
use super::target::TargetKey;

mod hpack;
#[cfg(test)]
mod tests;

/// What a client sends first.
///
/// ```text
/// PRI * HTTP/2.0 CRLF CRLF SM CRLF CRLF                           ; RFC 9113, 3.4
/// ```
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How far the beginning of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It may become HTTP/2.
    Preface,
    /// It is not HTTP/2.
    Other,
    /// It is, and the fields of the first request are not all there.
    Frames,
    /// They are, or it is certain that they cannot be read.
    Whole,
}

/// What a connection asks for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'b> {
    /// The method.
    pub method: &'b [u8],
    /// The target.
    pub target: TargetKey<'b>,
}

/// Why that cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// No request has begun.
    NoRequest,
    /// There are frames that do not belong there.
    Frames,
    /// The fields that matter are not all there.
    Cut,
    /// The fields are wrong, or not spelt as requests spell them.
    Fields,
}

/// Finds the first request of a connection. One for each connection that begins like HTTP/2.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Where the next frame begins; 0 as long as the preface is not complete.
    at: usize,
    /// The first frame of the request.
    headers: Option<Headers>,
    settled: Option<Result<(), Unread>>,
}

#[derive(Clone, Copy, Debug)]
struct Headers {
    at: usize,
    stream: u32,
}

// Types of frames (RFC 9113, 6).
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

// Flags of HEADERS (RFC 9113, 6.2), of which CONTINUATION has the first.
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

/// The longest frame before a server allowed longer ones (RFC 9113, 4.2).
const MAX_FRAME: usize = 16_384;

/// The header of a frame.
#[derive(Clone, Copy)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Where its payload begins and ends in the connection's stream.
    payload: (usize, usize),
}

impl Frame {
    /// The one that begins at `at`; none if its header is not complete.
    fn at(stream: &[u8], at: usize) -> Option<Frame> {
        // Length (24), Type (8), Flags (8), Reserved (1), Stream Identifier (31)
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *stream.get(at..)?.first_chunk()?;
        let begin = at.checked_add(9)?;
        let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
            payload: (begin, begin.checked_add(len)?),
        })
    }

    fn len(&self) -> usize {
        let (begin, end) = self.payload;
        end.saturating_sub(begin)
    }

    /// Do the fields end in it?
    fn is_last(&self) -> bool {
        self.flags & END_HEADERS != 0
    }
}

impl Opening {
    /// `stream` has grown; it is all of the connection, from its first byte.
    pub fn feed(&mut self, stream: &[u8]) -> Progress {
        if self.at == 0 {
            if !stream.starts_with(PREFACE) {
                return match PREFACE.starts_with(stream) {
                    true => Progress::Preface,
                    false => Progress::Other,
                };
            }
            self.at = PREFACE.len();
        }
        while self.settled.is_none() {
            let Some(frame) = Frame::at(stream, self.at) else {
                return Progress::Frames;
            };
            if let Err(why) = self.take(&frame) {
                self.settled = Some(Err(why));
                break;
            }
            let (_, end) = frame.payload;
            if end > stream.len() {
                return Progress::Frames;
            }
            if matches!(frame.kind, HEADERS | CONTINUATION) && frame.is_last() {
                self.settled = Some(Ok(()));
            }
            self.at = end;
        }
        Progress::Whole
    }

    /// Looks at the header of the next frame, perhaps not for the first time.
    fn take(&mut self, frame: &Frame) -> Result<(), Unread> {
        // RFC 9113, 3.4: the first frame is SETTINGS.
        let is_first = self.at == PREFACE.len();
        if frame.len() > MAX_FRAME || (is_first && frame.kind != SETTINGS) {
            return Err(Unread::Frames);
        }
        match (&self.headers, frame.kind) {
            (None, HEADERS) if frame.stream != 0 => {
                self.headers = Some(Headers {
                    at: self.at,
                    stream: frame.stream,
                });
                Ok(())
            }
            // Seen before, when the rest of it was missing.
            (Some(headers), HEADERS) if headers.at == self.at => Ok(()),
            (Some(headers), CONTINUATION) if headers.stream == frame.stream => Ok(()),
            // What is not known is an extension, which is to be ignored (RFC 9113, 5.5).
            (None, SETTINGS | PRIORITY | PING | WINDOW_UPDATE | 10..) => Ok(()),
            _ => Err(Unread::Frames),
        }
    }

    /// The most bytes that the fields take which can be read from a stream of this length: a code of the
    /// shortest symbols has five bits for each.
    pub fn room(&self, stream_len: usize) -> usize {
        const STATIC_VALUES: usize = 32;
        let end = match self.settled {
            Some(_) => self.at,
            None => stream_len,
        };
        let begin = self.headers.map_or(end, |headers| headers.at);
        (end.saturating_sub(begin).saturating_mul(8) / 5).saturating_add(STATIC_VALUES)
    }

    /// Reads the first request from as much of it as is there. `stream` is what [`Opening::feed`] was
    /// shown last; `buf` takes the fields ([`Opening::room`]).
    pub fn request<'b>(&self, stream: &[u8], buf: &'b mut [u8]) -> Result<Request<'b>, Unread> {
        if let Some(Err(why)) = self.settled {
            return Err(why);
        }
        let headers = self.headers.ok_or(Unread::NoRequest)?;
        let mut block = Block::new(stream, headers.at)?;
        Fields::read(&mut block, buf)
    }
}

/// The fields of a request, compressed, in the frames that they are cut into.
struct Block<'s> {
    stream: &'s [u8],
    /// Where the next byte of them is, and where the part in this frame ends.
    at: usize,
    end: usize,
    /// Where the frame begins that they go on in, if they do.
    more: Option<usize>,
}

impl<'s> Block<'s> {
    /// That in the frames from the HEADERS at `at` on.
    fn new(stream: &'s [u8], at: usize) -> Result<Self, Unread> {
        let frame = Frame::at(stream, at).ok_or(Unread::Cut)?;
        let (mut begin, mut end) = frame.payload;
        let more = (!frame.is_last()).then_some(end);
        // [Pad Length (8)], [Exclusive (1), Stream Dependency (31), Weight (8)]
        if frame.flags & PADDED != 0 && begin < end {
            let padding = *stream.get(begin).ok_or(Unread::Cut)?;
            begin = begin.saturating_add(1);
            end = end.saturating_sub(padding.into());
        } else if frame.flags & PADDED != 0 {
            return Err(Unread::Fields);
        }
        if frame.flags & WITH_PRIORITY != 0 {
            begin = begin.saturating_add(5);
        }
        if begin > end {
            return Err(Unread::Fields);
        }
        Ok(Block {
            stream,
            at: begin,
            end,
            more,
        })
    }

    /// The next byte; `None` behind the last one.
    fn next(&mut self) -> Result<Option<u8>, Unread> {
        while self.at >= self.end {
            let Some(at) = self.more else {
                return Ok(None);
            };
            let frame = Frame::at(self.stream, at).ok_or(Unread::Cut)?;
            (self.at, self.end) = frame.payload;
            self.more = (!frame.is_last()).then_some(self.end);
        }
        let byte = self.stream.get(self.at).ok_or(Unread::Cut)?;
        self.at = self.at.saturating_add(1);
        Ok(Some(*byte))
    }

    /// The next byte of something that is not complete without it.
    fn byte(&mut self) -> Result<u8, Unread> {
        self.next()?.ok_or(Unread::Fields)
    }

    /// The rest of an integer whose first byte has `prefix` bits of it (RFC 7541, 5.1); up to 16 bits.
    fn integer(&mut self, first: u8, prefix: u8) -> Result<usize, Unread> {
        let mask = 0xff_u8 >> 8_u8.saturating_sub(prefix).min(7);
        let mut value = usize::from(first & mask);
        if value < usize::from(mask) {
            return Ok(value);
        }
        for shift in [0, 7, 14] {
            let b = self.byte()?;
            value = value.saturating_add(usize::from(b & 0x7f) << shift);
            if b & 0x80 == 0 {
                return (value <= 0xffff).then_some(value).ok_or(Unread::Fields);
            }
        }
        Err(Unread::Fields)
    }
}
