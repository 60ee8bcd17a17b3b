// SPDX-License-Identifier: GPL-2.0

//! The settings of the service, which are the same on all front-ends: what of a request makes its
//! target, the content rules, and what becomes of further requests on a connection.
//!
//! The dispatcher's administrator sets them; every other node has them from the dispatcher's SERVICE,
//! and keeps the last ones when the dispatcher is gone. Connections that were handed over are not
//! concerned by a change, requests that wait for an answer are.
//!
//! What packets and questions need to know of them is one word, read without the lock.
//!
//! # Locking
//!
//! One lock, a leaf, under which a reference is taken or exchanged. A service without rules and with
//! the usual key is not looked at at all.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::sync::Arc;
use kernel_net::sync::BhLock;
use lard_core::addr::Endpoint;
use lard_core::content::{Asked, BadLine, Place, Rules, TagNames, MAX_TEXT};
use lard_core::follow::Mode;
use lard_core::http::{hash_of_client, target, BadHead, HeadParser, KeyParts, KeyPlaces};
use lard_core::policy::{Mechanism, PolicyKind, Tags};
use lard_core::wire;

/// What is asked of the dispatcher about a request.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// The hash of its target.
    pub(crate) key: u64,
    /// What the back-end must have.
    pub(crate) tags: Tags,
    /// Which settings say so; see [`Services::edition`].
    edition: u32,
}

impl Wanted {
    /// Nothing, of no request.
    pub(crate) const NOTHING: Self = Self {
        key: 0,
        tags: Tags::NONE,
        edition: 0,
    };
}

/// Why settings were not taken.
pub(crate) enum Unusable {
    /// These are no parts of a target.
    Key,
    /// A line says nothing.
    Line(BadLine),
    /// There are more tags than bits.
    Tags,
    /// No memory.
    Memory(Error),
}

impl<E: Into<Error>> From<E> for Unusable {
    fn from(error: E) -> Self {
        Unusable::Memory(error.into())
    }
}

/// Settings. They do not change; others take their place.
pub(crate) struct Service {
    key: KVec<u8>,
    key_places: KeyPlaces,
    lines: KVec<u8>,
    places: KVec<Place>,
    names: TagNames,
    /// The names as they are sent.
    tags: KVec<u8>,
    /// What becomes of further requests on a connection.
    mode: Mode,
    /// How another node serves them, if the mode does not say so.
    mechanism: Mechanism,
    /// Front-ends tell the dispatcher of connections that fall idle.
    tells_idle: bool,
}

/// What is changed of settings, on the dispatcher's node. What is `None` stays.
#[derive(Default)]
pub(crate) struct Change<'a> {
    pub(crate) key: Option<&'a str>,
    pub(crate) lines: Option<&'a str>,
    pub(crate) mode: Option<Mode>,
    pub(crate) mechanism: Option<Mechanism>,
    pub(crate) policy: Option<PolicyKind>,
}

impl Change<'_> {
    /// Does everything stay?
    pub(crate) fn is_none(&self) -> bool {
        self.key.is_none()
            && self.lines.is_none()
            && self.mode.is_none()
            && self.mechanism.is_none()
            && self.policy.is_none()
    }
}

/// The word: further requests are served by other nodes, by one of these.
const MOVES: u32 = 1;
const FORWARDS: u32 = 2;
/// Front-ends tell the dispatcher of connections that fall idle.
const TELLS_IDLE: u32 = 4;
/// There are settings.
const KNOWN: u32 = 8;

fn text(bytes: &[u8]) -> &str {
    // They were copied from text.
    core::str::from_utf8(bytes).unwrap_or_default()
}

fn copy(text: &str) -> Result<KVec<u8>> {
    let mut copy = KVec::with_capacity(text.len(), GFP_KERNEL)?;
    copy.extend_from_slice(text.as_bytes(), GFP_KERNEL)?;
    Ok(copy)
}

