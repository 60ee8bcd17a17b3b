// SPDX-License-Identifier: GPL-2.0

//! LARD for Linux: the module.

use kernel::prelude::*;

module! {
    type: LardModule,
    name: "lard",
    authors: ["The LARD for Linux developers"],
    description: "Content-aware request distribution with TCP hand-off",
    license: "GPL",
    alias: ["net-pf-21"],
}

struct LardModule;

impl kernel::Module for LardModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("loaded {}\n", lard_core::addr::Addr::from_v4([1,2,3,4]).to_v4().is_some());
        if false { kernel_net::x(); }
        Ok(Self)
    }
}
