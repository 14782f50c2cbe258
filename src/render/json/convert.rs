//! From what is inside to the wire types, field by field, so that a change of either is seen by the compiler.

pub mod capture;
pub mod history;
pub mod report;
pub mod shared;
pub mod trace;
pub mod watch;
