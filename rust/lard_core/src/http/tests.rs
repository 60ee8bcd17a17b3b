// SPDX-License-Identifier: GPL-2.0

//! Tables of heads: what is taken, what is refused and where, and what is learnt.

use super::target::key;
use super::*;

const LIMIT: usize = 8_192;

fn feed(head: &[u8]) -> (HeadParser, Status) {
    let mut parser = HeadParser::new(LIMIT);
    let status = parser.feed(head);
    (parser, status)
}

#[track_caller]
fn complete(head: &str) -> HeadParser {
    let (parser, status) = feed(head.as_bytes());
    assert_eq!(status, Status::Complete(head.len()), "{head:?}");
    parser
}

/// The key of a request whose head is `head`, printed.
fn target(head: &str) -> Result<String, BadHead> {
    let parser = complete(head);
    key(head.as_bytes(), &parser).map(|key| key.to_string())
}

/// A head of HTTP/1.1 with these further fields.
fn with(fields: &str) -> String {
    format!("POST /p HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

#[test]
fn a_simple_request_is_understood() {
    let head = "GET /a/b?c=d HTTP/1.1\r\nHost:  www.Example.com \r\nAccept: */*\r\n\r\n";
    let parser = complete(head);
    assert_eq!(parser.method(), Method::Get);
    assert_eq!(parser.method_span().of(head.as_bytes()), b"GET");
    assert_eq!(parser.target_span().of(head.as_bytes()), b"/a/b?c=d");
    let host = parser.host_span().unwrap();
    assert_eq!(host.of(head.as_bytes()), b"www.Example.com");
    assert_eq!(parser.version(), Version::Http11);
    assert_eq!(parser.form(), Form::Origin);
    assert_eq!(parser.body(), Body::None);
    assert!(parser.keep_alive());
    assert!(!parser.upgrade());
    assert!(!parser.expects_continue());
    assert_eq!(target(head).as_deref(), Ok("www.example.com/a/b?c=d"));
}

#[test]
fn bytes_behind_the_head_are_not_looked_at() {
    let head = b"GET / HTTP/1.0\r\n\r\n";
    let mut stream = head.to_vec();
    stream.extend_from_slice(b"\0\xff garbage \r\r\r");
    let (mut parser, status) = feed(&stream);
    assert_eq!(status, Status::Complete(head.len()));
    assert_eq!(parser.feed(b"more"), Status::Complete(head.len()));
}

#[test]
fn every_mistake_is_refused_where_it_shows() {
    let long_method = "M".repeat(40) + " / HTTP/1.1\r\n";
    #[rustfmt::skip]
    let cases: &[(&str, BadHead)] = &[
        // The request line.
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.0\r\n\r\n", BadHead::EmptyLines),
        ("\nGET / HTTP/1.0\r\n\r\n", BadHead::BareLf),
        ("\rGET / HTTP/1.0\r\n\r\n", BadHead::BareCr),
        (" GET / HTTP/1.0\r\n", BadHead::Method),
        ("(GET) / HTTP/1.0\r\n", BadHead::Method),
        ("GET\t/ HTTP/1.0\r\n", BadHead::Method),
        ("GET\r\n", BadHead::Method),
        ("\x16\x03\x01\x02\x00\x01", BadHead::Method),
        (&long_method, BadHead::MethodTooLong),
        ("GET  / HTTP/1.0\r\n", BadHead::Target),
        ("GET \r\n", BadHead::Target),
        ("GET ?a HTTP/1.0\r\n", BadHead::Target),
        ("GET /a\tb HTTP/1.0\r\n", BadHead::Target),
        ("GET /a#b HTTP/1.0\r\n", BadHead::Target),
        ("GET /\u{e4} HTTP/1.0\r\n", BadHead::Target),
        ("GET /\0 HTTP/1.0\r\n", BadHead::Target),
        ("GET * HTTP/1.1\r\n", BadHead::Target),
        ("OPTIONS ** HTTP/1.1\r\n", BadHead::Target),
        ("get * HTTP/1.1\r\n", BadHead::Target),
        ("GET /\r\n", BadHead::Version),
        ("GET /\n", BadHead::Version),
        ("GET / \r\n", BadHead::Version),
        ("GET / http/1.1\r\n", BadHead::Version),
        ("GET / HTTP/1\r\n", BadHead::Version),
        ("GET / HTTP/1.1 \r\n", BadHead::Version),
        ("GET / HTTP/1.10\r\n", BadHead::Version),
        ("GET /a b HTTP/1.1\r\n", BadHead::Version),
        ("GET / HTTP/x.1\r\n", BadHead::Version),
        ("GET / HTTP/1.1\n", BadHead::BareLf),
        ("GET / HTTP/1.1\rX", BadHead::BareCr),
        ("GET / HTTP/0.9\r\n", BadHead::VersionUnsupported),
        ("GET / HTTP/1.2\r\n", BadHead::VersionUnsupported),
        ("GET / HTTP/2.0\r\n", BadHead::VersionUnsupported),
        ("GET / HTTP/3.1\r\n", BadHead::VersionUnsupported),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadHead::VersionUnsupported),
        // The fields.
        ("GET / HTTP/1.1\r\n Host: h\r\n", BadHead::Fold),
        ("GET / HTTP/1.1\r\nHost: h\r\n\tmore\r\n", BadHead::Fold),
        ("GET / HTTP/1.1\r\nHost : h\r\n", BadHead::SpaceBeforeColon),
        ("GET / HTTP/1.1\r\nHo st: h\r\n", BadHead::SpaceBeforeColon),
        ("GET / HTTP/1.1\r\n: h\r\n", BadHead::FieldName),
        ("GET / HTTP/1.1\r\nHost\r\n", BadHead::FieldName),
        ("GET / HTTP/1.1\r\nH(st: h\r\n", BadHead::FieldName),
        ("GET / HTTP/1.1\r\nX\u{e4}: h\r\n", BadHead::FieldName),
        (&with("Content_Length: 5\r\n"), BadHead::FieldName),
        (&with("Transfer_Encoding: chunked\r\n"), BadHead::FieldName),
        ("GET / HTTP/1.1\r\n\0: h\r\n", BadHead::FieldName),
        ("GET / HTTP/1.1\r\nHost: h\n", BadHead::BareLf),
        ("GET / HTTP/1.1\r\n\n", BadHead::BareLf),
        ("GET / HTTP/1.1\r\nHost: h\r\r\n", BadHead::BareCr),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\r", BadHead::BareCr),
        ("GET / HTTP/1.1\r\nA: b\0c\r\n", BadHead::FieldValue),
        ("GET / HTTP/1.1\r\nA: \x7f\r\n", BadHead::FieldValue),
        ("GET / HTTP/1.1\r\nA: b\x0bc\r\n", BadHead::FieldValue),
        // What fields say.
        ("GET / HTTP/1.1\r\n\r\n", BadHead::NoHost),
        ("GET / HTTP/1.1\r\nHostt: h\r\n\r\n", BadHead::NoHost),
        ("GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n", BadHead::DuplicateHost),
        (&with("Content-Length: 5\r\nContent-Length: 6\r\n"), BadHead::ContentLength),
        (&with("Content-Length: 5\r\nContent-Length: 5\r\n"), BadHead::ContentLength),
        (&with("Content-Length: 5, 5\r\n"), BadHead::ContentLength),
        (&with("Content-Length: 5 5\r\n"), BadHead::ContentLength),
        (&with("Content-Length:\r\n"), BadHead::ContentLength),
        (&with("Content-Length: +5\r\n"), BadHead::ContentLength),
        (&with("Content-Length: -5\r\n"), BadHead::ContentLength),
        (&with("Content-Length: 0x5\r\n"), BadHead::ContentLength),
        (&with("Content-Length: 9223372036854775808\r\n"), BadHead::ContentLength),
        (&with("Content-Length: 18446744073709551616\r\n"), BadHead::ContentLength),
        (&with("Content-Length: 010\r\n"), BadHead::ContentLength),
        (&with("Content-Length: 00\r\n"), BadHead::ContentLength),
        (&with("Transfer-Encoding:\r\n"), BadHead::TransferEncoding),
        (&with("Transfer-Encoding: ,chunked\r\n"), BadHead::TransferEncoding),
        (&with("Transfer-Encoding: chunked,\r\n"), BadHead::TransferEncoding),
        (&with("Transfer-Encoding: chunked, chunked\r\n"), BadHead::TransferEncoding),
        (&with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), BadHead::TransferEncoding),
        (&with("Transfer-Encoding: gzip, chunked\r\n"), BadHead::TransferCoding),
        (&with("Transfer-Encoding: xchunked\r\n"), BadHead::TransferCoding),
        (&with("Transfer-Encoding: chunke\r\n"), BadHead::TransferCoding),
        (&with("Transfer-Encoding: chunked x\r\n"), BadHead::TransferCoding),
        (&with("Transfer-Encoding: chunked;q=1\r\n"), BadHead::TransferCoding),
        (&with("Transfer-Encoding: \"chunked\"\r\n"), BadHead::TransferCoding),
        (&with("Transfer-Encoding: identity\r\n"), BadHead::TransferCoding),
        (&with("Transfer-Encoding: close\r\n"), BadHead::TransferCoding),
        (&with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), BadHead::LengthConflict),
        (&with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), BadHead::LengthConflict),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", BadHead::TransferEncoding),
        ("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 1\r\n\r\n", BadHead::ConnectBody),
    ];
    for (head, bad) in cases {
        let (mut parser, status) = feed(head.as_bytes());
        assert_eq!(status, Status::Bad(*bad), "{head:?}");
        assert_eq!(
            parser.feed(b"\r\n\r\n"),
            Status::Bad(*bad),
            "not final: {head:?}"
        );
    }
}

