// SPDX-License-Identifier: GPL-2.0

//! Random messages through the codec and back, alone and as a stream in random pieces.

use lard_core::addr::{Addr, ConnId, Endpoint, NodeId, Tuple};
use lard_core::follow::Mode;
use lard_core::policy::{Mechanism, NodeSet, Tags};
use lard_core::time::Instant;
use lard_core::wire::*;
use proptest::prelude::*;
use std::time::Duration;

fn addr() -> impl Strategy<Value = Addr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(Addr::from_v4),
        any::<[u8; 16]>().prop_map(Addr)
    ]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (addr(), 1u16..).prop_map(|(addr, port)| Endpoint::new(addr, port))
}

fn conn() -> impl Strategy<Value = ConnId> {
    any::<u64>().prop_map(ConnId::from_bits)
}

fn node() -> impl Strategy<Value = NodeId> {
    (1..=NodeId::MAX.0).prop_map(NodeId)
}

fn instant() -> impl Strategy<Value = Instant> {
    any::<u64>().prop_map(Instant::from_micros)
}

fn roles() -> impl Strategy<Value = Roles> {
    (0u8..8).prop_map(|bits| Roles::from_bits(bits).unwrap())
}

fn unit() -> impl Strategy<Value = TsUnit> {
    prop::sample::select(&[TsUnit::Millis, TsUnit::Micros])
}

fn caps() -> impl Strategy<Value = ListenerCaps> {
    let flags = any::<(bool, bool, bool)>();
    (addr(), any::<u16>(), any::<u32>(), 0u8..=14, flags).prop_map(
        |(addr, port, space, wscale, (sack, timestamps, scaling))| ListenerCaps {
            addr,
            port,
            space,
            wscale,
            sack,
            timestamps,
            scaling,
        },
    )
}

/// The parts of a HELLO that it borrows.
fn hello_parts() -> impl Strategy<Value = (Vec<ListenerCaps>, Vec<Endpoint>, String)> {
    (
        prop::collection::vec(caps(), 0..=Hello::MAX_LISTENERS),
        prop::collection::vec(endpoint(), 0..=Hello::MAX_VIPS),
        "[a-zA-Z0-9._-]{1,63}",
    )
}

/// A HANDOFF without its bytes.
fn handoff() -> impl Strategy<Value = Handoff<'static>> {
    (
        (conn(), endpoint(), endpoint(), any::<u32>(), any::<u32>()),
        (
            instant(),
            1u16..,
            any::<u16>(),
            any::<bool>(),
            (any::<bool>(), any::<bool>()),
        ),
        prop::option::of((0u8..=14, 0u8..=14)),
        prop::option::of((any::<u32>(), any::<u32>(), unit())),
    )
        .prop_map(
            |(ids, (expires, mss, window, sack, (fin, movable)), wscale, ts)| {
                let (conn, client, vip, irs, iss) = ids;
                Handoff {
                    conn,
                    tuple: Tuple::new(client, vip),
                    irs,
                    iss,
                    expires,
                    mss,
                    window,
                    wscale: wscale.map(|(snd, rcv)| WindowScale { snd, rcv }),
                    sack,
                    timestamps: ts.map(|(recent, sent, unit)| Timestamps { recent, sent, unit }),
                    fin,
                    movable,
                    data: &[],
                }
            },
        )
}

fn mechanism() -> impl Strategy<Value = Mechanism> {
    prop_oneof![Just(Mechanism::Move), Just(Mechanism::Forward)]
}

