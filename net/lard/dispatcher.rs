// SPDX-License-Identifier: GPL-2.0

//! The dispatcher: one per cluster, decides which node serves a target.
//!
//! The decision itself is `lard_core::policy`; this file gives it memory, a lock and the news of the
//! cluster. Called by the front-end on the same node, or by the control connection of another one.
//!
//! # Locking
//!
//! One lock, which is a leaf: a decision takes well under a microsecond.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::sync::BhLock;
use lard_core::addr::NodeId;
use lard_core::policy::{
    Dest, NodeError, NodeState, ParamError, Params, PolicyKind, Request, Scheduler, Slot, Tags,
    MAX_NODES,
};
use lard_core::wire::{Assign, Load};

use crate::front_end::now;

/// Targets that are remembered: 2^16 of 40 bytes.
const TARGETS: usize = 1 << 16;

/// Reports of a node's load after which the dispatcher's own count is put right: ten seconds' worth.
const REPORTS: u8 = 20;

/// The dispatcher of one namespace; it decides nothing until it is started.
pub(crate) struct Dispatcher {
    inner: BhLock<Option<KBox<Inner>>>,
}

struct Inner {
    scheduler: Scheduler<KVVec<Slot>>,
    reports: [Report; MAX_NODES],
}

/// How far what a node says about its load lies from the dispatcher's count, in a row of reports.
#[derive(Clone, Copy)]
struct Report {
    /// The least by which the dispatcher counted too much.
    over: u32,
    /// The least by which it counted too little.
    under: u32,
    count: u8,
}

impl Report {
    const NONE: Report = Report {
        over: u32::MAX,
        under: u32::MAX,
        count: 0,
    };
}

impl Dispatcher {
    pub(crate) fn new() -> Self {
        Self {
            inner: kernel_net::new_bh_lock!(None, c"lard:dispatcher"),
        }
    }

