// SPDX-License-Identifier: GPL-2.0

//! What is counted, per network namespace.
//!
//! There is one list of counters: it gives each its name, which all ways of reading show, and the
//! sentence that explains it in `Documentation/networking/lard-counters.rst`. Whatever is dropped,
//! refused or given up has a counter of its own, so the question "where did my packet go?" has an
//! answer that needs no debugger. The reasons of the front-end's TCP are listed in `lard_core`, and
//! follow the ones of this file.
//!
//! # Locking
//!
//! None. The numbers are kept per CPU and added when somebody reads them, so a reader may see one
//! event counted and a later one not yet.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::counters::Counters;
use lard_core::http::{BadHead, Pinned};
use lard_core::tcp::Reason;
use lard_core::wire::{DecodeError, HowClosed, Refusal, WhyBusy};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// One counter of the module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Counter {
            $($(#[doc = $doc])+ $variant,)+
            /// Why the front-end's TCP dropped a segment or ended a connection.
            Tcp(Reason),
        }

        /// The numbers of the counters of this file.
        #[repr(u16)]
        enum Number {
            $($variant,)+
        }

        /// Their names, in order.
        const NAMES: &[&str] = &[$($name,)+];

        impl Counter {
            /// The place among all counters.
            const fn index(self) -> usize {
                match self {
                    // CAST: Numbers are small.
                    $(Self::$variant => Number::$variant as usize,)+
                    Self::Tcp(reason) => NAMES.len() + reason.index(),
                }
            }
        }
    };
}

