// SPDX-License-Identifier: GPL-2.0

//! What clients ask for: targets with sizes, and requests in the order in which they come.
//!
//! ```text
//!   Connection   Same Same Same   Batch(2 s)   Same      Connection …
//!   a page       its images       the next page          another client
//! ```

use std::io::{self, ErrorKind};

/// How a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// On a new connection.
    Connection,
    /// On the connection of the request before, this many microseconds after its response.
    Batch(u32),
    /// Together with the request before.
    Same,
}

/// A request for a target.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Index of the target.
    pub target: u32,
    /// How it comes.
    pub start: Start,
}

/// A sequence of requests.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The size of each target in bytes.
    pub sizes: Vec<u32>,
    /// The requests.
    pub requests: Vec<Request>,
}

impl Trace {
    /// The same requests, each on a connection of its own (HTTP/1.0).
    pub fn http10(mut self) -> Self {
        for request in &mut self.requests {
            request.start = Start::Connection;
        }
        self
    }

    /// Size of all targets together.
    pub fn bytes(&self) -> u64 {
        self.sizes.iter().map(|size| u64::from(*size)).sum()
    }

    /// Mean size of a response.
    pub fn mean_transfer(&self) -> f64 {
        let bytes = self.requests.iter().map(|r| self.sizes[r.target as usize]);
        bytes.map(f64::from).sum::<f64>() / self.requests.len().max(1) as f64
    }

    /// Requests for each connection.
    pub fn per_connection(&self) -> f64 {
        let starts = self
            .requests
            .iter()
            .filter(|r| r.start == Start::Connection);
        self.requests.len() as f64 / starts.count().max(1) as f64
    }

    /// Bytes of the most popular targets that make up this part of all requests.
    pub fn needed_for(&self, part: f64) -> u64 {
        let counts = self.counts();
        let goal = (part * self.requests.len() as f64) as u64;
        let mut seen = 0;
        let needed = self.by_popularity().into_iter().take_while(|(target, _)| {
            let is_needed = seen < goal;
            seen += counts[*target as usize];
            is_needed
        });
        needed.map(|(_, size)| u64::from(size)).sum()
    }

    /// Targets and their sizes, the one that is asked for most often first.
    pub fn by_popularity(&self) -> Vec<(u32, u32)> {
        let counts = self.counts();
        let mut ranked: Vec<_> = (0u32..).zip(self.sizes.iter().copied()).collect();
        ranked.sort_by_key(|(target, _)| std::cmp::Reverse(counts[*target as usize]));
        ranked
    }

    /// Requests for each target.
    fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.sizes.len()];
        for request in &self.requests {
            counts[request.target as usize] += 1;
        }
        counts
    }

    /// Fails if there is nothing to simulate.
    pub fn check(self) -> io::Result<Self> {
        if self.requests.is_empty() {
            return Err(io::Error::new(ErrorKind::InvalidData, "no requests in it"));
        }
        Ok(self)
    }
}
