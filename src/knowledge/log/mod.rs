//! Counts what is found in a log: any size, any bytes, in bounded memory.

pub mod fields;

use std::collections::BTreeMap;
use std::io::{self, BufRead};

/// Longest part of a line that is looked at, in bytes.
pub const MAX_LINE: usize = 16 * 1024;

/// Lines that contain one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub lines: u64,
    /// Line numbers from 1.
    pub first: u64,
    pub last: u64,
}

/// What a log contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally<K: Ord> {
    /// Lines read.
    pub lines: u64,
    /// Lines longer than [`MAX_LINE`], of which only the beginning was looked at.
    pub cut: u64,
    pub found: BTreeMap<K, Count>,
}

/// Reads the log to its end. `matches` names what a line contains.
///
/// # Errors
/// The reader's.
pub fn tally<K: Ord>(reader: &mut dyn BufRead, matches: impl Fn(&[u8]) -> Vec<K>) -> io::Result<Tally<K>> {
    let mut tally = Tally { lines: 0, cut: 0, found: BTreeMap::new() };
    let mut line = Vec::new();
    while let Some(complete) = read_line(reader, &mut line)? {
        tally.lines += 1;
        tally.cut += u64::from(!complete);
        for key in matches(&line) {
            let number = tally.lines;
            let count = tally.found.entry(key).or_insert(Count { lines: 0, first: number, last: number });
            count.lines += 1;
            count.last = number;
        }
    }
    Ok(tally)
}

/// Reads one line without its end into `line`, at most [`MAX_LINE`] bytes of it, and skips the rest. `None` at the end;
/// `Some(false)` if something was skipped.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn count(log: &[u8]) -> Tally<&'static str> {
        let mut reader = io::BufReader::with_capacity(7, log);
        tally(&mut reader, |line| if line.windows(5).any(|word| word == b"reset") { vec!["reset"] } else { Vec::new() })
            .expect("read")
    }

    #[test]
    fn lines_are_counted_with_the_first_and_the_last() {
        let tally = count(b"ok\nreset one\nok\nreset two\nreset reset");
        assert_eq!(tally.lines, 5);
        assert_eq!(tally.found["reset"], Count { lines: 3, first: 2, last: 5 });
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_it() {
        let tally = count(b"\xff\xfe\0\nreset \xff\n\n");
        assert_eq!((tally.lines, tally.found["reset"].first), (3, 2));
    }

    #[test]
    fn a_line_without_end_is_cut_and_said_so() {
        let mut log = vec![b'x'; 3 * MAX_LINE];
        log.extend_from_slice(b"reset\nreset\n");
        let tally = count(&log);
        assert_eq!((tally.lines, tally.cut), (2, 1));
        assert_eq!(tally.found["reset"], Count { lines: 1, first: 2, last: 2 });
    }
}
