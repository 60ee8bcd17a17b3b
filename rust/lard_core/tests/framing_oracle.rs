// SPDX-License-Identifier: GPL-2.0

//! The framer against a naive reading of the whole stream, in whatever pieces the stream comes.

#[path = "http/oracle.rs"]
mod oracle;

use oracle::{check, framed, Said};
use proptest::prelude::*;
use proptest::sample::{select, Index};

const LIMIT: usize = 600;

/// The framer must not notice where the stream is cut.
fn check_cuts(stream: &[u8], pairs: &[(Index, Index)]) {
    let whole = check(stream, LIMIT);
    let text = || stream.escape_ascii().to_string();
    assert_eq!(framed(stream.chunks(1), LIMIT), whole, "{}", text());
    for at in 0..=stream.len() {
        let (one, two) = stream.split_at(at);
        assert_eq!(framed([one, two], LIMIT), whole, "{at}: {}", text());
    }
    for (a, b) in pairs {
        let (a, b) = (a.index(stream.len() + 1), b.index(stream.len() + 1));
        let (a, b) = (a.min(b), a.max(b));
        let pieces = [&stream[..a], &stream[a..b], &stream[b..]];
        assert_eq!(framed(pieces, LIMIT), whole, "{a}, {b}: {}", text());
    }
}

/// A request, and what is to be said about it.
#[derive(Clone, Debug)]
struct Request {
    /// Empty lines before it.
    empty: usize,
    head: String,
    body: Vec<u8>,
    last: bool,
    pins: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum Content {
    None,
    Length(Vec<u8>),
    Chunked(Vec<(Vec<u8>, String)>, Vec<String>),
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    // Data that looks like what it is not.
    let tricks: &[&str] = &[
        "\r\n\r\n",
        "0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r",
        "\n",
    ];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..40),
        select(tricks).prop_map(|t| t.as_bytes().to_vec()),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let extension = prop_oneof![
        4 => Just(String::new()),
        1 => "(;[a-z!]{1,5}(=[A-Z0-9.]{1,5})?){1,3}",
    ];
    let chunks = prop::collection::vec((data(), extension), 0..4);
    let trailers = prop::collection::vec("[A-Z][a-z-]{1,8}:[ -~\t]{0,9}", 0..3);
    let trailers = trailers.prop_filter("framing", |all| {
        let names = all.iter().filter_map(|t| t.split_once(':'));
        !names
            .map(|(name, _)| name)
            .any(|n| ["Host", "Expect", "Upgrade"].contains(&n))
    });
    prop_oneof![
        3 => Just(Content::None),
        2 => data().prop_map(Content::Length),
        2 => (chunks, trailers).prop_map(|(c, t)| Content::Chunked(c, t)),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let method = select(&[
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND",
    ]);
    let fields = prop::collection::vec(
        select(&[
            ("X-Long: 0123456789", ""),
            ("Cookie: a=b;  c=\"d\"", ""),
            ("Connection: x, keep-alive", "keep"),
            ("Connection: close", "close"),
            ("connection:\tfoo ,CLOSE\t", "close"),
            ("Upgrade: websocket", "upgrade"),
            ("Expect: 100-continue", "expect"),
            ("X_Y: \u{e4}", ""),
        ]),
        0..3,
    );
    let target = select(&["/", "/a?b=/../", "http://h/x", "/%2e%2E//", "//"]);
    let old = prop::bool::weighted(0.2);
    (method, target, old, fields, content(), 0..3_usize).prop_map(
        |(method, target, old, fields, content, empty)| {
            // The older version has no chunks.
            let content = match content {
                Content::Chunked(..) if old => Content::None,
                content => content,
            };
            let expected = |what| fields.iter().filter(|(_, w)| *w == what).count();
            let has_body = !matches!(content, Content::None);
            let expects = expected("expect");
            let pins = if expected("upgrade") > 0 {
                Some("upgrade")
            } else if expects > 1 || (expects == 1 && !old && !has_body) {
                Some("expectation")
            } else if has_body && ["GET", "HEAD", "DELETE"].contains(&method) {
                Some("content")
            } else {
                None
            };
            let mut head = format!("{method} {target} HTTP/1.{}\r\n", u8::from(!old));
            let mut lines: Vec<String> = fields.iter().map(|(line, _)| line.to_string()).collect();
            let mut body = Vec::new();
            match content {
                Content::None => {}
                Content::Length(data) => {
                    lines.insert(lines.len() / 2, format!("content-length: {}", data.len()));
                    body = data;
                }
                Content::Chunked(chunks, trailers) => {
                    lines.insert(lines.len() / 2, "Transfer-Encoding: Chunked".to_string());
                    for (data, extension) in chunks {
                        body.extend(format!("{:x}{extension}\r\n", data.len()).bytes());
                        body.extend(data);
                        body.extend(b"\r\n");
                    }
                    body.extend(b"0\r\n");
                    for trailer in trailers {
                        body.extend(format!("{trailer}\r\n").bytes());
                    }
                    body.extend(b"\r\n");
                }
            }
            lines.push("Host: h".to_string());
            head.push_str(&lines.join("\r\n"));
            head.push_str("\r\n\r\n");
            Request {
                empty,
                head,
                body,
                last: expected("close") > 0 || (old && expected("keep") == 0),
                pins,
            }
        },
    )
}

fn bytes(requests: &[Request]) -> Vec<u8> {
    let mut stream = Vec::new();
    for request in requests {
        stream.extend(b"\r\n".repeat(request.empty));
        stream.extend(request.head.as_bytes());
        stream.extend(&request.body);
    }
    stream
}

/// What whoever made the requests knows about them.
fn known(requests: &[Request]) -> Vec<Said> {
    let mut said = Vec::new();
    let mut at = 0;
    for request in requests {
        let begin = at + 2 * request.empty;
        at = begin + request.head.len();
        said.push(Said::Request { begin, end: at });
        if let Some(why) = request.pins {
            said.push(Said::Pinned(why));
            break;
        }
        at += request.body.len();
        said.push(Said::End(at));
        if request.last {
            said.push(Said::Pinned("closing"));
            break;
        }
    }
    said
}

/// What makes right streams wrong, or look wrong.
fn splinter() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&str] = &[
        "\r",
        "\n",
        "\r\n",
        "\r\n\r\n",
        " ",
        "\t",
        "\0",
        ":",
        ";",
        "=",
        "0",
        "8",
        "ffffffff",
        "a",
        "\"",
        "_",
        ",",
        "\u{e4}",
        "#",
        "Content-Length: 3\r\n",
        "Content-Length",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Host: h\r\n",
        "Connection: close\r\n",
        "Upgrade: h2c\r\n",
        "Expect: 100-continue\r\n",
        "0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
    ];
    prop_oneof![
        8 => select(words).prop_map(|w| w.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ]
}

