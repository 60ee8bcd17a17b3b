// SPDX-License-Identifier: GPL-2.0

//! A connection that speaks HTTP/2 is handed over where another one would be answered: what it says, a
//! server can tell.

mod common;

use common::*;
use core::time::Duration;
use lard_core::tcp::{Action, Config, Flags, Head, Output, Status};

const ACK: Flags = Flags::ACK;
const FIN_ACK: Flags = Flags::FIN.with(Flags::ACK);

fn handed_over(queue: bool) -> Output {
    Output {
        send: None,
        action: Action::HandOff { queue },
    }
}

/// `len` bytes are stored, and are known to begin a connection of HTTP/2.
fn opening(cfg: Config, len: u32) -> Pair {
    let mut p = Pair::open(cfg, &syn());
    let data = p.client(0, ACK, len);
    let part = p.accept(&data);
    p.r.speaks_http2();
    let out = p.r.stored(&p.cfg, part, Head::Partial, p.now);
    assert_ack(&p, out.send, len);
    assert_eq!(out.action, Action::Done);
    p
}

#[test]
fn a_first_request_is_handed_over_like_any_other() {
    let mut p = opening(Config::default(), 60);
    let data = p.client(60, ACK, 100);
    assert_eq!(p.on_stored(&data, Head::Complete), handed_over(false));
    let snapshot = p.r.snapshot(&p.cfg, p.now).expect("complete");
    assert_eq!((snapshot.len(), snapshot.fin), (160, false));
}

#[test]
fn without_a_request_it_is_handed_over_after_a_moment() {
    let mut p = opening(Config::default(), 60);
    let began = p.now;
    // However steadily more comes.
    for at in [60, 70, 80] {
        p.wait_ms(30);
        let data = p.client(at, ACK, 10);
        let out = p.on_stored(&data, Head::Partial);
        assert_ack(&p, out.send, at + 10);
    }
    assert_eq!(p.r.deadline(), began.saturating_add(p.cfg.http2_wait));
    assert_eq!(p.timer(), handed_over(false));
    assert_eq!(p.r.snapshot(&p.cfg, p.now).expect("complete").len(), 90);
    // From here on it is as any other.
    let mut p = opening(Config::default(), 60);
    assert_eq!(p.timer(), handed_over(false));
    let data = p.client(60, ACK, 10);
    assert_eq!(p.on(&data).action, Action::Queue);
}

#[test]
fn a_shorter_limit_for_heads_holds_too() {
    let cfg = Config {
        head_timeout: Duration::from_millis(20),
        ..Config::default()
    };
    let mut p = opening(cfg, 60);
    assert_eq!(p.r.deadline(), after(p.now, 20));
    assert_eq!(p.timer(), handed_over(false));
}

#[test]
fn a_client_that_closes_is_handed_over_with_its_fin() {
    for together in [true, false] {
        let mut p = opening(Config::default(), 60);
        let out = match together {
            true => {
                let data = p.client(60, FIN_ACK, 10);
                p.on_stored(&data, Head::Partial)
            }
            false => {
                let fin = p.client(60, FIN_ACK, 0);
                p.on(&fin)
            }
        };
        assert_eq!(out, handed_over(false));
        let snapshot = p.r.snapshot(&p.cfg, p.now).expect("complete");
        let len = if together { 70 } else { 60 };
        assert_eq!((snapshot.len(), snapshot.fin), (len, true));
    }
}

#[test]
fn what_does_not_fit_waits_and_the_rest_is_handed_over() {
    let cfg = Config {
        head_limit: 1_000,
        ..Config::default()
    };
    let mut p = opening(cfg, 60);
    let data = p.client(60, FIN_ACK, 941);
    assert_eq!(p.on_stored(&data, Head::Partial), handed_over(true));
    let snapshot = p.r.snapshot(&p.cfg, p.now).expect("complete");
    assert_eq!((snapshot.len(), snapshot.fin), (1_000, false));
}

#[test]
fn replies_are_frames() {
    let mut p = opening(Config::default(), 60);
    let data = p.client(60, ACK, 10);
    let out = p.on_stored(&data, Head::Bad(Status::VersionNotSupported));
    let frames = Status::VersionNotSupported.frames();
    assert_eq!(out.send.expect("a reply").payload, frames);

    let mut p = opening(Config::default(), 60);
    assert_eq!(p.timer(), handed_over(false));
    let out = p.timer();
    let frames = Status::ServiceUnavailable.frames();
    assert_eq!(out.send.expect("nobody was found").payload, frames);
}
