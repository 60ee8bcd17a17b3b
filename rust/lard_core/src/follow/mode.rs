// SPDX-License-Identifier: GPL-2.0

//! The modes of persistent connections, which a service has one of.

use core::str::FromStr;

/// What becomes of further requests on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// They stay where the first one was assigned.
    #[default]
    Pin = 0,
    /// Each is assigned, and the connection moves to who serves it.
    Move = 1,
    /// Each is assigned, and the node that has the connection answers with the content of who should
    /// serve it.
    Forward = 2,
    /// Extended LARD decides between the node that has the connection and another one, which then
    /// serves the request by the mechanism that is set.
    Auto = 3,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 4] = [Mode::Pin, Mode::Move, Mode::Forward, Mode::Auto];

    /// The name that administrators use.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Pin => "pin",
            Mode::Move => "move",
            Mode::Forward => "forward",
            Mode::Auto => "auto",
        }
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        let found = Mode::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or(UnknownMode)
    }
}

/// There is no mode of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownMode;

impl core::fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the modes are pin, move, forward and auto")
    }
}

impl core::error::Error for UnknownMode {}
