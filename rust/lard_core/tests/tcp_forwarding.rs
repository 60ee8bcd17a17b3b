// SPDX-License-Identifier: GPL-2.0

//! Forwarded connections: when they may be forgotten, and who gets the tuple next.

mod common;

use common::*;
use core::time::Duration;
use lard_core::tcp::{
    Config, Ended, Flags, Forwarding, OnSyn, Options, Segment, Seq, Snapshot, Timestamp,
};
use lard_core::time::Instant;
use proptest::prelude::*;

const ACK: Flags = Flags::ACK;
const FIN_ACK: Flags = Flags::FIN.with(Flags::ACK);
const ISS: Seq = Seq(5_000);

fn snapshot() -> Snapshot {
    Snapshot {
        irs: IRS,
        iss: ISS,
        snd_nxt: ISS.add(1),
        rcv_nxt: IRS.add(101),
        mss: 1_460,
        snd_wscale: 8,
        rcv_wscale: 7,
        wscale_ok: true,
        sack_ok: true,
        ts_ok: true,
        fin: false,
        ts_recent: 1_000,
        last_tsval: 1,
        window: W,
    }
}

fn forwarding() -> Forwarding {
    Forwarding::new(&snapshot(), start())
}

/// `offset` bytes after the request.
fn client(offset: u32, ack: u32, flags: Flags, len: u32) -> Segment {
    segment(IRS.add(101).add(offset), ISS.add(1).add(ack), flags, len)
}

fn new_syn(offset: u32, tsval: Option<u32>) -> Segment {
    let ts = tsval.map(|val| Timestamp { val, ecr: 0 });
    let options = Options {
        ts,
        ..Options::default()
    };
    Segment {
        options,
        ..segment(IRS.add(101).add(offset), Seq(0), Flags::SYN, 0)
    }
}

fn replaced(after_ack: u32) -> OnSyn {
    OnSyn::Replace {
        min_iss: ISS.add(1).add(after_ack).add(65_537),
    }
}

#[test]
fn a_living_connection_keeps_its_tuple() {
    let f = forwarding();
    assert_eq!(f.on_syn(&new_syn(1_000_000, Some(9_000))), OnSyn::Forward);
    assert!(!f.is_over());
}

#[test]
fn a_closed_connection_gives_way_to_what_cannot_be_confused_with_it() {
    let mut f = forwarding();
    f.on_segment(&with_ts(client(0, 700, FIN_ACK, 0), 2_000), start());
    for (syn, expected) in [
        (new_syn(2, None), replaced(700)),
        (new_syn(1, None), OnSyn::Forward),
        (new_syn(u32::MAX, None), OnSyn::Forward),
        (new_syn(u32::MAX, Some(2_001)), replaced(700)),
        (new_syn(u32::MAX, Some(2_000)), OnSyn::Forward),
        (new_syn(2, Some(1_999)), replaced(700)),
    ] {
        assert_eq!(f.on_syn(&syn), expected, "{syn:?}");
    }
}

#[test]
fn a_reset_counts_only_at_the_edge() {
    for (offset, counts) in [(0, true), (1, false), (u32::MAX, false), (60_000, false)] {
        let mut f = forwarding();
        let changed = f.on_segment(&client(offset, 0, Flags::RST, 0), start());
        assert_eq!((f.is_over(), changed), (counts, counts), "{offset}");
    }
}

#[test]
fn a_fin_counts_within_an_unscaled_window() {
    for (offset, len, counts) in [
        (0, 0, true),
        (0, 300_000, true),
        (65_535, 0, true),
        (65_536, 0, false),
        (8_000_000, 0, false),
        (0u32.wrapping_sub(65_536), 0, true),
        (0u32.wrapping_sub(65_537), 0, false),
    ] {
        let mut f = forwarding();
        f.on_segment(&client(offset, 0, FIN_ACK, len), start());
        let closed = f.on_syn(&new_syn(20_000_000, None)) != OnSyn::Forward;
        assert_eq!(closed, counts, "{offset}");
    }
}

