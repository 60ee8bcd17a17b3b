// SPDX-License-Identifier: GPL-2.0

//! Work that a softirq does as soon as it may, for whoever asks.
//!
//! A packet hook that has something to send on a socket asks for it here: the work runs on the same
//! CPU once the packets that are at hand have been handled, so what several of them ask for is done at
//! once, and no thread is woken.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::cell::UnsafeCell;
use kernel::prelude::*;
use kernel::sync::{Arc, UniqueArc};

/// What there is to do.
pub trait Task: Send + Sync {
    /// Does it. Never runs twice at once for one [`SoftWork`].
    ///
    /// # Context
    ///
    /// Softirq, no lock held.
    fn run(&self);
}

/// A task that can be asked for. Dropping it waits until the task does not run any more.
#[repr(C)]
pub struct SoftWork {
    /// First, so that the address of one is that of the other.
    work: UnsafeCell<bindings::work_struct>,
    task: Arc<dyn Task>,
}

// SAFETY: The work queue locks the work, and the task can be shared.
unsafe impl Send for SoftWork {}
// SAFETY: As above.
unsafe impl Sync for SoftWork {}

impl SoftWork {
    /// A task that nobody has asked for. May sleep.
    pub fn new(task: Arc<dyn Task>) -> Result<Arc<Self>> {
        // Without memory there is nothing yet whose drop would cancel the work.
        let place = UniqueArc::new_uninit(GFP_KERNEL)?;
        let work = UnsafeCell::new(bindings::work_struct::default());
        let this = Arc::from(place.write(Self { work, task }));
        // SAFETY: The work stays where it is, behind the `Arc`, until it is cancelled in `drop`.
        unsafe { bindings::lard_sync_init_bh_work(this.work.get(), Some(Self::on_work)) };
        Ok(this)
    }

    /// Asks for the task; once is enough until it begins to run. Any context but hard irq.
    pub fn queue(&self) {
        // SAFETY: The work was initialised in `new`.
        unsafe { bindings::lard_sync_queue_bh_work(self.work.get()) };
    }

    /// # Safety
    ///
    /// Called by the work queue with the work of a `SoftWork`.
    unsafe extern "C" fn on_work(work: *mut bindings::work_struct) {
        // SAFETY: `drop` waits for this call, so the whole of it is there; the work is its first field.
        unsafe { &*work.cast::<Self>() }.task.run();
    }
}

impl Drop for SoftWork {
    /// # Context
    ///
    /// Process, may sleep; not from the task itself.
    fn drop(&mut self) {
        // SAFETY: The work was initialised in `new`.
        unsafe { bindings::cancel_work_sync(self.work.get()) };
    }
}
