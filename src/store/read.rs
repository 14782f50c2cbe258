//! Whoever looks back. A store is read while it is written: what is there is whole up to the last frame.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StoreError;
use super::name::{Kind, Named, files, span};
use super::write::LOCK;
use crate::history::Entry;
use crate::recording::{self, RecordingError, RecordingProblem};

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
        let read = recording::entries(&newest.path, &mut |_, _, _| {});
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

    /// Takes each entry that may be about the time from `since` to `until` (CLOCK_REALTIME), and what began before it; then what
    /// came after it, file by file, until `each` wants no more.
    pub fn entries(&self, since: Duration, until: Duration, each: &mut dyn FnMut(Entry) -> bool) -> Vec<ReadProblem> {
        let mut problems = Vec::new();
        let newest = self.files.iter().rfind(|file| file.kind == Kind::Index).map(|file| file.number);
        let mut more = true;
        for file in self.of(Kind::Index, since.saturating_sub(BEFORE), Duration::MAX) {
            if !more && file.start > until {
                continue;
            }
            let (mut odd, mut latest) = (0_u64, file.start);
            let read = recording::entries(&file.path, &mut |_, at, text| {
                latest = latest.max(at.wall);
                match serde_json::from_slice(text) {
                    Ok(entry) => more = each(entry),
                    Err(_) => odd += 1,
                }
            });
            let name = file.path.display().to_string();
            let mut say = |text: String, what| problems.push(ReadProblem { text, file: file_name(file), what });
            match read {
                // Deleted meanwhile, because it is old.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    let end = self.end(file).max(latest);
                    let why = unreadable(&error.problem);
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

    /// When a part of the index was written last: the next one begins then.
    fn end(&self, file: &Named) -> Duration {
        let next = self.files.iter().filter(|next| next.kind == Kind::Index && next.number > file.number);
        let next = next.map(|next| next.start).min();
        next.into_iter().chain(span(file).ok().map(|(_, until)| until)).min().unwrap_or(file.start)
    }

    /// The recordings that may hold something of that time, in their order.
    pub fn recordings(&self, since: Duration, until: Duration) -> Vec<PathBuf> {
        self.of(Kind::Recording, since, until).map(|file| file.path.clone()).collect()
    }

    fn of(&self, kind: Kind, since: Duration, until: Duration) -> impl Iterator<Item = &Named> {
        let about =
            move |file: &&Named| file.kind == kind && span(file).is_ok_and(|(from, to)| from <= until && to >= since);
        self.files.iter().filter(about)
    }
}

fn file_name(file: &Named) -> String {
    file.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Why, without the advice for a recording, which can be made or copied again.
fn unreadable(problem: &RecordingProblem) -> String {
    match problem {
        RecordingProblem::Foreign => "is no part of the index of a store".to_owned(),
        RecordingProblem::Truncated(place) => format!("is cut off {place}"),
        RecordingProblem::Damaged { place, what } => format!("is damaged at {place}: {what}"),
        RecordingProblem::TrailingGarbage { byte } => format!("goes on after its end, at byte {byte}"),
        RecordingProblem::NewerFormat { version } => {
            format!("is of a newer rstdoctor (format {version}), which reads it")
        }
        other => other.to_string(),
    }
}

fn is_gone(error: &RecordingError) -> bool {
    matches!(&error.problem, RecordingProblem::Read(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// Whether somebody holds the lock; false where that cannot be told.
fn is_written(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(LOCK)) else { return false };
    matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
}
