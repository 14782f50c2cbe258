//! `rstdoctor trace` without call chains and without the event that tells errors of sockets. No option of the program does that:
//! the benchmark runs the command in a process of its own.

use std::sync::Arc;

use rstdoctor::command::cli::TraceArgs;
use rstdoctor::command::config::{self, Live, Netns, Origin, Terminal};
use rstdoctor::command::trace;
use rstdoctor::kernel::LiveHost;
use rstdoctor::runtime::signals;
use rstdoctor::{input, open};

/// Set in the environment of that process.
pub const SELECTED: &str = "RSTDOCTOR_BENCH_FEW";

pub fn run() {
    let stop = signals::stop_on_signals().expect("signals");
    let config = config::trace(&TraceArgs::default(), Terminal::default()).expect("no arguments");
    let Origin::Live(live) = &config.origin else { panic!("not live") };
    // What the program opens, too; the host of the own namespace alone, which is replaced, costs nothing.
    let opened = open(&Origin::Live(Live { netns: Netns::Own, ..live.clone() }), &stop).expect("opens");
    let mut host = LiveHost::of_node(Arc::clone(&stop));
    host.spare_details();
    let opened = input::Opened { host: Box::new(host), ..opened };
    trace::show(&config, opened, &stop).expect("sees resets");
}
