// SPDX-License-Identifier: GPL-2.0

//! Weighted least connections: no target is looked at.
//!
//! ```text
//! for each request r:
//!     choose the eligible node n with the smallest n.load / n.weight, the next one after the last
//!     choice on a tie
//! ```
//!
//! As `wlc` of IPVS and `leastconn` of HAProxy; and what \[3\] compares LARD with by the name of WRR,
//! which is weighted by the nodes' load.

use super::super::addr::NodeId;
use super::{Policy, Request, View};

/// Weighted least connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Lc {
    last: NodeId,
}

impl<S, const W: usize> Policy<S, W> for Lc {
    fn looks_at_targets(&self) -> bool {
        false
    }

    fn schedule(&mut self, view: View<'_, S, W>, request: &Request<W>) -> Option<NodeId> {
        self.last = view.nodes.least_loaded(request, self.last)?.node;
        Some(self.last)
    }
}
