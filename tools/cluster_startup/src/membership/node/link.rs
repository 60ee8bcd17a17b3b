// SPDX-License-Identifier: GPL-2.0

//! Links to the other members: made, given to the module, noticed when they end, made again.

use super::super::dial::{self, Answered, DialError};
use super::super::message::{Link, Member, Reply, Request};
use super::{
    back_off, Identity, Input, LinkState, Node, BACK_OFF, LINK_GRACE, LINK_PAUSE, LOWER_WAITS,
};
use crate::error::{Error, Result};
use crate::kernel::{Attached, Event, LostReason, Peer};
use lard_core::addr::NodeId;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

impl Node {
    pub(super) fn call_member(&mut self, identity: Identity, member: &Member) {
        let request = Request::Link(Link {
            cluster_id: identity.cluster_id,
            id: identity.id,
            name: self.name.clone(),
            roles: self.config.settings.roles,
            port: self.config.port,
            weight: self.config.settings.weight,
            docroot: self.config.docroot.clone(),
            to: member.id,
        });
        let (from, secret) = (self.config.internal, self.config.secret.clone());
        let (target, id) = (member.control(), member.id);
        let started = self
            .in_background(move || Input::Linked(id, dial::call(from, target, &secret, &request)));
        if let Some(known) = self.known.get_mut(&id) {
            known.link = if started {
                LinkState::Calling
            } else {
                LinkState::Waiting(Instant::now() + back_off(BACK_OFF.len()))
            };
        }
    }

    pub(super) fn linked(
        &mut self,
        id: u16,
        result: std::result::Result<Answered, DialError>,
    ) -> Result<()> {
        let Some(known) = self.known.get_mut(&id) else {
            // It left meanwhile; dropping the socket tells the other side.
            return Ok(());
        };
        match result {
            Ok(answered) if answered.reply == Reply::Linked => {
                let member = known.member.clone();
                self.link_up(member, &answered.stream)
            }
            Ok(_) => {
                known.link = LinkState::Waiting(Instant::now() + back_off(BACK_OFF.len()));
                Ok(())
            }
            // It called us while we called it.
            Err(_) if known.link != LinkState::Calling => Ok(()),
            Err(error) => {
                known.link = LinkState::Waiting(Instant::now() + back_off(known.failures));
                known.failures = known.failures.saturating_add(1);
                // The first failure is often a member that is just starting or just leaving.
                if known.failures == 3 {
                    let member = &known.member;
                    let line = format!(
                        "waiting for {} at {} ({error}), retrying",
                        member.name,
                        member.control()
                    );
                    self.say(&line);
                }
                Ok(())
            }
        }
    }

    /// Gives the socket to the module.
    pub(super) fn link_up(&mut self, member: Member, stream: &TcpStream) -> Result<()> {
        let id = member.id;
        let peer = Peer {
            node_id: NodeId(id),
            roles: member.roles,
            addr: member.addr,
            name: member.name.clone(),
            weight: member.weight,
        };
        // An older link to the same node, whose end nobody has noticed yet, is replaced.
        match self.kernel.peer_add(stream.as_fd(), &peer) {
            Ok(()) => {
                let line = format!(
                    "linked to {} ({}, {})",
                    member.name, member.addr, member.roles
                );
                self.say(&line);
                self.remember(member, LinkState::Up(Instant::now()));
                self.failed(id);
            }
            // The connection ended between the exchange and here, or the module has no room for it.
            // This link is lost, the others go on, unless it is the node that is gone.
            Err(error) => {
                self.bear(error)?;
                self.remember(member, LinkState::Up(Instant::now()));
                self.failed(id);
                self.lost(id, LostReason::SocketError);
            }
        }
        Ok(())
    }

    /// Until the module says that the other side's HELLO was good, an attempt counts as failed: each
    /// side may refuse the other for as long as it likes.
    fn failed(&mut self, id: u16) {
        if let Some(known) = self.known.get_mut(&id) {
            known.failures = known.failures.saturating_add(1);
        }
    }

    pub(super) fn heard(&mut self, event: Event) -> Result<()> {
        match event {
            Event::PeerLost(id, reason) => {
                let up = self
                    .known
                    .get(&id.0)
                    .is_some_and(|known| matches!(known.link, LinkState::Up(_)));
                // The news may be of a link that has been replaced since.
                if up && self.links()?.is_some_and(|there| !there.contains(&id)) {
                    self.lost(id.0, reason);
                }
                Ok(())
            }
            Event::Overrun => self.check(),
            Event::PeerReady(id) => {
                if let Some(known) = self.known.get_mut(&id.0) {
                    known.failures = 0;
                }
                Ok(())
            }
            Event::NodeChange(..) => Ok(()),
        }
    }

    /// The link to a node ended, or never came up.
    pub(super) fn lost(&mut self, id: u16, reason: LostReason) {
        let Some(mut known) = self.known.remove(&id) else {
            return;
        };
        let name = &known.member.name;
        if matches!(known.link, LinkState::Up(_)) {
            self.say(&format!("lost {name} ({}): {reason}", known.member.addr));
        }
        let now = Instant::now();
        if let Some(roster) = &mut self.roster {
            // It will join again.
            roster.remove(id);
            return;
        }
        let Some(identity) = self.identity else {
            return;
        };
        let pause = match known.failures.checked_sub(1) {
            None => LINK_PAUSE,
            Some(before) => back_off(before),
        };
        if id == identity.dispatcher {
            self.joining.next = Some(now + pause);
            known.link = LinkState::Passive;
        } else if reason == LostReason::Bye {
            // It left on purpose; if it comes back it will call.
            return;
        } else {
            let more = if identity.id > id {
                Duration::ZERO
            } else {
                LOWER_WAITS
            };
            known.link = LinkState::Waiting(now + pause + more);
        }
        self.known.insert(id, known);
    }

    /// The nodes to which the module has links; `None` if it cannot say so now, as for want of memory.
    fn links(&self) -> Result<Option<Vec<NodeId>>> {
        match self.kernel.linked() {
            Ok(there) => Ok(Some(there)),
            Err(error) => self.bear(error).map(|()| None),
        }
    }

    /// A failure that ends nothing, and is said, unless it is the node that is gone.
    fn bear(&self, error: Error) -> Result<()> {
        if matches!(
            self.kernel.attached(),
            Ok(None | Some(Attached { owner: None, .. }))
        ) {
            return Err(error);
        }
        self.say(&error.to_string());
        Ok(())
    }

    /// Compares what is believed with what the module has.
    pub(super) fn check(&mut self) -> Result<()> {
        if self.identity.is_none() {
            return Ok(());
        }
        let Some(there) = self.links()? else {
            return Ok(());
        };
        let gone: Vec<u16> = self
            .known
            .iter()
            .filter(|(id, known)| match known.link {
                LinkState::Up(_) => !there.contains(&NodeId(**id)),
                LinkState::Accepted(since) => since.elapsed() > LINK_GRACE,
                _ => false,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.lost(id, LostReason::Closed);
        }
        Ok(())
    }
}
