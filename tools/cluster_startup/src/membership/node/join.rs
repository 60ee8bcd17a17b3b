// SPDX-License-Identifier: GPL-2.0

//! Becoming a member: the dispatcher's node founds the cluster, the others ask it to let them in.

use super::super::dial::{self, Answered, DialError};
use super::super::message::{Join, Member, Reply, Request, Welcome};
use super::super::roster::{Roster, Saved};
use super::{
    back_off, random, Identity, Input, LinkState, Node, Progress, BACK_OFF, REMIND_INTERVAL,
};
use crate::error::{Error, Result};
use crate::kernel::{MAX_ID, MAX_NODES};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Instant;

impl Node {
    /// The dispatcher's node founds the cluster, or goes on with it.
    pub(super) fn found(&mut self) -> Result<()> {
        let saved = match self.config.store.load()? {
            Some(saved)
                if self
                    .config
                    .cluster_id
                    .is_none_or(|id| id == saved.cluster_id) =>
            {
                saved
            }
            _ => Saved {
                cluster_id: match self.config.cluster_id {
                    Some(id) => id,
                    None => u64::from_ne_bytes(random()?).max(1),
                },
                hash_key: random()?,
                id: 1,
                known: BTreeMap::new(),
            },
        };
        let own = Member {
            id: saved.id,
            name: self.config.name.clone(),
            roles: self.config.settings.roles,
            addr: self.config.internal,
            port: self.config.port,
            weight: self.config.settings.weight,
            docroot: self.config.docroot.clone(),
        };
        let identity = Identity {
            cluster_id: saved.cluster_id,
            id: saved.id,
            dispatcher: saved.id,
            hash_key: saved.hash_key,
        };
        if !self.become_node(identity, &self.config.name.clone())? {
            return Err(Error::new("make this network namespace a node")
                .errno(libc::EBUSY)
                .detail("it has connections of before, with other components or in another cluster")
                .remedy("wait until they end, or cut them with `cluster_startup stop --force`"));
        }
        // Not before: a start that was refused must not lose the numbers of what is there.
        self.roster = Some(Roster::new(saved, own));
        self.save();
        self.now_ready(format!(
            "dispatcher of cluster {:016x}, node {}",
            identity.cluster_id, identity.id
        ));
        Ok(())
    }

    /// Keeps the cluster's numbers, if they are not kept yet: the disk may be slow, and all nodes join
    /// at once when the dispatcher is there again.
    pub(super) fn save(&mut self) {
        let Some(roster) = &self.roster else {
            return;
        };
        if self.kept.as_ref() == Some(roster.saved()) {
            return;
        }
        match self.config.store.save(roster.saved()) {
            Ok(()) => self.kept = Some(roster.saved().clone()),
            Err(error) => self.say(&format!(
                "cannot keep the cluster's numbers: {error}; after a restart of this process the \
                 other nodes will join as new ones (--state-dir names the directory)"
            )),
        }
    }

    pub(super) fn call_dispatcher(&mut self) {
        let Some((host, port)) = self.config.dispatcher.clone() else {
            return;
        };
        let request = Request::Join(Join {
            name: self.config.name.clone(),
            roles: self.config.settings.roles,
            port: self.config.port,
            weight: self.config.settings.weight,
            docroot: self.config.docroot.clone(),
            was: self.was,
        });
        let (from, secret) = (self.config.internal, self.config.secret.clone());
        self.joining.calling = self.in_background(move || {
            Input::Joined(dial::resolve(&host, port).and_then(|target| {
                dial::call(from, target, &secret, &request).map(|answered| (answered, target))
            }))
        });
        if !self.joining.calling {
            self.joining.next = Some(Instant::now() + back_off(BACK_OFF.len()));
        }
    }

