// SPDX-License-Identifier: GPL-2.0

//! A generic netlink family: commands and dumps, events, and the death of a socket's owner.
//!
//! [`Family`] is a static that a module registers once; [`Commands`] is what it does. The kernel
//! checks every request against the [`Policy`] of its command before [`Commands::run`] sees it;
//! [`Attrs`] then reads the attributes again from the message as plain bytes, so that nothing here
//! relies on a check made elsewhere.
//!
//! Commands run in parallel and in the system call of the process that sent them. The module's own
//! locks keep them apart; the lock of generic netlink, which all families share, is not held.
//!
//! Unregistering waits for running commands. An event is sent under RCU, so a family that is going
//! away is not used by a thread that still wants to report something.
//!
//! C header: [`include/net/genetlink.h`](srctree/include/net/genetlink.h)

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use kernel::bindings as c;
use kernel::error::to_result;
use kernel::ffi::{c_char, c_int, c_ulong, c_void};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::sync::rcu;
use kernel::types::Opaque;

use crate::bindings;
use crate::net::Net;

mod attrs;
mod message;

pub use attrs::{Attr, Attrs, Policy};
pub use message::{Dump, Message};

use message::build;

/// What a family does.
pub trait Commands: Sized + 'static {
    /// Its name, at most 15 bytes.
    const NAME: &'static [u8];
    /// The names of its multicast groups, at most 15 bytes each.
    const GROUPS: &'static [&'static [u8]];
    /// Its commands, in ascending order.
    const COMMANDS: &'static [Command];

    /// Runs a command that is not a dump.
    fn run(command: u8, request: &Request<'_>) -> Result;

    /// Writes entries from [`Dump::position`] on until there are no more, or [`Dump::entry`] says
    /// that the message is full.
    fn dump(command: u8, dump: &mut Dump<'_>) -> Result;

    /// A generic netlink socket with this port was closed, by its process or by the process's end.
    fn released(net: &Net, port: u32);
}

/// One command.
pub struct Command {
    number: u8,
    flags: u32,
    policy: &'static [Policy],
}

impl Command {
    /// A command that changes something: only for processes with CAP_NET_ADMIN in the initial user
    /// namespace, because what it makes (threads, tables) is not accounted to who asks. `policy` is
    /// indexed by the number of the attribute.
    pub const fn change(number: u8, policy: &'static [Policy]) -> Self {
        Self {
            number,
            flags: bindings::GENL_ADMIN_PERM | bindings::GENL_CMD_CAP_DO,
            policy,
        }
    }

    /// A command that answers with one message, to everybody.
    pub const fn query(number: u8) -> Self {
        Self {
            number,
            flags: bindings::GENL_CMD_CAP_DO,
            policy: &[],
        }
    }

    /// A command that answers with any number of messages, to everybody.
    pub const fn dump(number: u8) -> Self {
        Self {
            number,
            flags: bindings::GENL_CMD_CAP_DUMP,
            policy: &[],
        }
    }

    fn is_dump(&self) -> bool {
        self.flags & bindings::GENL_CMD_CAP_DUMP != 0
    }
}

/// A request that is being served.
pub struct Request<'a> {
    info: NonNull<bindings::genl_info>,
    net: &'a Net,
    attrs: Attrs<'a>,
}

impl<'a> Request<'a> {
    /// # Safety
    ///
    /// `info` must be what a `doit` callback was given, and outlive the result.
    unsafe fn new(info: NonNull<bindings::genl_info>) -> Self {
        let raw = info.as_ptr();
        // SAFETY: `info` is valid by the requirement, and the kernel has checked that the message
        // holds a generic netlink header followed by that many bytes of attributes. The namespace
        // is that of the sender's socket, which keeps it.
        unsafe {
            let len = bindings::lard_genl_attrs_len(raw);
            let data = bindings::lard_genl_attrs(raw).cast::<u8>();
            Self {
                info,
                net: Net::from_raw(bindings::lard_genl_info_net(raw)),
                attrs: Attrs(core::slice::from_raw_parts(
                    data,
                    usize::try_from(len).unwrap_or(0),
                )),
            }
        }
    }

