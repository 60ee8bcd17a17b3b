// SPDX-License-Identifier: GPL-2.0

//! What a server answers on a connection that may be handed over again:
//! [`lard_core::http::ResponseFramer`], shown what the child sends.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel_net::child::{Kept, Payload, Watch};
use lard_core::http::ResponseFramer;
use lard_core::wire::Refusal;

use crate::open::quiet;
use crate::persist::is_to_head;
use crate::pieces::{self, Reader};

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

impl Reader for Responses {
    fn is_reading(&self) -> bool {
        !self.0.is_lost()
    }

    fn skippable(&self) -> u64 {
        self.0.skippable()
    }

    fn skip(&mut self, n: u64) {
        self.0.skip(n);
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.0.feed(bytes);
    }

    fn lose(&mut self) {
        self.0.lose();
    }
}

impl Watch for Responses {
    fn sent(&mut self, payload: &Payload<'_>) {
        pieces::read(payload, 0, payload.len(), self);
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
