//! What the entries of some time tell: episodes, a row of each service, what was counted, and what was not recorded.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::account::{Account, plus};
use super::entry::{Direction, Entry, Event, Place, Root, millis};
use super::service::Service;
use crate::cause::{Severity, State};
use crate::diagnosis::Status;
use crate::timeline::What;

mod coverage;
mod episode;
mod links;
mod rows;
#[cfg(test)]
mod tests;
mod wanted;

pub use coverage::{Gap, Why};
pub use rows::{Row, total};
pub use wanted::{Span, Wanted};

/// Accounts of one run of the recorder that lie so close follow each other: a tick that came late. And what is there again so soon
/// after a recorder that ended never ended.
const JOINS: u64 = 15_000;
/// A share of fewer connections says little.
const FEW: u64 = 5;
/// An account is written when its minute is over: so much may still be open.
const OPEN: u64 = 130_000;
/// Episodes, changes and services that are kept.
const MOST: usize = 5_000;

/// How an episode ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Ended,
    /// It was there in the latest account of a recorder that runs.
    GoesOn,
    /// No recorder ran when it ended, or none runs now.
    NotSeen,
}

/// A cause at one place from its beginning to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    pub id: String,
    pub title: String,
    pub place: Place,
    /// The worst.
    pub severity: Severity,
    pub state: State,
    pub harmless: bool,
    pub span: Span,
    /// It was there when the recorder began: it may be older.
    pub from_start: bool,
    pub ending: Ending,
    /// It goes on as far as is known, and was not there in the latest account.
    pub is_quiet: bool,
    /// The deeper cause that explains it, as was found last.
    pub because_of: Option<Root>,
    /// The episode of that cause, as its place in the list.
    pub root: Option<usize>,
    pub events: u64,
    pub unit: String,
    pub peak_per_s: f64,
    /// Connections of the place in the worst window, and those that failed.
    pub attempts: Option<u64>,
    pub failures: Option<u64>,
    pub summary: String,
    /// Raw evidence is kept of its beginning, as far as is known: what the index leaves out is told by judging that again.
    pub has_raw: bool,
    /// What showed it, and what to do about it.
    pub evidence: Vec<String>,
    pub remedies: Vec<String>,
    /// What told of its beginning cannot be read.
    begun_unread: bool,
    /// Events of earlier times of the same episode.
    earlier: u64,
    /// Events that ticks and minutes told since it began, without those that were still there, and with them.
    counted: u64,
    seen: u64,
    /// Connections of the place in all ticks of it, and those that failed.
    in_all: (Option<u64>, Option<u64>),
}

/// What changed besides causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    pub at: u64,
    pub text: String,
}

/// What is known of the time that was asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Past {
    pub wanted: Wanted,
    /// In the order in which they began.
    pub episodes: Vec<Episode>,
    /// Those with the most failures first.
    pub services: Vec<Row>,
    pub changes: Vec<Stamped>,
    /// Resets by direction and reason, in words, in each part of the time.
    pub by_reason: BTreeMap<(Direction, String), Vec<u64>>,
    /// All accounts together.
    pub account: Account,
    /// What was not recorded, or cannot be read.
    pub missing: Vec<Gap>,
    /// Of what raw evidence could not be written.
    pub raw_missing: Vec<Gap>,
    /// What is wrong with the store, in words.
    pub problems: Vec<String>,
    /// The time of services and resets, where it is longer than what was asked for: ticks, and minutes of which there is no more
    /// than a sum, are counted whole.
    pub counted: Option<Span>,
    /// Entries of a later version.
    pub unknown: u64,
    /// Addresses and names were replaced.
    pub redacted: bool,
    pub hostname: Option<String>,
    /// The process that was asked for is named in what was recorded of the time.
    pub process_named: bool,
    buckets: usize,
    covered: Vec<Span>,
    /// Times of which something is known to be gone.
    flaws: Vec<Gap>,
    /// When the recorder was cut off.
    cuts: Vec<u64>,
    /// Ticks since the latest minute.
    ticks: Vec<Account>,
    ended: HashMap<(String, Place), u64>,
    /// Entries before the next account are not known: what is in it may have begun in them.
    blind: bool,
    open: Vec<Episode>,
    latest: u64,
    /// Since when the recorder has given no account.
    begun: Option<u64>,
    /// When the latest run of the recorder began, and its time between two ticks; the longest of all runs.
    started: u64,
    interval: u64,
    longest_interval: u64,
    /// The latest span that is covered is of the run that goes on.
    joined: bool,
    /// When each run of the recorder began, and whether it told what follows from what.
    runs: Vec<(u64, bool)>,
}

