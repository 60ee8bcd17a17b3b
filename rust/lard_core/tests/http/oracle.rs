// SPDX-License-Identifier: GPL-2.0

//! What a stream of requests means, read in the most naive way: the whole stream at once, line by
//! line, with strings. Nothing is shared with the framer, which it is the measure of.

use lard_core::http::{Event, Framer, HeadParser, Status};

/// Something said about a stream, with offsets from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A head.
    Request { begin: usize, end: usize },
    /// A request has ended.
    End(usize),
    /// Nothing more is known, and why.
    Pinned(&'static str),
}

/// What the framer says about a stream that comes in these pieces.
pub(crate) fn framed<'s>(pieces: impl IntoIterator<Item = &'s [u8]>, limit: usize) -> Vec<Said> {
    let mut said = Vec::new();
    let mut parser = HeadParser::new(limit);
    let mut framer: Option<Framer> = None;
    for piece in pieces {
        let mut left = piece;
        if framer.is_none() {
            let before = parser.seen();
            let status = parser.feed(left);
            if status == Status::Partial {
                continue;
            }
            left = &left[parser.seen() - before..];
            if let Status::Complete(end) = status {
                let begin = usize::from(parser.method_span().start);
                said.push(Said::Request { begin, end });
            }
        }
        let framer = framer.get_or_insert_with(|| Framer::after(&parser));
        loop {
            let (used, event) = framer.next(Some(&mut parser), left);
            left = &left[used..];
            let at = framer.position() as usize;
            match event {
                None => break,
                Some(Event::Begins) => panic!("there is a parser"),
                Some(Event::End) => said.push(Said::End(at)),
                Some(Event::Pinned(why)) => said.push(Said::Pinned(why.name())),
                Some(Event::Request { head_len }) => said.push(Said::Request {
                    begin: at - usize::from(head_len),
                    end: at,
                }),
            }
        }
        assert!(left.is_empty() || framer.pinned().is_some());
    }
    said
}

/// Checks what the framer says about a stream.
///
/// The framer may know that something is wrong before the line that it is in has ended. Then it must
/// be wrong however the line goes on.
pub(crate) fn check(stream: &[u8], limit: usize) -> Vec<Said> {
    let ours = framed([stream], limit);
    let theirs = read(stream, limit);
    if ours == theirs {
        return ours;
    }
    let text = stream.escape_ascii();
    let Some((Said::Pinned("head" | "chunk"), before)) = ours.split_last() else {
        panic!("{ours:?} and not {theirs:?} for {text}");
    };
    assert_eq!(before, theirs, "{text}");
    for rest in [
        "\n",
        "\r\n",
        "\n\r\n",
        "\r\n\r\n",
        "x\r\n\r\n",
        ": x\r\n\r\n",
        ":\r\nHost: h\r\n\r\n",
        "\r\nHost: h\r\n\r\n",
        "1\r\nHost: h\r\n\r\n",
        "HTTP/1.1\r\nHost: h\r\n\r\n",
        " HTTP/1.0\r\n\r\n",
        " / HTTP/1.0\r\n\r\n",
        "0\r\n\r\n",
        "a\r\n\r\n0\r\n\r\n",
        "=a\r\n\r\n0\r\n\r\n",
    ] {
        let whole = [stream, rest.as_bytes()].concat();
        let mut theirs = read(&whole, limit);
        if let Some(Said::Pinned("head" | "chunk")) = theirs.last() {
            theirs.pop();
        }
        assert_eq!(before, theirs, "{text} and {rest:?}");
    }
    ours
}

/// So far as it can be said.
pub(crate) enum Part<T> {
    Whole(T),
    More,
    Bad,
}
use Part::{Bad, More, Whole};

struct Head {
    len: usize,
    body: Framing,
    persistent: bool,
    pinned: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// What is said about a stream.
pub(crate) fn read(stream: &[u8], limit: usize) -> Vec<Said> {
    let mut said = Vec::new();
    let mut at = 0;
    let pinned = |mut said: Vec<Said>, why| {
        said.push(Said::Pinned(why));
        said
    };
    loop {
        let mut empty = 0;
        while stream[at..].starts_with(b"\r\n") {
            at += 2;
            empty += 1;
            if empty > 4 {
                return pinned(said, "head");
            }
        }
        let first = said.is_empty();
        if first && stream[at..].starts_with(b"PRI * HTTP/2.0") {
            return pinned(said, "http2");
        }
        // The empty lines before the first head count.
        let limit = if first { limit - at } else { limit };
        let head = match head(&stream[at..], limit) {
            More => return said,
            Bad => return pinned(said, "head"),
            Whole(head) => head,
        };
        let begin = at;
        at += head.len;
        said.push(Said::Request { begin, end: at });
        if let Some(why) = head.pinned {
            return pinned(said, why);
        }
        let len = match head.body {
            Framing::None => Whole(0),
            Framing::Length(length) if length <= (stream.len() - at) as u64 => {
                Whole(length as usize)
            }
            Framing::Length(_) => More,
            Framing::Chunked => chunked(&stream[at..]),
        };
        match len {
            More => return said,
            Bad => return pinned(said, "chunk"),
            Whole(len) => at += len,
        }
        said.push(Said::End(at));
        if !head.persistent {
            return pinned(said, "closing");
        }
    }
}

pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

fn is_token(s: &str) -> bool {
    let punctuation = "!#$%&'*+-.^_`|~";
    !s.is_empty()
        && s.chars()
            .all(|c| c.is_ascii_alphanumeric() || punctuation.contains(c))
}

fn is_value(s: &str) -> bool {
    s.chars().all(|c| c >= ' ' && c != '\u{7f}' || c == '\t')
}

/// Every byte as a character of its own.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

const FRAMING_FIELDS: [&str; 6] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "expect",
    "upgrade",
];

