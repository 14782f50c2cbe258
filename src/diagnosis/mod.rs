//! The result: ranked causes, what was ruled out, what could not be checked, the ledger, listeners and sockets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::capture::Flows;
use crate::cause::{Finding, REGISTRY, Severity, State, Verdict, packets, text};
use crate::diagnosis::filter::{Filter, is_host_wide};
use crate::diagnosis::port::PortReport;
use crate::diagnosis::rank::Ranked;
use crate::evidence::across::Across;
use crate::evidence::backlog::{BindingLimit, binding_limit};
use crate::evidence::harm::Harm;
use crate::evidence::ledger::{self, Ledger};
use crate::evidence::service::Service;
use crate::evidence::{Evidence, Total};
use crate::observation::{Input, SourceStatus, View, delta};
use crate::source::host_facts::HostFacts;
use crate::source::node::Location;
use crate::source::owners::Process;
use crate::value::{Missing, Moment, NetnsId, TcpState};

mod across;
pub mod filter;
mod group;
pub mod idle;
mod link;
pub mod node;
pub mod port;
pub mod rank;
mod sentence;
mod verdict;

#[derive(Debug, Clone)]
pub struct Diagnosis {
    pub host: HostFacts,
    /// Name under which the network namespace was asked for.
    pub netns: NetnsId,
    pub netns_name: Option<String>,
    pub started: Moment,
    pub window: Duration,
    pub totals_only: bool,
    pub sources: Vec<SourceStatus>,
    pub status: Status,
    /// One plain sentence.
    pub summary: String,
    pub causes: Vec<Ranked>,
    pub ruled_out: Vec<RuledOut>,
    pub not_checked: Vec<NotChecked>,
    pub ledger: Ledger,
    /// The fullest first.
    pub listeners: Vec<ListenerRow>,
    /// Further listeners, none of them fuller than those above.
    pub listeners_left_out: u64,
    /// Number of sockets by state; `None` without a sweep.
    pub sockets: Option<BTreeMap<TcpState, u64>>,
    /// Sockets without a process, host-wide; `None` when not observed.
    pub orphans: Option<u64>,
    /// Limits as sysctl(8) names them, with their text.
    pub limits: BTreeMap<&'static str, String>,
    /// Counters that the causes above name as evidence, and those of the ledger.
    pub counters: BTreeMap<String, Total>,
    /// The process that was asked for shows nowhere.
    pub unseen: bool,
    /// What the causes and listeners above are restricted to.
    pub filter: Filter,
    /// The ports that were asked for.
    pub ports: Vec<PortReport>,
    /// Which kind of evidence it is from.
    pub input: Input,
    /// The connections of a capture.
    pub flows: Option<Arc<Flows>>,
    /// What a capture of the other end adds to a recording.
    pub across: Option<Across>,
    /// Of a whole node: its network namespaces, that of the one who looks first. Empty where only one was looked at.
    pub namespaces: Vec<node::Namespace>,
    /// How much of the node was looked at, where that is known.
    pub coverage: Option<node::Coverage>,
    /// Where this is, if it is one namespace and not that of the one who looks.
    pub location: Option<Arc<Location>>,
}

impl Diagnosis {
    /// Not one source of evidence could be read.
    pub fn saw_nothing(&self) -> bool {
        !self.sources.is_empty() && self.sources.iter().all(|source| source.failure.is_some() && !source.partial)
    }

    /// What was asked for and is not there, in words: no such service, no such process.
    pub fn absent(&self) -> Option<String> {
        // Who is refused by a port shows in no sweep, and in a finding.
        let is_told = |port: u16| {
            let subjects = self.causes.iter().flat_map(|cause| &cause.finding.subjects);
            subjects.filter_map(|subject| subject.port).any(|told| told == port)
        };
        let unused = self.ports.iter().filter(|port| port.is_unused()).map(|port| port.port);
        let nobody: Vec<u16> = unused.filter(|port| !is_told(*port)).collect();
        match &nobody[..] {
            _ if self.unseen => Some(format!("{} was not seen", self.filter)),
            [] => None,
            ports => {
                let ports = Filter { ports: ports.iter().copied().collect(), ..Filter::default() };
                Some(format!("nothing listens on {ports}, and nothing is connected to it"))
            }
        }
    }

    /// A check for this severity fails: by a finding, because nobody can say, or because what was named is not there.
    pub fn fails(&self, level: Severity) -> bool {
        self.reaches(level) || self.status == Status::Unknown || self.absent().is_some()
    }

    /// A convincing finding that is active, or will bite, is at least this severe.
    pub fn reaches(&self, level: Severity) -> bool {
        self.causes.iter().any(|cause| weighs(&cause.finding) && cause.finding.severity <= level)
    }
}

