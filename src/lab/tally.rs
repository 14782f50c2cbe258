//! What a client program experienced: each outcome in its own words, counted.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by all threads of a scenario.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<String, u64>>>);

impl Tally {
    pub fn add(&self, text: impl Into<String>, count: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(text.into()).or_default() += count;
    }

    /// Notes how `what` ended and hands the value on.
    pub fn note<T>(&self, what: &str, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.add(format!("{what}: ok"), 1);
                Some(value)
            }
            Err(error) => {
                self.add(format!("{what}: {}", error_text(&error)), 1);
                None
            }
        }
    }

    pub fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The text that a person would find in a log, with the name of the errno that they would search for.
pub fn error_text(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else {
        return match error.kind() {
            io::ErrorKind::TimedOut => "Connection timed out (no answer within the program's own limit)".to_owned(),
            io::ErrorKind::UnexpectedEof => "end of file before the answer".to_owned(),
            _ => error.to_string(),
        };
    };
    let name = match number {
        libc::ECONNRESET => "ECONNRESET",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EPIPE => "EPIPE",
        libc::EMFILE => "EMFILE",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ENETUNREACH => "ENETUNREACH",
        // A read with SO_RCVTIMEO that got nothing reports EAGAIN (socket(7)).
        libc::EAGAIN => return "no answer within the program's own limit (EAGAIN)".to_owned(),
        _ => return error.to_string(),
    };
    let text = error.to_string();
    format!("{} ({name})", text.split(" (os error").next().unwrap_or(&text))
}
