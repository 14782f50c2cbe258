//! An account of some time: verdict, causes, resets, services.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::{Direction, Place, Root, millis};
use super::service::Service;
use crate::cause::{Finding, Severity, State};
use crate::diagnosis::{Diagnosis, Status};
use crate::evidence::ledger::{self, Basis};
use crate::timeline::{Phase, Tick};

/// Services that a stored account names one by one: those with the most failures, then with the most connections. The rest is summed.
pub const MOST_SERVICES: usize = 64;
/// Services that are summed one by one until it is known which of them a stored account names; those that come later are not.
const MOST_SUMMED: usize = 512;
/// Causes and lines of the ledger that an account names.
const MOST: usize = 64;

/// An account of a tick, or of the ticks of a minute.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Account {
    /// Milliseconds since the epoch.
    pub from: u64,
    pub until: u64,
    pub ticks: u32,
    /// Of these, those in which too little was seen for a verdict.
    #[serde(default)]
    pub unknown: u32,
    /// The worst verdict of its ticks.
    pub status: Option<Status>,
    #[serde(default)]
    pub causes: Vec<ActiveCause>,
    #[serde(default)]
    pub resets: Vec<Line>,
    #[serde(default)]
    pub totals: Totals,
    /// Of a stored account those that had connections, or a queue.
    #[serde(default)]
    pub services: Vec<Service>,
    /// The services that are not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Service>,
}

/// A cause that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActiveCause {
    pub id: String,
    pub place: Place,
    pub severity: Severity,
    pub state: State,
    /// What came in the time, and the most that were there at once.
    pub events: u64,
    /// The latter.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub standing: u64,
    /// The highest rate of a tick; of an earlier version none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_s: Option<f64>,
    /// The deeper cause that explains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because_of: Option<Root>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Resets of one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub direction: Direction,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    pub basis: Basis,
    pub count: u64,
}

/// What was counted in all; absent where nothing was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_unexplained: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

impl Account {
    /// Of one tick.
    pub fn of(tick: &Tick) -> Self {
        let mut account = Self::of_window(&tick.diagnosis, tick.status, causes(tick));
        let length = account.until.saturating_sub(account.from);
        account.until = millis(tick.at.wall);
        account.from = account.until.saturating_sub(length);
        account
    }

    /// Of one window, with the verdict and the causes that are believed.
    pub fn of_window(diagnosis: &Diagnosis, status: Status, causes: Vec<ActiveCause>) -> Self {
        let from = millis(diagnosis.started.wall);
        let mut account = Self {
            from,
            until: from.saturating_add(millis(diagnosis.window)),
            ticks: 1,
            unknown: u32::from(status == Status::Unknown),
            status: Some(status),
            causes,
            resets: lines(diagnosis),
            totals: Totals::of(diagnosis),
            services: Service::all(diagnosis),
            other: None,
        };
        account.limit();
        account
    }

    /// Adds what came after it.
    pub fn add(&mut self, later: &Self) {
        if self.ticks == 0 {
            self.from = later.from;
        }
        self.until = later.until;
        self.ticks = self.ticks.saturating_add(later.ticks);
        self.unknown = self.unknown.saturating_add(later.unknown);
        self.status = worst(self.status, later.status);
        for cause in &later.causes {
            match self.causes.iter_mut().find(|own| own.id == cause.id && own.place.is_same(&cause.place)) {
                Some(own) => {
                    own.add(cause);
                    own.severity = own.severity.min(cause.severity);
                    own.state = cause.state;
                    if cause.because_of.is_some() {
                        own.because_of.clone_from(&cause.because_of);
                    }
                }
                None => self.causes.push(cause.clone()),
            }
        }
        for line in &later.resets {
            match self.resets.iter_mut().find(|own| own.is_same(line)) {
                Some(own) => own.count = own.count.saturating_add(line.count),
                None => self.resets.push(line.clone()),
            }
        }
        self.totals.add(later.totals);
        for service in later.services.iter().filter(|service| service.is_worth_it()) {
            let full = self.services.len() >= MOST_SUMMED;
            match self.services.iter_mut().find(|own| own.is_same(service)) {
                Some(own) => own.add(service),
                None if !full => self.services.push(service.clone()),
                None => self.other.get_or_insert_with(Service::rest).add(service),
            }
        }
        if let Some(other) = &later.other {
            self.other.get_or_insert_with(Service::rest).add(other);
        }
        self.limit();
    }

