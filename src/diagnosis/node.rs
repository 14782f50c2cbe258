//! The diagnosis of a whole node: each network namespace is judged by itself, and what was found in all of them is one report.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::filter::{Filter, is_host_wide};
use super::idle::Known;
use super::rank::{self, Ranked};
use super::{Diagnosis, MOST_LISTENERS, NotChecked, RuledOut, Status, across, judge, sentence, weighs};
use crate::cause::{Finding, REGISTRY, State, manifest};
use crate::evidence::harm::Harm;
use crate::evidence::ledger::{Account, Basis, Ledger, Line};
use crate::evidence::{Evidence, Total};
use crate::observation::{Observation, SourceStatus, View, delta};
use crate::source::counters::Per;
use crate::source::node::{Container, Location, Node};
use crate::value::{Failure, NetnsId};

/// One network namespace of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Namespace {
    pub location: Arc<Location>,
    pub status: Status,
    pub summary: String,
    /// It ended in the window.
    pub gone: bool,
    pub ledger: Ledger,
    /// Findings that are more than a note.
    pub alarms: usize,
}

/// How much of the node was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// Network namespaces that were looked into, and those that are known.
    pub looked: u64,
    pub known: u64,
    /// There may be others that are not known of: their processes are hidden.
    pub more: bool,
    /// The processes of the host are not visible from here: this is a container.
    pub guest: bool,
    /// What would let one look into the others.
    pub needs: Option<String>,
    /// Only one was asked for.
    pub narrowed: bool,
}

impl Coverage {
    pub(super) fn of(observation: &Observation, narrowed: bool) -> Option<Self> {
        let node = observation.host.node.value()?;
        let unknown = observation.netns.keys().filter(|id| !node.netns.contains_key(id)).count() as u64;
        Some(Self {
            looked: observation.netns.len() as u64,
            known: node.known() + unknown,
            more: node.may_have_more(),
            guest: node.hidden.guest,
            needs: node.hidden.needs.clone().filter(|_| !narrowed),
            narrowed,
        })
    }

    /// `looked at 1 of 14 network namespaces`, without the verb.
    pub fn share(&self) -> String {
        let more = if self.more && self.needs.is_some() { "at least " } else { "" };
        let noun = if self.known == 1 { "network namespace" } else { "network namespaces" };
        format!("{} of {more}{} {noun}", self.looked, self.known)
    }
}

/// One namespace with its own diagnosis.
pub(super) struct Judged<'a> {
    pub view: View<'a>,
    /// `None` of an idle one, which was not judged again.
    pub evidence: Option<Evidence<'a>>,
    pub location: Arc<Location>,
    pub diagnosis: Diagnosis,
    /// Nothing was found in it.
    clean: bool,
}

/// Judges everything that was observed: one namespace, or the whole node. `None` as soon as `stopped` says so.
pub fn diagnose_all(observation: &Observation, filter: &Filter, stopped: &dyn Fn() -> bool) -> Option<Diagnosis> {
    diagnose_each(observation, filter, stopped, &mut Known::default()).map(|(diagnosis, _)| diagnosis)
}

