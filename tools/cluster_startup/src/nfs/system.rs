// SPDX-License-Identifier: GPL-2.0

//! What sharing asks of the machine, as a trait, so that it can be tried without NFS. [`Linux`] is the
//! implementation: `exportfs` and `mount.nfs`, and the kernel's own tables.

use super::program::Program;
use super::table::{self, Export, Mount};
use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Exporting asks nobody.
const EXPORT_LIMIT: Duration = Duration::from_secs(5);
/// Mounting asks the other machine: for its ports, for the mount, and for the root.
const MOUNT_LIMIT: Duration = Duration::from_secs(10);
/// How often what uses a mount is interrupted before the mount is detached from it, and how long it has
/// between these to give up.
const FORCED: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(100);
/// Where mounts are made.
const HIDDEN: &str = "/run/lard";
/// Whether or not it is used; what is not a mount any more is not looked for elsewhere.
const DETACH: MntFlags = MntFlags::MNT_DETACH.union(MntFlags::UMOUNT_NOFOLLOW);
/// How many threads the NFS server of this network namespace has.
const THREADS: &str = "/proc/fs/nfsd/threads";
/// Which versions it speaks.
const VERSIONS: &str = "/proc/fs/nfsd/versions";

/// The machine, as sharing sees it.
pub trait System: Send + Sync {
    /// The directory at `path`, under the name that others can use.
    fn document_root(&self, path: &Path) -> io::Result<PathBuf>;
    /// Does an NFS server run here?
    fn ready(&self) -> Result<()>;
    /// All exports.
    fn exports(&self) -> Result<Vec<Export>>;
    /// Exports a directory to one machine.
    fn export(&self, path: &Path, client: Ipv4Addr, options: &str) -> Result<()>;
    /// Takes that back.
    fn unexport(&self, path: &Path, client: Ipv4Addr) -> Result<()>;
    /// All mounts.
    fn mounts(&self) -> Result<Vec<Mount>>;
    /// Mounts `source` by NFS.
    fn mount(&self, source: &str, at: &Path, options: &str) -> Result<()>;
    /// Takes a mount away, whether or not it is used and whether or not its server lives.
    fn unmount(&self, at: &Path) -> Result<()>;
    /// Has an empty directory there.
    fn make_place(&self, at: &Path) -> Result<()>;
    /// Removes it, if it is empty.
    fn remove_place(&self, at: &Path);
}

/// The real one.
pub struct Linux {
    exportfs: Program,
    mount: Program,
}

impl Linux {
    /// If the programs are there.
    pub fn new() -> Result<Self> {
        Ok(Linux {
            exportfs: Program::find("exportfs", "nfs-kernel-server")?,
            mount: Program::find("mount.nfs", "nfs-common")?,
        })
    }
}

/// Who may write in a document root could put a link to any directory in the place of the empty one while
/// mount.nfs, which is given a name, asks the other machine. So it mounts where only root gets, and the
/// mount is shown in the directory that was opened before, whatever has its name now.
fn hidden_for(at: &Path) -> PathBuf {
    // One for each document root, which stays: nodes of one machine may share the directory of these, but
    // not the mounts. A document root has no colon.
    let root = at.parent().unwrap_or(at).display().to_string();
    Path::new(HIDDEN).join(root.replace('/', ":"))
}

/// The directory itself, no link to one.
fn open_directory(at: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(at)
}

/// Shows the mount in the directory `place`, which has to be `at` still: what is mounted on cannot be
/// renamed any more.
fn show(hidden: &Path, place: &File, at: &Path) -> io::Result<()> {
    let link = format!("/proc/self/fd/{}", place.as_raw_fd());
    let none = None::<&str>;
    mount(Some(hidden), link.as_str(), none, MsFlags::MS_BIND, none)?;
    let now = fs::read_link(&link)?;
    if now == at {
        return Ok(());
    }
    take_away(&now);
    Err(io::Error::from_raw_os_error(libc::ENOENT))
}

fn take_away(hidden: &Path) {
    // There is usually none.
    let _ = umount2(hidden, DETACH);
}

fn client_and_path(client: Ipv4Addr, path: &Path) -> String {
    format!("{client}:{}", path.display())
}

impl System for Linux {
    fn document_root(&self, path: &Path) -> io::Result<PathBuf> {
        let path = fs::canonicalize(path)?;
        match path.is_dir() {
            true => Ok(path),
            false => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
        }
    }