    /// What is left of a minute without ticks of it. All ticks with another verdict than OK are stored, and so are these.
    pub fn without<'a>(&self, ticks: impl Iterator<Item = &'a Self>) -> Self {
        let (mut rest, mut status) = (self.clone(), None);
        for tick in ticks {
            status = worst(status, tick.status);
            rest.ticks = rest.ticks.saturating_sub(tick.ticks);
            rest.unknown = rest.unknown.saturating_sub(tick.unknown);
            for cause in &tick.causes {
                rest.causes
                    .iter_mut()
                    .filter(|own| own.id == cause.id && own.place.is_same(&cause.place))
                    .for_each(|own| own.remove(cause));
                rest.causes.retain(|own| own.events > 0 || own.id != cause.id || !own.place.is_same(&cause.place));
            }
            for line in &tick.resets {
                let own = rest.resets.iter_mut().find(|own| own.is_same(line));
                own.into_iter().for_each(|own| own.count = own.count.saturating_sub(line.count));
            }
            rest.totals.remove(tick.totals);
            for service in tick.services.iter().chain(&tick.other) {
                let own = rest.services.iter_mut().find(|own| own.is_same(service));
                own.or(rest.other.as_mut()).into_iter().for_each(|own| own.remove(service));
            }
        }
        // A tick that could not be stored is in the minute only.
        if rest.ticks == 0 {
            rest.status = None;
        } else if status == rest.status {
            rest.status = Some(Status::Ok);
        }
        rest.resets.retain(|line| line.count > 0);
        rest.services.retain(Service::is_worth_it);
        rest
    }

    /// Failures of all services; `None` if nothing told.
    pub fn failures(&self) -> Option<u64> {
        self.services.iter().chain(&self.other).fold(None, |sum, service| plus(sum, service.failures))
    }

    fn limit(&mut self) {
        self.causes.truncate(MOST);
        self.resets.truncate(MOST);
    }

    /// As it is stored. Of a sum, once it is whole: who is named would change from part to part.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.services.retain(Service::is_worth_it);
        if self.services.len() > MOST_SERVICES {
            let weight = |service: &Service| (service.failures, service.attempts, service.drops, service.queue);
            self.services.sort_by_key(|service| std::cmp::Reverse(weight(service)));
            let rest = self.services.split_off(MOST_SERVICES);
            let other = self.other.get_or_insert_with(Service::rest);
            rest.iter().for_each(|service| other.add(service));
        }
        self
    }
}

impl ActiveCause {
    /// Those of a finding.
    pub fn counts(finding: &Finding) -> (u64, u64) {
        (finding.passing().saturating_add(finding.standing), finding.standing)
    }

    /// What came and went.
    pub fn passing(&self) -> u64 {
        self.events.saturating_sub(self.standing)
    }

    /// It is a fault, not a risk or what explains numbers.
    pub fn is_fault(&self) -> bool {
        self.severity < Severity::Info && self.state == State::Active
    }

    fn add(&mut self, later: &Self) {
        let passed = self.passing().saturating_add(later.passing());
        self.standing = self.standing.max(later.standing);
        self.events = passed.saturating_add(self.standing);
        self.per_s = [self.per_s, later.per_s].into_iter().flatten().reduce(f64::max);
    }

    fn remove(&mut self, part: &Self) {
        let passed = self.passing().saturating_sub(part.passing());
        // The most at once may have been in the part.
        if part.standing >= self.standing {
            self.standing = 0;
        }
        self.events = passed.saturating_add(self.standing);
    }
}

impl Line {
    fn is_same(&self, other: &Self) -> bool {
        (self.direction, self.basis, &self.reason, &self.cause)
            == (other.direction, other.basis, &other.reason, &other.cause)
    }

    /// As the ledger says it.
    pub fn words(&self) -> String {
        ledger::words(&self.reason, self.cause.as_deref())
    }
}

impl Totals {
    fn of(diagnosis: &Diagnosis) -> Self {
        let ledger = &diagnosis.ledger;
        let total = |account: &ledger::Account| account.total.as_ref().ok().copied();
        Self {
            sent: total(&ledger.sent),
            sent_unexplained: ledger.sent.unexplained(),
            received: total(&ledger.received),
            firewall: total(&ledger.firewall),
            dropped: total(&ledger.dropped),
        }
    }

