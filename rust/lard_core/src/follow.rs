// SPDX-License-Identifier: GPL-2.0

//! The requests on a connection that is passed on, and when it may move for one of them.
//!
//! The front-end sees every byte of the client. On a connection of the mode *move* it follows them,
//! and holds a further request, unacknowledged, until it is known who serves it (\[2\]'s multiple
//! hand-off):
//!
//! ```text
//!            request begins a segment          head complete           another node
//!  Passing ───────────────────────▶ Gathering ──────────────▶ Asking ───────────────▶ Releasing
//!     ▲                                │ 100 ms, FIN, RST        │ home, nobody, silence  │  │
//!     └───────────────── stay ─────────┴─────────────────────────┴── BUSY ────────────────┘  │
//!                                                                                  RELEASED │
//!     Passing ◀── adopted ── a responder that waits for its hand-off, as the first time ◀────┘
//! ```
//!
//! Nothing that is held was acknowledged, so it may be dropped at any time, and the client sends it
//! again. Nothing of a body is held: only a request that begins with its segment can wait while what
//! comes before it passes. One that begins in the middle is pipelined behind a body and stays where
//! the body went.
//!
//! # Order
//!
//! The framer reads the bytes in order. A segment beyond a gap passes if it is data for certain. If
//! it could hold a part of a request it is dropped while one is expected; within a chunked body,
//! whose end could be anywhere, it passes, and the connection stays where it is from then on.
//!
//! # HEAD
//!
//! The back-end follows the responses, to know when all are complete, and must know which of them
//! answers HEAD. It sees the first request that is handed over to it, and no other. So HEAD is
//! always handed over, if need be to the node that has the connection; where it cannot be, the
//! connection stays for good.
//!
//! # Checked connections
//!
//! In the mode *forward* a client must not name the directories in which nodes see each other's
//! documents. So nothing reaches a server that was not read: what is beyond a gap in the order waits
//! to be sent again, what was read must not change when it comes again, and where the stream cannot
//! be followed any further it ends ([`Forbidden`]). A connection that stays for good because of its
//! answers is still read.

use core::time::Duration;

use super::http::{BadHead, Body, Event, Framer, HeadParser, Method, Pinned, ReservedScan};
use super::tcp::{Segment, Seq};
use super::time::Instant;

mod mode;
mod seen;

pub use mode::{Mode, UnknownMode};

use seen::Seen;

/// How long the rest of a head is waited for. Short of the client's retransmission timer (200 ms
/// at the least), and a client that sends no more before it has an acknowledgement waits as long.
const GATHER: Duration = Duration::from_millis(100);

/// Before a server that was in a call on its socket is asked again, and how often.
const AGAIN: Duration = Duration::from_millis(1);
const TRIES: u8 = 8;

/// What to do with a segment of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Take {
    /// Pass it on.
    Pass,
    /// Read the payload from this offset on ([`Follow::read`], [`Follow::skip`]), then pass it on.
    Read(u32),
    /// Keep the packet, and add the payload from this offset on to what is held ([`Follow::gather`]).
    Gather(u32),
    /// Keep the packet until it is known where the connection goes.
    Park,
    /// Drop it: the client sends it again, or has sent it before.
    Drop,
    /// Let go of what is held ([`Follow::stay`]), then ask again about this segment.
    Stay,
}

/// What the bytes that were gathered are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// There is more to come.
    Partial,
    /// The head of a request is complete: have it assigned.
    Complete,
    /// Not the beginning of a request that can move: let go of it ([`Follow::stay`]).
    Stays,
}

/// What the end of a wait means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// It has not ended yet.
    No,
    /// What is held goes where the connection is.
    Stay,
    /// Ask the back-end again to let go.
    Again,
    /// Nobody knows whether the back-end has let go: the client has to be reset.
    Reset,
}

/// Why a connection that is checked has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// A request names what could be the directory of a node.
    Reserved,
    /// There are bytes that nobody can tell what they are.
    Unread,
}

