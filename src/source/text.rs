//! What all /proc text has in common: UTF-8 lines, each ended by a newline.

use std::time::Duration;

use super::counters::Counters;
use crate::ask::{self, Ask, Probe, Scope, What};
use crate::value::{Failure, Observed, ParseError};

/// The lines of `bytes` with their numbers from 1. The kernel ends every line of the files that we read with a newline, so
/// text without one at its end was cut, perhaps in the middle of a number.
///
/// # Errors
/// Empty text, text that is not UTF-8, text without a newline at its end.
pub(super) fn lines<'a>(source: &str, bytes: &'a [u8]) -> Result<impl Iterator<Item = (usize, &'a str)>, ParseError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
        ParseError::new(source, Some(line), "is not UTF-8 text")
    })?;
    if text.is_empty() {
        return Err(ParseError::new(source, None, "is empty"));
    }
    if !text.ends_with('\n') {
        return Err(ParseError::new(source, Some(text.lines().count()), "the last line is cut: it has no newline"));
    }
    Ok(text.lines().enumerate().map(|(index, line)| (index + 1, line)))
}

/// The only line of a file that holds one value, trimmed.
pub(super) fn single_line<'a>(source: &str, bytes: &'a [u8]) -> Result<&'a str, ParseError> {
    match lines(source, bytes)?.next() {
        Some((_, line)) => Ok(line.trim()),
        None => Err(ParseError::new(source, None, "is empty")),
    }
}

/// An unsigned decimal number; the error names the field.
pub(super) fn number(source: &str, line: usize, field: &str, text: &str) -> Result<u64, ParseError> {
    text.parse().map_err(|_| {
        ParseError::new(source, Some(line), format!("{field} is {text:?}, not a number that fits 64 bits"))
    })
}

/// Counters from `name value` lines, those that `key` gives a name of ours.
///
/// # Errors
/// A line that is not a name and a value, a value that is wanted and no number, text that is cut.
pub(super) fn name_values(
    source: &str,
    bytes: &[u8],
    key: impl Fn(&str) -> Option<String>,
) -> Result<Counters, ParseError> {
    let mut counters = Counters::default();
    for (line, text) in lines(source, bytes)? {
        let mut fields = text.split_whitespace();
        let (Some(name), Some(value), None) = (fields.next(), fields.next(), fields.next()) else {
            return Err(ParseError::new(source, Some(line), "is not `name value`"));
        };
        if let Some(key) = key(name) {
            counters.set(key, number(source, line, name, value)?);
        }
    }
    Ok(counters)
}

/// Asks for one file and parses it.
pub(super) fn collect_file<T>(
    probe: &mut dyn Probe,
    scope: Scope,
    path: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, ParseError>,
) -> (Observed<T>, Duration) {
    let (bytes, took) = ask::read(probe, &Ask { scope, what: What::File(path.to_owned()) });
    (parsed(bytes, parse), took)
}

fn parsed<T>(bytes: Result<Vec<u8>, Failure>, parse: impl FnOnce(&[u8]) -> Result<T, ParseError>) -> Observed<T> {
    match bytes.and_then(|bytes| Ok(parse(&bytes)?)) {
        Ok(value) => Observed::Full(value),
        Err(failure) => Observed::Unavailable(failure),
    }
}

/// As [`collect_file`] where its text is another than the `known` one, which becomes that of now; `None` where it is the same.
pub(super) fn collect_other<T>(
    probe: &mut dyn Probe,
    scope: Scope,
    path: &str,
    known: &mut Vec<u8>,
    parse: impl FnOnce(&[u8]) -> Result<T, ParseError>,
) -> (Option<Observed<T>>, Duration) {
    let (bytes, took) = ask::read(probe, &Ask { scope, what: What::File(path.to_owned()) });
    if bytes.as_ref().is_ok_and(|bytes| !bytes.is_empty() && bytes == known) {
        return (None, took);
    }
    known.clear();
    known.extend(bytes.iter().flatten());
    let observed = parsed(bytes, parse);
    if observed.value().is_none() {
        known.clear();
    }
    (Some(observed), took)
}

/// Undoes what /proc/PID/status and the list of tasks do to newline and backslash in a name (fs/proc/array.c task_name).
pub(super) fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut bytes = name.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => out.push(b'\n'),
                Some(other) => out.push(other),
                None => out.push(b'\\'),
            },
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every proper prefix of `sample` is refused, except those that end at a line boundary, where a shorter file is a
    /// valid file of another kernel: there `whole_at` decides.
    pub(in crate::source) fn assert_cuts_are_errors<T: std::fmt::Debug>(
        sample: &[u8],
        parse: impl Fn(&[u8]) -> Result<T, ParseError>,
        whole_at: impl Fn(&[u8]) -> bool,
    ) {
        assert!(parse(sample).is_ok(), "the whole sample parses: {:?}", parse(sample));
        for cut in 0..sample.len() {
            let (prefix, _) = sample.split_at(cut);
            if !whole_at(prefix) {
                assert!(parse(prefix).is_err(), "cut at byte {cut} of {}", sample.len());
            }
        }
    }

    #[test]
    fn a_line_without_newline_is_named() {
        let error = lines("/proc/x", b"a 1\nb 2").err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("/proc/x, line 2: the last line is cut: it has no newline"));
    }

    #[test]
    fn bytes_that_are_not_text_are_named_by_line() {
        let error = lines("/proc/x", b"a 1\nb \xff\n").err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("/proc/x, line 2: is not UTF-8 text"));
    }
}
