//! Who is called what in one recording.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Prefixes of local routes that keep their addresses together.
const MAX_LOCAL: usize = 2048;
/// What stands for them: a /16 in 248.0.0.0/5, a /64 in 2001:db8:1::/48.
const LOCAL_V4: u32 = 0xf800_0000;
const LOCAL_V6: u128 = 0x2001_0db8_0001 << 80;

/// The pseudonyms of one recording. Memory grows with the number of distinct addresses and names.
#[derive(Default)]
pub struct Pseudonyms {
    v4: HashMap<Ipv4Addr, Ipv4Addr>,
    v6: HashMap<Ipv6Addr, Ipv6Addr>,
    /// Prefixes of local routes, and how many of their addresses have a pseudonym in the prefix that stands for them.
    local: Vec<(IpNet, u16)>,
    pub hosts: Names,
    processes: Names,
    pub units: Names,
    pub groups: Names,
    containers: Names,
    /// By what they name: an image, a pod.
    labels: HashMap<&'static str, Names>,
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
    /// Once there are very many addresses, those of other hosts are forgotten: the next of them are called as the first ones were.
    pub fn forget_if_many(&mut self) {
        const MANY: usize = 100_000;
        if self.v4.len() + self.v6.len() > MANY {
            self.v4.retain(|_, pseudonym| pseudonym.to_bits() & 0xff00_0000 >= LOCAL_V4);
            self.v6.retain(|_, pseudonym| pseudonym.to_bits() >> 80 == LOCAL_V6 >> 80);
        }
    }

    pub fn process(&mut self, name: &[u8]) -> Vec<u8> {
        format!("process-{}", self.processes.number(name)).into_bytes()
    }

    /// Readers of an id show its first 12 digits, so the number stands there.
    pub fn container(&mut self, id: &str) -> String {
        let number = format!("{:012x}", self.containers.number(id.as_bytes()));
        format!("{number:0<width$}", width = id.len())
    }

    /// `pod-3`, for the third pod.
    pub fn label(&mut self, word: &'static str, name: &str) -> String {
        format!("{word}-{}", self.labels.entry(word).or_default().number(name.as_bytes()))
    }

    pub fn v4(&mut self, address: Ipv4Addr) -> Ipv4Addr {
        if address.is_loopback() || address.is_unspecified() {
            return address;
        }
        if let Some(known) = self.v4.get(&address) {
            return *known;
        }
        // 240.0.0.0/4 is reserved and in use nowhere (RFC 1112), so a pseudonym is recognised as one.
        let pseudonym = match self.within(address.into()) {
            Some((prefix, number)) => LOCAL_V4 | (prefix as u32) << 16 | u32::from(number),
            None => 0xf000_0000 | (self.v4.len() as u32 + 1) & 0x07ff_ffff,
        };
        *self.v4.entry(address).or_insert(Ipv4Addr::from_bits(pseudonym))
    }

    pub fn v6(&mut self, address: Ipv6Addr) -> Ipv6Addr {
        if address.is_loopback() || address.is_unspecified() {
            return address;
        }
        // The peer of a dual-stack socket is the same host as on an IPv4 socket.
        if let Some(v4) = address.to_ipv4_mapped() {
            return self.v4(v4).to_ipv6_mapped();
        }
        if let Some(known) = self.v6.get(&address) {
            return *known;
        }
        let pseudonym = match self.within(address.into()) {
            Some((prefix, number)) => LOCAL_V6 | (prefix as u128) << 64 | u128::from(number),
            // The prefix for documentation, RFC 3849.
            None => 0x2001_0db8 << 96 | (self.v6.len() as u128 + 1),
        };
        *self.v6.entry(address).or_insert(Ipv6Addr::from_bits(pseudonym))
    }

    /// The lines of a scope block for the prefix of a local route: one prefix whose addresses stand for those of this one, and
    /// the pseudonyms that were given before it was known.
    pub fn local(&mut self, net: IpNet) -> String {
        if net.addr().is_loopback() {
            return format!("local {net}\n");
        }
        let known = self.local.iter().position(|(of, _)| *of == net);
        let index = known.or_else(|| {
            let room = self.local.len() < MAX_LOCAL;
            room.then(|| self.local.push((net, 0))).map(|()| self.local.len() - 1)
        });
        let mut lines = match (index, net) {
            (Some(index), IpNet::V4(_)) => {
                format!("local {}/16\n", Ipv4Addr::from_bits(LOCAL_V4 | (index as u32) << 16))
            }
            (Some(index), IpNet::V6(_)) => {
                format!("local {}/64\n", Ipv6Addr::from_bits(LOCAL_V6 | (index as u128) << 64))
            }
            (None, _) => String::new(),
        };
        let v4 = self.v4.iter().map(|(real, given)| (IpAddr::from(*real), IpAddr::from(*given)));
        let v6 = self.v6.iter().map(|(real, given)| (IpAddr::from(*real), IpAddr::from(*given)));
        for (_, given) in v4.chain(v6).filter(|(real, _)| net.contains(real)) {
            lines.push_str(&format!("address {given}\n"));
        }
        lines
    }

    /// The longest prefix with this address, and a new number in it.
    fn within(&mut self, address: IpAddr) -> Option<(usize, u16)> {
        let having = self.local.iter_mut().enumerate().filter(|(_, (net, _))| net.contains(&address));
        let (index, (_, given)) = having.max_by_key(|(_, (net, _))| net.prefix_len())?;
        *given = given.checked_add(1)?;
        Some((index, *given))
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
