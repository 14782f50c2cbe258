//! One line for Nagios, Icinga and what else runs monitoring plugins, with performance data, and the status that they read.
//! See the Monitoring Plugins Development Guidelines, "Plugin Output for Nagios" and "Performance data".

use super::format::{Format, Plugin};
use super::verdict;
use crate::cause::Severity;
use crate::diagnosis::{Diagnosis, Status};
use crate::evidence::ledger::Account;
use crate::value::escape::visible;

pub const FORMAT: Format = Format {
    name: "nagios",
    help: "One line with performance data, and the exit status of a monitoring plugin",
    for_people: true,
    print: |diagnosis, _| Ok(line(diagnosis)),
    plugin: Some(Plugin { status, failed: |why| (failed(why), UNKNOWN) }),
};

/// Exit statuses of a plugin.
pub const OK: u8 = 0;
pub const WARNING: u8 = 1;
pub const CRITICAL: u8 = 2;
pub const UNKNOWN: u8 = 3;

/// The exit status. A service that was named and is not there is critical, as it is for a plugin that connects to it.
pub fn status(diagnosis: &Diagnosis) -> u8 {
    match diagnosis.status {
        Status::Critical => CRITICAL,
        Status::Unknown => UNKNOWN,
        Status::Ok | Status::Warning if diagnosis.absent().is_some() => CRITICAL,
        Status::Warning => WARNING,
        Status::Ok => OK,
    }
}

/// The line, with a newline at its end.
pub fn line(diagnosis: &Diagnosis) -> String {
    let word = match status(diagnosis) {
        OK => "OK",
        WARNING => "WARNING",
        CRITICAL => "CRITICAL",
        _ => "UNKNOWN",
    };
    let text = verdict::one_line(diagnosis);
    // What stands behind a bar is read as performance data.
    format!("RSTDOCTOR {word} - {} | {}\n", visible(&text).replace('|', "/"), data(diagnosis))
}

/// The line when nothing could be looked at.
pub fn failed(why: &str) -> String {
    format!("RSTDOCTOR UNKNOWN - {}\n", visible(why).replace('|', "/"))
}

/// `label=value[unit]`. What was not observed is `U`, as the guidelines have it.
fn data(diagnosis: &Diagnosis) -> String {
    let of = |severity: Severity| {
        let causes = diagnosis.causes.iter().map(|cause| &cause.finding);
        causes.filter(|finding| finding.severity == severity && finding.state.is_now()).count() as u64
    };
    let value = |value: Option<u64>| value.map_or_else(|| "U".to_owned(), |value| value.to_string());
    let total = |account: &Account| account.total.as_ref().ok().copied();
    let ledger = &diagnosis.ledger;
    let values = [
        ("critical", Some(of(Severity::Critical))),
        ("warning", Some(of(Severity::Warning))),
        ("resets_sent", total(&ledger.sent)),
        ("resets_received", total(&ledger.received)),
        ("lost", total(&ledger.dropped)),
        ("unexplained", ledger.sent.unexplained()),
        ("not_checked", Some(diagnosis.not_checked.len() as u64)),
    ];
    let counts = values.map(|(label, count)| format!("{label}={}", value(count)));
    format!("{} window={:.1}s", counts.join(" "), diagnosis.window.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_line_has_the_verdict_before_the_bar_and_numbers_behind_it() {
        let text = line(&samples::overflow_by("a|b\n"));
        assert_eq!(text.lines().count(), 1);
        let (said, data) = text.split_once(" | ").expect("a bar");
        assert!(said.starts_with("RSTDOCTOR CRITICAL - a/b\\n on 0.0.0.0:8080 accepts more slowly"), "{text}");
        // 48 EstabResets, of which 41 were closed by this side with unread data.
        let numbers = "critical=1 warning=0 resets_sent=57 resets_received=7 lost=312 unexplained=12 not_checked=";
        assert!(data.starts_with(numbers) && data.ends_with(" window=3.0s\n"), "{data}");
    }

    #[test]
    fn the_status_is_that_of_a_plugin() {
        assert_eq!(status(&samples::overflow()), CRITICAL);
        assert_eq!(status(&samples::healthy()), OK);
        let blind = samples::blind();
        assert_eq!(status(&blind), UNKNOWN);
        assert!(line(&blind).contains("resets_sent=U"), "{}", line(&blind));
        let nobody = samples::healthy_port(9999);
        assert_eq!(status(&nobody), CRITICAL);
        assert!(line(&nobody).contains("nothing listens on port 9999"), "{}", line(&nobody));
    }
}
