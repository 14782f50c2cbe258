//! What a network namespace takes for its own, as scope blocks of streams tell it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses, and prefixes of which every address is local.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalAddresses {
    /// An address is a prefix of its full length.
    nets: BTreeSet<IpNet>,
    /// Those of `nets`.
    lengths: BTreeSet<u8>,
}

impl LocalAddresses {
    /// Takes a line `address A` or `local PREFIX/LENGTH`; any other says nothing.
    pub fn line(&mut self, line: &str) {
        let net = match line.split_once(' ') {
            Some(("address", address)) => address.parse().ok().map(|address: IpAddr| IpNet::from(address)),
            Some(("local", net)) => net.parse().ok().map(|net: IpNet| net.trunc()),
            _ => None,
        };
        if let Some(net) = net {
            self.lengths.insert(net.prefix_len());
            self.nets.insert(net);
        }
    }

    /// Nobody said which they are.
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }

    /// Takes some time for each length of a prefix, however many prefixes there are.
    pub fn contains(&self, address: IpAddr) -> bool {
        // A length of IPv6 is none of IPv4.
        let mut within = self.lengths.iter().filter_map(|length| IpNet::new(address, *length).ok());
        within.any(|net| self.nets.contains(&net.trunc()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_local_prefix_is_local() {
        let mut locals = LocalAddresses::default();
        let lines = ["address 10.0.0.1", "local 192.0.2.77/24", "local 2001:db8:1::/64", "address fe80::1", "netns 5"];
        lines.iter().for_each(|line| locals.line(line));
        for (address, expected) in [
            ("10.0.0.1", true),
            ("10.0.0.2", false),
            ("192.0.2.1", true),
            ("192.0.3.1", false),
            ("2001:db8:1::ffff", true),
            ("2001:db8:2::1", false),
            ("fe80::1", true),
            ("fe80::2", false),
        ] {
            assert_eq!(locals.contains(address.parse().unwrap()), expected, "{address}");
        }
        ["address x", "local 10.0.0.0/33", "local 10.0.0.0", "address"].iter().for_each(|line| locals.line(line));
        assert_eq!(locals.nets.len(), 4, "what is no address is none");
    }
}
