// SPDX-License-Identifier: GPL-2.0

//! What the front-ends of a cluster have in common, as a file or as options: the parts of a request
//! that make its target, content rules, and what nodes have.
//!
//! Everything is checked here, by the module's own parser, which then says where something is wrong;
//! the module has little room to say so.

use crate::error::{Error, Result};
use lard_core::content::{is_tags, BadLine, BadRule, Line, Rules, TagNames, Why};
use lard_core::http::KeyParts;
use std::path::Path;

/// What a person said about the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The parts of a request that make its target, if they were named.
    pub key: Option<String>,
    /// Content rules and what nodes have, in order.
    pub content: Vec<String>,
}

impl Service {
    /// Reads a file: besides content rules a line `key PARTS`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::io(format!("read {}", path.display()), &error))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, name: &str) -> Result<Self> {
        let mut service = Service::default();
        for (number, line) in (1..).zip(text.lines()) {
            let place = format!("{name}, line {number}");
            let mut words = line.split_ascii_whitespace();
            if words.next() == Some("key") {
                let key = words.next().unwrap_or_default();
                let at = line.len() - line.trim_start().len();
                if service.key.is_some() {
                    return Err(wrong(&place, line, at, "the key is there already"));
                }
                check_key(key).map_err(|problem| {
                    let at = line.find(key).filter(|_| !key.is_empty());
                    wrong(&place, line, at.unwrap_or(line.len()), &problem)
                })?;
                if let Some(more) = words.next().filter(|word| !word.starts_with('#')) {
                    let at = line.rfind(more).unwrap_or(0);
                    return Err(wrong(&place, line, at, "nothing can follow the key"));
                }
                service.key = Some(key.to_string());
            } else if has_content(&place, line)? {
                service.content.push(line.trim().to_string());
            }
        }
        service.check()?;
        Ok(service)
    }

    /// What options say.
    pub fn from_options(key: Option<String>, content: Vec<String>) -> Result<Self> {
        if let Some(key) = &key {
            check_key(key)
                .map_err(|problem| Error::usage(format!("\"{key}\" is no key: {problem}")))?;
        }
        for line in &content {
            if !has_content("content rule", line)? {
                return Err(Error::usage("a content rule is empty"));
            }
        }
        let service = Service { key, content };
        service.check()?;
        Ok(service)
    }

    /// Checks what concerns all lines together.
    fn check(&self) -> Result<()> {
        let text = self.content.join("\n");
        let names = TagNames::new()
            .renewed(&text)
            .map_err(|error| Error::usage(error.to_string()))?;
        let bad = Rules::compile(&text, &names).find_map(std::result::Result::err);
        match bad {
            None => Ok(()),
            Some(BadLine::TooLong(number)) => {
                let line = self.content.get(number - 1).map_or("", String::as_str);
                Err(Error::usage(format!(
                    "{}: \"{line}\"",
                    BadLine::TooLong(number)
                )))
            }
            Some(bad) => Err(Error::usage(bad.to_string())),
        }
    }
}

fn check_key(key: &str) -> std::result::Result<(), String> {
    if key.len() > lard_core::wire::Service::MAX_KEY {
        return Err("it is too long".into());
    }
    KeyParts::parse(key).map(drop).map_err(|e| e.to_string())
}

/// Does the line say something? An error says where it is wrong.
fn has_content(place: &str, line: &str) -> Result<bool> {
    match Line::parse(line) {
        Ok(line) => Ok(line.is_some()),
        Err(BadRule { why, at }) => Err(wrong(place, line, at, why.text())),
    }
}

/// `file, line 3, column 1: problem`, the line, and a mark below the place.
fn wrong(place: &str, line: &str, at: usize, problem: &str) -> Error {
    let before: String = line
        .get(..at)
        .unwrap_or_default()
        .chars()
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let column = before.chars().count() + 1;
    Error::usage(format!("{place}, column {column}: {problem}"))
        .remedy(format!("  {line}\n    {before}^"))
}

/// Tags of a node, of one or several options.
pub fn join_tags<'t>(tags: impl Iterator<Item = &'t String>) -> Result<String> {
    let joined = tags.map(String::as_str).collect::<Vec<_>>().join(",");
    if !joined.is_empty() && !is_tags(&joined) {
        return Err(Error::usage(format!("\"{joined}\": {}", Why::Tag.text())));
    }
    if joined.len() > lard_core::wire::Hello::MAX_TAGS {
        return Err(Error::usage("the names of all tags together are too long"));
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
        # two and two\n\
        key host+path # no query\n\
        \n\
        prefix /static/  tag static\n\
        tag app          # the rest\n\
        node web1,web2   tag static\n";

    #[track_caller]
    fn refused(text: &str) -> String {
        let error = Service::parse(text, "site").unwrap_err();
        assert_eq!(error.exit_code(), crate::error::EXIT_USAGE);
        error.to_string()
    }

    #[test]
    fn a_file_has_a_key_and_rules() {
        let service = Service::parse(FILE, "site").unwrap();
        assert_eq!(service.key.as_deref(), Some("host+path"));
        assert_eq!(service.content.len(), 3);
        assert_eq!(service.content[1], "tag app          # the rest");
        assert_eq!(Service::parse("", "site").unwrap(), Service::default());
    }

    #[test]
    fn what_is_wrong_is_shown_where_it_is() {
        assert_eq!(
            refused("tag app\n\tprefx /a tag b\n"),
            "site, line 2, column 2: not one of host, prefix, suffix, method, header, cookie, \
             node, tag\n    \tprefx /a tag b\n    \t^"
        );
        for (text, start) in [
            ("key host+paths\n", "site, line 1, column 5: "),
            ("key\n", "site, line 1, column 4: "),
            ("key host\nkey path\n", "site, line 2, column 1: "),
            ("key host more\n", "site, line 1, column 10: "),
            ("suffix .gif\n", "site, line 1, column 12: "),
        ] {
            let said = refused(text);
            assert!(said.starts_with(start), "{said}");
        }
        let many: String = (0..33).map(|i| format!("tag t{i}\n")).collect();
        assert!(refused(&many).contains("32 tags"));
        assert!(refused(&"tag a\n".repeat(65)).contains("64 lines"));
        assert!(refused(&format!("prefix /{} tag a\n", "x".repeat(300))).contains("255 bytes"));
    }

    #[test]
    fn options_say_the_same() {
        let content = vec!["suffix .gif tag a".to_string()];
        let service = Service::from_options(Some("path".into()), content.clone()).unwrap();
        assert_eq!(service.content, content);
        assert!(Service::from_options(Some("url".into()), vec![]).is_err());
        assert!(Service::from_options(None, vec!["# only".into()]).is_err());
        let tags = |tags: &[&str]| {
            join_tags(
                tags.iter()
                    .map(|t| t.to_string())
                    .collect::<Vec<_>>()
                    .iter(),
            )
        };
        assert_eq!(tags(&["a,b", "c"]).unwrap(), "a,b,c");
        assert_eq!(tags(&[]).unwrap(), "");
        assert!(tags(&["a b"]).is_err() && tags(&[""]).is_ok_and(|t| t.is_empty()));
    }
}
