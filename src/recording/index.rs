//! The index of a store: entries in the order in which they were made, each a frame of its own.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use flate2::Compression;

use super::encoder::{Encoder, Part};
use super::format::{Content, FrameKind, Manifest};
use super::frame::{Times, decode};
use super::problem::{RecordingError, RecordingProblem};
use super::reader::{Cut, Reader};
use super::write::{Output, RecordError, manifest};
use crate::ask::Frame;
use crate::value::Moment;

/// The one question of an entry.
const KEY: &str = "host/entry";

/// Writes entries, each as soon as it is made.
pub struct IndexWriter<W: Output> {
    encoder: Encoder<W>,
    redacted: bool,
}

impl<W: Output> IndexWriter<W> {
    /// `redacted`: addresses and names in the entries are replaced.
    pub fn new(out: W, redacted: bool) -> Self {
        Self { encoder: Encoder::of(Content::Index, out, Compression::fast()), redacted }
    }

    /// Writes one.
    ///
    /// # Errors
    /// What the output says. Nothing can be written behind it then.
    pub fn push(&mut self, at: Moment, entry: &[u8]) -> Result<(), RecordError> {
        let redacted = self.redacted;
        self.encoder.begin(FrameKind::Entry, &Times::new(Frame::Before, at), || manifest(redacted, at))?;
        if self.encoder.answer(KEY)? {
            let mut part = Part::default();
            self.encoder.push(&mut part, entry)?;
            self.encoder.close(part, None)?;
        }
        self.encoder.flush()
    }

    /// Where it goes.
    pub fn out(&self) -> &W {
        self.encoder.out()
    }

    /// Closes it and hands back where it went.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(self) -> Result<W, RecordError> {
        self.encoder.finish()
    }
}

/// Takes each entry with the time at which it was made, as far as the file is sound. What is missing at its end.
///
/// # Errors
/// The file cannot be read, or is not sound from some place on: what is before that was handed over.
pub fn entries(path: &Path, each: &mut dyn FnMut(&Manifest, Moment, &[u8])) -> Result<Option<Cut>, RecordingError> {
    let mut read = || {
        let (mut reader, manifest) = Reader::of(Content::Index, BufReader::new(File::open(path)?))?;
        let mut bytes = Vec::new();
        while reader.head()?.is_some() {
            let place = reader.place();
            if !reader.body(&mut bytes)? {
                break;
            }
            let (times, answers) = decode(&bytes).map_err(|why| RecordingProblem::unsafe_at(place, why))?;
            for (_, answer) in answers.iter().filter(|(key, _)| *key == KEY) {
                each(&manifest, times.at, &answer.parts(&bytes).collect::<Vec<_>>().concat());
            }
        }
        Ok(reader.is_cut())
    };
    read().map_err(|problem| RecordingError { path: Some(path.to_owned()), problem })
}
