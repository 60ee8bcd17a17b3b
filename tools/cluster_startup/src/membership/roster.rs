// SPDX-License-Identifier: GPL-2.0

//! The dispatcher's list of members: who is in, under which number, and which numbers are remembered
//! for nodes that come back. No I/O; [`Saved`] is what outlives the process.

use super::message::{is_docroot, is_name, is_weight, Join, Member, Refused};
use crate::kernel::{MAX_ID, MAX_NAME, MAX_NODES};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// What outlives the dispatcher's process, so that a restart changes nothing for the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Number of the cluster.
    pub cluster_id: u64,
    /// Key of the target hash, in hexadecimal digits.
    #[serde(with = "super::auth::hex_bytes")]
    pub hash_key: [u8; 16],
    /// The dispatcher's own number.
    pub id: u16,
    /// Control address of every node that has or had a number that nobody got since.
    pub known: BTreeMap<SocketAddrV4, u16>,
}

/// The members.
#[derive(Debug)]
pub struct Roster {
    saved: Saved,
    own: Member,
    members: BTreeMap<u16, Member>,
}

impl Roster {
    /// The roster of the dispatcher `own`, whose number is taken from `saved`.
    pub fn new(saved: Saved, mut own: Member) -> Self {
        own.id = saved.id;
        Roster {
            saved,
            own,
            members: BTreeMap::new(),
        }
    }

    /// What should outlive the process.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// The dispatcher.
    pub fn own(&self) -> &Member {
        &self.own
    }

    /// The dispatcher is elsewhere than was thought.
    pub fn move_to(&mut self, addr: Ipv4Addr) {
        self.own.addr = addr;
    }

    /// Is the dispatcher alone?
    pub fn is_alone(&self) -> bool {
        self.members.is_empty()
    }

    /// The other members.
    #[cfg(test)]
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Lets a node in that calls from `addr`: the member it becomes, and those that are there.
    pub fn admit(&mut self, addr: Ipv4Addr, join: &Join) -> Result<(Member, Vec<Member>), Refused> {
        if !is_name(&join.name) {
            return Err(Refused::never(
                "a node's name is 1 to 63 letters, digits, '-', '_' or '.'",
            ));
        }
        if join.roles.is_empty() {
            return Err(Refused::never("the node has no component"));
        }
        if join.roles.dispatcher {
            return Err(Refused::never(format!(
                "this cluster has a dispatcher: {} at {}",
                self.own.name, self.own.addr
            )));
        }
        if join.port == 0 {
            return Err(Refused::never("the node names no control port"));
        }
        if !is_weight(join.weight) {
            return Err(Refused::never("the node's weight cannot be"));
        }
        if join
            .docroot
            .as_deref()
            .is_some_and(|path| !is_docroot(path))
        {
            return Err(Refused::never("the node's document root cannot be"));
        }
        let place = SocketAddrV4::new(addr, join.port);
        let id = self.number(place, join)?;
        let member = Member {
            id,
            name: self.unique(&join.name, id),
            roles: join.roles,
            addr,
            port: join.port,
            weight: join.weight,
            docroot: join.docroot.clone(),
        };
        self.remember(place, id);
        let others = self
            .members
            .values()
            .filter(|other| other.id != id)
            .cloned()
            .collect();
        self.members.insert(id, member.clone());
        Ok((member, others))
    }

    /// A node left or was lost.
    pub fn remove(&mut self, id: u16) -> Option<Member> {
        self.members.remove(&id)
    }

    /// The number for a node at `place`: the one it has, had, or was given by an earlier run of
    /// this dispatcher; else a fresh one.
    fn number(&self, place: SocketAddrV4, join: &Join) -> Result<u16, Refused> {
        let taken = |id: u16| id == self.own.id || self.members.contains_key(&id);
        if let Some(there) = self.members.values().find(|m| m.control() == place) {
            return Ok(there.id);
        }
        if self.members.len() + 1 >= MAX_NODES {
            return Err(Refused::later(format!(
                "the cluster has {MAX_NODES} nodes, which is the limit"
            )));
        }
        let was = join
            .was
            .filter(|was| was.cluster_id == self.saved.cluster_id)
            .map(|was| was.id);
        let remembered = self.saved.known.get(&place).copied();
        for id in [was, remembered].into_iter().flatten() {
            if (1..=MAX_ID).contains(&id) && !taken(id) {
                return Ok(id);
            }
        }
        let known = |id: u16| self.saved.known.values().any(|&other| other == id);
        let free = |id: &u16| !taken(*id);
        (1..=MAX_ID)
            .filter(free)
            .find(|&id| !known(id))
            .or_else(|| (1..=MAX_ID).find(free))
            .ok_or_else(|| Refused::later("no number is free"))
    }

    fn remember(&mut self, place: SocketAddrV4, id: u16) {
        self.saved
            .known
            .retain(|other, number| *other == place || *number != id);
        self.saved.known.insert(place, id);
    }

