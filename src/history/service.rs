//! What became of the connections of a service.

use serde::{Deserialize, Serialize};

use super::account::{minus, plus};
use super::entry::{Place, netns};
use crate::cause::{Severity, State};
use crate::diagnosis::{CONVINCING, Diagnosis, ListenerRow};
use crate::timeline::Key;

/// Causes by which connections of a service fail that it did not reset: they end with a FIN, or by the client's own RST.
const WITHOUT_RESET: [&str; 2] = ["closed-without-answer", "client-gave-up"];
/// And this one by a RST that is not TCP's: where it can be told from those of the service, it is among them.
const REJECTED: &str = "firewall-reject";

/// What listens on one port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Service {
    pub place: Place,
    /// Plain.
    pub address: String,
    /// Connections that ended or failed; absent where that was not heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u64>,
    /// Of a tick: those that ended in it.
    #[serde(skip)]
    pub ended: Option<u64>,
    /// Of a tick: connects that a rule rejected before there was a connection, and all connects where there were any.
    #[serde(skip)]
    pub rejected: u64,
    #[serde(skip)]
    pub connects: u64,
    /// Longest accept queue, and its limit.
    pub queue: u32,
    pub backlog: u32,
    /// Which limit binds: application, somaxconn, stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// An upper bound of lost connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops: Option<u64>,
}

impl Service {
    /// Of each listener. What is counted by port is counted once, however many addresses share it.
    pub fn all(diagnosis: &Diagnosis) -> Vec<Self> {
        let mut services: Vec<Self> = diagnosis.listeners.iter().map(|row| Self::of(row, diagnosis)).collect();
        let first = |row: &ListenerRow| {
            let of_port =
                diagnosis.listeners.iter().filter(|other| other.port == row.port && other.location == row.location);
            of_port.map(|other| other.address).min() == Some(row.address)
        };
        for (service, _) in services.iter_mut().zip(&diagnosis.listeners).filter(|(_, row)| !first(row)) {
            (service.attempts, service.failures, service.ended) = (None, None, None);
            (service.rejected, service.connects) = (0, 0);
        }
        services
    }

    fn of(row: &ListenerRow, diagnosis: &Diagnosis) -> Self {
        let owner = row.processes.first();
        let unit = owner.and_then(|process| process.unit.as_ref()).map(ToString::to_string);
        let place = Place {
            at: format!("port {}", row.port),
            port: Some(row.port),
            process: owner.map(|process| process.name.clone()),
            unit,
            netns: netns(row.location.as_deref(), diagnosis),
        };
        let failed = Failed::at(&place, row.harm.failures, diagnosis);
        Self {
            place,
            address: row.address.to_string(),
            attempts: row.ended.map(|ended| ended.max(failed.all).max(failed.connects)),
            failures: Some(failed.all).filter(|failures| row.ended.is_some() || *failures > 0),
            ended: row.ended,
            rejected: failed.rejected,
            connects: failed.connects,
            queue: row.recv_q,
            backlog: row.backlog,
            limit: row.binding_limit.map(|limit| limit.name().to_owned()),
            drops: row.drops,
        }
    }

    /// Where those that are not named are summed up.
    pub(super) fn rest() -> Self {
        Self { place: Place { at: "other".to_owned(), ..Place::default() }, ..Self::default() }
    }

    pub fn is_same(&self, other: &Self) -> bool {
        self.address == other.address && self.place.is_same(&other.place)
    }

    pub fn is_worth_it(&self) -> bool {
        self.attempts.unwrap_or(0) > 0
            || self.failures.unwrap_or(0) > 0
            || self.queue > 0
            || self.drops.unwrap_or(0) > 0
    }

    pub(super) fn add(&mut self, later: &Self) {
        self.attempts = plus(self.attempts, later.attempts);
        self.failures = plus(self.failures, later.failures);
        self.drops = plus(self.drops, later.drops);
        self.queue = self.queue.max(later.queue);
        // A sum of several is at no place, and has no limit.
        if !self.place.is_same(&later.place) {
            return;
        }
        self.backlog = later.backlog;
        self.limit.clone_from(&later.limit);
        if later.place.process.is_some() {
            self.place.clone_from(&later.place);
        }
    }

    pub(super) fn remove(&mut self, part: &Self) {
        self.attempts = minus(self.attempts, part.attempts);
        self.failures = minus(self.failures, part.failures);
        self.drops = minus(self.drops, part.drops);
        // The longest queue may have been that of the part.
        if part.queue >= self.queue {
            self.queue = 0;
        }
    }
}

/// Connections of a port that failed in a window: by resets of this host, and by what causes say beyond them.
struct Failed {
    all: u64,
    rejected: u64,
    connects: u64,
}

