// SPDX-License-Identifier: GPL-2.0

//! SYN cookies: answering without remembering.
//!
//! Past a threshold of half-open entries the front-end puts what it has to know into the sequence
//! number of its SYN-ACK, and reads it from the client's acknowledgement:
//!
//! ```text
//!  31      27 26   24 23                                            0
//! +----------+-------+-----------------------------------------------+
//! | epoch    | MSS   | keyed hash of tuple, client's ISN, epoch, MSS |
//! +----------+-------+-----------------------------------------------+
//! ```
//!
//! The epoch counts 64 s; a cookie is good in its own and the next one. A guess succeeds with one of
//! 2²⁸ tries.
//!
//! Window scale and SACK fit only into a timestamp, whose lowest bits the client echoes. A client
//! without timestamps gets neither. The bits are not authenticated: who changes them harms his own
//! connection.
//!
//! ```text
//!  31                                        5    4  3           0
//! +-------------------------------------------+------+-------------+
//! | clock                                     | SACK | wscale, or 15 |
//! +-------------------------------------------+------+-------------+
//! ```

use core::time::Duration;

use super::super::addr::Tuple;
use super::super::time::Instant;
use super::config::Config;
use super::emit::SegmentOut;
use super::isn::{ts_clock, Purpose, Secret};
use super::options::MAX_WSCALE;
use super::reason::Reason;
use super::responder::{Negotiated, Responder};
use super::segment::{Flags, Segment};
use super::seq::Seq;

/// How long after the last [`answer`] an acknowledgement can still carry a valid cookie. Outside of
/// this the shell need not [`check`] at all.
pub const MAX_AGE: Duration = Duration::from_secs(2 * EPOCH_SECS);

const EPOCH_SECS: u64 = 64;
const EPOCH_SHIFT: u32 = 27;
const EPOCH_MASK: u32 = 0x1f;
const MSS_SHIFT: u32 = 24;
const MSS_MASK: u32 = 0x7;
const HASH_MASK: u32 = 0x00ff_ffff;

/// The segment sizes a cookie can express: the least, tunnels and DSL, Ethernet, loopback-like.
const MSS_TABLE: [u16; 8] = [536, 1_220, 1_300, 1_360, 1_400, 1_440, 1_460, 8_960];

const TS_BITS: u32 = 5;
const TS_MASK: u32 = (1 << TS_BITS) - 1;
const TS_SACK: u32 = 1 << 4;
const TS_WSCALE: u32 = 0xf;
const TS_NO_WSCALE: u32 = 0xf;

/// Answers a SYN statelessly.
pub fn answer(
    cfg: &Config,
    secret: &Secret,
    tuple: &Tuple,
    seg: &Segment,
    now: Instant,
) -> Result<SegmentOut, Reason> {
    let mut n = Negotiated::from_syn(cfg, tuple, seg)?;
    let (index, mss) = expressible(n.mss);
    n.mss = mss;
    if !n.ts_ok {
        n.wscale_ok = false;
        n.sack_ok = false;
    }
    let epoch = epoch(now);
    let iss = cookie(secret, tuple, seg.seq, epoch, index);
    let mut responder = Responder::with(cfg, secret, tuple, seg.seq, iss, &n, now);
    let tsval = stamp(ts_clock(now).wrapping_add(secret.ts_offset(tuple)), &n);
    Ok(Responder::stamped(responder.syn_ack(cfg, now), tsval))
}

/// Takes the connection up from the segment that completes the handshake. The segment itself is then
/// for [`Responder::on_segment`], as any other.
///
/// A segment that is refused within [`MAX_AGE`] of an answer is to be dropped in silence: the segment
/// with the cookie's number may have been lost or overtaken, and will come again. A reset would end
/// an honest client's connection.
pub fn check(
    cfg: &Config,
    secret: &Secret,
    tuple: &Tuple,
    seg: &Segment,
    now: Instant,
) -> Result<Responder, Reason> {
    seg.check_flags()?;
    if seg.options.md5_or_ao {
        return Err(Reason::Signed);
    }
    if seg.flags.intersects(Flags::RST.with(Flags::SYN)) || !seg.flags.contains(Flags::ACK) {
        return Err(Reason::CookieInvalid);
    }
    let (irs, iss) = (seg.seq.sub(1), seg.ack.sub(1));
    let index = (iss.0 >> MSS_SHIFT) & MSS_MASK;
    // The newest epoch that ends in these five bits.
    let current = epoch(now);
    let age = current.wrapping_sub(u64::from(iss.0 >> EPOCH_SHIFT)) & u64::from(EPOCH_MASK);
    let made = current.wrapping_sub(age);
    if cookie(secret, tuple, irs, made, index) != iss {
        return Err(Reason::CookieInvalid);
    }
    if age > 1 {
        return Err(Reason::CookieExpired);
    }
    // CAST: three bits.
    let mss = MSS_TABLE
        .get(index as usize)
        .copied()
        .unwrap_or(super::config::MIN_MSS);
    let mut n = Negotiated {
        mss,
        snd_wscale: 0,
        wscale_ok: false,
        sack_ok: false,
        ts_ok: false,
        ts_recent: 0,
        window: seg.window,
    };
    let mut echoed = 0;
    if let (Some(ts), true) = (seg.options.ts, cfg.timestamps) {
        echoed = ts.ecr;
        n.ts_ok = true;
        n.ts_recent = ts.val;
        n.sack_ok = cfg.sack && ts.ecr & TS_SACK != 0;
        let wscale = ts.ecr & TS_WSCALE;
        if wscale != TS_NO_WSCALE && cfg.wscale.is_some() {
            n.wscale_ok = true;
            // CAST: four bits.
            n.snd_wscale = (wscale as u8).min(MAX_WSCALE);
        }
    }
    let mut responder = Responder::with(cfg, secret, tuple, irs, iss, &n, now);
    responder.resume_clock(echoed);
    Ok(responder)
}

fn epoch(now: Instant) -> u64 {
    now.as_secs() / EPOCH_SECS
}

fn cookie(secret: &Secret, tuple: &Tuple, irs: Seq, epoch: u64, index: u32) -> Seq {
    // The epoch fits 29 bits for a thousand years.
    let extra = (u64::from(irs.0) << 32) ^ (epoch << 3) ^ u64::from(index);
    // CAST: the low 24 bits of the hash, the low 5 bits of the epoch.
    let hash = secret.hash(Purpose::Cookie, tuple, extra) as u32 & HASH_MASK;
    let epoch = (epoch as u32 & EPOCH_MASK) << EPOCH_SHIFT;
    Seq(epoch | ((index & MSS_MASK) << MSS_SHIFT) | hash)
}

/// The largest size of the table that the client can take, and its index.
fn expressible(mss: u16) -> (u32, u16) {
    let mut best = (0, super::config::MIN_MSS);
    for (index, &size) in (0u32..).zip(MSS_TABLE.iter()) {
        if size <= mss {
            best = (index, size);
        }
    }
    best
}

/// The newest timestamp not after `clock` whose low bits say what was negotiated.
fn stamp(clock: u32, n: &Negotiated) -> u32 {
    let wscale = if n.wscale_ok {
        u32::from(n.snd_wscale) & TS_WSCALE
    } else {
        TS_NO_WSCALE
    };
    let sack = if n.sack_ok { TS_SACK } else { 0 };
    let stamped = clock & !TS_MASK | sack | wscale;
    if stamped & TS_MASK > clock & TS_MASK {
        stamped.wrapping_sub(1 << TS_BITS)
    } else {
        stamped
    }
}
