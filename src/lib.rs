//! rstdoctor: who reset my connections, why, and what do I change?
//!
//! # Flow
//!
//! ```text
//! host -> source -> snapshot -> delta -> readings -> attribution -> ledger -> evidence -> cause -> rank -> diagnosis -> watch
//!      -> render -> tui
//! ```
//!
//! [`observe`] drives a host through one window, or through a row of them that [`watch`] judges. Each stage imports only
//! from stages to its left. Everything right of `host` is a pure function of bytes and time: the trait through which it is
//! asked, [`source::Host`], lives with the sources that consume it.

pub mod attribution;
pub mod backlog;
pub mod catalogue;
pub mod cause;
pub mod cli;
pub mod command;
pub mod config;
pub mod delta;
pub mod diagnosis;
pub mod estimate;
pub mod evidence;
pub mod filter;
pub mod host;
pub mod knowledge;
pub mod lab;
pub mod ledger;
pub mod log;
pub mod observe;
pub mod port;
pub mod rank;
pub mod readings;
pub mod render;
pub mod service;
pub mod snapshot;
pub mod source;
pub mod trace;
pub mod tui;
pub mod watch;
pub mod words;
