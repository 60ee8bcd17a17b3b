// SPDX-License-Identifier: GPL-2.0

//! What things cost on a machine. All times are nanoseconds.

/// The costs of one kind of machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hardware {
    /// CPU: a connection is set up.
    pub set_up: u64,
    /// CPU: a connection is torn down.
    pub tear_down: u64,
    /// CPU: the server handles a request, whatever its size.
    pub request: u64,
    /// CPU: 512 bytes are sent.
    pub transmit_512: u64,
    /// CPU of a back-end: a connection is handed to it.
    pub adopt: u64,
    /// CPU of a back-end: content of another one is asked for.
    pub forward: u64,
    /// CPU of a back-end, at either end: 512 bytes go from one to the other.
    pub forward_512: u64,
    /// Disk: the first bytes of a file.
    pub disk_latency: u64,
    /// Disk: 4 KB are read.
    pub disk_4k: u64,
    /// Disk: every 44 KB after the first, another seek.
    pub disk_further_44k: u64,
    /// Disks of a node.
    pub disks: u32,
    /// File cache of a node, bytes.
    pub cache: u64,
    /// CPU of a front-end: a connection is accepted, its request read, the dispatcher asked, and the
    /// connection handed over.
    pub hand_off: u64,
    /// CPU of the dispatcher: a decision.
    pub decision: u64,
    /// CPU of the dispatcher: a question of another machine and its answer, besides the decision.
    pub question: u64,
    /// CPU of a front-end: an acknowledgement is forwarded; one for every two segments.
    pub ack: u64,
    /// CPU of a front-end that relays: a request.
    pub relay: u64,
    /// CPU of a front-end that relays: 512 bytes are passed on.
    pub relay_512: u64,
}

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;

/// The constants of the simulation in \[3\]: where a server does nothing but send files.
pub const PAPER: Hardware = Hardware {
    set_up: 145 * US,
    tear_down: 145 * US,
    request: 0,
    transmit_512: 40 * US,
    adopt: 0,
    forward: 50 * US,
    forward_512: 10 * US,
    disk_latency: 28 * MS,
    disk_4k: 410 * US,
    disk_further_44k: 14 * MS,
    disks: 1,
    cache: 32 << 20,
    hand_off: 300 * US,
    // \[1\] measured the decision, and 50,000 connections a second with the messages for them.
    decision: 800,
    question: 19_200,
    ack: 9 * US,
    relay: 750 * US,
    relay_512: 40 * US,
};

/// The prototypes of \[1\] and \[2\]: Apache on a 300 MHz Pentium II with 85 MB of file cache. What
/// Apache itself costs is chosen so that one node serves 6 KB pages as fast as a front-end that hands
/// off 3,300 connections a second keeps four to five of them busy.
pub const PROTOTYPE: Hardware = Hardware {
    request: 550 * US,
    adopt: 100 * US,
    transmit_512: 30 * US,
    cache: 85 << 20,
    ..PAPER
};

/// A server of today: 100,000 small requests a second, an NVMe drive that reads from 32 places at
/// once, and as much memory for its content as the papers' nodes had for theirs (1/30 of the set).
pub const TODAY: Hardware = Hardware {
    set_up: 3 * US,
    tear_down: 2 * US,
    request: 4 * US,
    transmit_512: 40,
    adopt: US,
    forward: 2 * US,
    forward_512: 40,
    disk_latency: 90 * US,
    // 3 GB/s through all of them.
    disk_4k: 43 * US,
    disk_further_44k: 0,
    disks: 32,
    cache: 32 << 20,
    hand_off: 3 * US,
    decision: 100,
    question: 2 * US,
    ack: 300,
    relay: 8 * US,
    relay_512: 80,
};

impl Hardware {
    /// The same machine with a CPU `factor` times as fast.
    pub fn with_cpu(mut self, factor: u64) -> Self {
        for cost in [
            &mut self.set_up,
            &mut self.tear_down,
            &mut self.request,
            &mut self.transmit_512,
            &mut self.adopt,
            &mut self.forward,
            &mut self.forward_512,
        ] {
            *cost /= factor;
        }
        self
    }

    /// CPU time to send `size` bytes to a client.
    pub fn transmit(&self, size: u32) -> u64 {
        self.transmit_512 * u64::from(size.div_ceil(512))
    }

    /// CPU time to pass `size` bytes between back-ends, at either end.
    pub fn pass(&self, size: u32) -> u64 {
        self.forward_512 * u64::from(size.div_ceil(512))
    }

    /// CPU time of a front-end that forwards the acknowledgements of `size` bytes.
    pub fn acks(&self, size: u32) -> u64 {
        self.ack * u64::from(size.div_ceil(2 * 1_460))
    }

    /// CPU time of a front-end that relays `size` bytes.
    pub fn relayed(&self, size: u32) -> u64 {
        self.relay + self.relay_512 * u64::from(size.div_ceil(512))
    }

    /// Time a disk is busy with a file of `size` bytes.
    pub fn read(&self, size: u32) -> u64 {
        let further = size.saturating_sub(1) / (44 << 10);
        self.disk_latency
            + self.disk_4k * u64::from(size.div_ceil(4 << 10))
            + self.disk_further_44k * u64::from(further)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_file_of_8_kb_takes_what_the_paper_says() {
        let time = PAPER.set_up + PAPER.transmit(8 << 10) + PAPER.tear_down;
        assert_eq!(time, 930 * US);
    }

    #[test]
    fn large_files_need_further_seeks() {
        assert_eq!(PAPER.read(44 << 10), 28 * MS + 11 * 410 * US);
        assert_eq!(PAPER.read((44 << 10) + 1), 42 * MS + 12 * 410 * US);
    }
}
