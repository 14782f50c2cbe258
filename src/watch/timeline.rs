//! Causes over time: when each appeared, worsened and ended. The judge of single windows knows no yesterday; here what comes
//! and goes at the edge of a threshold becomes one episode.
//!
//! A cause ends with the first quiet tick. If it comes back, it is the same episode again, and from then on it takes twice
//! as many quiet ticks to end, up to half a minute: what flickers is soon told as one thing that goes on.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::rate::{Rates, Usual};
use crate::cause::{Finding, Severity, State, Subject, SubjectKind};
use crate::diagnosis::{CONVINCING, Diagnosis, Status};
use crate::rank::Ranked;
use crate::source::Moment;

/// The longest quiet that still belongs to an episode.
const LONGEST_HOLD: Duration = Duration::from_secs(30);
/// How long an episode that ended is remembered, and how many are.
const REMEMBERED: Duration = Duration::from_secs(600);
const MOST: usize = 128;
/// Ticks that a severity must hold before it is believed, where nothing else speaks for it.
const HOLDS: u32 = 3;

/// What makes two findings in two windows the same: the cause, and where it happens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub id: &'static str,
    pub place: Place,
}

/// Where a cause happens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A served port.
    Port(u16),
    /// A remote end that this host calls.
    Remote(SocketAddr),
    /// Process name, where it is about no port.
    Process(String),
    Host,
}

/// `port 8080`, `10.0.0.1:5432`, `process api`, or nothing for the whole host. Escape it before printing.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Remote(remote) => write!(f, "{remote}"),
            Self::Process(name) => write!(f, "process {name}"),
            Self::Host => Ok(()),
        }
    }
}

impl Key {
    fn of(ranked: &Ranked) -> Self {
        let subjects = &ranked.finding.subjects;
        let first = |kind: SubjectKind| subjects.iter().find(|subject| subject.kind == kind);
        let remote = |subject: &Subject| Some(SocketAddr::new(canonical(subject.address?), subject.port?));
        let port = first(SubjectKind::Listener).or(first(SubjectKind::Host)).and_then(|subject| subject.port);
        let peer = first(SubjectKind::Peer).or(first(SubjectKind::Path)).and_then(remote);
        let process = first(SubjectKind::Process).and_then(|subject| subject.process.clone());
        let place = match (port, peer, process) {
            (Some(port), ..) => Place::Port(port),
            (None, Some(remote), _) => Place::Remote(remote),
            (None, None, Some(name)) => Place::Process(name),
            (None, None, None) => Place::Host,
        };
        Self { id: ranked.id, place }
    }
}

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Found in the latest window.
    Active,
    /// Not found in the latest window, and too short a quiet to call it ended.
    Quiet,
    Ended,
}

/// A cause at one place over time.
#[derive(Debug, Clone)]
pub struct Episode {
    pub key: Key,
    pub phase: Phase,
    /// Believed: a severity that flickers does not show here.
    pub severity: Severity,
    /// When the first window in which it was found this time began.
    pub since: Moment,
    /// It was there in the first window already: when it began is not known.
    pub from_start: bool,
    /// When the last window in which it was found ended.
    pub last: Moment,
    /// How often it came.
    pub times: u32,
    /// What was lost or reset over all of it.
    pub events: u64,
    /// Highest events per second of one window.
    pub peak_per_s: f64,
    /// One for each tick since it first came.
    pub rates: Rates,
    /// Once enough was seen.
    pub usual: Option<Usual>,
    /// As found last.
    pub latest: Ranked,
    quiet: u32,
    /// Ticks in which the judged severity differed from the believed one to the same side.
    worse: u32,
    better: u32,
    /// The rate that was told of last.
    told_per_s: f64,
}

impl Episode {
    /// Something is wrong, rather than seen.
    pub fn is_alarm(&self) -> bool {
        self.severity < Severity::Info && matches!(self.latest.finding.state, State::Active | State::Risk)
    }

    /// How long it went on this time.
    pub fn lasted(&self) -> Duration {
        self.last.mono.saturating_sub(self.since.mono)
    }
}