#[test]
fn what_is_unusual_but_clear_is_taken() {
    for head in [
        "\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "M-SEARCH / HTTP/1.1\r\nHost:\r\n\r\n",
        "get / HTTP/1.1\r\nHOST:h\r\n\r\n",
        "GET //a/../b;c?[x]|{y}^`\\\"<> HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX:\r\nY: \r\nZ: \u{e4}\t \"q\" \r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "OPTIONS /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nContent-Length: 0\r\n\r\n",
    ] {
        complete(head);
    }
}

#[test]
fn methods_are_told_apart() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("OPTIONS", Method::Options),
        ("GETS", Method::Other),
        ("GE", Method::Other),
        ("HAED", Method::Other),
        ("Get", Method::Other),
        ("G", Method::Other),
        ("PUT", Method::Other),
    ] {
        let parser = complete(&format!("{name} / HTTP/1.0\r\n\r\n"));
        assert_eq!(parser.method(), method, "{name}");
    }
}

#[test]
fn persistence_follows_version_and_connection() {
    for (version, connection, persistent) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Foo, CLOSE\r\n", false),
        (
            "1.1",
            "Connection: foo\r\nConnection: bar ,close\r\n",
            false,
        ),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection: clos\r\n", true),
        ("1.1", "Connection: clo se\r\n", true),
        ("1.1", "Connection: , ,\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection:\tKeep-Alive\t\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "X-Connection: keep-alive\r\n", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n");
        assert_eq!(complete(&head).keep_alive(), persistent, "{head:?}");
    }
}

