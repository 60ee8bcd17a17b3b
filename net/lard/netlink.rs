// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family: how user space tells a namespace what it is, and asks what it does.
//!
//! `Documentation/netlink/specs/lard.yaml` is the description; the numbers here are its positions.
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

use core::fmt::{self, Write};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::control_socket::ControlSocket;
use kernel_net::genl::{Attr, Attrs, Command, Commands, Dump, Family, Message, Policy, Request};
use kernel_net::net::Net;
use lard_core::addr::{Addr, Endpoint, NodeId};
use lard_core::classify::{Rule, MAX_RULES};
use lard_core::policy::{NodeState, PolicyKind};
use lard_core::wire::{Name, Roles};

use crate::config::{Config, Few, NodeName, Vips};
use crate::control::{ms, Admin};
use crate::netns::{Node, NODES};
use crate::params::{ParamError, Params};
use crate::peer::{Introduction, Lost};
use crate::proc::{next_conn, next_node};
use crate::stats::Stats;

/// The family.
pub(crate) static FAMILY: Family<Lard> = Family::new();

/// The family while it is registered.
pub(crate) type Registration = kernel_net::genl::Registration<Lard>;

/// What the family does.
pub(crate) struct Lard;

mod cmd {
    pub(super) const ATTACH: u8 = 1;
    pub(super) const DETACH: u8 = 2;
    pub(super) const PEER_ADD: u8 = 3;
    pub(super) const PEER_DEL: u8 = 4;
    pub(super) const SELF_GET: u8 = 5;
    pub(super) const NODE_GET: u8 = 6;
    pub(super) const NODE_SET: u8 = 7;
    pub(super) const CONN_GET: u8 = 8;
    pub(super) const STATS_GET: u8 = 9;
    pub(super) const RULE_SET: u8 = 10;
    pub(super) const RULE_GET: u8 = 11;
    pub(super) const PARAM_SET: u8 = 12;
    pub(super) const PARAM_GET: u8 = 13;
    pub(super) const PEER_READY: u8 = 14;
    pub(super) const PEER_LOST: u8 = 15;
    pub(super) const NODE_CHANGE: u8 = 16;
}

mod node {
    pub(super) const ID: u16 = 1;
    pub(super) const CLUSTER: u16 = 2;
    pub(super) const NAME: u16 = 3;
    pub(super) const ROLES: u16 = 4;
    pub(super) const FE_PORT: u16 = 5;
    pub(super) const BE_PORT: u16 = 6;
    pub(super) const BE_ADDR: u16 = 7;
    pub(super) const INTERNAL_ADDR: u16 = 8;
    pub(super) const INTERNAL_IFNAME: u16 = 9;
    pub(super) const ANY_LISTENER: u16 = 10;
    pub(super) const WEIGHT: u16 = 11;
    pub(super) const POLICY: u16 = 12;
    pub(super) const HASH_KEY: u16 = 13;
    pub(super) const RULE: u16 = 14;
    pub(super) const DISPATCHER: u16 = 15;
    pub(super) const FORCE: u16 = 16;
    pub(super) const FD: u16 = 17;
    pub(super) const STATE: u16 = 18;
    pub(super) const LINK: u16 = 19;
    pub(super) const REASON: u16 = 20;
    pub(super) const LOAD: u16 = 21;
    pub(super) const ASSIGNED: u16 = 22;
    pub(super) const FRAMES_IN: u16 = 23;
    pub(super) const FRAMES_OUT: u16 = 24;
    pub(super) const BYTES_IN: u16 = 25;
    pub(super) const BYTES_OUT: u16 = 26;
    pub(super) const WRITES: u16 = 27;
    pub(super) const QUEUED: u16 = 28;
    pub(super) const RTT_US: u16 = 29;
    pub(super) const CLOCK_OFFSET_US: u16 = 30;
    pub(super) const HEARD_MS: u16 = 31;
    pub(super) const VIP: u16 = 32;
    pub(super) const ALLOW: u16 = 33;
    pub(super) const ENTRIES: u16 = 34;
    pub(super) const CHILDREN: u16 = 35;
    pub(super) const OWNER: u16 = 36;
    pub(super) const STOPPING: u16 = 37;
}

