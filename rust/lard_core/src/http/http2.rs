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

use super::chars::{self, TARGET, TOKEN};
use super::target::TargetKey;

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

/// The pseudo-header fields of a request (RFC 9113, 8.3.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pseudo {
    Authority,
    Method,
    Path,
    Other,
}

/// Entries of the static table (RFC 7541, A) that stand for these, from index 1.
const STATIC: [(Pseudo, &[u8]); 7] = [
    (Pseudo::Authority, b""),
    (Pseudo::Method, b"GET"),
    (Pseudo::Method, b"POST"),
    (Pseudo::Path, b"/"),
    (Pseudo::Path, b"/index.html"),
    (Pseudo::Other, b"http"),
    (Pseudo::Other, b"https"),
];

/// A place in the buffer.
type Place = core::ops::Range<usize>;

/// Collects what is known of the request.
#[derive(Default)]
struct Fields {
    authority: Option<Place>,
    method: Option<Place>,
    path: Option<Place>,
}

impl Fields {
    /// Reads fields up to the first one that is no pseudo-header field: those come first.
    fn read<'b>(block: &mut Block<'_>, buf: &'b mut [u8]) -> Result<Request<'b>, Unread> {
        let mut fields = Fields::default();
        let mut out = Out { buf, len: 0 };
        while let Some(first) = block.next()? {
            // RFC 7541, 6: indexed; literal with indexing; size update; literal without indexing.
            let prefix = match first {
                0x80.. => 7,
                0x40.. => 6,
                0x20.. => 5,
                _ => 4,
            };
            let index = block.integer(first, prefix)?;
            if prefix == 5 {
                continue;
            }
            let known = index.checked_sub(1).map(|i| STATIC.get(i));
            let name = match known {
                Some(Some((name, _))) => *name,
                // A field that follows.
                Some(None) => break,
                None => match out.name(block)? {
                    Some(name) => name,
                    None => break,
                },
            };
            let value = match known.flatten() {
                Some((_, value)) if prefix == 7 => out.put(value)?,
                _ => out.string(block)?,
            };
            fields.take(name, value, &mut out)?;
        }
        fields.request(out.buf).ok_or(Unread::Fields)
    }

    fn take(&mut self, name: Pseudo, value: Place, out: &mut Out<'_>) -> Result<(), Unread> {
        let place = match name {
            Pseudo::Authority => &mut self.authority,
            Pseudo::Method => &mut self.method,
            Pseudo::Path => &mut self.path,
            Pseudo::Other => {
                out.len = value.start;
                return Ok(());
            }
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(Unread::Fields),
        }
    }

    fn request(self, buf: &[u8]) -> Option<Request<'_>> {
        let method = buf.get(self.method?)?;
        let path = buf.get(self.path?)?;
        let authority = buf.get(self.authority?)?;
        let is_method = !method.is_empty() && chars::run(method, TOKEN) == method.len();
        let is_path = path.starts_with(b"/") && chars::run(path, TARGET) == path.len();
        (is_method && is_path).then_some(())?;
        let target = TargetKey::of_parts(authority, path)?;
        Some(Request { method, target })
    }
}

/// The buffer, as far as it is filled.
struct Out<'b> {
    buf: &'b mut [u8],
    len: usize,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<Place, Unread> {
        let end = self.len.saturating_add(bytes.len());
        let place = self.len..end;
        let room = self.buf.get_mut(place.clone()).ok_or(Unread::Fields)?;
        room.copy_from_slice(bytes);
        self.len = end;
        Ok(place)
    }

    /// A name that is spelt out; `None` inside if it is not that of a pseudo-header field.
    fn name(&mut self, block: &mut Block<'_>) -> Result<Option<Pseudo>, Unread> {
        let place = self.string(block)?;
        self.len = place.start;
        Ok(match self.buf.get(place).unwrap_or_default() {
            b":authority" => Some(Pseudo::Authority),
            b":method" => Some(Pseudo::Method),
            b":path" => Some(Pseudo::Path),
            [b':', ..] => Some(Pseudo::Other),
            _ => None,
        })
    }

    /// A string, spelt or compressed (RFC 7541, 5.2).
    fn string(&mut self, block: &mut Block<'_>) -> Result<Place, Unread> {
        let first = block.byte()?;
        let len = block.integer(first, 7)?;
        let start = self.len;
        if first & 0x80 == 0 {
            for _ in 0..len {
                self.put(&[block.byte()?])?;
            }
            return Ok(start..self.len);
        }
        let mut code = Code::START;
        for _ in 0..len {
            let byte = block.byte()?;
            for bit in (0..8).rev() {
                if let Some(symbol) = code.step(byte >> bit & 1).ok_or(Unread::Fields)? {
                    self.put(&[symbol])?;
                    code = Code::START;
                }
            }
        }
        match code.is_padding() {
            true => Ok(start..self.len),
            false => Err(Unread::Fields),
        }
    }
}

