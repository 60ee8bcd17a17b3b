// SPDX-License-Identifier: GPL-2.0

//! How the responder lets go of a connection: the client's FIN, the hand-off, the timers, its own replies.

mod common;

use common::*;
use core::time::Duration;
use lard_core::tcp::{Action, Config, Flags, Head, Output, Reason, Responder, Segment, Status};

const ACK: Flags = Flags::ACK;
const FIN_ACK: Flags = Flags::FIN.with(Flags::ACK);
const RST_ACK: Flags = Flags::RST.with(Flags::ACK);

fn drop(reason: Reason) -> Action {
    Action::Drop(reason)
}

// FIN

#[test]
fn a_fin_before_any_data_closes_both_ways() {
    let mut p = Pair::established();
    let fin = p.client(0, FIN_ACK, 0);
    let out = p.on(&fin);
    let s = out.send.unwrap();
    assert_eq!((s.flags, s.ack, s.payload), (FIN_ACK, IRS.add(2), &[][..]));
    assert_eq!(out.action, Action::Done);
    let last = segment(IRS.add(2), s.seq.add(1), ACK, 0);
    assert_eq!(p.on(&last).action, Action::Delete(Reason::NoRequest));
}

#[test]
fn a_fin_in_an_incomplete_head_is_a_bad_request() {
    for together in [true, false] {
        let mut p = Pair::established();
        let out = if together {
            let data = p.client(0, FIN_ACK, 10);
            p.on_stored(&data, Head::Partial)
        } else {
            let data = p.client(0, ACK, 10);
            let _ = p.on_stored(&data, Head::Partial);
            let fin = p.client(10, FIN_ACK, 0);
            p.on(&fin)
        };
        let s = out.send.unwrap();
        assert_eq!(
            (s.payload, s.ack),
            (Status::BadRequest.bytes(), IRS.add(12))
        );
        let end = s.seq.add(s.payload.len() as u32).add(1);
        let last = segment(IRS.add(12), end, ACK, 0);
        assert_eq!(p.on(&last).action, Action::Delete(Reason::ReplyDelivered));
    }
}

#[test]
fn a_fin_with_the_complete_head_is_handed_over() {
    let mut p = Pair::established();
    let data = p.client(0, FIN_ACK, 10);
    let out = p.on_stored(&data, Head::Complete);
    assert_eq!(
        out,
        Output {
            send: None,
            action: Action::HandOff { queue: false }
        }
    );
    let snap = p.r.snapshot(&p.cfg, p.now).unwrap();
    assert!(snap.fin);
    assert_eq!((snap.rcv_nxt, snap.len()), (IRS.add(12), 10));
}

#[test]
fn a_fin_after_the_complete_head_is_queued() {
    let mut p = Pair::waiting(10);
    let fin = p.client(10, FIN_ACK, 0);
    assert_eq!(
        p.on(&fin),
        Output {
            send: None,
            action: Action::Queue
        }
    );
    assert!(!p.r.snapshot(&p.cfg, p.now).unwrap().fin);
}

#[test]
fn a_fin_beyond_the_stored_part_is_not_consumed() {
    let mut p = Pair::established();
    let long = p.client(0, FIN_ACK, p.cfg.head_limit + 1);
    let out = p.on_stored(&long, Head::Complete);
    assert_eq!(out.action, Action::HandOff { queue: true });
    assert!(!p.r.snapshot(&p.cfg, p.now).unwrap().fin);
}

// The hand-off

#[test]
fn the_snapshot_carries_everything_negotiated() {
    let mut p = Pair::half_open();
    let data = with_ts(p.client(0, ACK, 300), 1_500);
    let _ = p.on_stored(&data, Head::Complete);
    let snap = p.r.snapshot(&p.cfg, p.now).unwrap();
    assert_eq!((snap.irs, snap.iss), (IRS, p.syn_ack.seq));
    assert_eq!(
        (snap.snd_nxt, snap.rcv_nxt),
        (snap.iss.add(1), IRS.add(301))
    );
    assert_eq!((snap.mss, snap.snd_wscale, snap.rcv_wscale), (1_460, 8, 7));
    assert!(snap.wscale_ok && snap.sack_ok && snap.ts_ok && !snap.fin && !snap.is_empty());
    assert_eq!(snap.ts_recent, 1_500);
    assert_eq!(Some(snap.last_tsval), p.syn_ack.options.ts.map(|ts| ts.val));
    assert_eq!(snap.window, W);
}

