// SPDX-License-Identifier: GPL-2.0

//! How many requests wait for the disk that the web server reads from.
//!
//! The block layer counts them for each device, and `/sys/dev/block/MAJOR:MINOR/stat` shows the count
//! in its ninth field: from where a request is made to where it is done, so also those that an I/O
//! scheduler holds back. `inflight` in the same directory leaves these out. Of a partition the whole
//! disk is looked at: its queue is what a request waits in, whoever put the others there.

use crate::error::{Error, Result};
use crate::genl::Lard;
use crate::membership::node::Log;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often the module is told. It reports to the dispatcher every `ping-interval-ms`.
const INTERVAL: Duration = Duration::from_millis(250);
/// Where the kernel lists block devices by number.
const DEVICES: &str = "/sys/dev/block";
/// The field of `stat` that is meant, from 0.
const IN_FLIGHT: usize = 8;

/// The statistics of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk(PathBuf);

impl Disk {
    /// The disk that holds what is at `path`, or the block device that `path` is.
    pub fn of(path: &Path) -> Result<Self> {
        let failed = format!("find the disk of {}", path.display());
        let metadata = fs::metadata(path).map_err(|error| Error::io(&failed, &error))?;
        let device = match metadata.file_type().is_block_device() {
            true => metadata.rdev(),
            false => metadata.dev(),
        };
        let (major, minor) = (libc::major(device), libc::minor(device));
        if major == 0 {
            return Err(Error::new(failed)
                .detail(
                    "its file system is on no block device of its own, as an overlay, Btrfs, tmpfs \
                     or NFS is not",
                )
                .remedy("name the block device itself, as --disk /dev/sda, or leave --disk out"));
        }
        Self::at(Path::new(DEVICES), major, minor).map_err(|error| {
            Error::io(&failed, &error).remedy("/sys has to be mounted, and to show block devices")
        })
    }

    /// The disk with this number among `devices`.
    fn at(devices: &Path, major: u32, minor: u32) -> std::io::Result<Self> {
        // A link to the device's own directory, which for a partition is in that of its disk.
        let device = fs::canonicalize(devices.join(format!("{major}:{minor}")))?;
        let disk = match device.parent() {
            Some(disk) if device.join("partition").exists() => disk.to_path_buf(),
            _ => device,
        };
        let disk = Disk(disk.join("stat"));
        disk.queue().map(|_| disk)
    }

    /// Requests that are made and not done.
    fn queue(&self) -> std::io::Result<u32> {
        let text = fs::read_to_string(&self.0)?;
        let field = text.split_ascii_whitespace().nth(IN_FLIGHT);
        field
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| std::io::Error::other("the statistics of the disk are not readable"))
    }

    /// Tells the module how long the queue is until `stop`.
    pub fn watch(&self, lard: &Lard, log: &Log, stop: &AtomicBool) {
        let mut said = false;
        while !stop.load(Ordering::Relaxed) {
            match self.queue() {
                // The module refuses it before the node is attached and after it is gone.
                Ok(queue) => drop(lard.set_disk_queue(queue)),
                Err(error) if !said => {
                    log(&format!("{} cannot be read: {error}", self.0.display()));
                    let _ = lard.set_disk_queue(0);
                    said = true;
                }
                Err(_) => {}
            }
            thread::sleep(INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "    412      3    35816      119      0  0  0  0  7  121  119  0 0 0 0 0 0\n";

    #[test]
    fn a_partition_stands_for_its_disk_and_the_count_must_be_there() {
        let sys = std::env::temp_dir().join(format!("lard-disk-{}", std::process::id()));
        let (disk, numbers) = (sys.join("devices/sda"), sys.join("numbers"));
        fs::create_dir_all(disk.join("sda1")).unwrap();
        fs::create_dir_all(&numbers).unwrap();
        fs::write(disk.join("stat"), STAT).unwrap();
        fs::write(disk.join("sda1/stat"), STAT.replace(" 7 ", " 2 ")).unwrap();
        fs::write(disk.join("sda1/partition"), "1\n").unwrap();
        std::os::unix::fs::symlink("../devices/sda", numbers.join("8:0")).unwrap();
        std::os::unix::fs::symlink("../devices/sda/sda1", numbers.join("8:1")).unwrap();
        let whole = Disk::at(&numbers, 8, 0).unwrap();
        assert_eq!(whole.queue().unwrap(), 7);
        assert_eq!(Disk::at(&numbers, 8, 1).unwrap(), whole);
        assert!(Disk::at(&numbers, 8, 2).is_err());
        fs::write(disk.join("stat"), "1 2 3\n").unwrap();
        assert!(Disk::at(&numbers, 8, 0).is_err());
        fs::remove_dir_all(&sys).unwrap();
    }

    #[test]
    fn what_has_no_disk_is_said_with_a_way_out() {
        // Never on a block device.
        let error = Disk::of(Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("no block device"), "{error}");
        assert!(error.contains("--disk /dev/"), "{error}");
        let error = Disk::of(Path::new("/no/such/place")).unwrap_err();
        assert!(error.is(libc::ENOENT));
    }
}
