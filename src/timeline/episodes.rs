//! Causes over time: when each appeared, worsened and ended. The judge of single windows knows no yesterday; here what comes
//! and goes at the edge of a threshold becomes one episode.
//!
//! A cause ends with the first quiet tick. If it comes back, it is the same episode again, and from then on it takes twice
//! as many quiet ticks to end, up to half a minute: what flickers is soon told as one thing that goes on. What is as bad as it is
//! only with the windows before takes twice as long as it was quiet between them.

use std::time::Duration;

use super::place::Key;
use super::rate::{Rates, Usual};
use crate::cause::{Finding, Severity, State};
use crate::diagnosis::rank::Ranked;
use crate::diagnosis::{CONVINCING, Diagnosis, Status, may_follow};
use crate::value::{Moment, leads};

mod event;

pub use event::{Event, What};

/// The longest quiet that still belongs to an episode.
const LONGEST_HOLD: Duration = Duration::from_secs(30);
/// How long an episode that ended is remembered, and how many are.
const REMEMBERED: Duration = Duration::from_secs(600);
const MOST: usize = 128;
/// Ticks that a severity must hold before it is believed, where nothing else speaks for it.
const HOLDS: u32 = 3;

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
    /// The worst that was believed, however often it came.
    pub worst: Severity,
    /// This time it explains numbers and is no fault.
    pub harmless: bool,
    /// Now or earlier it was a fault.
    pub faulted: bool,
    /// When the first window in which it was found this time began.
    pub since: Moment,
    /// It was there in the first window already: when it began is not known.
    pub from_start: bool,
    /// When the last window in which it was found ended.
    pub last: Moment,
    /// How often it came.
    pub times: u32,
    /// What was lost or reset over all of it; what stays there is counted once.
    pub events: u64,
    /// Highest events per second of one window.
    pub peak_per_s: f64,
    /// One for each tick since it first came.
    pub rates: Rates,
    /// Once enough was seen.
    pub usual: Option<Usual>,
    /// As found last with the severity that is believed; its impact is that of the latest window.
    pub latest: Ranked,
    /// What explains it, as was found last in this time.
    pub root: Option<Root>,
    /// Of the events, those of earlier times.
    pub earlier: u64,
    /// Ticks since this time began, with the first.
    ticks: u32,
    /// Of the events, those that came and went.
    passed: u64,
    quiet: u32,
    /// The longest quiet that was followed by more of it, where that was soon.
    pause: Duration,
    /// Ticks of this time in which it was found.
    found: u32,
    /// Ticks in which the judged severity differed from the believed one to the same side.
    worse: u32,
    better: u32,
    /// The rate that was told of last.
    told_per_s: f64,
}

impl Episode {
    /// Something is wrong, rather than seen.
    pub fn is_alarm(&self) -> bool {
        self.severity < Severity::Info && self.latest.finding.state.is_now()
    }

    /// What explains it may be found with the next window: in the first, which holds only a part of the beginning, what follows is
    /// often clearer than what it follows from.
    pub fn may_yet_follow(&self) -> bool {
        self.root.is_none() && self.ticks == 1 && self.phase == Phase::Active && may_follow(self.key.id)
    }

    /// How long it went on this time.
    pub fn lasted(&self) -> Duration {
        self.last.mono.saturating_sub(self.since.mono)
    }
}

/// The deeper cause that explains an episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    pub key: Key,
    pub title: &'static str,
    /// When that was found first, and last.
    pub since: Moment,
    last: Moment,
}

