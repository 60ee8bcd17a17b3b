// SPDX-License-Identifier: GPL-2.0

//! Kernel threads that run a closure, can be woken from any context, and are always joined.
//!
//! A [`KThread`] owns its thread: dropping it asks the thread to stop and waits until it has. So a
//! thread can borrow nothing, but it needs no other care at unload: whoever holds the last handle has
//! waited. A thread may also return by itself; the handle's reference keeps the task for the join.
//!
//! A thread sleeps in [`Running::wait_until`] or in a socket call. A [`Waker`] ends the former; being
//! asked to stop ends both, and from then on nothing can be sent any more.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::bindings as c;
use kernel::error::from_err_ptr;
use kernel::ffi::c_long;
use kernel::prelude::*;
use kernel::str::CStrExt;
use kernel::sync::aref::{ARef, AlwaysRefCounted};
use kernel::task::Task;
use kernel::types::NotThreadSafe;

use crate::bindings;

/// A running, or finished, kernel thread.
///
/// # Invariants
///
/// `start` is the boxed closure as [`KThread::spawn`] leaked it, and belongs to the thread once the
/// thread function has begun to run. `discard` frees it and knows its type.
pub struct KThread {
    task: ARef<Task>,
    start: *mut c_void,
    discard: unsafe fn(*mut c_void),
}

// SAFETY: The closure was `Send` when it was given up, and the other fields may be used from any
// thread.
unsafe impl Send for KThread {}
// SAFETY: No method changes anything through a shared reference, but `Task`, which is `Sync`.
unsafe impl Sync for KThread {}

/// The body of every thread.
///
/// # Safety
///
/// `data` must be a `KBox<F>` that nobody else will use.
unsafe extern "C" fn run<F>(data: *mut c_void) -> kernel::ffi::c_int
where
    F: FnOnce(&Running) + Send + 'static,
{
    // SAFETY: By the requirement of this function.
    let start = unsafe { KBox::from_raw(data.cast::<F>()) };
    KBox::into_inner(start)(&Running(NotThreadSafe));
    0
}

/// Frees a closure that never ran.
///
/// # Safety
///
/// As [`run`].
unsafe fn discard<F>(data: *mut c_void) {
    // SAFETY: By the requirement of this function.
    drop(unsafe { KBox::from_raw(data.cast::<F>()) });
}

impl KThread {
    /// Starts a thread named `name` (15 bytes are shown) that runs `body`.
    ///
    /// # Context
    ///
    /// Sleeps. No lock that `body` takes may be held.
    pub fn spawn<F>(name: &CStr, body: F) -> Result<Self>
    where
        F: FnOnce(&Running) + Send + 'static,
    {
        let start = KBox::into_raw(KBox::new(body, GFP_KERNEL)?).cast::<c_void>();
        // SAFETY: `name` is a C string, copied before the call returns. `run::<F>` gets the box that
        // it expects, if it is ever called.
        let task = unsafe {
            bindings::lard_kthread_create(Some(run::<F>), start, name.as_char_ptr().cast())
        };
        let task = match from_err_ptr(task.cast::<c::task_struct>()) {
            Ok(task) => task,
            Err(e) => {
                // SAFETY: No thread was made, so the box is still ours.
                unsafe { discard::<F>(start) };
                return Err(e);
            }
        };
        let Some(task) = NonNull::new(task.cast::<Task>()) else {
            // SAFETY: As above.
            unsafe { discard::<F>(start) };
            return Err(ENOMEM);
        };
        // SAFETY: A thread that was created and not yet woken cannot exit, so `task` is valid, and
        // the reference added here is what `ARef` takes over.
        let task = unsafe {
            task.as_ref().inc_ref();
            ARef::from_raw(task)
        };
        task.wake_up();
        // INVARIANT: `start` is the box given to the thread and `discard` was made for its type.
        Ok(Self {
            task,
            start,
            discard: discard::<F>,
        })
    }
}

impl Drop for KThread {
    fn drop(&mut self) {
        // SAFETY: We hold a reference to the task, which is a kthread that nobody else stops.
        let result = unsafe { c::kthread_stop(self.task.as_ptr()) };
        if result == EINTR.to_errno() {
            // SAFETY: `run` returns 0, so this says that it was never called and that the closure,
            // by the invariant, is still ours.
            unsafe { (self.discard)(self.start) };
        }
    }
}

/// Wakes one thread from [`Running::wait_until`]. Any context.
#[derive(Clone)]
pub struct Waker(ARef<Task>);

impl Waker {
    /// Wakes the thread, or makes its next wait look at the condition once more.
    #[inline]
    pub fn wake(&self) {
        self.0.wake_up();
    }
}

/// Why [`Running::wait_until`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The condition holds.
    Ready,
    /// The thread is to end.
    Stop,
    /// The time is over.
    Timeout,
}

/// What only the thread itself can do.
///
/// # Invariants
///
/// Exists only within the body of a [`KThread`], on its thread.
pub struct Running(NotThreadSafe);

impl Running {
    /// A waker of this thread.
    pub fn waker(&self) -> Waker {
        Waker(ARef::from(&**kernel::current!()))
    }

    /// Is somebody waiting for this thread to end?
    pub fn should_stop(&self) -> bool {
        // SAFETY: By the invariant this is a kthread, which is what the function demands.
        unsafe { c::kthread_should_stop() }
    }

    /// Forgets an interruption that was no request to stop, so that socket calls block again.
    /// Returns whether the thread is to stop.
    pub fn interrupted(&self) -> bool {
        if self.should_stop() {
            return true;
        }
        // SAFETY: Changes a flag of the current thread only.
        unsafe { bindings::lard_kthread_clear_signal() };
        false
    }

    /// Sleeps until `ready` holds, the thread is to stop, or `timeout_ms` are over.
    ///
    /// # Context
    ///
    /// No lock may be held. `ready` runs while the thread is about to sleep: it may take spin locks,
    /// and must not sleep.
    pub fn wait_until(&self, timeout_ms: u32, mut ready: impl FnMut() -> bool) -> Woken {
        let jiffies = kernel::time::msecs_to_jiffies(timeout_ms);
        // `MAX_SCHEDULE_TIMEOUT` would mean to sleep for ever; 32 bits of milliseconds do not get
        // there on a 64-bit machine, and are cut off on a smaller one.
        let mut left = c_long::try_from(jiffies).unwrap_or(c_long::MAX);
        loop {
            // SAFETY: Changes the state of the current thread; undone below on every path. A wake-up
            // between here and `schedule_timeout()` makes the latter return at once.
            unsafe { bindings::lard_kthread_prepare_wait() };
            let woken = if ready() {
                Some(Woken::Ready)
            } else if self.should_stop() {
                Some(Woken::Stop)
            } else if left == 0 {
                Some(Woken::Timeout)
            } else {
                // SAFETY: Process context, and no lock is held by the contract of this function.
                left = unsafe { c::schedule_timeout(left) };
                None
            };
            // SAFETY: As above.
            unsafe { bindings::lard_kthread_finish_wait() };
            if let Some(woken) = woken {
                return woken;
            }
            if kernel::current!().signal_pending() && self.interrupted() {
                return Woken::Stop;
            }
        }
    }
}
