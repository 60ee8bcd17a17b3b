// SPDX-License-Identifier: GPL-2.0

//! JSON lines over a TCP socket that will later belong to the kernel.
//!
//! Exactly the line is taken from the socket, never an octet more: what follows the last line is
//! the kernel's first frame. Length and time are bounded, because whoever can reach the port can
//! send anything.

use super::message::shown;
use crate::error::errno_text;
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// Longest line before the peer has proved that it knows the secret: two hexadecimal numbers.
pub const MAX_UNPROVED: usize = 512;
/// Longest line afterwards: a welcome with 64 members of at most 400 octets each.
pub const MAX_PROVED: usize = 32 * 1024;

/// Why a line could not be exchanged.
#[derive(Debug)]
pub enum LineError {
    /// The socket failed.
    Io(io::Error),
    /// The other side closed the connection.
    Closed,
    /// The other side took too long.
    Timeout,
    /// The line is longer than allowed.
    TooLong,
    /// The line is not what was expected.
    Malformed(String),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineError::Io(error) => match error.raw_os_error() {
                Some(raw) => f.write_str(&errno_text(raw)),
                None => error.fmt(f),
            },
            LineError::Closed => f.write_str("the other side closed the connection"),
            LineError::Timeout => f.write_str("the other side took too long"),
            LineError::TooLong => f.write_str("the other side sent a line that is too long"),
            LineError::Malformed(what) => {
                write!(f, "the other side does not speak this protocol: {what}")
            }
        }
    }
}

impl From<io::Error> for LineError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => LineError::Timeout,
            io::ErrorKind::UnexpectedEof => LineError::Closed,
            _ => LineError::Io(error),
        }
    }
}

/// A socket on which lines are exchanged until a deadline.
pub struct Lines {
    stream: TcpStream,
    deadline: Instant,
    buffer: Vec<u8>,
}

impl Lines {
    /// Takes `stream`; everything must be said within `limit`.
    pub fn new(stream: TcpStream, limit: Duration) -> Self {
        Lines {
            stream,
            deadline: Instant::now() + limit,
            buffer: Vec::new(),
        }
    }

    /// The socket, as the kernel wants it: blocking and without timeouts.
    pub fn into_stream(self) -> io::Result<TcpStream> {
        self.stream.set_read_timeout(None)?;
        self.stream.set_write_timeout(None)?;
        self.stream.set_nodelay(true)?;
        Ok(self.stream)
    }

    /// The addresses of this side and of the other.
    pub fn ends(&self) -> Result<(SocketAddrV4, SocketAddrV4), LineError> {
        match (self.stream.local_addr()?, self.stream.peer_addr()?) {
            (SocketAddr::V4(own), SocketAddr::V4(other)) => Ok((own, other)),
            _ => Err(LineError::Io(io::Error::from_raw_os_error(
                libc::EAFNOSUPPORT,
            ))),
        }
    }

    fn left(&self) -> Result<Duration, LineError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LineError::Timeout);
        }
        Ok(left)
    }

    /// Sends `message` as a line.
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), LineError> {
        let mut line =
            serde_json::to_vec(message).map_err(|error| LineError::Malformed(error.to_string()))?;
        if line.len() >= MAX_PROVED {
            return Err(LineError::TooLong);
        }
        line.push(b'\n');
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(&line)?;
        Ok(())
    }

    /// Receives a line of at most `max` octets.
    pub fn receive<T: DeserializeOwned>(&mut self, max: usize) -> Result<T, LineError> {
        self.buffer.clear();
        let mut window = [0; 1024];
        loop {
            self.stream.set_read_timeout(Some(self.left()?))?;
            let seen = match self.stream.peek(&mut window) {
                Ok(0) => return Err(LineError::Closed),
                Ok(seen) => seen,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let seen = window.get(..seen).unwrap_or_default();
            let end = seen.iter().position(|&octet| octet == b'\n');
            // What was seen is there: taking it cannot block.
            let take = end.map_or(seen.len(), |end| end + 1);
            let start = self.buffer.len();
            if start.saturating_add(take) > max {
                return Err(LineError::TooLong);
            }
            self.buffer.resize(start + take, 0);
            if let Some(room) = self.buffer.get_mut(start..) {
                self.stream.read_exact(room)?;
            }
            if end.is_some() {
                // The error may quote the line.
                return serde_json::from_slice(&self.buffer)
                    .map_err(|error| LineError::Malformed(shown(&error.to_string())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn pair() -> (TcpStream, Lines) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        (ours, Lines::new(theirs, Duration::from_millis(500)))
    }

    #[test]
    fn what_follows_a_line_stays_in_the_socket() {
        let (mut ours, mut lines) = pair();
        ours.write_all(b"{\"a\":1}\nHELLO").unwrap();
        let value: serde_json::Value = lines.receive(MAX_UNPROVED).unwrap();
        assert_eq!(value["a"], 1);
        let mut rest = [0; 5];
        lines.into_stream().unwrap().read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"HELLO");
    }

    #[test]
    fn a_line_may_come_octet_by_octet() {
        let (mut ours, mut lines) = pair();
        let sender = thread::spawn(move || {
            for octet in b"[1,2,3]\n" {
                ours.write_all(&[*octet]).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
            ours
        });
        let value: Vec<u32> = lines.receive(MAX_UNPROVED).unwrap();
        assert_eq!(value, [1, 2, 3]);
        drop(sender.join().unwrap());
    }

    #[test]
    fn an_endless_line_is_refused() {
        let (mut ours, mut lines) = pair();
        let sender = thread::spawn(move || {
            // Ends when the other side hangs up.
            while ours.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let result = lines.receive::<u32>(MAX_PROVED);
        assert!(matches!(result, Err(LineError::TooLong)), "{result:?}");
        drop(lines);
        sender.join().unwrap();
    }

    #[test]
    fn silence_and_dripping_end_at_the_deadline() {
        let (mut ours, mut lines) = pair();
        let sender = thread::spawn(move || {
            for _ in 0..20 {
                if ours.write_all(b" ").is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        let start = Instant::now();
        let result = lines.receive::<u32>(MAX_UNPROVED);
        assert!(matches!(result, Err(LineError::Timeout)), "{result:?}");
        assert!(start.elapsed() < Duration::from_secs(2));
        drop(lines);
        sender.join().unwrap();
    }

    #[test]
    fn garbage_and_hanging_up_are_told_apart() {
        for (bytes, closed) in [
            (&b"GET / HTTP/1.1\r\n"[..], false),
            (b"\0\xff\xfe\n", false),
            (b"{\"deep\":", true),
            (b"", true),
        ] {
            let (mut ours, mut lines) = pair();
            ours.write_all(bytes).unwrap();
            drop(ours);
            match lines.receive::<u32>(MAX_UNPROVED) {
                Err(LineError::Closed) => assert!(closed),
                Err(LineError::Malformed(_)) => assert!(!closed),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_harm() {
        let (mut ours, mut lines) = pair();
        let mut line = vec![b'['; MAX_PROVED - 1];
        line.push(b'\n');
        let sender = thread::spawn(move || ours.write_all(&line));
        let result = lines.receive::<serde_json::Value>(MAX_PROVED);
        assert!(matches!(result, Err(LineError::Malformed(_))), "{result:?}");
        sender.join().unwrap().unwrap();
    }
}
