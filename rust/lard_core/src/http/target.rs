// SPDX-License-Identifier: GPL-2.0

//! What a request asks for.
//!
//! The target key is the host (in lower case, without a port that is the default anyway) and the path
//! with its query: `http://WWW.example.com:80/~a?b`, and `/%7ea?b` with `Host: www.example.com`, are
//! one target. Only spellings that RFC 3986, 6.2.2, calls equivalent are made equal. Two spellings of
//! one file beyond that are two targets to the dispatcher, which at worst puts the file into two
//! caches.

use super::chars::{self, IP_LITERAL, REG_NAME};
use super::normal::normal;
use super::{BadHead, Form, HeadParser, KeyParts};
use core::fmt;

/// What a request asks for, as parts of its head.
#[derive(Clone, Copy, Debug)]
pub struct TargetKey<'h> {
    /// The host as it was written, IP literals in brackets; empty if the request names none.
    pub host: &'h [u8],
    /// The port, unless it is the default.
    pub port: Option<u16>,
    /// Path and query; `*` if the request is about the server as a whole, empty for CONNECT.
    pub path: &'h [u8],
}

/// The target of a complete head. `head` are the bytes that `parser` was fed.
///
/// Here the authorities are checked as well: that of Host, that of the target, and that they are the
/// same. RFC 9112, 3.2.2, lets the target win over a Host that differs, but servers do not agree in
/// doing so, and no client sends two.
pub fn key<'h>(head: &'h [u8], parser: &HeadParser) -> Result<TargetKey<'h>, BadHead> {
    let target = parser.target_span().of(head);
    let named = parser.host_span().map(|span| span.of(head));
    match parser.form() {
        Form::Origin | Form::Asterisk => {
            let host = Authority::parse(named.unwrap_or_default())?;
            Ok(TargetKey {
                host: host.host,
                port: host.port.filter(|port| *port != HTTP_PORT),
                path: target,
            })
        }
        Form::Absolute => {
            let (scheme_port, rest) = split_scheme(target).ok_or(BadHead::Target)?;
            let end = rest.iter().position(|b| matches!(b, b'/' | b'?'));
            let (authority, path) = rest
                .split_at_checked(end.unwrap_or(rest.len()))
                .ok_or(BadHead::Target)?;
            let host = Authority::parse(authority)?;
            // RFC 9110, 4.2.1: an http URI with an empty host is invalid.
            if host.host.is_empty() {
                return Err(BadHead::Host);
            }
            host.must_be(named, scheme_port)?;
            Ok(TargetKey {
                host: host.host,
                port: host.port.filter(|port| *port != scheme_port),
                // RFC 9110, 4.2.3: an empty path is equivalent to "/".
                path: if path.is_empty() { b"/" } else { path },
            })
        }
        Form::Authority => {
            // authority-form = uri-host ":" port                  ; RFC 9112, 3.2.3
            let host = Authority::parse(target)?;
            let port = host.port.ok_or(BadHead::Host)?;
            if host.host.is_empty() {
                return Err(BadHead::Host);
            }
            host.must_be(named, port)?;
            Ok(TargetKey {
                host: host.host,
                port: Some(port),
                path: b"",
            })
        }
    }
}

impl<'h> TargetKey<'h> {
    /// From an authority and a path; none if the authority is none.
    pub(super) fn of_parts(authority: &'h [u8], path: &'h [u8]) -> Option<Self> {
        let authority = Authority::parse(authority).ok()?;
        (!authority.host.is_empty()).then_some(TargetKey {
            host: authority.host,
            port: authority.port.filter(|port| *port != HTTP_PORT),
            path,
        })
    }
}

impl TargetKey<'_> {
    /// The host in the spelling that is compared.
    pub(super) fn spelt_host(&self) -> impl Iterator<Item = u8> + '_ {
        normal(self.host).map(|b| b.to_ascii_lowercase())
    }

    /// The path without the query, and the query with its question mark.
    pub(crate) fn split(&self) -> (&[u8], &[u8]) {
        let end = self.path.iter().position(|b| *b == b'?');
        let parts = self.path.split_at_checked(end.unwrap_or(self.path.len()));
        parts.unwrap_or_default()
    }

    /// The 64 bits by which the dispatcher knows the target: [`KeyParts::DEFAULT`].
    pub fn hash(&self, key: [u64; 2]) -> u64 {
        KeyParts::DEFAULT.hash(self, b"", key)
    }
}

impl PartialEq for TargetKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.spelt_host().eq(other.spelt_host())
            && self.port == other.port
            && normal(self.path).eq(normal(other.path))
    }
}

impl Eq for TargetKey<'_> {}

impl fmt::Display for TargetKey<'_> {
    /// `host:port/path` in the spelling that is compared.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spelt_host()
            .try_for_each(|b| b.escape_ascii().fmt(f))?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        normal(self.path).try_for_each(|b| b.escape_ascii().fmt(f))
    }
}

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// ```text
/// absolute-URI = scheme ":" hier-part [ "?" query ]               ; RFC 3986, 4.3
/// hier-part    = "//" authority path-abempty / …
/// ```
///
/// Says the default port of the scheme, and what follows `//`.
fn split_scheme(target: &[u8]) -> Option<(u16, &[u8])> {
    for (scheme, port) in [(&b"http://"[..], HTTP_PORT), (b"https://", HTTPS_PORT)] {
        if let Some((head, rest)) = target.split_at_checked(scheme.len()) {
            if head.eq_ignore_ascii_case(scheme) {
                return Some((port, rest));
            }
        }
    }
    None
}

#[derive(Clone, Copy)]
struct Authority<'h> {
    host: &'h [u8],
    port: Option<u16>,
}

impl<'h> Authority<'h> {
    /// ```text
    /// Host       = uri-host [ ":" port ]                          ; RFC 9110, 7.2
    /// uri-host   = IP-literal / IPv4address / reg-name
    /// port       = *DIGIT
    /// ```
    ///
    /// User information (`user@host`) is refused, as RFC 9110, 4.2.4, advises.
    fn parse(bytes: &'h [u8]) -> Result<Self, BadHead> {
        let end = match bytes {
            [b'[', inner @ ..] => {
                let len = chars::run(inner, IP_LITERAL);
                if len == 0 || inner.get(len) != Some(&b']') {
                    return Err(BadHead::Host);
                }
                len.saturating_add(2)
            }
            _ => chars::run(bytes, REG_NAME),
        };
        let (host, rest) = bytes.split_at_checked(end).ok_or(BadHead::Host)?;
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(port(digits).ok_or(BadHead::Host)?),
            _ => return Err(BadHead::Host),
        };
        Ok(Authority { host, port })
    }

    /// Refuses a Host field that names anything else. `default` is the port that none stands for.
    fn must_be(&self, named: Option<&[u8]>, default: u16) -> Result<(), BadHead> {
        let Some(named) = named else {
            return Ok(());
        };
        let named = Authority::parse(named)?;
        let same = self.host.eq_ignore_ascii_case(named.host)
            && self.port.unwrap_or(default) == named.port.unwrap_or(default);
        if same {
            Ok(())
        } else {
            Err(BadHead::HostMismatch)
        }
    }
}

fn port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |port, b| {
        let digit = b
            .is_ascii_digit()
            .then(|| u16::from(b.wrapping_sub(b'0')))?;
        port.checked_mul(10)?.checked_add(digit)
    })
}
