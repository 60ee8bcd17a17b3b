// SPDX-License-Identifier: GPL-2.0

use super::super::policy::Tags;
use super::*;

struct Service {
    text: String,
    names: TagNames,
    places: Vec<Place>,
}

impl Service {
    fn new(text: &str) -> Self {
        Self::after(&TagNames::new(), text)
    }

    fn after(old: &TagNames, text: &str) -> Self {
        let names = old.renewed(text).unwrap();
        let places = Rules::compile(text, &names).collect::<Result<_, _>>();
        Service {
            text: text.to_string(),
            places: places.unwrap(),
            names,
        }
    }

    fn choose(&self, request: &str, fields: &str) -> Tags {
        let head = format!("{request} HTTP/1.1\r\nHost: www.Example.com:8080\r\n{fields}\r\n");
        let mut parser = HeadParser::new(8_192);
        parser.feed(head.as_bytes());
        let asked = Asked::new(head.as_bytes(), &parser).unwrap();
        Rules::new(&self.text, &self.places).choose(&asked)
    }

    /// The names of the tags that a request needs.
    fn ask(&self, request: &str, fields: &str) -> Vec<&str> {
        self.names.names(self.choose(request, fields)).collect()
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let service = Service::new(
        "prefix /a/ tag one\nprefix /a/b/ tag two\n\n# nothing\nsuffix .gif tag three,one # both\n",
    );
    assert_eq!(service.ask("GET /a/b/c.gif", ""), ["one"]);
    assert_eq!(service.ask("GET /c.gif", ""), ["one", "three"]);
    assert_eq!(service.choose("GET /c", ""), Tags::NONE, "any back-end");
    assert_eq!(Service::new("tag any").ask("GET /c", ""), ["any"]);
    assert_eq!(Service::new("").choose("GET /c", ""), Tags::NONE);
}

#[test]
fn what_is_not_known_of_a_request_matches_no_condition() {
    let text = "header X-A tag a\ncookie b tag b\nmethod POST tag c\nprefix /d tag d\n\
        suffix .e tag e\nhost f tag f\ntag rest\n";
    let service = Service::new(text);
    let ask = |asked: &Asked<'_>| {
        let tags = Rules::new(&service.text, &service.places).choose(asked);
        service.names.names(tags).collect::<Vec<_>>()
    };
    let without_fields = |method: &'static str, host: &'static str, path: &'static str| {
        let (host, path) = (host.as_bytes(), path.as_bytes());
        let target = TargetKey {
            host,
            port: None,
            path,
        };
        Asked::without_fields(method.as_bytes(), target)
    };
    assert_eq!(ask(&without_fields("POST", "h", "/")), ["c"]);
    assert_eq!(ask(&without_fields("GET", "h", "/d/x")), ["d"]);
    assert_eq!(ask(&without_fields("GET", "h", "/x.e")), ["e"]);
    assert_eq!(ask(&without_fields("GET", "F", "/x")), ["f"]);
    assert_eq!(ask(&without_fields("GET", "h", "/x")), ["rest"]);
    assert_eq!(ask(&Asked::UNKNOWN), ["rest"]);
}

#[test]
fn each_condition_is_one() {
    let is = |rule: &str, request, fields| {
        let service = Service::new(&format!("suffix other tag b\n{rule} tag a\n"));
        service.ask(request, fields) == ["a"]
    };
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
    let service = Service::new("prefix /~joe/ suffix .gif tag x\nprefix /a/ tag y");
    assert_eq!(service.ask("GET /%7ejoe/a.g%69f", ""), ["x"]);
    assert_eq!(service.choose("GET /a%2Fb", ""), Tags::NONE);
}

