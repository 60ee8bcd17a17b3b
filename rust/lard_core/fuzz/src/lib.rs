// SPDX-License-Identifier: GPL-2.0

//! One function for each thing that reads bytes from outside. Each takes any bytes at all, must not
//! panic, and checks what has to hold whatever the bytes are. The fuzz targets call them with what
//! the fuzzer makes up, `tests/corpus.rs` with the checked-in corpus and mutations of it.

use lard_core::addr::{Addr, Endpoint, Tuple};
use lard_core::classify::{self, Packet, Rule};
use lard_core::content::{self, Asked, Line, Place, Rules, TagNames};
use lard_core::http::http2::{Opening, Progress, Request, Unread};
use lard_core::http::rewrite::is_reserved;
use lard_core::http::{
    target, BadHead, BadRewrite, BodyScanner, HeadParser, KeyParts, KeyPlaces, Rewritten, Scanned,
    Status,
};
use lard_core::icmp;
use lard_core::tcp::{cookie, reset_for, Config, Responder, Secret, Segment, SegmentOut};
use lard_core::time::Instant;
use lard_core::wire::{DecodeError, Framer, Header, Message, HEADER_LEN};

mod following;

pub use following::follow;

#[path = "../../tests/http/oracle.rs"]
mod oracle;

#[path = "../../tests/http/response_oracle.rs"]
mod response_oracle;

#[path = "../../tests/http/paths.rs"]
mod paths;

/// A request head with what follows it. The first byte decides where the stream is cut.
pub fn head_parser(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let limit = 4_096;
    let mut whole = HeadParser::new(limit);
    let status = whole.feed(stream);
    assert_eq!(status, whole.status());

    let mut pieces = HeadParser::new(limit);
    for piece in stream.chunks(usize::from(*cut).max(1)) {
        pieces.feed(piece);
    }
    assert_eq!(pieces.status(), status, "the pieces matter");
    assert_eq!(pieces.method_span(), whole.method_span());
    assert_eq!(pieces.target_span(), whole.target_span());
    assert_eq!(pieces.host_span(), whole.host_span());
    assert_eq!(pieces.body(), whole.body());
    assert_eq!(pieces.keep_alive(), whole.keep_alive());

    let end = match status {
        Status::Partial => {
            assert!(stream.len() < limit);
            return;
        }
        Status::Bad(bad) => {
            assert!(bad.status() >= 400);
            return;
        }
        Status::Complete(end) => end,
    };
    let (head, behind) = stream.split_at(end);
    assert!(head.ends_with(b"\r\n\r\n"), "a head without an end");
    assert!(!whole.method_span().is_empty());
    assert!(!whole.target_span().is_empty());
    // Every line feed has its carriage return, so no server sees other lines than we did.
    let bare = |w: &[u8]| (w[0] == b'\r') != (w[1] == b'\n');
    assert!(!head.windows(2).any(bare), "a bare line end");

    match target::key(head, &whole) {
        Ok(key) => {
            let text = key.to_string();
            assert!(text.is_ascii());
            assert_eq!(key.hash([1, 2]), KeyParts::DEFAULT.hash(&key, head, [1, 2]));
            let parts = KeyParts::parse("path+header:X-User+cookie:session").expect("parts");
            let hash = parts.hash(&key, head, [1, 2]);
            assert_eq!(
                hash,
                parts.hash(&key, stream, [1, 2]),
                "what is behind the head counts"
            );
            let rule = "host *.com prefix /a suffix b header X cookie c=d tag x";
            let Ok(Some(Line::Rule(rule))) = Line::parse(rule) else {
                panic!("{rule} is a rule");
            };
            let asked = Asked::new(head, &whole).expect("its target was read above");
            let _ = rule.matches(&asked);
        }
        Err(bad) => assert!(matches!(
            bad,
            BadHead::Host | BadHead::Target | BadHead::HostMismatch
        )),
    }

    let mut whole_body = BodyScanner::new(whole.body());
    let scanned = whole_body.feed(behind);
    let mut pieces = BodyScanner::new(whole.body());
    let mut at = 0;
    for piece in behind.chunks(usize::from(*cut).max(1)) {
        match pieces.feed(piece) {
            Scanned::Partial => at += piece.len(),
            Scanned::Complete(n) => {
                assert_eq!(scanned, Scanned::Complete(at + n));
                return;
            }
            bad => {
                assert_eq!(bad, scanned);
                return;
            }
        }
    }
    // With nothing fed at all not even an empty body was seen to end.
    assert!(scanned == Scanned::Partial || behind.is_empty());
}