#[test]
fn bodies_are_announced() {
    for (fields, body) in [
        ("", Body::None),
        ("Content-Length: 0\r\n", Body::None),
        (
            "Content-Length: 9223372036854775807 \r\n",
            Body::Length(i64::MAX as u64),
        ),
        ("content-length:17\r\n", Body::Length(17)),
        ("Transfer-Encoding: chunked\r\n", Body::Chunked),
        ("TRANSFER-ENCODING: \tChunked \r\n", Body::Chunked),
    ] {
        assert_eq!(complete(&with(fields)).body(), body, "{fields:?}");
    }
}

#[test]
fn upgrades_and_expectations_are_seen() {
    let both = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    assert!(complete(&with(both)).upgrade());
    assert!(complete(&with("Upgrade: h2c\r\n")).upgrade());
    assert!(!complete(&with("Connection: upgrade\r\n")).upgrade());
    let expect = "Expect: 100-Continue\r\nContent-Length: 4\r\n";
    assert!(complete(&with(expect)).expects_continue());
    assert!(!complete(&with(expect)).expects_other());
    for other in [
        "Expect: 100-continued\r\n",
        "Expect:\r\n",
        "Expect: 100-continue, 100-continue\r\n",
        "Expect: 100-continue\r\nExpect: x\r\n",
    ] {
        assert!(complete(&with(other)).expects_other(), "{other:?}");
    }
    assert!(!complete(&with("Expect: 100-continued\r\n")).expects_continue());
    let old = format!("POST / HTTP/1.0\r\n{expect}\r\n");
    assert!(!complete(&old).expects_continue());
}

