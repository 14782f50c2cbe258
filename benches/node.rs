//! The cost of a big node: network namespaces, processes, listeners and sockets, looked at by the program as it runs.
//!
//! As root, in a mount namespace of its own; without that right it says so and ends. What is there besides is looked at as well:
//! figures are for a quiet machine.
//!
//! ```text
//! RSTDOCTOR_BENCH_NAMESPACES=500 RSTDOCTOR_BENCH_PROCESSES=5000 RSTDOCTOR_BENCH_SOCKETS=200000 \
//!     RSTDOCTOR_BENCH_LISTENERS=2000 cargo bench --bench node
//! ```
//!
//! The default is 40 namespaces, 100 processes, 4,000 sockets and 80 listeners. In each namespace one process holds its share of
//! the listeners and sockets, the others sleep. Then 100 namespaces come and go within a minute (`RSTDOCTOR_BENCH_SECONDS`).

#![allow(unsafe_code, reason = "measures system calls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot measure ends")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

mod load;

/// What a process in a namespace is started with: listeners, sockets and further processes.
const INSIDE: &str = "--inside";
/// Of the node that is looked at while namespaces come and go.
const COMING: usize = 100;

fn main() {
    if load::hold_if_asked() || inside_if_asked() {
        return;
    }
    let namespaces = number("RSTDOCTOR_BENCH_NAMESPACES", 40);
    let processes = number("RSTDOCTOR_BENCH_PROCESSES", 100);
    let sockets = number("RSTDOCTOR_BENCH_SOCKETS", 4_000);
    let listeners = number("RSTDOCTOR_BENCH_LISTENERS", 80);
    let seconds = number("RSTDOCTOR_BENCH_SECONDS", 20);
    let alone = scan("this machine as it is");
    let each = |all: usize| all / namespaces.max(1);
    let mut node: Vec<Inside> = Vec::new();
    for _ in 0..namespaces {
        match Inside::start(each(listeners), each(sockets), each(processes).saturating_sub(2)) {
            Ok(inside) => node.push(inside),
            Err(error) => return eprintln!("skipped: {namespaces} network namespaces: {error}"),
        }
    }
    let what = format!("{namespaces} more namespaces, {processes} processes, {sockets} sockets, {listeners} listeners");
    let whole = scan(&what);
    println!(
        "  for each namespace: {:.2} ms of CPU in a scan of 3 s, {:.0} kB",
        (whole.cpu.saturating_sub(alone.cpu)).as_secs_f64() * 1e3 / namespaces.max(1) as f64,
        (whole.most_mb - alone.most_mb).max(0.0) * 1024.0 / namespaces.max(1) as f64,
    );
    watch(&what, seconds, &mut || {});
    drop(node);
    let mut came = 0;
    let every = Duration::from_secs(seconds as u64) / COMING as u32;
    let mut last: Option<(Inside, Instant)> = None;
    // Ten stand beside each other, the oldest goes.
    let mut row = std::collections::VecDeque::new();
    watch(&format!("{COMING} namespaces come and go"), seconds, &mut || {
        if came < COMING && last.as_ref().is_none_or(|(_, at)| at.elapsed() >= every) {
            row.extend(last.take().map(|(inside, _)| inside));
            last = Inside::start(2, 20, 0).ok().map(|inside| (inside, Instant::now()));
            came += 1;
            if row.len() > 10 {
                row.pop_front();
            }
        }
    });
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// A process with a network namespace of its own, and what is in there. It ends when it is dropped.
struct Inside(Child);

impl Inside {
    fn start(listeners: usize, sockets: usize, more: usize) -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([INSIDE, &listeners.to_string(), &sockets.to_string(), &more.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut ready)?;
        let inside = Self(child);
        if ready.trim() == "ready" { Ok(inside) } else { Err(std::io::Error::other("it could not be made")) }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// True if this process was one in a namespace, and has been there until its standard input ended.
fn inside_if_asked() -> bool {
    let mut asked = std::env::args().skip_while(|argument| argument != INSIDE).skip(1);
    let mut next = || asked.next().and_then(|text| text.parse::<usize>().ok());
    let (Some(listeners), Some(sockets), Some(more)) = (next(), next(), next()) else { return false };
    let Ok(holders) = load::load(sockets) else { return true };
    let bound: Vec<_> = (0..listeners).map(|place| TcpListener::bind(("127.1.0.1", 2_000 + place as u16))).collect();
    let mut others: Vec<Child> = (0..more)
        .map(|_| Command::new("sleep").arg("3600").stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("sleep"))
        .collect();
    println!("{}", if bound.iter().all(Result::is_ok) { "ready" } else { "failed" });
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
    for other in &mut others {
        let _ = other.kill();
        let _ = other.wait();
    }
    drop(holders);
    true
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    cpu: Duration,
    resident_mb: f64,
    most_mb: f64,
    files: usize,
}

impl Usage {
    /// Of all threads. `None` once the process has ended.
    fn of(child: &Child) -> Option<Self> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).ok();
        let status = read("status")?;
        let mb = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
        };
        let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).ok()?.flatten();
        let cpu = threads.filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        let cpu = Duration::from_nanos(cpu.sum());
        let files = std::fs::read_dir(format!("/proc/{}/fd", child.id())).map_or(0, Iterator::count);
        Some(Self { cpu, resident_mb: mb("VmRSS:")?, most_mb: mb("VmHWM:")?, files })
    }
}