/// The Huffman code of RFC 7541, B: bytes by the number of their bits. Codes of one length follow each
/// other, and each length begins where the one before it ends, so that the bytes alone say the code.
/// Left out are bytes that neither a host nor a path has, and have longer codes than all of these.
const CODES: [(u8, &[u8]); 11] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\"),
];

/// A code, bit by bit.
#[derive(Clone, Copy)]
struct Code {
    bits: u8,
    code: u32,
    /// The length that comes next in the table, and its first code.
    row: usize,
    first: u32,
}

impl Code {
    const START: Code = Code {
        bits: 0,
        code: 0,
        row: 0,
        first: 0,
    };

    /// Takes a bit; yields the byte that it ends, and nothing at all if there is no such code.
    fn step(&mut self, bit: u8) -> Option<Option<u8>> {
        self.code = self.code << 1 | u32::from(bit);
        self.bits = self.bits.saturating_add(1);
        let (bits, symbols) = CODES.get(self.row)?;
        if self.bits < *bits {
            return Some(None);
        }
        let i = usize::try_from(self.code.checked_sub(self.first)?).ok()?;
        if let Some(symbol) = symbols.get(i) {
            return Some(Some(*symbol));
        }
        self.row = self.row.saturating_add(1);
        let (next, _) = CODES.get(self.row)?;
        // CAST: a few dozen.
        let behind = self.first.checked_add(symbols.len() as u32)?;
        self.first = behind.checked_shl(u32::from(next.checked_sub(*bits)?))?;
        Some(None)
    }

