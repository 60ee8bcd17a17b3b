// SPDX-License-Identifier: GPL-2.0

//! How `cluster_startup stop` finds the resident process: an abstract Unix socket, whose name is
//! per network namespace, as a node is. It also keeps a second process from starting.

use crate::error::{say, Error, Result};
use crate::membership::node::Input;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials, UnixCredentials};
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

const NAME: &[u8] = b"lard/cluster_startup";
const STOP: &[u8] = b"stop\n";
/// Callers that are kept waiting for the end; one is usual.
const MAX_WAITING: usize = 16;
/// Saying one word takes no time.
const SAY_LIMIT: Duration = Duration::from_secs(2);
/// Leaving closes the control connections, which may wait for the kernel's threads.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(NAME)
}

/// Claims the name for this process.
pub fn claim() -> Result<UnixListener> {
    address()
        .and_then(|address| UnixListener::bind_addr(&address))
        .map_err(|error| {
            let what = Error::io("start the node", &error);
            if error.raw_os_error() != Some(libc::EADDRINUSE) {
                return what;
            }
            let holder = address()
                .and_then(|address| UnixStream::connect_addr(&address))
                .ok()
                .and_then(|stream| getsockopt(&stream, PeerCredentials).ok());
            match holder {
                Some(holder) if !is_trusted(holder.uid()) => {
                    what.detail(foreign(&holder)).remedy("end that process")
                }
                holder => {
                    let pid = holder
                        .map_or_else(String::new, |holder| format!(" (process {})", holder.pid()));
                    what.detail(format!(
                        "a cluster_startup runs in this network namespace already{pid}"
                    ))
                    .remedy("`cluster_startup stop` ends it")
                }
            }
        })
}

/// Any user can take the name, or call under it; root and the user of this process are believed.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

fn foreign(holder: &UnixCredentials) -> String {
    format!(
        "process {} of user {} has the socket \"@{}\", and is no cluster_startup of root or of \
         this user",
        holder.pid(),
        holder.uid(),
        String::from_utf8_lossy(NAME)
    )
}

/// Listens for `stop`, from root or the user this process runs as.
pub fn serve(listener: &UnixListener, node: &SyncSender<Input>) {
    let mut waiting = Vec::new();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let Ok(caller) = getsockopt(&stream, PeerCredentials) else {
            continue;
        };
        if !is_trusted(caller.uid()) {
            continue;
        }
        let mut word = [0; STOP.len()];
        let heard = stream
            .set_read_timeout(Some(SAY_LIMIT))
            .and_then(|()| stream.read_exact(&mut word));
        if heard.is_err() || word != STOP {
            continue;
        }
        let why = format!("told to stop by process {}", caller.pid());
        if node.send(Input::Stop(why)).is_err() {
            return;
        }
        // The caller waits until this process ends, which closes its socket.
        if waiting.len() < MAX_WAITING {
            waiting.push(stream);
        }
    }
}

/// Makes the resident process leave, and waits for its end. False when there is none, or a stranger
/// in its place.
pub fn stop() -> Result<bool> {
    let failed = |error: io::Error| Error::io("stop the resident process", &error);
    let mut stream = match address().and_then(|address| UnixStream::connect_addr(&address)) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    let holder = getsockopt(&stream, PeerCredentials).map_err(|errno| failed(errno.into()))?;
    if !is_trusted(holder.uid()) {
        say(&foreign(&holder));
        return Ok(false);
    }
    stream
        .set_read_timeout(Some(LEAVE_LIMIT))
        .and_then(|()| stream.write_all(STOP))
        .map_err(failed)?;
    match stream.read(&mut [0]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(Error::new("stop the resident process")
                .detail("it is still leaving")
                .remedy("look at what it prints; SIGKILL ends it at once"))
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_own_user_are_believed() {
        let own = nix::unistd::geteuid().as_raw();
        assert!(is_trusted(0) && is_trusted(own));
        assert!(!is_trusted(own.wrapping_add(1).max(1)));
    }
}
