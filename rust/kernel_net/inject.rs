// SPDX-License-Identifier: GPL-2.0

//! Making an unmodified listener accept a connection that was opened elsewhere.
//!
//! One segment with all the client's bytes goes straight to TCP's receive function, with a request
//! socket attached that is marked as a validated SYN cookie: the sequence numbers in the segment
//! become the connection's, and TCP makes the full socket and puts it on the listener's accept queue
//! in the same call. No packet filter sees the segment, so nothing can delay or drop it.
//!
//! One segment must hold everything: TCP takes a single one whole, whatever the receive buffer,
//! because the receive queue is empty; a second one it may drop although the client's bytes in it
//! have been acknowledged.
//!
//! What TCP answers to a request that fails is a RST. A mark for this CPU tells the LOCAL_OUT hook
//! which tuple is being injected, and the hook drops the RST: the front-end still has the
//! connection.
//!
//! C headers: [`include/net/request_sock.h`](srctree/include/net/request_sock.h),
//! [`include/net/inet_hashtables.h`](srctree/include/net/inet_hashtables.h)

mod listener;
mod packet;
mod quiet;

pub use listener::{Lent, Listener};
pub(crate) use packet::{device, RST};
pub(crate) use quiet::answers_injection;

use crate::bindings;
use crate::child::{Announced, Pending};
use crate::net::{Net, SoftNet};
use crate::skb::{Flow, IP_LEN};
use crate::tcp_state::TCP_TIME_WAIT;
use core::ptr::NonNull;
use listener::find_listener;
use packet::{Packet, ACK};
use quiet::Mark;

/// What a segment can carry: an IPv4 packet's length less both headers with timestamps.
pub const MAX_PAYLOAD: usize = 65535 - IP_LEN - packet::MAX_TCP_LEN;
/// The smallest segment size that TCP believes.
pub const MIN_MSS: u16 = 536;
const MAX_WSCALE: u8 = 14;

/// The timestamp option's state.
#[derive(Clone, Copy, Debug)]
pub struct Timestamps {
    /// The newest value from the client.
    pub recent: u32,
    /// The last value sent to the client.
    pub last_sent: u32,
    /// Values count microseconds, not milliseconds.
    pub usec: bool,
}

/// A connection as the front-end has it.
#[derive(Clone, Copy, Debug)]
pub struct Handoff {
    /// The tuple.
    pub flow: Flow,
    /// The sequence number of the client's SYN.
    pub irs: u32,
    /// The sequence number of our SYN-ACK.
    pub iss: u32,
    /// The client's segment size.
    pub mss: u16,
    /// The client's and our window scale, when negotiated.
    pub wscale: Option<(u8, u8)>,
    /// Selective acknowledgements were negotiated.
    pub sack: bool,
    /// Timestamps, when negotiated.
    pub ts: Option<Timestamps>,
    /// The client's window as its last segment said it.
    pub window: u16,
    /// The client has sent FIN behind the bytes.
    pub fin: bool,
}

/// Why a connection was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Nobody listens.
    NoListener,
    /// Somebody listens who is not meant for hand-offs.
    NotAllowed,
    /// The listener is an MPTCP one.
    MptcpListener,
    /// The accept queue is full.
    QueueFull,
    /// There is a socket with this tuple.
    TupleInUse,
    /// `net.ipv4.tcp_syncookies` is 0.
    SyncookiesOff,
    /// An option or a value that this node's TCP does not honour.
    Options,
    /// No memory.
    NoMemory,
    /// TCP did not make a socket of it.
    Failed,
}

/// What injection changed on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adopted {
    /// The tuple was in TIME_WAIT here.
    pub replaced_time_wait: bool,
}

/// Makes the listener accept the connection, with `payload` as the bytes that the client has sent.
///
/// # Context
///
/// No lock held, because TCP may send.
pub fn inject(
    net: &SoftNet,
    ifindex: u32,
    handoff: &Handoff,
    payload: &[u8],
    listener: &Listener<'_>,
    child: Pending,
) -> Result<Adopted, Refusal> {
    let len = payload.len();
    check(net, handoff, len)?;
    let packet = Packet::new(net, ifindex, handoff, payload)?;
    let dev = packet.ifindex;
    let sk = find_listener(net, &packet, handoff, listener)?;
    let req = Request::new(handoff, sk)?;
    let replaced_time_wait = clear_tuple(net, dev, handoff)?;
    let announced = child.announce().ok_or(Refusal::Failed)?;
    deliver(&handoff.flow, packet, req);
    take_child(net, dev, handoff, len, announced)?;
    Ok(Adopted { replaced_time_wait })
}

