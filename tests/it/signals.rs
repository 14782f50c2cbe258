//! Every command ended by every signal at moments of all kinds: soon, and without leaving anything behind.
//!
//! `RSTDOCTOR_SIGNAL_RUNS=20 cargo test --test it signals:: -- --nocapture` runs each pair of command and signal 20 times (about
//! half a second each) and shows the counts; RSTDOCTOR_SIGNAL_SEED chooses other moments.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{is_ignored, isolated, marked, skipped, tracefs};

const BINARY: &str = env!("CARGO_BIN_EXE_rstdoctor");
const COMMANDS: [&str; 10] = [
    "scan --this-netns -d 2s",
    "scan -d 1s --json",
    "watch --this-netns --json -i 200ms",
    "watch --no-tui -i 200ms",
    "trace",
    "trace --json",
    "record --this-netns -d 2s -o",
    "record -d 2s --redact -o",
    "agent --this-netns -i 200ms --store",
    "lab run",
];
const SIGNALS: [Signal; 5] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::KILL];
const SCENARIOS: [&str; 3] = ["port-without-listener", "accept-queue-overflow", "process-exit-killed"];
/// What the end may take, on a machine that runs other tests.
const SOON: Duration = Duration::from_secs(10);
/// Runs side by side.
const WORKERS: usize = 3;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// xorshift64, which needs no more than to differ.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A third of the moments each: while it starts, while it opens, while it works.
fn moment(state: &mut u64) -> Duration {
    let within = [50, 300, 2_500][(random(state) % 3) as usize];
    Duration::from_millis(random(state) % within)
}

/// What each thread of a process waits for, and the CPU time that it had: whether it hangs, or the machine has no time for it.
fn doing(pid: u32) -> String {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| {
        let read = |name| fs::read_to_string(thread.as_ref().unwrap().path().join(name)).unwrap_or_default();
        let stat = read("stat");
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        format!("{} in {:?}, {}0 and {}0 ms", fields[0], read("wchan"), fields[11], fields[12])
    });
    threads.collect::<Vec<_>>().join("; ")
}

struct Run {
    command: &'static str,
    signal: Signal,
    after: Duration,
    number: usize,
}

impl Run {
    /// How it ended, and what is wrong with that.
    fn go(&self, directory: &Path) -> (String, Option<String>) {
        let mark = format!("RSTDOCTOR_SIGNAL_TEST={}-{}", std::process::id(), self.number);
        let (name, value) = mark.split_once('=').unwrap();
        let recording = directory.join(format!("{}.rst", self.number));
        let mut command = Command::new(BINARY);
        command.args(self.command.split(' ')).env(name, value).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        if self.command.ends_with("-o") || self.command.ends_with("--store") {
            command.arg(&recording);
        }
        if self.command.starts_with("lab") {
            command.arg(SCENARIOS[self.number % SCENARIOS.len()]);
        }
        let mut child = command.spawn().unwrap();
        thread::sleep(self.after);
        let ended_before = child.try_wait().unwrap().is_some();
        let start = Instant::now();
        if !ended_before {
            kill_process(Pid::from_child(&child), self.signal).unwrap();
        }
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > SOON {
                let doing = doing(child.id());
                child.kill().unwrap();
                child.wait().unwrap();
                return ("late".to_owned(), Some(format!("it ran on for {SOON:?}: {doing}")));
            }
            thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let how = match (ended_before, output.status.code(), output.status.signal()) {
            (true, ..) => "over".to_owned(),
            (false, Some(code), _) => format!("exit {code}"),
            (false, None, signal) => format!("signal {}", signal.unwrap_or(0)),
        };
        let mut left = marked(&mark);
        while !left.is_empty() && start.elapsed() < SOON {
            thread::sleep(Duration::from_millis(20));
            left = marked(&mark);
        }
        (how, self.wrong(&recording, &said, &left))
    }

    fn wrong(&self, recording: &Path, said: &str, left: &[String]) -> Option<String> {
        if !left.is_empty() {
            return Some(format!("left running: {left:?}"));
        }
        if said.contains("panicked") {
            return Some(said.to_owned());
        }
        let name = recording.file_name().unwrap().to_string_lossy().into_owned();
        let files = fs::read_dir(recording.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
        let files: Vec<_> = files.map(|name| name.to_string_lossy().into_owned()).collect();
        let unfinished: Vec<_> = files.iter().filter(|file| file.starts_with(&name) && **file != name).collect();
        // Nobody can tidy up after SIGKILL.
        if self.signal != Signal::KILL && !unfinished.is_empty() {
            return Some(format!("unfinished files: {unfinished:?}"));
        }
        if recording.is_dir() {
            // A store is meant to stay, and to be read.
            let read =
                Command::new(BINARY).args(["history", "--since", "1h", "--store"]).arg(recording).output().unwrap();
            let told = String::from_utf8_lossy(&read.stdout);
            if read.status.code() != Some(0)
                && !["Nothing was recorded of this time", "Nothing is known of this time"]
                    .iter()
                    .any(|text| told.contains(text))
            {
                return Some(format!("the store: {told}{}", String::from_utf8_lossy(&read.stderr)));
            }
        } else if recording.exists() {
            let read = Command::new(BINARY).args(["scan", "--from"]).arg(recording).output().unwrap();
            if read.status.code() != Some(0) {
                return Some(format!("the recording: {}", String::from_utf8_lossy(&read.stderr)));
            }
        }
        None
    }
}

#[test]
fn a_signal_at_any_moment_ends_every_command_and_leaves_nothing() {
    isolated(|| {
        let (runs, mut seed) =
            (number("RSTDOCTOR_SIGNAL_RUNS", 1), number("RSTDOCTOR_SIGNAL_SEED", 1) as u64 | 1 << 40);
        let mut plan = Vec::new();
        for _ in 0..runs {
            for command in COMMANDS {
                // HUP asks the recorder for new files, and not to end.
                let asks = |signal: &Signal| *signal == Signal::HUP && command.starts_with("agent");
                for signal in SIGNALS.into_iter().filter(|signal| !is_ignored(*signal) && !asks(signal)) {
                    plan.push(Run { command, signal, after: moment(&mut seed), number: plan.len() });
                }
            }
        }
        if SIGNALS.into_iter().any(is_ignored) {
            skipped("signals that the shell lets this process ignore");
        }
        let (before, directory) = (tracefs(), tempfile::tempdir().unwrap());
        // Of a namespace of its own: what others mount is not seen.
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = mounts();
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while let Some(run) = plan.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let (how, wrong) = run.go(directory.path());
                        results.lock().unwrap().push((run, how, wrong));
                    }
                });
            }
        });
        let results = results.into_inner().unwrap();
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for (run, how, _) in &results {
            *counts.entry((run.command, format!("{:?}", run.signal).replace("Signal::", ""), how)).or_default() += 1;
        }
        for ((command, signal, how), count) in counts {
            println!("{count:>5} {command:<26} {signal:<5} {how}");
        }
        let wrong = |(run, how, wrong): &(&Run, String, Option<String>)| {
            let wrong = wrong.as_ref()?;
            Some(format!("{} with {:?} after {:?} ({how}): {wrong}", run.command, run.signal, run.after))
        };
        let wrong: Vec<_> = results.iter().filter_map(wrong).collect();
        println!("{} runs, {} wrong", results.len(), wrong.len());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(tracefs(), before, "tracefs is as before");
        assert_eq!(mounts(), mounted, "no mount, and with it no namespace, is left");
    });
}
