// SPDX-License-Identifier: GPL-2.0

//! A netlink socket bound to the module's family: one question at a time, all its answers.

use super::codec::{Answers, Attributes, Body, Request, ACK, DUMP};
use super::spec;
use crate::error::{Error, Result};
use netlink_sys::{constants::NETLINK_GENERIC, Socket, SocketAddr};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The controller, through which families are found.
const CONTROLLER: u16 = 0x10;
const CONTROLLER_VERSION: u8 = 2;
const GET_FAMILY: u8 = 3;
const ATTR_FAMILY_ID: u16 = 1;
const ATTR_FAMILY_NAME: u16 = 2;
const ATTR_GROUPS: u16 = 7;
const ATTR_GROUP_NAME: u16 = 1;
const ATTR_GROUP_ID: u16 = 2;

/// The kernel makes no datagram of an answer larger than this.
const DATAGRAM: usize = 64 * 1024;
/// The kernel answers at once; an operation that closes connections may wait for threads.
const PATIENCE: Duration = Duration::from_secs(20);
/// Parts of one answer that are kept; a front-end's table has at most a million entries.
const MAX_PARTS: usize = 4 << 20;

/// The numbers of the family, which the kernel hands out when the module is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Number of the family.
    pub id: u16,
    /// Number of the group of events.
    pub events: Option<u32>,
}

/// A socket and the number of its last request.
pub struct Channel {
    socket: Socket,
    sequence: u32,
}

impl Channel {
    /// Opens one.
    pub fn open() -> Result<Self> {
        let failed = |error: io::Error| Error::io("open a netlink socket", &error);
        let mut socket = Socket::new(NETLINK_GENERIC).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        // Without these the kernel's explanations are missing, nothing else.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Channel {
            socket,
            sequence: 0,
        })
    }

    /// Finds the module's family; `None` when the module is not loaded.
    pub fn find_family(&mut self) -> Result<Option<Family>> {
        let mut request = Request::new(CONTROLLER, GET_FAMILY, CONTROLLER_VERSION, ACK);
        request.put_str(ATTR_FAMILY_NAME, spec::FAMILY);
        let parts = match self.exchange("look for the netlink family \"lard\"", request) {
            Ok(parts) => parts,
            Err(error) if error.is(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        for part in &parts {
            let attributes = Attributes::new(part);
            let Some(id) = attributes.first(ATTR_FAMILY_ID).and_then(|a| a.u16()) else {
                continue;
            };
            let events = attributes.first(ATTR_GROUPS).and_then(|groups| {
                groups.nest().find_map(|group| {
                    let name = group.nest().first(ATTR_GROUP_NAME)?.text();
                    let id = group.nest().first(ATTR_GROUP_ID)?.u32()?;
                    (name == spec::EVENTS).then_some(id)
                })
            });
            return Ok(Some(Family { id, events }));
        }
        Ok(None)
    }

    /// Does an operation; the answer's attributes where it has one.
    pub fn run(&mut self, what: &str, family: Family, command: u8) -> Exchange<'_> {
        self.prepare(what, family, command, ACK)
    }

    /// Asks for everything of a kind.
    pub fn dump(&mut self, what: &str, family: Family, command: u8) -> Result<Vec<Vec<u8>>> {
        self.prepare(what, family, command, DUMP).send()
    }

    fn prepare(&mut self, what: &str, family: Family, command: u8, flags: u16) -> Exchange<'_> {
        Exchange {
            channel: self,
            what: what.to_string(),
            request: Request::new(family.id, command, spec::VERSION, flags),
        }
    }

    /// Joins the group of events.
    pub fn subscribe(&mut self, group: u32) -> Result<()> {
        self.socket
            .add_membership(group)
            .map_err(|error| Error::io("subscribe to the module's events", &error))
    }

    /// Waits for a datagram; `None` after the timeout.
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // One millisecond more than is left, so that rounding down cannot spin.
            let left = left + Duration::from_millis(1);
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, wait) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut datagram = Vec::with_capacity(DATAGRAM);
        self.socket.recv(&mut datagram, 0)?;
        Ok(Some(datagram))
    }

    fn exchange(&mut self, what: &str, request: Request) -> Result<Vec<Vec<u8>>> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let request = request.finish(self.sequence);
        self.socket
            .send_to(&request, &SocketAddr::new(0, 0), 0)
            .map_err(|error| Error::io(what, &error))?;
        let deadline = Instant::now() + PATIENCE;
        let mut parts = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let datagram = self
                .receive(left)
                .map_err(|error| Error::io(what, &error))?
                .ok_or_else(|| Error::new(what).detail("the kernel does not answer"))?;
            for answer in Answers::new(&datagram) {
                if answer.sequence != self.sequence {
                    // Left over from an exchange that was given up.
                    continue;
                }
                match answer.body {
                    Body::Acknowledged | Body::Done => return Ok(parts),
                    Body::Failed(errno, text) => return Err(explain(what, errno, text)),
                    Body::Message { attributes, .. } if parts.len() < MAX_PARTS => {
                        parts.push(attributes.to_vec());
                    }
                    Body::Message { .. } => {}
                }
            }
        }
    }
}

/// A request being made up.
pub struct Exchange<'a> {
    channel: &'a mut Channel,
    what: String,
    request: Request,
}

impl Exchange<'_> {
    /// Adds attributes.
    pub fn with(mut self, fill: impl FnOnce(&mut Request)) -> Self {
        fill(&mut self.request);
        self
    }

    /// Sends it; the attributes of each part of the answer.
    pub fn send(self) -> Result<Vec<Vec<u8>>> {
        self.channel.exchange(&self.what, self.request)
    }
}

fn explain(what: &str, errno: i32, text: Option<String>) -> Error {
    let mut error = Error::new(what).errno(errno);
    let told = text.is_some();
    if let Some(text) = text {
        error = error.detail(text);
    }
    match errno {
        libc::EPERM | libc::EACCES => error.remedy(
            "this needs CAP_NET_ADMIN on the machine: run it as root, in no user namespace",
        ),
        libc::ENOTCONN => error.remedy(
            "this machine (this network namespace) is not a node: start `cluster_startup` with \
             -D, -FE or -BE here first",
        ),
        libc::EOPNOTSUPP if !told => error.remedy(
            "the loaded module does not know this operation: load the module that belongs to \
             this program",
        ),
        _ => error,
    }
}
