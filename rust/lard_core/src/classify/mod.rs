// SPDX-License-Identifier: GPL-2.0

//! Which packets belong to the second stack.
//!
//! The front-end presents each packet to an ordered list of rules. The first one that matches decides:
//! *accept* takes the packet, *pass* leaves it to the regular stack. A packet that no rule matches
//! passes. The stack's own rule of 1999, as its README gives it, reads
//!
//! ```text
//! pass from 192.168.2.75
//! accept if fxp0,fxp1 from 192.0.0.0/8
//! ```
//!
//! # Text form
//!
//! One rule is one line; this is what the tools take and print, and what netlink carries:
//!
//! ```text
//! rule      = action [ "if" interface *( "," interface ) ]
//!                    [ "from" ( "any" / prefix ) ]
//!                    [ "to" ( "any" / "local" / prefix ) ]
//!                    [ "port" number ]
//! action    = "accept" / "pass"
//! interface = 1 to 15 bytes, no space, comma, slash or control character
//! prefix    = address [ "/" length ]      ; all bits behind the prefix must be zero
//! address   = IPv4 dotted quad / IPv6 text form
//! number    = 1 to 65535
//! ```
//!
//! Words are separated by spaces or tabs. What a rule does not name matches everything. `to local`
//! matches addresses of this node; whether one is, the shell looks up once a packet. In a list of
//! rules ([`parse_rules`]) lines may be empty, and `#` starts a comment.

//!
//! ```
//! use lard_core::addr::Addr;
//! use lard_core::classify::{first_match, Action, Packet, Rule};
//!
//! let rules: [Rule; 2] = [
//!     "pass from 192.168.2.75".parse()?,
//!     "accept if fxp0,fxp1 from 192.0.0.0/8".parse()?,
//! ];
//! let packet = Packet {
//!     iface: b"fxp0",
//!     src: Addr::from_v4([192, 168, 2, 76]),
//!     dst: Addr::from_v4([10, 0, 0, 1]),
//!     dport: 8080,
//!     dst_is_local: true,
//! };
//! assert_eq!(first_match(&rules, &packet), Action::Accept);
//! # Ok::<(), lard_core::classify::ParseError>(())
//! ```

mod iface;
mod prefix;
mod text;

pub use iface::{IfaceName, IfaceSet};
pub use prefix::{Prefix, PrefixError};
pub use text::{parse_rules, ParseError, RulesError};

use super::addr::Addr;

/// Most rules in one namespace. Every new connection is compared with all of them.
pub const MAX_RULES: usize = 64;

/// What to do with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is ours.
    Accept,
    /// The regular stack gets it, as if the module were not there.
    #[default]
    Pass,
}

/// The destinations a rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum To {
    /// All.
    #[default]
    Any,
    /// The addresses of this node.
    Local,
    /// A prefix.
    Prefix(Prefix),
}

/// One rule. The default matches every packet and passes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What happens to what it matches.
    pub action: Action,
    /// The interfaces a packet may have come in by; the empty set means all.
    pub ifaces: IfaceSet,
    /// Where it may have come from.
    pub from: Prefix,
    /// Where it may be going to.
    pub to: To,
    /// The destination port, if it matters.
    pub port: Option<u16>,
}

/// What of a packet the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Name of the interface it came in by.
    pub iface: &'a [u8],
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Destination port.
    pub dport: u16,
    /// Is the destination an address of this node?
    pub dst_is_local: bool,
}

impl Rule {
    /// Is this a packet the rule is about?
    pub fn matches(&self, packet: &Packet<'_>) -> bool {
        self.port.is_none_or(|port| port == packet.dport)
            && self.from.contains(packet.src)
            && match self.to {
                To::Any => true,
                To::Local => packet.dst_is_local,
                To::Prefix(prefix) => prefix.contains(packet.dst),
            }
            && self.ifaces.matches(packet.iface)
    }
}

/// What the first of `rules` that matches says; [`Action::Pass`] if none does.
pub fn first_match(rules: &[Rule], packet: &Packet<'_>) -> Action {
    let rule = rules.iter().find(|rule| rule.matches(packet));
    rule.map_or(Action::Pass, |rule| rule.action)
}

/// Does the outcome depend on [`Packet::dst_is_local`]? If not, the shell need not look it up.
pub fn needs_local(rules: &[Rule]) -> bool {
    rules.iter().any(|rule| rule.to == To::Local)
}

#[cfg(test)]
mod tests;
