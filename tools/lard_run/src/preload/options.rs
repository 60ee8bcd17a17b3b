// SPDX-License-Identifier: GPL-2.0

//! The options a server may have set before `bind()`, and which the converted socket must have too.
//!
//! An option is copied only when it differs from that of a fresh socket: setting SO_RCVBUF, even to
//! its own value, would end automatic sizing, and some need a privilege.

use super::say;
use libc::{c_int, c_void, socklen_t};
use std::mem::size_of;

/// Larger than any of the options below.
const ROOM: usize = 64;

/// The kernel keeps twice what was asked for, and says so.
const DOUBLED: [c_int; 2] = [libc::SO_RCVBUF, libc::SO_SNDBUF];

/// Linux names the C library does not have everywhere.
const IP_LOCAL_PORT_RANGE: c_int = 51;

const OPTIONS: &[(c_int, &[c_int])] = &[
    (
        libc::SOL_SOCKET,
        &[
            libc::SO_REUSEADDR,
            libc::SO_REUSEPORT,
            libc::SO_KEEPALIVE,
            libc::SO_LINGER,
            libc::SO_OOBINLINE,
            libc::SO_RCVBUF,
            libc::SO_SNDBUF,
            libc::SO_RCVLOWAT,
            libc::SO_RCVTIMEO,
            libc::SO_SNDTIMEO,
            libc::SO_PRIORITY,
            libc::SO_MARK,
            libc::SO_BINDTODEVICE,
            libc::SO_DONTROUTE,
            libc::SO_INCOMING_CPU,
            libc::SO_BUSY_POLL,
            libc::SO_ZEROCOPY,
        ],
    ),
    (
        libc::IPPROTO_IP,
        &[
            libc::IP_TOS,
            libc::IP_TTL,
            libc::IP_MTU_DISCOVER,
            libc::IP_FREEBIND,
            libc::IP_TRANSPARENT,
            libc::IP_BIND_ADDRESS_NO_PORT,
            IP_LOCAL_PORT_RANGE,
        ],
    ),
    (
        libc::IPPROTO_TCP,
        &[
            libc::TCP_NODELAY,
            libc::TCP_CORK,
            libc::TCP_MAXSEG,
            libc::TCP_DEFER_ACCEPT,
            libc::TCP_KEEPIDLE,
            libc::TCP_KEEPINTVL,
            libc::TCP_KEEPCNT,
            libc::TCP_USER_TIMEOUT,
            libc::TCP_SYNCNT,
            libc::TCP_LINGER2,
            libc::TCP_WINDOW_CLAMP,
            libc::TCP_CONGESTION,
            libc::TCP_NOTSENT_LOWAT,
            libc::TCP_FASTOPEN,
            libc::TCP_SAVE_SYN,
        ],
    ),
];

/// The value of an option.
struct Value {
    octets: [u8; ROOM],
    length: socklen_t,
}

impl Value {
    fn of(fd: c_int, level: c_int, name: c_int) -> Option<Self> {
        let mut value = Value {
            octets: [0; ROOM],
            length: ROOM as socklen_t,
        };
        // SAFETY: buffer and length belong together and are ours.
        let result = unsafe {
            libc::getsockopt(
                fd,
                level,
                name,
                value.octets.as_mut_ptr().cast::<c_void>(),
                &mut value.length,
            )
        };
        (result == 0).then_some(value)
    }

    fn bytes(&self) -> &[u8] {
        let length = usize::try_from(self.length).unwrap_or(0);
        self.octets.get(..length).unwrap_or_default()
    }

    fn number(&self) -> Option<c_int> {
        Some(c_int::from_ne_bytes(self.bytes().try_into().ok()?))
    }

    fn put(&mut self, number: c_int) {
        for (place, octet) in self.octets.iter_mut().zip(number.to_ne_bytes()) {
            *place = octet;
        }
    }

    fn set(&self, fd: c_int, level: c_int, name: c_int) -> bool {
        // SAFETY: buffer and length belong together.
        let result = unsafe {
            libc::setsockopt(
                fd,
                level,
                name,
                self.octets.as_ptr().cast::<c_void>(),
                self.length,
            )
        };
        result == 0
    }
}

/// The value of an option that is a number.
pub(crate) fn number(fd: c_int, level: c_int, name: c_int) -> Option<c_int> {
    Value::of(fd, level, name)?.number()
}

/// Sets an option that is a number.
pub(crate) fn set_number(fd: c_int, level: c_int, name: c_int, number: c_int) -> bool {
    let mut value = Value {
        octets: [0; ROOM],
        length: size_of::<c_int>() as socklen_t,
    };
    value.put(number);
    value.set(fd, level, name)
}

/// Gives `to` the options of `from`.
pub(crate) fn copy(from: c_int, to: c_int) {
    for &(level, names) in OPTIONS {
        for &name in names {
            let Some(mut wanted) = Value::of(from, level, name) else {
                continue;
            };
            let same =
                Value::of(to, level, name).is_some_and(|fresh| fresh.bytes() == wanted.bytes());
            if same {
                continue;
            }
            if level == libc::SOL_SOCKET && DOUBLED.contains(&name) {
                wanted.put(wanted.number().unwrap_or(0) / 2);
            }
            if !wanted.set(to, level, name) {
                say::debug(format_args!(
                    "socket option {level}/{name} could not be copied: errno {}",
                    super::real::errno()
                ));
            }
        }
    }
}
