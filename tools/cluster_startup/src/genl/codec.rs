// SPDX-License-Identifier: GPL-2.0

//! Generic netlink messages: building requests, walking answers. No I/O.
//!
//! # Layout
//!
//! ```text
//!  nlmsghdr   | length u32 | type u16 | flags u16 | sequence u32 | port u32 |
//!  genlmsghdr | command u8 | version u8 | reserved u16 |
//!  attribute  | length u16 | type u16 | value ... padded to 4 |  (repeated, may nest)
//! ```
//!
//! All integers are in host order. Walking never panics: what does not fit its container ends the
//! walk.

/// Length of `nlmsghdr`.
pub const MESSAGE_HEADER: usize = 16;
/// Length of `genlmsghdr`.
pub const GENERIC_HEADER: usize = 4;
/// Length of an attribute's header.
const ATTRIBUTE_HEADER: usize = 4;

/// The message ends a multi-part answer.
const NLMSG_DONE: u16 = 3;
/// The message is an acknowledgement or an error.
const NLMSG_ERROR: u16 = 2;
/// Flag bits in an attribute's type: nested, network byte order.
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;
/// The original message was not copied into the error.
const FLAG_CAPPED: u16 = 0x100;
/// Attributes follow the error.
const FLAG_ACK_TLVS: u16 = 0x200;
/// Text of the kernel in an error.
const ERROR_TEXT: u16 = 1;
/// Offset of the attribute that was refused.
const ERROR_OFFSET: u16 = 2;
/// Type of an attribute that is missing.
const ERROR_MISSING_TYPE: u16 = 5;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;

fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// A request being built.
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of `command` to the family with number `family`.
    pub fn new(family: u16, command: u8, version: u8, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&family.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[command, version, 0, 0]);
        Request { bytes }
    }

    /// Adds an attribute.
    ///
    /// # Panics
    ///
    /// When the value is longer than an attribute can be; all values are bounded by their makers.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).expect("value fits attribute");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// Adds a 16-bit number.
    pub fn put_u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds a 32-bit number.
    pub fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds a number of the length it needs: 32 bits where that is enough.
    pub fn put_uint(&mut self, kind: u16, value: u64) -> &mut Self {
        match u32::try_from(value) {
            Ok(short) => self.put_u32(kind, short),
            Err(_) => self.put(kind, &value.to_ne_bytes()),
        }
    }

    /// Adds a string, terminated.
    pub fn put_str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut terminated = value.as_bytes().to_vec();
        terminated.push(0);
        self.put(kind, &terminated)
    }

    /// Adds an attribute that says something by being there.
    pub fn put_flag(&mut self, kind: u16) -> &mut Self {
        self.put(kind, &[])
    }

    /// Adds a nest, which `fill` fills.
    pub fn put_nest(&mut self, kind: u16, fill: impl FnOnce(&mut Request)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; ATTRIBUTE_HEADER]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("nest fits attribute");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    /// The octets to send, with the number answers will carry.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("request fits message");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// The attributes in a buffer, one after the other.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its number, without flag bits.
    pub kind: u16,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Attributes { rest: bytes }
    }

    /// The first one with this number.
    pub fn first(mut self, kind: u16) -> Option<Attribute<'a>> {
        self.find(|attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let length = usize::from(u16_at(self.rest, 0)?);
        let kind = u16_at(self.rest, 2)? & TYPE_MASK;
        let value = self.rest.get(ATTRIBUTE_HEADER..length)?;
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        Some(Attribute { kind, value })
    }
}

impl<'a> Attribute<'a> {
    /// As a 16-bit number.
    pub fn u16(&self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.value.try_into().ok()?))
    }

    /// As a 32-bit number.
    pub fn u32(&self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.value.try_into().ok()?))
    }

    /// As a number of 32 or 64 bits.
    pub fn uint(&self) -> Option<u64> {
        match self.u32() {
            Some(short) => Some(u64::from(short)),
            None => Some(u64::from_ne_bytes(self.value.try_into().ok()?)),
        }
    }

    /// As a signed number of 32 or 64 bits.
    pub fn sint(&self) -> Option<i64> {
        match <[u8; 4]>::try_from(self.value) {
            Ok(short) => Some(i64::from(i32::from_ne_bytes(short))),
            Err(_) => Some(i64::from_ne_bytes(self.value.try_into().ok()?)),
        }
    }

    /// As text, without its terminator; octets that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        let end = self.value.iter().position(|&octet| octet == 0);
        let text = self
            .value
            .get(..end.unwrap_or(self.value.len()))
            .unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// As a nest.
    pub fn nest(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// What a message from the kernel is.
#[derive(Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// The operation succeeded.
    Acknowledged,
    /// The operation failed: errno and what the kernel says about it.
    Failed(i32, Option<String>),
    /// No more parts come.
    Done,
    /// A message of a family: its number, the command and the attributes.
    Message {
        /// Number of the family.
        family: u16,
        /// The command.
        command: u8,
        /// The attributes.
        attributes: &'a [u8],
    },
}

