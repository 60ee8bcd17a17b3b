// SPDX-License-Identifier: GPL-2.0

//! Rewritten heads, and reserved targets against what servers make of a path, each in its own way.

#[path = "http/paths.rs"]
mod paths;

use lard_core::http::rewrite::is_reserved;
use lard_core::http::{target, BadHead, BadRewrite, HeadParser, ReservedScan, Rewritten, Status};
use paths::{first_segment, habits, is_node, Habit};
use proptest::prelude::*;
use proptest::sample::select;

fn parse(head: &[u8]) -> HeadParser {
    let mut parser = HeadParser::new(HeadParser::MAX_LIMIT);
    assert_eq!(parser.feed(head), Status::Complete(head.len()));
    parser
}

fn head(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\nX: /a\r\n\r\n").into_bytes()
}

/// The target in the rewritten head.
fn rewrite(head: &[u8], node: [u8; 4]) -> Result<String, BadRewrite> {
    let parser = parse(head);
    let new = Rewritten::new(head, &parser, node)?;
    let bytes = new.parts().concat();
    assert_eq!(bytes.len(), new.head_len());
    assert!(bytes.len() <= head.len() + Rewritten::MAX_GROWTH);

    // Everything but the target is as it was.
    let again = parse(&bytes);
    let (was, is) = (parser.target_span(), again.target_span());
    assert_eq!(
        bytes[..usize::from(is.start)],
        head[..usize::from(was.start)]
    );
    assert_eq!(bytes[usize::from(is.end)..], head[usize::from(was.end)..]);
    // And where it leads is never taken for a client's.
    let key = target::key(&bytes, &again).expect("a target");
    assert!(is_reserved(&key));
    Ok(String::from_utf8(is.of(&bytes).to_vec()).expect("ASCII"))
}

fn reserved(target: &str) -> bool {
    let head = head(target);
    let reserved = is_reserved(&target::key(&head, &parse(&head)).expect("a target"));
    let mut scan = ReservedScan::default();
    head.chunks(3).for_each(|piece| scan.feed(piece));
    assert_eq!(scan.is_reserved(), reserved, "{target}");
    reserved
}

#[test]
fn a_target_gets_the_node_in_front() {
    for (target, new) in [
        ("/", "/10.1.0.3/"),
        ("/a/b?c=/d&e", "/10.1.0.3/a/b?c=/d&e"),
        ("/%7euser/%41%2f%zz%", "/10.1.0.3/%7euser/%41%2f%zz%"),
        ("//a//b", "/10.1.0.3//a//b"),
        ("http://h/a?b", "/10.1.0.3/a?b"),
        ("HTTP://H:80/a", "/10.1.0.3/a"),
        ("http://h", "/10.1.0.3/"),
        ("http://h?b", "/10.1.0.3/?b"),
    ] {
        assert_eq!(
            rewrite(&head(target), [10, 1, 0, 3]).as_deref(),
            Ok(new),
            "{target}"
        );
    }
    let long = rewrite(&head("/a"), [255; 4]);
    assert_eq!(long.as_deref(), Ok("/255.255.255.255/a"));
    let empty_lines = b"\r\n\r\nGET /a HTTP/1.0\r\n\r\n";
    assert_eq!(rewrite(empty_lines, [0; 4]).as_deref(), Ok("/0.0.0.0/a"));
}

#[test]
fn what_cannot_be_rewritten_is_refused() {
    for (head, bad) in [
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", BadRewrite::Form),
        (
            "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
            BadRewrite::Form,
        ),
        ("GET http://h/a HTTP/1.0\r\n\r\n", BadRewrite::NoHost),
        (
            "GET https://h/a HTTP/1.1\r\nHost: h\r\n\r\n",
            BadRewrite::Scheme,
        ),
        (
            "GET /10.1.0.4/a HTTP/1.1\r\nHost: h\r\n\r\n",
            BadRewrite::Reserved,
        ),
        (
            "GET /a/../b HTTP/1.1\r\nHost: h\r\n\r\n",
            BadRewrite::Reserved,
        ),
        (
            "GET http://g/a HTTP/1.1\r\nHost: h\r\n\r\n",
            BadRewrite::Head(BadHead::HostMismatch),
        ),
    ] {
        assert_eq!(
            rewrite(head.as_bytes(), [10, 1, 0, 3]),
            Err(bad),
            "{head:?}"
        );
    }
}

