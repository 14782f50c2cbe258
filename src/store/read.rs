//! Whoever looks back. A store is read while it is written: what is there is whole up to the last frame.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StoreError;
use super::name::{Kind, Named, files, span};
use super::write::LOCK;
use crate::history::Entry;
use crate::recording::{self, Found, Raw, RecordingError, RecordingProblem};

/// How long before the time that is asked for something may have begun that goes on in it.
const BEFORE: Duration = Duration::from_secs(24 * 3600);

/// Whether an agent has written there.
pub fn is_store(directory: &Path) -> bool {
    directory.join(LOCK).exists() || files(directory).is_ok_and(|files| !files.is_empty())
}

/// A store that is read.
pub struct Reading {
    files: Vec<Named>,
    written: bool,
}

/// Something that is wrong with a part of a store; the rest is read.
#[derive(Debug)]
pub struct ReadProblem {
    /// The whole sentence.
    pub text: String,
    pub file: String,
    pub what: Flaw,
}

/// Times are CLOCK_REALTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// From when to when entries were written that cannot be read.
    Unreadable(Duration, Duration),
    /// The recorder was killed, or the power went, after this.
    CutOff(Duration),
    /// Single entries are odd.
    Odd,
}

impl Reading {
    /// # Errors
    /// There is no such directory, or it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = || directory.to_owned();
        if !directory.is_dir() {
            return Err(match std::fs::metadata(directory) {
                Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    StoreError::File { path: path(), source }
                }
                Ok(_) => StoreError::NotADirectory { path: path() },
                Err(_) => StoreError::None { path: path() },
            });
        }
        let files = files(directory).map_err(|source| StoreError::File { path: path(), source })?;
        Ok(Self { files, written: is_written(directory) })
    }

    /// A recorder writes it now.
    pub fn is_written(&self) -> bool {
        self.written
    }

    /// The newest part of the index is of a version that this one does not read.
    pub fn newer(&self) -> Option<String> {
        let newest = self.files.iter().rfind(|file| file.kind == Kind::Index)?;
        let read = recording::entries(&newest.path, &mut |_| {});
        let newer = |error: &RecordingError| matches!(error.problem, RecordingProblem::NewerFormat { .. });
        read.err().filter(newer).map(|error| error.to_string())
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// When the oldest file began, CLOCK_REALTIME.
    pub fn since(&self) -> Option<Duration> {
        self.files.iter().map(|file| file.start).min()
    }

    /// Takes each entry that may be about the time from `since` to `until` (CLOCK_REALTIME), and what began before it; then what came
    /// after it, file by file, until `each` wants no more. `None`: here are some that cannot be read.
    pub fn entries(
        &self,
        since: Duration,
        until: Duration,
        each: &mut dyn FnMut(Option<Entry>) -> bool,
    ) -> Vec<ReadProblem> {
        let mut problems = Vec::new();
        let newest = self.files.iter().rfind(|file| file.kind == Kind::Index).map(|file| file.number);
        let mut more = true;
        for file in self.of(Kind::Index, since.saturating_sub(BEFORE), Duration::MAX) {
            if !more && file.start > until {
                continue;
            }
            let (mut odd, mut latest) = (0_u64, file.start);
            let (mut lost, mut holes) = (None, Vec::new());
            let read = recording::entries(&file.path, &mut |found| match found {
                Found::Entry(at, text) => {
                    let entry = serde_json::from_slice::<Entry>(text);
                    let (from, until) = entry.as_ref().ok().and_then(told).unwrap_or((at.wall, at.wall));
                    holes.extend(lost.take().map(|(hole, since)| (hole, since, from.max(since))));
                    latest = latest.max(until);
                    match entry {
                        Ok(entry) => more = each(Some(entry)),
                        Err(_) => odd += 1,
                    }
                }
                Found::Hole(hole) => {
                    more = each(None);
                    // Of a segment with no whole entry nothing is known either.
                    holes.extend(lost.replace((hole, latest)).map(|(hole, from)| (hole, from, latest)));
                }
            });
            holes.extend(lost.map(|(hole, from)| (hole, from, self.end(file).max(latest))));
            let name = file.path.display().to_string();
            let mut say = |text: String, what| problems.push(ReadProblem { text, file: file_name(file), what });
            for (hole, from, end) in holes {
                if from <= until && end >= since {
                    say(format!("{name}: {hole}; what is before and behind was read"), Flaw::Unreadable(from, end));
                }
            }
            match read {
                // Deleted meanwhile, because it is old.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    let end = self.end(file).max(latest);
                    let why = error.problem.plain();
                    more = each(None);
                    if latest <= until && end >= since {
                        let rest = if latest > file.start { "; what is before that was read" } else { "" };
                        say(format!("{name}: {why}{rest}"), Flaw::Unreadable(latest, end));
                    }
                }
                // Nobody misses what comes after: that is a time that was not recorded.
                Ok(Some(cut))
                    if (since..=until).contains(&latest) && !(self.written && Some(file.number) == newest) =>
                {
                    say(
                        format!("{name}: the recorder was cut off {cut}; what is before that was read"),
                        Flaw::CutOff(latest),
                    );
                }
                Ok(_) => {}
            }
            if odd > 0 {
                say(format!("{name}: {odd} entries are not understood"), Flaw::Odd);
            }
        }
        problems
    }

    /// When a file was written last: the next one of its kind begins then.
    fn end(&self, file: &Named) -> Duration {
        let next = self.files.iter().filter(|next| next.kind == file.kind && next.number > file.number);
        let next = next.map(|next| next.start).min();
        next.into_iter().chain(span(file).ok().map(|(_, until)| until)).min().unwrap_or(file.start)
    }

    /// The recordings that may hold something of that time, in their order.
    pub fn recordings(&self, since: Duration, until: Duration) -> Vec<Raw> {
        // A name has the second in which the next one begins.
        let until_next = |file: &Named| self.end(file).saturating_add(Duration::from_secs(1));
        let raw = |file: &Named| Raw { path: file.path.clone(), from: file.start, until: until_next(file) };
        self.of(Kind::Recording, since, until).map(raw).collect()
    }

    /// The times that recordings may be about, CLOCK_REALTIME.
    pub fn recorded(&self) -> Vec<(Duration, Duration)> {
        self.files.iter().filter(|file| file.kind == Kind::Recording).filter_map(|file| span(file).ok()).collect()
    }

    fn of(&self, kind: Kind, since: Duration, until: Duration) -> impl Iterator<Item = &Named> {
        let about =
            move |file: &&Named| file.kind == kind && span(file).is_ok_and(|(from, to)| from <= until && to >= since);
        self.files.iter().filter(about)
    }
}

/// From when on it tells what happened, and until when, where that is not the time at which it was written. Of a minute of which a
/// part cannot be read no more than the sum is known.
fn told(entry: &Entry) -> Option<(Duration, Duration)> {
    let at = Duration::from_millis;
    match entry {
        Entry::Tick(tick) => Some((at(tick.from), at(tick.until))),
        Entry::Minute(minute) => Some((at(minute.until), at(minute.until))),
        _ => None,
    }
}

fn file_name(file: &Named) -> String {
    file.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_gone(error: &RecordingError) -> bool {
    matches!(&error.problem, RecordingProblem::Read(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// Whether somebody holds the lock; false where that cannot be told.
fn is_written(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(LOCK)) else { return false };
    matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
}
