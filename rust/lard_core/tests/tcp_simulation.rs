// SPDX-License-Identifier: GPL-2.0

//! A client, the front-end and a back-end on a bad network, in virtual time.
//!
//! Each seed makes a scenario: options, sizes, manners of the client, loss, duplication, delay and
//! with it reordering, and what becomes of the hand-off. Whatever happens,
//!
//! * what the back-end's application reads is what the client wrote, byte for byte;
//! * the front-end acknowledges nothing that is not stored, and nothing beyond `irs + 1 + W0`;
//! * the right edge it advertises never lies beyond that;
//! * it sends nothing between the completion of the head and an own reply;
//! * everybody comes to an end.
//!
//! `LARD_SIM_SEED=n` runs one scenario, `LARD_SIM_RUNS=n` that many.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::peer::{Peer, Phase};
use common::scenario::{response, scenario, stream, Fate, Manners, Rng, Scenario};
use common::{secret, start, tuple};
use lard_core::tcp::{
    cookie, reset_for, Action, Config, Ended, Flags, Forwarding, Head, OnSyn, Options, Output,
    Reason, Responder, Segment, SegmentOut, Seq, Snapshot, Status, Timestamp,
};
use lard_core::time::Instant;

/// Where a packet is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    FrontEnd,
    Client,
    BackEnd,
}

#[derive(Debug)]
enum Event {
    Packet(To, Vec<u8>),
    /// The dispatcher has answered.
    Assigned,
    /// The hand-off reaches the back-end.
    Handoff(Snapshot, Vec<u8>, bool),
    Adopted(Snapshot),
    Refused,
    Closed,
    Abort,
}

enum Entry {
    Free,
    Responding(Box<Responder>),
    Forwarding(Forwarding),
}