/// Something that happened to an episode, at the end of a tick's window.
#[derive(Debug, Clone)]
pub struct Event {
    pub what: What,
    /// When; of an end, when the last window in which it was found ended.
    pub at: Moment,
    pub key: Key,
    pub title: &'static str,
    pub severity: Severity,
    pub state: State,
    /// The sentence of the finding.
    pub summary: String,
    pub per_s: f64,
    pub unit: &'static str,
    /// Of an end: how long it went on, and how much there was.
    pub lasted: Duration,
    pub events: u64,
    /// How often it came.
    pub times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Appeared,
    /// It had ended and is back.
    Again,
    Worsened,
    Eased,
    Ended,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            Self::Appeared => "appeared",
            Self::Again => "again",
            Self::Worsened => "worsened",
            Self::Eased => "eased",
            Self::Ended => "ended",
        }
    }
}

#[derive(Debug, Default)]
pub struct Timeline {
    /// In the order in which a person reads them.
    episodes: Vec<Episode>,
    ticks: u64,
}

impl Timeline {
    pub fn episodes(&self) -> &[Episode] {
        &self.episodes
    }

    /// The worst of what goes on; `None` if nothing that is wrong does.
    pub fn status(&self) -> Option<Status> {
        let worst = self.episodes.iter().filter(|e| e.phase != Phase::Ended && e.is_alarm()).map(|e| e.severity).min();
        worst.map(|severity| match severity {
            Severity::Critical => Status::Critical,
            _ => Status::Warning,
        })
    }

    /// Takes the next window. `learned`: enough was seen to call a rate usual.
    pub fn tick(&mut self, at: Moment, diagnosis: &Diagnosis, learned: bool) -> Vec<Event> {
        self.ticks += 1;
        let window = diagnosis.window;
        let mut events = Vec::new();
        let found = found(diagnosis);
        for episode in &mut self.episodes {
            let now = found.iter().find(|(key, ..)| *key == episode.key);
            episode.rates.push(now.map_or(0.0, |(_, ranked, _)| ranked.finding.impact.per_s), window);
            episode.usual = learned.then(|| episode.rates.usual()).flatten();
            match now {
                Some((_, ranked, _)) => events.extend(episode.found(diagnosis.started, at, ranked)),
                None => events.extend(episode.missed(at, window)),
            }
        }
        for (rank, (key, ranked, _)) in found.iter().enumerate() {
            if self.episodes.iter().all(|episode| episode.key != *key) {
                let mut episode = Episode::new(key.clone(), diagnosis.started, at, ranked, self.ticks == 1);
                episode.rates.push(ranked.finding.impact.per_s, window);
                events.push(episode.event(What::Appeared, at));
                let place = self.place(&found, rank);
                self.episodes.insert(place, episode);
            }
        }
        self.reorder(&events, &found);
        self.forget(at);
        events
    }

    /// Before the first known one that ranks below.
    fn place(&self, found: &[Found<'_>], rank: usize) -> usize {
        let below = |episode: &Episode| {
            let known = found.iter().position(|(key, ..)| *key == episode.key);
            episode.phase == Phase::Ended || known.is_some_and(|known| known > rank)
        };
        self.episodes.iter().position(below).unwrap_or(self.episodes.len())
    }

    /// What ended goes behind what goes on; what came back or changed its severity is put where it ranks now. Nothing else
    /// moves.
    fn reorder(&mut self, events: &[Event], found: &[Found<'_>]) {
        for event in events.iter().filter(|event| event.what != What::Appeared) {
            let Some(index) = self.episodes.iter().position(|episode| episode.key == event.key) else { continue };
            let episode = self.episodes.remove(index);
            let place = match found.iter().position(|(key, ..)| *key == event.key) {
                Some(rank) if event.what != What::Ended => self.place(found, rank),
                _ => self.episodes.iter().position(|e| e.phase == Phase::Ended).unwrap_or(self.episodes.len()),
            };
            self.episodes.insert(place, episode);
        }
    }

    fn forget(&mut self, at: Moment) {
        let old = |e: &Episode| e.phase == Phase::Ended && at.mono.saturating_sub(e.last.mono) > REMEMBERED;
        self.episodes.retain(|episode| !old(episode));
        self.episodes.truncate(MOST);
    }
}

/// Key, finding, and its rank in the window.
type Found<'a> = (Key, &'a Ranked, usize);

/// The findings of a window that are worth following, one for each key: the first, which is the worst.
fn found(diagnosis: &Diagnosis) -> Vec<Found<'_>> {
    let mut found: Vec<Found<'_>> = Vec::new();
    for (rank, ranked) in diagnosis.causes.iter().enumerate() {
        let finding = &ranked.finding;
        let key = Key::of(ranked);
        if finding.state != State::Past && finding.confidence >= CONVINCING && found.iter().all(|(k, ..)| *k != key) {
            found.push((key, ranked, rank));
        }
    }
    found
}

