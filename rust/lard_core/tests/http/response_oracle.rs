// SPDX-License-Identifier: GPL-2.0

//! What a stream of responses means, read in the most naive way, as `oracle` reads requests.

use super::oracle::{chunked, field, find, latin1, Part};
use lard_core::http::ResponseFramer;

/// Where a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Between,
    Open,
    Lost,
}

/// How many final responses are complete, and where the stream ends.
pub(crate) type Seen = (u32, Where);

/// What the framer says about a stream that comes in these pieces.
pub(crate) fn framed<'s>(pieces: impl IntoIterator<Item = &'s [u8]>, to_head: bool) -> Seen {
    let mut framer = ResponseFramer::new(to_head);
    pieces.into_iter().for_each(|piece| framer.feed(piece));
    seen(&framer)
}

/// The same with all that can be skipped passed over, in steps of so many bytes at most.
pub(crate) fn skipped(stream: &[u8], to_head: bool, step: usize) -> Seen {
    let mut framer = ResponseFramer::new(to_head);
    let mut left = stream;
    while !left.is_empty() {
        let n = left.len().min(step);
        let skip = framer.skippable().min(n as u64) as usize;
        if skip > 0 {
            assert_eq!(framer.skip(skip as u64), skip as u64);
            left = &left[skip..];
        } else {
            framer.feed(&left[..n]);
            left = &left[n..];
        }
    }
    seen(&framer)
}

fn seen(framer: &ResponseFramer) -> Seen {
    let at = match (framer.is_lost(), framer.is_between()) {
        (true, _) => Where::Lost,
        (_, true) => Where::Between,
        _ => Where::Open,
    };
    (framer.completed(), at)
}

/// Checks what the framer says about a stream. It may know that something is wrong before the line
/// that it is in has ended; then it must be wrong however the line goes on.
pub(crate) fn check(stream: &[u8], to_head: bool) -> Seen {
    let ours = framed([stream], to_head);
    let theirs = read(stream, to_head);
    if ours == theirs {
        return ours;
    }
    let text = stream.escape_ascii();
    assert_eq!(
        (ours.1, theirs),
        (Where::Lost, (ours.0, Where::Open)),
        "{text}"
    );
    for rest in [
        "\n",
        "\r\n",
        "\n\r\n",
        "\r\n\r\n",
        ": x\r\n\r\n",
        "x: y\r\n\r\n",
        "\r\nContent-Length: 0\r\n\r\n",
        "0\r\nContent-Length: 0\r\n\r\n",
        "200\r\nContent-Length: 0\r\n\r\n",
        " 200 OK\r\nContent-Length: 0\r\n\r\n",
        "1 204 \r\n\r\n",
        "0\r\n\r\n",
        "a\r\n\r\n0\r\n\r\n",
        "=a\r\n\r\n0\r\n\r\n",
    ] {
        let (completed, at) = read(&[stream, rest.as_bytes()].concat(), to_head);
        let has_reading = completed > theirs.0 || at == Where::Between;
        assert!(!has_reading, "{text} and {rest:?}");
    }
    ours
}

/// What is said about a stream.
pub(crate) fn read(stream: &[u8], mut to_head: bool) -> Seen {
    let mut completed = 0;
    let mut at = 0;
    while at < stream.len() {
        let len = match find(&stream[at..], b"\r\n\r\n") {
            Some(end) if end + 4 <= 32_768 => end + 4,
            None if stream.len() - at <= 32_768 => return (completed, Where::Open),
            _ => return (completed, Where::Lost),
        };
        let Some(head) = head(&latin1(&stream[at..at + len - 4])) else {
            return (completed, Where::Lost);
        };
        at += len;
        let no_body = to_head || [204, 304].contains(&head.status);
        let body = match head.status {
            101 => return (completed, Where::Lost),
            100..=199 => continue,
            200..=599 if no_body => Some(0),
            200..=599 if head.chunked => match chunked(&stream[at..]) {
                Part::Whole(len) => Some(len),
                Part::More => None,
                Part::Bad => return (completed, Where::Lost),
            },
            200..=599 => match head.length {
                Some(length) if length <= (stream.len() - at) as u64 => Some(length as usize),
                Some(_) => None,
                None => return (completed, Where::Lost),
            },
            _ => return (completed, Where::Lost),
        };
        let Some(body) = body else {
            return (completed, Where::Open);
        };
        at += body;
        completed += 1;
        to_head = false;
        if !head.goes_on {
            return (completed, Where::Lost);
        }
    }
    (completed, Where::Between)
}

struct Head {
    status: u32,
    length: Option<u64>,
    chunked: bool,
    goes_on: bool,
}

fn head(text: &str) -> Option<Head> {
    let mut lines = text.split("\r\n");
    let status = lines.next()?;
    let new = status.starts_with("HTTP/1.1 ");
    let (code, reason) = status.get(9..)?.split_at_checked(3)?;
    let is_value = |s: &str| field(&format!("a:{s}")).is_some();
    if !(new || status.starts_with("HTTP/1.0 "))
        || !code.chars().all(|c| c.is_ascii_digit())
        || !(reason.is_empty() || reason.starts_with(' '))
        || !is_value(reason)
        || text.split("\r\n").any(|line| line.chars().count() > 8_190)
    {
        return None;
    }
    let mut head = Head {
        status: code.parse().ok()?,
        length: None,
        chunked: false,
        goes_on: true,
    };
    let (mut close, mut keep) = (false, false);
    for line in lines {
        let (name, value) = field(line)?;
        // Longer than anything that is understood, with the blanks behind it.
        let (_, behind) = line.split_once(':')?;
        let is_long = behind.trim_start_matches([' ', '\t']).chars().count() > 24;
        let value = value.to_ascii_lowercase();
        match &name[..] {
            "content-length" => {
                let is_number = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
                let length = value.parse().ok().filter(|_| is_number && !is_long)?;
                if head.length.is_some_and(|other| other != length) {
                    return None;
                }
                head.length = Some(length);
            }
            "transfer-encoding" => {
                if head.chunked || value != "chunked" || is_long {
                    return None;
                }
                head.chunked = true;
            }
            "connection" if value == "keep-alive" && !is_long => keep = true,
            "connection" => close = true,
            _ => {}
        }
    }
    if head.chunked && (head.length.is_some() || !new) {
        return None;
    }
    head.goes_on = !close && (keep || new);
    Some(head)
}
