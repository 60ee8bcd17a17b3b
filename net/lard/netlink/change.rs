// SPDX-License-Identifier: GPL-2.0

//! Commands that change something. Each is carried out as a whole under the namespace's `admin` lock,
//! after everything in the request was found to be right.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::control_socket::ControlSocket;
use kernel_net::genl::{Attr, Attrs, Request};
use kernel_net::net::Net;
use lard_core::addr::{Addr, Endpoint, NodeId};
use lard_core::classify::{Rule, MAX_RULES};
use lard_core::content::{is_tags, TooManyTags, MAX_LINES};
use lard_core::follow::Mode;
use lard_core::http::{BadKeyParts, KeyParts};
use lard_core::policy::{self, Mechanism, NodeSet, NodeState, PolicyKind, MAX_WEIGHT};
use lard_core::wire::{Name, Roles};

use super::numbers::{endpoint, node, param, rule, service, STATE_DRAIN, STATE_UP};
use super::{attached, KEY_NAME, MAX_CHANGES, MECHANISM_NAME, MODE_NAME, POLICY_NAME};
use crate::config::{Config, Few, IfName, NodeName, TagText, Vips};
use crate::control::Admin;
use crate::netns::{Node, NODES};
use crate::params::{ParamError, Params};
use crate::peer::Introduction;
use crate::service::{Change, Unusable};

/// Takes nothing new.
pub(super) fn halt(node: &Node) {
    node.front_end.stop();
    node.back_end.stop();
}

