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

use crate::bindings;
use crate::child::{self, Pending};
use crate::family;
use crate::net::Net;
use crate::pernet;
use crate::segment::ip_header;
use crate::skb::{append, Flow, IP_LEN};
use crate::sync::{BhDisabled, BhLock};
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::rcu;

/// What a segment can carry: an IPv4 packet's length less both headers with timestamps.
pub const MAX_PAYLOAD: usize = 65535 - IP_LEN - MAX_TCP_LEN;
/// The smallest segment size that TCP believes.
pub const MIN_MSS: u16 = 536;
const MAX_WSCALE: u8 = 14;

const TCP_LEN: usize = 20;
const TS_LEN: usize = 12;
const MAX_TCP_LEN: usize = TCP_LEN + TS_LEN;
/// A packet up to this length is one linear piece of a page, charged for what it takes; a longer one
/// is made of whole pages. Either way the socket's window is not cut down for a wasteful packet.
const MAX_LINEAR: usize = 3072;
/// Pages are asked for in pieces up to this power of two.
const PAGE_ORDER: i32 = 3;
/// What the received packet's time to live says; servers with a minimum see a neighbour.
const TTL: u8 = 255;

const FIN: u8 = 0x01;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

const TCP_TIME_WAIT: u8 = 6;
const TCP_LISTEN: u8 = 10;

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

