// SPDX-License-Identifier: GPL-2.0

//! Request heads (RFC 9110, RFC 9112).
//!
//! The front-end reads the head of a request to learn which node should serve it, and a server reads
//! the same bytes again. Wherever the two could disagree (line ends, folded or doubled fields, two
//! notions of the length) lies an attack, so this parser takes only what has one reading, and refuses
//! the rest with the status a server would use. It changes nothing: the server gets the bytes as they
//! came.
//!
//! ```text
//!   HTTP-message = start-line CRLF *( field-line CRLF ) CRLF [ message-body ]
//! ```
//!
//! # Layout
//!
//! * `parser` – [`HeadParser`]: bytes in, in any pieces; offsets and facts out
//! * `field` – the few fields whose values mean something here
//! * `target` – [`TargetKey`]: what the request asks for, and its keyed hash
//! * `body` – [`Body`], [`BodyScanner`]: where the request ends
//! * `words` – [`Status`], [`Method`], [`Version`] and the like
//! * `chars` – the character classes of the grammar
//! * `error` – [`BadHead`]: everything that can be wrong, with its status

mod body;
mod chars;
mod error;
mod field;
mod parser;
pub mod target;
mod words;

pub use body::{BadBody, Body, BodyScanner, Scanned};
pub use error::BadHead;
pub use parser::HeadParser;
pub use target::TargetKey;
pub use words::{Form, Method, Span, Status, Version};

#[cfg(test)]
mod tests;