impl Failed {
    /// `reset`: those whose reset is known to be of the service. Where no tracepoint tells of resets, a cause may still.
    fn at(place: &Place, reset: u64, diagnosis: &Diagnosis) -> Self {
        let (mut own, mut beside, mut rejected, mut connects) = (reset, 0_u64, 0, 0);
        for ranked in &diagnosis.causes {
            let finding = &ranked.finding;
            let is_fault = finding.state == State::Active && finding.severity < Severity::Info;
            let Some(harm) = finding.harm.filter(|_| is_fault && finding.confidence >= CONVINCING) else { continue };
            let there = Place::at(&Key::of(ranked).place, finding, diagnosis);
            if there.port != place.port || !there.is_same(place) {
                continue;
            }
            match ranked.id {
                id if WITHOUT_RESET.contains(&id) => beside = beside.saturating_add(harm.failures),
                REJECTED => {
                    rejected = if reset >= harm.failures { 0 } else { harm.failures };
                    connects = harm.attempts.unwrap_or(0);
                }
                _ => own = own.max(harm.failures),
            }
        }
        Self { all: own.saturating_add(beside).saturating_add(rejected), rejected, connects }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::{self, Confidence, Finding, Impact, Subject, SubjectKind};
    use crate::diagnosis::diagnose;
    use crate::diagnosis::rank::Ranked;
    use crate::evidence::harm::Harm;
    use crate::observation::testing::{Case, process};

    /// A service on port 80 with so many connections that ended and failed by its own resets, and what was found beside.
    fn service(ended: u64, reset: u64, found: &[(&str, u64, u64, Severity)]) -> Service {
        let api = process(7, "api");
        let mut diagnosis = diagnose(Case::new().listener("0.0.0.0:80", 5, 0, 0, &api).view());
        let listeners = std::mem::take(&mut diagnosis.listeners);
        diagnosis.listeners = listeners.into_iter().map(|row| ListenerRow { ended: Some(ended), ..row }).collect();
        diagnosis.listeners[0].harm = Harm { in_all: reset, ..Harm::of_unknown(reset) };
        let ranked = |(id, failures, attempts, severity): &(&str, u64, u64, Severity)| {
            let cause = cause::by_id(id).expect("a cause");
            let impact = Impact { events: *failures, per_s: 1.0, unit: "resets" };
            let subject = Subject { port: Some(80), ..Subject::new(SubjectKind::Listener) };
            let finding =
                Finding::new(State::Active, *severity, Confidence::of_test(0.9), impact, "x").subject(subject);
            let finding = finding.harm(Harm { attempts: Some(*attempts), ..Harm::of_unknown(*failures) });
            Ranked { id: cause.id, title: cause.title, finding, because_of: None }
        };
        diagnosis.causes = found.iter().map(ranked).collect();
        Service::all(&diagnosis).remove(0)
    }

    fn told(service: &Service) -> (Option<u64>, Option<u64>) {
        (service.failures, service.attempts)
    }

    #[test]
    fn what_a_cause_says_of_a_service_is_what_its_row_says() {
        let critical = Severity::Critical;
        // A rule rejects its clients: none of them ever was a connection of it.
        assert_eq!(told(&service(0, 0, &[("firewall-reject", 10, 10, critical)])), (Some(10), Some(10)));
        assert!(service(0, 0, &[("firewall-reject", 10, 10, critical)]).is_worth_it());
        // Nobody may see tracepoints, and the resets are known by counters.
        assert_eq!(told(&service(10, 0, &[("close-with-unread-data", 10, 10, critical)])), (Some(10), Some(10)));
        // It resets some and leaves others without an answer.
        assert_eq!(
            told(&service(
                20,
                5,
                &[("close-with-unread-data", 5, 20, critical), ("closed-without-answer", 15, 15, critical)]
            )),
            (Some(20), Some(20))
        );
    }

    #[test]
    fn nothing_is_counted_twice_or_for_what_is_no_fault() {
        let critical = Severity::Critical;
        assert_eq!(told(&service(10, 10, &[("close-with-unread-data", 10, 10, critical)])), (Some(10), Some(10)));
        // Where the RSTs of a rule are told as those of the port, they are among them.
        assert_eq!(told(&service(12, 10, &[("firewall-reject", 10, 12, critical)])), (Some(10), Some(12)));
        assert_eq!(told(&service(10, 0, &[("client-gave-up", 10, 10, Severity::Info)])), (Some(0), Some(10)));
        assert_eq!(told(&service(10, 0, &[])), (Some(0), Some(10)));
    }

    /// Both addresses of a port have the same connections.
    #[test]
    fn a_port_with_two_listeners_counts_its_connections_once() {
        let web = process(7, "web");
        let case = Case::new().listener("0.0.0.0:80", 5, 0, 0, &web).listener("[::]:80", 5, 0, 0, &web);
        let mut diagnosis = diagnose(case.view());
        diagnosis.listeners.iter_mut().for_each(|row| row.ended = Some(9));
        let services = Service::all(&diagnosis);
        let attempts: Vec<Option<u64>> = services.iter().map(|service| service.attempts).collect();
        assert_eq!((services.len(), attempts.iter().flatten().sum::<u64>()), (2, 9));
    }
}