/// Where to look for the listener.
#[derive(Clone, Copy)]
pub struct Listener<'a> {
    /// Its port.
    pub port: u16,
    /// Its address, if it is neither the client's destination nor all addresses.
    pub addr: Option<[u8; 4]>,
    /// May it be a listener of the regular family? Then here is noted what was changed in it.
    pub lent: Option<&'a Lent>,
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
/// Softirq or process; no lock held, because TCP may send.
pub fn inject(
    net: &Net,
    ifindex: u32,
    handoff: &Handoff,
    payload: &[&[u8]],
    listener: &Listener<'_>,
    child: Pending,
) -> Result<Adopted, Refusal> {
    let len = payload
        .iter()
        .fold(0usize, |sum, part| sum.saturating_add(part.len()));
    check(net, handoff, len)?;
    let _bh = BhDisabled::new();
    let _rcu = rcu::read_lock();
    let packet = Packet::new(net, ifindex, handoff, payload, len)?;
    let dev = packet.ifindex;
    let sk = find_listener(net, &packet, handoff, listener)?;
    let req = Request::new(handoff, sk)?;
    let replaced_time_wait = clear_tuple(net, dev, handoff)?;
    deliver(&handoff.flow, packet, req);
    take_child(net, dev, handoff, len, child)?;
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

/// The socket of the tuple, with a reference. It may be bound to the device that the segment came by,
/// or to the one above that.
fn lookup(net: &Net, ifindex: i32, flow: &Flow) -> *mut bindings::sock {
    let find = |ifindex| {
        // SAFETY: The callers hold RCU; the reference is theirs.
        unsafe {
            bindings::__inet_lookup_established(
                net.as_ptr(),
                u32::from_ne_bytes(flow.client),
                flow.client_port.to_be(),
                u32::from_ne_bytes(flow.server),
                flow.server_port,
                ifindex,
                0,
            )
        }
    };
    let sk = find(ifindex);
    if !sk.is_null() {
        return sk;
    }
    // SAFETY: RCU is held, so the device stays.
    let master = unsafe {
        bindings::lard_net_l3_master_rcu(device(net, u32::try_from(ifindex).unwrap_or(0)))
    };
    if master == 0 {
        return sk;
    }
    find(master)
}

/// Is `a` after `b`, as sequence numbers and timestamps count?
fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// Makes room for the tuple; was there a TIME_WAIT?
fn clear_tuple(net: &Net, ifindex: i32, handoff: &Handoff) -> Result<bool, Refusal> {
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

/// A segment that was never received.
///
/// # Invariants
///
/// The buffer is owned, and its data begins at the TCP header.
struct Packet {
    skb: NonNull<bindings::sk_buff>,
    tcp_len: usize,
    ifindex: i32,
}

impl Packet {
    fn new(
        net: &Net,
        ifindex: u32,
        handoff: &Handoff,
        payload: &[&[u8]],
        len: usize,
    ) -> Result<Self, Refusal> {
        let mut flags = ACK | PSH;
        if handoff.fin {
            flags |= FIN;
        }
        let seq = handoff.irs.wrapping_add(1);
        let packet = Self::with_header(net, ifindex, handoff, seq, flags, len)?;
        let mut offset = packet.tcp_len as i32;
        for part in payload {
            // SAFETY: The packet was made with room for all parts behind its header; the function
            // checks that, too. Lengths were checked against what a packet can hold.
            let err = unsafe {
                bindings::skb_store_bits(
                    packet.skb.as_ptr(),
                    offset,
                    part.as_ptr().cast(),
                    part.len() as i32,
                )
            };
            if err != 0 {
                return Err(Refusal::NoMemory);
            }
            offset = offset.saturating_add(part.len() as i32);
        }
        // Without this TCP takes a merged packet for a driver's mistake, and learns a wrong segment
        // size from it.
        let mss = usize::from(handoff.mss.max(1));
        if len > mss {
            let segs = u16::try_from(len.div_ceil(mss)).unwrap_or(u16::MAX);
            // SAFETY: The buffer is owned.
            unsafe { bindings::lard_skb_set_gso(packet.skb.as_ptr(), handoff.mss, segs) };
        }
        Ok(packet)
    }

    fn with_header(
        net: &Net,
        ifindex: u32,
        handoff: &Handoff,
        seq: u32,
        flags: u8,
        len: usize,
    ) -> Result<Self, Refusal> {
        let (tcp, tcp_len) = tcp_header(handoff, seq, flags);
        let tcp = tcp.get(..tcp_len).unwrap_or(&[]);
        let ip = ip_header(
            handoff.flow.client,
            handoff.flow.server,
            TTL,
            tcp_len.saturating_add(len),
        );
        let linear = IP_LEN + tcp_len;
        let dev = device(net, ifindex);
        // SAFETY: The room asked for is the room filled. The device is that of the control link or
        // the loopback, both of which stay for this RCU section, as does the route.
        unsafe {
            let skb = if linear + len <= MAX_LINEAR {
                bindings::lard_skb_alloc(0, (linear + len) as u32)
            } else {
                let mut err = 0;
                bindings::alloc_skb_with_frags(
                    linear,
                    len,
                    PAGE_ORDER,
                    &raw mut err,
                    kernel::bindings::GFP_ATOMIC | kernel::bindings::__GFP_NOWARN,
                )
            };
            let skb = NonNull::new(skb).ok_or(Refusal::NoMemory)?;
            // INVARIANT: The buffer is new; its data begins at the TCP header after the pull below.
            let packet = Self {
                skb,
                tcp_len,
                ifindex: (*dev).ifindex,
            };
            let skb = skb.as_ptr();
            append(skb, &ip);
            append(skb, tcp);
            if linear + len <= MAX_LINEAR {
                bindings::skb_put(skb, len as u32);
            } else {
                bindings::lard_skb_add_paged_len(skb, len as u32);
            }
            bindings::lard_skb_set_ipv4(skb, IP_LEN as u32);
            bindings::lard_skb_set_received(skb, dev);
            let route = pernet::local_route(net).ok_or(Refusal::NoMemory)?;
            bindings::lard_skb_dst_set_noref(skb, route.as_ptr());
            bindings::lard_skb_untrack(skb);
            bindings::skb_pull(skb, IP_LEN as u32);
            Ok(packet)
        }
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: The buffer is owned.
        unsafe { bindings::lard_skb_free(self.skb.as_ptr()) };
    }
}

/// The device with this number, or the loopback device: what a packet that did not just come by a
/// device pretends to have come by. Called with RCU held.
pub(crate) fn device(net: &Net, ifindex: u32) -> *mut bindings::net_device {
    // SAFETY: RCU is held, and the namespace alive, and so is its loopback device.
    unsafe {
        let dev = bindings::dev_get_by_index_rcu(net.as_ptr(), i32::try_from(ifindex).unwrap_or(0));
        if dev.is_null() {
            (*net.as_ptr()).loopback_dev
        } else {
            dev
        }
    }
}

/// A header made from nothing: whatever else the client had in its own stays behind.
fn tcp_header(handoff: &Handoff, seq: u32, flags: u8) -> ([u8; MAX_TCP_LEN], usize) {
    let [c0, c1] = handoff.flow.client_port.to_be_bytes();
    let [v0, v1] = handoff.flow.server_port.to_be_bytes();
    let [s0, s1, s2, s3] = seq.to_be_bytes();
    let [a0, a1, a2, a3] = handoff.iss.wrapping_add(1).to_be_bytes();
    let [w0, w1] = handoff.window.to_be_bytes();
    let len = if handoff.ts.is_some() {
        MAX_TCP_LEN
    } else {
        TCP_LEN
    };
    let words = (len / 4) as u8;
    let (val, echo) = handoff.ts.map_or((0, 0), |ts| (ts.recent, ts.last_sent));
    let [t0, t1, t2, t3] = val.to_be_bytes();
    let [e0, e1, e2, e3] = echo.to_be_bytes();
    let header = [
        c0,
        c1,
        v0,
        v1,
        s0,
        s1,
        s2,
        s3,
        a0,
        a1,
        a2,
        a3, // ports, sequence, acknowledgement
        words << 4,
        flags,
        w0,
        w1,
        0,
        0,
        0,
        0, // length, flags, window, checksum, urgent
        1,
        1,
        8,
        10,
        t0,
        t1,
        t2,
        t3,
        e0,
        e1,
        e2,
        e3, // two fillers, timestamps
    ];
    (header, len)
}

/// Finds the socket that TCP will take for the listener, and asks whether it can be had.
fn find_listener(
    net: &Net,
    packet: &Packet,
    handoff: &Handoff,
    listener: &Listener<'_>,
) -> Result<NonNull<bindings::sock>, Refusal> {
    let flow = &handoff.flow;
    // The lookup by the client's destination finds listeners on all addresses as well.
    let sk = [Some(flow.server), listener.addr]
        .into_iter()
        .flatten()
        .find_map(|addr| {
            // SAFETY: RCU is held until the segment was delivered; listeners are freed after a
            // grace period.
            NonNull::new(unsafe {
                bindings::__inet_lookup_listener(
                    net.as_ptr(),
                    packet.skb.as_ptr(),
                    packet.tcp_len as i32,
                    u32::from_ne_bytes(flow.client),
                    flow.client_port.to_be(),
                    u32::from_ne_bytes(addr),
                    listener.port,
                    packet.ifindex,
                    0,
                )
            })
        })
        .ok_or(Refusal::NoListener)?;
    // In a group of listeners TCP selects again, with the packet's own port in the hash.
    // SAFETY: As above.
    let again = unsafe {
        bindings::lard_inject_lookup_reuseport(
            net.as_ptr(),
            sk.as_ptr(),
            packet.skb.as_ptr(),
            packet.tcp_len as i32,
            u32::from_ne_bytes(flow.client),
            flow.client_port.to_be(),
            u32::from_ne_bytes(flow.server),
            flow.server_port,
        )
    };
    // A selection program may answer with an error in place of a socket.
    if again as usize > usize::MAX - 4096 {
        return Err(Refusal::NoListener);
    }
    let sk = NonNull::new(again).unwrap_or(sk);
    // SAFETY: RCU is held.
    unsafe { admit(sk.as_ptr(), listener)? };
    Ok(sk)
}

/// Can this listener have the connection?
///
/// # Safety
///
/// `sk` was found by a lookup in this RCU section.
unsafe fn admit(sk: *mut bindings::sock, listener: &Listener<'_>) -> Result<(), Refusal> {
    // SAFETY: As the caller says.
    unsafe {
        if bindings::lard_sock_state(sk) != TCP_LISTEN || !bindings::lard_sock_is_stream(sk) {
            return Err(Refusal::NoListener);
        }
        // A child that was made a listener gives our function to everything it accepts.
        if child::is_child(sk) {
            return Err(Refusal::NotAllowed);
        }
        // The request would be taken for an MPTCP one, which is larger.
        if bindings::lard_sock_is_mptcp(sk) {
            return Err(Refusal::MptcpListener);
        }
        if bindings::lard_sock_acceptq_is_full(sk) {
            return Err(Refusal::QueueFull);
        }
        if !family::is_ours(sk) {
            let lent = listener.lent.ok_or(Refusal::NotAllowed)?;
            if !bindings::lard_sock_is_transparent(sk) && !lent.take(sk) {
                return Err(Refusal::NoMemory);
            }
        } else if !bindings::lard_sock_is_transparent(sk) {
            return Err(Refusal::NotAllowed);
        }
    }
    Ok(())
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

/// Looks for the socket that TCP has made.
fn take_child(
    net: &Net,
    ifindex: i32,
    handoff: &Handoff,
    len: usize,
    child: Pending,
) -> Result<(), Refusal> {
    let sk = lookup(net, ifindex, &handoff.flow);
    if sk.is_null() {
        return Err(Refusal::Failed);
    }
    // SAFETY: The lookup gave a reference, which is given back at the end.
    unsafe {
        if !bindings::lard_sock_is_full(sk) {
            bindings::sock_gen_put(sk);
            return Err(Refusal::Failed);
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
            return Err(Refusal::Failed);
        }
        child.adopt(sk);
        bindings::sock_gen_put(sk);
    }
    Ok(())
}

/// Ends a socket without a word to the client, as a RST from the client would.
///
/// # Safety
///
/// The caller gives up a reference to `sk`, a full TCP socket with this tuple; RCU is held.
unsafe fn reset(net: &Net, handoff: &Handoff, sk: *mut bindings::sock, rcv_nxt: u32) {
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

/// While it lives, this CPU does not let a RST of the tuple out.
struct Mark(*mut u32);

impl Mark {
    fn set(flow: &Flow) -> Self {
        // SAFETY: Softirqs are off, so the task stays on this CPU and nobody else writes its mark.
        unsafe {
            let mark = bindings::lard_inject_mark();
            mark.write_volatile(u32::from_ne_bytes(flow.client));
            mark.add(1).write_volatile(u32::from_ne_bytes(flow.server));
            mark.add(2).write_volatile(ports(flow));
            mark.add(3).write_volatile(1);
            Self(mark)
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: As in `set`.
        unsafe { self.0.add(3).write_volatile(0) };
    }
}

/// Both ports in one word.
fn ports(flow: &Flow) -> u32 {
    u32::from(flow.client_port) << 16 | u32::from(flow.server_port)
}

/// Is this packet, on its way out, a RST of the tuple that is being injected on this CPU?
///
/// # Safety
///
/// `skb` is a packet in the LOCAL_OUT hook.
pub(crate) unsafe fn is_unwanted_reset(skb: *mut bindings::sk_buff) -> bool {
    // SAFETY: Another CPU's mark may be read when the task is moved meanwhile; it says as well which
    // tuple is being injected. The function that copies checks the length.
    unsafe {
        let mark = bindings::lard_inject_mark();
        if mark.add(3).read_volatile() == 0 {
            return false;
        }
        let mut raw = [0u8; IP_LEN + TCP_LEN];
        if bindings::skb_copy_bits(skb, 0, raw.as_mut_ptr().cast(), raw.len() as i32) != 0 {
            return false;
        }
        let [vihl, _, _, _, _, _, _, _, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3, v0, v1, c0, c1, ..] =
            raw;
        // The fourteenth byte of the TCP header.
        let flags = raw.get(IP_LEN + 13).copied().unwrap_or(0);
        let flow = Flow {
            client: [d0, d1, d2, d3],
            client_port: u16::from_be_bytes([c0, c1]),
            server: [s0, s1, s2, s3],
            server_port: u16::from_be_bytes([v0, v1]),
        };
        vihl == 0x45
            && proto == 6
            && flags & RST != 0
            && mark.read_volatile() == u32::from_ne_bytes(flow.client)
            && mark.add(1).read_volatile() == u32::from_ne_bytes(flow.server)
            && mark.add(2).read_volatile() == ports(&flow)
    }
}

/// Listeners of the regular family that were given the right to answer from foreign addresses.
///
/// The right is taken back from those that had not had it before, by [`Lent::restore`] or when the
/// value is dropped.
pub struct Lent(BhLock<KVec<*mut bindings::sock>>);

// SAFETY: The pointers carry references, and references to sockets belong to no thread.
unsafe impl Send for Lent {}
// SAFETY: As above; the lock serialises.
unsafe impl Sync for Lent {}

impl Lent {
    /// Listeners that can be lent at a time; a server has one a worker and address at the most.
    pub const MAX: usize = 128;

    /// None lent yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(crate::new_bh_lock!(KVec::new(), c"lard:lent"))
    }

    /// # Safety
    ///
    /// RCU is held, and `sk` was found in this section.
    unsafe fn take(&self, sk: *mut bindings::sock) -> bool {
        let mut lent = self.0.lock();
        if lent.len() >= Self::MAX || lent.reserve(1, GFP_ATOMIC).is_err() {
            return false;
        }
        // SAFETY: As the caller says.
        unsafe {
            if !bindings::lard_sock_hold_not_zero(sk) {
                return false;
            }
            bindings::lard_sock_set_transparent(sk);
        }
        // There is room.
        lent.push(sk, GFP_ATOMIC).is_ok()
    }

    fn give_back(&self, which: impl Fn(*mut bindings::sock) -> bool) {
        loop {
            let found = {
                let mut lent = self.0.lock();
                let found = lent.iter().position(|sk| which(*sk));
                found.and_then(|at| lent.remove(at).ok())
            };
            let Some(sk) = found else {
                return;
            };
            // SAFETY: The reference that `take` took is given back, outside the lock.
            unsafe {
                bindings::lard_sock_clear_transparent(sk);
                bindings::lard_sock_put(sk);
            }
        }
    }

    /// Lets go of listeners that listen no more. To be called every few seconds: what is lent keeps
    /// a closed socket's memory and its namespace.
    pub fn sweep(&self) {
        // SAFETY: The place holds a reference.
        self.give_back(|sk| unsafe { bindings::lard_sock_state(sk) } != TCP_LISTEN);
    }

    /// Takes the right back from all.
    pub fn restore(&self) {
        self.give_back(|_| true);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.restore();
    }
}
