//! A network namespace in which nothing happens keeps its diagnosis: of hundreds most are idle, and to judge each takes time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Diagnosis;
use crate::observation::View;
use crate::source::owners::Owners;
use crate::source::socket_dump::SocketDump;
use crate::value::NetnsId;

/// What is known of namespaces from the window before.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<NetnsId, Kept>);

/// The diagnosis of an idle window in which nothing was found, and what it was made from besides what an idle window holds.
#[derive(Debug)]
struct Kept {
    diagnosis: Diagnosis,
    dump: Option<Arc<SocketDump>>,
    owners: Option<Arc<Owners>>,
}

impl Known {
    /// The diagnosis of this window without judging it: it is idle as the one before was, and nothing else that is known of the
    /// namespace is another.
    pub(super) fn take(&mut self, view: View<'_>) -> Option<Diagnosis> {
        let kept = self.0.remove(&view.after().netns)?;
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
        self.0.clear();
    }

    /// Keeps the diagnosis of this window, in which nothing was found, for the next one.
    pub(super) fn keep(&mut self, view: View<'_>, diagnosis: Diagnosis) {
        if view.netns.is_idle() {
            let dump = view.after().socket_dump.value().cloned();
            let owners = view.host.after.owners.value().cloned();
            self.0.insert(view.after().netns, Kept { diagnosis, dump, owners });
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
