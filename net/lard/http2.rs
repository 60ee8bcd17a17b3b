// SPDX-License-Identifier: GPL-2.0

//! A connection that speaks HTTP/2 from its first byte, until it is handed over.
//!
//! It stays with the node it is handed to, in every mode in which it may be there: its requests share
//! the state of their compression, and are interleaved. Which node that is its first request decides, if
//! that can be read when the connection is handed over; if not, the connection does. In the mode
//! *forward* nothing may reach a server that was not read, so there it is answered that it has to speak
//! the older version.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use lard_core::addr::Endpoint;
use lard_core::content::Asked;
use lard_core::http::http2::{Opening, Progress, Request, Unread};

use crate::open::{quiet, Context};
use crate::service::Wanted;
use crate::stats::Counter;

/// The beginning of such a connection, or of one that may become that.
pub(crate) struct Http2 {
    opening: Opening,
    client: Endpoint,
}

impl Http2 {
    /// Of this client, whose bytes were not looked at yet.
    pub(crate) fn new(client: Endpoint) -> Self {
        Self {
            opening: Opening::default(),
            client,
        }
    }

    /// `stream` has grown; it is all of the connection.
    pub(crate) fn feed(&mut self, stream: &[u8]) -> Progress {
        self.opening.feed(stream)
    }

    /// What is wanted for the connection, of which `stream` was looked at, and why not what its first
    /// request asks for, if so.
    pub(crate) fn wanted(&self, cx: &Context<'_>, stream: &[u8]) -> (Wanted, Option<Counter>) {
        let mut fields = KVec::new();
        let first = match fields.resize(self.opening.room(stream.len()), 0, quiet()) {
            Ok(()) => self.opening.request(stream, &mut fields),
            Err(_) => {
                let wanted = cx.services.ask_http2(None, &self.client, cx.hash_key);
                return (wanted, Some(Counter::NoMemory));
            }
        };
        let asked = first.map(|Request { method, target }| Asked::without_fields(method, target));
        let wanted = cx
            .services
            .ask_http2(asked.as_ref().ok(), &self.client, cx.hash_key);
        (wanted, asked.err().map(Counter::from))
    }
}

/// Why a connection is not routed by its first request.
impl From<Unread> for Counter {
    fn from(why: Unread) -> Self {
        match why {
            Unread::NoRequest => Counter::Http2NoRequest,
            Unread::Frames => Counter::Http2Frames,
            Unread::Cut => Counter::Http2Cut,
            Unread::Fields => Counter::Http2Fields,
        }
    }
}
