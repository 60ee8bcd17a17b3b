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

mod admit;
mod join;
mod link;
#[cfg(test)]
mod tests;

use super::auth::Secret;
use super::dial::{Answered, DialError};
use super::listen::Call;
use super::message::{is_docroot, Member, Was};
use super::roster::{Roster, Saved};
use super::store::Store;
use crate::error::{Error, Result};
use crate::kernel::{Attach, Event, Kernel, Settings};
use crate::nfs::{Other, Others};
use lard_core::addr::NodeId;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
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
/// How long connections of before, with other components or in another cluster, are waited for before
/// they are cut.
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
    /// The document root that others may mount.
    pub docroot: Option<String>,
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

/// Who shares documents with this node, told whenever it changes.
pub type Sharing = Arc<dyn Fn(&Others) + Send + Sync>;

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
    /// Attempts since the link was ready last.
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
    sharing: Sharing,
    /// What was told last.
    shared: Others,
    identity: Option<Identity>,
    /// The name the dispatcher gave.
    name: String,
    was: Option<Was>,
    roster: Option<Roster>,
    /// What the store has.
    kept: Option<Saved>,
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
        sharing: Sharing,
    ) -> Self {
        Node {
            name: config.name.clone(),
            config,
            kernel,
            inputs,
            sender,
            log,
            progress,
            sharing,
            shared: Others::new(),
            identity: None,
            was: None,
            roster: None,
            kept: None,
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
            self.tell_who_shares();
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
        self.attach(identity, name, self.config.settings.clone())?;
        self.joining.changing_since = None;
        self.identity = Some(identity);
        self.was = Some(Was {
            cluster_id: identity.cluster_id,
            id: identity.id,
        });
        Ok(true)
    }

    fn attach(&self, identity: Identity, name: &str, settings: Settings) -> Result<()> {
        self.kernel.attach(&Attach {
            node_id: NodeId(identity.id),
            cluster_id: identity.cluster_id,
            dispatcher: NodeId(identity.dispatcher),
            hash_key: identity.hash_key,
            name: name.to_string(),
            settings,
        })
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

    /// Back-ends to which a link is up and that say where their documents are.
    fn tell_who_shares(&mut self) {
        let sharing = self.known.values().filter_map(|known| {
            let is_up = matches!(known.link, LinkState::Up(_)) && known.member.roles.back_end;
            let docroot = known
                .member
                .docroot
                .as_ref()
                .filter(|path| is_docroot(path));
            let other = Other {
                id: NodeId(known.member.id),
                docroot: docroot.filter(|_| is_up)?.clone(),
            };
            Some((known.member.addr, other))
        });
        let sharing: Others = sharing.collect();
        if sharing != self.shared {
            (self.sharing)(&sharing);
            self.shared = sharing;
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

    fn remember(&mut self, member: Member, link: LinkState) {
        let before = self.known.get(&member.id);
        let failures = before.map_or(0, |known| known.failures);
        self.known.insert(
            member.id,
            Known {
                member,
                link,
                failures,
            },
        );
    }
}