#[test]
fn only_what_can_have_been_sent_is_acknowledged() {
    let most = 65_535 << 8;
    let mut f = forwarding();
    f.on_segment(&client(0, most + 1, ACK, 0), start());
    assert_eq!(f.acked(), ISS.add(1));
    f.on_segment(&client(0, most, ACK, 0), start());
    f.on_segment(&client(0, 7, ACK, 0), start());
    assert_eq!(f.acked(), ISS.add(1).add(most));
}

#[test]
fn timestamps_count_only_where_they_were_negotiated() {
    let mut f = Forwarding::new(
        &Snapshot {
            ts_ok: false,
            ..snapshot()
        },
        start(),
    );
    f.ended(Ended::TimeWait, start());
    assert_eq!(f.on_syn(&new_syn(u32::MAX, Some(9_000))), OnSyn::Forward);
}

#[test]
fn reordering_does_not_make_a_connection_younger() {
    let mut f = forwarding();
    f.on_segment(&with_ts(client(1_000, 900, FIN_ACK, 0), 2_000), start());
    f.on_segment(&with_ts(client(0, 100, ACK, 500), 1_500), start());
    assert_eq!(f.on_syn(&new_syn(1_001, Some(2_000))), OnSyn::Forward);
    assert_eq!(f.on_syn(&new_syn(1_002, Some(2_000))), replaced(900));
}

#[test]
fn the_end_reported_by_the_back_end_counts_like_a_fin() {
    let mut f = forwarding();
    f.ended(Ended::TimeWait, start());
    assert!(f.is_over());
    assert_eq!(f.on_syn(&new_syn(1, None)), replaced(0));
    assert_eq!(f.on_syn(&new_syn(0, None)), OnSyn::Forward);
    f.ended(Ended::Gone, start());
    assert_eq!(
        f.on_syn(&new_syn(u32::MAX / 2, None)),
        replaced(0),
        "nobody else would answer"
    );
}

/// The server's side of a connection that only it has closed ends by itself, whatever the client sends; one
/// in TIME_WAIT is there again for as long with each packet (tcp_timewait_state_process()).
#[test]
fn a_client_that_goes_on_after_the_server_has_closed_does_not_keep_the_entry() {
    let cfg = Config::default();
    let (end, later) = (start(), start().saturating_add(Duration::from_secs(50)));
    for (closes, from) in [(false, end), (true, later)] {
        let mut f = forwarding();
        f.ended(Ended::TimeWait, end);
        let flags = if closes { FIN_ACK } else { ACK };
        f.on_segment(&client(0, 700, flags, 10), later);
        assert_eq!(f.expires(&cfg, None), from.saturating_add(cfg.time_wait));
    }
}

#[test]
fn a_reset_counts_until_the_client_speaks_again() {
    let mut f = forwarding();
    f.on_segment(&client(0, 0, Flags::RST, 0), start());
    assert!(f.is_over());
    assert_eq!(f.on_syn(&new_syn(10, None)), replaced(0));
    f.on_segment(&client(0, 0, ACK, 10), start());
    assert!(!f.is_over());
    assert_eq!(f.on_syn(&new_syn(20, None)), OnSyn::Forward);
}

#[test]
fn segments_out_of_reach_change_nothing() {
    let reach = 0xffff << 7;
    for far in [reach + 1, u32::MAX / 2, 0u32.wrapping_sub(reach + 1)] {
        for flags in [FIN_ACK, Flags::RST, ACK] {
            let mut f = forwarding();
            f.on_segment(&client(far, 0, flags, 5), after(start(), 9));
            assert_eq!(f, forwarding(), "{far} {flags:?}");
        }
    }
    let mut f = forwarding();
    f.on_segment(&client(reach, 0, FIN_ACK, 0), start());
    assert_ne!(f, forwarding());
}

