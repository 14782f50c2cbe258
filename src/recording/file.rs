//! The file of a recording.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, linkat};

use super::write::{Output, RecordError};

/// A file that gets its name once it can be judged, and grows from then on. Readable by the owner only.
///
/// Until then it has none (`O_TMPFILE`, open(2)), so that whatever ends the program leaves nothing behind. It never replaces
/// a file and never follows a link. On file systems without such files it has its name from the beginning, and is removed if it
/// never comes so far.
#[derive(Debug)]
pub struct RecordingFile {
    file: File,
    target: PathBuf,
    named: bool,
    judgeable: bool,
}

impl RecordingFile {
    /// # Errors
    /// The target exists, or its directory cannot be written.
    pub fn create(target: &Path) -> Result<Self, RecordError> {
        let not_a_file = || RecordError::NotAFile { path: target.to_owned() };
        target.file_name().filter(|_| !target.as_os_str().as_bytes().ends_with(b"/")).ok_or_else(not_a_file)?;
        match std::fs::symlink_metadata(target) {
            Ok(metadata) if !metadata.is_file() => return Err(not_a_file()),
            Ok(_) => return Err(RecordError::Exists { path: target.to_owned() }),
            Err(_) => {}
        }
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let nameless = options.clone().custom_flags(libc::O_TMPFILE).open(directory);
        let (file, named) = match nameless {
            Ok(file) => (Ok(file), false),
            // EISDIR: a kernel or a file system that does not know the flag sees a directory opened for writing.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
                (options.create_new(true).open(target), true)
            }
            Err(error) => (Err(error), false),
        };
        let file = file.map_err(|source| failed(target, source))?;
        Ok(Self { file, target: target.to_owned(), named, judgeable: false })
    }

    /// Makes sure that what was written is on the disk.
    ///
    /// # Errors
    /// The disk is broken.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes sure that the file is on the disk under its name.
    ///
    /// # Errors
    /// The disk is full, or a file of that name appeared meanwhile.
    pub fn persist(mut self) -> Result<(), RecordError> {
        self.judgeable()?;
        self.file.sync_all().map_err(|source| failed(&self.target, source))
    }
}

fn failed(target: &Path, source: io::Error) -> RecordError {
    let path = target.to_owned();
    match source.kind() {
        ErrorKind::AlreadyExists => RecordError::Exists { path },
        _ => RecordError::File { path, source },
    }
}

impl Output for RecordingFile {
    /// Gives the file its name.
    fn judgeable(&mut self) -> Result<(), RecordError> {
        if !self.named {
            // With AT_EMPTY_PATH this would need CAP_DAC_READ_SEARCH (open(2)).
            let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let linked = linkat(CWD, own, CWD, &self.target, AtFlags::SYMLINK_FOLLOW);
            linked.map_err(|error| failed(&self.target, error.into()))?;
            self.named = true;
        }
        self.judgeable = true;
        Ok(())
    }
}

impl Write for RecordingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for RecordingFile {
    fn drop(&mut self) {
        if self.named && !self.judgeable {
            // Nothing useful can be done about an error here.
            let _ = std::fs::remove_file(&self.target);
        }
    }
}
