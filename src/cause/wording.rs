//! What causes of resets say alike: findings of the window, and counters in plain words.

use super::numbers::{Confidence, exchange};
use super::place::Place;
use super::{EvidenceItem, Finding, Impact, Severity, State, Verdict};
use crate::evidence::Evidence;
use crate::observation::delta::Reading;
use crate::value::words;

/// A finding of this window.
pub fn active(
    e: &Evidence<'_>,
    severity: Severity,
    confidence: Confidence,
    events: u64,
    unit: &'static str,
    summary: impl Into<String>,
) -> Finding {
    Finding::new(State::Active, severity, confidence, Impact { events, per_s: e.rate(events), unit }, summary)
}

/// A finding of resets at this place is less sure where the kernel reported less of them than it does elsewhere.
pub fn doubted(place: &Place<'_>, finding: Finding) -> Finding {
    let Some(doubt) = place.doubt() else { return finding };
    let confidence = finding.confidence.min(exchange::NO_EVENT.value());
    Finding { confidence, ..finding }.against(EvidenceItem::fact("reset_events", "reason", doubt))
}

/// A finding of this window that explains the numbers and is no fault.
pub fn benign(
    e: &Evidence<'_>,
    confidence: Confidence,
    events: u64,
    unit: &'static str,
    summary: impl Into<String>,
) -> Finding {
    Finding { state: State::Benign, ..active(e, Severity::Info, confidence, events, unit, summary) }
}

/// Ruled out because a counter stood still.
pub fn still(reading: &Reading) -> Verdict {
    let name = reading.metric.rsplit('.').next().unwrap_or_default();
    Verdict::RuledOut(match reading.after {
        0 => format!("{name} is 0"),
        total => format!("{name} did not move in the window ({} since boot)", words::thousands(total)),
    })
}

/// `+20 in 3 s`, for a counter with its plain meaning.
pub fn moved(reading: &Reading, meaning: &str) -> EvidenceItem {
    let name = reading.metric.rsplit('.').next().unwrap_or_default();
    EvidenceItem::counter(reading, format!("{name} +{}: {meaning}", words::thousands(reading.delta)))
}
