pub mod host;
pub mod snapshot;
pub mod source;
