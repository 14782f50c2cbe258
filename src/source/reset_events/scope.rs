//! Whether an event belongs to the network namespace under observation; the rules are told at [`Place`].

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Place;
use crate::source::sysctl::DEFAULT_PORT_RANGE;

#[derive(Debug, Default)]
pub struct Scope {
    /// The namespace under observation.
    netns: Option<u64>,
    /// Every network namespace known, itself included.
    namespaces: BTreeSet<u64>,
    addresses: BTreeSet<IpAddr>,
    ephemeral: Option<(u16, u16)>,
}

impl Scope {
    /// The text of a scope block. A later block replaces the addresses and adds to the namespaces.
    pub fn read(&mut self, text: &str) {
        self.addresses.clear();
        for line in text.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("netns"), Some(inode), None) => {
                    self.netns = inode.parse().ok();
                    self.namespaces.extend(self.netns);
                }
                (Some("namespace"), Some(inode), None) => self.namespaces.extend(inode.parse::<u64>().ok()),
                (Some("address"), Some(address), None) => self.addresses.extend(address.parse::<IpAddr>().ok()),
                (Some("ephemeral"), Some(low), Some(high)) => self.ephemeral = low.parse().ok().zip(high.parse().ok()),
                _ => {}
            }
        }
    }

    /// A namespace appeared while looking.
    pub fn namespace(&mut self, inode: u64) {
        // Bounded: beyond a handful only "more than one" matters.
        if self.namespaces.len() < 65_536 {
            self.namespaces.insert(inode);
        }
    }

    pub fn is_ephemeral(&self, port: u16) -> bool {
        let (low, high) = self.ephemeral.unwrap_or(DEFAULT_PORT_RANGE.into_inner());
        (low..=high).contains(&port)
    }

    /// `task`: namespace of the current task, `None` for a kernel thread or one not known.
    pub fn place(&self, local: IpAddr, softirq: bool, task: Option<u64>) -> Place {
        let Some(here) = self.netns else { return Place::Unclear };
        if self.namespaces.len() == 1 {
            return Place::Here;
        }
        let of_task = || match task {
            Some(netns) if netns == here => Place::Here,
            Some(_) => Place::Elsewhere,
            None => Place::Unclear,
        };
        if !softirq {
            match of_task() {
                Place::Unclear => {}
                known => return known,
            }
        }
        if local.is_loopback() || local.is_unspecified() {
            of_task()
        } else if self.addresses.contains(&local) {
            Place::Here
        } else {
            Place::Elsewhere
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_of_place() {
        let mut scope = Scope::default();
        let (own, other, loopback): (IpAddr, IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), "127.0.0.1".parse().unwrap());
        assert_eq!(scope.place(own, true, None), Place::Unclear, "nothing known");
        scope.read("netns 5\naddress 10.0.0.1\nephemeral 40000 50000\n");
        assert_eq!(scope.place(other, true, None), Place::Here, "no other namespace");
        scope.namespace(6);
        assert_eq!(scope.place(other, false, Some(5)), Place::Here);
        assert_eq!(scope.place(own, false, Some(6)), Place::Elsewhere);
        assert_eq!(scope.place(own, true, Some(6)), Place::Here, "interrupted tasks do not count");
        assert_eq!(scope.place(other, true, Some(5)), Place::Elsewhere);
        assert_eq!(scope.place(loopback, true, Some(5)), Place::Here);
        assert_eq!(scope.place(loopback, true, None), Place::Unclear, "ksoftirqd");
        assert!(scope.is_ephemeral(40_000) && !scope.is_ephemeral(39_999));
    }
}
