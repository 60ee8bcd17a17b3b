// SPDX-License-Identifier: GPL-2.0

//! The front-end's own replies, and the little sender that gets them across.
//!
//! A reply is one segment with FIN, made of constants, so nothing has to be kept for its
//! retransmission. It carries no body: that is right for every method, HEAD included, and a browser
//! shows its own page. The client may still be sending; what arrives is acknowledged and thrown
//! away, because a reset would make its system discard the reply it has not read yet.

use core::time::Duration;

use super::super::time::Instant;

/// The longest reply, which sizes the buffer for segments.
pub const MAX_REPLY: usize = 128;

/// How long after a transmission the next one follows; after the last the entry is given up.
const RETRANSMIT: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(8),
];

/// How long the client's data are discarded after it has acknowledged the reply.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How long an ended connection is remembered at most: twice the maximum segment lifetime, as Linux
/// takes it.
pub(super) const TIME_WAIT: Duration = Duration::from_secs(60);

macro_rules! replies {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal $phrase:literal $(+ $extra:literal)?,)+) => {
        /// The status of an own reply.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Status {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Status {
            /// All of them.
            pub const ALL: &'static [Status] = &[$(Status::$variant,)+];

            /// The reply with this code. An unknown code is answered as a bad request.
            pub const fn from_code(code: u16) -> Status {
                match code {
                    $($code => Status::$variant,)+
                    _ => Status::BadRequest,
                }
            }

            /// The code.
            pub const fn code(self) -> u16 {
                match self {
                    $(Status::$variant => $code,)+
                }
            }

            /// The whole reply.
            pub const fn bytes(self) -> &'static [u8] {
                match self {
                    $(Status::$variant => concat!(
                        "HTTP/1.1 ", $code, " ", $phrase, "\r\n",
                        "Content-Length: 0\r\nConnection: close\r\n",
                        $($extra, "\r\n",)?
                        "\r\n",
                    ).as_bytes(),)+
                }
            }
        }
    };
}

replies! {
    /// The head is not HTTP, or ambiguous, or ended early.
    BadRequest = 400 "Bad Request",
    /// The target is one that clients may not name.
    Forbidden = 403 "Forbidden",
    /// The head took too long.
    RequestTimeout = 408 "Request Timeout",
    /// The target is too long.
    UriTooLong = 414 "URI Too Long",
    /// An expectation that cannot be met.
    ExpectationFailed = 417 "Expectation Failed",
    /// A target that is not served here.
    Misdirected = 421 "Misdirected Request",
    /// The head is too long.
    HeaderFieldsTooLarge = 431 "Request Header Fields Too Large",
    /// A method or transfer coding nobody here understands.
    NotImplemented = 501 "Not Implemented",
    /// No node can serve this now.
    ServiceUnavailable = 503 "Service Unavailable" + "Retry-After: 1",
    /// Neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported = 505 "HTTP Version Not Supported",
}

impl Status {
    /// The whole reply to a client that speaks HTTP/2: the server's preface, and that it will not go on.
    /// A request that was sent has not been looked at, so the client may send it again, elsewhere or in
    /// the older version.
    ///
    /// ```text
    /// SETTINGS  Length (24) = 0, Type (8) = 4, Flags (8), Stream (32) = 0         ; RFC 9113, 6.5
    /// GOAWAY    Length (24) = 8, Type (8) = 7, Flags (8), Stream (32) = 0,        ; RFC 9113, 6.8
    ///           Last-Stream-ID (32) = 0, Error Code (32)
    /// ```
    pub const fn frames(self) -> &'static [u8] {
        match self {
            // HTTP_1_1_REQUIRED
            Status::VersionNotSupported => {
                b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d"
            }
            // NO_ERROR
            _ => b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }
}

/// What the sender wants when its timer has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// Send the reply again, and call again at this time.
    Retransmit(Instant),
    /// Nobody acknowledges it.
    GiveUp,
    /// It was delivered, and the client had its time to say more.
    LingerOver,
}

/// The state of a reply under way: a reply and its FIN, or a FIN alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// What is being said; `None` is a FIN alone.
    pub(super) status: Option<Status>,
    /// The client speaks HTTP/2.
    http2: bool,
    /// The client had closed before, so its acknowledgement ends everything.
    pub(super) passive: bool,
    /// The client has acknowledged the FIN.
    pub(super) acked: bool,
    transmissions: u8,
}

impl Sender {
    /// The reply goes out for the first time. Returns when its timer runs out.
    pub(super) fn start(
        status: Option<Status>,
        http2: bool,
        passive: bool,
        now: Instant,
    ) -> (Sender, Instant) {
        let mut sender = Sender {
            status,
            http2,
            passive,
            acked: false,
            transmissions: 0,
        };
        let at = sender.transmitted(now).unwrap_or(now);
        (sender, at)
    }

    /// The payload.
    pub(super) fn payload(&self) -> &'static [u8] {
        match self.status {
            Some(status) if self.http2 => status.frames(),
            Some(status) => status.bytes(),
            None => &[],
        }
    }

    /// The timer ran out.
    pub(super) fn tick(&mut self, now: Instant) -> Tick {
        if self.acked {
            return Tick::LingerOver;
        }
        match self.transmitted(now) {
            Some(next) => Tick::Retransmit(next),
            None => Tick::GiveUp,
        }
    }

    fn transmitted(&mut self, now: Instant) -> Option<Instant> {
        let wait = RETRANSMIT.get(usize::from(self.transmissions))?;
        self.transmissions = self.transmissions.saturating_add(1);
        Some(now.saturating_add(*wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_complete_heads_that_fit() {
        for &s in Status::ALL {
            let text = std::str::from_utf8(s.bytes()).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {} ", s.code())));
            assert!(text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1);
            assert!(s.bytes().len() <= MAX_REPLY, "{s:?}");
            assert_eq!(Status::from_code(s.code()), s);
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut reply = httparse::Response::new(&mut headers);
            assert_eq!(
                reply.parse(s.bytes()),
                Ok(httparse::Status::Complete(text.len()))
            );
        }
        assert_eq!(Status::from_code(499), Status::BadRequest);
    }

    #[test]
    fn replies_to_http_2_are_two_frames() {
        for &s in Status::ALL {
            let (settings, goaway) = s.frames().split_at(9);
            assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
            let code = goaway.strip_prefix(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let wanted = u32::from(s == Status::VersionNotSupported) * 13;
            assert_eq!(code, Some(&wanted.to_be_bytes()[..]));
        }
    }

    #[test]
    fn retransmissions_back_off_and_end() {
        let t0 = Instant::ZERO;
        let (mut s, mut at) = Sender::start(Some(Status::BadRequest), false, false, t0);
        let mut waits = vec![at.as_secs()];
        let mut sent = 1;
        while let Tick::Retransmit(next) = s.tick(at) {
            waits.push(next.saturating_since(at).as_secs());
            at = next;
            sent += 1;
        }
        assert_eq!((sent, waits), (5, vec![1, 2, 4, 8, 8]));
        assert_eq!(s.tick(at), Tick::GiveUp);
        s.acked = true;
        assert_eq!(s.tick(at), Tick::LingerOver);
    }
}
