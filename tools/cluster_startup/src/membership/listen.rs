// SPDX-License-Identifier: GPL-2.0

//! The control port: answers callers, a thread each, within bounds. Whoever can reach the port can
//! send anything; until a caller has proved that it knows the secret it costs at most a thread and
//! half a kilobyte for a few seconds, and its address has few of these. Where many addresses have all
//! places, the caller that has taken longest to prove itself and to say what it wants makes room for the
//! next one: a member needs two round trips, in which few others come.

use super::auth::{self, AuthError, Secret, Session};
use super::line::{LineError, Lines, MAX_PROVED};
use super::message::{Member, Reply, Request};
use super::node::{Input, Log};
use crate::kernel::MAX_NODES;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Everything must be said within this.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);
/// Callers at once: every other member may call after a restart, and strangers too.
const MAX_CALLERS: usize = 2 * MAX_NODES;
/// Callers at once from one address.
const MAX_FROM_ONE: usize = 8;
/// How long is waited for a caller that was hung up on to leave.
const LEAVE_LIMIT: Duration = Duration::from_millis(200);
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
    /// Those that have not said what they want, by the number of their place, and the oldest first.
    silent: VecDeque<(u64, TcpStream)>,
    next: u64,
    complained: Option<Instant>,
    unsaid: u64,
}

struct Shared {
    secret: Secret,
    node: SyncSender<Input>,
    log: Log,
    callers: Mutex<Callers>,
    /// Told when a caller leaves.
    left: Condvar,
}

impl Shared {
    fn callers(&self) -> MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a caller from `addr`, if there is room or can be made.
    fn enter(self: &Arc<Self>, addr: Ipv4Addr, stream: &TcpStream) -> Option<Place> {
        let mut callers = self.callers();
        let from = |callers: &Callers| callers.from.get(&addr).copied().unwrap_or(0);
        if from(&callers) >= MAX_FROM_ONE {
            return None;
        }
        if callers.total >= MAX_CALLERS {
            let (_, oldest) = callers.silent.pop_front()?;
            // Its thread sees that.
            let _ = oldest.shutdown(Shutdown::Both);
            drop(oldest);
            let is_full = |callers: &mut Callers| callers.total >= MAX_CALLERS;
            callers = self
                .left
                .wait_timeout_while(callers, LEAVE_LIMIT, is_full)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if callers.total >= MAX_CALLERS {
                return None;
            }
        }
        let number = callers.next;
        callers.next = number.wrapping_add(1);
        callers.total += 1;
        *callers.from.entry(addr).or_default() += 1;
        // Without a second descriptor it cannot be hung up on early, nothing else.
        if let Ok(stream) = stream.try_clone() {
            callers.silent.push_back((number, stream));
        }
        Some(Place {
            shared: Arc::clone(self),
            addr,
            number,
        })
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

/// A caller's; given back when its thread ends, however it ends.
struct Place {
    shared: Arc<Shared>,
    addr: Ipv4Addr,
    number: u64,
}

impl Place {
    /// The caller has said what it wants, and is not hung up on for another any more. From now on there
    /// is one descriptor of its socket, which may go to the kernel.
    fn asked(&self) {
        let silent = &mut self.shared.callers().silent;
        silent.retain(|(number, _)| *number != self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.asked();
        let mut callers = self.shared.callers();
        callers.total = callers.total.saturating_sub(1);
        if let Some(from) = callers.from.get_mut(&self.addr) {
            *from = from.saturating_sub(1);
            if *from == 0 {
                callers.from.remove(&self.addr);
            }
        }
        self.shared.left.notify_all();
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
        left: Condvar::new(),
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
    let Some(place) = shared.enter(addr, &stream) else {
        shared.complain(addr, &"too many calls at once");
        return;
    };
    let serving = thread::Builder::new()
        .name("caller".to_string())
        .stack_size(256 * 1024)
        .spawn(move || {
            if let Err(failure) = serve(&place, stream) {
                place.shared.complain(place.addr, &failure);
            }
        });
    if let Err(error) = serving {
        shared.complain(addr, &error);
    }
}

fn serve(place: &Place, stream: TcpStream) -> Result<(), Failure> {
    let shared = &place.shared;
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
    place.asked();
    let (decision, decided) = sync_channel(1);
    let call = Call {
        addr: place.addr,
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

#[cfg(test)]
mod tests {
    use super::super::dial;
    use super::super::message::{Join, Refused};
    use super::*;
    use crate::kernel::Roles;
    use socket2::{Domain, Socket, Type};
    use std::io::Read;
    use std::net::SocketAddrV4;

    /// One that says nothing.
    fn silent(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddrV4::new(from, 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        socket.into()
    }

    #[test]
    fn strangers_that_have_all_places_keep_no_member_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(to) = listener.local_addr().unwrap() else {
            panic!("not IPv4");
        };
        let (node, inputs) = sync_channel(8);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, log) = (Arc::clone(&stop), Arc::new(|_: &str| {}) as Log);
        let secret = || Secret::new(b"secret".to_vec());
        let listening = thread::spawn(move || run(&listener, secret(), node, log, &stopped));
        let deciding = thread::spawn(move || {
            for input in inputs {
                let Input::Call(call) = input else { continue };
                let reply = Reply::Refused(Refused::later("heard"));
                let _ = call.decision.send(Decision {
                    reply,
                    member: None,
                });
            }
        });
        let started = Instant::now();
        let all = (0..MAX_CALLERS).map(|number| {
            let last = u8::try_from(number / MAX_FROM_ONE).unwrap();
            silent(Ipv4Addr::new(127, 0, 9, last + 1), to.into())
        });
        let mut all: Vec<TcpStream> = all.collect();
        let request = Request::Join(Join {
            name: "n".into(),
            roles: Roles::from_bits(6),
            port: 1,
            weight: 1,
            docroot: None,
            was: None,
        });
        let from = Ipv4Addr::new(127, 0, 8, 1);
        let said = dial::call(from, to, &secret(), &request).err().unwrap();
        assert!(said.to_string().contains("heard"), "{said}");
        assert!(started.elapsed() < EXCHANGE_LIMIT);
        // It was the first one that made room.
        let limit = Some(Duration::from_millis(100));
        for (stream, is_gone) in all.iter_mut().zip([true, false, false]) {
            stream.set_read_timeout(limit).unwrap();
            assert_eq!(stream.read(&mut [0]).is_ok(), is_gone);
        }
        stop.store(true, Ordering::Relaxed);
        listening.join().unwrap();
        drop(all);
        deciding.join().unwrap();
    }
}
