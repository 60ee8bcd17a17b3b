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
use lard_core::tcp::Reason;
use lard_core::wire::{DecodeError, HowClosed, Refusal};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// One counter of the module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub(crate) enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            /// The names, in the order of the variants.
            const NAMES: &'static [&'static str] = &[$($name,)+];
        }
    };
}

counters! {
    // --- packets that a rule claimed ---

    /// Packets of clients that a rule claimed.
    FePackets = "fe_packets",
    /// Dropped: a fragment, which the front-end does not put together.
    FeFragment = "fe_fragment",
    /// Dropped: the IP header makes no sense.
    FeBadHeader = "fe_bad_header",
    /// Dropped: the checksum is wrong.
    FeBadChecksum = "fe_bad_checksum",
    /// Dropped: the source address cannot be a client's.
    FeBadSource = "fe_bad_source",
    /// Dropped: no memory for an entry, a buffer or a packet.
    FeNoMemory = "fe_no_memory",
    /// Dropped: the connection table is full.
    FeTableFull = "fe_table_full",
    /// Dropped: unfinished request heads hold as many bytes as they may.
    FeHeadMemory = "fe_head_memory",
    /// Dropped: too many packets wait for the end of a hand-off; the client sends it again.
    FeQueueFull = "fe_queue_full",
    /// Dropped: a SYN while the node takes no new connections.
    FeStopping = "fe_stopping",
    /// Packets of the front-end that could not be sent.
    FeSendFailed = "fe_send_failed",

    // --- connections at the front-end ---

    /// SYNs answered with an entry of their own.
    FeSyn = "fe_syn",
    /// SYNs answered with a cookie, because too many handshakes were unfinished.
    FeCookieSent = "fe_cookie_sent",
    /// Connections that a genuine SYN cookie opened.
    FeCookieOpened = "fe_cookie_opened",
    /// Complete request heads.
    FeRequest = "fe_request",
    /// Request heads answered with 400: not understood.
    FeReply400 = "fe_reply_400",
    /// Request heads answered with 408: not complete in time.
    FeReply408 = "fe_reply_408",
    /// Request heads answered with 414: the target is too long.
    FeReply414 = "fe_reply_414",
    /// Request heads answered with 431: too long.
    FeReply431 = "fe_reply_431",
    /// Request heads answered with 501: a transfer coding or method that cannot be served.
    FeReply501 = "fe_reply_501",
    /// Requests answered with 503: no node could take them.
    FeReply503 = "fe_reply_503",
    /// Request heads answered with 505: an unknown version of HTTP.
    FeReply505 = "fe_reply_505",
    /// Requests the dispatcher was asked about.
    FeAsked = "fe_asked",
    /// Requests the dispatcher named a node for.
    FeAssigned = "fe_assigned",
    /// Requests the dispatcher had no node for.
    FeUnassigned = "fe_unassigned",
    /// Requests the front-end placed itself, because the dispatcher was out of reach.
    FeFallback = "fe_fallback",
    /// Connections handed to a back-end, every attempt.
    FeHandoff = "fe_handoff",
    /// Connections a back-end adopted.
    FeAdopted = "fe_adopted",
    /// Attempts a back-end refused.
    FeRefused = "fe_refused",
    /// Connections tried on another node after a refusal, or after a HANDOFF that never left.
    FeRetried = "fe_retried",
    /// Connections for which a HANDOFF could not be queued.
    FeHandoffUnsent = "fe_handoff_unsent",
    /// Connections reset because the back-end vanished after HANDOFF: it may be answering.
    FeHandoffLost = "fe_handoff_lost",
    /// Connections a back-end reported as ended.
    FeClosed = "fe_closed",
    /// Entries dropped because nothing was heard of them for too long.
    FeExpired = "fe_expired",
    /// Answers of peers about connections that the front-end does not know, or not any more.
    FeStaleAnswer = "fe_stale_answer",

    // --- forwarding ---

    /// Packets of clients forwarded to back-ends.
    FwPackets = "fw_packets",
    /// Bytes of these packets.
    FwBytes = "fw_bytes",
    /// ICMP errors about handed-off connections, forwarded to the back-end.
    FwIcmp = "fw_icmp",
    /// Dropped: no route to the back-end.
    FwNoRoute = "fw_no_route",
    /// Dropped: the back-end is not on the same link.
    FwOffLink = "fw_off_link",
    /// Dropped: the packet's time to live is over.
    FwTtl = "fw_ttl",
    /// Dropped: the packet could not be changed or sent, for want of memory as a rule.
    FwFailed = "fw_failed",

    // --- dispatcher ---

    /// Requests assigned to a node.
    DpAssigned = "dp_assigned",
    /// Requests no node could take.
    DpNoNode = "dp_no_node",
    /// Connections that ended and no longer count as load.
    DpClosed = "dp_closed",
    /// Load reports of back-ends.
    DpLoad = "dp_load",
    /// Targets moved to another node because theirs was overloaded.
    DpMoved = "dp_moved",
    /// Targets forgotten because the table was full.
    DpEvicted = "dp_evicted",

    // --- back-end ---

    /// Connections handed to this node.
    BeHandoff = "be_handoff",
    /// Connections a socket of this node has taken.
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
    /// Refused: the message came too late, or its age is not known.
    BeExpired = "be_expired",
    /// Refused: the sender, the address or the port is not among those allowed.
    BeNotAllowed = "be_not_allowed",
    /// Refused: no memory.
    BeNoMemory = "be_no_memory",
    /// Refused: the kernel made no socket.
    BeNotCreated = "be_not_created",
    /// Sockets in TIME_WAIT that gave way to a new connection of the same client.
    BeTimeWaitReplaced = "be_time_wait_replaced",
    /// Forwarded packets delivered to sockets of handed-off connections.
    BePackets = "be_packets",
    /// Dropped: a forwarded packet that belongs to no socket.
    BeUnknownTuple = "be_unknown_tuple",
    /// Handed-off connections that both sides closed.
    BeClosed = "be_closed",
    /// Handed-off connections that the server closed first.
    BeTimeWait = "be_time_wait",
    /// Handed-off connections that were reset or timed out.
    BeReset = "be_reset",
    /// Ends of connections that could not be reported.
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

/// Something that has a counter.
pub(crate) trait Counted: Copy {
    /// Its place among all counters.
    fn index(self) -> usize;
}

impl Counted for Counter {
    fn index(self) -> usize {
        usize::from(self as u16)
    }
}

impl Counted for Reason {
    fn index(self) -> usize {
        // Never overflows: both are lengths of short tables.
        Counter::NAMES.len().wrapping_add(Reason::index(self))
    }
}

/// A hand-off refused by this node.
impl Counted for Refusal {
    fn index(self) -> usize {
        let counter = match self {
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
        };
        Counted::index(counter)
    }
}

/// A frame that ended its connection.
impl Counted for DecodeError {
    fn index(self) -> usize {
        let counter = match self {
            DecodeError::Version(_) => Counter::CtBadVersion,
            DecodeError::Type(_) => Counter::CtBadType,
            DecodeError::Flags(_) => Counter::CtBadFlags,
            DecodeError::Length(_) => Counter::CtBadLength,
            DecodeError::Reserved(_) => Counter::CtBadReserved,
            DecodeError::Value(..) => Counter::CtBadValue,
            DecodeError::NotIntroduced(_) => Counter::CtNotIntroduced,
        };
        Counted::index(counter)
    }
}

/// The end of a handed-off connection on this node.
impl Counted for HowClosed {
    fn index(self) -> usize {
        let counter = match self {
            HowClosed::Closed => Counter::BeClosed,
            HowClosed::TimeWait => Counter::BeTimeWait,
            HowClosed::Reset => Counter::BeReset,
            HowClosed::NotAdopted => Counter::BeUnreported,
        };
        Counted::index(counter)
    }
}

const COUNT: usize = Counter::NAMES.len() + Reason::COUNT;

/// The counters of one namespace.
pub(crate) struct Stats(Counters<COUNT>);

impl Stats {
    /// All zero. May sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Counters::new()?))
    }

    /// Counts one event. Any context.
    #[inline]
    pub(crate) fn inc(&self, what: impl Counted) {
        self.0.inc(what.index());
    }

    /// Counts several. Any context.
    #[inline]
    pub(crate) fn add(&self, what: impl Counted, n: u64) {
        self.0.add(what.index(), n);
    }

    /// The name and value of the counter at `index`, if there is one.
    pub(crate) fn at(&self, index: usize) -> Option<(&'static str, u64)> {
        Some((Self::name(index)?, self.0.sum(index)))
    }

    /// The name of the counter at `index`, if there is one.
    pub(crate) fn name(index: usize) -> Option<&'static str> {
        match index.checked_sub(Counter::NAMES.len()) {
            None => Counter::NAMES.get(index).copied(),
            Some(reason) => Reason::ALL.get(reason).map(|r| r.name()),
        }
    }
}
