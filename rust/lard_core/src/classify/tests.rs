// SPDX-License-Identifier: GPL-2.0

//! Rules as text and as decisions.

use super::super::addr::Addr;
use super::*;

fn rules(text: &str) -> Vec<Rule> {
    let mut out = [Rule::default(); MAX_RULES];
    let n = parse_rules(text, &mut out).unwrap();
    out[..n].to_vec()
}

fn packet<'a>(iface: &'a str, src: &str) -> Packet<'a> {
    Packet {
        iface: iface.as_bytes(),
        src: addr(src),
        dst: addr("10.9.9.9"),
        dport: 8080,
        dst_is_local: true,
    }
}

fn addr(text: &str) -> Addr {
    match text.parse().unwrap() {
        core::net::IpAddr::V4(v4) => Addr::from_v4(v4.octets()),
        core::net::IpAddr::V6(v6) => Addr::from_v6(v6.octets()),
    }
}

fn action(rules: &[Rule], packet: &Packet<'_>) -> Action {
    first_match(rules, packet)
}

/// The rules of the original stack: "all packets containing a source IP address of the form 192.x.x.x
/// and arriving on the fxp0 or fxp1 interface are accepted by the stack in the loadable module.
/// However, packets from source 192.168.2.75 and packets from all other sources are sent up the
/// original stack."
#[test]
fn the_rules_of_the_original_stack() {
    let rules = rules("pass from 192.168.2.75\naccept if fxp0,fxp1 from 192.0.0.0/8\n");
    for (iface, src, expected) in [
        ("fxp0", "192.0.0.1", Action::Accept),
        ("fxp1", "192.255.255.255", Action::Accept),
        ("fxp0", "192.168.2.74", Action::Accept),
        ("fxp0", "192.168.2.75", Action::Pass),
        ("fxp1", "192.168.2.75", Action::Pass),
        ("fxp2", "192.0.0.1", Action::Pass),
        ("fxp", "192.0.0.1", Action::Pass),
        ("fxp01", "192.0.0.1", Action::Pass),
        ("fxp0", "193.0.0.1", Action::Pass),
        ("fxp0", "191.255.255.255", Action::Pass),
        ("fxp0", "10.0.0.1", Action::Pass),
        ("fxp0", "2001:db8::1", Action::Pass),
    ] {
        assert_eq!(
            action(&rules, &packet(iface, src)),
            expected,
            "{iface} {src}"
        );
    }
}

#[test]
fn the_first_match_decides() {
    let both = rules("accept from 10.0.0.0/8\npass from 10.1.0.0/16\n");
    assert_eq!(action(&both, &packet("e", "10.1.0.1")), Action::Accept);
    let turned = rules("pass from 10.1.0.0/16\naccept from 10.0.0.0/8\n");
    assert_eq!(action(&turned, &packet("e", "10.1.0.1")), Action::Pass);
    assert_eq!(action(&turned, &packet("e", "10.2.0.1")), Action::Accept);
    assert_eq!(action(&[], &packet("e", "10.2.0.1")), Action::Pass);
}

#[test]
fn destinations_and_ports_are_looked_at() {
    let rules = rules("accept to local port 8080\naccept to 10.9.0.0/16 port 81");
    assert!(needs_local(&rules));
    let mut p = packet("e", "1.2.3.4");
    assert_eq!(action(&rules, &p), Action::Accept);
    p.dst_is_local = false;
    assert_eq!(action(&rules, &p), Action::Pass);
    p.dport = 81;
    assert_eq!(action(&rules, &p), Action::Accept);
    p.dst = addr("10.8.0.1");
    assert_eq!(action(&rules, &p), Action::Pass);
    p.dst_is_local = true;
    assert_eq!(action(&rules, &p), Action::Pass);
    assert!(!needs_local(&rules[1..]));
}

#[test]
fn prefixes_keep_the_protocols_apart() {
    let contains = |prefix: &str, a: &str| prefix.parse::<Prefix>().unwrap().contains(addr(a));
    assert!(contains("0.0.0.0/0", "255.1.2.3"));
    assert!(!contains("0.0.0.0/0", "2001:db8::1"));
    assert!(contains("::/0", "2001:db8::1"));
    assert!(contains("::/0", "1.2.3.4"), "length 0 is everything");
    assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
    assert!(!contains("2001:db8::/32", "2001:db9::1"));
    assert!(contains("10.0.0.0/31", "10.0.0.1"));
    assert!(!contains("10.0.0.0/31", "10.0.0.2"));
    assert!(contains("10.0.0.1", "10.0.0.1"));
    assert!(!contains("10.0.0.1/32", "10.0.0.0"));
}