impl Past {
    /// `buckets`: parts of the time in the row of a service.
    pub fn new(wanted: Wanted, buckets: usize) -> Self {
        Self { wanted, buckets: buckets.max(1), ..Self::default() }
    }

    /// Takes the next entry, in the order in which they were written.
    pub fn push(&mut self, entry: Entry) {
        match entry {
            Entry::Started(started) => {
                self.redacted |= started.redacted;
                self.hostname = started.hostname;
                self.interrupted();
                self.begun = Some(started.at);
                self.runs.push((started.at, started.tells_roots));
                (self.latest, self.started) = (started.at, started.at);
                self.interval = Duration::try_from_secs_f64(started.interval_s).map_or(0, millis);
                if started.at < self.wanted.until {
                    self.longest_interval = self.longest_interval.max(self.interval);
                }
            }
            Entry::Stopped(_) => self.interrupted(),
            Entry::Event(event) => self.event(event),
            Entry::Minute(account) => self.minute(account),
            Entry::Tick(account) => {
                self.latest = self.latest.max(account.until);
                self.active(&account, true);
                self.ticks.push(account);
                if self.ticks.len() >= MOST {
                    self.count_ticks();
                }
            }
            Entry::Change { at, text } => {
                if self.is_within(at) && self.changes.len() < MOST {
                    self.changes.push(Stamped { at, text });
                }
            }
            Entry::Lost { from, until, why } => {
                self.flaws.push(Gap { span: Span { from, until }, why: Some(Why::NotWritten(why)) });
                self.seen();
                self.unread();
                self.begun = Some(until);
                self.latest = self.latest.max(until);
            }
            Entry::RawLost { from, until, why } => self.raw_lost(Span { from, until }, why),
            Entry::Unknown => self.unknown += 1,
        }
    }

    /// Entries that were written here cannot be read.
    pub fn unread(&mut self) {
        self.blind = true;
        // How many there were when it ended last was told in them.
        self.ended.clear();
    }

    /// The recorder ended: what it saw since its latest account is known as far as it told.
    fn interrupted(&mut self) {
        self.count_ticks();
        self.seen();
    }

    /// It looked until its latest entry; what comes then is apart.
    fn seen(&mut self) {
        if let Some(from) = self.begun.take().filter(|from| *from < self.latest) {
            self.cover(Span { from, until: self.latest });
        }
        self.joined = false;
    }

    /// Later entries tell nothing of the time that was asked for.
    pub fn is_complete(&self) -> bool {
        let until = self.wanted.until;
        self.latest > until && self.open.iter().all(|episode| episode.span.from >= until)
    }

    /// After the last entry. `now`: the time, if a recorder writes the store.
    pub fn finish(mut self, now: Option<u64>) -> Self {
        let heard = self.begun.map(|begun| begun.max(self.latest));
        let live = now.filter(|now| heard.is_some_and(|heard| heard.saturating_add(OPEN) >= *now));
        let told = self.latest;
        self.latest = self.latest.max(live.unwrap_or(0));
        self.interrupted();
        for mut episode in std::mem::take(&mut self.open) {
            let until = episode.span.until;
            let on = live.is_some() && until > self.started && until.saturating_add(OPEN) >= self.latest;
            episode.ending = if on { Ending::GoesOn } else { Ending::NotSeen };
            episode.is_quiet = on && until.saturating_add(self.interval / 2) < told;
            self.close(episode);
        }
        self.episodes.sort_by_key(|episode| episode.span.from);
        self.link();
        self.problems.extend(self.unlinked());
        self.settle_rows();
        self.settle_coverage();
        let Wanted { since, until, .. } = self.wanted;
        self.counted = self.counted.filter(|span| span.from < since || span.until > until);
        self
    }

