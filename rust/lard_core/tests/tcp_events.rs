// SPDX-License-Identifier: GPL-2.0

//! One test for each event the responder can meet, in the order of the table in the design notes.

mod common;

use common::*;
use lard_core::tcp::{
    Action, Config, Flags, Head, Options, Output, Reason, Responder, Segment, Seq, Status,
    Timestamp,
};

const ACK: Flags = Flags::ACK;
const FIN_ACK: Flags = Flags::FIN.with(Flags::ACK);
const RST_ACK: Flags = Flags::RST.with(Flags::ACK);

fn drop(reason: Reason) -> Action {
    Action::Drop(reason)
}

// SYN, new

#[test]
fn a_syn_is_answered_with_what_both_sides_can() {
    let p = Pair::half_open();
    let s = p.syn_ack;
    assert_eq!((s.flags, s.ack), (Flags::SYN.with(ACK), IRS.add(1)));
    assert_eq!(s.options.mss, Some(1_460));
    assert_eq!(s.options.wscale, Some(7));
    assert!(s.options.sack_perm);
    assert_eq!(s.options.ts.map(|ts| ts.ecr), Some(1_000));
    assert_eq!(u32::from(s.window), p.cfg.window(1_460).size);
    assert!(p.r.is_half_open());
}

#[test]
fn options_the_client_does_not_offer_are_not_used() {
    let plain = Segment {
        options: Options::default(),
        ..syn()
    };
    let mut p = Pair::open(Config::default(), &plain);
    assert_eq!(
        p.syn_ack.options,
        Options {
            mss: Some(1_460),
            ..Options::default()
        }
    );
    let data = p.client(0, ACK, 5);
    let _ = p.on_stored(&data, Head::Complete);
    let snap = p.r.snapshot(&p.cfg, p.now).unwrap();
    assert!(!snap.wscale_ok && !snap.sack_ok && !snap.ts_ok);
    assert_eq!((snap.mss, snap.snd_wscale, snap.rcv_wscale), (536, 0, 0));
    assert_eq!((snap.ts_recent, snap.last_tsval), (0, 0));
}

#[test]
fn options_a_back_end_cannot_do_are_not_offered() {
    let cfg = Config {
        wscale: None,
        sack: false,
        timestamps: false,
        ..Config::default()
    };
    let p = Pair::open(cfg, &syn());
    assert_eq!(
        p.syn_ack.options,
        Options {
            mss: Some(1_460),
            ..Options::default()
        }
    );
}

#[test]
fn a_syn_with_a_signature_or_odd_flags_is_dropped() {
    let open = |seg: &Segment| {
        Responder::open(&Config::default(), &secret(), &tuple(), seg, None, start())
    };
    let mut signed = syn();
    signed.options.md5_or_ao = true;
    assert_eq!(open(&signed).err(), Some(Reason::Signed));
    for extra in [Flags::FIN, Flags::RST, Flags::ACK] {
        let odd = Segment {
            flags: Flags::SYN.with(extra),
            ..syn()
        };
        assert_eq!(open(&odd).err(), Some(Reason::BadFlags));
    }
    let ecn = Segment {
        flags: Flags(0xc2),
        ..syn()
    };
    assert_eq!(
        open(&ecn).unwrap().1.flags,
        Flags::SYN.with(ACK),
        "no ECN is agreed to"
    );
}

#[test]
fn data_on_a_syn_is_ignored() {
    let with_data = Segment {
        payload_len: 100,
        ..syn()
    };
    let p = Pair::open(Config::default(), &with_data);
    assert_eq!(p.syn_ack.ack, IRS.add(1));
    assert_eq!(p.r.received(), 0);
}

#[test]
fn the_predecessor_raises_the_initial_sequence_number() {
    let free = Pair::half_open().syn_ack.seq;
    let min = free.add(1 << 20);
    let cfg = Config::default();
    let (_, s) = Responder::open(&cfg, &secret(), &tuple(), &syn(), Some(min), start()).unwrap();
    assert_eq!(s.seq, min);
}

// SYN again

#[test]
fn the_same_syn_gets_the_same_answer_with_the_newest_timestamp() {
    let mut p = Pair::half_open();
    p.wait_ms(1_000);
    let mut again = syn();
    again.options.ts = Some(Timestamp { val: 2_000, ecr: 0 });
    let out = p.on(&again);
    let s = out.send.unwrap();
    assert_eq!(out.action, Action::Done);
    assert_eq!(
        (s.seq, s.ack, s.window),
        (p.syn_ack.seq, p.syn_ack.ack, p.syn_ack.window)
    );
    let (old, new) = (p.syn_ack.options.ts.unwrap(), s.options.ts.unwrap());
    assert_eq!((new.ecr, new.val), (2_000, old.val.wrapping_add(1_000)));
    assert!(p.r.is_half_open());
}

