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
        Ok(Self)
    }
}
