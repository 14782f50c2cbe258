//! Reads a recording frame by frame, in memory for one of them. It comes from someone else's machine and is not trusted:
//! lengths are believed only as far as the limits, and every byte is checked before it is unpacked.

use std::fmt;
use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};

use super::format::{
    Allowance, Content, FRAME_HEAD, FrameHead, FrameKind, MAGIC, Manifest, SEGMENT_HEAD, SegmentHead, Tag,
};
use super::problem::{Place, RecordingProblem};

mod resume;

pub use resume::Hole;
pub(super) use resume::{Piece, pieces};

const NO_SEGMENT: &str = "no segment begins there";
const WITHIN_HEAD: &str = "within the head of its first segment";

/// Zeros at the end of a file that are looked through, more than any kernel holds back for one file.
const UNWRITTEN: u64 = 256 << 20;

type Result<T, E = RecordingProblem> = std::result::Result<T, E>;

/// A recording whose end is missing: the program was killed, the disk was full, power was cut, or the copy is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Where what is missing begins.
    pub place: Place,
    /// Frames that are whole.
    pub frames: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} whole frames, at {}", self.frames, self.place)
    }
}

/// The frames of a recording, one after the other.
pub(super) struct Reader<R> {
    input: R,
    content: Content,
    place: Place,
    allowance: Allowance,
    /// As it stands in every segment.
    manifest: Vec<u8>,
    inflate: Decompress,
    packed: Vec<u8>,
    frames: u64,
    state: State,
    /// The number that the next segment has at least.
    next: u32,
    /// Where the latest segment begins.
    began: u64,
    /// Bytes that were read, those that were read again included.
    read: u64,
}

enum State {
    /// A segment follows; `Tag::End` if none needs to.
    Between(Tag),
    Within,
    /// The body of this frame follows.
    Body(FrameKind, FrameHead),
    Over(Option<Cut>),
}

impl<R: Read> Reader<R> {
    /// Reads as far as the head of the first segment.
    ///
    /// # Errors
    /// It is none, or not one of ours.
    pub fn open(input: R) -> Result<(Self, Manifest)> {
        let mut reader = Self::new(Content::Observed, input);
        if !reader.segment(Tag::Continued)? {
            return Err(RecordingProblem::Truncated(WITHIN_HEAD.to_owned()));
        }
        let manifest = manifest(&reader.manifest)?;
        Ok((reader, manifest))
    }

    /// Has read nothing: what is wrong with the head of the first segment is told by [`Reader::head`].
    fn new(content: Content, input: R) -> Self {
        Self {
            input,
            content,
            place: Place::default(),
            allowance: Allowance::default(),
            manifest: Vec::new(),
            inflate: Decompress::new(false),
            packed: Vec::new(),
            frames: 0,
            state: State::Between(Tag::Continued),
            next: 0,
            began: 0,
            read: 0,
        }
    }

    /// The kind of the next frame, whose body `body` reads; `None` at the end.
    ///
    /// # Errors
    /// The recording is damaged, or holds what a recording never holds.
    pub fn head(&mut self) -> Result<Option<FrameKind>> {
        loop {
            match self.state {
                State::Over(_) => return Ok(None),
                State::Body(kind, _) => return Ok(Some(kind)),
                State::Between(tag) => {
                    if !self.segment(tag)? {
                        return Ok(None);
                    }
                }
                State::Within => {
                    let mut head = [0; FRAME_HEAD];
                    if self.fill(&mut head)? < FRAME_HEAD {
                        self.cut();
                        return Ok(None);
                    }
                    let head = match FrameHead::decode(head, self.place) {
                        Err(RecordingProblem::Damaged { .. }) if self.is_unwritten(&head)? => {
                            self.cut();
                            return Ok(None);
                        }
                        head => head?,
                    };
                    match head.tag {
                        Tag::Frame(kind) => self.state = State::Body(kind, head),
                        end => {
                            self.place.byte += FRAME_HEAD as u64;
                            self.place = Place { segment: self.place.segment + 1, frame: None, ..self.place };
                            self.state = State::Between(end);
                        }
                    }
                }
            }
        }
    }

    /// Unpacks the frame whose head was read last into `out`. False if the recording is cut off in it.
    ///
    /// # Errors
    /// As of `head`.
    pub fn body(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let State::Body(_, head) = self.state else { return Ok(false) };
        let place = self.place;
        // What is not there, or not sound, allows nothing.
        let mut allowance = self.allowance;
        allowance.packed(u64::from(head.packed));
        let room = allowance.room();
        if u64::from(head.unpacked) > room {
            return Err(RecordingProblem::TooLarge { limit: format!("{room} bytes in {place}") });
        }
        allowance.unpacked(u64::from(head.unpacked));
        // It grows with what is there, not with what is claimed.
        self.packed.clear();
        let read = self.input.by_ref().take(u64::from(head.packed)).read_to_end(&mut self.packed)?;
        self.read += read as u64;
        if read < head.packed as usize {
            self.cut();
            return Ok(false);
        }
        if crc32fast::hash(&self.packed) != head.checksum {
            let packed = std::mem::take(&mut self.packed);
            if self.is_unwritten(&packed)? {
                self.cut();
                return Ok(false);
            }
            return Err(RecordingProblem::damaged(place, "the frame has a wrong checksum"));
        }
        self.allowance = allowance;
        self.unpack(head, out).map_err(|why| RecordingProblem::unsafe_at(place, why))?;
        self.frames += 1;
        self.place.byte += FRAME_HEAD as u64 + u64::from(head.packed);
        self.place.frame = Some(head.number.saturating_add(1));
        self.state = State::Within;
        Ok(true)
    }

