//! /proc/sys/fs/file-nr: open files of the whole host (fs/file_table.c proc_nr_files, proc_sys_fs(5)).

use super::counters::{CounterFile, Counters, Per};
use super::redaction::Rule;
use super::text;
use crate::value::ParseError;

const PATH: &str = "/proc/sys/fs/file-nr";
pub static FILE: CounterFile = CounterFile {
    name: "file_nr",
    path: PATH,
    per: Per::Host,
    parse,
    holds: |_| false,
    redaction: Rule::harmless("open files", |what| what.is_file(PATH)),
};

/// `allocated` and `max`, both in files. The number between them, free handles, is 0 since 2.6 and left out.
///
/// # Errors
/// Anything but three numbers on one line.
pub fn parse(bytes: &[u8]) -> Result<Counters, ParseError> {
    let mut fields = text::single_line(PATH, bytes)?.split_whitespace();
    let (Some(allocated), Some(_), Some(max), None) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(ParseError::new(PATH, Some(1), "is not three numbers: allocated, free, max"));
    };
    let mut counters = Counters::default();
    counters.set("allocated", text::number(PATH, 1, "allocated", allocated)?);
    counters.set("max", text::number(PATH, 1, "max", max)?);
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn allocated_and_max() {
        let sample = b"433\t0\t2466183\n";
        let counters = parse(sample).unwrap();
        assert_eq!((counters.get("allocated"), counters.get("max")), (Some(433), Some(2466183)));
        text::tests::assert_cuts_are_errors(sample, parse, |_| false);
    }

    #[test]
    fn the_unlimited_maximum_fits() {
        assert_eq!(parse(b"1\t0\t9223372036854775807\n").unwrap().get("max"), Some(i64::MAX as u64));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }
    }
}
