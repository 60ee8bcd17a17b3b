// SPDX-License-Identifier: GPL-2.0

//! What servers make of a path, each in its own way.

/// One way to read a path. There are as many as there are servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    /// How often escapes are decoded.
    pub(crate) decodes: usize,
    /// `\` is `/`.
    pub(crate) backslash: bool,
    /// What follows this in a segment is cut off.
    pub(crate) cut: Option<u8>,
    /// `//` is `/`.
    pub(crate) merges: bool,
    /// `.` and `..` are resolved.
    pub(crate) resolves: bool,
}

pub(crate) fn habits() -> impl Iterator<Item = Habit> {
    (0..4 * 2 * 5 * 2 * 2).map(|i| Habit {
        decodes: i % 4,
        backslash: i / 4 % 2 == 0,
        cut: [None, Some(b';'), Some(b'?'), Some(b'#'), Some(0)][i / 8 % 5],
        merges: i / 40 % 2 == 0,
        resolves: i / 80 == 0,
    })
}

fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let escape = path
            .get(at..at + 3)
            .filter(|e| e[0] == b'%' && e[1].is_ascii_hexdigit() && e[2].is_ascii_hexdigit());
        if let Some(escape) = escape {
            let digits = std::str::from_utf8(&escape[1..]).expect("digits");
            out.push(u8::from_str_radix(digits, 16).expect("digits"));
            at += 3;
        } else {
            out.push(path[at]);
            at += 1;
        }
    }
    out
}

/// The first segment of the path that a server of this habit opens.
pub(crate) fn first_segment(path: &[u8], habit: Habit) -> Vec<u8> {
    let mut path = path.to_vec();
    for _ in 0..habit.decodes {
        path = decode(&path);
    }
    let is_slash = |b: &u8| *b == b'/' || (habit.backslash && *b == b'\\');
    let mut opened: Vec<&[u8]> = Vec::new();
    for segment in path.split(is_slash).skip(1) {
        let segment = match habit.cut {
            Some(cut) => segment.split(|b| *b == cut).next().unwrap_or_default(),
            None => segment,
        };
        match segment {
            b"" if habit.merges => {}
            b"." if habit.resolves => {}
            b".." if habit.resolves => {
                opened.pop();
            }
            _ => opened.push(segment),
        }
    }
    // What opens a file merges slashes and resolves in any case.
    let mut really: Vec<&[u8]> = Vec::new();
    for segment in opened {
        match segment {
            b"" | b"." => {}
            b".." => {
                really.pop();
            }
            _ => really.push(segment),
        }
    }
    really.first().copied().unwrap_or_default().to_vec()
}

/// Does a mount have this name?
pub(crate) fn is_node(segment: &[u8]) -> bool {
    let text = std::str::from_utf8(segment);
    text.is_ok_and(|text| text.parse::<std::net::Ipv4Addr>().is_ok())
}
