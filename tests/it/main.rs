//! All integration tests in one program, which is linked once. `cargo test --test it trace::` runs those of one module.

mod accuracy;
mod architecture;
mod bundle;
mod cli;
mod common;
mod fixtures;
mod generated;
mod lab;
mod live_host;
mod reset_events;
mod reset_packets;
mod rolling;
mod screens;
mod trace;
mod watch;
mod watch_terminal;
