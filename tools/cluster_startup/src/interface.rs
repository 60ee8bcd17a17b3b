// SPDX-License-Identifier: GPL-2.0

//! The machine's addresses, and which of them is meant.

use crate::error::{Error, Result};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::net::{Ipv4Addr, SocketAddrV4};

/// An IPv4 address of an interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub interface: String,
    /// The address.
    pub addr: Ipv4Addr,
    /// Does only this machine reach it?
    pub loopback: bool,
}

/// All of them, in the kernel's order.
pub fn addresses() -> Result<Vec<Address>> {
    let all = getifaddrs()
        .map_err(|errno| Error::new("list the machine's addresses").errno(errno as i32))?;
    Ok(all
        .filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|entry| {
            let addr = entry.address?.as_sockaddr_in()?.ip();
            Some(Address {
                loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK) || addr.is_loopback(),
                interface: entry.interface_name,
                addr,
            })
        })
        .collect())
}

/// The internal address, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Internal {
    /// The address.
    pub addr: Ipv4Addr,
    /// The interface, if it was named.
    pub interface: Option<String>,
}

/// What `--internal` means: an address of this machine, or an interface.
pub fn named(all: &[Address], text: &str) -> Result<Internal> {
    if let Ok(addr) = text.parse::<Ipv4Addr>() {
        if all.iter().any(|own| own.addr == addr) {
            return Ok(Internal {
                addr,
                interface: None,
            });
        }
        return Err(Error::new(format!("use {addr} as internal address"))
            .errno(libc::EADDRNOTAVAIL)
            .remedy("--internal takes an address of this machine, or one of its interfaces"));
    }
    all.iter()
        .find(|own| own.interface == text)
        .map(|own| Internal {
            addr: own.addr,
            interface: Some(own.interface.clone()),
        })
        .ok_or_else(|| {
            Error::new(format!("use interface {text} for the internal network"))
                .detail("there is no such interface that is up and has an IPv4 address")
                .remedy("--internal takes an address of this machine, or one of its interfaces")
        })
}

/// The internal address of the dispatcher's node until another calls it: the first private one that
/// is not loopback, else the first that is not loopback. Never loopback: before the network is up
/// that would found another cluster than the one that is kept under the address to come.
pub fn guessed(all: &[Address]) -> Option<Internal> {
    let outside = |own: &&Address| !own.loopback;
    let own = all
        .iter()
        .filter(outside)
        .find(|own| own.addr.is_private())
        .or_else(|| all.iter().find(outside))?;
    Some(Internal {
        addr: own.addr,
        interface: None,
    })
}

/// The addresses at which a front-end's clients find it: all that other machines reach.
pub fn virtual_addresses(all: &[Address], port: u16) -> Vec<SocketAddrV4> {
    let mut vips: Vec<SocketAddrV4> = Vec::new();
    for own in all.iter().filter(|own| !own.loopback) {
        let vip = SocketAddrV4::new(own.addr, port);
        if !vips.contains(&vip) {
            vips.push(vip);
        }
    }
    vips
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(interface: &str, addr: [u8; 4]) -> Address {
        Address {
            interface: interface.to_string(),
            addr: addr.into(),
            loopback: interface == "lo",
        }
    }

    #[test]
    fn an_address_or_an_interface_can_be_named() {
        let all = [
            address("lo", [127, 0, 0, 1]),
            address("eth0", [203, 0, 113, 5]),
            address("eth1", [10, 0, 0, 5]),
        ];
        assert_eq!(
            named(&all, "eth1").unwrap(),
            Internal {
                addr: Ipv4Addr::new(10, 0, 0, 5),
                interface: Some("eth1".into())
            }
        );
        assert_eq!(
            named(&all, "203.0.113.5").unwrap().addr,
            Ipv4Addr::new(203, 0, 113, 5)
        );
        assert!(named(&all, "10.0.0.6").unwrap_err().is(libc::EADDRNOTAVAIL));
        assert!(named(&all, "eth9").is_err());
    }

    #[test]
    fn the_guess_prefers_private_addresses() {
        let mut all = vec![address("lo", [127, 0, 0, 1])];
        assert_eq!(guessed(&all), None);
        all.push(address("eth0", [203, 0, 113, 5]));
        let guess = |all: &[Address]| guessed(all).unwrap().addr;
        assert_eq!(guess(&all), Ipv4Addr::new(203, 0, 113, 5));
        all.push(address("eth1", [192, 168, 7, 5]));
        assert_eq!(guess(&all), Ipv4Addr::new(192, 168, 7, 5));
    }

    #[test]
    fn clients_reach_all_but_loopback() {
        let mut all = vec![address("lo", [127, 0, 0, 1])];
        for last in 1..40 {
            all.push(address("eth0", [10, 0, 0, last]));
            all.push(address("eth0", [10, 0, 0, last]));
        }
        let vips = virtual_addresses(&all, 8080);
        assert_eq!(vips.len(), 39);
        assert_eq!(vips[1].to_string(), "10.0.0.2:8080");
    }
}
