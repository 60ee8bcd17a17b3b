// SPDX-License-Identifier: GPL-2.0

//! Lengths, exact bytes, and frames that must be refused. Round trips of random messages are in
//! `tests/wire_round_trip.rs`.

use super::super::addr::{Addr, ConnId, Endpoint, NodeId, Tuple};
use super::super::follow::Mode;
use super::super::policy::{Mechanism, NodeSet, Tags};
use super::super::time::Instant;
use super::*;
use core::time::Duration;

const CONN: ConnId = ConnId::from_bits(0x0102_0304_0506_0708);

fn v4(last: u8, port: u16) -> Endpoint {
    Endpoint::new(Addr::from_v4([10, 0, 0, last]), port)
}

const CAPS: [ListenerCaps; 2] = [
    ListenerCaps {
        addr: Addr::UNSPECIFIED,
        port: 7080,
        space: 65_536,
        wscale: 7,
        sack: true,
        timestamps: true,
        scaling: true,
    },
    ListenerCaps {
        addr: Addr::from_v4([10, 0, 0, 2]),
        port: 7081,
        space: 4_096,
        wscale: 0,
        sack: false,
        timestamps: false,
        scaling: false,
    },
];

const VIPS: [Endpoint; 1] = [Endpoint::new(Addr::from_v4([192, 0, 2, 1]), 8080)];

fn hello() -> Hello<'static> {
    Hello {
        version: 1,
        node: NodeId(2),
        cluster: 0xc1,
        roles: Roles::FRONT_END.with(Roles::BACK_END),
        internal: Addr::from_v4([10, 0, 0, 2]),
        fe_port: 8080,
        be_port: 7080,
        listeners: List::new(&CAPS),
        vips: List::new(&VIPS),
        name: Name::new(b"node2").unwrap(),
        tags: "static,app",
    }
}

fn handoff() -> Handoff<'static> {
    Handoff {
        conn: CONN,
        tuple: Tuple::new(v4(9, 40_000), v4(1, 8080)),
        irs: 0xffff_fff0,
        iss: 2,
        expires: Instant::from_micros(3),
        mss: 1_460,
        window: 502,
        wscale: Some(WindowScale { snd: 7, rcv: 9 }),
        sack: true,
        timestamps: Some(Timestamps {
            recent: 4,
            sent: 5,
            unit: TsUnit::Micros,
        }),
        fin: true,
        movable: false,
        data: b"GET / HTTP/1.0\r\n\r\n",
    }
}

fn service() -> Service<'static> {
    Service {
        key: "host+path",
        tags: "static,app",
        lines: "suffix .gif tag static\ntag app\n",
        mode: Mode::Auto,
        mechanism: Mechanism::Forward,
        tells_idle: true,
    }
}

/// One message of every type.
fn all() -> [Message<'static>; 23] {
    let node = NodeId(3);
    [
        hello().into(),
        Ping {
            sent: Instant::from_micros(7),
        }
        .into(),
        Pong {
            sent: Instant::from_micros(7),
            clock: Instant::from_micros(8),
        }
        .into(),
        Bye {
            reason: ByeReason::Leaving,
        }
        .into(),
        Assign {
            conn: CONN,
            key: 0xfeed,
            exclude: NodeSet::EMPTY.with(node),
            home: Some(NodeId(4)),
            mechanism: Mechanism::Forward,
            batch: 2,
            tags: Tags(5),
        }
        .into(),
        Assigned {
            conn: CONN,
            node: Some(node),
            tag: None,
        }
        .into(),
        Load {
            active: 5,
            disk_queue: 6,
        }
        .into(),
        NodeUp {
            node,
            roles: Roles::BACK_END,
            weight: 10,
            internal: Addr::from_v4([10, 0, 0, 3]),
            tags: Tags(6),
        }
        .into(),
        NodeDown {
            node,
            reason: DownReason::Silent,
        }
        .into(),
        Drain { node }.into(),
        service().into(),
        Idle {
            conn: CONN,
            node,
            is_idle: true,
        }
        .into(),
        Wait {
            conn: CONN,
            at_most_ms: 5_000,
        }
        .into(),
        Admitted {
            conn: CONN,
            node: Some(node),
        }
        .into(),
        handoff().into(),
        Adopted { conn: CONN }.into(),
        Refused {
            conn: CONN,
            reason: Refusal::QueueFull,
            client_reset: true,
        }
        .into(),
        Closed {
            conn: CONN,
            node,
            how: HowClosed::TimeWait,
            bytes: 1 << 40,
            duration: Duration::from_micros(1_500_000),
        }
        .into(),
        Release {
            conn: CONN,
            tuple: Tuple::new(v4(9, 40_000), v4(1, 8080)),
            next: 1,
            acked: 2,
            requests: 3,
            supplier: Some(NodeId(4)),
        }
        .into(),
        Released {
            conn: CONN,
            snd_nxt: 1,
            rcv_nxt: 2,
            tsval: Some((3, TsUnit::Millis)),
        }
        .into(),
        Busy {
            conn: CONN,
            why: WhyBusy::Answering,
        }
        .into(),
        Probe {
            conn: CONN,
            tuple: Tuple::new(v4(9, 40_000), v4(1, 8080)),
        }
        .into(),
        Gone {
            conn: CONN,
            time_wait: true,
        }
        .into(),
    ]
}

fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut out = vec![0xa5; message.frame_len()];
    assert_eq!(message.encode(&mut out), Ok(out.len()));
    out
}

fn decode(frame: &[u8]) -> Result<Message<'_>, DecodeError> {
    let (header, body) = frame.split_first_chunk().unwrap();
    Message::decode(Header::decode(header)?, body)
}

#[test]
fn every_type_has_its_number_and_returns_from_the_wire() {
    let messages = all();
    assert_eq!(messages.each_ref().map(Message::kind), MsgType::ALL);
    for message in messages {
        let frame = encode(&message);
        assert_eq!(frame[0], VERSION);
        assert_eq!(frame[1], message.kind() as u8);
        assert_eq!(decode(&frame), Ok(message));
    }
    for code in 0..=u8::MAX {
        let known = MsgType::ALL.iter().any(|t| *t as u8 == code);
        assert_eq!(MsgType::from_u8(code).is_some(), known);
    }
}

#[test]
fn lengths_are_what_the_diagrams_say() {
    let expect = [
        38 + 2 * 24 + 18 + 5 + 10,
        8,
        16,
        1,
        32,
        12,
        8,
        28,
        4,
        2,
        8 + 9 + 10 + 31,
        12,
        12,
        12,
        76 + 18,
        8,
        12,
        28,
        60,
        24,
        12,
        44,
        12,
    ];
    assert_eq!(all().map(|m| m.frame_len() - HEADER_LEN), expect);
    let longest = MsgType::ALL.map(|t| t.body_range().1).into_iter().max();
    assert!(longest.unwrap() <= MAX_BODY);
    for kind in MsgType::ALL {
        // The framer could not tell an empty body from none.
        assert!(kind.body_range().0 > 0, "{}", kind.name());
    }
}

#[test]
fn the_bytes_of_a_handoff_never_change() {
    #[rustfmt::skip]
    let expect: &[u8] = &[
        1, 32, 0, 0, 0, 0, 0, 94,
        1, 2, 3, 4, 5, 6, 7, 8,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 9, 0x9c, 0x40,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 0x1f, 0x90,
        0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 2,
        0, 0, 0, 4, 0, 0, 0, 5,
        0, 0, 0, 0, 0, 0, 0, 3,
        0x05, 0xb4, 0x01, 0xf6, 7, 9, 31, 0,
    ];
    let frame = encode(&handoff().into());
    assert_eq!(&frame[..84], expect);
    assert_eq!(&frame[84..], handoff().data);
    assert_eq!(handoff().rcv_nxt(), 0xffff_fff0u32.wrapping_add(1 + 18 + 1));
}

#[test]
fn every_change_of_length_is_refused() {
    for message in all() {
        let frame = encode(&message);
        let kind = message.kind();
        for len in HEADER_LEN..frame.len() {
            // The header is right, the body is cut off.
            assert_eq!(decode(&frame[..len]), Err(DecodeError::Length(kind)));
            // The header is wrong as well.
            let mut short = frame[..len].to_vec();
            short[4..8].copy_from_slice(&((len - HEADER_LEN) as u32).to_be_bytes());
            let cut_data = kind == MsgType::Handoff && len - HEADER_LEN >= 76;
            match decode(&short) {
                Ok(_) => assert!(cut_data, "{} at {len}", kind.name()),
                Err(e) => assert_eq!(e, DecodeError::Length(kind)),
            }
        }
        let mut long = frame.clone();
        long.push(0);
        assert_eq!(decode(&long), Err(DecodeError::Length(kind)));
        let length = (long.len() - HEADER_LEN) as u32;
        long[4..8].copy_from_slice(&length.to_be_bytes());
        if kind != MsgType::Handoff {
            assert_eq!(decode(&long), Err(DecodeError::Length(kind)));
        }
        for room in 0..frame.len() {
            let mut out = vec![0; room];
            assert_eq!(message.encode(&mut out), Err(EncodeError::NoSpace));
        }
    }
}

