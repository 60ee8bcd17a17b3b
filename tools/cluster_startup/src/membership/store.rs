// SPDX-License-Identifier: GPL-2.0

//! The dispatcher's file: cluster number, hash key and node numbers, so that a restart of its
//! process, or of its machine, changes nothing for the others.

use super::roster::Saved;
use crate::error::{Error, Result};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddrV4;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file with all remembered numbers is a hundredth of this.
const MAX_FILE: u64 = 1 << 20;

/// Where the dispatcher at one address keeps what should last.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// The file for the dispatcher at `place`, in `directory`. Nodes in the namespaces of one
    /// machine share the directory, so the address is in the name.
    pub fn new(directory: &Path, place: SocketAddrV4) -> Self {
        Store {
            path: directory.join(format!("dispatcher-{}-{}.json", place.ip(), place.port())),
        }
    }

    /// What was kept, if anything.
    pub fn load(&self) -> Result<Option<Saved>> {
        let what = || format!("read {}", self.path.display());
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(what(), &error)),
        };
        let mut text = String::new();
        file.take(MAX_FILE)
            .read_to_string(&mut text)
            .map_err(|error| Error::io(what(), &error))?;
        serde_json::from_str(&text).map(Some).map_err(|error| {
            Error::new(what())
                .detail(error.to_string())
                .remedy("delete the file to start a new cluster")
        })
    }

    /// Keeps `saved`, whole or not at all, also where the machine goes down. The key in it is nobody
    /// else's business.
    pub fn save(&self, saved: &Saved) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let fresh = self.path.with_extension("json.new");
        // What an earlier process left, or somebody has put there, has a mode and perhaps an end of its own.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(saved)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        // The new name is in the directory, which is written for itself.
        fs::File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::os::unix::fs::{symlink, PermissionsExt};

    #[test]
    fn what_is_saved_is_loaded_again() {
        let directory = std::env::temp_dir().join(format!("lard-store-{}", std::process::id()));
        let place = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7021);
        let store = Store::new(&directory, place);
        assert_eq!(store.load().unwrap(), None);
        let saved = Saved {
            cluster_id: u64::MAX,
            hash_key: [0xa5; 16],
            id: 1,
            known: BTreeMap::from([(place, 2)]),
        };
        store.save(&saved).unwrap();
        assert_eq!(store.load().unwrap(), Some(saved.clone()));
        // Neither the mode of what an earlier process left is taken over, nor is a link followed.
        let (fresh, elsewhere) = (directory.join("left"), directory.join("elsewhere"));
        fs::write(&elsewhere, "kept").unwrap();
        fs::write(&fresh, "{").unwrap();
        fs::rename(&fresh, store.path.with_extension("json.new")).unwrap();
        store.save(&saved).unwrap();
        let mode = fs::metadata(&store.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        symlink(&elsewhere, store.path.with_extension("json.new")).unwrap();
        store.save(&saved).unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"kept");
        assert_eq!(store.load().unwrap(), Some(saved));
        fs::write(&store.path, "{").unwrap();
        assert!(store.load().unwrap_err().to_string().contains("delete"));
        fs::remove_dir_all(&directory).unwrap();
    }
}