/// One scan of 3 s, as a person runs it.
fn scan(what: &str) -> Usage {
    const WINDOW: Duration = Duration::from_secs(3);
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
        .args(["scan", "--duration", "3s", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    // The report comes at once, at the end: as long as nothing has come it lives.
    let (mut usage, done) = (Usage::default(), std::sync::atomic::AtomicBool::new(false));
    let mut text = String::new();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            std::io::Read::read_to_string(&mut out, &mut text).expect("text");
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            usage = Usage::of(&child).unwrap_or(usage);
            std::thread::sleep(Duration::from_millis(10));
        }
        reader.join().expect("the reader");
    });
    let status = child.wait().expect("a child");
    let report: serde_json::Value = serde_json::from_str(&text).expect("a report");
    println!(
        "{what}\n  scan: looked at {} of {} namespaces, {status}, {:.2} s beyond its window, {:.2} s of CPU, {:.1} MB at most",
        report["node"]["looked"],
        report["node"]["known"],
        started.elapsed().saturating_sub(WINDOW).as_secs_f64(),
        usage.cpu.as_secs_f64(),
        usage.most_mb,
    );
    usage
}

/// A live view with a tick each 2 s. `meanwhile` is called ten times a second.
fn watch(what: &str, seconds: usize, meanwhile: &mut dyn FnMut()) {
    let ticks = (seconds / 2).max(2);
    let mut child = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
        .args(["watch", "--json", "--interval", "2s", "--count", &ticks.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let (send, receive) = std::sync::mpsc::channel();
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(send.send(line))));
    let mut all: Vec<Usage> = Vec::new();
    let mut late = 0;
    loop {
        match receive.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => {
                late += usize::from(line.contains("\"late_s\""));
                all.extend(Usage::of(&child));
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => meanwhile(),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    reader.join().expect("the reader");
    assert!(child.wait().expect("a child").success(), "watch ends well");
    // The first tick opens everything.
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return };
    let between = (all.len() - 1).max(1) as f64;
    let used = last.cpu.saturating_sub(first.cpu).as_secs_f64() * 1e3 / between;
    println!(
        "{what}\n  watch, {ticks} ticks of 2 s: {used:.1} ms of CPU per tick, {:.2} % of one CPU; {late} late ticks; memory {:.1} MB \
         after the first, {:.1} MB at the end, {:.1} MB at most; open files {} after the first, {} at the end",
        used / 20.0,
        first.resident_mb,
        last.resident_mb,
        last.most_mb,
        first.files,
        last.files,
    );
}
