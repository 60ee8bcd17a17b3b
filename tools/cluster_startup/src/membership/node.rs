// SPDX-License-Identifier: GPL-2.0

//! The resident node: joins, links itself to the others, repairs what breaks, leaves.
//!
//! # Threads
//!
//! One thread owns all state and decides ([`Node::run`]); everything else is done by threads that
//! only report to it through a bounded channel ([`Input`]): the listener with a thread a caller, a
//! thread for each call out, one that waits for the module's events, and those of signals and
//! commands. So there are no locks here.
//!
//! # Who calls whom
//!
//! A node calls the dispatcher, and then each member the dispatcher names. When a link breaks that
//! neither side ended on purpose, both call; the one with the lower number waits a second longer.
//! Should two calls cross, the one with the higher number refuses the other's call and is served.
//! A link that comes up always replaces an older one to the same node.

use super::auth::Secret;
use super::dial::{self, Answered, DialError};
use super::listen::{Call, Decision};
use super::message::{
    is_name, is_weight, Join, Link, Member, Refused, Reply, Request, Was, Welcome,
};
use super::roster::{Roster, Saved};
use super::store::Store;
use crate::error::{Error, Result};
use crate::kernel::{Attach, Event, Kernel, LostReason, Peer, Settings, MAX_ID, MAX_NODES};
use lard_core::addr::NodeId;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Where progress is told.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// How long to wait before the next attempt after so many failures.
const BACK_OFF: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(5),
];
/// Before calling a node whose link broke: it may be about to call itself.
const LINK_PAUSE: Duration = Duration::from_millis(200);
/// How much longer the node with the lower number waits.
const LOWER_WAITS: Duration = Duration::from_secs(1);
/// How often the module is asked whether what is believed is so.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A link must show itself in the module within this.
const LINK_GRACE: Duration = Duration::from_secs(10);
/// How often "still waiting" is said again.
const REMIND_INTERVAL: Duration = Duration::from_secs(60);
/// How long connections of a former cluster are waited for before they are cut.
const CHANGE_GRACE: Duration = Duration::from_secs(60);

/// What a node is told to be.
pub struct Config {
    /// What the module is told.
    pub settings: Settings,
    /// Name for people.
    pub name: String,
    /// Internal address; calls go out from it.
    pub internal: Ipv4Addr,
    /// Is it only a guess? Then it is the address the first member calls.
    pub is_guess: bool,
    /// Port the others call.
    pub port: u16,
    /// Where the dispatcher is; `None` on its own node.
    pub dispatcher: Option<(String, u16)>,
    /// What members share.
    pub secret: Secret,
    /// Number of the cluster, on the dispatcher's node, when it is given.
    pub cluster_id: Option<u64>,
    /// Where the dispatcher keeps what should last.
    pub store: Store,
}

/// What the threads report.
pub enum Input {
    /// The module says something.
    Kernel(Event),
    /// The module cannot be heard any more.
    Deaf(Error),
    /// A proven caller wants something.
    Call(Call),
    /// A caller that was accepted has been told so, or is gone.
    Called {
        /// The caller.
        member: Member,
        /// Its socket, if it is still there.
        stream: Option<TcpStream>,
    },
    /// The call to the dispatcher ended.
    Joined(std::result::Result<(Answered, SocketAddrV4), DialError>),
    /// The call to a member ended.
    Linked(u16, std::result::Result<Answered, DialError>),
    /// Leave the cluster; why.
    Stop(String),
}

/// What the outside may want to know about the node's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is a member now.
    Ready(String),
    /// It does or waits for something.
    Status(String),
    /// It is leaving.
    Stopping,
}

/// State of the link to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// The module has it, since then.
    Up(Instant),
    /// It was accepted; the caller is being told.
    Accepted(Instant),
    /// A call is on its way.
    Calling,
    /// To be called at that time.
    Waiting(Instant),
    /// The other side will call: this is the dispatcher and that a member, or the reverse.
    Passive,
}

struct Known {
    member: Member,
    link: LinkState,
    failures: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    cluster_id: u64,
    id: u16,
    dispatcher: u16,
    hash_key: [u8; 16],
}

/// Progress towards membership, on a node without the dispatcher.
#[derive(Default)]
struct Joining {
    calling: bool,
    next: Option<Instant>,
    failures: usize,
    said: Option<(String, Instant)>,
    changing_since: Option<Instant>,
}

