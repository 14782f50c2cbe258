//! What a trace costs and loses in a storm of resets, beside no reader, tcpdump and bpftrace.
//!
//! Everything runs on loopback in a network namespace with a tracefs of its own. A refused connect is one RST sent and one
//! received. Four parts:
//!
//! 1. A storm of 100,000 resets a second: made (`OutRsts`), counted by the kernel, recorded, lost; the reader's CPU and memory.
//!    The account must be exact, or the bench fails.
//! 2. What a refused connect costs with a reader beside one without, as fast as the machine can.
//! 3. What a connection that its server aborts costs with a reader: its records have a call chain and an error.
//! 4. What a regular connection costs with the destroy multicast (`Ask::DestroyedSockets`) and with the packet socket that samples
//!    first segments for their TTL (`Ask::ResetPackets`), beside neither.
//!
//! In the first three one more reader is `trace` without call chains and without the event for error codes: the lines that begin
//! with `call chains and errors` say what these two cost. For them the rounds should be many.
//!
//! The readers take turns, so that a slow moment of the machine hits all of them; a ratio is to the run without in the same
//! round. Every wait is bounded.
//!
//! ```text
//! RSTDOCTOR_BENCH_SECONDS=5 RSTDOCTOR_BENCH_ROUNDS=3 cargo bench --bench trace
//! ```
//!
//! `RSTDOCTOR_BENCH_OTHER` is the path of another build of the program, which then takes its turns as well: what a change costs.

#![allow(unsafe_code, reason = "measures system calls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot measure ends")]

use std::process::{Command, Stdio};
use std::time::Duration;

mod cost;
mod few;
mod load;
mod reader;
mod storm;

const INSIDE: &str = "RSTDOCTOR_BENCH_INSIDE";

fn main() {
    if std::env::var_os(few::SELECTED).is_some() {
        return few::run();
    }
    // `cargo test --benches` starts it too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return eprintln!("skipped: a benchmark runs with cargo bench");
    }
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    // Where the host has it mounted, as systemd does, the copy in the new mount namespace serves; a second mount is EBUSY.
    const ENTER: &str = "{ test -d /sys/kernel/tracing/events || mount -t tracefs tracefs /sys/kernel/tracing; } \
         && ip link set lo up && exec \"$@\"";
    let isolated = || {
        let mut command = Command::new("unshare");
        command.args(["-mn", "sh", "-c", ENTER, "sh"]);
        command
    };
    if !isolated().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: needs root, for a network namespace and a tracefs of its own");
    }
    let exe = std::env::current_exe().expect("own path");
    let status = isolated().arg(exe).arg("--bench").env(INSIDE, "1").status().expect("runs");
    assert!(status.success());
}

fn inside() {
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let seconds = Duration::from_secs(number("RSTDOCTOR_BENCH_SECONDS", 5));
    let rounds = number("RSTDOCTOR_BENCH_ROUNDS", 3) as usize;
    let file = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    // What else runs takes from all of them: a load near 0 is a quiet machine.
    println!("Linux {}, {cores} cores, load {}", file("/proc/sys/kernel/osrelease"), file("/proc/loadavg"));
    let readers = reader::present();
    storm::run(&readers, seconds, rounds);
    cost::of_readers(&readers, seconds, rounds);
    cost::of_aborts(&readers, seconds, rounds);
    cost::of_sources(seconds, rounds);
}

/// What call chains and the error event cost: with them to without, in each round.
fn print_details(what: &str, with: &[f64], without: &[f64]) {
    let ratios: Vec<f64> = with.iter().zip(without).map(|(with, without)| with / without).collect();
    println!("  call chains and errors: x{:.3} {what}; median of {}", median(ratios.clone()), ratios.len());
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
