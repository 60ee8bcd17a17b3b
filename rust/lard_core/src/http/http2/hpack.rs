// SPDX-License-Identifier: GPL-2.0

//! The pseudo-header fields of an HTTP/2 request, as HPACK (RFC 7541) compresses them. Of the tables there
//! is only the static one: before the first request nothing has been put into the other.

use super::super::chars::{self, TARGET, TOKEN};
use super::super::target::TargetKey;
use super::{Block, Request, Unread};

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
pub(super) type Place = core::ops::Range<usize>;

/// Collects what is known of the request.
#[derive(Default)]
pub(super) struct Fields {
    authority: Option<Place>,
    method: Option<Place>,
    path: Option<Place>,
}

impl Fields {
    /// Reads the request that a block of fields makes: up to the first one that is no pseudo-header field,
    /// since those come first. `buf` takes the fields.
    pub(super) fn read<'b>(
        block: &mut Block<'_>,
        buf: &'b mut [u8],
    ) -> Result<Request<'b>, Unread> {
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
pub(super) struct Out<'b> {
    pub(super) buf: &'b mut [u8],
    pub(super) len: usize,
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
    pub(super) fn string(&mut self, block: &mut Block<'_>) -> Result<Place, Unread> {
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
