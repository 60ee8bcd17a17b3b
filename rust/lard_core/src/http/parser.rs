// SPDX-License-Identifier: GPL-2.0

//! The incremental parser of request heads.
//!
//! ```text
//!  Start ──▶ Method ─SP▶ Target ─SP▶ Version ─CRLF▶ Line ─CRLF▶ Done
//!  │   ▲                                            │  ▲
//!  └CRLF (a few)                                    ▼  └──────────── CRLF
//!                                                  Name ─":"▶ OWS ──▶ Value
//! ```
//!
//! It looks at each byte once, however the head is cut into pieces, and keeps no byte: the caller
//! stores the head contiguously and gets offsets into it. Once it is done, or has refused, further
//! bytes change nothing.

use super::chars::{self, TARGET, TOKEN};
use super::field::{Element, Field, List, Name, Number, Word};
use super::{BadHead, Body, Form, Method, Span, Status, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the request line.
    Start,
    /// Behind the CR of an empty line before the request line.
    StartLf,
    Method,
    /// Behind the space that ends the method.
    TargetStart,
    Target,
    /// Behind the space that ends the target; how many bytes of the version have passed.
    Version(u8),
    VersionLf,
    /// At the start of a line behind the request line.
    Line,
    Name,
    /// Behind the colon.
    ValueStart,
    Value,
    ValueLf,
    /// Behind the CR of the empty line.
    EndLf,
    Done,
    Bad(BadHead),
}

/// The parser. One for each connection whose head is being collected.
#[derive(Clone, Debug)]
pub struct HeadParser {
    state: State,
    limit: u16,
    /// How many bytes have been looked at.
    at: u16,
    empty_lines: u8,
    method: Span,
    target: Span,
    host: Option<Span>,
    form: Form,
    version: Version,
    /// The field whose value is being read.
    field: Field,
    name: Name,
    list: List,
    number: Number,
    content_length: Option<u64>,
    facts: Facts,
    method_kind: Method,
}

/// What the fields have said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    expect_continue: bool,
    expect_other: bool,
    transfer_encoding: bool,
    chunked: bool,
    /// The version begins with 2.
    two: bool,
}

impl HeadParser {
    /// The longest head any parser takes: what one offset can name.
    pub const MAX_LIMIT: usize = 65_535;

    /// How many empty lines may precede the request line. RFC 9112, 2.2, asks to ignore "at least
    /// one", for clients that put an extra CRLF behind a body; four is what generous servers take.
    pub(super) const MAX_EMPTY_LINES: u8 = 4;

    /// The longest method. The longest registered one has 17 letters (`UPDATEREDIRECTREF`).
    const MAX_METHOD: usize = 32;

    /// For a head of at most `limit` bytes, empty lines before it included.
    pub fn new(limit: usize) -> Self {
        HeadParser {
            state: State::Start,
            limit: u16::try_from(limit).unwrap_or(u16::MAX),
            at: 0,
            empty_lines: 0,
            method: Span::default(),
            target: Span::default(),
            host: None,
            form: Form::default(),
            version: Version::default(),
            field: Field::Other,
            name: Name::START,
            list: List::START,
            number: Number::START,
            content_length: None,
            facts: Facts::default(),
            method_kind: Method::default(),
        }
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, new: &[u8]) -> Status {
        let room = usize::from(self.limit.saturating_sub(self.at));
        let mut left = new.get(..room).unwrap_or(new);
        while !left.is_empty() && !self.is_settled() {
            let n = match self.eat(left) {
                Ok(n) => n,
                Err(bad) => {
                    self.state = State::Bad(bad);
                    break;
                }
            };
            // CAST: at most `room`, so the sum stays within the limit.
            self.at = self.at.saturating_add(n as u16);
            left = left.get(n..).unwrap_or_default();
        }
        if self.at >= self.limit && !self.is_settled() {
            self.state = State::Bad(self.too_long());
        }
        self.status()
    }

    /// What the last [`HeadParser::feed`] returned.
    pub fn status(&self) -> Status {
        match self.state {
            State::Done => Status::Complete(usize::from(self.at)),
            State::Bad(bad) => Status::Bad(bad),
            _ => Status::Partial,
        }
    }

    /// How many bytes have been looked at: once the head is complete, its length.
    pub const fn seen(&self) -> usize {
        self.at as usize
    }

    /// For another head, with the same limit.
    pub fn restart(&mut self) {
        *self = Self::new(usize::from(self.limit));
    }