/// How far a connection that is checked may go beyond what the server is known to have. Sequence
/// numbers say where a byte belongs only while that is less than 2^31; of this half is left for what
/// is under way.
const UNKNOWN: u32 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Passing,
    Gathering,
    Asking,
    Releasing,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Follow {
    framer: Framer,
    /// The head that is being read.
    head: Option<HeadParser>,
    /// The same, of a connection that is checked.
    scan: ReservedScan,
    head_limit: usize,
    /// The sequence number of the first byte of the client.
    base: Seq,
    stage: Stage,
    deadline: Instant,
    /// Where what is held begins, and where it ends.
    start: Seq,
    end: Seq,
    /// Requests before what is held.
    requests: u32,
    /// Requests before the first one that was handed to the back-end which has the connection.
    handed: u32,
    /// What is held has to be handed over, wherever it goes.
    must_hand_over: bool,
    /// Complete requests among what is held.
    batch: u16,
    /// Requests that began behind the first of them.
    followers: u16,
    /// How often the back-end has said that it was a bad moment.
    tries: u8,
    /// It is to be asked again at the deadline.
    again: bool,
    /// Nothing passes that was not read.
    checked: bool,
    /// It stays where it is for good, and is read nevertheless.
    settled: bool,
    forbidden: Option<Forbidden>,
    /// The server has everything before this: the end of what was handed over last.
    delivered: Seq,
    seen: Seen,
}

impl Follow {
    /// Behind the first head of a connection, which `parser` has read; `base` is where it begins.
    pub fn new(parser: &HeadParser, base: Seq, head_limit: usize, checked: bool) -> Self {
        Follow {
            framer: Framer::after(parser),
            head: None,
            scan: ReservedScan::default(),
            head_limit,
            base,
            stage: Stage::Passing,
            deadline: Instant::FAR_FUTURE,
            start: base,
            end: base,
            requests: 0,
            handed: 0,
            must_hand_over: false,
            batch: 0,
            followers: 0,
            tries: 0,
            again: false,
            checked,
            settled: false,
            forbidden: None,
            delivered: base,
            seen: Seen::new(),
        }
    }

    /// Does nothing pass that was not read?
    pub fn is_checked(&self) -> bool {
        self.checked
    }

    /// Why the connection has to end, if it has to. What has led to this must not pass.
    pub fn forbidden(&self) -> Option<Forbidden> {
        self.forbidden
    }

    /// Why the connection stays where it is, if it does.
    pub fn pinned(&self) -> Option<Pinned> {
        self.framer.pinned()
    }

    /// Lets the connection stay where it is for good, because nothing is known of its requests.
    pub fn pin(&mut self, why: Pinned) {
        self.framer.pin(why);
        self.check_behind(&[]);
    }

    /// Lets the connection stay where it is for good, because of its answers.
    pub fn settle(&mut self) {
        match self.checked {
            true => self.settled = true,
            false => self.framer.pin(Pinned::Lost),
        }
    }

    /// Are the bytes of the client still to be read?
    pub fn is_reading(&self) -> bool {
        match self.checked {
            true => self.forbidden.is_none(),
            false => self.pinned().is_none(),
        }
    }

    /// The part of a segment that was read before and may reach the server all the same, as offset and
    /// length: [`Follow::agrees`] must find it unchanged, or the segment is to be dropped. What is held
    /// is not meant, nor with `was_held` what was; the caller has that and compares by itself.
    pub fn repeated(&self, seg: &Segment, was_held: bool) -> Option<(u32, u32)> {
        if !self.checked || self.seen.is_empty() {
            return None;
        }
        let mut from = seg.seq.max(self.delivered);
        if was_held {
            from = from.max(self.end);
        }
        let read = match self.stage {
            Stage::Passing => self.next(),
            Stage::Gathering | Stage::Asking | Stage::Releasing => self.start,
        };
        let to = seg.seq.add(seg.payload_len).min(read);
        to.after(from)
            .then(|| (from.since(seg.seq), to.since(from)))
    }