    fn is_within(&self, at: u64) -> bool {
        (self.wanted.since..=self.wanted.until).contains(&at)
    }

    /// Whether the process that was asked for is known there.
    fn named(&mut self, place: &Place, span: Span) {
        self.process_named |= self.wanted.process.is_some()
            && place.process == self.wanted.process
            && self.wanted.since <= span.until
            && span.from <= self.wanted.until;
    }

    fn event(&mut self, event: Event) {
        self.latest = self.latest.max(event.at);
        self.named(&event.place, Span { from: event.since, until: event.at });
        if !self.wanted.cause(&event.id) || !self.wanted.place(&event.place) {
            return;
        }
        let same = |own: &Episode| own.id == event.id && own.place.is_same(&event.place);
        let begins = matches!(event.what, What::Appeared | What::Again);
        if begins {
            let ended = self.episodes.iter().rposition(same).filter(|_| !self.open.iter().any(same));
            self.open.extend(ended.map(|index| self.episodes.remove(index)));
        }
        let mut known = self.open.iter().position(same);
        if let Some(index) = known.filter(|_| begins)
            && !self.open.get(index).is_some_and(|own| self.is_one(own, &event))
        {
            let mut earlier = self.open.remove(index);
            if earlier.ending == Ending::GoesOn {
                earlier.ending = Ending::NotSeen;
            }
            self.close(earlier);
            known = None;
        }
        let key = (event.id.clone(), Place { process: None, unit: None, ..event.place.clone() });
        let index = match known {
            Some(index) => index,
            None => {
                self.open.push(Episode::new(&event, self.earlier(&key, &event)));
                self.open.len() - 1
            }
        };
        let Some(episode) = self.open.get_mut(index) else { return };
        if event.what == What::Worsened {
            // Notes that together are this fault, which is told of when there are enough of them.
            let notes = self.episodes.extract_if(.., |own| same(own) && own.span.until > event.since);
            let events = notes.map(|note| note.events).fold(0, u64::saturating_add);
            episode.span.from = episode.span.from.min(event.since);
            episode.earlier = episode.earlier.saturating_sub(events);
            episode.counted = episode.counted.saturating_add(events);
        }
        episode.ending = Ending::GoesOn;
        episode.take(&event);
        if event.what == What::Ended {
            // The recorder that tells of the end began after it: nobody saw when that was.
            let seen = episode.span.until >= self.started;
            episode.ending = if seen { Ending::Ended } else { Ending::NotSeen };
            self.ended.insert(key, event.events);
            let episode = self.open.remove(index);
            self.close(episode);
        }
    }

    /// What begins with this event is the episode that seemed to end: what lies between is the rest of a tick that came late,
    /// or no recorder looked, and the first tick of the next one has it.
    fn is_one(&self, episode: &Episode, event: &Event) -> bool {
        let quiet = event.since.saturating_sub(episode.span.until);
        quiet <= self.interval / 2 || event.since <= self.started && quiet <= JOINS
    }

    /// Of the events that are told of, those of earlier times of the same cause. A recorder that began meanwhile counts anew.
    fn earlier(&self, key: &(String, Place), event: &Event) -> u64 {
        match event.what {
            What::Again => {}
            What::Appeared => return 0,
            _ => return self.ended.get(key).copied().filter(|earlier| *earlier <= event.events).unwrap_or(0),
        }
        let own = event.per_s * Duration::from_millis(event.at.saturating_sub(event.since)).as_secs_f64();
        let told = self.ended.get(key).copied().filter(|earlier| *earlier <= event.events);
        told.unwrap_or_else(|| event.events.saturating_sub(own.round() as u64))
    }

    fn close(&mut self, mut episode: Episode) {
        episode.share_in_all();
        if self.wanted.clip(episode.span).is_some() && self.episodes.len() < MOST {
            self.episodes.push(episode);
        }
    }

