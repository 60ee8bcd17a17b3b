// SPDX-License-Identifier: GPL-2.0

//! Tables in `/proc/net`: text, one row an entry, of the namespace of whoever reads.
//!
//! C header: [`include/linux/proc_fs.h`](srctree/include/linux/proc_fs.h)

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use kernel::ffi::{c_int, c_void};
use kernel::prelude::*;
use kernel::str::CStrExt;
use kernel::sync::Arc;
use kernel::types::ForeignOwnable;

use crate::bindings;
use crate::net::Net;

/// What a table shows.
///
/// Rows have positions that only grow; between two reads rows may come and go, and the reader sees
/// each row that was there all the time once.
pub trait Table: 'static {
    /// Where the rows come from.
    type Source: Send + Sync + 'static;

    /// Writes the line above the rows.
    fn head(source: &Self::Source, out: &mut Out<'_>) -> fmt::Result;

    /// The position of the first row at or after `from`. Below 2^62.
    fn next(source: &Self::Source, from: u64) -> Option<u64>;

    /// Writes the row at a position, or nothing if it has gone.
    fn show(source: &Self::Source, row: u64, out: &mut Out<'_>) -> fmt::Result;
}

/// Where a row is written to.
pub struct Out<'a>(&'a mut bindings::seq_file);

impl fmt::Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: The file is valid, and `text` can be read for its length. A full buffer is not an
        // error here: the C side makes a larger one and asks for the row again.
        unsafe { bindings::seq_write(self.0, text.as_ptr().cast(), text.len()) };
        Ok(())
    }
}

/// A table that exists; dropping it waits for its readers and removes it.
pub struct File<T: Table> {
    entry: NonNull<bindings::proc_dir_entry>,
    /// An `Arc<T::Source>` in its foreign form, which readers borrow.
    source: *mut c_void,
    _table: PhantomData<fn() -> T>,
}

// SAFETY: The entry belongs to no thread, and `T::Source` may be used from any.
unsafe impl<T: Table> Send for File<T> {}
// SAFETY: There is no method that takes a shared reference.
unsafe impl<T: Table> Sync for File<T> {}

impl<T: Table> File<T> {
    const OPERATIONS: bindings::seq_operations = bindings::seq_operations {
        start: Some(start::<T>),
        next: Some(next::<T>),
        stop: Some(stop),
        show: Some(show::<T>),
    };

    /// Makes `/proc/net/<name>` in a namespace. The namespace must outlive the result, as it does
    /// when its own exit drops it.
    ///
    /// # Context
    ///
    /// Sleeps.
    pub fn new(net: &Net, name: &CStr, source: Arc<T::Source>) -> Result<Self> {
        let source = source.into_foreign();
        // SAFETY: The name is copied, the operations are constant, and `source` is valid until
        // `drop` has removed the entry.
        let entry = unsafe {
            bindings::lard_proc_create(
                net.as_ptr(),
                name.as_char_ptr().cast(),
                const { &Self::OPERATIONS },
                source,
            )
        };
        match NonNull::new(entry) {
            Some(entry) => Ok(Self {
                entry,
                source,
                _table: PhantomData,
            }),
            None => {
                // SAFETY: Nobody else has seen it.
                drop(unsafe { Arc::<T::Source>::from_foreign(source) });
                Err(ENOMEM)
            }
        }
    }
}

impl<T: Table> Drop for File<T> {
    fn drop(&mut self) {
        // SAFETY: The entry is ours and exists as long as its namespace. The call waits for readers,
        // and none comes after it, so the source is ours again.
        unsafe {
            bindings::proc_remove(self.entry.as_ptr());
            drop(Arc::<T::Source>::from_foreign(self.source));
        }
    }
}

/// The head of the table stands at position 0 and every row one after its own position. What is
/// handed to the C side as the address of an element is the position and one, so that it is not null.
fn token(position: u64) -> *mut c_void {
    match usize::try_from(position.saturating_add(1)) {
        Ok(token) => ptr::without_provenance_mut(token),
        Err(_) => ptr::null_mut(),
    }
}

/// Finds the element at or after `*position` and sets `*position` to its place.
///
/// # Safety
///
/// The arguments must be those of a call of `start` or `next` of a [`File`] of `T`.
unsafe fn find<T: Table>(
    seq: *mut bindings::seq_file,
    position: *mut bindings::loff_t,
) -> *mut c_void {
    // SAFETY: By the requirement. The entry exists while it is read, and so does its source.
    let (source, at) = unsafe {
        let source = bindings::lard_proc_data(seq);
        (Arc::<T::Source>::borrow(source), &mut *position)
    };
    let Ok(from) = u64::try_from(*at) else {
        return ptr::null_mut();
    };
    let Some(from) = from.checked_sub(1) else {
        return token(0);
    };
    let found = T::next(&source, from).and_then(|row| row.checked_add(1));
    match found.and_then(|f| Some((f, i64::try_from(f).ok()?))) {
        Some((found, place)) => {
            *at = place;
            token(found)
        }
        None => ptr::null_mut(),
    }
}

/// # Safety
///
/// Only called as the operation of a [`File`] of `T`.
unsafe extern "C" fn start<T: Table>(
    seq: *mut bindings::seq_file,
    position: *mut bindings::loff_t,
) -> *mut c_void {
    // SAFETY: By the requirement.
    unsafe { find::<T>(seq, position) }
}

/// # Safety
///
/// Only called as the operation of a [`File`] of `T`.
unsafe extern "C" fn next<T: Table>(
    seq: *mut bindings::seq_file,
    _element: *mut c_void,
    position: *mut bindings::loff_t,
) -> *mut c_void {
    // SAFETY: By the requirement; the position is valid.
    unsafe {
        *position = (*position).saturating_add(1);
        find::<T>(seq, position)
    }
}

/// # Safety
///
/// None.
unsafe extern "C" fn stop(_seq: *mut bindings::seq_file, _element: *mut c_void) {}

/// # Safety
///
/// Only called as the operation of a [`File`] of `T`, with what `start` or `next` returned.
unsafe extern "C" fn show<T: Table>(seq: *mut bindings::seq_file, element: *mut c_void) -> c_int {
    // SAFETY: By the requirement; as in `find`.
    let (source, file) = unsafe {
        let source = bindings::lard_proc_data(seq);
        (Arc::<T::Source>::borrow(source), &mut *seq)
    };
    let mut out = Out(file);
    // CAST: An address fits in 64 bits. The element is a token, never null.
    let position = (element.addr() as u64).saturating_sub(1);
    let result = match position.checked_sub(1) {
        None => T::head(&source, &mut out),
        Some(row) => T::show(&source, row, &mut out),
    };
    match result {
        Ok(()) => 0,
        Err(fmt::Error) => EINVAL.to_errno(),
    }
}