#[test]
fn another_syn_on_a_half_open_connection_is_challenged_with_restraint() {
    let mut p = Pair::half_open();
    let other = Segment {
        seq: IRS.add(77),
        ..syn()
    };
    let out = p.on(&other);
    assert_ack(&p, out.send, 0);
    assert_eq!(out.action, drop(Reason::SynConflict));
    assert_eq!(
        p.on(&other),
        Output {
            send: None,
            action: drop(Reason::SynConflict)
        }
    );
    // The crashed client answers the challenge with a reset at the number it acknowledged.
    let rst = segment(IRS.add(1), Seq(0), Flags::RST, 0);
    assert_eq!(p.on(&rst).action, Action::Delete(Reason::ClientReset));
}

// The third segment

#[test]
fn a_wrong_acknowledgement_in_half_open_state_is_reset_and_the_entry_kept() {
    let mut p = Pair::half_open();
    let bad = Segment {
        ack: p.syn_ack.seq.add(9),
        ..p.client(0, ACK, 0)
    };
    let out = p.on(&bad);
    let s = out.send.unwrap();
    assert_eq!((s.flags, s.seq), (Flags::RST, bad.ack));
    assert_eq!(out.action, drop(Reason::WrongAck));
    assert!(p.r.is_half_open());
    let rst = Segment {
        ack: bad.ack,
        ..p.client(3, RST_ACK, 0)
    };
    assert!(
        p.on(&rst).send.is_none_or(|s| s.flags == ACK),
        "a reset is never reset"
    );
}

#[test]
fn data_in_the_third_segment_is_taken() {
    let mut p = Pair::half_open();
    let data = p.client(0, ACK, 30);
    let out = p.on_stored(&data, Head::Partial);
    assert_ack(&p, out.send, 30);
    assert!(!p.r.is_half_open());
}

// Data

#[test]
fn data_in_order_is_acknowledged_at_once_while_the_head_is_incomplete() {
    let mut p = Pair::established();
    let w0 = p.cfg.window(1_460).size;
    for i in 0..4u32 {
        let data = p.client(i * 1_000, ACK, 1_000);
        let part = p.accept(&data);
        assert_eq!(
            (part.offset(), part.len(), part.position()),
            (0, 1_000, i * 1_000)
        );
        let out = p.r.stored(&p.cfg, part, Head::Partial, p.now);
        assert_ack(&p, out.send, (i + 1) * 1_000);
        // The right edge stays where it was, but for what the scale cannot express.
        let edge = (i + 1) * 1_000 + (u32::from(out.send.unwrap().window) << 7);
        assert!(edge <= w0 && w0 - edge < 128, "edge {edge}, W0 {w0}");
    }
}

#[test]
fn the_completing_segment_is_not_acknowledged() {
    let mut p = Pair::waiting(400);
    assert!(p.r.is_waiting());
    assert_eq!(p.r.received(), 400);
    let again = p.client(0, ACK, 400);
    assert_eq!(
        p.on(&again),
        Output {
            send: None,
            action: drop(Reason::StaleWhileWaiting)
        }
    );
    let next = p.client(400, ACK, 100);
    assert_eq!(
        p.on(&next),
        Output {
            send: None,
            action: Action::Queue
        }
    );
    let overlapping = p.client(0, ACK, 500);
    assert_eq!(
        p.on(&overlapping),
        Output {
            send: None,
            action: Action::Queue
        }
    );
}

#[test]
fn what_is_queued_is_checked_too() {
    let mut p = Pair::waiting(10);
    for (seg, reason) in [
        (
            Segment {
                ack: p.syn_ack.seq,
                ..p.client(10, ACK, 5)
            },
            Reason::UnacceptableAck,
        ),
        (p.client(10, Flags::FIN, 5), Reason::NoAck),
    ] {
        assert_eq!(
            p.on(&seg),
            Output {
                send: None,
                action: drop(reason)
            }
        );
    }
}

#[test]
fn a_part_that_is_not_reported_never_arrived() {
    let mut p = Pair::established();
    let data = p.client(0, ACK, 100);
    let _ = p.accept(&data);
    assert_eq!(p.r.received(), 0);
    let part = p.accept(&data);
    assert_eq!((part.position(), part.len()), (0, 100));
}

#[test]
fn a_part_reported_twice_counts_once() {
    let mut p = Pair::established();
    let data = p.client(0, ACK, 100);
    let (first, second) = (p.accept(&data), p.accept(&data));
    let _ = p.r.stored(&p.cfg, first, Head::Partial, p.now);
    let out = p.r.stored(&p.cfg, second, Head::Partial, p.now);
    assert_eq!(
        out,
        Output {
            send: None,
            action: drop(Reason::AfterEnd)
        }
    );
    assert_eq!(p.r.received(), 100);
}