    /// The namespace of the sender.
    pub fn net(&self) -> &'a Net {
        self.net
    }

    /// The attributes of the request.
    pub fn attrs(&self) -> Attrs<'a> {
        self.attrs
    }

    /// The netlink port of the sender.
    pub fn port(&self) -> u32 {
        // SAFETY: `info` is valid as long as `self`.
        unsafe { (*self.info.as_ptr()).snd_portid }
    }

    /// Sets the text that goes to the sender with the error, which is returned. At most 79 bytes of
    /// it arrive.
    pub fn fail(&self, error: Error, text: fmt::Arguments<'_>) -> Error {
        // SAFETY: `info` is valid as long as `self`; nobody else uses it meanwhile, because the
        // callback that was given it is what we run in.
        let extack = unsafe { (*self.info.as_ptr()).extack };
        let Some(mut extack) = NonNull::new(extack) else {
            return error;
        };
        // SAFETY: As above.
        let extack = unsafe { extack.as_mut() };
        let mut out = Truncated {
            // One byte stays for the NUL.
            rest: match extack._msg_buf.split_last_mut() {
                Some((_, rest)) => rest,
                None => return error,
            },
        };
        // The writer takes what fits and never fails.
        let _ = fmt::write(&mut out, text);
        out.finish();
        extack._msg = extack._msg_buf.as_ptr().cast::<c_char>();
        error
    }

    /// The attribute with this number, or an error that names it.
    pub fn require(&self, kind: u16, name: &str) -> Result<Attr<'a>> {
        self.attrs
            .get(kind)
            .ok_or_else(|| self.fail(EINVAL, format_args!("{name} is missing")))
    }

    /// Sends one message as the answer.
    pub fn reply(&self, fill: impl FnOnce(&mut Message<'_>) -> Result) -> Result {
        let info = self.info.as_ptr();
        // SAFETY: `info` is valid as long as `self`, and with it the family and the header.
        let (family, port, seq, command) = unsafe {
            let info = &*info;
            (
                info.family,
                info.snd_portid,
                info.snd_seq,
                (*info.genlhdr).cmd,
            )
        };
        // SAFETY: As above.
        let skb = unsafe { build(family, port, seq, command, c::GFP_KERNEL, fill)? };
        // SAFETY: The call takes over the message.
        to_result(unsafe { bindings::lard_genl_reply(skb.into_raw(), info) })
    }
}

/// Writes text into a buffer of C characters and drops what does not fit.
struct Truncated<'a> {
    rest: &'a mut [u8],
}

impl Truncated<'_> {
    fn finish(self) {
        if let Some(end) = self.rest.first_mut() {
            *end = 0;
        }
    }
}

impl fmt::Write for Truncated<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let n = text.len().min(self.rest.len());
        let rest = core::mem::take(&mut self.rest);
        let (into, rest) = rest.split_at_mut_checked(n).ok_or(fmt::Error)?;
        for (to, from) in into.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        self.rest = rest;
        Ok(())
    }
}

/// A family, before, while and after it is registered.
pub struct Family<C: Commands> {
    /// Null, or registered.
    raw: Atomic<*mut bindings::genl_family>,
    _commands: PhantomData<fn() -> C>,
}

// SAFETY: The pointer is read and written atomically, and used as described at `multicast`.
unsafe impl<C: Commands> Sync for Family<C> {}

/// A registered family; dropping it unregisters the family.
pub struct Registration<C: Commands> {
    family: &'static Family<C>,
    raw: KBox<Opaque<bindings::genl_family>>,
    watch: KBox<Opaque<bindings::notifier_block>>,
    /// What `raw` points to.
    _operations: KVec<bindings::genl_split_ops>,
    _groups: KVec<bindings::genl_multicast_group>,
}

// SAFETY: Everything in here is constant while registered, and the C side locks what it changes.
unsafe impl<C: Commands> Send for Registration<C> {}
// SAFETY: As above.
unsafe impl<C: Commands> Sync for Registration<C> {}

