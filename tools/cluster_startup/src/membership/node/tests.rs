// SPDX-License-Identifier: GPL-2.0

//! One node and a kernel that does what it is told.

use super::*;
use crate::kernel::{Attached, LostReason, Peer, Roles};
use crate::membership::roster::Saved;
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
struct State {
    attached: Option<Attach>,
    /// With which errno attaching, adding a peer, and asking for links, fails.
    attach_fails: Option<i32>,
    peer_fails: Option<i32>,
    linked_fails: Option<i32>,
    /// Has it connections, which only force ends?
    busy: bool,
}

#[derive(Default)]
struct Fake(Mutex<State>);

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn result(errno: Option<i32>) -> Result<()> {
    errno.map_or(Ok(()), |errno| Err(Error::new("ask").errno(errno)))
}

impl Kernel for Fake {
    fn attached(&self) -> Result<Option<Attached>> {
        let state = self.state();
        Ok(state.attached.as_ref().map(Attached::from))
    }

    fn alive(&self) -> Result<u64> {
        Ok(0)
    }

    fn attach(&self, attach: &Attach) -> Result<()> {
        let mut state = self.state();
        result(state.attach_fails)?;
        state.attached = Some(attach.clone());
        Ok(())
    }

    fn detach(&self, force: bool) -> Result<()> {
        let mut state = self.state();
        result((state.busy && !force).then_some(libc::EBUSY))?;
        state.busy = false;
        state.attached = None;
        Ok(())
    }

    fn peer_add(&self, _fd: BorrowedFd<'_>, _peer: &Peer) -> Result<()> {
        result(self.state().peer_fails)
    }

    fn linked(&self) -> Result<Vec<NodeId>> {
        result(self.state().linked_fails).map(|()| Vec::new())
    }

    fn next_event(&self, _timeout: Duration) -> Result<Option<Event>> {
        Ok(None)
    }
}

const IDENTITY: Identity = Identity {
    cluster_id: 7,
    id: 5,
    dispatcher: 1,
    hash_key: [0; 16],
};

fn member(id: u16) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        roles: Roles::from_bits(4),
        addr: Ipv4Addr::new(10, 0, 0, 9),
        port: 7021,
        weight: 1,
        docroot: None,
    }
}

/// A member of the cluster of [`IDENTITY`].
fn node(kernel: &Arc<Fake>) -> Node {
    let internal = Ipv4Addr::new(10, 0, 0, 1);
    let config = Config {
        settings: Settings {
            internal: Some(internal),
            ..Settings::default()
        },
        name: "n5".to_string(),
        internal,
        is_guess: true,
        port: 7021,
        dispatcher: None,
        secret: Secret::default(),
        cluster_id: None,
        store: Store::new("/nowhere".as_ref(), SocketAddrV4::new(internal, 7021)),
        docroot: None,
    };
    let kernel = Arc::clone(kernel);
    let mut node = Node::new(
        config,
        kernel,
        sync_channel(8),
        Arc::new(|_: &str| {}),
        Arc::new(|_| {}),
        Arc::new(|_: &Others| {}),
    );
    assert!(node.become_node(IDENTITY, "n5").unwrap());
    node
}

fn stream() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap()
}

