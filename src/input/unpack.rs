//! What a file is, by how it begins, and what is in it where it is packed.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{Held, KINDS, Kind, Unusable, text};

/// Enough to tell what it is.
const HEAD: usize = 512;
/// Something packed that was packed again.
const DEEPEST: usize = 3;
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const XZ: &[u8] = b"\xfd7zXZ\0";
/// Dictionaries of xz -9 have 64 MiB.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// The kind that a file is by how it begins, or what it is instead, in words that follow its name.
fn kind(head: &[u8]) -> Result<&'static Kind, &'static str> {
    const OTHERS: [(&[u8], &str); 4] = [
        (b"BZh", "is compressed by bzip2: unpack it first"),
        (b"PK\x03\x04", "is a zip file: unpack it first"),
        (b"\x7fELF", "is a program"),
        (b"LPKSHHRH", "is a journal: journalctl --file FILE -o short-iso | rstdoctor explain -"),
    ];
    if head.is_empty() {
        return Err("is empty");
    }
    if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(what);
    }
    let unknown = "is neither a recording of rstdoctor nor a packet capture (pcap or pcapng), and no text";
    KINDS.iter().find(|kind| (kind.begins)(head)).ok_or(unknown)
}

/// Whether the bytes begin something that is read and is no text: a recording, a capture, or packed.
pub fn is_no_text(head: &[u8]) -> bool {
    let packed = [GZIP, ZSTD, XZ].iter().any(|magic| head.starts_with(magic));
    packed || kind(head).is_ok_and(|kind| *kind != text::KIND)
}

/// Unpacks the file and tells what it is.
///
/// # Errors
/// It cannot be read or unpacked, or is of no kind that is known.
pub fn held(path: &Path) -> anyhow::Result<(&'static Kind, Held)> {
    let standard_input = path == Path::new("-");
    let name = if standard_input { "standard input".to_owned() } else { path.display().to_string() };
    let input: Box<dyn Read + Send> = match standard_input {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).with_context(|| format!("{name}: cannot be read"))?),
    };
    looked_at(&name, input, (!standard_input).then(|| path.to_owned()))
}

/// The same of what was opened; `path`: where it lies.
///
/// # Errors
/// It cannot be unpacked, or is of no kind that is known.
pub fn looked_at(
    name: &str,
    mut input: Box<dyn Read + Send>,
    path: Option<PathBuf>,
) -> anyhow::Result<(&'static Kind, Held)> {
    let mut packed = Vec::new();
    loop {
        let mut head = Vec::new();
        input.by_ref().take(HEAD as u64).read_to_end(&mut head).with_context(|| {
            let unpacked = packed.last().map_or(String::new(), |how| format!(" as {how}"));
            format!("{name}: cannot be read{unpacked}")
        })?;
        let packing = [GZIP, ZSTD, XZ].into_iter().find(|magic| head.starts_with(magic) && packed.len() < DEEPEST);
        let all = Cursor::new(head.clone()).chain(input);
        let Some(packing) = packing else {
            let kind = kind(&head).map_err(|why| Unusable::new(name, why))?;
            return Ok((kind, Held { name: name.to_owned(), input: Box::new(all), path, packed }));
        };
        let all = BufReader::new(all);
        input = match packing {
            GZIP => Box::new(MultiGzDecoder::new(all)),
            ZSTD => Box::new(Zstd::new(all)),
            _ => Box::new(XzReader::new_mem_limit(all, true, XZ_MEMORY_KIB)),
        };
        packed.push(match packing {
            GZIP => "gzip",
            ZSTD => "zstd",
            _ => "xz",
        });
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
