// SPDX-License-Identifier: GPL-2.0

//! What members say to each other once both have proved themselves: one request, one reply.
//!
//! A node joins by asking the dispatcher, which numbers it and names the other members; it then
//! links itself to each of them. After the reply the socket belongs to the kernels.

use super::auth::hex_bytes;
use crate::kernel::{Roles, MAX_ID, MAX_WEIGHT};
use lard_core::wire::Name;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Octets in the name of a document root.
pub const MAX_DOCROOT: usize = 200;
/// Characters of a text of the other side that are shown.
const MAX_SHOWN: usize = 200;

/// A node, as the others need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Its components.
    pub roles: Roles,
    /// Its internal address.
    pub addr: Ipv4Addr,
    /// Its control port.
    pub port: u16,
    /// Its share under weighted policies.
    #[serde(default = "usual_weight")]
    pub weight: u32,
    /// Its document root, if it shares its documents over NFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docroot: Option<String>,
}

impl Member {
    /// Where its `cluster_startup` listens.
    pub fn control(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.addr, self.port)
    }
}

/// What the caller wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Become a member; asked of the dispatcher.
    Join(Join),
    /// Link two members.
    Link(Link),
}

/// A node that wants to become a member. Its address is the one it calls from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Its name.
    pub name: String,
    /// Its components.
    pub roles: Roles,
    /// Its control port.
    pub port: u16,
    /// Its share under weighted policies.
    #[serde(default = "usual_weight")]
    pub weight: u32,
    /// Its document root, if it shares its documents over NFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docroot: Option<String>,
    /// The cluster it was a member of, and its number there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<Was>,
}

/// An earlier membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was {
    /// The cluster.
    pub cluster_id: u64,
    /// The number.
    pub id: u16,
}

/// A member that links itself to another. Its address is the one it calls from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The cluster.
    pub cluster_id: u64,
    /// The caller's number.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Its components.
    pub roles: Roles,
    /// Its control port.
    pub port: u16,
    /// Its share under weighted policies.
    #[serde(default = "usual_weight")]
    pub weight: u32,
    /// Its document root, if it shares its documents over NFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docroot: Option<String>,
    /// The number of the node it means to reach.
    pub to: u16,
}

/// What the listener says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// To Join: you are a member.
    Welcome(Welcome),
    /// To Link: linked.
    Linked,
    /// No.
    Refused(Refused),
}

/// All a new member needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The cluster.
    pub cluster_id: u64,
    /// The new member's number.
    pub id: u16,
    /// Its name, made unique.
    pub name: String,
    /// Key of the target hash, masked with the session's pad.
    #[serde(with = "hex_bytes")]
    pub masked_key: [u8; 16],
    /// The dispatcher.
    pub dispatcher: Member,
    /// The other members.
    pub members: Vec<Member>,
}

impl Welcome {
    /// Can all that is said of nodes be?
    pub fn is_sound(&self) -> bool {
        let can_be = |member: &Member| is_name(&member.name) && is_weight(member.weight);
        (1..=MAX_ID).contains(&self.id)
            && is_name(&self.name)
            && can_be(&self.dispatcher)
            && self.members.iter().all(can_be)
    }
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The reason, for people.
    pub reason: String,
    /// Is asking again later of use?
    pub again: bool,
}

impl Refused {
    /// It will not help to ask again.
    pub fn never(reason: impl Into<String>) -> Self {
        Refused {
            reason: reason.into(),
            again: false,
        }
    }

    /// Ask again in a moment.
    pub fn later(reason: impl Into<String>) -> Self {
        Refused {
            reason: reason.into(),
            again: true,
        }
    }
}

/// What the other side says, for terminals, logs and service managers: one line without anything that
/// they would obey.
pub fn shown(text: &str) -> String {
    text.chars()
        .take(MAX_SHOWN)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn usual_weight() -> u32 {
    1
}

/// A share as the module takes it.
pub fn is_weight(weight: u32) -> bool {
    (1..=MAX_WEIGHT).contains(&weight)
}

/// A document root that can be exported and mounted: a path without anything that a table of mounts or
/// exports would have to escape.
pub fn is_docroot(path: &str) -> bool {
    path.len() > 1
        && path.len() <= MAX_DOCROOT
        && path.starts_with('/')
        && path
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"/-_.+@".contains(&octet))
}