    fn ready(&self) -> Result<()> {
        let remedy = "start it (systemctl start nfs-server) with version 3 ([nfsd] vers3=y in \
                      /etc/nfs.conf, which is the default), and start this program again";
        let failed = || Error::new("use the NFS server of this machine").remedy(remedy);
        let threads = fs::read_to_string(THREADS).unwrap_or_default();
        if !threads.trim().parse::<u32>().is_ok_and(|count| count > 0) {
            return Err(failed().detail(format!(
                "none runs ({THREADS} says how many threads it has)"
            )));
        }
        let versions = fs::read_to_string(VERSIONS).unwrap_or_default();
        match versions.split_whitespace().any(|version| version == "+3") {
            true => Ok(()),
            false => Err(failed().detail("it does not speak version 3")),
        }
    }

    fn exports(&self) -> Result<Vec<Export>> {
        let text = self.exportfs.run(&["-s"], EXPORT_LIMIT)?;
        Ok(table::exports(&text))
    }

    fn export(&self, path: &Path, client: Ipv4Addr, options: &str) -> Result<()> {
        // What /etc/exports says of others is left as it is.
        let place = client_and_path(client, path);
        self.exportfs
            .run(&["-i", "-o", options, &place], EXPORT_LIMIT)
            .map(drop)
            .map_err(|error| {
                // What cannot be exported is in the table all the same.
                let _ = self.unexport(path, client);
                error.remedy(
                    "the document root has to be on a file system that NFS can export, as ext4, \
                     XFS, Btrfs or tmpfs; overlays cannot be",
                )
            })
    }

    fn unexport(&self, path: &Path, client: Ipv4Addr) -> Result<()> {
        let place = client_and_path(client, path);
        self.exportfs.run(&["-u", &place], EXPORT_LIMIT).map(drop)
    }

    fn mounts(&self) -> Result<Vec<Mount>> {
        const FILE: &str = "/proc/self/mountinfo";
        fs::read_to_string(FILE)
            .map(|text| table::mounts(&text))
            .map_err(|error| Error::io(format!("read {FILE}"), &error))
    }

    fn mount(&self, source: &str, at: &Path, options: &str) -> Result<()> {
        let failed = format!("mount {source} at {}", at.display());
        let cannot = |error: io::Error| Error::io(&failed, &error);
        let place = open_directory(at).map_err(cannot)?;
        let hidden = hidden_for(at);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&hidden)
            .map_err(cannot)?;
        take_away(&hidden);
        let name = hidden.display().to_string();
        let mounted = self
            .mount
            .run(&[source, name.as_str(), "-o", options], MOUNT_LIMIT)
            .and_then(|_| show(&hidden, &place, at).map_err(cannot));
        // Also where the program was killed, perhaps after it had mounted.
        take_away(&hidden);
        mounted
    }

    fn unmount(&self, at: &Path) -> Result<()> {
        // Not by umount.nfs, which would tell the server and wait for its answer. MNT_FORCE ends what
        // waits for a server that is gone; a read asks once more when its reading ahead has failed, and
        // what is asked for after MNT_DETACH cannot be ended any more.
        for _ in 0..FORCED {
            match umount2(at, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW) {
                Err(Errno::EBUSY) => thread::sleep(BETWEEN),
                Err(_) => break,
                Ok(()) => return Ok(()),
            }
        }
        umount2(at, MntFlags::MNT_FORCE | DETACH)
            .map_err(|errno| Error::new(format!("unmount {}", at.display())).errno(errno as i32))
    }

    fn make_place(&self, at: &Path) -> Result<()> {
        let failed = format!("use {} for another node's documents", at.display());
        let cannot = |error: io::Error| Error::io(&failed, &error);
        match fs::create_dir(at) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(cannot(error)),
        }
        let is_directory = fs::symlink_metadata(at).map_err(cannot)?.is_dir();
        let is_empty = is_directory && fs::read_dir(at).map_err(cannot)?.next().is_none();
        match is_empty {
            true => Ok(()),
            false => Err(Error::new(failed.as_str())
                .detail("it is there and is no empty directory")
                .remedy("names of that form are the cluster's: give what is there another name")),
        }
    }

    fn remove_place(&self, at: &Path) {
        // One with something in it stays.
        let _ = fs::remove_dir(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_directory_and_no_link_to_one() {
        let root = std::env::temp_dir().join(format!("lard-place-{}", std::process::id()));
        fs::create_dir_all(root.join("10.1.0.3")).unwrap();
        std::os::unix::fs::symlink("/", root.join("10.1.0.4")).unwrap();
        assert!(open_directory(&root.join("10.1.0.3")).is_ok());
        assert!(open_directory(&root.join("10.1.0.4")).is_err());
        fs::remove_dir_all(&root).unwrap();
        let hidden = |at: &str| hidden_for(Path::new(at));
        assert_eq!(hidden("/srv/www/10.1.0.3"), Path::new("/run/lard/:srv:www"));
        assert_ne!(hidden("/srv/10.1.0.3"), hidden("/srv/www/10.1.0.3"));
    }
}
