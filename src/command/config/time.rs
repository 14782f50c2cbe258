//! Points in time as people write them.

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ToSpan};

use super::{UsageError, span};

/// A point in time, and how exactly it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Since the epoch.
    pub at: Duration,
    pub unit: Unit,
}

/// What a person names by a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A date without a time of day.
    Day,
    Minute,
    /// `now`, too.
    Second,
    /// How long ago.
    Ago,
}

/// `03:12`, `2026-11-26 03:12`, `2026-11-26T03:12:00Z`, `03:12+01:00`, a date, `now`, or how long ago: `24h`. Without a zone it is
/// one of `zone`; a time of day is the latest that has passed.
///
/// # Errors
/// [`UsageError`]: it is none.
pub fn point(option: &'static str, text: &str, now: Duration, zone: &TimeZone) -> Result<Point, UsageError> {
    read(option, text, now, zone, &|time, now, zone| latest(time, now, zone))
}

/// The end of what began at `since`: a time of day is the first one from then on, however late it is now; but of what began so long
/// ago as the latest that has passed, if there was one since.
///
/// # Errors
/// [`UsageError`]: it is none.
pub fn end(text: &str, since: Point, now: Duration, zone: &TimeZone) -> Result<Duration, UsageError> {
    let begun = timestamp(since.at);
    let of_day = |time: Time, now: Timestamp, zone: &TimeZone| {
        let passed = latest(time, now, zone).filter(|at| since.unit == Unit::Ago && Some(*at) > begun);
        passed.or_else(|| first(time, begun?, zone))
    };
    // What is still to come is not recorded.
    Ok(read("--until", text, now, zone, &of_day)?.at.min(now))
}

/// When it is that time of day.
type OfDay<'a> = dyn Fn(Time, Timestamp, &TimeZone) -> Option<Timestamp> + 'a;

fn read(
    option: &'static str,
    text: &str,
    now: Duration,
    zone: &TimeZone,
    of_day: &OfDay<'_>,
) -> Result<Point, UsageError> {
    let wrong = || UsageError::Time { option, given: text.to_owned() };
    let trimmed = text.trim();
    if trimmed == "now" {
        return Ok(Point { at: now, unit: Unit::Second });
    }
    let is_ago = |text: &str| {
        text.ends_with(|last: char| last.is_ascii_lowercase()) && text.starts_with(|first: char| first.is_ascii_digit())
    };
    let ago = trimmed.trim_start_matches('-').trim_end_matches("ago").trim_end();
    if is_ago(ago) {
        return Ok(Point { at: now.saturating_sub(span(option, ago)?), unit: Unit::Ago });
    }
    // A time of day may have a zone, too.
    let (plain, own) = without_zone(trimmed);
    let own = own.map(|text| fixed(text).ok_or_else(wrong)).transpose()?;
    let zone = own.as_ref().unwrap_or(zone);
    // A leap second is read as the one before it.
    if plain.contains(":60") {
        return Err(wrong());
    }
    let now_there = timestamp(now).ok_or_else(wrong)?;
    // A date and time would be read as the time of any day.
    let time = || plain.parse::<Time>().or_else(|_| Time::strptime("%H:%M", plain)).ok();
    let clock = if plain.matches(':').count() > 1 { Unit::Second } else { Unit::Minute };
    let (at, unit) = if let Ok(at) = trimmed.parse::<Timestamp>() {
        (Some(at), clock)
    } else if let Some(time) = Some(plain).filter(|plain| !plain.contains('-')).and_then(|_| time()) {
        (of_day(time, now_there, zone), clock)
    } else if let Ok(date) = Date::strptime("%Y-%m-%d", plain) {
        (zone.to_timestamp(date.to_datetime(Time::midnight())).ok(), Unit::Day)
    } else if let Ok(at) = plain.parse::<DateTime>().or_else(|_| DateTime::strptime("%Y-%m-%d %H:%M", plain)) {
        (zone.to_timestamp(at).ok(), clock)
    } else {
        (None, clock)
    };
    let at = at.and_then(since_epoch).ok_or_else(wrong)?;
    Ok(Point { at, unit })
}

/// `03:12` and `+01:00` of `03:12+01:00`: what stands behind the first colon and begins with a sign, or a Z. A name in brackets
/// behind it says the same once more.
fn without_zone(text: &str) -> (&str, Option<&str>) {
    let text = text.split_once('[').map_or(text, |(text, _)| text);
    if let Some(plain) = text.strip_suffix(['Z', 'z']) {
        return (plain.trim_end(), Some("+00:00"));
    }
    let Some(colon) = text.find(':') else { return (text, None) };
    match text.rfind(['+', '-']).filter(|sign| *sign > colon) {
        Some(sign) => match (text.get(..sign), text.get(sign..)) {
            (Some(plain), zone) => (plain.trim_end(), zone),
            (None, _) => (text, None),
        },
        None => (text, None),
    }
}