impl Service {
    /// Reads settings. May sleep.
    fn new(message: &wire::Service<'_>, names: TagNames) -> Result<Arc<Self>, Unusable> {
        let wire::Service {
            key,
            lines,
            mode,
            mechanism,
            tells_idle,
            ..
        } = *message;
        if key.len() > wire::Service::MAX_KEY {
            return Err(Unusable::Key);
        }
        if lines.len() > MAX_TEXT {
            return Err(Unusable::Line(BadLine::TooMany));
        }
        let key_places = KeyPlaces::parse(key).map_err(|_| Unusable::Key)?;
        let mut places = KVec::new();
        for place in Rules::compile(lines, &names) {
            places.push(place.map_err(Unusable::Line)?, GFP_KERNEL)?;
        }
        let mut tags = KVec::new();
        for name in names.wire() {
            tags.extend_from_slice(name.as_bytes(), GFP_KERNEL)?;
        }
        let service = Self {
            key: copy(key)?,
            key_places,
            lines: copy(lines)?,
            places,
            names,
            tags,
            mode,
            mechanism,
            tells_idle,
        };
        Ok(Arc::new(service, GFP_KERNEL)?)
    }

    /// What of a request makes its target, as it was written.
    pub(crate) fn key(&self) -> &str {
        text(&self.key)
    }

    /// The rules, and what nodes have, as they were written.
    pub(crate) fn lines(&self) -> &str {
        text(&self.lines)
    }

    /// The names of the tags.
    pub(crate) fn names(&self) -> &TagNames {
        &self.names
    }

    /// What a node has that rules can demand.
    pub(crate) fn tags_of(&self, node: &str, itself: &str) -> Tags {
        self.names.of_node(self.lines(), node, itself)
    }

    /// The message that tells other nodes.
    pub(crate) fn message(&self) -> wire::Service<'_> {
        wire::Service {
            key: self.key(),
            tags: text(&self.tags),
            lines: self.lines(),
            mode: self.mode,
            mechanism: self.mechanism,
            tells_idle: self.tells_idle,
        }
    }

    /// What becomes of further requests on a connection.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// How another node serves them in the mode that does not say so.
    pub(crate) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What is read without the lock.
    fn word(&self) -> u32 {
        let further = match (self.mode, self.mechanism) {
            (Mode::Pin, _) => 0,
            (Mode::Move, _) | (Mode::Auto, Mechanism::Move) => MOVES,
            (Mode::Forward, _) | (Mode::Auto, Mechanism::Forward) => FORWARDS,
        };
        match self.tells_idle {
            true => KNOWN | further | TELLS_IDLE,
            false => KNOWN | further,
        }
    }

    /// Does every request do without a look at these?
    fn is_plain(&self) -> bool {
        self.places.is_empty() && self.parts() == KeyParts::DEFAULT
    }

    fn parts(&self) -> KeyParts<'_> {
        self.key_places.parts(self.key())
    }

    fn tags(&self, asked: &Asked<'_>) -> Tags {
        Rules::new(self.lines(), &self.places).choose(asked)
    }
}

/// The settings of a namespace.
pub(crate) struct Services {
    current: BhLock<Option<Arc<Service>>>,
    /// Twice the number of changes, and one more while the settings have to be looked at.
    edition: Atomic<u32>,
    /// What they say of connections that were handed over; [`Service::word`].
    word: Atomic<u32>,
}

impl Services {
    /// The usual ones. May sleep.
    pub(crate) fn new() -> Self {
        Self {
            current: kernel_net::new_bh_lock!(None, c"lard:service"),
            edition: Atomic::new(0),
            word: Atomic::new(0),
        }
    }

    /// The settings, if any were made or received. Any context but hard irq.
    pub(crate) fn get(&self) -> Option<Arc<Service>> {
        self.current.lock().clone()
    }

    /// What the settings would be after a change, on the dispatcher's node; what is not given stays.
    /// Callers keep other administrators out until they have made it. May sleep.
    ///
    /// Not inlined: the names are a kilobyte, which passes over the stack.
    #[inline(never)]
    pub(crate) fn changed(
        &self,
        change: &Change<'_>,
        policy: PolicyKind,
    ) -> Result<Arc<Service>, Unusable> {
        let known = self.get();
        let old = match &known {
            Some(known) => known.message(),
            None => wire::Service::USUAL,
        };
        let mode = change.mode.unwrap_or(old.mode);
        let policy = change.policy.unwrap_or(policy);
        let message = wire::Service {
            key: change.key.unwrap_or(old.key),
            tags: "",
            lines: change.lines.unwrap_or(old.lines),
            mode,
            mechanism: change.mechanism.unwrap_or(old.mechanism),
            tells_idle: mode == Mode::Auto || policy.leaves_out_idle(),
        };
        let names = match &known {
            Some(known) => known.names.renewed(message.lines),
            None => TagNames::new().renewed(message.lines),
        };
        Service::new(&message, names.map_err(|_| Unusable::Tags)?)
    }