/// The name and the value of a field or trailer.
pub(crate) fn field(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.split_once(':')?;
    (is_token(name) && is_value(value)).then(|| {
        let name = name.to_ascii_lowercase();
        (name, value.trim_matches([' ', '\t']))
    })
}

fn is_almost_framing(name: &str) -> bool {
    name.contains('_') && FRAMING_FIELDS.contains(&name.replace('_', "-").as_str())
}

fn head(stream: &[u8], limit: usize) -> Part<Head> {
    let len = match find(stream, b"\r\n\r\n") {
        Some(end) if end + 4 <= limit => end + 4,
        None if stream.len() < limit => return More,
        _ => return Bad,
    };
    match whole_head(&latin1(&stream[..len - 4]), len) {
        Some(head) => Whole(head),
        None => Bad,
    }
}

fn whole_head(text: &str, len: usize) -> Option<Head> {
    let mut lines = text.split("\r\n");
    let words: Vec<&str> = lines.next()?.split(' ').collect();
    let [method, target, version] = words[..] else {
        return None;
    };
    let new = version == "HTTP/1.1";
    if !is_token(method) || method.len() > 32 || !(new || version == "HTTP/1.0") {
        return None;
    }
    let is_graphic = target.chars().all(|c| c.is_ascii_graphic() && c != '#');
    let form = match target.chars().next()? {
        _ if method == "CONNECT" => true,
        '*' => method == "OPTIONS" && target == "*",
        c => c == '/' || c.is_ascii_alphabetic(),
    };
    if !is_graphic || !form {
        return None;
    }

    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = field(line)?;
        if is_almost_framing(&name) {
            return None;
        }
        fields.push((name, value));
    }
    let all = |name: &str| -> Vec<&str> {
        let named = fields.iter().filter(|(n, _)| n == name);
        named.map(|(_, value)| *value).collect()
    };
    let words = |name: &str| -> Vec<String> {
        let values = all(name).join(",");
        let trimmed = |w: &str| w.trim_matches([' ', '\t']).to_ascii_lowercase();
        let is_there = !all(name).is_empty();
        let words = values.split(',').filter(|_| is_there);
        words.map(trimmed).collect()
    };

    if all("host").len() > 1 || (new && all("host").is_empty()) {
        return None;
    }
    let length = match all("content-length")[..] {
        [] => None,
        [digits] => {
            let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
            if !is_number || (digits.starts_with('0') && digits != "0") {
                return None;
            }
            Some(digits.parse::<i64>().ok()? as u64)
        }
        _ => return None,
    };
    let codings = words("transfer-encoding");
    let body = match (&codings[..], length) {
        ([], None | Some(0)) => Framing::None,
        ([], Some(length)) => Framing::Length(length),
        ([coding], None) if coding == "chunked" && new => Framing::Chunked,
        _ => return None,
    };
    if method == "CONNECT" && body != Framing::None {
        return None;
    }
    let connection = words("connection");
    let has = |word: &str| connection.iter().any(|w| w == word);
    let expect = words("expect");
    let pinned = if method == "CONNECT" {
        Some("connect")
    } else if !all("upgrade").is_empty() {
        Some("upgrade")
    } else if match &expect[..] {
        [] => false,
        [one] => one != "100-continue" || (new && body == Framing::None),
        _ => true,
    } {
        Some("expectation")
    } else if body != Framing::None && ["GET", "HEAD", "DELETE", "TRACE"].contains(&method) {
        Some("content")
    } else {
        None
    };
    Some(Head {
        len,
        body,
        persistent: !has("close") && (new || has("keep-alive")),
        pinned,
    })
}

pub(crate) fn chunked(stream: &[u8]) -> Part<usize> {
    let mut at = 0;
    loop {
        let Some(end) = find(&stream[at..], b"\r\n") else {
            return More;
        };
        let line = latin1(&stream[at..at + end]);
        at += end + 2;
        let (size, extensions) = line
            .split_once(';')
            .map_or((&line[..], None), |(s, e)| (s, Some(e)));
        let is_size = (1..=8).contains(&size.len()) && size.chars().all(|c| c.is_ascii_hexdigit());
        let Some(size) = i32::from_str_radix(size, 16).ok().filter(|_| is_size) else {
            return Bad;
        };
        if let Some(extensions) = extensions {
            let is_extension = |e: &str| match e.split_once('=') {
                Some((name, value)) => is_token(name) && is_token(value),
                None => is_token(e),
            };
            let counted = extensions.chars().filter(|c| !";=".contains(*c)).count();
            if !extensions.split(';').all(is_extension) || counted > 4_096 {
                return Bad;
            }
        }
        if size == 0 {
            break;
        }
        at += size as usize;
        match stream.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(_) => return Bad,
            None => return More,
        }
    }
    let mut counted = 0;
    loop {
        let Some(end) = find(&stream[at..], b"\r\n") else {
            return More;
        };
        let line = latin1(&stream[at..at + end]);
        at += end + 2;
        if line.is_empty() {
            return Whole(at);
        }
        counted += line.chars().count() - 1;
        match field(&line) {
            Some((name, _)) if counted <= 4_096 => {
                if FRAMING_FIELDS.contains(&name.replace('_', "-").as_str()) {
                    return Bad;
                }
            }
            _ => return Bad,
        }
    }
}
