// SPDX-License-Identifier: GPL-2.0

//! Whole nodes, each a process of its own on loopback, with a kernel that is none: it takes the
//! sockets, says HELLO and BYE on them, and reports what becomes of them. A node's internal address
//! is 127.0.0.N.
//!
//! A node is this test program started again with [`child`] as its only test. It prints what the
//! real one prints, and obeys `stop` on its standard input.

use super::auth::Secret;
use super::dial;
use super::listen;
use super::message::{Join, Request};
use super::node::{Config, Input, Log, Node, Progress};
use super::store::Store;
use crate::error::Result;
use crate::kernel::{Attach, Attached, Event, Kernel, LostReason, Peer, Roles, Settings};
use crate::nfs::{Other, Others};
use crate::resident::listen_to_kernel;
use lard_core::addr::NodeId;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a kernel keeps.
#[derive(Default)]
struct State {
    attached: Option<Attach>,
    peers: HashMap<u16, (u64, TcpStream)>,
    generation: u64,
}

struct FakeKernel {
    state: Arc<Mutex<State>>,
    events: Mutex<Receiver<Event>>,
    report: Mutex<Sender<Event>>,
}

impl FakeKernel {
    fn new() -> Self {
        let (report, events) = channel();
        FakeKernel {
            state: Arc::default(),
            events: Mutex::new(events),
            report: Mutex::new(report),
        }
    }
}

/// Reads HELLO, and then until the end.
fn receive(stream: TcpStream, id: u16, own: u16, report: &Sender<Event>) -> LostReason {
    let mut lines = BufReader::new(stream).lines();
    let expected = format!("HELLO {id} to {own}");
    match lines.next() {
        Some(Ok(hello)) if hello == expected => {
            println!("greeted by {id}");
            let _ = report.send(Event::PeerReady(NodeId(id)));
        }
        other => println!("greeted wrongly by {id}: {other:?}"),
    }
    match lines.next() {
        Some(Ok(bye)) if bye == "BYE" => LostReason::Bye,
        _ => LostReason::Closed,
    }
}

impl Kernel for FakeKernel {
    fn attached(&self) -> Result<Option<Attached>> {
        let state = self.state.lock().unwrap();
        Ok(state.attached.as_ref().map(Attached::from))
    }

    fn alive(&self) -> Result<u64> {
        Ok(0)
    }

    fn attach(&self, attach: &Attach) -> Result<()> {
        println!(
            "attached {} {:016x} {} {} {:?}",
            attach.node_id,
            attach.cluster_id,
            hex::encode(attach.hash_key),
            attach.name,
            attach.settings.internal.unwrap()
        );
        self.state.lock().unwrap().attached = Some(attach.clone());
        Ok(())
    }

    fn detach(&self, _force: bool) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        for (_, (_, mut stream)) in state.peers.drain() {
            let _ = stream.write_all(b"BYE\n");
            let _ = stream.shutdown(Shutdown::Both);
        }
        state.attached = None;
        println!("detached");
        Ok(())
    }

    fn peer_add(&self, fd: BorrowedFd<'_>, peer: &Peer) -> Result<()> {
        let mut stream = TcpStream::from(fd.try_clone_to_owned().unwrap());
        let id = peer.node_id.0;
        let mut state = self.state.lock().unwrap();
        let own = state.attached.as_ref().expect("attached first").node_id.0;
        if let Some((_, old)) = state.peers.remove(&id) {
            let _ = old.shutdown(Shutdown::Both);
        }
        assert_eq!(stream.read_timeout().unwrap(), None);
        let _ = writeln!(stream, "HELLO {own} to {id}");
        state.generation += 1;
        let generation = state.generation;
        let reader = stream.try_clone().unwrap();
        state.peers.insert(id, (generation, stream));
        let (shared, report) = (Arc::clone(&self.state), self.report.lock().unwrap().clone());
        thread::spawn(move || {
            let reason = receive(reader, id, own, &report);
            let mut state = shared.lock().unwrap();
            if state.peers.get(&id).is_some_and(|(g, _)| *g == generation) {
                state.peers.remove(&id);
                let _ = report.send(Event::PeerLost(NodeId(id), reason));
            }
        });
        Ok(())
    }

    fn linked(&self) -> Result<Vec<NodeId>> {
        let state = self.state.lock().unwrap();
        Ok(state.peers.keys().map(|id| NodeId(*id)).collect())
    }

    fn next_event(&self, timeout: Duration) -> Result<Option<Event>> {
        match self.events.lock().unwrap().recv_timeout(timeout) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is kept"),
        }
    }
}