/// The stream of a persistent connection. The first two bytes decide where it is cut.
pub fn framing(data: &[u8]) {
    let [first, second, stream @ ..] = data else {
        return;
    };
    let limit = 512;
    let said = oracle::check(stream, limit);
    for size in [1, usize::from(*first).max(2)] {
        assert_eq!(oracle::framed(stream.chunks(size), limit), said);
    }
    let end = stream.len() * usize::from(*second) / 255;
    let (one, two) = stream.split_at(end);
    assert_eq!(oracle::framed([one, &[], two], limit), said);
}

/// What a server sends on a connection that may move. The first two bytes decide where it is cut, and
/// whether it answers HEAD first.
pub fn responses(data: &[u8]) {
    let [first, second, stream @ ..] = data else {
        return;
    };
    let to_head = first & 1 == 1;
    let seen = response_oracle::check(stream, to_head);
    let size = usize::from(*first).max(1);
    for size in [1, size] {
        let pieces = response_oracle::framed(stream.chunks(size), to_head);
        assert_eq!(pieces, seen, "in pieces of {size}");
        let skipped = response_oracle::skipped(stream, to_head, size);
        assert_eq!(skipped, seen, "skipping {size} at most");
    }
    let end = stream.len() * usize::from(*second) / 255;
    let (one, two) = stream.split_at(end);
    assert_eq!(response_oracle::framed([one, &[], two], to_head), seen);
}