/// The node.
pub struct Node {
    config: Config,
    kernel: Arc<dyn Kernel>,
    inputs: Receiver<Input>,
    sender: SyncSender<Input>,
    log: Log,
    progress: Arc<dyn Fn(Progress) + Send + Sync>,
    identity: Option<Identity>,
    /// The name the dispatcher gave.
    name: String,
    was: Option<Was>,
    roster: Option<Roster>,
    known: BTreeMap<u16, Known>,
    joining: Joining,
    ready: bool,
}

fn back_off(failures: usize) -> Duration {
    let last = BACK_OFF.len() - 1;
    BACK_OFF
        .get(failures.min(last))
        .copied()
        .unwrap_or(CHECK_INTERVAL)
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new("get random numbers").detail(error.to_string()))?;
    Ok(bytes)
}

impl Node {
    /// A node that is told `config`, and hears through `inputs` what `sender`s report.
    pub fn new(
        config: Config,
        kernel: Arc<dyn Kernel>,
        (sender, inputs): (SyncSender<Input>, Receiver<Input>),
        log: Log,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Self {
        Node {
            name: config.name.clone(),
            config,
            kernel,
            inputs,
            sender,
            log,
            progress,
            identity: None,
            was: None,
            roster: None,
            known: BTreeMap::new(),
            joining: Joining::default(),
            ready: false,
        }
    }

    /// Is a member until told to stop, or until something fails that waiting does not mend.
    pub fn run(mut self) -> Result<()> {
        let result = self.be_member();
        (self.progress)(Progress::Stopping);
        let left = self.leave();
        result.and(left)
    }

    fn say(&self, line: &str) {
        (self.log)(line);
    }

    fn be_member(&mut self) -> Result<()> {
        self.look_around()?;
        if self.config.dispatcher.is_some() {
            self.joining.next = Some(Instant::now());
        } else {
            self.found()?;
        }
        let mut check = Instant::now() + CHECK_INTERVAL;
        loop {
            self.start_calls();
            let now = Instant::now();
            if now >= check {
                self.check()?;
                check = now + CHECK_INTERVAL;
            }
            let wake = self.next_call().map_or(check, |next| next.min(check));
            let input = match self
                .inputs
                .recv_timeout(wake.saturating_duration_since(now))
            {
                Ok(input) => input,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            match input {
                Input::Kernel(event) => self.heard(event)?,
                Input::Deaf(error) => return Err(error),
                Input::Call(call) => self.called(call),
                Input::Called { member, stream } => self.call_ended(member, stream)?,
                Input::Joined(result) => self.joined(result)?,
                Input::Linked(id, result) => self.linked(id, result)?,
                Input::Stop(why) => {
                    self.say(&format!("{why}: leaving the cluster"));
                    return Ok(());
                }
            }
        }
    }

    /// What is in this namespace already? A node whose owner died is taken over if it can be.
    fn look_around(&mut self) -> Result<()> {
        let Some(there) = self.kernel.attached()? else {
            return Ok(());
        };
        if let Some(owner) = there.owner {
            return Err(Error::new("make this network namespace a node")
                .errno(libc::EBUSY)
                .detail(format!(
                    "another process (netlink port {owner}) has made it one"
                ))
                .remedy("`cluster_startup stop` ends that process"));
        }
        let alive = self.kernel.alive()?;
        if alive > 0 {
            self.say(&format!(
                "node {} of an earlier run still has {alive} connections; taking it over",
                there.node_id
            ));
        }
        self.was = Some(Was {
            cluster_id: there.cluster_id,
            id: there.node_id.0,
        });
        Ok(())
    }

    /// The dispatcher's node founds the cluster, or goes on with it.
    fn found(&mut self) -> Result<()> {
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
        };
        let identity = Identity {
            cluster_id: saved.cluster_id,
            id: saved.id,
            dispatcher: saved.id,
            hash_key: saved.hash_key,
        };
        self.roster = Some(Roster::new(saved, own));
        self.save();
        if !self.become_node(identity, &self.config.name.clone())? {
            return Err(Error::new("make this network namespace a node")
                .errno(libc::EBUSY)
                .detail("it is a node of another cluster that still has connections")
                .remedy("wait until they end, or cut them with `cluster_startup stop --force`"));
        }
        self.now_ready(format!(
            "dispatcher of cluster {:016x}, node {}",
            identity.cluster_id, identity.id
        ));
        Ok(())
    }

    fn save(&self) {
        if let Some(roster) = &self.roster {
            if let Err(error) = self.config.store.save(roster.saved()) {
                self.say(&format!(
                    "cannot keep the cluster's numbers: {error}; after a restart of this process \
                     the other nodes will join as new ones (--state-dir names the directory)"
                ));
            }
        }
    }

    fn now_ready(&mut self, what: String) {
        self.say(&format!("ready: {what}"));
        self.ready = true;
        (self.progress)(Progress::Ready(what));
    }

    /// Attaches under `identity`. False when connections of another identity are in the way.
    fn become_node(&mut self, identity: Identity, name: &str) -> Result<bool> {
        if self.identity == Some(identity) {
            return Ok(true);
        }
        let there = self.kernel.attached()?;
        let same = there.as_ref().is_some_and(|there| {
            there.owner.is_none()
                && there.cluster_id == identity.cluster_id
                && there.roles == self.config.settings.roles
                && there.node_id.0 == identity.id
        });
        if there.is_some() && !same {
            let now = Instant::now();
            let since = *self.joining.changing_since.get_or_insert(now);
            let force = now.saturating_duration_since(since) > CHANGE_GRACE;
            match self.kernel.detach(force) {
                Ok(()) => {}
                Err(error) if error.is(libc::EBUSY) => return Ok(false),
                Err(error) => return Err(error),
            }
            self.known.clear();
        }
        self.identity = None;
        self.attach(identity, name)?;
        self.joining.changing_since = None;
        self.identity = Some(identity);
        self.was = Some(Was {
            cluster_id: identity.cluster_id,
            id: identity.id,
        });
        Ok(true)
    }

    fn attach(&self, identity: Identity, name: &str) -> Result<()> {
        self.kernel.attach(&Attach {
            node_id: NodeId(identity.id),
            cluster_id: identity.cluster_id,
            dispatcher: NodeId(identity.dispatcher),
            hash_key: identity.hash_key,
            name: name.to_string(),
            settings: self.config.settings.clone(),
        })
    }

    /// The first member calls the dispatcher at `addr`, so that is its internal address, if nobody
    /// said which it is.
    fn settle(&mut self, addr: Ipv4Addr) -> Result<()> {
        let (Some(identity), Some(roster)) = (self.identity, &mut self.roster) else {
            return Ok(());
        };
        if !self.config.is_guess || !roster.is_alone() || addr == self.config.internal {
            return Ok(());
        }
        roster.move_to(addr);
        self.config.internal = addr;
        self.config.settings.internal = Some(addr);
        self.attach(identity, &self.config.name)?;
        self.say(&format!(
            "the first member calls {addr}: this is the internal address now"
        ));
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        if self.identity.take().is_none() {
            return Ok(());
        }
        match self.kernel.detach(false) {
            Ok(()) => {
                self.say("left the cluster");
                Ok(())
            }
            Err(error) if error.is(libc::EBUSY) => {
                match self.kernel.alive()? {
                    0 => self.say("left the cluster"),
                    alive => self.say(&format!(
                        "left the cluster; {alive} connections go on until they end by themselves, \
                         new ones are not taken"
                    )),
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Starts the calls that are due.
    fn start_calls(&mut self) {
        let now = Instant::now();
        if !self.joining.calling && self.joining.next.is_some_and(|next| next <= now) {
            self.call_dispatcher();
        }
        let Some(identity) = self.identity else {
            return;
        };
        let due: Vec<Member> = self
            .known
            .values()
            .filter(|known| matches!(known.link, LinkState::Waiting(when) if when <= now))
            .map(|known| known.member.clone())
            .collect();
        for member in due {
            self.call_member(identity, &member);
        }
    }

    fn next_call(&self) -> Option<Instant> {
        let join = self.joining.next.filter(|_| !self.joining.calling);
        let links = self.known.values().filter_map(|known| match known.link {
            LinkState::Waiting(when) => Some(when),
            _ => None,
        });
        links.chain(join).min()
    }

    /// Runs `call` in a thread of its own; false if there can be none now.
    fn in_background(&self, call: impl FnOnce() -> Input + Send + 'static) -> bool {
        let sender = self.sender.clone();
        thread::Builder::new()
            .name("call".to_string())
            .spawn(move || {
                // Nobody listens any more when the node is leaving.
                let _ = sender.send(call());
            })
            .is_ok()
    }

    fn call_dispatcher(&mut self) {
        let Some((host, port)) = self.config.dispatcher.clone() else {
            return;
        };
        let request = Request::Join(Join {
            name: self.config.name.clone(),
            roles: self.config.settings.roles,
            port: self.config.port,
            weight: self.config.settings.weight,
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

    fn call_member(&mut self, identity: Identity, member: &Member) {
        let request = Request::Link(Link {
            cluster_id: identity.cluster_id,
            id: identity.id,
            name: self.name.clone(),
            roles: self.config.settings.roles,
            port: self.config.port,
            weight: self.config.settings.weight,
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

    fn joined(
        &mut self,
        result: std::result::Result<(Answered, SocketAddrV4), DialError>,
    ) -> Result<()> {
        self.joining.calling = false;
        let (answered, target) = match result {
            Ok(answered) => answered,
            Err(error) => return self.join_failed(&error),
        };
        let welcome = match answered.reply {
            Reply::Welcome(welcome) if (1..=MAX_ID).contains(&welcome.id) => welcome,
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
            self.say(
                "waiting for the connections of the former cluster to end before joining this one",
            );
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
        self.known.retain(|_, known| {
            known.link != LinkState::Passive && known.member.id != dispatcher.id
        });
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
    fn greet_members(&mut self, welcome: &Welcome) {
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

    fn remember(&mut self, member: Member, link: LinkState) {
        self.known.insert(
            member.id,
            Known {
                member,
                link,
                failures: 0,
            },
        );
    }

    fn join_failed(&mut self, error: &DialError) -> Result<()> {
        let (host, port) = self.config.dispatcher.clone().unwrap_or_default();
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

    fn linked(&mut self, id: u16, result: std::result::Result<Answered, DialError>) -> Result<()> {
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
    fn link_up(&mut self, member: Member, stream: &TcpStream) -> Result<()> {
        let peer = Peer {
            node_id: NodeId(member.id),
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
            }
            // The connection ended between the exchange and here.
            Err(error) if error.is(libc::ENOTCONN) || error.is(libc::EINVAL) => {
                self.say(&error.to_string());
                let id = member.id;
                self.remember(member, LinkState::Up(Instant::now()));
                self.lost(id, LostReason::SocketError);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A proven caller wants something.
    fn called(&mut self, call: Call) {
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

    fn decide_join(
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

    fn decide_link(
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
        };
        self.remember(member.clone(), LinkState::Accepted(Instant::now()));
        Ok((Reply::Linked, member))
    }

    fn call_ended(&mut self, member: Member, stream: Option<TcpStream>) -> Result<()> {
        match stream {
            Some(stream) => self.link_up(member, &stream),
            None => {
                self.lost(member.id, LostReason::Closed);
                Ok(())
            }
        }
    }

    fn heard(&mut self, event: Event) -> Result<()> {
        match event {
            Event::PeerLost(id, reason) => {
                let up = self
                    .known
                    .get(&id.0)
                    .is_some_and(|known| matches!(known.link, LinkState::Up(_)));
                // The news may be of a link that has been replaced since.
                if up && !self.kernel.linked()?.contains(&id) {
                    self.lost(id.0, reason);
                }
                Ok(())
            }
            Event::Overrun => self.check(),
            Event::PeerReady(_) | Event::NodeChange(..) => Ok(()),
        }
    }

    /// The link to a node ended, or never came up.
    fn lost(&mut self, id: u16, reason: LostReason) {
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
        if id == identity.dispatcher {
            self.joining.next = Some(now + LINK_PAUSE);
            known.link = LinkState::Passive;
        } else if reason == LostReason::Bye {
            // It left on purpose; if it comes back it will call.
            return;
        } else {
            let pause = if identity.id > id {
                LINK_PAUSE
            } else {
                LINK_PAUSE + LOWER_WAITS
            };
            known.link = LinkState::Waiting(now + pause);
        }
        self.known.insert(id, known);
    }

    /// Compares what is believed with what the module has.
    fn check(&mut self) -> Result<()> {
        if self.identity.is_none() {
            return Ok(());
        }
        let there = self.kernel.linked()?;
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
