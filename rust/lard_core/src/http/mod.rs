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
//! ```
//! use lard_core::http::{target, HeadParser, Status};
//!
//! let head = b"GET /a?b HTTP/1.1\r\nHost: Example.com:80\r\n\r\n";
//! let mut parser = HeadParser::new(8_192);
//! assert_eq!(parser.feed(&head[..9]), Status::Partial);
//! assert_eq!(parser.feed(&head[9..]), Status::Complete(head.len()));
//! let key = target::key(head, &parser)?;
//! assert_eq!(key.to_string(), "example.com/a?b");
//! let hash = key.hash([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
//! # let _ = hash;
//! # Ok::<(), lard_core::http::BadHead>(())
//! ```
//!
//! # Layout
//!
//! * `parser` – [`HeadParser`]: bytes in, in any pieces; offsets and facts out
//! * `field` – the few fields whose values mean something here
//! * `target` – [`TargetKey`]: what the request asks for, and its keyed hash
//! * `key_parts` – [`KeyParts`]: what of a request makes its target
//! * `fields` – the other fields, and cookies
//! * `normal` – one spelling for equivalent ones
//! * `body` – [`Body`], [`BodyScanner`]: where the request ends
//! * `framing` – [`Framer`]: the requests of a persistent connection
//! * `response` – [`ResponseFramer`]: the answers to them, counted
//! * `rewrite` – [`Rewritten`]: a head that names the node to read from
//! * `http2` – what the first request of an HTTP/2 connection asks for
//! * `words` – [`Status`], [`Method`], [`Version`] and the like
//! * `chars` – the character classes of the grammar
//! * `error` – [`BadHead`]: everything that can be wrong, with its status

mod body;
mod chars;
mod error;
mod field;
pub mod fields;
mod framing;
pub mod http2;
mod key_parts;
pub(crate) mod normal;
mod parser;
mod response;
pub mod rewrite;
pub mod target;
mod words;

pub use body::{BadBody, Body, BodyScanner, Scanned};
pub use error::BadHead;
pub use framing::{Event, Framer, Pinned};
pub use key_parts::{hash_of_client, BadKeyParts, KeyParts, KeyPlaces};
pub use parser::HeadParser;
pub use response::ResponseFramer;
pub use rewrite::{BadRewrite, ReservedScan, Rewritten};
pub use target::TargetKey;
pub use words::{Form, Method, Span, Status, Version};

#[cfg(test)]
mod tests;
