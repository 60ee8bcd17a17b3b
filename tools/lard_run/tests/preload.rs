// SPDX-License-Identifier: GPL-2.0

//! The program and the library together, on a machine without the module: the family is that of
//! IPv4, so everything happens as with LARD's, and what listens in the end is an ordinary socket.
//!
//! The server is this test program started again by `lard_run`, with [`server`] as its only test.

use std::ffi::{c_char, c_int, CString};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

extern "C" {
    fn __open_2(path: *const c_char, flags: c_int) -> c_int;
    fn __open64_2(path: *const c_char, flags: c_int) -> c_int;
    fn __openat_2(fd: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn __openat64_2(fd: c_int, path: *const c_char, flags: c_int) -> c_int;
}

const WHAT: &str = "LARD_TEST_SERVER";
/// The server's port, which nobody has.
const PORT: &str = "LARD_TEST_PORT";
/// Number of the listener that a program has from another.
const DESCRIPTOR: &str = "LARD_TEST_DESCRIPTOR";
/// 127.0.0.1, as an IPv6 socket has it.
const MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1);

fn option(socket: &impl AsRawFd, level: i32, name: i32) -> i32 {
    let mut value = 0;
    let mut length = 4;
    // SAFETY: value and length belong together.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &mut length,
        )
    };
    assert_eq!(result, 0);
    value
}

fn set(socket: i32, level: i32, name: i32, value: i32) {
    // SAFETY: value and length belong together.
    let result = unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), 4) };
    assert_eq!(result, 0);
}

fn domain(socket: &impl AsRawFd) -> i32 {
    option(socket, libc::SOL_SOCKET, libc::SO_DOMAIN)
}

