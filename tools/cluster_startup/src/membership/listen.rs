// SPDX-License-Identifier: GPL-2.0

//! The control port: answers callers, a thread each, within bounds. Whoever can reach the port can
//! send anything; until a caller has proved that it knows the secret it costs at most a thread and
//! half a kilobyte for a few seconds, and its address has few of these.

use super::auth::{self, AuthError, Secret, Session};
use super::line::{LineError, Lines, MAX_PROVED};
use super::message::{Member, Reply, Request};
use super::node::{Input, Log};
use crate::kernel::MAX_NODES;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Everything must be said within this.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);
/// Callers at once: every other member may call after a restart, and strangers too.
const MAX_CALLERS: usize = 2 * MAX_NODES;
/// Callers at once from one address.
const MAX_FROM_ONE: usize = 8;
/// At most one line a second is printed about callers that fail.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);
/// How soon the listener notices that it should end.
const STOP_CHECK: u16 = 200;

/// A proven caller and its request, for the node to decide.
pub struct Call {
    /// Where it calls from.
    pub addr: Ipv4Addr,
    /// The address it called.
    pub to: Ipv4Addr,
    /// What it wants.
    pub request: Request,
    /// To mask what only the caller should read.
    pub session: Session,
    /// Takes the decision.
    pub decision: SyncSender<Decision>,
}

/// What the node decided: what to say, and who the caller is if its socket is wanted.
pub struct Decision {
    /// What to say.
    pub reply: Reply,
    /// Whose socket it is.
    pub member: Option<Member>,
}

/// What failed about a caller.
enum Failure {
    Auth(AuthError),
    Line(LineError),
    Leaving,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Auth(error) => error.fmt(f),
            Failure::Line(error) => error.fmt(f),
            Failure::Leaving => f.write_str("this node is busy or leaving"),
        }
    }
}

/// Who is being served.
#[derive(Default)]
struct Callers {
    from: HashMap<Ipv4Addr, usize>,
    total: usize,
    complained: Option<Instant>,
    unsaid: u64,
}

struct Shared {
    secret: Secret,
    node: SyncSender<Input>,
    log: Log,
    callers: Mutex<Callers>,
}

impl Shared {
    fn callers(&self) -> std::sync::MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is there room for a caller from `addr`?
    fn enter(&self, addr: Ipv4Addr) -> bool {
        let mut callers = self.callers();
        if callers.total >= MAX_CALLERS {
            return false;
        }
        let from = callers.from.entry(addr).or_default();
        if *from >= MAX_FROM_ONE {
            return false;
        }
        *from += 1;
        callers.total += 1;
        true
    }

    fn leave(&self, addr: Ipv4Addr) {
        let mut callers = self.callers();
        callers.total = callers.total.saturating_sub(1);
        if let Some(from) = callers.from.get_mut(&addr) {
            *from = from.saturating_sub(1);
            if *from == 0 {
                callers.from.remove(&addr);
            }
        }
    }

    fn complain(&self, addr: Ipv4Addr, what: &dyn fmt::Display) {
        let mut callers = self.callers();
        let recent = callers
            .complained
            .is_some_and(|last| last.elapsed() < COMPLAINT_INTERVAL);
        if recent {
            callers.unsaid = callers.unsaid.saturating_add(1);
            return;
        }
        callers.complained = Some(Instant::now());
        let unsaid = std::mem::take(&mut callers.unsaid);
        drop(callers);
        let more = match unsaid {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        (self.log)(&format!("a call from {addr} failed: {what}{more}"));
    }
}

/// Leaves when the caller's thread ends, however it ends.
struct Place(Arc<Shared>, Ipv4Addr);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

/// Answers callers on `listener` until `stop`.
pub fn run(
    listener: &TcpListener,
    secret: Secret,
    node: SyncSender<Input>,
    log: Log,
    stop: &AtomicBool,
) {
    let shared = Arc::new(Shared {
        secret,
        node,
        log,
        callers: Mutex::default(),
    });
    // A caller that gives up between poll and accept must not block the loop.
    if let Err(error) = listener.set_nonblocking(true) {
        (shared.log)(&format!("the control port does not work: {error}"));
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut ready, PollTimeout::from(STOP_CHECK)), Ok(1..)) {
            continue;
        }
        match listener.accept() {
            Ok((stream, from)) => start(&shared, stream, from),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // Out of descriptors or memory: the caller waits in the backlog.
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn start(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr) {
    let IpAddr::V4(addr) = from.ip() else {
        return;
    };
    if !shared.enter(addr) {
        shared.complain(addr, &"too many calls at once");
        return;
    }
    let place = Place(Arc::clone(shared), addr);
    let serving = thread::Builder::new()
        .name("caller".to_string())
        .stack_size(256 * 1024)
        .spawn(move || {
            let Place(shared, addr) = &place;
            if let Err(failure) = serve(shared, stream, *addr) {
                shared.complain(*addr, &failure);
            }
        });
    if let Err(error) = serving {
        shared.complain(addr, &error);
    }
}

fn serve(shared: &Shared, stream: TcpStream, addr: Ipv4Addr) -> Result<(), Failure> {
    let started = Instant::now();
    stream
        .set_nonblocking(false)
        .map_err(|error| Failure::Line(error.into()))?;
    let to = match stream.local_addr() {
        Ok(SocketAddr::V4(to)) => *to.ip(),
        _ => return Err(Failure::Line(LineError::Closed)),
    };
    let mut lines = Lines::new(stream, EXCHANGE_LIMIT);
    let session = auth::answer(&mut lines, &shared.secret).map_err(Failure::Auth)?;
    let request: Request = lines.receive(MAX_PROVED).map_err(Failure::Line)?;
    let (decision, decided) = sync_channel(1);
    let call = Call {
        addr,
        to,
        request,
        session,
        decision,
    };
    shared
        .node
        .send(Input::Call(call))
        .map_err(|_| Failure::Leaving)?;
    let left = EXCHANGE_LIMIT.saturating_sub(started.elapsed());
    let Decision { reply, member } = decided.recv_timeout(left).map_err(|_| Failure::Leaving)?;
    let sent = lines
        .send(&reply)
        .and_then(|()| lines.into_stream().map_err(LineError::from));
    if let Some(member) = member {
        // The node counts on hearing of it, whichever way it went.
        let (stream, result) = match sent {
            Ok(stream) => (Some(stream), Ok(())),
            Err(error) => (None, Err(Failure::Line(error))),
        };
        shared
            .node
            .send(Input::Called { member, stream })
            .map_err(|_| Failure::Leaving)?;
        return result;
    }
    sent.map(drop).map_err(Failure::Line)
}
