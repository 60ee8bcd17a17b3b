// SPDX-License-Identifier: GPL-2.0

//! Documents of the other back-ends, for back-end forwarding: the node's own document root is exported
//! to each of them, read-only, and each of theirs is mounted below it, in a directory of the name of its
//! internal address.
//!
//! Membership says who is there ([`Shares::set`]); a thread of its own ([`Shares::run`]) makes what is
//! so of it, because mounting may take long. It compares with what the system says and not with what it
//! has done, so that what a killed process left, or somebody took away, makes no difference.
//!
//! Locks: one, around what is wanted; nothing is called while it is held.

pub mod program;
pub mod system;
pub mod table;

use crate::error::{Error, Result};
use crate::membership::message::is_docroot;
use crate::membership::node::Log;
use lard_core::addr::NodeId;
use lard_core::policy::NodeSet;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use system::System;
use table::{Export, Mount};

/// The others, by their internal addresses.
pub type Others = BTreeMap<Ipv4Addr, Other>;

/// Another node that shares its documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its number.
    pub id: NodeId,
    /// Its document root.
    pub docroot: String,
}

/// Who wants to know whose documents are mounted; told again and again, also if nothing has changed.
pub type Telling = Arc<dyn Fn(NodeSet) + Send + Sync>;

/// How the document root is exported, before the number of its file system.
///
/// Nobody may write, and without subtree checks file handles stay good when files are renamed. Mounts
/// below the root are not crossed, since neither `crossmnt` nor `nohide` is said.
const EXPORT_OPTIONS: &str = "ro,no_subtree_check,sec=sys";
/// How the others' are mounted.
///
/// Version 3 has no state: a server that is restarted has no grace period in which nothing can be
/// opened, there are no delegations, with which a client of version 4 caches attributes whatever
/// `noac` says, and no names of clients, which two machines of one host name would share. `noac` and
/// `lookupcache=none` have every name and attribute asked for; data is cached all the same, see
/// lard-persistent.rst. A request to a machine that is gone fails when the mount is taken away, which is
/// when the node is missed, or after 15 + 15 seconds; a disk that has much to do may take some of these.
const MOUNT_OPTIONS: &str = "ro,nosuid,nodev,noexec,vers=3,proto=tcp,mountproto=tcp,nolock,noacl,\
                             noac,lookupcache=none,soft,timeo=150,retrans=1,retry=0";
/// An address that no machine has (RFC 5737).
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Before what failed is tried again: the other node may be about to export.
const RETRY: Duration = Duration::from_secs(2);
/// How often it is looked whether all is still as it should be.
const CHECK: Duration = Duration::from_secs(15);

/// What is shared with the others, and what is wanted of them.
pub struct Shares<S> {
    docroot: PathBuf,
    /// Marks the exports of this program: the number of the file system, in hexadecimal digits.
    mark: String,
    system: S,
    log: Log,
    telling: Telling,
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Default)]
struct Wanted {
    others: Others,
    /// Counts changes, so that one is not missed while another is dealt with.
    version: u64,
    end: bool,
}

impl<S: System> Shares<S> {
    /// Shares of the document root at `path`, if this machine can have any; what an earlier process
    /// left is taken away.
    pub fn new(path: &Path, system: S, log: Log, telling: Telling) -> Result<Self> {
        let failed = format!("share the documents in {}", path.display());
        let docroot = system
            .document_root(path)
            .map_err(|error| Error::io(&failed, &error))?;
        let Some(text) = docroot.to_str().filter(|text| is_docroot(text)) else {
            return Err(Error::new(failed)
                .detail("this cannot be the name of a document root that others mount")
                .remedy(
                    "--nfs takes a directory other than /, of up to 200 letters, digits and \
                     / - _ . + @",
                ));
        };
        let digest = hex::encode(Sha256::digest(text));
        let shares = Shares {
            // "lard", and what is the same in each run and for each of the others.
            mark: "6c617264".to_string() + digest.get(..24).unwrap_or_default(),
            docroot,
            system,
            log,
            telling,
            wanted: Mutex::default(),
            changed: Condvar::new(),
        };
        shares.system.ready()?;
        let nobody = Others::new();
        if let Some((_, error)) = shares.bring_about(&nobody, &|| true).into_iter().next() {
            return Err(error);
        }
        shares.try_export()?;
        Ok(shares)
    }

    /// Where others find the documents.
    pub fn docroot(&self) -> String {
        self.docroot.to_string_lossy().into_owned()
    }

    /// Says whose documents are wanted, from now on.
    pub fn set(&self, others: &Others) {
        let mut wanted = self.lock();
        wanted.others.clone_from(others);
        wanted.version = wanted.version.wrapping_add(1);
        self.changed.notify_all();
    }

    /// Has [`Shares::run`] take everything away and return.
    fn end(&self) {
        self.lock().end = true;
        self.changed.notify_all();
    }

