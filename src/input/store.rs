//! What a store holds of some time, judged as a recording of it.

use std::time::Duration;

use anyhow::Context;

use super::{Opened, Stored, recording};
use crate::observation::SourceStatus;
use crate::recording::{ReplayHost, excerpts};
use crate::store::Reading;
use crate::value::{Failure, FailureKind, Moment};

/// Raw evidence that ends so much before the time that was asked for, or begins so much after it, is of another time.
const NEAR: Duration = Duration::from_secs(2);

/// Raw evidence of a part of the time, without a gap.
pub struct Part {
    pub from: Moment,
    pub until: Moment,
    pub opened: Opened,
}

/// What there is of the time, in order, and what is wrong with files of the store.
///
/// # Errors
/// There is no store, or it cannot be read.
pub fn parts(stored: &Stored) -> anyhow::Result<(Vec<Part>, Vec<String>)> {
    let files = Reading::open(&stored.directory)?.recordings(stored.since, stored.until);
    let (excerpts, wrong) = excerpts(&files, stored.since, stored.until);
    let mut wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    let mut parts = Vec::new();
    for excerpt in excerpts {
        if excerpt.until.wall.saturating_add(NEAR) < stored.since {
            continue;
        }
        let status = status(stored, excerpt.from.wall, excerpt.until.wall, excerpt.cut);
        match ReplayHost::read(&excerpt.recording) {
            Ok(host) => {
                let opened = recording::of(host, status);
                parts.extend(opened.map(|opened| Part { from: excerpt.from, until: excerpt.until, opened }));
            }
            Err(error) => wrong.push(error.to_string()),
        }
    }
    Ok((parts, wrong))
}

/// The part that is longest.
pub fn open(stored: &Stored) -> anyhow::Result<Opened> {
    let length = |part: &Part| part.until.mono.saturating_sub(part.from.mono);
    let longest = parts(stored)?.0.into_iter().max_by_key(length);
    longest.map(|part| part.opened).context("no raw evidence of that time was kept")
}

/// What of the time is missing, as the state of a source.
fn status(stored: &Stored, from: Duration, until: Duration, cut: bool) -> Option<SourceStatus> {
    let whole = from <= stored.since.saturating_add(NEAR) && until.saturating_add(NEAR) >= stored.until;
    if whole && !cut {
        return None;
    }
    let at = |wall: Duration| humantime::format_rfc3339_seconds(std::time::SystemTime::UNIX_EPOCH + wall);
    let why = if cut { "more than fits into memory was asked for" } else { "raw evidence is kept around faults only" };
    let reason = format!("what is judged is {} to {}: {why}", at(from), at(until));
    let failure = Failure::new(FailureKind::NotCollected, reason);
    Some(SourceStatus { name: "store", failure: Some(failure), partial: true, note: None, took: Duration::ZERO })
}