#[test]
fn headers_that_cannot_be_right_are_refused() {
    let good = [1, 2, 0, 0, 0, 0, 0, 8];
    let changed = |at: usize, to: u8| {
        let mut header = good;
        header[at] = to;
        Header::decode(&header)
    };
    assert!(Header::decode(&good).is_ok());
    assert_eq!(changed(0, 0), Err(DecodeError::Version(0)));
    assert_eq!(changed(0, 2), Err(DecodeError::Version(2)));
    assert_eq!(changed(1, 0), Err(DecodeError::Type(0)));
    assert_eq!(changed(1, 255), Err(DecodeError::Type(255)));
    assert_eq!(changed(2, 0x80), Err(DecodeError::Flags(0x8000)));
    assert_eq!(changed(3, 1), Err(DecodeError::Flags(1)));
    for (at, to) in [(4, 0x80), (6, 1), (7, 7), (7, 9), (7, 0)] {
        assert_eq!(changed(at, to), Err(DecodeError::Length(MsgType::Ping)));
    }
}

/// The frame of `message` with the byte at `at` of its body changed.
fn damaged(message: impl Into<Message<'static>>, at: usize, to: u8) -> Result<(), DecodeError> {
    let mut frame = encode(&message.into());
    frame[HEADER_LEN + at] = to;
    decode(&frame).map(|_| ())
}

