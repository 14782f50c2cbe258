//! The cost of a live view: CPU time per tick and memory over time, of the program as it runs.
//!
//! As root it makes a network namespace of its own and fills it with connections; without that right it says so and ends.
//!
//! ```text
//! RSTDOCTOR_BENCH_SECONDS=600 RSTDOCTOR_BENCH_CONNECTIONS=10000 cargo bench --bench watch
//! ```
//!
//! The default is one minute and 10,000 connections. Once with all connections idle, and once while one more comes and goes
//! with a reset a hundred times a second, so that there is a cause to follow in each tick and sweeps are taken.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

mod load;

fn main() {
    if load::hold_if_asked() {
        return;
    }
    let (seconds, connections) = (number("RSTDOCTOR_BENCH_SECONDS", 60), number("RSTDOCTOR_BENCH_CONNECTIONS", 10_000));
    let holders = match load::load(2 * connections) {
        Ok(holders) => holders,
        Err(error) => return eprintln!("skipped: a namespace with {connections} connections: {error}"),
    };
    println!(
        "rstdoctor watch --json --interval 1s for {seconds} s, {connections} connections (both ends on this host)"
    );
    watch("idle", seconds);
    let stop = Arc::new(AtomicBool::new(false));
    let fault = resets(Arc::clone(&stop));
    watch("100 resets per s", seconds);
    stop.store(true, Ordering::Relaxed);
    fault.join().expect("the fault");
    drop(holders);
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Closes connections with unread data until told to stop.
fn resets(stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let listener = TcpListener::bind("127.0.0.1:900").expect("a free port");
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let mut client = TcpStream::connect("127.0.0.1:900").expect("a connection");
            let (server, _) = listener.accept().expect("a connection");
            client.write_all(&[1; 100]).expect("room");
            std::thread::sleep(Duration::from_millis(5));
            drop(server);
            std::thread::sleep(Duration::from_millis(5));
        }
    })
}

/// One run, read tick by tick.
fn watch(what: &str, ticks: usize) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
        .args(["watch", "--json", "--interval", "1s", "--count", &ticks.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let (mut sweeps, mut late, mut seen) = (0, 0, 0);
    // After the first tick, which opens everything, and after a tenth, when all buffers have their size.
    let (mut start, mut early, mut end) = (Usage::default(), Usage::default(), Usage::default());
    for (index, line) in lines.map_while(Result::ok).enumerate() {
        seen = index + 1;
        sweeps += usize::from(line.contains("\"sweep\":{\"taken\""));
        late += usize::from(line.contains("\"late_s\""));
        end = Usage::of(&child).unwrap_or(end);
        if index == 0 {
            start = end;
        }
        if index == ticks / 10 {
            early = end;
        }
    }
    assert!(child.wait().expect("a child").success() && seen == ticks, "{seen} ticks of {ticks}");
    let per_tick = (end.cpu.saturating_sub(start.cpu)).as_secs_f64() * 1e3 / (ticks - 1).max(1) as f64;
    println!(
        "  {what:<17} {per_tick:.2} ms of CPU per tick ({:.2} % of one CPU), {sweeps} sweeps, {late} late ticks; memory \
         {:.1} MB after a tenth, {:.1} MB at the end, {:.1} MB at most",
        per_tick / 10.0,
        early.resident_mb,
        end.resident_mb,
        end.most_mb,
    );
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    cpu: Duration,
    resident_mb: f64,
    most_mb: f64,
}

impl Usage {
    /// proc_pid_stat(5), proc_pid_status(5). `None` once the process has ended.
    fn of(child: &Child) -> Option<Self> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).ok();
        let (stat, status) = (read("schedstat")?, read("status")?);
        let mb = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
        };
        // The main thread, which drives; schedstat has nanoseconds where stat has ticks of 10 ms.
        let cpu = Duration::from_nanos(stat.split_whitespace().next()?.parse().ok()?);
        Some(Self { cpu, resident_mb: mb("VmRSS:")?, most_mb: mb("VmHWM:")? })
    }
}