    /// What is missing, once there is no more.
    pub fn is_cut(&self) -> Option<Cut> {
        match self.state {
            State::Over(cut) => cut,
            _ => None,
        }
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// The segment goes on with the state of the frame before: what repeats costs little.
    fn unpack(&mut self, head: FrameHead, out: &mut Vec<u8>) -> Result<(), &'static str> {
        const WRONG: &str = "holds a frame that cannot be unpacked";
        let whole = head.unpacked as usize;
        out.clear();
        out.reserve_exact(whole);
        let mut rest = &self.packed[..];
        loop {
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            // Once it is full, one byte more than there may be, so that a frame that goes on is noticed.
            let full = out.len() == whole;
            let status = match full {
                true => self.inflate.decompress(rest, &mut [0], FlushDecompress::Sync),
                false => self.inflate.decompress_vec(rest, out, FlushDecompress::Sync),
            };
            // A segment has no last block: another frame may follow.
            if !matches!(status, Ok(Status::Ok | Status::BufError)) {
                return Err(WRONG);
            }
            let written = self.inflate.total_out() > written;
            if full && written {
                return Err("holds a frame that is longer than it says");
            }
            let read = usize::try_from(self.inflate.total_in() - read).map_err(|_| WRONG)?;
            rest = rest.get(read..).ok_or(WRONG)?;
            if read == 0 && !written {
                return if full && rest.is_empty() { Ok(()) } else { Err(WRONG) };
            }
        }
    }

    /// False if none follows.
    fn segment(&mut self, before: Tag) -> Result<bool> {
        let mut head = [0; SEGMENT_HEAD];
        let read = self.fill(&mut head)?;
        let there = &head[..read.min(MAGIC.len())];
        let first = self.place == Place::default();
        if !MAGIC.starts_with(there) || (first && read == 0) {
            if first {
                return Err(RecordingProblem::Foreign);
            }
            // Behind the end of a recording nothing was to be written.
            if before == Tag::End {
                return Err(RecordingProblem::TrailingGarbage { byte: self.place.byte });
            }
            if !self.is_unwritten(&head[..read])? {
                return Err(RecordingProblem::damaged(self.place, NO_SEGMENT));
            }
            self.cut();
            return Ok(false);
        }
        if read < SEGMENT_HEAD {
            match (read, before) {
                (0, Tag::End) => self.state = State::Over(None),
                _ => self.cut(),
            }
            return Ok(false);
        }
        let head = match SegmentHead::decode(head, self.place) {
            Err(RecordingProblem::Damaged { .. }) if self.is_unwritten(&head)? => {
                self.cut();
                return Ok(false);
            }
            head => head?,
        };
        match head.content {
            content if content == self.content => {}
            Content::Index => return Err(RecordingProblem::Index),
            Content::Observed => return Err(RecordingProblem::unsafe_at(self.place, "holds no index")),
        }
        let mut manifest = Vec::new();
        let length = self.input.by_ref().take(u64::from(head.manifest)).read_to_end(&mut manifest)?;
        self.read += length as u64;
        if length < head.manifest as usize {
            self.cut();
            return Ok(false);
        }
        if crc32fast::hash(&manifest) != head.checksum {
            if self.is_unwritten(&manifest)? {
                self.cut();
                return Ok(false);
            }
            return Err(RecordingProblem::damaged(self.place, "the manifest has a wrong checksum"));
        }
        if self.manifest.is_empty() {
            self::manifest(&manifest)?;
            self.manifest = manifest;
        } else if manifest != self.manifest {
            return Err(RecordingProblem::unsafe_at(self.place, "holds a segment of another recording"));
        }
        self.place.byte += (SEGMENT_HEAD + length) as u64;
        self.place.frame = Some(0);
        self.inflate = Decompress::new(false);
        self.state = State::Within;
        self.next = head.number.saturating_add(1);
        Ok(true)
    }

    /// Whether this unsound piece, and all behind it, was never written: after a power cut a file may be as long as it was to
    /// be and hold zeros from some byte on. Reads on; true means that nothing but zeros is left.
    fn is_unwritten(&mut self, piece: &[u8]) -> io::Result<bool> {
        if piece.last() != Some(&0) {
            return Ok(false);
        }
        let (mut left, mut buffer) = (UNWRITTEN, vec![0; 64 << 10]);
        loop {
            let read = self.fill(&mut buffer)?;
            let zeros = buffer.iter().take(read).all(|byte| *byte == 0);
            left = left.saturating_sub(read as u64);
            if !zeros || read == 0 || left == 0 {
                return Ok(read == 0);
            }
        }
    }

    fn cut(&mut self) {
        self.state = State::Over(Some(Cut { place: self.place, frames: self.frames }));
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        fill(&mut self.input, buffer, &mut self.read)
    }
}

/// Fills the buffer as far as there is something, and counts what that is.
fn fill(input: &mut impl Read, buffer: &mut [u8], count: &mut u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    *count += filled as u64;
    Ok(filled)
}

fn manifest(text: &[u8]) -> Result<Manifest> {
    serde_json::from_slice(text)
        .map_err(|error| RecordingProblem::unsafe_at(Place::default(), format!("a manifest is odd: {error}")))
}
