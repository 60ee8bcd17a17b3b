// SPDX-License-Identifier: GPL-2.0

//! The head parser against httparse, and against itself with the head in other pieces.
//!
//! httparse knows the syntax of a head and nothing of its meaning. So whatever our parser takes,
//! httparse must take as well and read the same in it; and whatever httparse takes and we refuse has
//! to be one of the reasons listed in [`is_ours_alone`].

use httparse::{Request, EMPTY_HEADER};
use lard_core::http::{BadHead, Body, HeadParser, Status, Version};
use proptest::prelude::*;

const LIMIT: usize = 8_192;

/// Refusals that go beyond the syntax, or beyond httparse's idea of it.
fn is_ours_alone(bad: BadHead, stream: &[u8]) -> bool {
    match bad {
        // It does not mind names that look like others.
        BadHead::FieldName => stream.contains(&b'_'),
        // httparse takes a line feed for a line end, and any number of empty lines.
        BadHead::BareLf | BadHead::EmptyLines => true,
        // It takes `#`, bytes above 127 and any form of target.
        BadHead::Target => true,
        // It has no limits.
        BadHead::MethodTooLong | BadHead::TargetTooLong | BadHead::TooLarge => true,
        // It does not look at what fields say.
        BadHead::NoHost
        | BadHead::DuplicateHost
        | BadHead::Host
        | BadHead::HostMismatch
        | BadHead::ContentLength
        | BadHead::TransferEncoding
        | BadHead::TransferCoding
        | BadHead::LengthConflict
        | BadHead::ConnectBody => true,
        BadHead::Method
        | BadHead::Version
        | BadHead::VersionUnsupported
        | BadHead::BareCr
        | BadHead::Fold
        | BadHead::SpaceBeforeColon
        | BadHead::FieldValue => false,
        // The parser itself never says these.
        BadHead::Truncated | BadHead::TooSlow => false,
    }
}

fn compare(stream: &[u8]) {
    let mut ours = HeadParser::new(LIMIT);
    let status = ours.feed(stream);
    let mut headers = [EMPTY_HEADER; 1_024];
    let mut theirs = Request::new(&mut headers);
    let parsed = theirs.parse(stream);
    let text = || stream.escape_ascii().to_string();
    match (status, parsed) {
        (Status::Complete(len), Ok(httparse::Status::Complete(n))) => {
            assert_eq!(len, n, "{}", text());
            let span = |s: lard_core::http::Span| s.of(stream);
            assert_eq!(span(ours.method_span()), theirs.method.unwrap().as_bytes());
            assert_eq!(span(ours.target_span()), theirs.path.unwrap().as_bytes());
            let minor = theirs.version.unwrap();
            assert_eq!(ours.version() == Version::Http11, minor == 1, "{}", text());

            let value = |name: &str| {
                let mut all = theirs.headers.iter();
                all.find(|h| h.name.eq_ignore_ascii_case(name))
                    .map(|h| h.value)
            };
            // httparse leaves tabs at the end of a value.
            let host = value("host").map(<[u8]>::trim_ascii_end);
            assert_eq!(ours.host_span().map(span), host, "{}", text());
            let length = value("content-length").map(<[u8]>::trim_ascii_end);
            let length = length.map(|v| std::str::from_utf8(v).unwrap().parse::<u64>().unwrap());
            let body = match (value("transfer-encoding"), length) {
                (Some(_), _) => Body::Chunked,
                (None, Some(length)) if length > 0 => Body::Length(length),
                (None, _) => Body::None,
            };
            assert_eq!(ours.body(), body, "{}", text());
        }
        (Status::Complete(_), other) => panic!("httparse: {other:?} for {}", text()),
        (Status::Bad(bad), Ok(httparse::Status::Complete(_))) => {
            assert!(is_ours_alone(bad, stream), "{bad} for {}", text());
        }
        // Who sees a mistake first does not matter, nor whether a head that lacks something is wrong
        // already.
        (Status::Bad(_), _) | (Status::Partial, Ok(httparse::Status::Partial)) => {}
        (Status::Partial, Ok(httparse::Status::Complete(_))) => panic!("partial: {}", text()),
        // httparse refuses a few heads before they are complete where we wait for one more byte.
        (Status::Partial, Err(_)) => {
            let mut more = ours.clone();
            assert!(
                matches!(more.feed(b"\0"), Status::Bad(_)),
                "httparse refuses {}",
                text()
            );
        }
    }
}

