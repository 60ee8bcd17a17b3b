// SPDX-License-Identifier: GPL-2.0

//! The functions this library stands in front of: those of the next library that has them, usually
//! the C library. They are looked up when first used.

use libc::{c_char, c_int, c_void, mode_t, sockaddr, socklen_t};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function that is looked up when it is first called.
struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Next {
            name,
            found: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Null, with `errno` set, when there is none.
    fn find(&self) -> *mut c_void {
        let mut found = self.found.load(Ordering::Acquire);
        if found.is_null() {
            // SAFETY: the name is terminated.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.found.store(found, Ordering::Release);
        }
        if found.is_null() {
            set_errno(libc::ENOSYS);
        }
        found
    }
}

macro_rules! next {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*)) => {
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As the function of the C library.
        pub(crate) unsafe fn $name($($argument: $type),*) -> c_int {
            static NEXT: Next = {
                const NAME: &str = concat!(stringify!($name), "\0");
                // The name has one terminator, at its end.
                match CStr::from_bytes_with_nul(NAME.as_bytes()) {
                    Ok(name) => Next::new(name),
                    Err(_) => unreachable!(),
                }
            };
            let found = NEXT.find();
            if found.is_null() {
                return -1;
            }
            // SAFETY: it is the function of this name, which has this type everywhere.
            let function: unsafe extern "C" fn($($type),*) -> c_int =
                unsafe { std::mem::transmute(found) };
            // SAFETY: the caller promises what the function demands.
            unsafe { function($($argument),*) }
        }
    };
}

next! {
    /// bind(2).
    bind(fd: c_int, address: *const sockaddr, length: socklen_t)
}
next! {
    /// accept(2).
    accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t)
}
next! {
    /// accept4(2).
    accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int)
}
next! {
    /// getsockname(2).
    getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t)
}
next! {
    /// getpeername(2).
    getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t)
}
next! {
    /// open(2).
    open(path: *const c_char, flags: c_int, mode: mode_t)
}
next! {
    /// open(2) with sizes of 64 bits.
    open64(path: *const c_char, flags: c_int, mode: mode_t)
}
next! {
    /// openat(2).
    openat(fd: c_int, path: *const c_char, flags: c_int, mode: mode_t)
}
next! {
    /// openat(2) with sizes of 64 bits.
    openat64(fd: c_int, path: *const c_char, flags: c_int, mode: mode_t)
}

next! {
    /// open(2), as programs call it that check at run time whether a mode is missing.
    __open_2(path: *const c_char, flags: c_int)
}
next! {
    /// The same with sizes of 64 bits.
    __open64_2(path: *const c_char, flags: c_int)
}
next! {
    /// openat(2), in the same way.
    __openat_2(fd: c_int, path: *const c_char, flags: c_int)
}
next! {
    /// The same with sizes of 64 bits.
    __openat64_2(fd: c_int, path: *const c_char, flags: c_int)
}

/// The error number of this thread.
pub(crate) fn errno() -> c_int {
    // SAFETY: the C library gives each thread a valid place.
    unsafe { *libc::__errno_location() }
}

/// Sets the error number of this thread.
pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno }
}
