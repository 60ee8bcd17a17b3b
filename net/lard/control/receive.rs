// SPDX-License-Identifier: GPL-2.0

//! Messages that have come: who may send which, and whom they concern.
//!
//! A message that does not fit the roles of sender and receiver ends its connection, as one that
//! cannot be decoded does: whoever sends it is no node of this cluster's making.

#![forbid(unsafe_code)]

use lard_core::addr::{Endpoint, NodeId};
use lard_core::policy::{Admission, Mechanism, NodeState};
use lard_core::wire::{
    Admitted, Adopted, Assign, Assigned, Busy, Closed, Handoff, Hello, Message, Ping, Probe,
    Refusal, Refused, Release, Roles, Service, Wait, WhyBusy,
};

use super::Control;
use crate::config::{Config, Few, NodeName, TagText};
use crate::front_end::now;
use crate::netlink;
use crate::netns::Node;
use crate::peer::{Link, Lost, Peer};
use crate::service::Unusable;
use crate::stats::Counter;

impl Control {
    /// Gives a message to whom it concerns. Called by the receiving thread of `peer`.
    pub(crate) fn dispatch(
        &self,
        node: &Node,
        config: &Config,
        peer: &Peer,
        message: &Message<'_>,
    ) -> Result<(), Lost> {
        let from = peer.id();
        let theirs = peer.with_info(|info| info.roles);
        let own = |role| config.is(role);
        let is = |role| theirs.contains(role);
        let allowed = match message {
            Message::Hello(_) | Message::Ping(_) | Message::Pong(_) | Message::Bye(_) => true,
            Message::Assign(m) => {
                own(Roles::DISPATCHER) && is(Roles::FRONT_END) && m.conn.node() == from
            }
            Message::Idle(m) => {
                own(Roles::DISPATCHER) && is(Roles::FRONT_END) && m.conn.node() == from
            }
            Message::Assigned(m) => from == config.dispatcher && m.conn.node() == config.node,
            Message::Wait(m) => from == config.dispatcher && m.conn.node() == config.node,
            Message::Admitted(m) => from == config.dispatcher && m.conn.node() == config.node,
            Message::Load(_) => own(Roles::DISPATCHER) && is(Roles::BACK_END),
            Message::NodeUp(_) | Message::NodeDown(_) | Message::Drain(_) | Message::Service(_) => {
                from == config.dispatcher
            }
            Message::Handoff(m) => {
                own(Roles::BACK_END) && is(Roles::FRONT_END) && m.conn.node() == from
            }
            Message::Release(m) => {
                own(Roles::BACK_END) && is(Roles::FRONT_END) && m.conn.node() == from
            }
            Message::Adopted(m) => is(Roles::BACK_END) && m.conn.node() == config.node,
            Message::Refused(m) => is(Roles::BACK_END) && m.conn.node() == config.node,
            Message::Released(m) => is(Roles::BACK_END) && m.conn.node() == config.node,
            Message::Busy(m) => is(Roles::BACK_END) && m.conn.node() == config.node,
            Message::Probe(m) => {
                own(Roles::BACK_END) && is(Roles::FRONT_END) && m.conn.node() == from
            }
            Message::Gone(m) => is(Roles::BACK_END) && m.conn.node() == config.node,
            // Of a child that ended, or of a connection that was never adopted.
            Message::Closed(m) => m.node == from || m.conn.node() == from,
        };
        if !allowed {
            node.stats.inc(Counter::CtOutOfPlace);
            return Err(Lost::Malformed);
        }
        match message {
            Message::Hello(hello) => return self.on_hello(node, config, peer, hello),
            Message::Ping(ping) => return self.on_ping(node, config, peer, ping),
            Message::Pong(pong) => peer.on_pong(pong),
            Message::Bye(_) => return Err(Lost::Bye),
            Message::Assign(question) => {
                self.on_assign(node, peer, question);
            }
            Message::Assigned(m) => {
                peer.answered();
                node.cell
                    .with(|net| node.front_end.answered(node, net, m.conn, m.node));
            }
            Message::Wait(m) => {
                peer.answered();
                node.cell
                    .with(|_| node.front_end.waits(m.conn, m.at_most_ms));
            }
            Message::Admitted(m) => {
                node.cell
                    .with(|net| node.front_end.assigned(node, net, m.conn, m.node));
            }
            Message::Idle(idle) => node.dispatcher.set_idle(node, idle),
            Message::Load(load) => node.dispatcher.load(node, from, load),
            Message::NodeUp(m) => {
                self.note(node, m.node, NodeState::Up, Some(m.weight));
                self.note_tags(m.node, m.tags);
            }
            Message::NodeDown(m) => self.note(node, m.node, NodeState::Down, None),
            Message::Drain(m) => self.note(node, m.node, NodeState::Draining, None),
            Message::Service(service) => self.on_service(node, service)?,
            Message::Handoff(handoff) => self.on_handoff(node, peer, handoff),
            Message::Release(m) => self.on_release(node, peer, m),
            Message::Adopted(m) => {
                node.cell
                    .with(|net| node.front_end.adopted(node, net, m.conn, from));
            }
            Message::Refused(m) => {
                node.cell.with(|net| {
                    node.front_end
                        .refused(node, net, m.conn, from, m.reason, m.client_reset)
                });
            }
            Message::Released(m) => {
                node.cell
                    .with(|net| node.front_end.released(node, net, m.conn, from, m));
            }
            Message::Busy(m) => {
                node.cell
                    .with(|net| node.front_end.busy(node, net, m.conn, from, m.why));
            }
            Message::Closed(m) => self.on_closed(node, config, from, m),
            Message::Probe(probe) => self.on_probe(node, peer, probe),
            Message::Gone(gone) => node.front_end.gone(node, from, gone),
        }
        Ok(())
    }

