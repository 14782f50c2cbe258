//! What the entries of some time tell: episodes, a row of each service, what was counted, and what was not recorded.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::account::{Account, Service, plus};
use super::entry::{Direction, Entry, Event, Place};
use crate::cause::{Severity, State};
use crate::timeline::What;

/// Accounts that lie so close follow each other: a tick that came late.
const JOINS: u64 = 15_000;
/// An account is written when its minute is over: so much may still be open.
const OPEN: u64 = 130_000;
/// Episodes, changes and services that are kept.
const MOST: usize = 5_000;

/// What is asked for. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    pub since: u64,
    pub until: u64,
    /// One of these; none for any.
    pub ports: BTreeSet<u16>,
    pub process: Option<String>,
    pub cause: Option<String>,
}

/// A time, milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: u64,
    pub until: u64,
}

/// How an episode ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Ended,
    /// It was there when the latest account was written.
    GoesOn,
    /// The recorder ended before it did.
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
    pub events: u64,
    pub unit: String,
    pub peak_per_s: f64,
    /// Connections of the place in the worst window, and those that failed.
    pub attempts: Option<u64>,
    pub failures: Option<u64>,
    pub summary: String,
    /// What showed it, and what to do about it.
    pub evidence: Vec<String>,
    pub remedies: Vec<String>,
    /// Events of earlier times of the same episode.
    earlier: u64,
    /// Events of this time that accounts told since it began.
    counted: u64,
}

