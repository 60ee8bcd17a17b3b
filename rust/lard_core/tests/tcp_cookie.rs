// SPDX-License-Identifier: GPL-2.0

//! SYN cookies: what comes back is what was offered, and nothing else comes back.

mod common;

use common::*;
use lard_core::addr::Tuple;
use lard_core::tcp::{
    cookie, Action, Config, Flags, Head, Options, Reason, Secret, Segment, SegmentOut, Seq,
    Snapshot, Timestamp,
};
use lard_core::time::Instant;
use proptest::prelude::*;

fn answer(syn: &Segment, now: Instant) -> SegmentOut {
    cookie::answer(&Config::default(), &secret(), &tuple(), syn, now).unwrap()
}

/// The client's next segment, with a request.
fn reply_to(syn: &Segment, syn_ack: &SegmentOut) -> Segment {
    let ts = syn_ack.options.ts.map(|ts| Timestamp {
        val: ts.ecr.wrapping_add(1),
        ecr: ts.val,
    });
    let options = Options {
        ts,
        ..Options::default()
    };
    Segment {
        options,
        ..segment(syn.seq.add(1), syn_ack.seq.add(1), Flags::ACK, 100)
    }
}

fn check(seg: &Segment, now: Instant) -> Result<Snapshot, Reason> {
    let cfg = Config::default();
    let mut r = cookie::check(&cfg, &secret(), &tuple(), seg, now)?;
    let out = r.on_segment(&cfg, seg, now);
    let Action::Store(part) = out.action else {
        panic!("{out:?}")
    };
    assert_eq!((part.offset(), part.len()), (0, 100));
    let out = r.stored(&cfg, part, Head::Complete, now);
    assert_eq!(out.action, Action::HandOff { queue: false });
    Ok(r.snapshot(&cfg, now).unwrap())
}

#[test]
fn with_timestamps_every_option_survives() {
    let s = answer(&syn(), start());
    assert_eq!(s.flags, Flags::SYN.with(Flags::ACK));
    let snap = check(&reply_to(&syn(), &s), after(start(), 30)).unwrap();
    assert_eq!((snap.irs, snap.iss, snap.mss), (IRS, s.seq, 1_460));
    assert_eq!((snap.wscale_ok, snap.snd_wscale), (true, 8));
    assert_eq!(Some(snap.rcv_wscale), s.options.wscale);
    assert!(snap.sack_ok && snap.ts_ok);
    assert_eq!(snap.ts_recent, 1_001);
    assert_eq!(Some(snap.last_tsval), s.options.ts.map(|ts| ts.val));
    assert_eq!((snap.rcv_nxt, snap.window), (IRS.add(101), W));
}

#[test]
fn without_timestamps_only_the_segment_size_survives() {
    let plain = Segment {
        options: Options {
            ts: None,
            ..syn().options
        },
        ..syn()
    };
    let s = answer(&plain, start());
    assert_eq!(
        (s.options.wscale, s.options.sack_perm, s.options.ts),
        (None, false, None)
    );
    let snap = check(&reply_to(&plain, &s), start()).unwrap();
    assert_eq!(snap.mss, 1_460);
    assert!(!snap.wscale_ok && !snap.sack_ok && !snap.ts_ok);
}

#[test]
fn the_stamp_is_never_newer_than_the_clock() {
    let offset = secret().ts_offset(&tuple());
    for ms in 0..200 {
        let now = after(start(), ms);
        let clock = (now.as_millis() as u32).wrapping_add(offset);
        let val = answer(&syn(), now).options.ts.unwrap().val;
        assert!(clock.wrapping_sub(val) < 32, "{ms}");
    }
}

#[test]
fn cookies_age() {
    let seg = reply_to(&syn(), &answer(&syn(), start()));
    assert!(check(&seg, after(start(), 63_000)).is_ok());
    let late = start().saturating_add(cookie::MAX_AGE);
    assert_eq!(check(&seg, late), Err(Reason::CookieExpired));
    // The five bits of the epoch come round after 34 minutes; the hash does not.
    assert_eq!(
        check(&seg, after(start(), 32 * 64_000)),
        Err(Reason::CookieInvalid)
    );
}

#[test]
fn cookies_are_bound_to_connection_and_secret() {
    let cfg = Config::default();
    let seg = reply_to(&syn(), &answer(&syn(), start()));
    let mut other = tuple();
    other.client.port += 1;
    let tried =
        |t: Tuple, s: Secret, seg: &Segment| cookie::check(&cfg, &s, &t, seg, start()).err();
    assert_eq!(tried(tuple(), secret(), &seg), None);
    assert_eq!(tried(other, secret(), &seg), Some(Reason::CookieInvalid));
    let foreign = Secret::from_bytes([0; 16]);
    assert_eq!(tried(tuple(), foreign, &seg), Some(Reason::CookieInvalid));
    for bit in 0..32 {
        let forged = Segment {
            ack: Seq(seg.ack.0 ^ (1 << bit)),
            ..seg
        };
        assert!(tried(tuple(), secret(), &forged).is_some(), "bit {bit}");
    }
    let moved = Segment {
        seq: seg.seq.add(1),
        ..seg
    };
    assert_eq!(
        tried(tuple(), secret(), &moved),
        Some(Reason::CookieInvalid)
    );
    for flags in [Flags::RST.with(Flags::ACK), Flags::SYN] {
        let odd = Segment { flags, ..seg };
        assert_eq!(tried(tuple(), secret(), &odd), Some(Reason::CookieInvalid));
    }
    let mut signed = seg;
    signed.options.md5_or_ao = true;
    assert_eq!(tried(tuple(), secret(), &signed), Some(Reason::Signed));
}

proptest! {
    #[test]
    fn what_was_offered_comes_back(
        irs in any::<u32>(), mss in any::<Option<u16>>(), wscale in proptest::option::of(0u8..=14),
        sack_perm in any::<bool>(), ts in any::<Option<u32>>(), at in 0u64..(1 << 50),
        delay in 0u64..64_000,
    ) {
        let ts = ts.map(|val| Timestamp { val, ecr: 0 });
        let options = Options { mss, wscale, sack_perm, ts, ..Options::default() };
        let syn = Segment { options, ..segment(Seq(irs), Seq(0), Flags::SYN, 0) };
        let now = Instant::from_micros(at);
        let s = answer(&syn, now);
        let snap = check(&reply_to(&syn, &s), after(now, delay)).unwrap();
        prop_assert_eq!(snap.ts_ok, ts.is_some());
        prop_assert_eq!(snap.sack_ok, s.options.sack_perm);
        prop_assert_eq!(snap.wscale_ok, s.options.wscale.is_some());
        prop_assert_eq!(s.options.wscale.is_some(), wscale.is_some() && ts.is_some());
        if snap.wscale_ok {
            prop_assert_eq!(Some(snap.snd_wscale), wscale);
        }
        prop_assert!(snap.mss <= mss.unwrap_or(536).max(536));
    }

    #[test]
    fn no_random_acknowledgement_passes(
        seq in any::<u32>(), ack in any::<u32>(), at in any::<u64>(), flags in any::<u8>(),
    ) {
        let seg = segment(Seq(seq), Seq(ack), Flags(flags), 0);
        let r = cookie::check(
            &Config::default(), &secret(), &tuple(), &seg, Instant::from_micros(at));
        prop_assert!(r.is_err());
    }
}
