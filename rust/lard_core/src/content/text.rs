// SPDX-License-Identifier: GPL-2.0

//! Lines as administrators write them.
//!
//! ```text
//! line      = [ rule / node ] [ "#" comment ]
//! rule      = *( condition 1*SP ) tag
//! condition = "host" 1*SP [ "*." ] host
//!           / "prefix" 1*SP path / "suffix" 1*SP text
//!           / "method" 1*SP method
//!           / "header" 1*SP name [ "=" value ]
//!           / "cookie" 1*SP name [ "=" value ]
//! node      = "node" 1*SP node-name *( "," node-name ) 1*SP tag
//! tag       = "tag" 1*SP tag-name *( "," tag-name )
//! tag-name  = 1 to 31 letters, digits, "-", "_", "."
//! ```
//!
//! Conditions come in any order, each of them once. A comment begins at the beginning of a word.

use super::super::wire::Name;
use super::names::is_tags;
use super::{Named, Rule};
use core::fmt;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'r> {
    /// Where requests go.
    Rule(Rule<'r>),
    /// What back-ends have.
    Node {
        /// Their names, joined by commas.
        nodes: &'r str,
        /// Names of tags, joined by commas.
        tags: &'r str,
    },
}

/// A line that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRule {
    /// What is wrong.
    pub why: Why,
    /// The byte at which it is, from 0.
    pub at: usize,
}

/// What can be wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A word is none of those that begin a condition.
    Word,
    /// A condition is there twice.
    Twice,
    /// A condition lacks its value.
    Missing,
    /// A host has a star that is not its first label.
    Host,
    /// A prefix does not begin with a slash.
    Prefix,
    /// A field or a cookie without a name.
    Name,
    /// A node cannot have this name.
    Node,
    /// There is no tag at the end.
    NoTag,
    /// A tag cannot have this name.
    Tag,
    /// Something stands behind the tags.
    Behind,
}

impl Why {
    /// The reason in words.
    pub const fn text(self) -> &'static str {
        match self {
            Why::Word => "not one of host, prefix, suffix, method, header, cookie, node, tag",
            Why::Twice => "the same condition a second time",
            Why::Missing => "the value is missing",
            Why::Host => "in a host a star stands for all below: *.example.com",
            Why::Prefix => "a prefix begins with a slash",
            Why::Name => "NAME or NAME=VALUE is needed, with a name",
            Why::Node => "names of nodes are needed, joined by commas",
            Why::NoTag => "the line must end with tag NAME[,NAME...]",
            Why::Tag => "a tag is 1 to 31 letters, digits, '-', '_' or '.'",
            Why::Behind => "nothing can follow the tags",
        }
    }
}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "column {}: {}",
            self.at.saturating_add(1),
            self.why.text()
        )
    }
}

impl core::error::Error for BadRule {}

/// The lines of a text that say something, with their numbers from 1.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, Result<Line<'_>, BadRule>)> {
    let numbered = (1usize..).zip(text.split('\n'));
    numbered.filter_map(|(n, line)| Some((n, Line::parse(line).transpose()?)))
}

impl<'r> Line<'r> {
    /// Reads one line; `None` if it is empty, or a comment.
    pub fn parse(text: &'r str) -> Result<Option<Self>, BadRule> {
        let mut words = Words {
            text,
            at: 0,
            start: 0,
        };
        let Some(first) = words.next() else {
            return Ok(None);
        };
        let line = match first {
            "node" => {
                let nodes = words.value()?;
                if !nodes.split(',').all(|n| Name::new(n.as_bytes()).is_some()) {
                    return Err(words.bad(Why::Node));
                }
                match words.next() {
                    Some("tag") => {}
                    _ => return Err(words.bad(Why::NoTag)),
                }
                let tags = words.tags()?;
                Line::Node { nodes, tags }
            }
            _ => Line::Rule(words.rule(first)?),
        };
        match words.next() {
            None => Ok(Some(line)),
            Some(_) => Err(words.bad(Why::Behind)),
        }
    }
}

/// The words of a line, one after another.
struct Words<'r> {
    text: &'r str,
    /// Behind the last word.
    at: usize,
    /// The last word's beginning, or the end of the line if there was none.
    start: usize,
}

impl<'r> Words<'r> {
    fn next(&mut self) -> Option<&'r str> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let blanks = rest.len().saturating_sub(rest.trim_ascii_start().len());
        self.start = self.at.saturating_add(blanks);
        let rest = rest.trim_ascii_start();
        let end = rest.find(|c: char| c.is_ascii_whitespace());
        let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        if word.is_empty() || word.starts_with('#') {
            return None;
        }
        self.at = self.start.saturating_add(word.len());
        Some(word)
    }

    /// The last word is wrong.
    fn bad(&self, why: Why) -> BadRule {
        let at = self.start;
        BadRule { why, at }
    }

    fn value(&mut self) -> Result<&'r str, BadRule> {
        self.next().ok_or(self.bad(Why::Missing))
    }

    fn tags(&mut self) -> Result<&'r str, BadRule> {
        let tags = self.value()?;
        match is_tags(tags) {
            true => Ok(tags),
            false => Err(self.bad(Why::Tag)),
        }
    }

    fn rule(&mut self, first: &'r str) -> Result<Rule<'r>, BadRule> {
        let mut rule = Rule::default();
        let mut word = first;
        loop {
            let at = self.start;
            let twice = match word {
                "tag" => {
                    rule.tags = self.tags()?;
                    return Ok(rule);
                }
                "host" => rule.host.replace(self.host()?).is_some(),
                "prefix" => rule.prefix.replace(self.prefix()?).is_some(),
                "suffix" => rule.suffix.replace(self.value()?.as_bytes()).is_some(),
                "method" => rule.method.replace(self.value()?.as_bytes()).is_some(),
                "header" => rule.header.replace(self.named()?).is_some(),
                "cookie" => rule.cookie.replace(self.named()?).is_some(),
                _ => return Err(self.bad(Why::Word)),
            };
            if twice {
                let why = Why::Twice;
                return Err(BadRule { why, at });
            }
            word = self.next().ok_or(self.bad(Why::NoTag))?;
        }
    }

    fn host(&mut self) -> Result<&'r [u8], BadRule> {
        let host = self.value()?;
        // A star is a whole label, and only the first one.
        let behind = host.strip_prefix("*.").unwrap_or(host);
        match behind.contains('*') || behind.is_empty() {
            true => Err(self.bad(Why::Host)),
            false => Ok(host.as_bytes()),
        }
    }

    fn prefix(&mut self) -> Result<&'r [u8], BadRule> {
        let prefix = self.value()?;
        match prefix.starts_with('/') {
            true => Ok(prefix.as_bytes()),
            false => Err(self.bad(Why::Prefix)),
        }
    }

    fn named(&mut self) -> Result<Named<'r>, BadRule> {
        let text = self.value()?;
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.as_bytes())),
            None => (text, None),
        };
        match name {
            "" => Err(self.bad(Why::Name)),
            _ => Ok(Named {
                name: name.as_bytes(),
                value,
            }),
        }
    }
}
