// SPDX-License-Identifier: GPL-2.0

//! The dispatcher: one per cluster, decides which node serves a target.
//!
//! The decision itself is `lard_core::policy`; this file gives it memory, a lock and the news of the
//! cluster. Called by the front-end on the same node, or by the control connection of another one.
//!
//! # Locking
//!
//! One lock, which is a leaf: a decision takes well under a microsecond. Front-ends are told of their
//! connections without it; see [`crate::admission`].

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::sync::BhLock;
use lard_core::addr::{ConnId, NodeId};
use lard_core::follow::Mode;
use lard_core::policy::{
    Admission, Dest, Further, NodeError, NodeSet, NodeState, ParamError, Params, PolicyKind,
    Reports, Request, Scheduler, Slot, Tags, Tracked, TrackedSlot, Waiter, WaitingList,
};
use lard_core::wire::{Assign, Idle, Load};

use crate::front_end::now;
use crate::netns::Node;
use crate::stats::Counter;

/// Room for 65,536 targets in twice as many places, of which each target can take six: 4.2 MB.
const SLOTS: usize = Slot::<1>::needed(1 << 16);

/// Connections that can wait for room in the cluster, of 40 bytes: the largest `queue-max`.
const WAITERS: usize = 65_536;

/// Room for connections that are idle, or whose requests other nodes help to serve: 65,536 of them, of 48
/// bytes in twice as many places.
const TRACKED: usize = TrackedSlot::needed(65_536);

/// The dispatcher of one namespace; it decides nothing until it is started.
pub(crate) struct Dispatcher {
    inner: BhLock<Option<KBox<Inner>>>,
}

pub(crate) struct Inner {
    pub(crate) scheduler: Scheduler<KVVec<Slot>>,
    /// Connections for which the cluster has no room yet.
    pub(crate) waiting: WaitingList<KVVec<Waiter>>,
    /// Connections that are not one unit of load of one node.
    tracked: Tracked<KVVec<TrackedSlot>>,
    /// Somebody is answering those that need not wait any longer.
    pub(crate) admitting: bool,
    reports: Reports,
    /// Those that an administrator has drained, be they there or not.
    drained: NodeSet,
}

impl Dispatcher {
    pub(crate) fn new() -> Self {
        Self {
            inner: kernel_net::new_bh_lock!(None, c"lard:dispatcher"),
        }
    }

    /// Starts to decide, with no node to choose yet. What an earlier start has learnt is kept, what it was
    /// told is not. May sleep.
    pub(crate) fn start(&self, policy: PolicyKind) -> Result {
        let fresh = Inner::new(policy)?;
        let unused = {
            let mut inner = self.inner.lock();
            match inner.as_mut() {
                None => inner.replace(fresh),
                Some(inner) => {
                    inner.scheduler.restart(policy);
                    inner.drained = NodeSet::EMPTY;
                    Some(fresh)
                }
            }
        };
        drop(unused);
        Ok(())
    }

    /// Decides no more, and forgets. May sleep.
    pub(crate) fn stop(&self) {
        let old = self.inner.lock().take();
        drop(old);
    }

    /// Chooses a node and counts the connection as its load, until [`Dispatcher::finished`], for a
    /// further request only if it is not the node that has the connection; or lets it wait, and
    /// [`Dispatcher::admit`] tells the front-end later. Any context but hard irq.
    pub(crate) fn assign(&self, here: &Node, question: &Assign) -> Admission {
        let admission = self.with(|inner| {
            let Assign {
                key, exclude, tags, ..
            } = *question;
            let request = Request {
                key,
                exclude,
                tags,
                now: now(),
            };
            let Some(home) = question.home else {
                let Inner {
                    scheduler, waiting, ..
                } = inner;
                return waiting.assign(scheduler, question.conn, &request);
            };
            let further = Further {
                conn: question.conn,
                home,
                batch: question.batch,
                mechanism: question.mechanism,
            };
            // The connection was admitted with its first request.
            Admission::Assigned(inner.track(here, |tracked, scheduler| {
                tracked.next(scheduler, &further, &request)
            }))
        });
        here.stats.inc(match admission {
            Some(Admission::Assigned(_)) | None => Counter::DpAssigned,
            Some(Admission::Waits) => Counter::DpWaits,
            Some(Admission::Refused) => Counter::DpQueueFull,
        });
        admission.unwrap_or(Admission::Assigned(None))
    }

