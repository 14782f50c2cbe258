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

#![allow(unsafe_code, reason = "measures system calls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot measure ends")]

use std::io::{BufRead, BufReader, Read, Write};
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
    let bare = bare(seconds.min(60));
    watch("idle", seconds, bare);
    let stop = Arc::new(AtomicBool::new(false));
    let fault = resets(Arc::clone(&stop));
    watch("100 resets per s", seconds, bare);
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

/// What a program pays for no more than reading the counters once a second, on this machine and now: the files of a tick,
/// opened, read and closed. CPU time of what mostly sleeps differs much between machines, and with what else they do.
fn bare(seconds: usize) -> f64 {
    const FILES: [&str; 8] = [
        "net/netstat",
        "net/snmp",
        "net/snmp6",
        "net/sockstat",
        "net/sockstat6",
        "net/stat/nf_conntrack",
        "vmstat",
        "sys/fs/file-nr",
    ];
    let mut buffer = vec![0; 64 << 10];
    let mut read = || {
        for file in FILES.iter().map(|file| format!("/proc/{file}").replace("/net/", "/thread-self/net/")) {
            let Ok(mut file) = std::fs::File::open(file) else { continue };
            while file.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    };
    read();
    let start = own_cpu();
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        read();
    }
    let used = (own_cpu() - start).as_secs_f64() * 1e3 / seconds as f64;
    println!("  to read the counters' files and nothing else: {used:.2} ms of CPU each second");
    used
}

/// CPU time of this thread.
fn own_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("CONFIG_SCHED_INFO");
    Duration::from_nanos(text.split_whitespace().next().and_then(|text| text.parse().ok()).expect("a number"))
}

/// One run, read tick by tick.
fn watch(what: &str, ticks: usize, bare: f64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
        .args(["watch", "--json", "--interval", "1s", "--count", &ticks.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let (mut late, mut seen) = (0, 0);
    let (mut cheap, mut sweeps) = (Vec::new(), Vec::new());
    // After the first tick, which opens everything, and after a tenth, when all buffers have their size.
    let (mut early, mut end) = (Usage::default(), Usage::default());
    for (index, line) in lines.map_while(Result::ok).enumerate() {
        seen = index + 1;
        late += usize::from(line.contains("\"late_s\""));
        // The last tick is not counted: the process may have ended.
        let Some(now) = Usage::of(&child) else { continue };
        let used = (now.cpu - end.cpu).as_secs_f64() * 1e3;
        end = now;
        match line.contains("\"sweep\":{\"taken\"") {
            _ if index == 0 => {}
            true => sweeps.push(used),
            false => cheap.push(used),
        }
        if index == ticks / 10 {
            early = end;
        }
    }
    assert!(child.wait().expect("a child").success() && seen == ticks, "{seen} ticks of {ticks}");
    let per_tick = mean(&cheap);
    let all = (cheap.iter().sum::<f64>() + sweeps.iter().sum::<f64>()) / (cheap.len() + sweeps.len()) as f64;
    println!(
        "  {what}: {per_tick:.2} ms of CPU per tick, {:.1} times the files alone; {} ticks with a sweep {:.0} ms each; \
         {:.2} % of one CPU in all; {late} late ticks; memory {:.1} MB after a tenth, {:.1} MB at the end, {:.1} MB at most",
        per_tick / bare,
        sweeps.len(),
        mean(&sweeps),
        all / 10.0,
        early.resident_mb,
        end.resident_mb,
        end.most_mb,
    );
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
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
