//! What a file is, by how it begins, and what is in it where it is packed.

use std::io::{self, BufReader, Cursor, Read};

use anyhow::Context;
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::capture::is_capture;

/// Enough to tell what it is.
const HEAD: usize = 512;
/// Something packed that was packed again.
const DEEPEST: usize = 3;
const RECORDING: &[u8] = b"\x89RST\r\n\x1a\n";
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const XZ: &[u8] = b"\xfd7zXZ\0";
/// Dictionaries of xz -9 have 64 MiB.
const XZ_MEMORY_KIB: u32 = 128 << 10;
/// Of POSIX and GNU tar, and where it stands (tar(5)).
const TAR: (usize, &[u8]) = (257, b"ustar");

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Recording,
    Capture,
    Text,
    /// Of tar.
    Archive,
    Nothing,
    /// What it is instead, or that it is not known, in words that follow the name.
    Other(&'static str),
}

impl Content {
    /// By how it begins.
    pub fn of(head: &[u8]) -> Self {
        const KNOWN: [(&[u8], &str); 4] = [
            (b"BZh", "is compressed by bzip2: unpack it first"),
            (b"PK\x03\x04", "is a zip file: unpack it first"),
            (b"\x7fELF", "is a program"),
            (b"LPKSHHRH", "is a journal: journalctl --file FILE -o short-iso | rstdoctor explain -"),
        ];
        if head.is_empty() {
            return Self::Nothing;
        }
        if head.starts_with(RECORDING) {
            return Self::Recording;
        }
        if is_capture(head) {
            return Self::Capture;
        }
        if head.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
            return Self::Archive;
        }
        let known = KNOWN.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, what)| *what);
        match known {
            Some(what) => Self::Other(what),
            None if is_text(head) => Self::Text,
            None => {
                Self::Other("is neither a recording of rstdoctor nor a packet capture (pcap or pcapng), and no text")
            }
        }
    }
}

/// Whether the bytes begin something that is read and is no text: a recording, a capture, or packed.
pub fn is_no_text(head: &[u8]) -> bool {
    let packed = [GZIP, ZSTD, XZ].iter().any(|magic| head.starts_with(magic));
    packed || matches!(Content::of(head), Content::Recording | Content::Capture | Content::Archive)
}

/// No text holds a NUL, and few other characters that control.
fn is_text(head: &[u8]) -> bool {
    let control = head.iter().filter(|byte| **byte < 0x20 && !b"\t\n\r\x1b\x0c".contains(byte)).count();
    !head.contains(&0) && control * 20 <= head.len()
}

/// A file that was looked at, with all of it still to be read.
pub struct Source {
    pub content: Content,
    pub input: Box<dyn Read + Send>,
    /// How it was packed.
    pub packed: Vec<&'static str>,
}

impl Source {
    /// # Errors
    /// It cannot be read, or unpacked.
    pub fn open(name: &str, mut input: Box<dyn Read + Send>) -> anyhow::Result<Self> {
        let mut packed = Vec::new();
        loop {
            let mut head = Vec::new();
            input.by_ref().take(HEAD as u64).read_to_end(&mut head).with_context(|| {
                let unpacked = packed.last().map_or(String::new(), |how| format!(" as {how}"));
                format!("{name}: cannot be read{unpacked}")
            })?;
            let kind = [GZIP, ZSTD, XZ].into_iter().find(|magic| head.starts_with(magic) && packed.len() < DEEPEST);
            let content = Content::of(&head);
            input = Box::new(Cursor::new(head).chain(input));
            let Some(kind) = kind else { return Ok(Self { content, input, packed }) };
            let all = BufReader::new(input);
            input = match kind {
                GZIP => Box::new(MultiGzDecoder::new(all)),
                ZSTD => Box::new(Zstd::new(all)),
                _ => Box::new(XzReader::new_mem_limit(all, true, XZ_MEMORY_KIB)),
            };
            packed.push(match kind {
                GZIP => "gzip",
                ZSTD => "zstd",
                _ => "xz",
            });
        }
    }
}

/// Frames of zstd, one after the other (RFC 8878, 3).
struct Zstd<R> {
    input: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R> Zstd<R> {
    fn new(input: R) -> Self {
        Self { input, decoder: FrameDecoder::new(), within: false }
    }
}

impl<R: io::BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let damaged = |error: FrameDecoderError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.within {
                while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                    let some = BlockDecodingStrategy::UptoBlocks(1);
                    self.decoder.decode_blocks(&mut self.input, some).map_err(damaged)?;
                }
                match self.decoder.read(buffer)? {
                    0 => self.within = false,
                    read => return Ok(read),
                }
            }
            if self.input.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.init(&mut self.input) {
                Ok(()) => self.within = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut self.input.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(damaged(error)),
            }
        }
    }
}
