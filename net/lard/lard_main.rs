// SPDX-License-Identifier: GPL-2.0

//! LARD for Linux: the module.
//!
//! # Layout
//!
//! In a packet's way: `classify` (is it ours), `packet` with `pieces` (what is in it), `front_end` with
//! `newcomer`, `conn_table`, `open`, `http2`, `hand_off` and `handed_over` (the client's side of a connection
//! until a back-end has it), `dispatcher` with `admission` (which back-end, and when), `back_end` (the server's
//! side), `forward` (the packets after that), `probe` (connections whose end nobody has told), `checked`
//! (connections that end for what they ask for), `gauge` (what clients can make the node keep).
//! On persistent connections: `persist` with `hold` and `responses` (where requests and answers begin and end),
//! `moving` (to another node), `parked` and `line` (packets that wait, and their order), `idle` (which
//! connections have none).
//! Around them: `control`, `peer`, `outbox` (connections to other nodes), `absence` (of the dispatcher),
//! `netlink`, `proc` and their `rows`, `sysfs`, `stats` (what administrators see), `config`, `params`,
//! `service` (what they set), `netns` (one node), `af_lard` (the address family).
//!
//! # Order
//!
//! What is set up last goes first; [`LardModule`] has its fields in the order in which they end: no
//! more commands, no more sockets of the family, the nodes of all namespaces with their hooks and
//! threads, the directory, and at the very end the table of children, when nobody can be in a function
//! of this module any more.

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::sync::Global;
use kernel_net::{child, pernet};

mod absence;
mod admission;
mod af_lard;
mod back_end;
mod checked;
mod classify;
mod config;
mod conn_table;
mod control;
mod dispatcher;
mod forward;
mod front_end;
mod gauge;
mod hand_off;
mod handed_over;
mod hold;
mod http2;
mod idle;
mod line;
mod moving;
mod netlink;
mod netns;
mod newcomer;
mod open;
mod outbox;
mod over;
mod packet;
mod params;
mod parked;
mod peer;
mod persist;
mod pieces;
mod probe;
mod proc;
mod responses;
mod rows;
mod service;
mod stats;
mod sysfs;

module! {
    type: LardModule,
    name: "lard",
    authors: ["The LARD for Linux developers"],
    description: "Content-aware request distribution with TCP hand-off",
    license: "GPL",
    alias: ["net-pf-21", "net-pf-16-proto-16-family-lard"],
    params: {
        family: i32 {
            default: 21,
            description: "Number of the address family",
        },
    },
}

static SYSFS_ROOT: Global<sysfs::Root> = Global::new();

/// The directory in which every namespace has its own. May sleep.
fn sysfs_root() -> Result<Arc<sysfs::Root>> {
    SYSFS_ROOT.get().ok_or(ENODEV)
}

/// The directory is there while this value lives.
struct SysfsRoot;

impl SysfsRoot {
    fn new() -> Result<Self> {
        SYSFS_ROOT.replace(Some(Arc::new(sysfs::Root::new(c"lard")?, GFP_KERNEL)?));
        Ok(Self)
    }
}

impl Drop for SysfsRoot {
    fn drop(&mut self) {
        SYSFS_ROOT.replace(None);
    }
}

/// Everything that ends with the module, in this order.
struct LardModule {
    _netlink: netlink::Registration,
    _family: af_lard::Registration,
    _nodes: pernet::Registration<netns::Node>,
    _sysfs: SysfsRoot,
    _children: child::Registration,
}

impl kernel::Module for LardModule {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let children = child::Registration::new()?;
        let sysfs = SysfsRoot::new()?;
        let nodes = netns::NODES.register()?;
        let family = af_lard::register(module_parameters::family.value())?;
        let netlink = netlink::FAMILY.register(module)?;
        Ok(Self {
            _netlink: netlink,
            _family: family,
            _nodes: nodes,
            _sysfs: sysfs,
            _children: children,
        })
    }
}
