//! A [`Host`] that passes every question on to another one and stores the answers.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use flate2::Compression;

use super::encoder::{Encoder, Part};
use super::format::{FrameKind, Manifest, Tool};
use super::frame::Times;
use super::redact::Redactor;
use crate::ask::{Answer, Ask, Clock, Frame, Host, Probe, What};
use crate::value::{Failure, Moment};

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

impl RecordError {
    /// What the system said, or what is wrong: `No space left on device`.
    pub fn why(&self) -> String {
        std::error::Error::source(self).map_or_else(|| self.to_string(), ToString::to_string)
    }
}

/// Where a recording goes.
pub trait Output: Write {
    /// What was written so far can be read and judged.
    ///
    /// # Errors
    /// It cannot be kept.
    fn judgeable(&mut self) -> Result<(), RecordError> {
        Ok(())
    }
}

impl Output for Vec<u8> {}

/// Stores what another host answers.
///
/// A frame is written once the next one is asked for, before the wait for it. Memory holds one packed frame, one part of at most
/// about 1 MiB, and with redaction the maps of the names and addresses seen. Questions outside of a frame are passed on but not
/// stored.
pub struct RecordingHost<H: Host, W: Output> {
    inner: H,
    encoder: Encoder<W>,
    redactor: Option<Redactor>,
    /// What was asked before the first frame, for it.
    early: Vec<(String, Vec<u8>, Option<Failure>)>,
    error: Option<RecordError>,
}

impl<H: Host, W: Output> RecordingHost<H, W> {
    /// With `redact`, addresses and names are replaced before they are stored; the caller still sees the real ones.
    pub fn new(inner: H, out: W, redact: bool) -> Self {
        Self::with_level(inner, out, redact, Compression::fast())
    }

    /// As small as can be, for a recording that is kept.
    pub fn tight(inner: H, out: W) -> Self {
        Self::with_level(inner, out, false, Compression::best())
    }

    fn with_level(inner: H, out: W, redact: bool, level: Compression) -> Self {
        Self {
            inner,
            encoder: Encoder::new(out, level),
            redactor: redact.then(Redactor::default),
            early: Vec::new(),
            error: None,
        }
    }

    /// Closes the recording and hands back where it went.
    ///
    /// # Errors
    /// The first error of any write, also of those during [`Probe::ask`]; or [`RecordError::Empty`].
    pub fn finish(self) -> Result<W, RecordError> {
        match self.error {
            Some(error) => Err(error),
            None if self.encoder.is_empty() => Err(RecordError::Empty),
            None => self.encoder.finish(),
        }
    }

    /// Which namespaces there are is asked before anything else.
    fn kept(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let mut bytes = Vec::new();
        let store = &mut |part: &[u8]| bytes.extend_from_slice(part);
        let (answer, failure) = redacted(&mut self.inner, self.redactor.as_mut(), ask, store, sink);
        self.early.push((ask.key(), bytes, failure));
        answer
    }

    fn store_early(&mut self) -> io::Result<()> {
        for (key, bytes, failure) in std::mem::take(&mut self.early) {
            let mut part = Part::default();
            if self.encoder.answer(&key)? {
                self.encoder.push(&mut part, &bytes)?;
                self.encoder.close(part, failure)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, result: Result<(), RecordError>) {
        if let (None, Err(error)) = (&self.error, result) {
            self.error = Some(error);
        }
    }
}

/// Of a recording that begins now.
pub(super) fn manifest(redacted: bool, at: Moment) -> Manifest {
    let started = SystemTime::UNIX_EPOCH.checked_add(at.wall).unwrap_or(SystemTime::UNIX_EPOCH);
    Manifest {
        tool: Tool { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        redacted,
        started_at: humantime::format_rfc3339(started).to_string(),
    }
}

impl<H: Host, W: Output> Clock for RecordingHost<H, W> {
    /// As the inner host; `None` after a failed write, because observing on would be in vain.
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        if self.error.is_none() {
            let flushed = self.encoder.flush();
            self.keep(flushed);
        }
        if self.error.is_some() {
            return None;
        }
        let at = self.inner.frame(frame)?;
        let redacted = self.redactor.is_some();
        let begun = self.encoder.begin(FrameKind::of(frame), &Times::new(frame, at), || manifest(redacted, at));
        let begun = begun.and_then(|()| Ok(self.store_early()?));
        self.keep(begun);
        self.error.is_none().then_some(at)
    }

    fn due(&self, asked: Duration) -> Duration {
        self.inner.due(asked)
    }

    fn used(&self) -> Option<Duration> {
        self.inner.used()
    }
}

impl<H: Host, W: Output> Probe for RecordingHost<H, W> {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        if self.encoder.is_empty() && ask.what == What::Namespaces {
            return self.kept(ask, sink);
        }
        let key = ask.key();
        let stored = self.error.is_none() && self.encoder.is_open();
        match stored.then(|| self.encoder.answer(&key)) {
            Some(Ok(true)) => {}
            Some(Err(error)) => {
                self.keep(Err(error.into()));
                return self.inner.ask(ask, sink);
            }
            Some(Ok(false)) | None => return self.inner.ask(ask, sink),
        }
        let (encoder, mut part, mut result) = (&mut self.encoder, Part::default(), Ok(()));
        let mut store = |bytes: &[u8]| {
            if result.is_ok() {
                result = encoder.push(&mut part, bytes);
            }
        };
        let (answer, failure) = redacted(&mut self.inner, self.redactor.as_mut(), ask, &mut store, sink);
        let result = result.and_then(|()| encoder.close(part, failure));
        self.keep(result.map_err(RecordError::Write));
        answer
    }
}

/// Asks: the caller gets what the host says, `store` what may be kept of it; and why that is not all.
fn redacted(
    inner: &mut impl Host,
    redactor: Option<&mut Redactor>,
    ask: &Ask,
    store: &mut dyn FnMut(&[u8]),
    sink: &mut dyn FnMut(&[u8]),
) -> (Answer, Option<Failure>) {
    let mut session = redactor.map(|redactor| redactor.begin(ask));
    let answer = inner.ask(ask, &mut |bytes| {
        match &mut session {
            None => store(bytes),
            Some(session) => store(&session.push(bytes)),
        }
        sink(bytes);
    });
    let mut failure = answer.result.clone().err();
    if let Some(session) = session {
        match session.end(failure.is_none()) {
            Ok(rest) => store(&rest),
            Err(left_out) => failure = failure.or(Some(left_out)),
        }
    }
    (answer, failure)
}

/// Hands over what another host answers with addresses and names replaced, so that whatever is made of it holds none.
pub struct RedactingHost<H: Host> {
    inner: H,
    redactor: Redactor,
}

impl<H: Host> RedactingHost<H> {
    pub fn new(inner: H) -> Self {
        Self { inner, redactor: Redactor::default() }
    }
}

impl<H: Host> Clock for RedactingHost<H> {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        self.redactor.forget_if_many();
        self.inner.frame(frame)
    }

    fn due(&self, asked: Duration) -> Duration {
        self.inner.due(asked)
    }

    fn used(&self) -> Option<Duration> {
        self.inner.used()
    }
}

impl<H: Host> Probe for RedactingHost<H> {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        let (answer, failure) = redacted(&mut self.inner, Some(&mut self.redactor), ask, sink, &mut |_| {});
        Answer { result: failure.map_or(Ok(()), Err), ..answer }
    }
}
