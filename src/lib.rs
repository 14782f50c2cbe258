//! rstdoctor: who reset my connections, why, and what do I change?
//!
//! # Flow
//!
//! ```text
//! host -> source -> snapshot -> delta -> ledger -> evidence -> cause -> rank -> diagnosis -> render
//! ```
//!
//! Each stage imports only from stages to its left. Everything right of `host` is a pure function of bytes and time: the
//! trait through which it is asked, [`source::Host`], lives with the sources that consume it.

pub mod backlog;
pub mod cause;
pub mod delta;
pub mod diagnosis;
pub mod evidence;
pub mod host;
pub mod knowledge;
pub mod lab;
pub mod ledger;
pub mod observe;
pub mod rank;
pub mod service;
pub mod snapshot;
pub mod source;
pub mod words;
