//! What a recording holds, for people who debug.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::format::{FrameKind, Manifest};
use super::frame::{decode, what};
use super::problem::{Place, RecordingError, RecordingProblem};
use super::reader::{Cut, Reader};
use crate::value::{Failure, Moment};

/// A frame of a recording.
pub struct ShownFrame<'a> {
    /// Counts the frames of the recording from 0.
    pub number: u64,
    pub place: Place,
    pub kind: FrameKind,
    pub at: Moment,
    pub answers: Vec<ShownAnswer<'a>>,
}

/// An answer in a frame.
pub struct ShownAnswer<'a> {
    pub key: &'a str,
    pub bytes: Vec<u8>,
    pub failure: Option<Failure>,
}

impl ShownAnswer<'_> {
    /// Whether this is its key, with or without the scope.
    pub fn is(&self, key: &str) -> bool {
        self.key == key || what(self.key) == Some(key)
    }
}

/// Takes each frame; an error ends the reading.
pub type Each<'a> = dyn FnMut(&Manifest, &ShownFrame<'_>) -> io::Result<()> + 'a;

/// Reads a recording frame by frame, as far as it is sound, also where it cannot be judged. What is missing at its end.
///
/// # Errors
/// The file cannot be read, or is not sound from some place on: what is before that was handed over.
pub fn frames(path: &Path, each: &mut Each<'_>) -> Result<Option<Cut>, RecordingError> {
    let shown = File::open(path).map_err(RecordingProblem::Read).and_then(|file| read(BufReader::new(file), each));
    shown.map_err(|problem| RecordingError { path: Some(path.to_owned()), problem })
}

fn read(input: impl Read, each: &mut Each<'_>) -> Result<Option<Cut>, RecordingProblem> {
    let (mut reader, manifest) = Reader::open(input)?;
    let (mut bytes, mut number) = (Vec::new(), 0);
    while let Some(kind) = reader.head()? {
        let place = reader.place();
        if !reader.body(&mut bytes)? {
            break;
        }
        let (times, answers) = decode(&bytes).map_err(|why| RecordingProblem::unsafe_at(place, why))?;
        let answers = answers.into_iter().map(|(key, stored)| ShownAnswer {
            key,
            bytes: stored.parts(&bytes).collect::<Vec<_>>().concat(),
            failure: stored.failure,
        });
        let frame = ShownFrame { number, place, kind, at: times.at, answers: answers.collect() };
        each(&manifest, &frame)?;
        number += 1;
    }
    Ok(reader.is_cut())
}
