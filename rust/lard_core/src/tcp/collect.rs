// SPDX-License-Identifier: GPL-2.0

//! Collecting the request head, and keeping still once it is complete.
//!
//! Only bytes that continue the stored ones are taken. What lies beyond a gap is dropped and answered
//! by a duplicate acknowledgement: a head is one segment, seldom two or three, and the client sends
//! the gap again within a round trip. Of overlapping bytes the first ones stay; the back-end gets the
//! stored bytes and no others, so it cannot read something else than was decided upon.

use super::super::time::Instant;
use super::action::{Accepted, Action, Head, Output};
use super::config::Config;
use super::reason::Reason;
use super::reply::Status;
use super::responder::{Responder, State};
use super::segment::{Flags, Segment};

impl Responder {
    pub(super) fn collect(&mut self, cfg: &Config, seg: &Segment, now: Instant) -> Output {
        match self.screen(seg, now) {
            Ok(()) => self.collect_screened(cfg, seg, now),
            Err(output) => output,
        }
    }

    pub(super) fn collect_screened(&mut self, cfg: &Config, seg: &Segment, now: Instant) -> Output {
        // Nothing but the SYN was sent, so there is only one number to acknowledge.
        if seg.ack != self.snd_nxt {
            return self.unexpected(seg, Reason::UnacceptableAck, now);
        }
        self.note(seg);
        if seg.payload_len == 0 && !seg.is_fin() {
            return Output::done();
        }
        if seg.seq.after(self.rcv_nxt) {
            return self.unexpected(seg, Reason::OutOfOrder, now);
        }
        // Screened: at least one number of the segment lies at or beyond rcv_nxt.
        let offset = self.rcv_nxt.since(seg.seq);
        let fresh = seg.payload_len.saturating_sub(offset);
        let len = fresh.min(self.room(cfg));
        let fin = seg.is_fin() && len == fresh;
        if len > 0 {
            return Output {
                send: None,
                action: Action::Store(Accepted {
                    offset,
                    len,
                    position: self.received(),
                    fin,
                    more: len < fresh,
                }),
            };
        }
        if !fin {
            return self.unexpected(seg, Reason::BeyondWindow, now);
        }
        let ended_early = self.received() > 0;
        self.rcv_nxt = self.rcv_nxt.add(1);
        self.fin = true;
        if self.http2 {
            return self.hand_off(cfg, false, now);
        }
        self.begin_close(ended_early.then_some(Status::BadRequest), now)
    }

    /// The part that [`Action::Store`] named is stored, and the parser has seen it.
    pub fn stored(&mut self, cfg: &Config, part: Accepted, head: Head, now: Instant) -> Output {
        if self.state != State::Collecting
            || part.position != self.received()
            || part.len > self.room(cfg)
        {
            return Output::drop(Reason::AfterEnd);
        }
        if part.position == 0 {
            self.deadline = now.saturating_add(cfg.head_timeout);
        }
        self.rcv_nxt = self.rcv_nxt.add(part.len);
        if part.fin {
            self.rcv_nxt = self.rcv_nxt.add(1);
            self.fin = true;
        }
        match head {
            Head::Complete => self.hand_off(cfg, part.more, now),
            Head::Bad(status) => self.begin_close(Some(status), now),
            Head::Partial if self.http2 && (part.fin || self.is_full(cfg)) => {
                self.hand_off(cfg, part.more, now)
            }
            Head::Partial if part.fin => self.begin_close(Some(Status::BadRequest), now),
            Head::Partial if self.is_full(cfg) => {
                self.begin_close(Some(Status::HeaderFieldsTooLarge), now)
            }
            Head::Partial => {
                if self.http2 {
                    self.deadline = self.deadline.min(now.saturating_add(cfg.http2_wait));
                }
                Output::send(self.ack(now))
            }
        }
    }

    /// What is stored is enough: a node is to be found.
    pub(super) fn hand_off(&mut self, cfg: &Config, queue: bool, now: Instant) -> Output {
        self.state = State::Waiting;
        self.deadline = now.saturating_add(cfg.handoff_timeout);
        Output {
            send: None,
            action: Action::HandOff { queue },
        }
    }

    /// The head is complete: what arrives now is the back-end's, unless it is old or forged. Nothing
    /// is sent; `handed_off` says that the back-end may have the connection already.
    pub(super) fn wait(&mut self, seg: &Segment, handed_off: bool) -> Output {
        // The back-end opens the window as soon as it has adopted.
        let edge = match handed_off {
            true => self.rcv_nxt.add(self.largest_window()),
            false => self.edge(),
        };
        let in_window = seg.seq.between(self.rcv_nxt, edge);
        if seg.is_rst() {
            // The client does not know what of its bytes has arrived, so its RST may stand at the last
            // acknowledgement it has seen, too.
            let exact = seg.seq == self.rcv_nxt || seg.seq == self.acked;
            return match (handed_off, exact || in_window) {
                (false, true) if exact => Output::delete(None, Reason::ClientReset),
                (_, true) => Output {
                    send: None,
                    action: Action::Queue,
                },
                (_, false) => Output::drop(Reason::RstOutOfWindow),
            };
        }
        if seg.flags.contains(Flags::SYN) {
            return Output::drop(Reason::SynInConnection);
        }
        if !seg.flags.contains(Flags::ACK) {
            return Output::drop(Reason::NoAck);
        }
        // Once a back-end has the connection it may be answering already: the client's
        // acknowledgements of that can be here before the news of the adoption.
        let acceptable = seg.ack == self.snd_nxt || (handed_off && seg.ack.after(self.snd_nxt));
        if !acceptable {
            return Output::drop(Reason::UnacceptableAck);
        }
        let has_text = seg.payload_len > 0 || seg.is_fin();
        if has_text && !seg.seq_end().after(self.rcv_nxt) {
            return Output::drop(Reason::StaleWhileWaiting);
        }
        if !has_text {
            return match (handed_off, seg.seq == self.rcv_nxt || in_window) {
                (_, false) => Output::drop(Reason::StaleWhileWaiting),
                (true, true) => Output {
                    send: None,
                    action: Action::Queue,
                },
                (false, true) => {
                    self.note(seg);
                    Output::done()
                }
            };
        }
        if !in_window && seg.seq.after(self.rcv_nxt) {
            return Output::drop(Reason::BeyondWindow);
        }
        Output {
            send: None,
            action: Action::Queue,
        }
    }

    /// Does the client get no further? The scale cannot express the rest of the window, or there is
    /// none: it would go on byte by byte, if at all.
    fn is_full(&self, cfg: &Config) -> bool {
        self.room(cfg) == 0 || self.window_field() == 0
    }

    /// How many more bytes may be stored.
    fn room(&self, cfg: &Config) -> u32 {
        cfg.head_limit
            .min(self.window)
            .saturating_sub(self.received())
    }
}
