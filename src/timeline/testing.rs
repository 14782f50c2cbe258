//! Rows of windows whose findings a test names.

use std::time::Duration;

use super::episodes::Timeline;
use super::{Event, Tick, Watch, What};
use crate::cause::{self, Confidence, Finding, Impact, Severity, State};
use crate::diagnosis::filter::Filter;
use crate::diagnosis::rank::{BecauseOf, Ranked};
use crate::diagnosis::{Diagnosis, Status, diagnose};
use crate::observation::testing::Case;
use crate::value::Moment;

pub const WINDOW: Duration = Duration::from_secs(2);

/// A row of windows of two seconds.
pub struct Row {
    pub timeline: Timeline,
    pub at: Moment,
    pub quiet: Diagnosis,
    pub learned: bool,
}

impl Default for Row {
    fn default() -> Self {
        let blind = diagnose(Case::new().view());
        let quiet = Diagnosis { causes: Vec::new(), window: WINDOW, status: Status::Ok, ..blind };
        Self { timeline: Timeline::default(), at: quiet.started, quiet, learned: false }
    }
}

impl Row {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn tick(&mut self, causes: &[Ranked]) -> Vec<What> {
        self.events(causes).into_iter().map(|event| event.what).collect()
    }

    pub fn events(&mut self, causes: &[Ranked]) -> Vec<Event> {
        let diagnosis = Diagnosis { causes: causes.to_vec(), started: self.at, ..self.quiet.clone() };
        self.at.mono += WINDOW;
        self.timeline.tick(self.at, &diagnosis, self.learned, false)
    }

    pub fn ids(&self) -> Vec<&'static str> {
        self.timeline.episodes().iter().map(|episode| episode.key.id).collect()
    }

    /// All that a tick tells.
    pub fn whole(&mut self, causes: &[Ranked]) -> Tick {
        let mut watch = Watch::new(Filter::default());
        let tick = watch.tick(&mut Case::new().window(false), &mut |_, _| None).expect("a namespace");
        let diagnosis = Diagnosis { causes: causes.to_vec(), started: self.at, ..self.quiet.clone() };
        let events = self.events(causes);
        let status = self.timeline.status().unwrap_or(Status::Ok);
        let episodes = self.timeline.episodes().to_vec();
        Tick { at: self.at, interval: WINDOW, status, diagnosis, episodes, events, ..tick }
    }
}

pub fn ranked(id: &str, severity: Severity, per_s: f64) -> Ranked {
    let cause = cause::by_id(id).expect("a cause");
    let impact = Impact { events: (per_s * 2.0) as u64, per_s, unit: "resets" };
    let finding = Finding::new(State::Active, severity, Confidence::of_test(0.9), impact, "something happened");
    Ranked { id: cause.id, title: cause.title, finding, because_of: None }
}

/// The second follows from the first.
pub fn follows(root: Ranked, symptom: Ranked) -> [Ranked; 2] {
    let because_of = Some(BecauseOf { id: root.id, place: 0 });
    [root, Ranked { because_of, ..symptom }]
}