/// A message from the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Number of the request it answers; 0 for events.
    pub sequence: u32,
    /// What it is.
    pub body: Body<'a>,
}

/// The messages in one datagram. A message that does not fit ends the walk.
pub struct Answers<'a> {
    rest: &'a [u8],
}

impl<'a> Answers<'a> {
    /// The messages in `datagram`.
    pub fn new(datagram: &'a [u8]) -> Self {
        Answers { rest: datagram }
    }
}

impl<'a> Iterator for Answers<'a> {
    type Item = Answer<'a>;

    fn next(&mut self) -> Option<Answer<'a>> {
        let length = usize::try_from(u32_at(self.rest, 0)?).ok()?;
        let message = self.rest.get(..length)?;
        let kind = u16_at(message, 4)?;
        let flags = u16_at(message, 6)?;
        let sequence = u32_at(message, 8)?;
        let payload = message.get(MESSAGE_HEADER..)?;
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        let body = match kind {
            NLMSG_ERROR => error_body(payload, flags)?,
            NLMSG_DONE => match payload.get(..4) {
                // A dump that fails on its way says so in its last part.
                Some(_) => match done_body(payload, flags) {
                    Some((errno, text)) => Body::Failed(errno, text),
                    None => Body::Done,
                },
                None => Body::Done,
            },
            family => Body::Message {
                family,
                command: *payload.first()?,
                attributes: payload.get(GENERIC_HEADER..)?,
            },
        };
        Some(Answer { sequence, body })
    }
}

/// `nlmsgerr`: errno, the request's header or all of it, then attributes.
fn error_body(payload: &[u8], flags: u16) -> Option<Body<'_>> {
    let errno = errno_at(payload)?;
    if errno == 0 {
        return Some(Body::Acknowledged);
    }
    let original = if flags & FLAG_CAPPED != 0 {
        MESSAGE_HEADER
    } else {
        usize::try_from(u32_at(payload, 4)?).ok()?
    };
    let text = (flags & FLAG_ACK_TLVS != 0)
        .then(|| payload.get(4usize.checked_add(align(original))?..))
        .flatten()
        .and_then(error_text);
    Some(Body::Failed(errno, text))
}

fn done_body(payload: &[u8], flags: u16) -> Option<(i32, Option<String>)> {
    let errno = errno_at(payload)?;
    if errno == 0 {
        return None;
    }
    let text = (flags & FLAG_ACK_TLVS != 0)
        .then(|| payload.get(4..))
        .flatten()
        .and_then(error_text);
    Some((errno, text))
}

fn errno_at(payload: &[u8]) -> Option<i32> {
    let negative = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    Some(negative.checked_neg().unwrap_or(libc::EIO))
}