    /// Is this what was read at this place? `ring` as in [`Follow::read`].
    pub fn agrees(&self, ring: &[u8], at: Seq, bytes: &[u8]) -> bool {
        self.seen.agrees(ring, at, bytes)
    }

    /// The server has closed: it reads nothing more, and the caller's ring is not needed.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// Decides about a segment that is no SYN.
    pub fn on_segment(&mut self, seg: &Segment) -> Take {
        let has_text = seg.payload_len > 0 || seg.is_fin();
        let end = seg.seq.add(seg.payload_len);
        match self.stage {
            Stage::Passing if seg.payload_len == 0 || seg.is_rst() => Take::Pass,
            Stage::Passing if !self.checked && self.pinned().is_some() => Take::Pass,
            Stage::Passing => self.expected(seg, end),
            Stage::Gathering | Stage::Asking if seg.is_rst() => Take::Stay,
            Stage::Releasing if seg.is_rst() => Take::Park,
            // It may have let go already, and nobody there would know the connection.
            Stage::Releasing if !has_text && !self.again => Take::Park,
            // The back-end has to learn what the client acknowledges.
            _ if !has_text => Take::Pass,
            Stage::Gathering if seg.is_fin() => Take::Stay,
            Stage::Gathering if seg.seq.after(self.end) || !end.after(self.end) => Take::Drop,
            Stage::Gathering => Take::Gather(self.end.since(seg.seq)),
            Stage::Asking | Stage::Releasing if !seg.seq_end().after(self.end) => Take::Drop,
            Stage::Asking | Stage::Releasing => Take::Park,
        }
    }

    /// A segment with payload while nothing is held.
    fn expected(&mut self, seg: &Segment, end: Seq) -> Take {
        if !end.after(self.next()) {
            return Take::Pass;
        }
        if seg.seq.after(self.next()) {
            let gap = u64::from(seg.seq.since(self.next()));
            if gap > self.framer.skippable() {
                if self.checked || self.framer.at_boundary() || self.head.is_some() {
                    return Take::Drop;
                }
                self.pin(Pinned::Lost);
                return Take::Pass;
            }
            self.skip(gap);
        }
        let offset = self.next().since(seg.seq);
        if offset == 0 && self.framer.at_boundary() && !seg.is_fin() && !self.settled {
            self.stage = Stage::Gathering;
            (self.start, self.end) = (seg.seq, seg.seq);
            self.requests = self.framer.requests();
            self.must_hand_over = self.checked && self.is_far();
            (self.batch, self.followers, self.tries) = (0, 0, 0);
            // The caller sets a time once something is held.
            self.deadline = Instant::FAR_FUTURE;
            return Take::Gather(0);
        }
        Take::Read(offset)
    }

    /// How many of the next bytes need not be read, only counted.
    pub fn skippable(&self) -> u64 {
        self.framer.skippable()
    }

    /// Counts so many bytes that pass, at most [`Follow::skippable`].
    pub fn skip(&mut self, n: u64) {
        let _ = self.framer.skip(n);
        self.read(&mut [], &[]);
    }

    /// Reads the next bytes that pass. Returns how many requests began among them.
    ///
    /// `ring` is memory that belongs to the connection, always the same one, in which is kept what a
    /// client that is checked must not change. Others need none.
    pub fn read(&mut self, ring: &mut [u8], bytes: &[u8]) -> u32 {
        let mut left = bytes;
        let mut began = 0u32;
        loop {
            match self.next_event(ring, &mut left) {
                Some(Event::Begins) => {
                    began = began.saturating_add(1);
                    self.begin_head();
                }
                Some(Event::Request { .. }) => self.passes(),
                Some(Event::End) => {}
                Some(Event::Pinned(_)) | None => break,
            }
        }
        self.check_behind(left);
        began
    }

