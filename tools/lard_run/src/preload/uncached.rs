// SPDX-License-Identifier: GPL-2.0

//! Documents of other nodes, mounted in `DOCROOT/ADDRESS`, are read past this machine's page cache.
//!
//! Otherwise a file that this node fetches from another one would be in the memory of both, which is
//! what back-end forwarding is to avoid, and no option of an NFS mount prevents it. A file opened with
//! O_DIRECT is never in the page cache; on NFS it can be read at any place and into any buffer, and
//! also by sendfile(2) and splice(2). Only what is mapped goes through the page cache all the same.

use super::real;
use libc::{c_char, c_int, mode_t};
use std::ffi::CStr;
use std::net::Ipv4Addr;
use std::sync::OnceLock;

/// Octets in the name of a document root.
const ROOM: usize = 256;

/// The document root, and its length; in here because the environment may be cleared.
static DOCROOT: OnceLock<([u8; ROOM], usize)> = OnceLock::new();

/// Begins to look at what is opened.
pub(crate) fn enable(docroot: &[u8]) {
    let mut room = [0; ROOM];
    if let Some(place) = room.get_mut(..docroot.len()) {
        place.copy_from_slice(docroot);
        let _ = DOCROOT.set((room, docroot.len()));
    }
}

/// Is this a file in the directory of another node?
fn is_elsewhere(path: &[u8], docroot: &[u8]) -> bool {
    let below = path
        .strip_prefix(docroot)
        .and_then(|rest| rest.strip_prefix(b"/"));
    let Some(below) = below else { return false };
    let mut parts = below.splitn(2, |&octet| octet == b'/');
    let name = parts.next().and_then(|name| std::str::from_utf8(name).ok());
    name.is_some_and(|name| name.parse::<Ipv4Addr>().is_ok())
        && parts.next().is_some_and(|rest| !rest.is_empty())
}

/// The flags with which a file is opened; other than the given ones, if it is to be read directly.
fn flags_for(path: *const c_char, flags: c_int) -> c_int {
    let reads_data = flags & (libc::O_ACCMODE | libc::O_PATH | libc::O_DIRECTORY) == libc::O_RDONLY;
    let Some((room, length)) = DOCROOT.get().filter(|_| reads_data && !path.is_null()) else {
        return flags;
    };
    // SAFETY: the caller of open(2) promises a terminated string.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    match is_elsewhere(path, room.get(..*length).unwrap_or_default()) {
        true => flags | libc::O_DIRECT,
        false => flags,
    }
}

/// Opens with other flags first; where these are not possible, as for a directory, with the given ones.
fn open_as(path: *const c_char, flags: c_int, open: impl Fn(c_int) -> c_int) -> c_int {
    let wanted = flags_for(path, flags);
    let fd = open(wanted);
    if fd < 0 && wanted != flags && real::errno() == libc::EINVAL {
        return open(flags);
    }
    fd
}

// The C library declares these with an ellipsis behind the flags, and looks at the mode only where a
// file may be made. In every calling convention of Linux on which the module runs an argument that is
// not there is what its register happens to hold.

/// Opens a file.
///
/// # Safety
///
/// As open(2).
#[no_mangle]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller promises what open(2) demands.
    open_as(path, flags, |flags| unsafe {
        real::open(path, flags, mode)
    })
}

/// Opens a file, with sizes of 64 bits.
///
/// # Safety
///
/// As open(2).
#[no_mangle]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller promises what open(2) demands.
    open_as(path, flags, |flags| unsafe {
        real::open64(path, flags, mode)
    })
}

/// Opens a file; a path that does not begin at a directory's descriptor is looked at.
///
/// # Safety
///
/// As openat(2).
#[no_mangle]
pub unsafe extern "C" fn openat(
    fd: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: the caller promises what openat(2) demands.
    open_as(path, flags, |flags| unsafe {
        real::openat(fd, path, flags, mode)
    })
}

/// Opens a file, with sizes of 64 bits.
///
/// # Safety
///
/// As openat(2).
#[no_mangle]
pub unsafe extern "C" fn openat64(
    fd: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: the caller promises what openat(2) demands.
    open_as(path, flags, |flags| unsafe {
        real::openat64(fd, path, flags, mode)
    })
}

// What a program calls that was compiled with _FORTIFY_SOURCE, as distributions do, where the flags are no
// constant and no mode is given.

/// Opens a file.
///
/// # Safety
///
/// As open(2).
#[no_mangle]
pub unsafe extern "C" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller promises what open(2) demands.
    open_as(path, flags, |flags| unsafe { real::__open_2(path, flags) })
}

/// Opens a file, with sizes of 64 bits.
///
/// # Safety
///
/// As open(2).
#[no_mangle]
pub unsafe extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller promises what open(2) demands.
    open_as(path, flags, |flags| unsafe {
        real::__open64_2(path, flags)
    })
}

/// Opens a file; a path that does not begin at a directory's descriptor is looked at.
///
/// # Safety
///
/// As openat(2).
#[no_mangle]
pub unsafe extern "C" fn __openat_2(fd: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller promises what openat(2) demands.
    open_as(path, flags, |flags| unsafe {
        real::__openat_2(fd, path, flags)
    })
}

/// Opens a file, with sizes of 64 bits.
///
/// # Safety
///
/// As openat(2).
#[no_mangle]
pub unsafe extern "C" fn __openat64_2(fd: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller promises what openat(2) demands.
    open_as(path, flags, |flags| unsafe {
        real::__openat64_2(fd, path, flags)
    })
}

#[cfg(test)]
mod tests {
    use super::is_elsewhere;

    #[test]
    fn only_files_in_directories_of_addresses_are_meant() {
        for (path, is) in [
            ("/srv/www/10.1.0.3/page", true),
            ("/srv/www/10.1.0.3/a/b", true),
            ("/srv/www/10.1.0.3", false),
            ("/srv/www/10.1.0.3/", false),
            ("/srv/www/10.1.0.300/page", false),
            ("/srv/www/page", false),
            ("/srv/www2/10.1.0.3/page", false),
            ("10.1.0.3/page", false),
        ] {
            assert_eq!(is_elsewhere(path.as_bytes(), b"/srv/www"), is, "{path}");
        }
    }
}