counters! {
    // --- packets of clients, at the front-end ---

    /// Dropped: a fragment, which the front-end does not put together.
    Fragment = "fe_fragment",
    /// Dropped: the checksum is wrong.
    Checksum = "fe_checksum",
    /// Dropped: the source address cannot be a client's.
    MartianSource = "fe_martian_source",
    /// Dropped: packets to the source address do not leave by the interface that this one came by, and
    /// net.ipv4.conf.*.rp_filter asks for it.
    ReversePath = "fe_rp_filter",
    /// Dropped: no memory for a connection or for what it sent.
    NoMemory = "fe_no_memory",
    /// Dropped: as many connections wait for their hand-off as may.
    OpenMax = "fe_open_max",
    /// Dropped: unfinished request heads and waiting packets hold as many bytes as they may.
    HeadMemory = "fe_head_memory",
    /// Dropped: too many packets wait for the end of a hand-off. The client sends again what it has sent in them.
    ParkedFull = "fe_parked_full",
    /// Dropped: while it was looked at, another processor opened or ended its connection. The client
    /// sends it again.
    Overtaken = "fe_overtaken",
    /// Dropped: SYNs before the dispatcher has told this front-end the settings of the service. The
    /// client sends them again.
    NoService = "fe_no_service",
    /// ICMP errors about connections that were not handed over yet; nothing is done.
    IcmpIgnored = "fe_icmp_ignored",
    /// Segments of the front-end that could not be sent.
    OwnSegmentLost = "fe_own_segment_lost",

    // --- connections, at the front-end ---

    /// Connections opened, by a SYN or by a SYN cookie.
    Opened = "fe_opened",
    /// SYNs answered with a cookie, because too many handshakes were unfinished.
    CookieSent = "fe_cookie_sent",
    /// Connections that a genuine SYN cookie opened.
    CookieAccepted = "fe_cookie_accepted",
    /// Questions sent to a dispatcher on another node.
    Asked = "fe_asked",
    /// Writes that sent them; the rest is batching.
    AskWrites = "fe_ask_writes",
    /// Requests the front-end placed itself, because the dispatcher was out of reach or knew nobody.
    AssignFallback = "fe_assign_fallback",
    /// Requests answered with 503: no node may be chosen, or none had room in time.
    NoBackEnd = "fe_no_back_end",
    /// Requests answered with 503: no node that has the tags of their content rule may be chosen.
    NoTaggedBackEnd = "fe_no_tagged_back_end",
    /// Connections offered to a back-end on another node.
    HandoffSent = "fe_handoff_sent",
    /// Connections taken by the back-end on the same node.
    HandoffLocal = "fe_handoff_local",
    /// Hand-offs put off for a moment: too much waits already to be sent to the back-end.
    HandoffLater = "fe_handoff_later",
    /// Connections whose HANDOFF did not leave the node; another back-end is tried.
    HandoffNotSent = "fe_handoff_not_sent",
    /// Connections offered to another back-end after the first could not take them.
    HandoffRetried = "fe_handoff_retried",
    /// Requests answered with 503: several back-ends could not take the connection.
    HandoffGivenUp = "fe_handoff_given_up",
    /// Answers of back-ends about connections that were given up meanwhile.
    StaleAnswer = "fe_stale_answer",
    /// Connections that a back-end has taken.
    Adopted = "fe_adopted",
    /// Connections lost because a back-end reset the client in refusing them.
    ClientResetByRefusal = "fe_client_reset",
    /// Connections of HTTP/2 routed by their client: no request came in time, or before the client closed.
    Http2NoRequest = "fe_http2_no_request",
    /// Connections of HTTP/2 routed by their client: what came before the first request does not belong
    /// there.
    Http2Frames = "fe_http2_frames",
    /// Connections of HTTP/2 routed by their client: the fields of the first request were not there in
    /// time, or went beyond the limit.
    Http2Cut = "fe_http2_cut",
    /// Connections of HTTP/2 routed by their client: the fields of the first request cannot be read.
    Http2Fields = "fe_http2_fields",
    /// Handed-over connections forgotten after they had ended.
    ForwardEnded = "fe_forward_ended",
    /// Handed-over connections forgotten because nothing was heard of them for too long.
    ForwardExpired = "fe_forward_expired",
    /// Handed-over connections that had nothing to do for a while, as the dispatcher was told.
    ForwardIdle = "fe_forward_idle",
    /// Handed-over connections forgotten, and their clients reset, because their back-end has fallen
    /// silent: see the parameter `expire-nodest`.
    ForwardNodest = "fe_forward_nodest",
    /// Questions to back-ends whether they still have a connection that was handed over to them.
    Probed = "fe_probed",
    /// Handed-over connections that were found gone by that: the report of their end was lost.
    ProbeGone = "fe_probe_gone",

    // --- further requests on a connection, in the modes move, forward and auto ---

    /// Further requests that came on connections that may move, at the beginning of a segment and while no
    /// other one was held. The others are counted as pipelined or batched.
    Next = "fe_next",
    /// Further requests that stay: the dispatcher named the node that has the connection.
    NextStays = "fe_next_stays",
    /// Further requests that stay: the client sent them before it had an answer to the one before, behind
    /// a body or while another one waited, or with its FIN in their packet.
    NextPipelined = "fe_next_pipelined",
    /// Further requests that came in one piece with the one before them, which was held or handed over
    /// first: they go where it goes, and nobody is asked about them.
    NextBatched = "fe_next_batched",
    /// Further requests that stay: empty lines came before them.
    NextEmptyLines = "fe_next_empty_lines",
    /// Further requests that stay: the client ended the connection before their head was complete, or reset
    /// it before the back-end was asked to let go.
    NextClosing = "fe_next_closing",
    /// Further requests that stay: their head, or the dispatcher's answer, did not come in time.
    NextExpired = "fe_next_expired",
    /// Further requests that stay: no other node may be chosen.
    NextNoBackEnd = "fe_next_no_back_end",
    /// Further requests that stay: the dispatcher is out of reach.
    NextNoDispatcher = "fe_next_no_dispatcher",
    /// Further requests that stay: there was no room to hold them.
    NextNoRoom = "fe_next_no_room",
    /// Dropped: segments of a request that is held already, or beyond a gap where one could begin. The
    /// client sends them again if need be.
    NextDropped = "fe_next_dropped",
    /// Further requests that stay: in the mode forward only the content of GET and HEAD is supplied by
    /// other nodes.
    NextMethod = "fe_next_method",
    /// Further requests that stay: no other node's name can be put in front of the target.
    NextUnsuited = "fe_next_unsuited",
    /// Back-ends on other nodes asked to let go of a connection.
    ReleaseSent = "fe_release_sent",
    /// Back-ends to be asked again, because the server was in a call on the socket.
    ReleaseAgain = "fe_release_again",
    /// Further requests that stay: RELEASE did not leave the node.
    ReleaseNotSent = "fe_release_not_sent",
    /// Connections that a back-end has let go of, to be handed over again.
    MoveBegun = "fe_move_begun",
    /// Requests handed over with the name of the node in front that supplies the content.
    Supplied = "fe_supplied",
    /// Connections reset because nobody could say whether the back-end had let go of them.
    MoveFailed = "fe_move_failed",
    /// Requests that stay: the back-end says that the connection is about to end.
    BusyEnding = "fe_busy_ending",
    /// Requests that stay: the back-end has not answered the ones before.
    BusyAnswering = "fe_busy_answering",
    /// Requests that stay: the server has not read everything, or the client not acknowledged everything.
    BusyInFlight = "fe_busy_in_flight",
    /// Requests that stay: the server was in a call on the socket.
    BusyInUse = "fe_busy_in_use",
    /// Requests that stay, and their connections for good: the answers cannot be followed.
    BusyOpaque = "fe_busy_opaque",
    /// Requests that stay: the node that has the connection has not mounted the content of the one that was
    /// to supply it.
    BusyUnmounted = "fe_busy_unmounted",
    /// Connections that stay for good: what should be a request has more than one reading.
    PinnedHead = "fe_pinned_head",
    /// Connections that stay for good: a chunk of a body has more than one reading.
    PinnedChunk = "fe_pinned_chunk",
    /// Connections that stay for good: the request was their last.
    PinnedClosing = "fe_pinned_closing",
    /// Connections that stay for good: they change to another protocol.
    PinnedUpgrade = "fe_pinned_upgrade",
    /// Connections that stay for good: they become tunnels.
    PinnedConnect = "fe_pinned_connect",
    /// Connections that stay for good, in every mode: they speak HTTP/2.
    PinnedHttp2 = "fe_pinned_http2",
    /// Connections that stay for good: a request has a body that means nothing with its method.
    PinnedContent = "fe_pinned_content",
    /// Connections that stay for good: a request expects what cannot be followed.
    PinnedExpectation = "fe_pinned_expectation",
    /// Connections that stay for good: a part of what was sent could not be seen, or the answer to a HEAD
    /// request could not be followed.
    PinnedLost = "fe_pinned_lost",

    // --- what does not pass in the mode forward ---

    /// Connections reset: a further request named what could be the directory of a node.
    CheckedReserved = "fe_checked_reserved",
    /// Connections reset: a client sent what can not be followed. Why not is counted as well.
    CheckedUnread = "fe_checked_unread",
    /// Connections reset: they were handed over in another mode, and their client sent something.
    CheckedBefore = "fe_checked_before",
    /// Dropped: bytes that were sent before, and then were others, or are not known any more.
    CheckedChanged = "fe_checked_changed",

    // --- why a request head was answered with an error ---

    /// Too many empty lines before the request line.
    HttpEmptyLines = "http_empty_lines",
    /// The method has a character that a token cannot have, or is missing.
    HttpMethod = "http_method",
    /// The method is longer than any there is.
    HttpMethodTooLong = "http_method_too_long",
    /// The request target has a character it cannot have, is missing, or has a form that does not
    /// go with the method.
    HttpTarget = "http_target",
    /// The head reached its limit within the request target.
    HttpTargetTooLong = "http_target_too_long",
    /// What follows the target is not `HTTP/digit.digit` and CRLF.
    HttpVersion = "http_version",
    /// A version of HTTP other than 1.0 and 1.1.
    HttpVersionUnsupported = "http_version_unsupported",
    /// A line feed without a carriage return.
    HttpBareLf = "http_bare_lf",
    /// A carriage return without a line feed.
    HttpBareCr = "http_bare_cr",
    /// A line that begins with white space: a folded field, or a trick.
    HttpFold = "http_fold",
    /// The name of a field has a character that a token cannot have, is missing, or is that of a field
    /// that matters here with `_` in place of `-`.
    HttpFieldName = "http_field_name",
    /// White space between the name of a field and the colon.
    HttpSpaceBeforeColon = "http_space_before_colon",
    /// The value of a field has a control character.
    HttpFieldValue = "http_field_value",
    /// The head reached its limit within the fields.
    HttpTooLarge = "http_too_large",
    /// HTTP/1.1 without Host.
    HttpNoHost = "http_no_host",
    /// More than one Host.
    HttpDuplicateHost = "http_duplicate_host",
    /// Host, or the authority in the target, is not a host with an optional port.
    HttpHost = "http_host",
    /// The authority in the target and Host name different hosts.
    HttpHostMismatch = "http_host_mismatch",
    /// Content-Length is not a number, begins with a needless 0, does not fit in 63 bits, or comes
    /// twice.
    HttpContentLength = "http_content_length",
    /// Transfer-Encoding is empty, applies chunked twice, or comes with HTTP/1.0.
    HttpTransferEncoding = "http_transfer_encoding",
    /// A transfer coding other than chunked.
    HttpTransferCoding = "http_transfer_coding",
    /// Both Content-Length and Transfer-Encoding.
    HttpLengthConflict = "http_length_conflict",
    /// CONNECT with a body.
    HttpConnectBody = "http_connect_body",
    /// The client closed its direction before the head was complete.
    HttpTruncated = "http_truncated",
    /// The head did not arrive in time.
    HttpTooSlow = "http_too_slow",
    /// Answered with 403: the target could be the directory of a node, in the mode forward.
    HttpReserved = "http_reserved",
    /// Answered with 400: behind the head stands what cannot be followed, in the mode forward. HTTP/2 is
    /// answered with GOAWAY.
    HttpUnread = "http_unread",

    // --- hand-offs that back-ends refused, as the front-end heard it ---

    /// Refused by a back-end: no server listens on the port.
    FeRefusedNoListener = "fe_refused_no_listener",
    /// Refused by a back-end: the server's accept queue is full.
    FeRefusedQueueFull = "fe_refused_queue_full",
    /// Refused by a back-end: a live socket has the same addresses and ports.
    FeRefusedTupleInUse = "fe_refused_tuple_in_use",
    /// Refused by a back-end: net.ipv4.tcp_syncookies is 0.
    FeRefusedSyncookiesOff = "fe_refused_syncookies_off",
    /// Refused by a back-end: the server listens with MPTCP.
    FeRefusedMptcpListener = "fe_refused_mptcp_listener",
    /// Refused by a back-end: the connection uses a TCP option that is switched off there.
    FeRefusedOptions = "fe_refused_options",
    /// Refused by a back-end: the message came too late, or its age was not known.
    FeRefusedExpired = "fe_refused_expired",
    /// Refused by a back-end: the sender, the address or the port is not among those allowed.
    FeRefusedNotAllowed = "fe_refused_not_allowed",
    /// Refused by a back-end: no memory.
    FeRefusedNoMemory = "fe_refused_no_memory",
    /// Refused by a back-end: the kernel made no socket.
    FeRefusedNotCreated = "fe_refused_not_created",

    // --- dispatcher ---

    /// Questions that were answered at once, with a node as a rule.
    DpAssigned = "dp_assigned",
    /// Connections that had to wait, because the cluster has as many as it may.
    DpWaits = "dp_waits",
    /// Connections that were let in after they had waited.
    DpAdmitted = "dp_admitted",
    /// Connections that waited for too long; their requests are answered with 503.
    DpQueueTimeout = "dp_queue_timeout",
    /// Connections that could not wait, because too many do; their requests are answered with 503.
    DpQueueFull = "dp_queue_full",
    /// Connections that count as one unit of load of their node although they are idle, or other nodes help
    /// to serve them: there was no room to keep that.
    DpUntracked = "dp_untracked",

    // --- forwarding ---

    /// Packets of clients passed on to back-ends.
    Forwarded = "fw_packets",
    /// ICMP errors about handed-over connections, passed on to the back-end.
    ForwardedIcmp = "fw_icmp",
    /// Dropped: there is no route to the back-end that reaches it directly.
    ForwardNoRoute = "fw_no_route",
    /// Dropped: the packet's time to live ends here.
    ForwardTtl = "fw_ttl",

    // --- back-end ---

    /// Connections that a socket of this node has taken.
    BeAdopted = "be_adopted",
    /// Refused: no server listens on the port.
    BeNoListener = "be_no_listener",
    /// Refused: the server's accept queue is full.
    BeQueueFull = "be_queue_full",
    /// Refused: a live socket has the same addresses and ports.
    BeTupleInUse = "be_tuple_in_use",
    /// Refused: net.ipv4.tcp_syncookies is 0.
    BeSyncookiesOff = "be_syncookies_off",
    /// Refused: the server listens with MPTCP.
    BeMptcpListener = "be_mptcp_listener",
    /// Refused: the connection uses a TCP option that is switched off here.
    BeOptions = "be_options",
    /// Refused: the message came too late, or its age was not known.
    BeExpired = "be_expired",
    /// Refused: the sender, the address or the port is not among those allowed.
    BeNotAllowed = "be_not_allowed",
    /// Refused: no memory.
    BeNoMemory = "be_no_memory",
    /// Refused: the kernel made no socket.
    BeNotCreated = "be_not_created",
    /// Sockets in TIME_WAIT that gave way to a new connection of the same client.
    BeTimeWaitReplaced = "be_time_wait_replaced",
    /// Packets delivered to sockets of handed-over connections.
    BePackets = "be_packets",
    /// Dropped: a forwarded packet that belongs to no socket.
    BeUnknownTuple = "be_unknown_tuple",
    /// Dropped: no memory for the route into this node's own stack.
    BeNoRoute = "be_no_route",
    /// Resets kept back that TCP wanted to send while a hand-off failed: the front-end has the connection.
    BeResetHeld = "be_reset_held",
    /// Handed-over connections that both sides closed.
    BeClosed = "be_closed",
    /// Handed-over connections that the server closed first.
    BeTimeWait = "be_time_wait",
    /// Handed-over connections that were reset or timed out.
    BeReset = "be_reset",
    /// Connections that this node gave up for another.
    BeReleased = "be_released",
    /// Ends of connections that could not be reported to the front-end, which asks for them later, or to
    /// the dispatcher, which compares its counts.
    BeUnreported = "be_unreported",

    // --- control connections ---

    /// Frames received.
    CtFramesIn = "ct_frames_in",
    /// Frames sent.
    CtFramesOut = "ct_frames_out",
    /// Writes that sent them; the rest is batching.
    CtWrites = "ct_writes",
    /// Frames not sent: the queue to the peer is full.
    CtQueueFull = "ct_queue_full",
    /// Frames not sent: there is no connection to the node.
    CtNoPeer = "ct_no_peer",
    /// Frames not sent: a value in them cannot be encoded.
    CtUnencodable = "ct_unencodable",
    /// Connections closed: a frame of another protocol version.
    CtBadVersion = "ct_bad_version",
    /// Connections closed: a frame of an unknown type.
    CtBadType = "ct_bad_type",
    /// Connections closed: unknown flags in a frame.
    CtBadFlags = "ct_bad_flags",
    /// Connections closed: a frame of an impossible length.
    CtBadLength = "ct_bad_length",
    /// Connections closed: reserved bits are set in a frame.
    CtBadReserved = "ct_bad_reserved",
    /// Connections closed: an impossible value in a frame.
    CtBadValue = "ct_bad_value",
    /// Connections closed: the first frame was not HELLO.
    CtNotIntroduced = "ct_not_introduced",
    /// Connections closed: a frame that the sender's or our roles do not allow.
    CtOutOfPlace = "ct_out_of_place",
    /// Connections closed: HELLO named another version, cluster or node.
    CtMismatch = "ct_mismatch",
    /// Connections the peer closed without BYE.
    CtLostClosed = "ct_lost_closed",
    /// Connections the peer ended with BYE.
    CtLostBye = "ct_lost_bye",
    /// Connections ended because the peer was silent.
    CtLostSilent = "ct_lost_silent",
    /// Connections that broke.
    CtLostError = "ct_lost_error",
}