    /// What comes next in `left`, from which it is taken.
    fn next_event(&mut self, ring: &mut [u8], left: &mut &[u8]) -> Option<Event> {
        if !self.checked {
            let (used, event) = self.framer.next(self.head.as_mut(), left);
            *left = left.get(used..).unwrap_or_default();
            return event;
        }
        let data = self.framer.skip(left.len() as u64);
        // CAST: at most what is left.
        *left = left.get(data as usize..).unwrap_or_default();
        let at = self.next();
        let (used, event) = self.framer.next(self.head.as_mut(), left);
        let (new, rest) = left.split_at_checked(used).unwrap_or_default();
        *left = rest;
        if self.head.is_some() {
            self.scan.feed(new);
        }
        self.seen.note(ring, at, new);
        event
    }

    fn begin_head(&mut self) {
        self.head = Some(HeadParser::new(self.head_limit));
        self.scan = ReservedScan::default();
    }

    /// A head is complete that is not handed over by itself.
    fn passes(&mut self) {
        let Some(head) = self.end_head() else { return };
        if head.method() == Method::Head {
            self.settle();
        }
    }

    /// A head is complete.
    fn end_head(&mut self) -> Option<HeadParser> {
        if self.checked && core::mem::take(&mut self.scan).is_reserved() {
            self.forbidden.get_or_insert(Forbidden::Reserved);
        }
        self.head.take()
    }

    /// What has come behind the end of what can be read: on a connection that is checked nothing may,
    /// but empty lines behind its last request.
    fn check_behind(&mut self, left: &[u8]) {
        let Some(why) = self.pinned().filter(|_| self.checked) else {
            if self.checked && self.is_lost() {
                self.forbidden.get_or_insert(Forbidden::Unread);
            }
            return;
        };
        let harmless = match why {
            Pinned::Closing => left.iter().all(|b| matches!(b, b'\r' | b'\n')),
            Pinned::Upgrade | Pinned::Connect | Pinned::Content | Pinned::Expectation => {
                left.is_empty()
            }
            Pinned::Head(_) | Pinned::Chunk | Pinned::Http2 | Pinned::Lost => false,
        };
        if !harmless {
            self.forbidden.get_or_insert(Forbidden::Unread);
        }
    }

    /// Should the server be made sure of before it gets the next request?
    fn is_far(&self) -> bool {
        self.next().since(self.delivered) > UNKNOWN
    }

    /// Could a sequence number be one of bytes that decide, or one of data a whole turn later?
    fn is_lost(&self) -> bool {
        !self.seen.is_empty() && self.next().since(self.delivered) > UNKNOWN.saturating_mul(2)
    }

    /// What is held has grown: `held` is all of it, of which the bytes from `from` on are new. `first`
    /// is shown the first head once it is complete, and says whether it is one; from then on the
    /// dispatcher may take as long as `ask` says.
    pub fn gather(
        &mut self,
        ring: &mut [u8],
        held: &[u8],
        from: usize,
        now: Instant,
        ask: Duration,
        mut first: impl FnMut(&[u8], &HeadParser) -> Result<(), BadHead>,
    ) -> Gathered {
        if from == 0 {
            self.deadline = now.saturating_add(GATHER);
        }
        let mut left = held.get(from..).unwrap_or_default();
        // CAST: what is held is bounded far below 2^31.
        self.end = self.end.add(left.len() as u32);
        loop {
            match self.next_event(ring, &mut left) {
                Some(Event::Begins) if self.batch == 0 && self.next() != self.start => {
                    // Empty lines, which belong to no request, came first.
                    let began = self.read(ring, left);
                    // CAST: what is held is bounded far below.
                    self.followers = began.saturating_sub(1).min(u16::MAX.into()) as u16;
                    return Gathered::Stays;
                }
                Some(Event::Begins) => {
                    if self.batch > 0 {
                        self.followers = self.followers.saturating_add(1);
                    }
                    self.begin_head();
                }
                Some(Event::Request { head_len }) if self.batch == 0 => {
                    let Some(parser) = self.end_head() else {
                        return Gathered::Stays;
                    };
                    let head = held.get(..usize::from(head_len)).unwrap_or_default();
                    if let Err(bad) = first(head, &parser) {
                        self.pin(Pinned::Head(bad));
                        return Gathered::Stays;
                    }
                    self.batch = 1;
                    self.must_hand_over |= parser.method() == Method::Head;
                    if let (Body::Length(len), true) = (parser.body(), self.checked) {
                        self.must_hand_over |= len > UNKNOWN.into();
                    }
                }
                Some(Event::Request { .. }) => {
                    self.passes();
                    self.batch = self.batch.saturating_add(1);
                }
                Some(Event::End) => {}
                Some(Event::Pinned(_)) | None => break,
            }
        }
        self.check_behind(left);
        if self.batch > 0 {
            self.stage = Stage::Asking;
            self.deadline = now.saturating_add(ask);
            Gathered::Complete
        } else if self.pinned().is_some() {
            Gathered::Stays
        } else {
            Gathered::Partial
        }
    }