    /// Is this what fills the last byte: fewer than eight bits, all of them 1?
    const fn is_padding(&self) -> bool {
        self.bits < 8 && self.code == (1 << self.bits) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::{target, HeadParser};
    use super::*;

    /// A frame on stream 1.
    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn stream(block: &[u8]) -> Vec<u8> {
        let window = frame(WINDOW_UPDATE, 0, &[0, 0, 0xff, 0xff]);
        let settings = frame(SETTINGS, 0, &[0, 3, 0, 0, 0, 100]);
        let headers = frame(HEADERS, END_HEADERS | 1, block);
        [PREFACE, &settings, &window, &headers].concat()
    }

    /// What all of `stream` is, and what the first request in it asks for.
    fn read(stream: &[u8]) -> (Progress, Result<String, Unread>) {
        let mut buf = [0; 300];
        let mut opening = Opening::default();
        let progress = opening.feed(stream);
        let read = opening.request(stream, &mut buf);
        let said = |r: Request<'_>| format!("{} {}", r.method.escape_ascii(), r.target);
        (progress, read.map(said))
    }

    fn whole(asked: &str) -> (Progress, Result<String, Unread>) {
        (Progress::Whole, Ok(asked.to_string()))
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541, C.3.1 and C.4.1.
        for block in [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        ] {
            let stream = stream(&bytes(block));
            assert_eq!(read(&stream), whole("GET www.example.com/"));
            let begins = stream.len() - bytes(block).len() - 9;
            let mut opening = Opening::default();
            for end in 0..stream.len() {
                let (progress, unread) = match end {
                    _ if end < PREFACE.len() => (Progress::Preface, Unread::NoRequest),
                    _ if end < begins + 9 => (Progress::Frames, Unread::NoRequest),
                    _ => (Progress::Frames, Unread::Cut),
                };
                assert_eq!(read(&stream[..end]), (progress, Err(unread)), "{end}");
                // The same, byte by byte.
                assert_eq!(opening.feed(&stream[..end]), progress, "{end}");
            }
            assert_eq!(opening.feed(&stream), Progress::Whole);
        }
    }

    /// Reads a compressed string.
    fn huffman(code: &[u8], buf: &mut [u8]) -> Result<Place, Unread> {
        let string = [&[0x80 | code.len() as u8], code].concat();
        let mut block = Block {
            stream: &string,
            at: 0,
            end: string.len(),
            more: None,
        };
        Out { buf, len: 0 }.string(&mut block)
    }

    #[test]
    fn the_code_is_that_of_the_rfc() {
        // RFC 7541, C.4 and C.6.
        for (text, code) in [
            ("no-cache", "a8eb 1064 9cbf"),
            ("custom-value", "25a8 49e9 5bb8 e8b4 bf"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff"),
            ("https://www.example.com", "9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3"),
            (
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                "94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 \
                 65c0 03ed 4ee5 b106 3d50 07",
            ),
        ] {
            let mut buf = [0; 100];
            let place = huffman(&bytes(code), &mut buf).expect(text);
            assert_eq!(&buf[place], text.as_bytes());
        }
        // What is left over is as the RFC has it: the first code of 19 bits is 0x7fff0.
        let mut buf = [0; 1];
        assert_eq!(huffman(&[0xff, 0xfe, 0x1f], &mut buf), Ok(0..1));
        assert_eq!(buf, *b"\\");
    }

    #[test]
    fn every_target_has_the_key_it_has_in_http_1() {
        let path: Vec<u8> = (b'!'..=b'~').filter(|b| *b != b'#').collect();
        let path = [b"/", &path[..]].concat();
        let head = [
            b"GET ",
            &path[..],
            b" HTTP/1.1\r\nHost: H.example:81\r\n\r\n",
        ]
        .concat();
        let mut parser = HeadParser::new(1_000);
        parser.feed(&head);
        let one = target::key(&head, &parser).expect("a target");

        // The names by index and spelt out, the values spelt.
        let authority = b"h.example:81";
        let block = [
            &[0x20, 0x83, 0x01, authority.len() as u8][..],
            authority,
            &[0x10, 5],
            b":path",
            &[path.len() as u8],
            &path,
            &[0x90, 0x90],
        ]
        .concat();
        let mut buf = [0; 300];
        let stream = stream(&block);
        let mut opening = Opening::default();
        assert_eq!(opening.feed(&stream), Progress::Whole);
        let request = opening.request(&stream, &mut buf).expect("a request");
        assert_eq!(request.method, b"POST");
        let two = request.target;
        assert_eq!(one.hash([1, 2]), two.hash([1, 2]));
        assert_eq!(one, two);
    }

    #[test]
    fn padding_and_priority_are_passed_over() {
        let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
        let payload = [&[2, 0, 0, 0, 0, 16], &block[..], &[0, 0]].concat();
        let flags = END_HEADERS | PADDED | WITH_PRIORITY;
        let settings = frame(SETTINGS, 0, &[]);
        let stream = [PREFACE, &settings, &frame(HEADERS, flags, &payload)].concat();
        assert_eq!(read(&stream), whole("GET www.example.com/"));
    }

    #[test]
    fn fields_may_be_cut_into_frames() {
        let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff 90 90");
        let settings = frame(SETTINGS, 0, &[]);
        for first in 0..block.len() {
            for second in first..block.len() {
                let parts = [
                    PREFACE,
                    &settings,
                    &frame(HEADERS, PADDED, &[&[3], &block[..first], &[0; 3]].concat()),
                    &frame(CONTINUATION, 0, &block[first..second]),
                    &frame(CONTINUATION, 0, &[]),
                    &frame(CONTINUATION, END_HEADERS, &block[second..]),
                ];
                let stream = parts.concat();
                assert_eq!(read(&stream), whole("GET www.example.com/"));
                // What matters is there before the end is.
                let (progress, read) = read(&stream[..stream.len() - 1]);
                assert_eq!(progress, Progress::Frames);
                assert_eq!(read.as_deref(), Ok("GET www.example.com/"));
            }
        }
    }

    #[test]
    fn frames_in_front_are_passed_over() {
        let headers = frame(HEADERS, END_HEADERS, &bytes("8286 8441 0161"));
        for kind in [SETTINGS, PRIORITY, PING, WINDOW_UPDATE, 10, 16, 0xff] {
            let settings = frame(SETTINGS, 0, &[]);
            let stream = [PREFACE, &settings, &frame(kind, 0xff, &[1; 8]), &headers].concat();
            assert_eq!(read(&stream), whole("GET a/"), "{kind}");
        }
    }

    #[test]
    fn a_flood_is_looked_at_once_and_is_no_request() {
        let mut opening = Opening::default();
        let settings = frame(SETTINGS, 0, &[]);
        let mut stream = [PREFACE, &settings, &frame(HEADERS, 0, &[0x82])].concat();
        for _ in 0..1_000 {
            stream.extend(frame(CONTINUATION, 0, &[]));
            assert_eq!(opening.feed(&stream), Progress::Frames);
            assert_eq!(opening.at, stream.len());
        }
        let mut buf = [0; 300];
        assert_eq!(opening.request(&stream, &mut buf), Err(Unread::Cut));
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed() {
        let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
        let settings = frame(SETTINGS, 0, &[]);
        let with = |frames: &[&[u8]]| [PREFACE, &frames.concat()].concat();
        let on = |stream: u8, frame: &[u8]| [&frame[..8], &[stream], &frame[9..]].concat();
        let long = [1, 0, 0, HEADERS, END_HEADERS, 0, 0, 0, 1];
        let begun = frame(HEADERS, 0, &block[..2]);
        let rest = frame(CONTINUATION, END_HEADERS, &block[2..]);
        for frames in [
            &[&frame(HEADERS, END_HEADERS, &block)[..]][..],
            &[&settings, &frame(0, 0, b"data")],
            &[&settings, &frame(3, 0, &[0; 4])],
            &[&settings, &frame(7, 0, &[0; 8])],
            &[&settings, &rest],
            &[&settings, &begun, &settings],
            &[&settings, &begun, &begun],
            &[&settings, &begun, &on(3, &rest)],
            &[&settings, &on(0, &frame(HEADERS, END_HEADERS, &block))],
            &[&settings, &long],
            &[&[1, 0, 0, SETTINGS, 0, 0, 0, 0, 0]],
        ] {
            let stream = with(frames);
            let said = (Progress::Whole, Err(Unread::Frames));
            assert_eq!(read(&stream), said, "{}", stream.escape_ascii());
        }
        let padded =
            |flags, fields: &[u8]| with(&[&settings, &frame(HEADERS, END_HEADERS | flags, fields)]);
        for stream in [
            padded(PADDED, &[9, 0x82]),
            padded(PADDED, &[]),
            padded(WITH_PRIORITY, &[0; 4]),
            // No method, no path, no authority, two of each, and what is none.
            stream(&bytes("8441 0161")),
            stream(&bytes("8286 418c f1e3 c2e5 f23a 6ba0 ab90 f4ff")),
            stream(&bytes("828684")),
            stream(&bytes("8283 8441 0161")),
            stream(&bytes("8284 8541 0161")),
            stream(&bytes("8284 4101 6141 0161")),
            stream(&bytes("0203 4720 5484 4101 61")),
            stream(&bytes("0200 8441 0161")),
            stream(&bytes("8204 0161 4101 61")),
            stream(&bytes("8204 022f 0041 0161")),
            stream(&bytes("8284 4103 6140 62")),
            // A pseudo-header field behind another field, and an index that nothing is known of.
            stream(&bytes("8284 9041 0161")),
            stream(&bytes("8284 be41 0161")),
            // A string and an integer without end, an integer that is too large.
            stream(&bytes("8284 410f 61")),
            stream(&bytes("8284 417f 80")),
            stream(&bytes("8284 417f ffff ffff 0f")),
            // Padding of eight bits, padding with a 0, the end-of-string code.
            stream(&bytes("8284 4182 1fff")),
            stream(&bytes("8284 4181 18")),
            stream(&bytes("8284 4184 ffff ffff")),
        ] {
            let said = (Progress::Whole, Err(Unread::Fields));
            assert_eq!(read(&stream), said, "{}", stream.escape_ascii());
        }
        assert_eq!(read(&stream(&bytes("8284 4181 1f"))), whole("GET a/"));
        let other = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n";
        assert_eq!(read(other), (Progress::Other, Err(Unread::NoRequest)));
    }

    #[test]
    fn there_is_room_for_whatever_fits_the_stream() {
        // The shortest symbols, and the longest values of the static table.
        let host = [&[0; 255][..], &[7]].concat();
        let block = [&bytes("87 87 85 83 41 ff 81 01")[..], &host].concat();
        let long = stream(&block);
        let behind = [&long[..], &frame(0, 0, &[0; 1_000])].concat();
        let mut opening = Opening::default();
        assert_eq!(opening.feed(&behind), Progress::Whole);
        let mut buf = vec![0; opening.room(behind.len())];
        assert!(buf.len() < 500);
        let request = opening.request(&long, &mut buf).expect("a request");
        assert_eq!(
            (request.method, request.target.path),
            (&b"POST"[..], &b"/index.html"[..])
        );
        assert_eq!(request.target.host, [b'0'; 256 * 8 / 5]);
        let mut small = [0; 15];
        let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
        let stream = stream(&block);
        let mut opening = Opening::default();
        assert_eq!(opening.feed(&stream), Progress::Whole);
        assert_eq!(opening.request(&stream, &mut small), Err(Unread::Fields));
    }
}
