//! The JSON documents: frozen wire types, so that an internal change cannot break a script.
//!
//! Times are RFC 3339 UTC, durations seconds. What was not observed is absent or null, never 0.

mod convert;
pub mod wire;

use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::Serialize;

use super::Format;
use crate::value::escape::is_hidden;

pub use convert::report::report;
pub use convert::trace::{gap, reset, summary};
pub use convert::watch::tick;
pub use wire::report::Report;

#[doc(hidden)]
pub const FORMAT: Format = Format {
    name: "json",
    help: "For programs, as rstdoctor/report/v1",
    for_people: false,
    print: |diagnosis, _| Ok(text(&report(diagnosis))?),
    plugin: None,
};

/// The report as indented JSON with a newline at the end. Characters that a terminal acts on or hides are JSON escapes, so
/// that it can be looked at safely.
///
/// # Errors
/// None in practice: every part of a report can be serialized.
pub fn text(report: &Report) -> Result<String, serde_json::Error> {
    let mut text = escaped(&serde_json::to_string_pretty(report)?);
    text.push('\n');
    Ok(text)
}

/// A document on one line, with a newline at the end: NDJSON.
///
/// # Errors
/// None in practice: every part of it can be serialized.
pub fn line<T: Serialize>(document: &T) -> Result<String, serde_json::Error> {
    let mut text = escaped(&serde_json::to_string(document)?);
    text.push('\n');
    Ok(text)
}

/// JSON in which characters that a terminal acts on or hides are escapes. Outside of strings JSON is ASCII, so what is hidden
/// stands inside one. serde_json escapes C0 itself.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        if character != '\n' && is_hidden(character) {
            let mut units = [0; 2];
            text.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            text.push(character);
        }
    }
    text
}

/// The JSON Schema of `scan --json` and of each line of `watch --json`.
pub fn report_schema() -> String {
    schema::<Report>("urn:rstdoctor:schema:report:v1")
}

/// What a store holds of some time, as [`text`] prints a report.
///
/// # Errors
/// None in practice: every part of it can be serialized.
pub fn history_text(past: &crate::history::Past) -> Result<String, serde_json::Error> {
    let mut text = escaped(&serde_json::to_string_pretty(&convert::history::history(past))?);
    text.push('\n');
    Ok(text)
}

/// What happened to an episode, on one line, as a hook reads it. `left_out`: how many events before it were not told.
///
/// # Errors
/// None in practice: every part of it can be serialized.
pub fn event_line(
    event: &crate::history::Event,
    what: &'static str,
    hostname: Option<&str>,
    left_out: u64,
) -> Result<String, serde_json::Error> {
    line(&convert::history::event(event, what, hostname, left_out))
}

/// The JSON Schema of `history --json`.
pub fn history_schema() -> String {
    schema::<wire::history::History>("urn:rstdoctor:schema:history:v1")
}

/// The JSON Schema of each line of `trace --json`.
pub fn trace_schema() -> String {
    schema::<wire::trace::Line>("urn:rstdoctor:schema:trace:v1")
}

/// As pretty JSON with a newline at the end.
fn schema<T: JsonSchema>(id: &str) -> String {
    let mut schema = schemars::schema_for!(T);
    schema.insert("$id".to_owned(), id.into());
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

/// Seconds since the epoch as RFC 3339, `2026-11-20T14:02:11Z`. A time beyond the year 9999, which only a damaged recording
/// can hold, is shown as its last second.
pub fn rfc3339_seconds(wall: Duration) -> String {
    humantime::format_rfc3339_seconds(time(wall)).to_string()
}

pub(crate) fn rfc3339_millis(wall: Duration) -> String {
    humantime::format_rfc3339_millis(time(wall)).to_string()
}

fn time(wall: Duration) -> SystemTime {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    SystemTime::UNIX_EPOCH + wall.min(LAST)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::samples;
    use super::*;

    fn json(diagnosis: &crate::diagnosis::Diagnosis) -> Value {
        serde_json::to_value(report(diagnosis)).expect("serializable")
    }

    #[test]
    fn every_report_is_valid_against_the_schema() {
        let schema: Value = serde_json::from_str(&report_schema()).expect("schema is JSON");
        let validator = jsonschema::validator_for(&schema).expect("schema is sound");
        for diagnosis in [samples::overflow(), samples::healthy(), samples::blind(), samples::one_port(8080)] {
            let report = json(&diagnosis);
            let errors: Vec<_> = validator.iter_errors(&report).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
        assert!(!validator.is_valid(&serde_json::json!({"schema": wire::report::SCHEMA})));
    }

    #[test]
    fn a_cause_carries_what_a_script_needs() {
        let report = json(&samples::overflow());
        let cause = &report["causes"][0];
        assert_eq!(cause["id"], "accept-queue-overflow");
        assert_eq!((&cause["rank"], &cause["state"]), (&Value::from(1), &Value::from("active")));
        assert_eq!(cause["subjects"][0]["address"], "0.0.0.0");
        assert_eq!(cause["subjects"][0]["port"], 8080);
        let remedy = &cause["remedies"][0];
        assert_eq!((&remedy["kind"], &remedy["restart"]), (&Value::from("config"), &Value::from("reload")));
        assert_eq!((&remedy["file"], &remedy["place"]), (&Value::from("nginx.conf"), &Value::from("main context")));
        assert_eq!(remedy["line"], "worker_processes auto;");
        assert!(remedy.get("command").is_none());
        assert_eq!(remedy["verify_command"], "ss -lnt 'sport = :8080'");
        assert_eq!(cause["remedies"][1]["kind"], "shell");
        assert_eq!(report["listeners"][0]["binding_limit"], "application");
        assert_eq!(report["ledger"]["sent"]["unexplained"], 12);
        assert_eq!(report["counters"]["TcpExt.ListenOverflows"]["delta"], 312);
        assert_eq!(report["limits"]["somaxconn"], 4096);
        assert_eq!(report["limits"]["tcp_mem"], serde_json::json!([190_779, 254_375, 381_558]));
        assert_eq!(report["window"]["started_at"], "2026-09-21T14:30:00.000Z");
    }

    #[test]
    fn what_was_not_observed_is_null_or_absent() {
        let report = json(&samples::blind());
        assert_eq!(report["ledger"]["sent"]["total"], Value::Null);
        assert_eq!(report["sockets"]["established"], Value::Null);
        assert!(report["ledger"]["firewall"].get("total").is_none());
        assert_eq!(report["verdict"]["status"], "unknown");
        assert_eq!(report["not_checked"][0]["missing"], serde_json::json!(["netstat", "listeners"]));
    }

    #[test]
    fn a_hostile_name_is_a_json_escape() {
        let name = "\x1b[2J\u{9b}\u{202e}\u{e0041}";
        let text = text(&report(&samples::overflow_by(name))).expect("serializable");
        assert!(text.chars().all(|c| c == '\n' || !is_hidden(c)), "{text:?}");
        let back: Value = serde_json::from_str(&text).expect("still JSON");
        assert_eq!(back["causes"][0]["subjects"][0]["process"], name);
    }

    #[test]
    fn a_time_that_no_calendar_has_does_not_panic() {
        assert_eq!(rfc3339_seconds(Duration::MAX), "9999-12-31T23:59:59Z");
    }
}
