//! When a line was written.
//!
//! Times are compared within one paste, so the wall clock counts as it is printed: nginx writes its access log with an offset
//! and its error log without one, and both mean the same clock.

use std::sync::LazyLock;

use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use regex::bytes::{Captures, Regex};

use super::compiled;

/// What the seconds of a [`Stamp`] count from. Stamps of two clocks cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// 1970, as the wall clock of the log says.
    Date,
    /// Midnight: the line has no date.
    Day,
    /// The start of the kernel.
    Boot,
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stamp {
    pub clock: Clock,
    pub seconds: f64,
}

impl Stamp {
    /// Seconds from the other to this one; `None` if their clocks differ.
    pub fn since(&self, other: &Self) -> Option<f64> {
        (self.clock == other.clock).then_some(self.seconds - other.seconds)
    }
}

impl Stamp {
    /// The later one without the date that both have.
    pub fn until(&self, later: &Self) -> String {
        let (from, to) = (self.to_string(), later.to_string());
        let date = |text: &str| text.rsplit_once(' ').map_or(String::new(), |(date, _)| date.to_owned());
        match to.rsplit_once(' ') {
            Some((_, time)) if self.clock == Clock::Date && date(&from) == date(&to) => format!("{from} to {time}"),
            _ => format!("{from} to {to}"),
        }
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.clock {
            Clock::Boot => write!(f, "{:.0} s after boot", self.seconds),
            Clock::Date | Clock::Day => {
                let time = jiff::Timestamp::from_second(self.seconds as i64).unwrap_or_default();
                let format = match self.clock {
                    Clock::Date if time.as_second() >= KNOWN_YEAR => "%Y-%m-%d %H:%M:%S",
                    Clock::Date => "%m-%d %H:%M:%S",
                    _ => "%H:%M:%S",
                };
                write!(f, "{}", time.strftime(format))
            }
        }
    }
}