/// The target of a request in the mode `forward`.
pub fn rewrite(data: &[u8]) {
    let head = [b"GET ", data, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    let mut parser = HeadParser::new(HeadParser::MAX_LIMIT);
    if parser.feed(&head) != Status::Complete(head.len()) {
        return;
    }
    let Ok(key) = target::key(&head, &parser) else {
        return;
    };
    let path = key.path.split(|b| *b == b'?').next().unwrap_or_default();
    let reserved = is_reserved(&key);
    let finds = |path: &[u8], habit| paths::is_node(&paths::first_segment(path, habit));
    for habit in paths::habits().filter(|_| path.starts_with(b"/")) {
        assert!(reserved || !finds(path, habit), "{habit:?}");
    }
    let rewritten = Rewritten::new(&head, &parser, [10, 255, 0, 3]);
    match &rewritten {
        Ok(_) => assert!(!reserved),
        Err(BadRewrite::Reserved) => assert!(reserved),
        Err(_) => {}
    }
    if let Ok(rewritten) = rewritten {
        let new = rewritten.parts().concat();
        assert_eq!(new.len(), rewritten.head_len());
        assert!(new.len() <= head.len() + Rewritten::MAX_GROWTH);
        let mut parser = HeadParser::new(HeadParser::MAX_LIMIT);
        assert_eq!(parser.feed(&new), Status::Complete(new.len()));
        let new = target::key(&new, &parser).expect("a target");
        assert!(new.path.ends_with(key.path) && is_reserved(&new));
        let path = new.path.split(|b| *b == b'?').next().unwrap_or_default();
        assert!(
            paths::habits().all(|habit| finds(path, habit)),
            "the mount is left"
        );
    }
}

/// The beginning of a connection that speaks HTTP/2, behind its preface.
pub fn http2(data: &[u8]) {
    let stream = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", data].concat();
    let read = |opening: &Opening, end: usize| {
        let mut buf = vec![0; opening.room(end)];
        let request = opening.request(&stream[..end], &mut buf);
        request.map(|Request { method, target }| {
            assert!(target.path.starts_with(b"/") && !target.host.is_empty());
            let port = target
                .port
                .map(|port| format!(":{port}"))
                .unwrap_or_default();
            // What was read can be asked for in the older version as well, and is the same.
            let line = [method, b" ", target.path, b" HTTP/1.1\r\n"].concat();
            let field = [b"Host: ", target.host, port.as_bytes(), b"\r\n\r\n"].concat();
            let head = [line, field].concat();
            if method != b"CONNECT" && method.len() <= 32 {
                let mut parser = HeadParser::new(head.len() + 1);
                assert_eq!(parser.feed(&head), Status::Complete(head.len()));
                assert_eq!(target::key(&head, &parser), Ok(target));
            }
            head
        })
    };
    let mut whole = Opening::default();
    let progress = whole.feed(&stream);
    let request = read(&whole, stream.len());
    // Byte by byte it is the same, and what could be read before the end does not change.
    let mut opening = Opening::default();
    for end in 0..=stream.len() {
        let now = opening.feed(&stream[..end]);
        let part = read(&opening, end);
        match now {
            Progress::Whole => assert_eq!((now, &part), (progress, &request)),
            Progress::Preface => assert_eq!(part, Err(Unread::NoRequest)),
            Progress::Frames if part.is_ok() => {
                assert!(
                    part == request || request == Err(Unread::Frames),
                    "more bytes matter"
                );
            }
            Progress::Frames => {}
            Progress::Other => panic!("the preface is there"),
        }
    }
    assert_eq!(read(&opening, stream.len()), request);
}

/// A TCP header with options, or an ICMP error; what is made of it must be readable again.
pub fn segment_parser(data: &[u8]) {
    let _ = icmp::quoted_tuple(data);
    let Ok(segment) = Segment::parse(data, data.len()) else {
        return;
    };
    let header = usize::from(segment.header_len);
    assert_eq!(header + segment.payload_len as usize, data.len());
    assert_eq!(Segment::parse(&data[..header], data.len()), Ok(segment));

    let tuple = Tuple::new(
        Endpoint::new(Addr::from_v4([192, 0, 2, 1]), segment.src_port),
        Endpoint::new(Addr::from_v4([198, 51, 100, 1]), segment.dst_port),
    );
    let emitted = |out: SegmentOut| {
        let mut buf = [0; SegmentOut::MAX_LEN];
        let len = out
            .emit(&tuple, &mut buf)
            .expect("the buffer is large enough");
        // A segment of ours goes from the VIP, whose port can be anything a client asked for.
        if segment.dst_port != 0 {
            Segment::parse(&buf[..len], len).expect("we can read what we send");
        }
    };
    let (config, secret) = (Config::default(), Secret::from_bytes([7; 16]));
    let now = Instant::from_millis(1_000_000);
    reset_for(&segment).map(emitted);
    let _ = cookie::check(&config, &secret, &tuple, &segment, now);
    if let Ok(out) = cookie::answer(&config, &secret, &tuple, &segment, now) {
        emitted(out);
    }
    if let Ok((mut responder, out)) = Responder::open(&config, &secret, &tuple, &segment, None, now)
    {
        emitted(out);
        // The same segment again, as a retransmission.
        if let Some(out) = responder.on_segment(&config, &segment, now).send {
            emitted(out);
        }
    }
}

/// Frames back to back, as a control connection delivers them.
pub fn frames(data: &[u8]) {
    let mut left = data;
    while let Some((header, rest)) = left.split_first_chunk::<HEADER_LEN>() {
        let Ok(header) = Header::decode(header) else {
            break;
        };
        let Some((body, rest)) = rest.split_at_checked(header.length) else {
            break;
        };
        let frame = &left[..HEADER_LEN + header.length];
        if let Ok(message) = Message::decode(header, body) {
            // What decodes has exactly one encoding.
            assert_eq!(message.kind(), header.kind);
            assert_eq!(message.frame_len(), frame.len());
            let mut again = vec![0; frame.len()];
            assert_eq!(message.encode(&mut again), Ok(frame.len()));
            assert_eq!(again, frame);
        }
        left = rest;
    }

    let mut framer = Framer::new();
    let mut left = data;
    while let Some((piece, rest)) = left.split_at_checked(framer.need()) {
        assert!(!piece.is_empty());
        left = rest;
        match framer.push(piece) {
            Ok(Some(message)) => assert_eq!(message.frame_len(), HEADER_LEN + piece.len()),
            Ok(None) => {}
            Err(error) => {
                let introduced = framer.is_introduced();
                assert!(!introduced || !matches!(error, DecodeError::NotIntroduced(_)));
                break;
            }
        }
    }
}

/// Content rules as an administrator types them, and as the dispatcher sends them on. What is behind
/// the first empty line serves as a request.
pub fn content(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let names = match TagNames::new().renewed(&text) {
        Ok(names) => names,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let wire: String = names.wire().collect();
    assert_eq!(
        TagNames::from_wire(&wire).map(|n| n.wire().collect()),
        Some(wire)
    );
    if let Some(read) = TagNames::from_wire(&text) {
        assert_eq!(read.wire().collect::<String>(), text);
    }
    assert_eq!(names.renewed(&text).as_ref(), Ok(&names), "nothing is new");
    if let Ok(parts) = KeyPlaces::parse(&text) {
        assert_eq!(KeyParts::parse(&text), Ok(parts.parts(&text)));
    }
    let _ = names.of_node(&text, "web1", &text);
    let places: Result<Vec<Place>, _> = Rules::compile(&text, &names).collect();
    let places = match places {
        Ok(places) => places,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(places.len() <= content::MAX_LINES);

    let begin = data.windows(2).position(|w| w == b"\n\n");
    let head = &data[begin.map_or(0, |at| at + 2)..];
    let mut parser = HeadParser::new(4_096);
    let Status::Complete(end) = parser.feed(head) else {
        return;
    };
    let Ok(asked) = Asked::new(&head[..end], &parser) else {
        return;
    };
    let chosen = Rules::new(&text, &places).choose(&asked);
    let rules = content::lines(&text).filter_map(|(_, line)| match line {
        Ok(Line::Rule(rule)) => Some(rule),
        _ => None,
    });
    let first = rules.into_iter().find(|rule| rule.matches(&asked));
    let expected = first.map_or(Default::default(), |rule| names.known(rule.tags));
    assert_eq!(chosen, expected, "places are not what they stand for");
}

/// A list of rules as an administrator types it. The last bytes serve as a packet.
pub fn rules(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut rules = [Rule::default(); 8];
    match classify::parse_rules(&text, &mut rules) {
        Ok(n) => {
            let rules = &rules[..n];
            for rule in rules {
                assert_eq!(rule.to_string().parse(), Ok(*rule), "{rule}");
            }
            let printed: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
            let mut again = [Rule::default(); 8];
            assert_eq!(classify::parse_rules(&printed, &mut again), Ok(n));
            assert_eq!(&again[..n], rules);

            let mut end = [0; 34];
            let len = data.len().min(end.len());
            end[..len].copy_from_slice(&data[data.len() - len..]);
            let mut packet = Packet {
                iface: &data[..data.len().min(15)],
                src: Addr(end[..16].try_into().expect("16 bytes")),
                dst: Addr(end[16..32].try_into().expect("16 bytes")),
                dport: u16::from_be_bytes([end[32], end[33]]),
                dst_is_local: false,
            };
            let remote = classify::first_match(rules, &packet);
            packet.dst_is_local = true;
            let local = classify::first_match(rules, &packet);
            assert!(remote == local || classify::needs_local(rules));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
