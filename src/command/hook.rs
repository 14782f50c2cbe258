//! A command that is run when something happens to an episode.
//!
//! It gets what happened as JSON on its standard input, never as a part of a command line, and no shell sees it. It is run by a
//! thread of its own, one at a time, as a process group of its own, and has a time to end in; what happens too often is told
//! with the next one.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::Access;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::output::say;
use crate::render::json;
use crate::runtime::thread;
use crate::timeline::Tick;
use crate::value::escape::visible;

mod faults;

use faults::{Faults, Told};

/// A command that runs longer is killed.
const LONGEST: Duration = Duration::from_secs(30);
/// When the program ends, so much is left to it.
const LAST: Duration = Duration::from_millis(300);
/// Events that wait for the one that runs.
const WAITING: usize = 64;
/// Runs of one minute.
const MOST: u32 = 20;
/// Of the standard error of one run, bytes that are told.
const TOLD: usize = 4 << 10;

/// Runs the command.
pub struct Hook {
    events: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
    begun: Option<(Instant, u32)>,
    left_out: u64,
    running: Running,
    faults: Faults,
    hostname: Option<String>,
}

/// The process group of the command that runs.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<Option<Pid>>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With all that it started, but for what made itself a group of its own.
    fn kill(&self) {
        if let Some(group) = *self.lock() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Hook {
    /// `command`: a program and its arguments.
    ///
    /// # Errors
    /// There is no such program, or no thread can be started.
    pub fn start(command: Option<Vec<String>>) -> io::Result<Self> {
        let running = Running::default();
        let Some(command) = command else {
            return Ok(Self::of(None, None, running));
        };
        can_be_run(command.first().map(String::as_str).unwrap_or_default())?;
        let (events, inbox) = sync_channel(WAITING);
        let own = running.clone();
        let thread = thread::start("hook", move || run_all(&command, &inbox, &own))?;
        Ok(Self::of(Some(events), Some(thread), running))
    }

    fn of(events: Option<SyncSender<String>>, thread: Option<JoinHandle<()>>, running: Running) -> Self {
        Self { events, thread, begun: None, left_out: 0, running, faults: Faults::default(), hostname: None }
    }

    /// Takes what happened with a tick: what appeared, came back, worsened or ended, of faults.
    pub fn tick(&mut self, tick: &Tick) {
        if self.events.is_none() {
            return;
        }
        self.hostname.clone_from(&tick.diagnosis.host.hostname);
        let told = self.faults.take(tick);
        self.tell(&told);
    }

    fn tell(&mut self, all: &[Told]) {
        for Told { what, event } in all {
            let text = json::event_line(event, what, self.hostname.as_deref(), self.left_out).unwrap_or_default();
            let sent = self.has_time()
                && match &self.events {
                    Some(events) => !matches!(events.try_send(text), Err(TrySendError::Full(_))),
                    None => true,
                };
            self.left_out = if sent { 0 } else { self.left_out + 1 };
        }
    }

    /// At most so many in a minute.
    fn has_time(&mut self) -> bool {
        match &mut self.begun {
            Some((begun, count)) if begun.elapsed() < Duration::from_secs(60) => {
                *count += 1;
                *count <= MOST
            }
            begun => {
                *begun = Some((Instant::now(), 1));
                true
            }
        }
    }

    /// Waits for the one that runs, for a moment; then it is killed.
    pub fn finish(mut self) {
        let rest = self.faults.rest();
        self.tell(&rest);
        drop(self.events.take());
        let Some(thread) = self.thread.take() else { return };
        let begun = Instant::now();
        while !thread.is_finished() && begun.elapsed() < LAST {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.running.kill();
    }
}

/// A name that is wrong would be told with the first event only, and that may be the one that matters.
fn can_be_run(program: &str) -> io::Result<()> {
    let runs = |path: &Path| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    let text = match program.contains('/') {
        true if runs(Path::new(program)) => return Ok(()),
        true if !Path::new(program).exists() => "there is no such file",
        true => "it cannot be executed; chmod +x it, or name its interpreter",
        false => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            if std::env::split_paths(&path).any(|directory: PathBuf| runs(&directory.join(program))) {
                return Ok(());
            }
            "there is no such command in PATH"
        }
    };
    Err(io::Error::new(io::ErrorKind::NotFound, format!("--exec {program}: {text}")))
}

fn run_all(command: &[String], inbox: &Receiver<String>, running: &Running) {
    let program = command.first().map(String::as_str).unwrap_or_default();
    let (mut said, mut cut) = (None, false);
    for event in inbox {
        let mut stderr = Stderr::default();
        let ended = run(command, &event, running, &mut stderr);
        for line in String::from_utf8_lossy(&stderr.told).lines() {
            say(visible(&format!("rstdoctor: --exec {program} says: {line}")));
        }
        if stderr.dropped && !std::mem::replace(&mut cut, true) {
            say(visible(&format!("rstdoctor: --exec {program}: of what a run says, {TOLD} bytes are told")));
        }
        if let Err(error) = ended {
            let text = format!("rstdoctor: --exec {program}: {error}");
            if said.as_ref() != Some(&text) {
                say(visible(&text));
                said = Some(text);
            }
        }
    }
}

/// What a run wrote to its standard error.
#[derive(Default)]
struct Stderr {
    told: Vec<u8>,
    dropped: bool,
}

impl Stderr {
    /// Takes what is there, at most so much at once that one who writes without an end holds up nobody.
    fn take(&mut self, from: &mut ChildStderr) {
        let mut buffer = [0; 8 << 10];
        for _ in 0..16 {
            let Ok(read @ 1..) = from.read(&mut buffer) else { return };
            let new = buffer.get(..read).unwrap_or_default();
            let room = TOLD - self.told.len();
            self.told.extend(new.iter().take(room));
            self.dropped |= read > room;
        }
    }
}

fn run(command: &[String], event: &str, running: &Running, told: &mut Stderr) -> io::Result<()> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let mut child = Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::piped())
        // Standard output is the result of this program, and of nobody else.
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    *running.lock() = Some(Pid::from_child(&child));
    let begun = Instant::now();
    let mut stderr = child.stderr.take();
    if let Some(stderr) = &stderr {
        rustix::io::ioctl_fionbio(stderr, true)?;
    }
    // By another thread: a pipe may hold as little as a page (pipe(7), pipe-user-pages-soft), and a command need not read.
    if let Some(mut stdin) = child.stdin.take() {
        let event = event.to_owned();
        let write = move || drop(stdin.write_all(event.as_bytes()));
        if let Err(error) = thread::start("hook-input", write) {
            killed(&mut child, running);
            return Err(error);
        }
    }
    loop {
        let ended = {
            // Its number may be that of another process once it was waited for.
            let mut running = running.lock();
            let ended = child.try_wait()?;
            if ended.is_some() {
                *running = None;
            }
            ended
        };
        stderr.iter_mut().for_each(|stderr| told.take(stderr));
        match ended {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(status.to_string())),
            None if begun.elapsed() >= LONGEST => {
                killed(&mut child, running);
                return Err(io::Error::other(format!("killed after {} s, in which it did not end", LONGEST.as_secs())));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn killed(child: &mut Child, running: &Running) {
    running.kill();
    let mut running = running.lock();
    let _ = child.wait();
    *running = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn what_cannot_be_run_is_refused_at_once() {
        let refused = |program: &str| Hook::start(Some(vec![program.to_owned()])).err().map(|error| error.to_string());
        assert_eq!(refused("sh"), None);
        assert_eq!(refused("/bin/sh"), None);
        assert!(refused("no-such-command-at-all").unwrap().contains("no such command in PATH"));
        assert!(refused("/no/such/file").unwrap().contains("no such file"));
        assert!(refused("/etc/passwd").unwrap().contains("cannot be executed"));
        assert!(refused("/etc").unwrap().contains("cannot be executed"));
    }

    #[test]
    fn what_a_run_says_is_bounded() {
        let mut told = Stderr::default();
        run(&sh("echo one >&2; head -c 3000000 /dev/zero >&2"), "{}", &Running::default(), &mut told).unwrap();
        assert!(told.told.starts_with(b"one\n") && told.told.len() == TOLD && told.dropped);
    }

    /// Whatever it started is gone with it when the program ends.
    #[test]
    fn nothing_of_a_run_outlives_the_program() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut hook = Hook::start(Some(sh(&format!("sleep 1000 & echo $! > {}; wait", path.display())))).unwrap();
        hook.events.as_mut().unwrap().send("{}".to_owned()).unwrap();
        let pid = || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'));
        while pid().is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        hook.finish();
        let status = format!("/proc/{}/stat", pid().unwrap().trim());
        // Where nobody reaps it, it stays a zombie.
        let gone = || std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z"));
        let begun = Instant::now();
        while !gone() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