impl From<Reason> for Counter {
    fn from(reason: Reason) -> Self {
        Counter::Tcp(reason)
    }
}

/// Why the front-end answers a request with an error.
impl From<BadHead> for Counter {
    fn from(bad: BadHead) -> Self {
        match bad {
            BadHead::EmptyLines => Counter::HttpEmptyLines,
            BadHead::Method => Counter::HttpMethod,
            BadHead::MethodTooLong => Counter::HttpMethodTooLong,
            BadHead::Target => Counter::HttpTarget,
            BadHead::TargetTooLong => Counter::HttpTargetTooLong,
            BadHead::Version => Counter::HttpVersion,
            BadHead::VersionUnsupported => Counter::HttpVersionUnsupported,
            BadHead::BareLf => Counter::HttpBareLf,
            BadHead::BareCr => Counter::HttpBareCr,
            BadHead::Fold => Counter::HttpFold,
            BadHead::FieldName => Counter::HttpFieldName,
            BadHead::SpaceBeforeColon => Counter::HttpSpaceBeforeColon,
            BadHead::FieldValue => Counter::HttpFieldValue,
            BadHead::TooLarge => Counter::HttpTooLarge,
            BadHead::NoHost => Counter::HttpNoHost,
            BadHead::DuplicateHost => Counter::HttpDuplicateHost,
            BadHead::Host => Counter::HttpHost,
            BadHead::HostMismatch => Counter::HttpHostMismatch,
            BadHead::ContentLength => Counter::HttpContentLength,
            BadHead::TransferEncoding => Counter::HttpTransferEncoding,
            BadHead::TransferCoding => Counter::HttpTransferCoding,
            BadHead::LengthConflict => Counter::HttpLengthConflict,
            BadHead::ConnectBody => Counter::HttpConnectBody,
            BadHead::Truncated => Counter::HttpTruncated,
            BadHead::TooSlow => Counter::HttpTooSlow,
        }
    }
}