mod conn {
    pub(super) const ID: u16 = 1;
    pub(super) const STATE: u16 = 2;
    pub(super) const CLIENT: u16 = 3;
    pub(super) const VIP: u16 = 4;
    pub(super) const NODE_ID: u16 = 5;
    pub(super) const AGE_MS: u16 = 6;
    pub(super) const IDLE_MS: u16 = 7;
}

mod endpoint {
    pub(super) const ADDR: u16 = 1;
    pub(super) const PORT: u16 = 2;
}

mod stat {
    pub(super) const NAME: u16 = 1;
    pub(super) const VALUE: u16 = 2;
}

mod rule {
    pub(super) const INDEX: u16 = 1;
    pub(super) const TEXT: u16 = 2;
    pub(super) const RULE: u16 = 3;
}

mod param {
    pub(super) const NAME: u16 = 1;
    pub(super) const VALUE: u16 = 2;
    pub(super) const SET: u16 = 3;
    pub(super) const DEFAULT: u16 = 4;
    pub(super) const MIN: u16 = 5;
    pub(super) const MAX: u16 = 6;
}

const EVENTS: u32 = 0;

/// The longest text of a rule.
const RULE_LEN: u16 = 255;

/// Parameters in one command.
const MAX_CHANGES: usize = 32;

/// The largest weight: the policies count in thousandths.
const MAX_WEIGHT: u32 = 1_000;

const NODE_ID: Policy = Policy::u16(1, 64);

const ENDPOINT: &[Policy] = &[Policy::REFUSED, Policy::bytes(16), Policy::PORT];

const ATTACH: &[Policy] = &{
    let mut p = [const { Policy::REFUSED }; 34];
    p[node::ID as usize] = NODE_ID;
    p[node::CLUSTER as usize] = Policy::UINT;
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
    p
};

const DETACH: &[Policy] = &{
    let mut p = [const { Policy::REFUSED }; 17];
    p[node::FORCE as usize] = Policy::FLAG;
    p
};

const PEER_ADD: &[Policy] = &{
    let mut p = [const { Policy::REFUSED }; 18];
    p[node::ID as usize] = NODE_ID;
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
    p[node::ID as usize] = NODE_ID;
    p[node::WEIGHT as usize] = Policy::U32;
    p[node::STATE as usize] = Policy::U32;
    p
};

const RULE_SET: &[Policy] = &[
    Policy::REFUSED,
    Policy::REFUSED,
    Policy::REFUSED,
    Policy::string(RULE_LEN),
];

const PARAM_ENTRY: &[Policy] = &[Policy::REFUSED, Policy::string(63), Policy::string(63)];

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
    ];

    fn run(command: u8, request: &Request<'_>) -> Result {
        let node = NODES.get(request.net()).ok_or(ENODEV)?;
        match command {
            cmd::ATTACH => attach(&node, request),
            cmd::DETACH => detach(&node, request),
            cmd::PEER_ADD => peer_add(&node, request),
            cmd::PEER_DEL => peer_del(&node, request),
            cmd::SELF_GET => self_get(&node, request),
            cmd::NODE_SET => node_set(&node, request),
            cmd::RULE_SET => rule_set(&node, request),
            cmd::PARAM_SET => param_set(&node, request),
            _ => Err(EOPNOTSUPP),
        }
    }

    fn dump(command: u8, dump: &mut Dump<'_>) -> Result {
        let node = NODES.get(dump.net()).ok_or(ENODEV)?;
        match command {
            cmd::NODE_GET => dump_nodes(&node, dump),
            cmd::CONN_GET => dump_conns(&node, dump),
            cmd::STATS_GET => dump_stats(&node, dump),
            cmd::RULE_GET => dump_rules(&node, dump),
            cmd::PARAM_GET => dump_params(&node, dump),
            _ => Err(EOPNOTSUPP),
        }
    }

    fn released(net: &Net, port: u32) {
        let Some(node) = NODES.get(net) else { return };
        let mut admin = node.control.admin();
        if admin.owner != Some(port) {
            return;
        }
        admin.owner = None;
        halt(&node);
        node.control.stop(&node, &mut admin);
        pr_notice!("the owner of the node is gone; nothing new is accepted\n");
    }
}

// --- being a node --------------------------------------------------------------------------------

