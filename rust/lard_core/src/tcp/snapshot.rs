// SPDX-License-Identifier: GPL-2.0

//! What a connection is when it changes hands.
//!
//! Every negotiated value is carried explicitly; the back-end takes none from its own defaults.

use super::seq::Seq;

/// The connection as the back-end has to continue it. Made once per attempt; from then on the
/// front-end sends nothing of its own, so that no timestamp newer than [`Snapshot::last_tsval`]
/// is out there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The client's initial sequence number.
    pub irs: Seq,
    /// The front-end's initial sequence number.
    pub iss: Seq,
    /// The next number to send: nothing but the SYN-ACK went out.
    pub snd_nxt: Seq,
    /// The next number expected: what is stored, and the FIN if it is consumed.
    pub rcv_nxt: Seq,
    /// The client's segment size, at least 536.
    pub mss: u16,
    /// The shift of the windows the client announces.
    pub snd_wscale: u8,
    /// The shift the front-end has promised for the windows of this side.
    pub rcv_wscale: u8,
    /// Window scaling is in use.
    pub wscale_ok: bool,
    /// SACK is in use.
    pub sack_ok: bool,
    /// Timestamps are in use.
    pub ts_ok: bool,
    /// The client's FIN stands behind the stored bytes.
    pub fin: bool,
    /// The client's newest timestamp.
    pub ts_recent: u32,
    /// The newest timestamp sent to the client. The unit is the millisecond.
    pub last_tsval: u32,
    /// The client's newest window field, not scaled.
    pub window: u16,
}

impl Snapshot {
    /// How many bytes of the client are stored: the payload of the hand-off.
    pub const fn len(&self) -> u32 {
        // The FIN counts in the sequence space, not in the bytes.
        self.rcv_nxt
            .since(self.irs.add(1))
            .saturating_sub(self.fin as u32)
    }

    /// The same connection with `len` bytes in the place of those that are stored, whose *end* stays where
    /// it was: acknowledgements, SACK and what the client sends again are about that. Numbers before the
    /// beginning are not used any more, so it may move.
    pub const fn with_len(self, len: u32) -> Self {
        Snapshot {
            irs: self.irs.add(self.len().wrapping_sub(len)),
            ..self
        }
    }

    /// Is there no byte at all? Never so for a connection that has a request.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a connection stands that a back-end has given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The first byte of the client that the back-end has not got.
    pub start: Seq,
    /// How many bytes from there on are stored.
    pub received: u32,
    /// The next number to send; the client has acknowledged everything before it.
    pub snd_nxt: Seq,
    /// The newest timestamp that may have been sent, in milliseconds.
    pub tsval: u32,
    /// The client's newest timestamp.
    pub ts_recent: u32,
    /// The client's newest window field, not scaled.
    pub window: u16,
}
