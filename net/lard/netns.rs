// SPDX-License-Identifier: GPL-2.0

//! One node: the state of a network namespace, and how its components find each other.
//!
//! Several nodes can live in one kernel, one a namespace. A namespace that was never attached has a
//! node, too, which does nothing and whose hooks are off.
//!
//! # Locking
//!
//! The node has no lock around its components; each locks for itself. From the outside in, one may be
//! taken while another is held:
//!
//! 1. the administrators' mutex ([`crate::control`]);
//! 2. a bucket of the front-end's table ([`crate::conn_table`]);
//! 3. one of: settings, rules, service, addresses of the back-end, the dispatcher, the members;
//! 4. the peers, then one's `info`, then its outbox.
//!
//! A hand-off into this node itself and the delivery to a local child are made with no lock held, because
//! TCP may send inside; the end of a child is told by a work that holds none.
//!
//! # End
//!
//! With the namespace, or the module: hooks and tick are off when [`PerNet::stop`] is called; then
//! control connections are closed, and all that reads the node is taken away. What holds the node
//! last drops it; children and entries hold the module, so unloading waits for them.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, ArcBorrow};
use kernel_net::child;
use kernel_net::net::{Net, NetCell, SoftNet};
use kernel_net::pernet::{PerNet, Slot, TICK_MS};
use kernel_net::skb::{Skb, Verdict};
use kernel_net::sync::BhLock;

use crate::back_end::BackEnd;
use crate::classify::Classify;
use crate::config::Config;
use crate::control::{BackEnds, Control};
use crate::dispatcher::Dispatcher;
use crate::forward::Forward;
use crate::front_end::{now, FrontEnd};
use crate::params::Params;
use crate::service::Services;
use crate::stats::{Counter, Stats};
use crate::{proc, sysfs};
use lard_core::addr::NodeId;
use lard_core::policy::Tags;
use lard_core::wire::Roles;

/// The nodes of all namespaces.
pub(crate) static NODES: Slot<Node> = Slot::new();

/// What shows a node to user space; each holds the node.
struct Views {
    _sysfs: sysfs::Dir,
    _proc: proc::Tables,
}

/// The node of a namespace.
pub(crate) struct Node {
    /// The way to the namespace while that exists.
    pub(crate) cell: NetCell,
    /// What attaching made of the node; `None` before.
    cfg: BhLock<Option<Arc<Config>>>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) params: Params,
    pub(crate) classify: Classify,
    pub(crate) services: Services,
    pub(crate) front_end: FrontEnd,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) back_end: BackEnd,
    pub(crate) forward: Forward,
    pub(crate) control: Control,
    views: BhLock<Option<Views>>,
    /// When the next tick is due that none has hastened, in µs.
    next_tick: Atomic<u64>,
}

impl Node {
    /// What the node was told to be, if it was.
    pub(crate) fn config(&self) -> Option<Arc<Config>> {
        self.cfg.lock().clone()
    }

    /// Changes what the node was told to be.
    pub(crate) fn set_config(&self, config: Option<Arc<Config>>) {
        let old = core::mem::replace(&mut *self.cfg.lock(), config);
        drop(old);
    }

    /// The node's number; none before it is attached.
    pub(crate) fn id(&self) -> NodeId {
        self.config().map_or(NodeId::NONE, |config| config.node)
    }

    /// Is the cluster's dispatcher here?
    pub(crate) fn is_dispatcher(&self) -> bool {
        self.config()
            .is_some_and(|config| config.is(Roles::DISPATCHER))
    }

    /// The node of the cluster's dispatcher; none if it is not known.
    pub(crate) fn dispatcher_id(&self) -> NodeId {
        self.config()
            .map_or(NodeId::NONE, |config| config.dispatcher)
    }

    /// The back-ends that this node could hand a connection to by itself, of those that have `tags`.
    pub(crate) fn back_ends(&self, tags: Tags) -> BackEnds {
        self.config().map_or_else(BackEnds::new, |config| {
            self.control.back_ends(&config, tags)
        })
    }

    /// Carries a verdict out for a packet that was parked. Softirqs off, no lock held.
    pub(crate) fn deliver(&self, net: &SoftNet, verdict: Verdict) {
        match verdict {
            Verdict::Accept(skb) => skb.receive(net),
            Verdict::Drop(skb) => drop(skb),
            Verdict::Stolen => {}
        }
    }
}

impl PerNet for Node {
    fn init(net: &Net, cell: NetCell) -> Result<Arc<Self>> {
        let stats = Arc::new(Stats::new()?, GFP_KERNEL)?;
        // In place: as a value the node is too large for a kernel's stack.
        let node = Arc::init(
            pin_init::init!(Self {
                back_end: BackEnd::new(cell.clone()),
                cell,
                cfg: kernel_net::new_bh_lock!(None, c"lard:config"),
                params: Params::new(),
                classify: Classify::new()?,
                services: Services::new(),
                front_end: FrontEnd::new()?,
                dispatcher: Dispatcher::new(),
                forward: Forward::new(),
                control: Control::new(stats.clone())?,
                stats,
                views: kernel_net::new_bh_lock!(None, c"lard:views"),
                next_tick: Atomic::new(0),
            }? Error),
            GFP_KERNEL,
        )?;
        let views = Views {
            _sysfs: sysfs::Dir::new(crate::sysfs_root()?, net, node.clone())?,
            _proc: proc::Tables::new(net, &node)?,
        };
        *node.views.lock() = Some(views);
        Ok(node)
    }

    fn pre_routing(this: ArcBorrow<'_, Self>, net: &SoftNet, skb: Skb) -> Verdict {
        crate::classify::pre_routing(&this, net, skb)
    }

    fn reset_held(this: ArcBorrow<'_, Self>) {
        this.stats.inc(Counter::BeResetHeld);
    }

    fn tick(this: ArcBorrow<'_, Self>, net: &Net) {
        this.front_end.tick(&this);
        this.dispatcher.tick(&this);
        let now = now().as_micros();
        if now < this.next_tick.load(Relaxed) {
            return;
        }
        // Ticks are never this close by themselves.
        let least = u64::from(TICK_MS) * 1_000 / 2;
        this.next_tick.store(now.saturating_add(least), Relaxed);
        this.front_end.watch_dispatcher(&this);
        this.front_end.probe(&this);
        this.back_end.tick(net, this.config().as_deref());
        this.control.tick(&this, net);
    }

    fn stop(this: ArcBorrow<'_, Self>, _net: &Net) {
        {
            let mut admin = this.control.admin();
            this.control.stop(&this, &mut admin);
        }
        this.front_end.stop();
        this.front_end.clear();
        this.back_end.stop();
        let views = this.views.lock().take();
        drop(views);
        this.set_config(None);
    }
}

impl child::Owner for Node {
    fn child_closed(&self, id: u64, end: child::End) {
        self.back_end.child_closed(self, id, &end);
    }
}
