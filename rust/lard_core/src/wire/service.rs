// SPDX-License-Identifier: GPL-2.0

//! SERVICE: what is the same on all front-ends, because the cluster is one server to its clients.

use super::super::content;
use super::super::follow::Mode;
use super::super::http::KeyParts;
use super::super::policy::Mechanism;
use super::cursor::{Reader, Writer};
use super::{DecodeError, EncodeError, Frame, MsgType};

/// Length of the body before the texts.
pub(super) const FIXED_LEN: usize = 8;

/// Length of the longest body.
pub(super) const MAX_LEN: usize =
    FIXED_LEN + Service::MAX_KEY + Service::MAX_TAGS + content::MAX_TEXT;

/// The settings of the service. The dispatcher says them behind its HELLO, so that they are known
/// before anybody asks it, and again whenever they change. The last ones hold, also when the
/// dispatcher is gone.
///
/// ```text
///  0              16              32              48              64
/// +---------------+---------------+---------------+-------+-------+
/// | n key         | n tags        | n lines       | flags | mode  |
/// +---------------+---------------+---------------+-------+-------+
/// | key … tags … lines …                                          |
/// ```
///
/// The three are texts, which their readers read: what is a text here may still say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service<'a> {
    /// What of a request makes its target: [`KeyParts`](super::super::http::KeyParts).
    pub key: &'a str,
    /// The names of the tags by their bits: [`content::TagNames::from_wire`].
    pub tags: &'a str,
    /// The content rules: [`content::Rules::compile`].
    pub lines: &'a str,
    /// What becomes of further requests on a connection, by its number.
    pub mode: Mode,
    /// How another node serves them with [`Mode::Auto`]; flag 2 is [`Mechanism::Forward`].
    pub mechanism: Mechanism,
    /// Front-ends tell the dispatcher of connections that fall idle ([`Idle`](super::Idle)): flag 1.
    pub tells_idle: bool,
}

const TELLS_IDLE: u8 = 1;
const FORWARDS: u8 = 2;

impl Service<'_> {
    /// What holds where nobody has said anything.
    pub const USUAL: Service<'static> = Service {
        key: KeyParts::DEFAULT_TEXT,
        tags: "",
        lines: "",
        mode: Mode::Pin,
        mechanism: Mechanism::Move,
        tells_idle: false,
    };

    /// Bytes of the longest key.
    pub const MAX_KEY: usize = 255;

    /// Bytes of the names of all tags.
    pub const MAX_TAGS: usize = content::MAX_TAGS * 32;
}

impl<'a> Frame<'a> for Service<'a> {
    const KIND: MsgType = MsgType::Service;

    fn body_len(&self) -> usize {
        FIXED_LEN
            .saturating_add(self.key.len())
            .saturating_add(self.tags.len())
            .saturating_add(self.lines.len())
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        for (text, max) in [
            (self.key, Self::MAX_KEY),
            (self.tags, Self::MAX_TAGS),
            (self.lines, content::MAX_TEXT),
        ] {
            if text.len() > max {
                return Err(EncodeError::TooLong);
            }
            // CAST: the limits are below 2^16.
            w.u16(text.len() as u16);
        }
        let idle = if self.tells_idle { TELLS_IDLE } else { 0 };
        let forwards = match self.mechanism {
            Mechanism::Move => 0,
            Mechanism::Forward => FORWARDS,
        };
        w.u8(idle | forwards);
        w.u8(self.mode as u8);
        w.bytes(self.key.as_bytes());
        w.bytes(self.tags.as_bytes());
        w.bytes(self.lines.as_bytes());
        Ok(())
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let value = |field| DecodeError::Value(MsgType::Service, field);
        let (key, tags, lines) = (r.u16(), r.u16(), r.u16());
        let (flags, mode) = (r.u8(), r.u8());
        if flags & !(TELLS_IDLE | FORWARDS) != 0 {
            return Err(DecodeError::Reserved(MsgType::Service));
        }
        let mechanism = match flags & FORWARDS {
            0 => Mechanism::Move,
            _ => Mechanism::Forward,
        };
        let mode = Mode::ALL.into_iter().find(|m| *m as u8 == mode);
        let mode = mode.ok_or(value("mode"))?;
        let mut text = |len: u16, max, name| {
            let len = usize::from(len);
            if len > max {
                return Err(value(name));
            }
            core::str::from_utf8(r.bytes(len)).map_err(|_| value(name))
        };
        Ok(Service {
            key: text(key, Self::MAX_KEY, "key")?,
            tags: text(tags, Self::MAX_TAGS, "tags")?,
            lines: text(lines, content::MAX_TEXT, "lines")?,
            mode,
            mechanism,
            tells_idle: flags & TELLS_IDLE != 0,
        })
    }
}