fn error_text(attributes: &[u8]) -> Option<String> {
    let attributes = Attributes::new(attributes);
    let text = attributes.first(ERROR_TEXT).map(|a| a.text());
    let place = match (
        attributes.first(ERROR_MISSING_TYPE).and_then(|a| a.u32()),
        attributes.first(ERROR_OFFSET).and_then(|a| a.u32()),
    ) {
        (Some(missing), _) => Some(format!("attribute {missing} is missing")),
        (None, Some(_)) if text.is_none() => Some("an attribute was refused".to_string()),
        _ => None,
    };
    match (text, place) {
        (Some(text), Some(place)) => Some(format!("{text} ({place})")),
        (text, place) => text.or(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut request = Request::new(0x21, 3, 1, ACK);
        request.put_u16(1, 4095).put_uint(2, 7);
        request.put_uint(3, 1 << 40).put_str(4, "node2").put_flag(5);
        request.put_nest(6, |nest| {
            nest.put(1, &[9; 16]).put_u16(2, 80);
        });
        request.finish(77)
    }

    #[test]
    fn a_request_reads_back_as_it_was_built() {
        let bytes = sample();
        let mut answers = Answers::new(&bytes);
        let answer = answers.next().unwrap();
        assert_eq!(answer.sequence, 77);
        let Body::Message {
            family,
            command,
            attributes,
        } = answer.body
        else {
            panic!("not a message");
        };
        assert_eq!((family, command), (0x21, 3));
        let all = Attributes::new(attributes);
        assert_eq!(all.first(1).unwrap().u16(), Some(4095));
        assert_eq!(all.first(2).unwrap().uint(), Some(7));
        assert_eq!(all.first(2).unwrap().value.len(), 4);
        assert_eq!(all.first(3).unwrap().uint(), Some(1 << 40));
        assert_eq!(all.first(4).unwrap().text(), "node2");
        assert!(all.first(5).unwrap().value.is_empty());
        let nest = all.first(6).unwrap().nest();
        assert_eq!(nest.first(1).unwrap().value, [9; 16]);
        assert_eq!(nest.first(2).unwrap().u16(), Some(80));
        assert_eq!(all.first(7), None);
        let mut walk = all;
        assert_eq!(walk.by_ref().count(), 6);
        assert!(walk.rest.is_empty());
        assert!(answers.next().is_none());
    }

    #[test]
    fn signed_numbers_come_in_two_lengths() {
        let short = Attribute {
            kind: 1,
            value: &(-5i32).to_ne_bytes(),
        };
        let long = Attribute {
            kind: 1,
            value: &(-5i64).to_ne_bytes(),
        };
        assert_eq!(short.sint(), Some(-5));
        assert_eq!(long.sint(), Some(-5));
    }

    fn error_message(errno: i32, flags: u16, tail: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&5u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(-errno).to_ne_bytes());
        bytes.extend_from_slice(&20u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 12]);
        bytes.extend_from_slice(tail);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn errors_carry_the_kernels_text() {
        let text = b"\x0f\x00\x01\x00no such node\0".map(|octet| octet);
        // The attribute's length is 4 + 13 octets.
        let mut attribute = text.to_vec();
        attribute[..2].copy_from_slice(&17u16.to_ne_bytes());
        attribute.resize(20, 0);
        let bytes = error_message(libc::ENOENT, FLAG_CAPPED | FLAG_ACK_TLVS, &attribute);
        let answer = Answers::new(&bytes).next().unwrap();
        assert_eq!(
            answer.body,
            Body::Failed(libc::ENOENT, Some("no such node".to_string()))
        );
        // Not capped: the request, here 20 octets of which 16 are its header, is in between.
        let mut uncapped = vec![0; 4];
        uncapped.extend_from_slice(&attribute);
        let bytes = error_message(libc::ENOENT, FLAG_ACK_TLVS, &uncapped);
        let answer = Answers::new(&bytes).next().unwrap();
        assert_eq!(
            answer.body,
            Body::Failed(libc::ENOENT, Some("no such node".to_string()))
        );
        let bytes = error_message(0, FLAG_CAPPED, &[]);
        let answer = Answers::new(&bytes).next().unwrap();
        assert_eq!(answer.body, Body::Acknowledged);
    }

    #[test]
    fn damaged_messages_end_the_walk_and_never_panic() {
        let whole = sample();
        for end in 0..whole.len() {
            assert_eq!(Answers::new(&whole[..end]).count(), 0);
            for attribute in Attributes::new(&whole[20..end.max(20)]) {
                let _ = (attribute.uint(), attribute.sint(), attribute.text());
            }
        }
        let error = error_message(1, FLAG_ACK_TLVS, &[0xff; 8]);
        let mut seed = 0x1234_5678_u32;
        for round in 0..20_000 {
            let mut bytes = if round % 2 == 0 {
                whole.clone()
            } else {
                error.clone()
            };
            for _ in 0..4 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (seed >> 8) as usize % bytes.len();
                bytes[at] = seed as u8;
            }
            // A length of zero would walk for ever; the walk must end by itself.
            for answer in Answers::new(&bytes).take(1000) {
                if let Body::Message { attributes, .. } = answer.body {
                    assert!(Attributes::new(attributes).count() < 1000);
                }
            }
        }
    }

    #[test]
    fn a_length_shorter_than_its_header_ends_the_walk() {
        assert_eq!(Answers::new(&[0; 64]).count(), 0);
        assert_eq!(Attributes::new(&[0; 64]).count(), 0);
    }
}
