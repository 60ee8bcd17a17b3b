// SPDX-License-Identifier: GPL-2.0

//! What content rules and keys cost a request: the head of a browser, complete and parsed, against
//! lists of rules of which none matches before the last.

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion};
use lard_core::content::{Asked, Place, Rules, TagNames};
use lard_core::http::{target, HeadParser, KeyPlaces};
use std::hint::black_box;

const HEAD: &[u8] = b"GET /articles/2026/11/a-longer-name.html?page=2 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Connection: keep-alive\r\n\
    Cookie: theme=dark; session=0123456789abcdef0123456789abcdef\r\n\
    Cache-Control: max-age=0\r\n\r\n";

fn rules(c: &mut Criterion) {
    let mut parser = HeadParser::new(8_192);
    parser.feed(HEAD);
    let mut group = c.benchmark_group("rules");
    for (kind, condition) in [
        ("prefix", "prefix /static/part-"),
        ("suffix", "suffix .gif"),
        ("host", "host *.example.org"),
        ("header", "header X-Kind=value-"),
        ("cookie", "cookie user=name-"),
    ] {
        for count in [1, 8, 63] {
            let line = |i| format!("{condition}{i} tag a\n");
            let text: String = (0..count).map(line).collect::<String>() + "tag b\n";
            let names = TagNames::new().renewed(&text).unwrap();
            let places: Vec<Place> = Rules::compile(&text, &names).map(Result::unwrap).collect();
            group.bench_function(BenchmarkId::new(kind, count), |b| {
                let rules = Rules::new(&text, &places);
                b.iter(|| {
                    let asked = Asked::new(black_box(HEAD), &parser).unwrap();
                    black_box(rules.choose(&asked))
                })
            });
        }
    }
    group.finish();
}

fn keys(c: &mut Criterion) {
    let mut parser = HeadParser::new(8_192);
    parser.feed(HEAD);
    let mut group = c.benchmark_group("key");
    for text in ["host", "path", "host+path+query", "cookie:session", "header:Accept"] {
        let places = KeyPlaces::parse(text).unwrap();
        group.bench_function(text, |b| {
            b.iter(|| {
                let target = target::key(black_box(HEAD), &parser).unwrap();
                black_box(places.parts(text).hash(&target, HEAD, [1, 2]))
            })
        });
    }
    group.finish();
}

criterion_group!(benches, rules, keys);
criterion_main!(benches);
