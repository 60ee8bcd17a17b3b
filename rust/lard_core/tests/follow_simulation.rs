// SPDX-License-Identifier: GPL-2.0

//! Connections that move, simulated: a client sends requests over a network that loses, repeats,
//! reorders and cuts anew; the front-end follows, holds, passes and moves; back-ends take what they get.
//! At the end every byte must have reached exactly the child whose turn it was, in order, and each
//! hand-off must have begun with a request.
//!
//! On checked connections packets are also lost between the front-end and the back-end, and the client is
//! evil: what it sends again is sometimes something else. There no server may find a request that
//! names a node, whatever came when.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lard_core::follow::{Expired, Follow, Forbidden, Gathered, Take};
use lard_core::http::{Event, Framer, HeadParser, Status};
use lard_core::tcp::{Flags, Options, Segment, Seq};
use lard_core::time::Instant;

const HEAD_LIMIT: usize = 4_096;
/// What the shell holds of one request, at most.
const HELD: usize = 2_000;
/// What it remembers of a checked client: all that is under way at once, or a client could not repair
/// every loss.
const RING: usize = 20_000;
/// What honest requests have in their path, and what an evil client has there.
const PLAIN: &[u8] = b"/aa.b.c.d/";
const EVIL: &[u8] = b"/10.1.0.3/";