/// Takes nothing new.
fn halt(node: &Node) {
    node.front_end.stop();
    node.back_end.stop();
}

fn attached(node: &Node, request: &Request<'_>) -> Result<Arc<Config>> {
    node.config().ok_or_else(|| {
        request.fail(
            ENOTCONN,
            format_args!("this namespace is not attached to a cluster"),
        )
    })
}

fn attach(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let config = Arc::new(read_config(request)?, GFP_KERNEL)?;
    let rules = read_rules(request, node::RULE)?;
    if !rules.is_empty() && !config.is(Roles::FRONT_END) {
        return Err(request.fail(EINVAL, format_args!("rules are for front-ends only")));
    }
    let policy = match request.attrs().get(node::POLICY) {
        None => PolicyKind::default(),
        Some(name) => read_policy(request, name.text().unwrap_or_default())?,
    };

    let mut admin = node.control.admin();
    if admin.owner.is_some_and(|owner| owner != request.port()) {
        return Err(request.fail(
            EBUSY,
            format_args!("another process owns this namespace's node"),
        ));
    }
    let known = node.config();
    if let Some(old) = &known {
        let same =
            old.node == config.node && old.cluster == config.cluster && old.roles == config.roles;
        if !same {
            let Config { node, cluster, .. } = **old;
            return Err(request.fail(
                EBUSY,
                format_args!("this is node {node} of cluster {cluster:x} already; detach first"),
            ));
        }
    }
    let started = start(node, request.net(), &config, &rules, policy);
    if started.is_err() {
        halt(node);
        if known.is_none() {
            node.set_config(None);
        }
        return started;
    }
    admin.owner = Some(request.port());
    Ok(())
}

fn start(
    node: &Arc<Node>,
    net: &Net,
    config: &Arc<Config>,
    rules: &[Rule],
    policy: PolicyKind,
) -> Result {
    node.set_config(Some(config.clone()));
    if config.is(Roles::DISPATCHER) {
        node.dispatcher.start(policy)?;
    }
    if config.is(Roles::BACK_END) {
        node.forward.learn(config.node, config.internal, true)?;
        node.back_end.start();
        if config.is(Roles::DISPATCHER) {
            let added = node.dispatcher.node_up(config.node, config.weight);
            added.map_err(|_| EINVAL)?;
        }
    }
    node.control.started(node, config);
    if config.is(Roles::FRONT_END) {
        node.classify.set(config.fe_port, rules)?;
        node.control.refresh(node, config, net);
        node.front_end.start(config.node, config.hash_key)?;
    }
    NODES.enable_hooks(net)
}

fn read_config(request: &Request<'_>) -> Result<Config> {
    let attrs = request.attrs();
    let invalid = |what: &str| request.fail(EINVAL, format_args!("{what} is not valid"));
    let id = |attr: Attr<'_>| attr.u16().map(NodeId);
    let addr = |kind| attrs.get(kind).and_then(|a| a.array()).map(Addr);
    let port = |kind| attrs.get(kind).and_then(|a| a.u16()).unwrap_or(0);

    let node = id(request.require(node::ID, "node-id")?).ok_or_else(|| invalid("node-id"))?;
    let cluster = request.require(node::CLUSTER, "cluster-id")?.uint();
    let roles = read_roles(request)?;
    if roles == Roles::NONE {
        return Err(request.fail(EINVAL, format_args!("a node needs at least one role")));
    }
    let (fe_port, be_port) = (port(node::FE_PORT), port(node::BE_PORT));
    if roles.contains(Roles::FRONT_END) && fe_port == 0 {
        return Err(request.fail(EINVAL, format_args!("a front-end needs fe-port")));
    }
    if roles.contains(Roles::BACK_END) && be_port == 0 {
        return Err(request.fail(EINVAL, format_args!("a back-end needs be-port")));
    }
    let name = request.require(node::NAME, "name")?.text();
    let name = name.and_then(|n| Name::new(n.as_bytes()));
    let dispatcher = match attrs.get(node::DISPATCHER).and_then(id) {
        Some(dispatcher) => dispatcher,
        None if roles.contains(Roles::DISPATCHER) => node,
        None => NodeId::NONE,
    };
    if roles.contains(Roles::DISPATCHER) != (dispatcher == node) {
        return Err(request.fail(
            EINVAL,
            format_args!("the role of dispatcher and the dispatcher's number disagree"),
        ));
    }
    let internal_ifindex = match attrs.get(node::INTERNAL_IFNAME) {
        None => 0,
        Some(name) => {
            let name = name.text().unwrap_or_default();
            request
                .net()
                .ifindex(name.as_bytes())
                .ok_or_else(|| request.fail(ENODEV, format_args!("there is no interface {name}")))?
        }
    };
    let hash_key = match attrs.get(node::HASH_KEY) {
        None => [0; 2],
        Some(key) => {
            let key = key.array::<16>().ok_or_else(|| invalid("hash-key"))?;
            let key = u128::from_be_bytes(key);
            // CAST: The two halves.
            [(key >> 64) as u64, key as u64]
        }
    };
    Ok(Config {
        cluster: cluster.ok_or_else(|| invalid("cluster-id"))?,
        node,
        name: NodeName::new(name.ok_or_else(|| invalid("name"))?),
        roles,
        fe_port,
        be_port,
        be_addr: addr(node::BE_ADDR).filter(|a| !a.is_unspecified()),
        internal: addr(node::INTERNAL_ADDR).unwrap_or_default(),
        internal_ifindex,
        any_listener: attrs.get(node::ANY_LISTENER).is_some(),
        weight: read_weight(request)?.unwrap_or(1),
        hash_key,
        dispatcher,
        vips: read_endpoints(request, node::VIP, "vip")?,
        allow: read_endpoints(request, node::ALLOW, "allow")?,
    })
}

