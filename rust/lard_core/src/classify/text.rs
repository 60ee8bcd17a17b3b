// SPDX-License-Identifier: GPL-2.0

//! Rules as text. The grammar is in the head of the module.

use super::prefix::number;
use super::{Action, IfaceName, IfaceSet, Prefix, PrefixError, Rule, To};
use core::fmt;
use core::str::FromStr;

/// Why a line is not a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// It does not begin with `accept` or `pass`.
    Action,
    /// A word stands where a keyword is expected, or a keyword comes twice or in the wrong order.
    Keyword,
    /// A keyword has nothing behind it.
    Missing(&'static str),
    /// A name cannot be that of an interface.
    Iface,
    /// More interfaces than a rule can hold.
    TooManyIfaces,
    /// The source prefix is wrong.
    From(PrefixError),
    /// The destination prefix is wrong.
    To(PrefixError),
    /// The port is not a number from 1 to 65535.
    Port,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Action => f.write_str("a rule begins with accept or pass"),
            ParseError::Keyword => f.write_str(
                "expected: accept|pass [if NAME,...] [from PREFIX] [to PREFIX|local] [port N]",
            ),
            ParseError::Missing(keyword) => write!(f, "nothing follows {keyword}"),
            ParseError::Iface => f.write_str("not the name of an interface"),
            ParseError::TooManyIfaces => {
                write!(f, "more than {} interfaces in one rule", IfaceSet::MAX)
            }
            ParseError::From(e) => write!(f, "from: {e}"),
            ParseError::To(e) => write!(f, "to: {e}"),
            ParseError::Port => f.write_str("a port is a number from 1 to 65535"),
        }
    }
}

impl core::error::Error for ParseError {}

impl FromStr for Rule {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let mut words = s.split([' ', '\t']).filter(|w| !w.is_empty());
        let action = match words.next() {
            Some("accept") => Action::Accept,
            Some("pass") => Action::Pass,
            _ => return Err(ParseError::Action),
        };
        let mut rule = Rule {
            action,
            ..Rule::default()
        };
        // Keywords in the order in which they may come.
        let mut left: &[&'static str] = &["if", "from", "to", "port"];
        while let Some(word) = words.next() {
            let at = left.iter().position(|k| *k == word);
            let (keyword, rest) = at
                .and_then(|at| left.get(at..))
                .and_then(|from| from.split_first())
                .ok_or(ParseError::Keyword)?;
            left = rest;
            let value = words.next().ok_or(ParseError::Missing(keyword))?;
            match *keyword {
                "if" => rule.ifaces = ifaces(value)?,
                "from" if value == "any" => {}
                "from" => rule.from = value.parse().map_err(ParseError::From)?,
                "to" => rule.to = to(value)?,
                _ => rule.port = Some(port(value)?),
            }
        }
        Ok(rule)
    }
}

fn ifaces(list: &str) -> Result<IfaceSet, ParseError> {
    let mut set = IfaceSet::default();
    for name in list.split(',') {
        let name = IfaceName::new(name.as_bytes()).ok_or(ParseError::Iface)?;
        if !set.insert(name) {
            return Err(ParseError::TooManyIfaces);
        }
    }
    Ok(set)
}

fn to(value: &str) -> Result<To, ParseError> {
    match value {
        "any" => Ok(To::Any),
        "local" => Ok(To::Local),
        _ => match value.parse().map_err(ParseError::To)? {
            Prefix::ANY => Ok(To::Any),
            prefix => Ok(To::Prefix(prefix)),
        },
    }
}

fn port(value: &str) -> Result<u16, ParseError> {
    number(value).filter(|p| *p != 0).ok_or(ParseError::Port)
}

impl fmt::Display for Rule {
    /// The shortest text that parses to the same rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.action {
            Action::Accept => "accept",
            Action::Pass => "pass",
        })?;
        let mut separator = " if ";
        for name in self.ifaces.iter() {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        if self.from != Prefix::ANY {
            write!(f, " from {}", self.from)?;
        }
        match self.to {
            To::Any => {}
            To::Local => f.write_str(" to local")?,
            To::Prefix(prefix) => write!(f, " to {prefix}")?,
        }
        if let Some(port) = self.port {
            write!(f, " port {port}")?;
        }
        Ok(())
    }
}

/// Why a list of rules was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulesError {
    /// A line, counted from 1, is not a rule.
    Line(usize, ParseError),
    /// There are more rules than `out` has room for.
    TooMany,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RulesError::Line(n, e) => write!(f, "rule line {n}: {e}"),
            RulesError::TooMany => f.write_str("too many rules"),
        }
    }
}

impl core::error::Error for RulesError {}

/// Reads a list of rules, one a line, into `out` and says how many there were. After an error `out`
/// holds nothing useful.
pub fn parse_rules(text: &str, out: &mut [Rule]) -> Result<usize, RulesError> {
    let mut count = 0usize;
    let mut places = out.iter_mut();
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let line = line.trim_matches([' ', '\t']);
        if line.is_empty() {
            continue;
        }
        let rule = line.parse();
        let rule = rule.map_err(|e| RulesError::Line(i.saturating_add(1), e))?;
        *places.next().ok_or(RulesError::TooMany)? = rule;
        count = count.saturating_add(1);
    }
    Ok(count)
}
