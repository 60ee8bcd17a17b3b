// SPDX-License-Identifier: GPL-2.0

//! What the dispatcher says about the nodes of the cluster, and how it says it.
//!
//! Each node keeps it, so that a front-end can go on without a dispatcher.
//!
//! # Locking
//!
//! `members` and `peers` of [`Control`] are taken in any context, `peers` outside a peer's `info`. The
//! dispatcher's word is had by all that changes what it says: [`super`].

#![forbid(unsafe_code)]

use kernel::sync::Arc;
use lard_core::addr::NodeId;
use lard_core::policy::{NodeError, NodeState, Tags, MAX_NODES};
use lard_core::wire::{DownReason, Drain, NodeDown, NodeUp, Roles};

use super::{place, Admin, Control};
use crate::config::{Config, Few, NodeName};
use crate::netlink;
use crate::netns::Node;
use crate::peer::{Link, Lost, Peer};
use crate::service::Service;

/// What the dispatcher says about a node.
#[derive(Clone, Copy)]
pub(super) struct Member {
    state: NodeState,
    weight: u16,
    tags: Tags,
}

/// Back-ends that may be chosen, with their weights.
pub(crate) type BackEnds = Few<(NodeId, u16), MAX_NODES>;

impl Control {
    /// The back-ends this node could hand a connection to by itself, of those that have `tags`. A connection
    /// to one is a better witness than a dispatcher that has lost it.
    pub(crate) fn back_ends(&self, config: &Config, tags: Tags) -> BackEnds {
        let mut found = BackEnds::new();
        let members = *self.members.lock();
        let weight = |id: NodeId, default| match members.get(place(id)).copied().flatten() {
            Some(m) if m.state == NodeState::Draining || !m.tags.contain(tags) => 0,
            Some(member) => member.weight,
            None if tags != Tags::NONE => 0,
            None => default,
        };
        if config.is(Roles::BACK_END) {
            found.push((config.node, weight(config.node, config.weight)));
        }
        let peers = self.peers.lock();
        for peer in peers.iter().flatten() {
            let usable = peer
                .with_info(|info| info.link == Link::Ready && info.roles.contains(Roles::BACK_END));
            if usable {
                found.push((peer.id(), weight(peer.id(), peer.weight())));
            }
        }
        found
    }

    /// What the dispatcher says about a node.
    pub(crate) fn state_of(&self, node: NodeId) -> Option<(NodeState, u16)> {
        let members = self.members.lock();
        let member = members.get(place(node)).copied().flatten()?;
        Some((member.state, member.weight))
    }

    pub(super) fn note(&self, node: &Node, of: NodeId, state: NodeState, weight: Option<u16>) {
        let changed = {
            let mut members = self.members.lock();
            let Some(place) = members.get_mut(place(of)) else {
                return;
            };
            let old = *place;
            let weight = weight.or(old.map(|m| m.weight)).unwrap_or(1);
            let tags = old.map_or(Tags::NONE, |m| m.tags);
            *place = Some(Member {
                state,
                weight,
                tags,
            });
            old.is_none_or(|m| m.state != state)
        };
        if changed {
            node.cell.with(|net| netlink::node_changed(net, of, state));
        }
    }

    /// What a node has is known.
    pub(super) fn note_tags(&self, of: NodeId, tags: Tags) {
        if let Some(Some(member)) = self.members.lock().get_mut(place(of)) {
            member.tags = tags;
        }
    }

    /// What a node has, in the bits of the service.
    pub(crate) fn tags_of(&self, node: NodeId) -> Tags {
        let members = self.members.lock();
        let member = members.get(place(node)).copied().flatten();
        member.map_or(Tags::NONE, |member| member.tags)
    }

    /// What a node has, in the bits of these settings.
    fn weigh(&self, config: &Config, service: &Service, of: NodeId) -> Tags {
        if of == config.node {
            return service.tags_of(config.name.as_str(), config.tags.as_str());
        }
        let Some(peer) = self.peer(of) else {
            return Tags::NONE;
        };
        let (name, itself) = peer.with_info(|info| (info.name, info.tags));
        let name = name.as_ref().map_or("", NodeName::as_str);
        service.tags_of(name, itself.as_str())
    }

    /// What a back-end has, as this node, the dispatcher, sees it now.
    pub(crate) fn own_tags(&self, node: &Node, config: &Config, of: NodeId) -> Tags {
        let service = node.services.get();
        service.map_or(Tags::NONE, |service| self.weigh(config, &service, of))
    }

