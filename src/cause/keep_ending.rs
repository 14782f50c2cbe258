//! Programs that keep ending and being started again: one finding of process-exit for each port.

use std::collections::BTreeSet;
use std::time::Duration;

use super::numbers::process_exit as numbers;
use super::place;
use super::{EvidenceItem, Finding, Severity, Subject};
use super::{exit_remedies, severity, signals, wording};
use crate::evidence::Evidence;
use crate::evidence::harm::{Harm, Target};
use crate::reset::Kind;
use crate::source::reset_events::Task;
use crate::value::words;

/// The program behind a port ended more than once in the window, or began and ended in it.
pub(super) struct EndedService<'a> {
    pub(super) port: u16,
    pub(super) ends: Vec<(&'a Task, Duration)>,
    /// How often it ended: workers that end together do that once.
    times: u64,
    refused: u64,
    left: u64,
}

/// Ports whose program keeps ending.
pub fn ports(e: &Evidence<'_>) -> BTreeSet<u16> {
    services(e).iter().map(|service| service.port).collect()
}

pub(super) fn services<'a>(e: &Evidence<'a>) -> Vec<EndedService<'a>> {
    let closed = e.reset_events().map_or(&[][..], |account| &account.listeners_closed);
    let ports: BTreeSet<u16> = closed.iter().map(|closed| closed.local.port()).collect();
    let service = |port: u16| {
        let ends = e.ended_listeners(port);
        let refused = place::resets_at(e, Kind::Refused, &[port]);
        let left = place::resets_at(e, Kind::ListenerClosed, &[port]) + place::resets_at(e, Kind::Exited, &[port]);
        let apart = |pair: &&[(&Task, Duration)]| {
            pair[1].1.saturating_sub(pair[0].1) >= Duration::from_millis(numbers::APART_MS)
        };
        let times = 1 + ends.windows(2).filter(apart).count() as u64;
        // One that was there when the window opened is told by what it left.
        let began = || !e.services().unwrap_or_default().iter().any(|it| it.port == port && it.listened_before());
        let told = || e.signal_deaths().iter().any(|death| ends.iter().any(|(task, _)| task.pid == death.process.pid));
        let of_interest = !ends.is_empty() && refused + left > 0 && (times > 1 || began() && !told());
        of_interest.then_some(EndedService { port, ends, times, refused, left })
    };
    ports.into_iter().filter_map(service).collect()
}

pub(super) fn finding(e: &Evidence<'_>, service: &EndedService<'_>) -> Finding {
    let EndedService { port, ends, times, refused, left } = service;
    let pids: Vec<u32> = ends.iter().map(|(task, _)| task.pid).collect();
    let died: Vec<_> = e.signal_deaths().into_iter().filter(|death| pids.contains(&death.process.pid)).collect();
    let name = ends.last().map_or_else(String::new, |(task, _)| task.name.clone());
    let connects = e.harm_of_connects(Target::Port(*port), *refused);
    let failures = refused + left;
    let attempts = connects.attempts.map(|attempts| attempts.max(failures));
    let harm = Harm { attempts, ..Harm::of_unknown(failures) };
    let here = e.attribution().is_ok_and(|all| {
        let mut of_port = all.groups.iter().filter(|group| group.port == Some(*port));
        of_port.all(|group| group.on_loopback())
    });
    let severity = if here { severity::to_callers(e, &harm) } else { severity::to_clients(e, &harm) };
    let asked = !died.is_empty() && died.iter().all(|death| death.was_asked_to());
    // A program that ends again and again is never chance.
    let severity = match *times > 1 && failures >= severity::FEWEST && !asked {
        true => severity.min(Severity::Warning),
        false => severity,
    };
    let how = match died.as_slice() {
        [] => String::new(),
        died => format!(" ({})", signals::how(e, died)),
    };
    let window = words::seconds(e.window());
    let summary = match times {
        1 => format!("{name} on port {port} began to listen and ended again within {window}{how}"),
        times => format!("{name} on port {port} keeps ending and being started again, {times} times in {window}{how}"),
    };
    let summary = format!("{summary}: {} refused or reset", harm.counted("connection"));
    let confidence = if *times > 1 { numbers::KEEPS_ENDING } else { numbers::WITH_KNOWN_RESETS };
    let shown: Vec<String> = pids.iter().take(5).map(u32::to_string).collect();
    let owner = e.service_of_port(*port);
    let askers = place::askers(e, *port);
    let listener = owner.map_or_else(|| Subject { port: Some(*port), ..Subject::host() }, Subject::listener);
    let mut finding = wording::active(e, severity, confidence, failures, "connections", summary)
        .subject(listener)
        .subjects(ends.iter().rev().take(2).map(|(task, _)| Subject { port: Some(*port), ..Subject::task(task) }))
        .evidence(EvidenceItem::value(
            "reset_events",
            "LISTEN",
            pids.len() as f64,
            format!("{name} ended and closed its listener by that: pid {}", shown.join(", ")),
        ));
    for item in signals::evidence(&died) {
        finding = finding.evidence(item);
    }
    if died.is_empty() && e.reset_events().is_ok_and(|account| account.reports_signals) {
        let text = "no signal ended it: it exited by itself, and its log says why";
        finding = finding.evidence(EvidenceItem::fact("signals", "signal", text));
    }
    if *refused > 0 {
        let text = format!("{} refused while nobody listened in between", words::counted(*refused, "connect"));
        finding = finding.evidence(EvidenceItem::value("reset_events", "NO_SOCKET", *refused as f64, text));
    }
    if *left > 0 {
        let text = format!("{} left by it to those who were connected or waited", words::counted(*left, "RST"));
        finding = finding.evidence(EvidenceItem::value("reset_events", "exit", *left as f64, text));
    }
    finding = finding.evidence_if(place::asked_by(&askers)).subjects(askers).harm(harm);
    finding = finding.evidence_if(signals::memory(e, &died));
    let finding = match signals::remedy(e, &died) {
        Some(remedy) => finding.remedy(remedy),
        None => finding,
    };
    let unit = owner.and_then(|service| service.owners.iter().find_map(|process| process.unit.as_ref()));
    exit_remedies::added(e, finding, Some(&name), unit, &died)
}
