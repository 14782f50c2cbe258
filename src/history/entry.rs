//! The entries of the index of a store, as they are written. Later versions add members and kinds; none changes its meaning.

use serde::{Deserialize, Serialize};

use super::Account;
use crate::cause::{Finding, Severity, State, SubjectKind};
use crate::diagnosis::Diagnosis;
use crate::source::node::Location;
use crate::timeline::{self, Episode, Key, Tick, What};

/// One entry. All times are milliseconds of CLOCK_REALTIME since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    Started(Started),
    Stopped(Stopped),
    /// A minute, whatever happened in it.
    Minute(Account),
    /// A tick in which something was wrong.
    Tick(Account),
    Event(Event),
    /// Something else changed: clocks, settings, listeners.
    Change {
        at: u64,
        text: String,
    },
    /// It could not be written what happened in this time: the disk was full.
    Lost {
        from: u64,
        until: u64,
        why: String,
    },
    /// Not all raw evidence of this time could be written, although the index could: the store was full, or the disk.
    RawLost {
        from: u64,
        until: u64,
        why: String,
    },
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// The recorder began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    pub at: u64,
    pub version: String,
    /// Seconds between two ticks.
    pub interval_s: f64,
    pub hostname: Option<String>,
    pub kernel: Option<String>,
    pub redacted: bool,
    /// What follows from what is told; of an earlier version not.
    #[serde(default)]
    pub tells_roots: bool,
}

/// The recorder ended by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    pub at: u64,
}

/// Something that happened to a cause at a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub what: What,
    pub at: u64,
    /// When the first window in which it was found this time began.
    pub since: u64,
    /// It was there when the recorder began.
    #[serde(default)]
    pub from_start: bool,
    pub id: String,
    pub title: String,
    pub place: Place,
    pub severity: Severity,
    pub state: State,
    /// It explains numbers and is no fault.
    #[serde(default)]
    pub harmless: bool,
    pub summary: String,
    pub per_s: f64,
    pub unit: String,
    /// All of this time, so far.
    pub events: u64,
    pub times: u32,
    /// Connections of the place in the latest window, and those that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u64>,
    /// The deeper cause that explains it, as was found last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because_of: Option<Root>,
    /// What shows it, and what to do about it, the first of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remedies: Vec<String>,
}

/// Of each event.
const MOST_TEXTS: usize = 4;

/// Where a cause happens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Place {
    /// `port 8080`, `10.0.0.1:5432`, `process api`; empty for the host.
    pub at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// systemd unit, or container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Of another network namespace than the recorder's own: `pod default/web`, `container web`, `netns blue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
}

/// A cause that another one follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    pub id: String,
    pub place: Place,
}

impl Root {
    /// What explains an episode, as was found last. Which that is may change from window to window, and may not be known at first.
    pub fn of(episode: &Episode, tick: &Tick) -> Option<Self> {
        let key = &episode.root.as_ref()?.key;
        let in_window = || tick.diagnosis.causes.iter().find(|ranked| Key::of(ranked) == *key);
        let root = tick.episode(key).map(|root| &root.latest).or_else(in_window)?;
        Some(Self { id: key.id.to_owned(), place: Place::at(&key.place, &root.finding, &tick.diagnosis) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Sent,
    Received,
    /// Netfilter sent it.
    Firewall,
    /// A connection attempt lost without a RST.
    Dropped,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Firewall => "firewall",
            Self::Dropped => "dropped",
        }
    }

    /// As people read it, in each table of it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dropped => "lost",
            other => other.name(),
        }
    }
}

impl Place {
    /// Where an episode of this diagnosis happens.
    pub fn of(episode: &Episode, diagnosis: &Diagnosis) -> Self {
        Self::at(&episode.key.place, &episode.latest.finding, diagnosis)
    }

    /// Where a finding happens.
    pub fn at(place: &timeline::Place, finding: &Finding, diagnosis: &Diagnosis) -> Self {
        let port = match place {
            timeline::Place::Port(port) => Some(*port),
            _ => None,
        };
        // Where nobody listens, or nobody is seen to, the process beside it is one that asked.
        let (mut listeners, others): (Vec<_>, Vec<_>) =
            finding.subjects.iter().partition(|subject| match subject.kind {
                SubjectKind::Listener => true,
                kind => kind == SubjectKind::Host && subject.port.is_some(),
            });
        if listeners.is_empty() {
            listeners = others;
        }
        let who = listeners.into_iter().find(|subject| subject.process.is_some());
        Self {
            at: place.to_string(),
            port,
            process: who.and_then(|subject| subject.process.clone()),
            unit: who.and_then(|subject| subject.unit.as_ref()).map(ToString::to_string),
            netns: netns(finding.location.as_deref(), diagnosis),
        }
    }

