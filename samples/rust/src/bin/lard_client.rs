// SPDX-License-Identifier: GPL-2.0

//! `lard_client ADDR PORT [PATH]`: fetches PATH over a socket of the family, which on connecting is
//! an ordinary TCP socket, and prints the answer.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::process::ExitCode;

fn fetch(to: SocketAddrV4, path: &str) -> io::Result<()> {
    let socket = lard_samples::socket()?;
    socket.connect(&to.into())?;
    let mut stream = TcpStream::from(socket);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n"
    )?;
    io::copy(&mut stream, &mut io::stdout().lock())?;
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let to = match (words.get(1), words.get(2)) {
        (Some(addr), Some(port)) => format!("{addr}:{port}").parse().ok(),
        _ => None,
    };
    let (Some(to), 3..=4) = (to, words.len()) else {
        eprintln!("usage: lard_client ADDR PORT [PATH]");
        return ExitCode::from(2);
    };
    match fetch(to, words.get(3).map_or("/", String::as_str)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lard_client: {error}");
            ExitCode::FAILURE
        }
    }
}