/// The verdict in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    Warning,
    Critical,
    /// Too little was observed to call the host healthy.
    Unknown,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuledOut {
    pub id: &'static str,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotChecked {
    pub id: &'static str,
    /// What kept it from being checked.
    pub missing: Missing,
    /// What else it needs and was not seen either.
    pub also: Vec<Missing>,
}

impl NotChecked {
    /// All that is missing.
    pub fn all(&self) -> impl Iterator<Item = &Missing> {
        std::iter::once(&self.missing).chain(&self.also)
    }

    /// Why, all gaps at once.
    pub fn reason(&self) -> String {
        let reasons: Vec<&str> = distinct(self.all().map(|missing| missing.reason.as_str()));
        reasons.join("; ")
    }

    /// What would fill the gaps, each once; `None` where nothing would fill the first.
    pub fn needs(&self) -> Option<String> {
        self.missing.needs.as_ref()?;
        Some(distinct(self.all().filter_map(|missing| missing.needs.as_deref())).join("; "))
    }
}

fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for text in texts {
        if !distinct.contains(&text) {
            distinct.push(text);
        }
    }
    distinct
}

/// Listeners that a report names one by one.
const MOST_LISTENERS: usize = 1000;

/// One listener for the report.
#[derive(Debug, Clone)]
pub struct ListenerRow {
    pub address: IpAddr,
    pub port: u16,
    /// Longest accept queue seen in the window.
    pub recv_q: u32,
    /// Limit of the accept queue.
    pub backlog: u32,
    pub full_samples: u32,
    pub samples: u32,
    /// Drops in the window, an upper bound; `None` when the kernel does not report them.
    pub drops: Option<u64>,
    pub binding_limit: Option<BindingLimit>,
    /// Half-open requests; `None` without a sweep.
    pub syn_recv: Option<u64>,
    pub processes: Vec<Process>,
    /// How many of its clients' connections failed by this host's doing.
    pub harm: Harm,
    /// How many of them ended, or were refused, in the window; `None` where that was not heard.
    pub ended: Option<u64>,
    /// Sockets that share the address and port by SO_REUSEPORT.
    pub sockets: usize,
    /// Where it is, if not in the namespace of the one who looks.
    pub location: Option<Arc<Location>>,
}

/// Judges one namespace of an observation.
pub fn diagnose(view: View<'_>) -> Diagnosis {
    diagnose_for(view, &Filter::default())
}

/// Judges one namespace for somebody who asked about one port or process; the verdict is about that, too.
pub fn diagnose_for(view: View<'_>, filter: &Filter) -> Diagnosis {
    diagnose_from(&Evidence::new(view), view, filter)
}

/// As [`diagnose_for`], for one who needs the evidence of the view for more.
pub fn diagnose_from(evidence: &Evidence<'_>, view: View<'_>, filter: &Filter) -> Diagnosis {
    judge(evidence, view, filter, &|| false).0
}

/// As [`diagnose_for`]; `None` as soon as `stopped` says so, which is asked before each cause.
pub fn diagnose_unless(view: View<'_>, filter: &Filter, stopped: &dyn Fn() -> bool) -> Option<Diagnosis> {
    let (diagnosis, whole) = judge(&Evidence::new(view), view, filter, stopped);
    whole.then_some(diagnosis)
}