/// One service over the time that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub service: Service,
    /// Connections that failed or were lost in each part of the time; `None` where nothing was recorded.
    pub failed: Vec<Option<u64>>,
    /// Longest accept queue of each part, of 1,000 for a full one.
    pub fill: Vec<u16>,
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
    /// Resets by direction and reason in each part of the time.
    pub by_reason: BTreeMap<(Direction, String), Vec<u64>>,
    /// All accounts together.
    pub account: Account,
    /// What was not recorded.
    pub missing: Vec<Span>,
    /// Entries of a later version.
    pub unknown: u64,
    /// Addresses and names were replaced.
    pub redacted: bool,
    pub hostname: Option<String>,
    buckets: usize,
    covered: Vec<Span>,
    /// Ticks that are in no minute yet.
    tail: Account,
    ended: HashMap<(String, Place), u64>,
    open: Vec<Episode>,
    latest: u64,
    /// Since when the recorder has given no account.
    begun: Option<u64>,
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
                self.latest = started.at;
            }
            Entry::Stopped(stopped) => {
                self.latest = stopped.at;
                self.interrupted();
            }
            Entry::Event(event) => self.event(event),
            Entry::Minute(account) => {
                self.tail = Account::default();
                self.begun = Some(account.until);
                self.account(&account);
            }
            Entry::Tick(account) => self.tail.add(&account),
            Entry::Change { at, text } => {
                if self.is_within(at) && self.changes.len() < MOST {
                    self.changes.push(Stamped { at, text });
                }
            }
            Entry::Lost { .. } => {}
            Entry::Unknown => self.unknown += 1,
        }
    }

    /// The recorder ended: what it saw since its latest account is known as far as it told.
    fn interrupted(&mut self) {
        let tail = std::mem::take(&mut self.tail);
        if tail.ticks > 0 {
            self.account(&tail);
        }
        if let Some(from) = self.begun.take().filter(|from| *from < self.latest) {
            self.cover(Span { from, until: self.latest });
        }
    }

    /// After the last entry. `written`: a recorder writes the store now.
    pub fn finish(mut self, written: bool) -> Self {
        if written && self.begun.is_some_and(|from| from.saturating_add(OPEN) >= self.wanted.until) {
            self.latest = self.latest.max(self.wanted.until);
        }
        self.interrupted();
        let latest = self.latest;
        for mut episode in std::mem::take(&mut self.open) {
            let on = episode.span.until.saturating_add(OPEN) >= latest;
            episode.ending = if on { Ending::GoesOn } else { Ending::NotSeen };
            self.close(episode);
        }
        self.episodes.sort_by_key(|episode| episode.span.from);
        let weight = |row: &Row| (row.failed.iter().flatten().sum::<u64>(), row.service.attempts);
        self.services.sort_by_key(|row| std::cmp::Reverse(weight(row)));
        self.missing = self.gaps();
        self
    }

    fn is_within(&self, at: u64) -> bool {
        (self.wanted.since..=self.wanted.until).contains(&at)
    }

    fn wants(&self, id: &str, place: &Place) -> bool {
        let Wanted { ports, process, cause, .. } = &self.wanted;
        (ports.is_empty() || place.port.is_some_and(|port| ports.contains(&port)))
            && process.as_ref().is_none_or(|name| place.process.as_ref() == Some(name))
            && cause.as_ref().is_none_or(|cause| cause == id)
    }

    fn event(&mut self, event: Event) {
        self.latest = self.latest.max(event.at);
        if !self.wants(&event.id, &event.place) {
            return;
        }
        let known = self.open.iter().position(|own| own.id == event.id && own.place.is_same(&event.place));
        let begins = matches!(event.what, What::Appeared | What::Again);
        if let Some(index) = known.filter(|_| begins) {
            let mut lost = self.open.remove(index);
            lost.ending = Ending::NotSeen;
            self.close(lost);
        }
        let key = (event.id.clone(), Place { process: None, unit: None, ..event.place.clone() });
        let index = match known.filter(|_| !begins) {
            Some(index) => index,
            None => {
                let earlier = if event.what == What::Again { self.ended.get(&key).copied().unwrap_or(0) } else { 0 };
                self.open.push(Episode::new(&event, earlier));
                self.open.len() - 1
            }
        };
        let Some(episode) = self.open.get_mut(index) else { return };
        episode.take(&event);
        if event.what == What::Ended {
            self.ended.insert(key, event.events);
            let episode = self.open.remove(index);
            self.close(episode);
        }
    }

    fn close(&mut self, episode: Episode) {
        let touches = episode.span.until >= self.wanted.since && episode.span.from <= self.wanted.until;
        if touches && self.episodes.len() < MOST {
            self.episodes.push(episode);
        }
    }

    fn account(&mut self, account: &Account) {
        self.latest = self.latest.max(account.until);
        for cause in &account.causes {
            let open = self.open.iter_mut().find(|own| own.id == cause.id && own.place.is_same(&cause.place));
            if let Some(episode) = open {
                episode.span.until = episode.span.until.max(account.until);
                // Events say how many there were when it changed; accounts, what came since.
                if account.from >= episode.span.from {
                    episode.counted = episode.counted.saturating_add(cause.events);
                    episode.events = episode.events.max(episode.counted);
                }
            }
        }
        if account.until < self.wanted.since || account.from > self.wanted.until {
            return;
        }
        self.cover(Span { from: account.from, until: account.until });
        let bucket = self.bucket(account.from / 2 + account.until / 2);
        for service in &account.services {
            let Some(port) = service.place.port else { continue };
            let wanted = (self.wanted.ports.is_empty() || self.wanted.ports.contains(&port))
                && self.wanted.process.as_ref().is_none_or(|name| service.place.process.as_ref() == Some(name));
            if !wanted {
                continue;
            }
            let index = match self.services.iter().position(|row| row.service.is_same(service)) {
                Some(index) => index,
                None if self.services.len() < MOST => {
                    let service = Service { attempts: None, failures: None, drops: None, ..service.clone() };
                    let (failed, fill) = (vec![None; self.buckets], vec![0; self.buckets]);
                    self.services.push(Row { service, failed, fill });
                    self.services.len() - 1
                }
                None => continue,
            };
            if let Some(row) = self.services.get_mut(index) {
                row.service.add(service);
                if let Some(fill) = row.fill.get_mut(bucket) {
                    let full = u64::from(service.queue) * 1000 / (u64::from(service.backlog) + 1);
                    *fill = (*fill).max(u16::try_from(full.min(1000)).unwrap_or(1000));
                }
                if let Some(failed) = row.failed.get_mut(bucket) {
                    *failed = plus(*failed, plus(service.failures, service.drops));
                }
            }
        }
        for line in &account.resets {
            let full = self.by_reason.len() >= MOST;
            let key = (line.direction, line.reason.clone());
            if full && !self.by_reason.contains_key(&key) {
                continue;
            }
            let counts = self.by_reason.entry(key).or_insert_with(|| vec![0; self.buckets]);
            if let Some(count) = counts.get_mut(bucket) {
                *count = count.saturating_add(line.count);
            }
        }
        self.account.add(&Account { services: Vec::new(), other: None, ..account.clone() });
    }

    fn cover(&mut self, span: Span) {
        match self.covered.last_mut() {
            Some(last) if span.from <= last.until.saturating_add(JOINS) && span.from >= last.from => {
                last.until = last.until.max(span.until);
            }
            _ => self.covered.push(span),
        }
    }

    fn bucket(&self, at: u64) -> usize {
        let Wanted { since, until, .. } = self.wanted;
        let length = until.saturating_sub(since).max(1);
        let part = at.saturating_sub(since).saturating_mul(self.buckets as u64) / length;
        usize::try_from(part).unwrap_or(usize::MAX).min(self.buckets - 1)
    }

    /// Nothing is known of the time.
    pub fn is_empty(&self) -> bool {
        self.covered.is_empty() && self.episodes.is_empty()
    }

    /// Which parts of the time were recorded, in the width of the rows.
    pub fn recorded(&self) -> Vec<bool> {
        let mut recorded = vec![false; self.buckets];
        for span in &self.covered {
            let (from, until) = (self.bucket(span.from), self.bucket(span.until));
            recorded.iter_mut().take(until + 1).skip(from).for_each(|part| *part = true);
        }
        recorded
    }

    fn gaps(&self) -> Vec<Span> {
        let Wanted { since, until, .. } = self.wanted;
        let mut covered = self.covered.clone();
        covered.sort_by_key(|span| span.from);
        let (mut gaps, mut at) = (Vec::new(), since);
        for span in covered {
            if span.from > at.saturating_add(JOINS) {
                gaps.push(Span { from: at, until: span.from });
            }
            at = at.max(span.until);
        }
        if until > at.saturating_add(JOINS) {
            gaps.push(Span { from: at, until });
        }
        gaps
    }
}

