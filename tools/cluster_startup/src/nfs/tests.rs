// SPDX-License-Identifier: GPL-2.0

//! Sharing on a machine that is none: it remembers what it is asked for, and refuses what it is told
//! to refuse.

use super::*;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

const DOCROOT: &str = "/srv/www";

#[derive(Default)]
struct State {
    exports: Vec<Export>,
    mounts: Vec<Mount>,
    places: BTreeSet<PathBuf>,
    /// Mounts of these addresses fail.
    unreachable: BTreeSet<Ipv4Addr>,
    /// Exporting to these addresses fails, and so does ending it.
    stubborn: BTreeSet<Ipv4Addr>,
    mounting: usize,
    /// Whose documents were said to be there last.
    told: NodeSet,
    no_server: bool,
    not_exportable: bool,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn clients(&self) -> Vec<String> {
        let state = self.state();
        state
            .exports
            .iter()
            .map(|export| export.client.clone())
            .collect()
    }

    fn sources(&self) -> Vec<String> {
        let state = self.state();
        state
            .mounts
            .iter()
            .map(|mount| mount.source.clone())
            .collect()
    }

    #[track_caller]
    fn wait(&self, what: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !what(self) {
            assert!(
                Instant::now() < limit,
                "{:?} {:?}",
                self.clients(),
                self.sources()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl System for Fake {
    fn document_root(&self, path: &Path) -> std::io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }

    fn ready(&self) -> Result<()> {
        match self.state().no_server {
            true => Err(Error::new("use the NFS server").detail("none runs")),
            false => Ok(()),
        }
    }

    fn exports(&self) -> Result<Vec<Export>> {
        Ok(self.state().exports.clone())
    }

    fn export(&self, path: &Path, client: Ipv4Addr, options: &str) -> Result<()> {
        let mut state = self.state();
        if state.not_exportable {
            return Err(Error::new("export").detail("does not support NFS export"));
        }
        refuse(&state, client)?;
        state.exports.push(Export {
            path: path.to_path_buf(),
            client: client.to_string(),
            options: options.split(',').map(str::to_string).collect(),
        });
        Ok(())
    }

    fn unexport(&self, path: &Path, client: Ipv4Addr) -> Result<()> {
        let mut state = self.state();
        refuse(&state, client)?;
        let before = state.exports.len();
        state
            .exports
            .retain(|export| export.path != path || export.client != client.to_string());
        assert_ne!(state.exports.len(), before, "it was exported");
        Ok(())
    }

    fn mounts(&self) -> Result<Vec<Mount>> {
        Ok(self.state().mounts.clone())
    }

    fn mount(&self, source: &str, at: &Path, options: &str) -> Result<()> {
        let mut state = self.state();
        assert!(state.places.contains(at), "{} is there", at.display());
        assert!(options.starts_with("ro,") && options.contains(",noac,lookupcache=none,soft,"));
        state.mounting += 1;
        let (server, _) = source.split_once(':').unwrap();
        if state.unreachable.contains(&server.parse().unwrap()) {
            return Err(Error::new(format!("mount {source}")).errno(libc::ETIMEDOUT));
        }
        state
            .mounts
            .push(mount(at.to_str().unwrap(), "nfs", source));
        Ok(())
    }

    fn unmount(&self, at: &Path) -> Result<()> {
        let mut state = self.state();
        let last = at.extension().and_then(|last| last.to_str()?.parse().ok());
        let told = last.is_some_and(|last| state.told.contains(NodeId(last)));
        assert!(!told, "nobody may rely on {}", at.display());
        state.mounts.retain(|mount| mount.at != at);
        Ok(())
    }

    fn make_place(&self, at: &Path) -> Result<()> {
        self.state().places.insert(at.to_path_buf());
        Ok(())
    }

    fn remove_place(&self, at: &Path) {
        self.state().places.remove(at);
    }
}

fn refuse(state: &State, client: Ipv4Addr) -> Result<()> {
    match state.stubborn.contains(&client) {
        true => Err(Error::new(format!("exportfs {client}"))),
        false => Ok(()),
    }
}

fn mount(at: &str, kind: &str, source: &str) -> Mount {
    Mount {
        at: at.into(),
        kind: kind.into(),
        source: source.into(),
    }
}

fn addr(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, last)
}

fn others(list: &[(u8, &str)]) -> Others {
    let pairs = list.iter().map(|(last, docroot)| {
        let other = Other {
            id: NodeId((*last).into()),
            docroot: docroot.to_string(),
        };
        (addr(*last), other)
    });
    pairs.collect()
}

/// Lines that were logged.
type Lines = Arc<Mutex<Vec<String>>>;

fn shares(fake: &Fake) -> (Result<Shares<Fake>>, Lines) {
    let lines = Lines::default();
    let kept = Arc::clone(&lines);
    let log: Log = Arc::new(move |line: &str| kept.lock().unwrap().push(line.to_string()));
    let told = fake.clone();
    let telling: Telling = Arc::new(move |mounted| {
        let mut state = told.state();
        // What is said to be there is, also while something is taken away.
        let is_there = |last: u16| {
            let server = format!("10.1.0.{last}:");
            state.mounts.iter().any(|m| m.source.starts_with(&server))
        };
        assert!((1..=64).all(|n| !mounted.contains(NodeId(n)) || is_there(n)));
        state.told = mounted;
    });
    let new = Shares::new(Path::new(DOCROOT), fake.clone(), log, telling);
    (new, lines)
}

/// Runs shares in a thread while `body` goes on, and ends them.
fn running(fake: &Fake, body: impl FnOnce(&Shares<Fake>, &Lines)) {
    let (shares, lines) = shares(fake);
    let shares = shares.unwrap();
    thread::scope(|scope| {
        scope.spawn(|| shares.run());
        let _ending = Ending(&shares);
        body(&shares, &lines);
    });
}

#[test]
fn what_is_shared_follows_who_is_there() {
    let fake = Fake::default();
    running(&fake, |shares, _| {
        shares.set(&others(&[(2, "/var/www"), (3, DOCROOT)]));
        fake.wait(|fake| fake.sources() == ["10.1.0.2:/var/www", "10.1.0.3:/srv/www"]);
        assert_eq!(fake.clients(), ["10.1.0.2", "10.1.0.3"]);
        assert_eq!(fake.state().mounts[0].at, Path::new("/srv/www/10.1.0.2"));
        // One goes, one comes, one has moved its documents.
        shares.set(&others(&[(3, "/other"), (4, DOCROOT)]));
        fake.wait(|fake| fake.sources() == ["10.1.0.3:/other", "10.1.0.4:/srv/www"]);
        assert_eq!(fake.clients(), ["10.1.0.3", "10.1.0.4"]);
        assert!(!fake.state().places.contains(Path::new("/srv/www/10.1.0.2")));
    });
    // Nothing is left at the end.
    let state = fake.state();
    assert!(state.exports.is_empty() && state.mounts.is_empty() && state.places.is_empty());
}

/// Bits of the nodes with these numbers.
fn nodes(list: &[u16]) -> NodeSet {
    list.iter()
        .fold(NodeSet::EMPTY, |all, n| all.with(NodeId(*n)))
}

#[test]
fn what_is_mounted_is_told() {
    let fake = Fake::default();
    fake.state().unreachable.insert(addr(3));
    running(&fake, |shares, _| {
        shares.set(&others(&[(2, DOCROOT), (3, DOCROOT), (4, DOCROOT)]));
        fake.wait(|fake| fake.state().told == nodes(&[2, 4]));
        fake.state().unreachable.clear();
        fake.wait(|fake| fake.state().told == nodes(&[2, 3, 4]));
        // Whoever has forgotten it hears it again.
        fake.state().told = NodeSet::EMPTY;
        shares.set(&others(&[(2, "/other"), (4, DOCROOT)]));
        fake.wait(|fake| fake.state().told == nodes(&[2, 4]));
    });
    assert_eq!(fake.state().told, NodeSet::EMPTY);
}

#[test]
fn what_a_killed_process_left_is_taken_away_and_what_is_not_ours_stays() {
    let fake = Fake::default();
    let (first, _) = shares(&fake);
    first
        .unwrap()
        .bring_about(&others(&[(2, DOCROOT), (3, DOCROOT)]), &|| true);
    assert_eq!(fake.clients().len(), 2);
    let strange = [
        mount("/srv/www/media", "nfs", "10.1.0.9:/media"),
        mount("/srv/www/10.1.0.7", "tmpfs", "none"),
        mount("/srv/www/10.1.0.8", "nfs", "10.1.0.9:/x"),
        mount("/mnt/10.1.0.2", "nfs", "10.1.0.2:/srv/www"),
    ];
    fake.state().mounts.extend(strange.clone());
    let theirs = Export {
        path: DOCROOT.into(),
        client: "10.1.0.4".into(),
        options: vec!["rw".into(), "fsid=0".into()],
    };
    fake.state().exports.insert(0, theirs.clone());
    let (second, lines) = shares(&fake);
    second.unwrap();
    assert_eq!(fake.state().mounts, strange);
    assert_eq!(fake.state().exports, [theirs]);
    assert_eq!(lines.lock().unwrap().len(), 2, "{lines:?}");
}

#[test]
fn what_fails_is_said_once_and_tried_again() {
    let fake = Fake::default();
    fake.state().unreachable.insert(addr(2));
    running(&fake, |shares, lines| {
        shares.set(&others(&[(2, DOCROOT), (3, DOCROOT)]));
        // The other one is not kept waiting.
        fake.wait(|fake| fake.sources() == ["10.1.0.3:/srv/www"]);
        fake.wait(|fake| fake.state().mounting >= 3);
        let said = lines.lock().unwrap().clone();
        let failures = said
            .iter()
            .filter(|line| line.contains("ETIMEDOUT"))
            .count();
        assert_eq!(failures, 1, "{said:?}");
        fake.state().unreachable.clear();
        fake.wait(|fake| fake.sources().len() == 2);
    });
    assert!(fake.state().mounts.is_empty());
}

#[test]
fn an_export_that_fails_leaves_the_others_alone() {
    let fake = Fake::default();
    let shares = shares(&fake).0.unwrap();
    let failures = |wanted: &Others| -> Vec<Place> {
        let failures = shares.bring_about(wanted, &|| true);
        failures.into_iter().map(|(place, _)| place).collect()
    };
    let wanted = others(&[(2, DOCROOT), (3, DOCROOT), (4, DOCROOT)]);
    fake.state().stubborn.insert(addr(2));
    assert_eq!(failures(&wanted), [Place::Export(addr(2))]);
    assert_eq!(fake.clients(), ["10.1.0.3", "10.1.0.4"]);
    fake.state().stubborn = [addr(3)].into();
    let nobody = Others::new();
    assert_eq!(failures(&nobody), [Place::Export(addr(3))]);
    assert_eq!(fake.clients(), ["10.1.0.3"]);
    fake.state().stubborn.clear();
    assert_eq!(failures(&nobody), []);
    assert!(fake.clients().is_empty());
}

#[test]
fn a_machine_that_cannot_share_is_refused_at_the_start() {
    let refused = |spoil: fn(&mut State)| {
        let fake = Fake::default();
        spoil(&mut fake.state());
        shares(&fake).0.err().unwrap().to_string()
    };
    assert!(refused(|state| state.no_server = true).contains("none runs"));
    assert!(refused(|state| state.not_exportable = true).contains("NFS export"));
    for bad in [
        "/",
        "relative",
        "/with blank",
        "/with:colon",
        "/with\"quote",
        "/a,b",
    ] {
        let log: Log = Arc::new(|_: &str| {});
        let error = Shares::new(Path::new(bad), Fake::default(), log, Arc::new(|_| {}))
            .err()
            .unwrap();
        assert!(error.to_string().contains("--nfs"), "{bad}: {error}");
    }
}

#[test]
fn the_mark_is_the_same_in_each_run_and_other_for_another_directory() {
    let fake = Fake::default();
    let mark = |path: &str| {
        let log: Log = Arc::new(|_: &str| {});
        Shares::new(Path::new(path), fake.clone(), log, Arc::new(|_| {}))
            .unwrap()
            .mark
    };
    assert_eq!(mark("/srv/www"), mark("/srv/www"));
    assert_ne!(mark("/srv/www"), mark("/srv/www2"));
    assert_eq!(mark("/srv/www").len(), 32);
}