/// The zone of `+05:30`, `+0530` or `-05`.
fn fixed(text: &str) -> Option<TimeZone> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits.replace(':', "")),
        ("-", digits) => (-1, digits.replace(':', "")),
        _ => return None,
    };
    let all = digits.len() == 2 || digits.len() == 4;
    let number = |at: std::ops::Range<usize>| digits.get(at).map_or(Some(0), |text| text.parse::<u8>().ok());
    let (hours, minutes) = (number(0..2)?, number(2..4)?);
    let seconds = i32::from(hours) * 3600 + i32::from(minutes) * 60;
    let is_one = all && digits.bytes().all(|byte| byte.is_ascii_digit()) && minutes < 60;
    Offset::from_seconds(sign * seconds).ok().filter(|_| is_one).map(TimeZone::fixed)
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

/// On that day, or the next where it was earlier.
fn first(time: Time, begun: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let date = zone.to_datetime(begun).date();
    let same = zone.to_timestamp(date.to_datetime(time)).ok()?;
    if same >= begun {
        return Some(same);
    }
    zone.to_timestamp(date.checked_add(1.day()).ok()?.to_datetime(time)).ok()
}

fn timestamp(at: Duration) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(at.as_millis()).ok()?).ok()
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
        let at = point("--at", text, NOW, zone)?.at;
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
            // An hour to the east it is that time an hour earlier; in New York it is still to come today.
            ("03:12:30+01:00", "2026-11-26T02:12:30Z", "2026-11-26T02:12:30Z"),
            ("13:58+05:30", "2026-11-26T08:28:00Z", "2026-11-26T08:28:00Z"),
            ("13:58 -0500", "2026-11-25T18:58:00Z", "2026-11-25T18:58:00Z"),
            ("08:28:15+00:00", "2026-11-26T08:28:15Z", "2026-11-26T08:28:15Z"),
            ("2026-11-20T03:12+02:00", "2026-11-20T01:12:00Z", "2026-11-20T01:12:00Z"),
            ("2026-11-20 03:12-05", "2026-11-20T08:12:00Z", "2026-11-20T08:12:00Z"),
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
        for text in [
            "",
            "noon",
            "25:00",
            "2026-13-01",
            "1969-01-01",
            "24x",
            "Z",
            "03:12 CET",
            "9999999999999h",
            "03:12:60",
            "03:12+25:99",
            "03:12+5",
            "03:12+1:2:3",
            "2026-11-20T03:12:60Z",
            "03:12+",
        ] {
            let error = at(text, &TimeZone::UTC).expect_err(text).to_string();
            assert!(error.contains("--at"), "{text}: {error}");
        }
    }

    #[test]
    fn a_time_names_what_it_says() {
        for (text, unit) in [
            ("03:12", Unit::Minute),
            ("13:58+05:30", Unit::Minute),
            ("2026-11-20T03:12+02:00", Unit::Minute),
            ("2026-11-20 03:12", Unit::Minute),
            ("03:12:30", Unit::Second),
            ("03:12:30-05:00", Unit::Second),
            ("2026-11-20T03:12:00Z", Unit::Second),
            ("2026-11-20T03:12:05+01:00[Europe/Berlin]", Unit::Second),
            ("now", Unit::Second),
            ("2026-11-20", Unit::Day),
            ("24h", Unit::Ago),
        ] {
            let read = point("--at", text, NOW, &TimeZone::UTC).map(|point| point.unit);
            assert_eq!(read, Ok(unit), "{text}");
        }
    }

    /// It is 14:30.
    #[test]
    fn the_end_of_a_time_is_after_its_beginning() {
        for (since, until, ends) in [
            ("03:00", "03:20", "2026-11-26T03:20:00Z"),
            // Not over: up to now.
            ("14:00", "23:50", "2026-11-26T14:30:00Z"),
            ("14:00", "2099-01-01", "2026-11-26T14:30:00Z"),
            ("2h", "15:00", "2026-11-26T14:30:00Z"),
            // Over midnight.
            ("22:00", "04:00", "2026-11-26T04:00:00Z"),
            ("2026-11-20 22:00", "04:00", "2026-11-21T04:00:00Z"),
            ("2026-11-20 03:00", "04:00", "2026-11-20T04:00:00Z"),
            ("7days", "04:00", "2026-11-26T04:00:00Z"),
            ("03:00", "2h ago", "2026-11-26T12:30:00Z"),
        ] {
            let began = point("--since", since, NOW, &TimeZone::UTC).expect("a time");
            let end = end(until, began, NOW, &TimeZone::UTC).expect("a time");
            let end = humantime::format_rfc3339_seconds(std::time::SystemTime::UNIX_EPOCH + end).to_string();
            assert_eq!(end, ends, "{since} to {until}");
        }
    }
}
