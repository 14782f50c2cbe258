//! The words for a verdict: the same in every format for people.

use super::layout::Paint;
use crate::cause::Severity;
use crate::diagnosis::Status;

/// The severity as the report words it.
pub fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "CRITICAL",
        Severity::Warning => "WARNING",
        Severity::Info => "seen",
    }
}

/// The verdict as the report words it.
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Ok => "OK",
        Status::Warning => "WARNING",
        Status::Critical => "CRITICAL",
        Status::Unknown => "UNKNOWN",
    }
}

/// The colour of a verdict, which says no more than its word.
pub fn paint(status: Status) -> Paint {
    match status {
        Status::Ok => Paint::Green,
        Status::Warning | Status::Unknown => Paint::Yellow,
        Status::Critical => Paint::Red,
    }
}