    /// The port that it is about: a served one, or that of the remote end which is called.
    pub fn any_port(&self) -> Option<u16> {
        self.port.or_else(|| self.at.parse::<std::net::SocketAddr>().ok().map(|remote| remote.port()))
    }

    /// Whether it is in the namespace that a person calls so: `blue`, or `netns blue`.
    pub fn is_in(&self, netns: &str) -> bool {
        let named = |own: &str| own == netns || own.split_once(' ').is_some_and(|(_, name)| name == netns);
        self.netns.as_deref().is_some_and(named)
    }

    /// The same place, whoever holds it now.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.at, &self.netns) == (&other.at, &other.netns)
    }

    /// `nginx on port 8080`, `process api`, `the host`.
    pub fn words(&self) -> String {
        let at = match (self.at.as_str(), &self.process) {
            ("", Some(process)) => process.clone(),
            ("", None) => "the host".to_owned(),
            (at, Some(process)) if self.port.is_some() => format!("{process} on {at}"),
            (at, Some(process)) if !at.starts_with("process ") => format!("{process} to {at}"),
            (at, _) => at.to_owned(),
        };
        match &self.netns {
            Some(netns) => format!("{at} in {netns}"),
            None => at,
        }
    }
}

/// How a person knows the network namespace, where it is not that of the one who looks.
pub(super) fn netns(location: Option<&Location>, diagnosis: &Diagnosis) -> Option<String> {
    let named = || diagnosis.netns_name.as_ref().map(|name| format!("netns {name}"));
    location.map_or_else(named, |location| (!location.own).then(|| location.to_string()))
}

impl Event {
    /// What happened to an episode with this tick. `None` if it is not among those of the tick.
    pub fn of(event: &timeline::Event, tick: &Tick) -> Option<Self> {
        let episode = tick.episode(&event.key)?;
        let finding = &episode.latest.finding;
        Some(Self {
            what: event.what,
            at: millis(event.at.wall),
            since: millis(episode.since.wall),
            from_start: episode.from_start,
            id: event.key.id.to_owned(),
            title: event.title.to_owned(),
            place: Place::of(episode, &tick.diagnosis),
            severity: event.severity,
            state: event.state,
            harmless: event.harmless,
            summary: event.summary.clone(),
            per_s: event.per_s,
            unit: event.unit.to_owned(),
            events: event.events,
            times: event.times,
            attempts: finding.harm.and_then(|harm| harm.attempts),
            failures: finding.harm.map(|harm| harm.failures),
            because_of: Root::of(episode, tick),
            evidence: finding.evidence.iter().take(MOST_TEXTS).map(|item| item.text.clone()).collect(),
            remedies: finding.remedies.iter().take(MOST_TEXTS).map(|remedy| remedy.text.clone()).collect(),
        })
    }

    /// It is a fault, or was one.
    pub fn is_fault(&self) -> bool {
        !self.harmless && self.severity < Severity::Info && self.state != State::Benign
    }
}

/// Milliseconds; what does not fit is the last that does.
pub fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Subject;
    use crate::diagnosis::diagnose;
    use crate::observation::testing::{Case, process, task};

    /// The place of the first finding, about which this program is known, too.
    fn place(case: &Case) -> Place {
        let diagnosis = diagnose(case.view());
        let ranked = diagnosis.causes.first().expect("a cause");
        let finding = ranked.finding.clone().subject(Subject::task(&task(7, "curl")));
        Place::at(&timeline::Key::of(ranked).place, &finding, &diagnosis)
    }

    #[test]
    fn who_asked_for_a_port_is_never_called_the_one_that_serves_it() {
        let other = Case::new().listener("0.0.0.0:80", 128, 0, 0, &process(1, "app"));
        let refused = place(&other.sent(20, "NO_SOCKET", None, ["10.0.0.9:9200", "10.0.3.8:0"], None));
        assert_eq!((refused.port, refused.process.as_deref()), (Some(9200), None));
        let full = Case::new().counter("TcpExt.ListenOverflows", 0, 90).counter("Tcp.PassiveOpens", 0, 900);
        let full = place(&full.listener("0.0.0.0:80", 8, 9, 60, &process(1, "app")).listener_drops(90));
        assert_eq!((full.port, full.process.as_deref()), (Some(80), Some("app")));
    }
}