    /// A connection has fallen idle, or is its node's load again. Who waits for room that this makes is
    /// let in by the tick. Any context but hard irq.
    pub(crate) fn set_idle(&self, here: &Node, idle: &Idle) {
        let Idle {
            conn,
            node,
            is_idle,
        } = *idle;
        self.with(|inner| {
            inner.track(here, |tracked, scheduler| {
                tracked.set_idle(scheduler, conn, node, is_idle);
            });
        });
    }

    /// A connection of `node` is over, or never came to be. Here and below any context but hard irq,
    /// with no lock held that a front-end takes.
    pub(crate) fn finished(&self, here: &Node, conn: ConnId, node: NodeId) {
        self.change(here, |inner| {
            inner.tracked.finished(&mut inner.scheduler, conn, node);
        });
    }

    /// A back-end has joined, or has come back, and who waits may get it; in which state, as what was
    /// drained stays so.
    pub(crate) fn node_up(
        &self,
        here: &Node,
        node: NodeId,
        weight: u16,
        tags: Tags,
    ) -> Result<NodeState, NodeError> {
        self.change(here, |inner| {
            inner.reports.forget(node);
            match inner.scheduler.add_dest(node, weight) {
                Ok(()) | Err(NodeError::Exists) => {}
                Err(error) => return Err(error),
            }
            let state = match inner.drained.contains(node) {
                true => NodeState::Draining,
                false => NodeState::Up,
            };
            inner.scheduler.set_tags(node, tags)?;
            inner.scheduler.upd_dest(node, Some(weight), Some(state))?;
            Ok(state)
        })
        .unwrap_or(Err(NodeError::Unknown))
    }

    /// Changes what a node has that rules can demand.
    pub(crate) fn set_tags(&self, node: NodeId, tags: Tags) {
        // A node that is not there has nothing.
        self.with(|inner| inner.scheduler.set_tags(node, tags));
    }

    /// A node is lost: with it what it was serving as a back-end, and those of its front-end that
    /// wait.
    pub(crate) fn node_down(&self, here: &Node, node: NodeId) {
        self.change(here, |inner| {
            inner.waiting.forget(node);
            inner.reports.forget(node);
            // A front-end is no node to be chosen.
            let _ = inner.scheduler.upd_dest(node, None, Some(NodeState::Down));
            inner.tracked.node_down(&mut inner.scheduler, node);
        });
    }

    /// Changes the state or the weight of a node, as an administrator wants it; of one that is lost, the
    /// state that it has when it is back. Returns the one that it has now.
    pub(crate) fn set_node(
        &self,
        here: &Node,
        node: NodeId,
        state: Option<NodeState>,
        weight: Option<u16>,
    ) -> Result<NodeState, NodeError> {
        self.change(here, |inner| {
            let is_lost = |dest: &Dest| dest.state == NodeState::Down;
            let at_once = state.filter(|_| !inner.scheduler.nodes().get(node).is_some_and(is_lost));
            inner.scheduler.upd_dest(node, weight, at_once)?;
            match state {
                Some(NodeState::Draining) => inner.drained.insert(node),
                Some(_) => inner.drained.remove(node),
                None => {}
            }
            let dest = inner.scheduler.nodes().get(node);
            dest.map(|dest| dest.state).ok_or(NodeError::Unknown)
        })
        .unwrap_or(Err(NodeError::Unknown))
    }

    /// What becomes of further requests has changed.
    pub(crate) fn note_mode(&self, mode: Mode) {
        let by = (mode == Mode::Auto).then_some(PolicyKind::Extlard);
        self.with(|inner| inner.scheduler.set_further_policy(by));
    }

