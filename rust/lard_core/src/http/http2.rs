// SPDX-License-Identifier: GPL-2.0

//! The first request of a connection that speaks HTTP/2 from its first byte (RFC 9113, 3.3).
//!
//! Such a connection stays with one server, since its requests share their compression. But it should
//! be the right one for the first request at least, which clients send without waiting:
//!
//! ```text
//! preface  SETTINGS  [WINDOW_UPDATE …]  HEADERS
//! ```
//!
//! Only what clients do there is understood: one HEADERS frame, fields in front that the static table
//! of HPACK (RFC 7541) or the frame itself spells. Everything else is unreadable, which costs nothing
//! but the better choice: the server reads the same bytes for itself.

use super::chars::{self, TARGET};
use super::target::TargetKey;

/// What a client sends first.
///
/// ```text
/// PRI * HTTP/2.0 CRLF CRLF SM CRLF CRLF                           ; RFC 9113, 3.4
/// ```
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the beginning of a stream asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First<'b> {
    /// The first request is not complete.
    Partial,
    /// This.
    Target(TargetKey<'b>),
    /// That cannot be said.
    Unreadable,
}

/// Reads the first request of `stream`, which begins with the connection. `buf` takes the host and the
/// path, as many bytes as they are spelt with; what does not fit is unreadable.
pub fn first_request<'b>(stream: &[u8], buf: &'b mut [u8]) -> First<'b> {
    match block(stream) {
        Block::Partial => First::Partial,
        Block::Whole(block) => match Request::read(block, buf) {
            Some(target) => First::Target(target),
            None => First::Unreadable,
        },
        Block::None => First::Unreadable,
    }
}

/// The fields of the first request, compressed.
enum Block<'s> {
    Partial,
    Whole(&'s [u8]),
    None,
}

// Types of frames (RFC 9113, 6; RFC 9218, 7.1).
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const PRIORITY_UPDATE: u8 = 16;

// Flags of HEADERS (RFC 9113, 6.2).
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

/// The longest frame before a server allowed longer ones (RFC 9113, 4.2).
const MAX_FRAME: usize = 16_384;

fn block(stream: &[u8]) -> Block<'_> {
    let Some(mut left) = stream.strip_prefix(PREFACE) else {
        return if PREFACE.starts_with(stream) {
            Block::Partial
        } else {
            Block::None
        };
    };
    let mut is_first = true;
    loop {
        // Length (24), Type (8), Flags (8), Reserved (1), Stream Identifier (31)
        let [l0, l1, l2, kind, flags, _, _, _, _, behind @ ..] = left else {
            return Block::Partial;
        };
        let len = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
        // RFC 9113, 3.4: the first frame is SETTINGS.
        let is_known = match *kind {
            SETTINGS => true,
            HEADERS | PRIORITY | PING | WINDOW_UPDATE | PRIORITY_UPDATE => !is_first,
            _ => false,
        };
        if len > MAX_FRAME || !is_known {
            return Block::None;
        }
        is_first = false;
        let Some((payload, behind)) = behind.split_at_checked(len) else {
            return Block::Partial;
        };
        if *kind == HEADERS {
            return fragment(payload, *flags).map_or(Block::None, Block::Whole);
        }
        left = behind;
    }
}

/// The fields in a HEADERS frame, if they are all there.
fn fragment(mut payload: &[u8], flags: u8) -> Option<&[u8]> {
    if flags & END_HEADERS == 0 {
        return None;
    }
    if flags & PADDED != 0 {
        let (padding, rest) = payload.split_first()?;
        let end = rest.len().checked_sub(usize::from(*padding))?;
        payload = rest.get(..end)?;
    }
    if flags & WITH_PRIORITY != 0 {
        payload = payload.get(5..)?;
    }
    Some(payload)
}

/// The pseudo-header fields of a request (RFC 9113, 8.3.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pseudo {
    Authority,
    Path,
    Other,
}

/// Entries of the static table (RFC 7541, A) that stand for these, from index 1.
const STATIC: [(Pseudo, &[u8]); 7] = [
    (Pseudo::Authority, b""),
    (Pseudo::Other, b"GET"),
    (Pseudo::Other, b"POST"),
    (Pseudo::Path, b"/"),
    (Pseudo::Path, b"/index.html"),
    (Pseudo::Other, b"http"),
    (Pseudo::Other, b"https"),
];

/// A place in the buffer.
type Place = core::ops::Range<usize>;

/// Collects what is known of the request.
#[derive(Default)]
struct Request {
    authority: Option<Place>,
    path: Option<Place>,
}

impl Request {
    /// Reads fields up to the first one that is no pseudo-header field: those come first.
    fn read<'b>(mut block: &[u8], buf: &'b mut [u8]) -> Option<TargetKey<'b>> {
        let mut request = Request::default();
        let mut out = Out { buf, len: 0 };
        while let Some((first, _)) = block.split_first() {
            // RFC 7541, 6: indexed; literal with indexing; size update; literal without indexing.
            let prefix = match first {
                0x80.. => 7,
                0x40.. => 6,
                0x20.. => 5,
                _ => 4,
            };
            let index = integer(&mut block, prefix)?;
            if prefix == 5 {
                continue;
            }
            let known = index.checked_sub(1).map(|i| STATIC.get(i));
            let name = match known {
                Some(Some((name, _))) => *name,
                // A field that follows.
                Some(None) => break,
                None => match literal_name(&mut block, &mut out)? {
                    Some(name) => name,
                    None => break,
                },
            };
            let value = match known.flatten() {
                Some((_, value)) if prefix == 7 => out.put(value)?,
                _ => out.string(&mut block)?,
            };
            request.take(name, value)?;
        }
        request.target(out.buf)
    }

    fn take(&mut self, name: Pseudo, value: Place) -> Option<()> {
        let place = match name {
            Pseudo::Authority => &mut self.authority,
            Pseudo::Path => &mut self.path,
            Pseudo::Other => return Some(()),
        };
        place.replace(value).is_none().then_some(())
    }

    fn target(self, buf: &[u8]) -> Option<TargetKey<'_>> {
        let path = buf.get(self.path?)?;
        let is_path = path.starts_with(b"/") && chars::run(path, TARGET) == path.len();
        let authority = buf.get(self.authority?)?;
        is_path.then_some(())?;
        TargetKey::of_parts(authority, path)
    }
}

