// SPDX-License-Identifier: GPL-2.0

//! Parameters that can be changed while a node works, per network namespace.
//!
//! There is one list of them, with name, default, limits and meaning. They are read without a lock,
//! so a change takes effect at once and for everything that looks at them from then on. Those of the
//! front-end's TCP are copied into its configuration by [`Params::apply`].
//!
//! The dispatcher's policy and the parameters of the policies are set by the same commands and kept by
//! the dispatcher.

#![forbid(unsafe_code)]

use core::time::Duration;
use kernel::sync::atomic::{Atomic, Relaxed};
use lard_core::tcp;

macro_rules! params {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $default:literal, $min:literal ..= $max:literal;)+) => {
        /// One parameter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Param {
            $($(#[doc = $doc])+ $variant,)+
        }

        /// All parameters, in order.
        const ALL: &[Spec] = &[$(Spec { name: $name, default: $default, min: $min, max: $max },)+];
    };
}

/// What is known about a parameter beforehand.
#[derive(Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) default: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
}

params! {
    /// Milliseconds between two PINGs to a peer.
    PingInterval = "ping-interval-ms", 500, 50..=60_000;
    /// Milliseconds of silence after which a peer is taken for dead.
    DeadAfter = "dead-after-ms", 3_000, 200..=600_000;
    /// Milliseconds for which requests to the dispatcher are held back while answers are
    /// outstanding, at most.
    AssignPatience = "assign-patience-ms", 100, 1..=10_000;
    /// Bytes of the longest request head.
    HeadLimit = "head-limit", 16_384, 512..=60_000;
    /// Milliseconds a client may wait before it sends the first byte.
    IdleTimeout = "idle-timeout-ms", 60_000, 1_000..=3_600_000;
    /// Milliseconds a request head may take from its first byte to its last.
    HeadTimeout = "head-timeout-ms", 30_000, 1_000..=3_600_000;
    /// Milliseconds that the first request of a connection of HTTP/2 is waited for behind its preface.
    Http2Wait = "http2-wait-ms", 100, 0..=3_600_000;
    /// Milliseconds a TCP handshake may take.
    HalfOpenTimeout = "half-open-timeout-ms", 10_000, 1_000..=60_000;
    /// Milliseconds that assignment and hand-off may take together.
    HandoffTimeout = "handoff-timeout-ms", 5_000, 200..=60_000;
    /// Seconds a handed-over connection may be silent before the front-end forgets it.
    ForwardIdle = "forward-idle-s", 7_935, 10..=604_800;
    /// Milliseconds of silence behind an answer after which a handed-over connection counts as idle.
    ConnIdle = "conn-idle-ms", 1_000, 100..=3_600_000;
    /// Milliseconds for which the front-end remembers a connection whose server closed first, or whose
    /// client has closed while its back-end has no control connection to report the end on; and one
    /// that it has answered itself, 60,000 at most. As long lies between two questions to a back-end about
    /// the connections of which nothing was heard meanwhile.
    TimeWait = "time-wait-ms", 70_000, 1_000..=600_000;
    /// 1: the client of a back-end that has fallen silent is reset when it sends the next packet, as
    /// expire_nodest_conn of IPVS does. 0: its packets are passed on, in case the back-end comes back.
    ExpireNodest = "expire-nodest", 0, 0..=1;
    /// Half-open connections beyond which SYNs are answered with cookies.
    HalfOpenMax = "half-open-max", 4_096, 0..=1_048_576;
    /// Connections before their hand-off at once; beyond, SYNs are dropped.
    OpenMax = "open-max", 131_072, 1..=4_194_304;
    /// Bytes of unfinished request heads, beyond the first 2,048 of each, and of the memory of packets that
    /// wait for a hand-off, at once.
    HeadMemory = "head-memory", 67_108_864, 65_536..=4_294_967_295;
}

/// Why a parameter was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParamError {
    /// There is none of this name.
    Unknown,
    /// The value is not a number.
    NotANumber,
    /// The value is below the first or above the second.
    OutOfRange(u64, u64),
}

/// The parameters of one namespace.
pub(crate) struct Params([Atomic<u64>; ALL.len()]);

impl Params {
    /// All at their defaults.
    pub(crate) fn new() -> Self {
        Self(core::array::from_fn(|i| {
            Atomic::new(ALL.get(i).map_or(0, |spec| spec.default))
        }))
    }

    /// The value of a parameter. Any context.
    #[inline]
    pub(crate) fn get(&self, param: Param) -> u64 {
        self.at(usize::from(param as u8))
    }

    /// The value of a parameter that fits in 32 bits by its limits.
    #[inline]
    pub(crate) fn get_u32(&self, param: Param) -> u32 {
        u32::try_from(self.get(param)).unwrap_or(u32::MAX)
    }

    /// The value of the parameter at `index`; 0 if there is none.
    pub(crate) fn at(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |value| value.load(Relaxed))
    }

    /// The parameter at `index`, if there is one.
    pub(crate) fn spec(index: usize) -> Option<&'static Spec> {
        ALL.get(index)
    }

    /// Checks a change; the result is for [`Params::set`].
    pub(crate) fn check(name: &str, value: &str) -> Result<(usize, u64), ParamError> {
        let (index, spec) = ALL
            .iter()
            .enumerate()
            .find(|(_, spec)| spec.name == name)
            .ok_or(ParamError::Unknown)?;
        let value = value.parse().map_err(|_| ParamError::NotANumber)?;
        if !(spec.min..=spec.max).contains(&value) {
            return Err(ParamError::OutOfRange(spec.min, spec.max));
        }
        Ok((index, value))
    }

    /// Carries out a change that was checked.
    pub(crate) fn set(&self, (index, value): (usize, u64)) {
        if let Some(place) = self.0.get(index) {
            place.store(value, Relaxed);
        }
    }

    /// Copies what concerns the front-end's TCP.
    pub(crate) fn apply(&self, config: &mut tcp::Config) {
        let ms = |param| Duration::from_millis(self.get(param));
        config.head_limit = self.get_u32(Param::HeadLimit);
        config.idle_timeout = ms(Param::IdleTimeout);
        config.head_timeout = ms(Param::HeadTimeout);
        config.http2_wait = ms(Param::Http2Wait);
        config.half_open_timeout = ms(Param::HalfOpenTimeout);
        config.handoff_timeout = ms(Param::HandoffTimeout);
        config.conn_idle = ms(Param::ConnIdle);
        config.time_wait = ms(Param::TimeWait);
        config.forward_idle = Duration::from_secs(self.get(Param::ForwardIdle));
    }
}