struct World {
    rng: Rng,
    scenario: Scenario,
    cfg: Config,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    client: Peer,
    back_end: Option<Peer>,
    closed_reported: bool,
    entry: Entry,
    buf: Vec<u8>,
    queue: Vec<Vec<u8>>,
    attempts: u32,
    /// The client's initial sequence number and W0, once known; what the front-end may acknowledge.
    irs: Seq,
    complete: bool,
    replied: Option<Status>,
    last: Option<Reason>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let scenario = scenario(&mut rng);
        let options = Options {
            mss: rng
                .chance(90)
                .then(|| [536, 1_220, 1_460, 8_960][rng.below(4) as usize]),
            wscale: rng.chance(80).then(|| rng.below(15) as u8),
            sack_perm: rng.chance(80),
            ts: rng.chance(70).then_some(Timestamp { val: 1, ecr: 0 }),
            ..Options::default()
        };
        let cfg = Config {
            back_end_space: [8_192, 65_536, 32_768, 1 << 20][rng.below(4) as usize],
            wscale: rng.chance(80).then(|| rng.below(15) as u8),
            head_limit: [1_024, 4_096, 16_384, 65_536][rng.below(4) as usize],
            timestamps: rng.chance(90),
            sack: rng.chance(90),
            ..Config::default()
        };
        let (stream, fin) = stream(&scenario, &mut rng);
        let irs = Seq(rng.next() as u32);
        let mut client = Peer::client(tuple(), irs, options, stream, fin);
        client.fin = fin;
        if scenario.manners == Manners::Stalls {
            client.written = client.stream.len() / 2;
        }
        World {
            rng,
            scenario,
            cfg,
            now: start(),
            events: BTreeMap::new(),
            serial: 0,
            client,
            back_end: None,
            closed_reported: false,
            entry: Entry::Free,
            buf: Vec::new(),
            queue: Vec::new(),
            attempts: 0,
            irs,
            complete: false,
            replied: None,
            last: None,
        }
    }

    fn at(&mut self, delay_us: u64, event: Event) {
        self.serial += 1;
        let at = self.now.saturating_add(Duration::from_micros(delay_us));
        self.events.insert((at, self.serial), event);
    }

    fn transmit(&mut self, to: To, bytes: Vec<u8>) {
        let s = self.scenario;
        let copies = if self.rng.chance(s.dup) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.rng.chance(s.loss) {
                let delay = 500 + self.rng.below(s.jitter + 1);
                self.at(delay, Event::Packet(to, bytes.clone()));
            }
        }
    }

    /// Puts on the wire what the peers have to say.
    fn flush(&mut self) {
        for bytes in std::mem::take(&mut self.client.out) {
            self.transmit(To::FrontEnd, bytes);
        }
        if let Some(b) = &mut self.back_end {
            for bytes in std::mem::take(&mut b.out) {
                self.transmit(To::Client, bytes);
            }
        }
    }

    fn run(&mut self) {
        let now = self.now;
        self.client.connect(now);
        if self.scenario.manners == Manners::Aborts {
            let delay = self.rng.below(150_000);
            self.at(delay, Event::Abort);
        }
        self.flush();
        let limit = start().saturating_add(Duration::from_secs(20_000));
        for _ in 0..200_000 {
            let Some(next) = self.next_time() else {
                return;
            };
            assert!(next < limit, "no end in sight");
            self.now = self.now.max(next);
            self.step();
            self.flush();
        }
        panic!("too many events");
    }

    fn next_time(&self) -> Option<Instant> {
        let mut next = self.events.keys().next().map(|k| k.0);
        let mut consider = |t: Instant| {
            if t != Instant::FAR_FUTURE {
                next = Some(next.map_or(t, |n| n.min(t)));
            }
        };
        consider(self.client.rto_at);
        if let Some(b) = &self.back_end {
            consider(b.rto_at);
        }
        match &self.entry {
            Entry::Free => {}
            Entry::Responding(r) => consider(r.deadline()),
            Entry::Forwarding(f) => consider(f.expires(&self.cfg, None)),
        }
        next
    }

    fn step(&mut self) {
        let now = self.now;
        if let Some(entry) = self.events.first_entry() {
            if entry.key().0 <= now {
                let event = entry.remove();
                return self.handle(event);
            }
        }
        self.client.on_timer(now);
        if let Some(b) = &mut self.back_end {
            b.on_timer(now);
        }
        match &mut self.entry {
            Entry::Free => {}
            Entry::Responding(r) => {
                if now >= r.deadline() {
                    let out = r.on_timer(&self.cfg, now);
                    self.obey(out, None);
                }
            }
            Entry::Forwarding(f) => {
                if now >= f.expires(&self.cfg, None) {
                    self.entry = Entry::Free;
                }
            }
        }
        self.applications();
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Packet(To::FrontEnd, bytes) => self.front_end(bytes),
            Event::Packet(To::Client, bytes) => self.client.on_packet(&bytes, now),
            Event::Packet(To::BackEnd, bytes) => {
                if let Some(b) = &mut self.back_end {
                    b.on_packet(&bytes, now);
                }
            }
            Event::Abort => {
                if self.client.phase != Phase::Dead {
                    self.client.send_reset(now);
                }
            }
            Event::Assigned => {
                let Entry::Responding(r) = &mut self.entry else {
                    return;
                };
                let Some(snap) = r.snapshot(&self.cfg, now) else {
                    return;
                };
                assert_eq!(snap.len() as usize, self.buf.len());
                self.attempts += 1;
                let refuse = match self.scenario.fate {
                    Fate::Adopted => false,
                    Fate::RefusedThenAdopted => self.attempts == 1,
                    Fate::RefusedByAll => true,
                    Fate::Silent => return,
                };
                let delay = self.rng.below(5_000);
                let bytes = self.buf.clone();
                self.at(delay, Event::Handoff(snap, bytes, refuse));
            }
            Event::Handoff(snap, bytes, refuse) => {
                let delay = self.rng.below(20_000);
                if refuse {
                    return self.at(delay, Event::Refused);
                }
                self.back_end = Some(Peer::adopt(tuple(), &snap, &bytes, now));
                self.at(delay, Event::Adopted(snap));
            }
            Event::Refused => {
                let Entry::Responding(r) = &mut self.entry else {
                    return;
                };
                r.refused();
                if self.attempts < 3 {
                    let delay = self.rng.below(5_000);
                    self.at(delay, Event::Assigned);
                } else {
                    let out = r.fail(Status::ServiceUnavailable, now);
                    self.obey(out, None);
                }
            }
            Event::Adopted(snap) => {
                assert!(matches!(&self.entry, Entry::Responding(r) if r.is_waiting()));
                let mut f = Forwarding::new(&snap, now);
                for bytes in std::mem::take(&mut self.queue) {
                    f.on_segment(&Segment::parse(&bytes, bytes.len()).unwrap(), now);
                    self.transmit(To::BackEnd, bytes);
                }
                self.entry = Entry::Forwarding(f);
            }
            Event::Closed => {
                if let Entry::Forwarding(f) = &mut self.entry {
                    f.ended(Ended::TimeWait, now);
                }
            }
        }
        self.applications();
    }

    /// The front-end's shell, as the kernel module does it.
    fn front_end(&mut self, bytes: Vec<u8>) {
        let now = self.now;
        let t = tuple();
        let seg = Segment::parse(&bytes, bytes.len()).unwrap();
        match &mut self.entry {
            Entry::Free if seg.is_syn() && !self.scenario.cookies => {
                let (r, syn_ack) =
                    Responder::open(&self.cfg, &secret(), &t, &seg, None, now).unwrap();
                self.entry = Entry::Responding(Box::new(r));
                self.buf.clear();
                self.emit(&syn_ack);
            }
            Entry::Free if seg.is_syn() => {
                let s = cookie::answer(&self.cfg, &secret(), &t, &seg, now).unwrap();
                self.emit(&s);
            }
            Entry::Free if self.scenario.cookies && self.last.is_none() => {
                // A failure is not answered: the first segment may have been overtaken.
                if let Ok(r) = cookie::check(&self.cfg, &secret(), &t, &seg, now) {
                    self.entry = Entry::Responding(Box::new(r));
                    self.buf.clear();
                    self.front_end(bytes);
                }
            }
            Entry::Free => {
                if let Some(s) = reset_for(&seg) {
                    self.emit(&s);
                }
            }
            Entry::Responding(r) => {
                let out = r.on_segment(&self.cfg, &seg, now);
                self.obey(out, Some((&seg, bytes)));
            }
            Entry::Forwarding(f) if seg.is_syn() => {
                assert_eq!(f.on_syn(&seg), OnSyn::Forward, "an old duplicate");
                self.transmit(To::BackEnd, bytes);
            }
            Entry::Forwarding(f) => {
                f.on_segment(&seg, now);
                self.transmit(To::BackEnd, bytes);
            }
        }
    }

    fn obey(&mut self, out: Output, packet: Option<(&Segment, Vec<u8>)>) {
        let (now, cfg) = (self.now, self.cfg);
        if let Some(s) = &out.send {
            self.emit(s);
        }
        match out.action {
            Action::Done | Action::Drop(_) => {}
            Action::Delete(reason) => {
                self.last = Some(reason);
                self.entry = Entry::Free;
                self.queue.clear();
            }
            Action::Queue => self
                .queue
                .extend(packet.map(|p| p.1).filter(|_| self.queue.len() < 8)),
            Action::HandOff { queue } => {
                self.complete = true;
                if queue {
                    self.queue.extend(packet.map(|p| p.1));
                }
                let delay = self.rng.below(40_000);
                self.at(delay, Event::Assigned);
            }
            Action::Store(part) => {
                // Now and then there is no memory.
                if self.rng.chance(2) {
                    return;
                }
                let (seg, bytes) = packet.unwrap();
                let from = usize::from(seg.header_len) + part.offset() as usize;
                assert_eq!(part.position() as usize, self.buf.len());
                self.buf
                    .extend_from_slice(&bytes[from..][..part.len() as usize]);
                assert!(self.buf.len() <= cfg.head_limit as usize);
                let head = match self.buf.windows(4).any(|w| w == b"\r\n\r\n") {
                    _ if self.buf.starts_with(b"\0") => Head::Bad(Status::BadRequest),
                    true => Head::Complete,
                    false => Head::Partial,
                };
                let Entry::Responding(r) = &mut self.entry else {
                    unreachable!()
                };
                let out = r.stored(&cfg, part, head, now);
                let seg = *seg;
                self.obey(out, Some((&seg, bytes)));
            }
            Action::Restart { .. } => unreachable!("there is no second connection"),
        }
    }

    /// Every segment of the front-end passes here and is held against the promises.
    fn emit(&mut self, s: &SegmentOut) {
        if let Entry::Responding(r) = &self.entry {
            let reset = s.flags.contains(Flags::RST);
            assert!(!r.is_waiting() || reset, "spoke while waiting: {s:?}");
            if !s.payload.is_empty() {
                let status = Status::ALL.iter().find(|x| x.bytes() == s.payload).copied();
                assert!(
                    self.replied.is_none() || self.replied == status,
                    "two replies"
                );
                self.replied = status;
            }
            if !r.is_closing() && !reset {
                let acked = s.ack.since(self.irs.add(1));
                assert!(
                    acked as usize <= self.buf.len(),
                    "acknowledged what is not stored"
                );
                let w0 = self.cfg.window(1_460).size.max(self.cfg.window(536).size);
                let shift = match s.flags.contains(Flags::SYN) {
                    true => 0,
                    false => self.shift(),
                };
                let edge = acked + (u32::from(s.window) << shift);
                assert!(
                    edge <= w0.max(self.cfg.window(8_960).size),
                    "right edge at {edge}"
                );
                assert!(edge <= 65_483);
            }
        }
        let mut buf = [0; SegmentOut::MAX_LEN];
        let n = s.emit(&tuple(), &mut buf).unwrap();
        self.transmit(To::Client, buf[..n].to_vec());
    }

    fn shift(&self) -> u32 {
        // The client has learnt it from the SYN-ACK.
        u32::from(self.client.shift())
    }

    /// The applications on both ends.
    fn applications(&mut self) {
        let now = self.now;
        let s = self.scenario;
        if let Some(b) = &mut self.back_end {
            assert!(
                self.client.stream.starts_with(&b.got),
                "the back-end read something else"
            );
            let wanted = s.head + s.body;
            if b.phase == Phase::Open && !b.fin && b.got.len() >= wanted {
                b.stream = response(s.response);
                b.written = b.stream.len();
                b.fin = true;
                b.push(now);
            }
            if !self.closed_reported && b.is_done() {
                self.closed_reported = true;
                self.at(1_000, Event::Closed);
            }
        }
        let c = &mut self.client;
        let leaving = c.got_fin || s.manners == Manners::Mute && now > start().saturating_add(MUTE);
        if c.phase == Phase::Open && leaving && !c.fin {
            // It has the answer, or it has waited long enough: it says no more.
            c.stream.truncate(c.written);
            c.fin = true;
            c.push(now);
        }
        self.flush();
    }

    fn check(&self) {
        let s = self.scenario;
        let c = &self.client;
        assert!(
            matches!(self.entry, Entry::Free),
            "the entry is still there"
        );
        assert!(
            c.is_done() || c.rto_at == Instant::FAR_FUTURE,
            "the client is stuck"
        );
        let expected = response(s.response);
        match (&self.back_end, self.replied) {
            (Some(b), None) => {
                assert!(expected.starts_with(&c.got));
                let undisturbed = matches!(s.manners, Manners::Proper | Manners::HalfClose);
                if undisturbed {
                    assert_eq!(c.got.len(), expected.len(), "the response is incomplete");
                    assert_eq!(b.got.len(), c.stream.len(), "the request is incomplete");
                }
            }
            (None, Some(status)) => assert!(status.bytes().starts_with(&c.got)),
            (None, None) => assert!(c.got.is_empty()),
            (Some(_), Some(_)) => panic!("served twice"),
        }
        if s.loss > 0 || self.reorders() {
            return;
        }
        // On a good network the outcome is certain.
        let w = self.cfg.window(c.mss_used());
        let most = self.cfg.head_limit.min(w.size) as usize;
        let least = self.cfg.head_limit.min(w.size - (1 << w.shift)) as usize;
        let sent = match s.manners {
            Manners::Stalls | Manners::Truncates => s.head / 2,
            _ => s.head,
        };
        if (least..=most).contains(&sent) {
            return;
        }
        let fits = sent < least;
        match s.manners {
            Manners::Aborts => {}
            Manners::Rude => assert_eq!(self.replied, Some(Status::BadRequest)),
            Manners::Endless => assert_eq!(self.replied, Some(Status::HeaderFieldsTooLarge)),
            Manners::Mute => assert_eq!((self.replied, c.got_fin), (None, true)),
            Manners::Stalls if fits => {
                assert_eq!(self.replied, Some(Status::RequestTimeout))
            }
            Manners::Truncates if fits => {
                assert_eq!(self.replied, Some(Status::BadRequest))
            }
            Manners::Stalls | Manners::Truncates => {
                assert_eq!(self.replied, Some(Status::HeaderFieldsTooLarge))
            }
            Manners::Proper | Manners::HalfClose if !fits => {
                assert_eq!(self.replied, Some(Status::HeaderFieldsTooLarge))
            }
            Manners::Proper | Manners::HalfClose => match s.fate {
                Fate::Adopted | Fate::RefusedThenAdopted => assert_eq!(c.got.len(), expected.len()),
                Fate::RefusedByAll => assert_eq!(self.replied, Some(Status::ServiceUnavailable)),
                Fate::Silent => {
                    assert!(c.reset);
                    assert_eq!(self.last, Some(Reason::HandoffSilent));
                }
            },
        }
    }

    /// How it ended, in a word.
    fn outcome(&self) -> String {
        match (&self.back_end, self.replied, self.last) {
            (Some(_), _, _) if self.client.got.len() == self.scenario.response => "served".into(),
            (Some(_), _, _) => "served in part".into(),
            (None, Some(status), _) => status.code().to_string(),
            (None, None, Some(reason)) => reason.name().into(),
            (None, None, None) => "nothing".into(),
        }
    }

    /// Reordering can make even a lossless network look bad to a go-back-N client.
    fn reorders(&self) -> bool {
        self.scenario.jitter > 0 || self.scenario.dup > 0
    }
}

const MUTE: Duration = Duration::from_secs(30);

fn simulate(seed: u64) -> String {
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("run again with LARD_SIM_SEED={}", self.0);
            }
        }
    }
    let _name = Name(seed);
    let mut world = World::new(seed);
    world.run();
    world.check();
    world.outcome()
}

#[test]
fn a_bad_network_loses_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    if let Some(seed) = number("LARD_SIM_SEED") {
        println!("{:?}", World::new(seed).scenario);
        println!("{:?}", simulate(seed));
        return;
    }
    let runs = number("LARD_SIM_RUNS").unwrap_or(1_000);
    let mut outcomes = BTreeMap::new();
    for seed in 0..runs {
        *outcomes.entry(simulate(seed)).or_insert(0) += 1;
    }
    println!("{outcomes:#?}");
    // A simulation that never gets anywhere proves nothing.
    if runs >= 1_000 {
        for outcome in [
            "served",
            "400",
            "408",
            "431",
            "503",
            "tcp_handoff_silent",
            "tcp_client_reset",
        ] {
            assert!(
                outcomes.keys().any(|o| o == outcome),
                "never seen: {outcome}"
            );
        }
    }
}
