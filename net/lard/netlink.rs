// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family: how user space tells a namespace what it is, and asks what it does.
//!
//! `Documentation/netlink/specs/lard.yaml` is the description; `numbers` has its positions.
//! Text that goes back with an error is written for the person who typed the command.
//!
//! # Ownership
//!
//! The socket that attached a node owns it. When it is closed, by the death of its process as a rule,
//! the control connections end and no new connections are taken, while those that were handed over
//! go on: their packets need no user space. Somebody else may then attach the same node again.
//!
//! # Locking
//!
//! Every change holds the namespace's `admin` lock from beginning to end.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::genl::{Command, Commands, Dump, Family, Message, Policy, Request};
use kernel_net::net::Net;
use lard_core::addr::NodeId;
use lard_core::policy::NodeState;
use lard_core::wire::Roles;

use crate::config::Config;
use crate::netns::{Node, NODES};
use crate::peer::Lost;

mod change;
mod numbers;
mod show;

use numbers::{cmd, node, service, state_number};

/// The family.
pub(crate) static FAMILY: Family<Lard> = Family::new();

/// The family while it is registered.
pub(crate) type Registration = kernel_net::genl::Registration<Lard>;

/// What the family does.
pub(crate) struct Lard;

const EVENTS: u32 = 0;

/// The longest text of a rule.
const RULE_LEN: u16 = 255;

/// Parameters in one command.
const MAX_CHANGES: usize = 32;

/// The parameter that is a word, and the dispatcher's.
const POLICY_NAME: &str = "policy";

/// The parameter that is what of a request makes its target, and the dispatcher's.
const KEY_NAME: &str = "key";

/// What becomes of further requests on a connection, which is set and shown as the policy is.
const MODE_NAME: &str = "mode";

/// How another node serves them, if the mode does not say so.
const MECHANISM_NAME: &str = "mechanism";

/// The longest value of a parameter.
const VALUE_LEN: u16 = 255;

const NODE_ID: Policy = Policy::u16(1, 64);

const ENDPOINT: &[Policy] = &[Policy::REFUSED, Policy::bytes(16), Policy::PORT];

const ATTACH: &[Policy] = &{
    let mut p = [const { Policy::REFUSED }; 50];
    p[node::NODE_ID as usize] = NODE_ID;
    p[node::CLUSTER_ID as usize] = Policy::UINT;
    p[node::NAME as usize] = Policy::string(63);
    p[node::ROLES as usize] = Policy::U32;
    p[node::FE_PORT as usize] = Policy::PORT;
    p[node::BE_PORT as usize] = Policy::PORT;
    p[node::BE_ADDR as usize] = Policy::bytes(16);
    p[node::INTERNAL_ADDR as usize] = Policy::bytes(16);
    p[node::INTERNAL_IFNAME as usize] = Policy::string(15);
    p[node::ANY_LISTENER as usize] = Policy::FLAG;
    p[node::WEIGHT as usize] = Policy::U32;
    p[node::POLICY as usize] = Policy::string(63);
    p[node::HASH_KEY as usize] = Policy::bytes(16);
    p[node::RULE as usize] = Policy::string(RULE_LEN);
    p[node::DISPATCHER as usize] = NODE_ID;
    p[node::VIP as usize] = Policy::nested(ENDPOINT);
    p[node::ALLOW as usize] = Policy::nested(ENDPOINT);
    p[node::KEY as usize] = Policy::string(VALUE_LEN);
    p[node::CONTENT as usize] = Policy::string(RULE_LEN);
    p[node::TAGS as usize] = Policy::string(RULE_LEN);
    p[node::MOUNTED as usize] = Policy::UINT;
    p
};

const DETACH: &[Policy] = &{
    let mut p = [const { Policy::REFUSED }; 17];
    p[node::FORCE as usize] = Policy::FLAG;
    p
};

const PEER_ADD: &[Policy] = &{
    let mut p = [const { Policy::REFUSED }; 18];
    p[node::NODE_ID as usize] = NODE_ID;
    p[node::NAME as usize] = Policy::string(63);
    p[node::ROLES as usize] = Policy::U32;
    p[node::INTERNAL_ADDR as usize] = Policy::bytes(16);
    p[node::WEIGHT as usize] = Policy::U32;
    p[node::FD as usize] = Policy::U32;
    p
};

const PEER_DEL: &[Policy] = &[Policy::REFUSED, NODE_ID];

const NODE_SET: &[Policy] = &{
    let mut p = [const { Policy::REFUSED }; 19];
    p[node::NODE_ID as usize] = NODE_ID;
    p[node::WEIGHT as usize] = Policy::U32;
    p[node::STATE as usize] = Policy::U32;
    p
};

const DISK_SET: &[Policy] = &{
    let mut p = [const { Policy::REFUSED }; 42];
    p[node::DISK_QUEUE as usize] = Policy::U32;
    p
};

const MOUNTS_SET: &[Policy] = &{
    let mut p = [const { Policy::REFUSED }; 50];
    p[node::MOUNTED as usize] = Policy::UINT;
    p
};

const RULE_SET: &[Policy] = &[
    Policy::REFUSED,
    Policy::REFUSED,
    Policy::REFUSED,
    Policy::string(RULE_LEN),
];

const SERVICE_SET: &[Policy] = &{
    let mut p = [const { Policy::REFUSED }; 5];
    p[service::CONTENT as usize] = Policy::string(RULE_LEN);
    p[service::KEY as usize] = Policy::string(VALUE_LEN);
    p
};