    /// A back-end says how many connections it has, and how many requests wait for its disk.
    pub(crate) fn load(&self, here: &Node, node: NodeId, load: &Load) {
        let Load { active, disk_queue } = *load;
        self.change(here, |inner| {
            // A node that is not there is not found below either.
            let _ = inner.scheduler.set_disk_queue(node, disk_queue);
            inner
                .reports
                .heard(&mut inner.scheduler, &mut inner.tracked, node, active);
        });
    }

    /// A node as the dispatcher sees it.
    pub(crate) fn node(&self, node: NodeId) -> Option<Dest> {
        self.with(|inner| inner.scheduler.nodes().get(node).copied())?
    }

    pub(crate) fn policy(&self) -> Option<PolicyKind> {
        self.with(|inner| inner.scheduler.policy())
    }

    /// Changes the policy at run time; what is known of targets stays. Nothing without a dispatcher.
    pub(crate) fn set_policy(&self, here: &Node, kind: PolicyKind) {
        self.change(here, |inner| inner.scheduler.set_policy(kind));
    }

    /// The most connections the nodes may have together, if there is a limit, and how many wait;
    /// `None` without a dispatcher.
    pub(crate) fn admission(&self) -> Option<(Option<u64>, usize)> {
        self.with(|inner| (inner.scheduler.limit(), inner.waiting.len()))
    }

    /// The parameters of all policies; `None` without a dispatcher.
    pub(crate) fn params(&self) -> Option<Params> {
        self.with(|inner| *inner.scheduler.params())
    }

    /// Changes parameters: all of them, or none if one is wrong. `None` without a dispatcher.
    pub(crate) fn set_params<'a>(
        &self,
        here: &Node,
        changes: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Option<Result<(), ParamError>> {
        self.change(here, |inner| inner.scheduler.set_params(changes))
    }

    /// Changes something by which there may be room for those who wait.
    fn change<R>(&self, here: &Node, f: impl FnOnce(&mut Inner) -> R) -> Option<R> {
        let (result, waits) = self.with(|inner| (f(inner), !inner.waiting.is_empty()))?;
        if waits {
            self.admit(here);
        }
        Some(result)
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> Option<R> {
        self.inner.lock().as_mut().map(|inner| f(inner))
    }
}

impl Inner {
    /// A dispatcher without nodes. Not inlined: it is three kilobytes, which pass over the stack.
    #[inline(never)]
    fn new(policy: PolicyKind) -> Result<KBox<Self>> {
        let mut slots = KVVec::with_capacity(SLOTS, GFP_KERNEL)?;
        slots.resize(SLOTS, Slot::EMPTY, GFP_KERNEL)?;
        let mut places = KVVec::with_capacity(WAITERS, GFP_KERNEL)?;
        places.resize(WAITERS, Waiter::NOBODY, GFP_KERNEL)?;
        let mut tracked = KVVec::with_capacity(TRACKED, GFP_KERNEL)?;
        tracked.resize(TRACKED, TrackedSlot::EMPTY, GFP_KERNEL)?;
        let inner = Self {
            scheduler: Scheduler::new(policy, slots),
            waiting: WaitingList::new(places),
            tracked: Tracked::new(tracked),
            admitting: false,
            reports: Reports::new(),
            drained: NodeSet::EMPTY,
        };
        Ok(KBox::new(inner, GFP_KERNEL)?)
    }

    /// Does something to the connections that are kept, and counts those for which there was no room.
    fn track<R>(
        &mut self,
        here: &Node,
        f: impl FnOnce(&mut Tracked<KVVec<TrackedSlot>>, &mut Scheduler<KVVec<Slot>>) -> R,
    ) -> R {
        let before = self.tracked.overflows();
        let result = f(&mut self.tracked, &mut self.scheduler);
        let more = self.tracked.overflows().wrapping_sub(before);
        here.stats.add(Counter::DpUntracked, more);
        result
    }
}
