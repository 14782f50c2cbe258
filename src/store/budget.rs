//! How much a store may hold: whoever writes asks for room first, and the oldest files go for it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::name::{Kind, files};

/// Of what a store may hold, recordings may have so many tenths: where something happens all the time they would have it all, and
/// the index, which tells of the whole time, would go with the oldest of them.
const RECORDINGS: u64 = 3;

/// Shared by all files that are open.
#[derive(Clone)]
pub(super) struct Budget(Arc<Mutex<Room>>);

struct Room {
    directory: PathBuf,
    /// Bytes.
    limit: u64,
    used: u64,
    /// Of these, those of recordings.
    recordings: u64,
    /// Files that grow.
    open: BTreeSet<PathBuf>,
    /// Files that were deleted for room.
    deleted: u64,
}

impl Budget {
    pub fn new(directory: &Path, limit: u64) -> io::Result<Self> {
        let mut room =
            Room { directory: directory.to_owned(), limit, used: 0, recordings: 0, open: BTreeSet::new(), deleted: 0 };
        for file in files(directory)? {
            room.add(file.kind, fs::metadata(&file.path).map_or(0, |metadata| metadata.len()));
        }
        Ok(Self(Arc::new(Mutex::new(room))))
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open(&self, path: &Path) {
        self.lock().open.insert(path.to_owned());
    }

    pub fn close(&self, path: &Path) {
        self.lock().open.remove(path);
    }

    pub fn used(&self) -> u64 {
        self.lock().used
    }

    /// How many files were deleted for room so far.
    pub fn deleted(&self) -> u64 {
        self.lock().deleted
    }

    /// Bytes that will be written.
    ///
    /// # Errors
    /// What is open has all the room that there is.
    pub fn take(&self, kind: Kind, bytes: u64) -> io::Result<()> {
        let mut room = self.lock();
        if !room.has(kind, bytes) {
            room.free(kind, bytes)?;
        }
        room.add(kind, bytes);
        Ok(())
    }

    /// Bytes that were taken and not written.
    pub fn give_back(&self, kind: Kind, bytes: u64) {
        self.lock().remove(kind, bytes);
    }

    /// Deletes a file that is not needed.
    pub fn delete(&self, path: &Path) -> io::Result<()> {
        self.lock().delete(path)
    }
}

impl Room {
    fn has(&self, kind: Kind, bytes: u64) -> bool {
        let recordings = self.recordings.saturating_add(bytes) <= self.limit / 10 * RECORDINGS;
        self.used.saturating_add(bytes) <= self.limit && (kind != Kind::Recording || recordings)
    }

    fn add(&mut self, kind: Kind, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
        if kind == Kind::Recording {
            self.recordings = self.recordings.saturating_add(bytes);
        }
    }

    fn remove(&mut self, kind: Kind, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
        if kind == Kind::Recording {
            self.recordings = self.recordings.saturating_sub(bytes);
        }
    }

    fn free(&mut self, kind: Kind, bytes: u64) -> io::Result<()> {
        let all = files(&self.directory)?;
        // What happened is worth more than how it looked.
        let (recordings, index): (Vec<_>, Vec<_>) = all.into_iter().partition(|file| file.kind == Kind::Recording);
        // A recording takes no room from the index.
        let index = if kind == Kind::Index { index } else { Vec::new() };
        for file in recordings.into_iter().chain(index) {
            if self.has(kind, bytes) {
                return Ok(());
            }
            if !self.open.contains(&file.path) {
                self.delete(&file.path)?;
                self.deleted += 1;
            }
        }
        let full = match self.has(kind, bytes) {
            true => return Ok(()),
            false if self.has(Kind::Index, bytes) => "recordings have reached their share of --max-size, three tenths",
            false => "the store has reached --max-size",
        };
        Err(io::Error::new(io::ErrorKind::StorageFull, full))
    }

    fn delete(&mut self, path: &Path) -> io::Result<()> {
        let length = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        fs::remove_file(path)?;
        let recording = path.extension().is_some_and(|own| own == Kind::Recording.extension());
        self.remove(if recording { Kind::Recording } else { Kind::Index }, length);
        Ok(())
    }
}