/// As [`diagnose_all`], with the evidence of each namespace that was judged for one who needs it for more. `known`: from the
/// windows before, with the same filter.
pub fn diagnose_each<'a>(
    observation: &'a Observation,
    filter: &Filter,
    stopped: &dyn Fn() -> bool,
    known: &mut Known,
) -> Option<(Diagnosis, BTreeMap<NetnsId, Evidence<'a>>)> {
    let own = observation.view()?.after().netns;
    let mut judged = Vec::new();
    for view in observation.views() {
        let location = Arc::new(location(observation, view));
        // What is of the whole host is judged with the own one.
        let unchanged = if view.after().netns == own { None } else { known.take(view) };
        if let Some(diagnosis) = unchanged {
            judged.push(Judged { view, evidence: None, location, diagnosis, clean: true });
            continue;
        }
        let evidence = Evidence::with(view, known.recent(view.after().netns));
        let (diagnosis, whole) = judge(&evidence, view, filter, stopped);
        if !whole {
            return None;
        }
        known.remember(view.after().netns, evidence.to_remember(failed(&diagnosis)));
        let clean = diagnosis.causes.is_empty() && diagnosis.status == Status::Ok;
        judged.push(Judged { view, evidence: Some(evidence), location, diagnosis, clean });
    }
    judged.sort_by_key(|one| one.view.after().netns != own);
    let mut diagnosis = match &mut judged[..] {
        [] => return None,
        [one] => one.diagnosis.clone(),
        _ => {
            let links = across::link(&mut judged);
            merged(&mut judged, &links, filter)?
        }
    };
    // In the namespace of the one who looks, nothing has to be told of where it is.
    let narrowed = observation.netns.len() == 1 && judged.first().is_some_and(|one| !one.location.own);
    diagnosis.coverage = Coverage::of(observation, narrowed);
    known.forget();
    known.keep_recent(observation.view()?.after().at.mono, |netns| observation.netns.contains_key(&netns));
    let among = judged.len() > 1;
    let mut around = BTreeMap::new();
    for one in judged {
        let id = one.view.after().netns;
        around.extend(one.evidence.map(|evidence| (id, evidence)));
        if among && one.clean && id != own {
            known.keep(one.view, one.diagnosis);
        }
    }
    Some((diagnosis, around))
}

/// What a diagnosis says that failed now, and why, and how many of it stay.
fn failed(diagnosis: &Diagnosis) -> impl Iterator<Item = (&'static str, &Harm, u64)> {
    let active = diagnosis.causes.iter().filter(|cause| cause.finding.state == State::Active);
    active.filter_map(|cause| Some((cause.id, cause.finding.harm.as_ref()?, cause.finding.standing)))
}

fn location(observation: &Observation, view: View<'_>) -> Location {
    let id = view.after().netns;
    let known = observation.host.node.value().map(|node| node.location(id));
    let name = view.netns.name.clone();
    known.map_or_else(
        || Location { netns: id, name: name.clone(), ..Location::default() },
        |known| Location { name: known.name.clone().or(name.clone()), ..known },
    )
}

/// Tells of each finding and subject where it is.
pub(super) fn place(causes: &mut [Ranked], view: View<'_>) {
    let Some(node) = view.host.node.value() else { return };
    let location = Arc::new(node.location(view.after().netns));
    for finding in causes.iter_mut().map(|cause| &mut cause.finding) {
        finding.location = (!location.own).then(|| location.clone());
        for subject in &mut finding.subjects {
            subject.location = finding.location.clone();
            let of_process = subject.pid.and_then(|pid| container_of(view, node, pid));
            subject.container = of_process.or_else(|| {
                let alone = location.containers.len() == 1;
                let ours = finding.location.is_some() && (subject.pid.is_none() || alone);
                location.container().filter(|_| ours).cloned().map(Arc::new)
            });
        }
    }
    if let (true, Some(container)) = (!location.own && location.pod().is_some(), location.container()) {
        for cause in causes {
            manifest::advise(cause.id, &mut cause.finding, container.label());
        }
    }
}

fn container_of(view: View<'_>, node: &Node, pid: u32) -> Option<Arc<Container>> {
    let owners = [&view.host.after.owners, &view.host.before.owners].map(|owners| owners.value());
    let process = owners.into_iter().flatten().find_map(|owners| owners.processes.get(&pid))?;
    node.containers.get(process.container.as_ref()?).cloned()
}