    /// Several nodes of one machine have its name; the number tells them apart.
    fn unique(&self, name: &str, id: u16) -> String {
        let used = |name: &str| {
            self.own.name == name || self.members.values().any(|m| m.name == name && m.id != id)
        };
        if !used(name) {
            return name.to_string();
        }
        let suffix = format!("-{id}");
        let room = MAX_NAME.saturating_sub(suffix.len());
        // Names are ASCII.
        let stem = name.get(..name.len().min(room)).unwrap_or(name);
        format!("{stem}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Was;
    use super::*;
    use crate::kernel::Roles;

    fn roster() -> Roster {
        let saved = Saved {
            cluster_id: 77,
            hash_key: [1; 16],
            id: 1,
            known: BTreeMap::new(),
        };
        let own = Member {
            id: 0,
            name: "node1".into(),
            roles: Roles::from_bits(1),
            addr: Ipv4Addr::new(10, 0, 0, 1),
            port: 7021,
            weight: 1,
            docroot: None,
        };
        Roster::new(saved, own)
    }

    fn join(name: &str) -> Join {
        Join {
            name: name.into(),
            roles: Roles::from_bits(6),
            port: 7021,
            weight: 1,
            docroot: None,
            was: None,
        }
    }

    fn addr(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn nodes_are_numbered_in_the_order_they_come() {
        let mut roster = roster();
        let (second, others) = roster.admit(addr(2), &join("node2")).unwrap();
        assert_eq!((second.id, others.len()), (2, 0));
        let (third, others) = roster.admit(addr(3), &join("node3")).unwrap();
        assert_eq!(third.id, 3);
        assert_eq!(others, [second]);
    }

    #[test]
    fn a_node_that_comes_back_has_its_number_again() {
        let mut roster = roster();
        roster.admit(addr(2), &join("node2")).unwrap();
        roster.admit(addr(3), &join("node3")).unwrap();
        roster.remove(2);
        let (fourth, _) = roster.admit(addr(4), &join("node4")).unwrap();
        assert_eq!(fourth.id, 4, "the number of an absent node is kept for it");
        let (second, others) = roster.admit(addr(2), &join("node2")).unwrap();
        assert_eq!((second.id, others.len()), (2, 2));
        // Restarted before its loss was noticed.
        let (again, others) = roster.admit(addr(3), &join("node3")).unwrap();
        assert_eq!((again.id, others.len()), (3, 2));
    }

    #[test]
    fn numbers_survive_the_dispatchers_restart() {
        let mut old = roster();
        old.admit(addr(2), &join("node2")).unwrap();
        old.admit(addr(3), &join("node3")).unwrap();
        let text = serde_json::to_string(old.saved()).unwrap();
        let own = old.own().clone();
        // With what was saved, even if another node comes first.
        let mut new = Roster::new(serde_json::from_str(&text).unwrap(), own.clone());
        assert_eq!(new.admit(addr(9), &join("node9")).unwrap().0.id, 4);
        assert_eq!(new.admit(addr(3), &join("node3")).unwrap().0.id, 3);
        // Without it, by what the node itself says.
        let mut empty = roster();
        let mut third = join("node3");
        third.was = Some(Was {
            cluster_id: 77,
            id: 3,
        });
        assert_eq!(empty.admit(addr(3), &third).unwrap().0.id, 3);
        // A number of another cluster means nothing.
        third.was = Some(Was {
            cluster_id: 78,
            id: 9,
        });
        assert_eq!(empty.admit(addr(5), &third).unwrap().0.id, 2);
    }

    #[test]
    fn claims_to_taken_or_impossible_numbers_get_a_fresh_one() {
        let mut roster = roster();
        roster.admit(addr(2), &join("node2")).unwrap();
        for id in [0, 1, 2, 65, u16::MAX] {
            let mut claim = join("claim");
            claim.was = Some(Was { cluster_id: 77, id });
            let (member, _) = roster.admit(addr(9), &claim).unwrap();
            assert_eq!(member.id, 3);
            roster.remove(3);
        }
    }

    #[test]
    fn names_are_made_unique() {
        let mut roster = roster();
        let (a, _) = roster.admit(addr(2), &join("node1")).unwrap();
        let (b, _) = roster.admit(addr(3), &join("node1")).unwrap();
        assert_eq!((a.name.as_str(), b.name.as_str()), ("node1-2", "node1-3"));
        let (again, _) = roster.admit(addr(3), &join("node1")).unwrap();
        assert_eq!(again.name, "node1-3");
        let long = "x".repeat(MAX_NAME);
        roster.admit(addr(4), &join(&long)).unwrap();
        let (cut, _) = roster.admit(addr(5), &join(&long)).unwrap();
        assert_eq!(cut.name.len(), MAX_NAME);
        assert!(cut.name.ends_with("-5"));
    }

    #[test]
    fn senseless_nodes_are_refused() {
        let mut roster = roster();
        for bits in [0, 1, 3] {
            let mut bad = join("node");
            bad.roles = Roles::from_bits(bits);
            assert!(!roster.admit(addr(2), &bad).unwrap_err().again);
        }
        assert!(roster.admit(addr(2), &join("\n")).is_err());
        let mut bad = join("node");
        bad.docroot = Some("/a -o exec".into());
        assert!(!roster.admit(addr(2), &bad).unwrap_err().again);
        assert_eq!(roster.members().count(), 0);
    }

    #[test]
    fn the_number_of_nodes_and_of_memories_is_bounded() {
        let mut roster = roster();
        for round in 0u16..2000 {
            let [high, low] = round.to_be_bytes();
            let result = roster.admit(Ipv4Addr::new(10, 1, high, low), &join("n"));
            if round % 100 < 63 {
                let (member, _) = result.unwrap();
                assert_ne!(member.id, 1);
            } else {
                assert!(result.unwrap_err().again);
            }
            if round % 100 == 99 {
                for id in roster.members().map(|m| m.id).collect::<Vec<_>>() {
                    roster.remove(id);
                }
            }
            assert!(roster.saved().known.len() < usize::from(MAX_ID));
        }
    }
}