#[test]
fn one_target_has_one_key() {
    let key = "www.example.com/a?b";
    for head in [
        "GET /a?b HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        "HEAD /a?b HTTP/1.0\r\nhost:WWW.EXAMPLE.COM:80\r\n\r\n",
        "GET /a?b HTTP/1.1\r\nHost: www.example.com:\r\n\r\n",
        "GET http://www.example.com/a?b HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        "GET HTTP://WWW.example.com:80/a?b HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        "GET http://www.example.com/a?b HTTP/1.0\r\n\r\n",
        "GET https://www.example.com:443/a?b HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
    ] {
        assert_eq!(target(head).as_deref(), Ok(key), "{head:?}");
    }
    for (head, key) in [
        ("GET / HTTP/1.1\r\nHost: h:8080\r\n\r\n", "h:8080/"),
        (
            "GET / HTTP/1.1\r\nHost: [2001:DB8::1]:81\r\n\r\n",
            "[2001:db8::1]:81/",
        ),
        ("GET / HTTP/1.1\r\nHost: [v1.a:b]\r\n\r\n", "[v1.a:b]/"),
        ("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", "h/"),
        ("GET http://h?q/r HTTP/1.1\r\nHost: h\r\n\r\n", "h?q/r"),
        ("GET /x HTTP/1.1\r\nHost:\r\n\r\n", "/x"),
        ("GET /x HTTP/1.0\r\n\r\n", "/x"),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "h*"),
        ("CONNECT H:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", "h:80"),
    ] {
        assert_eq!(target(head).as_deref(), Ok(key), "{head:?}");
    }
}

#[test]
fn doubtful_authorities_are_refused() {
    for (head, bad) in [
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BadHead::Host),
        ("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", BadHead::Host),
        ("GET / HTTP/1.1\r\nHost: h/x\r\n\r\n", BadHead::Host),
        ("GET / HTTP/1.1\r\nHost: h:65536\r\n\r\n", BadHead::Host),
        ("GET / HTTP/1.1\r\nHost: h:8o\r\n\r\n", BadHead::Host),
        ("GET / HTTP/1.1\r\nHost: h:1:2\r\n\r\n", BadHead::Host),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BadHead::Host),
        ("GET / HTTP/1.1\r\nHost: []\r\n\r\n", BadHead::Host),
        ("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", BadHead::Host),
        ("GET / HTTP/1.1\r\nHost: \u{e4}\r\n\r\n", BadHead::Host),
        ("GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n", BadHead::Host),
        (
            "GET http://u@h/a HTTP/1.1\r\nHost: h\r\n\r\n",
            BadHead::Host,
        ),
        ("GET http:/h/a HTTP/1.1\r\nHost: h\r\n\r\n", BadHead::Target),
        ("GET a/b HTTP/1.1\r\nHost: h\r\n\r\n", BadHead::Target),
        ("GET ftp://h/a HTTP/1.1\r\nHost: h\r\n\r\n", BadHead::Target),
        (
            "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
            BadHead::HostMismatch,
        ),
        (
            "GET http://a/ HTTP/1.1\r\nHost: a:81\r\n\r\n",
            BadHead::HostMismatch,
        ),
        (
            "GET https://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
            BadHead::HostMismatch,
        ),
        (
            "GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n",
            BadHead::HostMismatch,
        ),
        ("CONNECT h HTTP/1.1\r\nHost: h\r\n\r\n", BadHead::Host),
        ("CONNECT :1 HTTP/1.1\r\nHost: h\r\n\r\n", BadHead::Host),
        (
            "CONNECT h:1 HTTP/1.1\r\nHost: g:1\r\n\r\n",
            BadHead::HostMismatch,
        ),
    ] {
        assert_eq!(target(head), Err(bad), "{head:?}");
    }
}

#[test]
fn equivalent_spellings_are_one_target() {
    let of = |host: &str, path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let parser = complete(&head);
        let key = key(head.as_bytes(), &parser).unwrap();
        (key.to_string(), key.hash([1, 2]))
    };
    let one = of("www.example.com", "/~a/%2F?b=%C3%A9");
    assert_eq!(one.0, "www.example.com/~a/%2F?b=%C3%A9");
    assert_eq!(of("WWW.ex%61mple.com", "/%7ea/%2f?b=%c3%a9"), one);
    assert_ne!(of("www.example.com", "/~a//?b=%C3%A9").1, one.1);
    assert_ne!(of("www.example.com", "/~A/%2F?b=%C3%A9").1, one.1);
    let long = "x".repeat(200);
    let spelt = "%78".repeat(200);
    assert_eq!(
        of(&long, &format!("/{long}")),
        of(&spelt, &format!("/{spelt}"))
    );
}

