//! An episode, put together from the entries that tell of it.

use super::{Account, Ending, Episode, Event, FEW, Place, Severity, Span, State, plus};
use crate::cause;
use crate::history::account::ActiveCause;

impl Episode {
    /// The time by which it is asked for, to the second: the first whole second of it. One before lies in the tick before, in which all
    /// may have been well. One that has none is asked for by its beginning.
    pub fn asked_for_at(&self) -> u64 {
        let whole = self.span.from.checked_next_multiple_of(1000);
        whole.filter(|whole| *whole < self.span.until).unwrap_or(self.span.from)
    }

    pub(super) fn new(event: &Event, earlier: u64) -> Self {
        let span = Span { from: event.since, until: event.at };
        Self {
            title: event.title.clone(),
            harmless: true,
            from_start: event.from_start,
            because_of: event.because_of.clone(),
            unit: event.unit.clone(),
            summary: event.summary.clone(),
            evidence: event.evidence.clone(),
            remedies: event.remedies.clone(),
            earlier,
            ..Self::begun(&event.id, &event.place, event.severity, event.state, span)
        }
    }

    /// Of one that is there in a tick, and of whose beginning nothing is known.
    pub(super) fn begun_unread(cause: &ActiveCause, tick: &Account) -> Self {
        let span = Span { from: tick.from, until: tick.from };
        let begun = Self::begun(&cause.id, &cause.place, cause.severity, cause.state, span);
        let place = cause.place.words();
        Self {
            from_start: true,
            because_of: cause.because_of.clone(),
            summary: format!("{}, {place}: its beginning, and what showed it, cannot be read.", begun.title),
            begun_unread: true,
            ..begun
        }
    }

    /// With nothing told of it but this.
    fn begun(id: &str, place: &Place, severity: Severity, state: State, span: Span) -> Self {
        Self {
            id: id.to_owned(),
            title: cause::by_id(id).map_or(id, |cause| cause.title).to_owned(),
            place: place.clone(),
            severity,
            state,
            harmless: false,
            span,
            from_start: false,
            ending: Ending::GoesOn,
            is_quiet: false,
            because_of: None,
            root: None,
            events: 0,
            unit: "events".to_owned(),
            peak_per_s: 0.0,
            attempts: None,
            failures: None,
            summary: String::new(),
            has_raw: true,
            evidence: Vec::new(),
            remedies: Vec::new(),
            begun_unread: false,
            earlier: 0,
            counted: 0,
            seen: 0,
            in_all: (None, None),
        }
    }

    pub(super) fn take(&mut self, event: &Event) {
        self.span.until = self.span.until.max(event.at);
        if std::mem::take(&mut self.begun_unread) {
            (self.span.from, self.from_start) = (self.span.from.min(event.since), event.from_start);
            self.unit.clone_from(&event.unit);
        }
        self.events = self.events.max(event.events.saturating_sub(self.earlier));
        self.harmless &= event.harmless;
        if event.because_of.is_some() {
            self.because_of.clone_from(&event.because_of);
        }
        if event.place.process.is_some() {
            self.place.clone_from(&event.place);
        }
        // Of the worst of it, the words.
        if event.severity <= self.severity && (event.per_s >= self.peak_per_s || event.severity < self.severity) {
            (self.severity, self.state) = (event.severity, event.state);
            self.summary.clone_from(&event.summary);
            self.evidence.clone_from(&event.evidence);
            self.remedies.clone_from(&event.remedies);
        }
        self.peak_per_s = self.peak_per_s.max(event.per_s);
        self.share(event.attempts, event.failures);
    }

    /// Of a tick in which it was active, where connections of the place are counted.
    pub(super) fn share_of(&mut self, tick: &Account) {
        if self.attempts.is_some() {
            let own = tick.services.iter().filter(|service| service.place.is_same(&self.place));
            let sum = own.fold((None, None), |(attempts, failures), service| {
                (plus(attempts, service.attempts), plus(failures, service.failures))
            });
            self.in_all = (plus(self.in_all.0, sum.0), plus(self.in_all.1, sum.1));
            self.share(sum.0, sum.1);
        }
    }

    /// Where each tick has too few connections for a share, all of them together may have enough.
    pub(super) fn share_in_all(&mut self) {
        let ((Some(all), Some(failed)), Some(most), Some(worst)) = (self.in_all, self.attempts, self.failures) else {
            return;
        };
        let is_worse = u128::from(failed) * u128::from(most) > u128::from(worst) * u128::from(all);
        if is_worse || most < FEW {
            self.share(Some(all), Some(failed));
        }
    }

    /// Keeps the worst share of connections that failed.
    pub(super) fn share(&mut self, attempts: Option<u64>, failures: Option<u64>) {
        let (Some(all), Some(failed)) = (attempts, failures) else { return };
        let (most, worst) = (self.attempts.unwrap_or(0), self.failures.unwrap_or(0));
        let rank = |all: u64, failed: u64, other: u64| (all >= FEW, u128::from(failed) * u128::from(other), all);
        if all > 0 && failed <= all && rank(all, failed, most.max(1)) > rank(most, worst, all) {
            (self.attempts, self.failures) = (attempts, failures);
        }
    }

    /// It is a fault, or was one.
    pub fn is_fault(&self) -> bool {
        !self.harmless && self.severity < Severity::Info && self.state != State::Benign
    }
}
