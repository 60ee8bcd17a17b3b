// SPDX-License-Identifier: GPL-2.0

//! Interfaces by name.
//!
//! Names, not numbers: a rule has to survive that an interface goes and comes back, and may be set
//! before it exists.

use core::fmt;

/// The name of a network interface: 1 to 15 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IfaceName {
    /// INVARIANT: zero behind the name.
    bytes: [u8; Self::MAX],
    len: u8,
}

impl IfaceName {
    /// Longest name: `IFNAMSIZ` less the terminating zero.
    pub const MAX: usize = 15;

    /// The name in these bytes, if an interface can have it and it can stand in a rule.
    pub fn new(name: &[u8]) -> Option<Self> {
        let ok = |b: &u8| !matches!(b, 0..=b' ' | 0x7f | b',' | b'/' | b'#');
        let mut bytes = [0; Self::MAX];
        let len = u8::try_from(name.len()).ok().filter(|len| *len > 0)?;
        // The kernel refuses these two because of sysfs.
        if !name.iter().all(ok) || name == b"." || name == b".." {
            return None;
        }
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(IfaceName { bytes, len })
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Display for IfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for IfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Up to four interfaces. The empty set stands for all there are.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct IfaceSet {
    /// INVARIANT: the names come first, without a gap.
    names: [Option<IfaceName>; Self::MAX],
}

impl IfaceSet {
    /// Most interfaces in one rule. More of them take more rules.
    pub const MAX: usize = 4;

    /// All interfaces.
    pub const ALL: IfaceSet = IfaceSet {
        names: [None; Self::MAX],
    };

    /// Puts `name` in; `false` if the set is full.
    pub fn insert(&mut self, name: IfaceName) -> bool {
        if self.iter().any(|n| *n == name) {
            return true;
        }
        match self.names.iter_mut().find(|n| n.is_none()) {
            Some(place) => {
                *place = Some(name);
                true
            }
            None => false,
        }
    }

    /// The names in the order in which they were put in.
    pub fn iter(&self) -> impl Iterator<Item = &IfaceName> {
        self.names.iter().flatten()
    }

    /// Does the empty set, or one of the names, stand for `name`?
    pub fn matches(&self, name: &[u8]) -> bool {
        let mut names = self.iter().peekable();
        names.peek().is_none() || names.any(|n| n.as_bytes() == name)
    }
}

impl fmt::Debug for IfaceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