#[test]
fn values_that_nobody_sends_are_refused() {
    use DecodeError::{Reserved, Value};
    let all = all();
    let [_, _, _, bye, assign, assigned, _, up, down, drain, _, idle, ..] = all;
    let [.., admitted, _, _, refused, closed, _, released, busy, _, gone] = all;
    let plain = Handoff {
        wscale: None,
        sack: false,
        timestamps: None,
        ..handoff()
    };
    #[rustfmt::skip]
    let cases = [
        (damaged(hello(), 1, 0), Value(MsgType::Hello, "version")),
        (damaged(hello(), 3, 0), Value(MsgType::Hello, "node")),
        (damaged(hello(), 2, 0x10), Value(MsgType::Hello, "node")),
        (damaged(hello(), 12, 8), Reserved(MsgType::Hello)),
        (damaged(hello(), 13, 17), Value(MsgType::Hello, "number of listeners")),
        (damaged(hello(), 14, 17), Value(MsgType::Hello, "number of addresses")),
        (damaged(hello(), 13, 4), DecodeError::Length(MsgType::Hello)),
        (damaged(hello(), 15, 4), DecodeError::Length(MsgType::Hello)),
        (damaged(hello(), 38 + 22, 15), Reserved(MsgType::Hello)),
        (damaged(hello(), 38 + 23, 8), Reserved(MsgType::Hello)),
        (damaged(hello(), 38 + 66, b'/'), Value(MsgType::Hello, "name")),
        (damaged(hello(), 36, 11), DecodeError::Length(MsgType::Hello)),
        (damaged(hello(), 37, 1), Reserved(MsgType::Hello)),
        (damaged(hello(), 38 + 71, b'/'), Value(MsgType::Hello, "tags")),
        (damaged(hello(), 38 + 71, 0xff), Value(MsgType::Hello, "tags")),
        (damaged(hello(), 38 + 78, b','), Value(MsgType::Hello, "tags")),
        (damaged(service(), 0, 1), Value(MsgType::Service, "key")),
        (damaged(service(), 2, 8), Value(MsgType::Service, "tags")),
        (damaged(service(), 4, 0x41), Value(MsgType::Service, "lines")),
        (damaged(service(), 5, 30), DecodeError::Length(MsgType::Service)),
        (damaged(service(), 5, 32), DecodeError::Length(MsgType::Service)),
        (damaged(service(), 6, 4), Reserved(MsgType::Service)),
        (damaged(service(), 7, 9), Value(MsgType::Service, "mode")),
        (damaged(service(), 8, 0xff), Value(MsgType::Service, "key")),
        (damaged(service(), 17, 0xff), Value(MsgType::Service, "tags")),
        (damaged(service(), 27, 0xff), Value(MsgType::Service, "lines")),
        (damaged(bye, 0, 0), Value(MsgType::Bye, "reason")),
        (damaged(bye, 0, 7), Value(MsgType::Bye, "reason")),
        (damaged(assign, 24, 0x10), Value(MsgType::Assign, "home")),
        (damaged(assign, 25, 0), Value(MsgType::Assign, "home")),
        (damaged(assign, 27, 0), Value(MsgType::Assign, "batch")),
        (damaged(assigned, 8, 0x10), Value(MsgType::Assigned, "node")),
        (damaged(assigned, 10, 0x10), Value(MsgType::Assigned, "node")),
        (damaged(admitted, 8, 0x10), Value(MsgType::Admitted, "node")),
        (damaged(admitted, 11, 1), Reserved(MsgType::Admitted)),
        (damaged(idle, 9, 0), Value(MsgType::Idle, "node")),
        (damaged(idle, 10, 2), Value(MsgType::Idle, "idle")),
        (damaged(idle, 11, 1), Reserved(MsgType::Idle)),
        (damaged(up, 1, 0), Value(MsgType::NodeUp, "node")),
        (damaged(up, 2, 0xff), Reserved(MsgType::NodeUp)),
        (damaged(up, 3, 1), Reserved(MsgType::NodeUp)),
        (damaged(up, 7, 1), Reserved(MsgType::NodeUp)),
        (damaged(down, 1, 0), Value(MsgType::NodeDown, "node")),
        (damaged(down, 2, 0), Value(MsgType::NodeDown, "reason")),
        (damaged(down, 3, 1), Reserved(MsgType::NodeDown)),
        (damaged(drain, 1, 0), Value(MsgType::Drain, "node")),
        (damaged(handoff(), 74, 0x7f), Reserved(MsgType::Handoff)),
        (damaged(handoff(), 75, 1), Reserved(MsgType::Handoff)),
        (damaged(handoff(), 72, 15), Value(MsgType::Handoff, "window scale")),
        (damaged(handoff(), 73, 15), Value(MsgType::Handoff, "window scale")),
        (damaged(plain, 72, 1), Value(MsgType::Handoff, "window scale")),
        (damaged(plain, 55, 1), Value(MsgType::Handoff, "timestamps")),
        (damaged(plain, 59, 1), Value(MsgType::Handoff, "timestamps")),
        (damaged(plain, 74, 8), Value(MsgType::Handoff, "timestamps")),
        (damaged(refused, 8, 0), Value(MsgType::Refused, "reason")),
        (damaged(refused, 8, 11), Value(MsgType::Refused, "reason")),
        (damaged(refused, 9, 2), Reserved(MsgType::Refused)),
        (damaged(refused, 11, 1), Reserved(MsgType::Refused)),
        (damaged(closed, 25, 0), Value(MsgType::Closed, "node")),
        (damaged(closed, 26, 6), Value(MsgType::Closed, "end")),
        (damaged(closed, 27, 1), Reserved(MsgType::Closed)),
        (damaged(released, 20, 0), Value(MsgType::Released, "timestamps")),
        (damaged(released, 20, 2), Value(MsgType::Released, "timestamps")),
        (damaged(released, 20, 4), Reserved(MsgType::Released)),
        (damaged(released, 23, 1), Reserved(MsgType::Released)),
        (damaged(busy, 8, 0), Value(MsgType::Busy, "reason")),
        (damaged(busy, 8, 7), Value(MsgType::Busy, "reason")),
        (damaged(busy, 11, 1), Reserved(MsgType::Busy)),
        (damaged(gone, 8, 2), Reserved(MsgType::Gone)),
        (damaged(gone, 11, 1), Reserved(MsgType::Gone)),
    ];
    for (i, (got, expected)) in cases.into_iter().enumerate() {
        assert_eq!(got, Err(expected), "case {i}");
    }
    let no_mss = Handoff {
        mss: 0,
        ..handoff()
    };
    let frame = encode(&no_mss.into());
    assert_eq!(decode(&frame), Err(Value(MsgType::Handoff, "mss")));
    let mut no_port = handoff();
    no_port.tuple.client.port = 0;
    let frame = encode(&no_port.into());
    assert_eq!(decode(&frame), Err(Value(MsgType::Handoff, "port")));
}

