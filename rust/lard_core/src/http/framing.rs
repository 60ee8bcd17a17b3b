// SPDX-License-Identifier: GPL-2.0

//! Where the requests of a persistent connection begin and end.
//!
//! The front-end sees every byte the client sends. To treat each request for itself it has to know
//! where one ends and the next one begins, and it must not be wrong: bytes that it takes for a request
//! and the server takes for something else would go to the wrong node. So a stream is followed as
//! long as it can be read in one way only. From where it cannot, it is *pinned*: nothing is parsed any
//! more, and the connection stays with the server that has it, whose own reading then counts.
//!
//! ```text
//!           ┌─────────────────────────────────────────┐
//!           ▼                                         │ Request
//!  after ─▶ Body ─End─▶ Between ─Begins─▶ Head ───────┤
//!           │           ▲  │                │         │
//!           │ Closing   └──┘ empty line     │         │ Upgrade, CONNECT …
//!           └──────────────┴────────────────┴─────────┴──▶ pinned
//! ```
//!
//! Every byte of a head and of a chunk's frame is looked at once, data is passed over. A framer is
//! small, since each forwarded connection has one; the parser of a head, which is not, is the caller's
//! and needed only while a head is incomplete. What is decided in which case is in
//! Documentation/networking/lard-framing.rst.
//!
//! ```
//! use lard_core::http::{Event, Framer, HeadParser};
//!
//! let first = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n";
//! let mut parser = HeadParser::new(8_192);
//! parser.feed(first);
//! let mut framer = Framer::after(&parser);
//!
//! let stream = b"abcGET /b HTTP/1.1\r\nHost: h\r\n\r\n";
//! assert_eq!(framer.next(None, stream), (3, Some(Event::End)));
//! assert_eq!(framer.next(None, &stream[3..]), (0, Some(Event::Begins)));
//! let mut parser = HeadParser::new(8_192);
//! let request = framer.next(Some(&mut parser), &stream[3..]);
//! assert_eq!(request, (28, Some(Event::Request { head_len: 28 })));
//! assert_eq!(framer.next(None, b""), (0, Some(Event::End)));
//! assert_eq!(framer.next(None, b""), (0, None));
//! ```

use super::{BadHead, Body, BodyScanner, HeadParser, Method, Scanned, Status};
use core::fmt;

/// Follows the stream of one client. Any context; it neither allocates nor blocks.
#[derive(Clone, Debug)]
pub struct Framer {
    /// How many bytes of the stream have been passed.
    position: u64,
    body: BodyScanner,
    requests: u32,
    state: State,
    /// Empty lines since the last request.
    empty_lines: u8,
    /// May another request follow the current one?
    persistent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Behind a head.
    Body,
    /// Behind a request, or an empty line that follows one.
    Between,
    /// Behind the CR of such a line.
    BetweenLf,
    Head,
    /// Pinned, which is still to be said.
    Pinning(Pinned),
    Pinned(Pinned),
}

/// What happened in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next byte is the first one of a request, and a parser is needed for its head.
    Begins,
    /// A head of so many bytes is complete. It began behind the empty lines there may be, and its
    /// parser knows the rest. [`Framer::pinned`] says whether anything can be known about what
    /// follows.
    Request {
        /// Length of the head, in bytes.
        head_len: u16,
    },
    /// The request is complete, head and body.
    End,
    /// From here nothing is known. This is said once and nothing comes after it.
    Pinned(Pinned),
}

/// Why a stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pinned {
    /// What should be a head is none, or has more than one reading.
    Head(BadHead),
    /// The frame of a chunk is wrong, or has more than one reading.
    Chunk,
    /// The request was the last one of its connection.
    Closing,
    /// The request wants another protocol behind it (RFC 9110, 7.8).
    Upgrade,
    /// The request wants a tunnel (RFC 9110, 9.3.6).
    Connect,
    /// The connection speaks HTTP/2 from its beginning (RFC 9113, 3.3).
    Http2,
    /// The request has a body that means nothing with its method.
    Content,
    /// The request expects something other than `100-continue`, or that without a body to send.
    Expectation,
    /// The caller could not show all of the stream.
    Lost,
}

