//! Recordings made and taken apart byte by byte, as the documentation of `rstdoctor::recording` says and without its code.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

pub const DUMP: u32 = 1;
pub const BEFORE: u32 = 2;
pub const POLL: u32 = 3;
pub const TICK: u32 = 4;
pub const AFTER: u32 = 5;
pub const CONTINUED: u32 = 0xfe;
pub const END: u32 = 0xff;

pub const MANIFEST: &[u8] =
    br#"{"tool":{"name":"rstdoctor","version":"0"},"redacted":false,"started_at":"2026-01-01T00:00:00Z"}"#;

/// A frame: its tag, and what it holds.
pub type Frame = (u32, Vec<u8>);

fn checked(mut head: Vec<u8>) -> Vec<u8> {
    head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    head
}

fn words(words: &[u32]) -> impl Iterator<Item = u8> + use<> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>().into_iter()
}

pub fn segment_head(version: u16, kind: u16, number: u32, manifest: &[u8]) -> Vec<u8> {
    let mut head = b"\x89RST\r\n\x1a\n".to_vec();
    head.extend(words(&[u32::from(version) | u32::from(kind) << 16, number]));
    head.extend(words(&[manifest.len() as u32, crc32fast::hash(manifest), 0]));
    let mut head = checked(head);
    head.extend_from_slice(manifest);
    head
}

pub fn frame_head(tag: u32, number: u32, packed: &[u8], unpacked: u32) -> Vec<u8> {
    let checksum = if packed.is_empty() { 0 } else { crc32fast::hash(packed) };
    checked(words(&[tag, number, packed.len() as u32, unpacked, checksum]).collect())
}

/// One segment.
pub fn segment(number: u32, manifest: &[u8], frames: &[Frame], end: u32) -> Vec<u8> {
    segment_at(Compression::best(), number, manifest, frames, end)
}

/// One segment, packed as well as this level does.
pub fn segment_at(level: Compression, number: u32, manifest: &[u8], frames: &[Frame], end: u32) -> Vec<u8> {
    let mut out = segment_head(1, 1, number, manifest);
    let mut deflate = Compress::new(level, false);
    for (number, (tag, frame)) in frames.iter().enumerate() {
        let mut packed = Vec::with_capacity(frame.len() * 2 + 1024);
        let before = deflate.total_in();
        deflate.compress_vec(frame, &mut packed, FlushCompress::Sync).expect("memory");
        assert_eq!(deflate.total_in() - before, frame.len() as u64);
        out.extend(frame_head(*tag, number as u32, &packed, frame.len() as u32));
        out.extend(packed);
    }
    out.extend(frame_head(end, frames.len() as u32, &[], 0));
    out
}

pub fn pack(frames: &[Frame]) -> Vec<u8> {
    segment(0, MANIFEST, frames, END)
}

/// The frames of all segments, and where in the file each begins and the last one ends.
pub fn unpack(mut bytes: &[u8]) -> (Vec<Frame>, Vec<usize>) {
    let whole = bytes.len();
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut frames, mut places) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        bytes = &bytes[32 + word(bytes, 16) as usize..];
        let mut inflate = Decompress::new(false);
        loop {
            let (tag, packed, unpacked) = (word(bytes, 0), word(bytes, 8) as usize, word(bytes, 12) as usize);
            places.push(whole - bytes.len());
            let (body, rest) = bytes[24..].split_at(packed);
            bytes = rest;
            if tag >= CONTINUED {
                break;
            }
            let mut frame = Vec::with_capacity(unpacked + 1);
            inflate.decompress_vec(body, &mut frame, FlushDecompress::Sync).expect("deflate");
            assert_eq!(frame.len(), unpacked);
            frames.push((tag, frame));
        }
    }
    (frames, places)
}

/// All that the frames of a recording hold, one after the other.
pub fn contents(bytes: &[u8]) -> Vec<u8> {
    unpack(bytes).0.into_iter().flat_map(|(_, frame)| frame).collect()
}

/// When a frame was due, when its window ends, and when it was, ns.
pub fn times(due: u64, end: u64, mono: u64, wall: u64, asleep: u64) -> Vec<u8> {
    [due, end, mono, wall, asleep].iter().flat_map(|time| time.to_le_bytes()).collect()
}

pub fn answer(key: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = (key.len() as u16).to_le_bytes().to_vec();
    out.extend_from_slice(key.as_bytes());
    for part in parts {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
    // No more parts; it went well.
    out.extend_from_slice(&[0; 5]);
    out
}
