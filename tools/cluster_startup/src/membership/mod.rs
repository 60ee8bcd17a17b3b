// SPDX-License-Identifier: GPL-2.0

//! How a node becomes and stays a member: sockets made, authenticated and numbered here, then given
//! to the module.

pub mod auth;
pub mod dial;
pub mod line;
pub mod listen;
pub mod message;
pub mod node;
pub mod roster;
pub mod store;
#[cfg(test)]
mod tests;