#[test]
fn there_is_no_snapshot_before_the_head_is_complete_or_after_a_reply() {
    assert_eq!(
        Pair::half_open().r.snapshot(&Config::default(), start()),
        None
    );
    assert_eq!(
        Pair::established().r.snapshot(&Config::default(), start()),
        None
    );
    assert_eq!(
        Pair::replying().0.r.snapshot(&Config::default(), start()),
        None
    );
}

#[test]
fn after_a_refusal_there_is_another_snapshot_or_a_reply() {
    let mut p = Pair::waiting(10);
    let first = p.r.snapshot(&p.cfg, p.now).unwrap();
    p.r.refused();
    assert_eq!(p.r.snapshot(&p.cfg, p.now), Some(first));
    p.r.refused();
    let out = p.r.fail(Status::ServiceUnavailable, p.now);
    assert_eq!(
        out.send.unwrap().payload,
        Status::ServiceUnavailable.bytes()
    );
    assert!(p.r.is_closing());
}

#[test]
fn the_window_a_back_end_has_opened_counts_as_soon_as_it_may_have() {
    let mut p = Pair::waiting(10);
    let w0 = p.cfg.window(1_460).size;
    let far = p.client(w0 + 5_000, ACK, 100);
    let rst = p.client(w0 + 5_000, Flags::RST, 0);
    assert_eq!(p.on(&far).action, drop(Reason::BeyondWindow));
    assert_eq!(p.on(&rst).action, drop(Reason::RstOutOfWindow));
    let _ = p.r.snapshot(&p.cfg, p.now);
    for seg in [far, rst] {
        assert_eq!(
            p.on(&seg),
            Output {
                send: None,
                action: Action::Queue
            }
        );
    }
}

#[test]
fn a_window_update_reaches_the_back_end() {
    let mut p = Pair::waiting(10);
    let update = Segment {
        window: 7,
        ..p.client(10, ACK, 0)
    };
    assert_eq!(
        p.on(&update),
        Output {
            send: None,
            action: Action::Done
        }
    );
    assert_eq!(p.r.snapshot(&p.cfg, p.now).unwrap().window, 7);
    assert_eq!(
        p.on(&update),
        Output {
            send: None,
            action: Action::Queue
        }
    );
}

// Timers

#[test]
fn every_state_ends_in_time() {
    let mut p = Pair::half_open();
    assert_eq!(
        p.r.on_timer(&p.cfg, p.now),
        Output {
            send: None,
            action: Action::Done
        }
    );
    assert_eq!(p.timer().action, Action::Delete(Reason::HalfOpenExpired));

    let mut p = Pair::established();
    let s = p.timer().send.unwrap();
    assert_eq!(
        (s.flags, s.payload),
        (FIN_ACK, &[][..]),
        "silence is answered with silence"
    );

    let mut p = Pair::established();
    let data = p.client(0, ACK, 10);
    let _ = p.on_stored(&data, Head::Partial);
    assert_eq!(
        p.timer().send.unwrap().payload,
        Status::RequestTimeout.bytes()
    );

    let mut p = Pair::waiting(10);
    assert_eq!(
        p.timer().send.unwrap().payload,
        Status::ServiceUnavailable.bytes()
    );

    let mut p = Pair::waiting(10);
    let later = p.r.deadline().saturating_add(Duration::from_secs(60));
    p.r.wait_until(later);
    assert_eq!(p.r.deadline(), later, "it may wait for longer");
    let _ = p.r.snapshot(&p.cfg, p.now);
    let deadline = p.r.deadline();
    p.r.wait_until(later);
    assert_eq!(p.r.deadline(), deadline, "a hand-off is not waited for");

    let mut p = Pair::waiting(10);
    let _ = p.r.snapshot(&p.cfg, p.now);
    let out = p.timer();
    assert_eq!(out.action, Action::Delete(Reason::HandoffSilent));
    let s = out.send.unwrap();
    assert_eq!((s.flags, s.seq), (RST_ACK, p.syn_ack.seq.add(1)));
    assert_eq!(s.ack, IRS.add(1), "even the reset acknowledges nothing new");
}