    /// Does a request wait for the dispatcher's answer?
    pub fn is_asking(&self) -> bool {
        self.stage == Stage::Asking
    }

    /// Does a request wait for the back-end to let go?
    pub fn is_releasing(&self) -> bool {
        self.stage == Stage::Releasing
    }

    /// Has the back-end been asked, and not answered?
    pub fn is_in_doubt(&self) -> bool {
        self.stage == Stage::Releasing && !self.again
    }

    /// How many requests are held.
    pub fn batch(&self) -> u16 {
        self.batch
    }

    /// How many requests began behind the first one of what was held last, complete or not: they go where
    /// it goes.
    pub fn followers(&self) -> u16 {
        self.followers
    }

    /// Must what is held be handed over, even to the node that has the connection?
    pub fn must_hand_over(&self) -> bool {
        self.must_hand_over
    }

    /// The back-end is asked to let go, and may take until `deadline`. Gives the sequence number
    /// that what is held begins with, and how many requests the back-end was given.
    pub fn release(&mut self, deadline: Instant) -> (Seq, u32) {
        self.stage = Stage::Releasing;
        self.deadline = deadline;
        self.again = false;
        (self.start, self.requests.wrapping_sub(self.handed))
    }

    /// The back-end was asked at a bad moment, which will have passed soon. `false` if that was so too
    /// often; otherwise it is to be asked again when the deadline has come.
    pub fn ask_again(&mut self, now: Instant) -> bool {
        self.tries = self.tries.saturating_add(1);
        if self.stage != Stage::Releasing || self.tries > TRIES {
            return false;
        }
        self.again = true;
        self.deadline = now.saturating_add(AGAIN);
        true
    }

    /// What is held is passed on to where the connection is.
    pub fn stay(&mut self) {
        if core::mem::take(&mut self.must_hand_over) {
            self.settle();
        }
        self.stage = Stage::Passing;
        self.deadline = Instant::FAR_FUTURE;
    }

    /// What is held was handed over; a server has everything up to `delivered`.
    pub fn moved(&mut self, delivered: Seq) {
        self.handed = self.requests;
        self.must_hand_over = false;
        self.delivered = delivered;
        self.seen.clear();
        self.stage = Stage::Passing;
        self.deadline = Instant::FAR_FUTURE;
    }

    /// Where what is held begins, and where it ends.
    pub fn held(&self) -> (Seq, Seq) {
        (self.start, self.end)
    }

    /// The first byte that was not read.
    fn next(&self) -> Seq {
        // CAST: sequence numbers count modulo 2^32.
        self.base.add(self.framer.position() as u32)
    }

    /// When [`Follow::on_timer`] has something to do; never while nothing is held.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Time has passed.
    pub fn on_timer(&self, now: Instant) -> Expired {
        match self.stage {
            _ if now < self.deadline => Expired::No,
            Stage::Passing => Expired::No,
            Stage::Gathering | Stage::Asking => Expired::Stay,
            Stage::Releasing if self.again => Expired::Again,
            Stage::Releasing => Expired::Reset,
        }
    }
}
