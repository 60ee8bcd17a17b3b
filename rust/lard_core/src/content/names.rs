// SPDX-License-Identifier: GPL-2.0

//! Names of tags and their bits.
//!
//! People give tags names; messages and decisions carry bits. The dispatcher hands the bits out as
//! names appear in its lines, and tells the front-ends. A name keeps its bit while lines have it, and
//! for as long as bits are left afterwards, so that a question that was asked before a change is not
//! taken for another one.

use super::super::policy::Tags;
use super::{lines, Line};
use core::fmt;

/// Most tags of a service.
pub const MAX_TAGS: usize = 32;

/// Bytes of the longest name.
const MAX_NAME: usize = 31;

/// There are more names than bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyTags;

impl fmt::Display for TooManyTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there can be {MAX_TAGS} tags")
    }
}

impl core::error::Error for TooManyTags {}

/// Are these names of tags, joined by commas?
pub fn is_tags(text: &str) -> bool {
    text.split(',').all(|name| TagName::new(name).is_some())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TagName {
    bytes: [u8; MAX_NAME],
    len: u8,
}

impl TagName {
    /// The name, if it is one.
    fn new(text: &str) -> Option<Self> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.is_empty() || !text.bytes().all(ok) {
            return None;
        }
        let mut name = TagName::default();
        name.bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        name.len = u8::try_from(text.len()).ok()?;
        Some(name)
    }

    fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len));
        core::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    }
}

/// Which bit is whose: a kilobyte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagNames {
    /// An empty name is a bit that nobody has.
    names: [TagName; MAX_TAGS],
    /// The place that was given last: the next one is free, or was not given for the longest time.
    last: u8,
}

impl TagNames {
    /// No names.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bit of a name.
    fn bit(&self, name: &str) -> Option<Tags> {
        let mut names = (0u32..).zip(&self.names);
        let (i, _) = names.find(|(_, n)| !name.is_empty() && n.as_str() == name)?;
        Some(Tags(1u32.checked_shl(i)?))
    }

    /// The bits of those of the names, joined by commas, that have one.
    pub fn known(&self, tags: &str) -> Tags {
        let bits = tags.split(',').filter_map(|name| self.bit(name));
        Tags(bits.fold(0, |all, bit| all | bit.0))
    }

    /// The names of these bits.
    pub fn names(&self, tags: Tags) -> impl Iterator<Item = &str> {
        let bits = (0..MAX_TAGS as u32).map(move |i| tags.0.checked_shr(i).unwrap_or(0) & 1 != 0);
        let names = self.names.iter().map(TagName::as_str);
        names
            .zip(bits)
            .filter(|(n, on)| *on && !n.is_empty())
            .map(|(n, _)| n)
    }

    /// What the node called `name` has: what it says itself, and what lines say about it. Names that no
    /// line has are nothing.
    pub fn of_node(&self, text: &str, name: &str, itself: &str) -> Tags {
        let mut all = self.known(itself);
        for (_, line) in lines(text) {
            if let Ok(Line::Node { nodes, tags }) = line {
                if nodes.split(',').any(|node| node == name) {
                    all = Tags(all.0 | self.known(tags).0);
                }
            }
        }
        all
    }

    /// The names for a text that takes the place of another one: those that are known keep their bits.
    /// Lines that say nothing are passed over.
    pub fn renewed(&self, text: &str) -> Result<Self, TooManyTags> {
        let mut new = self.clone();
        let mut used = Tags::NONE;
        // Names of before first, lest one of them lose its bit to a new one.
        for is_new in [false, true] {
            for name in tags_of(text) {
                let bit = match (new.bit(name), is_new) {
                    (Some(bit), _) => bit,
                    (None, true) => new.add(name, used)?,
                    (None, false) => continue,
                };
                used = Tags(used.0 | bit.0);
            }
        }
        Ok(new)
    }

    /// Gives a name the place that was not given for the longest time, of those not in use.
    fn add(&mut self, name: &str, used: Tags) -> Result<Tags, TooManyTags> {
        for _ in 0..MAX_TAGS {
            let place = self.last;
            self.last = self.last.wrapping_add(1) % MAX_TAGS as u8;
            let bit = Tags(1u32.wrapping_shl(place.into()));
            if used.0 & bit.0 != 0 {
                continue;
            }
            if let Some(slot) = self.names.get_mut(usize::from(place)) {
                *slot = TagName::new(name).unwrap_or_default();
                return Ok(bit);
            }
        }
        Err(TooManyTags)
    }

    /// The names as they are sent: in the order of their bits, with a comma between each two.
    pub fn wire(&self) -> impl Iterator<Item = &str> {
        let names = self.names.iter().map(TagName::as_str);
        let separators = core::iter::once("").chain(core::iter::repeat(","));
        separators
            .zip(names)
            .flat_map(|(comma, name)| [comma, name])
    }

    /// Reads what [`TagNames::wire`] wrote; `None` if it is not that.
    pub fn from_wire(text: &str) -> Option<Self> {
        let mut read = Self::default();
        let mut names = text.split(',');
        for place in read.names.iter_mut() {
            let name = names.next()?;
            if !name.is_empty() {
                *place = TagName::new(name)?;
            }
        }
        // A name with two bits would be two tags of which nobody has both.
        let (mut rest, mut twice) = (&read.names[..], false);
        while let [first, others @ ..] = rest {
            twice |= first.len != 0 && others.contains(first);
            rest = others;
        }
        (names.next().is_none() && !twice).then_some(read)
    }
}

/// The names in the lines of a text, as often as they come.
fn tags_of(text: &str) -> impl Iterator<Item = &str> {
    let lists = lines(text).filter_map(|(_, line)| match line {
        Ok(Line::Rule(rule)) => Some(rule.tags),
        Ok(Line::Node { tags, .. }) => Some(tags),
        Err(_) => None,
    });
    lists.flat_map(|tags| tags.split(','))
}
