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
}

impl Active {
    /// The episodes that go on.
    pub fn of_tick(tick: &Tick) -> Vec<Self> {
        let on = tick.episodes.iter().filter(|episode| episode.phase == Phase::Active);
        let of = |episode: &crate::timeline::Episode| Self {
            key: episode.key.clone(),
            place: Place::of(episode, &tick.diagnosis),
            severity: episode.severity,
        };
        on.map(of).collect()
    }

    /// What one window shows to go on.
    pub fn of_window(diagnosis: &Diagnosis) -> Vec<Self> {
        let is_told = |ranked: &&Ranked| ranked.finding.state.is_now() && ranked.finding.confidence >= CONVINCING;
        let of = |ranked: &Ranked| {
            let key = Key::of(ranked);
            let place = Place::at(&key.place, &ranked.finding, diagnosis);
            Self { key, place, severity: ranked.finding.severity }
        };
        diagnosis.causes.iter().filter(is_told).map(of).collect()
    }

    /// The cause that explains it, where that goes on as well and is no milder: an alert on roots alone must miss nothing.
    fn root(&self, diagnosis: &Diagnosis, active: &[Self]) -> Option<&'static str> {
        let root = Key::of(self.key.root(diagnosis)?);
        let told = active.iter().any(|other| other.key == root && other.severity <= self.severity);
        (told && root != self.key).then_some(root.id)
    }
}

/// The families of causes.
#[derive(Default)]
pub struct Causes {
    pub active: Level,
    pub episodes: Count,
    /// The worst severity that each episode was counted with.
    counted: HashMap<Key, Severity>,
    /// Causes that were looked for, of which there is a number of episodes.
    looked_for: HashSet<&'static str>,
}

impl Causes {
    pub fn go_on(&self, diagnosis: &Diagnosis, active: &[Active]) {
        // What is gone is no longer told.
        self.active.clear();
        for one in active {
            let because_of = one.root(diagnosis, active).unwrap_or_default();
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
                    self.episodes.at(labels(cause.id, severity));
                }
            }
        }
        for event in &tick.events {
            let earlier = self.counted.get(&event.key).copied();
            let counts = match event.what {
                What::Appeared | What::Again => true,
                What::Worsened => earlier.is_none_or(|earlier| event.severity < earlier),
                What::Eased | What::Ended => false,
            };
            if event.what == What::Ended {
                self.counted.remove(&event.key);
            }
            if counts {
                self.episodes.at(labels(event.key.id, event.severity)).inc();
                self.counted.insert(event.key.clone(), event.severity);
            }
        }
    }
}

fn labels(id: &str, level: Severity) -> Labels {
    vec![("cause", id.to_owned()), ("severity", severity(level).to_owned())]
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}
