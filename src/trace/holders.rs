//! Who holds which connection, and who listens on which port: the process to name where the kernel's event names none, as
//! in every softirq.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use super::{Basis, Process};
use crate::source::connections::Connection;
use crate::source::listeners::{Bound, Listener};
use crate::source::owners::Owners;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    listening: BTreeMap<u16, Vec<Bound>>,
    device_ports: BTreeSet<u16>,
    by_port: BTreeMap<u16, Vec<(Listener, Process)>>,
    held: Held,
    /// Of the look before: a reset that is told after a look may have come before it.
    before: Held,
}

/// Which connection a reset is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The socket with this cookie.
    Socket(u64),
    /// Only its ends are known, which another connection may have had before it.
    Ends(SocketAddr, SocketAddr),
    /// Nothing tells.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Held {
    by_cookie: HashMap<u64, Process>,
    by_ends: HashMap<(SocketAddr, SocketAddr), Process>,
}

impl Held {
    fn of(&self, which: Which) -> Option<&Process> {
        match which {
            Which::Socket(cookie) => self.by_cookie.get(&cookie),
            Which::Ends(local, peer) => self.by_ends.get(&(local, peer)),
            Which::Unknown => None,
        }
    }
}

impl Holders {
    /// A socket shared by several processes goes to the first of them, usually the parent of the others.
    pub fn new(listeners: &[Listener], connections: &[Connection], owners: &Owners) -> Self {
        let holder = |inode, basis| {
            let holder = owners.by_inode.get(&inode).and_then(|pids| owners.processes.get(pids.first()?))?;
            Some(Process { pid: holder.pid, name: holder.name.clone(), basis })
        };
        let mut by_port: BTreeMap<u16, Vec<(Listener, Process)>> = BTreeMap::new();
        let mut listening: BTreeMap<u16, Vec<Bound>> = BTreeMap::new();
        let mut device_ports = BTreeSet::new();
        for listener in listeners {
            match listener.device {
                0 => listening.entry(listener.port).or_default().push(listener.bound()),
                _ => drop(device_ports.insert(listener.port)),
            }
            if let Some(process) = holder(listener.inode, Basis::Listener) {
                by_port.entry(listener.port).or_default().push((listener.clone(), process));
            }
        }
        let mut held = Held::default();
        for connection in connections {
            if let Some(process) = holder(connection.inode, Basis::Connection) {
                held.by_ends.insert((connection.local, connection.peer), process.clone());
                held.by_cookie.insert(connection.cookie, process);
            }
        }
        Self { listening, device_ports, by_port, held, before: Held::default() }
    }

    /// On which addresses of which ports somebody listens.
    pub fn listening(&self) -> BTreeMap<u16, Vec<Bound>> {
        self.listening.clone()
    }

    /// On which ports somebody listens for what comes in by one device.
    pub fn device_ports(&self) -> BTreeSet<u16> {
        self.device_ports.clone()
    }

    /// Takes the place of an earlier look.
    pub fn after(self, earlier: Self) -> Self {
        Self { before: earlier.held, ..self }
    }

    /// Who holds that connection; else the listener on that very address; else one on the unspecified address.
    pub fn of(&self, local: SocketAddr, which: Which) -> Option<&Process> {
        if let Some(process) = self.held.of(which).or_else(|| self.before.of(which)) {
            return Some(process);
        }
        let all = self.by_port.get(&local.port())?;
        let bound = |listener: &Listener| listener.address.to_canonical();
        let exact = all.iter().find(|(listener, _)| bound(listener) == local.ip().to_canonical());
        let found = exact.or_else(|| all.iter().find(|(listener, _)| bound(listener).is_unspecified()))?;
        Some(&found.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::owners;

    #[test]
    fn the_exact_address_goes_before_the_unspecified_one() {
        let listener = |address: &str, inode| Listener {
            address: address.parse().unwrap(),
            port: 80,
            recv_q: 0,
            backlog: 1,
            drops: None,
            inode,
            uid: 0,
            device: 0,
            v6_only: false,
            cookie: u64::from(inode),
        };
        let mut owners = Owners::default();
        for (inode, pid) in [(1, 10), (2, 20), (3, 30)] {
            owners.by_inode.insert(inode, vec![pid, pid + 1]);
            owners.processes.insert(pid, owners::Process { pid, name: format!("p{pid}"), ..Default::default() });
        }
        let peer = "10.0.7.1:5432".parse().unwrap();
        let held = Connection { local: "10.0.0.1:80".parse().unwrap(), peer, inode: 3, cookie: 7 };
        let holders = Holders::new(&[listener("0.0.0.0", 1), listener("10.0.0.1", 2)], &[held], &owners);
        let of = |end: &str| holders.of(end.parse().unwrap(), Which::Unknown).map(|process| process.pid);
        let worker = holders.of(held.local, Which::Socket(7)).unwrap();
        assert_eq!((worker.pid, worker.basis), (30, Basis::Connection), "the worker and not its listener");
        let later = Holders::default().after(holders.clone());
        assert_eq!(later.of(held.local, Which::Socket(7)).map(|process| process.pid), Some(30));
        assert_eq!(later.of(held.local, Which::Ends(held.local, peer)).map(|process| process.pid), Some(30));
        let next = holders.of(held.local, Which::Socket(8)).map(|process| process.basis);
        assert_eq!(next, Some(Basis::Listener), "a later connection between the same ends is another one");
        assert_eq!(of("10.0.0.1:80"), Some(20));
        assert_eq!(of("10.0.0.2:80"), Some(10));
        assert_eq!(of("10.0.0.1:81"), None);
    }
}
