// SPDX-License-Identifier: GPL-2.0

//! What callers want, decided: new members on the dispatcher's node, links on the others.

use super::super::listen::{Call, Decision};
use super::super::message::{
    is_docroot, is_name, is_weight, Join, Link, Member, Refused, Reply, Request, Welcome,
};
use super::{LinkState, Node};
use crate::error::Result;
use crate::kernel::{LostReason, Settings, MAX_ID, MAX_NODES};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Instant;

impl Node {
    /// A proven caller wants something.
    pub(super) fn called(&mut self, call: Call) {
        let decision = match &call.request {
            Request::Join(join) => self.decide_join(&call, join),
            Request::Link(link) => self.decide_link(call.addr, link),
        };
        let (reply, member) = match decision {
            Ok((reply, member)) => (reply, Some(member)),
            Err(refused) => (Reply::Refused(refused), None),
        };
        let admitted = member.clone();
        if call.decision.send(Decision { reply, member }).is_err() {
            if let Some(member) = admitted {
                self.lost(member.id, LostReason::Closed);
            }
        }
    }

    pub(super) fn decide_join(
        &mut self,
        call: &Call,
        join: &Join,
    ) -> std::result::Result<(Reply, Member), Refused> {
        self.settle(call.to).map_err(|error| {
            self.say(&error.to_string());
            Refused::later("the dispatcher cannot take its internal address")
        })?;
        let Some(roster) = &mut self.roster else {
            let where_it_is = self
                .config
                .dispatcher
                .as_ref()
                .map_or_else(String::new, |(host, port)| {
                    format!("; it is at {host}:{port}")
                });
            return Err(Refused::never(format!(
                "this node is not the dispatcher{where_it_is}"
            )));
        };
        let (member, members) = roster.admit(call.addr, join)?;
        let saved = roster.saved();
        let welcome = Welcome {
            cluster_id: saved.cluster_id,
            id: member.id,
            name: member.name.clone(),
            masked_key: call.session.mask(saved.hash_key),
            dispatcher: roster.own().clone(),
            members,
        };
        self.save();
        self.remember(member.clone(), LinkState::Accepted(Instant::now()));
        Ok((Reply::Welcome(welcome), member))
    }

    /// The first member calls the dispatcher at `addr`, so that is its internal address, if nobody
    /// said which it is.
    pub(super) fn settle(&mut self, addr: Ipv4Addr) -> Result<()> {
        let (Some(identity), Some(roster)) = (self.identity, &self.roster) else {
            return Ok(());
        };
        if !self.config.is_guess || !roster.is_alone() || addr == self.config.internal {
            return Ok(());
        }
        let settings = Settings {
            internal: Some(addr),
            ..self.config.settings.clone()
        };
        self.attach(identity, &self.config.name, settings.clone())?;
        // Only now: what the module refused is tried again at the next call.
        self.config.settings = settings;
        self.config.internal = addr;
        if let Some(roster) = &mut self.roster {
            roster.move_to(addr);
        }
        self.say(&format!(
            "the first member calls {addr}: this is the internal address now"
        ));
        Ok(())
    }

    pub(super) fn decide_link(
        &mut self,
        addr: Ipv4Addr,
        link: &Link,
    ) -> std::result::Result<(Reply, Member), Refused> {
        if self.roster.is_some() {
            return Err(Refused::never("members link to the dispatcher by joining"));
        }
        let Some(identity) = self.identity else {
            return Err(Refused::later("this node is not a member yet"));
        };
        if link.cluster_id != identity.cluster_id || link.to != identity.id {
            return Err(Refused::later(format!(
                "this is node {} of cluster {:016x}",
                identity.id, identity.cluster_id
            )));
        }
        if link.id == identity.id || !(1..=MAX_ID).contains(&link.id) {
            return Err(Refused::never("the caller's number cannot be"));
        }
        if link.id == identity.dispatcher || link.roles.dispatcher || link.roles.is_empty() {
            return Err(Refused::never("the caller's components cannot be"));
        }
        if link
            .docroot
            .as_deref()
            .is_some_and(|path| !is_docroot(path))
        {
            return Err(Refused::never("the caller's document root cannot be"));
        }
        if !is_name(&link.name) || !is_weight(link.weight) || link.port == 0 {
            return Err(Refused::never(
                "the caller's name, weight or port cannot be",
            ));
        }
        match self.known.get(&link.id) {
            None if self.known.len() >= MAX_NODES => {
                return Err(Refused::later("this node has as many links as it can have"));
            }
            Some(known) if known.link == LinkState::Calling && identity.id > link.id => {
                return Err(Refused::later("calling you already"));
            }
            Some(known) if matches!(known.link, LinkState::Up(_)) && known.member.addr != addr => {
                return Err(Refused::later(format!(
                    "node {} is linked from {}",
                    link.id, known.member.addr
                )));
            }
            _ => {}
        }
        let member = Member {
            id: link.id,
            name: link.name.clone(),
            roles: link.roles,
            addr,
            port: link.port,
            weight: link.weight,
            docroot: link.docroot.clone(),
        };
        self.remember(member.clone(), LinkState::Accepted(Instant::now()));
        Ok((Reply::Linked, member))
    }

    /// A caller that was accepted has been told so, or is gone.
    pub(super) fn call_ended(&mut self, member: Member, stream: Option<TcpStream>) -> Result<()> {
        let known = self.known.get(&member.id);
        if !known.is_some_and(|known| matches!(known.link, LinkState::Accepted(_))) {
            // Meanwhile it was linked by another call, or given up and its number with it, or this node
            // has changed the cluster. A caller whose socket is dropped calls again.
            return Ok(());
        }
        match stream {
            Some(stream) => self.link_up(member, &stream),
            None => {
                self.lost(member.id, LostReason::Closed);
                Ok(())
            }
        }
    }
}
