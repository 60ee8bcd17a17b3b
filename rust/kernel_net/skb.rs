// SPDX-License-Identifier: GPL-2.0

//! Packets that have arrived: looking at them, keeping them, sending them on, passing them up.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use crate::bindings;
use crate::child;
use crate::inject;
use crate::net::{copy_name, SoftNet, IFNAMSIZ};
use crate::pernet;
use crate::route::{Error, RouteCache};
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::alloc::{AllocError, Flags, KVec};

/// Bytes of an IPv4 header without options.
pub(crate) const IP_LEN: usize = 20;
pub(crate) const IPPROTO_TCP: u8 = 6;
/// Where a TCP header has its checksum.
const TCP_CHECK: usize = 16;
/// Where a TCP header has its urgent pointer.
const TCP_URGENT: usize = 18;
/// Where a TCP header has its flags, and which of them is URG.
const TCP_FLAGS: usize = 13;
const URG: u8 = 0x20;

const LIMITED_BROADCAST: [u8; 4] = [255; 4];

const NF_INET_PRE_ROUTING: u32 = 0;

/// What becomes of a packet in the hook.
pub enum Verdict {
    /// It goes on through the regular stack.
    Accept(Skb),
    /// It ends here.
    Drop(Skb),
    /// It was sent, or is being kept.
    Stolen,
}

/// A packet that was not passed up.
pub enum NotDelivered {
    /// It has no socket, or none that it may be passed to.
    NoSocket(Skb),
    /// There is no memory for the route into this node's own stack, or its namespace is ending.
    NoRoute(Skb),
}

/// Why the kernel would not take a packet in from where it says it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadSource {
    /// The address is nobody's who could send by this interface: a group's, or this node's own.
    Martian,
    /// Packets to that address do not leave by the interface that this one came by, and `rp_filter`
    /// asks for it.
    ReversePath,
}

/// A connection as the packets that reach a server name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// The client's address.
    pub client: [u8; 4],
    /// The client's port.
    pub client_port: u16,
    /// The address that the client asked for.
    pub server: [u8; 4],
    /// The port that the client asked for.
    pub server_port: u16,
}

impl Flow {
    /// The socket of the connection, TIME_WAIT included, with a reference; null if there is none. It is
    /// looked for among those bound to `ifindex` and those bound to no device.
    ///
    /// # Safety
    ///
    /// RCU is held, and `net` alive. The reference is the caller's.
    pub(crate) unsafe fn established(
        &self,
        net: *mut bindings::net,
        ifindex: i32,
    ) -> *mut bindings::sock {
        // SAFETY: As the caller says.
        unsafe {
            bindings::__inet_lookup_established(
                net,
                u32::from_ne_bytes(self.client),
                self.client_port.to_be(),
                u32::from_ne_bytes(self.server),
                self.server_port,
                ifindex,
                0,
            )
        }
    }
}

/// A packet of ours. Dropping it frees it.
///
/// # Invariants
///
/// The buffer is owned, and its data begins at the IP header.
pub struct Skb(NonNull<bindings::sk_buff>);

// SAFETY: A buffer belongs to one owner, whichever context that is in.
unsafe impl Send for Skb {}

impl Skb {
    /// # Safety
    ///
    /// The caller owns the packet, whose data begins at its IP header.
    pub(crate) unsafe fn from_raw(skb: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: As the caller says.
        Self(skb)
    }

    /// Gives the packet up to whoever gets the pointer.
    pub(crate) fn into_raw(self) -> *mut bindings::sk_buff {
        let raw = self.0.as_ptr();
        core::mem::forget(self);
        raw
    }

    fn raw(&self) -> *mut bindings::sk_buff {
        self.0.as_ptr()
    }