#[test]
fn data_beyond_a_gap_is_dropped_and_answered_each_time() {
    let mut p = Pair::established();
    for _ in 0..3 {
        let data = p.client(10, ACK, 100);
        let out = p.on(&data);
        assert_ack(&p, out.send, 0);
        assert_eq!(out.action, drop(Reason::OutOfOrder));
    }
}

#[test]
fn of_an_overlap_only_the_new_part_is_stored() {
    let mut p = Pair::established();
    let data = p.client(0, ACK, 100);
    let _ = p.on_stored(&data, Head::Partial);
    let data = p.client(40, ACK, 100);
    let part = p.accept(&data);
    assert_eq!((part.offset(), part.len(), part.position()), (60, 40, 100));
}

#[test]
fn old_data_and_keep_alive_probes_are_answered() {
    let mut p = Pair::established();
    let data = p.client(0, ACK, 100);
    let _ = p.on_stored(&data, Head::Partial);
    let out = p.on(&data);
    assert_ack(&p, out.send, 100);
    assert_eq!(out.action, drop(Reason::Duplicate));
    let probe = p.client(99, ACK, 0);
    let out = p.on(&probe);
    assert_ack(&p, out.send, 100);
    assert_eq!(p.on(&probe).send, None, "probes in a hurry are not");
    let mut w = Pair::waiting(100);
    let probe = w.client(99, ACK, 0);
    assert_eq!(
        w.on(&probe),
        Output {
            send: None,
            action: drop(Reason::StaleWhileWaiting)
        }
    );
}

#[test]
fn data_beyond_the_limit_is_cut_off() {
    let mut p = Pair::established();
    let limit = p.cfg.head_limit;
    let long = p.client(0, ACK, limit + 5_000);
    let part = p.accept(&long);
    assert_eq!(part.len(), limit);
    let out = p.r.stored(&p.cfg, part, Head::Complete, p.now);
    assert_eq!(
        out,
        Output {
            send: None,
            action: Action::HandOff { queue: true }
        }
    );
    assert_eq!(p.r.snapshot(&p.cfg, p.now).unwrap().len(), limit);
}

#[test]
fn data_wholly_beyond_the_window_is_answered_only() {
    let mut p = Pair::established();
    let w0 = p.cfg.window(1_460).size;
    for (offset, action) in [(w0, Reason::BeyondWindow), (w0 - 1, Reason::OutOfOrder)] {
        let data = p.client(offset, ACK, 100);
        let out = p.on(&data);
        assert_ack(&p, out.send, 0);
        assert_eq!(out.action, drop(action));
    }
    let mut w = Pair::waiting(10);
    let data = w.client(w0 + 1, ACK, 100);
    assert_eq!(
        w.on(&data),
        Output {
            send: None,
            action: drop(Reason::BeyondWindow)
        }
    );
}

#[test]
fn an_endless_head_is_refused() {
    let mut p = Pair::established();
    let data = p.client(0, ACK, p.cfg.head_limit);
    let out = p.on_stored(&data, Head::Partial);
    let s = out.send.unwrap();
    assert_eq!(s.payload, Status::HeaderFieldsTooLarge.bytes());
    assert!(s.flags.contains(FIN_ACK));
}

#[test]
fn urgent_data_is_data() {
    let mut p = Pair::established();
    let data = p.client(0, ACK.with(Flags::URG), 10);
    assert_eq!(p.accept(&data).len(), 10);
}

#[test]
fn segments_without_ack_or_with_a_wrong_one_are_dropped() {
    let mut p = Pair::established();
    let fin = p.client(0, Flags::FIN, 0);
    assert_eq!(
        p.on(&fin),
        Output {
            send: None,
            action: drop(Reason::NoAck)
        }
    );
    for ack in [p.syn_ack.seq, p.syn_ack.seq.add(2)] {
        let data = Segment {
            ack,
            ..p.client(0, ACK, 10)
        };
        let out = p.on(&data);
        assert_ack(&p, out.send, 0);
        assert_eq!(out.action, drop(Reason::UnacceptableAck));
    }
    let odd = p.client(0, Flags(0), 10);
    assert_eq!(p.on(&odd).action, drop(Reason::BadFlags));
}

// RST

