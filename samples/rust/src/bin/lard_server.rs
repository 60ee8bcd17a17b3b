// SPDX-License-Identifier: GPL-2.0

//! `lard_server PORT NAME`: answers each request with its name and the addresses of the connection.
//!
//! A thread a connection, one request a connection: what matters here is the socket.

#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;

/// Longest head that is read.
const MAX_HEAD: u64 = 16 * 1024;

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = lard_samples::socket()?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.listen(1024)?;
    // From here on it is a listener like any other.
    Ok(socket.into())
}

fn serve(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let (from, to) = (stream.peer_addr()?, stream.local_addr()?);
    let mut head = BufReader::new((&stream).take(MAX_HEAD));
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    let body = format!("{name}: from {from} to {to}\n");
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let (Some(port), Some(name), 3) = (
        words.get(1).and_then(|port| port.parse().ok()),
        words.get(2),
        words.len(),
    ) else {
        eprintln!("usage: lard_server PORT NAME");
        return ExitCode::from(2);
    };
    let listener = match listen(port) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("lard_server: {error}");
            return ExitCode::FAILURE;
        }
    };
    for stream in listener.incoming() {
        let name = name.clone();
        match stream {
            Ok(stream) => {
                thread::spawn(move || {
                    if let Err(error) = serve(stream, &name) {
                        eprintln!("lard_server: {error}");
                    }
                });
            }
            Err(error) => eprintln!("lard_server: accept: {error}"),
        }
    }
    ExitCode::SUCCESS
}
