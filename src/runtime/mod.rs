//! What the system may do to a process at any time: signals, no more threads, privileges that it should not keep.

pub mod http;
pub mod privilege;
pub mod service_manager;
pub mod signals;
mod sys;
pub mod thread;

pub use sys::{give_memory_back, map_large_pieces};