/// The diagnosis, and whether all causes were judged.
fn judge(evidence: &Evidence<'_>, view: View<'_>, filter: &Filter, stopped: &dyn Fn() -> bool) -> (Diagnosis, bool) {
    let services = evidence.services().unwrap_or_default();
    let scope = filter.resolve(services);
    // Of what a store holds is asked later what is still there.
    let told = |finding: Finding| match view.covers.input {
        Input::Live | Input::Store => finding,
        _ => finding.elsewhere(),
    };
    let (mut found, mut hinted, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ruled_out, mut not_checked) = (Vec::new(), Vec::new());
    let mut whole = true;
    for cause in REGISTRY.iter().copied() {
        whole &= !stopped();
        if !whole {
            break;
        }
        let judgement = match evidence.flows() {
            Some(flows) => packets::judge(cause, evidence, flows),
            None => (cause.judge)(evidence),
        };
        match judgement {
            Ok(Verdict::Found(findings)) => {
                let (mut kept, other): (Vec<_>, Vec<_>) =
                    findings.into_iter().map(told).partition(|finding| scope.keeps(finding));
                if !filter.is_empty() {
                    kept.iter_mut().for_each(worsen_where_all_failed);
                }
                found.extend(group::bounded(kept).into_iter().map(|finding| (cause, finding)));
                if other.iter().any(|finding| weighs(finding) && finding.severity <= Severity::Warning) {
                    elsewhere.push(cause.id);
                }
            }
            Ok(Verdict::RuledOut(why)) => match text::outlasting(cause, evidence, &why) {
                Some((finding, missing)) => hinted.push((cause, finding, missing)),
                None => ruled_out.push(RuledOut { id: cause.id, why }),
            },
            Err(missing) => match text::hinted(cause, evidence) {
                Some(finding) => hinted.push((cause, finding, missing)),
                None => {
                    let also = cause.also_missing(evidence, &missing);
                    not_checked.push(NotChecked { id: cause.id, also, missing });
                }
            },
        }
    }
    // Beside what is seen, what a text only hints at is noise.
    let seen = found.iter().any(|(_, finding)| weighs(finding));
    for (cause, finding, missing) in hinted {
        match finding.confidence >= CONVINCING || !seen {
            true if scope.keeps(&finding) => found.push((cause, told(finding))),
            true => {}
            false => {
                let also = cause.also_missing(evidence, &missing);
                not_checked.push(NotChecked { id: cause.id, also, missing });
            }
        }
    }
    let roots = link::link(evidence, &mut found);
    let mut causes = rank::rank(found, &roots);
    node::place(&mut causes, view);
    let location =
        view.host.node.value().map(|node| node.location(view.after().netns)).filter(|location| !location.own);
    let location = location.map(Arc::new);
    let unseen = !filter.sees_process(evidence) && causes.iter().all(|cause| is_host_wide(&cause.finding));
    // A text does not say whether it goes on, and totals not when they grew.
    let silent = evidence.totals_only() || view.covers.input == Input::Text && evidence.flows().is_none();
    let status = match verdict::status(evidence, &causes) {
        status if unseen || silent && status == Status::Ok => Status::Unknown,
        // What was asked for may be where all of them come from.
        Status::Ok if !filter.is_empty() && evidence.unassigned().is_some() => Status::Unknown,
        status => status,
    };
    let somaxconn = evidence.sysctl_number("net.core.somaxconn").ok();
    let asked: Vec<_> = services.iter().filter(|service| filter.keeps_service(service)).collect();
    let listeners_left_out = asked.len().saturating_sub(MOST_LISTENERS) as u64;
    let mut listeners: Vec<_> =
        asked.iter().take(MOST_LISTENERS).map(|service| row(evidence, service, somaxconn)).collect();
    if view.host.totals_only {
        // Drops are differences over a window, and there was none.
        listeners.iter_mut().for_each(|row| row.drops = None);
    }
    let counters = counters(evidence, &causes);
    let summary = match status {
        Status::Ok | Status::Unknown if evidence.flows().is_some() => sentence::capture(evidence, status, &causes),
        Status::Ok | Status::Unknown if view.covers.input == Input::Text => sentence::text(evidence, &causes),
        _ if unseen => sentence::unseen(evidence, filter, &causes),
        Status::Ok if !filter.is_empty() && !evidence.totals_only() => {
            sentence::narrow(evidence, filter, &listeners, &elsewhere)
        }
        _ => sentence::whole(evidence, filter, status, &causes, &elsewhere),
    };
    let report = |port: &u16| PortReport { location: location.clone(), ..port::report(evidence, *port) };
    let asked = filter.ports.iter().filter(|_| evidence.flows().is_none());
    let ports = asked.map(report).collect();
    listeners.iter_mut().for_each(|row| row.location = location.clone());
    let limits = view
        .after()
        .sysctls
        .iter()
        .chain(&view.host.after.sysctls)
        .filter_map(|(name, observed)| Some((*name, observed.value()?.clone())))
        .collect();
    let mut ledger = evidence.ledger().clone();
    name_by_cause(&mut ledger, &causes);
    let diagnosis = Diagnosis {
        host: view.host.after.facts.clone(),
        netns: view.after().netns,
        netns_name: view.netns.name.clone(),
        started: view.before().at,
        window: view.duration(),
        totals_only: view.host.totals_only,
        sources: view.sources(),
        status,
        summary,
        causes,
        ruled_out,
        not_checked,
        ledger,
        listeners,
        listeners_left_out,
        sockets: evidence.socket_dump().ok().map(|socket_dump| socket_dump.by_state.clone()),
        orphans: evidence.sockstat("TCP.orphan").ok(),
        limits,
        counters,
        unseen,
        filter: filter.clone(),
        ports,
        input: view.covers.input,
        flows: view.covers.flows.clone(),
        across: evidence.across().cloned(),
        namespaces: Vec::new(),
        coverage: None,
        location,
    };
    (diagnosis, whole)
}

