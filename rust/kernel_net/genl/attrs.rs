// SPDX-License-Identifier: GPL-2.0

//! Attributes of requests: what the kernel checks about them, and how they are read.

use crate::bindings;

/// What the kernel checks about one attribute.
#[repr(transparent)]
pub struct Policy(bindings::nla_policy);

// SAFETY: Constant; the pointer it may contain is to another constant.
unsafe impl Sync for Policy {}

impl Policy {
    const fn new(kind: u32, check: u32, len: u16, limits: [i16; 2]) -> Self {
        let [min, max] = limits;
        Self(bindings::nla_policy {
            // CAST: The kinds and checks are small numbers.
            type_: kind as u8,
            validation_type: check as u8,
            len,
            __bindgen_anon_1: bindings::nla_policy__bindgen_ty_1 {
                __bindgen_anon_1: bindings::nla_policy__bindgen_ty_1__bindgen_ty_1 { min, max },
            },
        })
    }

    /// An attribute that the command does not take.
    pub const REFUSED: Self = Self::new(
        bindings::NLA_REJECT,
        bindings::nla_policy_validation_NLA_VALIDATE_NONE,
        0,
        [0, 0],
    );

    /// Present or absent.
    pub const FLAG: Self = Self::new(
        bindings::NLA_FLAG,
        bindings::nla_policy_validation_NLA_VALIDATE_NONE,
        0,
        [0, 0],
    );

    /// An unsigned integer of 16 bits within limits.
    pub const fn u16(min: i16, max: i16) -> Self {
        Self::new(
            bindings::NLA_U16,
            bindings::nla_policy_validation_NLA_VALIDATE_RANGE,
            0,
            [min, max],
        )
    }

    /// A port: 16 bits, not 0.
    pub const PORT: Self = Self::new(
        bindings::NLA_U16,
        bindings::nla_policy_validation_NLA_VALIDATE_MIN,
        0,
        [1, 0],
    );

    /// An unsigned integer of 32 bits.
    pub const U32: Self = Self::new(
        bindings::NLA_U32,
        bindings::nla_policy_validation_NLA_VALIDATE_NONE,
        0,
        [0, 0],
    );

    /// An unsigned integer of 32 or 64 bits.
    pub const UINT: Self = Self::new(
        bindings::NLA_UINT,
        bindings::nla_policy_validation_NLA_VALIDATE_NONE,
        0,
        [0, 0],
    );

    /// Text of at most `max` bytes.
    pub const fn string(max: u16) -> Self {
        Self::new(
            bindings::NLA_STRING,
            bindings::nla_policy_validation_NLA_VALIDATE_NONE,
            max,
            [0, 0],
        )
    }

    /// Exactly `len` bytes.
    pub const fn bytes(len: i16) -> Self {
        Self::new(
            bindings::NLA_BINARY,
            bindings::nla_policy_validation_NLA_VALIDATE_RANGE,
            0,
            [len, len],
        )
    }

    /// Attributes within the attribute.
    pub const fn nested(policy: &'static [Policy]) -> Self {
        Self(bindings::nla_policy {
            // CAST: As in `new`; tables of attributes are short.
            type_: bindings::NLA_NESTED as u8,
            validation_type: bindings::nla_policy_validation_NLA_VALIDATE_NONE as u8,
            len: policy.len().saturating_sub(1) as u16,
            __bindgen_anon_1: bindings::nla_policy__bindgen_ty_1 {
                nested_policy: policy.as_ptr().cast(),
            },
        })
    }
}

/// A sequence of attributes, as it came in a message.
#[derive(Clone, Copy)]
pub struct Attrs<'a>(pub(super) &'a [u8]);

/// The value of one attribute.
#[derive(Clone, Copy)]
pub struct Attr<'a>(&'a [u8]);

/// Attributes begin at multiples of this.
const ALIGN: usize = 4;
const HEADER: usize = 4;
/// The bits of the type that are not flags.
const TYPE_MASK: u16 = 0x3fff;

impl<'a> Attrs<'a> {
    /// All attributes in order, with their numbers. Stops at the first that makes no sense.
    pub fn iter(self) -> impl Iterator<Item = (u16, Attr<'a>)> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (header, _) = rest.split_at_checked(HEADER)?;
            let [l0, l1, t0, t1] = <[u8; HEADER]>::try_from(header).ok()?;
            let len = usize::from(u16::from_ne_bytes([l0, l1]));
            let kind = u16::from_ne_bytes([t0, t1]) & TYPE_MASK;
            let value = rest.get(HEADER..len)?;
            let next = len.next_multiple_of(ALIGN);
            rest = rest.get(next..).unwrap_or_default();
            Some((kind, Attr(value)))
        })
    }

    /// The attribute with this number; the last one if there are several.
    pub fn get(self, kind: u16) -> Option<Attr<'a>> {
        self.iter()
            .filter(|(k, _)| *k == kind)
            .map(|(_, v)| v)
            .last()
    }

    /// All attributes with this number.
    pub fn all(self, kind: u16) -> impl Iterator<Item = Attr<'a>> {
        self.iter().filter(move |(k, _)| *k == kind).map(|(_, v)| v)
    }
}

impl<'a> Attr<'a> {
    /// The value as exactly `N` bytes.
    pub fn array<const N: usize>(self) -> Option<[u8; N]> {
        self.0.try_into().ok()
    }

    /// The value as an unsigned integer of 16 bits.
    pub fn u16(self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    /// The value as an unsigned integer of 32 bits.
    pub fn u32(self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// The value as an unsigned integer of 32 or 64 bits.
    pub fn uint(self) -> Option<u64> {
        match self.u32() {
            Some(v) => Some(u64::from(v)),
            None => self.array().map(u64::from_ne_bytes),
        }
    }

    /// The value as text, with or without a NUL at its end.
    pub fn text(self) -> Option<&'a str> {
        let bytes = self.0.strip_suffix(&[0]).unwrap_or(self.0);
        core::str::from_utf8(bytes).ok()
    }

    /// The attributes within this one.
    pub fn nested(self) -> Attrs<'a> {
        Attrs(self.0)
    }
}
