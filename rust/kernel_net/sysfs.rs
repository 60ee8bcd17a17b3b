// SPDX-License-Identifier: GPL-2.0

//! A directory in `/sys/kernel` with a different content in every network namespace.
//!
//! [`Root`] is `/sys/kernel/<name>`, [`Dir`] is `net` in it, once a namespace. Which one a process
//! sees is decided by the mount of sysfs it looks at, not by the namespace it is in; programs should
//! rather ask by netlink. A directory whose entries belong to namespaces can have no others, so the
//! root has no files.
//!
//! # Lifetime
//!
//! The kernel counts references to directories, and frees one by calling `release`. A [`Dir`] takes
//! its directory out of sysfs before it gives its reference back, which waits for readers; a file that
//! is still open afterwards reads an error.
//!
//! C header: [`include/linux/kobject.h`](srctree/include/linux/kobject.h)

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use kernel::error::to_result;
use kernel::ffi::c_char;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::str::{CStrExt, CString};
use kernel::sync::Arc;
use kernel::types::Opaque;

use crate::bindings;
use crate::net::Net;

/// The files of a directory, one value each.
pub trait Files: Sized + 'static {
    /// Where the values come from.
    type Source: Send + Sync + 'static;

    /// The name of the file number `index`; the first `None` ends the list.
    fn name(index: usize) -> Option<&'static str>;

    /// Writes the value, without an end of line.
    fn show(source: &Self::Source, index: usize, out: &mut Out<'_>) -> fmt::Result;
}

/// Where a value is written to; what does not fit in a page is an error.
pub struct Out<'a> {
    page: &'a mut [u8],
    len: usize,
}

impl fmt::Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.checked_add(text.len()).ok_or(fmt::Error)?;
        let into = self.page.get_mut(self.len..end).ok_or(fmt::Error)?;
        into.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// The directory that holds the namespaces' directories.
pub struct Root<F: Files> {
    kobj: NonNull<bindings::kobject>,
    shape: KBox<Shape>,
    _files: PhantomData<fn() -> F>,
}

// SAFETY: The reference belongs to no thread, and what is in here does not change.
unsafe impl<F: Files> Send for Root<F> {}
// SAFETY: As above.
unsafe impl<F: Files> Sync for Root<F> {}

/// What all directories have in common; the C side points into it.
struct Shape {
    attributes: KVec<bindings::attribute>,
    _names: KVec<CString>,
    _pointers: KVec<*mut bindings::attribute>,
    group: bindings::attribute_group,
    groups: [*const bindings::attribute_group; 2],
    kind: bindings::kobj_type,
}

/// The type of the root.
struct RootType(bindings::kobj_type);

// SAFETY: Constant.
unsafe impl Sync for RootType {}

static ROOT_TYPE: RootType = RootType(bindings::kobj_type {
    release: Some(release_root),
    sysfs_ops: ptr::null(),
    default_groups: ptr::null_mut(),
    child_ns_type: Some(child_ns_type),
    namespace: None,
    get_ownership: None,
});

/// # Safety
///
/// Only called for a directory made by [`Root::new`], once.
unsafe extern "C" fn release_root(kobj: *mut bindings::kobject) {
    // SAFETY: Made by `Root::new` as a box, and this is the end of the last reference.
    drop(unsafe { KBox::from_raw(kobj.cast::<Opaque<bindings::kobject>>()) });
}

/// # Safety
///
/// None.
unsafe extern "C" fn child_ns_type(
    _kobj: *const bindings::kobject,
) -> *const bindings::kobj_ns_type_operations {
    &raw const bindings::net_ns_type_operations
}

impl<F: Files> Root<F> {
    const OPERATIONS: bindings::sysfs_ops = bindings::sysfs_ops {
        show: Some(show::<F>),
        store: None,
    };

    /// Makes `/sys/kernel/<name>`.
    ///
    /// # Context
    ///
    /// Sleeps.
    pub fn new(name: &CStr) -> Result<Self> {
        let shape = Self::shape()?;
        let kobj = KBox::new(Opaque::new(bindings::kobject::default()), GFP_KERNEL)?;
        let kobj = KBox::into_raw(kobj).cast::<bindings::kobject>();
        // SAFETY: `kobj` is zeroed and stays where it is until `release_root` frees it, also when
        // the call fails. `kernel_kobj` is set before any module runs.
        let result = unsafe {
            bindings::lard_sysfs_add(
                kobj,
                &raw const ROOT_TYPE.0,
                bindings::kernel_kobj,
                name.as_char_ptr().cast(),
            )
        };
        if let Err(e) = to_result(result) {
            // SAFETY: The one reference.
            unsafe { bindings::kobject_put(kobj) };
            return Err(e);
        }
        Ok(Self {
            kobj: NonNull::new(kobj).ok_or(EINVAL)?,
            shape,
            _files: PhantomData,
        })
    }