    fn on_hello(
        &self,
        node: &Node,
        config: &Config,
        peer: &Peer,
        hello: &Hello<'_>,
    ) -> Result<(), Lost> {
        if hello.cluster != config.cluster || hello.node != peer.id() {
            return Err(Lost::Mismatch);
        }
        // A node may do less than its administrator introduced it for, but not more: roles are a
        // licence. Its address is believed to the administrator alone.
        if !peer.introduced().contains(hello.roles) {
            return Err(Lost::Mismatch);
        }
        let id = peer.id();
        let is_ready = peer.with_info(|info| {
            info.roles = hello.roles;
            info.name = Some(NodeName::new(hello.name));
            info.listeners = Few::collect(hello.listeners.iter());
            info.vips = Few::collect(hello.vips.iter());
            info.tags = TagText::of(hello.tags);
            info.link == Link::Ready
        });
        let vips: Few<Endpoint, { Hello::MAX_VIPS }> =
            Few::collect(hello.vips.iter().filter(|vip| config.allows(*vip)));
        if config.is(Roles::BACK_END) && hello.roles.contains(Roles::FRONT_END) {
            node.back_end.learn(id, &vips);
        }
        if is_ready {
            node.cell.with(|net| self.refresh(node, config, net));
        }
        Ok(())
    }

    /// The dispatcher says what the service is. One that says what this node cannot read is no
    /// dispatcher of this node's making; without memory the connection ends, so that it is said again.
    fn on_service(&self, node: &Node, service: &Service<'_>) -> Result<(), Lost> {
        node.services.learn(service).map_err(|why| match why {
            Unusable::Memory(_) => Lost::Error,
            Unusable::Key | Unusable::Line(_) | Unusable::Tags => {
                node.stats.inc(Counter::CtBadValue);
                Lost::Malformed
            }
        })
    }

