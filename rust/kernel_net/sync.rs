// SPDX-License-Identifier: GPL-2.0

//! Locks that softirqs share with processes, and references to the module itself.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use crate::bindings;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use kernel::prelude::*;
use kernel::sync::{Arc, LockClassKey};

/// A spin lock that keeps softirqs of this CPU away while it is held.
///
/// Data that a packet hook and a process both touch needs exactly this. The lock may be moved while
/// nobody holds it, which borrowing guarantees.
///
/// # Context
///
/// Everything but hard interrupts.
pub struct BhLock<T: ?Sized> {
    lock: UnsafeCell<bindings::spinlock_t>,
    value: UnsafeCell<T>,
}

// SAFETY: The lock hands the value to one context at a time.
unsafe impl<T: ?Sized + Send> Send for BhLock<T> {}
// SAFETY: As above.
unsafe impl<T: ?Sized + Send> Sync for BhLock<T> {}

impl<T> BhLock<T> {
    /// Makes a lock; use [`new_bh_lock!`](crate::new_bh_lock), which provides the lockdep class.
    pub fn new(value: T, name: &'static CStr, class: Pin<&'static LockClassKey>) -> Self {
        let mut lock = MaybeUninit::<bindings::spinlock_t>::zeroed();
        // SAFETY: The lock is zeroed memory of the right type, and name and class are static. An
        // unlocked spin lock holds no pointer to itself, so it can be moved afterwards.
        let lock = unsafe {
            kernel::bindings::__spin_lock_init(
                lock.as_mut_ptr().cast(),
                name.as_char_ptr().cast(),
                class.as_ptr(),
            );
            lock.assume_init()
        };
        Self {
            lock: UnsafeCell::new(lock),
            value: UnsafeCell::new(value),
        }
    }
}

impl<T: ?Sized> BhLock<T> {
    /// Takes the lock; softirqs stay off on this CPU until the guard is dropped.
    pub fn lock(&self) -> BhGuard<'_, T> {
        // SAFETY: The lock was initialised in `new`.
        unsafe { bindings::lard_sync_spin_lock_bh(self.lock.get()) };
        BhGuard {
            lock: self,
            _not_send: PhantomData,
        }
    }

    /// The value, when nobody else can have it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// Makes a [`BhLock`](crate::sync::BhLock) with a lockdep class of its own: `new_bh_lock!(value, c"lard:name")`.
#[macro_export]
macro_rules! new_bh_lock {
    ($value:expr, $name:expr) => {
        $crate::sync::BhLock::new($value, $name, ::kernel::static_lock_class!())
    };
}

/// The value of a held [`BhLock`].
pub struct BhGuard<'a, T: ?Sized> {
    lock: &'a BhLock<T>,
    _not_send: PhantomData<*mut ()>,
}

impl<T: ?Sized> Deref for BhGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The guard exists, so the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for BhGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The guard exists and is borrowed mutably, so this is the only access.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for BhGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: The guard exists, so the lock is held by this context.
        unsafe { bindings::lard_sync_spin_unlock_bh(self.lock.lock.get()) };
    }
}

/// Softirqs are off on this CPU, and the task stays on it, while this value lives.
pub(crate) struct BhDisabled(PhantomData<*mut ()>);

impl BhDisabled {
    /// Switches softirqs off.
    pub(crate) fn new() -> Self {
        // SAFETY: Always allowed outside hard interrupts; paired with the call in `drop`.
        unsafe { bindings::lard_sync_bh_disable() };
        Self(PhantomData)
    }
}

impl Drop for BhDisabled {
    fn drop(&mut self) {
        // SAFETY: Pairs with the call in `new`.
        unsafe { bindings::lard_sync_bh_enable() };
    }
}

/// The one mutex of this crate, held while this value lives: for what happens rarely, in process
/// context, and briefly.
pub(crate) struct Exclusive(PhantomData<*mut ()>);

impl Exclusive {
    /// Takes the mutex. May sleep.
    pub(crate) fn new() -> Self {
        // SAFETY: Process context, as the callers see to; paired with `drop`.
        unsafe { bindings::lard_sync_exclusive() };
        Self(PhantomData)
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        // SAFETY: Pairs with `new`.
        unsafe { bindings::lard_sync_exclusive_end() };
    }
}

/// A shared value that is there for a part of the module's life; for statics.
///
/// # Context
///
/// Process; may sleep.
pub struct Global<T>(UnsafeCell<Option<Arc<T>>>);

// SAFETY: The value is read and written under the mutex.
unsafe impl<T: Send + Sync> Sync for Global<T> {}

impl<T> Global<T> {
    /// No value yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(None))
    }

    /// Puts another value in place; returns the one before.
    pub fn replace(&self, value: Option<Arc<T>>) -> Option<Arc<T>> {
        let _exclusive = Exclusive::new();
        // SAFETY: The mutex is held.
        core::mem::replace(unsafe { &mut *self.0.get() }, value)
    }

    /// The value, if there is one.
    pub fn get(&self) -> Option<Arc<T>> {
        let _exclusive = Exclusive::new();
        // SAFETY: The mutex is held.
        unsafe { (*self.0.get()).clone() }
    }
}

/// Keeps the module loaded: while one exists, unloading fails with EBUSY.
pub struct ModuleRef(());

impl ModuleRef {
    /// A reference, or `None` when the module is being unloaded already.
    pub fn try_get() -> Option<Self> {
        // SAFETY: THIS_MODULE is valid while this code runs.
        unsafe { bindings::try_module_get(bindings::lard_sync_this_module()) }.then_some(Self(()))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: The reference was taken in `try_get`. Whoever drops the last one from a path
        // that unloading does not wait for is covered by `wait_for_returns`.
        unsafe { bindings::module_put(bindings::lard_sync_this_module()) };
    }
}

/// Waits until every function of this module that gave up its last module reference has returned.
///
/// # Context
///
/// Process context, at the end of unloading; takes long.
pub fn wait_for_returns() {
    // SAFETY: Process context, no locks held.
    unsafe {
        bindings::lard_sync_rcu_tasks();
        bindings::synchronize_net();
    }
}
