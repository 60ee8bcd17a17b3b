// SPDX-License-Identifier: GPL-2.0

use super::super::{target, HeadParser};
use super::hpack::{Out, Place};
use super::*;

/// A frame on stream 1.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

fn stream(block: &[u8]) -> Vec<u8> {
    let window = frame(WINDOW_UPDATE, 0, &[0, 0, 0xff, 0xff]);
    let settings = frame(SETTINGS, 0, &[0, 3, 0, 0, 0, 100]);
    let headers = frame(HEADERS, END_HEADERS | 1, block);
    [PREFACE, &settings, &window, &headers].concat()
}

/// What all of `stream` is, and what the first request in it asks for.
fn read(stream: &[u8]) -> (Progress, Result<String, Unread>) {
    let mut buf = [0; 300];
    let mut opening = Opening::default();
    let progress = opening.feed(stream);
    let read = opening.request(stream, &mut buf);
    let said = |r: Request<'_>| format!("{} {}", r.method.escape_ascii(), r.target);
    (progress, read.map(said))
}

fn whole(asked: &str) -> (Progress, Result<String, Unread>) {
    (Progress::Whole, Ok(asked.to_string()))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect()
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // RFC 7541, C.3.1 and C.4.1.
    for block in [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    ] {
        let stream = stream(&bytes(block));
        assert_eq!(read(&stream), whole("GET www.example.com/"));
        let begins = stream.len() - bytes(block).len() - 9;
        let mut opening = Opening::default();
        for end in 0..stream.len() {
            let (progress, unread) = match end {
                _ if end < PREFACE.len() => (Progress::Preface, Unread::NoRequest),
                _ if end < begins + 9 => (Progress::Frames, Unread::NoRequest),
                _ => (Progress::Frames, Unread::Cut),
            };
            assert_eq!(read(&stream[..end]), (progress, Err(unread)), "{end}");
            // The same, byte by byte.
            assert_eq!(opening.feed(&stream[..end]), progress, "{end}");
        }
        assert_eq!(opening.feed(&stream), Progress::Whole);
    }
}

/// Reads a compressed string.
fn huffman(code: &[u8], buf: &mut [u8]) -> Result<Place, Unread> {
    let string = [&[0x80 | code.len() as u8], code].concat();
    let mut block = Block {
        stream: &string,
        at: 0,
        end: string.len(),
        more: None,
    };
    Out { buf, len: 0 }.string(&mut block)
}

#[test]
fn the_code_is_that_of_the_rfc() {
    // RFC 7541, C.4 and C.6.
    for (text, code) in [
        ("no-cache", "a8eb 1064 9cbf"),
        ("custom-value", "25a8 49e9 5bb8 e8b4 bf"),
        (
            "Mon, 21 Oct 2013 20:13:21 GMT",
            "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff",
        ),
        (
            "https://www.example.com",
            "9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3",
        ),
        (
            "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            "94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 \
             65c0 03ed 4ee5 b106 3d50 07",
        ),
    ] {
        let mut buf = [0; 100];
        let place = huffman(&bytes(code), &mut buf).expect(text);
        assert_eq!(&buf[place], text.as_bytes());
    }
    // What is left over is as the RFC has it: the first code of 19 bits is 0x7fff0.
    let mut buf = [0; 1];
    assert_eq!(huffman(&[0xff, 0xfe, 0x1f], &mut buf), Ok(0..1));
    assert_eq!(buf, *b"\\");
}