    /// PING: the peer wants to know our clock. Once it does, messages can be sent to it: a back-end
    /// refuses every hand-off of which it cannot tell the age.
    fn on_ping(&self, node: &Node, config: &Config, peer: &Peer, ping: &Ping) -> Result<(), Lost> {
        peer.on_ping(ping);
        let id = peer.id();
        let (link, roles, internal) = peer.with_info(|info| (info.link, info.roles, info.internal));
        if link != Link::Greeting {
            return Ok(());
        }
        if roles.contains(Roles::BACK_END) {
            // Before anybody can choose it. Without a way there it is no back-end for us.
            let way = node.forward.learn(id, internal, false);
            way.map_err(|_| Lost::Error)?;
        }
        peer.with_info(|info| {
            if info.link == Link::Greeting {
                info.link = Link::Ready;
            }
        });
        if config.is(Roles::DISPATCHER) {
            self.welcome(node, config, peer, roles);
        }
        node.cell.with(|net| {
            self.refresh(node, config, net);
            netlink::peer_ready(net, id, roles);
        });
        Ok(())
    }

    fn on_assign(&self, node: &Node, peer: &Peer, question: &Assign) {
        let conn = question.conn;
        let to = match node.dispatcher.assign(node, question) {
            Admission::Assigned(to) => to,
            Admission::Refused => {
                // It need not wait, since even those who do are too many.
                let _ = self.count(peer.send(&Wait {
                    conn,
                    at_most_ms: 0,
                }));
                let _ = self.count(peer.send(&Admitted { conn, node: None }));
                return;
            }
            Admission::Waits => {
                let at_most_ms = node.dispatcher.queue_time_ms();
                // Untold the front-end waits for as long as for any answer.
                let _ = self.count(peer.send(&Wait { conn, at_most_ms }));
                return;
            }
        };
        let answer = Assigned {
            conn,
            node: to,
            tag: None,
        };
        let is_new = question.mechanism == Mechanism::Move && to != question.home;
        if let (Err(_), Some(to)) = (self.count(peer.send(&answer)), to.filter(|_| is_new)) {
            node.dispatcher.finished(node, conn, to);
        }
    }

    fn on_handoff(&self, node: &Node, peer: &Peer, handoff: &Handoff<'_>) {
        let conn = handoff.conn;
        let clock = peer.with_info(|info| info.clock);
        let taken = match clock.is_expired(handoff.expires, now()) {
            true => Err(Refusal::Expired),
            false => node
                .cell
                .with(|net| node.back_end.handoff(node, net, Some(peer.id()), handoff))
                .unwrap_or(Err(Refusal::NotAllowed)),
        };
        let sent = match taken {
            Ok(()) => peer.send(&Adopted { conn }),
            Err(reason) => {
                node.stats.inc(Counter::refusing(reason));
                let client_reset = false;
                peer.send(&Refused {
                    conn,
                    reason,
                    client_reset,
                })
            }
        };
        // A front-end that does not learn what became of its connection would reset it while we
        // serve it. When the connection between us ends, both sides know.
        self.must_hear(peer, sent);
    }

    fn on_release(&self, node: &Node, peer: &Peer, release: &Release) {
        let conn = release.conn;
        let released = node
            .cell
            .with(|net| node.back_end.release(node, net, Some(peer.id()), release))
            .unwrap_or(Err(WhyBusy::Ending));
        let sent = match released {
            Ok(released) => peer.send(&released),
            Err(why) => peer.send(&Busy { conn, why }),
        };
        // As for a hand-off.
        self.must_hear(peer, sent);
    }

    fn on_probe(&self, node: &Node, peer: &Peer, probe: &Probe) {
        let gone = node.cell.with(|net| node.back_end.probed(net, probe));
        if let Some(gone) = gone.flatten() {
            // Without room the front-end asks again.
            let _ = self.count(peer.send_later(&gone));
        }
    }

    fn on_closed(&self, node: &Node, config: &Config, from: NodeId, closed: &Closed) {
        if config.is(Roles::DISPATCHER) {
            node.dispatcher.finished(node, closed.conn, closed.node);
        }
        if closed.conn.node() == config.node && closed.node == from {
            node.front_end.closed(node, closed.conn, from, closed.how);
        }
    }
}