#[test]
fn only_a_reset_at_the_left_edge_resets() {
    let mut p = Pair::established();
    let inside = p.client(1, Flags::RST, 0);
    let out = p.on(&inside);
    assert_ack(&p, out.send, 0);
    assert_eq!(out.action, drop(Reason::RstInWindow));
    let w0 = p.cfg.window(1_460).size;
    for outside in [w0 + 1, u32::MAX] {
        let rst = p.client(outside, Flags::RST, 0);
        assert_eq!(
            p.on(&rst),
            Output {
                send: None,
                action: drop(Reason::RstOutOfWindow)
            }
        );
    }
    for flags in [Flags::RST, RST_ACK] {
        let mut copy = p.r;
        let rst = Segment {
            ack: Seq(4),
            ..p.client(0, flags, 0)
        };
        let out = copy.on_segment(&p.cfg, &rst, p.now);
        assert_eq!(
            out,
            Output {
                send: None,
                action: Action::Delete(Reason::ClientReset)
            }
        );
    }
}

#[test]
fn a_reset_while_waiting_ends_the_connection_until_somebody_else_has_it() {
    let mut p = Pair::waiting(50);
    // The client has seen no acknowledgement of its fifty bytes.
    for offset in [0, 50] {
        let rst = p.client(offset, Flags::RST, 0);
        let out = p.r.clone().on_segment(&p.cfg, &rst, p.now);
        assert_eq!(out.action, Action::Delete(Reason::ClientReset));
    }
    let inside = p.client(60, Flags::RST, 0);
    assert_eq!(
        p.on(&inside),
        Output {
            send: None,
            action: Action::Queue
        }
    );
    let _ = p.r.snapshot(&p.cfg, p.now);
    let rst = p.client(50, Flags::RST, 0);
    assert_eq!(
        p.on(&rst),
        Output {
            send: None,
            action: Action::Queue
        }
    );
    let far = p.client(u32::MAX / 2, Flags::RST, 0);
    assert_eq!(
        p.on(&far),
        Output {
            send: None,
            action: drop(Reason::RstOutOfWindow)
        }
    );
}

#[test]
fn acknowledgements_of_the_reply_wait_for_the_news_of_the_adoption() {
    let mut p = Pair::waiting(50);
    let early = |p: &Pair, offset| {
        let seg = p.client(offset, ACK, 0);
        Segment {
            ack: seg.ack.add(1_000),
            ..seg
        }
    };
    // Nobody can have sent what this acknowledges.
    let seg = early(&p, 50);
    assert_eq!(p.on(&seg).action, drop(Reason::UnacceptableAck));
    let _ = p.r.snapshot(&p.cfg, p.now);
    // The second one comes behind a segment that waits, too.
    for offset in [50, 90] {
        let seg = early(&p, offset);
        assert_eq!(p.on(&seg).action, Action::Queue);
    }
}

// SYN in a synchronised connection

#[test]
fn a_syn_in_a_connection_is_challenged_and_while_waiting_ignored() {
    let mut p = Pair::established();
    for offset in [u32::MAX, 0, 500] {
        let s = Segment {
            ack: Seq(0),
            ..p.client(offset, Flags::SYN, 0)
        };
        let out = p.on(&s);
        assert_ack(&p, out.send, 0);
        assert_eq!(out.action, drop(Reason::SynInConnection));
        p.wait_ms(500);
    }
    let mut w = Pair::waiting(5);
    let s = Segment {
        ack: Seq(0),
        ..w.client(u32::MAX, Flags::SYN, 0)
    };
    assert_eq!(
        w.on(&s),
        Output {
            send: None,
            action: drop(Reason::SynInConnection)
        }
    );
}

// PAWS

#[test]
fn old_timestamps_are_answered_and_dropped_but_for_resets() {
    let mut p = Pair::established();
    let data = with_ts(p.client(0, ACK, 10), 999);
    let out = p.on(&data);
    assert_ack(&p, out.send, 0);
    assert_eq!(out.action, drop(Reason::Paws));
    let rst = with_ts(p.client(0, Flags::RST, 0), 999);
    assert_eq!(p.on(&rst).action, Action::Delete(Reason::ClientReset));
}

#[test]
fn the_echoed_timestamp_is_that_of_the_segment_acknowledged() {
    let mut p = Pair::established();
    let gap = with_ts(p.client(10, ACK, 10), 3_000);
    assert_eq!(
        p.on(&gap).send.unwrap().options.ts.unwrap().ecr,
        1_000,
        "beyond a gap: not taken"
    );
    let data = with_ts(p.client(0, ACK, 10), 2_000);
    let out = p.on_stored(&data, Head::Partial);
    assert_eq!(out.send.unwrap().options.ts.unwrap().ecr, 2_000);
    let bare = p.client(10, ACK, 10);
    assert_eq!(
        p.accept(&bare).len(),
        10,
        "a missing timestamp is no offence"
    );
}
