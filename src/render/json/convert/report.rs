//! A diagnosis as a report.

use super::capture;
use super::shared::{container, located, netns, place, plain, process, rounded, severity, socket_state, state, status};
use crate::cause::{self, Entry};
use crate::diagnosis::node;
use crate::diagnosis::port::{self, BindCheck, PortReport};
use crate::diagnosis::rank::Ranked;
use crate::diagnosis::{Diagnosis, ListenerRow};
use crate::evidence::ledger::{self, Account};
use crate::evidence::{backlog, harm};
use crate::observation;
use crate::render::json::rfc3339_millis;
use crate::render::json::wire::report::*;
use crate::source::node::Location;
use crate::timeline::Key;
use crate::value::TcpState;
use crate::value::shell::ShellCommand;

/// The report of a diagnosis.
pub fn report(diagnosis: &Diagnosis) -> Report {
    let host = &diagnosis.host;
    Report {
        schema: SCHEMA,
        tool: tool(),
        host: Host {
            hostname: host.hostname.clone(),
            kernel: host.kernel.clone(),
            uptime_s: host.uptime_s.filter(|s| s.is_finite()),
            netns: netns(diagnosis),
        },
        window: Window {
            started_at: rfc3339_millis(diagnosis.started.wall),
            duration_s: if diagnosis.totals_only { 0.0 } else { rounded(diagnosis.window.as_secs_f64()) },
        },
        sources: diagnosis.sources.iter().map(source).collect(),
        verdict: Verdict { status: status(diagnosis.status), summary: diagnosis.summary.clone() },
        causes: diagnosis.causes.iter().enumerate().map(|(index, ranked)| one(index + 1, ranked, diagnosis)).collect(),
        ruled_out: diagnosis
            .ruled_out
            .iter()
            .map(|entry| RuledOut { id: entry.id.to_owned(), why: entry.why.clone() })
            .collect(),
        not_checked: diagnosis
            .not_checked
            .iter()
            .map(|entry| NotChecked {
                id: entry.id.to_owned(),
                missing: entry.all().map(|missing| missing.source.to_owned()).collect(),
                reason: entry.reason(),
                needs: entry.needs(),
            })
            .collect(),
        ledger: the_ledger(&diagnosis.ledger),
        listeners: diagnosis.listeners.iter().map(listener).collect(),
        listeners_left_out: diagnosis.listeners_left_out,
        sockets: sockets(diagnosis),
        limits: diagnosis.limits.iter().map(|(name, text)| (last_part(name).to_owned(), limit(text))).collect(),
        counters: diagnosis
            .counters
            .iter()
            .map(|(name, (total, delta))| (name.clone(), Counter { total: *total, delta: *delta }))
            .collect(),
        filter: (!diagnosis.filter.is_empty()).then(|| Filter {
            port: diagnosis.filter.ports.first().copied().filter(|_| diagnosis.filter.ports.len() == 1),
            ports: (diagnosis.filter.ports.len() > 1).then(|| diagnosis.filter.ports.iter().copied().collect()),
            pid: diagnosis.filter.pid,
            process: diagnosis.filter.process.clone(),
        }),
        port: diagnosis.ports.first().filter(|_| diagnosis.ports.len() == 1).map(the_port),
        ports: (diagnosis.ports.len() > 1).then(|| diagnosis.ports.iter().map(the_port).collect()),
        coverage: capture::coverage(diagnosis),
        capture: diagnosis.flows.as_deref().map(capture::capture),
        other_end: diagnosis.across.as_ref().map(capture::other_end),
        namespaces: (!diagnosis.namespaces.is_empty()).then(|| diagnosis.namespaces.iter().map(namespace).collect()),
        node: diagnosis.coverage.as_ref().map(coverage),
        watch: None,
    }
}

