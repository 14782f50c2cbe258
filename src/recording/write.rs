//! A [`Host`] that passes every question on to another one and stores the answers.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::redact::Redactor;
use crate::ask::{Answer, Ask, Clock, Frame, Host, Probe};
use crate::recording::format::{
    AskRecord, END, End, FORMAT_PREFIX, FORMAT_VERSION, FailureRecord, FrameRecord, MANIFEST, Manifest, PART, Tool,
    part,
};
use crate::value::{Failure, FailureKind, Moment};

/// Why no recording came about.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{} exists already; give another name or remove it", path.display())]
    Exists { path: PathBuf },
    #[error("{} is not a regular file and cannot be replaced by a recording", path.display())]
    NotAFile { path: PathBuf },
    #[error("cannot write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write the recording")]
    Write(#[from] io::Error),
    #[error("nothing was recorded: the first snapshot was not reached")]
    Empty,
}

/// Stores what another host answers, as described in `format`.
///
/// The answers are written as they arrive: memory holds one part of at most about 1 MiB, and with redaction the maps of
/// the names and addresses seen. Questions before the first frame are passed on but not stored.
pub struct RecordingHost<H: Host, W: Write> {
    inner: H,
    archive: Archive<W>,
    redactor: Option<Redactor>,
    index: End,
    error: Option<io::Error>,
}

impl<H: Host, W: Write> RecordingHost<H, W> {
    /// With `redact`, addresses and names are replaced before they are stored; the caller still sees the real ones.
    pub fn new(inner: H, out: W, redact: bool) -> Self {
        let archive =
            Archive { tar: tar::Builder::new(GzEncoder::new(out, Compression::fast())), entries: 0, seconds: 0 };
        Self { inner, archive, redactor: redact.then(Redactor::default), index: End::default(), error: None }
    }

    /// The host that is asked.
    pub(super) fn inner(&self) -> &H {
        &self.inner
    }

    /// Closes the recording and hands back where it went.
    ///
    /// # Errors
    /// The first error of any write, also of those during [`Probe::ask`]; or [`RecordError::Empty`].
    pub fn finish(mut self) -> Result<W, RecordError> {
        if let Some(error) = self.error {
            return Err(RecordError::Write(error));
        }
        if self.index.frames.is_empty() {
            return Err(RecordError::Empty);
        }
        self.index.entries = self.archive.entries + 1;
        self.archive.json(END, &self.index)?;
        let mut out = self.archive.tar.into_inner()?.finish()?;
        out.flush()?;
        Ok(out)
    }

    fn manifest(&mut self, at: Moment) -> io::Result<()> {
        let started = SystemTime::UNIX_EPOCH.checked_add(at.wall).unwrap_or(SystemTime::UNIX_EPOCH);
        let manifest = Manifest {
            format: format!("{FORMAT_PREFIX}{FORMAT_VERSION}"),
            tool: Tool { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
            redacted: self.redactor.is_some(),
            started_at: humantime::format_rfc3339(started).to_string(),
        };
        self.archive.json(MANIFEST, &manifest)
    }

    /// The entry for an answer in the current frame; `None` before the first frame and after an error.
    fn entry(&self, key: &str) -> Option<String> {
        if self.error.is_some() {
            return None;
        }
        let index = self.index.frames.len().checked_sub(1)?;
        let frame = self.index.frames.last()?;
        Some(frame.entry(index, key, frame.asks.iter().filter(|ask| ask.key == key).count()))
    }

    fn record(&mut self, record: AskRecord) {
        if let Some(frame) = self.index.frames.last_mut() {
            frame.asks.push(record);
        }
    }
}

impl<H: Host, W: Write> Clock for RecordingHost<H, W> {
    /// As the inner host; `None` after a failed write, because observing on would be in vain.
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        if self.error.is_some() {
            return None;
        }
        let at = self.inner.frame(frame)?;
        self.archive.seconds = at.wall.as_secs();
        if self.index.frames.is_empty()
            && let Err(error) = self.manifest(at)
        {
            self.error = Some(error);
            return None;
        }
        self.index.frames.push(FrameRecord::new(frame, at));
        Some(at)
    }
}

