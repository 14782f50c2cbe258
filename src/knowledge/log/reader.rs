//! Lines of any bytes and any length, in bounded memory.

use std::io::{self, BufRead};

/// Longest part of a line that is looked at, in bytes.
pub const MAX_LINE: usize = 16 * 1024;

/// Reads one line without its end into `line`, at most [`MAX_LINE`] bytes of it, and skips the rest. `None` at the end;
/// `Some(false)` if something was skipped.
///
/// # Errors
/// The reader's.
pub fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let mut any = false;
    let mut complete = true;
    loop {
        let buffer = match reader.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(any.then_some(complete));
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let text = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let room = MAX_LINE - line.len();
        line.extend_from_slice(text.get(..room.min(text.len())).unwrap_or_default());
        complete &= text.len() <= room;
        let used = text.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(complete));
        }
    }
}

/// What the beginning of the input is, if it is no text.
///
/// # Errors
/// The reader's.
pub fn no_text(reader: &mut dyn BufRead) -> io::Result<Option<&'static str>> {
    let start = reader.fill_buf()?;
    let is = |magic: &[u8]| start.starts_with(magic);
    Ok(if is(b"BZh") {
        Some("compressed, and explain reads text: unpack it first")
    } else if is(b"\x7fELF") || is(b"LPKSHHRH") {
        Some("no text; of a journal: journalctl -o short-iso | rstdoctor explain -")
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(log: &[u8]) -> Vec<(usize, bool)> {
        let mut reader = io::BufReader::with_capacity(7, log);
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while let Some(complete) = read_line(&mut reader, &mut line).expect("read") {
            lines.push((line.len(), complete));
        }
        lines
    }

    #[test]
    fn lines_of_any_bytes_are_read() {
        assert_eq!(lines(b"ok\n\n\xff\xfe\0\nlast"), [(2, true), (0, true), (3, true), (4, true)]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_line_without_end_is_cut_and_said_so() {
        let mut log = vec![b'x'; 3 * MAX_LINE];
        log.extend_from_slice(b"reset\nreset\n");
        assert_eq!(lines(&log), [(MAX_LINE, false), (5, true)]);
    }

    #[test]
    fn what_is_packed_and_what_is_a_journal_is_no_text() {
        let said = |start: &[u8]| no_text(&mut &*start).expect("read").unwrap_or_default();
        assert!(said(b"BZh91").contains("unpack"));
        assert!(said(b"LPKSHHRH\0").contains("journalctl"));
        assert_eq!(said(b"ok\n"), "");
    }
}
