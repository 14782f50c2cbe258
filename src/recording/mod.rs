//! Recordings: raw answers of a host in a file, written while it is asked and replayed through the live code.

mod format;
pub mod read;
mod redact;
pub mod rolling;
pub mod write;

pub use format::{Manifest, Tool};
pub use read::ReplayHost;
pub use rolling::{History, RollingHost};
pub use write::{RecordingFile, RecordingHost};