/// A name that is spelt out; `None` inside if it is not that of a pseudo-header field.
fn literal_name(block: &mut &[u8], out: &mut Out<'_>) -> Option<Option<Pseudo>> {
    let before = out.len;
    let place = out.string(block)?;
    let name = match out.buf.get(place)? {
        b":authority" => Some(Pseudo::Authority),
        b":path" => Some(Pseudo::Path),
        [b':', ..] => Some(Pseudo::Other),
        _ => None,
    };
    out.len = before;
    Some(name)
}

/// An integer, of which the first byte has `prefix` bits (RFC 7541, 5.1); up to 16 bits.
fn integer(block: &mut &[u8], prefix: u8) -> Option<usize> {
    let (first, rest) = block.split_first()?;
    let mask = 0xffu8.checked_shr(8u32.checked_sub(u32::from(prefix))?)?;
    let mut left = rest;
    let mut value = usize::from(first & mask);
    if value == usize::from(mask) {
        for shift in [0, 7, 14] {
            let (b, rest) = left.split_first()?;
            left = rest;
            value = value.checked_add(usize::from(b & 0x7f) << shift)?;
            if b & 0x80 == 0 {
                *block = left;
                return (value <= 0xffff).then_some(value);
            }
        }
        return None;
    }
    *block = left;
    Some(value)
}

/// The buffer, as far as it is filled.
struct Out<'b> {
    buf: &'b mut [u8],
    len: usize,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<Place> {
        let end = self.len.checked_add(bytes.len())?;
        let place = self.len..end;
        self.buf.get_mut(place.clone())?.copy_from_slice(bytes);
        self.len = end;
        Some(place)
    }

    /// A string, spelt or compressed (RFC 7541, 5.2).
    fn string(&mut self, block: &mut &[u8]) -> Option<Place> {
        let is_compressed = block.first()? & 0x80 != 0;
        let len = integer(block, 7)?;
        let (bytes, rest) = block.split_at_checked(len)?;
        *block = rest;
        if is_compressed {
            self.huffman(bytes)
        } else {
            self.put(bytes)
        }
    }

    fn huffman(&mut self, bytes: &[u8]) -> Option<Place> {
        let start = self.len;
        let mut code = Code::START;
        for byte in bytes {
            for bit in (0..8).rev() {
                if let Some(symbol) = code.step(byte >> bit & 1)? {
                    self.put(&[symbol])?;
                    code = Code::START;
                }
            }
        }
        code.is_padding().then_some(start..self.len)
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

    fn read(stream: &[u8]) -> Result<String, bool> {
        let mut buf = [0; 300];
        match first_request(stream, &mut buf) {
            First::Target(target) => Ok(target.to_string()),
            First::Partial => Err(true),
            First::Unreadable => Err(false),
        }
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
            assert_eq!(read(&stream).as_deref(), Ok("www.example.com/"));
            for end in 0..stream.len() {
                assert_eq!(read(&stream[..end]), Err(true), "{end}");
            }
        }
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
            let mut out = Out { buf: &mut buf, len: 0 };
            let place = out.huffman(&bytes(code)).expect(text);
            assert_eq!(&buf[place], text.as_bytes());
        }
        // What is left over is as the RFC has it: the first code of 19 bits is 0x7fff0.
        let mut buf = [0; 1];
        let mut out = Out {
            buf: &mut buf,
            len: 0,
        };
        assert_eq!(out.huffman(&[0xff, 0xfe, 0x1f]), Some(0..1));
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
        let First::Target(two) = first_request(&stream(&block), &mut buf) else {
            panic!("unreadable");
        };
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
        assert_eq!(read(&stream).as_deref(), Ok("www.example.com/"));
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed() {
        let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
        let settings = frame(SETTINGS, 0, &[]);
        let with = |frames: &[&[u8]]| [PREFACE, &frames.concat()].concat();
        let padded = frame(HEADERS, END_HEADERS | PADDED, &[9, 0x82]);
        for stream in [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n".to_vec(),
            with(&[&frame(HEADERS, END_HEADERS, &block)]),
            with(&[&settings, &frame(HEADERS, 0, &block)]),
            with(&[&settings, &padded]),
            with(&[&settings, &frame(0, 0, b"data")]),
            with(&[&settings, &[1, 0, 0, HEADERS, END_HEADERS, 0, 0, 0, 1]]),
            // No path, no authority, two paths, a path that is none, an authority that is none.
            stream(&bytes("8286 418c f1e3 c2e5 f23a 6ba0 ab90 f4ff")),
            stream(&bytes("828684")),
            stream(&bytes("8284 8541 0161")),
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
            assert_eq!(read(&stream), Err(false), "{}", stream.escape_ascii());
        }
        let mut small = [0; 15];
        assert_eq!(
            first_request(&stream(&block), &mut small),
            First::Unreadable
        );
        assert_eq!(read(&stream(&bytes("8284 4181 1f"))).as_deref(), Ok("a/"));
    }
}