#[test]
fn entries_outlive_what_the_back_end_remembers() {
    let cfg = Config::default();
    let secs = |f: &Forwarding| f.expires(&cfg, None).saturating_since(start()).as_secs();
    let mut f = forwarding();
    assert!(secs(&f) > 7_200 + 9 * 75);
    f.on_segment(&client(0, 0, FIN_ACK, 0), start());
    assert_eq!(secs(&f), 900);
    f.on_segment(&client(1, 0, Flags::RST, 0), start());
    assert!(secs(&f) > 60 && secs(&f) < 120);
    f.ended(Ended::Gone, start());
    assert_eq!(secs(&f), 5);
    f.on_segment(&client(1, 0, ACK, 5), after(start(), 4_000));
    assert_eq!(secs(&f), 5, "a connection that is gone is not kept alive");
}

#[test]
fn a_mute_back_end_is_waited_for_as_long_as_it_may_remember() {
    let cfg = Config::default();
    let wait = cfg.time_wait.as_secs();
    let lost = after(start(), 100_000);
    let secs = |f: &Forwarding, mute| f.expires(&cfg, mute).saturating_since(start()).as_secs();

    let living = forwarding();
    assert_eq!(secs(&living, Some(lost)), secs(&living, None));

    let mut f = forwarding();
    f.on_segment(&client(0, 0, FIN_ACK, 0), start());
    assert_eq!(secs(&f, Some(start())), wait);
    assert_eq!(secs(&f, Some(lost)), 100 + wait, "time to come back");
    f.on_segment(&client(1, 900, ACK, 0), after(lost, 5_000));
    assert_eq!(secs(&f, Some(lost)), 105 + wait, "an answer is on its way");
    // Lost late: never longer than with a back-end that reports.
    let late = after(start(), 100_000_000);
    assert_eq!(secs(&f, Some(late)), secs(&f, None));

    f.ended(Ended::Gone, lost);
    assert_eq!(secs(&f, Some(lost)), secs(&f, None));
}

#[test]
fn a_closing_connection_is_looked_at_in_case_its_back_end_falls_mute() {
    let cfg = Config::default();
    let mut f = forwarding();
    let deadline = |f: &Forwarding, mute, now| f.deadline(&cfg, mute, now);
    assert_eq!(deadline(&f, None, start()), f.expires(&cfg, None));
    f.on_segment(&client(0, 0, FIN_ACK, 0), start());
    let mut now = start();
    let mut looks = 0;
    while deadline(&f, None, now) > now {
        now = deadline(&f, None, now);
        looks += 1;
    }
    assert_eq!(now, f.expires(&cfg, None));
    assert!(looks > 5);
    // Lost right after a look: by the next one it is known, by the one after that it is over.
    let lost = after(start(), 1);
    let next = deadline(&f, None, start());
    assert!(deadline(&f, Some(lost), next) <= after(next, 1));
}

/// One that the front-end has ended after `len` bytes behind the request.
fn ended(len: u32) -> Forwarding {
    let mut f = forwarding();
    f.on_segment(&client(0, 700, ACK, len), start());
    f.end(IRS.add(101).add(len), start());
    f
}

#[test]
fn a_connection_that_was_ended_here_resets_both_sides() {
    let mut f = forwarding();
    f.on_segment(&client(0, 700, ACK, 50), start());
    let to_client = f.abort();
    assert_eq!(to_client.seq, ISS.add(701));
    assert_eq!(f.client_reset(), None);
    // What waited here has not reached the back-end.
    f.end(IRS.add(101), start());
    let reset = f.client_reset().unwrap();
    assert_eq!((reset.seq, reset.flags), (IRS.add(101), Flags::RST));
    assert!(f.is_ended() && f.is_over());
    // Whatever comes, it expects the same.
    for segment in [
        client(50, 900, ACK, 70),
        client(50, 900, FIN_ACK, 0),
        client(0, 0, Flags::RST, 0),
        client(20, 0, Flags::RST, 0),
    ] {
        let before = f;
        assert!(!f.on_segment(&segment, after(start(), 1)));
        assert_eq!(f, before, "{segment:?}");
    }
}

