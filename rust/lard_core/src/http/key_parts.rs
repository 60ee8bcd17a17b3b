// SPDX-License-Identifier: GPL-2.0

//! What of a request makes its target.
//!
//! ```text
//! parts = part *( "+" part )
//! part  = "host" / "path" / "query" / "header:" field-name / "cookie:" cookie-name
//! ```
//!
//! The default is `host+path+query`. `path` serves where a query does not change what is read from
//! disk, `cookie:session` where a user's state should stay on one node.

use super::super::addr::Endpoint;
use super::chars::{self, TOKEN};
use super::normal::normal;
use super::{fields, Span, TargetKey};
use core::fmt;
use core::hash::Hasher;

/// Parts of a request that tell targets apart. A part that a request lacks is like an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyParts<'p> {
    /// Host and port.
    pub host: bool,
    /// The path without the query.
    pub path: bool,
    /// The query, with the question mark before it.
    pub query: bool,
    /// The value of the first field with this name.
    pub header: Option<&'p [u8]>,
    /// The value of the first cookie with this name.
    pub cookie: Option<&'p [u8]>,
}

/// These are no parts of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKeyParts;

impl fmt::Display for BadKeyParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a target is made of host, path, query, header:NAME and cookie:NAME, joined by +",
        )
    }
}

impl core::error::Error for BadKeyParts {}

impl<'p> KeyParts<'p> {
    /// The default, as it is written.
    pub const DEFAULT_TEXT: &'static str = "host+path+query";

    /// `host+path+query`.
    pub const DEFAULT: KeyParts<'static> = KeyParts {
        host: true,
        path: true,
        query: true,
        header: None,
        cookie: None,
    };

    /// Reads parts as an administrator writes them; each one once.
    pub fn parse(text: &'p str) -> Result<Self, BadKeyParts> {
        let mut parts = KeyParts {
            host: false,
            path: false,
            query: false,
            header: None,
            cookie: None,
        };
        for part in text.split('+') {
            let place = match part {
                "host" => &mut parts.host,
                "path" => &mut parts.path,
                "query" => &mut parts.query,
                _ => {
                    let (kind, name) = part.split_once(':').ok_or(BadKeyParts)?;
                    let place = match kind {
                        "header" => &mut parts.header,
                        "cookie" => &mut parts.cookie,
                        _ => return Err(BadKeyParts),
                    };
                    let name = name.as_bytes();
                    let is_token = !name.is_empty() && chars::run(name, TOKEN) == name.len();
                    if !is_token || place.replace(name).is_some() {
                        return Err(BadKeyParts);
                    }
                    continue;
                }
            };
            if core::mem::replace(place, true) {
                return Err(BadKeyParts);
            }
        }
        Ok(parts)
    }

    /// The 64 bits by which the dispatcher knows the target of a request: SipHash-2-4 with the
    /// cluster's key, so that a client cannot choose targets that fall together. `head` is the
    /// complete head that `target` is from.
    pub fn hash(&self, target: &TargetKey<'_>, head: &[u8], key: [u64; 2]) -> u64 {
        let mut hasher = hasher(key);
        if self.host {
            write(&mut hasher, target.spelt_host());
            // A byte that no host has keeps host and path apart.
            hasher.write(&[0xff]);
            hasher.write(&target.port.unwrap_or(0).to_be_bytes());
        }
        let (path, query) = target.split();
        if self.path {
            write(&mut hasher, normal(path));
        }
        if self.query {
            write(&mut hasher, normal(query));
        }
        // Bytes that neither a path nor a query has.
        if let Some(name) = self.header {
            hasher.write(&[0xfe]);
            hasher.write(fields::field(head, name).unwrap_or_default());
        }
        if let Some(name) = self.cookie {
            hasher.write(&[0xfd]);
            hasher.write(fields::cookie(head, name).unwrap_or_default());
        }
        hasher.finish()
    }

    /// Are all of them in the target itself?
    pub const fn are_of_target(&self) -> bool {
        self.header.is_none() && self.cookie.is_none()
    }
}

/// What stands for the target of a connection whose first request cannot be read.
pub fn hash_of_client(client: &Endpoint, key: [u64; 2]) -> u64 {
    let mut hasher = hasher(key);
    // As above: no target hashes like this.
    hasher.write(&[0xfc]);
    hasher.write(&client.addr.0);
    hasher.write(&client.port.to_be_bytes());
    hasher.finish()
}

/// SipHash-2-4.
// The standard library wants its successor to be used, which does not let one choose the key; the
// algorithm is what is asked for, and is part of the protocol.
#[allow(
    deprecated,
    reason = "the only SipHash in core with a key of one's own"
)]
fn hasher([k0, k1]: [u64; 2]) -> core::hash::SipHasher {
    core::hash::SipHasher::new_with_keys(k0, k1)
}

/// [`KeyParts`] as places in the text they were read from, for whoever keeps that text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlaces {
    plain: KeyParts<'static>,
    header: Option<Span>,
    cookie: Option<Span>,
}

