// SPDX-License-Identifier: GPL-2.0

//! What can happen to a connection: scenarios for the simulation, each made by a seed.

pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Adopted,
    RefusedThenAdopted,
    RefusedByAll,
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    Proper,
    /// Closes its side behind the request.
    HalfClose,
    /// Stops in the middle of the head, for good.
    Stalls,
    /// Closes in the middle of the head.
    Truncates,
    /// Sends a head that is refused.
    Rude,
    /// Sends a head that never ends.
    Endless,
    /// Connects and never says a word, then leaves.
    Mute,
    /// Resets at a random moment.
    Aborts,
}

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub fate: Fate,
    pub manners: Manners,
    pub cookies: bool,
    pub loss: u64,
    pub dup: u64,
    pub jitter: u64,
    pub head: usize,
    pub body: usize,
    pub response: usize,
}

pub fn scenario(rng: &mut Rng) -> Scenario {
    let pick = |rng: &mut Rng, max: u64| {
        let bits = rng.below(max);
        rng.below(1 << bits) as usize
    };
    let bad_network = rng.chance(70);
    Scenario {
        fate: match rng.below(8) {
            0 => Fate::RefusedByAll,
            1 => Fate::Silent,
            2 => Fate::RefusedThenAdopted,
            _ => Fate::Adopted,
        },
        manners: match rng.below(14) {
            0 | 1 => Manners::HalfClose,
            2 => Manners::Stalls,
            3 => Manners::Truncates,
            4 => Manners::Rude,
            5 => Manners::Endless,
            6 => Manners::Mute,
            7 => Manners::Aborts,
            _ => Manners::Proper,
        },
        cookies: rng.chance(30),
        loss: if bad_network { rng.below(20) } else { 0 },
        dup: if bad_network { rng.below(15) } else { 0 },
        jitter: if bad_network { rng.below(60_000) } else { 0 },
        head: 20 + pick(rng, 14).min(16_000),
        body: if rng.chance(50) { pick(rng, 18) } else { 0 },
        response: pick(rng, 17),
    }
}

pub fn response(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// What the client has to say, and whether it closes right behind.
pub fn stream(s: &Scenario, rng: &mut Rng) -> (Vec<u8>, bool) {
    let mut head = vec![b'h'; s.head - 4];
    for byte in &mut head {
        *byte = b'a' + rng.below(26) as u8;
    }
    head.extend_from_slice(b"\r\n\r\n");
    let body = (0..s.body).map(|_| rng.next() as u8);
    match s.manners {
        Manners::Proper | Manners::Aborts => (head.into_iter().chain(body).collect(), false),
        Manners::HalfClose => (head.into_iter().chain(body).collect(), true),
        Manners::Stalls => {
            head.truncate(s.head / 2 * 2);
            (head, false)
        }
        Manners::Truncates => {
            head.truncate(s.head / 2);
            (head, true)
        }
        Manners::Rude => {
            head.insert(0, 0);
            (head, false)
        }
        Manners::Endless => (vec![b'x'; 200_000], false),
        Manners::Mute => (Vec::new(), false),
    }
}