#[derive(Debug, Clone, Default)]
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

    /// Takes the next window. `learned`: enough was seen to call a rate usual. `brief`: it is too short to show an end.
    pub fn tick(&mut self, at: Moment, diagnosis: &Diagnosis, learned: bool, brief: bool) -> Vec<Event> {
        self.ticks += 1;
        let window = diagnosis.window;
        let mut events = Vec::new();
        let found = found(diagnosis);
        let known = Chains::of(&self.episodes);
        for episode in &mut self.episodes {
            let now = found.iter().find(|(key, ..)| *key == episode.key);
            let unseen = diagnosis.status == Status::Unknown
                && diagnosis.not_checked.iter().any(|cause| cause.id == episode.key.id);
            if now.is_none() && (unseen || brief) && episode.is_held_unseen(at) {
                continue;
            }
            episode.rates.push(now.map_or(0.0, |(_, ranked, _)| ranked.finding.impact.per_s), window);
            episode.usual = learned.then(|| episode.rates.usual()).flatten();
            match now {
                Some((_, ranked, _)) => {
                    events.extend(episode.found(diagnosis.started, at, ranked));
                    episode.explain(diagnosis, at, ranked, &known);
                }
                None => events.extend(episode.missed(at, window)),
            }
        }
        // First, so that nothing new is put before what has just ended at the top.
        self.reorder(&events, &found);
        for (rank, (key, ranked, _)) in found.iter().enumerate() {
            if self.episodes.iter().all(|episode| episode.key != *key) {
                let mut episode = Episode::new(key.clone(), diagnosis.started, at, ranked, self.ticks == 1);
                episode.rates.push(ranked.finding.impact.per_s, window);
                episode.explain(diagnosis, at, ranked, &known);
                events.push(episode.event(What::Appeared, at));
                let place = self.place(&found, rank);
                self.episodes.insert(place, episode);
            }
        }
        self.forget(at);
        self.untangle();
        for event in &mut events {
            let episode = self.episodes.iter().find(|episode| episode.key == event.key);
            event.root = episode.and_then(|episode| episode.root.clone());
        }
        events
    }

    /// Where windows told each of two to follow from the other, the later one is right: somebody must be the first.
    fn untangle(&mut self) {
        let root = |episodes: &[Episode], index: usize| -> Option<usize> {
            let key = &episodes.get(index)?.root.as_ref()?.key;
            episodes.iter().position(|episode| episode.key == *key)
        };
        for start in 0..self.episodes.len() {
            let next = |index: &usize| root(&self.episodes, *index);
            let most = self.episodes.len();
            if !leads(start, &start, most, next) {
                continue;
            }
            let told = |index: &usize| self.episodes.get(*index)?.root.as_ref().map(|root| root.last.mono);
            let oldest = std::iter::successors(Some(start), next).take(most).min_by_key(told);
            if let Some(oldest) = oldest.and_then(|index| self.episodes.get_mut(index)) {
                oldest.root = None;
            }
        }
    }

    /// Before the first known one that ranks below.
    fn place(&self, found: &[Placed<'_>], rank: usize) -> usize {
        let below = |episode: &Episode| {
            let known = found.iter().position(|(key, ..)| *key == episode.key);
            episode.phase == Phase::Ended || known.is_some_and(|known| known > rank)
        };
        self.episodes.iter().position(below).unwrap_or(self.episodes.len())
    }

    /// What ended goes behind what goes on; what came back or changed its severity is put where it ranks now. Nothing else
    /// moves.
    fn reorder(&mut self, events: &[Event], found: &[Placed<'_>]) {
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

/// What goes on, and what explains each, before a window.
struct Chains(Vec<(Key, Option<Key>)>);

impl Chains {
    fn of(episodes: &[Episode]) -> Self {
        let on = episodes.iter().filter(|episode| episode.phase != Phase::Ended);
        Self(on.map(|episode| (episode.key.clone(), episode.root.as_ref().map(|root| root.key.clone()))).collect())
    }

    /// The one follows from the other, which goes on.
    fn lead(&self, from: &Key, to: &Key) -> bool {
        let root = |key: &&Key| self.0.iter().find(|(own, _)| own == *key)?.1.as_ref();
        leads(from, &to, self.0.len(), root) && self.0.iter().any(|(own, _)| own == to)
    }
}

/// Key, finding, and its rank in the window.
type Placed<'a> = (Key, &'a Ranked, usize);

/// The findings of a window that are worth following, one for each key: the first, which is the worst.
fn found(diagnosis: &Diagnosis) -> Vec<Placed<'_>> {
    let mut found: Vec<Placed<'_>> = Vec::new();
    for (rank, ranked) in diagnosis.causes.iter().enumerate() {
        let finding = &ranked.finding;
        let key = Key::of(ranked);
        if finding.state != State::Past && finding.confidence >= CONVINCING && found.iter().all(|(k, ..)| *k != key) {
            found.push((key, ranked, rank));
        }
    }
    found
}

/// When the first window began in which it was found: this one, or one of those before that make it as bad as it is.
fn began(ranked: &Ranked, window: Moment) -> Moment {
    let together = ranked.finding.together.map(|together| window.mono.saturating_sub(together.since));
    let earlier = together.unwrap_or_default();
    Moment { mono: window.mono.saturating_sub(earlier), wall: window.wall.saturating_sub(earlier), ..window }
}

impl Episode {
    fn new(key: Key, since: Moment, at: Moment, ranked: &Ranked, from_start: bool) -> Self {
        let impact = &ranked.finding.impact;
        let since = began(ranked, since);
        Self {
            key,
            phase: Phase::Active,
            severity: ranked.finding.severity,
            worst: ranked.finding.severity,
            harmless: ranked.finding.state == State::Benign,
            faulted: ranked.finding.state != State::Benign,
            since,
            from_start,
            last: at,
            times: 1,
            events: ranked.finding.passing().saturating_add(ranked.finding.standing),
            peak_per_s: impact.per_s,
            rates: Rates::default(),
            usual: None,
            latest: ranked.clone(),
            root: None,
            earlier: 0,
            ticks: 1,
            passed: ranked.finding.passing(),
            quiet: 0,
            pause: Duration::ZERO,
            found: 1,
            worse: 0,
            better: 0,
            told_per_s: impact.per_s,
        }
    }

    /// It is there in this window.
    fn found(&mut self, since: Moment, at: Moment, ranked: &Ranked) -> Option<Event> {
        let pause = since.mono.saturating_sub(self.last.mono);
        self.pause = if pause > LONGEST_HOLD { Duration::ZERO } else { self.pause.max(pause) };
        // Together with what was before it did not end: notes are a part of it, and a fault is the same.
        let goes_on = ranked.finding.together.is_some_and(|together| together.since <= self.last.mono);
        let back = self.phase == Phase::Ended && !(goes_on && self.severity == Severity::Info);
        let anew = back && !goes_on;
        let impact = ranked.finding.impact.clone();
        self.latest.finding.impact = impact.clone();
        self.latest.finding.standing = ranked.finding.standing;
        (self.phase, self.last, self.quiet) = (Phase::Active, at, 0);
        self.ticks = self.ticks.saturating_add(1);
        if anew {
            // What stood there when it ended is over.
            (self.passed, self.earlier) = (self.events, self.events);
            (self.ticks, self.root) = (1, None);
        }
        self.passed = self.passed.saturating_add(ranked.finding.passing());
        // What is there now is among those that come and go later.
        self.events = self.events.max(self.passed.saturating_add(ranked.finding.standing));
        self.found += 1;
        self.peak_per_s = self.peak_per_s.max(impact.per_s);
        if back {
            if anew {
                (self.since, self.from_start) = (began(ranked, since), false);
            }
            self.times += 1;
            self.found = 1;
            self.told_per_s = impact.per_s;
            self.harmless = true;
            self.take(ranked);
            self.tell();
            return Some(self.event(What::Again, at));
        }
        // The first tick holds a part of its beginning: the second one is the first that tells how much of it there is.
        if self.found == 2 {
            self.told_per_s = self.told_per_s.max(impact.per_s);
        }
        let was_alarm = self.is_alarm();
        let changed = self.believe(ranked, impact.per_s);
        if let Some(together) = ranked.finding.together.filter(|_| !was_alarm && self.is_alarm()) {
            // Before that it was a note.
            self.since = began(ranked, since);
            self.earlier = self.events.saturating_sub(together.events);
        }
        if let Some(what) = changed.or_else(|| self.grew(&ranked.finding)) {
            self.told_per_s = impact.per_s;
            self.tell();
            return Some(self.event(what, at));
        }
        None
    }

    /// A step up is believed at once, unless the rate is a usual one here: then chance has to be ruled out first. A step
    /// down always takes some ticks.
    fn believe(&mut self, ranked: &Ranked, per_s: f64) -> Option<What> {
        let judged = ranked.finding.severity;
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
            _ => {
                if judged == self.severity {
                    self.take(ranked);
                }
                return None;
            }
        };
        self.take(ranked);
        Some(what)
    }

    /// Believes what was judged.
    fn take(&mut self, ranked: &Ranked) {
        self.latest = ranked.clone();
        (self.severity, self.worse, self.better) = (ranked.finding.severity, 0, 0);
        self.worst = self.worst.min(self.severity);
    }

    /// Remembers what explains it in this window. One that says nothing of that takes nothing back.
    fn explain(&mut self, diagnosis: &Diagnosis, at: Moment, ranked: &Ranked, chains: &Chains) {
        let Some(root) = ranked.because_of.and_then(|root| diagnosis.causes.get(root.place)) else { return };
        let key = Key::of(root);
        match &mut self.root {
            _ if key == self.key => {}
            // One that the window shows only a part of is not seen as deep as it goes.
            Some(known) if known.key == key || chains.lead(&key, &known.key) => known.last = at,
            known => *known = Some(Root { key, title: root.title, since: at, last: at }),
        }
    }

    /// There is an event that says how it is now.
    fn tell(&mut self) {
        self.harmless &= self.latest.finding.state == State::Benign;
        self.faulted |= !self.harmless;
    }

    /// Nobody could look whether it goes on: that is no end, for as long as a quiet may belong to it.
    fn is_held_unseen(&mut self, at: Moment) -> bool {
        let held = self.phase != Phase::Ended && at.mono.saturating_sub(self.last.mono) <= LONGEST_HOLD;
        if held {
            self.phase = Phase::Quiet;
        }
        held
    }

    /// The rate is three times what was told last, and more than is usual.
    fn grew(&self, judged: &Finding) -> Option<What> {
        let per_s = judged.impact.per_s;
        let usual = self.usual.is_some_and(|usual| per_s <= usual.high);
        let as_bad = judged.severity <= self.severity && judged.state != State::Benign;
        let grew =
            self.is_alarm() && as_bad && !usual && per_s >= 3.0 * self.told_per_s && per_s - self.told_per_s >= 1.0;
        grew.then_some(What::Worsened)
    }

    /// It is not there in this window.
    fn missed(&mut self, at: Moment, window: Duration) -> Option<Event> {
        if self.phase == Phase::Ended {
            return None;
        }
        self.quiet += 1;
        self.ticks = self.ticks.saturating_add(1);
        self.phase = Phase::Quiet;
        let ticks = |time: Duration| time.as_secs_f64() / window.as_secs_f64().max(0.001);
        let flickers = 2f64.powi(i32::try_from(self.times - 1).unwrap_or(i32::MAX));
        let pauses = if self.latest.finding.together.is_some() { 1.0 + 2.0 * ticks(self.pause).round() } else { 1.0 };
        let hold = flickers.max(pauses).min(ticks(LONGEST_HOLD).max(2.0));
        if f64::from(self.quiet) < hold {
            return None;
        }
        self.phase = Phase::Ended;
        Some(Event { at: self.last, ..self.event(What::Ended, at) })
    }

    /// What is told of it when this happens to it.
    pub fn event(&self, what: What, at: Moment) -> Event {
        let Finding { state, ref impact, ref summary, .. } = self.latest.finding;
        Event {
            what,
            at,
            key: self.key.clone(),
            title: self.latest.title,
            severity: self.severity,
            state,
            harmless: self.harmless,
            summary: summary.clone(),
            per_s: impact.per_s,
            unit: impact.unit,
            lasted: self.lasted(),
            events: self.events,
            times: self.times,
            root: self.root.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