/// What the usual cause of a kind does not explain stands under the one that does: what was turned away by no limit of the program,
/// connects that were refused while a listener was away for a moment, a process that ended with its one connection.
fn name_by_cause(ledger: &mut Ledger, causes: &[Ranked]) {
    const OTHERS: [(&str, [&str; 2]); 3] = [
        ("connection-limit", ["close-with-unread-data", "late-data-after-close"]),
        ("port-without-listener", ["process-exit", "listener-closed"]),
        ("process-exit", ["close-with-unread-data", "connection-limit"]),
    ];
    let found = |id: &str| causes.iter().any(|cause| cause.id == id);
    for line in &mut ledger.sent.lines {
        let usual = OTHERS.iter().find(|(usual, _)| line.cause == Some(usual) && !found(usual));
        if let Some(other) = usual.and_then(|(_, others)| others.iter().find(|id| found(id))) {
            line.retell(other);
        }
    }
}

/// Of what was asked for by name every connection failed, however few they were: that is not "nothing wrong".
fn worsen_where_all_failed(finding: &mut Finding) {
    let total = finding.harm.is_some_and(|harm| harm.is_total());
    if total && finding.state == State::Active && !is_host_wide(finding) {
        finding.severity = finding.severity.min(Severity::Warning);
    }
}

fn counters(evidence: &Evidence<'_>, causes: &[Ranked]) -> BTreeMap<String, Total> {
    let items = causes.iter().flat_map(|cause| cause.finding.evidence.iter().chain(&cause.finding.counter_evidence));
    // Other sources have words of their own for what they measure.
    let items = items.filter(|item| delta::source_of(&item.metric).name == item.source);
    let named = items.map(|item| item.metric.as_str()).chain(ledger::COUNTERS);
    named.filter_map(|metric| Some((metric.to_owned(), evidence.total(metric)?))).collect()
}

fn row(evidence: &Evidence<'_>, service: &Service<'_>, somaxconn: Option<u64>) -> ListenerRow {
    let worst = service.worst();
    ListenerRow {
        address: service.address,
        port: service.port,
        recv_q: worst.max_recv_q,
        backlog: worst.last.backlog,
        full_samples: worst.full_samples,
        samples: worst.samples,
        drops: service.drops(),
        binding_limit: somaxconn
            .and_then(|somaxconn| binding_limit(u64::from(worst.last.backlog), somaxconn, &service.owners)),
        syn_recv: service.port_use.map(|used| used.by_state.get(&TcpState::SynRecv).copied().unwrap_or(0)),
        processes: service.owners.iter().copied().cloned().collect(),
        harm: evidence.harm_of_service(service.port),
        ended: evidence.over_at_service(service.port),
        sockets: service.sockets.len(),
        location: None,
    }
}

/// Whether a deeper cause may be found to explain this one.
pub fn may_follow(id: &str) -> bool {
    let explained = REGISTRY.iter().any(|cause| cause.explains.contains(&id));
    explained || link::may_follow(id) || across::BLAMES.contains(&id)
}

/// Below this confidence a finding is a hint: it is shown, and does not make the verdict worse.
pub const CONVINCING: f64 = 0.5;

fn weighs(finding: &Finding) -> bool {
    finding.confidence >= CONVINCING && finding.state.is_now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;
    use crate::value::Observed;

    #[test]
    fn what_could_not_be_checked_names_all_that_is_missing() {
        let diagnosis = diagnose(Case::new().view());
        let lacks = |id: &str| -> Vec<&str> {
            let entry = diagnosis.not_checked.iter().find(|entry| entry.id == id);
            entry.into_iter().flat_map(NotChecked::all).map(|missing| missing.source).collect()
        };
        assert_eq!(lacks("accept-queue-overflow"), ["netstat", "listeners"]);
        assert_eq!(lacks("conntrack-invalid"), ["conntrack", "snmp", "sockets"]);
    }

    #[test]
    fn a_judgement_stops_when_it_is_told_to() {
        let asked = std::cell::Cell::new(0);
        let third = || {
            asked.set(asked.get() + 1);
            asked.get() == 3
        };
        assert!(diagnose_unless(Case::new().view(), &Filter::default(), &third).is_none());
        assert_eq!(asked.get(), 3);
    }

    /// 20,000 listeners of one process vanish: a handful of findings, and a report that names a part of them.
    #[test]
    fn a_report_about_many_listeners_stays_small_and_says_what_it_left_out() {
        let mut case = Case::new().listener("10.0.0.1:1", 8, 0, 0, &crate::observation::testing::process(7, "app"));
        let first = case.netns.listener_traces.values().next().expect("a listener").clone();
        for number in 2..=20_000 {
            let mut trace = first.clone();
            trace.last.port = number as u16;
            trace.last.cookie = number;
            trace.first = trace.last.clone();
            trace.in_after = false;
            case.netns.listener_traces.insert(number, trace);
        }
        case.netns.after.listeners = Observed::Full(Vec::new());
        let diagnosis = diagnose(case.view());
        assert_eq!((diagnosis.listeners.len(), diagnosis.listeners_left_out), (1000, 19_000));
        assert!(diagnosis.causes.len() < 20, "{}", diagnosis.causes.len());
    }
}