    /// Has anything arrived but empty lines? If not, a client that closes gets no answer.
    pub const fn has_begun(&self) -> bool {
        !matches!(self.state, State::Start | State::StartLf)
    }

    /// Where the method stands.
    pub const fn method_span(&self) -> Span {
        self.method
    }

    /// The method, if it is one that matters here.
    pub const fn method(&self) -> Method {
        self.method_kind
    }

    /// Where the request target stands.
    pub const fn target_span(&self) -> Span {
        self.target
    }

    /// Its form.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// Where the value of Host stands, without the white space around it.
    pub const fn host_span(&self) -> Option<Span> {
        self.host
    }

    /// The version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Does the client want to go on using the connection after the response (RFC 9112, 9.3)?
    pub fn keep_alive(&self) -> bool {
        !self.facts.close && (self.version >= Version::Http11 || self.facts.keep_alive)
    }

    /// Does the client wait for a `100 Continue` before it sends the body? Not in HTTP/1.0, where the
    /// expectation must be ignored (RFC 9110, 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.facts.expect_continue && self.version >= Version::Http11
    }

    /// Does it expect something else, or more than once? What servers do then differs.
    pub const fn expects_other(&self) -> bool {
        self.facts.expect_other
    }

    /// Was the head refused because it is the beginning of a connection that speaks HTTP/2, which the
    /// client knows the server to understand?
    ///
    /// ```text
    /// PRI * HTTP/2.0 CRLF CRLF SM CRLF CRLF                       ; RFC 9113, 3.4
    /// ```
    pub fn is_http2(&self) -> bool {
        matches!(self.state, State::Bad(BadHead::VersionUnsupported))
            && self.facts.two
            && self.method_kind == Method::Pri
            && self.form == Form::Asterisk
    }

    /// Does the client name another protocol that it would speak behind this request (RFC 9110, 7.8)?
    /// It also has to name Upgrade in Connection and to speak HTTP/1.1, but there are servers that do
    /// not look.
    pub const fn upgrade(&self) -> bool {
        self.facts.upgrade
    }

    /// How the body behind the head is delimited. Meaningful once the head is complete.
    pub fn body(&self) -> Body {
        match self.content_length {
            _ if self.facts.chunked => Body::Chunked,
            Some(length) if length > 0 => Body::Length(length),
            _ => Body::None,
        }
    }

    const fn is_settled(&self) -> bool {
        matches!(self.state, State::Done | State::Bad(_))
    }

    /// What it means that the limit was reached here.
    const fn too_long(&self) -> BadHead {
        match self.state {
            State::Start | State::StartLf => BadHead::EmptyLines,
            State::Method => BadHead::MethodTooLong,
            State::TargetStart | State::Target | State::Version(_) | State::VersionLf => {
                BadHead::TargetTooLong
            }
            _ => BadHead::TooLarge,
        }
    }

    /// Looks at the first bytes of `left`, which is not empty, and says at how many.
    fn eat(&mut self, left: &[u8]) -> Result<usize, BadHead> {
        let &[b, ..] = left else {
            return Ok(0);
        };
        match self.state {
            State::Start => self.start(b)?,
            State::StartLf => {
                lf(b)?;
                self.empty_lines = self.empty_lines.saturating_add(1);
                if self.empty_lines > Self::MAX_EMPTY_LINES {
                    return Err(BadHead::EmptyLines);
                }
                self.state = State::Start;
            }
            State::Method => self.method_byte(b)?,
            State::TargetStart => self.target_start(b)?,
            State::Target => {
                let n = chars::run(left, TARGET);
                if n > 0 {
                    return Ok(n);
                }
                self.target_end(b)?;
            }
            State::Version(n) => self.version_byte(n, b)?,
            State::VersionLf => {
                lf(b)?;
                self.state = State::Line;
            }
            State::Line => self.line_start(b)?,
            State::Name => {
                if self.name.is_other() {
                    let n = chars::run(left, TOKEN);
                    if n > 0 {
                        return Ok(n);
                    }
                }
                self.name_byte(b)?;
            }
            State::ValueStart if matches!(b, b' ' | b'\t') => {}
            State::ValueStart => {
                self.value_start()?;
                self.state = State::Value;
                // The byte belongs to the value.
                return Ok(0);
            }
            State::Value => {
                let n = chars::value_run(left);
                if n > 0 {
                    self.value_bytes(left.get(..n).unwrap_or_default())?;
                    return Ok(n);
                }
                self.value_end(b)?;
            }
            State::ValueLf => {
                lf(b)?;
                self.state = State::Line;
            }
            State::EndLf => {
                lf(b)?;
                self.check()?;
                self.state = State::Done;
            }
            State::Done | State::Bad(_) => return Ok(0),
        }
        Ok(1)
    }

    /// ```text
    /// request-line = method SP request-target SP HTTP-version     ; RFC 9112, 3
    /// ```
    fn start(&mut self, b: u8) -> Result<(), BadHead> {
        match b {
            b'\r' => self.state = State::StartLf,
            b'\n' => return Err(BadHead::BareLf),
            b if chars::is(b, TOKEN) => {
                self.method = self.span_here();
                self.state = State::Method;
                self.method_kind = Method::with_initial(b);
            }
            _ => return Err(BadHead::Method),
        }
        Ok(())
    }

    /// ```text
    /// method = token                                              ; RFC 9110, 9.1
    /// ```
    fn method_byte(&mut self, b: u8) -> Result<(), BadHead> {
        if chars::is(b, TOKEN) {
            let name = self.method_kind.name();
            let n = usize::from(self.at.saturating_sub(self.method.start));
            if n >= Self::MAX_METHOD {
                return Err(BadHead::MethodTooLong);
            }
            if name.get(n) != Some(&b) {
                self.method_kind = Method::Other;
            }
            return Ok(());
        }
        if b != b' ' {
            return Err(BadHead::Method);
        }
        self.method.end = self.at;
        if self.method.len() != self.method_kind.name().len() {
            self.method_kind = Method::Other;
        }
        self.state = State::TargetStart;
        Ok(())
    }

    fn target_start(&mut self, b: u8) -> Result<(), BadHead> {
        self.form = match b {
            _ if !chars::is(b, TARGET) => return Err(BadHead::Target),
            _ if self.method_kind == Method::Connect => Form::Authority,
            b'/' => Form::Origin,
            b'*' => Form::Asterisk,
            b if b.is_ascii_alphabetic() => Form::Absolute,
            _ => return Err(BadHead::Target),
        };
        self.target = self.span_here();
        self.state = State::Target;
        Ok(())
    }

    fn target_end(&mut self, b: u8) -> Result<(), BadHead> {
        match b {
            b' ' => {}
            // HTTP/0.9 had no version.
            b'\r' | b'\n' => return Err(BadHead::Version),
            _ => return Err(BadHead::Target),
        }
        self.target.end = self.at;
        if self.form == Form::Asterisk && self.target.len() != 1 {
            return Err(BadHead::Target);
        }
        self.state = State::Version(0);
        Ok(())
    }

    /// ```text
    /// HTTP-version = HTTP-name "/" DIGIT "." DIGIT                ; RFC 9112, 2.3
    /// HTTP-name    = %s"HTTP"
    /// ```
    fn version_byte(&mut self, n: u8, b: u8) -> Result<(), BadHead> {
        const NAME: &[u8] = b"HTTP/";
        match (n, b) {
            (0..=4, b) if NAME.get(usize::from(n)) == Some(&b) => {}
            // The digits are checked together; the first one is kept as a version until then.
            (5, b'0'..=b'9') => {
                self.facts.two = b == b'2';
                self.version = if b == b'1' {
                    Version::Http11
                } else {
                    Version::Http10
                };
            }
            (6, b'.') => {}
            (7, b'0'..=b'9') => {
                self.facts.two &= b == b'0';
                self.version = match (self.version, b) {
                    (Version::Http11, b'0') => Version::Http10,
                    (Version::Http11, b'1') => Version::Http11,
                    _ => return Err(BadHead::VersionUnsupported),
                };
            }
            (8, b'\r') => {
                if self.form == Form::Asterisk && self.method_kind != Method::Options {
                    return Err(BadHead::Target);
                }
                self.state = State::VersionLf;
                return Ok(());
            }
            (8, b'\n') => return Err(BadHead::BareLf),
            _ => return Err(BadHead::Version),
        }
        self.state = State::Version(n.saturating_add(1));
        Ok(())
    }

    /// ```text
    /// field-line = field-name ":" OWS field-value OWS             ; RFC 9112, 5
    /// ```
    fn line_start(&mut self, b: u8) -> Result<(), BadHead> {
        match b {
            b'\r' => self.state = State::EndLf,
            b'\n' => return Err(BadHead::BareLf),
            // RFC 9112, 5.2: obs-fold must be refused or replaced. RFC 9112, 2.2: so must white
            // space between the request line and the first field.
            b' ' | b'\t' => return Err(BadHead::Fold),
            b if chars::is(b, TOKEN) => {
                self.state = State::Name;
                self.name = Name::START;
                self.name.step(b);
            }
            _ => return Err(BadHead::FieldName),
        }
        Ok(())
    }

    fn name_byte(&mut self, b: u8) -> Result<(), BadHead> {
        match b {
            b':' => {
                self.field = self.name.end()?;
                self.state = State::ValueStart;
            }
            b' ' | b'\t' => return Err(BadHead::SpaceBeforeColon),
            b if chars::is(b, TOKEN) => self.name.step(b),
            _ => return Err(BadHead::FieldName),
        }
        Ok(())
    }

    fn value_start(&mut self) -> Result<(), BadHead> {
        match self.field {
            Field::Host if self.host.is_some() => return Err(BadHead::DuplicateHost),
            Field::Host => self.host = Some(self.span_here()),
            Field::ContentLength if self.content_length.is_some() => {
                return Err(BadHead::ContentLength);
            }
            Field::ContentLength => self.number = Number::START,
            Field::TransferEncoding | Field::Connection | Field::Expect => {
                self.list = List::START;
            }
            Field::Upgrade => self.facts.upgrade = true,
            Field::Other => {}
        }
        Ok(())
    }

    fn value_bytes(&mut self, bytes: &[u8]) -> Result<(), BadHead> {
        match self.field {
            Field::Host => {
                if let Some(last) = bytes.iter().rposition(|b| !matches!(b, b' ' | b'\t')) {
                    // CAST: within the limit, as `at` is.
                    let end = self.at.saturating_add(last as u16).saturating_add(1);
                    self.host = self.host.map(|host| Span { end, ..host });
                }
            }
            Field::ContentLength => {
                for b in bytes {
                    self.number.step(*b)?;
                }
            }
            Field::TransferEncoding | Field::Connection | Field::Expect => {
                for b in bytes {
                    if let Some(element) = self.list.step(*b) {
                        self.element(element)?;
                    }
                }
            }
            Field::Upgrade | Field::Other => {}
        }
        Ok(())
    }

    fn value_end(&mut self, b: u8) -> Result<(), BadHead> {
        match b {
            b'\r' => {}
            b'\n' => return Err(BadHead::BareLf),
            _ => return Err(BadHead::FieldValue),
        }
        match self.field {
            Field::ContentLength => self.content_length = Some(self.number.end()?),
            Field::TransferEncoding | Field::Connection | Field::Expect => {
                let element = self.list.end();
                self.element(element)?;
            }
            Field::Host | Field::Upgrade | Field::Other => {}
        }
        self.state = State::ValueLf;
        Ok(())
    }

    fn element(&mut self, element: Element) -> Result<(), BadHead> {
        let facts = &mut self.facts;
        match (self.field, element) {
            (Field::TransferEncoding, element) => {
                facts.transfer_encoding = true;
                match element {
                    Element::Word(Word::Chunked) if !facts.chunked => facts.chunked = true,
                    Element::Word(Word::Chunked) | Element::Empty => {
                        return Err(BadHead::TransferEncoding);
                    }
                    Element::Word(_) | Element::Other => return Err(BadHead::TransferCoding),
                }
            }
            (Field::Connection, Element::Word(Word::Close)) => facts.close = true,
            (Field::Connection, Element::Word(Word::KeepAlive)) => facts.keep_alive = true,
            (Field::Expect, Element::Word(Word::Continue)) if !facts.expect_continue => {
                facts.expect_continue = true;
            }
            (Field::Expect, _) => facts.expect_other = true,
            _ => {}
        }
        Ok(())
    }

    /// What can only be said once all fields are there.
    fn check(&self) -> Result<(), BadHead> {
        // RFC 9112, 3.2.
        if self.version >= Version::Http11 && self.host.is_none() {
            return Err(BadHead::NoHost);
        }
        if self.facts.transfer_encoding {
            // RFC 9112, 6.1: "the message framing is faulty".
            if self.version < Version::Http11 {
                return Err(BadHead::TransferEncoding);
            }
            // RFC 9112, 6.1: "ought to be handled as an error".
            if self.content_length.is_some() {
                return Err(BadHead::LengthConflict);
            }
        }
        if self.method_kind == Method::Connect && self.body() != Body::None {
            return Err(BadHead::ConnectBody);
        }
        Ok(())
    }

    /// The span that starts with the byte being looked at.
    const fn span_here(&self) -> Span {
        Span {
            start: self.at,
            end: self.at,
        }
    }
}

fn lf(b: u8) -> Result<(), BadHead> {
    if b == b'\n' {
        Ok(())
    } else {
        Err(BadHead::BareCr)
    }
}