impl Episode {
    fn new(event: &Event, earlier: u64) -> Self {
        Self {
            id: event.id.clone(),
            title: event.title.clone(),
            place: event.place.clone(),
            severity: event.severity,
            state: event.state,
            harmless: true,
            span: Span { from: event.since, until: event.at },
            from_start: event.from_start,
            ending: Ending::GoesOn,
            events: 0,
            unit: event.unit.clone(),
            peak_per_s: 0.0,
            attempts: None,
            failures: None,
            summary: event.summary.clone(),
            evidence: event.evidence.clone(),
            remedies: event.remedies.clone(),
            earlier,
            counted: 0,
        }
    }

    fn take(&mut self, event: &Event) {
        self.span.until = self.span.until.max(event.at);
        self.events = self.events.max(event.events.saturating_sub(self.earlier));
        self.harmless &= event.harmless;
        if event.place.process.is_some() {
            self.place.clone_from(&event.place);
        }
        // Of the worst of it, the words.
        if event.severity <= self.severity && (event.per_s >= self.peak_per_s || event.severity < self.severity) {
            (self.severity, self.state) = (event.severity, event.state);
            (self.attempts, self.failures) = (event.attempts, event.failures);
            self.summary.clone_from(&event.summary);
            self.evidence.clone_from(&event.evidence);
            self.remedies.clone_from(&event.remedies);
        }
        self.peak_per_s = self.peak_per_s.max(event.per_s);
        if event.what == What::Ended {
            (self.ending, self.span.until) = (Ending::Ended, event.at);
        }
    }

    /// It is a fault, or was one.
    pub fn is_fault(&self) -> bool {
        !self.harmless && self.severity < Severity::Info && self.state != State::Benign
    }
}

#[cfg(test)]
mod tests;
