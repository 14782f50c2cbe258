//! The bytes of a recording that surround its answers: heads of segments and frames, limits. [`super`] describes the layout.

use serde::{Deserialize, Serialize};

use super::problem::{Place, RecordingProblem};
use crate::ask::Frame;

type Result<T, E = RecordingProblem> = std::result::Result<T, E>;

/// As of PNG: a byte that is no ASCII, so that nobody takes it for text, and line ends that a transfer as text would change.
pub(super) const MAGIC: [u8; 8] = *b"\x89RST\r\n\x1a\n";

/// Whether a file that begins so is a recording.
pub fn is_recording(head: &[u8]) -> bool {
    head.starts_with(&MAGIC)
}
pub(super) const VERSION: u16 = 1;

/// What the frames of a segment hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// The answers of one host.
    Observed,
    /// Entries of the index of a store.
    Index,
}

impl Content {
    fn number(self) -> u16 {
        match self {
            Self::Observed => 1,
            Self::Index => 2,
        }
    }
}

pub(super) const SEGMENT_HEAD: usize = 32;
pub(super) const FRAME_HEAD: usize = 24;
/// Of the text in which a segment says what it is.
pub(super) const MANIFEST_MOST: u32 = 64 << 10;
/// Of one frame, unpacked: the sockets of a host with 200,000 connections are 80 MB.
pub(super) const FRAME_MOST: u64 = 96 << 20;
/// A part of an answer is closed once it has this many bytes.
pub(super) const PART: usize = 1 << 20;
/// Answers in one frame.
pub(super) const ANSWERS_MOST: usize = 200_000;

/// What a recording says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub tool: Tool,
    /// Addresses and names were replaced before anything was stored.
    pub redacted: bool,
    /// RFC 3339, UTC.
    pub started_at: String,
}

/// The program that made a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    pub name: String,
    pub version: String,
}

/// How much a recording may unpack to: a small file is bounded as a whole, and a long one by its own length. The writer keeps
/// to the same rule, so that what it writes is never refused.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Allowance {
    packed: u64,
    unpacked: u64,
}

impl Allowance {
    const FREE: u64 = 128 << 20;
    /// Deflate reaches 1,032 with zeros, answers of a quiet host some 150.
    const RATIO: u64 = 256;

    /// For the next frame, bytes.
    pub fn room(&self) -> u64 {
        let allowed = Self::FREE.saturating_add(self.packed.saturating_mul(Self::RATIO));
        allowed.saturating_sub(self.unpacked).min(FRAME_MOST)
    }

    pub fn packed(&mut self, bytes: u64) {
        self.packed = self.packed.saturating_add(bytes);
    }

    pub fn unpacked(&mut self, bytes: u64) {
        self.unpacked = self.unpacked.saturating_add(bytes);
    }
}

/// What follows the head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Frame(FrameKind),
    /// Nothing: the segment ends here, and another one follows.
    Continued,
    /// Nothing: the recording ends here.
    End,
}

/// The kind of a [`Frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Dump,
    Before,
    Poll,
    Tick,
    After,
    /// An entry of an index.
    Entry,
    /// What one needs to know who begins to read with this segment.
    Opening,
}

impl FrameKind {
    pub const ALL: [Self; 7] =
        [Self::Dump, Self::Before, Self::Poll, Self::Tick, Self::After, Self::Entry, Self::Opening];

    pub fn of(frame: Frame) -> Self {
        match frame {
            Frame::Dump => Self::Dump,
            Frame::Before => Self::Before,
            Frame::Poll { .. } => Self::Poll,
            Frame::Tick { .. } => Self::Tick,
            Frame::After { .. } => Self::After,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Dump => "dump",
            Self::Before => "before",
            Self::Poll => "poll",
            Self::Tick => "tick",
            Self::After => "after",
            Self::Entry => "entry",
            Self::Opening => "opening",
        }
    }
}