#[test]
fn a_silent_client_has_more_time_than_a_handshake() {
    let p = Pair::established();
    assert_eq!(p.r.deadline(), p.now.saturating_add(p.cfg.idle_timeout));
}

#[test]
fn a_dripping_head_has_one_deadline() {
    let mut p = Pair::established();
    let data = p.client(0, ACK, 1);
    let _ = p.on_stored(&data, Head::Partial);
    let deadline = p.r.deadline();
    for i in 1..5 {
        p.wait_ms(5_000);
        let data = p.client(i, ACK, 1);
        let _ = p.on_stored(&data, Head::Partial);
        assert_eq!(p.r.deadline(), deadline);
    }
}

#[test]
fn the_back_end_has_its_whole_time() {
    let mut p = Pair::waiting(10);
    p.wait_ms(4_900);
    let _ = p.r.snapshot(&p.cfg, p.now);
    assert_eq!(p.r.deadline(), p.now.saturating_add(p.cfg.handoff_timeout));
}

// Own replies

#[test]
fn a_reply_is_sent_until_it_is_acknowledged() {
    let (mut p, first) = Pair::replying();
    for wait in [1, 2, 4, 8] {
        let before = p.now;
        let out = p.timer();
        assert_eq!(p.now.saturating_since(before).as_secs(), wait);
        let s = out.send.unwrap();
        assert_eq!(
            (s.seq, s.flags, s.payload),
            (first.seq, first.flags, first.payload)
        );
    }
    assert_eq!(p.timer().action, Action::Delete(Reason::ReplyUnacked));
}

#[test]
fn late_data_is_acknowledged_and_forgotten_until_the_client_closes() {
    let (mut p, s) = Pair::replying();
    let end = s.seq.add(s.payload.len() as u32).add(1);
    for i in 0..50u32 {
        let data = p.client(10 + i * 1_400, ACK, 1_400);
        let out = p.on(&data);
        assert_ack(&p, out.send, 10 + (i + 1) * 1_400);
        assert_eq!(out.action, Action::Done);
    }
    let sent = 10 + 50 * 1_400;
    let ack = Segment {
        ack: end,
        ..p.client(sent, ACK, 0)
    };
    assert_eq!(p.on(&ack).action, Action::Done);
    let fin = Segment {
        ack: end,
        ..p.client(sent, FIN_ACK, 0)
    };
    let out = p.on(&fin);
    assert_ack(&p, out.send, sent + 1);
    let out = p.on(&fin);
    assert_ack(&p, out.send, sent + 1);
    assert_eq!(p.r.deadline().saturating_since(p.now).as_secs(), 60);
    assert_eq!(p.timer().action, Action::Delete(Reason::ReplyDelivered));
}

#[test]
fn a_client_that_never_closes_is_reset_after_it_had_its_time() {
    let (mut p, s) = Pair::replying();
    let end = s.seq.add(s.payload.len() as u32).add(1);
    let ack = Segment {
        ack: end,
        ..p.client(10, ACK, 0)
    };
    let _ = p.on(&ack);
    assert_eq!(p.r.deadline().saturating_since(p.now).as_secs(), 5);
    assert_eq!(
        p.timer(),
        Output {
            send: None,
            action: Action::Done
        }
    );
    let more = Segment {
        ack: end,
        ..p.client(10, ACK, 100)
    };
    let out = p.on(&more);
    assert_eq!(out.action, Action::Delete(Reason::LateData));
    assert_eq!(
        (out.send.unwrap().flags, out.send.unwrap().seq),
        (RST_ACK, end)
    );
}

