//! A service: everything that listens on one address and port, with its queue over the window and its owners.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Evidence;
use crate::observation::{ListenerTrace, View};
use crate::source::owners::{Owners, Process};
use crate::source::socket_dump::{GroupKind, PortUse, Sample};

/// All sockets that listen on one address and port: one, or several with SO_REUSEPORT.
#[derive(Debug, Clone)]
pub struct Service<'a> {
    pub address: IpAddr,
    pub port: u16,
    /// The listening sockets, the fullest first; never empty.
    pub sockets: Vec<&'a ListenerTrace>,
    /// Processes that hold any of the sockets at the end of the window, or earlier where the socket is gone; those of the fullest
    /// queue first.
    pub owners: Vec<&'a Process>,
    /// Half-open and other sockets on this port at the end of the window.
    pub port_use: Option<&'a PortUse>,
}

impl<'a> Service<'a> {
    /// The socket whose queue was full most often, then the fullest.
    pub fn worst(&self) -> &'a ListenerTrace {
        self.sockets[0]
    }

    /// Share of the samples in which the worst socket's accept queue was full.
    pub fn full_share(&self) -> f64 {
        let worst = self.worst();
        f64::from(worst.full_samples) / f64::from(worst.samples.max(1))
    }

    /// How much SK_MEMINFO_DROPS grew over the window, all sockets together: an upper bound of lost connections. `None`
    /// when the kernel does not report it.
    pub fn drops(&self) -> Option<u64> {
        let of = |socket: &&ListenerTrace| {
            // One that began to listen in the window began at 0, and may have lost some before it was seen first.
            let before = if socket.in_before { socket.first.drops? } else { 0 };
            Some(u64::from(socket.last.drops?.wrapping_sub(before)))
        };
        self.sockets.iter().map(of).sum()
    }

    /// `0.0.0.0:8080`, `[::]:8080`.
    pub fn endpoint(&self) -> String {
        std::net::SocketAddr::new(self.address, self.port).to_string()
    }

    /// `nginx on 0.0.0.0:8080`, or the endpoint alone when the owner is not visible.
    pub fn who(&self) -> String {
        match self.owners.first() {
            Some(process) => format!("{} on {}", process.name, self.endpoint()),
            None => format!("the listener {}", self.endpoint()),
        }
    }

    /// Index of the device from which alone all its sockets take connections; `None` where one takes them from any.
    pub fn device(&self) -> Option<u32> {
        let bound = self.sockets.iter().all(|socket| socket.last.device != 0);
        bound.then(|| self.worst().last.device)
    }

    /// It is bound to all addresses, and takes connections of IPv6 alone.
    pub fn is_v6_only(&self) -> bool {
        self.sockets.iter().all(|socket| socket.last.v6_only)
    }

    /// One of the sockets listened already when the window opened.
    pub fn listened_before(&self) -> bool {
        self.sockets.iter().any(|socket| socket.in_before)
    }

    /// One of the sockets still listened at the end of the window.
    pub fn listens_now(&self) -> bool {
        self.sockets.iter().any(|socket| socket.in_after)
    }
}

impl Evidence<'_> {
    /// How much the worst accept queue of this service grew between the first and the last sample.
    pub fn queue_growth(&self, service: &Service<'_>) -> u64 {
        let worst = service.worst();
        u64::from(worst.last.recv_q.saturating_sub(worst.first.recv_q))
    }

    /// How long a connection has waited at the end of the window to be accepted: accept(2) gives a socket its inode
    /// (net/socket.c sock_graft), and without one it can be ESTABLISHED or CLOSE_WAIT only in an accept queue. Data that its client
    /// still sends makes it less.
    pub fn longest_in_queue(&self, service: &Service<'_>) -> Option<Duration> {
        let groups = [GroupKind::Established, GroupKind::CloseWait].map(|kind| self.groups(kind).unwrap_or_default());
        let of_service = groups.iter().flatten().filter(|group| group.accepted && group.port == service.port);
        let here = |sample: &&Sample| service.address.is_unspecified() || sample.local.ip() == service.address;
        let waiting = of_service.flat_map(|group| &group.samples).filter(|sample| sample.inode == 0).filter(here);
        let longest = waiting.filter_map(|sample| sample.idle_ms).max()?;
        Some(Duration::from_millis(longest.into()))
    }
}

