//! Causes that a text speaks for: a log, or counters since boot. They happened; when, and whether still, it does not say.

use super::numbers::text as numbers;
use super::{Cause, EvidenceItem, Finding, Impact, Remedy, Severity, State, Subject, Verify};
use crate::evidence::Evidence;
use crate::value::Missing;

/// Causes that a text may speak for; it names many more that fit less.
const MOST: usize = 4;

/// What a line of a log says itself although the counters rule it out: a log remembers what counters, which begin with the boot and
/// are of one network namespace, do not.
pub fn outlasting(cause: &Cause, e: &Evidence<'_>, why: &str) -> Option<(Finding, Missing)> {
    let stated = e.hints().iter().any(|hint| hint.id == cause.id && hint.stated);
    let finding = stated.then(|| hinted(cause, e)).flatten()?;
    let text = format!("{why}: it was before this boot, or in another network namespace");
    let missing = Missing { source: "text", reason: format!("a line tells of it, but {why}"), needs: None };
    Some((finding.against(EvidenceItem::fact("text", "counters", text)), missing))
}

/// What the text says of the cause; `None` where it says nothing.
pub fn hinted(cause: &Cause, e: &Evidence<'_>) -> Option<Finding> {
    let rank = e.hints().iter().take(MOST).position(|hint| hint.id == cause.id)?;
    let hint = e.hints().get(rank)?;
    let confidence = match rank {
        0 if hint.among_many => numbers::AMONG_MANY,
        0 => numbers::FIRST,
        1 => numbers::SECOND,
        _ => numbers::FURTHER,
    };
    let impact = Impact { events: 0, per_s: 0.0, unit: "lines" };
    let summary = format!("{}: {}", cause.title, hint.reason);
    let when = hint.when.as_ref().map(|when| format!("written {when}, as the log prints it"));
    let others: Vec<&str> = e.hints().iter().map(|other| other.id).filter(|id| *id != hint.id).collect();
    let is_one_of_many = rank == 0 && hint.among_many && !others.is_empty();
    let others = is_one_of_many.then(|| format!("the text does not tell it from {}", others.join(", ")));
    let finding = Finding::new(State::Past, Severity::Info, confidence, impact, summary)
        .subject(Subject::host())
        .evidence(EvidenceItem::fact("text", "reason", hint.reason.clone()))
        .evidence_if(when.map(|text| EvidenceItem::fact("text", "when", text)))
        .against_if(others.map(|text| EvidenceItem::fact("text", "others", text)))
        .against(EvidenceItem::fact("text", "time", "a text says that it happened, not that it happens now"))
        .remedy(Remedy::new(hint.change.clone(), Verify::scan("on that host shows whether it still happens")));
    Some(finding)
}
