// SPDX-License-Identifier: GPL-2.0

//! The module's counters and their documentation: each has its paragraph, and no paragraph is about a
//! counter that is gone.

use std::collections::BTreeMap;

const MODULE: &str = include_str!("../../../net/lard/stats.rs");
const TCP: &str = include_str!("../../../rust/lard_core/src/tcp/reason.rs");
const DOCUMENT: &str = include_str!("../../../Documentation/networking/lard-counters.rst");

/// The names in lines of the form `Variant = "name",`, and how often each is there.
fn counters() -> BTreeMap<&'static str, usize> {
    let mut names = BTreeMap::new();
    for line in MODULE.lines().chain(TCP.lines()) {
        let Some((variant, rest)) = line.trim().split_once(" = \"") else {
            continue;
        };
        let name = rest.strip_suffix("\",");
        if let Some(name) = name.filter(|_| variant.chars().all(char::is_alphanumeric)) {
            *names.entry(name).or_default() += 1;
        }
    }
    names
}

/// The terms of the document, and how many lines of text each has.
fn paragraphs() -> Vec<(&'static str, usize)> {
    let mut found: Vec<(&str, usize)> = Vec::new();
    for line in DOCUMENT.lines() {
        let term = line.strip_prefix("``").and_then(|l| l.strip_suffix("``"));
        match (term, found.last_mut()) {
            (Some(term), _) => found.push((term, 0)),
            (None, Some((_, lines))) if line.starts_with("    ") => *lines += 1,
            _ => {}
        }
    }
    found
}

#[test]
fn every_counter_is_documented_once() {
    let counters = counters();
    // The lists were found: a counter of each of the two.
    for known in ["fe_opened", "ct_lost_silent", "tcp_reused"] {
        assert!(counters.contains_key(known), "{known}");
    }
    let mut documented: BTreeMap<&str, usize> = BTreeMap::new();
    for (term, lines) in paragraphs() {
        assert!(lines > 0, "{term} has no text");
        *documented.entry(term).or_default() += 1;
    }
    for (name, times) in counters.iter().chain(&documented) {
        assert_eq!(*times, 1, "{name} is there more than once");
    }
    let only_in = |one: &BTreeMap<&'static str, usize>, other: &BTreeMap<&'static str, usize>| {
        one.keys()
            .filter(|name| !other.contains_key(*name))
            .copied()
            .collect::<Vec<_>>()
    };
    let missing = only_in(&counters, &documented);
    let stale = only_in(&documented, &counters);
    assert!(missing.is_empty(), "not documented: {missing:?}");
    assert!(stale.is_empty(), "documented, but not counted: {stale:?}");
}