/// What a child is told: number of the address, port, dispatcher's address (0 if it is one, "guess"
/// if it does not know its own address either), secret, directory.
const ORDER: &str = "LARD_TEST_NODE";

#[test]
#[ignore = "is a node, started by the other tests"]
fn child() {
    let order = std::env::var(ORDER).expect("started by another test");
    // The test harness has begun a line.
    println!();
    let words: Vec<&str> = order.split(' ').collect();
    let [last, port, dispatcher, secret, directory] = words[..] else {
        panic!("{order}");
    };
    let internal = Ipv4Addr::new(127, 0, 0, last.parse().unwrap());
    let port: u16 = port.parse().unwrap();
    let is_guess = dispatcher == "guess";
    let is_dispatcher = is_guess || dispatcher == "0";
    let place = SocketAddrV4::new(internal, port);
    let secret = Secret::new(secret.as_bytes().to_vec());
    let (sender, inputs) = sync_channel(64);
    let log: Log = Arc::new(|line: &str| println!("{line}"));
    let kernel = Arc::new(FakeKernel::new());
    let stop = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind(place).unwrap();
    let internal = if is_guess {
        Ipv4Addr::new(127, 0, 0, 254)
    } else {
        internal
    };
    let config = Config {
        settings: Settings {
            roles: Roles::from_bits(if is_dispatcher { 1 } else { 6 }),
            weight: 1,
            internal: Some(internal),
            ..Settings::default()
        },
        name: format!("n{last}"),
        internal,
        is_guess,
        port,
        dispatcher: (!is_dispatcher).then(|| (dispatcher.to_string(), port)),
        secret: secret.clone(),
        cluster_id: None,
        store: Store::new(&PathBuf::from(directory), place),
        docroot: Some(format!("/srv/{last}")),
    };
    let told = sender.clone();
    thread::spawn(move || {
        let mut word = String::new();
        let _ = std::io::stdin().read_line(&mut word);
        let _ = told.send(Input::Stop("told".into()));
    });
    let (events, heard) = (Arc::clone(&kernel), sender.clone());
    let (one, two) = (Arc::clone(&stop), Arc::clone(&stop));
    thread::spawn(move || listen_to_kernel(events.as_ref(), &heard, &one));
    let (calls, called) = (sender.clone(), Arc::clone(&log));
    thread::spawn(move || listen::run(&listener, secret, calls, called, &two));
    let progress = Arc::new(|progress: Progress| println!("progress {progress:?}"));
    let sharing = Arc::new(|others: &Others| {
        let told =
            |(addr, other): (&_, &Other)| (*addr, format!("{}: {}", other.id, other.docroot));
        println!(
            "sharing {:?}",
            others.iter().map(told).collect::<BTreeMap<Ipv4Addr, _>>()
        );
    });
    let result = Node::new(config, kernel, (sender, inputs), log, progress, sharing).run();
    stop.store(true, Ordering::Relaxed);
    match result {
        Ok(()) => println!("ended well"),
        Err(error) => println!("ended: {error}"),
    }
}