#[test]
fn every_target_has_the_key_it_has_in_http_1() {
    let path: Vec<u8> = (b'!'..=b'~').filter(|b| *b != b'#').collect();
    let path = [b"/", &path[..]].concat();
    let head = [
        b"GET ",
        &path[..],
        b" HTTP/1.1\r\nHost: H.example:81\r\n\r\n",
    ]
    .concat();
    let mut parser = HeadParser::new(1_000);
    parser.feed(&head);
    let one = target::key(&head, &parser).expect("a target");

    // The names by index and spelt out, the values spelt.
    let authority = b"h.example:81";
    let block = [
        &[0x20, 0x83, 0x01, authority.len() as u8][..],
        authority,
        &[0x10, 5],
        b":path",
        &[path.len() as u8],
        &path,
        &[0x90, 0x90],
    ]
    .concat();
    let mut buf = [0; 300];
    let stream = stream(&block);
    let mut opening = Opening::default();
    assert_eq!(opening.feed(&stream), Progress::Whole);
    let request = opening.request(&stream, &mut buf).expect("a request");
    assert_eq!(request.method, b"POST");
    let two = request.target;
    assert_eq!(one.hash([1, 2]), two.hash([1, 2]));
    assert_eq!(one, two);
}

#[test]
fn padding_and_priority_are_passed_over() {
    let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
    let payload = [&[2, 0, 0, 0, 0, 16], &block[..], &[0, 0]].concat();
    let flags = END_HEADERS | PADDED | WITH_PRIORITY;
    let settings = frame(SETTINGS, 0, &[]);
    let stream = [PREFACE, &settings, &frame(HEADERS, flags, &payload)].concat();
    assert_eq!(read(&stream), whole("GET www.example.com/"));
}

#[test]
fn fields_may_be_cut_into_frames() {
    let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff 90 90");
    let settings = frame(SETTINGS, 0, &[]);
    for first in 0..block.len() {
        for second in first..block.len() {
            let parts = [
                PREFACE,
                &settings,
                &frame(HEADERS, PADDED, &[&[3], &block[..first], &[0; 3]].concat()),
                &frame(CONTINUATION, 0, &block[first..second]),
                &frame(CONTINUATION, 0, &[]),
                &frame(CONTINUATION, END_HEADERS, &block[second..]),
            ];
            let stream = parts.concat();
            assert_eq!(read(&stream), whole("GET www.example.com/"));
            // What matters is there before the end is.
            let (progress, read) = read(&stream[..stream.len() - 1]);
            assert_eq!(progress, Progress::Frames);
            assert_eq!(read.as_deref(), Ok("GET www.example.com/"));
        }
    }
}

#[test]
fn frames_in_front_are_passed_over() {
    let headers = frame(HEADERS, END_HEADERS, &bytes("8286 8441 0161"));
    for kind in [SETTINGS, PRIORITY, PING, WINDOW_UPDATE, 10, 16, 0xff] {
        let settings = frame(SETTINGS, 0, &[]);
        let stream = [PREFACE, &settings, &frame(kind, 0xff, &[1; 8]), &headers].concat();
        assert_eq!(read(&stream), whole("GET a/"), "{kind}");
    }
}

#[test]
fn a_flood_is_looked_at_once_and_is_no_request() {
    let mut opening = Opening::default();
    let settings = frame(SETTINGS, 0, &[]);
    let mut stream = [PREFACE, &settings, &frame(HEADERS, 0, &[0x82])].concat();
    for _ in 0..1_000 {
        stream.extend(frame(CONTINUATION, 0, &[]));
        assert_eq!(opening.feed(&stream), Progress::Frames);
        assert_eq!(opening.at, stream.len());
    }
    let mut buf = [0; 300];
    assert_eq!(opening.request(&stream, &mut buf), Err(Unread::Cut));
}

