//! The programs of the lab: small servers and clients that run as processes of their own, with a telling name, so that
//! they can be stopped, killed and blamed. They use nothing but std and libc, and talk with the stage by lines:
//! `ready PID`, then `note COUNT TEXT` on standard output, commands on standard input.

pub mod client;
pub mod server;

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::runtime::{self, privilege};

pub use client::{Client, Talk};
pub use server::{Accept, Ending, Server, Then};

/// What a process of the lab is to do; passed as JSON in its arguments.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Program {
    Server(Server),
    Client(Client),
}

/// Entry of `rstdoctor lab actor NAME JSON`: becomes that program. Returns when standard input ends.
pub fn main(name: &str, json: &str) -> io::Result<()> {
    let program: Program = serde_json::from_str(json)?;
    set_name(name)?;
    // A scenario may choose any port.
    privilege::keep_only(CapabilitySet::NET_BIND_SERVICE)?;
    let tally = Tally::default();
    runtime::thread::start("report", {
        let tally = tally.clone();
        move || {
            loop {
                thread::sleep(Duration::from_millis(50));
                report(&tally);
            }
        }
    })?;
    let commands = commands()?;
    let result = match program {
        Program::Server(server) => server.run(&commands),
        Program::Client(client) => client.run(&commands, &tally),
    };
    report(&tally);
    result
}

/// The process tells its pid as /proc shows it: the lab runs in a pid namespace of its own, so getpid(2) differs.
pub fn ready() -> io::Result<()> {
    let pid = std::fs::read_link("/proc/self")?;
    say(&format!("ready {}", pid.display()));
    Ok(())
}

fn report(tally: &Tally) {
    for (text, count) in tally.take() {
        say(&format!("note {count} {text}"));
    }
}

/// Nobody listening any more is no reason to fail: the stage is gone and so will this process be.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn commands() -> io::Result<Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    runtime::thread::start("commands", move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// The name that ps(1) and ss(8) show for the process (PR_SET_NAME(2const): of its main thread, at most 15 bytes).
fn set_name(name: &str) -> io::Result<()> {
    Ok(rustix::thread::set_name(&std::ffi::CString::new(name)?)?)
}