/// splitmix64: the same numbers for the same seed, wherever the test runs.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Once in `n` times.
    fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn request(rng: &mut Rng, number: usize) -> Vec<u8> {
    let pad = "p".repeat([0, 10, 700][rng.below(3) as usize]);
    let start = format!("/aa.b.c.d/{number} HTTP/1.1\r\nHost: h\r\nX: {pad}\r\n");
    let body: Vec<u8> = (0..rng.below(3_000)).map(|_| rng.next() as u8).collect();
    match rng.below(8) {
        0 => {
            let mut r = format!("POST {start}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
            r.extend_from_slice(&body);
            r
        }
        1 => {
            let mut r = format!("POST {start}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            for chunk in body.chunks(500) {
                r.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                r.extend_from_slice(chunk);
                r.extend_from_slice(b"\r\n");
            }
            r.extend_from_slice(b"0\r\n\r\n");
            r
        }
        2 => format!("HEAD {start}\r\n").into_bytes(),
        _ => format!("GET {start}\r\n").into_bytes(),
    }
}

/// A child: the bytes it got, in order, and what waits behind a gap.
struct Child {
    from: u64,
    bytes: Vec<u8>,
    early: BTreeMap<u64, Vec<u8>>,
}

impl Child {
    fn new(from: u64, bytes: Vec<u8>) -> Self {
        let early = BTreeMap::new();
        Child { from, bytes, early }
    }

    fn next(&self) -> u64 {
        self.from + self.bytes.len() as u64
    }

    fn take(&mut self, at: u64, bytes: &[u8]) {
        if at + (bytes.len() as u64) > self.next() {
            self.early.insert(at, bytes.to_vec());
        }
        while let Some((&at, _)) = self.early.first_key_value() {
            if at > self.next() {
                break;
            }
            let bytes = self.early.remove(&at).unwrap();
            let known = (self.next() - at) as usize;
            self.bytes
                .extend_from_slice(bytes.get(known..).unwrap_or_default());
        }
    }
}

#[derive(Clone)]
struct Packet {
    at: u64,
    bytes: Vec<u8>,
}

struct Simulation {
    rng: Rng,
    checked: bool,
    ring: Vec<u8>,
    base: Seq,
    follow: Option<Follow>,
    held: Vec<u8>,
    parked: Vec<Packet>,
    children: Vec<Child>,
    now: Instant,
    moves: usize,
    stays: usize,
    pins: usize,
}

impl Simulation {
    fn segment(&self, packet: &Packet) -> Segment {
        Segment {
            src_port: 1,
            dst_port: 2,
            seq: self.base.add(packet.at as u32),
            ack: Seq(0),
            flags: Flags::ACK,
            window: 1,
            header_len: 20,
            payload_len: packet.bytes.len() as u32,
            options: Options::default(),
        }
    }

    fn pass(&mut self, packet: &Packet) {
        if self.checked && self.rng.once_in(10) {
            return;
        }
        self.children
            .last_mut()
            .unwrap()
            .take(packet.at, &packet.bytes);
    }

    fn stay(&mut self) {
        self.stays += 1;
        self.follow.as_mut().unwrap().stay();
        self.held.clear();
        for packet in std::mem::take(&mut self.parked) {
            self.packet(packet, false);
        }
    }

    /// Is a part of it different from what was read?
    fn is_changed(&self, packet: &Packet, was_held: bool) -> bool {
        let segment = self.segment(packet);
        let follow = self.follow.as_ref().unwrap();
        let read = follow.repeated(&segment, was_held);
        let mut same = read.is_none_or(|(offset, len)| {
            let bytes = &packet.bytes[offset as usize..(offset + len) as usize];
            follow.agrees(&self.ring, segment.seq.add(offset), bytes)
        });
        if !self.held.is_empty() {
            let start = u64::from(follow.held().0.since(self.base));
            let (first, last) = (
                packet.at.max(start),
                (packet.at + packet.bytes.len() as u64).min(start + self.held.len() as u64),
            );
            if first < last {
                same &= packet.bytes[(first - packet.at) as usize..(last - packet.at) as usize]
                    == self.held[(first - start) as usize..(last - start) as usize];
            }
        }
        !same
    }

    fn read(&mut self, packet: &Packet, offset: usize) {
        let follow = self.follow.as_mut().unwrap();
        let mut left = &packet.bytes[offset..];
        while !left.is_empty() && follow.is_reading() {
            let skip = follow.skippable().min(left.len() as u64) as usize;
            let n = match skip {
                0 => left.len().min(1 + self.rng.below(299) as usize),
                skip => skip,
            };
            match skip {
                0 => drop(follow.read(&mut self.ring, &left[..n])),
                skip => follow.skip(skip as u64),
            }
            left = &left[n..];
        }
    }

    /// What the shell does with a packet.
    fn packet(&mut self, packet: Packet, may_hold: bool) {
        self.packet_of(packet, may_hold, !may_hold);
    }

    fn packet_of(&mut self, packet: Packet, may_hold: bool, was_held: bool) {
        let segment = self.segment(&packet);
        if self.follow.is_none() {
            return self.pass(&packet);
        }
        if self.checked && (self.has_ended() || self.is_changed(&packet, was_held)) {
            return;
        }
        match self.follow.as_mut().unwrap().on_segment(&segment) {
            Take::Pass => self.pass(&packet),
            Take::Read(offset) => self.read_on(&packet, offset as usize),
            Take::Gather(offset) => self.gather(packet, offset as usize, may_hold),
            Take::Park if self.parked.len() < 8 => self.parked.push(packet),
            Take::Park | Take::Drop => {}
            Take::Stay => unreachable!("no RST and no FIN is sent"),
        }
        let pinned = self.follow.as_ref().and_then(Follow::pinned);
        if pinned.is_some() && self.held.is_empty() && !self.checked {
            self.pins += 1;
            self.follow = None;
        }
    }

    fn has_ended(&self) -> bool {
        let follow = self.follow.as_ref();
        follow.is_some_and(|follow| follow.forbidden().is_some())
    }

    fn read_on(&mut self, packet: &Packet, offset: usize) {
        self.read(packet, offset);
        if !self.has_ended() {
            self.pass(packet);
        }
    }

    fn gather(&mut self, packet: Packet, offset: usize, may_hold: bool) {
        let follow = self.follow.as_mut().unwrap();
        if self.held.is_empty() && (!may_hold || self.rng.once_in(20)) {
            follow.stay();
            return self.read_on(&packet, offset);
        }
        let from = self.held.len();
        let room = HELD - from;
        let new = &packet.bytes[offset..];
        if room == 0 {
            self.parked.push(packet);
            return self.stay();
        }
        self.held.extend_from_slice(&new[..new.len().min(room)]);
        self.parked.push(packet);
        let first = |head: &[u8], parser: &HeadParser| {
            assert_eq!(parser.status(), Status::Complete(head.len()));
            assert!(head.ends_with(b"\r\n\r\n"));
            Ok(())
        };
        let ask = Duration::from_secs(1);
        let gathered = follow.gather(&mut self.ring, &self.held, from, self.now, ask, first);
        if follow.forbidden().is_some() {
            return;
        }
        match gathered {
            Gathered::Partial => {}
            Gathered::Complete => assert!(follow.is_asking() && follow.batch() > 0),
            Gathered::Stays => self.stay(),
        }
    }

    /// The dispatcher's and the back-end's answers, and time.
    fn answers(&mut self) {
        if self.has_ended() {
            return;
        }
        let Some(follow) = self.follow.as_mut() else {
            return;
        };
        if follow.is_asking() && self.rng.once_in(2) {
            if self.rng.once_in(4) && !follow.must_hand_over() {
                return self.stay();
            }
            let (start, _) = follow.release(self.now.saturating_add(Duration::from_secs(5)));
            assert_eq!(start, follow.held().0);
        } else if follow.is_releasing() && self.rng.once_in(2) {
            let (start, end) = follow.held();
            let at = u64::from(start.since(self.base));
            // A back-end lets go only of what it has got to its end.
            if self.children.last().unwrap().next() != at || self.rng.once_in(6) {
                if self.rng.once_in(2) && follow.ask_again(self.now) {
                    assert!(!follow.is_in_doubt());
                    self.now = follow.deadline();
                    assert_eq!(follow.on_timer(self.now), Expired::Again);
                    follow.release(self.now.saturating_add(Duration::from_secs(5)));
                    return;
                }
                return self.stay();
            }
            assert_eq!(end.since(start) as usize, self.held.len());
            follow.moved(end);
            self.moves += 1;
            let held = std::mem::take(&mut self.held);
            let starts = [&b"GET /"[..], b"HEAD /", b"POST /"];
            assert!(
                starts.iter().any(|word| held.starts_with(word)),
                "in the middle of a request"
            );
            let end = at + held.len() as u64;
            self.children.push(Child::new(at, held));
            for packet in std::mem::take(&mut self.parked) {
                if packet.at + packet.bytes.len() as u64 > end {
                    self.packet_of(packet, false, false);
                }
            }
        } else if self.rng.once_in(10) && !self.held.is_empty() {
            // Only the first of the waits ends by itself here; RELEASE is always answered.
            if !follow.is_releasing() {
                self.now = follow.deadline();
                assert_eq!(follow.on_timer(self.now), Expired::Stay);
                self.stay();
            }
        }
    }
}

fn simulate(seed: u64, checked: bool, evil: bool) -> Simulation {
    let mut rng = Rng(seed);
    let requests: Vec<_> = (0..2 + rng.below(18) as usize)
        .map(|n| request(&mut rng, n))
        .collect();
    let stream = requests.concat();
    let base = Seq(rng.next() as u32);
    let pipelines = rng.once_in(3);
    let (loss, mtu) = (rng.below(25), 100 + rng.below(1_400));

    // The first head is handed over with whatever came with it.
    let mut parser = HeadParser::new(HEAD_LIMIT);
    let head = match parser.feed(&stream) {
        Status::Complete(len) => len,
        other => panic!("{other:?}"),
    };
    let mut follow = Follow::new(&parser, base, HEAD_LIMIT, checked);
    let behind = head + rng.below((requests[0].len() - head + 1) as u64) as usize;
    follow.read(&mut [], &stream[head..behind]);
    if checked {
        follow.moved(base.add(behind as u32));
    }
    let first = Child::new(0, stream[..behind].to_vec());
    let mut sim = Simulation {
        rng,
        checked,
        ring: vec![0; RING],
        base,
        follow: Some(follow),
        held: Vec::new(),
        parked: Vec::new(),
        children: vec![first],
        now: Instant::from_millis(1),
        moves: 0,
        stays: 0,
        pins: 0,
    };
    let mut network: VecDeque<Packet> = VecDeque::new();
    let mut ends = vec![0u64];
    for request in &requests {
        ends.push(ends.last().unwrap() + request.len() as u64);
    }
    let mut sent = 0;
    for round in 0.. {
        assert!(round < 20_000, "seed {seed}: no progress");
        let acked = sim.children.last().unwrap().next();
        if acked == stream.len() as u64 || sim.has_ended() {
            break;
        }
        // A client that does not pipeline sends no request before the one before was answered.
        let limit = match pipelines {
            true => stream.len() as u64,
            false => *ends.iter().find(|end| **end > acked).unwrap(),
        };
        let mut at = acked;
        while at < limit && network.len() < 12 {
            let len = (1 + sim.rng.below(mtu)).min(limit - at);
            let mut bytes = stream[at as usize..(at + len) as usize].to_vec();
            let again = at < sent;
            sent = sent.max(at + len);
            if evil && sim.rng.once_in(if again { 2 } else { 60 }) {
                replace(&mut bytes, PLAIN, EVIL);
            }
            let packet = Packet { at, bytes };
            if sim.rng.below(100) >= loss {
                let place = match sim.rng.once_in(5) {
                    true => sim.rng.below(network.len() as u64 + 1) as usize,
                    false => network.len(),
                };
                network.insert(place, packet.clone());
            }
            if sim.rng.once_in(20) {
                network.push_back(packet);
            }
            at += len;
        }
        for _ in 0..=sim.rng.below(11) {
            if let Some(packet) = network.pop_front() {
                sim.packet(packet, true);
            }
            sim.answers();
        }
    }
    for child in sim.children.iter().filter(|_| evil) {
        let found = reserved_targets(&child.bytes);
        assert!(!found, "seed {seed}: a server has read a reserved target");
    }
    if evil {
        return sim;
    }
    assert_eq!(
        sim.follow.as_ref().and_then(Follow::forbidden),
        None,
        "seed {seed}"
    );
    // Every byte, at the child whose turn it was.
    let mut at = 0;
    for (number, child) in sim.children.iter().enumerate() {
        assert_eq!(child.from, at, "seed {seed}: child {number}");
        let end = sim
            .children
            .get(number + 1)
            .map_or(stream.len() as u64, |next| next.from);
        assert_eq!(
            child.next(),
            end,
            "seed {seed}: child {number} has too much or too little"
        );
        let want = &stream[at as usize..end as usize];
        assert!(
            child.bytes == want,
            "seed {seed}: child {number} has other bytes"
        );
        assert!(
            ends.contains(&child.from),
            "seed {seed}: child {number} begins within a request"
        );
        at = end;
    }
    sim
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let mut from = 0;
    while let Some(place) = bytes[from..].windows(old.len()).position(|w| w == old) {
        from += place;
        bytes[from..from + old.len()].copy_from_slice(new);
    }
}

/// Does a server find a request for a node's directory in this?
fn reserved_targets(bytes: &[u8]) -> bool {
    let mut parser = HeadParser::new(HEAD_LIMIT);
    let mut reserved = bytes[..bytes.len().min(16)]
        .windows(EVIL.len())
        .any(|w| w == EVIL);
    if !matches!(parser.feed(bytes), Status::Complete(_)) {
        return reserved;
    }
    let mut framer = Framer::after(&parser);
    let mut left = &bytes[parser.seen()..];
    loop {
        let before = left;
        let (used, event) = framer.next(Some(&mut parser), left);
        left = &left[used..];
        match event {
            Some(Event::Request { head_len }) => {
                let head = &before[used - usize::from(head_len)..used];
                reserved |= parser.target_span().of(head).starts_with(EVIL);
            }
            Some(_) => {}
            None => return reserved,
        }
    }
}

fn sums(seeds: std::ops::Range<u64>, checked: bool) -> (usize, usize, usize) {
    let mut sums = (0, 0, 0);
    for seed in seeds {
        let sim = simulate(seed, checked, false);
        sums = (sums.0 + sim.moves, sums.1 + sim.stays, sums.2 + sim.pins);
    }
    println!("moves, stays, pins: {sums:?}");
    sums
}

#[test]
fn every_byte_reaches_the_child_whose_turn_it_is() {
    let sums = sums(0..600, false);
    assert!(sums.0 > 600 && sums.1 > 400 && sums.2 > 100, "{sums:?}");
}

#[test]
fn so_it_does_where_everything_is_read() {
    let sums = sums(1_000..1_600, true);
    assert!(sums.0 > 600 && sums.1 > 400 && sums.2 == 0, "{sums:?}");
}

#[test]
fn no_server_reads_what_was_not_checked() {
    let (mut ended, mut went_on) = (0, 0);
    for seed in 2_000..3_500 {
        let sim = simulate(seed, true, true);
        match sim.follow.and_then(|follow| follow.forbidden()) {
            Some(Forbidden::Reserved) => ended += 1,
            Some(Forbidden::Unread) => panic!("seed {seed}: all can be read"),
            None => went_on += 1,
        }
    }
    println!("ended, went on: {ended}, {went_on}");
    assert!(ended > 200 && went_on > 200, "{ended}, {went_on}");
}