#[test]
fn prefixes_are_checked() {
    for (text, error) in [
        ("", PrefixError::Syntax),
        ("10.0.0", PrefixError::Syntax),
        ("10.0.0.0/", PrefixError::Syntax),
        ("10.0.0.0/x", PrefixError::Syntax),
        ("10.0.0.0/+8", PrefixError::Syntax),
        ("10.0.0.0/08", PrefixError::Syntax),
        ("10.0.0.0/8/8", PrefixError::Syntax),
        ("10.0.0.0/33", PrefixError::Length),
        ("10.0.0.0/256", PrefixError::Length),
        ("::/129", PrefixError::Length),
        ("10.0.0.1/8", PrefixError::HostBits),
        ("1.0.0.0/0", PrefixError::HostBits),
        ("2001:db8::1/64", PrefixError::HostBits),
    ] {
        assert_eq!(text.parse::<Prefix>(), Err(error), "{text:?}");
    }
}

#[test]
fn what_is_printed_parses_to_the_same() {
    for (text, printed) in [
        ("accept", "accept"),
        ("  pass\tfrom  any to any ", "pass"),
        ("accept if eth0", "accept if eth0"),
        ("accept if eth0,eth0,eth1", "accept if eth0,eth1"),
        (
            "accept if a,b,c,d from 10.0.0.0/8 to local port 80",
            "accept if a,b,c,d from 10.0.0.0/8 to local port 80",
        ),
        (
            "accept from 0.0.0.0/0 to 192.0.2.1/32",
            "accept from 0.0.0.0/0 to 192.0.2.1",
        ),
        ("pass from ::/0 to ::/0", "pass"),
        ("pass from 2001:DB8:0::/48", "pass from 2001:db8::/48"),
        ("pass from ::ffff:10.0.0.1", "pass from 10.0.0.1"),
        ("accept port 65535", "accept port 65535"),
    ] {
        let rule: Rule = text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(rule.to_string(), printed);
        assert_eq!(printed.parse(), Ok(rule));
    }
}

#[test]
fn what_is_not_a_rule_is_named() {
    for (text, error) in [
        ("", ParseError::Action),
        ("drop", ParseError::Action),
        ("Accept", ParseError::Action),
        ("accept all", ParseError::Keyword),
        ("accept to local from any", ParseError::Keyword),
        ("accept from any from any", ParseError::Keyword),
        ("accept port 80 if eth0", ParseError::Keyword),
        ("accept if", ParseError::Missing("if")),
        ("accept from", ParseError::Missing("from")),
        ("accept if eth0 port", ParseError::Missing("port")),
        ("accept if ,eth0", ParseError::Iface),
        ("accept if eth0,", ParseError::Iface),
        ("accept if a/b", ParseError::Iface),
        ("accept if ..", ParseError::Iface),
        ("accept if sixteen-letters-", ParseError::Iface),
        ("accept if a,b,c,d,e", ParseError::TooManyIfaces),
        ("accept from local", ParseError::From(PrefixError::Syntax)),
        (
            "accept from 10.0.0.1/8",
            ParseError::From(PrefixError::HostBits),
        ),
        ("accept to everywhere", ParseError::To(PrefixError::Syntax)),
        ("accept port 0", ParseError::Port),
        ("accept port 65536", ParseError::Port),
        ("accept port http", ParseError::Port),
        ("accept port +80", ParseError::Port),
    ] {
        assert_eq!(text.parse::<Rule>(), Err(error), "{text:?}");
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn lists_have_comments_and_line_numbers() {
    let text = "# the regular stack keeps the administrators\n\n  pass from 10.0.0.0/24 # them\r\naccept\n";
    assert_eq!(rules(text).len(), 2);
    let mut out = [Rule::default(); 1];
    assert_eq!(parse_rules(text, &mut out), Err(RulesError::TooMany));
    let wrong = parse_rules("pass\n\nreject\n", &mut [Rule::default(); 4]);
    assert_eq!(wrong, Err(RulesError::Line(3, ParseError::Action)));
    assert_eq!(parse_rules("# nothing\n", &mut []), Ok(0));
}

#[test]
fn interfaces_have_the_names_the_kernel_allows() {
    for good in ["a", "eth0", "fifteen-letters", "br-lan.100", "wg\u{e4}"] {
        assert_eq!(IfaceName::new(good.as_bytes()).unwrap().to_string(), good);
    }
    for bad in [
        "",
        "sixteen--letters",
        "a b",
        "a\tb",
        "a\0",
        ".",
        "a,b",
        "a#b",
    ] {
        assert_eq!(IfaceName::new(bad.as_bytes()), None, "{bad:?}");
    }
    let odd = IfaceName::new(b"x\xffy").unwrap();
    assert_eq!(odd.to_string(), "x\u{fffd}y");
}
