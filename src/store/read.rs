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

/// What is wrong with a part of it; the rest is read.
#[derive(Debug, Default)]
pub struct ReadProblems {
    pub problems: Vec<String>,
    /// Something was written that is not read here: a file is damaged or of a later version. One that was cut off holds all that
    /// was written.
    pub unread: bool,
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
    pub fn entries(&self, since: Duration, until: Duration, each: &mut dyn FnMut(Entry) -> bool) -> ReadProblems {
        let mut found = ReadProblems::default();
        let newest = self.files.iter().rfind(|file| file.kind == Kind::Index).map(|file| file.number);
        let mut more = true;
        for file in self.of(Kind::Index, since.saturating_sub(BEFORE), Duration::MAX) {
            if !more && file.start > until {
                continue;
            }
            let mut odd = 0_u64;
            let read = recording::entries(&file.path, &mut |_, _, text| match serde_json::from_slice(text) {
                Ok(entry) => more = each(entry),
                Err(_) => odd += 1,
            });
            match read {
                // Deleted meanwhile, because it is old.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    found.unread = true;
                    found.problems.push(format!("{error}; what is before that was read"));
                }
                Ok(Some(_)) if self.written && Some(file.number) == newest => {}
                Ok(Some(cut)) => {
                    let name = file.path.display();
                    found
                        .problems
                        .push(format!("{name}: the recorder was cut off {cut}; what is before that was read"));
                }
                Ok(None) => {}
            }
            if odd > 0 {
                found.unread = true;
                found.problems.push(format!("{}: {odd} entries are not understood", file.path.display()));
            }
        }
        found
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

fn is_gone(error: &RecordingError) -> bool {
    matches!(&error.problem, RecordingProblem::Read(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// Whether somebody holds the lock; false where that cannot be told.
fn is_written(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(LOCK)) else { return false };
    matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
}
