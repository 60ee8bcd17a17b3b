// SPDX-License-Identifier: GPL-2.0

//! Frames out of a stream of bytes, read in pieces of exactly the right size.
//!
//! ```text
//!            need() = 8                     need() = length
//!   +------+ push(header)          +------+
//!   | Idle | --------------------> | Body | --- push(body) ---> Message, back to Idle
//!   +------+                       +------+
//! ```
//!
//! The receiver asks how many bytes come next, waits for just those (so no byte is ever copied
//! twice, and none has to be kept), and pushes them. A header that cannot be right is refused before
//! its body is waited for.

use super::{DecodeError, Header, Message, MsgType, HEADER_LEN};

/// The receiving half of a control connection.
#[derive(Debug, Default)]
pub struct Framer {
    header: Option<Header>,
    introduced: bool,
}

impl Framer {
    /// For a connection on which nothing has arrived yet: the first frame must be HELLO.
    pub const fn new() -> Self {
        Framer {
            header: None,
            introduced: false,
        }
    }

    /// How many bytes to read next: 1 to [`MAX_BODY`](super::MAX_BODY).
    pub const fn need(&self) -> usize {
        match self.header {
            None => HEADER_LEN,
            Some(header) => header.length,
        }
    }

    /// Takes exactly [`Framer::need`] bytes; yields the message if they were its body. After an error
    /// the connection must be closed.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Message<'a>>, DecodeError> {
        match self.header.take() {
            None => {
                // A piece of the wrong size is a mistake of the caller; it fails like a bad frame.
                let bytes = bytes.try_into().map_err(|_| DecodeError::Type(0))?;
                let header = Header::decode(bytes)?;
                if !self.introduced && header.kind != MsgType::Hello {
                    return Err(DecodeError::NotIntroduced(header.kind));
                }
                self.header = Some(header);
                Ok(None)
            }
            Some(header) => {
                let message = Message::decode(header, bytes)?;
                self.introduced = true;
                Ok(Some(message))
            }
        }
    }

    /// Has the peer said HELLO?
    pub const fn is_introduced(&self) -> bool {
        self.introduced
    }
}