const PARAM_ENTRY: &[Policy] = &[
    Policy::REFUSED,
    Policy::string(63),
    Policy::string(VALUE_LEN),
];

const PARAM_SET: &[Policy] = &[
    Policy::REFUSED,
    Policy::REFUSED,
    Policy::REFUSED,
    Policy::nested(PARAM_ENTRY),
];

impl Commands for Lard {
    const NAME: &'static [u8] = b"lard";
    const GROUPS: &'static [&'static [u8]] = &[b"events"];
    const COMMANDS: &'static [Command] = &[
        Command::change(cmd::ATTACH, ATTACH),
        Command::change(cmd::DETACH, DETACH),
        Command::change(cmd::PEER_ADD, PEER_ADD),
        Command::change(cmd::PEER_DEL, PEER_DEL),
        Command::query(cmd::SELF_GET),
        Command::dump(cmd::NODE_GET),
        Command::change(cmd::NODE_SET, NODE_SET),
        Command::dump(cmd::CONN_GET),
        Command::dump(cmd::STATS_GET),
        Command::change(cmd::RULE_SET, RULE_SET),
        Command::dump(cmd::RULE_GET),
        Command::change(cmd::PARAM_SET, PARAM_SET),
        Command::dump(cmd::PARAM_GET),
        Command::change(cmd::SERVICE_SET, SERVICE_SET),
        Command::dump(cmd::SERVICE_GET),
        Command::change(cmd::DISK_SET, DISK_SET),
        Command::change(cmd::MOUNTS_SET, MOUNTS_SET),
    ];

    fn run(command: u8, request: &Request<'_>) -> Result {
        let node = NODES.get(request.net()).ok_or(ENODEV)?;
        match command {
            cmd::ATTACH => change::attach(&node, request),
            cmd::DETACH => change::detach(&node, request),
            cmd::PEER_ADD => change::peer_add(&node, request),
            cmd::PEER_DEL => change::peer_del(&node, request),
            cmd::SELF_GET => show::self_get(&node, request),
            cmd::NODE_SET => change::node_set(&node, request),
            cmd::RULE_SET => change::rule_set(&node, request),
            cmd::PARAM_SET => change::param_set(&node, request),
            cmd::SERVICE_SET => change::service_set(&node, request),
            cmd::DISK_SET => change::disk_set(&node, request),
            cmd::MOUNTS_SET => change::mounts_set(&node, request),
            _ => Err(EOPNOTSUPP),
        }
    }

    fn dump(command: u8, dump: &mut Dump<'_>) -> Result {
        let node = NODES.get(dump.net()).ok_or(ENODEV)?;
        match command {
            cmd::NODE_GET => show::dump_nodes(&node, dump),
            cmd::CONN_GET => show::dump_conns(&node, dump),
            cmd::STATS_GET => show::dump_stats(&node, dump),
            cmd::RULE_GET => show::dump_rules(&node, dump),
            cmd::PARAM_GET => show::dump_params(&node, dump),
            cmd::SERVICE_GET => show::dump_service(&node, dump),
            _ => Err(EOPNOTSUPP),
        }
    }

    fn released(net: &Net, port: u32) {
        let Some(node) = NODES.get(net) else { return };
        // Sockets of all programs come here; only the owner's has to wait for a lock.
        if node.control.owner() != Some(port) {
            return;
        }
        let mut admin = node.control.admin();
        if node.control.owner() != Some(port) {
            return;
        }
        node.control.set_owner(&mut admin, None);
        change::halt(&node);
        node.control.stop(&node, &mut admin);
        // A hand-off that was under way may have changed a listener since.
        node.back_end.stop();
        pr_notice!("the owner of the node is gone; nothing new is accepted\n");
    }
}

/// What the namespace was attached as; everything but attaching needs that.
fn attached(node: &Node, request: &Request<'_>) -> Result<Arc<Config>> {
    node.config().ok_or_else(|| {
        request.fail(
            ENOTCONN,
            format_args!("this namespace is not attached to a cluster"),
        )
    })
}

// --- events --------------------------------------------------------------------------------------

/// A peer has said HELLO. Any context but hard irq, as the other events.
pub(crate) fn peer_ready(net: &Net, id: NodeId, roles: Roles) {
    event(net, cmd::PEER_READY, |m| {
        m.put_u16(node::NODE_ID, id.0)?;
        m.put_u32(node::ROLES, roles.bits().into())
    });
}

/// A control connection has ended.
pub(crate) fn peer_lost(net: &Net, id: NodeId, lost: Lost) {
    event(net, cmd::PEER_LOST, |m| {
        m.put_u16(node::NODE_ID, id.0)?;
        m.put_u32(node::REASON, lost as u32)
    });
}

/// The dispatcher has changed its mind about a node.
pub(crate) fn node_changed(net: &Net, id: NodeId, state: NodeState) {
    event(net, cmd::NODE_CHANGE, |m| {
        m.put_u16(node::NODE_ID, id.0)?;
        m.put_u32(node::STATE, state_number(Some(state)))
    });
}

/// Listeners that cannot keep up miss events, and learn that from their socket.
fn event(net: &Net, command: u8, fill: impl FnOnce(&mut Message<'_>) -> Result) {
    let _ = FAMILY.multicast(net, EVENTS, command, fill);
}