fn cuts() -> impl Strategy<Value = Vec<(Index, Index)>> {
    prop::collection::vec(any::<(Index, Index)>(), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn generated_requests_are_told_apart(
        requests in prop::collection::vec(request(), 1..6),
        cuts in cuts(),
    ) {
        let stream = bytes(&requests);
        let known = known(&requests);
        prop_assert_eq!(check(&stream, LIMIT), known, "{}", stream.escape_ascii());
        check_cuts(&stream, &cuts);
    }

    #[test]
    fn damaged_requests_are_read_as_the_oracle_reads_them(
        requests in prop::collection::vec(request(), 1..4),
        damage in prop::collection::vec((any::<Index>(), 0..3_usize, splinter()), 1..4),
        cuts in cuts(),
    ) {
        let mut stream = bytes(&requests);
        for (at, remove, put) in damage {
            let at = at.index(stream.len());
            let end = (at + remove).min(stream.len());
            stream.splice(at..end, put);
        }
        check_cuts(&stream, &cuts);
    }

    #[test]
    fn splinters_are_read_as_the_oracle_reads_them(
        splinters in prop::collection::vec(splinter(), 0..12),
        cuts in cuts(),
    ) {
        check_cuts(&splinters.concat(), &cuts);
        let mut later = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
        later.extend(splinters.concat());
        check_cuts(&later, &cuts);
    }

    #[test]
    fn skipped_data_ends_where_read_data_does(
        requests in prop::collection::vec(request(), 1..6),
    ) {
        let stream = bytes(&requests);
        let mut skipped = Skipper::new(&stream);
        prop_assert_eq!(skipped.said(), framed([&stream[..]], LIMIT));
    }
}

/// Reads a stream without ever showing data to the framer.
struct Skipper<'s> {
    stream: &'s [u8],
}

impl<'s> Skipper<'s> {
    fn new(stream: &'s [u8]) -> Self {
        Skipper { stream }
    }

    fn said(&mut self) -> Vec<Said> {
        use lard_core::http::{Event, Framer, HeadParser, Status};
        let mut parser = HeadParser::new(LIMIT);
        let Status::Complete(end) = parser.feed(self.stream) else {
            panic!("a generated head is complete");
        };
        let begin = usize::from(parser.method_span().start);
        let mut said = vec![Said::Request { begin, end }];
        let mut framer = Framer::after(&parser);
        loop {
            let at = framer.position() as usize;
            if framer.skip(u64::MAX) == 0 {
                // A byte at a time, so that data is not passed along with what is before it.
                let next = self.stream.get(at..at + 1).unwrap_or_default();
                let (_, event) = framer.next(Some(&mut parser), next);
                let at = framer.position() as usize;
                match event {
                    None if next.is_empty() || framer.pinned().is_some() => return said,
                    None | Some(Event::Begins) => {}
                    Some(Event::End) => said.push(Said::End(at)),
                    Some(Event::Pinned(why)) => said.push(Said::Pinned(why.name())),
                    Some(Event::Request { head_len }) => said.push(Said::Request {
                        begin: at - usize::from(head_len),
                        end: at,
                    }),
                }
            }
        }
    }
}

#[test]
fn one_changed_byte_is_read_as_the_oracle_reads_it() {
    let stream = b"\r\nPUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
        3;a=b\r\nxyz\r\n0\r\nT: u\r\n\r\n\r\nPOST / HTTP/1.0\r\nConnection: keep-alive\r\n\
        Content-Length: 12\r\n\r\nHello world!GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(check(stream, LIMIT).len(), 6);
    for at in 0..stream.len() {
        for to in 0..=u8::MAX {
            let mut changed = stream.to_vec();
            changed[at] = to;
            check(&changed, LIMIT);
        }
    }
}
