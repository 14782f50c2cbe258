//! The verdict: the worst that weighs, or what cannot be said.

use super::rank::Ranked;
use super::{Status, weighs};
use crate::cause::Severity;
use crate::evidence::Evidence;

/// Without both counters nobody can say that nothing was lost.
pub(super) fn blind(evidence: &Evidence<'_>) -> bool {
    if let Some(flows) = evidence.flows() {
        return flows.segments == 0;
    }
    evidence.counter("Tcp.OutRsts").is_err() || evidence.counter("TcpExt.ListenOverflows").is_err()
}

pub(super) fn status(evidence: &Evidence<'_>, causes: &[Ranked]) -> Status {
    let convincing =
        |severity: Severity| causes.iter().any(|cause| cause.finding.severity == severity && weighs(&cause.finding));
    if convincing(Severity::Critical) {
        Status::Critical
    } else if convincing(Severity::Warning) {
        Status::Warning
    } else if blind(evidence)
        || evidence.unbalanced().is_some()
        || evidence.unplaced().is_some()
        || evidence.lost_unexplained().is_some()
    {
        Status::Unknown
    } else {
        Status::Ok
    }
}
