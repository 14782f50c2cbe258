//! Which network namespace an event belongs to; the rules are told at [`ResetEvent::netns`](super::ResetEvent::netns).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::source::local_addresses::LocalAddresses;
use crate::value::{EphemeralPorts, NetnsId};

#[derive(Debug, Default)]
pub struct Scope {
    observed: BTreeMap<NetnsId, Observed>,
    /// Every network namespace known, the observed ones included.
    known: BTreeSet<NetnsId>,
}

#[derive(Debug, Default)]
struct Observed {
    addresses: LocalAddresses,
    ephemeral: EphemeralPorts,
}

impl Scope {
    /// The text of a scope block. A later block replaces the addresses and adds to the namespaces.
    pub fn read(&mut self, text: &str) {
        self.observed.clear();
        let mut current = None;
        for line in text.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("netns"), Some(inode), None) => {
                    current = inode.parse().ok().map(NetnsId);
                    if let Some(netns) = current {
                        self.namespace(netns);
                        self.observed.entry(netns).or_default();
                    }
                }
                (Some("namespace"), Some(inode), None) => {
                    if let Ok(inode) = inode.parse() {
                        self.namespace(NetnsId(inode));
                    }
                }
                (Some("address" | "local"), Some(_), None) => {
                    if let Some(observed) = current.and_then(|netns| self.observed.get_mut(&netns)) {
                        observed.addresses.line(line);
                    }
                }
                (Some("ephemeral"), Some(low), Some(high)) => {
                    if let Some(observed) = current.and_then(|netns| self.observed.get_mut(&netns)) {
                        let ports = low.parse().ok().zip(high.parse().ok());
                        observed.ephemeral =
                            ports.map_or_else(Default::default, |(low, high)| EphemeralPorts::new(low, high));
                    }
                }
                _ => {}
            }
        }
    }

    /// A namespace appeared while looking.
    pub fn namespace(&mut self, netns: NetnsId) {
        // Bounded: beyond a handful only "more than one" matters.
        if self.known.len() < 65_536 {
            self.known.insert(netns);
        }
    }

    /// Whether its resets are wanted. Before the first scope block nothing is known, so everything is.
    pub fn is_observed(&self, netns: NetnsId) -> bool {
        self.observed.is_empty() || self.observed.contains_key(&netns)
    }

    /// Local ports of this namespace's outgoing connections.
    pub fn ephemeral(&self, netns: Option<NetnsId>) -> EphemeralPorts {
        let of = netns.or(self.observed.keys().next().copied()).and_then(|netns| self.observed.get(&netns));
        of.map(|observed| observed.ephemeral).unwrap_or_default()
    }

    /// `task`: namespace of the current task, `None` for a kernel thread or one not known.
    pub fn place(&self, local: IpAddr, softirq: bool, task: Option<NetnsId>) -> Option<NetnsId> {
        if self.known.len() == 1 {
            return self.known.first().copied();
        }
        let of_process = task.filter(|_| !softirq);
        if local.is_unspecified() {
            return of_process;
        }
        if local.is_loopback() {
            return task;
        }
        let mut having = self.observed.iter().filter(|(_, observed)| observed.addresses.contains(local));
        if let Some(task) = of_process {
            // Sockets may be held from another namespace than theirs: socket activation, the proxies of service meshes. A transparent
            // proxy has its own there, with addresses that others have. Only a packet tells the two apart.
            let own = self.observed.get(&task).is_some_and(|observed| observed.addresses.contains(local));
            return Some(task).filter(|_| own || having.next().is_none());
        }
        match (having.next(), having.next()) {
            (Some((netns, _)), None) => Some(*netns),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<NetnsId> = Some(NetnsId(5));
    const OTHER: Option<NetnsId> = Some(NetnsId(6));

    #[test]
    fn each_rule_of_place() {
        let mut scope = Scope::default();
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let (own, other, loopback) = (address("10.0.0.1"), address("10.0.0.2"), address("127.0.0.1"));
        assert_eq!(scope.place(own, true, None), None, "nothing known");
        scope.read("netns 5\naddress 10.0.0.1\nephemeral 40000 50000\n");
        assert_eq!(scope.place(other, true, None), HERE, "no other namespace");
        scope.namespace(NetnsId(6));
        assert_eq!(scope.place(other, false, HERE), HERE);
        assert_eq!(scope.place(other, false, OTHER), OTHER);
        assert_eq!(scope.place(own, false, HERE), HERE);
        assert_eq!(
            scope.place(own, false, OTHER),
            None,
            "a socket held from another namespace, or the same address there"
        );
        assert_eq!(scope.place(address("0.0.0.0"), false, OTHER), OTHER);
        assert_eq!(scope.place(loopback, false, OTHER), OTHER);
        assert_eq!(scope.place(own, true, OTHER), HERE, "interrupted tasks do not count");
        assert_eq!(scope.place(other, true, HERE), None, "an address that nobody is known to have");
        assert_eq!(scope.place(address("0.0.0.0"), true, HERE), None, "a listener on all addresses");
        assert_eq!(scope.place(loopback, true, HERE), HERE);
        assert_eq!(scope.place(loopback, true, None), None, "ksoftirqd");
        assert!(scope.ephemeral(HERE).contains(40_000) && !scope.ephemeral(None).contains(39_999));
        assert!(scope.is_observed(NetnsId(5)) && !scope.is_observed(NetnsId(6)));
    }

    #[test]
    fn an_address_of_two_observed_namespaces_tells_neither() {
        let mut scope = Scope::default();
        scope.read("netns 5\naddress 10.0.0.1\nnetns 6\naddress 10.0.0.1\naddress 10.0.0.2\nnamespace 7\n");
        assert_eq!(scope.place("10.0.0.1".parse().unwrap(), true, None), None);
        assert_eq!(scope.place("10.0.0.2".parse().unwrap(), true, None), OTHER);
        assert_eq!(scope.place("10.0.0.1".parse().unwrap(), false, OTHER), OTHER, "the process's own has it, too");
        scope.read("netns 5\nlocal 10.0.0.0/24\nnetns 6\naddress 10.0.1.2\nnamespace 7\n");
        assert_eq!(scope.place("10.0.0.2".parse().unwrap(), true, None), HERE, "a later block replaces the addresses");
        assert!(scope.is_observed(NetnsId(6)) && !scope.is_observed(NetnsId(7)));
    }
}