enum Kind {
    /// How jiff reads what was found, with commas, slashes of dates and the T made uniform.
    Date(&'static str),
    /// As `Date`, and the year must be added in front.
    Yearless(&'static str),
    Day,
    Boot,
    Epoch,
}

/// The particular before the general.
const PATTERNS: [(&str, Kind); 10] = [
    (r"\b(?P<it>\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)", Kind::Date("%Y-%m-%d %H:%M:%S%.f")),
    (r"\b(?P<it>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d(?:\.\d{1,9})?)", Kind::Date("%d-%b-%Y:%H:%M:%S%.f")),
    (r"\b(?P<it>\d\d?-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d(?:\.\d{1,9})?)", Kind::Date("%d-%b-%Y %H:%M:%S%.f")),
    (
        r"\b[A-Z][a-z]{2} (?P<it>[A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d(?:\.\d{1,9})? \d{4})\b",
        Kind::Date("%b %d %H:%M:%S%.f %Y"),
    ),
    (r"\b(?P<it>\d\d? [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d(?:\.\d{1,9})?)", Kind::Date("%d %b %Y %H:%M:%S%.f")),
    (r"\b(?P<it>[A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d(?:\.\d{1,9})?)", Kind::Yearless("%Y %b %d %H:%M:%S%.f")),
    (r"^[IWEF](?P<it>\d{4} \d\d:\d\d:\d\d\.\d{1,9})", Kind::Yearless("%Y %m%d %H:%M:%S%.f")),
    (r"^\[ *(?P<it>\d{1,9}\.\d{6})\]", Kind::Boot),
    (r"^\[?(?P<it>\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)\b", Kind::Day),
    (
        r#"(?:^|"?\b(?:ts|time|timestamp|__REALTIME_TIMESTAMP)"?\s*[:=]\s*"?)(?P<it>1\d{9}(?:\d{3}|\d{6}|\d{9})?(?:\.\d{1,9})?)\b"#,
        Kind::Epoch,
    ),
];

static REGEXES: LazyLock<Vec<Regex>> = LazyLock::new(|| compiled(PATTERNS.iter().map(|(pattern, _)| *pattern)));

/// Bytes at the beginning of a line in which a time is looked for.
const BEGINNING: usize = 2048;

/// The year of lines that have none, until a line has one: a leap year, so that all days exist.
const ANY_YEAR: i16 = 2000;
/// The first second after that year, since 1970.
const KNOWN_YEAR: i64 = 978_307_200;

/// Reads the times of one log, whose lines mostly have the same form.
#[derive(Debug, Clone)]
pub struct Times {
    last: usize,
    year: i16,
}

impl Default for Times {
    fn default() -> Self {
        Self { last: 0, year: ANY_YEAR }
    }
}

impl Times {
    /// The time of the line, if it has one that is known.
    pub fn read(&mut self, line: &[u8]) -> Option<Stamp> {
        let beginning = line.get(..line.len().min(BEGINNING))?;
        let last = self.last;
        let numbers = std::iter::once(last).chain((0..PATTERNS.len()).filter(|number| *number != last));
        for number in numbers {
            if let Some(stamp) = self.stamp(number, beginning) {
                self.last = number;
                return Some(stamp);
            }
        }
        None
    }

    fn stamp(&mut self, number: usize, line: &[u8]) -> Option<Stamp> {
        let (_, kind) = PATTERNS.get(number)?;
        let found: Captures<'_> = REGEXES.get(number)?.captures(line)?;
        let text = std::str::from_utf8(found.name("it")?.as_bytes()).ok()?;
        let even = || text.replace(',', ".").replace('/', "-").replace('T', " ").replace("  ", " ");
        match kind {
            Kind::Date(format) => {
                let date = date(format, &even())?;
                self.year = date.year();
                Some(Stamp { clock: Clock::Date, seconds: since_1970(date) })
            }
            Kind::Yearless(format) => {
                let date = date(format, &format!("{} {}", self.year, even()))?;
                Some(Stamp { clock: Clock::Date, seconds: since_1970(date) })
            }
            Kind::Day => {
                let date = date("%Y-%m-%d %H:%M:%S%.f", &format!("1970-01-01 {}", even()))?;
                Some(Stamp { clock: Clock::Day, seconds: since_1970(date) })
            }
            Kind::Boot => Some(Stamp { clock: Clock::Boot, seconds: text.parse().ok()? }),
            Kind::Epoch => {
                let digits = text.split('.').next().map_or(0, str::len) as i32;
                Some(Stamp { clock: Clock::Date, seconds: text.parse::<f64>().ok()? / 10f64.powi(digits - 10) })
            }
        }
    }
}

fn date(format: &str, text: &str) -> Option<DateTime> {
    BrokenDownTime::parse(format, text).ok()?.to_datetime().ok()
}

fn since_1970(date: DateTime) -> f64 {
    let span = date.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
    span.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        Times::default().read(line.as_bytes()).map(|stamp| stamp.to_string()).unwrap_or_default()
    }

    #[test]
    fn all_patterns_are_sound() {
        assert_eq!(REGEXES.len(), PATTERNS.len());
    }

    #[test]
    fn the_times_of_real_logs_are_read() {
        for line in [
            "2026/11/20 14:02:11 [error] 4122#0: *91 recv() failed",
            r#"10.0.0.7 - - [20/Nov/2026:14:02:11 +0100] "GET / HTTP/1.1" 499 0"#,
            "haproxy[71]: 10.0.0.1:3317 [20/Nov/2026:14:02:11.100] fe be/s1",
            "[20-Nov-2026 14:02:11] WARNING: [pool www] child 812 exited",
            "[Fri Nov 20 14:02:11.123456 2026] [proxy:error] [pid 71]",
            "4122:M 20 Nov 2026 14:02:11.031 # Client id=7",
            "2026-11-20T14:02:11.031Z error",
            "2026-11-20 14:02:11,031 ERROR c.example.Api",
            "2026-11-20 14:02:11.279 UTC [883] LOG:  could not receive data",
            "[2026-11-20 14:02:11 +0000] [7] [CRITICAL] WORKER TIMEOUT (pid:42)",
            "Nov 20 14:02:11 web-3 sshd[812]: error",
            "E1120 14:02:11.031337       1 proxy.go:90] dial",
            r#"{"level":"error","ts":1795183331.031,"msg":"x"}"#,
            r#"{"level":50,"time":1795183331031,"msg":"x"}"#,
            r#"{"__REALTIME_TIMESTAMP":"1795183331031000","MESSAGE":"x"}"#,
            "1795183331.031    120 10.0.0.7 TCP_MISS/502",
        ] {
            assert!(shown(line).ends_with("11-20 14:02:11"), "{line}: {}", shown(line));
        }
        assert_eq!(shown("14:02:11.031246 IP 10.0.0.1.80 > 10.0.0.2.99: Flags [R]"), "14:02:11");
        assert_eq!(shown("[105172.135427] TCP: too many orphaned sockets"), "105172 s after boot");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for line in ["", "everything is fine", "2026-13-40 99:02:11 x", "Foo 20 14:02:11", "id 12345678901234567890"] {
            assert_eq!(shown(line), "", "{line}");
        }
    }

    #[test]
    fn a_line_without_year_takes_that_of_the_log() {
        let mut times = Times::default();
        let dated = times.read(b"2026/11/20 14:02:11 [error]").expect("a date");
        let yearless = times.read(b"Nov 20 14:02:12 web-3 kernel: x").expect("a date");
        assert_eq!(yearless.since(&dated), Some(1.0));
        let boot = times.read(b"[105172.135427] TCP: x").expect("a time");
        assert_eq!(boot.since(&dated), None);
    }
}
