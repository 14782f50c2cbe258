//! Who listens on which port: the process to name where the kernel's event names none, as in every softirq.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Process;
use crate::source::listeners::Listener;
use crate::source::owners::Owners;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    by_port: BTreeMap<u16, Vec<(Listener, Process)>>,
}

impl Holders {
    /// A listener shared by several processes goes to the first of them, usually the parent of the others.
    pub fn new(listeners: &[Listener], owners: &Owners) -> Self {
        let mut by_port: BTreeMap<u16, Vec<(Listener, Process)>> = BTreeMap::new();
        for listener in listeners {
            let holder = owners.by_inode.get(&listener.inode).and_then(|pids| owners.processes.get(pids.first()?));
            if let Some(holder) = holder {
                let process = Process { pid: holder.pid, name: holder.name.clone(), listens: true };
                by_port.entry(listener.port).or_default().push((listener.clone(), process));
            }
        }
        Self { by_port }
    }

    /// The listener on that very address, else one on the unspecified address.
    pub fn of(&self, local: SocketAddr) -> Option<&Process> {
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
            cookie: u64::from(inode),
        };
        let mut owners = Owners::default();
        for (inode, pid) in [(1, 10), (2, 20)] {
            owners.by_inode.insert(inode, vec![pid, pid + 1]);
            owners.processes.insert(pid, owners::Process { pid, name: format!("p{pid}"), ..Default::default() });
        }
        let holders = Holders::new(&[listener("0.0.0.0", 1), listener("10.0.0.1", 2)], &owners);
        let of = |end: &str| holders.of(end.parse().unwrap()).map(|process| process.pid);
        assert_eq!(of("10.0.0.1:80"), Some(20));
        assert_eq!(of("10.0.0.2:80"), Some(10));
        assert_eq!(of("10.0.0.1:81"), None);
    }
}
