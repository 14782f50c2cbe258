//! Who is called what in one recording.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The pseudonyms of one recording. Memory grows with the number of distinct addresses and names.
#[derive(Default)]
pub struct Pseudonyms {
    v4: HashMap<Ipv4Addr, u32>,
    v6: HashMap<Ipv6Addr, u32>,
    pub hosts: Names,
    processes: Names,
    pub units: Names,
    pub groups: Names,
    pub containers: Names,
}

#[derive(Default)]
pub struct Names(HashMap<Vec<u8>, usize>);

impl Names {
    /// Counts from 1 in the order of appearance.
    pub fn number(&mut self, name: &[u8]) -> usize {
        let next = self.0.len() + 1;
        *self.0.entry(name.to_vec()).or_insert(next)
    }
}

impl Pseudonyms {
    pub fn process(&mut self, name: &[u8]) -> Vec<u8> {
        format!("process-{}", self.processes.number(name)).into_bytes()
    }

    pub fn v4(&mut self, address: Ipv4Addr) -> Ipv4Addr {
        if address.is_loopback() || address.is_unspecified() {
            return address;
        }
        let next = self.v4.len() as u32 + 1;
        let number = *self.v4.entry(address).or_insert(next);
        // 240.0.0.0/4 is reserved and in use nowhere (RFC 1112), so a pseudonym is recognised as one.
        Ipv4Addr::from_bits(0xf000_0000 | (number & 0x0fff_ffff))
    }

    pub fn v6(&mut self, address: Ipv6Addr) -> Ipv6Addr {
        if address.is_loopback() || address.is_unspecified() {
            return address;
        }
        // The peer of a dual-stack socket is the same host as on an IPv4 socket.
        if let Some(v4) = address.to_ipv4_mapped() {
            return self.v4(v4).to_ipv6_mapped();
        }
        let next = self.v6.len() as u32 + 1;
        let number = *self.v6.entry(address).or_insert(next);
        // The prefix for documentation, RFC 3849.
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number))
    }

    pub fn ip(&mut self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(v4) => self.v4(v4).into(),
            IpAddr::V6(v6) => self.v6(v6).into(),
        }
    }

    /// The same for bytes in network order: 4 of an IPv4 or 16 of an IPv6 address. `None` for any other number of bytes.
    pub fn octets(&mut self, bytes: &mut [u8]) -> Option<()> {
        if let Ok(v4) = <[u8; 4]>::try_from(&*bytes) {
            bytes.copy_from_slice(&self.v4(v4.into()).octets());
        } else {
            let v6 = <[u8; 16]>::try_from(&*bytes).ok()?;
            bytes.copy_from_slice(&self.v6(v6.into()).octets());
        }
        Some(())
    }
}
