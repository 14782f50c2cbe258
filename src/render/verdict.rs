//! The words for a verdict: the same in every format for people.

use super::layout::Paint;
use crate::cause::Severity;
use crate::diagnosis::{Diagnosis, Status};
use crate::value::escape::visible;

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

/// The verdict's first sentence, and what was asked for and is not there.
pub fn one_line(diagnosis: &Diagnosis) -> String {
    let first = diagnosis.summary.split_once(". ").map_or(diagnosis.summary.as_str(), |(first, _)| first);
    let first = first.trim_end_matches('.');
    match diagnosis.absent().filter(|_| diagnosis.status == Status::Ok) {
        Some(absent) => absent,
        None => first.to_owned(),
    }
}

/// One line for a person in a hurry, with a newline at its end.
pub fn quiet(diagnosis: &Diagnosis) -> String {
    format!("{}  {}\n", status(diagnosis.status), visible(&one_line(diagnosis)))
}

/// The colour of a verdict, which says no more than its word.
pub fn paint(status: Status) -> Paint {
    match status {
        Status::Ok => Paint::Green,
        Status::Warning | Status::Unknown => Paint::Yellow,
        Status::Critical => Paint::Red,
    }
}
