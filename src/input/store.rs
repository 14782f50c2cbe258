//! What a store holds of some time, judged as a recording of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Opened, recording};
use crate::kernel::clock;
use crate::observation::SourceStatus;
use crate::recording::{Lost, ReplayHost, excerpts};
use crate::store::Reading;
use crate::value::words::seconds;
use crate::value::{Failure, FailureKind, Moment};

/// Raw evidence that ends so much before the time that was asked for, or begins so much after it, is all of it.
const NEAR: Duration = Duration::from_secs(2);

/// A tick is written once its window is over, and with many others: this much may be in memory only.
const UNWRITTEN: Duration = Duration::from_secs(10);

/// What begins so much after the time that was asked for is of that time: it is said by the minute.
const SOON: Duration = Duration::from_secs(60);

/// A time of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub directory: PathBuf,
    /// CLOCK_REALTIME.
    pub since: Duration,
    pub until: Duration,
    /// Of the one who asks.
    pub zone: TimeZone,
}

/// Raw evidence of a part of the time, without a gap.
pub struct Part {
    /// The ticks between which it lies. What is recorded may begin earlier, with the latest look at all sockets.
    pub from: Moment,
    pub until: Moment,
    /// It was to go on: it holds as much as fits into memory.
    pub cut: bool,
    pub opened: Opened,
}

impl Stored {
    /// The same store at another time.
    #[must_use]
    pub fn at(&self, since: Duration, until: Duration) -> Self {
        Self { since, until, ..self.clone() }
    }

    /// The time that was asked for, for people.
    pub fn asked(&self) -> String {
        self.span(self.since, self.until)
    }

    /// `2026-11-26 03:12:04 CET`.
    pub fn point(&self, wall: Duration) -> String {
        self.format(wall, "%Y-%m-%d %H:%M:%S %Z")
    }

    /// `2026-11-26 03:12:04 to 03:13:10 CET`.
    pub fn span(&self, from: Duration, until: Duration) -> String {
        let same_day = self.format(from, "%Y-%m-%d %Z") == self.format(until, "%Y-%m-%d %Z");
        let (first, last) = match same_day {
            true => ("%Y-%m-%d %H:%M:%S", "%H:%M:%S %Z"),
            false => ("%Y-%m-%d %H:%M:%S %Z", "%Y-%m-%d %H:%M:%S %Z"),
        };
        format!("{} to {}", self.format(from, first), self.format(until, last))
    }

    fn format(&self, wall: Duration, format: &str) -> String {
        let at = i64::try_from(wall.as_millis()).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
        at.unwrap_or_default().to_zoned_datetime(self.zone.clone()).strftime(format).to_string()
    }
}

/// A part of the time of which there is raw evidence that cannot be read.
pub struct Unread {
    /// Which file, and why.
    pub text: String,
    pub from: Duration,
    pub until: Duration,
}

/// What there is of the time, in order, and what of it cannot be read.
///
/// # Errors
/// There is no store, or it cannot be read.
pub fn parts(stored: &Stored) -> anyhow::Result<(Vec<Part>, Vec<Unread>)> {
    let reading = Reading::open(&stored.directory)?;
    let (files, now) = (reading.recordings(stored.since, stored.until), writes_now(&reading));
    let (excerpts, lost) = excerpts(&files, stored.since, stored.until);
    let about = lost.into_iter().filter(|lost| lost.from < stored.until && lost.until > stored.since);
    let unread = |Lost { path, why, from, until }| {
        let text = format!("{}: {why}: no raw evidence of {}", path.display(), stored.span(from, until));
        Unread { text, from, until }
    };
    let mut wrong: Vec<Unread> = about.map(unread).collect();
    let mut parts = Vec::new();
    for excerpt in excerpts {
        match ReplayHost::read(&excerpt.recording) {
            Ok(host) => {
                let (from, until, cut) = (excerpt.begins, excerpt.until, excerpt.cut);
                let status = missing(stored, from.wall, until.wall, cut, now).map(partial);
                let opened = recording::of(host, status);
                parts.extend(opened.map(|opened| Part { from, until, cut, opened }));
            }
            Err(error) => {
                wrong.push(Unread { text: error.to_string(), from: excerpt.from.wall, until: excerpt.until.wall });
            }
        }
    }
    Ok((parts, wrong))
}

/// The first part, which has to begin where it was asked for: another time is not played instead.
///
/// # Errors
/// There is none, or it begins later; then where there is some.
pub fn open(stored: &Stored) -> anyhow::Result<Opened> {
    const MOST: usize = 10;
    let parts = parts(stored)?.0;
    let held: Vec<String> = parts.iter().map(|part| stored.span(part.from.wall, part.until.wall)).collect();
    let begins = |part: &Part| part.from.wall <= stored.since.saturating_add(SOON);
    let first = parts.into_iter().next().with_context(|| format!("there is no raw evidence of {}", stored.asked()))?;
    if begins(&first) {
        return Ok(first.opened);
    }
    bail!(
        "there is no raw evidence of {}; there is some of {}",
        stored.point(stored.since),
        held.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ")
    )
}

/// What of the time is missing in this part of it. `now`: where a recorder writes, the time.
pub fn missing(stored: &Stored, from: Duration, until: Duration, cut: bool, now: Option<Duration>) -> Option<String> {
    let (begins, ends) = (from <= stored.since.saturating_add(NEAR), until.saturating_add(NEAR) >= stored.until);
    let newest = now.filter(|now| begins && !ends && until.saturating_add(UNWRITTEN) >= *now);
    let why = match newest {
        _ if cut => "more than fits into memory was asked for".to_owned(),
        _ if begins && ends => return None,
        Some(now) => {
            let rest = stored.until.min(now).saturating_sub(until);
            format!("the {} after that are not written yet", seconds(Duration::from_secs(rest.as_secs())))
        }
        None => "no raw evidence goes on from there without a gap".to_owned(),
    };
    Some(format!("looked at is {}: {why}", stored.span(from, until)))
}

/// The time, where a recorder writes into this store.
///
/// # Errors
/// There is no store, or it cannot be read.
pub fn written_until(stored: &Stored) -> anyhow::Result<Option<Duration>> {
    Ok(writes_now(&Reading::open(&stored.directory)?))
}

fn writes_now(reading: &Reading) -> Option<Duration> {
    reading.is_written().then(|| clock::now().wall)
}

/// The state of the store as a source of what is judged.
pub fn partial(reason: String) -> SourceStatus {
    let failure = Failure::new(FailureKind::NotCollected, reason);
    SourceStatus { name: "store", failure: Some(failure), partial: true, note: None, took: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_recorder_has_not_written_yet_is_no_gap() {
        let at = Duration::from_secs;
        let stored =
            Stored { directory: PathBuf::from("/nowhere"), since: at(1000), until: at(1060), zone: TimeZone::UTC };
        let why = |until, now| missing(&stored, at(1001), at(until), false, now);
        let not_yet = why(1045, Some(at(1050))).expect("some of it is missing");
        assert!(not_yet.ends_with("00:17:25 UTC: the 5 s after that are not written yet"), "{not_yet}");
        let long_ago = why(1030, Some(at(1050))).expect("some of it is missing");
        assert!(long_ago.ends_with("without a gap"), "a recorder that writes has not lost half a minute: {long_ago}");
        let ended = why(1045, None).expect("some of it is missing");
        assert!(ended.ends_with("without a gap"), "nobody will write it: {ended}");
        assert_eq!(why(1059, Some(at(1061))), None);
    }
}