#[test]
fn what_is_too_long_is_not_sent() {
    let data = vec![b'x'; Handoff::MAX_DATA + 1];
    let mut out = vec![0; MAX_FRAME];
    let mut message = handoff();
    message.data = &data;
    assert_eq!(message.encode(&mut out), Err(EncodeError::TooLong));
    message.data = &data[1..];
    let len = message.encode(&mut out).unwrap();
    assert_eq!(decode(&out[..len]), Ok(message.into()));

    let caps = [CAPS[0]; 17];
    let mut message = hello();
    message.listeners = List::new(&caps);
    assert_eq!(message.encode(&mut out), Err(EncodeError::TooLong));
    message.listeners = List::new(&caps[1..]);
    assert!(message.encode(&mut out).is_ok());
    let vips = [VIPS[0]; 17];
    message.vips = List::new(&vips);
    assert_eq!(message.encode(&mut out), Err(EncodeError::TooLong));
    let tags = "x".repeat(256);
    let mut message = hello();
    message.tags = &tags;
    assert_eq!(message.encode(&mut out), Err(EncodeError::TooLong));

    let (key, tags, lines) = (" ".repeat(256), " ".repeat(1_025), " ".repeat(16_385));
    let longest = Service {
        key: &key[1..],
        tags: &tags[1..],
        lines: &lines[1..],
        mode: Mode::Pin,
        mechanism: Mechanism::Move,
        tells_idle: false,
    };
    let len = longest.encode(&mut out).unwrap();
    assert_eq!(decode(&out[..len]), Ok(longest.into()));
    for message in [
        Service {
            key: &key,
            ..service()
        },
        Service {
            tags: &tags,
            ..service()
        },
        Service {
            lines: &lines,
            ..service()
        },
    ] {
        assert_eq!(message.encode(&mut out), Err(EncodeError::TooLong));
    }
}

#[test]
fn names_are_plain() {
    for good in ["a", "node-1.example_2", &"x".repeat(63)] {
        assert_eq!(Name::new(good.as_bytes()).unwrap().as_str(), good);
    }
    for bad in ["", "a b", "a/b", "\u{e4}", "a\n", &"x".repeat(64)] {
        assert_eq!(Name::new(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn roles_print_as_the_command_line_spells_them() {
    let all = Roles::DISPATCHER
        .with(Roles::FRONT_END)
        .with(Roles::BACK_END);
    assert_eq!(all.to_string(), "D+FE+BE");
    assert_eq!(Roles::BACK_END.to_string(), "BE");
    assert_eq!(Roles::NONE.to_string(), "-");
    assert_eq!(Roles::from_bits(8), None);
    assert!(all.contains(Roles::FRONT_END));
    assert!(!Roles::BACK_END.contains(Roles::FRONT_END));
}

#[test]
fn the_framer_takes_a_stream_apart() {
    let mut stream = Vec::new();
    for message in all() {
        stream.extend_from_slice(&encode(&message));
    }
    let mut framer = Framer::new();
    let mut left = &stream[..];
    let mut seen = Vec::new();
    while !left.is_empty() {
        let (piece, rest) = left.split_at(framer.need());
        left = rest;
        seen.extend(framer.push(piece).unwrap());
    }
    assert_eq!(seen, all());
    assert_eq!(framer.need(), HEADER_LEN);
}

#[test]
fn nobody_is_heard_before_hello() {
    let mut framer = Framer::new();
    let frame = encode(&all()[1]);
    let error = framer.push(&frame[..HEADER_LEN]);
    assert_eq!(error, Err(DecodeError::NotIntroduced(MsgType::Ping)));
    let mut framer = Framer::new();
    let frame = encode(&hello().into());
    assert!(!framer.is_introduced());
    assert_eq!(framer.push(&frame[..HEADER_LEN]), Ok(None));
    assert_eq!(framer.need(), frame.len() - HEADER_LEN);
    assert_eq!(framer.push(&frame[HEADER_LEN..]), Ok(Some(hello().into())));
    assert!(framer.is_introduced());
}

#[test]
fn pieces_of_the_wrong_size_are_refused() {
    for len in [0, 7, 9] {
        assert!(Framer::new().push(&vec![1; len]).is_err());
    }
    let mut framer = Framer::new();
    let frame = encode(&hello().into());
    framer.push(&frame[..HEADER_LEN]).unwrap();
    let short = &frame[HEADER_LEN..frame.len() - 1];
    assert_eq!(framer.push(short), Err(DecodeError::Length(MsgType::Hello)));
}

#[test]
fn names_of_reasons_are_stable_and_distinct() {
    let refusals = Refusal::ALL.map(Refusal::name);
    assert_eq!(
        refusals,
        [
            "no-listener",
            "queue-full",
            "tuple-in-use",
            "syncookies-off",
            "mptcp-listener",
            "options",
            "expired",
            "not-allowed",
            "no-memory",
            "not-created",
        ]
    );
    for (i, reason) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(Refusal::from_u8(i as u8 + 1), Some(reason));
    }
    assert_eq!(Refusal::from_u8(0), None);
}
