// SPDX-License-Identifier: GPL-2.0

//! The address family of the second stack.
//!
//! A server that makes its listening socket with this family is a target of hand-offs; otherwise its
//! sockets are TCP's own. See [`kernel_net::family`] for how.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::family;

pub(crate) use kernel_net::family::Registration;

/// Registers the family, or says in the log why that is not possible. May sleep.
pub(crate) fn register(family: i32) -> Result<Registration> {
    let registered = family::Registration::new(family);
    match &registered {
        Err(err) if *err == EEXIST => pr_err!(
            "address family {family} is taken (21 is RDS: 'rmmod rds' frees it); or load with family=N, a free one is 19, 22 or 25\n"
        ),
        Err(err) if *err == EINVAL => {
            pr_err!("there is no address family {family}; family= wants 1 to 45\n")
        }
        _ => {}
    }
    registered
}
