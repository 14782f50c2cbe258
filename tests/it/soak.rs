//! What runs for long beside faults of all kinds: nothing grows, nothing is left, and every account adds up.
//!
//! `RSTDOCTOR_SOAK_MINUTES=60 cargo test --release --test it soak:: -- --ignored --nocapture` as root.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{isolated, linger_0, marked, out_rsts, tracefs};

const BINARY: &str = env!("CARGO_BIN_EXE_rstdoctor");
/// Memory is compared from here on, when all that is kept of a window was kept once.
const WARM: Duration = Duration::from_secs(60);
/// What the heap may take for the same thing at another time.
const MORE: u64 = 8 << 20;

/// A command that runs from the beginning to the end.
struct Running {
    name: &'static str,
    child: Child,
    output: std::path::PathBuf,
    warm: Option<Use>,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    memory: u64,
    files: usize,
    threads: usize,
}

impl Running {
    fn start(name: &'static str, mark: &str, directory: &Path) -> Self {
        let output = directory.join(name.replace(' ', "-"));
        let (variable, value) = mark.split_once('=').unwrap();
        let mut command = Command::new(BINARY);
        command.args(name.split(' ')).env(variable, value).stdin(Stdio::null());
        let child = command.stdout(fs::File::create(&output).unwrap()).spawn().unwrap();
        Self { name, child, output, warm: None }
    }

    fn usage(&self) -> Use {
        let of = |what: &str| format!("/proc/{}/{what}", self.child.id());
        let status = fs::read_to_string(of("status")).expect("it runs");
        let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        let count = |what| fs::read_dir(of(what)).expect("it runs").count();
        Use { memory: kib.unwrap().parse::<u64>().unwrap() << 10, files: count("fd"), threads: count("task") }
    }

    /// Ends it, and hands over the lines that it wrote.
    fn end(mut self) -> Vec<Value> {
        let (warm, last) = (self.warm.expect("long enough"), self.usage());
        println!("{:<28} {warm:?} -> {last:?}", self.name);
        assert!(last.memory <= warm.memory + MORE, "{} grows", self.name);
        assert_eq!((last.files, last.threads), (warm.files, warm.threads), "{}", self.name);
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.name);
        let text = fs::read_to_string(&self.output).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect()
    }
}

/// Refused, aborted and closed with unread data, by turns, a few hundred a second; a listener that comes and goes.
fn faults(stop: &AtomicBool) -> u64 {
    let (before, mut round) = (out_rsts(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..50 {
            assert!(TcpStream::connect("127.0.0.1:81").is_err());
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            if round % 2 == 0 {
                linger_0(&server);
            } else {
                client.write_all(b"never read").unwrap();
            }
            drop(server);
            thread::sleep(Duration::from_millis(4));
        }
        round += 1;
    }
    out_rsts() - before
}

fn run(arguments: &[&str], path: &Path, mark: &str) {
    let (variable, value) = mark.split_once('=').unwrap();
    let output = Command::new(BINARY).args(arguments).arg(path).env(variable, value).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("panicked"), "{arguments:?}: {said}");
}

/// Every reset that the kernel counted is shown, counted, or known to be lost.
fn account(summary: &Value, sent: u64) {
    let number = |key: &str| summary[key].as_u64().unwrap_or_else(|| panic!("{key} in {summary}"));
    let recorded = number("total") - number("packet_only");
    let parts = recorded + number("passed_over") + number("not_examined") + number("lost");
    assert_eq!(number("counted"), parts, "the account is not exact: {summary}");
    println!("{} resets, of them {sent} sent by the kernel's count: {summary}", number("total"));
    assert_eq!((number("lost"), number("packet_only"), number("sent")), (0, 0, sent), "{summary}");
}

#[test]
#[ignore = "runs for RSTDOCTOR_SOAK_MINUTES, 10 by default; root"]
fn for_as_long_as_it_runs_nothing_grows_and_every_account_adds_up() {
    isolated(|| {
        let minutes = std::env::var("RSTDOCTOR_SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
        let length = Duration::from_secs(60 * minutes).max(WARM * 2);
        let (before, directory) = (tracefs(), tempfile::tempdir().unwrap());
        let mark = format!("RSTDOCTOR_SOAK_TEST={}", std::process::id());
        let start = |name| Running::start(name, &mark, directory.path());
        let mut running = [
            "watch --this-netns --json -i 500ms",
            "trace --this-netns --json",
            "watch --this-netns --json -i 5s --no-events",
        ]
        .map(start);
        // Until they look.
        thread::sleep(Duration::from_secs(5));
        let (stop, began) = (AtomicBool::new(false), Instant::now());
        let (sent, rounds) = thread::scope(|scope| {
            let load = scope.spawn(|| faults(&stop));
            let mut rounds = 0;
            while began.elapsed() < length {
                let recording = directory.path().join(format!("{rounds}.rst"));
                run(&["record", "--this-netns", "-d", "1s", "--redact", "-o"], &recording, &mark);
                run(&["scan", "--json", "--from"], &recording, &mark);
                fs::remove_file(&recording).unwrap();
                rounds += 1;
                for running in running.iter_mut().filter(|running| running.warm.is_none() && began.elapsed() >= WARM) {
                    running.warm = Some(running.usage());
                }
            }
            stop.store(true, Ordering::Relaxed);
            (load.join().unwrap(), rounds)
        });
        // What is on the way arrives.
        thread::sleep(Duration::from_secs(1));
        let [watch, trace, plain] = running.map(Running::end);
        println!("{:?}: {rounds} recordings, {} and {} windows", began.elapsed(), watch.len(), plain.len());
        assert!(watch.len() as u64 >= length.as_secs(), "{} windows", watch.len());
        account(trace.last().expect("a summary"), sent);
        assert_eq!(marked(&mark), Vec::<String>::new(), "nothing runs on");
        assert_eq!(tracefs(), before, "tracefs is as before");
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "the outputs only: {left:?}");
    });
}