#[test]
fn the_hash_depends_on_every_part_and_on_the_key() {
    let hash = |head: &str, k: [u64; 2]| {
        let parser = complete(head);
        key(head.as_bytes(), &parser).unwrap().hash(k)
    };
    let base = "GET /ab HTTP/1.1\r\nHost: host\r\n\r\n";
    let same = "POST http://HOST:80/ab HTTP/1.1\r\nHost: host\r\n\r\n";
    assert_eq!(hash(base, [1, 2]), hash(same, [1, 2]));
    for other in [
        "GET /ac HTTP/1.1\r\nHost: host\r\n\r\n",
        "GET /ab HTTP/1.1\r\nHost: host2\r\n\r\n",
        "GET /ab HTTP/1.1\r\nHost: host:81\r\n\r\n",
        "GET /ab? HTTP/1.1\r\nHost: host\r\n\r\n",
        "GET /ab HTTP/1.0\r\n\r\n",
    ] {
        assert_ne!(hash(base, [1, 2]), hash(other, [1, 2]), "{other:?}");
    }
    assert_ne!(hash(base, [1, 2]), hash(base, [2, 1]));
}

#[test]
fn the_hash_is_siphash_2_4_and_never_changes() {
    // The test vector of the SipHash paper: key 00..0f, message 00..0e. Nodes built by different
    // compilers must agree.
    #[allow(deprecated, reason = "as in KeyParts::hash")]
    let mut reference =
        core::hash::SipHasher::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
    core::hash::Hasher::write(
        &mut reference,
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
    );
    assert_eq!(
        core::hash::Hasher::finish(&reference),
        0xa129_ca61_49be_45e5
    );

    let long = "A-Host-Name.That.Is-Longer-Than-One-Chunk.Of.The-Hash.example.org";
    let head = format!("GET /path?query HTTP/1.1\r\nHost: {long}:8080\r\n\r\n");
    let parser = complete(&head);
    let ours = key(head.as_bytes(), &parser).unwrap().hash([5, 6]);
    #[allow(deprecated, reason = "as in KeyParts::hash")]
    let mut whole = core::hash::SipHasher::new_with_keys(5, 6);
    let mut bytes = long.to_ascii_lowercase().into_bytes();
    bytes.extend_from_slice(b"\xff\x1f\x90/path?query");
    core::hash::Hasher::write(&mut whole, &bytes);
    assert_eq!(ours, core::hash::Hasher::finish(&whole));
}

#[test]
fn the_limit_holds_to_the_byte() {
    let head = |len: usize| {
        let frame = "GET / HTTP/1.0\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.0\r\nX: {}\r\n\r\n", "x".repeat(len - frame))
    };
    for limit in [64, 1_000, HeadParser::MAX_LIMIT] {
        let fits = head(limit);
        let mut parser = HeadParser::new(limit);
        assert_eq!(parser.feed(fits.as_bytes()), Status::Complete(limit));
        let over = head(limit + 1);
        let mut parser = HeadParser::new(limit);
        assert_eq!(parser.feed(over.as_bytes()), Status::Bad(BadHead::TooLarge));
        let mut parser = HeadParser::new(limit);
        for b in &over.as_bytes()[..limit - 1] {
            assert_eq!(parser.feed(&[*b]), Status::Partial);
        }
        // One byte is left, and two would be needed.
        assert_eq!(parser.feed(b"\r"), Status::Bad(BadHead::TooLarge));
    }
}

#[test]
fn what_is_too_long_decides_the_status() {
    let target = format!("GET /{}", "x".repeat(100));
    let version = format!("GET /{} HTTP/1.", "x".repeat(87));
    for (head, bad, status) in [
        (target.as_str(), BadHead::TargetTooLong, 414),
        (version.as_str(), BadHead::TargetTooLong, 414),
        ("GET / HTTP/1.0\r\nA", BadHead::TooLarge, 431),
    ] {
        let mut parser = HeadParser::new(100);
        let padded = format!("{head}{}", "y".repeat(100));
        let got = parser.feed(if head.len() < 100 { &padded } else { head }.as_bytes());
        assert_eq!(got, Status::Bad(bad), "{head:?}");
        assert_eq!(bad.status(), status);
    }
    let mut none = HeadParser::new(0);
    assert_eq!(none.feed(b"G"), Status::Bad(BadHead::EmptyLines));
}