fn read_roles(request: &Request<'_>) -> Result<Roles> {
    let roles = request.require(node::ROLES, "roles")?.u32();
    roles
        .and_then(|bits| Roles::from_bits(u8::try_from(bits).ok()?))
        .ok_or_else(|| request.fail(EINVAL, format_args!("roles has unknown bits")))
}

fn read_weight(request: &Request<'_>) -> Result<Option<u16>> {
    let Some(weight) = request.attrs().get(node::WEIGHT) else {
        return Ok(None);
    };
    let weight = weight.u32().filter(|w| *w <= MAX_WEIGHT);
    let weight = weight.and_then(|w| u16::try_from(w).ok());
    match weight {
        Some(weight) => Ok(Some(weight)),
        None => Err(request.fail(EINVAL, format_args!("weight is above {MAX_WEIGHT}"))),
    }
}

fn read_endpoints(request: &Request<'_>, kind: u16, name: &str) -> Result<Vips> {
    let mut found = Vips::new();
    for nested in request.attrs().all(kind).map(Attr::nested) {
        let addr = nested.get(endpoint::ADDR).and_then(|a| a.array());
        let port = nested.get(endpoint::PORT).and_then(|a| a.u16());
        let (Some(addr), Some(port)) = (addr, port) else {
            return Err(request.fail(EINVAL, format_args!("{name} needs an address and a port")));
        };
        if !found.push(Endpoint::new(Addr(addr), port)) {
            return Err(request.fail(E2BIG, format_args!("too many of {name}")));
        }
    }
    Ok(found)
}

fn read_policy(request: &Request<'_>, name: &str) -> Result<PolicyKind> {
    name.parse()
        .map_err(|_| request.fail(EINVAL, format_args!("there is no policy {name}")))
}

fn read_rules(request: &Request<'_>, kind: u16) -> Result<KVec<Rule>> {
    let mut rules = KVec::new();
    for (i, text) in request.attrs().all(kind).enumerate() {
        if rules.len() >= MAX_RULES {
            return Err(request.fail(E2BIG, format_args!("more than {MAX_RULES} rules")));
        }
        let text = text.text().unwrap_or_default();
        let rule: Rule = text.parse().map_err(|e| {
            let number = i.saturating_add(1);
            request.fail(EINVAL, format_args!("rule {number}: {e}"))
        })?;
        rules.push(rule, GFP_KERNEL)?;
    }
    Ok(rules)
}