/// # Safety
///
/// Only called by generic netlink, as `doit` of a family of `C`.
unsafe extern "C" fn doit<C: Commands>(
    _skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    let Some(info) = NonNull::new(info) else {
        return EINVAL.to_errno();
    };
    // SAFETY: By the requirement, `info` is valid until we return.
    let (request, command) = unsafe { (Request::new(info), (*info.as_ref().genlhdr).cmd) };
    match C::run(command, &request) {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

/// # Safety
///
/// Only called by generic netlink, as `dumpit` of a family of `C`.
unsafe extern "C" fn dumpit<C: Commands>(
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
) -> c_int {
    let (Some(skb), Some(cb)) = (NonNull::new(skb), NonNull::new(cb)) else {
        return EINVAL.to_errno();
    };
    // SAFETY: By the requirement, both are valid until we return, and generic netlink has prepared
    // the dump's `info`; the asker's socket keeps the namespace.
    let (net, command) = unsafe {
        let info = bindings::lard_genl_dump_info(cb.as_ptr());
        let net = Net::from_raw(bindings::lard_genl_info_net(info));
        (net, (*(*info).genlhdr).cmd)
    };
    let mut dump = Dump {
        skb,
        cb,
        net,
        wrote: false,
    };
    match C::dump(command, &mut dump) {
        Err(e) => e.to_errno(),
        Ok(()) if !dump.wrote => 0,
        // SAFETY: `skb` is valid. Its length is below 2^31.
        Ok(()) => unsafe { bindings::lard_genl_len(skb.as_ptr()) as c_int },
    }
}

/// # Safety
///
/// Only called through the netlink notifier chain.
unsafe extern "C" fn notify<C: Commands>(
    _block: *mut bindings::notifier_block,
    event: c_ulong,
    data: *mut c_void,
) -> c_int {
    if u32::try_from(event) == Ok(bindings::NETLINK_URELEASE) {
        // SAFETY: The data of this event is a `netlink_notify`, whose namespace the socket that is
        // being released keeps.
        let (notify, net) = unsafe {
            let notify = &*data.cast::<bindings::netlink_notify>();
            (notify, Net::from_raw(notify.net))
        };
        if notify.protocol == bindings::NETLINK_GENERIC as c_int {
            C::released(net, notify.portid);
        }
    }
    bindings::NOTIFY_DONE as c_int
}

fn copy_name(to: &mut [u8], from: &[u8]) {
    // The last place stays 0.
    let room = to.len().saturating_sub(1);
    for (to, from) in to.iter_mut().take(room).zip(from) {
        *to = *from;
    }
}

impl<C: Commands> Family<C> {
    /// A family that is not registered.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            raw: Atomic::new(ptr::null_mut()),
            _commands: PhantomData,
        }
    }

    /// Registers the family, and with it the watch over its users' sockets.
    ///
    /// # Context
    ///
    /// Sleeps. Once at a time.
    pub fn register(&'static self, module: &'static ThisModule) -> Result<Registration<C>> {
        let mut operations = KVec::with_capacity(C::COMMANDS.len(), GFP_KERNEL)?;
        for command in C::COMMANDS {
            let mut op = bindings::genl_split_ops {
                cmd: command.number,
                // CAST: The flags are below 0x20.
                flags: command.flags as u8,
                ..Default::default()
            };
            if command.is_dump() {
                op.__bindgen_anon_1.__bindgen_anon_2.dumpit = Some(dumpit::<C>);
            } else {
                op.__bindgen_anon_1.__bindgen_anon_1.doit = Some(doit::<C>);
            }
            if !command.policy.is_empty() {
                op.policy = command.policy.as_ptr().cast();
                // CAST: Tables of attributes are short.
                op.maxattr = command.policy.len().saturating_sub(1) as u32;
            }
            operations.push(op, GFP_KERNEL)?;
        }
        let mut groups = KVec::with_capacity(C::GROUPS.len(), GFP_KERNEL)?;
        for name in C::GROUPS {
            let mut group = bindings::genl_multicast_group::default();
            copy_name(&mut group.name, name);
            groups.push(group, GFP_KERNEL)?;
        }
        let mut raw = bindings::genl_family {
            version: 1,
            // CAST: Both are short tables.
            n_split_ops: operations.len() as u8,
            n_mcgrps: groups.len() as u8,
            split_ops: operations.as_ptr(),
            mcgrps: groups.as_ptr(),
            module: module.as_ptr().cast(),
            ..Default::default()
        };
        copy_name(&mut raw.name, C::NAME);
        raw.set_netnsok(1);
        raw.set_parallel_ops(1);
        let raw = KBox::new(Opaque::new(raw), GFP_KERNEL)?;
        let watch = bindings::notifier_block {
            notifier_call: Some(notify::<C>),
            ..Default::default()
        };
        let watch = KBox::new(Opaque::new(watch), GFP_KERNEL)?;

        // SAFETY: The family and all it points to live in boxes until they are unregistered; see
        // `Registration::drop`.
        to_result(unsafe { bindings::genl_register_family(raw.get()) })?;
        // SAFETY: As above.
        if let Err(e) = to_result(unsafe { bindings::netlink_register_notifier(watch.get()) }) {
            // SAFETY: It was registered just now.
            unsafe { bindings::genl_unregister_family(raw.get()) };
            return Err(e);
        }
        self.raw.store(raw.get(), Release);
        Ok(Registration {
            family: self,
            raw,
            watch,
            _operations: operations,
            _groups: groups,
        })
    }

    /// Sends an event to the listeners of a group in `net`, if the family is registered.
    ///
    /// # Context
    ///
    /// Any but hard interrupts.
    pub fn multicast(
        &self,
        net: &Net,
        group: u32,
        command: u8,
        fill: impl FnOnce(&mut Message<'_>) -> Result,
    ) -> Result {
        let _guard = rcu::read_lock();
        let raw = self.raw.load(Acquire);
        if raw.is_null() {
            return Ok(());
        }
        // SAFETY: The family stays registered until a grace period after the pointer was cleared,
        // and we are in a read-side section.
        unsafe {
            let skb = build(raw, 0, 0, command, c::GFP_ATOMIC, fill)?;
            let net = net.as_ptr();
            let result =
                bindings::lard_genl_multicast(raw, net, skb.into_raw(), group, c::GFP_ATOMIC);
            // No listener is no error.
            if result == ESRCH.to_errno() {
                return Ok(());
            }
            to_result(result)
        }
    }
}

impl<C: Commands> Drop for Registration<C> {
    fn drop(&mut self) {
        self.family.raw.store(ptr::null_mut(), Release);
        rcu::synchronize_rcu();
        // SAFETY: Both were registered by `register`. The calls wait for running callbacks, and a
        // dump that is not finished holds a reference to the module, so it cannot be unloaded.
        unsafe {
            bindings::genl_unregister_family(self.raw.get());
            bindings::netlink_unregister_notifier(self.watch.get());
        }
    }
}
