// SPDX-License-Identifier: GPL-2.0

//! Lines on standard error, put together on the stack.

use super::real;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// A line; what is longer is cut.
const LINE: usize = 256;

static ENABLED: AtomicBool = AtomicBool::new(false);

struct Line {
    octets: [u8; LINE],
    used: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &octet in text.as_bytes() {
            let Some(place) = self.octets.get_mut(self.used) else {
                return Err(fmt::Error);
            };
            *place = octet;
            self.used += 1;
        }
        Ok(())
    }
}

/// From now on [`debug`] speaks.
pub(crate) fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

/// Says something that only somebody who looks for it wants to know.
pub(crate) fn debug(text: fmt::Arguments<'_>) {
    if ENABLED.load(Ordering::Relaxed) {
        error(text);
    }
}

/// Says something.
pub(crate) fn error(text: fmt::Arguments<'_>) {
    let saved = real::errno();
    let mut line = Line {
        octets: [0; LINE],
        used: 0,
    };
    // A line that was cut is still a line.
    let _ = write!(line, "lard_run: {text}");
    let end = line.used.min(LINE - 1);
    if let Some(last) = line.octets.get_mut(end) {
        *last = b'\n';
    }
    // SAFETY: the buffer has `end + 1` octets. Nothing can be done about a failure.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.octets.as_ptr().cast(), end + 1) };
    real::set_errno(saved);
}
