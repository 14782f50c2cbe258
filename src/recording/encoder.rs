//! Writes segments and frames, each frame as soon as it is whole.

use std::io;
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress};

use super::format::{
    ANSWERS_MOST, Allowance, Content, FRAME_MOST, FrameHead, FrameKind, MANIFEST_MOST, Manifest, PART, SegmentHead, Tag,
};
use super::frame::{Times, is_key, outcome, text};
use super::write::{Output, RecordError};
use crate::value::{Failure, FailureKind, Moment};

/// A segment is closed at the first tick after so many unpacked bytes.
const SEGMENT: u64 = 4 << 20;
/// What answers leave free in a frame for how they went.
const SLACK: u64 = 256 << 10;
/// What polls leave free for the snapshot that closes the window.
const RESERVE: u64 = FRAME_MOST / 4;

pub(super) struct Encoder<W> {
    out: W,
    content: Content,
    level: Compression,
    /// A segment is closed as well at the first frame that may begin one after so much time.
    period: Duration,
    deflate: Compress,
    manifest: Option<Vec<u8>>,
    allowance: Allowance,
    segment: u32,
    /// When it was begun, CLOCK_BOOTTIME.
    began: Duration,
    /// Frames of this segment, and its unpacked bytes.
    frames: u32,
    bytes: u64,
    open: Option<OpenFrame>,
}

struct OpenFrame {
    kind: FrameKind,
    packed: Vec<u8>,
    unpacked: u64,
    room: u64,
    answers: usize,
}

/// An answer that arrives now. What one call of the sink got is never cut.
#[derive(Default)]
pub(super) struct Part {
    buffer: Vec<u8>,
    stored: u64,
    left_out: bool,
}

impl<W: Output> Encoder<W> {
    pub fn new(out: W, level: Compression) -> Self {
        Self::of(Content::Observed, out, level)
    }

    pub fn of(content: Content, out: W, level: Compression) -> Self {
        Self {
            out,
            content,
            level,
            period: Duration::MAX,
            deflate: Compress::new(level, false),
            manifest: None,
            allowance: Allowance::default(),
            segment: 0,
            began: Duration::ZERO,
            frames: 0,
            bytes: 0,
            open: None,
        }
    }

    /// Damage costs no more than what was written in so much time.
    pub fn divided(self, period: Duration) -> Self {
        Self { period, ..self }
    }

    /// The next frame that may begin a segment does, at this time.
    pub fn is_full(&self, at: Moment) -> bool {
        self.bytes >= SEGMENT || at.mono.saturating_sub(self.began) >= self.period
    }

    /// Where it goes.
    pub fn out(&self) -> &W {
        &self.out
    }

    /// Nothing was written.
    pub fn is_empty(&self) -> bool {
        self.manifest.is_none()
    }

    /// A frame is open: answers can be stored.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Opens a frame. The first one begins the recording.
    pub fn begin(
        &mut self,
        kind: FrameKind,
        times: &Times,
        manifest: impl FnOnce() -> Manifest,
    ) -> Result<(), RecordError> {
        self.flush()?;
        if self.manifest.is_none() {
            let manifest = serde_json::to_vec(&manifest()).map_err(io::Error::from)?;
            if manifest.len() > MANIFEST_MOST as usize {
                return Err(io::Error::from(io::ErrorKind::InvalidData).into());
            }
            self.manifest = Some(manifest);
            self.begin_segment(times.at)?;
        } else if kind == FrameKind::Opening
            || matches!(kind, FrameKind::Tick | FrameKind::Entry) && self.is_full(times.at)
        {
            self.end(Tag::Continued)?;
            self.segment = self.segment.saturating_add(1);
            self.begin_segment(times.at)?;
        }
        let reserve = if kind == FrameKind::Poll { RESERVE } else { 0 };
        let room = self.allowance.room().saturating_sub(reserve);
        self.open = Some(OpenFrame { kind, packed: Vec::new(), unpacked: 0, room, answers: 0 });
        self.pack(&times.encode())?;
        Ok(())
    }

    /// Begins an answer; false if it cannot be stored.
    pub fn answer(&mut self, key: &str) -> io::Result<bool> {
        let Some(open) = &mut self.open else { return Ok(false) };
        if !is_key(key) || open.answers >= ANSWERS_MOST || open.unpacked + SLACK > open.room {
            return Ok(false);
        }
        open.answers += 1;
        let mut head = Vec::new();
        text(&mut head, key);
        self.pack(&head)?;
        Ok(true)
    }

