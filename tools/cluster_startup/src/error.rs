// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, said so that the reader knows what to do: which operation failed, with which
//! errno, what the kernel added to it, and the remedy.

use nix::errno::Errno;
use std::fmt;
use std::io::{self, Write};

/// Exit code of a command that was understood and failed.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code of a command line that was not understood.
pub const EXIT_USAGE: u8 = 2;

/// A failed operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    usage: bool,
    operation: String,
    errno: Option<i32>,
    detail: Option<String>,
    remedy: Option<String>,
}

/// What every fallible function here returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `operation` failed.
    pub fn new(operation: impl Into<String>) -> Self {
        Error {
            usage: false,
            operation: operation.into(),
            errno: None,
            detail: None,
            remedy: None,
        }
    }

    /// The command line does not make sense.
    pub fn usage(problem: impl Into<String>) -> Self {
        Error {
            usage: true,
            ..Error::new(problem)
        }
    }

    /// `operation` failed with an I/O error, whose errno is kept.
    pub fn io(operation: impl Into<String>, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Error::new(operation).errno(errno),
            None => Error::new(operation).detail(error.to_string()),
        }
    }

    /// Adds the errno.
    pub fn errno(mut self, errno: i32) -> Self {
        self.errno = Some(errno);
        self
    }

    /// Adds what else is known about the cause.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what the reader can do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Did it fail with this errno?
    pub fn is(&self, errno: i32) -> bool {
        self.errno == Some(errno)
    }

    /// The exit code this error ends the program with.
    pub fn exit_code(&self) -> u8 {
        if self.usage {
            EXIT_USAGE
        } else {
            EXIT_FAILURE
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operation)?;
        if let Some(raw) = self.errno {
            write!(f, ": {} ({:?})", errno_text(raw), Errno::from_raw(raw))?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Says something on standard error. Nothing can be done when that is gone, and it must not end a node,
/// as `eprintln!` would.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(format!("cluster_startup: {text}\n").as_bytes());
}

/// What the C library calls an errno.
pub fn errno_text(raw: i32) -> String {
    let text = io::Error::from_raw_os_error(raw).to_string();
    match text.rsplit_once(" (os error") {
        Some((text, _)) => text.to_string(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_operation_errno_detail_and_remedy() {
        let error = Error::new("attach the node")
            .errno(libc::EBUSY)
            .detail("another process owns it")
            .remedy("stop that process first");
        assert_eq!(
            error.to_string(),
            "attach the node: Device or resource busy (EBUSY): another process owns it\n  \
             stop that process first"
        );
        assert_eq!(error.exit_code(), EXIT_FAILURE);
        assert_eq!(Error::usage("no component").exit_code(), EXIT_USAGE);
    }
}
