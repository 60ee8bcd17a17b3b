// SPDX-License-Identifier: GPL-2.0

//! Content rules: which back-ends a request may go to, by what it asks for.
//!
//! Rules are looked at in order and the first that matches decides; among the back-ends that have its
//! tags the policy chooses. A request that no rule matches may go to any back-end.
//!
//! ```text
//! prefix /static/              tag static
//! host *.example.com method POST   tag app
//! node web1,web2               tag static
//! ```
//!
//! The last line is no rule: it says what back-ends have, by their names, in addition to what they say
//! themselves.
//!
//! ```
//! use lard_core::content::{Asked, Rules, TagNames};
//! use lard_core::http::HeadParser;
//!
//! let text = "prefix /static/ tag static\ntag app\nnode web1 tag static\n";
//! let names = TagNames::new().renewed(text)?;
//! let mut places = Vec::new();
//! for rule in Rules::compile(text, &names) {
//!     places.push(rule?);
//! }
//! let rules = Rules::new(text, &places);
//!
//! let head = b"GET /static/a.gif HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
//! let mut parser = HeadParser::new(8_192);
//! parser.feed(head);
//! let wanted = rules.choose(&Asked::new(head, &parser)?);
//! assert_eq!(wanted, names.known("static"));
//! assert!(names.of_node(text, "web1", "").contain(wanted));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A rule says where a request is served, not whether it may be: a path is compared as it is spelt
//! (with equivalent spellings made equal), and what a server makes of `/static/../app/` is its own
//! business. Access control belongs to the server.
//!
//! # Layout
//!
//! This file matches; `text` reads lines as administrators write them; `names` gives tags their bits;
//! `places` keeps rules beside their text, in memory of the caller's.

mod names;
mod places;
mod text;

pub use names::{is_tags, TagNames, TooManyTags, MAX_TAGS};
pub use places::{BadLine, Place, Rules};
pub use text::{lines, BadRule, Line, Why};

use super::http::{fields, normal, target, BadHead, HeadParser, TargetKey};

/// Most lines of a service: rules, and what nodes have.
pub const MAX_LINES: usize = 64;

/// Bytes of the longest line.
pub const MAX_LINE: usize = 255;

/// Bytes of all lines together, with their ends.
pub const MAX_TEXT: usize = MAX_LINES * (MAX_LINE + 1);

/// A rule. Conditions that are not given hold for every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule<'r> {
    /// The host, without a port: itself, or with `*.` before it every host below it.
    pub host: Option<&'r [u8]>,
    /// How the path begins.
    pub prefix: Option<&'r [u8]>,
    /// How the path ends, without the query.
    pub suffix: Option<&'r [u8]>,
    /// The method, in its case.
    pub method: Option<&'r [u8]>,
    /// A field that must be there.
    pub header: Option<Named<'r>>,
    /// A cookie that must be there.
    pub cookie: Option<Named<'r>>,
    /// What the back-ends must have: names of tags, joined by commas.
    pub tags: &'r str,
}

/// Something with a name that has this value, or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'r> {
    /// The name.
    pub name: &'r [u8],
    /// The value; none stands for any.
    pub value: Option<&'r [u8]>,
}

/// A request, as far as rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'h> {
    head: &'h [u8],
    method: &'h [u8],
    target: TargetKey<'h>,
}

impl<'h> Asked<'h> {
    /// What a complete head asks for; `head` are the bytes that `parser` was fed.
    pub fn new(head: &'h [u8], parser: &HeadParser) -> Result<Self, BadHead> {
        Ok(Asked {
            head,
            method: parser.method_span().of(head),
            target: target::key(head, parser)?,
        })
    }

    /// A request of which no fields are known but these.
    pub const fn without_fields(method: &'h [u8], target: TargetKey<'h>) -> Self {
        Asked {
            head: b"",
            method,
            target,
        }
    }

    /// A request of which nothing is known: only a rule without conditions matches it.
    pub const UNKNOWN: Asked<'static> = Asked::without_fields(
        b"",
        TargetKey {
            host: b"",
            port: None,
            path: b"",
        },
    );

    /// The target, of which the dispatcher is told a hash.
    pub const fn target(&self) -> &TargetKey<'h> {
        &self.target
    }
}

impl Rule<'_> {
    /// Do all conditions hold?
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        let (path, _) = asked.target.split();
        let is_value = |named: Named<'_>, found: Option<&[u8]>| {
            found.is_some_and(|found| named.value.is_none_or(|value| value == found))
        };
        self.method.is_none_or(|method| method == asked.method)
            && self
                .host
                .is_none_or(|host| is_host(host, asked.target.host))
            && self.prefix.is_none_or(|p| normal::starts_with(path, p))
            && self.suffix.is_none_or(|s| normal::ends_with(path, s))
            && self
                .header
                .is_none_or(|n| is_value(n, fields::field(asked.head, n.name)))
            && self
                .cookie
                .is_none_or(|n| is_value(n, fields::cookie(asked.head, n.name)))
    }
}

/// Is `host` the one of a rule, or below it?
fn is_host(rule: &[u8], host: &[u8]) -> bool {
    match rule.strip_prefix(b"*") {
        // With the dot.
        Some(domain) => {
            let start = host.len().checked_sub(domain.len()).filter(|n| *n > 0);
            let end = start.and_then(|n| host.get(n..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(domain))
        }
        None => host.eq_ignore_ascii_case(rule),
    }
}

#[cfg(test)]
mod tests;
