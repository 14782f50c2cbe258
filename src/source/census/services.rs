//! Which local ports are services of this host.

use std::collections::HashSet;

use super::super::listeners::Listener;
use super::super::sock_diag::{Address, from_ip};
use super::fold::FastHash;

/// The addresses and ports on which this host listens.
pub(super) struct Services {
    /// By port: listened on by 0.0.0.0 ([`Self::ANY_V4`]), by :: ([`Self::ANY`]) or by some address ([`Self::SOME`]).
    by_port: Vec<u8>,
    by_address: HashSet<(Address, u16), FastHash>,
    addresses: HashSet<Address, FastHash>,
}

impl Services {
    const ANY_V4: u8 = 1;
    const ANY: u8 = 2;
    const SOME: u8 = 4;

    pub fn new(listeners: &[Listener]) -> Self {
        let mut services =
            Self { by_port: vec![0; 1 << 16], by_address: HashSet::default(), addresses: HashSet::default() };
        for listener in listeners {
            let address = from_ip(listener.address.to_canonical());
            let bit = match listener.address {
                ip if !ip.is_unspecified() => {
                    services.by_address.insert((address, listener.port));
                    services.addresses.insert(address);
                    Self::SOME
                }
                ip if ip.is_ipv4() => Self::ANY_V4,
                // IPv4 connections arrive here too unless IPV6_V6ONLY is set, which a dump does not tell everywhere.
                _ => Self::ANY,
            };
            services.by_port[usize::from(listener.port)] |= bit;
        }
        services
    }

    pub fn uses_port(&self, port: u16) -> bool {
        self.by_port[usize::from(port)] != 0
    }

    pub fn contains(&self, address: Address, port: u16) -> bool {
        let bits = self.by_port[usize::from(port)];
        bits != 0
            && (bits & Self::ANY != 0
                || bits & Self::ANY_V4 != 0 && is_v4(address)
                || bits & Self::SOME != 0 && self.by_address.contains(&(address, port)))
    }

    /// The peer is this host too, as far as sockets tell: no network device lies between that could forget a connection.
    pub fn is_this_host(&self, local: Address, peer: Address) -> bool {
        let loopback_v4 = is_v4(peer) && peer as u32 >> 24 == 127;
        peer == local || peer == 1 || loopback_v4 || self.addresses.contains(&peer)
    }
}

fn is_v4(address: Address) -> bool {
    address >> 32 == 0xffff
}