impl KeyPlaces {
    /// Reads parts as [`KeyParts::parse`] does.
    pub fn parse(text: &str) -> Result<Self, BadKeyParts> {
        let KeyParts {
            host,
            path,
            query,
            header,
            cookie,
        } = KeyParts::parse(text)?;
        let place = |name: Option<&[u8]>| match name {
            None => Ok(None),
            Some(name) => match Span::within(text.as_bytes(), name) {
                None => Err(BadKeyParts),
                found => Ok(found),
            },
        };
        Ok(KeyPlaces {
            plain: KeyParts {
                host,
                path,
                query,
                header: None,
                cookie: None,
            },
            header: place(header)?,
            cookie: place(cookie)?,
        })
    }

    /// The parts, of which `text` is the text they were read from.
    pub fn parts<'t>(&self, text: &'t str) -> KeyParts<'t> {
        KeyParts {
            header: self.header.map(|span| span.of(text.as_bytes())),
            cookie: self.cookie.map(|span| span.of(text.as_bytes())),
            ..self.plain
        }
    }
}

/// Feeds a hasher in pieces that are worth a call.
fn write(hasher: &mut impl Hasher, bytes: impl Iterator<Item = u8>) {
    let mut piece = [0; 64];
    let mut len = 0usize;
    for b in bytes {
        if len == piece.len() {
            hasher.write(&piece);
            len = 0;
        }
        if let Some(place) = piece.get_mut(len) {
            *place = b;
            len = len.saturating_add(1);
        }
    }
    hasher.write(piece.get(..len).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::super::{target, HeadParser, Status};
    use super::*;

    fn hash(parts: &str, host: &str, path: &str, fields: &str) -> u64 {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        let mut parser = HeadParser::new(8_192);
        assert_eq!(parser.feed(head.as_bytes()), Status::Complete(head.len()));
        let key = target::key(head.as_bytes(), &parser).unwrap();
        let parts = KeyParts::parse(parts).unwrap();
        parts.hash(&key, head.as_bytes(), [1, 2])
    }

    #[test]
    fn only_the_parts_count() {
        let cases = [
            ("host", [false, true, true, true, true]),
            ("path", [true, false, true, true, true]),
            ("path+query", [true, false, false, true, true]),
            ("host+path", [false, false, true, true, true]),
            ("query", [true, true, false, true, true]),
            ("header:X-User", [true, true, true, false, true]),
            ("cookie:session", [true, true, true, true, false]),
            ("host+path+query", [false, false, false, true, true]),
            (
                "path+header:x-user+cookie:session",
                [true, false, true, false, false],
            ),
        ];
        let fields =
            |user, session| format!("X-User: {user}\r\nCookie: a=b; session={session}\r\n");
        for (parts, same) in cases {
            let base = hash(parts, "h", "/a?q", &fields("u", "s"));
            let others = [
                hash(parts, "other", "/a?q", &fields("u", "s")),
                hash(parts, "h", "/b?q", &fields("u", "s")),
                hash(parts, "h", "/a?r", &fields("u", "s")),
                hash(parts, "h", "/a?q", &fields("other", "s")),
                hash(parts, "h", "/a?q", &fields("u", "other")),
            ];
            assert_eq!(others.map(|other| other == base), same, "{parts}");
        }
    }

    #[test]
    fn what_is_missing_is_like_what_is_empty() {
        let parts = "path+header:X-User+cookie:session";
        let none = hash(parts, "h", "/a", "");
        assert_eq!(
            hash(parts, "h", "/a", "X-User:\r\nCookie: session=\r\n"),
            none
        );
        // But a value is not taken for another part's.
        let user = hash(parts, "h", "/a", "X-User: x\r\n");
        assert_ne!(hash(parts, "h", "/a", "Cookie: session=x\r\n"), user);
    }

    #[test]
    fn clients_are_told_apart_from_each_other_and_from_targets() {
        let client = |last, port| {
            let addr = super::super::super::addr::Addr::from_v4([192, 0, 2, last]);
            hash_of_client(&Endpoint::new(addr, port), [1, 2])
        };
        let hashes = [
            client(1, 1),
            client(1, 2),
            client(2, 1),
            hash("path", "h", "/a", ""),
        ];
        for (i, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..i].contains(hash), "{i}");
        }
        assert_eq!(client(1, 1), client(1, 1));
    }

    #[test]
    fn parts_are_read_or_refused() {
        assert_eq!(KeyParts::parse("host+path+query"), Ok(KeyParts::DEFAULT));
        assert!(KeyParts::DEFAULT.are_of_target());
        for text in ["path+header:a", "path+cookie:a"] {
            assert!(!KeyParts::parse(text).unwrap().are_of_target());
        }
        assert_eq!(KeyParts::parse("query+path+host"), Ok(KeyParts::DEFAULT));
        assert_eq!(
            KeyParts::parse(KeyParts::DEFAULT_TEXT),
            Ok(KeyParts::DEFAULT)
        );
        for text in [
            "host+path+query",
            "cookie:id+path+header:X-User",
            "header:a",
        ] {
            let places = KeyPlaces::parse(text).unwrap();
            assert_eq!(Ok(places.parts(text)), KeyParts::parse(text));
        }
        for text in [
            "",
            "host+",
            "path+path",
            "url",
            "header:",
            "header:a b",
            "cookie:a+cookie:b",
        ] {
            assert_eq!(KeyParts::parse(text), Err(BadKeyParts), "{text:?}");
            assert_eq!(KeyPlaces::parse(text), Err(BadKeyParts), "{text:?}");
        }
    }
}