/// What a back-end answered to the front-end.
impl From<WhyBusy> for Counter {
    fn from(why: WhyBusy) -> Self {
        match why {
            WhyBusy::Ending => Counter::BusyEnding,
            WhyBusy::Answering => Counter::BusyAnswering,
            WhyBusy::InFlight => Counter::BusyInFlight,
            WhyBusy::InUse => Counter::BusyInUse,
            WhyBusy::Opaque => Counter::BusyOpaque,
            WhyBusy::Unmounted => Counter::BusyUnmounted,
        }
    }
}

/// Why a connection that could move does not any more.
impl From<Pinned> for Counter {
    fn from(why: Pinned) -> Self {
        match why {
            Pinned::Head(_) => Counter::PinnedHead,
            Pinned::Chunk => Counter::PinnedChunk,
            Pinned::Closing => Counter::PinnedClosing,
            Pinned::Upgrade => Counter::PinnedUpgrade,
            Pinned::Connect => Counter::PinnedConnect,
            Pinned::Http2 => Counter::PinnedHttp2,
            Pinned::Content => Counter::PinnedContent,
            Pinned::Expectation => Counter::PinnedExpectation,
            Pinned::Lost => Counter::PinnedLost,
        }
    }
}

/// Why a back-end could not take a connection, as its front-end hears it.
impl From<Refusal> for Counter {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoListener => Counter::FeRefusedNoListener,
            Refusal::QueueFull => Counter::FeRefusedQueueFull,
            Refusal::TupleInUse => Counter::FeRefusedTupleInUse,
            Refusal::SyncookiesOff => Counter::FeRefusedSyncookiesOff,
            Refusal::MptcpListener => Counter::FeRefusedMptcpListener,
            Refusal::Options => Counter::FeRefusedOptions,
            Refusal::Expired => Counter::FeRefusedExpired,
            Refusal::NotAllowed => Counter::FeRefusedNotAllowed,
            Refusal::NoMemory => Counter::FeRefusedNoMemory,
            Refusal::NotCreated => Counter::FeRefusedNotCreated,
        }
    }
}