    pub(super) fn joined(
        &mut self,
        result: std::result::Result<(Answered, SocketAddrV4), DialError>,
    ) -> Result<()> {
        self.joining.calling = false;
        let (answered, target) = match result {
            Ok(answered) => answered,
            Err(error) => return self.join_failed(&error),
        };
        let welcome = match answered.reply {
            Reply::Welcome(welcome) if welcome.is_sound() => welcome,
            _ => return self.join_failed(&DialError::Confused),
        };
        let identity = Identity {
            cluster_id: welcome.cluster_id,
            id: welcome.id,
            dispatcher: welcome.dispatcher.id,
            hash_key: answered.session.mask(welcome.masked_key),
        };
        if !self.become_node(identity, &welcome.name)? {
            // The dispatcher sees the socket close, and lets us in again later.
            let line =
                "waiting for connections of before to end, with other components or in another \
                        cluster";
            self.say(line);
            (self.progress)(Progress::Status(line.to_string()));
            self.joining.next = Some(Instant::now() + back_off(BACK_OFF.len()));
            return Ok(());
        }
        self.name.clone_from(&welcome.name);
        self.joining.next = None;
        self.joining.failures = 0;
        self.joining.said = None;
        // Reached there, so it is there, whatever it thinks its address is.
        let dispatcher = Member {
            addr: *target.ip(),
            ..welcome.dispatcher.clone()
        };
        // A former dispatcher is forgotten; how often the link to this one failed is not.
        self.known
            .retain(|id, known| *id == dispatcher.id || known.link != LinkState::Passive);
        self.link_up(dispatcher, &answered.stream)?;
        self.greet_members(&welcome);
        let what = format!(
            "node {} ({}) of cluster {:016x}, dispatcher {} at {}",
            identity.id, welcome.name, identity.cluster_id, welcome.dispatcher.name, target
        );
        if self.ready {
            self.say(&format!("joined again: {what}"));
            (self.progress)(Progress::Status(what));
        } else {
            self.now_ready(what);
        }
        Ok(())
    }

    /// Calls every member that is not linked yet.
    pub(super) fn greet_members(&mut self, welcome: &Welcome) {
        let now = Instant::now();
        for member in welcome.members.iter().take(MAX_NODES) {
            let own = member.id == welcome.id || member.id == welcome.dispatcher.id;
            if own || !(1..=MAX_ID).contains(&member.id) {
                continue;
            }
            match self.known.get_mut(&member.id) {
                Some(known) if matches!(known.link, LinkState::Up(_) | LinkState::Accepted(_)) => {
                    known.member = member.clone();
                }
                _ => {
                    let link = LinkState::Waiting(now);
                    self.remember(member.clone(), link);
                }
            }
        }
    }

    pub(super) fn join_failed(&mut self, error: &DialError) -> Result<()> {
        let (host, port) = self.config.dispatcher.clone().unwrap_or_default();
        // Waiting does not mend this: the others know the node under that address.
        if let DialError::NoAddress(_) = error {
            return Err(Error::new(format!("call the dispatcher at {host}:{port}"))
                .detail(error.to_string())
                .remedy(
                    "start the program again, which finds the new address if --internal names none \
                     that is gone; a service manager does so by itself",
                ));
        }
        if error.is_final() && !self.ready {
            return Err(Error::new(format!("join the cluster of {host}:{port}"))
                .detail(error.to_string())
                .remedy(
                    "check -da, --control-port and --secret-file here and on the dispatcher's node",
                ));
        }
        let line = format!("waiting for the dispatcher at {host}:{port} ({error}), retrying");
        let repeat = self
            .joining
            .said
            .as_ref()
            .is_some_and(|(said, when)| *said == line && when.elapsed() < REMIND_INTERVAL);
        if !repeat {
            self.say(&line);
            (self.progress)(Progress::Status(line.clone()));
            self.joining.said = Some((line, Instant::now()));
        }
        self.joining.next = Some(Instant::now() + back_off(self.joining.failures));
        self.joining.failures = self.joining.failures.saturating_add(1);
        Ok(())
    }
}