/// In how many milliseconds node `id` is called again.
#[track_caller]
fn pause(node: &Node, id: u16) -> u128 {
    match node.known[&id].link {
        LinkState::Waiting(when) => when.saturating_duration_since(Instant::now()).as_millis(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_link_that_the_module_refuses_is_lost_alone() {
    let kernel = Arc::new(Fake::default());
    let mut node = node(&kernel);
    for errno in [libc::ENOTCONN, libc::ENOMEM, libc::EBUSY, libc::EPERM] {
        kernel.state().peer_fails = Some(errno);
        node.link_up(member(3), &stream()).unwrap();
        pause(&node, 3);
    }
    kernel.state().attached = None;
    let error = node.link_up(member(3), &stream()).unwrap_err();
    assert!(error.is(libc::EPERM), "{error}");
}

#[test]
fn links_that_are_never_ready_are_tried_ever_more_rarely() {
    let kernel = Arc::new(Fake::default());
    let mut node = node(&kernel);
    let mut break_it = |is_ready: bool| {
        node.link_up(member(3), &stream()).unwrap();
        if is_ready {
            node.heard(Event::PeerReady(NodeId(3))).unwrap();
        }
        node.lost(3, LostReason::Mismatch);
        pause(&node, 3)
    };
    assert!(break_it(true) <= 200);
    let pauses: Vec<u128> = (0..6).map(|_| break_it(false)).collect();
    assert!(pauses[5] > 3000, "{pauses:?}");
    assert!(break_it(true) <= 200);
    // The dispatcher, which is joined anew each time.
    for _ in 0..6 {
        node.link_up(member(1), &stream()).unwrap();
        node.lost(1, LostReason::Mismatch);
    }
    let next = node.joining.next.unwrap();
    assert!(next > Instant::now() + Duration::from_secs(3));
}

#[test]
fn connections_of_another_cluster_are_waited_for_and_then_cut() {
    let kernel = Arc::new(Fake::default());
    let mut node = node(&kernel);
    kernel.state().busy = true;
    let cluster = || kernel.state().attached.as_ref().map(|it| it.cluster_id);
    let other = Identity {
        cluster_id: 8,
        ..IDENTITY
    };
    let mut tried_after = |waited: Duration| {
        node.joining.changing_since = Instant::now().checked_sub(waited);
        node.become_node(other, "n5").unwrap()
    };
    assert!(!tried_after(Duration::ZERO) && !tried_after(CHANGE_GRACE - Duration::from_secs(1)));
    assert_eq!(cluster(), Some(7));
    assert!(tried_after(CHANGE_GRACE + Duration::from_secs(1)));
    assert_eq!(cluster(), Some(8));
    assert!(!kernel.state().busy);
}

#[test]
fn a_node_whose_address_is_gone_ends_with_the_remedy() {
    let kernel = Arc::new(Fake::default());
    let mut node = node(&kernel);
    node.ready = true;
    let gone = DialError::NoAddress(node.config.internal);
    let error = node.joined(Err(gone)).unwrap_err().to_string();
    assert!(
        error.contains("10.0.0.1") && error.contains("--internal"),
        "{error}"
    );
    let away = DialError::Connect(std::io::Error::from_raw_os_error(libc::ECONNREFUSED));
    node.joined(Err(away)).unwrap();
    assert!(node.joining.next.is_some());
}

#[test]
fn an_address_that_the_module_does_not_take_is_not_settled_on() {
    let kernel = Arc::new(Fake::default());
    let mut node = node(&kernel);
    let saved = Saved {
        cluster_id: 7,
        hash_key: [0; 16],
        id: 5,
        known: BTreeMap::new(),
    };
    node.roster = Some(Roster::new(saved, member(5)));
    let (before, addr) = (node.config.internal, Ipv4Addr::new(10, 0, 0, 2));
    kernel.state().attach_fails = Some(libc::EBUSY);
    assert!(node.settle(addr).is_err());
    assert_eq!(node.config.internal, before);
    assert_eq!(node.config.settings.internal, Some(before));
    assert_ne!(node.roster.as_ref().unwrap().own().addr, addr);
    kernel.state().attach_fails = None;
    node.settle(addr).unwrap();
    assert_eq!(node.config.internal, addr);
    assert_eq!(node.roster.as_ref().unwrap().own().addr, addr);
    let attached = kernel.state().attached.clone().unwrap();
    assert_eq!(attached.settings.internal, Some(addr));
}

#[test]
fn a_call_that_was_given_up_or_overtaken_changes_nothing() {
    let kernel = Arc::new(Fake::default());
    let mut node = node(&kernel);
    let accepted = |node: &mut Node| node.remember(member(3), LinkState::Accepted(Instant::now()));
    // Given up while this process did not run: nobody else may get the number of a node that is linked.
    accepted(&mut node);
    node.known.remove(&3);
    node.call_ended(member(3), Some(stream())).unwrap();
    assert!(!node.known.contains_key(&3));
    // It called twice; the second call came through.
    accepted(&mut node);
    node.call_ended(member(3), Some(stream())).unwrap();
    for late in [None, Some(stream())] {
        let LinkState::Up(since) = node.known[&3].link else {
            panic!("not linked");
        };
        node.call_ended(member(3), late).unwrap();
        assert_eq!(node.known[&3].link, LinkState::Up(since));
    }
    // One that is gone before it could be told.
    accepted(&mut node);
    node.call_ended(member(3), None).unwrap();
    pause(&node, 3);
}

#[test]
fn a_module_that_cannot_answer_now_is_asked_again() {
    let kernel = Arc::new(Fake::default());
    let mut node = node(&kernel);
    node.link_up(member(3), &stream()).unwrap();
    kernel.state().linked_fails = Some(libc::ENOMEM);
    let ended = Event::PeerLost(NodeId(3), LostReason::Silent);
    for event in [Event::Overrun, ended] {
        node.heard(event).unwrap();
        assert!(matches!(node.known[&3].link, LinkState::Up(_)));
    }
    kernel.state().linked_fails = None;
    node.check().unwrap();
    pause(&node, 3);
    // It does not answer because there is no node any more.
    kernel.state().linked_fails = Some(libc::ENOTCONN);
    kernel.state().attached = None;
    assert!(node.check().unwrap_err().is(libc::ENOTCONN));
}
