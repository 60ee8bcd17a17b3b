// SPDX-License-Identifier: GPL-2.0

//! Calling another node: connect, prove, ask, and keep the socket.

use super::auth::{self, AuthError, Secret, Session};
use super::line::{LineError, Lines, MAX_PROVED};
use super::message::{shown, Refused, Reply, Request};
use crate::error::errno_text;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// The other machine may be off: its silence must not last long.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The other side has a shorter limit, so that it is the one that says what was wrong.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(8);

/// Why a call came to nothing.
#[derive(Debug)]
pub enum DialError {
    /// The name means nothing, now.
    Resolve(String),
    /// The machine does not have the internal address any more.
    NoAddress(Ipv4Addr),
    /// Nobody there.
    Connect(io::Error),
    /// The proof failed.
    Auth(AuthError),
    /// The exchange broke off.
    Line(LineError),
    /// The other side does not want to.
    Refused(Refused),
    /// The other side answered something else than was asked.
    Confused,
}

impl DialError {
    /// Is calling again useless until somebody changes a configuration?
    pub fn is_final(&self) -> bool {
        match self {
            DialError::Auth(AuthError::Secret | AuthError::Refused(_) | AuthError::Version(_))
            | DialError::NoAddress(_)
            | DialError::Confused => true,
            DialError::Refused(refused) => !refused.again,
            DialError::Resolve(_)
            | DialError::Connect(_)
            | DialError::Auth(AuthError::Line(_))
            | DialError::Line(_) => false,
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Resolve(why) => write!(f, "its name has no IPv4 address: {why}"),
            DialError::NoAddress(addr) => {
                write!(f, "this machine does not have the address {addr} any more")
            }
            DialError::Connect(error) => match error.raw_os_error() {
                Some(raw) => f.write_str(&errno_text(raw)),
                None => error.fmt(f),
            },
            DialError::Auth(error) => error.fmt(f),
            DialError::Line(error) => error.fmt(f),
            DialError::Refused(refused) => write!(f, "refused: {}", refused.reason),
            DialError::Confused => f.write_str("it answered something else than was asked"),
        }
    }
}

/// The IPv4 address of `host`.
pub fn resolve(host: &str, port: u16) -> Result<SocketAddrV4, DialError> {
    let all = (host, port)
        .to_socket_addrs()
        .map_err(|error| DialError::Resolve(error.to_string()))?;
    all.into_iter()
        .find_map(|addr| match addr {
            SocketAddr::V4(addr) => Some(addr),
            SocketAddr::V6(_) => None,
        })
        .ok_or_else(|| DialError::Resolve("only IPv6 addresses".to_string()))
}

/// The local address from which `target` is reached. Asks the routing table; sends nothing.
pub fn source_for(target: SocketAddrV4) -> Result<Ipv4Addr, DialError> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(DialError::Connect)?;
    socket.connect(target).map_err(DialError::Connect)?;
    match socket.local_addr().map_err(DialError::Connect)? {
        SocketAddr::V4(addr) => Ok(*addr.ip()),
        SocketAddr::V6(_) => Err(DialError::Confused),
    }
}

/// A call that was answered.
pub struct Answered {
    /// What the other side said.
    pub reply: Reply,
    /// To unmask what is masked in it.
    pub session: Session,
    /// The socket, ready for the kernel.
    pub stream: TcpStream,
}

/// Calls `target` from `from` and makes `request`. A refusal is an error.
pub fn call(
    from: Ipv4Addr,
    target: SocketAddrV4,
    secret: &Secret,
    request: &Request,
) -> Result<Answered, DialError> {
    let stream = connect(from, target)?;
    let mut lines = Lines::new(stream, EXCHANGE_LIMIT);
    let session = auth::call(&mut lines, secret).map_err(DialError::Auth)?;
    lines.send(request).map_err(DialError::Line)?;
    match lines.receive(MAX_PROVED).map_err(DialError::Line)? {
        Reply::Refused(refused) => Err(DialError::Refused(Refused {
            reason: shown(&refused.reason),
            again: refused.again,
        })),
        reply => Ok(Answered {
            reply,
            session,
            stream: lines.into_stream().map_err(DialError::Connect)?,
        }),
    }
}

/// The other side takes the address we call from for our internal address, so it is set.
fn connect(from: Ipv4Addr, target: SocketAddrV4) -> Result<TcpStream, DialError> {
    let socket =
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).map_err(DialError::Connect)?;
    socket
        .bind(&SocketAddrV4::new(from, 0).into())
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => DialError::NoAddress(from),
            _ => DialError::Connect(error),
        })?;
    socket
        .connect_timeout(&target.into(), CONNECT_LIMIT)
        .map_err(DialError::Connect)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_gone_is_told_from_a_dispatcher_that_is_away() {
        // No machine has the first (RFC 5737), and nobody listens at the second.
        let gone = Ipv4Addr::new(192, 0, 2, 1);
        let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let error = connect(gone, target).unwrap_err();
        assert!(matches!(error, DialError::NoAddress(addr) if addr == gone));
        let error = connect(Ipv4Addr::LOCALHOST, target).unwrap_err();
        assert!(matches!(error, DialError::Connect(_)), "{error}");
    }
}
