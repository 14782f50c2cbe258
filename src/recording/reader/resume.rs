//! Files of a store: what is behind a damaged place is as whole as what is before it, and is read from the head of the next segment
//! on.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use super::{
    Cut, MAGIC, NO_SEGMENT, Place, Reader, RecordingProblem, Result, SEGMENT_HEAD, State, Tag, WITHIN_HEAD, fill,
};
use crate::recording::format::{Content, FrameKind, SegmentHead};
use crate::recording::frame::{Answers, Times, decode};

/// A sound file is read about once, and around each damaged place once more. What goes far beyond was made to be slow.
const TIMES: u64 = 4;
const FREE: u64 = 16 << 20;

/// Bytes between two segments that were read, or before the first of them, that could not be; none where whole segments are missing.
#[derive(Debug)]
pub struct Hole {
    pub from: u64,
    pub until: u64,
    pub problem: RecordingProblem,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = self.problem.plain();
        match self.from == self.until {
            true => write!(f, "{problem}; what was written before it is missing"),
            false => write!(f, "{problem}; bytes {} to {} are left out", self.from, self.until),
        }
    }
}

/// What a file of a store holds, in order.
pub(in crate::recording) enum Piece<'a> {
    Frame { kind: FrameKind, times: Times, answers: &'a Answers<'a>, bytes: &'a [u8] },
    Hole(Hole),
}

pub(in crate::recording) type Each<'a> = dyn FnMut(Piece<'_>) -> Result<()> + 'a;

/// Hands over each frame that is whole, and what is left out between them. What is missing at the end.
///
/// # Errors
/// What `each` says; or the file cannot be read, or not from some place on: what is before that was handed over.
pub(in crate::recording) fn pieces(
    content: Content,
    input: impl Read + Seek,
    each: &mut Each<'_>,
) -> Result<Option<Cut>> {
    let (mut reader, mut bytes) = (Reader::new(content, input), Vec::new());
    loop {
        let found = reader.frame(&mut bytes).and_then(|kind| match kind {
            None => Ok(None),
            Some(kind) => match decode(&bytes) {
                Ok(decoded) => Ok(Some((kind, decoded))),
                Err(why) => Err(RecordingProblem::unsafe_at(reader.place, why)),
            },
        });
        let problem = match found {
            Ok(Some((kind, (times, answers)))) => {
                each(Piece::Frame { kind, times, answers: &answers, bytes: &bytes })?;
                continue;
            }
            Ok(None) => match reader.is_cut() {
                None => return Ok(None),
                Some(_) if reader.manifest.is_empty() => RecordingProblem::Truncated(WITHIN_HEAD.to_owned()),
                Some(cut) => RecordingProblem::damaged(cut.place, "less is there than was written"),
            },
            Err(problem) => problem,
        };
        let (from, cut) = (reader.place, reader.is_cut().filter(|_| !reader.manifest.is_empty()));
        if !is_damage(&problem) || !reader.resume()? {
            return cut.map_or(Err(problem), |cut| Ok(Some(cut)));
        }
        let problem = match problem {
            // There is more of it than its first bytes.
            RecordingProblem::Foreign
            | RecordingProblem::NewerFormat { .. }
            | RecordingProblem::Truncated(_)
            | RecordingProblem::TrailingGarbage { .. } => RecordingProblem::damaged(from, NO_SEGMENT),
            problem => problem,
        };
        each(Piece::Hole(Hole { from: from.byte, until: reader.began, problem }))?;
    }
}

/// Whether something whole may be behind it.
fn is_damage(problem: &RecordingProblem) -> bool {
    use RecordingProblem::{Damaged, Foreign, Index, NewerFormat, Read, TooLarge, TrailingGarbage, Truncated, Unsafe};
    match problem {
        Foreign | NewerFormat { .. } | Truncated(_) | Damaged { .. } | Unsafe { .. } | TrailingGarbage { .. } => true,
        Read(_) | Index | TooLarge { .. } => false,
    }
}

impl<R: Read + Seek> Reader<R> {
    /// The next frame, unpacked.
    fn frame(&mut self, bytes: &mut Vec<u8>) -> Result<Option<FrameKind>> {
        let Some(kind) = self.head()? else { return Ok(None) };
        Ok(self.body(bytes)?.then_some(kind))
    }

    /// Goes on behind a place that is not sound, with the next segment of the same recording whose head is whole. False if there
    /// is none.
    fn resume(&mut self) -> Result<bool> {
        // What was appended since the end was seen is no more than what comes next.
        let seen = match self.state {
            State::Over(_) => self.input.stream_position()?,
            _ => u64::MAX,
        };
        let most = self.input.seek(SeekFrom::End(0))?.saturating_mul(TIMES).saturating_add(FREE);
        // What is there may itself be whole, and not what was expected: what was to come before it is missing.
        let mut from = self.place.byte;
        while self.read <= most
            && let Some((byte, segment)) = self.find(from, seen, most)?
        {
            self.input.seek(SeekFrom::Start(byte))?;
            self.place = Place { segment, frame: None, byte };
            match self.segment(Tag::Continued) {
                Ok(true) => {
                    self.began = byte;
                    return Ok(true);
                }
                Err(RecordingProblem::Read(error)) => return Err(error.into()),
                Ok(false) | Err(_) => from = byte + 1,
            }
        }
        Ok(false)
    }

    /// Where the next head of a segment is that may follow, and which segment. Reads no more than `most` bytes in all.
    fn find(&mut self, from: u64, until: u64, most: u64) -> io::Result<Option<(u64, u32)>> {
        let (mut buffer, mut kept, mut start) = (vec![0; 64 << 10], 0, from);
        self.input.seek(SeekFrom::Start(from))?;
        loop {
            let room = buffer.get_mut(kept..).unwrap_or_default();
            let filled = kept + fill(&mut self.input, room, &mut self.read)?;
            let seen = buffer.get(..filled).unwrap_or_default();
            for (at, bytes) in seen.windows(SEGMENT_HEAD).enumerate() {
                let byte = start + at as u64;
                if byte >= until {
                    return Ok(None);
                }
                if let Some(number) = bytes.starts_with(&MAGIC).then(|| self.number(bytes)).flatten() {
                    return Ok(Some((byte, number)));
                }
            }
            if filled < buffer.len() || self.read > most {
                return Ok(None);
            }
            // A head may begin in what is left.
            kept = SEGMENT_HEAD - 1;
            buffer.copy_within(filled - kept.., 0);
            start += (filled - kept) as u64;
        }
    }

    /// The number of a segment that may follow, if this is its head.
    fn number(&self, bytes: &[u8]) -> Option<u32> {
        let bytes = <[u8; SEGMENT_HEAD]>::try_from(bytes).ok()?;
        let head = SegmentHead::read(bytes, self.place).ok()?;
        let same = self.manifest.is_empty() || head.manifest as usize == self.manifest.len();
        (head.content == self.content && head.number >= self.next && same).then_some(head.number)
    }
}

#[cfg(test)]
mod tests;