    /// Changes the settings of the service on this node, the dispatcher. All others are told, also those
    /// that have not said anything yet. May sleep.
    pub(crate) fn change_service(
        &self,
        node: &Node,
        config: &Config,
        _admin: &mut Admin,
        service: Arc<Service>,
    ) {
        let _word = self.word.lock();
        let nodes = || (1..=MAX_NODES).filter_map(|n| u16::try_from(n).ok().map(NodeId));
        // While some ask by the former settings and some by these, nodes have what either says.
        for of in nodes() {
            let (before, after) = (self.tags_of(of), self.weigh(config, &service, of));
            node.dispatcher.set_tags(of, Tags(before.0 | after.0));
        }
        node.services.put(service.clone());
        node.dispatcher.note_mode(service.mode());
        for peer in self.all() {
            self.must_hear(&peer, peer.send(&service.message()));
        }
        // Who asked by the former settings for what nobody has now will ask again.
        for of in nodes() {
            let after = self.weigh(config, &service, of);
            node.dispatcher.set_tags(of, after);
            if self.tags_of(of) != after {
                self.note_tags(of, after);
                self.announce(node, of);
            }
        }
    }

    /// An administrator tells the dispatcher, which is this node, about a node; see
    /// [`crate::dispatcher::Dispatcher::set_node`]. May sleep.
    pub(crate) fn set_node(
        &self,
        node: &Node,
        of: NodeId,
        state: Option<NodeState>,
        weight: Option<u16>,
    ) -> Result<(), NodeError> {
        let _word = self.word.lock();
        let state = node.dispatcher.set_node(node, of, state, weight)?;
        self.note(node, of, state, weight);
        self.announce(node, of);
        Ok(())
    }

    /// The dispatcher tells a new node of the others, and the others of the new node. May sleep.
    pub(super) fn welcome(&self, node: &Node, config: &Config, peer: &Peer, roles: Roles) {
        let _word = self.word.lock();
        let id = peer.id();
        if roles.contains(Roles::BACK_END) {
            let tags = self.own_tags(node, config, id);
            if let Ok(state) = node.dispatcher.node_up(node, id, peer.weight(), tags) {
                self.note(node, id, state, Some(peer.weight()));
                self.note_tags(id, tags);
                self.announce(node, id);
            }
        }
        for other in (1..=MAX_NODES).filter_map(|n| u16::try_from(n).ok()) {
            let other = NodeId(other);
            if let Some(up) = self.node_up(config, other) {
                self.must_hear(peer, peer.send(&up));
            } else if let Some((NodeState::Draining, _)) = self.state_of(other) {
                self.must_hear(peer, peer.send(&Drain { node: other }));
            }
        }
    }

    /// The dispatcher has lost a node of these roles, and tells the others. May sleep.
    pub(super) fn node_lost(&self, node: &Node, id: NodeId, was: Roles, lost: Lost) {
        let _word = self.word.lock();
        node.dispatcher.node_down(node, id);
        if was.contains(Roles::BACK_END) {
            self.note(node, id, NodeState::Down, None);
            let reason = match lost {
                Lost::Bye => DownReason::Left,
                Lost::Removed => DownReason::Removed,
                _ => DownReason::Silent,
            };
            self.broadcast(&NodeDown { node: id, reason }, id);
        }
    }

    /// Tells all nodes what this node, the dispatcher, thinks of a node.
    fn announce(&self, node: &Node, of: NodeId) {
        let Some(config) = node.config() else { return };
        match self.state_of(of).map(|(state, _)| state) {
            Some(NodeState::Up) => {
                if let Some(up) = self.node_up(&config, of) {
                    self.broadcast(&up, NodeId::NONE);
                }
            }
            Some(NodeState::Down) => {
                let reason = DownReason::Removed;
                self.broadcast(&NodeDown { node: of, reason }, of);
            }
            Some(_) => self.broadcast(&Drain { node: of }, NodeId::NONE),
            None => {}
        }
    }

    /// The message about a node that may be chosen.
    fn node_up(&self, config: &Config, of: NodeId) -> Option<NodeUp> {
        let (state, weight) = self.state_of(of)?;
        if state != NodeState::Up {
            return None;
        }
        let tags = self.tags_of(of);
        if of == config.node {
            return Some(NodeUp {
                node: of,
                roles: config.roles,
                weight,
                internal: config.internal,
                tags,
            });
        }
        let peer = self.ready(of)?;
        let (roles, internal) = peer.with_info(|info| (info.roles, info.internal));
        Some(NodeUp {
            node: of,
            roles,
            weight,
            internal,
            tags,
        })
    }
}
