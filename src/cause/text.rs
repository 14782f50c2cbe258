//! Causes that a text speaks for: a log, or counters since boot. They happened; when, and whether still, it does not say.

use super::numbers::text as numbers;
use super::{Cause, EvidenceItem, Finding, Impact, Remedy, Severity, State, Subject, Verify};
use crate::evidence::Evidence;

/// Causes that a text may speak for; it names many more that fit less.
const MOST: usize = 4;

/// The same, only where a line says it itself.
pub fn stated(cause: &Cause, e: &Evidence<'_>) -> Option<Finding> {
    let stated = e.hints().iter().any(|hint| hint.id == cause.id && hint.stated);
    stated.then(|| hinted(cause, e)).flatten()
}

/// What the text says of the cause; `None` where it says nothing.
pub fn hinted(cause: &Cause, e: &Evidence<'_>) -> Option<Finding> {
    let rank = e.hints().iter().take(MOST).position(|hint| hint.id == cause.id)?;
    let hint = e.hints().get(rank)?;
    let confidence = match rank {
        0 => numbers::FIRST,
        1 => numbers::SECOND,
        _ => numbers::FURTHER,
    };
    let impact = Impact { events: 0, per_s: 0.0, unit: "lines" };
    let summary = format!("{}: {}", cause.title, hint.reason);
    let finding = Finding::new(State::Past, Severity::Info, confidence, impact, summary)
        .subject(Subject::host())
        .evidence(EvidenceItem::fact("text", "reason", hint.reason.clone()));
    let finding = match &hint.when {
        Some(when) => {
            finding.evidence(EvidenceItem::fact("text", "when", format!("written {when}, as the log prints it")))
        }
        None => finding,
    };
    let finding = finding
        .against(EvidenceItem::fact("text", "time", "a text says that it happened, not that it happens now"))
        .remedy(Remedy::new(hint.change.clone(), Verify::scan("on that host shows whether it still happens")));
    Some(finding)
}
