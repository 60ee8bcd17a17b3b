// SPDX-License-Identifier: GPL-2.0

//! Content rules: which back-ends a request may go to, by what it asks for.
//!
//! Rules are looked at in order and the first that matches decides; among the back-ends that have its
//! tags the policy chooses. A request that no rule matches may go to any back-end.
//!
//! ```text
//! prefix /static/ suffix .jpg tag 1
//! host *.example.com method POST tag 2
//! ```
//!
//! ```
//! use lard_core::content::{choose, Asked, Rule};
//! use lard_core::http::{target, HeadParser};
//! use lard_core::policy::Tags;
//!
//! let rules = [Rule::parse("prefix /static/ tag 1")?, Rule::parse("tag 2")?];
//! let head = b"GET /static/a.gif HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
//! let mut parser = HeadParser::new(8_192);
//! parser.feed(head);
//! let asked = Asked::new(head, &parser)?;
//! assert_eq!(choose(&rules, &asked), Tags(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A rule says where a request is served, not whether it may be: a path is compared as it is spelt
//! (with equivalent spellings made equal), and what a server makes of `/static/../app/` is its own
//! business. Access control belongs to the server.
//!
//! # Layout
//!
//! This file matches; `text` reads rules as administrators write them.

mod text;

pub use text::BadRule;

use super::http::{fields, normal, target, BadHead, HeadParser, TargetKey};
use super::policy::Tags;

/// Most rules of a service.
pub const MAX_RULES: usize = 64;

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
    /// What the back-ends must have.
    pub tags: Tags,
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

/// What the back-ends of a request must have.
pub fn choose<'r>(rules: impl IntoIterator<Item = &'r Rule<'r>>, asked: &Asked<'_>) -> Tags {
    let mut matching = rules.into_iter().filter(|rule| rule.matches(asked));
    matching.next().map_or(Tags::NONE, |rule| rule.tags)
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
