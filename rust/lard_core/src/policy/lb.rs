// SPDX-License-Identifier: GPL-2.0

//! A static partition of the targets: no load is looked at (\[3\], `LB`).
//!
//! ```text
//! for each request r:
//!     choose the eligible node that weighted rendezvous hashing puts first for r.target
//! ```
//!
//! The papers take the hash modulo the number of nodes; rendezvous hashing does the same, but only the
//! targets of a node that comes or goes move.

use super::super::addr::NodeId;
use super::{rendezvous, Policy, Request, View};

/// Partition by hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Lb;

impl<S, const W: usize> Policy<S, W> for Lb {
    fn schedule(&mut self, view: View<'_, S, W>, request: &Request<W>) -> Option<NodeId> {
        let eligible = view.nodes.eligible(request);
        rendezvous(eligible.map(|d| (d.node, d.weight)), request.key)
    }
}