    /// Bytes from the IP header on. The header's own length field is not used: it is zero in very
    /// large merged packets.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        // SAFETY: The buffer is owned.
        unsafe { (*self.raw()).len as usize }
    }

    /// Bytes of memory that it takes; many times its length for a small one.
    pub fn memory(&self) -> usize {
        // SAFETY: The buffer is owned.
        unsafe { (*self.raw()).truesize as usize }
    }

    /// The first `n` bytes in one piece, or `None` if the packet is shorter (or memory is).
    pub fn pull(&mut self, n: usize) -> Option<&[u8]> {
        let want = u32::try_from(n).ok()?;
        // SAFETY: The buffer is owned; after the call that many bytes are linear.
        unsafe {
            bindings::lard_skb_may_pull(self.raw(), want)
                .then(|| core::slice::from_raw_parts((*self.raw()).data, n))
        }
    }

    /// Copies bytes from `offset` on; `false` if the packet does not have that many.
    pub fn copy(&self, offset: usize, to: &mut [u8]) -> bool {
        let (Ok(offset), Ok(len)) = (i32::try_from(offset), i32::try_from(to.len())) else {
            return false;
        };
        // SAFETY: The buffer is owned; the function checks the range against it.
        unsafe { bindings::skb_copy_bits(self.raw(), offset, to.as_mut_ptr().cast(), len) == 0 }
    }

    /// Adds `len` bytes from `offset` on to `kept`, without writing to its memory before; `false` if the
    /// packet does not have that many.
    pub fn append(
        &self,
        offset: usize,
        len: usize,
        kept: &mut KVec<u8>,
        flags: Flags,
    ) -> Result<bool, AllocError> {
        let (Ok(offset), Ok(wanted)) = (i32::try_from(offset), i32::try_from(len)) else {
            return Ok(false);
        };
        kept.reserve(len, flags)?;
        let Some(room) = kept.spare_capacity_mut().get_mut(..len) else {
            return Ok(false);
        };
        let to = room.as_mut_ptr().cast();
        // SAFETY: The buffer is owned; the function checks the range against it, and writes no more than
        // `room` has.
        let copied = unsafe { bindings::skb_copy_bits(self.raw(), offset, to, wanted) == 0 };
        if copied {
            // SAFETY: These bytes are within the capacity and have just been written.
            unsafe { kept.inc_len(len) };
        }
        Ok(copied)
    }

    /// The number of the interface it came in by.
    pub fn ifindex(&self) -> u32 {
        // SAFETY: The buffer is owned.
        u32::try_from(unsafe { bindings::lard_skb_iif(self.raw()) }).unwrap_or(0)
    }

    /// The name of the interface it came in by; returns its length. Only in the hook.
    pub fn ifname(&self, name: &mut [u8; IFNAMSIZ]) -> usize {
        // SAFETY: The device is null or stays while the hook runs.
        unsafe { copy_name(bindings::lard_skb_dev(self.raw()), name) }.unwrap_or(0)
    }

    /// Was it addressed to this machine's link address?
    pub fn is_for_us(&self) -> bool {
        // SAFETY: The buffer is owned.
        unsafe { bindings::lard_skb_is_host(self.raw()) }
    }

    /// Is this a bridge's call of the hook for a frame that passes through?
    pub fn is_bridged(&self) -> bool {
        // SAFETY: The buffer is owned.
        unsafe { bindings::lard_skb_is_bridged(self.raw()) }
    }

    /// Does it come in by a VRF, be it by an interface of it or by the VRF's own? Only in the hook.
    pub fn is_of_vrf(&self) -> bool {
        // SAFETY: The buffer is owned, and has its device.
        unsafe { self.has_device() && bindings::lard_skb_is_of_vrf(self.raw()) }
    }

    /// Did this machine send it to itself? Only in the hook.
    pub fn is_lo(&self) -> bool {
        // SAFETY: The buffer is owned, and has its device.
        unsafe { self.has_device() && bindings::lard_skb_is_loopback(self.raw()) }
    }

    /// A packet that was parked has none.
    fn has_device(&self) -> bool {
        // SAFETY: The buffer is owned.
        !unsafe { bindings::lard_skb_dev(self.raw()) }.is_null()
    }

    /// Is the checksum of the TCP segment at `offset` right? Also of a packet that was parked: what the kernel
    /// says about wrong hardware, it says of no device then.
    pub fn tcp_checksum_ok(&mut self, offset: usize) -> bool {
        let Ok(offset) = u32::try_from(offset) else {
            return false;
        };
        // SAFETY: The buffer is owned, and has its network header set.
        unsafe {
            bindings::nf_ip_checksum(self.raw(), NF_INET_PRE_ROUTING, offset, IPPROTO_TCP) == 0
        }
    }

    /// Hides it from connection tracking, which never sees the other direction.
    pub fn untrack(&mut self) {
        // SAFETY: The buffer is owned.
        unsafe { bindings::lard_skb_untrack(self.raw()) };
    }

    /// Makes urgent data plain data: the server would skip the urgent byte, the parser does not.
    /// `false` if the packet cannot be changed.
    pub fn strip_urg(&mut self, tcp_offset: usize) -> bool {
        let Some(end) = tcp_offset.checked_add(IP_LEN) else {
            return false;
        };
        let Ok(writable) = u32::try_from(end) else {
            return false;
        };
        // SAFETY: The buffer is owned; after the call the headers are linear and not shared.
        if unsafe { bindings::skb_ensure_writable(self.raw(), writable) } != 0 {
            return false;
        }
        // SAFETY: `end` bytes are linear and belong to this packet alone; the replacements are
        // told to the checksum field, which is one of them.
        unsafe {
            let tcp = (*self.raw()).data.add(tcp_offset);
            let check = tcp.add(TCP_CHECK);
            let urgent = u16::from_ne_bytes([*tcp.add(TCP_URGENT), *tcp.add(TCP_URGENT + 1)]);
            let before = u16::from_ne_bytes([*tcp.add(TCP_FLAGS - 1), *tcp.add(TCP_FLAGS)]);
            *tcp.add(TCP_FLAGS) &= !URG;
            let after = u16::from_ne_bytes([*tcp.add(TCP_FLAGS - 1), *tcp.add(TCP_FLAGS)]);
            *tcp.add(TCP_URGENT) = 0;
            *tcp.add(TCP_URGENT + 1) = 0;
            bindings::lard_skb_csum_replace2(self.raw(), check, before, after);
            bindings::lard_skb_csum_replace2(self.raw(), check, urgent, 0);
        }
        true
    }

    /// Takes the verdict of the kernel's input routing on the source address, which the regular stack
    /// would ask for behind the hook: martians, and reverse paths as `net.ipv4.conf.*.rp_filter` says.
    ///
    /// Routing looks at the source of packets to `to` if that is this node's own address. If it is not,
    /// it may have no way for them and never come to the source; to an address of the interface it always
    /// does, and has that route already. Where there is none it makes one, to the limited broadcast. What it
    /// thinks of the destination does not count, and the route is not kept.
    ///
    /// # Context
    ///
    /// In the hook.
    pub fn check_source(&mut self, net: &SoftNet, to: [u8; 4]) -> Result<(), BadSource> {
        use bindings::{
            skb_drop_reason_SKB_DROP_REASON_IP_INVALID_SOURCE as INVALID,
            skb_drop_reason_SKB_DROP_REASON_IP_LOCAL_SOURCE as LOCAL,
            skb_drop_reason_SKB_DROP_REASON_IP_RPFILTER as REVERSE_PATH,
        };
        // SAFETY: The buffer is owned, has its IP header and its device, and RCU is held until after
        // the route was dropped.
        let reason = unsafe {
            let to = match net.addr_is_local(to) {
                true => to,
                false => match bindings::lard_skb_dev_addr(self.raw()) {
                    0 => LIMITED_BROADCAST,
                    own => own.to_ne_bytes(),
                },
            };
            let reason = bindings::lard_skb_route_input(self.raw(), u32::from_ne_bytes(to));
            bindings::lard_skb_dst_drop(self.raw());
            reason
        };
        match reason {
            INVALID | LOCAL => Err(BadSource::Martian),
            REVERSE_PATH => Err(BadSource::ReversePath),
            _ => Ok(()),
        }
    }

    /// Makes it fit to be kept beyond the hook: it no longer names a device or a route that it does
    /// not hold.
    pub fn park(self) -> Self {
        // SAFETY: The buffer is owned.
        unsafe {
            bindings::lard_skb_dst_drop(self.raw());
            bindings::lard_skb_orphan(self.raw());
            bindings::lard_skb_set_dev(self.raw(), core::ptr::null_mut());
        }
        self
    }

    /// Sends it to a back-end: one hop further, otherwise as it came.
    ///
    /// # Context
    ///
    /// No lock held, because the packet leaves at once.
    pub fn forward(self, net: &SoftNet, cache: &RouteCache) -> Result<(), Error> {
        // SAFETY: The buffer is owned; after the call the header is linear and not shared.
        unsafe {
            if bindings::skb_ensure_writable(self.raw(), IP_LEN as u32) != 0 {
                return Err(Error::NoMemory);
            }
            // The time to live is the ninth byte of the header.
            if *(*self.raw()).data.add(8) <= 1 {
                return Err(Error::Ttl);
            }
        }
        let route = cache.get(net)?;
        // SAFETY: The buffer is owned and its header may be changed; the reference of the route
        // goes to the packet, and the packet to the stack.
        unsafe {
            bindings::lard_skb_decrease_ttl(self.raw());
            bindings::lard_skb_make_forwardable(self.raw());
            bindings::lard_skb_untrack(self.raw());
            bindings::lard_skb_dst_drop(self.raw());
            bindings::lard_skb_dst_set(self.raw(), route.into_raw());
            bindings::ip_local_out(net.as_ptr(), core::ptr::null_mut(), self.into_raw());
        }
        Ok(())
    }

    /// Is there a socket of an established connection for it?
    pub fn has_socket(&self, net: &SoftNet, flow: &Flow) -> bool {
        let sk = self.established(net, flow);
        if sk.is_null() {
            return false;
        }
        // SAFETY: The lookup gave a reference.
        unsafe { bindings::sock_gen_put(sk) };
        true
    }

    /// Is there a socket for it that a hand-off has made, and that is open?
    pub fn has_child(&self, net: &SoftNet, flow: &Flow) -> bool {
        let sk = self.established(net, flow);
        if sk.is_null() {
            return false;
        }
        // SAFETY: The lookup gave a reference, which is given back; only a full socket is asked.
        unsafe {
            let found = bindings::lard_sock_is_full(sk) && child::is_child(sk);
            bindings::sock_gen_put(sk);
            found
        }
    }

    /// The socket of the connection, with a reference.
    fn established(&self, net: &SoftNet, flow: &Flow) -> *mut bindings::sock {
        // SAFETY: RCU is held; the namespace is alive.
        unsafe { flow.established(net.as_ptr(), bindings::lard_skb_iif(self.raw())) }
    }

    /// Passes it up to the socket of an established connection, whatever the routes say; gives it
    /// back when there is none. A socket that no hand-off has made, and a TIME_WAIT, get it only if
    /// `others` says so, which is asked only then.
    ///
    /// The verdict is the hook's, or for a packet that was parked goes to [`Skb::receive`].
    pub fn deliver_established(
        mut self,
        net: &SoftNet,
        flow: &Flow,
        others: impl FnOnce() -> bool,
    ) -> Result<Verdict, NotDelivered> {
        let sk = self.established(net, flow);
        if sk.is_null() {
            return Err(NotDelivered::NoSocket(self));
        }
        // SAFETY: RCU is held; the reference that the lookup returned goes to the packet, whose
        // destructor gives it back, or is given back here.
        unsafe {
            let full = bindings::lard_sock_is_full(sk);
            let takes_it = (full && child::is_child(sk)) || others();
            if !takes_it {
                bindings::sock_gen_put(sk);
                return Err(NotDelivered::NoSocket(self));
            }
            let Some(route) = pernet::local_route(net) else {
                bindings::sock_gen_put(sk);
                return Err(NotDelivered::NoRoute(self));
            };
            self.untrack();
            bindings::lard_skb_orphan(self.raw());
            bindings::lard_skb_own(self.raw(), sk, Some(bindings::sock_edemux));
            bindings::lard_skb_dst_drop(self.raw());
            bindings::lard_skb_dst_set_noref(self.raw(), route.as_ptr());
        }
        Ok(Verdict::Accept(self))
    }

    /// Passes it up as if its destination were an address of this node: an ICMP error about a
    /// connection that was handed over.
    pub fn deliver_local(mut self, net: &SoftNet) -> Result<Verdict, NotDelivered> {
        let Some(route) = pernet::local_route(net) else {
            return Err(NotDelivered::NoRoute(self));
        };
        self.untrack();
        // SAFETY: The buffer is owned, and RCU is held until it was dealt with.
        unsafe {
            bindings::lard_skb_dst_drop(self.raw());
            bindings::lard_skb_dst_set_noref(self.raw(), route.as_ptr());
        }
        Ok(Verdict::Accept(self))
    }
}