fn detach(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let mut admin = node.control.admin();
    attached(node, request)?;
    let force = request.attrs().get(node::FORCE).is_some();
    halt(node);
    let (entries, children) = (node.front_end.len(), node.back_end.len());
    if !force && (entries != 0 || children != 0) {
        return Err(request.fail(
            EBUSY,
            format_args!("{entries} entries and {children} children live; try later, or force"),
        ));
    }
    leave(node, request.net(), &mut admin);
    Ok(())
}

/// Stops being a node. May sleep.
fn leave(node: &Arc<Node>, net: &Net, admin: &mut Admin) {
    node.control.stop(node, admin);
    NODES.disable_hooks(net);
    node.front_end.clear();
    node.back_end.clear();
    node.dispatcher.stop();
    node.set_config(None);
    admin.owner = None;
}

// --- peers ---------------------------------------------------------------------------------------

fn peer_id(request: &Request<'_>) -> Result<NodeId> {
    let id = request.require(node::ID, "node-id")?.u16();
    Ok(NodeId(id.ok_or(EINVAL)?))
}

fn peer_add(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let mut admin = node.control.admin();
    let config = attached(node, request)?;
    let attrs = request.attrs();
    let id = peer_id(request)?;
    if id == config.node {
        return Err(request.fail(EINVAL, format_args!("node {id} is this node itself")));
    }
    let roles = read_roles(request)?;
    let name = match attrs.get(node::NAME).and_then(|n| n.text()) {
        None => None,
        Some(text) => Some(NodeName::new(
            Name::new(text.as_bytes())
                .ok_or_else(|| request.fail(EINVAL, format_args!("name is not valid")))?,
        )),
    };
    let fd = request.require(node::FD, "fd")?.u32().ok_or(EINVAL)?;
    let socket = ControlSocket::from_fd(fd, request.net())
        .map_err(|why| request.fail(why.errno(), format_args!("{}", why.text())))?;
    if node
        .control
        .all()
        .any(|peer| peer.socket().is_same(&socket))
    {
        return Err(request.fail(EBUSY, format_args!("the socket was passed before")));
    }
    let internal = match attrs.get(node::INTERNAL_ADDR).and_then(|a| a.array()) {
        Some(addr) => Addr(addr),
        None => Addr(socket.peer()),
    };
    let introduction = Introduction {
        id,
        roles,
        internal,
        name,
        weight: read_weight(request)?.unwrap_or(1),
    };
    let net = request.net();
    node.control
        .add(node, &config, net, &mut admin, introduction, socket)
}

fn peer_del(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let mut admin = node.control.admin();
    attached(node, request)?;
    let id = peer_id(request)?;
    let removed = node.control.remove(node, &mut admin, id);
    removed.map_err(|e| request.fail(e, format_args!("there is no connection to node {id}")))
}

fn node_set(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let _admin = node.control.admin();
    let config = attached(node, request)?;
    if !config.is(Roles::DISPATCHER) {
        let dispatcher = config.dispatcher;
        return Err(request.fail(
            EOPNOTSUPP,
            format_args!("ask the dispatcher, which is node {dispatcher}"),
        ));
    }
    let id = peer_id(request)?;
    let weight = read_weight(request)?;
    let state = match request.attrs().get(node::STATE).and_then(|s| s.u32()) {
        None => None,
        Some(STATE_UP) => Some(NodeState::Up),
        Some(STATE_DRAIN) => Some(NodeState::Draining),
        Some(_) => {
            return Err(request.fail(EINVAL, format_args!("a node can be set to up or drain")));
        }
    };
    if state.is_none() && weight.is_none() {
        return Err(request.fail(EINVAL, format_args!("neither state nor weight was given")));
    }
    let set = node.dispatcher.set_node(id, state, weight);
    set.map_err(|_| request.fail(ENOENT, format_args!("node {id} is no back-end")))?;
    node.control.set_node(node, id, state, weight);
    Ok(())
}

const STATE_UNKNOWN: u32 = 0;
const STATE_UP: u32 = 1;
const STATE_DRAIN: u32 = 2;
const STATE_DOWN: u32 = 3;

fn state_number(state: Option<NodeState>) -> u32 {
    match state {
        None => STATE_UNKNOWN,
        Some(NodeState::Up) => STATE_UP,
        Some(NodeState::Draining) => STATE_DRAIN,
        Some(NodeState::Down) => STATE_DOWN,
    }
}

