//! The same observation with less evidence: what others than root, with less than all tracepoints, would have been told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::findings::{Findings, watch};
use crate::ask::{Answer, Ask, Clock, Frame, Probe, What};
use crate::recording::ReplayHost;
use crate::value::{Failure, FailureKind, Moment};

/// How much of the evidence is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Without a privilege: no events, no packets, no owners of sockets.
    User,
    /// With `--no-events`.
    NoEvents,
    /// The text files of counters and settings: what a monitoring system stores.
    Counters,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::User, Self::NoEvents, Self::Counters];

    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::NoEvents => "no-events",
            Self::Counters => "counters",
        }
    }

    fn shows(self, what: &What) -> bool {
        match (self, what) {
            (_, What::ResetEvents | What::ResetPackets) => false,
            (Self::User, What::SocketOwners { .. }) => false,
            (Self::NoEvents, What::DestroyedSockets) => false,
            (Self::Counters, What::File(_) | What::Namespaces) => true,
            (Self::Counters, _) => false,
            _ => true,
        }
    }
}

/// What a recording, of one window, tells at each level, by its name.
///
/// # Errors
/// The recording cannot be read or judged.
pub fn judge(recording: &[u8], window: Duration) -> Result<BTreeMap<String, Findings>, String> {
    let at = |level: Level| {
        let inner = ReplayHost::read(recording).map_err(|error| error.to_string())?;
        Ok((level.name().to_owned(), watch(&mut Limited { inner, level }, window, None)?.findings))
    };
    Level::ALL.into_iter().map(at).collect()
}

struct Limited {
    inner: ReplayHost,
    level: Level,
}

impl Clock for Limited {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        self.inner.frame(frame)
    }

    fn due(&self, asked: Duration) -> Duration {
        self.inner.due(asked)
    }

    fn used(&self) -> Option<Duration> {
        self.inner.used()
    }
}

impl Probe for Limited {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        if self.level.shows(&ask.what) {
            return self.inner.ask(ask, sink);
        }
        let failure = match self.level {
            Level::User => Failure::new(FailureKind::Denied, "permission denied").needs("root"),
            Level::NoEvents | Level::Counters => Failure::new(FailureKind::NotCollected, "not asked for"),
        };
        Answer { result: Err(failure), took: Duration::ZERO }
    }
}