/// A node under test.
struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Waits for a line that has `text` in it, beyond those waited for before.
    #[track_caller]
    fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    assert!(!line.contains("wrongly"), "{line}");
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("no \"{text}\" in {:#?}", self.seen),
            }
        }
    }

    /// Waits for lines with all of `texts`, in any order.
    #[track_caller]
    fn expect_all(&mut self, texts: &[&str]) {
        let mut missing: Vec<&str> = texts.to_vec();
        while !missing.is_empty() {
            let line = self.expect("");
            missing.retain(|text| !line.contains(text));
            assert!(
                self.seen.len() < 10_000,
                "no {missing:?} in {:#?}",
                self.seen
            );
        }
    }

    fn stop(&mut self) {
        let _ = self.child.stdin.take().unwrap().write_all(b"stop\n");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster of its own: port, directory, addresses.
struct Cluster {
    port: u16,
    directory: PathBuf,
    first: u8,
}

impl Cluster {
    /// Tests run at the same time, so each has its own addresses.
    fn new(first: u8) -> Self {
        let free = TcpListener::bind((Ipv4Addr::new(127, 0, 0, first), 0)).unwrap();
        let name = format!("lard-membership-{}-{first}", std::process::id());
        Cluster {
            port: free.local_addr().unwrap().port(),
            directory: std::env::temp_dir().join(name),
            first,
        }
    }

    fn place(&self, number: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, self.first + number), self.port)
    }

    /// Starts node `number`; 0 is the dispatcher.
    fn start_with(&self, number: u8, secret: &str) -> Process {
        let dispatcher = match number {
            0 => "0".to_string(),
            _ => self.place(0).ip().to_string(),
        };
        self.start_told(number, secret, &dispatcher)
    }

    fn start_told(&self, number: u8, secret: &str, dispatcher: &str) -> Process {
        let order = format!(
            "{} {} {dispatcher} {secret} {}",
            self.first + number,
            self.port,
            self.directory.display()
        );
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "membership::tests::child", "--ignored"])
            .args(["--nocapture", "--test-threads=1"])
            .env(ORDER, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(|line| line.ok()) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Process {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    fn start(&self, number: u8) -> Process {
        self.start_with(number, "secret")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_string).collect()
}

#[test]
fn the_dispatcher_may_start_last_and_all_find_each_other() {
    let cluster = Cluster::new(20);
    let mut nodes: Vec<Process> = (1..=3).map(|number| cluster.start(number)).collect();
    for node in &mut nodes {
        node.expect("waiting for the dispatcher");
    }
    let mut dispatcher = cluster.start(0);
    let key = words(&dispatcher.expect("attached 1 "))[2..4].to_vec();
    dispatcher.expect("progress Ready");
    let mut ids = Vec::new();
    for node in &mut nodes {
        let attached = words(&node.expect("attached "));
        let same = attached[2..4] == key;
        assert!(same, "all share the cluster's number and key");
        ids.push(attached[1].clone());
    }
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(sorted, ["2", "3", "4"]);
    dispatcher.expect_all(&["greeted by 2", "greeted by 3", "greeted by 4"]);
    for (node, own) in nodes.iter_mut().zip(&ids) {
        let seen = node.seen.join("\n");
        let others: Vec<String> = (1..=4)
            .filter(|id| id.to_string() != *own)
            .map(|id| format!("greeted by {id}"))
            .filter(|text| !seen.contains(text.as_str()))
            .collect();
        node.expect_all(&others.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn a_dispatcher_that_died_is_waited_for_and_nothing_changes() {
    let cluster = Cluster::new(30);
    let mut dispatcher = cluster.start(0);
    let before = dispatcher.expect("attached 1 ");
    let mut one = cluster.start(1);
    one.expect("attached 2 ");
    one.expect("greeted by 1");
    let mut two = cluster.start(2);
    two.expect("attached 3 ");
    two.expect_all(&["greeted by 1", "greeted by 2"]);
    one.expect("greeted by 3");
    drop(dispatcher);
    for node in [&mut one, &mut two] {
        node.expect("lost n30");
        node.expect("waiting for the dispatcher");
    }
    let mut dispatcher = cluster.start(0);
    assert_eq!(dispatcher.expect("attached 1 "), before);
    dispatcher.expect_all(&["greeted by 2", "greeted by 3"]);
    for node in [&mut one, &mut two] {
        // Not attached anew: connections and links stay as they are.
        node.expect("joined again");
        let attached = |line: &&String| line.starts_with("attached ");
        assert_eq!(node.seen.iter().filter(attached).count(), 1);
        let lost = |line: &&String| line.starts_with("lost ");
        assert_eq!(node.seen.iter().filter(lost).count(), 1);
    }
    // A member that leaves says so, is not waited for, and has its number again later.
    two.stop();
    two.expect("detached");
    two.expect("ended well");
    dispatcher.expect("lost n32 (127.0.0.32): it left");
    one.expect("lost n32 (127.0.0.32): it left");
    drop(two);
    let mut two = cluster.start(2);
    two.expect("attached 3 ");
    two.expect_all(&["greeted by 1", "greeted by 2"]);
    // One that dies too.
    drop(one);
    dispatcher.expect("lost n31");
    two.expect("lost n31");
    let mut one = cluster.start(1);
    one.expect("attached 2 ");
    one.expect_all(&["greeted by 1", "greeted by 3"]);
}

#[test]
fn a_dispatcher_that_guesses_is_where_the_first_member_calls_it() {
    let cluster = Cluster::new(60);
    let mut dispatcher = cluster.start_told(0, "secret", "guess");
    assert!(dispatcher.expect("attached 1 ").ends_with(" 127.0.0.254"));
    let mut one = cluster.start(1);
    assert!(dispatcher.expect("attached 1 ").ends_with(" 127.0.0.60"));
    one.expect("greeted by 1");
    let mut two = cluster.start(2);
    two.expect_all(&["greeted by 1", "greeted by 2"]);
    let attached = |line: &&String| line.starts_with("attached ");
    assert_eq!(dispatcher.seen.iter().filter(attached).count(), 2);
}

#[test]
fn who_shares_documents_is_told_as_links_come_and_go() {
    let cluster = Cluster::new(70);
    let _dispatcher = cluster.start(0);
    let mut one = cluster.start(1);
    // Numbers are given in the order of arrival.
    one.expect("attached 2 ");
    let mut two = cluster.start(2);
    // The dispatcher's node is no back-end.
    one.expect("sharing {127.0.0.72: \"3: /srv/72\"}");
    two.expect("sharing {127.0.0.71: \"2: /srv/71\"}");
    two.stop();
    one.expect("sharing {}");
    drop(two);
    let mut two = cluster.start(2);
    two.expect("sharing {127.0.0.71: \"2: /srv/71\"}");
    one.expect("sharing {127.0.0.72: \"3: /srv/72\"}");
    drop(two);
    one.expect("sharing {}");
}

#[test]
fn another_secret_is_not_let_in() {
    let cluster = Cluster::new(40);
    let mut dispatcher = cluster.start(0);
    dispatcher.expect("progress Ready");
    let mut stranger = cluster.start_with(1, "guess");
    let end = stranger.expect("ended: ");
    assert!(end.contains("refused: the secrets differ"), "{end}");
    dispatcher.expect("a call from 127.0.0.41 failed: the other side has another secret");
    drop(stranger);
    let mut member = cluster.start(1);
    member.expect("attached 2 ");
}

#[test]
fn the_control_port_survives_hostile_bytes() {
    let cluster = Cluster::new(50);
    let mut dispatcher = cluster.start(0);
    dispatcher.expect("progress Ready");
    let target = cluster.place(0);
    let mut seed = 0x0bad_cafe_u32;
    let mut next = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) as u8
    };
    for round in 0..300u32 {
        let Ok(mut stream) = TcpStream::connect(target) else {
            continue;
        };
        let bytes: Vec<u8> = match round % 5 {
            0 => (0..300).map(|_| next()).collect(),
            1 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            2 => vec![b'{'; 100_000],
            3 => format!(
                "{{\"lard\":2,\"nonce\":\"{}\"}}\n{{\"proof\":\"{}\"}}\n",
                "0".repeat(64),
                "f".repeat(64)
            )
            .into_bytes(),
            _ => b"{\"lard\":2,\"nonce\":\"00\"}\n".to_vec(),
        };
        let _ = stream.write_all(&bytes);
        if round % 2 == 0 {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
            let _ = stream.read(&mut [0; 256]);
        }
    }
    // Silent callers are few from one address and last a few seconds; others get through.
    let _silent: Vec<_> = (0..50).map(|_| TcpStream::connect(target)).collect();
    let mut member = cluster.start(1);
    member.expect("attached 2 ");
    dispatcher.expect("greeted by 2");
    // A proven caller that talks nonsense is refused.
    let request = Request::Join(Join {
        name: "two\nlines".into(),
        roles: Roles::from_bits(6),
        port: 1,
        weight: 1,
        docroot: None,
        was: None,
    });
    let secret = Secret::new(b"secret".to_vec());
    let from = Ipv4Addr::new(127, 0, 0, 59);
    let error = dial::call(from, target, &secret, &request).err().unwrap();
    assert!(error.to_string().contains("a node's name is"), "{error}");
    // A member is not a dispatcher.
    let error = dial::call(from, cluster.place(1), &secret, &request)
        .err()
        .unwrap();
    assert!(error.to_string().contains("not the dispatcher"), "{error}");
}
