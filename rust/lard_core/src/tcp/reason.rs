// SPDX-License-Identifier: GPL-2.0

//! Why a segment was dropped or an entry ended: one name, one counter each.
//!
//! The names are part of the statistics interface and do not change. Counters are indexed by
//! [`Reason::index`]; new reasons go to the end.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a segment was dropped or an entry ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// All reasons, in the order of their indices.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The name of the counter.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// The packet ends before its TCP header does.
    Truncated = "tcp_truncated",
    /// The header length is below 20 bytes or beyond the segment.
    BadDataOffset = "tcp_bad_data_offset",
    /// No flags, SYN with FIN, SYN with RST, or a SYN-ACK: no client sends these.
    BadFlags = "tcp_bad_flags",
    /// Source port 0.
    BadPort = "tcp_bad_port",
    /// The client wants TCP-MD5 or TCP-AO, whose keys the front-end does not have.
    Signed = "tcp_signed",
    /// A segment after the handshake without ACK.
    NoAck = "tcp_no_ack",
    /// A segment that belongs to no connection.
    Stray = "tcp_stray",
    /// In half-open state: acknowledges something that was never sent. Answered by a reset.
    WrongAck = "tcp_wrong_ack",
    /// After the handshake: acknowledges something outside of what was sent.
    UnacceptableAck = "tcp_unacceptable_ack",
    /// Data beyond a gap; the duplicate ACK makes the client send the gap again.
    OutOfOrder = "tcp_out_of_order",
    /// Bytes that were already received, or a keep-alive probe.
    Duplicate = "tcp_duplicate",
    /// Wholly beyond the right edge of the window.
    BeyondWindow = "tcp_beyond_window",
    /// Timestamp older than the newest one seen (RFC 7323, 5).
    Paws = "tcp_paws",
    /// A SYN with another sequence number on a half-open connection.
    SynConflict = "tcp_syn_conflict",
    /// A SYN on a synchronised connection.
    SynInConnection = "tcp_syn_in_connection",
    /// A RST in the window, but not at its left edge (RFC 5961, 3).
    RstInWindow = "tcp_rst_in_window",
    /// A RST outside of the window.
    RstOutOfWindow = "tcp_rst_out_of_window",
    /// Old segment while the hand-off is under way; not answered, because after the head is
    /// complete nothing is acknowledged any more.
    StaleWhileWaiting = "tcp_stale_while_waiting",
    /// Segment for a connection the front-end has already ended.
    AfterEnd = "tcp_after_end",
    /// A SYN cookie that this front-end did not make, or not for this tuple.
    CookieInvalid = "tcp_cookie_invalid",
    /// A genuine SYN cookie that is too old.
    CookieExpired = "tcp_cookie_expired",
    /// The client reset the connection.
    ClientReset = "tcp_client_reset",
    /// The handshake was never completed.
    HalfOpenExpired = "tcp_half_open_expired",
    /// The client closed without having sent a byte.
    NoRequest = "tcp_no_request",
    /// The front-end's own reply was delivered and the connection has ended.
    ReplyDelivered = "tcp_reply_delivered",
    /// The client never acknowledged the front-end's own reply.
    ReplyUnacked = "tcp_reply_unacked",
    /// The client kept sending into a connection the front-end has ended, and was reset.
    LateData = "tcp_late_data",
    /// The back-end neither adopted nor refused; the client was reset.
    HandoffSilent = "tcp_handoff_silent",
    /// A new connection took the tuple over.
    Reused = "tcp_reused",
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Reason::ALL.len();

    /// The position of this reason's counter.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_indices_dense() {
        for (i, r) in Reason::ALL.iter().enumerate() {
            assert_eq!(r.index(), i);
            assert!(r.name().starts_with("tcp_"));
            assert_eq!(
                Reason::ALL.iter().filter(|o| o.name() == r.name()).count(),
                1
            );
        }
    }
}