#[test]
fn nobody_reaches_a_mount_by_asking_for_it() {
    for target in [
        "/10.1.0.3",
        "/10.1.0.3/",
        "/10.1.0.3/a?b",
        "/10.1.0.3?b",
        "//10.1.0.3/a",
        "/./10.1.0.3/a",
        "/.//./10.1.0.3/a",
        "/10.1.0.3//a",
        "/a/../10.1.0.3/a",
        "/a/..",
        "/..",
        "/../10.1.0.3/a",
        "/%2e%2e/a",
        "/a/.%2E/10.1.0.3/a",
        "/a/%252e%252e/10.1.0.3/a",
        "/%31%30.1.0.3/a",
        "/10%2e1%2E0%2e3/a",
        "/10%252e1.0.3/a",
        "/10%25252e1.0.3/a",
        "/10%2%651.0.3/a",
        "/%2f10.1.0.3/a",
        "/10.1.0.3%2fa",
        "/\\10.1.0.3\\a",
        "/%5c10.1.0.3%5Ca",
        "/a\\..\\10.1.0.3/a",
        "/10.1.0.3;x/a",
        "/10.1.0.3%00/a",
        "/10.1.0.3%20/a",
        "/10.1.0.3%3fx",
        "/..;/10.1.0.3",
        "/;x/10.1.0.3",
        "/;%2fx/10.1.0.3",
        "/.%00%2fx/10.1.0.3",
        "/999.1.0.003/a",
        "http://h/10.1.0.3/a",
        "http://h//10.1.0.3/a",
        "http://h/%2e/10.1.0.3",
    ] {
        assert!(reserved(target), "{target}");
    }
    for target in [
        "/",
        "/a",
        "/a/10.1.0.3",
        "/a?/../10.1.0.3",
        "/?10.1.0.3",
        "/10.1.0.3.html",
        "/10.1.0",
        "/10.1.0.3.4/",
        "/10.1.0.3a/",
        "/v10.1.0.3/",
        "/10..0.3/",
        "/.10.1.0.3/",
        "/1000.1.0.3/",
        "/...",
        "/a..b/..c/d..",
        "/a;b/;c/10.1.0.3;d",
        "/.hidden/.",
        "/100%/a%20b/%c3%a4%",
        "http://10.1.0.3/a",
    ] {
        let head = head(target);
        if target.starts_with('/') {
            assert!(!reserved(target), "{target}");
            assert!(rewrite(&head, [10, 1, 0, 3]).is_ok(), "{target}");
        } else {
            let mine = format!("GET {target} HTTP/1.1\r\nHost: 10.1.0.3\r\n\r\n");
            assert!(rewrite(mine.as_bytes(), [10, 1, 0, 3]).is_ok(), "{target}");
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    let pieces: &[&str] = &[
        "/", "/", "/", "\\", "%2f", "%5c", "%252f", ".", "..", "%2e", "%2E", "%252e", "%25252e",
        "10.1.0.3", "10.1.0.3", "10", "1", "%31", "%2531", "a", "b.c", ";", "%3b", "%3f", "%23",
        "%00", "%", "%2", "25", "2e", "x",
    ];
    prop::collection::vec(select(pieces), 0..9).prop_map(|p| format!("/{}", p.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_server_finds_a_mount(path in path(), absolute in any::<bool>(), query in "([?][/.]*)?") {
        let host = if absolute { "http://h" } else { "" };
        let target = format!("{host}{path}{query}");
        for habit in habits() {
            if is_node(&first_segment(path.as_bytes(), habit)) {
                prop_assert!(reserved(&target), "{} for {:?}", target, habit);
            }
        }
        let rewritten = rewrite(&head(&target), [10, 1, 0, 3]);
        if reserved(&target) {
            prop_assert_eq!(rewritten, Err(BadRewrite::Reserved));
        } else {
            let expected = format!("/10.1.0.3{path}");
            prop_assert_eq!(rewritten, Ok(format!("{expected}{query}")));
            // The mount is what every server finds then, and below it nothing leads out of it.
            for habit in habits() {
                prop_assert!(is_node(&first_segment(expected.as_bytes(), habit)));
            }
        }
    }

    #[test]
    fn plain_paths_are_reserved_only_if_they_name_a_node(
        path in "(/(a|b[.]c|10[.]1[.]0[.]3|1[.]2[.]3[.]4|[.]|[.]x|5)?){1,5}",
    ) {
        let habit = Habit {
            decodes: 1,
            backslash: false,
            cut: None,
            merges: true,
            resolves: true,
        };
        prop_assert_eq!(reserved(&path), is_node(&first_segment(path.as_bytes(), habit)), "{}", path);
    }
}