/// The parser must not notice where the stream was cut.
fn compare_cuts(stream: &[u8], cuts: impl Iterator<Item = usize>) {
    let mut whole = HeadParser::new(LIMIT);
    let status = whole.feed(stream);
    for cut in cuts {
        let (first, second) = stream.split_at(cut);
        let mut pieces = HeadParser::new(LIMIT);
        let early = pieces.feed(first);
        let late = pieces.feed(second);
        assert_eq!(late, status, "cut at {cut}: {}", stream.escape_ascii());
        if early != Status::Partial {
            assert_eq!(early, status, "cut at {cut}");
        }
        let facts = |p: &HeadParser| {
            (
                (p.method_span(), p.target_span(), p.host_span()),
                (p.method(), p.form(), p.version(), p.body()),
                (p.keep_alive(), p.upgrade(), p.expects_continue()),
            )
        };
        assert_eq!(facts(&pieces), facts(&whole), "cut at {cut}");
    }
}

const HEADS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
    "\r\n\r\nGET /index.html HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
    "HEAD http://h:8080/a?b HTTP/1.1\r\nhost:\th:8080 \t\r\nX:\r\nY: a \t b \r\n\r\n",
    "POST /u HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
    "PUT /u HTTP/1.1\r\nContent-Length:  42 \r\nHost: h\r\nConnection: a, close ,b\r\n\r\nbody",
    "OPTIONS * HTTP/1.1\r\nHost:\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nVia: 1.1 \u{e4}\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n",
];

#[test]
fn heads_cut_at_every_byte_read_the_same() {
    for head in HEADS {
        compare_cuts(head.as_bytes(), 0..=head.len());
        compare(head.as_bytes());
    }
}

#[test]
fn heads_fed_byte_by_byte_read_the_same() {
    for head in HEADS {
        let mut whole = HeadParser::new(LIMIT);
        let status = whole.feed(head.as_bytes());
        let mut bytes = HeadParser::new(LIMIT);
        for b in head.bytes() {
            bytes.feed(&[b]);
            bytes.feed(&[]);
        }
        assert_eq!(bytes.status(), status, "{head:?}");
    }
}

#[test]
fn heads_with_one_byte_changed_read_as_httparse_reads_them() {
    for head in HEADS {
        for at in 0..head.len() {
            for to in 0..=u8::MAX {
                let mut changed = head.as_bytes().to_vec();
                changed[at] = to;
                compare(&changed);
            }
        }
    }
}

/// Pieces of heads, right ones and wrong ones, that are strung together at random.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&str] = &[
        "GET",
        "POST",
        "CONNECT",
        "OPTIONS",
        " ",
        " ",
        "/",
        "*",
        "/a?b",
        "http://h/",
        "h:1",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "HTTP/2.0",
        "\r\n",
        "\r\n",
        "\r\n\r\n",
        "\r",
        "\n",
        ":",
        "Host: h\r\n",
        "Host: h:1\r\n",
        "Content-Length: 5\r\n",
        "Content-Length",
        "Connection",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        ",",
        ";",
        "\t",
        "#",
        "\u{e4}",
        "X: y\r\n",
        "X-Y",
        "\0",
        "\x7f",
        "close",
        "keep-alive",
        "upgrade",
        "chunked",
        "5",
    ];
    prop_oneof![
        8 => prop::sample::select(words).prop_map(|w| w.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(&[
        "GET / HTTP/1.1\r\nHost: h\r\n",
        "GET / HTTP/1.0\r\n",
        "POST /u HTTP/1.1\r\n",
        "",
    ]);
    (start, prop::collection::vec(piece(), 0..16)).prop_map(|(start, pieces)| {
        let mut stream = start.as_bytes().to_vec();
        stream.extend(pieces.concat());
        stream
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn random_streams_read_as_httparse_reads_them(stream in stream()) {
        compare(&stream);
    }

    #[test]
    fn random_streams_read_the_same_in_any_pieces(stream in stream()) {
        compare_cuts(&stream, 0..=stream.len());
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        compare(&stream);
        compare_cuts(&stream, 0..=stream.len());
    }
}
