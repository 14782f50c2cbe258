//! What was there when the window opened and is not when it closes: listeners, and processes that listened.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::observation::{ListenerTrace, View};
use crate::source::owners::Process;

/// A listener that was there when the window opened, or in a sample, and is gone at its end.
#[derive(Debug, Clone, Copy)]
pub struct GoneListener<'a> {
    pub trace: &'a ListenerTrace,
    /// Another socket listens on the same address and port now.
    pub replaced: bool,
}

/// Listeners that went away in the window; empty when nobody looked at its end.
pub fn gone_listeners(view: View<'_>) -> Vec<GoneListener<'_>> {
    if view.netns.after.listeners.value().is_none() {
        return Vec::new();
    }
    let endpoint = |trace: &ListenerTrace| (trace.last.address, trace.last.port);
    let traces = || view.netns.listener_traces.values();
    let listening: BTreeSet<(IpAddr, u16)> = traces().filter(|trace| trace.in_after).map(endpoint).collect();
    traces()
        .filter(|trace| !trace.in_after)
        .map(|trace| GoneListener { trace, replaced: listening.contains(&endpoint(trace)) })
        .collect()
}

/// Processes that held a listener at the start and hold nothing that was looked up at the end: they died, or closed all of
/// that.
pub struct GoneProcesses {
    /// The ports on which each listened; `None` when owners were not seen at both ends, as in a live view's window without a
    /// sweep.
    ports: Option<BTreeMap<u32, Vec<u16>>>,
}

impl GoneProcesses {
    pub fn new(view: View<'_>) -> Self {
        Self { ports: Self::look(view) }
    }

    fn look(view: View<'_>) -> Option<BTreeMap<u32, Vec<u16>>> {
        if view.netns.after.dumped.mono < view.netns.before.at.mono {
            return None;
        }
        let before = view.host.before.owners.value()?;
        let after = view.host.after.owners.value()?;
        let listeners = view.netns.before.listeners.value()?;
        // The same number with another start is another process; a zombie has exited, its parent has not looked yet.
        let still = |was: &Process| {
            after
                .processes
                .get(&was.pid)
                .is_some_and(|now| now.start_ticks == was.start_ticks && !matches!(now.state, 'Z' | 'X'))
        };
        let mut ports: BTreeMap<u32, Vec<u16>> = BTreeMap::new();
        for listener in listeners {
            for pid in before.by_inode.get(&listener.inode).into_iter().flatten() {
                if before.processes.get(pid).is_some_and(|was| !still(was)) {
                    ports.entry(*pid).or_default().push(listener.port);
                }
            }
        }
        Some(ports)
    }

    /// Whether this process is one of them; `None` when that could not be seen.
    pub fn contains(&self, pid: u32) -> Option<bool> {
        self.ports.as_ref().map(|ports| ports.contains_key(&pid))
    }

    /// Their pids, ascending, and the ports on which they listened; empty when that could not be seen.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u16])> {
        self.ports.iter().flatten().map(|(pid, ports)| (*pid, ports.as_slice()))
    }
}
