//! Small values that every room uses: points in time, what was observed and why not, TCP states, words for people.

mod chain;
mod errno;
pub mod escape;
mod failure;
mod moment;
mod netns;
mod observed;
pub mod outside;
mod ports;
pub mod shell;
mod tcp_state;
pub mod words;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use chain::leads;
pub use errno::Errno;
pub use failure::{Failure, FailureKind, Missing};
pub use moment::Moment;
pub use netns::NetnsId;
pub use observed::{Observed, ParseError};
pub use ports::EphemeralPorts;
pub use tcp_state::TcpState;

/// Set when the program is asked to end: by a signal, or by a person. Whatever takes time looks at it.
pub type Stop = Arc<AtomicBool>;