#[test]
fn statuses_and_names_are_complete() {
    for (i, bad) in BadHead::ALL.iter().enumerate() {
        assert!(matches!(bad.status(), 400 | 408 | 414 | 431 | 501 | 505));
        let twice = BadHead::ALL[..i].iter().any(|b| b.name() == bad.name());
        assert!(!twice, "{bad}");
    }
}

#[test]
fn silence_and_empty_lines_are_not_a_beginning() {
    let (parser, status) = feed(b"\r\n\r");
    assert_eq!(status, Status::Partial);
    assert!(!parser.has_begun());
    assert!(feed(b"\r\nG").0.has_begun());
}

#[test]
fn the_parser_is_small() {
    assert!(size_of::<HeadParser>() <= 96, "{}", size_of::<HeadParser>());
}

fn scan(body: Body, bytes: &[u8]) -> Scanned {
    BodyScanner::new(body).feed(bytes)
}

#[test]
fn bodies_end_where_they_say() {
    assert_eq!(scan(Body::None, b"GET"), Scanned::Complete(0));
    assert_eq!(scan(Body::Length(3), b"ab"), Scanned::Partial);
    assert_eq!(scan(Body::Length(3), b"abcd"), Scanned::Complete(3));
    for chunked in [
        &b"0\r\n\r\n"[..],
        b"3\r\nabc\r\n0\r\n\r\n",
        b"3;x=y;z\r\nabc\r\n000\r\nTrailer: t\r\nAnother: u\r\n\r\n",
        b"A\r\n0123456789\r\n1\r\n\r\r\n0;a=b\r\n\r\n",
        b"00000003\r\nabc\r\n00000000\r\nX:\r\n\r\n",
    ] {
        let mut stream = chunked.to_vec();
        stream.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let whole = scan(Body::Chunked, &stream);
        assert_eq!(whole, Scanned::Complete(chunked.len()), "{chunked:?}");
        for split in 0..chunked.len() {
            let mut scanner = BodyScanner::new(Body::Chunked);
            assert_eq!(scanner.feed(&stream[..split]), Scanned::Partial);
            let rest = scanner.feed(&stream[split..]);
            assert_eq!(rest, Scanned::Complete(chunked.len() - split), "{split}");
            assert_eq!(scanner.feed(b"x"), Scanned::Complete(0));
        }
    }
}

#[test]
fn malformed_chunks_are_refused() {
    let long = format!("1;{}", "x".repeat(5_000));
    let trailer = format!("0\r\nA: {}", "x".repeat(5_000));
    for chunked in [
        "\r\n",
        ";\r\n",
        " 3\r\nabc\r\n",
        "3 \r\nabc\r\n",
        "3\nabc\n",
        "3\rabc",
        "0x3\r\nabc\r\n",
        "-1\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n",
        "3\r\nabc\rx",
        "3;\r\n",
        "3;\n\r\n",
        "3;\0\r\n",
        "3;a\n\r\n",
        "3;a b\r\n",
        "3; a\r\n",
        "3;a;\r\n",
        "3;a=\r\n",
        "3;a=b=c\r\n",
        "3;a=\"b\"\r\n",
        "3;=b\r\n",
        "80000000\r\n",
        "000000003\r\nabc\r\n",
        "10000000000000000\r\n",
        "0\r\nA\r\n",
        "0\r\n: b\r\n",
        "0\r\nA : b\r\n",
        "0\r\nContent-Length: 5\r\n",
        "0\r\ntransfer_encoding: chunked\r\n",
        "0\r\nHost: h\r\n",
        "0\r\n folded\r\n",
        "0\r\nA: b\n",
        "0\r\nA: b\rx",
        "0\r\n\rx",
        &long,
        &trailer,
    ] {
        let mut scanner = BodyScanner::new(Body::Chunked);
        assert_eq!(
            scanner.feed(chunked.as_bytes()),
            Scanned::Bad(BadBody),
            "{chunked:?}"
        );
        assert_eq!(scanner.feed(b"0\r\n\r\n"), Scanned::Bad(BadBody));
    }
}