    /// Puts these in the place of those that hold. May sleep.
    pub(crate) fn put(&self, service: Arc<Service>) {
        self.replace(Some(service));
    }

    /// The dispatcher says what they are. May sleep.
    pub(crate) fn learn(&self, message: &wire::Service<'_>) -> Result<(), Unusable> {
        let names = TagNames::from_wire(message.tags).ok_or(Unusable::Tags)?;
        let service = Service::new(message, names)?;
        self.replace(Some(service));
        Ok(())
    }

    /// The usual ones again. May sleep.
    pub(crate) fn forget(&self) {
        self.replace(None);
    }

    fn replace(&self, new: Option<Arc<Service>>) {
        let looked_at = new.as_ref().is_some_and(|new| !new.is_plain());
        let old = {
            let mut current = self.current.lock();
            let next = (self.edition.load(Relaxed) | 1).wrapping_add(1);
            self.edition.store(next | u32::from(looked_at), Release);
            let word = new.as_ref().map_or(0, |new| new.word());
            self.word.store(word, Relaxed);
            core::mem::replace(&mut *current, new)
        };
        drop(old);
    }

    /// How nodes other than the one that has a connection serve its further requests; `None` if they do
    /// not. Any context.
    pub(crate) fn further(&self) -> Option<Mechanism> {
        let word = self.word.load(Relaxed);
        match word & (MOVES | FORWARDS) {
            0 => None,
            MOVES => Some(Mechanism::Move),
            _ => Some(Mechanism::Forward),
        }
    }

    /// Were any made or received? Any context.
    pub(crate) fn are_known(&self) -> bool {
        self.word.load(Relaxed) & KNOWN != 0
    }

    /// Is the dispatcher to be told of connections that fall idle? Any context.
    pub(crate) fn tells_idle(&self) -> bool {
        self.word.load(Relaxed) & TELLS_IDLE != 0
    }

    /// What is wanted for the request with this complete head. Softirq.
    pub(crate) fn ask(
        &self,
        head: &[u8],
        parser: &HeadParser,
        hash_key: [u64; 2],
    ) -> Result<Wanted, BadHead> {
        let edition = self.edition.load(Acquire);
        if edition & 1 == 0 {
            return Ok(Wanted {
                key: target::key(head, parser)?.hash(hash_key),
                tags: Tags::NONE,
                edition,
            });
        }
        let (service, edition) = self.numbered();
        let asked = Asked::new(head, parser)?;
        let service = service.as_deref();
        let parts = service.map_or(KeyParts::DEFAULT, Service::parts);
        Ok(Wanted {
            key: parts.hash(asked.target(), head, hash_key),
            tags: service.map_or(Tags::NONE, |service| service.tags(&asked)),
            edition,
        })
    }

    /// What is wanted for a connection of HTTP/2 whose first request is this, if it could be read: of
    /// its fields nothing is known. Where the target is made of fields the client stands for it. Softirq.
    pub(crate) fn ask_http2(
        &self,
        first: Option<&Asked<'_>>,
        client: &Endpoint,
        hash_key: [u64; 2],
    ) -> Wanted {
        let (service, edition) = self.numbered();
        let service = service.as_deref();
        let parts = service.map_or(KeyParts::DEFAULT, Service::parts);
        let asked = first.unwrap_or(&Asked::UNKNOWN);
        Wanted {
            key: match first {
                Some(asked) if parts.are_of_target() => parts.hash(asked.target(), b"", hash_key),
                _ => hash_of_client(client, hash_key),
            },
            tags: service.map_or(Tags::NONE, |service| service.tags(asked)),
            edition,
        }
    }

    /// The settings with their number, under one lock.
    fn numbered(&self) -> (Option<Arc<Service>>, u32) {
        let current = self.current.lock();
        (current.clone(), self.edition.load(Relaxed))
    }

    /// The same, as if it had been asked for now: what cannot be told anew is outdated no longer.
    pub(crate) fn still(&self, wanted: Wanted) -> Wanted {
        let edition = self.edition.load(Relaxed);
        Wanted { edition, ..wanted }
    }

    /// Have the settings changed since this was asked?
    pub(crate) fn is_outdated(&self, wanted: &Wanted) -> bool {
        self.edition.load(Relaxed) != wanted.edition
    }
}