#[test]
fn what_is_no_line_is_refused_where_it_is_wrong() {
    for (text, why, at) in [
        ("host h", Why::NoTag, 6),
        ("  host", Why::Missing, 6),
        ("tag", Why::Missing, 3),
        ("tag a,", Why::Tag, 4),
        ("tag a/b", Why::Tag, 4),
        ("tag ,", Why::Tag, 4),
        (&format!("tag {}", "x".repeat(32)), Why::Tag, 4),
        ("tag a host h", Why::Behind, 6),
        ("host h host h tag a", Why::Twice, 7),
        ("header a header b tag a", Why::Twice, 9),
        ("header =b tag a", Why::Name, 7),
        ("prefix static tag a", Why::Prefix, 7),
        ("host *foo.com tag a", Why::Host, 5),
        ("host *. tag a", Why::Host, 5),
        ("host a.*.com tag a", Why::Host, 5),
        ("port 80 tag a", Why::Word, 0),
        ("method GET\tprefx /a tag a", Why::Word, 11),
        ("node", Why::Missing, 4),
        ("node a,,b tag x", Why::Node, 5),
        ("node a", Why::NoTag, 6),
        ("node a prefix", Why::NoTag, 7),
        ("node a tag x y", Why::Behind, 13),
        ("tag", Why::Missing, 3),
        ("method # GET", Why::Missing, 7),
    ] {
        assert_eq!(Line::parse(text), Err(BadRule { why, at }), "{text:?}");
        assert!(
            BadRule { why, at }.to_string().len() < 80,
            "as netlink has room for"
        );
    }
    for text in ["", " \t ", "# a", "  #tag", "\r"] {
        assert_eq!(Line::parse(text), Ok(None), "{text:?}");
    }
}

#[test]
fn a_text_is_bounded_and_its_errors_name_the_line() {
    let names = TagNames::new();
    let first_bad = |text: &str| Rules::compile(text, &names).find_map(Result::err);
    assert_eq!(first_bad(&"tag a\n".repeat(MAX_LINES)), None);
    assert_eq!(
        first_bad(&"tag a\n".repeat(MAX_LINES + 1)),
        Some(BadLine::TooMany)
    );
    let long = format!("\ntag a # {}", "x".repeat(MAX_LINE));
    assert_eq!(first_bad(&long), Some(BadLine::TooLong(2)));
    let bad = first_bad("tag a\n\n  host\n").unwrap();
    assert_eq!(bad.to_string(), "line 3, column 7: the value is missing");
}

#[test]
fn nodes_have_what_they_say_and_what_is_said_of_them() {
    let text = "tag app\nsuffix .gif tag static\nnode web1,web2 tag static\nnode web2 tag app\n";
    let service = Service::new(text);
    let has = |node, itself| {
        let tags = service.names.of_node(&service.text, node, itself);
        service.names.names(tags).collect::<Vec<_>>()
    };
    assert_eq!(has("web1", ""), ["static"]);
    assert_eq!(has("web2", ""), ["app", "static"]);
    assert_eq!(has("web1", "app,unheard-of"), ["app", "static"]);
    assert_eq!(has("web", ""), [""; 0]);
    assert_eq!(service.places.len(), 2);
}

#[test]
fn a_name_keeps_its_bit() {
    let first = Service::new("prefix /b tag b\ntag a");
    assert_eq!(first.names.known("b,a"), Tags(0b11));
    assert_eq!(first.names.known("b"), Tags(1));
    let second = Service::after(&first.names, "tag c\nprefix /a tag a");
    assert_eq!(second.names.known("a"), Tags(0b10));
    assert_eq!(second.names.known("c"), Tags(0b100));
    assert_eq!(second.names.known("b"), Tags(1), "it may come back");
    // With all bits given, those that were not given for the longest time go first.
    let many: String = (0..31).map(|i| format!("tag t{i}\n")).collect();
    let third = Service::after(&second.names, &format!("{many}tag a\n"));
    assert_eq!(third.names.known("a"), Tags(0b10));
    assert_eq!(third.names.known("b"), Tags::NONE);
    let all = (0..31).fold(0b10, |all, i| all | third.names.known(&format!("t{i}")).0);
    assert_eq!(all, u32::MAX, "each of them has one of its own");
    let more = format!("{many}tag a\ntag one-too-many\n");
    assert_eq!(third.names.renewed(&more), Err(TooManyTags));
}

#[test]
fn names_return_from_the_wire() {
    let service = Service::new("tag b,a\nnode n tag c");
    let text: String = service.names.wire().collect();
    assert!(text.starts_with("b,a,c,,"));
    let read = TagNames::from_wire(&text).unwrap();
    assert_eq!(read.known("a,b,c"), service.names.known("a,b,c"));
    assert_eq!(read.wire().collect::<String>(), text);
    let none: String = TagNames::new().wire().collect();
    assert_eq!(TagNames::from_wire(&none), Some(TagNames::new()));
    for bad in [
        "",
        "a",
        &format!("{none},"),
        &none.replacen(",", "a,a,", 1)[..MAX_TAGS],
        "/",
    ] {
        assert_eq!(TagNames::from_wire(bad), None, "{bad:?}");
    }
    let twice = format!("a,a{}", ",".repeat(MAX_TAGS - 2));
    assert_eq!(TagNames::from_wire(&twice), None);
}
