//! How much a store may hold: whoever writes asks for room first, and the oldest files go for it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::name::{Kind, files};

/// Shared by all files that are open.
#[derive(Clone)]
pub(super) struct Budget(Arc<Mutex<Room>>);

struct Room {
    directory: PathBuf,
    /// Bytes.
    limit: u64,
    used: u64,
    /// Files that grow.
    open: BTreeSet<PathBuf>,
    /// Files that were deleted for room.
    deleted: u64,
}

impl Budget {
    pub fn new(directory: &Path, limit: u64) -> io::Result<Self> {
        let mut used = 0;
        for file in files(directory)? {
            used += fs::metadata(&file.path).map_or(0, |metadata| metadata.len());
        }
        let (directory, open) = (directory.to_owned(), BTreeSet::new());
        Ok(Self(Arc::new(Mutex::new(Room { directory, limit, used, open, deleted: 0 }))))
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
    pub fn take(&self, bytes: u64) -> io::Result<()> {
        let mut room = self.lock();
        if room.used.saturating_add(bytes) > room.limit {
            room.free(bytes)?;
        }
        room.used += bytes;
        Ok(())
    }

    /// Bytes that were taken and not written.
    pub fn give_back(&self, bytes: u64) {
        let mut room = self.lock();
        room.used = room.used.saturating_sub(bytes);
    }

    /// Deletes a file that is not needed.
    pub fn delete(&self, path: &Path) -> io::Result<()> {
        self.lock().delete(path)
    }
}

impl Room {
    fn free(&mut self, bytes: u64) -> io::Result<()> {
        let all = files(&self.directory)?;
        // What happened is worth more than how it looked.
        let (recordings, index): (Vec<_>, Vec<_>) = all.into_iter().partition(|file| file.kind == Kind::Recording);
        for file in recordings.into_iter().chain(index) {
            if self.used.saturating_add(bytes) <= self.limit {
                return Ok(());
            }
            if !self.open.contains(&file.path) {
                self.delete(&file.path)?;
                self.deleted += 1;
            }
        }
        match self.used.saturating_add(bytes) <= self.limit {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::StorageFull, "the store has reached --max-size")),
        }
    }

    fn delete(&mut self, path: &Path) -> io::Result<()> {
        let length = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        fs::remove_file(path)?;
        self.used = self.used.saturating_sub(length);
        Ok(())
    }
}