/// Any message that owns all it carries.
fn plain() -> impl Strategy<Value = Message<'static>> {
    let any32 = any::<u32>;
    prop_oneof![
        instant().prop_map(|sent| Ping { sent }.into()),
        (instant(), instant()).prop_map(|(sent, clock)| Pong { sent, clock }.into()),
        prop::sample::select(&ByeReason::ALL).prop_map(|reason| Bye { reason }.into()),
        (
            conn(),
            any::<u64>(),
            any::<u64>(),
            prop::option::of((node(), mechanism())),
            1u16..,
            any32()
        )
            .prop_map(|(conn, key, exclude, home, batch, tags)| {
                let (home, mechanism) = home.unzip();
                let exclude = NodeSet::from_bits(exclude);
                let tags = Tags(tags);
                Assign {
                    conn,
                    key,
                    exclude,
                    home,
                    mechanism: mechanism.unwrap_or_default(),
                    batch,
                    tags,
                }
                .into()
            }),
        (conn(), node(), any::<bool>()).prop_map(|(conn, node, is_idle)| {
            Idle {
                conn,
                node,
                is_idle,
            }
            .into()
        }),
        (conn(), prop::option::of(node()), prop::option::of(node()))
            .prop_map(|(conn, node, tag)| Assigned { conn, node, tag }.into()),
        (any32(), any32()).prop_map(|(active, disk_queue)| Load { active, disk_queue }.into()),
        (node(), roles(), any::<u16>(), addr(), any32()).prop_map(
            |(node, roles, weight, internal, tags)| {
                let tags = Tags(tags);
                NodeUp {
                    node,
                    roles,
                    weight,
                    internal,
                    tags,
                }
                .into()
            }
        ),
        (conn(), any32()).prop_map(|(conn, at_most_ms)| Wait { conn, at_most_ms }.into()),
        (conn(), prop::option::of(node())).prop_map(|(conn, node)| Admitted { conn, node }.into()),
        (node(), prop::sample::select(&DownReason::ALL)).prop_map(|(node, reason)| NodeDown {
            node,
            reason
        }
        .into()),
        node().prop_map(|node| Drain { node }.into()),
        conn().prop_map(|conn| Adopted { conn }.into()),
        (conn(), prop::sample::select(&Refusal::ALL), any::<bool>()).prop_map(
            |(conn, reason, client_reset)| {
                Refused {
                    conn,
                    reason,
                    client_reset,
                }
                .into()
            }
        ),
        (
            (conn(), node(), prop::sample::select(&HowClosed::ALL)),
            any::<u64>(),
            any::<u64>()
        )
            .prop_map(|((conn, node, how), bytes, us)| {
                let duration = Duration::from_micros(us);
                Closed {
                    conn,
                    node,
                    how,
                    bytes,
                    duration,
                }
                .into()
            }),
        (
            (conn(), endpoint(), endpoint()),
            (any32(), any32(), any32()),
            prop::option::of((1..=64u16).prop_map(NodeId))
        )
            .prop_map(
                |((conn, client, vip), (next, acked, requests), supplier)| Release {
                    conn,
                    tuple: Tuple::new(client, vip),
                    next,
                    acked,
                    requests,
                    supplier
                }
                .into()
            ),
        (
            conn(),
            any32(),
            any32(),
            prop::option::of((any32(), unit()))
        )
            .prop_map(|(conn, snd_nxt, rcv_nxt, tsval)| {
                Released {
                    conn,
                    snd_nxt,
                    rcv_nxt,
                    tsval,
                }
                .into()
            }),
        (conn(), prop::sample::select(&WhyBusy::ALL))
            .prop_map(|(conn, why)| Busy { conn, why }.into()),
        (conn(), endpoint(), endpoint()).prop_map(|(conn, client, vip)| {
            let tuple = Tuple::new(client, vip);
            Probe { conn, tuple }.into()
        }),
        (conn(), any::<bool>()).prop_map(|(conn, time_wait)| Gone { conn, time_wait }.into()),
    ]
}

fn encode(message: Message<'_>) -> Vec<u8> {
    let mut out = vec![0xa5; message.frame_len() + 3];
    let len = message.encode(&mut out).unwrap();
    assert_eq!(len, message.frame_len());
    assert_eq!(&out[len..], [0xa5; 3], "wrote beyond the frame");
    out.truncate(len);
    out
}

