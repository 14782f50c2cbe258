//! Points in time as people write them.

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::{UsageError, span};

/// A time since the epoch: `03:12`, `2026-11-26 03:12`, `2026-11-26T03:12:00Z`, a date, `now`, or how long ago: `24h`. Without a
/// zone it is one of `zone`; a time of day is the latest that has passed.
///
/// # Errors
/// [`UsageError`]: it is none.
pub fn point(option: &'static str, text: &str, now: Duration, zone: &TimeZone) -> Result<Duration, UsageError> {
    let wrong = || UsageError::Time { option, given: text.to_owned() };
    let trimmed = text.trim();
    if trimmed == "now" {
        return Ok(now);
    }
    let is_ago = |text: &str| {
        text.ends_with(|last: char| last.is_ascii_lowercase()) && text.starts_with(|first: char| first.is_ascii_digit())
    };
    let ago = trimmed.trim_start_matches('-').trim_end_matches("ago").trim_end();
    if is_ago(ago) {
        return Ok(now.saturating_sub(span(option, ago)?));
    }
    if let Ok(at) = trimmed.parse::<Timestamp>() {
        return since_epoch(at).ok_or_else(wrong);
    }
    // A time of day may say that it is UTC, too.
    let (plain, zone) = match trimmed.strip_suffix('Z') {
        Some(plain) => (plain, &TimeZone::UTC),
        None => (trimmed, zone),
    };
    let now_there = Timestamp::try_from(std::time::SystemTime::UNIX_EPOCH + now).map_err(|_| wrong())?;
    // A date and time would be read as the time of any day.
    let of_day = || plain.parse::<Time>().or_else(|_| Time::strptime("%H:%M", plain)).ok();
    let at = if let Some(time) = Some(plain).filter(|plain| !plain.contains('-')).and_then(|_| of_day()) {
        latest(time, now_there, zone)
    } else if let Ok(at) = plain.parse::<DateTime>().or_else(|_| DateTime::strptime("%Y-%m-%d %H:%M", plain)) {
        zone.to_timestamp(at).ok()
    } else if let Ok(date) = plain.parse::<Date>() {
        zone.to_timestamp(date.to_datetime(Time::midnight())).ok()
    } else {
        None
    };
    at.and_then(since_epoch).ok_or_else(wrong)
}

/// Today, or yesterday where that is still to come.
fn latest(time: Time, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let date = zone.to_datetime(now).date();
    let today = zone.to_timestamp(date.to_datetime(time)).ok()?;
    if today <= now {
        return Some(today);
    }
    zone.to_timestamp(date.checked_sub(1.day()).ok()?.to_datetime(time)).ok()
}

fn since_epoch(at: Timestamp) -> Option<Duration> {
    let millis = u64::try_from(at.as_millisecond()).ok()?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26 14:30:00 UTC.
    const NOW: Duration = Duration::from_secs(1_795_703_400);

    fn at(text: &str, zone: &TimeZone) -> Result<String, UsageError> {
        let at = point("--at", text, NOW, zone)?;
        Ok(humantime::format_rfc3339_seconds(std::time::SystemTime::UNIX_EPOCH + at).to_string())
    }

    #[test]
    fn a_time_is_local_unless_it_says_otherwise() {
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        for (text, utc, local) in [
            ("03:12", "2026-11-26T03:12:00Z", "2026-11-26T02:12:00Z"),
            ("03:12:30", "2026-11-26T03:12:30Z", "2026-11-26T02:12:30Z"),
            // Still to come today, so it was yesterday; of the other zone it is 15:30.
            ("15:00", "2026-11-25T15:00:00Z", "2026-11-26T14:00:00Z"),
            ("03:12Z", "2026-11-26T03:12:00Z", "2026-11-26T03:12:00Z"),
            ("2026-11-20 03:12", "2026-11-20T03:12:00Z", "2026-11-20T02:12:00Z"),
            ("2026-11-20T03:12:05", "2026-11-20T03:12:05Z", "2026-11-20T02:12:05Z"),
            ("2026-11-20T03:12:00Z", "2026-11-20T03:12:00Z", "2026-11-20T03:12:00Z"),
            ("2026-11-20T03:12:00+02:00", "2026-11-20T01:12:00Z", "2026-11-20T01:12:00Z"),
            ("2026-11-20", "2026-11-20T00:00:00Z", "2026-11-19T23:00:00Z"),
            ("now", "2026-11-26T14:30:00Z", "2026-11-26T14:30:00Z"),
            ("24h", "2026-11-25T14:30:00Z", "2026-11-25T14:30:00Z"),
            ("-90m", "2026-11-26T13:00:00Z", "2026-11-26T13:00:00Z"),
            ("2h ago", "2026-11-26T12:30:00Z", "2026-11-26T12:30:00Z"),
        ] {
            assert_eq!(at(text, &TimeZone::UTC).as_deref(), Ok(utc), "{text}");
            assert_eq!(at(text, &berlin).as_deref(), Ok(local), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_answered_with_examples() {
        for text in ["", "noon", "25:00", "2026-13-01", "1969-01-01", "24x", "Z", "03:12 CET", "9999999999999h"] {
            let error = at(text, &TimeZone::UTC).expect_err(text).to_string();
            assert!(error.contains("--at"), "{text}: {error}");
        }
    }
}