// --- answers -------------------------------------------------------------------------------------

fn put_endpoint(message: &mut Message<'_>, kind: u16, end: Endpoint) -> Result {
    message.nest(kind, |m| {
        m.put(endpoint::ADDR, &end.addr.0)?;
        m.put_u16(endpoint::PORT, end.port)
    })
}

fn self_get(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let config = attached(node, request)?;
    let owner = node.control.admin().owner;
    request.reply(|m| {
        m.put_u16(node::ID, config.node.0)?;
        m.put_uint(node::CLUSTER, config.cluster)?;
        m.put_text(node::NAME, config.name.as_str())?;
        m.put_u32(node::ROLES, config.roles.bits().into())?;
        if config.fe_port != 0 {
            m.put_u16(node::FE_PORT, config.fe_port)?;
        }
        if config.be_port != 0 {
            m.put_u16(node::BE_PORT, config.be_port)?;
        }
        if let Some(addr) = config.be_addr {
            m.put(node::BE_ADDR, &addr.0)?;
        }
        m.put(node::INTERNAL_ADDR, &config.internal.0)?;
        let mut name = [0; 16];
        let len = request.net().ifname(config.internal_ifindex, &mut name);
        let name = len.and_then(|n| core::str::from_utf8(name.get(..n)?).ok());
        if let Some(name) = name {
            m.put_text(node::INTERNAL_IFNAME, name)?;
        }
        if config.any_listener {
            m.put_flag(node::ANY_LISTENER)?;
        }
        m.put_u32(node::WEIGHT, config.weight.into())?;
        if let Some(policy) = node.dispatcher.policy() {
            m.put_text(node::POLICY, policy.name())?;
        }
        if config.dispatcher.is_some() {
            m.put_u16(node::DISPATCHER, config.dispatcher.0)?;
        }
        for vip in config.vips.iter() {
            put_endpoint(m, node::VIP, *vip)?;
        }
        for allowed in config.allow.iter() {
            put_endpoint(m, node::ALLOW, *allowed)?;
        }
        m.put_u32(node::ENTRIES, node.front_end.len())?;
        m.put_u32(node::CHILDREN, node.back_end.len())?;
        match owner {
            Some(owner) => m.put_u32(node::OWNER, owner),
            None => m.put_flag(node::STOPPING),
        }
    })
}

fn dump_nodes(node: &Node, dump: &mut Dump<'_>) -> Result {
    while let Some((position, row)) = next_node(node, dump.position()) {
        let written = dump.entry(|m| {
            m.put_u16(node::ID, row.id.0)?;
            if let Some(name) = &row.name {
                m.put_text(node::NAME, name.as_str())?;
            }
            m.put_u32(node::ROLES, row.roles.bits().into())?;
            m.put(node::INTERNAL_ADDR, &row.internal.0)?;
            m.put_u32(node::STATE, state_number(row.state))?;
            m.put_u32(node::LINK, row.link)?;
            m.put_u32(node::WEIGHT, row.weight.into())?;
            if let Some((load, assigned)) = row.load {
                m.put_u32(node::LOAD, load)?;
                m.put_uint(node::ASSIGNED, assigned)?;
            }
            let Some(t) = &row.traffic else {
                return Ok(());
            };
            m.put_uint(node::FRAMES_IN, t.frames_in)?;
            m.put_uint(node::FRAMES_OUT, t.frames_out)?;
            m.put_uint(node::BYTES_IN, t.bytes_in)?;
            m.put_uint(node::BYTES_OUT, t.bytes_out)?;
            m.put_uint(node::WRITES, t.writes)?;
            m.put_u32(node::QUEUED, t.queued)?;
            m.put_u32(node::RTT_US, t.rtt_us)?;
            if let Some(offset) = t.offset_us {
                m.put_sint(node::CLOCK_OFFSET_US, offset)?;
            }
            m.put_u32(node::HEARD_MS, t.heard_ms)
        })?;
        if !written {
            break;
        }
        dump.advance(position.saturating_add(1));
    }
    Ok(())
}

