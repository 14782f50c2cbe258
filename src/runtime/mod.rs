//! What the system may do to a process at any time: signals, no more threads, privileges that it should not keep.

pub mod privilege;
pub mod signals;
mod sys;
pub mod thread;
