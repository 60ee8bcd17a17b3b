// SPDX-License-Identifier: GPL-2.0

//! The fields whose values decide something here, recognised byte by byte.
//!
//! A head arrives in any number of pieces and nothing of it is looked at twice. So names and words
//! are not compared once they are complete: a [`Matcher`] keeps the set of those that the bytes so far
//! could still become.

use super::BadHead;

/// A field that means something to the front-end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
    Upgrade,
    /// Any other.
    Other,
}

const FIELDS: [(&[u8], Field); 6] = [
    (b"host", Field::Host),
    (b"content-length", Field::ContentLength),
    (b"transfer-encoding", Field::TransferEncoding),
    (b"connection", Field::Connection),
    (b"expect", Field::Expect),
    (b"upgrade", Field::Upgrade),
];

/// A word in the value of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Close,
    KeepAlive,
    Chunked,
    Continue,
}

const WORDS: [(&[u8], Word); 4] = [
    (b"close", Word::Close),
    (b"keep-alive", Word::KeepAlive),
    (b"chunked", Word::Chunked),
    (b"100-continue", Word::Continue),
];

/// Which entries of a table the bytes so far could still become; letters in either case.
#[derive(Clone, Copy, Debug)]
struct Matcher {
    /// Bit i: entry i agrees with all bytes so far.
    left: u8,
    at: u8,
}

impl Matcher {
    const START: Matcher = Matcher { left: !0, at: 0 };
    const NOTHING: Matcher = Matcher { left: 0, at: 0 };

    fn step<T>(&mut self, table: &[(&[u8], T)], b: u8) {
        if self.left == 0 {
            return;
        }
        let b = b.to_ascii_lowercase();
        let mut left = 0;
        for (i, (name, _)) in table.iter().enumerate() {
            if name.get(usize::from(self.at)) == Some(&b) {
                left |= 1 << i;
            }
        }
        self.left &= left;
        // No overflow: nothing is left to agree long before.
        self.at = self.at.saturating_add(1);
    }

    /// The entry that the bytes are, if they are one.
    fn end<T: Copy>(&self, table: &[(&[u8], T)]) -> Option<T> {
        let i = usize::try_from(self.left.trailing_zeros()).ok()?;
        let (name, value) = table.get(i)?;
        (name.len() == usize::from(self.at)).then_some(*value)
    }
}

/// Recognises the name of a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    matcher: Matcher,
    underscore: bool,
}

impl Name {
    pub(super) const START: Name = Name {
        matcher: Matcher::START,
        underscore: false,
    };

    pub(super) fn step(&mut self, b: u8) {
        // Gateways to programs make one name of both spellings, so a server behind one may see
        // Content-Length where there is Content_Length.
        self.underscore |= b == b'_';
        let b = if b == b'_' { b'-' } else { b };
        self.matcher.step(&FIELDS, b);
    }

    /// Can the rest be skipped, because no name we know begins like this?
    pub(super) const fn is_other(&self) -> bool {
        self.matcher.left == 0
    }

    /// The field with this name; refused if it is only almost the name.
    pub(super) fn end(&self) -> Result<Field, BadHead> {
        match self.matcher.end(&FIELDS) {
            Some(_) if self.underscore => Err(BadHead::FieldName),
            field => Ok(field.unwrap_or(Field::Other)),
        }
    }
}

/// Recognises the words in a list.
///
/// ```text
/// #element => [ element ] *( OWS "," OWS [ element ] )            ; RFC 9110, 5.6.1
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    matcher: Matcher,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Before,
    Inside,
    Behind,
}

/// An element of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Empty,
    Word(Word),
    Other,
}

impl List {
    pub(super) const START: List = List {
        matcher: Matcher::START,
        place: Place::Before,
    };

    /// Takes a byte of the value; yields the element that it ends.
    pub(super) fn step(&mut self, b: u8) -> Option<Element> {
        match (b, self.place) {
            (b',', _) => return Some(self.end()),
            (b' ' | b'\t', Place::Inside) => self.place = Place::Behind,
            (b' ' | b'\t', _) => {}
            // A second word in one element: whatever it is, it is none we know.
            (_, Place::Behind) => self.matcher = Matcher::NOTHING,
            (_, Place::Before | Place::Inside) => {
                self.place = Place::Inside;
                self.matcher.step(&WORDS, b);
            }
        }
        None
    }

    /// The element that the end of the value ends.
    pub(super) fn end(&mut self) -> Element {
        let List { matcher, place } = core::mem::replace(self, Self::START);
        if place == Place::Before {
            return Element::Empty;
        }
        matcher.end(&WORDS).map_or(Element::Other, Element::Word)
    }
}

/// Reads the value of Content-Length.
///
/// ```text
/// Content-Length = 1*DIGIT                                       ; RFC 9110, 8.6
/// ```
///
/// Zeros in front are refused although the grammar has them: there are servers that read such a
/// number as an octal one. So is what does not fit in 63 bits, in which most servers keep it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    value: Option<u64>,
    ended: bool,
}

impl Number {
    pub(super) const START: Number = Number {
        value: None,
        ended: false,
    };

    pub(super) fn step(&mut self, b: u8) -> Result<(), BadHead> {
        match b {
            b' ' | b'\t' => self.ended = true,
            b'0'..=b'9' if !self.ended => {
                let digit = u64::from(b.wrapping_sub(b'0'));
                let value = match self.value {
                    None => Some(digit),
                    Some(0) => None,
                    Some(value) => value.checked_mul(10).and_then(|v| v.checked_add(digit)),
                };
                let value = value.filter(|value| *value <= i64::MAX.unsigned_abs());
                self.value = Some(value.ok_or(BadHead::ContentLength)?);
            }
            // Anything else, a list of lengths included.
            _ => return Err(BadHead::ContentLength),
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Result<u64, BadHead> {
        self.value.ok_or(BadHead::ContentLength)
    }
}