impl Skb {
    /// Goes on with a packet that was parked in the hook, and that [`Skb::deliver_established`] has
    /// accepted since: what the stack would have done behind the hook.
    ///
    /// # Context
    ///
    /// In the section in which the packet was accepted; no lock held, because TCP may send.
    pub fn receive(self, net: &SoftNet) {
        // SAFETY: The buffer is owned. The device stays for this RCU section; a route that a packet has
        // here is the local one, whose input function takes it.
        unsafe {
            if !bindings::lard_skb_has_dst(self.raw()) {
                return;
            }
            let dev = inject::device(net, self.ifindex());
            bindings::lard_skb_set_dev(self.raw(), dev);
            bindings::lard_skb_dst_input(self.into_raw());
        }
    }
}

impl Drop for Skb {
    fn drop(&mut self) {
        // SAFETY: The buffer is owned.
        unsafe { bindings::lard_skb_free(self.raw()) };
    }
}

/// Appends `bytes` to the linear part.
///
/// # Safety
///
/// `skb` has that much room behind its linear data.
pub(crate) unsafe fn append(skb: *mut bindings::sk_buff, bytes: &[u8]) {
    // SAFETY: As the caller says; the length of a slice in the linear part fits.
    unsafe {
        let to: *mut c_void = bindings::skb_put(skb, bytes.len() as u32);
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast::<u8>(), bytes.len());
    }
}
