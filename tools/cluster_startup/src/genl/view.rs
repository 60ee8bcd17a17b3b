// SPDX-License-Identifier: GPL-2.0

//! What the module shows, as values that can be printed or written as JSON, and what an
//! administrator changes.

use super::codec::{Attribute, Attributes};
use super::spec::{
    command, conn, endpoint, node, param, param_entry, rule, service, stat, word, CONN_STATES,
    LINK_STATES, NODE_STATES,
};
use super::{lock, Lard};
use crate::error::Result;
use crate::kernel::Roles;
use crate::service::Service;
use lard_core::addr::{Addr, Endpoint, NodeId};
use lard_core::policy::NodeSet;
use serde::Serialize;

/// The node of this namespace.
#[derive(Debug, Serialize)]
pub struct SelfView {
    pub id: u16,
    pub cluster_id: String,
    pub name: String,
    pub roles: String,
    pub front_end_port: Option<u16>,
    pub back_end_port: Option<u16>,
    pub internal_addr: Option<String>,
    pub any_listener: bool,
    pub policy: Option<String>,
    pub dispatcher: Option<u16>,
    pub key: Option<String>,
    pub vips: Vec<String>,
    pub entries: u64,
    pub children: u64,
    /// What the front-end's limits of the same names are about.
    pub open: u64,
    pub half_open: u64,
    pub head_memory: u64,
    pub limit: Option<u64>,
    pub waiting: Option<u64>,
    pub owned: bool,
    pub stopping: bool,
}

/// A node, as this one knows it.
#[derive(Debug, Serialize)]
pub struct NodeView {
    pub id: u16,
    pub name: String,
    pub roles: String,
    pub internal_addr: Option<String>,
    pub state: String,
    pub link: String,
    pub weight: Option<u64>,
    pub tags: Vec<String>,
    pub load: Option<u64>,
    pub shares: Option<u64>,
    pub idle: Option<u64>,
    pub assigned: Option<u64>,
    pub disk_queue: Option<u64>,
    pub frames_in: u64,
    pub frames_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub writes: u64,
    pub queued: u64,
    pub rtt_us: Option<u64>,
    pub clock_offset_us: Option<i64>,
    pub heard_ms: Option<u64>,
}

/// A connection.
#[derive(Debug, Serialize)]
pub struct ConnView {
    pub id: String,
    pub state: String,
    pub client: String,
    pub vip: String,
    pub node: Option<u16>,
    pub age_ms: Option<u64>,
    pub idle_ms: Option<u64>,
}

/// A parameter.
#[derive(Debug, Serialize)]
pub struct ParamView {
    pub name: String,
    pub value: String,
    pub default: Option<String>,
    pub min: Option<u64>,
    pub max: Option<u64>,
}

/// What to change about a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeChange {
    /// Use it or drain it.
    pub drain: Option<bool>,
    /// Its share under weighted policies.
    pub weight: Option<u32>,
}

fn number(all: Attributes<'_>, kind: u16) -> Option<u64> {
    all.first(kind).and_then(|a| a.uint())
}

fn text(all: Attributes<'_>, kind: u16) -> Option<String> {
    all.first(kind).map(|a| a.text())
}

fn id(all: Attributes<'_>, kind: u16) -> Option<u16> {
    all.first(kind).and_then(|a| a.u16())
}

fn addr(attribute: Attribute<'_>) -> Option<Addr> {
    Some(Addr(attribute.value.try_into().ok()?))
}

fn addr_text(all: Attributes<'_>, kind: u16) -> Option<String> {
    all.first(kind).and_then(addr).map(|addr| addr.to_string())
}

fn roles(all: Attributes<'_>) -> String {
    let bits = all.first(node::ROLES).and_then(|a| a.u32()).unwrap_or(0);
    Roles::from_bits(bits).to_string()
}

fn state(all: Attributes<'_>, kind: u16, words: &[&str]) -> String {
    all.first(kind)
        .and_then(|a| a.u32())
        .map_or_else(|| "unknown".to_string(), |state| word(words, state))
}

fn endpoint_text(attribute: Attribute<'_>) -> Option<String> {
    let nest = attribute.nest();
    let end = Endpoint::new(
        addr(nest.first(endpoint::ADDR)?)?,
        nest.first(endpoint::PORT)?.u16()?,
    );
    Some(end.to_string())
}