#[test]
fn late_data_beyond_the_window_is_not_acknowledged() {
    let (mut p, _) = Pair::replying();
    let w0 = p.cfg.window(1_460).size;
    let data = p.client(10, FIN_ACK, w0 + 500);
    let out = p.on(&data);
    assert_ack(&p, out.send, 10 + w0);
    assert_eq!(out.action, Action::Done);
}

#[test]
fn a_reply_is_sent_on_after_the_client_has_closed() {
    let (mut p, first) = Pair::replying();
    p.cfg.time_wait = Duration::from_secs(7);
    let fin = p.client(10, FIN_ACK, 0);
    let out = p.on(&fin);
    assert_ack(&p, out.send, 11);
    let again = p.timer().send.unwrap();
    assert_eq!((again.seq, again.payload), (first.seq, first.payload));
    assert_eq!(again.ack, IRS.add(12));
    let end = first.seq.add(first.payload.len() as u32).add(1);
    let ack = Segment {
        ack: end,
        ..p.client(11, ACK, 0)
    };
    assert_eq!(p.on(&ack).action, Action::Done);
    // The service's parameter, because it is less than twice the segment lifetime.
    assert_eq!(p.r.deadline().saturating_since(p.now).as_secs(), 7);
}

#[test]
fn a_reply_can_be_reset() {
    let (mut p, _) = Pair::replying();
    let rst = p.client(10, Flags::RST, 0);
    assert_eq!(p.on(&rst).action, Action::Delete(Reason::ClientReset));
}

#[test]
fn an_ended_connection_makes_room_for_its_successor() {
    let (mut p, s) = Pair::replying();
    let end = s.seq.add(s.payload.len() as u32).add(1);
    let fin = Segment {
        ack: end,
        ..p.client(10, FIN_ACK, 0)
    };
    let _ = p.on(&fin);
    let min_iss = end.add(65_537);
    let next = Segment {
        seq: IRS.add(100_000),
        ..syn()
    };
    assert_eq!(
        p.on(&next),
        Output {
            send: None,
            action: Action::Restart { min_iss }
        }
    );
    let newer = with_ts(
        Segment {
            seq: IRS.sub(100),
            ..syn()
        },
        9_000,
    );
    assert_eq!(
        p.on(&newer),
        Output {
            send: None,
            action: Action::Restart { min_iss }
        }
    );
    let old = with_ts(
        Segment {
            seq: IRS.sub(100),
            ..syn()
        },
        900,
    );
    assert_eq!(p.on(&old).action, drop(Reason::SynInConnection));
    let rst = p.client(11, Flags::RST, 0);
    assert_eq!(
        p.on(&rst),
        Output {
            send: None,
            action: drop(Reason::AfterEnd)
        }
    );
}

#[test]
fn failing_is_right_in_every_state() {
    let mut p = Pair::half_open();
    let out = p.r.fail(Status::ServiceUnavailable, p.now);
    assert_eq!(
        (out.send.unwrap().flags, out.action),
        (RST_ACK, Action::Delete(Reason::HalfOpenExpired))
    );
    let mut p = Pair::established();
    assert!(p.r.fail(Status::ServiceUnavailable, p.now).send.is_some());
    let mut p = Pair::replying().0;
    assert_eq!(
        p.r.fail(Status::ServiceUnavailable, p.now),
        Output {
            send: None,
            action: Action::Done
        }
    );
}

#[test]
fn the_state_is_small() {
    assert!(size_of::<Responder>() <= 160, "{}", size_of::<Responder>());
    assert!(size_of::<lard_core::tcp::Forwarding>() <= 48);
    assert!(size_of::<Segment>() <= 64, "{}", size_of::<Segment>());
}