impl Pinned {
    /// A stable name, for counters and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Pinned::Head(_) => "head",
            Pinned::Chunk => "chunk",
            Pinned::Closing => "closing",
            Pinned::Upgrade => "upgrade",
            Pinned::Connect => "connect",
            Pinned::Http2 => "http2",
            Pinned::Content => "content",
            Pinned::Expectation => "expectation",
            Pinned::Lost => "lost",
        }
    }

    /// For the request whose head `parser` has read: can what is behind the head be known?
    fn behind(parser: &HeadParser) -> Option<Pinned> {
        let body = parser.body();
        if parser.method() == Method::Connect {
            Some(Pinned::Connect)
        } else if parser.upgrade() {
            Some(Pinned::Upgrade)
        } else if parser.expects_other() || (parser.expects_continue() && body == Body::None) {
            Some(Pinned::Expectation)
        } else if body != Body::None && parser.method().ignores_content() {
            Some(Pinned::Content)
        } else {
            None
        }
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pinned::Head(bad) => write!(f, "head: {bad}"),
            other => f.write_str(other.name()),
        }
    }
}

impl Framer {
    /// How many empty lines may stand between two requests: as many as before a first one.
    const MAX_EMPTY_LINES: u8 = HeadParser::MAX_EMPTY_LINES;

    /// For a connection whose first head `parser` has read. If it has not found that complete, the
    /// connection is pinned.
    pub fn after(parser: &HeadParser) -> Self {
        let mut framer = Framer {
            position: parser.seen() as u64,
            body: BodyScanner::new(Body::None),
            requests: 0,
            state: State::Body,
            empty_lines: 0,
            persistent: false,
        };
        match parser.status() {
            Status::Complete(_) => framer.begin(parser),
            Status::Bad(_) if parser.is_http2() => framer.pin(Pinned::Http2),
            Status::Bad(bad) => framer.pin(Pinned::Head(bad)),
            Status::Partial => framer.pin(Pinned::Lost),
        }
        framer
    }

    /// Takes the next bytes up to the next event. Says how many of them it took: all of them if there
    /// was no event, unless the stream is pinned. To be called until there is no event, also with no
    /// bytes left: the end of a request without a body has no byte of its own.
    ///
    /// `head` parses the head of the next request. It is needed from [`Event::Begins`] to
    /// [`Event::Request`], and is restarted where a head begins.
    pub fn next(
        &mut self,
        mut head: Option<&mut HeadParser>,
        bytes: &[u8],
    ) -> (usize, Option<Event>) {
        let mut used = 0usize;
        loop {
            let left = bytes.get(used..).unwrap_or_default();
            let (n, event) = match self.state {
                State::Pinning(why) => {
                    self.state = State::Pinned(why);
                    (0, Some(Event::Pinned(why)))
                }
                State::Pinned(_) => return (used, None),
                State::Body => self.body(left),
                State::Between | State::BetweenLf => self.between(head.as_deref_mut(), left),
                State::Head => self.head(head.as_deref_mut(), left),
            };
            used = used.saturating_add(n);
            self.position = self.position.saturating_add(n as u64);
            if event.is_some() || (used == bytes.len() && !self.has_news()) {
                return (used, event);
            }
        }
    }

    /// How many bytes of the stream have been passed. Exact unless pinned.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Is the last request complete, and nothing seen of another one but empty lines?
    pub const fn at_boundary(&self) -> bool {
        matches!(self.state, State::Between | State::BetweenLf)
    }

    /// Heads completed, the first one included; wraps around.
    pub const fn requests(&self) -> u32 {
        self.requests
    }

    /// Why nothing is known about the bytes from here, if so.
    pub const fn pinned(&self) -> Option<Pinned> {
        match self.state {
            State::Pinning(why) | State::Pinned(why) => Some(why),
            _ => None,
        }
    }

    /// How many of the next bytes are data, whatever they are. These may be skipped, so that they need
    /// neither be there nor in order.
    pub const fn skippable(&self) -> u64 {
        match self.state {
            State::Body => self.body.skippable(),
            _ => 0,
        }
    }

    /// Passes over up to `n` bytes of data and says over how many. [`Framer::next`] tells what that
    /// ended.
    pub fn skip(&mut self, n: u64) -> u64 {
        let n = self.body.skip(n.min(self.skippable()));
        self.position = self.position.saturating_add(n);
        n
    }

    /// Nothing more is to be parsed, because of what only the caller knows: that a host is none
    /// ([`target::key`](super::target::key)), or that bytes are missing.
    pub fn pin(&mut self, why: Pinned) {
        if self.pinned().is_none() {
            self.state = State::Pinning(why);
        }
    }

    /// A state that has something to say without further bytes.
    const fn has_news(&self) -> bool {
        matches!(self.state, State::Pinning(_))
    }

    fn body(&mut self, left: &[u8]) -> (usize, Option<Event>) {
        match self.body.feed(left) {
            Scanned::Partial => (left.len(), None),
            Scanned::Complete(n) => {
                self.empty_lines = 0;
                self.state = if self.persistent {
                    State::Between
                } else {
                    State::Pinning(Pinned::Closing)
                };
                (n, Some(Event::End))
            }
            Scanned::Bad(_) => {
                self.pin(Pinned::Chunk);
                (0, None)
            }
        }
    }

