//! The one who writes a store.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StoreError;
use super::budget::Budget;
use super::name::{Kind, files, name, span};
use crate::recording::RecordingFile;
use crate::recording::write::{Output, RecordError};
use crate::value::Moment;

pub(super) const LOCK: &str = "lock";

/// How much a store holds, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub keep: Duration,
    /// Bytes of all files.
    pub size: u64,
}

/// A store that is written; dropping it gives up the lock.
pub struct Store {
    directory: PathBuf,
    limits: Limits,
    budget: Budget,
    next: u64,
    _lock: File,
}

impl Store {
    /// Creates the directory if there is none, and locks it.
    ///
    /// # Errors
    /// Another one writes it, it is open to others, or it cannot be written.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, StoreError> {
        let wrong = |source| StoreError::File { path: directory.to_owned(), source };
        if fs::metadata(directory).is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(StoreError::NotADirectory { path: directory.to_owned() });
        }
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(wrong)?;
        let metadata = fs::metadata(directory).map_err(wrong)?;
        let mode = metadata.mode() & 0o7777;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(StoreError::Foreign { path: directory.to_owned(), owner: metadata.uid() });
        }
        if mode & 0o077 != 0 {
            return Err(StoreError::Open { path: directory.to_owned(), mode });
        }
        let lock = lock(directory)?;
        let next = files(directory).map_err(wrong)?.last().map_or(1, |file| file.number.saturating_add(1));
        let budget = Budget::new(directory, limits.size).map_err(wrong)?;
        Ok(Self { directory: directory.to_owned(), limits, budget, next, _lock: lock })
    }

    /// A recording that begins now.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn recording(&mut self, at: Moment) -> Result<StoreFile, RecordError> {
        self.file(Kind::Recording, at)
    }

    /// A part of the index that begins now.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn index(&mut self, at: Moment) -> Result<StoreFile, RecordError> {
        self.file(Kind::Index, at)
    }

    fn file(&mut self, kind: Kind, at: Moment) -> Result<StoreFile, RecordError> {
        let path = self.directory.join(name(kind, self.next, at.wall));
        self.next += 1;
        let file = RecordingFile::create(&path)?;
        self.budget.open(&path);
        Ok(StoreFile { file: Some(file), path, kind, budget: self.budget.clone(), written: 0, stays: false })
    }

    /// Deletes what is older than it is to be kept. How many files that were.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn expire(&self, now: Moment) -> io::Result<usize> {
        let mut expired = 0;
        for file in files(&self.directory)? {
            // A file that vanished meanwhile is none.
            let Ok((_, until)) = span(&file) else { continue };
            if until.saturating_add(self.limits.keep) < now.wall {
                self.budget.delete(&file.path)?;
                expired += 1;
            }
        }
        Ok(expired)
    }

    /// Deletes a recording that is not worth keeping.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn delete(&self, path: &Path) -> io::Result<()> {
        self.budget.delete(path)
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.budget.used()
    }

    /// Files that went so far because the store was full.
    pub fn deleted(&self) -> u64 {
        self.budget.deleted()
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Whoever reads holds the lock for a moment, too.
fn lock(directory: &Path) -> Result<File, StoreError> {
    const TRIES: u32 = 10;
    let path = directory.join(LOCK);
    let wrong = |source| StoreError::File { path: path.clone(), source };
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.custom_flags(libc::O_NOFOLLOW).open(&path).map_err(wrong)?;
    for attempt in 1.. {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if attempt < TRIES => std::thread::sleep(Duration::from_millis(50)),
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let _ = (&file).take(20).read_to_string(&mut pid);
                let who = pid.trim().parse::<u32>().map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                return Err(StoreError::InUse { path: directory.to_owned(), who });
            }
            Err(error) => return Err(wrong(error.into())),
        }
    }
    // For the one who comes second; a full disk is no reason not to begin.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// A file of a store that grows.
pub struct StoreFile {
    file: Option<RecordingFile>,
    path: PathBuf,
    kind: Kind,
    budget: Budget,
    written: u64,
    /// It has its name; what never gets one is gone once it is closed.
    stays: bool,
}

impl StoreFile {
    /// Bytes that were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was written is on the disk then.
    ///
    /// # Errors
    /// The disk is broken.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), RecordingFile::sync)
    }

    /// It is complete: makes sure that it is on the disk.
    ///
    /// # Errors
    /// The disk is full, or broken.
    pub fn persist(mut self) -> Result<(), RecordError> {
        self.judgeable()?;
        self.file.take().map_or(Ok(()), RecordingFile::persist)
    }
}