    /// Starts to decide, with no node to choose yet. What an earlier start has learnt is kept.
    /// May sleep.
    pub(crate) fn start(&self, policy: PolicyKind) -> Result {
        let fresh = Inner::new(policy)?;
        let unused = {
            let mut inner = self.inner.lock();
            match inner.as_mut() {
                None => inner.replace(fresh),
                Some(inner) => {
                    inner.scheduler.set_policy(policy);
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

    /// Chooses a node and counts the connection as its load, until [`Dispatcher::finished`]; for a further
    /// request only if it is not the node that has the connection. `None` if nobody may be chosen. Any
    /// context but hard irq.
    pub(crate) fn assign(&self, question: &Assign) -> Option<NodeId> {
        self.with(|inner| {
            let Assign {
                key, exclude, tags, ..
            } = *question;
            let request = Request {
                key,
                exclude,
                tags,
                now: now(),
            };
            match question.home {
                None => inner.scheduler.schedule(&request),
                Some(home) => inner.scheduler.schedule_next(&request, home),
            }
        })?
    }

    /// A connection of `node` is over, or never came to be.
    pub(crate) fn finished(&self, node: NodeId) {
        self.with(|inner| inner.scheduler.finished(node));
    }

    /// A back-end has joined, or has come back.
    pub(crate) fn node_up(&self, node: NodeId, weight: u16) -> Result<(), NodeError> {
        self.with(|inner| {
            inner.forget_reports(node);
            match inner.scheduler.add_dest(node, weight) {
                Err(NodeError::Exists) => {
                    inner
                        .scheduler
                        .upd_dest(node, Some(weight), Some(NodeState::Up))
                }
                other => other,
            }
        })
        .unwrap_or(Err(NodeError::Unknown))
    }

    /// Changes what a node has that rules can demand.
    pub(crate) fn set_tags(&self, node: NodeId, tags: Tags) {
        // A node that is not there has nothing.
        self.with(|inner| inner.scheduler.set_tags(node, tags));
    }

    /// A back-end is lost, with what it was serving.
    pub(crate) fn node_down(&self, node: NodeId) {
        self.with(|inner| {
            inner.forget_reports(node);
            inner.scheduler.upd_dest(node, None, Some(NodeState::Down))
        });
    }

    /// Changes the state or the weight of a node, as an administrator wants it.
    pub(crate) fn set_node(
        &self,
        node: NodeId,
        state: Option<NodeState>,
        weight: Option<u16>,
    ) -> Result<(), NodeError> {
        self.with(|inner| inner.scheduler.upd_dest(node, weight, state))
            .unwrap_or(Err(NodeError::Unknown))
    }

    /// A back-end says how many connections it has, and how many requests wait for its disk.
    ///
    /// Messages about ends are lost with the control connection they were to travel on, and a
    /// dispatcher that was restarted knows nothing of what is there. While connections come and go
    /// the two counts differ for a moment anyway, by what is on the wire; the least difference of many
    /// reports is not that.
    pub(crate) fn load(&self, node: NodeId, load: &Load) {
        let Load { active, disk_queue } = *load;
        self.with(|inner| {
            // A node that is not there is not found below either.
            let _ = inner.scheduler.set_disk_queue(node, disk_queue);
            let Some(&Dest { load, .. }) = inner.scheduler.nodes().get(node) else {
                return;
            };
            let Some(report) = report_of(&mut inner.reports, node) else {
                return;
            };
            report.over = report.over.min(load.saturating_sub(active));
            report.under = report.under.min(active.saturating_sub(load));
            report.count = report.count.saturating_add(1);
            if report.count < REPORTS {
                return;
            }
            let right = load
                .saturating_sub(report.over)
                .saturating_add(report.under);
            *report = Report::NONE;
            // The node is there: it was found above.
            let _ = inner.scheduler.set_load(node, right);
        });
    }

    /// A node as the dispatcher sees it.
    pub(crate) fn node(&self, node: NodeId) -> Option<Dest> {
        self.with(|inner| inner.scheduler.nodes().get(node).copied())?
    }

    pub(crate) fn policy(&self) -> Option<PolicyKind> {
        self.with(|inner| inner.scheduler.policy())
    }

    /// Changes the policy at run time; what is known of targets stays. `false` without a dispatcher.
    pub(crate) fn set_policy(&self, kind: PolicyKind) -> bool {
        self.with(|inner| inner.scheduler.set_policy(kind))
            .is_some()
    }

    /// The parameters of all policies; `None` without a dispatcher.
    pub(crate) fn params(&self) -> Option<Params> {
        self.with(|inner| *inner.scheduler.params())
    }

    /// Changes parameters: all of them, or none if one is wrong. `None` without a dispatcher.
    pub(crate) fn set_params<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Option<Result<(), ParamError>> {
        self.with(|inner| inner.scheduler.set_params(changes))
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> Option<R> {
        self.inner.lock().as_mut().map(|inner| f(inner))
    }
}

impl Inner {
    /// A dispatcher without nodes. Not inlined: it is three kilobytes, which pass over the stack.
    #[inline(never)]
    fn new(policy: PolicyKind) -> Result<KBox<Self>> {
        let mut slots = KVVec::with_capacity(TARGETS, GFP_KERNEL)?;
        slots.resize(TARGETS, Slot::EMPTY, GFP_KERNEL)?;
        let inner = Self {
            scheduler: Scheduler::new(policy, slots),
            reports: [Report::NONE; MAX_NODES],
        };
        Ok(KBox::new(inner, GFP_KERNEL)?)
    }

    fn forget_reports(&mut self, node: NodeId) {
        if let Some(report) = report_of(&mut self.reports, node) {
            *report = Report::NONE;
        }
    }
}

fn report_of(reports: &mut [Report; MAX_NODES], node: NodeId) -> Option<&mut Report> {
    reports.get_mut(usize::from(node.0).checked_sub(1)?)
}
