// SPDX-License-Identifier: GPL-2.0

//! What waits to be sent to one peer.
//!
//! Frames are appended one after another, and everything there is goes in one write: the sender
//! exchanges the buffer for an empty one. The room is bounded; a frame that does not fit is refused.
//!
//! A frame that can wait, such as CLOSED, is written with the next one that cannot, or when enough of
//! its kind have come together; [`Outbox::is_urgent`] tells. How long it waits at most is the sender's
//! affair.
//!
//! # Batching
//!
//! Questions to the dispatcher are held back while answers to the last batch are outstanding, so that
//! their number in one write follows the dispatcher's load, and nothing is delayed when it is idle
//! ([1], section 4):
//!
//! ```text
//! on request q:            if no batch outstanding: send [q]; outstanding := true
//!                          else: append q to pending
//! on replies to a batch:   deliver them
//!                          if pending not empty: send pending as one packet; pending := []
//!                          else: outstanding := false
//! ```
//!
//! A batch is open until it is written, so questions that arrive before that still join it. Answers
//! that never come must not stop the questions for ever: a batch counts as answered after a while.

use super::super::addr::ConnId;
use super::super::time::Instant;
use super::{Assign, EncodeError, Frame, Header, Message, HEADER_LEN};
use core::ops::DerefMut;
use core::time::Duration;

/// Bytes of frames that can wait which are written without waiting: what fits a packet of Ethernet.
const ENOUGH: usize = 1_400;

/// Whole frames, one after another, in memory of the caller's.
#[derive(Debug)]
pub struct Frames<B> {
    bytes: B,
    len: usize,
    count: u64,
    /// How many of them are questions to the dispatcher.
    questions: u64,
}

impl<B: DerefMut<Target = [u8]>> Frames<B> {
    /// No frames yet; `bytes` is the room for them.
    pub fn new(bytes: B) -> Self {
        Frames {
            bytes,
            len: 0,
            count: 0,
            questions: 0,
        }
    }

    /// All the bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// How many frames they are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of them are questions to the dispatcher.
    pub fn questions(&self) -> u64 {
        self.questions
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.len = 0;
        self.count = 0;
        self.questions = 0;
    }

    /// Adds one. [`EncodeError::NoSpace`] if there is no room.
    pub fn append<'a>(&mut self, frame: &impl Frame<'a>) -> Result<(), EncodeError> {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let n = frame.encode(room)?;
        self.len = self.len.saturating_add(n);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    fn append_question(&mut self, question: &Assign) -> Result<(), EncodeError> {
        self.append(question)?;
        self.questions = self.questions.saturating_add(1);
        Ok(())
    }

    /// Moves all frames of `other` behind these, or none if there is no room for all.
    fn take_over(&mut self, other: &mut Self) -> bool {
        let end = self.len.saturating_add(other.len);
        let Some(room) = self.bytes.get_mut(self.len..end) else {
            return false;
        };
        room.copy_from_slice(other.bytes());
        self.len = end;
        self.count = self.count.saturating_add(other.count);
        self.questions = self.questions.saturating_add(other.questions);
        other.clear();
        true
    }

    /// The connections of those ASSIGN, HANDOFF and RELEASE frames that end behind the first `sent` bytes. A
    /// peer cannot have received the whole of them, so it has not acted on them.
    pub fn unsent(&self, sent: usize) -> impl Iterator<Item = ConnId> + '_ {
        let mut rest = self.bytes();
        let mut end = 0usize;
        let frames = core::iter::from_fn(move || {
            let (header, body) = rest.split_first_chunk::<HEADER_LEN>()?;
            let header = Header::decode(header).ok()?;
            let (body, next) = body.split_at_checked(header.length)?;
            rest = next;
            end = end.saturating_add(HEADER_LEN).saturating_add(header.length);
            Some((end, header, body))
        });
        frames
            .filter(move |(end, ..)| *end > sent)
            .filter_map(|(_, header, body)| match Message::decode(header, body) {
                Ok(Message::Assign(assign)) => Some(assign.conn),
                Ok(Message::Handoff(handoff)) => Some(handoff.conn),
                Ok(Message::Release(release)) => Some(release.conn),
                _ => None,
            })
    }
}

/// The frames that wait for one peer.
#[derive(Debug)]
pub struct Outbox<B> {
    /// What the next write takes.
    ready: Frames<B>,
    /// Something in `ready` must not wait.
    urgent: bool,
    /// Questions that are held back.
    held: Frames<B>,
    /// Questions that were let go and are not answered.
    outstanding: u64,
    /// Some of these are still in `ready`, so others may join.
    joinable: bool,
    /// When the last batch was let go.
    since: Instant,
}