impl Output for StoreFile {
    fn judgeable(&mut self) -> Result<(), RecordError> {
        self.file.as_mut().map_or(Ok(()), Output::judgeable)?;
        self.stays = true;
        Ok(())
    }
}

impl Write for StoreFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.budget.take(self.kind, bytes.len() as u64)?;
        let written = self.file.as_mut().map_or(Ok(bytes.len()), |file| file.write(bytes));
        let rest = bytes.len().saturating_sub(*written.as_ref().unwrap_or(&0));
        self.budget.give_back(self.kind, rest as u64);
        self.written += (bytes.len() - rest) as u64;
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for StoreFile {
    fn drop(&mut self) {
        self.budget.close(&self.path);
        if !self.stays {
            self.budget.give_back(self.kind, self.written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 100_000;

    fn at(second: u64) -> Moment {
        Moment { wall: Duration::from_secs(1_795_662_720 + second), ..Moment::default() }
    }

    /// Bytes of the files that are there, of recordings and of the index.
    fn there(directory: &Path) -> (u64, u64) {
        let size = |kind| {
            let own = files(directory).unwrap().into_iter().filter(|file| file.kind == kind);
            own.map(|file| fs::metadata(file.path).unwrap().len()).sum()
        };
        (size(Kind::Recording), size(Kind::Index))
    }

    #[test]
    fn never_more_than_the_limit_and_recordings_go_before_the_index() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let mut open = Store::open(&store, Limits { keep: Duration::from_secs(3600), size: LIMIT }).unwrap();
        for second in 0..40 {
            let mut recording = open.recording(at(second)).unwrap();
            recording.write_all(&[1; 7_000]).unwrap();
            recording.persist().unwrap();
            let mut index = open.index(at(second)).unwrap();
            index.write_all(&[2; 1_000]).unwrap();
            index.persist().unwrap();
            let (recordings, index) = there(&store);
            assert_eq!(open.used(), recordings + index);
            assert!(recordings <= LIMIT / 10 * 3, "{recordings}");
            assert_eq!(index, (second + 1) * 1_000, "the index is not touched by recordings");
        }
        let mut index = open.index(at(100)).unwrap();
        for _ in 0..200 {
            index.write_all(&[3; 1_000]).unwrap_or_else(|error| {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            });
            index.flush().unwrap();
            let (recordings, index) = there(&store);
            assert!(recordings + index <= LIMIT, "{recordings} and {index}");
        }
        assert_eq!((there(&store).0, open.used()), (0, LIMIT), "all the rest went for what was written last");
    }

    /// Else a storm that is once too large for the store would end all recordings until the next start.
    #[test]
    fn a_recording_that_never_got_a_name_takes_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let mut open = Store::open(&store, Limits { keep: Duration::from_secs(3600), size: LIMIT }).unwrap();
        for second in 0..40 {
            let mut recording = open.recording(at(second)).unwrap();
            recording.write_all(&[1; 20_000]).unwrap();
            let full = recording.write_all(&[1; 20_000]).unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            drop(recording);
            assert_eq!((there(&store), open.used()), ((0, 0), 0));
        }
        let mut recording = open.recording(at(40)).unwrap();
        recording.write_all(&[1; 20_000]).unwrap();
        recording.judgeable().unwrap();
        drop(recording);
        assert_eq!((there(&store), open.used()), ((20_000, 0), 20_000), "it is there, and counts");
    }

    /// A file that seems to be of the future is not kept for ever, and none is deleted early.
    #[test]
    fn a_clock_that_is_set_back_deletes_nothing_early() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let keep = Duration::from_secs(3600);
        let mut open = Store::open(&store, Limits { keep, size: LIMIT }).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let moment = |wall| Moment { wall, ..Moment::default() };
        let mut file = open.recording(moment(now)).unwrap();
        file.write_all(&[1; 10]).unwrap();
        file.persist().unwrap();
        assert_eq!(open.expire(moment(now.saturating_sub(Duration::from_secs(86_400)))).unwrap(), 0);
        assert_eq!(open.expire(moment(now + keep / 2)).unwrap(), 0);
        assert_eq!(open.expire(moment(now + keep * 2)).unwrap(), 1);
        let names: Vec<u64> =
            [now, now / 2].map(|wall| open.recording(moment(wall)).unwrap()).iter().map(number).collect();
        assert!(names[0] < names[1], "the order is that of writing");
    }

    fn number(file: &StoreFile) -> u64 {
        let name = file.path().file_name().unwrap().to_str().unwrap();
        name.split('-').next().unwrap().parse().unwrap()
    }
}
