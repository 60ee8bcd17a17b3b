// SPDX-License-Identifier: GPL-2.0

//! The parameters of all policies: one list of names, defaults and limits.
//!
//! A policy that is not asked keeps its parameters, so they can be set before it is chosen.

use core::fmt;

/// The parameters. Thresholds are active connections for each unit of a node's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Below this a node is potentially idle (`lard`, `lardr`, the admission limit).
    pub t_low: u32,
    /// Above this a request waits noticeably longer than on an unloaded node.
    pub t_high: u32,
    /// Seconds for which nobody must have joined or left the nodes of a target before one of them
    /// is dropped (`lardr`).
    pub k_s: u32,
    /// Below this more work costs nothing (`extlard`).
    pub l_idle: u32,
    /// Above this a node takes nothing that another could take.
    pub l_overload: u32,
    /// What it costs to read a target from disk; its delivery out of a cache costs 1.
    pub miss_cost: u32,
    /// With fewer requests waiting for it a disk is taken for idle.
    pub disk_queue: u32,
    /// Most load of a node, in hundredths of the average (`chbl`).
    pub balance_percent: u32,
    /// Connections beyond which others wait, S of the papers; [`Params::OFF`] or [`Params::AUTO`].
    pub max_connections: u32,
    /// Milliseconds for which a connection waits, at most.
    pub queue_time_ms: u32,
    /// Connections that wait, at most.
    pub queue_max: u32,
}

/// What is known of a parameter beforehand.
#[derive(Clone, Copy, Debug)]
pub struct ParamSpec {
    /// Its name in commands.
    pub name: &'static str,
    /// What it is unless it was changed.
    pub default: u32,
    /// The least it can be.
    pub min: u32,
    /// The most it can be.
    pub max: u32,
    /// Values that have a name, inside of the limits or outside.
    words: &'static [(&'static str, u32)],
    field: fn(&mut Params) -> &mut u32,
}

impl ParamSpec {
    /// The value that a text means: a number, or the name of a value. Its limits are checked by
    /// [`Params::with`].
    pub fn parse(&self, text: &str) -> Option<u32> {
        let word = self.words.iter().find(|(word, _)| *word == text);
        word.map_or_else(|| text.parse().ok(), |(_, value)| Some(*value))
    }

    /// The name of a value, if it has one.
    pub fn word(&self, value: u32) -> Option<&'static str> {
        let word = self.words.iter().find(|(_, named)| *named == value);
        word.map(|(word, _)| *word)
    }
}

/// Number of parameters.
pub const PARAMS: usize = 11;

impl Params {
    /// Largest threshold: beyond what a machine has ports for, and far from any overflow.
    pub const MAX: u32 = 1_000_000;

    /// [`Params::max_connections`]: nobody has to wait.
    pub const OFF: u32 = 0;

    /// [`Params::max_connections`]: the papers' limit, with the policies that have T_low and T_high.
    pub const AUTO: u32 = u32::MAX;

    /// The papers' values: 25 connections keep a disk busy, 65 bound the delay (\[3\]); 30, 130, 50
    /// and 5 are those of the prototype in \[2\]. A quarter above the average is what the authors of
    /// bounded loads suggest. The papers have an admission limit, [`Self::AUTO`]; their clients kept no
    /// connection open that they did not use, today's would shut out others. The times and numbers of
    /// those who wait are not in the papers.
    pub const DEFAULT: Params = Params {
        t_low: 25,
        t_high: 65,
        k_s: 20,
        l_idle: 30,
        l_overload: 130,
        miss_cost: 50,
        disk_queue: 5,
        balance_percent: 125,
        max_connections: Self::OFF,
        queue_time_ms: 5_000,
        queue_max: 16_384,
    };

    /// All of them, in the order of the structure.
    pub const ALL: [ParamSpec; PARAMS] = [
        spec("t-low", Self::DEFAULT.t_low, 1..=Self::MAX, |p| {
            &mut p.t_low
        }),
        spec("t-high", Self::DEFAULT.t_high, 1..=Self::MAX, |p| {
            &mut p.t_high
        }),
        spec("k-s", Self::DEFAULT.k_s, 1..=86_400, |p| &mut p.k_s),
        spec("l-idle", Self::DEFAULT.l_idle, 1..=Self::MAX, |p| {
            &mut p.l_idle
        }),
        spec("l-overload", Self::DEFAULT.l_overload, 1..=Self::MAX, |p| {
            &mut p.l_overload
        }),
        spec("miss-cost", Self::DEFAULT.miss_cost, 1..=Self::MAX, |p| {
            &mut p.miss_cost
        }),
        spec("disk-queue", Self::DEFAULT.disk_queue, 0..=Self::MAX, |p| {
            &mut p.disk_queue
        }),
        spec(
            "balance-percent",
            Self::DEFAULT.balance_percent,
            101..=1_000,
            |p| &mut p.balance_percent,
        ),
        ParamSpec {
            words: &[("off", Self::OFF), ("auto", Self::AUTO)],
            ..spec(
                "max-connections",
                Self::DEFAULT.max_connections,
                0..=Self::MAX,
                |p| &mut p.max_connections,
            )
        },
        spec(
            "queue-time-ms",
            Self::DEFAULT.queue_time_ms,
            1..=600_000,
            |p| &mut p.queue_time_ms,
        ),
        spec("queue-max", Self::DEFAULT.queue_max, 0..=65_536, |p| {
            &mut p.queue_max
        }),
    ];

    /// The value of the parameter at `index` of [`Params::ALL`]; 0 if there is none.
    pub fn value(mut self, index: usize) -> u32 {
        let spec = Self::ALL.get(index);
        spec.map_or(0, |spec| *(spec.field)(&mut self))
    }

    /// These parameters with some of them changed; an error if a name, a value, or the values
    /// together are wrong.
    pub fn with<'a, I>(mut self, changes: I) -> Result<Self, ParamError>
    where
        I: IntoIterator<Item = (&'a str, u32)>,
    {
        for (name, value) in changes {
            let spec = Self::ALL.iter().find(|spec| spec.name == name);
            let spec = spec.ok_or(ParamError::Unknown)?;
            if !(spec.min..=spec.max).contains(&value) && spec.word(value).is_none() {
                return Err(ParamError::Range(spec.name, spec.min, spec.max));
            }
            *(spec.field)(&mut self) = value;
        }
        if self.t_low >= self.t_high {
            return Err(ParamError::Order("t-low", "t-high"));
        }
        if self.l_idle >= self.l_overload {
            return Err(ParamError::Order("l-idle", "l-overload"));
        }
        Ok(self)
    }
}

impl Default for Params {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const fn spec(
    name: &'static str,
    default: u32,
    range: core::ops::RangeInclusive<u32>,
    field: fn(&mut Params) -> &mut u32,
) -> ParamSpec {
    ParamSpec {
        name,
        default,
        min: *range.start(),
        max: *range.end(),
        words: &[],
        field,
    }
}

/// Why parameters were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamError {
    /// There is no parameter of that name.
    Unknown,
    /// The named one must be between the first and the second number.
    Range(&'static str, u32, u32),
    /// The first one must be below the second.
    Order(&'static str, &'static str),
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamError::Unknown => f.write_str("there is no such parameter"),
            ParamError::Range(name, min, max) => {
                write!(f, "{name} must be between {min} and {max}")
            }
            ParamError::Order(low, high) => write!(f, "{low} must be below {high}"),
        }
    }
}

impl core::error::Error for ParamError {}