fn decode(frame: &[u8]) -> Result<Message<'_>, DecodeError> {
    let (header, body) = frame.split_first_chunk().unwrap();
    Message::decode(Header::decode(header)?, body)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn messages_return_unchanged(message in plain()) {
        let frame = encode(message);
        prop_assert_eq!(decode(&frame), Ok(message));
    }

    #[test]
    fn hellos_return_unchanged(
        (listeners, vips, name) in hello_parts(),
        (version, node, cluster, roles) in (1u16.., node(), any::<u64>(), roles()),
        tags in "(|[a-zA-Z0-9._-]{1,31}(,[a-zA-Z0-9._-]{1,31}){0,6})",
        (internal, fe_port, be_port) in (addr(), any::<u16>(), any::<u16>()),
    ) {
        let hello = Hello {
            version,
            node,
            cluster,
            roles,
            internal,
            fe_port,
            be_port,
            listeners: List::new(&listeners),
            vips: List::new(&vips),
            name: Name::new(name.as_bytes()).unwrap(),
            tags: &tags,
        };
        let frame = encode(hello.into());
        prop_assert_eq!(decode(&frame), Ok(hello.into()));
        // A list that came over the wire can be sent on as it is.
        let Ok(Message::Hello(received)) = decode(&frame) else { unreachable!() };
        prop_assert_eq!(received.listeners.iter().collect::<Vec<_>>(), listeners);
        prop_assert_eq!(received.vips.iter().collect::<Vec<_>>(), vips);
        prop_assert_eq!(encode(received.into()), frame);
    }

    #[test]
    fn handoffs_return_unchanged(
        handoff in handoff(),
        data in prop::collection::vec(any::<u8>(), 0..3_000),
    ) {
        let handoff = Handoff { data: &data, ..handoff };
        let frame = encode(handoff.into());
        prop_assert_eq!(decode(&frame), Ok(handoff.into()));
        let len = data.len() as u32 + u32::from(handoff.fin);
        prop_assert_eq!(handoff.rcv_nxt().wrapping_sub(handoff.irs), len + 1);
    }

    #[test]
    fn services_return_unchanged(
        (key, tags, lines) in (".{0,60}", ".{0,200}", "(.|\n){0,900}"),
        mode in prop::sample::select(&Mode::ALL),
        mechanism in mechanism(),
        tells_idle in any::<bool>(),
    ) {
        let service = Service { key: &key, tags: &tags, lines: &lines, mode, mechanism, tells_idle };
        let frame = encode(service.into());
        prop_assert_eq!(decode(&frame), Ok(service.into()));
    }

    #[test]
    fn a_stream_of_messages_is_taken_apart_again(
        messages in prop::collection::vec(plain(), 1..20),
        (_, _, name) in hello_parts(),
    ) {
        let hello = Hello {
            version: 1,
            node: NodeId(1),
            cluster: 1,
            roles: Roles::NONE,
            internal: Addr::UNSPECIFIED,
            fe_port: 0,
            be_port: 0,
            listeners: List::default(),
            vips: List::default(),
            name: Name::new(name.as_bytes()).unwrap(),
            tags: "",
        };
        let mut stream = encode(hello.into());
        stream.extend(messages.iter().flat_map(|m| encode(*m)));
        let mut framer = Framer::new();
        let mut seen = Vec::new();
        let mut left = &stream[..];
        while !left.is_empty() {
            let (piece, rest) = left.split_at(framer.need());
            left = rest;
            seen.extend(framer.push(piece).unwrap());
        }
        prop_assert_eq!(seen.remove(0), hello.into());
        prop_assert_eq!(seen, messages);
    }

    /// One byte of the body changed: either it is refused, or it decodes to something that encodes to
    /// the changed bytes.
    #[test]
    fn damaged_messages_have_one_reading_or_none(
        message in plain(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let mut frame = encode(message);
        let at = at.index(frame.len());
        frame[at] = to;
        if let Ok(message) = decode(&frame) {
            prop_assert_eq!(encode(message), frame);
        }
    }
}