#[test]
fn what_cannot_be_read_is_not_guessed() {
    let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
    let settings = frame(SETTINGS, 0, &[]);
    let with = |frames: &[&[u8]]| [PREFACE, &frames.concat()].concat();
    let on = |stream: u8, frame: &[u8]| [&frame[..8], &[stream], &frame[9..]].concat();
    let long = [1, 0, 0, HEADERS, END_HEADERS, 0, 0, 0, 1];
    let begun = frame(HEADERS, 0, &block[..2]);
    let rest = frame(CONTINUATION, END_HEADERS, &block[2..]);
    for frames in [
        &[&frame(HEADERS, END_HEADERS, &block)[..]][..],
        &[&settings, &frame(0, 0, b"data")],
        &[&settings, &frame(3, 0, &[0; 4])],
        &[&settings, &frame(7, 0, &[0; 8])],
        &[&settings, &rest],
        &[&settings, &begun, &settings],
        &[&settings, &begun, &begun],
        &[&settings, &begun, &on(3, &rest)],
        &[&settings, &on(0, &frame(HEADERS, END_HEADERS, &block))],
        &[&settings, &long],
        &[&[1, 0, 0, SETTINGS, 0, 0, 0, 0, 0]],
    ] {
        let stream = with(frames);
        let said = (Progress::Whole, Err(Unread::Frames));
        assert_eq!(read(&stream), said, "{}", stream.escape_ascii());
    }
    let padded =
        |flags, fields: &[u8]| with(&[&settings, &frame(HEADERS, END_HEADERS | flags, fields)]);
    for stream in [
        padded(PADDED, &[9, 0x82]),
        padded(PADDED, &[]),
        padded(WITH_PRIORITY, &[0; 4]),
        // No method, no path, no authority, two of each, and what is none.
        stream(&bytes("8441 0161")),
        stream(&bytes("8286 418c f1e3 c2e5 f23a 6ba0 ab90 f4ff")),
        stream(&bytes("828684")),
        stream(&bytes("8283 8441 0161")),
        stream(&bytes("8284 8541 0161")),
        stream(&bytes("8284 4101 6141 0161")),
        stream(&bytes("0203 4720 5484 4101 61")),
        stream(&bytes("0200 8441 0161")),
        stream(&bytes("8204 0161 4101 61")),
        stream(&bytes("8204 022f 0041 0161")),
        stream(&bytes("8284 4103 6140 62")),
        // A pseudo-header field behind another field, and an index that nothing is known of.
        stream(&bytes("8284 9041 0161")),
        stream(&bytes("8284 be41 0161")),
        // A string and an integer without end, an integer that is too large.
        stream(&bytes("8284 410f 61")),
        stream(&bytes("8284 417f 80")),
        stream(&bytes("8284 417f ffff ffff 0f")),
        // Padding of eight bits, padding with a 0, the end-of-string code.
        stream(&bytes("8284 4182 1fff")),
        stream(&bytes("8284 4181 18")),
        stream(&bytes("8284 4184 ffff ffff")),
    ] {
        let said = (Progress::Whole, Err(Unread::Fields));
        assert_eq!(read(&stream), said, "{}", stream.escape_ascii());
    }
    assert_eq!(read(&stream(&bytes("8284 4181 1f"))), whole("GET a/"));
    let other = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n";
    assert_eq!(read(other), (Progress::Other, Err(Unread::NoRequest)));
}

#[test]
fn there_is_room_for_whatever_fits_the_stream() {
    // The shortest symbols, and the longest values of the static table.
    let host = [&[0; 255][..], &[7]].concat();
    let block = [&bytes("87 87 85 83 41 ff 81 01")[..], &host].concat();
    let long = stream(&block);
    let behind = [&long[..], &frame(0, 0, &[0; 1_000])].concat();
    let mut opening = Opening::default();
    assert_eq!(opening.feed(&behind), Progress::Whole);
    let mut buf = vec![0; opening.room(behind.len())];
    assert!(buf.len() < 500);
    let request = opening.request(&long, &mut buf).expect("a request");
    assert_eq!(
        (request.method, request.target.path),
        (&b"POST"[..], &b"/index.html"[..])
    );
    assert_eq!(request.target.host, [b'0'; 256 * 8 / 5]);
    let mut small = [0; 15];
    let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
    let stream = stream(&block);
    let mut opening = Opening::default();
    assert_eq!(opening.feed(&stream), Progress::Whole);
    assert_eq!(opening.request(&stream, &mut small), Err(Unread::Fields));
}