pub(super) fn attach(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let config = Arc::new(read_config(request)?, GFP_KERNEL)?;
    let rules = read_rules(request, node::RULE)?;
    if !rules.is_empty() && !config.is(Roles::FRONT_END) {
        return Err(request.fail(EINVAL, format_args!("rules are for front-ends only")));
    }
    let policy = match request.attrs().get(node::POLICY) {
        None => PolicyKind::default(),
        Some(name) => read_policy(request, name.text().unwrap_or_default())?,
    };
    let key = request.attrs().get(node::KEY).and_then(|k| k.text());
    let lines = read_lines(request, node::CONTENT)?;
    if !config.is(Roles::DISPATCHER) && (key.is_some() || !lines.is_empty()) {
        return Err(request.fail(EINVAL, format_args!("the service is the dispatcher's")));
    }
    // From scratch, whatever it was before.
    let service = Change {
        key: Some(key.unwrap_or(KeyParts::DEFAULT_TEXT)),
        lines: Some(core::str::from_utf8(&lines).unwrap_or_default()),
        mode: Some(Mode::default()),
        mechanism: Some(Mechanism::default()),
        policy: Some(policy),
    };

    let mut admin = node.control.admin();
    if node
        .control
        .owner()
        .is_some_and(|owner| owner != request.port())
    {
        return Err(request.fail(
            EBUSY,
            format_args!("another process owns this namespace's node"),
        ));
    }
    if node.control.all().next().is_some() {
        // Their threads know the node as it was.
        return Err(request.fail(EBUSY, format_args!("there are connections to other nodes")));
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
    let known_service = node.services.get();
    if config.is(Roles::DISPATCHER) {
        let service = node.services.changed(&service, policy);
        node.services
            .put(service.map_err(|why| unusable(request, why))?);
    }
    let started = start(node, request.net(), &config, &rules, policy);
    if started.is_err() {
        halt(node);
        node.set_config(known);
        match known_service {
            Some(service) => node.services.put(service),
            None => node.services.forget(),
        }
        return started;
    }
    node.control.set_owner(&mut admin, Some(request.port()));
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
        if let Some(service) = node.services.get() {
            node.dispatcher.note_mode(service.mode());
        }
    }
    if config.is(Roles::BACK_END) {
        node.forward.learn(config.node, config.internal, true)?;
        node.back_end.start(net, config);
        if config.is(Roles::DISPATCHER) {
            let id = config.node;
            let tags = node.control.own_tags(node, config, id);
            let added = node.dispatcher.node_up(node, id, config.weight, tags);
            added.map_err(|_| EINVAL)?;
        }
    }
    node.control.started(node, net, config);
    if config.is(Roles::FRONT_END) {
        net.disable_lro();
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

    let node = id(request.require(node::NODE_ID, "node-id")?).ok_or_else(|| invalid("node-id"))?;
    let cluster = request.require(node::CLUSTER_ID, "cluster-id")?.uint();
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
    let internal = addr(node::INTERNAL_ADDR).unwrap_or_default();
    if roles.contains(Roles::BACK_END) && !internal.is_v4() {
        return Err(request.fail(
            EINVAL,
            format_args!("a back-end needs an IPv4 address as internal-addr"),
        ));
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
    let internal_ifname = match attrs.get(node::INTERNAL_IFNAME) {
        None => IfName::new(),
        Some(name) => {
            let name = name.text().unwrap_or_default();
            request.net().ifindex(name.as_bytes()).ok_or_else(|| {
                request.fail(ENODEV, format_args!("there is no interface {name}"))
            })?;
            IfName::collect(name.bytes())
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
        internal,
        internal_ifname,
        any_listener: attrs.get(node::ANY_LISTENER).is_some(),
        weight: read_weight(request)?.unwrap_or(1),
        tags: read_tags(request)?,
        mounted: read_mounted(request)?.unwrap_or(NodeSet::from_bits(u64::MAX)),
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
    let weight = weight.u32().and_then(|w| u16::try_from(w).ok());
    match weight.filter(|w| *w <= MAX_WEIGHT) {
        Some(weight) => Ok(Some(weight)),
        None => Err(request.fail(EINVAL, format_args!("weight is above {MAX_WEIGHT}"))),
    }
}

fn read_tags(request: &Request<'_>) -> Result<TagText> {
    let tags = match request.attrs().get(node::TAGS) {
        None => "",
        Some(tags) => tags.text().unwrap_or_default(),
    };
    match tags.is_empty() || is_tags(tags) {
        true => Ok(TagText::of(tags)),
        false => Err(request.fail(EINVAL, format_args!("tags are names joined by commas"))),
    }
}

/// Content rules and what nodes have, as one text.
fn read_lines(request: &Request<'_>, kind: u16) -> Result<KVec<u8>> {
    let mut lines = KVec::new();
    for (i, line) in request.attrs().all(kind).enumerate() {
        if i >= MAX_LINES {
            return Err(request.fail(E2BIG, format_args!("more than {MAX_LINES} content rules")));
        }
        let line = line.text().unwrap_or_default();
        lines.extend_from_slice(line.as_bytes(), GFP_KERNEL)?;
        lines.push(b'\n', GFP_KERNEL)?;
    }
    Ok(lines)
}

fn unusable(request: &Request<'_>, why: Unusable) -> Error {
    match why {
        Unusable::Key => request.fail(EINVAL, format_args!("{BadKeyParts}")),
        Unusable::Line(bad) => request.fail(EINVAL, format_args!("{bad}")),
        Unusable::Tags => request.fail(E2BIG, format_args!("{TooManyTags}")),
        Unusable::Memory(error) => error,
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

pub(super) fn detach(node: &Arc<Node>, request: &Request<'_>) -> Result {
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
    node.back_end.clear(net);
    node.dispatcher.stop();
    node.services.forget();
    node.set_config(None);
    node.control.set_owner(admin, None);
}

fn peer_id(request: &Request<'_>) -> Result<NodeId> {
    let id = request.require(node::NODE_ID, "node-id")?.u16();
    Ok(NodeId(id.ok_or(EINVAL)?))
}

pub(super) fn peer_add(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let mut admin = node.control.admin();
    let config = attached(node, request)?;
    if node.control.owner().is_none() {
        // Nobody's end would close the connection, which keeps the namespace.
        return Err(request.fail(ENOTCONN, format_args!("the owner of the node is gone")));
    }
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

pub(super) fn peer_del(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let mut admin = node.control.admin();
    attached(node, request)?;
    let id = peer_id(request)?;
    let removed = node.control.remove(node, &mut admin, id);
    removed.map_err(|e| request.fail(e, format_args!("there is no connection to node {id}")))
}

/// What the node is, if it is the dispatcher.
fn attached_dispatcher(node: &Node, request: &Request<'_>) -> Result<Arc<Config>> {
    let config = attached(node, request)?;
    if !config.is(Roles::DISPATCHER) {
        let dispatcher = config.dispatcher;
        return Err(request.fail(
            EOPNOTSUPP,
            format_args!("ask the dispatcher, which is node {dispatcher}"),
        ));
    }
    Ok(config)
}

pub(super) fn node_set(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let _admin = node.control.admin();
    attached_dispatcher(node, request)?;
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
    let set = node.control.set_node(node, id, state, weight);
    set.map_err(|_| request.fail(ENOENT, format_args!("node {id} is no back-end")))
}

pub(super) fn disk_set(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let _admin = node.control.admin();
    if !attached(node, request)?.is(Roles::BACK_END) {
        return Err(request.fail(
            EOPNOTSUPP,
            format_args!("only back-ends report their disks"),
        ));
    }
    let length = request.require(node::DISK_QUEUE, "disk-queue")?.u32();
    node.back_end.set_disk_queue(length.ok_or(EINVAL)?);
    Ok(())
}

pub(super) fn mounts_set(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let _admin = node.control.admin();
    if !attached(node, request)?.is(Roles::BACK_END) {
        return Err(request.fail(
            EOPNOTSUPP,
            format_args!("only back-ends have documents of others mounted"),
        ));
    }
    let _ = request.require(node::MOUNTED, "mounted")?;
    node.back_end
        .set_mounted(read_mounted(request)?.ok_or(EINVAL)?);
    Ok(())
}

/// Whose documents a back-end has, if that is said.
fn read_mounted(request: &Request<'_>) -> Result<Option<NodeSet>> {
    match request.attrs().get(node::MOUNTED) {
        None => Ok(None),
        Some(attr) => Ok(Some(NodeSet::from_bits(attr.uint().ok_or(EINVAL)?))),
    }
}

pub(super) fn rule_set(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let _admin = node.control.admin();
    let config = attached(node, request)?;
    if !config.is(Roles::FRONT_END) {
        return Err(request.fail(EOPNOTSUPP, format_args!("rules are for front-ends only")));
    }
    let rules = read_rules(request, rule::RULE)?;
    node.classify.set(config.fe_port, &rules)
}

/// Replaces the content rules, and the key if one is given.
pub(super) fn service_set(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let mut admin = node.control.admin();
    let config = attached_dispatcher(node, request)?;
    let key = request.attrs().get(service::KEY).and_then(|k| k.text());
    let lines = read_lines(request, service::CONTENT)?;
    let lines = core::str::from_utf8(&lines).unwrap_or_default();
    let change = Change {
        key,
        lines: Some(lines),
        ..Change::default()
    };
    let policy = node.dispatcher.policy().unwrap_or_default();
    let service = node.services.changed(&change, policy);
    let service = service.map_err(|why| unusable(request, why))?;
    node.control
        .change_service(node, &config, &mut admin, service);
    Ok(())
}

pub(super) fn param_set(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let mut admin = node.control.admin();
    let mut own: Few<(usize, u64), MAX_CHANGES> = Few::new();
    let mut of_policies: Few<(&str, u32), MAX_CHANGES> = Few::new();
    let mut change = Change::default();
    for entry in request.attrs().all(param::SET).map(Attr::nested) {
        let (name, value) = read_change(request, entry)?;
        let room = match Params::check(name, value) {
            Ok(change) => own.push(change),
            Err(ParamError::Unknown) if name == POLICY_NAME => {
                change.policy = Some(read_policy(request, value)?);
                true
            }
            Err(ParamError::Unknown) if name == KEY_NAME => {
                change.key = Some(value);
                true
            }
            Err(ParamError::Unknown) if name == MODE_NAME => {
                let known = value.parse::<Mode>();
                change.mode = Some(known.map_err(|e| request.fail(EINVAL, format_args!("{e}")))?);
                true
            }
            Err(ParamError::Unknown) if name == MECHANISM_NAME => {
                let known = value.parse::<Mechanism>();
                let known = known.map_err(|e| request.fail(EINVAL, format_args!("{e}")))?;
                change.mechanism = Some(known);
                true
            }
            Err(ParamError::Unknown) => {
                let spec = policy::Params::ALL.iter().find(|p| p.name == name);
                let spec = spec.ok_or_else(|| {
                    request.fail(ENOENT, format_args!("there is no parameter {name}"))
                })?;
                let value = spec.parse(value);
                of_policies.push((name, value.ok_or_else(|| not_a_number(request, name))?))
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
    let known = node.dispatcher.policy();
    let check = |given: bool, what: &str| match given && known.is_none() {
        true => Err(request.fail(EOPNOTSUPP, format_args!("the {what} is the dispatcher's"))),
        false => Ok(()),
    };
    check(change.policy.is_some(), POLICY_NAME)?;
    check(change.key.is_some(), KEY_NAME)?;
    check(change.mode.is_some(), MODE_NAME)?;
    check(change.mechanism.is_some(), MECHANISM_NAME)?;
    let service = match change.is_none() {
        true => None,
        false => {
            let changed = node.services.changed(&change, known.unwrap_or_default());
            Some(changed.map_err(|why| unusable(request, why))?)
        }
    };
    if !of_policies.is_empty() {
        match node
            .dispatcher
            .set_params(node, of_policies.iter().copied())
        {
            Some(Ok(())) => {}
            Some(Err(e @ policy::ParamError::Range(..))) => {
                return Err(request.fail(ERANGE, format_args!("{e}")));
            }
            Some(Err(e)) => return Err(request.fail(EINVAL, format_args!("{e}"))),
            None => {
                let theirs = format_args!("the policy's parameters are the dispatcher's");
                return Err(request.fail(EOPNOTSUPP, theirs));
            }
        }
    }
    if let Some(policy) = change.policy {
        node.dispatcher.set_policy(node, policy);
    }
    for change in own.iter() {
        node.params.set(*change);
    }
    if let Some(config) = node.config() {
        if let Some(service) = service {
            node.control
                .change_service(node, &config, &mut admin, service);
        }
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
