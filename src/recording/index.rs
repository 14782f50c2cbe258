//! The index of a store: entries in the order in which they were made, each a frame of its own.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;

use super::encoder::{Encoder, Part};
use super::format::{Content, FrameKind};
use super::frame::Times;
use super::problem::{RecordingError, RecordingProblem};
use super::reader::{Cut, Hole, Piece, pieces};
use super::write::{Output, RecordError, manifest};
use crate::ask::Frame;
use crate::value::Moment;

/// The one question of an entry.
const KEY: &str = "host/entry";

/// So much of the index is lost with one damaged byte.
const PERIOD: Duration = Duration::from_secs(120);

/// Writes entries, each as soon as it is made.
pub struct IndexWriter<W: Output> {
    encoder: Encoder<W>,
    redacted: bool,
}

impl<W: Output> IndexWriter<W> {
    /// `redacted`: addresses and names in the entries are replaced.
    pub fn new(out: W, redacted: bool) -> Self {
        Self { encoder: Encoder::of(Content::Index, out, Compression::fast()).divided(PERIOD), redacted }
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

/// What a part of the index holds, in order.
pub enum Found<'a> {
    /// With the time at which it was made.
    Entry(Moment, &'a [u8]),
    Hole(Hole),
}

/// Takes each entry that is whole, and what is left out between them. What is missing at its end.
///
/// # Errors
/// The file cannot be read, or not from some place on: what is before that was handed over.
pub fn entries(path: &Path, each: &mut dyn FnMut(Found<'_>)) -> Result<Option<Cut>, RecordingError> {
    let mut each = |piece: Piece<'_>| {
        match piece {
            Piece::Frame { times, answers, bytes, .. } => {
                for (_, answer) in answers.iter().filter(|(key, _)| *key == KEY) {
                    each(Found::Entry(times.at, &answer.parts(bytes).collect::<Vec<_>>().concat()));
                }
            }
            Piece::Hole(hole) => each(Found::Hole(hole)),
        }
        Ok(())
    };
    let read = File::open(path).map_err(RecordingProblem::Read);
    let read = read.and_then(|file| pieces(Content::Index, BufReader::new(file), &mut each));
    read.map_err(|problem| RecordingError { path: Some(path.to_owned()), problem })
}
