//! One file per evidence source: what to ask the host for, and a pure parser of the bytes that it returns.

pub mod ask;
pub mod census;
pub mod conntrack;
pub mod counters;
pub mod host_facts;
pub mod listeners;
pub mod observed;
pub mod owners;
pub mod reset_events;
pub mod reset_packets;
pub mod tcp_state;

pub use ask::{Answer, Ask, DiagQuery, Failure, FailureKind, Frame, Host, Moment};
pub use observed::{Observed, ParseError};