impl<B: DerefMut<Target = [u8]>> Outbox<B> {
    /// An empty one, with the room for frames and the room for questions that are held back.
    pub fn new(ready: B, held: B) -> Self {
        Outbox {
            ready: Frames::new(ready),
            urgent: false,
            held: Frames::new(held),
            outstanding: 0,
            joinable: false,
            since: Instant::ZERO,
        }
    }

    /// Adds a frame.
    pub fn send<'a>(&mut self, frame: &impl Frame<'a>) -> Result<(), EncodeError> {
        self.ready.append(frame)?;
        self.urgent = true;
        Ok(())
    }

    /// Adds a frame that can wait for others.
    pub fn send_later<'a>(&mut self, frame: &impl Frame<'a>) -> Result<(), EncodeError> {
        self.ready.append(frame)?;
        self.urgent |= self.ready.len >= ENOUGH;
        Ok(())
    }

    /// Adds a question to the dispatcher, perhaps to hold it back.
    pub fn ask(&mut self, question: &Assign, now: Instant) -> Result<(), EncodeError> {
        if self.outstanding != 0 && !self.joinable {
            return self.held.append_question(question);
        }
        self.ready.append_question(question)?;
        self.urgent = true;
        if self.outstanding == 0 {
            self.since = now;
        }
        self.outstanding = self.outstanding.saturating_add(1);
        self.joinable = true;
        Ok(())
    }

    /// An answer came. The last one of a batch lets the next batch go.
    pub fn answered(&mut self, now: Instant) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding == 0 {
            self.release(now);
        }
    }

    /// Is there something to write?
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Is there something to write that must not wait?
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Bytes that wait, also those that are held back.
    pub fn queued(&self) -> usize {
        self.ready.len.saturating_add(self.held.len)
    }

    /// Exchanges `spare`, which is empty, for what there is to write. A batch whose answers are not
    /// there after `patience` counts as answered. False if there is nothing.
    pub fn take(&mut self, spare: &mut Frames<B>, now: Instant, patience: Duration) -> bool {
        if now.saturating_since(self.since) >= patience {
            self.release(now);
        }
        core::mem::swap(&mut self.ready, spare);
        self.urgent = false;
        self.joinable = false;
        !spare.is_empty()
    }

    /// Exchanges `spare`, which is empty, for frames that nobody will send any more: first those that
    /// were ready, then those that were held back. False when there are no more.
    pub fn give_up(&mut self, spare: &mut Frames<B>) -> bool {
        let from = match self.ready.is_empty() {
            true => &mut self.held,
            false => &mut self.ready,
        };
        core::mem::swap(from, spare);
        !spare.is_empty()
    }

    /// Lets the questions that were held back go, unless there is no room for them.
    fn release(&mut self, now: Instant) {
        let count = self.held.count;
        if count == 0 || !self.ready.take_over(&mut self.held) {
            return;
        }
        self.urgent = true;
        self.outstanding = count;
        self.joinable = true;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::addr::{Addr, Endpoint, Tuple};
    use super::super::super::policy::{Mechanism, NodeSet, Tags};
    use super::super::{Handoff, MsgType, Ping};
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);
    const T0: Instant = Instant::from_millis(10_000);

    fn conn(n: u32) -> ConnId {
        ConnId::from_bits(1 << 52 | u64::from(n))
    }

    fn question(n: u32) -> Assign {
        Assign {
            conn: conn(n),
            key: 7,
            exclude: NodeSet::EMPTY,
            home: None,
            mechanism: Mechanism::Move,
            batch: 1,
            tags: Tags::NONE,
        }
    }

    fn handoff(n: u32, data: &[u8]) -> Handoff<'_> {
        let end = |port| Endpoint::new(Addr::from_v4([192, 0, 2, 1]), port);
        Handoff {
            conn: conn(n),
            tuple: Tuple::new(end(4000), end(80)),
            irs: 1,
            iss: 2,
            expires: T0,
            mss: 1460,
            window: 1000,
            wscale: None,
            sack: false,
            timestamps: None,
            fin: false,
            movable: false,
            data,
        }
    }

    fn frames(room: usize) -> Frames<Vec<u8>> {
        Frames::new(vec![0; room])
    }

    fn outbox(ready: usize, held: usize) -> Outbox<Vec<u8>> {
        Outbox::new(vec![0; ready], vec![0; held])
    }

    /// Takes one write off and says how many frames it has.
    #[track_caller]
    fn write(outbox: &mut Outbox<Vec<u8>>, now: Instant) -> u64 {
        let mut spare = frames(4096);
        let some = outbox.take(&mut spare, now, PATIENCE);
        assert_eq!(some, spare.count() != 0);
        spare.count()
    }

    fn kinds(frames: &Frames<Vec<u8>>) -> Vec<MsgType> {
        let mut rest = frames.bytes();
        let mut found = Vec::new();
        while let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() {
            let header = Header::decode(header).unwrap();
            found.push(header.kind);
            rest = &body[header.length..];
        }
        found
    }

    #[test]
    fn everything_goes_in_one_write_and_in_order() {
        let mut o = outbox(4096, 256);
        o.send(&Ping { sent: T0 }).unwrap();
        o.send(&handoff(1, b"GET")).unwrap();
        o.ask(&question(2), T0).unwrap();
        let mut spare = frames(4096);
        assert!(o.take(&mut spare, T0, PATIENCE));
        assert_eq!(
            kinds(&spare),
            [MsgType::Ping, MsgType::Handoff, MsgType::Assign]
        );
        assert_eq!((spare.count(), o.queued(), o.is_ready()), (3, 0, false));
        spare.clear();
        assert!(!o.take(&mut spare, T0, PATIENCE));
    }

    #[test]
    fn questions_join_a_batch_until_it_is_written() {
        let mut o = outbox(4096, 4096);
        for n in 0..3 {
            o.ask(&question(n), T0).unwrap();
        }
        assert_eq!(write(&mut o, T0), 3);
        o.ask(&question(3), T0).unwrap();
        assert!(!o.is_ready());
    }

    #[test]
    fn questions_wait_for_the_last_answer_of_the_batch_before() {
        let mut o = outbox(4096, 4096);
        o.ask(&question(0), T0).unwrap();
        o.ask(&question(1), T0).unwrap();
        assert_eq!(write(&mut o, T0), 2);
        for n in 2..7 {
            o.ask(&question(n), T0).unwrap();
        }
        o.answered(T0);
        assert_eq!(write(&mut o, T0), 0);
        o.answered(T0);
        assert_eq!(write(&mut o, T0), 5);
        // The batch of five is outstanding now.
        o.ask(&question(7), T0).unwrap();
        for _ in 0..4 {
            o.answered(T0);
        }
        assert_eq!(write(&mut o, T0), 0);
        o.answered(T0);
        assert_eq!(write(&mut o, T0), 1);
    }

    #[test]
    fn nothing_is_delayed_when_the_dispatcher_is_idle() {
        let mut o = outbox(4096, 4096);
        for n in 0..5 {
            o.ask(&question(n), T0).unwrap();
            assert_eq!(write(&mut o, T0), 1);
            o.answered(T0);
        }
    }

    #[test]
    fn a_batch_without_answers_does_not_stop_the_next_one() {
        let mut o = outbox(4096, 4096);
        o.ask(&question(0), T0).unwrap();
        assert_eq!(write(&mut o, T0), 1);
        o.ask(&question(1), T0).unwrap();
        let later = T0.saturating_add(PATIENCE);
        assert_eq!(
            write(&mut o, later.saturating_sub(Duration::from_millis(1))),
            0
        );
        assert_eq!(write(&mut o, later), 1);
    }

    #[test]
    fn a_write_says_how_many_questions_it_carries() {
        let mut o = outbox(4096, 4096);
        o.send(&Ping { sent: T0 }).unwrap();
        o.ask(&question(0), T0).unwrap();
        let mut spare = frames(4096);
        assert!(o.take(&mut spare, T0, PATIENCE));
        assert_eq!((spare.count(), spare.questions()), (2, 1));
        spare.clear();
        for n in 1..4 {
            o.ask(&question(n), T0).unwrap();
        }
        o.answered(T0);
        assert!(o.take(&mut spare, T0, PATIENCE));
        assert_eq!((spare.count(), spare.questions()), (3, 3));
        spare.clear();
        assert_eq!(spare.questions(), 0);
    }

    #[test]
    fn other_frames_are_never_held_back() {
        let mut o = outbox(4096, 4096);
        o.ask(&question(0), T0).unwrap();
        assert_eq!(write(&mut o, T0), 1);
        o.ask(&question(1), T0).unwrap();
        o.send(&Ping { sent: T0 }).unwrap();
        let mut spare = frames(4096);
        assert!(o.take(&mut spare, T0, PATIENCE));
        assert_eq!(kinds(&spare), [MsgType::Ping]);
    }

    #[test]
    fn what_can_wait_goes_with_what_cannot_and_in_order() {
        let mut o = outbox(4096, 4096);
        o.send_later(&question(0)).unwrap();
        assert_eq!((o.is_ready(), o.is_urgent()), (true, false));
        o.send(&Ping { sent: T0 }).unwrap();
        o.send_later(&question(1)).unwrap();
        assert!(o.is_urgent());
        let mut spare = frames(4096);
        assert!(o.take(&mut spare, T0, PATIENCE));
        let all = [MsgType::Assign, MsgType::Ping, MsgType::Assign];
        assert_eq!(kinds(&spare), all);
        assert_eq!((o.is_ready(), o.is_urgent()), (false, false));
    }

    #[test]
    fn enough_of_what_can_wait_does_not_wait() {
        let mut o = outbox(4096, 4096);
        let frame = question(0);
        for _ in 0..ENOUGH.div_ceil(frame.frame_len()) - 1 {
            o.send_later(&frame).unwrap();
        }
        assert!(!o.is_urgent());
        o.send_later(&frame).unwrap();
        assert!(o.is_urgent());
    }

    #[test]
    fn questions_that_are_let_go_do_not_wait() {
        let mut o = outbox(4096, 4096);
        o.ask(&question(0), T0).unwrap();
        assert!(o.is_urgent());
        assert_eq!(write(&mut o, T0), 1);
        o.ask(&question(1), T0).unwrap();
        assert!(!o.is_urgent());
        o.answered(T0);
        assert!(o.is_urgent());
    }

    #[test]
    fn answers_nobody_asked_for_change_nothing() {
        let mut o = outbox(4096, 4096);
        o.answered(T0);
        o.ask(&question(0), T0).unwrap();
        assert_eq!(write(&mut o, T0), 1);
        o.ask(&question(1), T0).unwrap();
        assert!(!o.is_ready());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_no_trace() {
        let frame = question(0).frame_len();
        let mut o = outbox(frame * 2, frame);
        assert_eq!(o.send(&handoff(9, &[0; 100])), Err(EncodeError::NoSpace));
        o.ask(&question(0), T0).unwrap();
        o.ask(&question(1), T0).unwrap();
        assert_eq!(o.ask(&question(2), T0), Err(EncodeError::NoSpace));
        assert_eq!(write(&mut o, T0), 2);
        o.ask(&question(3), T0).unwrap();
        assert_eq!(o.ask(&question(4), T0), Err(EncodeError::NoSpace));
        assert_eq!(o.queued(), frame);
    }

    #[test]
    fn held_questions_without_room_to_go_stay_and_go_later() {
        let frame = question(0).frame_len();
        let mut o = outbox(frame * 2, frame * 2);
        o.ask(&question(0), T0).unwrap();
        let mut spare = frames(frame * 2);
        assert!(o.take(&mut spare, T0, PATIENCE));
        o.ask(&question(1), T0).unwrap();
        o.ask(&question(2), T0).unwrap();
        o.send(&Ping { sent: T0 }).unwrap();
        o.answered(T0);
        spare.clear();
        assert!(o.take(&mut spare, T0, PATIENCE));
        assert_eq!(kinds(&spare), [MsgType::Ping]);
        spare.clear();
        let later = T0.saturating_add(PATIENCE);
        assert!(o.take(&mut spare, later, PATIENCE));
        assert_eq!(spare.count(), 2);
    }

    #[test]
    fn only_frames_that_were_sent_to_their_last_byte_count_as_sent() {
        let mut f = frames(4096);
        f.append(&handoff(1, b"GET /1")).unwrap();
        let first = f.bytes().len();
        f.append(&Ping { sent: T0 }).unwrap();
        f.append(&question(2)).unwrap();
        let third = f.bytes().len();
        f.append(&handoff(3, b"GET /3")).unwrap();
        let all = f.bytes().len();
        let unsent = |sent| f.unsent(sent).collect::<Vec<_>>();
        assert_eq!(unsent(0), [conn(1), conn(2), conn(3)]);
        assert_eq!(unsent(first - 1), [conn(1), conn(2), conn(3)]);
        assert_eq!(unsent(first), [conn(2), conn(3)]);
        assert_eq!(unsent(third), [conn(3)]);
        assert_eq!(unsent(all - 1), [conn(3)]);
        assert_eq!(unsent(all), []);
    }

    #[test]
    fn a_box_that_is_given_up_yields_what_was_ready_and_what_was_held() {
        let mut o = outbox(4096, 4096);
        o.ask(&question(0), T0).unwrap();
        assert_eq!(write(&mut o, T0), 1);
        o.ask(&question(1), T0).unwrap();
        o.send(&handoff(2, b"")).unwrap();
        let mut spare = frames(4096);
        let mut left = Vec::new();
        while o.give_up(&mut spare) {
            left.extend(spare.unsent(0));
            spare.clear();
        }
        assert_eq!(left, [conn(2), conn(1)]);
        assert_eq!(o.queued(), 0);
    }
}