/// What must hold before anything is touched; the same tests as the kernel's own BPF function makes.
fn check(net: &Net, handoff: &Handoff, len: usize) -> Result<(), Refusal> {
    let sysctls = net.options();
    if !sysctls.syncookies {
        return Err(Refusal::SyncookiesOff);
    }
    let scales_fit = handoff
        .wscale
        .is_none_or(|(snd, rcv)| sysctls.window_scaling && snd <= MAX_WSCALE && rcv <= MAX_WSCALE);
    if handoff.mss < MIN_MSS
        || len > MAX_PAYLOAD
        || !scales_fit
        || (handoff.sack && !sysctls.sack)
        || (handoff.ts.is_some() && !sysctls.timestamps)
    {
        return Err(Refusal::Options);
    }
    Ok(())
}

/// The socket of the tuple, with a reference. It may be bound to the device that the segment came by.
fn lookup(net: &SoftNet, ifindex: i32, flow: &Flow) -> *mut bindings::sock {
    // SAFETY: The callers hold RCU; the reference is theirs.
    unsafe { flow.established(net.as_ptr(), ifindex) }
}

/// Is `a` after `b`, as sequence numbers and timestamps count?
fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// Makes room for the tuple; was there a TIME_WAIT?
fn clear_tuple(net: &SoftNet, ifindex: i32, handoff: &Handoff) -> Result<bool, Refusal> {
    let old = lookup(net, ifindex, &handoff.flow);
    if old.is_null() {
        return Ok(false);
    }
    // SAFETY: The lookup gave a reference, which every way gives back. RCU is held and softirqs are
    // off, as the removal of a TIME_WAIT wants.
    unsafe {
        // A client opens a tuple anew only above what it used before, or with a newer timestamp
        // (RFC 6191).
        let replaceable = bindings::lard_sock_state(old) == TCP_TIME_WAIT
            && (after(handoff.irs, bindings::lard_sock_tw_rcv_nxt(old))
                || handoff
                    .ts
                    .is_some_and(|ts| after(ts.recent, bindings::lard_sock_tw_ts_recent(old))));
        if !replaceable {
            bindings::sock_gen_put(old);
            return Err(Refusal::TupleInUse);
        }
        bindings::inet_twsk_deschedule_put(old.cast());
    }
    Ok(true)
}

/// The request socket that goes with the segment.
struct Request(NonNull<bindings::request_sock>);

impl Request {
    fn new(handoff: &Handoff, listener: NonNull<bindings::sock>) -> Result<Self, Refusal> {
        // SAFETY: The request is new, and cleared first; the listener stays for this RCU section, in
        // which the request is used up. The options were checked.
        unsafe {
            let req = NonNull::new(bindings::lard_inject_alloc()).ok_or(Refusal::NoMemory)?;
            let raw = req.as_ptr();
            bindings::lard_inject_clear(raw);
            bindings::lard_inject_init(raw, listener.as_ptr());
            bindings::lard_inject_set_mss(raw, handoff.mss);
            if let Some((snd, rcv)) = handoff.wscale {
                bindings::lard_inject_set_wscale(raw, snd, rcv);
            }
            if handoff.sack {
                bindings::lard_inject_set_sack(raw);
            }
            if let Some(ts) = handoff.ts {
                // The connection's clock goes on from the last value that the client has seen.
                let offset = ts
                    .last_sent
                    .wrapping_sub(bindings::lard_sock_clock_ts(ts.usec));
                bindings::lard_inject_set_timestamps(raw, ts.recent, offset, ts.usec);
            }
            Ok(Self(req))
        }
    }

    fn into_raw(self) -> *mut bindings::request_sock {
        let raw = self.0.as_ptr();
        core::mem::forget(self);
        raw
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: The request is owned, and holds nothing yet.
        unsafe { bindings::lard_inject_free(self.0.as_ptr()) };
    }
}