/// Groups the listeners of an observation, the service with the fullest queue first.
pub fn services(view: View<'_>) -> Vec<Service<'_>> {
    let mut by_endpoint: BTreeMap<(IpAddr, u16), Vec<&ListenerTrace>> = BTreeMap::new();
    for trace in view.netns.listener_traces.values() {
        by_endpoint.entry((trace.last.address, trace.last.port)).or_default().push(trace);
    }
    let mut services: Vec<_> = by_endpoint
        .into_iter()
        .map(|((address, port), mut sockets)| {
            sockets.sort_by_key(|socket| {
                std::cmp::Reverse((socket.full_samples, socket.max_recv_q, socket.last.recv_q, socket.last.cookie))
            });
            let inodes: Vec<u32> = sockets.iter().map(|socket| socket.last.inode).collect();
            // Who held a socket that still listens, and is not seen to hold it any more, is not its owner now.
            let seen_now = sockets.iter().any(|socket| socket.in_after) && view.host.after.owners.value().is_some();
            let fresh = view.after().dumped == view.after().at;
            let at_ends = [Some(&view.host.after), Some(&view.host.before).filter(|_| !seen_now)].into_iter().flatten();
            let at_ends = at_ends.filter_map(|snapshot| snapshot.owners.value().map(|owners| &**owners));
            let owners = at_ends
                .chain(view.host.between.as_deref().filter(|_| !(seen_now && fresh)))
                .map(|owners| worst_first(owners, &sockets, &inodes))
                .find(|owners| !owners.is_empty())
                .unwrap_or_default();
            let port_use = view.after().socket_dump.value().and_then(|socket_dump| socket_dump.ports.get(&port));
            Service { address, port, sockets, owners, port_use }
        })
        .collect();
    services.sort_by(|a, b| {
        let key = |s: &Service| (s.full_share(), f64::from(s.worst().max_recv_q));
        key(b).partial_cmp(&key(a)).unwrap_or(std::cmp::Ordering::Equal)
    });
    services
}

/// Processes that hold any of the sockets, each once. Of SO_REUSEPORT sockets only who holds the one with the queue can accept from
/// it.
fn worst_first<'a>(owners: &'a Owners, sockets: &[&ListenerTrace], inodes: &[u32]) -> Vec<&'a Process> {
    let queued = sockets.iter().take(1).filter(|socket| socket.max_recv_q > 0).map(|socket| socket.last.inode);
    let mut all = holders(owners, queued);
    let others = holders(owners, inodes.iter().copied());
    all.extend(
        others.into_iter().filter(|process| all.iter().all(|known| known.pid != process.pid)).collect::<Vec<_>>(),
    );
    all
}

/// Processes that hold any of the sockets, each once, ascending.
pub fn holders(owners: &Owners, inodes: impl IntoIterator<Item = u32>) -> Vec<&Process> {
    let mut pids: Vec<u32> =
        inodes.into_iter().filter_map(|inode| owners.by_inode.get(&inode)).flatten().copied().collect();
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter().filter_map(|pid| owners.processes.get(&pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::{Case, process};
    use crate::value::Observed;

    /// A recording of an hour has looked in its middle, too.
    #[test]
    fn who_came_and_went_within_the_window_has_its_name() {
        let mut case = Case::new().listener("0.0.0.0:80", 5, 0, 0, &process(7, "api"));
        let seen = case.host.after.owners.value().cloned();
        for snapshot in [&mut case.host.before, &mut case.host.after] {
            snapshot.owners = Observed::Full(std::sync::Arc::default());
        }
        case.netns.listener_traces.values_mut().for_each(|trace| trace.in_after = false);
        let owner = |case: &Case| services(case.view())[0].owners.first().map(|process| process.name.clone());
        assert_eq!(owner(&case), None);
        case.host.between = seen;
        assert_eq!(owner(&case).as_deref(), Some("api"));
    }

    #[test]
    fn drops_are_those_of_the_window_also_where_the_listener_is_new() {
        let drops = |in_before| {
            let mut case = Case::new().listener("0.0.0.0:80", 5, 6, 60, &process(7, "api")).listener_drops(70);
            for trace in case.netns.listener_traces.values_mut() {
                (trace.in_before, trace.first.drops) = (in_before, Some(30));
            }
            services(case.view())[0].drops()
        };
        assert_eq!((drops(true), drops(false)), (Some(40), Some(70)));
    }
}