/// A port nobody has, of those below the clients' and of this process alone. The kernel's own choice
/// for `bind` may be in TIME_WAIT, as std sets SO_REUSEADDR, and a socket without it is refused there.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + 100 * (process::id() % 200) as u16;
    loop {
        let port = first + TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(port < first + 100, "no port is free");
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// One connection; what the accepted end says of itself.
fn talk(listener: &TcpListener, to: SocketAddr) -> (SocketAddr, SocketAddr, SocketAddr) {
    let client = thread::spawn(move || {
        let mut client = TcpStream::connect(to).unwrap();
        client.write_all(b"x").unwrap();
        client.local_addr().unwrap()
    });
    let (mut accepted, from) = listener.accept().unwrap();
    accepted.read_exact(&mut [0]).unwrap();
    assert_eq!(accepted.peer_addr().unwrap(), from);
    let client = client.join().unwrap();
    assert_eq!(client.port(), from.port());
    (from, accepted.local_addr().unwrap(), client)
}

#[test]
#[ignore = "is a server, started by the other tests"]
fn server() {
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    match std::env::var(WHAT).unwrap().as_str() {
        "v4" => {
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            assert_eq!(listener.local_addr().unwrap().port(), port);
            assert_eq!(option(&listener, libc::SOL_SOCKET, libc::SO_REUSEADDR), 1);
            // SAFETY: fcntl with this command touches no memory.
            let flags = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
            let (from, own, client) = talk(&listener, ([127, 0, 0, 1], port).into());
            assert_eq!((from, own.port()), (client, port));
        }
        "dual" => {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
            assert_eq!(domain(&listener), libc::AF_INET, "converted");
            let own = listener.local_addr().unwrap();
            assert_eq!(own, (Ipv6Addr::UNSPECIFIED, port).into());
            let (from, own, client) = talk(&listener, ([127, 0, 0, 1], port).into());
            assert_eq!(own, (MAPPED, port).into());
            assert_eq!(from, (MAPPED, client.port()).into());
            // A descriptor that is used again is no facade any more.
            drop(listener);
            let sockets: Vec<TcpListener> = (0..4)
                .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
                .collect();
            for socket in &sockets {
                assert!(socket.local_addr().unwrap().is_ipv4());
            }
        }
        "inherited" => {
            let listener = match std::env::var(DESCRIPTOR) {
                // SAFETY: the former program has left it, and nobody else knows it.
                Ok(fd) => unsafe { TcpListener::from_raw_fd(fd.parse().unwrap()) },
                Err(_) => {
                    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
                    // A duplicate, which the next program keeps.
                    // SAFETY: fcntl with this command touches no memory.
                    let fd = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_DUPFD, 100) };
                    let error = Command::new(std::env::current_exe().unwrap())
                        .args(std::env::args().skip(1))
                        .env(DESCRIPTOR, fd.to_string())
                        .exec();
                    panic!("{error}");
                }
            };
            let own = listener.local_addr().unwrap();
            assert_eq!(own.ip(), Ipv6Addr::UNSPECIFIED);
            let (from, _, client) = talk(&listener, ([127, 0, 0, 1], own.port()).into());
            assert_eq!(from, (MAPPED, client.port()).into());
        }
        "v6only" => {
            let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)) else {
                println!("no IPv6 here");
                return;
            };
            assert_eq!(domain(&listener), libc::AF_INET6, "left alone");
        }
        "options" => {
            // SAFETY: socket(2) demands nothing.
            let socket = unsafe {
                libc::socket(
                    libc::AF_INET,
                    libc::SOCK_STREAM | libc::SOCK_NONBLOCK,
                    libc::IPPROTO_TCP,
                )
            };
            set(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
            set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 30_000);
            set(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
            set(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 1);
            set(socket, libc::IPPROTO_IP, libc::IP_TTL, 17);
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr { s_addr: 0 },
                sin_zero: [0; 8],
            };
            // SAFETY: address and length belong together.
            let result = unsafe { libc::bind(socket, (&raw const address).cast(), 16) };
            assert_eq!(result, 0);
            // SAFETY: listen(2) and fcntl with this command touch no memory.
            unsafe {
                assert_eq!(libc::listen(socket, 5), 0);
                assert_ne!(libc::fcntl(socket, libc::F_GETFL) & libc::O_NONBLOCK, 0);
                assert_eq!(libc::fcntl(socket, libc::F_GETFD) & libc::FD_CLOEXEC, 0);
            }
            let get = |level, name| option(&socket, level, name);
            assert_eq!(get(libc::SOL_SOCKET, libc::SO_REUSEPORT), 1);
            assert_eq!(get(libc::SOL_SOCKET, libc::SO_RCVBUF), 60_000);
            assert_eq!(get(libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
            assert_ne!(get(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT), 0);
            assert_eq!(get(libc::IPPROTO_IP, libc::IP_TTL), 17);
            // It has its port, and keeps it.
            let other = libc::sockaddr_in {
                sin_port: (port + 1).to_be(),
                ..address
            };
            // SAFETY: address and length belong together.
            let result = unsafe { libc::bind(socket, (&raw const other).cast(), 16) };
            let error = std::io::Error::last_os_error();
            assert_eq!((result, error.raw_os_error()), (-1, Some(libc::EINVAL)));
            assert_eq!(get(libc::SOL_SOCKET, libc::SO_ACCEPTCONN), 1);
            // A port that is taken is taken on the converted socket too.
            let error = TcpListener::bind(("0.0.0.0", port)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
        }
        "clients" => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            let client = TcpStream::connect(to).unwrap();
            assert_eq!(client.peer_addr().unwrap(), to);
            std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
        }
        "files" => {
            let docroot = std::env::var("LARD_UNCACHED").unwrap();
            let direct = |path: &str, options: &OpenOptions| {
                let file = options.open(format!("{docroot}/{path}")).unwrap();
                // SAFETY: fcntl with this command touches no memory.
                unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) & libc::O_DIRECT != 0 }
            };
            let (mut read, mut write) = (OpenOptions::new(), OpenOptions::new());
            let (read, write) = (read.read(true), write.write(true).create(true));
            assert!(direct("10.1.0.3/page", read));
            for (path, options) in [
                ("page", &*read),
                ("10.1.0.3", read),
                ("10.1.0.3/new", write),
            ] {
                assert!(!direct(path, options), "{path}");
            }
            // As distributions compile their servers.
            let page = CString::new(format!("{docroot}/10.1.0.3/page")).unwrap();
            // SAFETY: the path is terminated.
            let opened = unsafe {
                [
                    __open_2(page.as_ptr(), libc::O_RDONLY),
                    __open64_2(page.as_ptr(), libc::O_RDONLY),
                    __openat_2(libc::AT_FDCWD, page.as_ptr(), libc::O_RDONLY),
                    __openat64_2(libc::AT_FDCWD, page.as_ptr(), libc::O_RDONLY),
                ]
            };
            for fd in opened {
                // SAFETY: fcntl with this command touches no memory.
                let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
                assert!(flags >= 0 && flags & libc::O_DIRECT != 0, "{opened:?}");
            }
            let error = read.open(format!("{docroot}/10.1.0.3/none")).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other}"),
    }
    println!("served well");
}