    fn shape() -> Result<KBox<Shape>> {
        let mut names = KVec::new();
        let mut attributes = KVec::new();
        for name in (0..).map_while(F::name) {
            let name = CString::try_from_fmt(fmt!("{name}"))?;
            // With lock debugging it has more fields than these two.
            #[allow(clippy::needless_update)]
            let mut attribute = bindings::attribute {
                // The text is on the heap and does not move with `name`.
                name: name.as_char_ptr().cast(),
                mode: 0o444,
                ..Default::default()
            };
            // SAFETY: Writes to the attribute only.
            unsafe { bindings::lard_sysfs_attr_init(&mut attribute) };
            names.push(name, GFP_KERNEL)?;
            attributes.push(attribute, GFP_KERNEL)?;
        }
        let mut pointers = KVec::with_capacity(attributes.len().saturating_add(1), GFP_KERNEL)?;
        for attribute in attributes.iter_mut() {
            pointers.push(ptr::from_mut(attribute), GFP_KERNEL)?;
        }
        pointers.push(ptr::null_mut(), GFP_KERNEL)?;
        let mut group = bindings::attribute_group::default();
        group.__bindgen_anon_2.attrs = pointers.as_mut_ptr();
        let mut shape = KBox::new(
            Shape {
                attributes,
                _names: names,
                _pointers: pointers,
                group,
                groups: [ptr::null(); 2],
                kind: bindings::kobj_type {
                    release: Some(release_dir::<F>),
                    sysfs_ops: const { &Self::OPERATIONS },
                    default_groups: ptr::null_mut(),
                    child_ns_type: None,
                    namespace: Some(namespace::<F>),
                    get_ownership: None,
                },
            },
            GFP_KERNEL,
        )?;
        shape.groups = [&raw const shape.group, ptr::null()];
        shape.kind.default_groups = shape.groups.as_mut_ptr();
        Ok(shape)
    }
}

impl<F: Files> Drop for Root<F> {
    fn drop(&mut self) {
        // SAFETY: The reference is ours. All directories in it are gone: each keeps `Self` borrowed
        // through the reference that `Dir::new` was given, or was dropped by its namespace's exit.
        unsafe {
            bindings::kobject_del(self.kobj.as_ptr());
            bindings::kobject_put(self.kobj.as_ptr());
        }
    }
}

/// The directory of one namespace; dropping it waits for readers and removes it.
pub struct Dir<F: Files> {
    inner: NonNull<Inner<F>>,
    /// Keeps the files' names and types.
    _root: Arc<Root<F>>,
}

#[repr(C)]
struct Inner<F: Files> {
    /// First, so that a pointer to it is one to the whole.
    kobj: Opaque<bindings::kobject>,
    ns: *const bindings::ns_common,
    /// Where `Root` keeps the attributes, to tell their numbers.
    attributes: *const bindings::attribute,
    source: Arc<F::Source>,
}

// SAFETY: The reference belongs to no thread, and `F::Source` may be used from any.
unsafe impl<F: Files> Send for Dir<F> {}
// SAFETY: There is no method that takes a shared reference.
unsafe impl<F: Files> Sync for Dir<F> {}

impl<F: Files> Dir<F> {
    /// Makes the directory `net` of a namespace. The namespace must outlive the result, as it does
    /// when its own exit drops it.
    ///
    /// # Context
    ///
    /// Sleeps.
    pub fn new(root: Arc<Root<F>>, net: &Net, source: Arc<F::Source>) -> Result<Self> {
        let inner = Inner::<F> {
            kobj: Opaque::new(bindings::kobject::default()),
            // SAFETY: The namespace is valid.
            ns: unsafe { bindings::lard_sysfs_ns(net.as_ptr()) },
            attributes: root.shape.attributes.as_ptr(),
            source,
        };
        let inner = KBox::into_raw(KBox::new(inner, GFP_KERNEL)?);
        // SAFETY: The object is zeroed and stays where it is until `release_dir` frees it, also when
        // the call fails; its type is in `root`, which we keep.
        let result = unsafe {
            bindings::lard_sysfs_add(
                inner.cast(),
                &raw const root.shape.kind,
                root.kobj.as_ptr(),
                c"net".as_char_ptr().cast(),
            )
        };
        if let Err(e) = to_result(result) {
            // SAFETY: The one reference.
            unsafe { bindings::kobject_put(inner.cast()) };
            return Err(e);
        }
        Ok(Self {
            inner: NonNull::new(inner).ok_or(EINVAL)?,
            _root: root,
        })
    }
}

impl<F: Files> Drop for Dir<F> {
    fn drop(&mut self) {
        let kobj = self.inner.as_ptr().cast::<bindings::kobject>();
        // SAFETY: The reference is ours. After the first call nothing of ours is called but
        // `release_dir`.
        unsafe {
            bindings::kobject_del(kobj);
            bindings::kobject_put(kobj);
        }
    }
}

/// # Safety
///
/// Only called for a directory made by [`Dir::new`], once.
unsafe extern "C" fn release_dir<F: Files>(kobj: *mut bindings::kobject) {
    // SAFETY: Made by `Dir::new` as a box, and this is the end of the last reference.
    drop(unsafe { KBox::from_raw(kobj.cast::<Inner<F>>()) });
}

/// # Safety
///
/// Only called for a directory made by [`Dir::new`].
unsafe extern "C" fn namespace<F: Files>(
    kobj: *const bindings::kobject,
) -> *const bindings::ns_common {
    // SAFETY: By the requirement.
    unsafe { (*kobj.cast::<Inner<F>>()).ns }
}

/// # Safety
///
/// Only called for an attribute of a directory made by [`Dir::new`], with a page.
unsafe extern "C" fn show<F: Files>(
    kobj: *mut bindings::kobject,
    attribute: *mut bindings::attribute,
    page: *mut c_char,
) -> isize {
    // SAFETY: Only directories made by `Dir::new` have these operations; the directory exists while
    // one of its files is read, and `page` is a page.
    let (inner, page) = unsafe {
        (
            &*kobj.cast::<Inner<F>>(),
            core::slice::from_raw_parts_mut(page.cast::<u8>(), PAGE_SIZE),
        )
    };
    let offset = attribute.addr().saturating_sub(inner.attributes.addr());
    let index = offset / size_of::<bindings::attribute>();
    let mut out = Out { page, len: 0 };
    let result = F::show(&inner.source, index, &mut out)
        .and_then(|()| fmt::Write::write_str(&mut out, "\n"));
    match result {
        // CAST: At most a page.
        Ok(()) => out.len as isize,
        Err(fmt::Error) => EINVAL.to_errno() as isize,
    }
}