#[test]
fn the_tuple_of_one_that_was_ended_here_is_free_once_no_back_end_takes_it_any_more() {
    let cfg = Config::default();
    let wait = cfg.handoff_timeout;
    let later = new_syn(1_000, None);
    let mut f = forwarding();
    f.on_segment(&client(0, 700, FIN_ACK, 0), start());
    f.end(IRS.add(101), start());
    assert_eq!(f.on_syn(&later), OnSyn::Forward);
    assert_eq!(
        f.deadline(&cfg, None, start()),
        start().saturating_add(wait)
    );
    let settled = start().saturating_add(wait);
    let before = Instant::from_micros(settled.as_micros() - 1);
    assert!(!f.settles(&cfg, before));
    assert!(f.settles(&cfg, settled));
    assert!(!f.settles(&cfg, settled.saturating_add(wait)), "twice");
    assert_eq!(f.client_reset().unwrap().seq, IRS.add(101));
    assert_eq!(f.on_syn(&later), replaced(700));
    // It may not have got there; the client's reset passes for as long as the back-end may answer.
    let expires = settled.saturating_add(cfg.time_wait);
    assert_eq!(f.deadline(&cfg, None, settled), expires);
}

#[test]
fn a_back_end_that_has_reported_the_end_is_not_reset() {
    let cfg = Config::default();
    for how in [Ended::Gone, Ended::TimeWait] {
        for before in [true, false] {
            let mut f = forwarding();
            if before {
                f.ended(how, start());
            }
            f.end(IRS.add(101), start());
            if !before {
                f.ended(how, start());
            }
            assert_eq!(f.client_reset(), None);
            assert!(!f.settles(&cfg, start().saturating_add(cfg.handoff_timeout)));
            assert_eq!(f.on_syn(&new_syn(1_000, None)), replaced(0));
        }
    }
}

#[test]
fn one_that_was_ended_here_rests_until_its_end_is_reported() {
    let cfg = Config::default();
    let mut f = ended(50);
    assert!(!f.is_idle());
    f.rest();
    f.on_segment(&client(50, 900, ACK, 1), after(start(), 1));
    assert!(f.is_idle() && !f.falls_idle(&cfg, after(start(), 60_000)));
    let mut reported = f;
    reported.ended(Ended::Gone, after(start(), 2));
    assert!(!reported.is_idle() && !reported.denied(after(start(), 3)));
    // Denied in time it is taken back, once; and later not any more.
    let mut denied = f;
    assert!(denied.denied(after(start(), 2)) && !denied.is_idle());
    assert!(!denied.denied(after(start(), 3)));
    assert_eq!(denied.client_reset(), None);
    assert!(f.settles(&cfg, after(start(), 60_000)) && f.is_idle());
    assert!(!f.denied(after(start(), 60_001)));
    assert!(!forwarding().denied(start()));
}

/// When a watched connection falls idle after `then`, in milliseconds; never within a minute is `None`.
fn idle_after(f: &Forwarding, then: u64) -> Option<u64> {
    let cfg = Config::default();
    let falls = |ms: &u64| f.clone().falls_idle(&cfg, after(start(), then + ms));
    (0..60_000).step_by(10).find(falls)
}

#[test]
fn a_silent_client_that_has_its_answer_is_idle() {
    let cfg = Config::default();
    let mut f = forwarding().watched();
    assert_eq!(idle_after(&f, 0), None, "it waits for its answer");
    assert_eq!(f.deadline(&cfg, None, start()), f.expires(&cfg, None));
    let mut at = |ms, seg| {
        let sooner = f.on_segment(&seg, after(start(), ms));
        (sooner, f)
    };
    // The answer begins, and goes on.
    let (sooner, f1) = at(50, client(0, 700, ACK, 0));
    assert!(sooner);
    assert_eq!(idle_after(&f1, 50), Some(1_000));
    assert_eq!(f1.deadline(&cfg, None, start()), after(start(), 1_050));
    let (sooner, f1) = at(800, client(0, 1_400, ACK, 0));
    assert!(!sooner);
    assert_eq!(idle_after(&f1, 800), Some(1_000));
    // Another request, which takes the server its time, and the client asks again.
    let (_, f1) = at(900, client(0, 1_400, ACK, 80));
    assert_eq!(idle_after(&f1, 900), None);
    let (_, f1) = at(20_000, client(0, 1_400, ACK, 80));
    assert_eq!(idle_after(&f1, 20_000), None);
    // A request that acknowledges the end of an answer waits for its own.
    at(30_000, client(80, 2_100, ACK, 0));
    let (_, f1) = at(30_100, client(80, 2_800, ACK, 40));
    assert_eq!(idle_after(&f1, 30_100), None);
}