impl<H: Host, W: Write> Probe for RecordingHost<H, W> {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let key = ask.what.key();
        let Some(entry) = self.entry(&key) else { return self.inner.ask(ask, sink) };
        if header(&part(&entry, 0)).is_err() {
            let answer = self.inner.ask(ask, sink);
            let failure = Failure::new(FailureKind::NotCollected, format!("{key:?} cannot be named in a recording"));
            self.record(AskRecord { key, parts: 0, bytes: 0, failure: Some((&failure).into()) });
            return answer;
        }
        let mut parts =
            Parts { archive: &mut self.archive, entry, buffer: Vec::new(), parts: 0, bytes: 0, result: Ok(()) };
        let mut session = self.redactor.as_mut().map(|redactor| redactor.begin(ask));
        let answer = self.inner.ask(ask, &mut |bytes| {
            match &mut session {
                None => parts.push(bytes),
                Some(session) => parts.push(&session.push(bytes)),
            }
            sink(bytes);
        });
        let mut failure = answer.result.clone().err();
        if let Some(session) = session {
            match session.end(failure.is_none()) {
                Ok(rest) => parts.push(&rest),
                Err(left_out) => failure = failure.or(Some(left_out)),
            }
        }
        let (parts, bytes, result) = parts.close();
        self.error = result.err();
        self.record(AskRecord { key, parts, bytes, failure: failure.as_ref().map(FailureRecord::from) });
        answer
    }
}

struct Archive<W: Write> {
    tar: tar::Builder<GzEncoder<W>>,
    entries: u64,
    /// Time stamp of the entries, seconds since the epoch.
    seconds: u64,
}

impl<W: Write> Archive<W> {
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = header(name)?;
        header.set_size(bytes.len() as u64);
        header.set_mtime(self.seconds);
        header.set_cksum();
        self.entries += 1;
        self.tar.append(&header, bytes)
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> io::Result<()> {
        self.append(name, &serde_json::to_vec_pretty(value)?)
    }
}

/// A plain ustar header, so that the reader needs no extension. Fails for a name that does not fit it literally.
fn header(name: &str) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    if *header.path_bytes() != *name.as_bytes() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a plain name"));
    }
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    Ok(header)
}

/// The answer that arrives now, cut into entries because tar wants the size of an entry before its bytes.
struct Parts<'a, W: Write> {
    archive: &'a mut Archive<W>,
    entry: String,
    buffer: Vec<u8>,
    parts: u32,
    bytes: u64,
    result: io::Result<()>,
}

impl<W: Write> Parts<'_, W> {
    /// Takes what one call of the sink got; this is never cut.
    fn push(&mut self, bytes: &[u8]) {
        if !self.buffer.is_empty() && self.buffer.len() + bytes.len() > PART {
            self.store(part(&self.entry, self.parts));
        }
        self.bytes += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
    }

    fn store(&mut self, name: String) {
        if self.result.is_ok() {
            self.result = self.archive.append(&name, &self.buffer);
        }
        self.parts += 1;
        self.buffer.clear();
    }

    fn close(mut self) -> (u32, u64, io::Result<()>) {
        if !self.buffer.is_empty() {
            let name = if self.parts == 0 { self.entry.clone() } else { part(&self.entry, self.parts) };
            self.store(name);
        }
        (self.parts, self.bytes, self.result)
    }
}

/// A file that appears under its name only once it is complete.
///
/// Until [`RecordingFile::persist`] the bytes are in `NAME.partial-PID` beside it, readable by the owner only; dropping
/// this removes that file.
#[derive(Debug)]
pub struct RecordingFile {
    file: File,
    partial: PathBuf,
    target: PathBuf,
    overwrite: bool,
}

impl RecordingFile {
    /// # Errors
    /// The target exists and `overwrite` is false, or it is no regular file, or its directory cannot be written.
    pub fn create(target: &Path, overwrite: bool) -> Result<Self, RecordError> {
        let not_a_file = || RecordError::NotAFile { path: target.to_owned() };
        match std::fs::symlink_metadata(target) {
            Ok(metadata) if !metadata.is_file() => return Err(not_a_file()),
            Ok(_) if !overwrite => return Err(RecordError::Exists { path: target.to_owned() }),
            _ => {}
        }
        let mut name = target.file_name().ok_or_else(not_a_file)?.to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let partial = target.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .map_err(|source| RecordError::File { path: target.to_owned(), source })?;
        Ok(Self { file, partial, target: target.to_owned(), overwrite })
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    /// The disk is full, or a file of that name appeared meanwhile. The partial file is removed then.
    pub fn persist(self) -> Result<(), RecordError> {
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::AlreadyExists => RecordError::Exists { path: self.target.clone() },
            _ => RecordError::File { path: self.target.clone(), source },
        };
        self.file.sync_all().map_err(failed)?;
        if self.overwrite {
            std::fs::rename(&self.partial, &self.target).map_err(failed)
        } else {
            // A hard link never replaces a file; drop() then removes the other name. File systems without hard links
            // get the check at the start and a rename.
            match std::fs::hard_link(&self.partial, &self.target) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists && !self.target.exists() => {
                    std::fs::rename(&self.partial, &self.target).map_err(failed)
                }
                other => other.map_err(failed),
            }
        }
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
        // Gone already after a rename; nothing useful can be done about any other error here.
        let _ = std::fs::remove_file(&self.partial);
    }
}
