//! How each source went: those that are asked at the ends of a window, and the streams that are read all through it.

use std::time::Duration;

use super::{HostWindow, Input, NetnsWindow, SourceStatus, View};
use crate::value::Observed;

impl<'a> View<'a> {
    /// At the end of the window: those of the namespace, of the host, and the input itself. A capture or a text is no more than it
    /// is: streams are those of a running kernel.
    pub fn sources(self) -> Vec<SourceStatus> {
        let (of_netns, of_host) = (self.of_netns(), self.of_host());
        of_netns.into_iter().chain(of_host).collect()
    }

    /// The part of [`View::sources`] that each namespace has by itself.
    pub fn of_netns(self) -> Vec<SourceStatus> {
        let streams = self.has_streams().then(|| self.netns.streams());
        self.netns.after.sources.iter().cloned().chain(streams.into_iter().flatten()).collect()
    }

    /// The part of [`View::sources`] that all namespaces share.
    pub fn of_host(self) -> Vec<SourceStatus> {
        let streams = self.has_streams().then(|| self.host.stream());
        self.host.after.sources.iter().chain(&self.covers.status).cloned().chain(streams).collect()
    }

    fn has_streams(self) -> bool {
        matches!(self.covers.input, Input::Live | Input::Recording | Input::Store)
    }
}

impl NetnsWindow {
    fn streams(&self) -> [SourceStatus; 2] {
        [stream("reset_packets", &self.reset_packets), stream("destroyed_sockets", &self.endings)]
    }
}

impl HostWindow {
    /// With what the events lack, and the way by which tracefs was reached.
    fn stream(&self) -> SourceStatus {
        let account = self.reset_events.value();
        let notes = account.into_iter().flat_map(|account| &account.missing);
        let notes: Vec<_> = notes.map(|missing| format!("{}: {}", missing.name, missing.reason)).collect();
        let note = Some(notes.join("; ")).filter(|note| !note.is_empty());
        SourceStatus { note, ..stream("reset_events", &self.reset_events) }
    }
}

/// Streams are read as they come: no time is theirs.
fn stream<T>(name: &'static str, observed: &Observed<T>) -> SourceStatus {
    let partial = matches!(observed, Observed::Partial(..));
    SourceStatus { name, failure: observed.failure().cloned(), partial, note: None, took: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use crate::observation::testing::Case;
    use crate::source::reset_events::{EventAccount, Missing};
    use crate::value::{Failure, FailureKind, Observed};

    #[test]
    fn the_streams_are_sources_with_the_way_that_was_taken() {
        let mut case = Case::new();
        let way = Missing { name: "tracefs".into(), reason: "not mounted here".into() };
        case.host.reset_events = Observed::Full(EventAccount { missing: vec![way], ..EventAccount::default() });
        let denied = Failure::new(FailureKind::Denied, "not permitted").needs("CAP_NET_RAW");
        case.netns.reset_packets = Observed::Unavailable(denied.clone());
        let sources = case.view().sources();
        let of = |name| sources.iter().find(|source| source.name == name).expect("is told");
        assert_eq!(
            (of("reset_events").failure.clone(), of("reset_events").note.as_deref()),
            (None, Some("tracefs: not mounted here"))
        );
        assert_eq!(of("reset_packets").failure, Some(denied));
    }
}