/// Runs the server under `lard_run` with these options.
#[track_caller]
fn run(what: &str, options: &[&str]) -> Output {
    // Cargo leaves the library where it leaves the program, which finds it there itself; built for
    // tests alone it is among the parts.
    let beside = Path::new(env!("CARGO_BIN_EXE_lard_run")).parent().unwrap();
    let library = ["liblard_preload.so", "deps/liblard_preload.so"]
        .map(|name| beside.join(name))
        .into_iter()
        .find(|path| path.is_file())
        .expect("the library was built");
    Command::new(env!("CARGO_BIN_EXE_lard_run"))
        .args(options)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "server", "--ignored", "--nocapture"])
        .env("LARD_PRELOAD", library)
        .env(WHAT, what)
        .env(PORT, free_port().to_string())
        .output()
        .unwrap()
}

/// Lines that say that a socket was converted.
#[track_caller]
fn converted(what: &str, options: &[&str]) -> usize {
    let output = run(what, options);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    errors.matches("is on family 2").count()
}

const AS_IPV4: [&str; 3] = ["--family", "2", "--debug"];

#[test]
fn a_listener_is_converted_and_serves() {
    assert_eq!(converted("v4", &AS_IPV4), 1);
}

#[test]
fn a_dual_listener_shows_mapped_addresses() {
    assert_eq!(converted("dual", &AS_IPV4), 1);
}

#[test]
fn a_dual_listener_that_is_inherited_shows_mapped_addresses() {
    assert_eq!(converted("inherited", &AS_IPV4), 1);
}

#[test]
fn other_ipv6_listeners_are_left_alone() {
    assert_eq!(converted("v6only", &AS_IPV4), 0);
}

#[test]
fn options_and_flags_are_kept() {
    // The second one is refused, as the port is taken.
    assert_eq!(converted("options", &AS_IPV4), 1);
}

#[test]
fn clients_and_datagrams_are_left_alone() {
    assert_eq!(converted("clients", &AS_IPV4), 0);
}

#[test]
fn only_the_named_ports_are_converted() {
    let options = [&AS_IPV4[..], &["--port", "1"]].concat();
    assert_eq!(converted("v4", &options), 0);
}

#[test]
fn files_of_other_nodes_are_opened_for_direct_reading() {
    let docroot = Path::new(env!("CARGO_TARGET_TMPDIR")).join("documents");
    std::fs::create_dir_all(docroot.join("10.1.0.3")).unwrap();
    for page in ["page", "10.1.0.3/page"] {
        std::fs::write(docroot.join(page), "page").unwrap();
    }
    let options = [&AS_IPV4[..], &["--uncached", docroot.to_str().unwrap()]].concat();
    assert_eq!(converted("files", &options), 0);
}

#[test]
fn a_missing_module_is_said_before_the_server_starts() {
    let output = run("v4", &["--family", "45"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("EAFNOSUPPORT") && text.contains("modprobe lard"),
        "{text}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn what_cannot_be_said_changes_nothing() {
    for (words, code) in [(&[][..], 2), (&["/no/such/program"], 1)] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_lard_run"))
            .args(words)
            .stderr(full)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
}
