// SPDX-License-Identifier: GPL-2.0

//! The counters as files: `/sys/kernel/lard/net/<counter>`, one value each.
//!
//! Every namespace has its own directory of that name; which one is seen depends on the mount of
//! sysfs. Programs ask by generic netlink instead, which follows the namespace of the asker.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};
use kernel_net::sysfs::{Files, Out};

use crate::netns::Node;
use crate::stats::Stats;

/// The files of a namespace's directory.
pub(crate) struct Counters;

/// `/sys/kernel/lard`.
pub(crate) type Root = kernel_net::sysfs::Root<Counters>;

/// `net` in it, for one namespace.
pub(crate) type Dir = kernel_net::sysfs::Dir<Counters>;

impl Files for Counters {
    type Source = Node;

    fn name(index: usize) -> Option<&'static str> {
        Stats::name(index)
    }

    fn show(node: &Node, index: usize, out: &mut Out<'_>) -> fmt::Result {
        write!(out, "{}", node.stats.at(index))
    }
}
