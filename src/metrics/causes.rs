//! Metrics of causes: those that go on, with what explains them, and how many episodes there were.

use std::collections::{HashMap, HashSet};

use super::bounded::{Count, Labels, Level, set};
use super::place;
use crate::cause::{REGISTRY, Severity};
use crate::diagnosis::rank::Ranked;
use crate::diagnosis::{CONVINCING, Diagnosis};
use crate::history::Place;
use crate::timeline::{Key, Phase, Tick, What};

/// A cause that goes on.
pub struct Active {
    pub key: Key,
    place: Place,
    pub severity: Severity,
    /// The cause that explains it.
    root: Option<Key>,
}

impl Active {
    /// The episodes that go on.
    pub fn of_tick(tick: &Tick) -> Vec<Self> {
        let on = tick.episodes.iter().filter(|episode| episode.phase == Phase::Active);
        let of = |episode: &crate::timeline::Episode| Self {
            key: episode.key.clone(),
            place: Place::of(episode, &tick.diagnosis),
            severity: episode.severity,
            root: episode.root.as_ref().map(|root| root.key.clone()),
        };
        on.map(of).collect()
    }

    /// What one window shows to go on.
    pub fn of_window(diagnosis: &Diagnosis) -> Vec<Self> {
        let is_told = |ranked: &&Ranked| ranked.finding.state.is_now() && ranked.finding.confidence >= CONVINCING;
        let of = |ranked: &Ranked| {
            let key = Key::of(ranked);
            let place = Place::at(&key.place, &ranked.finding, diagnosis);
            let root = ranked.because_of.and_then(|root| diagnosis.causes.get(root.place)).map(Key::of);
            Self { key, place, severity: ranked.finding.severity, root }
        };
        diagnosis.causes.iter().filter(is_told).map(of).collect()
    }

    /// The cause that explains it, where that goes on as well and is no milder: an alert on roots alone must miss nothing.
    fn root(&self, active: &[Self]) -> Option<&'static str> {
        let root = self.root.as_ref().filter(|root| **root != self.key)?;
        active.iter().any(|other| other.key == *root && other.severity <= self.severity).then_some(root.id)
    }
}

/// The families of causes.
#[derive(Default)]
pub struct Causes {
    pub active: Level,
    pub episodes: Count,
    /// The worst severity that each episode was counted with; of those that are to be counted with the next tick none.
    counted: HashMap<Key, Option<Severity>>,
    /// Causes that were looked for, of which there is a number of episodes.
    looked_for: HashSet<&'static str>,
}

impl Causes {
    pub fn go_on(&self, active: &[Active]) {
        // What is gone is no longer told.
        self.active.clear();
        for one in active {
            let because_of = one.root(active).unwrap_or_default();
            let mut labels = place(&one.place);
            labels.extend([
                ("cause", one.key.id.to_owned()),
                ("severity", severity(one.severity).to_owned()),
                ("because_of", because_of.to_owned()),
            ]);
            set(&self.active, labels, 1);
        }
    }

    /// Counts the episodes that began with this tick, and those that became worse.
    pub fn happened(&mut self, tick: &Tick) {
        // A series that is born with its first count shows no increase: 0 stands there before, of what is looked for.
        let unseen = |id: &str| tick.diagnosis.not_checked.iter().any(|cause| cause.id == id);
        for cause in REGISTRY.iter().filter(|cause| !unseen(cause.id)) {
            if self.looked_for.insert(cause.id) {
                for severity in [Severity::Critical, Severity::Warning] {
                    self.episodes.at(labels(cause.id, severity, ""));
                }
            }
        }
        let active = Active::of_tick(tick);
        for episode in &tick.episodes {
            let key = &episode.key;
            let event = tick.events.iter().find(|event| event.key == *key).map(|event| event.what);
            if matches!(event, Some(What::Appeared | What::Again)) {
                self.counted.insert(key.clone(), None);
            }
            let is_worse = match self.counted.get(key) {
                Some(None) => !episode.may_yet_follow(),
                Some(Some(earlier)) => event == Some(What::Worsened) && episode.severity < *earlier,
                None => event == Some(What::Worsened),
            };
            if is_worse {
                let own = active.iter().find(|one| one.key == *key);
                let because_of = own.and_then(|own| own.root(&active)).unwrap_or_default();
                self.episodes.at(labels(key.id, episode.severity, because_of)).inc();
                self.counted.insert(key.clone(), Some(episode.severity));
            }
            if event == Some(What::Ended) {
                self.counted.remove(key);
            }
        }
        self.counted.retain(|key, _| tick.episode(key).is_some());
    }
}

fn labels(id: &str, level: Severity, because_of: &str) -> Labels {
    vec![("cause", id.to_owned()), ("severity", severity(level).to_owned()), ("because_of", because_of.to_owned())]
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}
