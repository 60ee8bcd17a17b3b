// SPDX-License-Identifier: GPL-2.0

//! Rules as administrators write them.
//!
//! ```text
//! rule      = *( condition 1*SP ) "tag" 1*SP number *( "," number )
//! condition = "host" 1*SP [ "*." ] host
//!           / "prefix" 1*SP path / "suffix" 1*SP text
//!           / "method" 1*SP method
//!           / "header" 1*SP name [ "=" value ]
//!           / "cookie" 1*SP name [ "=" value ]
//! number    = 1 to 32
//! ```
//!
//! Conditions come in any order, each of them once.

use super::super::policy::Tags;
use super::{Named, Rule};
use core::fmt;

/// Why a text is no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRule {
    /// A word is none of those that begin a condition.
    Word,
    /// A condition is there twice.
    Twice,
    /// A condition lacks its value, or cannot have this one.
    Value,
    /// There is no tag, or something behind it.
    Tag,
}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadRule::Word => {
                "a rule is made of host, prefix, suffix, method, header, cookie and tag"
            }
            BadRule::Twice => "a condition is there twice",
            BadRule::Value => "a condition has no value, or an impossible one",
            BadRule::Tag => "a rule ends with tag and its numbers, 1 to 32",
        })
    }
}

impl core::error::Error for BadRule {}

impl<'r> Rule<'r> {
    /// Reads a rule.
    pub fn parse(text: &'r str) -> Result<Self, BadRule> {
        let mut rule = Rule::default();
        let mut words = text.split_ascii_whitespace();
        loop {
            let word = words.next().ok_or(BadRule::Tag)?;
            let value = words.next().ok_or(BadRule::Value)?;
            let place = match word {
                "tag" => break rule.tags = tags(value)?,
                "header" => {
                    once(&mut rule.header, named(value)?)?;
                    continue;
                }
                "cookie" => {
                    once(&mut rule.cookie, named(value)?)?;
                    continue;
                }
                "host" => &mut rule.host,
                "prefix" if value.starts_with('/') => &mut rule.prefix,
                "prefix" => return Err(BadRule::Value),
                "suffix" => &mut rule.suffix,
                "method" => &mut rule.method,
                _ => return Err(BadRule::Word),
            };
            once(place, value.as_bytes())?;
        }
        // A star is a whole label, and only the first one.
        let host = rule.host.unwrap_or_default();
        let behind = host.strip_prefix(b"*.").unwrap_or(host);
        if behind.contains(&b'*') || rule.host.is_some() && behind.is_empty() {
            return Err(BadRule::Value);
        }
        match words.next() {
            None => Ok(rule),
            Some(_) => Err(BadRule::Tag),
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), BadRule> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadRule::Twice),
    }
}

fn named(text: &str) -> Result<Named<'_>, BadRule> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.as_bytes())),
        None => (text, None),
    };
    match name {
        "" => Err(BadRule::Value),
        _ => Ok(Named {
            name: name.as_bytes(),
            value,
        }),
    }
}

fn tags(text: &str) -> Result<Tags, BadRule> {
    text.split(',').try_fold(Tags::NONE, |tags, number| {
        let number: u32 = number.parse().map_err(|_| BadRule::Tag)?;
        let bit = number.checked_sub(1).and_then(|n| 1u32.checked_shl(n));
        Ok(Tags(tags.0 | bit.ok_or(BadRule::Tag)?))
    })
}