    /// Makes what is so of what is wanted, until the end.
    pub fn run(&self) {
        let mut said: BTreeMap<Place, String> = BTreeMap::new();
        loop {
            let (others, version, end) = {
                let wanted = self.lock();
                match wanted.end {
                    true => (Others::new(), wanted.version, true),
                    false => (wanted.others.clone(), wanted.version, false),
                }
            };
            let current = || {
                let wanted = self.lock();
                wanted.version == version && wanted.end == end
            };
            let failures = self.bring_about(&others, &current);
            let pause = if failures.is_empty() { CHECK } else { RETRY };
            for (place, error) in &failures {
                let text = error.to_string();
                if said.get(place) != Some(&text) {
                    (self.log)(&text);
                    said.insert(place.clone(), text);
                }
            }
            said.retain(|place, _| failures.iter().any(|(failed, _)| failed == place));
            if end {
                return;
            }
            let wanted = self.lock();
            let unchanged = |wanted: &mut Wanted| wanted.version == version && !wanted.end;
            drop(self.changed.wait_timeout_while(wanted, pause, unchanged));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn export_options(&self) -> String {
        format!("{EXPORT_OPTIONS},fsid={}", self.mark)
    }

    /// Whether the document root can be exported is known only once it has been.
    fn try_export(&self) -> Result<()> {
        self.system
            .export(&self.docroot, NOBODY, &self.export_options())
            .and_then(|()| self.system.unexport(&self.docroot, NOBODY))
    }

    /// One pass over everything, for as long as this is what is wanted: what must go goes first. What
    /// has failed, and why.
    fn bring_about(&self, others: &Others, current: &dyn Fn() -> bool) -> Vec<(Place, Error)> {
        let mut failures = Vec::new();
        let mut note = |place: Place, result: Result<()>| {
            if let Err(error) = result {
                failures.push((place, error));
            }
        };
        let mounted = self.remove_mounts(others, &mut note);
        let exported = self.match_exports(others, &mut note);
        note(Place::Exports, exported);
        let mut mounted = match mounted {
            Ok(mounted) => mounted,
            Err(error) => {
                note(Place::Mounts, Err(error));
                return failures;
            }
        };
        for (addr, other) in others {
            // Each may take long.
            if mounted.contains(other.id) || !current() {
                continue;
            }
            let result = self.mount(*addr, &other.docroot);
            if result.is_ok() {
                mounted.insert(other.id);
                (self.telling)(mounted);
            }
            note(Place::Mount(*addr), result);
        }
        failures
    }

    /// Unmounts what is not wanted, or not as it is, once it is told that it is not there; whose mounts
    /// are right.
    fn remove_mounts(
        &self,
        others: &Others,
        note: &mut impl FnMut(Place, Result<()>),
    ) -> Result<NodeSet> {
        let mut right = NodeSet::EMPTY;
        let mut wrong = Vec::new();
        for mount in self.system.mounts()? {
            let Some(addr) = self.addr_of(&mount) else {
                continue;
            };
            match others.get(&addr) {
                Some(other) if source(addr, &other.docroot) == mount.source => {
                    right.insert(other.id);
                }
                _ => wrong.push((addr, mount)),
            }
        }
        (self.telling)(right);
        for (addr, mount) in wrong {
            let result = self.system.unmount(&mount.at);
            if result.is_ok() {
                self.system.remove_place(&mount.at);
                (self.log)(&format!("{} is mounted no more", mount.source));
            }
            note(Place::Mount(addr), result);
        }
        Ok(right)
    }

    /// The address whose documents a mount has, if it is one of this program: NFS, in a directory of
    /// the document root that has the name of the server's address.
    fn addr_of(&self, mount: &Mount) -> Option<Ipv4Addr> {
        let name = mount.at.strip_prefix(&self.docroot).ok()?.to_str()?;
        let addr: Ipv4Addr = name.parse().ok()?;
        let (server, _) = mount.source.split_once(':')?;
        (mount.is_nfs() && server == name).then_some(addr)
    }

    /// Exports to whom it is wanted and to nobody else; one that fails leaves the others alone.
    fn match_exports(
        &self,
        others: &Others,
        note: &mut impl FnMut(Place, Result<()>),
    ) -> Result<()> {
        let own = |export: &Export| export.has_number(&self.mark);
        let exports: Vec<Export> = self.system.exports()?.into_iter().filter(own).collect();
        let mut there = BTreeSet::new();
        for export in &exports {
            let Ok(addr) = export.client.parse::<Ipv4Addr>() else {
                continue;
            };
            if others.contains_key(&addr) {
                there.insert(addr);
            } else {
                note(
                    Place::Export(addr),
                    self.system.unexport(&self.docroot, addr),
                );
            }
        }
        for addr in others.keys().filter(|addr| !there.contains(addr)) {
            let options = self.export_options();
            let result = self.system.export(&self.docroot, *addr, &options);
            note(Place::Export(*addr), result);
        }
        Ok(())
    }

    fn mount(&self, addr: Ipv4Addr, docroot: &str) -> Result<()> {
        let (source, at) = (source(addr, docroot), self.docroot.join(addr.to_string()));
        self.system.make_place(&at)?;
        self.system.mount(&source, &at, MOUNT_OPTIONS)?;
        (self.log)(&format!("{source} is mounted at {}", at.display()));
        Ok(())
    }
}

/// Ends shares where it is dropped, so that their thread is not waited for in vain.
pub struct Ending<'a, S: System>(pub &'a Shares<S>);

impl<S: System> Drop for Ending<'_, S> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What a failure belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// The list of them.
    Mounts,
    Mount(Ipv4Addr),
    /// The list of them.
    Exports,
    Export(Ipv4Addr),
}

fn source(addr: Ipv4Addr, docroot: &str) -> String {
    format!("{addr}:{docroot}")
}

#[cfg(test)]
mod tests;
