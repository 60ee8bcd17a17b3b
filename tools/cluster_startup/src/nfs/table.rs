// SPDX-License-Identifier: GPL-2.0

//! What the system says of its mounts and its exports, read.

use std::path::{Path, PathBuf};

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub at: PathBuf,
    /// Which file system.
    pub kind: String,
    /// What.
    pub source: String,
}

impl Mount {
    /// A file system of another machine?
    pub fn is_nfs(&self) -> bool {
        self.kind == "nfs" || self.kind == "nfs4"
    }
}

/// A line of `exportfs -s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// What.
    pub path: PathBuf,
    /// To whom.
    pub client: String,
    /// How.
    pub options: Vec<String>,
}

impl Export {
    /// Does the file system have this number, in whatever way it is written?
    pub fn has_number(&self, number: &str) -> bool {
        self.options
            .iter()
            .filter_map(|option| option.strip_prefix("fsid="))
            .any(|fsid| {
                let digits = fsid.chars().filter(char::is_ascii_hexdigit);
                digits
                    .map(|digit| digit.to_ascii_lowercase())
                    .eq(number.chars())
            })
    }
}

/// All lines that can be read.
pub fn mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            // Optional fields, of which there may be none, end with a dash.
            let (front, back) = line.split_once(" - ")?;
            let mut back = back.split(' ');
            Some(Mount {
                at: Path::new(&unescape(front.split(' ').nth(4)?)).to_path_buf(),
                kind: back.next()?.to_string(),
                source: unescape(back.next()?),
            })
        })
        .collect()
}

/// All lines that can be read.
pub fn exports(text: &str) -> Vec<Export> {
    text.lines()
        .filter_map(|line| {
            let (path, client) = line.split_once(char::is_whitespace)?;
            let (client, options) = client.trim().strip_suffix(')')?.split_once('(')?;
            Some(Export {
                path: Path::new(&unescape(path)).to_path_buf(),
                client: client.to_string(),
                options: options.split(',').map(str::to_string).collect(),
            })
        })
        .collect()
}

/// A blank is `\040`, and so on.
fn unescape(text: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let octet = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octet.filter(|_| first == b'\\') {
            Some(octet) => {
                octets.push(octet);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                octets.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let text = "\
29 1 0:26 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
85 29 0:60 / /var/www/html/10.1.0.3 ro,nosuid master:3 shared:9 - nfs 10.1.0.3:/var/www/html ro,vers=3\n\
86 29 0:61 / /mnt/a\\040b rw - tmpfs none rw\n\
nonsense\n";
        let all = mounts(text);
        assert_eq!(all.len(), 3);
        assert_eq!(all[1].at, Path::new("/var/www/html/10.1.0.3"));
        assert_eq!(all[1].source, "10.1.0.3:/var/www/html");
        assert!(all[1].is_nfs() && !all[0].is_nfs());
        assert_eq!(all[2].at, Path::new("/mnt/a b"));
    }

    #[test]
    fn exports_are_read() {
        let text = "\
/var/www/html  10.1.0.2(sync,wdelay,hide,no_subtree_check,fsid=6C617264-00112233-44556677-8899aabb,sec=sys,ro)\n\
/home\t*(rw,fsid=0)\n\
/broken\n";
        let all = exports(text);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].path, Path::new("/var/www/html"));
        assert_eq!(all[0].client, "10.1.0.2");
        assert!(all[0].has_number(
            "6c617264001122334455667788 99aabb"
                .replace(' ', "")
                .as_str()
        ));
        assert!(!all[1].has_number("6c617264"));
    }

    #[test]
    fn a_backslash_that_begins_nothing_is_itself() {
        assert_eq!(unescape("a\\040b"), "a b");
        assert_eq!(unescape("a\\9zzz\\04"), "a\\9zzz\\04");
        assert_eq!(unescape("\\"), "\\");
    }
}