    fn add(&mut self, later: Self) {
        self.sent = plus(self.sent, later.sent);
        self.sent_unexplained = plus(self.sent_unexplained, later.sent_unexplained);
        self.received = plus(self.received, later.received);
        self.firewall = plus(self.firewall, later.firewall);
        self.dropped = plus(self.dropped, later.dropped);
    }

    fn remove(&mut self, part: Self) {
        self.sent = minus(self.sent, part.sent);
        self.sent_unexplained = minus(self.sent_unexplained, part.sent_unexplained);
        self.received = minus(self.received, part.received);
        self.firewall = minus(self.firewall, part.firewall);
        self.dropped = minus(self.dropped, part.dropped);
    }
}

/// What is left without what was told of a part.
pub(super) fn minus(whole: Option<u64>, part: Option<u64>) -> Option<u64> {
    whole.map(|whole| whole.saturating_sub(part.unwrap_or(0)))
}

/// The sum of what was told.
pub(super) fn plus(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

/// What is unknown is worse than well, and no fault.
pub(super) fn worst(one: Option<Status>, other: Option<Status>) -> Option<Status> {
    let rank = |status: &Status| match status {
        Status::Ok => 0,
        Status::Unknown => 1,
        Status::Warning => 2,
        Status::Critical => 3,
    };
    one.into_iter().chain(other).max_by_key(rank)
}

/// The episodes that go on.
fn causes(tick: &Tick) -> Vec<ActiveCause> {
    let on = tick.episodes.iter().filter(|episode| episode.phase == Phase::Active);
    let of = |episode: &crate::timeline::Episode| {
        let (events, standing) = ActiveCause::counts(&episode.latest.finding);
        ActiveCause {
            id: episode.key.id.to_owned(),
            place: Place::of(episode, &tick.diagnosis),
            severity: episode.severity,
            state: episode.latest.finding.state,
            events,
            standing,
            // To what is shown, and a little more: these are most of what an index holds.
            per_s: Some((episode.latest.finding.impact.per_s * 1e3).round() / 1e3),
            because_of: Root::of(episode, tick),
        }
    };
    on.map(of).collect()
}

fn lines(diagnosis: &Diagnosis) -> Vec<Line> {
    let ledger = &diagnosis.ledger;
    let accounts = [
        (Direction::Sent, &ledger.sent),
        (Direction::Received, &ledger.received),
        (Direction::Firewall, &ledger.firewall),
        (Direction::Dropped, &ledger.dropped),
    ];
    let mut counts: BTreeMap<(Direction, &str, Basis, Option<&str>), u64> = BTreeMap::new();
    for (direction, account) in accounts {
        for line in &account.lines {
            let count = counts.entry((direction, line.reason, line.basis, line.cause)).or_default();
            *count = count.saturating_add(line.count);
        }
    }
    let of = |((direction, reason, basis, cause), count): ((Direction, &str, Basis, Option<&str>), u64)| Line {
        direction,
        reason: reason.to_owned(),
        cause: cause.map(str::to_owned),
        basis,
        count,
    };
    counts.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 90 listeners in turn: of each three ticks two have connections at a port. Whoever is named has all of its connections under
    /// its name, and nobody those of others.
    #[test]
    fn connections_are_counted_at_their_own_port_however_many_are_busy() {
        let service = |port: u16, attempts| Service {
            place: Place {
                at: format!("port {port}"),
                port: Some(port),
                process: Some("app".into()),
                ..Place::default()
            },
            attempts: Some(attempts),
            failures: Some(0),
            ..Service::default()
        };
        let mut minute = Account::default();
        for round in 0..30_u16 {
            let busy = (0..90).filter(|port| (round + port) % 3 != 0).map(|port| service(port, 2));
            minute.add(&Account { ticks: 1, services: busy.collect(), ..Account::default() });
        }
        let minute = minute.bounded();
        assert_eq!(minute.services.len(), MOST_SERVICES);
        assert!(minute.services.iter().all(|service| service.attempts == Some(40)), "{:?}", minute.services);
        let other = minute.other.expect("a sum of the others");
        assert_eq!((other.attempts, other.place.port, other.place.process), (Some(26 * 40), None, None));
    }
}