    pub fn push(&mut self, part: &mut Part, bytes: &[u8]) -> io::Result<()> {
        if !part.buffer.is_empty() && part.buffer.len() + bytes.len() > PART {
            self.part(part)?;
        }
        part.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn part(&mut self, part: &mut Part) -> io::Result<()> {
        let bytes = std::mem::take(&mut part.buffer);
        let room = self.open.as_ref().map_or(0, |open| open.room.saturating_sub(open.unpacked + SLACK));
        part.left_out |= bytes.len() as u64 > room;
        let Ok(length) = u32::try_from(bytes.len()) else { return Ok(()) };
        if part.left_out || length == 0 {
            return Ok(());
        }
        part.stored += u64::from(length);
        self.pack(&length.to_le_bytes())?;
        self.pack(&bytes)
    }

    /// Ends an answer.
    pub fn close(&mut self, mut part: Part, failure: Option<Failure>) -> io::Result<()> {
        self.part(&mut part)?;
        let left_out = || {
            let reason = format!("only the first {} bytes fit into the recording", part.stored);
            Failure::new(FailureKind::NotCollected, reason)
        };
        let failure = failure.or_else(|| part.left_out.then(left_out));
        self.pack(&outcome(failure.as_ref()))
    }

    /// Writes the frame that is open.
    pub fn flush(&mut self) -> Result<(), RecordError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        end_frame(&mut self.deflate, &mut open.packed)?;
        let length = |bytes: u64| u32::try_from(bytes).map_err(io::Error::other);
        let head = FrameHead {
            tag: Tag::Frame(open.kind),
            number: self.frames,
            packed: length(open.packed.len() as u64)?,
            unpacked: length(open.unpacked)?,
            checksum: crc32fast::hash(&open.packed),
        };
        // In one piece: what is killed meanwhile is not between head and body.
        open.packed.splice(..0, head.encode());
        self.out.write_all(&open.packed)?;
        self.allowance.packed(u64::from(head.packed));
        self.allowance.unpacked(open.unpacked);
        self.frames = self.frames.saturating_add(1);
        self.bytes += open.unpacked;
        match open.kind {
            FrameKind::Tick | FrameKind::After | FrameKind::Entry => self.out.judgeable(),
            FrameKind::Dump | FrameKind::Before | FrameKind::Poll | FrameKind::Opening => Ok(()),
        }
    }

    /// Ends the recording.
    pub fn finish(mut self) -> Result<W, RecordError> {
        self.flush()?;
        self.end(Tag::End)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn begin_segment(&mut self, at: Moment) -> io::Result<()> {
        self.began = at.mono;
        let manifest = self.manifest.as_deref().unwrap_or_default();
        let head = SegmentHead::new(self.content, self.segment, manifest).encode();
        (self.frames, self.bytes, self.deflate) = (0, 0, Compress::new(self.level, false));
        self.out.write_all(&[&head, manifest].concat())
    }

    fn end(&mut self, tag: Tag) -> io::Result<()> {
        let head = FrameHead { tag, number: self.frames, packed: 0, unpacked: 0, checksum: 0 };
        self.out.write_all(&head.encode())
    }

    fn pack(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.unpacked += bytes.len() as u64;
        deflate(&mut self.deflate, bytes, &mut open.packed, FlushCompress::None)
    }
}

/// Flushes, so that all that was packed can be unpacked.
fn end_frame(state: &mut Compress, out: &mut Vec<u8>) -> io::Result<()> {
    deflate(state, &[], out, FlushCompress::Sync)
}

/// Packs `input` behind `out`. What fills the room is asked for again: it may not be over (zlib.h, deflate()).
fn deflate(state: &mut Compress, mut input: &[u8], out: &mut Vec<u8>, flush: FlushCompress) -> io::Result<()> {
    loop {
        out.reserve(out.len().clamp(4 << 10, 1 << 20));
        let read = state.total_in();
        state.compress_vec(input, out, flush).map_err(io::Error::other)?;
        let read = usize::try_from(state.total_in() - read).map_err(io::Error::other)?;
        input = input.get(read..).unwrap_or_default();
        if input.is_empty() && out.len() < out.capacity() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an empty stored block, the end of a sync flush, leaves (RFC 1951, 3.2.4).
    const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

    #[test]
    fn a_flush_ends_whatever_room_it_finds() {
        let mut seed = 1_u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        for size in (0..80_000).step_by(997) {
            let bytes: Vec<u8> = (0..size).map(|_| noise()).collect();
            let (mut state, mut out) = (Compress::new(Compression::fast(), false), Vec::new());
            deflate(&mut state, &bytes, &mut out, FlushCompress::None).unwrap();
            end_frame(&mut state, &mut out).unwrap();
            assert!(out.ends_with(&FLUSHED), "{size} bytes");
        }
    }
}