fn namespace(one: &node::Namespace) -> Namespace {
    let total = |account: &Account| account.total.as_ref().ok().copied();
    let location = &*one.location;
    Namespace {
        netns: located(location),
        own: location.own,
        gone: one.gone,
        pid: location.pid,
        unit: location.unit.as_ref().map(ToString::to_string),
        containers: location.containers.iter().map(|one| container(one)).collect(),
        verdict: Verdict { status: status(one.status), summary: one.summary.clone() },
        resets_sent: total(&one.ledger.sent),
        resets_received: total(&one.ledger.received),
        connections_dropped: total(&one.ledger.dropped),
    }
}

fn coverage(coverage: &node::Coverage) -> NodeCoverage {
    NodeCoverage {
        looked: coverage.looked,
        known: coverage.known,
        may_have_more: coverage.more,
        in_container: coverage.guest,
        needs: coverage.needs.clone(),
    }
}

/// This program.
pub fn tool() -> Tool {
    Tool { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn source(status: &observation::SourceStatus) -> Source {
    Source {
        name: status.name.to_owned(),
        status: match (&status.failure, status.partial) {
            (None, _) => SourceStatus::Ok,
            (Some(_), true) => SourceStatus::Partial,
            (Some(_), false) => SourceStatus::Unavailable,
        },
        reason: status.failure.as_ref().map(|failure| failure.reason.clone()).or_else(|| status.note.clone()),
        needs: status.failure.as_ref().and_then(|failure| failure.needs.clone()),
        took_s: rounded(status.took.as_secs_f64()),
    }
}

fn one(rank: usize, ranked: &Ranked, diagnosis: &Diagnosis) -> Cause {
    let finding = &ranked.finding;
    // A namespace without a name is the one that the reader is in, as far as is known.
    let named = diagnosis.netns_name.is_some().then(|| netns(diagnosis));
    let entry = finding.location.as_deref().map(|location| (located(location), Entry::to(location, finding.elsewhere)));
    Cause {
        rank,
        id: ranked.id.to_owned(),
        title: ranked.title.to_owned(),
        state: state(finding.state),
        severity: severity(finding.severity),
        confidence: rounded(finding.confidence).clamp(0.0, 1.0),
        summary: finding.summary.clone(),
        impact: Impact {
            events: finding.impact.events,
            per_s: rounded(finding.impact.per_s),
            unit: finding.impact.unit.to_owned(),
            harm: finding.harm.as_ref().map(harm).unwrap_or_default(),
        },
        place: place(&Key::of(ranked).place, Some(finding), diagnosis),
        subjects: finding.subjects.iter().map(|s| subject(s, named.as_ref())).collect(),
        evidence: finding.evidence.iter().map(evidence).collect(),
        counter_evidence: finding.counter_evidence.iter().map(evidence).collect(),
        remedies: finding.remedies.iter().map(|item| remedy(item, named.as_ref(), entry.as_ref())).collect(),
        because_of: ranked.because_of.map(|root| root.id.to_owned()),
        because_of_rank: ranked.because_of.map(|root| root.place + 1),
        binding_limit: finding.binding_limit.map(binding_limit),
    }
}

fn subject(subject: &cause::Subject, netns: Option<&Netns>) -> Subject {
    Subject {
        kind: match subject.kind {
            cause::SubjectKind::Listener => SubjectKind::Listener,
            cause::SubjectKind::Process => SubjectKind::Process,
            cause::SubjectKind::Peer => SubjectKind::Peer,
            cause::SubjectKind::Connection => SubjectKind::Connection,
            cause::SubjectKind::Path => SubjectKind::Path,
            cause::SubjectKind::Host => SubjectKind::Host,
        },
        address: subject.address.map(plain),
        port: subject.port,
        pid: subject.pid,
        process: subject.process.clone(),
        unit: subject.unit.as_ref().map(ToString::to_string),
        netns: subject.location.as_deref().map(located).or(netns.cloned()),
        container: subject.container.as_deref().map(container),
        count: subject.count,
    }
}

fn evidence(item: &cause::EvidenceItem) -> Evidence {
    Evidence {
        source: item.source.to_owned(),
        metric: item.metric.clone(),
        before: item.before,
        after: item.after,
        delta: item.delta,
        per_s: item.per_s.map(rounded),
        text: item.text.clone(),
    }
}

/// In a namespace of a node, commands are such as can be run from where the report is read.
fn remedy(remedy: &cause::Remedy, netns: Option<&Netns>, entry: Option<&(Netns, Option<Entry<'_>>)>) -> Remedy {
    let within = |command: &ShellCommand| match entry {
        Some((_, Some(entry))) => entry.within(command),
        _ => command.clone(),
    };
    let verify = match entry {
        Some((_, Some(entry))) => entry.verify(remedy),
        _ => remedy.verify.clone(),
    };
    let netns = entry.map(|(netns, _)| netns).or(netns);
    let setting = match &remedy.change {
        cause::Change::Setting(setting) => Some(setting),
        _ => None,
    };
    Remedy {
        kind: match &remedy.change {
            cause::Change::Advice => RemedyKind::Advice,
            cause::Change::Shell { .. } => RemedyKind::Shell,
            cause::Change::Setting(setting) => match setting.kind {
                cause::SettingKind::Config => RemedyKind::Config,
                cause::SettingKind::Code => RemedyKind::Code,
            },
        },
        text: match entry {
            Some((_, Some(entry))) => entry.text(remedy).into_owned(),
            _ => remedy.text.clone(),
        },
        command: match &remedy.change {
            cause::Change::Shell { command, .. } => Some(within(command).to_string()),
            _ => None,
        },
        file: setting.and_then(|setting| setting.file.clone()),
        place: setting.and_then(|setting| setting.place.clone()),
        line: setting.map(|setting| setting.line.clone()),
        netns: netns.filter(|_| remedy.is_per_netns()).cloned(),
        persist: remedy
            .persist_in(netns.is_some_and(|it| entry.is_some() || it.name.is_some()))
            .map(ToString::to_string),
        restart: match remedy.restart {
            cause::Restart::None => Restart::None,
            cause::Restart::Reload => Restart::Reload,
            cause::Restart::Service => Restart::Service,
            cause::Restart::Host => Restart::Host,
        },
        verify: verify.to_string(),
        verify_command: verify.command.as_ref().map(ToString::to_string),
    }
}

fn the_ledger(ledger: &ledger::Ledger) -> Ledger {
    let total = |account: &Account| account.total.as_ref().ok().copied();
    Ledger {
        sent: Sent {
            total: total(&ledger.sent),
            by_reason: by_reason(&ledger.sent),
            unexplained: ledger.sent.unexplained(),
            excess: ledger.sent.excess(),
        },
        received: Received {
            total: total(&ledger.received),
            by_state: ledger
                .received
                .lines
                .iter()
                .map(|line| ByState {
                    state: line.reason.to_owned(),
                    count: line.count,
                    cause: line.cause.map(str::to_owned),
                    basis: basis(line.basis),
                })
                .collect(),
            basis: basis(ledger.received.basis),
            unexplained: ledger.received.unexplained(),
        },
        firewall: Firewall { total: total(&ledger.firewall), basis: basis(ledger.firewall.basis) },
        connections_dropped: Dropped {
            total: total(&ledger.dropped),
            by_reason: by_reason(&ledger.dropped),
            unexplained: ledger.dropped.unexplained(),
        },
    }
}

fn by_reason(account: &Account) -> Vec<ByReason> {
    account
        .lines
        .iter()
        .map(|line| ByReason {
            reason: line.reason.to_owned(),
            count: line.count,
            cause: line.cause.map(str::to_owned),
            basis: basis(line.basis),
        })
        .collect()
}

pub fn basis(basis: ledger::Basis) -> Basis {
    match basis {
        ledger::Basis::Measured => Basis::Measured,
        ledger::Basis::Deduced => Basis::Deduced,
        ledger::Basis::Inferred => Basis::Inferred,
    }
}

fn listener(row: &ListenerRow) -> Listener {
    Listener {
        address: plain(row.address),
        port: row.port,
        recv_q: row.recv_q,
        send_q: row.backlog,
        fill: rounded(f64::from(row.recv_q) / (f64::from(row.backlog) + 1.0)),
        drops: row.drops,
        binding_limit: row.binding_limit.map(binding_limit),
        syn_recv: row.syn_recv,
        processes: row.processes.iter().map(process).collect(),
        harm: harm(&row.harm),
        netns: row.location.as_deref().map(located),
        container: row.location.as_deref().and_then(Location::container).map(container),
    }
}

/// What nobody counted is absent, not zero.
fn harm(harm: &harm::Harm) -> Harm {
    Harm {
        attempts: harm.attempts,
        failures: harm.attempts.map(|_| harm.failures),
        share: harm.share().map(rounded),
        interval: harm.interval().map(|interval| interval.map(rounded)),
        lately: harm.lately.map(|lately| Lately {
            attempts: lately.attempts,
            failures: lately.failures,
            over_s: rounded(lately.over.as_secs_f64()),
        }),
    }
}

fn binding_limit(limit: backlog::BindingLimit) -> BindingLimit {
    match limit {
        backlog::BindingLimit::Application => BindingLimit::Application,
        backlog::BindingLimit::Somaxconn => BindingLimit::Somaxconn,
        backlog::BindingLimit::Stale => BindingLimit::Stale,
    }
}

/// A sweep that found no socket in a state found zero; without a sweep nothing is known.
fn sockets(diagnosis: &Diagnosis) -> Sockets {
    let count = |state: TcpState| Some(diagnosis.sockets.as_ref()?.get(&state).copied().unwrap_or(0));
    Sockets {
        established: count(TcpState::Established),
        syn_sent: count(TcpState::SynSent),
        syn_recv: count(TcpState::SynRecv).map(|n| n + count(TcpState::NewSynRecv).unwrap_or(0)),
        fin_wait1: count(TcpState::FinWait1),
        fin_wait2: count(TcpState::FinWait2),
        time_wait: count(TcpState::TimeWait),
        close: count(TcpState::Close),
        close_wait: count(TcpState::CloseWait),
        last_ack: count(TcpState::LastAck),
        closing: count(TcpState::Closing),
        orphan: diagnosis.orphans,
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn limit(text: &str) -> Limit {
    let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers.as_deref() {
        Ok([number]) => Limit::Number(*number),
        Ok(numbers) if !numbers.is_empty() => Limit::Numbers(numbers.to_vec()),
        _ => Limit::Text(text.to_owned()),
    }
}

fn the_port(report: &PortReport) -> Port {
    Port {
        number: report.port,
        holders: report.holders.as_ref().ok().map(|holders| {
            holders
                .iter()
                .map(|holder| PortHolder {
                    address: plain(holder.address),
                    sockets: holder.sockets,
                    processes: holder.processes.iter().map(process).collect(),
                })
                .collect()
        }),
        sockets: report
            .sockets
            .as_ref()
            .ok()
            .map(|states| states.iter().map(|(state, count)| (socket_state(*state), *count)).collect()),
        privileged: report.privileged.as_ref().ok().copied(),
        ephemeral: report.ephemeral.as_ref().ok().copied(),
        bind: report.binds.iter().map(bind).collect(),
        netns: report.location.as_deref().map(located),
        container: report.location.as_deref().and_then(Location::container).map(container),
    }
}

fn bind(check: &BindCheck) -> PortBind {
    let (outcome, blocked_by, reason) = match &check.outcome {
        port::BindOutcome::Succeeds => (BindOutcome::Succeeds, Vec::new(), None),
        port::BindOutcome::NeedsReuseAddr { .. } => (BindOutcome::NeedsReuseaddr, Vec::new(), None),
        port::BindOutcome::InUse { by, .. } => (BindOutcome::InUse, by.iter().copied().map(plain).collect(), None),
        port::BindOutcome::Unknown(missing) => (BindOutcome::Unknown, Vec::new(), Some(missing.reason.clone())),
    };
    PortBind { address: plain(check.address), outcome, blocked_by, reason }
}
