// SPDX-License-Identifier: GPL-2.0

//! The address family, as the samples use it.

#![forbid(unsafe_code)]

use socket2::{Domain, Socket, Type};
use std::io;

/// The family's number, unless `LARD_FAMILY` names another.
pub const FAMILY: i32 = 21;

/// A socket of the family.
pub fn socket() -> io::Result<Socket> {
    let family = std::env::var("LARD_FAMILY")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(FAMILY);
    Socket::new(Domain::from(family), Type::STREAM, None).map_err(|error| {
        io::Error::other(format!(
            "socket of family {family}: {error}: is the module lard loaded?"
        ))
    })
}
