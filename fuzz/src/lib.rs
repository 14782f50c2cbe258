//! Every reader of a stranger's bytes, as a function of bytes; and what to feed them with.

pub mod hosts;
pub mod limits;
pub mod mutate;
pub mod targets;
