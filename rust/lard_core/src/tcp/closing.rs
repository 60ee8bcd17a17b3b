// SPDX-License-Identifier: GPL-2.0

//! Ending a connection without a back-end: the reply, the client's last words, TIME_WAIT.
//!
//! From here on nothing is stored. What the client sends is acknowledged and forgotten, gaps
//! included, so that it comes to its end and reads the reply.

use super::super::time::Instant;
use super::action::{Action, Output};
use super::config::Config;
use super::forwarding::ISS_GAP;
use super::reason::Reason;
use super::reply::{Sender, Status, Tick, LINGER, TIME_WAIT};
use super::responder::{Responder, State};
use super::segment::{Flags, Segment};

impl Responder {
    /// Sends `status`, or a FIN alone.
    pub(super) fn begin_close(&mut self, status: Option<Status>, now: Instant) -> Output {
        let (sender, deadline) = Sender::start(status, self.http2, self.fin, now);
        self.state = State::Closing(sender);
        self.deadline = deadline;
        // CAST: a reply is at most MAX_REPLY bytes; the FIN follows it.
        let len = sender.payload().len() as u32;
        self.snd_nxt = self.iss.add(1).add(len).add(1);
        self.transmit(&sender, now)
    }

    pub(super) fn close(
        &mut self,
        cfg: &Config,
        mut sender: Sender,
        seg: &Segment,
        now: Instant,
    ) -> Output {
        if let Err(output) = self.screen(seg, now) {
            // A repetition of the client's FIN may bring the missing acknowledgement of ours.
            if output.action != Action::Drop(Reason::Duplicate) || !self.acknowledges_all(seg) {
                return output;
            }
            return match self.all_acked(&mut sender, now) {
                Some(reason) => Output::delete(None, reason),
                None => output,
            };
        }
        if !seg.ack.between(self.iss.add(1), self.snd_nxt) {
            return self.unexpected(seg, Reason::UnacceptableAck, now);
        }
        self.note(seg);
        let answer = self.discard(seg, now);
        if self.acknowledges_all(seg) {
            if let Some(reason) = self.all_acked(&mut sender, now) {
                return Output::delete(None, reason);
            }
        }
        if sender.acked && self.fin {
            self.enter_time_wait(cfg, true, now);
        }
        Output {
            send: answer,
            action: Action::Done,
        }
    }

    pub(super) fn close_timer(&mut self, cfg: &Config, mut sender: Sender, now: Instant) -> Output {
        match sender.tick(now) {
            Tick::Retransmit(next) => {
                self.deadline = next;
                self.state = State::Closing(sender);
                self.transmit(&sender, now)
            }
            Tick::GiveUp => Output::delete(None, Reason::ReplyUnacked),
            Tick::LingerOver => {
                self.enter_time_wait(cfg, false, now);
                Output::done()
            }
        }
    }

    pub(super) fn time_wait(
        &mut self,
        cfg: &Config,
        peer_closed: bool,
        seg: &Segment,
        now: Instant,
    ) -> Output {
        if seg.is_syn() {
            return if self.is_successor(seg) {
                Output {
                    send: None,
                    action: Action::Restart {
                        min_iss: self.snd_nxt.add(ISS_GAP),
                    },
                }
            } else {
                self.challenge(Reason::SynInConnection, now)
            };
        }
        // A stray RST must not free the tuple early (RFC 1337).
        if seg.is_rst() {
            return Output::drop(Reason::AfterEnd);
        }
        if let Err(output) = self.screen(seg, now) {
            return output;
        }
        if seg.ack.after(self.snd_nxt) {
            return self.unexpected(seg, Reason::UnacceptableAck, now);
        }
        if seg.payload_len > 0 && !peer_closed {
            // It had its time to read the reply.
            return Output::delete(Some(self.abort()), Reason::LateData);
        }
        if seg.is_fin() {
            let answer = self.discard(seg, now);
            self.enter_time_wait(cfg, true, now);
            return Output {
                send: answer,
                action: Action::Done,
            };
        }
        Output::drop(Reason::AfterEnd)
    }

    /// Acknowledges what there is to acknowledge, and forgets it.
    fn discard(&mut self, seg: &Segment, now: Instant) -> Option<super::emit::SegmentOut> {
        if seg.payload_len == 0 && !seg.is_fin() {
            return None;
        }
        let edge = self.edge();
        if !self.fin {
            let end = seg.payload_end();
            self.rcv_nxt = self.rcv_nxt.max(end.min(edge));
            if seg.is_fin() && self.rcv_nxt == end {
                self.rcv_nxt = self.rcv_nxt.add(1);
                self.fin = true;
            }
        }
        Some(self.ack(now))
    }

    /// Our FIN has arrived. `Some` if that was the last thing to happen.
    fn all_acked(&mut self, sender: &mut Sender, now: Instant) -> Option<Reason> {
        if !sender.acked {
            sender.acked = true;
            self.deadline = now.saturating_add(LINGER);
            self.state = State::Closing(*sender);
        }
        match (sender.passive, sender.status) {
            (true, None) => Some(Reason::NoRequest),
            (true, Some(_)) => Some(Reason::ReplyDelivered),
            (false, _) => None,
        }
    }

    fn enter_time_wait(&mut self, cfg: &Config, peer_closed: bool, now: Instant) {
        self.state = State::TimeWait { peer_closed };
        self.deadline = now.saturating_add(cfg.time_wait.min(TIME_WAIT));
    }

    fn transmit(&mut self, sender: &Sender, now: Instant) -> Output {
        self.acked = self.rcv_nxt;
        let payload = sender.payload();
        let mut flags = Flags::FIN.with(Flags::ACK);
        if !payload.is_empty() {
            flags = flags.with(Flags::PSH);
        }
        Output::send(self.data(self.iss.add(1), flags, payload, now))
    }

    fn acknowledges_all(&self, seg: &Segment) -> bool {
        seg.flags.contains(Flags::ACK) && seg.ack == self.snd_nxt
    }

    /// Can this SYN not be confused with the ended connection (RFC 6191)?
    fn is_successor(&self, seg: &Segment) -> bool {
        let newer_ts = match seg.options.ts {
            Some(ts) => self.is_newer_ts(ts.val),
            None => false,
        };
        seg.seq.after(self.rcv_nxt) || newer_ts
    }
}
