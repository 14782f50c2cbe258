//! Text in what Windows writes: UTF-16 (PowerShell's redirection, Event Viewer, regedit), and UTF-8 with a byte order mark.

use std::io::{self, BufRead, BufReader, Read};

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
/// Bytes that are looked at where there is no mark.
const SOME: usize = 64;
const CHUNK: usize = 8 * 1024;

/// Whether the bytes begin a text in UTF-16, and then whether the higher byte stands first. Without a mark it is one where every
/// second byte of Latin text is 0, and the others are not.
pub fn utf16(head: &[u8]) -> Option<bool> {
    match head {
        [0xff, 0xfe, 0, 0, ..] => return None,
        [0xff, 0xfe, ..] => return Some(false),
        [0xfe, 0xff, ..] => return Some(true),
        _ => {}
    }
    let head = head.get(..head.len().min(SOME) & !1)?;
    let zero = |from: usize| head.iter().skip(from).step_by(2).all(|byte| *byte == 0);
    let ascii =
        |from: usize| head.iter().skip(from).step_by(2).all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | b' '..=b'~'));
    match head.len() >= 8 {
        true if zero(1) && ascii(0) => Some(false),
        true if zero(0) && ascii(1) => Some(true),
        _ => None,
    }
}

/// The text in UTF-8 and without a mark.
///
/// # Errors
/// The reader's.
pub fn decoded<'r>(reader: &'r mut dyn BufRead) -> io::Result<Box<dyn BufRead + 'r>> {
    let head = reader.fill_buf()?;
    if head.starts_with(UTF8_MARK) {
        reader.consume(UTF8_MARK.len());
        return Ok(Box::new(reader));
    }
    Ok(match utf16(head) {
        Some(big) => {
            let mark = if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") { 2 } else { 0 };
            reader.consume(mark);
            Box::new(BufReader::new(Utf16 { reader, big, units: Vec::new(), ready: io::Cursor::default() }))
        }
        None => Box::new(reader),
    })
}

struct Utf16<'r> {
    reader: &'r mut dyn BufRead,
    big: bool,
    /// What is left of the bytes before: half a unit, or the first of two units that are one character.
    units: Vec<u8>,
    ready: io::Cursor<Vec<u8>>,
}

impl Read for Utf16<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let some = self.ready.read(buffer)?;
            if some > 0 || buffer.is_empty() {
                return Ok(some);
            }
            // A pipe gives what it has; so much of it that a unit may be whole.
            let some = self.reader.fill_buf()?;
            let more = some.len().min(CHUNK);
            self.units.extend_from_slice(some.get(..more).unwrap_or_default());
            self.reader.consume(more);
            if self.units.is_empty() {
                return Ok(0);
            }
            let unit = |pair: &[u8]| {
                let pair = [pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0)];
                if self.big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
            };
            let mut whole = self.units.len() & !1;
            let last = self.units.get(whole.saturating_sub(2)..whole).map(unit);
            let is_half = last.is_some_and(|last| (0xd800..0xdc00).contains(&last));
            match more {
                // The end, which may be cut.
                0 => whole = self.units.len(),
                _ if is_half => whole -= 2,
                _ => {}
            }
            let text = char::decode_utf16(self.units.get(..whole).unwrap_or_default().chunks(2).map(unit));
            let text: String = text.map(|one| one.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
            self.units.drain(..whole);
            self.ready = io::Cursor::new(text.into_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> String {
        let mut text = String::new();
        // Pieces that end within a unit.
        let mut reader = BufReader::with_capacity(9, bytes);
        decoded(&mut reader).expect("read").read_to_string(&mut text).expect("UTF-8");
        text
    }

    fn units(text: &str, big: bool, mark: bool) -> Vec<u8> {
        let mark = mark.then_some(0xfeff);
        let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        mark.into_iter().chain(text.encode_utf16()).flat_map(bytes).collect()
    }

    #[test]
    fn each_encoding_gives_the_same_text() {
        let text = "read: connection reset by peer \u{1f4a5} caf\u{e9}\r\n";
        assert_eq!(read(text.as_bytes()), text);
        assert_eq!(read(format!("\u{feff}{text}").as_bytes()), text);
        for big in [false, true] {
            assert_eq!(read(&units(text, big, true)), text);
            assert_eq!(read(&units(text, big, false)), text, "no mark");
        }
        let long = "\u{1f4a5}".repeat(CHUNK);
        assert_eq!(read(&units(&format!("x{long}"), false, true)), format!("x{long}"));
    }

    #[test]
    fn what_is_cut_or_no_text_is_no_harm() {
        let mut cut = units("ab", false, true);
        cut.pop();
        assert!(read(&cut).starts_with('a'));
        assert_eq!(read(b"\xff\xfe\x3d\xd8"), "\u{fffd}", "half a character");
        for other in [&b""[..], b"ok", b"\0\0\0\0\0\0\0\0", b"\xff\xfe\0\0a\0\0\0", b"\xd4\xc3\xb2\xa1\x02\0\x04\0"] {
            assert_eq!(utf16(other), None, "{other:?}");
        }
    }
}
