// SPDX-License-Identifier: GPL-2.0

//! The dispatcher's whole state in one object: nodes, targets, policies, parameters and accounting.
//!
//! ```text
//!   add_dest, upd_dest, del_dest ──▶ Nodes ◀── schedule: +1
//!            │                         ▲   ◀── finished: −1
//!            ▼                         │ reads
//!         policies ────────────────────┴──────▶ TargetTable
//! ```
//!
//! All policies are kept and all use one target table, so that one can be changed for another and
//! back without losing what was learnt; only the chosen one is asked.

use super::super::addr::NodeId;
use super::chbl::Chbl;
use super::extlard::ExtLard;
use super::lard::Lard;
use super::lardr::Lardr;
use super::lb::Lb;
use super::lc::Lc;
use super::wrr::Wrr;
use super::{
    Dest, NodeError, NodeState, Nodes, ParamError, Params, Policy, PolicyKind, Request, Slot, Tags,
    TargetTable, View, UNIT,
};
use core::ops::DerefMut;

/// Nodes, policy and accounting for up to `64 * W` nodes. `S` are the slots of the target table.
#[derive(Debug)]
pub struct Scheduler<S, const W: usize = 1> {
    kind: PolicyKind,
    /// Who is asked about further requests, if not the same.
    further: Option<PolicyKind>,
    params: Params,
    pub(super) nodes: Nodes<W>,
    targets: TargetTable<S, W>,
    policies: Policies<W>,
}

#[derive(Debug)]
struct Policies<const W: usize> {
    wrr: Wrr<W>,
    lc: Lc,
    lb: Lb,
    chbl: Chbl,
    lard: Lard,
    lardr: Lardr,
    extlard: ExtLard,
}

impl<const W: usize> Policies<W> {
    fn named<S: DerefMut<Target = [Slot<W>]>>(
        &mut self,
        kind: PolicyKind,
    ) -> &mut dyn Policy<S, W> {
        match kind {
            PolicyKind::Wrr => &mut self.wrr,
            PolicyKind::Lc => &mut self.lc,
            PolicyKind::Lb => &mut self.lb,
            PolicyKind::Chbl => &mut self.chbl,
            PolicyKind::Lard => &mut self.lard,
            PolicyKind::Lardr => &mut self.lardr,
            PolicyKind::Extlard => &mut self.extlard,
        }
    }

    fn each<S: DerefMut<Target = [Slot<W>]>>(&mut self, f: impl Fn(&mut dyn Policy<S, W>)) {
        for kind in PolicyKind::ALL {
            f(self.named(kind));
        }
    }
}

impl<S: DerefMut<Target = [Slot<W>]>, const W: usize> Scheduler<S, W> {
    /// No nodes, no targets, default parameters.
    pub fn new(kind: PolicyKind, slots: S) -> Self {
        Scheduler {
            kind,
            further: None,
            params: Params::DEFAULT,
            nodes: Nodes::new(),
            targets: TargetTable::new(slots),
            policies: Policies {
                wrr: Wrr::new(),
                lc: Lc::default(),
                lb: Lb,
                chbl: Chbl,
                lard: Lard::default(),
                lardr: Lardr::default(),
                extlard: ExtLard::default(),
            },
        }
    }

    /// Lets `node` be chosen from now on.
    pub fn add_dest(&mut self, node: NodeId, weight: u16) -> Result<(), NodeError> {
        self.nodes.add(node, weight)?;
        self.policies.each::<S>(|policy| policy.add_dest(node));
        Ok(())
    }

    /// Forgets `node` and says what it was. Targets that are mapped to it stay so, in case it comes
    /// back; until then they count as mapped to nobody.
    pub fn del_dest(&mut self, node: NodeId) -> Result<Dest, NodeError> {
        let dest = self.nodes.remove(node)?;
        self.policies.each::<S>(|policy| policy.del_dest(node));
        Ok(dest)
    }

    /// Changes the weight, the state or both. A node that goes down loses its load.
    pub fn upd_dest(
        &mut self,
        node: NodeId,
        weight: Option<u16>,
        state: Option<NodeState>,
    ) -> Result<(), NodeError> {
        self.nodes.update(node, weight, state)?;
        self.policies.each::<S>(|policy| policy.upd_dest(node));
        Ok(())
    }

    /// Changes what `node` has that others have not.
    pub fn set_tags(&mut self, node: NodeId, tags: Tags) -> Result<(), NodeError> {
        self.nodes.set_tags(node, tags)?;
        self.policies.each::<S>(|policy| policy.upd_dest(node));
        Ok(())
    }

    /// Chooses a node and counts the connection as its load; `None`, and nothing is counted, if no
    /// node may be chosen. Each choice must be undone once, by [`Scheduler::finished`].
    pub fn schedule(&mut self, request: &Request<W>) -> Option<NodeId> {
        let (policy, view) = self.decide(self.kind);
        let node = policy.schedule(view, request)?;
        self.nodes.assign(node);
        Some(node)
    }