/// One report of all.
fn merged(judged: &mut [Judged<'_>], links: &BTreeMap<usize, usize>, filter: &Filter) -> Option<Diagnosis> {
    let namespaces: Vec<Namespace> = judged.iter().map(namespace).collect();
    let concerned: Vec<bool> = judged.iter().map(|one| concerns(&one.diagnosis, filter)).collect();
    let causes = causes(judged, links);
    let judged = &*judged;
    let own = judged.first()?.diagnosis.clone();
    let relevant = || judged.iter().zip(&concerned).filter(|(_, concerned)| **concerned).map(|(one, _)| one);
    let unseen = !filter.is_empty() && judged.iter().all(|one| one.diagnosis.unseen);
    let status = relevant().map(|one| one.diagnosis.status).max_by_key(|status| weight(*status)).unwrap_or(own.status);
    let ledger = sum(judged.iter().map(|one| &one.diagnosis.ledger));
    let counters = counters(judged);
    let window = judged.iter().map(|one| one.diagnosis.window).max().unwrap_or_default();
    let summary = match status {
        Status::Critical | Status::Warning => {
            let host_wide = causes.first().is_some_and(|cause| is_host_wide(&cause.finding)) && !filter.is_empty();
            sentence::worst(&causes, host_wide.then_some(filter), true)
        }
        Status::Ok if filter.is_empty() && !own.totals_only => {
            sentence::healthy(&ledger, &causes, window, &|name| counters.get(name).and_then(|(_, delta)| *delta))
        }
        _ => {
            // Where the service is there is more to say than where it is called.
            let fits = |one: &&Judged<'_>| one.diagnosis.status == status;
            let served = relevant().filter(fits).find(|one| !one.diagnosis.listeners.is_empty());
            let telling = served.or_else(|| relevant().find(fits)).or(judged.first());
            telling.map(|one| located(&one.location, &one.diagnosis.summary)).unwrap_or_default()
        }
    };
    let ports = ports(judged, filter);
    let listeners_left_out: u64 = judged.iter().map(|one| one.diagnosis.listeners_left_out).sum();
    let mut listeners: Vec<_> = judged.iter().flat_map(|one| one.diagnosis.listeners.iter().cloned()).collect();
    let fill = |row: &super::ListenerRow| f64::from(row.recv_q) / (f64::from(row.backlog) + 1.0);
    listeners.sort_by(|a, b| fill(b).total_cmp(&fill(a)));
    let more = listeners.len().saturating_sub(MOST_LISTENERS) as u64;
    listeners.truncate(MOST_LISTENERS);
    let sockets = judged.iter().map(|one| one.diagnosis.sockets.clone()).reduce(|all, more| {
        let (mut all, more) = (all?, more?);
        more.into_iter().for_each(|(state, count)| *all.entry(state).or_default() += count);
        Some(all)
    });
    let (ruled_out, not_checked) = negative(judged, &causes);
    let sources = sources(judged);
    Some(Diagnosis {
        window,
        sources,
        status,
        summary,
        causes,
        ruled_out,
        not_checked,
        ledger,
        listeners,
        listeners_left_out: listeners_left_out.saturating_add(more),
        sockets: sockets.flatten(),
        counters,
        unseen,
        ports,
        namespaces,
        ..own
    })
}

/// The counters of all; those of the host once.
fn counters(judged: &[Judged<'_>]) -> BTreeMap<String, Total> {
    let mut counters: BTreeMap<String, Total> = BTreeMap::new();
    for (name, (total, delta)) in judged.iter().flat_map(|one| &one.diagnosis.counters) {
        match counters.get_mut(name) {
            Some(_) if delta::source_of(name).per == Per::Host => {}
            Some(known) => {
                let moved = known.1.zip(*delta).map(|(known, more)| known.saturating_add(more));
                *known = (known.0.saturating_add(*total), moved);
            }
            None => drop(counters.insert(name.clone(), (*total, *delta))),
        }
    }
    counters
}

fn namespace(one: &Judged<'_>) -> Namespace {
    let alarm = |cause: &&Ranked| weighs(&cause.finding) && cause.finding.severity < crate::cause::Severity::Info;
    Namespace {
        location: one.location.clone(),
        status: one.diagnosis.status,
        summary: one.diagnosis.summary.clone(),
        gone: one.view.netns.gone,
        ledger: one.diagnosis.ledger.clone(),
        alarms: one.diagnosis.causes.iter().filter(alarm).count(),
    }
}

/// A sentence about one namespace.
fn located(location: &Location, sentence: &str) -> String {
    if location.own {
        return sentence.to_owned();
    }
    let mut letters = sentence.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_lowercase).collect();
    // What is written in capitals stays so: RST, TCP.
    match letters.clone().next() {
        Some(second) if second.is_uppercase() => format!("In {location}: {sentence}"),
        _ => format!("In {location}: {first}{}", letters.as_str()),
    }
}

/// Greater is worse. That something cannot be told outweighs that nothing was seen elsewhere.
fn weight(status: Status) -> u8 {
    match status {
        Status::Ok => 0,
        Status::Unknown => 1,
        Status::Warning => 2,
        Status::Critical => 3,
    }
}

/// What was asked for is in this namespace, or nothing was.
fn concerns(diagnosis: &Diagnosis, filter: &Filter) -> bool {
    let found = || diagnosis.causes.iter().any(|cause| !is_host_wide(&cause.finding));
    let used = || filter.ports.is_empty() || diagnosis.ports.iter().any(|port| !port.is_unused());
    filter.is_empty() || !diagnosis.unseen && (used() || found())
}

fn ports(judged: &[Judged<'_>], filter: &Filter) -> Vec<super::PortReport> {
    let mut reports = Vec::new();
    for port in &filter.ports {
        let all = || judged.iter().flat_map(|one| &one.diagnosis.ports).filter(|report| report.port == *port);
        let used: Vec<_> = all().filter(|report| !report.is_unused()).cloned().collect();
        match used.is_empty() {
            true => reports.extend(all().next().cloned()),
            false => reports.extend(used),
        }
    }
    reports
}

/// Findings about a shortage that all namespaces share: each of them has it.
const SHARED: [&str; 3] = ["tcp-memory-exhausted", "orphan-limit", "fd-exhaustion"];

/// The findings of all, roots with what follows from them, the worst first. `links`: what follows from a finding of another
/// namespace, by places in the row of all findings.
fn causes(judged: &mut [Judged<'_>], links: &BTreeMap<usize, usize>) -> Vec<Ranked> {
    let (mut all, mut root_of): (Vec<Ranked>, Vec<Option<usize>>) = Default::default();
    for one in judged {
        let offset = all.len();
        for (place, cause) in std::mem::take(&mut one.diagnosis.causes).into_iter().enumerate() {
            let deeper = cause.because_of.map(|root| offset + root.place);
            root_of.push(deeper.or_else(|| links.get(&(offset + place)).copied()));
            all.push(cause);
        }
    }
    let mut told: BTreeMap<(&'static str, String), usize> = BTreeMap::new();
    // In place of one that another namespace has told already stands that one.
    let stands: Vec<usize> = (0..all.len())
        .map(|place| {
            let cause = &all[place];
            let shared = SHARED.contains(&cause.id) && (is_host_wide(&cause.finding) || cause.id == "fd-exhaustion");
            if shared { *told.entry((cause.id, who(&cause.finding))).or_insert(place) } else { place }
        })
        .collect();
    let mut kept = vec![None; all.len()];
    let places = (0..all.len()).filter(|place| stands[*place] == *place);
    places.enumerate().for_each(|(new, old)| kept[old] = Some(new));
    let (mut causes, mut roots) = (Vec::new(), Vec::new());
    for (place, cause) in all.into_iter().enumerate() {
        if kept[place].is_some() {
            let root = root_of[place].and_then(|root| kept[stands[root]]);
            roots.push(root.filter(|root| Some(*root) != kept[place]));
            causes.push(cause);
        }
    }
    rank::order(causes, &roots)
}

/// Whom a finding of the whole host is about.
fn who(finding: &Finding) -> String {
    let pids: Vec<String> = finding.subjects.iter().filter_map(|subject| Some(subject.pid?.to_string())).collect();
    pids.join(" ")
}

/// The sums of the ledgers of all namespaces.
fn sum<'a>(ledgers: impl Iterator<Item = &'a Ledger> + Clone) -> Ledger {
    let of = |account: fn(&Ledger) -> &Account| sum_of(ledgers.clone().map(account));
    Ledger {
        sent: of(|ledger| &ledger.sent),
        received: of(|ledger| &ledger.received),
        firewall: of(|ledger| &ledger.firewall),
        dropped: of(|ledger| &ledger.dropped),
    }
}

fn sum_of<'a>(accounts: impl Iterator<Item = &'a Account>) -> Account {
    let worse = |a: Basis, b: Basis| {
        if a == Basis::Inferred || b == Basis::Inferred {
            Basis::Inferred
        } else if a == b {
            a
        } else {
            Basis::Deduced
        }
    };
    let mut all: Option<Account> = None;
    for account in accounts {
        let Some(sum) = &mut all else {
            all = Some(account.clone());
            continue;
        };
        // Nothing to count has no basis that could be worse.
        let empty = account.total == Ok(0) && account.lines.is_empty();
        if !empty {
            sum.basis = worse(sum.basis, account.basis);
        }
        sum.total = match (&sum.total, &account.total) {
            (Ok(a), Ok(b)) => Ok(a.saturating_add(*b)),
            (Err(missing), _) | (_, Err(missing)) => Err(missing.clone()),
        };
        for line in &account.lines {
            let same = |known: &&mut Line| {
                (known.reason, &known.label, known.cause, known.basis)
                    == (line.reason, &line.label, line.cause, line.basis)
            };
            match sum.lines.iter_mut().find(same) {
                Some(known) => known.count = known.count.saturating_add(line.count),
                None => sum.lines.push(line.clone()),
            }
        }
    }
    all.unwrap_or_default()
}

/// What is in none of them, and what could not be looked for in one.
fn negative(judged: &[Judged<'_>], causes: &[Ranked]) -> (Vec<RuledOut>, Vec<NotChecked>) {
    let (mut ruled_out, mut not_checked) = (Vec::new(), Vec::new());
    for cause in REGISTRY.iter().filter(|cause| causes.iter().all(|found| found.id != cause.id)) {
        let unchecked =
            judged.iter().find_map(|one| one.diagnosis.not_checked.iter().find(|entry| entry.id == cause.id));
        let mut ruled =
            judged.iter().filter_map(|one| one.diagnosis.ruled_out.iter().find(|entry| entry.id == cause.id));
        match (unchecked, ruled.next()) {
            (Some(entry), _) => not_checked.push(entry.clone()),
            (None, Some(entry)) => ruled_out.push(entry.clone()),
            (None, None) => {}
        }
    }
    (ruled_out, not_checked)
}

/// How each source went: those of the host, and those of all namespaces together.
fn sources(judged: &[Judged<'_>]) -> Vec<SourceStatus> {
    let mut all: Vec<(SourceStatus, usize)> = Vec::new();
    for source in judged.iter().flat_map(|one| one.view.of_netns()) {
        let failed = usize::from(source.failure.is_some());
        match all.iter_mut().find(|(known, _)| known.name == source.name) {
            Some((known, failures)) => {
                known.took = known.took.saturating_add(source.took);
                known.partial |= source.partial;
                known.failure = known.failure.take().or_else(|| source.failure.clone());
                *failures += failed;
            }
            None => all.push((source.clone(), failed)),
        }
    }
    let told = |(mut source, failures): (SourceStatus, usize)| {
        if failures > 0 && failures < judged.len() {
            source.partial = true;
            source.failure = source.failure.map(|failure| Failure {
                reason: format!("in {failures} of {} network namespaces: {}", judged.len(), failure.reason),
                ..failure
            });
        }
        source
    };
    let of_host = judged.first().into_iter().flat_map(|one| one.view.of_host());
    all.into_iter().map(told).chain(of_host).collect()
}

#[cfg(test)]
mod tests;
