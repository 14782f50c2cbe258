//! What a store holds of some time.

use std::time::Duration;

use super::report::{basis, tool};
use super::shared::{rounded, severity, state, status};
use crate::cause::State;
use crate::history::{self, Past};
use crate::render::json::rfc3339_millis;
use crate::render::json::wire::history::*;
use crate::timeline::What;

pub fn history(past: &Past) -> History {
    let totals = past.account.totals;
    let lines = past.account.resets.iter().map(|line| Line {
        direction: line.direction.name().to_owned(),
        reason: line.reason.clone(),
        count: line.count,
        cause: line.cause.clone(),
        basis: basis(line.basis),
    });
    History {
        schema: SCHEMA,
        tool: tool(),
        hostname: past.hostname.clone(),
        since: at(past.wanted.since),
        until: at(past.wanted.until),
        redacted: past.redacted,
        worst: past.account.status.map(status),
        ticks: past.account.ticks,
        ticks_unknown: past.account.unknown,
        missing: past.missing.iter().map(missing).collect(),
        raw_missing: past.raw_missing.iter().map(missing).collect(),
        problems: past.problems.clone(),
        process_named: past.wanted.process.is_some().then_some(past.process_named),
        counted: past.counted.map(span),
        episodes: past.episodes.iter().map(episode).collect(),
        services: past.services.iter().map(service).collect(),
        ledger: Ledger {
            unfiltered: past.wanted.is_narrow(),
            sent: totals.sent,
            sent_unexplained: totals.sent_unexplained,
            received: totals.received,
            firewall: totals.firewall,
            connections_dropped: totals.dropped,
            by_reason: lines.collect(),
        },
        changes: past.changes.iter().map(|change| Change { at: at(change.at), text: change.text.clone() }).collect(),
    }
}

fn missing(gap: &history::Gap) -> Missing {
    Missing { from: at(gap.span.from), until: at(gap.span.until), why: gap.why.as_ref().map(history::Why::words) }
}

fn span(span: history::Span) -> Span {
    Span { from: at(span.from), until: at(span.until) }
}

fn at(millis: u64) -> String {
    rfc3339_millis(Duration::from_millis(millis))
}

fn episode(episode: &history::Episode) -> Episode {
    let span = episode.span;
    Episode {
        id: episode.id.clone(),
        title: episode.title.clone(),
        place: place(&episode.place),
        severity: severity(episode.severity),
        state: state(episode.state),
        fault: episode.is_fault(),
        from: at(span.from),
        until: at(span.until),
        duration_s: rounded(Duration::from_millis(span.until.saturating_sub(span.from)).as_secs_f64()),
        from_start: episode.from_start,
        ending: match episode.ending {
            history::Ending::Ended => Ending::Ended,
            history::Ending::GoesOn => Ending::GoesOn,
            history::Ending::NotSeen => Ending::NotSeen,
        },
        because_of: episode.because_of.as_ref().map(|root| because_of(root, episode.root)),
        events: episode.events,
        unit: episode.unit.clone(),
        peak_per_s: rounded(episode.peak_per_s),
        attempts: episode.attempts,
        failures: episode.failures,
        summary: episode.summary.clone(),
        evidence: episode.evidence.clone(),
        remedies: episode.remedies.clone(),
    }
}

fn because_of(root: &history::Root, episode: Option<usize>) -> BecauseOf {
    BecauseOf { id: root.id.clone(), place: place(&root.place), episode: episode.map(|index| index + 1) }
}

fn service(row: &history::Row) -> Service {
    let service = &row.service;
    Service {
        place: place(&service.place),
        address: service.address.clone(),
        attempts: service.attempts,
        failures: service.failures,
        drops: service.drops,
        queue: service.queue,
        backlog: service.backlog,
        failed: row.failed.clone(),
    }
}

fn place(place: &history::Place) -> Place {
    Place {
        at: place.at.clone(),
        port: place.port,
        process: place.process.clone(),
        unit: place.unit.clone(),
        netns: place.netns.clone(),
    }
}

/// What happened to an episode, for a hook.
pub fn event(event: &history::Event, what: &'static str, hostname: Option<&str>, left_out: u64) -> HookEvent {
    HookEvent {
        schema: EVENT_SCHEMA,
        hostname: hostname.map(str::to_owned),
        what,
        at: at(event.at),
        since: at(event.since),
        id: event.id.clone(),
        title: event.title.clone(),
        place: place(&event.place),
        severity: severity(event.severity),
        state: state(match event.what {
            // What is told of an end is over.
            What::Ended => State::Past,
            _ => event.state,
        }),
        because_of: event.because_of.as_ref().map(|root| because_of(root, None)),
        summary: event.summary.clone(),
        per_s: rounded(event.per_s),
        unit: event.unit.clone(),
        events: event.events,
        times: event.times,
        evidence: event.evidence.clone(),
        remedies: event.remedies.clone(),
        left_out,
    }
}
