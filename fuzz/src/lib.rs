//! Every reader of a stranger's bytes, as a function of bytes; and what to feed them with.

/// The tests' own writer of recordings, which knows the format by its description only.
#[path = "../../tests/it/common/forge.rs"]
#[allow(dead_code, reason = "the tests forge more")]
mod forge;
pub mod frames;
pub mod hosts;
pub mod limits;
pub mod mutate;
pub mod targets;