impl Episode {
    fn new(key: Key, since: Moment, at: Moment, ranked: &Ranked, from_start: bool) -> Self {
        let impact = &ranked.finding.impact;
        Self {
            key,
            phase: Phase::Active,
            severity: ranked.finding.severity,
            since,
            from_start,
            last: at,
            times: 1,
            events: impact.events,
            peak_per_s: impact.per_s,
            rates: Rates::default(),
            usual: None,
            latest: ranked.clone(),
            quiet: 0,
            worse: 0,
            better: 0,
            told_per_s: impact.per_s,
        }
    }

    /// It is there in this window.
    fn found(&mut self, since: Moment, at: Moment, ranked: &Ranked) -> Option<Event> {
        let back = self.phase == Phase::Ended;
        let impact = ranked.finding.impact.clone();
        self.latest = ranked.clone();
        self.latest.finding.severity = ranked.finding.severity;
        (self.phase, self.last, self.quiet) = (Phase::Active, at, 0);
        self.events = self.events.saturating_add(impact.events);
        self.peak_per_s = self.peak_per_s.max(impact.per_s);
        if back {
            (self.since, self.from_start) = (since, false);
            self.times += 1;
            (self.severity, self.told_per_s) = (ranked.finding.severity, impact.per_s);
            (self.worse, self.better) = (0, 0);
            return Some(self.event(What::Again, at));
        }
        let changed = self.believe(ranked.finding.severity, impact.per_s);
        if let Some(what) = changed.or_else(|| self.grew(impact.per_s)) {
            self.told_per_s = impact.per_s;
            return Some(self.event(what, at));
        }
        None
    }

    /// A step up is believed at once, unless the rate is a usual one here: then chance has to be ruled out first. A step
    /// down always takes some ticks.
    fn believe(&mut self, judged: Severity, per_s: f64) -> Option<What> {
        let usual = self.usual.is_some_and(|usual| per_s <= usual.high);
        (self.worse, self.better) = match judged.cmp(&self.severity) {
            std::cmp::Ordering::Less => (self.worse + 1, 0),
            std::cmp::Ordering::Greater => (0, self.better + 1),
            std::cmp::Ordering::Equal => (0, 0),
        };
        let what = match (self.worse, self.better) {
            (HOLDS.., _) => What::Worsened,
            (1.., _) if !usual => What::Worsened,
            (_, HOLDS..) => What::Eased,
            _ => return None,
        };
        (self.severity, self.worse, self.better) = (judged, 0, 0);
        Some(what)
    }

    /// The rate is three times what was told last, and more than is usual.
    fn grew(&self, per_s: f64) -> Option<What> {
        let usual = self.usual.is_some_and(|usual| per_s <= usual.high);
        let grew = self.is_alarm() && !usual && per_s >= 3.0 * self.told_per_s && per_s - self.told_per_s >= 1.0;
        grew.then_some(What::Worsened)
    }

    /// It is not there in this window.
    fn missed(&mut self, at: Moment, window: Duration) -> Option<Event> {
        if self.phase == Phase::Ended {
            return None;
        }
        self.quiet += 1;
        self.phase = Phase::Quiet;
        let longest = LONGEST_HOLD.as_secs_f64() / window.as_secs_f64().max(0.001);
        let hold = 2f64.powi(i32::try_from(self.times - 1).unwrap_or(i32::MAX)).min(longest.max(2.0));
        if f64::from(self.quiet) < hold {
            return None;
        }
        self.phase = Phase::Ended;
        Some(Event { at: self.last, ..self.event(What::Ended, at) })
    }

