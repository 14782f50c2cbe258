//! Standard output and standard error, written without ever panicking.

mod writer;

use std::fmt;
use std::io::{self, Write};

use crate::value::escape::visible;

pub use writer::{Output, Stdout};

/// A result to standard output, whole and at once: whoever reads a pipe wants it when it is there.
///
/// # Errors
/// It could not be written; a closed pipe too.
pub fn print(result: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(result.as_ref()).and_then(|()| out.flush()).map_err(of_stdout)
}

/// An error of writing says where it was: of many files of a command standard output is one.
pub fn of_stdout(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("standard output: {error}"))
}

/// Writes a line to standard error. Not by `eprintln!`, which panics where that cannot be written to (`2> /dev/full`).
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says something under the program's name, whatever the text holds.
pub fn note(text: &str) {
    say(visible(&format!("rstdoctor: {text}")));
}