    /// An empty line, or the beginning of a head.
    fn between(&mut self, head: Option<&mut HeadParser>, left: &[u8]) -> (usize, Option<Event>) {
        let Some(b) = left.first() else {
            return (0, None);
        };
        match (self.state, b) {
            (State::BetweenLf, b'\n') => {
                self.empty_lines = self.empty_lines.saturating_add(1);
                self.state = State::Between;
                if self.empty_lines > Self::MAX_EMPTY_LINES {
                    self.pin(Pinned::Head(BadHead::EmptyLines));
                }
                (1, None)
            }
            (State::BetweenLf, _) => {
                self.pin(Pinned::Head(BadHead::BareCr));
                (0, None)
            }
            (_, b'\r') => {
                self.state = State::BetweenLf;
                (1, None)
            }
            _ => {
                let Some(head) = head else {
                    return (0, Some(Event::Begins));
                };
                head.restart();
                self.state = State::Head;
                (0, None)
            }
        }
    }

    fn head(&mut self, head: Option<&mut HeadParser>, left: &[u8]) -> (usize, Option<Event>) {
        let Some(head) = head else {
            if !left.is_empty() {
                self.pin(Pinned::Lost);
            }
            return (0, None);
        };
        let before = head.seen();
        let status = head.feed(left);
        let n = head.seen().saturating_sub(before);
        match status {
            Status::Partial => (n, None),
            Status::Complete(len) => {
                self.begin(head);
                // CAST: a parser's limit is 16 bits.
                let head_len = len as u16;
                (n, Some(Event::Request { head_len }))
            }
            Status::Bad(bad) => {
                self.pin(Pinned::Head(bad));
                (n, None)
            }
        }
    }

