//! All integration tests in one program, which is linked once. `cargo test --test it trace::` runs those of one module.
#![allow(unsafe_code, reason = "faults are provoked by system calls that std does not have")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by them, and its helpers too"
)]

mod accuracy;
mod agent;
mod architecture;
mod browser;
mod captures;
mod cli;
mod command_line;
mod common;
mod dependencies;
mod explain;
mod fixtures;
mod generated;
mod lab;
mod live_host;
mod many_namespaces;
mod node;
mod page;
mod privileges;
mod recording;
mod reset_events;
mod reset_packets;
mod rolling;
mod screens;
mod signals;
mod soak;
mod texts;
mod trace;
mod watch;
mod watch_terminal;