    /// What was active in a tick, or in the part of a minute of which there are no ticks.
    fn active(&mut self, account: &Account, tick: bool) {
        if tick && std::mem::take(&mut self.blind) {
            self.begun_unread(account);
        }
        for cause in &account.causes {
            let open = self.open.iter_mut().find(|own| own.id == cause.id && own.place.is_same(&cause.place));
            let Some(episode) = open.filter(|episode| account.until > episode.span.from) else { continue };
            episode.span.until = episode.span.until.max(account.until);
            let mut new = 0;
            if tick || account.from >= episode.span.from {
                episode.counted = episode.counted.saturating_add(cause.passing());
                // What is there now is among those that come and go later.
                let seen = episode.seen.max(episode.counted.saturating_add(cause.standing));
                new = seen - std::mem::replace(&mut episode.seen, seen);
                episode.events = episode.events.max(seen);
            }
            if cause.because_of.is_some() {
                episode.because_of.clone_from(&cause.because_of);
            }
            let length = account.until.saturating_sub(account.from);
            let is_whole = tick && length > 0 && length >= self.interval / 2;
            // An earlier version told no rate.
            let told = || is_whole.then(|| new as f64 * 1000.0 / length as f64);
            episode.peak_per_s = cause
                .per_s
                .filter(|_| tick)
                .or_else(told)
                .map_or(episode.peak_per_s, |per_s| episode.peak_per_s.max(per_s));
            if is_whole {
                episode.share_of(account);
            }
        }
    }

    /// What goes on in this tick, and began in entries that are not known.
    fn begun_unread(&mut self, tick: &Account) {
        for cause in tick.causes.iter().filter(|cause| cause.is_fault()) {
            let open = self.open.iter().any(|own| own.id == cause.id && own.place.is_same(&cause.place));
            if !open && self.wanted.cause(&cause.id) && self.wanted.place(&cause.place) {
                self.named(&cause.place, Span { from: tick.from, until: tick.until });
                self.open.push(Episode::begun_unread(cause, tick));
            }
        }
    }

    fn minute(&mut self, minute: Account) {
        // Where nothing is wrong nothing goes on.
        self.blind &= !minute.causes.is_empty();
        self.latest = self.latest.max(minute.until);
        self.begun = Some(minute.until);
        self.cover(Span { from: minute.from, until: minute.until });
        let own = |tick: &&Account| tick.until > minute.from && tick.from < minute.until;
        let rest = minute.without(self.ticks.iter().filter(own));
        self.count_ticks();
        if rest.ticks > 0 {
            self.active(&rest, false);
            self.count(&rest);
        }
    }

    fn count_ticks(&mut self) {
        for tick in std::mem::take(&mut self.ticks) {
            self.cover(Span { from: tick.from, until: tick.until });
            self.count(&tick);
        }
    }

    /// Says of each episode whether raw evidence is kept of this time, milliseconds since the epoch.
    pub fn settle_raw(&mut self, is_kept: impl Fn(Span) -> bool) {
        let look = self.longest_interval.max(1);
        for episode in &mut self.episodes {
            let from = episode.span.from.max(self.wanted.since);
            episode.has_raw = is_kept(Span { from, until: from.saturating_add(look) });
        }
    }

    /// Nothing is known of the time.
    pub fn is_empty(&self) -> bool {
        self.covered.is_empty() && self.episodes.is_empty()
    }

    /// The recorder runs, and has given no account of the time yet: what went well it tells by the minute.
    pub fn is_open(&self) -> bool {
        self.account.ticks == 0 && !self.covered.is_empty()
    }

    /// The worst of what was asked for.
    pub fn status(&self) -> Option<Status> {
        if !self.wanted.is_narrow() {
            return self.account.status;
        }
        let worst = self.episodes.iter().filter(|episode| episode.is_fault()).map(|episode| episode.severity).min();
        match worst {
            Some(Severity::Critical) => Some(Status::Critical),
            Some(_) => Some(Status::Warning),
            None if self.account.unknown > 0 && self.account.unknown == self.account.ticks => Some(Status::Unknown),
            None => self.account.status.map(|_| Status::Ok),
        }
    }

    /// The process that was asked for, if what was recorded of the time does not name it.
    pub fn unknown_process(&self) -> Option<&str> {
        self.wanted.process.as_deref().filter(|_| !self.process_named && !self.is_empty())
    }
}
