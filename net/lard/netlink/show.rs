// SPDX-License-Identifier: GPL-2.0

//! Commands that show something.

#![forbid(unsafe_code)]

use core::fmt::{self, Write};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::genl::{Dump, Message, Request};
use lard_core::addr::Endpoint;
use lard_core::follow::Mode;
use lard_core::http::KeyParts;
use lard_core::policy::{self, Mechanism, PolicyKind};

use super::numbers::{conn, endpoint, node, param, rule, service, stat, state_number};
use super::{attached, KEY_NAME, MECHANISM_NAME, MODE_NAME, POLICY_NAME, RULE_LEN};
use crate::config::Few;
use crate::control::ms;
use crate::netns::Node;
use crate::params::Params;
use crate::rows::{next_conn, next_node};
use crate::stats::Stats;

fn put_endpoint(message: &mut Message<'_>, kind: u16, end: Endpoint) -> Result {
    message.nest(kind, |m| {
        m.put(endpoint::ADDR, &end.addr.0)?;
        m.put_u16(endpoint::PORT, end.port)
    })
}

pub(super) fn self_get(node: &Arc<Node>, request: &Request<'_>) -> Result {
    let config = attached(node, request)?;
    let owner = node.control.owner();
    request.reply(|m| {
        m.put_u16(node::NODE_ID, config.node.0)?;
        m.put_uint(node::CLUSTER_ID, config.cluster)?;
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
        if let Some(name) = config.internal_ifname() {
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
        if let Some(service) = node.services.get() {
            m.put_text(node::KEY, service.key())?;
        }
        if !config.tags.is_empty() {
            m.put_text(node::TAGS, config.tags.as_str())?;
        }
        for vip in config.vips.iter() {
            put_endpoint(m, node::VIP, *vip)?;
        }
        for allowed in config.allow.iter() {
            put_endpoint(m, node::ALLOW, *allowed)?;
        }
        m.put_u32(node::ENTRIES, node.front_end.len())?;
        m.put_u32(node::CHILDREN, node.back_end.len())?;
        m.put_uint(node::OPEN, node.front_end.open.used())?;
        m.put_uint(node::HALF_OPEN, node.front_end.half_open.used())?;
        m.put_uint(node::HEAD_MEMORY, node.front_end.head_bytes.used())?;
        if let Some((limit, waiting)) = node.dispatcher.admission() {
            if let Some(limit) = limit {
                m.put_uint(node::LIMIT, limit)?;
            }
            m.put_u32(node::WAITING, u32::try_from(waiting).unwrap_or(u32::MAX))?;
        }
        match owner {
            Some(owner) => m.put_u32(node::OWNER, owner),
            None => m.put_flag(node::STOPPING),
        }
    })
}

pub(super) fn dump_nodes(node: &Node, dump: &mut Dump<'_>) -> Result {
    while let Some((position, row)) = next_node(node, dump.position()) {
        let written = dump.entry(|m| {
            m.put_u16(node::NODE_ID, row.id.0)?;
            if let Some(name) = &row.name {
                m.put_text(node::NAME, name.as_str())?;
            }
            m.put_u32(node::ROLES, row.roles.bits().into())?;
            m.put(node::INTERNAL_ADDR, &row.internal.0)?;
            m.put_u32(node::STATE, state_number(row.state))?;
            m.put_u32(node::LINK, row.link)?;
            m.put_u32(node::WEIGHT, row.weight.into())?;
            if let Some(work) = &row.work {
                m.put_u32(node::LOAD, work.load)?;
                m.put_u32(node::SHARES, work.shares)?;
                m.put_u32(node::IDLE, work.idle)?;
                m.put_uint(node::ASSIGNED, work.assigned)?;
                m.put_u32(node::DISK_QUEUE, work.disk_queue)?;
            }
            if !row.tags.is_empty() {
                m.put_text(node::TAGS, row.tags.as_str())?;
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

pub(super) fn dump_conns(node: &Node, dump: &mut Dump<'_>) -> Result {
    while let Some((position, row)) = next_conn(node, dump.position()) {
        let written = dump.entry(|m| {
            m.put_uint(conn::ID, row.id.to_bits())?;
            m.put_u32(conn::STATE, row.state as u32)?;
            put_endpoint(m, conn::CLIENT, row.tuple.client)?;
            put_endpoint(m, conn::VIP, row.tuple.vip)?;
            if row.node.is_some() {
                m.put_u16(conn::NODE_ID, row.node.0)?;
            }
            m.put_u32(conn::AGE_MS, ms(row.age))?;
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

pub(super) fn dump_stats(node: &Node, dump: &mut Dump<'_>) -> Result {
    dump_indexed(
        dump,
        |i| Stats::name(i).is_some(),
        |i, m| {
            m.put_text(stat::NAME, Stats::name(i).unwrap_or_default())?;
            m.put_uint(stat::VALUE, node.stats.at(i))
        },
    )
}

pub(super) fn dump_rules(node: &Node, dump: &mut Dump<'_>) -> Result {
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

/// The content rules, and what is said about nodes, line by line.
pub(super) fn dump_service(node: &Node, dump: &mut Dump<'_>) -> Result {
    let Some(settings) = node.services.get() else {
        return Ok(());
    };
    let line = |i: usize| settings.lines().lines().nth(i);
    dump_indexed(
        dump,
        |i| line(i).is_some(),
        |i, m| {
            m.put_u32(service::INDEX, u32::try_from(i).unwrap_or(u32::MAX))?;
            m.put_text(service::TEXT, line(i).unwrap_or_default())
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

/// The module's parameters; then the dispatcher's: the policy, the parameters of all policies, the
/// key, the mode, the mechanism.
pub(super) fn dump_params(node: &Node, dump: &mut Dump<'_>) -> Result {
    let own = (0..).take_while(|i| Params::spec(*i).is_some()).count();
    let policy = node.dispatcher.policy();
    let of_policies = node.dispatcher.params();
    let of_policy = |i: usize| {
        let place = i.checked_sub(own)?.checked_sub(1)?;
        let spec = policy::Params::ALL.get(place)?;
        Some((spec, of_policies?.value(place)))
    };
    // Behind them, on the dispatcher, what makes a target, and what becomes of further requests.
    let last = own.saturating_add(1).saturating_add(policy::PARAMS);
    let service = node.services.get().filter(|_| policy.is_some());
    let key = |i: usize| service.as_ref().filter(|_| i == last).map(|s| s.key());
    let mode = |i: usize| service.as_ref().filter(|_| i == last.saturating_add(1));
    let mechanism = |i: usize| service.as_ref().filter(|_| i == last.saturating_add(2));
    let exists = |i: usize| {
        i < own
            || i == own && policy.is_some()
            || of_policy(i).is_some()
            || key(i).is_some()
            || mode(i).is_some()
            || mechanism(i).is_some()
    };
    dump_indexed(dump, exists, |i, m| {
        let (name, value, default, min, max) = if let Some(spec) = Params::spec(i) {
            (
                spec.name,
                node.params.at(i),
                spec.default,
                spec.min,
                spec.max,
            )
        } else if let Some((spec, value)) = of_policy(i) {
            let [value, default, min, max] =
                [value, spec.default, spec.min, spec.max].map(u64::from);
            (spec.name, value, default, min, max)
        } else if let Some(key) = key(i) {
            m.put_text(param::NAME, KEY_NAME)?;
            m.put_text(param::VALUE, key)?;
            return m.put_text(param::DEFAULT, KeyParts::DEFAULT_TEXT);
        } else if let Some(service) = mode(i) {
            m.put_text(param::NAME, MODE_NAME)?;
            m.put_text(param::VALUE, service.mode().name())?;
            return m.put_text(param::DEFAULT, Mode::default().name());
        } else if let Some(service) = mechanism(i) {
            m.put_text(param::NAME, MECHANISM_NAME)?;
            m.put_text(param::VALUE, service.mechanism().name())?;
            return m.put_text(param::DEFAULT, Mechanism::default().name());
        } else {
            m.put_text(param::NAME, POLICY_NAME)?;
            m.put_text(param::VALUE, policy.map_or("", |p| p.name()))?;
            return m.put_text(param::DEFAULT, PolicyKind::default().name());
        };
        let word = |value: u64| {
            let (spec, _) = of_policy(i)?;
            spec.word(u32::try_from(value).ok()?)
        };
        m.put_text(param::NAME, name)?;
        put_value(m, param::VALUE, value, word(value))?;
        put_value(m, param::DEFAULT, default, word(default))?;
        m.put_uint(param::MIN, min)?;
        m.put_uint(param::MAX, max)
    })
}

fn put_value(message: &mut Message<'_>, kind: u16, value: u64, word: Option<&str>) -> Result {
    if let Some(word) = word {
        return message.put_text(kind, word);
    }
    let mut line = Line::new();
    // Twenty digits always fit.
    let _ = write!(line, "{value}");
    message.put_text(kind, line.as_str())
}
