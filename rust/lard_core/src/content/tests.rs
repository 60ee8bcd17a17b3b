// SPDX-License-Identifier: GPL-2.0

use super::*;

/// What the rules make of a request.
fn ask(rules: &[&str], request: &str, fields: &str) -> u32 {
    let rules: Vec<_> = rules
        .iter()
        .map(|text| Rule::parse(text).unwrap())
        .collect();
    let head = format!("{request} HTTP/1.1\r\nHost: www.Example.com:8080\r\n{fields}\r\n");
    let mut parser = HeadParser::new(8_192);
    parser.feed(head.as_bytes());
    let asked = Asked::new(head.as_bytes(), &parser).unwrap();
    choose(&rules, &asked).0
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = [
        "prefix /a/ tag 1",
        "prefix /a/b/ tag 2",
        "suffix .gif tag 3",
    ];
    assert_eq!(ask(&rules, "GET /a/b/c.gif", ""), 0b1);
    assert_eq!(ask(&rules, "GET /c.gif", ""), 0b100);
    assert_eq!(ask(&rules, "GET /c", ""), 0, "any back-end");
    assert_eq!(ask(&["tag 1,32"], "GET /c", ""), 1 | 1 << 31);
}

#[test]
fn each_condition_is_one() {
    let is = |rule: &str, request, fields| ask(&[&format!("{rule} tag 1")], request, fields) == 1;
    let get = "GET /dir/page.html?x=/y.gif";
    for (rule, holds) in [
        ("host www.example.COM", true),
        ("host example.com", false),
        ("host *.example.com", true),
        ("host *.www.example.com", false),
        ("host *.com", true),
        ("prefix /", true),
        ("prefix /dir/", true),
        ("prefix /%64ir/", true),
        ("prefix /Dir/", false),
        ("prefix /dir/page.html?x", false),
        ("suffix .html", true),
        ("suffix .gif", false),
        ("suffix x/dir/page.html", false),
        ("method GET", true),
        ("method get", false),
        ("method GET suffix .html host *.com", true),
        ("method POST suffix .html", false),
    ] {
        assert_eq!(is(rule, get, ""), holds, "{rule}");
    }
    let fields = "X-A: one\r\nCookie: user=joe; x=y\r\n";
    for (rule, holds) in [
        ("header x-a", true),
        ("header X-A=one", true),
        ("header X-A=two", false),
        ("header X-B", false),
        ("cookie user", true),
        ("cookie user=joe", true),
        ("cookie user=jim", false),
        ("cookie joe", false),
        ("cookie x=y header X-A=one", true),
    ] {
        assert_eq!(is(rule, get, fields), holds, "{rule}");
    }
}

#[test]
fn escapes_make_no_difference_where_they_mean_none() {
    assert_eq!(
        ask(
            &["prefix /~joe/ suffix .gif tag 1"],
            "GET /%7ejoe/a.g%69f",
            ""
        ),
        1
    );
    assert_eq!(ask(&["prefix /a/ tag 1"], "GET /a%2Fb", ""), 0);
}

#[test]
fn what_is_no_rule_is_refused() {
    for (text, bad) in [
        ("", BadRule::Tag),
        ("host h", BadRule::Tag),
        ("host", BadRule::Value),
        ("tag", BadRule::Value),
        ("tag 0", BadRule::Tag),
        ("tag 33", BadRule::Tag),
        ("tag 1,", BadRule::Tag),
        ("tag 1 host h", BadRule::Tag),
        ("host h host h tag 1", BadRule::Twice),
        ("header a header b tag 1", BadRule::Twice),
        ("header =b tag 1", BadRule::Value),
        ("prefix static tag 1", BadRule::Value),
        ("host *foo.com tag 1", BadRule::Value),
        ("host *. tag 1", BadRule::Value),
        ("host a.*.com tag 1", BadRule::Value),
        ("port 80 tag 1", BadRule::Word),
    ] {
        assert_eq!(Rule::parse(text), Err(bad), "{text:?}");
    }
}