#[test]
fn an_idle_connection_is_so_until_something_new_comes() {
    let cfg = Config::default();
    let mut f = forwarding().watched();
    f.on_segment(&client(0, 700, ACK, 0), start());
    assert!(!f.is_idle() && f.falls_idle(&cfg, after(start(), 1_000)) && f.is_idle());
    assert!(!f.falls_idle(&cfg, after(start(), 9_000)), "it is already");
    assert_eq!(f.deadline(&cfg, None, start()), f.expires(&cfg, None));
    // What the client sent or acknowledged before, or asks whether the server is alive.
    for old in [
        client(0, 700, ACK, 0),
        client(u32::MAX, 700, ACK, 1),
        client(0, 600, ACK, 0),
    ] {
        f.on_segment(&old, after(start(), 2_000));
        assert!(f.is_idle(), "{old:?}");
    }
    let news = [
        client(0, 700, ACK, 1),
        client(0, 701, ACK, 0),
        client(0, 700, FIN_ACK, 0),
        client(0, 0, Flags::RST, 0),
    ];
    for new in news {
        let mut f = f;
        assert!(f.on_segment(&new, after(start(), 3_000)));
        assert!(!f.is_idle(), "{new:?}");
    }
    for how in [Ended::TimeWait, Ended::Gone] {
        let mut f = f;
        f.ended(how, after(start(), 3_000));
        assert!(!f.is_idle() && !f.falls_idle(&cfg, after(start(), 60_000)));
    }
}

#[test]
fn a_connection_that_is_not_watched_or_is_closing_never_falls_idle() {
    let mut f = forwarding();
    f.on_segment(&client(0, 700, ACK, 0), start());
    assert_eq!(idle_after(&f, 0), None);
    let mut f = forwarding().watched();
    f.on_segment(&client(0, 700, FIN_ACK, 0), start());
    f.on_segment(&client(1, 900, ACK, 0), start());
    assert_eq!(idle_after(&f, 0), None);
}

#[test]
fn a_request_handed_over_with_its_fin_is_closing() {
    let f = Forwarding::new(
        &Snapshot {
            fin: true,
            ..snapshot()
        },
        start(),
    );
    assert_eq!(f.on_syn(&new_syn(1, None)), replaced(0));
}

proptest! {
    #[test]
    fn nothing_overflows(
        rcv in any::<u32>(), ack in any::<u32>(), wscale in any::<u8>(), at in any::<u64>(),
        watched in any::<bool>(),
        segs in proptest::collection::vec(
            (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), any::<u32>()), 0..50),
    ) {
        let snap = Snapshot {
            rcv_nxt: Seq(rcv), snd_nxt: Seq(ack), rcv_wscale: wscale, ..snapshot()
        };
        let mut f = Forwarding::new(&snap, Instant::from_micros(at));
        if watched {
            f = f.watched();
        }
        for (seq, ack, flags, len, ts) in segs {
            let seg = with_ts(segment(Seq(seq), Seq(ack), Flags(flags), len.into()), ts);
            if seg.is_syn() {
                let _ = f.on_syn(&seg);
            } else {
                f.on_segment(&seg, Instant::from_micros(at));
            }
            let now = Instant::from_micros(at);
            for mute in [None, Some(now)] {
                let deadline = f.deadline(&Config::default(), mute, now);
                prop_assert!(deadline <= f.expires(&Config::default(), mute));
            }
        }
    }

    #[test]
    fn what_follows_a_closed_connection_is_replaced(gap in 1u32..(1 << 30), sent in 0u32..100_000) {
        let mut f = forwarding();
        f.on_segment(&client(0, 0, ACK, sent), start());
        f.on_segment(&client(sent, 5, FIN_ACK, 0), start());
        prop_assert_eq!(f.on_syn(&new_syn(sent + 1 + gap, None)), replaced(5));
    }
}