/// A name as messages between nodes, and the module, take it.
pub fn is_name(name: &str) -> bool {
    Name::new(name.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::MAX_NAME;
    use crate::membership::line::MAX_PROVED;

    #[test]
    fn the_largest_welcome_fits_a_line() {
        let member = Member {
            id: u16::MAX,
            name: "x".repeat(MAX_NAME),
            roles: Roles::from_bits(7),
            addr: Ipv4Addr::BROADCAST,
            port: u16::MAX,
            weight: u32::MAX,
            docroot: Some("/".repeat(MAX_DOCROOT)),
        };
        let reply = Reply::Welcome(Welcome {
            cluster_id: u64::MAX,
            id: u16::MAX,
            name: member.name.clone(),
            masked_key: [0xff; 16],
            dispatcher: member.clone(),
            members: vec![member; crate::kernel::MAX_NODES],
        });
        let line = serde_json::to_vec(&reply).unwrap();
        assert!(line.len() < MAX_PROVED, "{}", line.len());
        assert_eq!(serde_json::from_slice::<Reply>(&line).unwrap(), reply);
    }

    #[test]
    fn a_welcome_names_only_nodes_that_can_be() {
        let member = Member {
            id: 2,
            name: "n2".into(),
            roles: Roles::from_bits(6),
            addr: Ipv4Addr::LOCALHOST,
            port: 7021,
            weight: 1,
            docroot: None,
        };
        let good = Welcome {
            cluster_id: 1,
            id: 3,
            name: "n3".into(),
            masked_key: [0; 16],
            dispatcher: member.clone(),
            members: vec![member],
        };
        assert!(good.is_sound());
        for spoil in [
            |welcome: &mut Welcome| welcome.id = 0,
            |welcome: &mut Welcome| welcome.name = "n3\nREADY=1".into(),
            |welcome: &mut Welcome| welcome.dispatcher.name = "\u{1b}[2J".into(),
            |welcome: &mut Welcome| welcome.members[0].name.clear(),
            |welcome: &mut Welcome| welcome.members[0].weight = 0,
        ] {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(!bad.is_sound(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_is_one_short_line() {
        assert_eq!(shown("no\nREADY=1\u{1b}[2J\u{9b}"), "no?READY=1?[2J?");
        assert_eq!(shown(&"\u{e4}".repeat(1000)).chars().count(), MAX_SHOWN);
    }

    #[test]
    fn requests_read_back() {
        for request in [
            Request::Join(Join {
                name: "node2".into(),
                roles: Roles::from_bits(6),
                port: 7021,
                weight: 3,
                docroot: Some("/var/www".into()),
                was: Some(Was {
                    cluster_id: u64::MAX,
                    id: 4,
                }),
            }),
            Request::Link(Link {
                cluster_id: 1,
                id: 4,
                name: "n".into(),
                roles: Roles::from_bits(2),
                port: 1,
                weight: 1,
                docroot: None,
                to: 3,
            }),
        ] {
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
    }

    #[test]
    fn document_roots_are_plain_paths() {
        assert!(is_docroot("/var/www/html") && is_docroot("/srv/a-b_c.d+e@f"));
        for bad in [
            "", "/", "www", "/a b", "/a:b", "/a,b", "/a\n", "/a\"", "/\u{e4}",
        ] {
            assert!(!is_docroot(bad), "{bad:?}");
        }
        assert!(!is_docroot(&"/a".repeat(101)));
    }

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(is_name("host2-ifc1.cs.rice.edu"));
        assert!(is_name(&"x".repeat(MAX_NAME)));
        for bad in ["", "a b", "a:b", "a\n", "\u{1b}[2J", "ä", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