fn self_view(all: Attributes<'_>) -> Option<SelfView> {
    Some(SelfView {
        id: id(all, node::NODE_ID)?,
        // As text: JSON readers round large numbers.
        cluster_id: format!("{:016x}", number(all, node::CLUSTER_ID)?),
        name: text(all, node::NAME).unwrap_or_default(),
        roles: roles(all),
        front_end_port: id(all, node::FE_PORT),
        back_end_port: id(all, node::BE_PORT),
        internal_addr: addr_text(all, node::INTERNAL_ADDR),
        any_listener: all.first(node::ANY_LISTENER).is_some(),
        policy: text(all, node::POLICY),
        dispatcher: id(all, node::DISPATCHER),
        key: text(all, node::KEY),
        vips: all
            .filter(|a| a.kind == node::VIP)
            .filter_map(endpoint_text)
            .collect(),
        entries: number(all, node::ENTRIES).unwrap_or(0),
        children: number(all, node::CHILDREN).unwrap_or(0),
        open: number(all, node::OPEN).unwrap_or(0),
        half_open: number(all, node::HALF_OPEN).unwrap_or(0),
        head_memory: number(all, node::HEAD_MEMORY).unwrap_or(0),
        limit: number(all, node::LIMIT),
        waiting: number(all, node::WAITING),
        owned: all.first(node::OWNER).is_some(),
        stopping: all.first(node::STOPPING).is_some(),
    })
}

fn node_view(all: Attributes<'_>) -> Option<NodeView> {
    let count = |kind| number(all, kind).unwrap_or(0);
    Some(NodeView {
        id: id(all, node::NODE_ID)?,
        name: text(all, node::NAME).unwrap_or_default(),
        roles: roles(all),
        internal_addr: addr_text(all, node::INTERNAL_ADDR),
        state: state(all, node::STATE, &NODE_STATES),
        link: state(all, node::LINK, &LINK_STATES),
        weight: number(all, node::WEIGHT),
        tags: text(all, node::TAGS)
            .map(|tags| tags.split(',').map(str::to_string).collect())
            .unwrap_or_default(),
        load: number(all, node::LOAD),
        shares: number(all, node::SHARES),
        idle: number(all, node::IDLE),
        assigned: number(all, node::ASSIGNED),
        disk_queue: number(all, node::DISK_QUEUE),
        frames_in: count(node::FRAMES_IN),
        frames_out: count(node::FRAMES_OUT),
        bytes_in: count(node::BYTES_IN),
        bytes_out: count(node::BYTES_OUT),
        writes: count(node::WRITES),
        queued: count(node::QUEUED),
        rtt_us: number(all, node::RTT_US),
        clock_offset_us: all.first(node::CLOCK_OFFSET_US).and_then(|a| a.sint()),
        heard_ms: number(all, node::HEARD_MS),
    })
}

fn conn_view(all: Attributes<'_>) -> Option<ConnView> {
    Some(ConnView {
        id: format!("{:016x}", number(all, conn::ID)?),
        state: state(all, conn::STATE, &CONN_STATES),
        client: all
            .first(conn::CLIENT)
            .and_then(endpoint_text)
            .unwrap_or_default(),
        vip: all
            .first(conn::VIP)
            .and_then(endpoint_text)
            .unwrap_or_default(),
        node: id(all, conn::NODE_ID),
        age_ms: number(all, conn::AGE_MS),
        idle_ms: number(all, conn::IDLE_MS),
    })
}

fn param_view(all: Attributes<'_>) -> Option<ParamView> {
    Some(ParamView {
        name: text(all, param::NAME)?,
        value: text(all, param::VALUE)?,
        default: text(all, param::DEFAULT),
        min: number(all, param::MIN),
        max: number(all, param::MAX),
    })
}