    fn event(&self, what: What, at: Moment) -> Event {
        let Finding { state, ref impact, ref summary, .. } = self.latest.finding;
        Event {
            what,
            at,
            key: self.key.clone(),
            title: self.latest.title,
            severity: self.severity,
            state,
            summary: summary.clone(),
            per_s: impact.per_s,
            unit: impact.unit,
            lasted: self.lasted(),
            events: self.events,
            times: self.times,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::testing::Case;
    use crate::cause::{self, Impact};
    use crate::diagnosis::diagnose;

    const WINDOW: Duration = Duration::from_secs(2);

    /// A row of windows of two seconds.
    struct Row {
        timeline: Timeline,
        at: Moment,
        quiet: Diagnosis,
        learned: bool,
    }

    impl Row {
        fn new() -> Self {
            let quiet = Diagnosis { causes: Vec::new(), window: WINDOW, ..diagnose(&Case::new().0) };
            Self { timeline: Timeline::default(), at: quiet.started, quiet, learned: false }
        }

        fn tick(&mut self, causes: &[Ranked]) -> Vec<What> {
            self.events(causes).into_iter().map(|event| event.what).collect()
        }

        fn events(&mut self, causes: &[Ranked]) -> Vec<Event> {
            let diagnosis = Diagnosis { causes: causes.to_vec(), started: self.at, ..self.quiet.clone() };
            self.at.mono += WINDOW;
            self.timeline.tick(self.at, &diagnosis, self.learned)
        }

        fn ids(&self) -> Vec<&'static str> {
            self.timeline.episodes().iter().map(|episode| episode.key.id).collect()
        }
    }

    fn ranked(id: &str, severity: Severity, per_s: f64) -> Ranked {
        let cause = cause::by_id(id).expect("a cause");
        let impact = Impact { events: (per_s * 2.0) as u64, per_s, unit: "resets" };
        let finding = Finding::new(State::Active, severity, 0.9, impact, "something happened");
        Ranked { id: cause.id, title: cause.title, finding, because_of: None }
    }

    fn warning(per_s: f64) -> Ranked {
        ranked("abortive-close", Severity::Warning, per_s)
    }

    #[test]
    fn a_cause_appears_with_its_first_window_and_ends_with_the_first_quiet_one() {
        let mut row = Row::new();
        assert_eq!(row.tick(&[]), []);
        assert_eq!(row.tick(&[warning(10.0)]), [What::Appeared]);
        assert_eq!(row.tick(&[warning(11.0)]), []);
        assert_eq!(row.timeline.status(), Some(Status::Warning));
        let ended = row.events(&[]).remove(0);
        assert_eq!((ended.what, ended.lasted, ended.events), (What::Ended, 2 * WINDOW, 42));
        assert_eq!(ended.at.mono, row.at.mono - WINDOW, "it ended with the last window in which it was found");
        assert_eq!(row.timeline.status(), None);
    }

    #[test]
    fn what_comes_and_goes_is_soon_one_thing_that_goes_on() {
        let mut row = Row::new();
        let mut told = Vec::new();
        for _ in 0..60 {
            told.extend(row.tick(&[warning(3.0)]));
            told.extend(row.tick(&[]));
        }
        assert_eq!(told, [What::Appeared, What::Ended, What::Again], "not 120 times");
        assert_eq!(row.timeline.episodes()[0].times, 2);
        assert_eq!(row.timeline.status(), Some(Status::Warning));
    }

    #[test]
    fn half_a_minute_of_quiet_ends_anything() {
        let mut row = Row::new();
        for _ in 0..20 {
            row.tick(&[warning(3.0)]);
            while !row.tick(&[]).contains(&What::Ended) {}
        }
        row.tick(&[warning(3.0)]);
        let quiet = (1..100).find(|_| row.tick(&[]).contains(&What::Ended));
        assert_eq!(quiet, Some(15), "15 ticks of 2 s");
    }

    #[test]
    fn worse_is_believed_at_once_and_better_after_three_ticks() {
        let mut row = Row::new();
        row.tick(&[warning(3.0)]);
        assert_eq!(row.tick(&[ranked("abortive-close", Severity::Critical, 4.0)]), [What::Worsened]);
        assert_eq!(row.tick(&[warning(3.0)]), []);
        assert_eq!(row.tick(&[warning(3.0)]), []);
        assert_eq!(row.timeline.status(), Some(Status::Critical));
        assert_eq!(row.tick(&[warning(3.0)]), [What::Eased]);
        assert_eq!(row.timeline.status(), Some(Status::Warning));
    }

    #[test]
    fn a_usual_rate_that_touches_a_threshold_is_no_alarm() {
        let mut row = Row::new();
        let seen = |per_s| ranked("abortive-close", Severity::Info, per_s);
        for tick in 0..40 {
            row.tick(&[seen(2.0 + f64::from(tick % 3))]);
        }
        row.learned = true;
        row.tick(&[seen(3.0)]);
        assert_eq!(row.tick(&[warning(4.0)]), [], "4 per s is nothing new here");
        assert_eq!(row.timeline.status(), None);
        row.tick(&[seen(3.0)]);
        assert_eq!(row.tick(&[warning(40.0)]), [What::Worsened], "40 per s is");
        assert_eq!(row.timeline.status(), Some(Status::Warning));
    }

    #[test]
    fn a_rate_that_triples_is_told_once() {
        let mut row = Row::new();
        row.tick(&[warning(10.0)]);
        assert_eq!(row.tick(&[warning(29.0)]), []);
        assert_eq!(row.tick(&[warning(30.0)]), [What::Worsened]);
        assert_eq!(row.tick(&[warning(31.0)]), []);
    }

    #[test]
    fn rows_keep_their_places_while_rates_wobble() {
        let mut row = Row::new();
        let (a, b) = (warning(10.0), ranked("peer-reset", Severity::Warning, 9.0));
        row.tick(&[a.clone(), b.clone()]);
        row.tick(&[b.clone(), a.clone()]);
        assert_eq!(row.ids(), ["abortive-close", "peer-reset"]);
        let root = ranked("process-exit", Severity::Critical, 9.0);
        row.tick(&[root.clone(), b.clone(), a.clone()]);
        assert_eq!(row.ids(), ["process-exit", "abortive-close", "peer-reset"]);
        row.tick(&[b, a]);
        assert_eq!(row.ids(), ["abortive-close", "peer-reset", "process-exit"], "what ended goes last");
    }

    #[test]
    fn a_restarted_server_is_the_same_place_and_another_port_is_not() {
        let mut row = Row::new();
        let on = |port, pid| {
            let mut ranked = warning(5.0);
            let listener = Subject { port: Some(port), pid: Some(pid), ..Subject::new(SubjectKind::Listener) };
            ranked.finding.subjects.push(listener);
            ranked
        };
        assert_eq!(row.tick(&[on(80, 1)]), [What::Appeared]);
        assert_eq!(row.tick(&[on(80, 2)]), []);
        assert_eq!(row.tick(&[on(80, 2), on(81, 2)]), [What::Appeared]);
        assert_eq!(row.timeline.episodes()[1].key.place.to_string(), "port 81");
    }

    #[test]
    fn hints_and_the_past_are_not_followed() {
        let mut row = Row::new();
        let (mut hint, mut past) = (warning(5.0), warning(5.0));
        hint.finding.confidence = 0.4;
        past.finding.state = State::Past;
        assert_eq!(row.tick(&[hint, past]), []);
    }

    #[test]
    fn what_is_long_over_is_forgotten() {
        let mut row = Row::new();
        row.tick(&[warning(5.0)]);
        (0..299).for_each(|_| drop(row.tick(&[])));
        assert_eq!(row.ids().len(), 1);
        (0..3).for_each(|_| drop(row.tick(&[])));
        assert_eq!(row.ids().len(), 0);
    }
}
