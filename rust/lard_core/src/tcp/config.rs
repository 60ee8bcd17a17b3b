// SPDX-License-Identifier: GPL-2.0

//! What the front-end offers its clients, and for how long it waits.
//!
//! # The window rule
//!
//! Everything the front-end acknowledges has to fit into the one segment that is injected on the
//! back-end, and into the window the back-end's socket starts with. So each connection has a right
//! edge at `irs + 1 + W0` that never moves, where `W0` is the least any back-end grants for the
//! client's segment size. The back-end opens the window further, after it has adopted.

use core::time::Duration;

/// The most one injected packet carries: 64 KiB less an IPv4 and a TCP header with timestamps.
pub const MAX_INJECTED: u32 = 65_535 - 40 - 12;

/// The least segment size the front-end believes. Every host takes datagrams of 576 bytes, so a
/// smaller one only serves to make a server send many tiny packets.
pub const MIN_MSS: u16 = 536;

/// Without the option an IPv6 client takes 1,280 bytes less the headers (RFC 9293, 3.7.1).
pub const DEFAULT_MSS_V6: u16 = 1_220;

/// Parameters of the responder. Plain data: the shell changes them at run time, and what a
/// connection has negotiated stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The least receive space any back-end's listener announces, in bytes.
    pub back_end_space: u32,
    /// Bytes of `W0` kept free because the head may grow when it is rewritten.
    pub rewrite_slack: u32,
    /// The window scale to offer, or `None` if a back-end cannot do it. The largest the back-ends
    /// would choose, so that uploads are not slower than without us.
    pub wscale: Option<u8>,
    /// The segment size to announce.
    pub mss: u16,
    /// Offer SACK.
    pub sack: bool,
    /// Offer timestamps.
    pub timestamps: bool,
    /// The longest request head, in bytes. What does not fit the window is refused earlier.
    pub head_limit: u32,
    /// How long a handshake may take. A client's second SYN comes after 1 s, its third after 3 s,
    /// and a later one is answered afresh.
    pub half_open_timeout: Duration,
    /// How long a client may wait before it sends the first byte. Browsers connect early.
    pub idle_timeout: Duration,
    /// How long a head may take from its first byte to its last, however steadily it drips.
    pub head_timeout: Duration,
    /// How long the first request of a connection of HTTP/2 is waited for. Most clients send it with the
    /// preface or right behind; one may wait for the server's SETTINGS before (RFC 9113, 3.4), which it
    /// gets only once it is handed over.
    pub http2_wait: Duration,
    /// How long assignment and hand-off may take together. Longer than the hand-off's expiry at the
    /// back-end plus the clock error, so that nobody adopts what was given up here.
    pub handoff_timeout: Duration,
    /// How long a forwarded connection may be silent. Longer than the kernel's keep-alive takes to
    /// notice a dead client: 7,200 s and nine probes 75 s apart.
    pub forward_idle: Duration,
    /// How long a client is silent behind an answer before its connection counts as idle.
    pub conn_idle: Duration,
    /// How long it may be silent after the client's FIN: the answer to a half-closed connection may
    /// take its time. The back-end reports the end; where it cannot, `time_wait` holds.
    pub forward_closing: Duration,
    /// The same after the client's RST or the back-end's TIME_WAIT: longer than the 60 s of
    /// TIME_WAIT, so that late segments find the back-end for as long as it remembers. After an own
    /// reply: this, and 60 s at most.
    pub time_wait: Duration,
    /// The same after the back-end reported an end that left nothing behind: enough for segments
    /// that are still on their way.
    pub forward_gone: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            // Half of the default net.ipv4.tcp_rmem[1].
            back_end_space: 65_536,
            rewrite_slack: 1_024,
            wscale: Some(7),
            mss: 1_460,
            sack: true,
            timestamps: true,
            head_limit: 16_384,
            half_open_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            head_timeout: Duration::from_secs(30),
            http2_wait: Duration::from_millis(100),
            handoff_timeout: Duration::from_secs(5),
            forward_idle: Duration::from_secs(7_200 + 9 * 75 + 60),
            conn_idle: Duration::from_secs(1),
            forward_closing: Duration::from_secs(900),
            time_wait: Duration::from_secs(70),
            forward_gone: Duration::from_secs(5),
        }
    }
}

/// The window a connection starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// `W0`: how far beyond the client's first byte the right edge lies.
    pub size: u32,
    /// The shift to offer, if the client scales windows.
    pub shift: u8,
}

impl Config {
    /// The window for a client with segments of `mss` bytes.
    ///
    /// The kernel rounds a new socket's window down to whole segments, if it holds one; so do we.
    /// A window of fewer than four units of the scale would be mostly rounding error, so then the
    /// scale is lowered.
    pub fn window(&self, mss: u16) -> Window {
        let mss = u32::from(mss.max(1));
        let mut size = self.back_end_space;
        if size > mss {
            size -= size % mss;
        }
        // Half is left for requests whatever the slack is said to be.
        size = size.clamp(1, MAX_INJECTED);
        size = size.saturating_sub(self.rewrite_slack).max(size / 2).max(1);
        let mut shift = self.wscale.unwrap_or(0).min(super::options::MAX_WSCALE);
        while shift > 0 && size >> shift < 4 {
            shift -= 1;
        }
        // A multiple of the unit, so that the first scaled window says exactly this.
        size = (size >> shift) << shift;
        Window { size, shift }
    }

    /// The segment size to believe, given what the SYN said.
    pub(super) fn client_mss(said: Option<u16>, v4: bool) -> u16 {
        let default = if v4 { MIN_MSS } else { DEFAULT_MSS_V6 };
        said.unwrap_or(default).max(MIN_MSS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_window_is_what_the_kernel_would_grant() {
        // The kernel's own numbers for the default listener, less slack and rounding.
        let c = Config {
            rewrite_slack: 0,
            ..Config::default()
        };
        for (mss, kernel) in [(1460, 64_240), (536, 65_392), (9000, 63_000)] {
            let w = c.window(mss);
            assert!(
                w.size <= kernel && kernel - w.size < 1 << w.shift,
                "{mss}: {w:?}"
            );
        }
        let small = Config {
            back_end_space: 8_192,
            ..c
        };
        assert_eq!(small.window(1460).size, 7_296);
        assert_eq!(small.window(9000).size, 8_192);
    }

    #[test]
    fn small_spaces_lower_the_scale() {
        let c = Config {
            back_end_space: 2_304,
            wscale: Some(14),
            ..Config::default()
        };
        let w = c.window(1460);
        assert!(w.size >= 512 && w.size >> w.shift >= 4, "{w:?}");
    }

    #[test]
    fn a_missing_or_tiny_mss_is_replaced() {
        assert_eq!(Config::client_mss(None, true), 536);
        assert_eq!(Config::client_mss(None, false), 1_220);
        assert_eq!(Config::client_mss(Some(1), false), 536);
        assert_eq!(Config::client_mss(Some(1_460), true), 1_460);
    }

    proptest! {
        #[test]
        fn the_window_is_never_larger_than_any_bound(
            back_end_space in any::<u32>(),
            rewrite_slack in any::<u32>(),
            wscale in any::<Option<u8>>(),
            mss in any::<u16>(),
        ) {
            let c = Config { back_end_space, rewrite_slack, wscale, ..Config::default() };
            let w = c.window(mss);
            prop_assert!(w.size >= 1);
            prop_assert!(w.size <= MAX_INJECTED.min(back_end_space.max(1)));
            prop_assert!(w.shift <= 14);
            prop_assert_eq!(w.size % (1 << w.shift), 0);
        }
    }
}