/// Why a frame ended its connection.
impl From<DecodeError> for Counter {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Version(_) => Counter::CtBadVersion,
            DecodeError::Type(_) => Counter::CtBadType,
            DecodeError::Flags(_) => Counter::CtBadFlags,
            DecodeError::Length(_) => Counter::CtBadLength,
            DecodeError::Reserved(_) => Counter::CtBadReserved,
            DecodeError::Value(..) => Counter::CtBadValue,
            DecodeError::NotIntroduced(_) => Counter::CtNotIntroduced,
        }
    }
}

impl Counter {
    /// What the back-end of this node answers to a front-end.
    pub(crate) fn refusing(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoListener => Counter::BeNoListener,
            Refusal::QueueFull => Counter::BeQueueFull,
            Refusal::TupleInUse => Counter::BeTupleInUse,
            Refusal::SyncookiesOff => Counter::BeSyncookiesOff,
            Refusal::MptcpListener => Counter::BeMptcpListener,
            Refusal::Options => Counter::BeOptions,
            Refusal::Expired => Counter::BeExpired,
            Refusal::NotAllowed => Counter::BeNotAllowed,
            Refusal::NoMemory => Counter::BeNoMemory,
            Refusal::NotCreated => Counter::BeNotCreated,
        }
    }

    /// How a connection that a socket of this node had came to its end.
    pub(crate) fn ending(how: HowClosed) -> Self {
        match how {
            HowClosed::Closed => Counter::BeClosed,
            HowClosed::TimeWait => Counter::BeTimeWait,
            HowClosed::Reset | HowClosed::NotAdopted => Counter::BeReset,
            HowClosed::Moved => Counter::BeReleased,
        }
    }
}

const COUNT: usize = NAMES.len() + Reason::COUNT;

/// The counters of one namespace.
pub(crate) struct Stats(Counters);

impl Stats {
    /// All zero. May sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Counters::new(COUNT)?))
    }

    /// Counts one event. Any context.
    #[inline]
    pub(crate) fn inc(&self, what: Counter) {
        self.0.inc(what.index());
    }

    /// Counts several. Any context.
    #[inline]
    pub(crate) fn add(&self, what: Counter, n: u64) {
        self.0.add(what.index(), n);
    }

    /// The value of the counter at `index`; 0 if there is none.
    pub(crate) fn at(&self, index: usize) -> u64 {
        self.0.sum(index)
    }

    /// The name of the counter at `index`, if there is one.
    pub(crate) fn name(index: usize) -> Option<&'static str> {
        match index.checked_sub(NAMES.len()) {
            None => NAMES.get(index).copied(),
            Some(reason) => Reason::ALL.get(reason).map(|r| r.name()),
        }
    }
}
