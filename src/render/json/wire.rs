//! The wire types: frozen copies of what is inside, one file per document, and what the documents share. They are only ever
//! extended, because scripts rely on every name here. What has a fixed set of values is an enumeration, and the schema lists
//! them.

pub mod capture;
pub mod history;
mod node;
mod port;
pub mod report;
pub mod shared;
pub mod trace;
pub mod watch;
