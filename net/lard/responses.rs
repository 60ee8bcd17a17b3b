// SPDX-License-Identifier: GPL-2.0

//! What a server answers on a connection that may move: [`lard_core::http::ResponseFramer`], shown what
//! the child sends.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::child::{Kept, Payload, Watch};
use lard_core::http::ResponseFramer;
use lard_core::wire::Refusal;

use crate::open::quiet;
use crate::persist::is_to_head;

/// Bytes that are read at a time.
const PIECE: usize = 256;

/// The responses on one connection.
pub(crate) struct Responses(ResponseFramer);

impl Responses {
    /// For a connection that is handed over with these bytes of the client.
    pub(crate) fn watch(data: &[u8]) -> Result<KBox<dyn Watch>, Refusal> {
        let responses = Self(ResponseFramer::new(is_to_head(data)));
        let responses = KBox::new(responses, quiet()).map_err(|_| Refusal::NoMemory)?;
        Ok(responses)
    }
}

impl Watch for Responses {
    fn sent(&mut self, payload: &Payload<'_>) {
        let mut at = 0usize;
        let mut piece = [0; PIECE];
        while at < payload.len() {
            let left = payload.len().saturating_sub(at);
            let skip = usize::try_from(self.0.skippable())
                .unwrap_or(usize::MAX)
                .min(left);
            if skip > 0 {
                self.0.skip(skip as u64);
                at = at.saturating_add(skip);
                continue;
            }
            let Some(to) = piece.get_mut(..left.min(PIECE)) else {
                return;
            };
            if !payload.copy(at, to) {
                self.0.lose();
                return;
            }
            self.0.feed(to);
            at = at.saturating_add(to.len());
        }
    }

    fn missed(&mut self) {
        self.0.lose();
    }

    fn is_done(&self, requests: u32) -> Result<(), Kept> {
        if self.0.is_lost() {
            Err(Kept::Opaque)
        } else if self.0.is_between() && self.0.completed() == requests {
            Ok(())
        } else {
            Err(Kept::Answering)
        }
    }
}