/// Hands the segment to TCP. Softirqs are off, so this is the only injection on this CPU.
fn deliver(flow: &Flow, packet: Packet, req: Request) {
    let _mark = Mark::set(flow);
    let skb = packet.skb.as_ptr();
    core::mem::forget(packet);
    // SAFETY: RCU is held. The request goes to the packet, and both go to TCP.
    unsafe {
        bindings::lard_inject_attach(skb, req.into_raw());
        bindings::lard_inject_deliver(skb);
    }
}

/// Looks for the socket that TCP has made. The server may have answered by now, and even be done: then
/// the child is registered, and its end is told.
fn take_child(
    net: &SoftNet,
    ifindex: i32,
    handoff: &Handoff,
    len: usize,
    announced: Announced,
) -> Result<(), Refusal> {
    let failed = |announced: Announced| match announced.withdraw() {
        true => Err(Refusal::Failed),
        false => Ok(()),
    };
    let sk = lookup(net, ifindex, &handoff.flow);
    if sk.is_null() {
        return failed(announced);
    }
    // SAFETY: The lookup gave a reference, which is given back at the end.
    unsafe {
        if !bindings::lard_sock_is_full(sk) {
            bindings::sock_gen_put(sk);
            return failed(announced);
        }
        bindings::lard_sock_lock_bh(sk);
        // The owner may have it already; then the segment may be waiting for him.
        let owned = bindings::lard_sock_owned_by_user(sk);
        let rcv_nxt = bindings::lard_sock_rcv_nxt(sk);
        bindings::lard_sock_unlock_bh(sk);
        let want = handoff
            .irs
            .wrapping_add(1)
            .wrapping_add(len as u32)
            .wrapping_add(u32::from(handoff.fin));
        if !owned && after(want, rcv_nxt) {
            reset(net, handoff, sk, rcv_nxt);
            return failed(announced);
        }
        announced.register(sk);
        bindings::sock_gen_put(sk);
    }
    Ok(())
}

/// A reset for a socket that nobody sent.
pub(crate) struct Reset(Packet);

impl Reset {
    /// One from the client, at the sequence number that the socket expects next.
    pub(crate) fn new(net: &SoftNet, flow: &Flow, rcv_nxt: u32) -> Option<Self> {
        let bare = Handoff {
            flow: *flow,
            irs: 0,
            iss: 0,
            mss: MIN_MSS,
            wscale: None,
            sack: false,
            ts: None,
            window: 0,
            fin: false,
        };
        let packet = Packet::with_header(net, 0, &bare, rcv_nxt, RST, 0);
        packet.ok().map(Self)
    }

    /// Lets the socket have it. Synchronous: TCP is done with the socket on return.
    ///
    /// # Safety
    ///
    /// `sk` is a TCP socket of IPv4, locked with softirqs off and not owned by a process; the caller
    /// has a reference to it, and RCU is held since [`Reset::new`].
    pub(crate) unsafe fn receive(self, sk: *mut bindings::sock, rcv_nxt: u32) {
        let skb = self.0.skb.as_ptr();
        core::mem::forget(self.0);
        // SAFETY: As the caller says. The packet's data begins at its TCP header, and TCP frees it.
        unsafe { bindings::lard_sock_receive_locked(sk, skb, rcv_nxt) };
    }
}

/// Ends a socket without a word to the client, as a RST from the client would.
///
/// # Safety
///
/// The caller gives up a reference to `sk`, a full TCP socket with this tuple; RCU is held.
unsafe fn reset(net: &SoftNet, handoff: &Handoff, sk: *mut bindings::sock, rcv_nxt: u32) {
    // SAFETY: As the caller says; the reference goes to the packet, whose destructor is that of a
    // packet that found its socket early.
    unsafe {
        match Packet::with_header(net, 0, handoff, rcv_nxt, RST | ACK, 0) {
            Ok(packet) => {
                let skb = packet.skb.as_ptr();
                core::mem::forget(packet);
                bindings::lard_skb_own(skb, sk, Some(bindings::sock_edemux));
                bindings::lard_inject_deliver(skb);
            }
            Err(_) => bindings::sock_gen_put(sk),
        }
    }
}
