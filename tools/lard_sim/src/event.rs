// SPDX-License-Identifier: GPL-2.0

//! What happens next.

use lard_core::addr::NodeId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that happens. Clients are known by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A connection comes, at its own time.
    Arrives,
    /// A front-end has the head of a client's first request.
    Accepted(u32),
    /// The dispatcher has come to a client's request.
    Decided(u32),
    /// Somebody has waited for as long as one may.
    Impatient,
    /// A back-end has read a client's request.
    Parsed(u32),
    /// A back-end, in this life, has read a file.
    Read {
        /// Which one.
        node: NodeId,
        /// In which life.
        life: u32,
        /// The file.
        file: u32,
    },
    /// Content for a client has left the back-end that had it for the one with the connection.
    Passed(u32),
    /// A client has its response.
    Sent(u32),
    /// A client has read its page and wants another one.
    Resumed(u32),
}

/// Events to come, by time and then in the order in which they were put in.
#[derive(Debug, Default)]
pub struct Events {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
}

impl Events {
    /// `event` will happen at `time`.
    pub fn push(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.heap.push(Reverse((time, self.count, event)));
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap
            .pop()
            .map(|Reverse((time, _, event))| (time, event))
    }
}
