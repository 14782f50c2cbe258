//! A command that is run when something happens to an episode.
//!
//! It gets what happened as JSON on its standard input, never as a part of a command line, and no shell sees it. It is run by a
//! thread of its own, one at a time, and has a time to end in; what happens too often is told with the next one.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::history::Event;
use crate::output::say;
use crate::render::json;
use crate::runtime::thread;
use crate::timeline::{Tick, What};
use crate::value::escape::visible;

/// A command that runs longer is killed.
const LONGEST: Duration = Duration::from_secs(30);
/// When the program ends, so much is left to it.
const LAST: Duration = Duration::from_millis(300);
/// Events that wait for the one that runs.
const WAITING: usize = 64;
/// Runs of one minute.
const MOST: u32 = 20;

/// Runs the command.
pub struct Hook {
    events: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
    begun: Option<(Instant, u32)>,
    left_out: u64,
}

impl Hook {
    /// `command`: a program and its arguments.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(command: Option<Vec<String>>) -> io::Result<Self> {
        let Some(command) = command else {
            return Ok(Self { events: None, thread: None, begun: None, left_out: 0 });
        };
        let (events, inbox) = sync_channel(WAITING);
        let thread = thread::start("hook", move || run_all(&command, &inbox))?;
        Ok(Self { events: Some(events), thread: Some(thread), begun: None, left_out: 0 })
    }

    /// Takes what happened with a tick: what appeared, came back, worsened or ended, of faults.
    pub fn tick(&mut self, tick: &Tick) {
        if self.events.is_none() {
            return;
        }
        let told =
            tick.events.iter().filter(|event| event.what != What::Eased).filter_map(|event| Event::of(event, tick));
        for event in told.filter(Event::is_fault) {
            let text =
                json::event_line(&event, tick.diagnosis.host.hostname.as_deref(), self.left_out).unwrap_or_default();
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

    /// Waits for the one that runs, for a moment.
    pub fn finish(mut self) {
        drop(self.events.take());
        let Some(thread) = self.thread.take() else { return };
        let begun = Instant::now();
        while !thread.is_finished() && begun.elapsed() < LAST {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn run_all(command: &[String], inbox: &Receiver<String>) {
    let mut said = None;
    for event in inbox {
        if let Err(error) = run(command, &event) {
            let text =
                format!("rstdoctor: --exec {}: {error}", command.first().map(String::as_str).unwrap_or_default());
            if said.as_ref() != Some(&text) {
                say(visible(&text));
                said = Some(text);
            }
        }
    }
}

fn run(command: &[String], event: &str) -> io::Result<()> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        // Standard output is the result of this program, and of nobody else.
        .stdout(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    // By another thread: a pipe may hold as little as a page (pipe(7), pipe-user-pages-soft), and a command need not read.
    if let Some(mut stdin) = child.stdin.take() {
        let event = event.to_owned();
        let write = move || drop(stdin.write_all(event.as_bytes()));
        if let Err(error) = thread::start("hook-input", write) {
            killed(&mut child);
            return Err(error);
        }
    }
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(status.to_string())),
            None if begun.elapsed() >= LONGEST => return Err(killed(&mut child)),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn killed(child: &mut Child) -> io::Error {
    let _ = child.kill();
    let _ = child.wait();
    io::Error::other(format!("ended after {} s, in which it did not end", LONGEST.as_secs()))
}
