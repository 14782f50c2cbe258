//! What is known of network namespaces from the windows before. One in which nothing happens keeps its diagnosis: of hundreds most
//! are idle, and to judge each takes time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Diagnosis;
use crate::evidence::recent::{Past, Recent};
use crate::observation::View;
use crate::source::owners::Owners;
use crate::source::socket_dump::SocketDump;
use crate::value::NetnsId;

/// What is known of namespaces from the windows before.
#[derive(Debug, Clone, Default)]
pub struct Known {
    idle: BTreeMap<NetnsId, Kept>,
    /// What failed lately.
    recent: BTreeMap<NetnsId, Recent>,
    in_a_row: bool,
}

/// The diagnosis of an idle window in which nothing was found, and what it was made from besides what an idle window holds.
#[derive(Debug, Clone)]
struct Kept {
    diagnosis: Diagnosis,
    dump: Option<Arc<SocketDump>>,
    owners: Option<Arc<Owners>>,
}

impl Known {
    /// For windows that are judged one after the other.
    pub fn of_a_row() -> Self {
        Self { in_a_row: true, ..Self::default() }
    }

    /// The diagnosis of this window without judging it: it is idle as the one before was, and nothing else that is known of the
    /// namespace is another.
    pub(super) fn take(&mut self, view: View<'_>) -> Option<Diagnosis> {
        let kept = self.idle.remove(&view.after().netns)?;
        let (before, after) = (view.before(), view.after());
        let location = view.host.node.value().map(|node| node.location(after.netns)).filter(|at| !at.own);
        let same = view.netns.is_idle()
            && before.sysctls == after.sysctls
            && before.conntrack == after.conntrack
            && is_same(kept.dump.as_ref(), after.socket_dump.value())
            && is_same(kept.owners.as_ref(), view.host.after.owners.value())
            && kept.diagnosis.location.as_deref() == location.as_ref()
            && kept.diagnosis.totals_only == view.host.totals_only;
        same.then(|| Diagnosis { started: before.at, window: view.duration(), ..kept.diagnosis })
    }

    /// Of those that are no longer there.
    pub(super) fn forget(&mut self) {
        self.idle.clear();
    }

    /// What failed in the windows before.
    pub(super) fn recent(&self, netns: NetnsId) -> Recent {
        self.recent.get(&netns).cloned().unwrap_or_else(|| Recent::new(self.in_a_row))
    }

    /// Adds what failed in a window.
    pub(super) fn remember(&mut self, netns: NetnsId, past: Past) {
        self.recent.entry(netns).or_insert_with(|| Recent::new(self.in_a_row)).push(past);
    }

    /// Forgets what failed too long ago at that time, CLOCK_BOOTTIME, or where nobody is any more.
    pub(super) fn keep_recent(&mut self, now: Duration, is_there: impl Fn(NetnsId) -> bool) {
        self.recent.retain(|netns, recent| is_there(*netns) && recent.keep_since(now));
    }

    /// Keeps the diagnosis of this window, in which nothing was found, for the next one.
    pub(super) fn keep(&mut self, view: View<'_>, diagnosis: Diagnosis) {
        if view.netns.is_idle() {
            let dump = view.after().socket_dump.value().cloned();
            let owners = view.host.after.owners.value().cloned();
            self.idle.insert(view.after().netns, Kept { diagnosis, dump, owners });
        }
    }
}

fn is_same<T>(kept: Option<&Arc<T>>, now: Option<&Arc<T>>) -> bool {
    match (kept, now) {
        (Some(kept), Some(now)) => Arc::ptr_eq(kept, now),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::diagnose;
    use crate::observation::testing::{Case, process};
    use crate::source::conntrack::Conntrack;
    use crate::value::Observed;

    /// A window in which nothing moved.
    fn idle() -> Case {
        let mut case = Case::new()
            .counter("Tcp.OutRsts", 10, 0)
            .counter("TcpExt.ListenOverflows", 0, 0)
            .sysctl("net.core.somaxconn", "4096")
            .listener("0.0.0.0:80", 8, 0, 0, &process(7, "app"));
        case.netns.after.counters = case.netns.before.counters.clone();
        case
    }

    /// What is known after this window.
    fn known(case: &Case) -> Known {
        let mut known = Known::default();
        known.keep(case.view(), diagnose(case.view()));
        known
    }

    #[test]
    fn the_diagnosis_of_an_idle_window_is_that_of_the_next_one_with_its_own_times() {
        let first = idle();
        let next = first.clone().later(Duration::from_secs(3));
        let kept = known(&first).take(next.view()).expect("nothing is another");
        assert_eq!((kept.started, kept.window), (next.netns.before.at, Duration::from_secs(3)));
        assert_eq!(kept.summary, diagnose(next.view()).summary);
    }

    /// What is another, and how it becomes that.
    type Another = (&'static str, fn(&mut Case));

    #[test]
    fn whatever_is_another_is_judged_anew() {
        let others: [Another; 8] = [
            ("a counter moved", |case| *case = case.clone().counter("Tcp.OutRsts", 10, 1)),
            ("a setting was changed", |case| {
                case.netns.after.sysctls.insert("net.core.somaxconn", Observed::Full("128".into()));
            }),
            ("connection tracking moved", |case| {
                case.netns.after.conntrack = Observed::Full(Conntrack::default());
            }),
            ("the sockets were looked at", |case| case.netns.after.socket_dump = Observed::Full(Arc::default())),
            ("the owners were looked up", |case| case.host.after.owners = Observed::Full(Arc::default())),
            ("a connection waited", |case| {
                case.netns.listener_traces.values_mut().for_each(|trace| trace.max_recv_q = 1);
            }),
            ("it ended", |case| case.netns.gone = true),
            ("packets found no room", |case| case.netns.resets.packets_dropped = 1),
        ];
        let first = idle();
        for (what, change) in others {
            let mut next = first.clone();
            assert!(known(&first).take(next.view()).is_some(), "nothing is another yet");
            change(&mut next);
            assert!(known(&first).take(next.view()).is_none(), "{what}");
        }
    }

    #[test]
    fn a_window_in_which_something_happened_leaves_nothing_behind() {
        let next = idle();
        let busy = next.clone().counter("Tcp.OutRsts", 10, 5);
        assert!(known(&busy).take(next.view()).is_none());
    }
}