fn dump_conns(node: &Node, dump: &mut Dump<'_>) -> Result {
    while let Some((position, row)) = next_conn(node, dump.position()) {
        let written = dump.entry(|m| {
            m.put_uint(conn::ID, row.id.to_bits())?;
            m.put_u32(conn::STATE, row.state as u32)?;
            put_endpoint(m, conn::CLIENT, row.tuple.client)?;
            put_endpoint(m, conn::VIP, row.tuple.vip)?;
            if row.node.is_some() {
                m.put_u16(conn::NODE_ID, row.node.0)?;
            }
            if let Some(age) = row.age {
                m.put_u32(conn::AGE_MS, ms(age))?;
            }
            match row.idle {
                Some(idle) => m.put_u32(conn::IDLE_MS, ms(idle)),
                None => Ok(()),
            }
        })?;
        if !written {
            break;
        }
        dump.advance(position.saturating_add(1));
    }
    Ok(())
}

/// Dumps things that are numbered from 0. `entry` says false when there is no such thing.
fn dump_indexed(
    dump: &mut Dump<'_>,
    exists: impl Fn(usize) -> bool,
    entry: impl Fn(usize, &mut Message<'_>) -> Result,
) -> Result {
    while let Some(index) = usize::try_from(dump.position()).ok().filter(|i| exists(*i)) {
        if !dump.entry(|m| entry(index, m))? {
            break;
        }
        dump.advance(dump.position().saturating_add(1));
    }
    Ok(())
}

fn dump_stats(node: &Node, dump: &mut Dump<'_>) -> Result {
    dump_indexed(
        dump,
        |i| Stats::name(i).is_some(),
        |i, m| {
            m.put_text(stat::NAME, Stats::name(i).unwrap_or_default())?;
            m.put_uint(stat::VALUE, node.stats.at(i))
        },
    )
}

// --- rules ---------------------------------------------------------------------------------------

fn rule_set(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let _admin = node.control.admin();
    let config = attached(node, request)?;
    if !config.is(Roles::FRONT_END) {
        return Err(request.fail(EOPNOTSUPP, format_args!("rules are for front-ends only")));
    }
    let rules = read_rules(request, rule::RULE)?;
    node.classify.set(config.fe_port, &rules)
}

fn dump_rules(node: &Node, dump: &mut Dump<'_>) -> Result {
    let rules = node.classify.rules()?;
    dump_indexed(
        dump,
        |i| i < rules.len(),
        |i, m| {
            let mut line = Line::new();
            if let Some(rule) = rules.get(i) {
                // A rule is never longer than a line.
                let _ = write!(line, "{rule}");
            }
            m.put_u32(rule::INDEX, u32::try_from(i).unwrap_or(u32::MAX))?;
            m.put_text(rule::TEXT, line.as_str())
        },
    )
}

/// A line of text.
struct Line {
    bytes: Few<u8, { RULE_LEN as usize }>,
}

impl Line {
    fn new() -> Self {
        Self { bytes: Few::new() }
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.bytes().all(|b| self.bytes.push(b)) {
            true => Ok(()),
            false => Err(fmt::Error),
        }
    }
}

// --- parameters ----------------------------------------------------------------------------------

/// The parameter that is a word, and the dispatcher's.
const POLICY_NAME: &str = "policy";

fn param_set(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let _admin = node.control.admin();
    let mut own: Few<(usize, u64), MAX_CHANGES> = Few::new();
    let mut thresholds: Few<(&str, u32), MAX_CHANGES> = Few::new();
    let mut policy = None;
    for entry in request.attrs().all(param::SET).map(Attr::nested) {
        let (name, value) = read_change(request, entry)?;
        let room = match Params::check(name, value) {
            Ok(change) => own.push(change),
            Err(ParamError::Unknown) if name == POLICY_NAME => {
                policy = Some(read_policy(request, value)?);
                true
            }
            Err(ParamError::Unknown) => {
                let value = value.parse().map_err(|_| not_a_number(request, name))?;
                thresholds.push((name, value))
            }
            Err(ParamError::NotANumber) => return Err(not_a_number(request, name)),
            Err(ParamError::OutOfRange(min, max)) => {
                return Err(request.fail(
                    ERANGE,
                    format_args!("{name} must be between {min} and {max}"),
                ));
            }
        };
        if !room {
            return Err(request.fail(E2BIG, format_args!("more than {MAX_CHANGES} parameters")));
        }
    }
    if policy.is_some() && node.dispatcher.policy().is_none() {
        return Err(request.fail(EOPNOTSUPP, format_args!("the policy is the dispatcher's")));
    }
    if !thresholds.is_empty() {
        match node.dispatcher.set_params(thresholds.iter().copied()) {
            Some(Ok(())) => {}
            Some(Err(e)) => return Err(request.fail(EINVAL, format_args!("{e}"))),
            None => {
                let name = thresholds.first().map_or("", |(name, _)| *name);
                return Err(request.fail(ENOENT, format_args!("there is no parameter {name}")));
            }
        }
    }
    if let Some(policy) = policy {
        node.dispatcher.set_policy(policy);
    }
    for change in own.iter() {
        node.params.set(*change);
    }
    if let Some(config) = node.config() {
        node.control.refresh(node, &config, request.net());
    }
    Ok(())
}

fn not_a_number(request: &Request<'_>, name: &str) -> Error {
    request.fail(EINVAL, format_args!("the value of {name} is not a number"))
}

fn read_change<'a>(request: &Request<'_>, entry: Attrs<'a>) -> Result<(&'a str, &'a str)> {
    let name = entry.get(param::NAME).and_then(Attr::text);
    let value = entry.get(param::VALUE).and_then(Attr::text);
    name.zip(value)
        .ok_or_else(|| request.fail(EINVAL, format_args!("a parameter needs a name and a value")))
}

