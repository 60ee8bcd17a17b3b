// SPDX-License-Identifier: GPL-2.0

//! What connections that are handed over can have: what back-ends announce of their listeners, and
//! what a front-end therefore may offer its clients.
//!
//! # Locking
//!
//! `peers` and `announced` of [`Control`] are taken in any context, `peers` outside a peer's `info` and inside
//! the front-end's settings.

#![forbid(unsafe_code)]

use kernel::sync::atomic::Relaxed;
use kernel_net::net::Net;
use lard_core::wire::{ListenerCaps, Roles};

use super::{greet, Control};
use crate::config::Config;
use crate::netns::Node;
use crate::params::Param;
use crate::peer::Link;

/// What is taken for the largest packet where it is not known, and more than no client is offered.
const ETHERNET_MTU: u32 = 1_500;

/// An IPv4 and a TCP header, without options.
const HEADERS: u32 = 40;

impl Control {
    /// What connections must do with if any back-end is to be able to take them: the weakest of what
    /// the listeners announce. `None` while there is no back-end.
    fn weakest(&self, own: Option<ListenerCaps>) -> Option<ListenerCaps> {
        let mut weakest = own;
        let peers = self.peers.lock();
        for peer in peers.iter().flatten() {
            peer.with_info(|info| {
                if info.link != Link::Ready {
                    return;
                }
                for caps in info.listeners.iter() {
                    weakest = Some(match weakest {
                        None => *caps,
                        Some(w) => ListenerCaps {
                            space: w.space.min(caps.space),
                            // The largest any of them would choose: the others take it as well.
                            wscale: w.wscale.max(caps.wscale),
                            sack: w.sack && caps.sack,
                            timestamps: w.timestamps && caps.timestamps,
                            scaling: w.scaling && caps.scaling,
                            ..w
                        },
                    });
                }
            });
        }
        weakest
    }

    /// Gives the front-end the parameters and what the back-ends can do.
    pub(crate) fn refresh(&self, node: &Node, config: &Config, net: &Net) {
        // All is looked up under the lock: who comes last has seen what who came before has.
        node.front_end.configure(|tcp| {
            let own = config.is(Roles::BACK_END).then(|| own_caps(net, config));
            // Clients' packets have to pass the network between the nodes whole.
            let mtu = internal_mtu(net, config);
            self.mtu.store(mtu, Relaxed);
            node.params.apply(tcp);
            tcp.mss = u16::try_from(mtu.saturating_sub(HEADERS)).unwrap_or(u16::MAX);
            if let Some(caps) = self.weakest(own) {
                tcp.back_end_space = caps.space;
                tcp.wscale = caps.scaling.then_some(caps.wscale);
                tcp.sack = caps.sack;
                tcp.timestamps = caps.timestamps;
            }
            node.front_end.set_limits(
                node.params.get_u32(Param::OpenMax),
                node.params.get_u32(Param::HalfOpenMax),
                node.params.get_u32(Param::HeadMemory),
            );
        });
    }

    /// Offers clients other packets when the internal network has others.
    pub(super) fn follow_mtu(&self, node: &Node, config: &Config, net: &Net) {
        if internal_mtu(net, config) != self.mtu.load(Relaxed) {
            self.refresh(node, config, net);
        }
    }

    /// Says HELLO again when the administrator has changed what connections handed to this node can
    /// have: a front-end that went on offering more would have every hand-off refused.
    pub(super) fn announce_caps(&self, node: &Node, config: &Config, net: &Net) {
        let caps = own_caps(net, config);
        let told = core::mem::replace(&mut *self.announced.lock(), caps);
        if told == caps {
            return;
        }
        for peer in self.all() {
            self.must_hear(&peer, greet(&peer, config, caps));
        }
        self.refresh(node, config, net);
    }
}

/// The largest packet that the internal network takes, and no more than clients' can be: of the interface that
/// was named, or of the one with the node's address there.
fn internal_mtu(net: &Net, config: &Config) -> u32 {
    let mtu = match config.internal_ifname() {
        Some(name) => net.mtu(name.as_bytes()),
        None => config.internal.to_v4().and_then(|addr| net.mtu_at(addr)),
    };
    mtu.unwrap_or(ETHERNET_MTU).min(ETHERNET_MTU)
}

/// What connections handed to this node's listeners can have.
///
/// The space is that of a socket with default buffers, although a server may give its listener smaller
/// ones. Nothing is lost by that: all that was acknowledged comes in one segment, which TCP takes whole
/// into an empty queue of whatever size, and what was not is sent again. The other way round, one small
/// listener would make all front-ends refuse longer request heads.
pub(super) fn own_caps(net: &Net, config: &Config) -> ListenerCaps {
    let options = net.options();
    ListenerCaps {
        addr: config.be_addr.unwrap_or_default(),
        port: config.be_port,
        // What tcp_full_space() makes of a fresh socket: half of its buffer.
        space: options.rmem_default / 2,
        wscale: window_scale(options.rmem_max),
        sack: options.sack,
        timestamps: options.timestamps,
        scaling: options.window_scaling,
    }
}

/// The shift with which a receive buffer of this size can be announced, as the kernel chooses it
/// (tcp_select_initial_window()).
fn window_scale(space: u32) -> u8 {
    let bits = u32::BITS.saturating_sub(space.leading_zeros());
    u8::try_from(bits.saturating_sub(16).min(14)).unwrap_or(14)
}
