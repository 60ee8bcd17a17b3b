// SPDX-License-Identifier: GPL-2.0

//! Rules beside the text they were read from.
//!
//! A rule that is kept is a few places in a text that is kept as well, so that requests are compared
//! without reading the text again, and without memory of their own.

use super::super::http::Span;
use super::super::policy::Tags;
use super::{lines, Asked, BadRule, Line, Named, Rule, TagNames, MAX_LINE, MAX_LINES};
use core::fmt;

/// A rule as places in its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    host: Option<Span>,
    prefix: Option<Span>,
    suffix: Option<Span>,
    method: Option<Span>,
    header: Option<NamedPlace>,
    cookie: Option<NamedPlace>,
    tags: Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NamedPlace {
    name: Span,
    value: Option<Span>,
}

impl Place {
    /// `None` if the rule is not from the text, or too far back in it.
    fn new(text: &str, rule: &Rule<'_>, names: &TagNames) -> Option<Self> {
        let find = |part: Option<&[u8]>| match part {
            Some(part) => Some(Some(Span::within(text.as_bytes(), part)?)),
            None => Some(None),
        };
        let find_named = |named: Option<Named<'_>>| match named {
            Some(Named { name, value }) => Some(Some(NamedPlace {
                name: find(Some(name))??,
                value: find(value)?,
            })),
            None => Some(None),
        };
        Some(Place {
            host: find(rule.host)?,
            prefix: find(rule.prefix)?,
            suffix: find(rule.suffix)?,
            method: find(rule.method)?,
            header: find_named(rule.header)?,
            cookie: find_named(rule.cookie)?,
            tags: names.known(rule.tags),
        })
    }

    /// The conditions of the rule; its tags are known by their bits.
    fn rule<'t>(&self, text: &'t [u8]) -> Rule<'t> {
        let named = |place: NamedPlace| Named {
            name: place.name.of(text),
            value: place.value.map(|span| span.of(text)),
        };
        let part = |span: Option<Span>| span.map(|span| span.of(text));
        Rule {
            host: part(self.host),
            prefix: part(self.prefix),
            suffix: part(self.suffix),
            method: part(self.method),
            header: self.header.map(named),
            cookie: self.cookie.map(named),
            tags: "",
        }
    }
}

/// A text that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// The line with this number, from 1, says nothing.
    Rule(usize, BadRule),
    /// The line with this number is longer than [`MAX_LINE`] bytes.
    TooLong(usize),
    /// There are more than [`MAX_LINES`].
    TooMany,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadLine::Rule(line, bad) => write!(f, "line {line}, {bad}"),
            BadLine::TooLong(line) => write!(f, "line {line} has more than {MAX_LINE} bytes"),
            BadLine::TooMany => write!(f, "there can be {MAX_LINES} lines"),
        }
    }
}

impl core::error::Error for BadLine {}

/// The rules of a service, in the memory of whoever keeps them.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'t> {
    text: &'t [u8],
    places: &'t [Place],
}

impl<'t> Rules<'t> {
    /// The rules that [`Rules::compile`] made of `text`.
    pub const fn new(text: &'t str, places: &'t [Place]) -> Self {
        Rules {
            text: text.as_bytes(),
            places,
        }
    }

    /// Reads all rules of a text, in order; every line counts, also those about nodes. An error is the
    /// end of it.
    pub fn compile<'a>(
        text: &'a str,
        names: &'a TagNames,
    ) -> impl Iterator<Item = Result<Place, BadLine>> + 'a {
        let numbered = (1usize..).zip(lines(text));
        numbered.filter_map(move |(count, (number, line))| {
            let raw = text.split('\n').nth(number.saturating_sub(1));
            if count > MAX_LINES {
                return Some(Err(BadLine::TooMany));
            }
            if raw.is_some_and(|raw| raw.len() > MAX_LINE) {
                return Some(Err(BadLine::TooLong(number)));
            }
            match line {
                Err(bad) => Some(Err(BadLine::Rule(number, bad))),
                Ok(Line::Node { .. }) => None,
                Ok(Line::Rule(rule)) => {
                    let place = Place::new(text, &rule, names);
                    Some(place.ok_or(BadLine::TooLong(number)))
                }
            }
        })
    }

    /// What the back-ends of a request must have: the tags of the first rule that matches.
    pub fn choose(&self, asked: &Asked<'_>) -> Tags {
        let mut matching = self.places.iter();
        let found = matching.find(|place| place.rule(self.text).matches(asked));
        found.map_or(Tags::NONE, |place| place.tags)
    }
}