    /// Chooses the node for a further request of a connection that `home` has. If it is another one
    /// the connection counts as its load from now on, and as that of `home` until it has let go; both
    /// end by [`Scheduler::finished`].
    pub fn schedule_next(&mut self, request: &Request<W>, home: NodeId) -> Option<NodeId> {
        let node = self.decide_next(request, home)?;
        if node != home {
            self.nodes.assign(node);
        }
        Some(node)
    }

    /// A connection of `node` is over, or never reached it. `false` if it had none left, which
    /// happens after its load was set from outside; loads never go below zero.
    pub fn finished(&mut self, node: NodeId) -> bool {
        self.nodes.finish(node)
    }

    /// The most connections that help the nodes that are up, S of \[3\], section 2.4:
    /// `(n-1) * T_high + T_low - 1`, and at least 1.
    ///
    /// Beyond it all n nodes can reach T_high at once, and moving targets helps nobody. A node of
    /// weight w counts as w nodes.
    pub fn saturation(&self) -> u64 {
        let (weights, _) = self.nodes.totals();
        let (low, high) = (u64::from(self.params.t_low), u64::from(self.params.t_high));
        // No overflow: 20 bits times 10 for each of the nodes, and 16.
        (weights.saturating_sub(1) * high + low.saturating_sub(1)).max(1)
    }

    /// How many connections the nodes that are up may have together; `None` for any number.
    pub fn limit(&self) -> Option<u64> {
        match self.params.max_connections {
            Params::OFF => None,
            Params::AUTO => self.kind.has_thresholds().then(|| self.saturation()),
            limit => Some(limit.into()),
        }
    }

    /// Is the cluster full, so that a new connection should wait until another one is over?
    pub fn is_full(&self) -> bool {
        self.limit().is_some_and(|limit| self.has(limit))
    }

    /// Do the nodes that are up have as many connections as [`Scheduler::saturation`] says?
    pub fn is_saturated(&self) -> bool {
        self.has(self.saturation())
    }

    fn has(&self, connections: u64) -> bool {
        let (_, work) = self.nodes.totals();
        // No overflow: the limits of both are far below.
        work >= connections * u64::from(UNIT)
    }

    /// Sets the load of `node` to what the node itself says, when messages were lost.
    pub fn set_load(&mut self, node: NodeId, load: u32) -> Result<(), NodeError> {
        self.nodes.set_load(node, load)
    }

    /// The node says how many requests wait for its disk.
    pub fn set_disk_queue(&mut self, node: NodeId, length: u32) -> Result<(), NodeError> {
        self.nodes.set_disk_queue(node, length)
    }

    /// The nodes.
    pub const fn nodes(&self) -> &Nodes<W> {
        &self.nodes
    }

    /// The targets and who serves them, as the policies that look at targets have left it.
    pub const fn targets(&self) -> &TargetTable<S, W> {
        &self.targets
    }

    /// The policy that is asked.
    pub const fn policy(&self) -> PolicyKind {
        self.kind
    }

    /// Asks another policy from now on.
    pub fn set_policy(&mut self, kind: PolicyKind) {
        self.kind = kind;
    }

    /// Begins again with this policy and default parameters; what is known of nodes and targets stays.
    pub fn restart(&mut self, kind: PolicyKind) {
        self.kind = kind;
        self.further = None;
        self.params = Params::DEFAULT;
    }

    /// Has another policy asked about further requests on connections; `None` for the same.
    pub fn set_further_policy(&mut self, kind: Option<PolicyKind>) {
        self.further = kind;
    }

    /// The parameters of all policies.
    pub const fn params(&self) -> &Params {
        &self.params
    }

    /// Changes some parameters at once: all of them, or none if one is wrong.
    pub fn set_params<'a, I>(&mut self, changes: I) -> Result<(), ParamError>
    where
        I: IntoIterator<Item = (&'a str, u32)>,
    {
        self.params = self.params.with(changes)?;
        Ok(())
    }

    /// Moves the target table to other storage and gives the old one back.
    pub fn replace_storage(&mut self, slots: S) -> S {
        self.targets.replace_storage(slots)
    }

    /// The node for a further request of a connection that `home` has. Nothing is counted.
    pub(super) fn decide_next(&mut self, request: &Request<W>, home: NodeId) -> Option<NodeId> {
        let (policy, view) = self.decide(self.further.unwrap_or(self.kind));
        policy.schedule_next(view, request, home)
    }

    /// A policy, and what it decides from.
    fn decide(&mut self, kind: PolicyKind) -> (&mut dyn Policy<S, W>, View<'_, S, W>) {
        let view = View {
            nodes: &self.nodes,
            targets: &mut self.targets,
            params: &self.params,
        };
        (self.policies.named(kind), view)
    }
}