    /// A head is complete.
    fn begin(&mut self, head: &HeadParser) {
        self.requests = self.requests.wrapping_add(1);
        self.body = BodyScanner::new(head.body());
        self.persistent = head.keep_alive();
        self.state = match Pinned::behind(head) {
            Some(why) => State::Pinning(why),
            None => State::Body,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 200;
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    /// A framer behind `first`, which must be complete.
    fn after(first: &str) -> Framer {
        let mut parser = HeadParser::new(LIMIT);
        assert_eq!(parser.feed(first.as_bytes()), Status::Complete(first.len()));
        Framer::after(&parser)
    }

    /// All events, with the position each one is at.
    fn events(framer: &mut Framer, mut bytes: &[u8]) -> Vec<(u64, Event)> {
        let mut parser = HeadParser::new(LIMIT);
        let mut events = Vec::new();
        loop {
            let (used, event) = framer.next(Some(&mut parser), bytes);
            bytes = &bytes[used..];
            let Some(event) = event else {
                return events;
            };
            events.push((framer.position(), event));
        }
    }

    #[test]
    fn a_framer_is_small() {
        assert!(size_of::<Framer>() <= 40, "{}", size_of::<Framer>());
    }

    #[test]
    fn a_request_without_a_body_ends_with_its_head() {
        let mut framer = after("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(!framer.at_boundary());
        let start = GET.len() as u64;
        assert_eq!(events(&mut framer, b""), [(start, Event::End)]);
        assert!(framer.at_boundary());
        assert_eq!(framer.requests(), 1);
        assert_eq!(framer.pinned(), None);
    }

    #[test]
    fn pipelined_requests_are_told_apart() {
        let mut framer = after("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let batch = [GET, b"\r\n", GET, GET].concat();
        let head_len = GET.len() as u16;
        let len = u64::from(head_len);
        let request = Event::Request { head_len };
        assert_eq!(
            events(&mut framer, &batch),
            [
                (len, Event::End),
                (2 * len, request),
                (2 * len, Event::End),
                (3 * len + 2, request),
                (3 * len + 2, Event::End),
                (4 * len + 2, request),
                (4 * len + 2, Event::End),
            ]
        );
        assert_eq!(framer.requests(), 4);
    }

    #[test]
    fn a_head_needs_a_parser_from_its_first_byte() {
        let mut framer = after("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(framer.next(None, b"\r\nGET"), (0, Some(Event::End)));
        assert_eq!(framer.next(None, b"\r\nGET"), (2, Some(Event::Begins)));
        assert_eq!(framer.next(None, b"GET"), (0, Some(Event::Begins)));
        assert!(framer.at_boundary());
        let mut parser = HeadParser::new(LIMIT);
        assert_eq!(framer.next(Some(&mut parser), b"GET"), (3, None));
        assert!(!framer.at_boundary());
        // The parser is gone: what it knew of the head is as well.
        assert_eq!(framer.next(None, b""), (0, None));
        let lost = Some(Event::Pinned(Pinned::Lost));
        assert_eq!(framer.next(None, b" /"), (0, lost));
        assert_eq!(framer.next(None, b" /"), (0, None));
    }

    #[test]
    fn a_used_parser_begins_anew() {
        let mut framer = after("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let mut parser = HeadParser::new(LIMIT);
        parser.feed(b"POST /other HTTP/1.0\r\nContent-Le");
        assert_eq!(framer.next(None, GET), (0, Some(Event::End)));
        let head_len = GET.len() as u16;
        let request = Some(Event::Request { head_len });
        assert_eq!(framer.next(Some(&mut parser), GET), (GET.len(), request));
        assert_eq!(parser.method(), Method::Get);
        assert_eq!(parser.seen(), GET.len());
    }

    #[test]
    fn data_can_be_skipped() {
        let first = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000000\r\n\r\n";
        let mut framer = after(first);
        let start = first.len() as u64;
        assert_eq!(framer.next(None, b"abc"), (3, None));
        assert_eq!(framer.skippable(), 4_999_999_997);
        assert_eq!(framer.skip(1_000), 1_000);
        assert_eq!(framer.position(), start + 1_003);
        assert_eq!(framer.skip(u64::MAX), 4_999_998_997);
        assert_eq!(framer.skippable(), 0);
        assert_eq!(framer.skip(1), 0);
        assert_eq!(framer.next(None, b""), (0, Some(Event::End)));
        assert_eq!(framer.position(), start + 5_000_000_000);

        let mut framer = after("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(framer.skippable(), 0);
        assert_eq!(framer.next(None, b"1000\r\n"), (6, None));
        assert_eq!(framer.skip(u64::MAX), 0x1000);
        assert_eq!(framer.next(None, b"\r\n"), (2, None));
        assert_eq!(framer.skip(1), 0);
        assert_eq!(framer.next(None, b"0\r\n\r\n"), (5, Some(Event::End)));
    }

    #[test]
    fn what_pins_is_known_with_the_request() {
        for (fields, why) in [
            ("Upgrade: h2c\r\n", Pinned::Upgrade),
            ("Expect: 100-continue\r\n", Pinned::Expectation),
            ("Content-Length: 1\r\n", Pinned::Content),
        ] {
            let mut framer = after("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            framer.next(None, b"");
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            let head_len = head.len() as u16;
            let mut parser = HeadParser::new(LIMIT);
            let (used, event) = framer.next(Some(&mut parser), head.as_bytes());
            assert_eq!(
                (used, event),
                (head.len(), Some(Event::Request { head_len }))
            );
            assert_eq!(framer.pinned(), Some(why));
            let said = (0, Some(Event::Pinned(why)));
            assert_eq!(framer.next(Some(&mut parser), GET), said);
            assert_eq!(framer.next(Some(&mut parser), GET), (0, None));
        }
    }

    #[test]
    fn the_last_request_of_a_connection_is_known() {
        for first in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        ] {
            let at = first.len() as u64;
            let expected = [(at, Event::End), (at, Event::Pinned(Pinned::Closing))];
            assert_eq!(events(&mut after(first), GET), expected);
        }
        let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(events(&mut after(old), old.as_bytes()).len(), 3);
    }

    #[test]
    fn a_first_head_that_is_none_pins() {
        let framer = |bytes: &[u8]| {
            let mut parser = HeadParser::new(LIMIT);
            parser.feed(bytes);
            Framer::after(&parser).pinned()
        };
        assert_eq!(
            framer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Some(Pinned::Http2)
        );
        let other = Some(Pinned::Head(BadHead::VersionUnsupported));
        for bytes in [
            &b"PRI / HTTP/2.0\r\n"[..],
            b"GET / HTTP/2.0\r\n",
            b"PRI * HTTP/2.1\r\n",
        ] {
            assert_eq!(framer(bytes), other, "{}", bytes.escape_ascii());
        }
        assert_eq!(framer(b"GET /"), Some(Pinned::Lost));
    }

    #[test]
    fn the_first_reason_counts() {
        let mut framer = after("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        framer.pin(Pinned::Lost);
        framer.pin(Pinned::Chunk);
        let at = framer.position();
        assert_eq!(
            events(&mut framer, GET),
            [(at, Event::Pinned(Pinned::Lost))]
        );
        framer.pin(Pinned::Chunk);
        assert_eq!(events(&mut framer, GET), []);
        assert_eq!(framer.pinned(), Some(Pinned::Lost));
        assert_eq!(framer.skippable(), 0);
    }
}