fn all_of<T>(parts: &[Vec<u8>], read: impl Fn(Attributes<'_>) -> Option<T>) -> Vec<T> {
    parts
        .iter()
        .filter_map(|part| read(Attributes::new(part)))
        .collect()
}

impl Lard {
    /// The node of this namespace; an error that says what to do when there is none.
    pub fn this_node(&self) -> Result<Option<SelfView>> {
        let parts = lock(&self.commands)
            .run("ask for this node", self.family, command::SELF_GET)
            .send()?;
        Ok(parts
            .first()
            .and_then(|part| self_view(Attributes::new(part))))
    }

    /// The nodes this one knows, itself among them.
    pub fn nodes(&self) -> Result<Vec<NodeView>> {
        let parts = self.dump("list the nodes", command::NODE_GET)?;
        Ok(all_of(&parts, node_view))
    }

    /// The connections of this node.
    pub fn connections(&self) -> Result<Vec<ConnView>> {
        let parts = self.dump("list the connections", command::CONN_GET)?;
        Ok(all_of(&parts, conn_view))
    }

    /// The counters, in the module's order.
    pub fn stats(&self) -> Result<Vec<(String, u64)>> {
        let parts = self.dump("read the counters", command::STATS_GET)?;
        Ok(all_of(&parts, |all| {
            Some((text(all, stat::NAME)?, number(all, stat::VALUE)?))
        }))
    }

    /// The classification rules in order.
    pub fn rules(&self) -> Result<Vec<String>> {
        let parts = self.dump("read the rules", command::RULE_GET)?;
        Ok(all_of(&parts, |all| text(all, rule::TEXT)))
    }

    /// Replaces the classification rules.
    pub fn set_rules(&self, rules: &[String]) -> Result<()> {
        self.run("replace the rules", command::RULE_SET, |request| {
            for text in rules {
                request.put_str(rule::RULE, text);
            }
        })
    }

    /// The content rules, and what is said about nodes, in order.
    pub fn content(&self) -> Result<Vec<String>> {
        let parts = self.dump("read the content rules", command::SERVICE_GET)?;
        Ok(all_of(&parts, |all| text(all, service::TEXT)))
    }

    /// Replaces the content rules, and the key if one is named.
    pub fn set_service(&self, new: &Service) -> Result<()> {
        self.run("change the service", command::SERVICE_SET, |request| {
            if let Some(key) = &new.key {
                request.put_str(service::KEY, key);
            }
            for line in &new.content {
                request.put_str(service::CONTENT, line);
            }
        })
    }

    /// The parameters.
    pub fn params(&self) -> Result<Vec<ParamView>> {
        let parts = self.dump("read the parameters", command::PARAM_GET)?;
        Ok(all_of(&parts, param_view))
    }

    /// Changes parameters, all or none.
    pub fn set_params(&self, changes: &[(String, String)]) -> Result<()> {
        self.run("change the parameters", command::PARAM_SET, |request| {
            for (name, value) in changes {
                request.put_nest(param::SET, |nest| {
                    nest.put_str(param_entry::NAME, name)
                        .put_str(param_entry::VALUE, value);
                });
            }
        })
    }

    /// Says how many requests wait for the disk of this node, which is a back-end.
    pub fn set_disk_queue(&self, length: u32) -> Result<()> {
        self.run("tell the disk's queue", command::DISK_SET, |request| {
            request.put_u32(node::DISK_QUEUE, length);
        })
    }

    /// Says whose documents the servers of this node, which is a back-end, have beside their own.
    pub fn set_mounted(&self, mounted: NodeSet) -> Result<()> {
        self.run("tell the mounts", command::MOUNTS_SET, |request| {
            request.put_uint(node::MOUNTED, mounted.bits());
        })
    }

    /// Changes what the dispatcher does with a node.
    pub fn set_node(&self, id: NodeId, change: NodeChange) -> Result<()> {
        const UP: u32 = 1;
        const DRAIN: u32 = 2;
        let what = format!("change node {id}");
        self.run(&what, command::NODE_SET, |request| {
            request.put_u16(node::NODE_ID, id.0);
            if let Some(drain) = change.drain {
                request.put_u32(node::STATE, if drain { DRAIN } else { UP });
            }
            if let Some(weight) = change.weight {
                request.put_u32(node::WEIGHT, weight);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genl::codec::Request;

    /// The attributes of a request, as if the kernel had sent them.
    fn attributes(fill: impl FnOnce(&mut Request)) -> Vec<u8> {
        let mut request = Request::new(1, 1, 1, 0);
        fill(&mut request);
        request.finish(1).split_off(20)
    }

    #[test]
    fn a_node_is_read_with_what_the_kernel_sends_and_without() {
        let full = attributes(|r| {
            r.put_u16(node::NODE_ID, 3)
                .put_str(node::NAME, "web3")
                .put_u32(node::ROLES, 6)
                .put(node::INTERNAL_ADDR, &Addr::from_v4([10, 0, 2, 3]).0)
                .put_u32(node::STATE, 1)
                .put_u32(node::LINK, 3)
                .put_uint(node::BYTES_IN, 1 << 33)
                .put(node::CLOCK_OFFSET_US, &(-70i32).to_ne_bytes());
        });
        let view = node_view(Attributes::new(&full)).unwrap();
        assert_eq!((view.id, view.name.as_str()), (3, "web3"));
        assert_eq!(view.roles, "FE,BE");
        assert_eq!(view.internal_addr.as_deref(), Some("10.0.2.3"));
        assert_eq!((view.state.as_str(), view.link.as_str()), ("up", "ready"));
        assert_eq!(view.bytes_in, 1 << 33);
        assert_eq!(view.clock_offset_us, Some(-70));
        assert_eq!(view.rtt_us, None);
        assert!(node_view(Attributes::new(&[])).is_none());
        assert!(serde_json::to_string(&view).unwrap().contains("\"web3\""));
    }

    #[test]
    fn a_connection_shows_both_ends() {
        let bytes = attributes(|r| {
            r.put_uint(conn::ID, 0x0010_0000_0000_0001)
                .put_u32(conn::STATE, 4)
                .put_nest(conn::CLIENT, |n| {
                    n.put(endpoint::ADDR, &Addr::from_v4([192, 0, 2, 9]).0)
                        .put_u16(endpoint::PORT, 40_000);
                })
                .put_u16(conn::NODE_ID, 2);
        });
        let view = conn_view(Attributes::new(&bytes)).unwrap();
        assert_eq!(view.client, "192.0.2.9:40000");
        assert_eq!(view.state, "forwarding");
        assert_eq!(view.vip, "");
        assert_eq!(view.node, Some(2));
    }
}