impl Tag {
    fn number(self) -> u8 {
        match self {
            Self::Frame(FrameKind::Dump) => 1,
            Self::Frame(FrameKind::Before) => 2,
            Self::Frame(FrameKind::Poll) => 3,
            Self::Frame(FrameKind::Tick) => 4,
            Self::Frame(FrameKind::After) => 5,
            Self::Frame(FrameKind::Entry) => 6,
            Self::Frame(FrameKind::Opening) => 7,
            Self::Continued => 0xfe,
            Self::End => 0xff,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        let frames = FrameKind::ALL.into_iter().map(Self::Frame);
        frames.chain([Self::Continued, Self::End]).find(|tag| tag.number() == number)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub tag: Tag,
    /// Counts the frames of the segment from 0; in its end the frames before it.
    pub number: u32,
    /// Bytes behind the head, and what they unpack to.
    pub packed: u32,
    pub unpacked: u32,
    pub checksum: u32,
}

impl FrameHead {
    pub fn encode(self) -> [u8; FRAME_HEAD] {
        let mut out = [0; FRAME_HEAD];
        let words = [u32::from(self.tag.number()), self.number, self.packed, self.unpacked, self.checksum];
        put(&mut out, &words);
        out
    }

    pub fn decode(bytes: [u8; FRAME_HEAD], place: Place) -> Result<Self> {
        let [tag, number, packed, unpacked, checksum] = checked(&bytes, "the head of a frame", place)?;
        let tag = u8::try_from(tag).ok().and_then(Tag::from_number);
        let tag = tag.ok_or_else(|| RecordingProblem::unsafe_at(place, "holds a frame of an unknown kind"))?;
        let head = Self { tag, number, packed, unpacked, checksum };
        if number != place.frame.unwrap_or(number) {
            return Err(RecordingProblem::damaged(place, format!("the frame has number {number}")));
        }
        if !matches!(tag, Tag::Frame(_)) && (packed, unpacked, checksum) != (0, 0, 0) {
            return Err(RecordingProblem::unsafe_at(place, "holds something in the end of a segment"));
        }
        Ok(head)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub content: Content,
    /// Counts the segments of the recording from 0.
    pub number: u32,
    /// Bytes behind the head.
    pub manifest: u32,
    pub checksum: u32,
}

impl SegmentHead {
    pub fn new(content: Content, number: u32, manifest: &[u8]) -> Self {
        let length = u32::try_from(manifest.len()).unwrap_or(u32::MAX);
        Self { content, number, manifest: length, checksum: crc32fast::hash(manifest) }
    }

    pub fn encode(self) -> [u8; SEGMENT_HEAD] {
        let mut out = [0; SEGMENT_HEAD];
        let (magic, rest) = out.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        put(
            rest,
            &[
                u32::from(VERSION) | u32::from(self.content.number()) << 16,
                self.number,
                self.manifest,
                self.checksum,
                0,
            ],
        );
        let checksum = crc32fast::hash(out.split_at(SEGMENT_HEAD - 4).0);
        out.split_at_mut(SEGMENT_HEAD - 4).1.copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// The magic is known to be there. What a newer version has behind the version number is its own business.
    pub fn decode(bytes: [u8; SEGMENT_HEAD], place: Place) -> Result<Self> {
        let head = Self::read(bytes, place)?;
        if head.number != place.segment {
            return Err(RecordingProblem::damaged(place, format!("the segment has number {}", head.number)));
        }
        Ok(head)
    }

    /// The same, whichever segment it is.
    pub fn read(bytes: [u8; SEGMENT_HEAD], place: Place) -> Result<Self> {
        let [_, _, version] = words(&bytes);
        let (version, kind) = ((version & 0xffff) as u16, (version >> 16) as u16);
        if version > VERSION {
            return Err(RecordingProblem::NewerFormat { version });
        }
        let [_, _, _, number, manifest, checksum, reserved] = checked(&bytes, "the head of a segment", place)?;
        let content = [Content::Observed, Content::Index].into_iter().find(|content| content.number() == kind);
        let Some(content) = content.filter(|_| version == VERSION && reserved == 0) else {
            return Err(RecordingProblem::unsafe_at(place, "holds a segment of an unknown kind"));
        };
        if manifest > MANIFEST_MOST {
            return Err(RecordingProblem::TooLarge { limit: format!("{MANIFEST_MOST} bytes of manifest") });
        }
        Ok(Self { content, number, manifest, checksum })
    }
}

/// The first words of a head, little-endian; 0 behind its end.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut out = [0; N];
    for (word, four) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = four.try_into().map_or(0, u32::from_le_bytes);
    }
    out
}

/// The same of a head whose last word is the checksum of the bytes before it.
fn checked<const N: usize>(bytes: &[u8], what: &str, place: Place) -> Result<[u32; N]> {
    let (head, checksum) = bytes.split_at(bytes.len().saturating_sub(4));
    match checksum == crc32fast::hash(head).to_le_bytes() {
        true => Ok(words(head)),
        false => Err(RecordingProblem::damaged(place, format!("{what} has a wrong checksum"))),
    }
}

/// Writes the words and behind them their checksum.
fn put(out: &mut [u8], words: &[u32]) {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = from;
    }
}