/// The module's parameters, then the dispatcher's policy and its thresholds.
fn dump_params(node: &Node, dump: &mut Dump<'_>) -> Result {
    let own = (0..).take_while(|i| Params::spec(*i).is_some()).count();
    let policy = node.dispatcher.policy();
    let thresholds = node.dispatcher.params();
    let threshold = |i: usize| {
        let place = i.checked_sub(own)?.checked_sub(1)?;
        thresholds.as_ref()?.get(place).copied()
    };
    let exists = |i: usize| i < own || i == own && policy.is_some() || threshold(i).is_some();
    dump_indexed(dump, exists, |i, m| {
        if let Some(spec) = Params::spec(i) {
            m.put_text(param::NAME, spec.name)?;
            put_number(m, param::VALUE, node.params.at(i))?;
            put_number(m, param::DEFAULT, spec.default)?;
            m.put_uint(param::MIN, spec.min)?;
            return m.put_uint(param::MAX, spec.max);
        }
        if let Some((name, value)) = threshold(i) {
            m.put_text(param::NAME, name)?;
            return put_number(m, param::VALUE, value.into());
        }
        m.put_text(param::NAME, POLICY_NAME)?;
        m.put_text(param::VALUE, policy.map_or("", |p| p.name()))?;
        m.put_text(param::DEFAULT, PolicyKind::default().name())
    })
}

fn put_number(message: &mut Message<'_>, kind: u16, value: u64) -> Result {
    let mut line = Line::new();
    // Twenty digits always fit.
    let _ = write!(line, "{value}");
    message.put_text(kind, line.as_str())
}

// --- events --------------------------------------------------------------------------------------

/// A peer has said HELLO. Any context but hard irq, as the other events.
pub(crate) fn peer_ready(net: &Net, id: NodeId, roles: Roles) {
    event(net, cmd::PEER_READY, |m| {
        m.put_u16(node::ID, id.0)?;
        m.put_u32(node::ROLES, roles.bits().into())
    });
}

/// A control connection has ended.
pub(crate) fn peer_lost(net: &Net, id: NodeId, lost: Lost) {
    event(net, cmd::PEER_LOST, |m| {
        m.put_u16(node::ID, id.0)?;
        m.put_u32(node::REASON, lost as u32)
    });
}

/// The dispatcher has changed its mind about a node.
pub(crate) fn node_changed(net: &Net, id: NodeId, state: NodeState) {
    event(net, cmd::NODE_CHANGE, |m| {
        m.put_u16(node::ID, id.0)?;
        m.put_u32(node::STATE, state_number(Some(state)))
    });
}

/// Listeners that cannot keep up miss events, and learn that from their socket.
fn event(net: &Net, command: u8, fill: impl FnOnce(&mut Message<'_>) -> Result) {
    let _ = FAMILY.multicast(net, EVENTS, command, fill);
}
