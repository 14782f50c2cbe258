//! `rstdoctor lab`: every fault made for real, on the running kernel, and diagnosed by the code that `scan` runs.
//!
//! Three processes take part. The *runner* is what the person started: it picks scenarios, limits their time and prints.
//! For each scenario it starts an *inside* process, which moves into user (if needed), pid, mount and network namespaces
//! of its own; that network namespace is the observed host. *Actors* are the servers and clients that must be processes
//! of their own. Everything that is made belongs to the inside process's namespaces: when it ends, in whatever way, the
//! kernel kills the actors (pid_namespaces(7)) and drops networks, rules and temporary files with them.

pub mod arena;
pub mod counters;
pub mod diagnose;
pub mod evidence;
pub mod findings;
pub mod inside;
mod installed;
pub mod judge;
pub mod levels;
pub mod net;
pub mod program;
pub mod raw;
pub mod report;
pub mod rtnetlink;
pub mod runner;
pub mod scenario;
pub mod stage;
mod stop;
mod sys;
pub mod tally;
mod temporary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::output::say;

/// What `rstdoctor lab` was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    List,
    Run {
        names: Vec<String>,
        options: Options,
    },
    All {
        options: Options,
    },
    /// Hidden: one scenario, inside its namespaces.
    Inside {
        name: String,
        how: How,
    },
    /// Hidden: a server or client of a scenario.
    Actor {
        name: String,
        json: String,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Print how the observed namespace's counters moved.
    pub counters: bool,
    /// One JSON object per scenario on standard output.
    pub json: bool,
    /// How many scenarios run at once; 0 and 1 mean one after the other.
    pub jobs: usize,
    pub how: How,
}

/// How the scenario's host is observed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct How {
    /// Write a recording of the observation (a single scenario only).
    pub record: Option<PathBuf>,
    /// Keep what people would hold of it in a directory of its name below this one, see [`evidence`].
    pub evidence: Option<PathBuf>,
    /// In ticks this far apart, as `watch` does; `None`: in one window, as `scan` does.
    pub interval: Option<Duration>,
    /// Also judge what less evidence would have told, see [`levels`].
    pub levels: bool,
    /// The whole node is observed, and not only the network namespace of the scenario; a scenario says so.
    pub node: bool,
    /// How many times longer everything may take than on an ordinary machine; 0 means once. For an emulated one.
    pub patience: u32,
}

impl How {
    /// So long here, where an ordinary machine gets `time`.
    fn patient(&self, time: Duration) -> Duration {
        time * self.patience.max(1)
    }

    /// As arguments of the hidden commands.
    fn arguments(&self, command: &mut std::process::Command) {
        if let Some(record) = &self.record {
            command.arg("--record").arg(record);
        }
        if let Some(evidence) = &self.evidence {
            command.arg("--evidence").arg(evidence);
        }
        if let Some(interval) = self.interval {
            command.arg("--interval").arg(format!("{}ms", interval.as_millis()));
        }
        if self.levels {
            command.arg("--levels");
        }
        if self.patience > 1 {
            command.arg("--patience").arg(self.patience.to_string());
        }
    }
}

/// Does what was asked; the exit code of the contract: 0 all passed, 1 a scenario failed, 2 wrong usage, 130 interrupted.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::List => runner::list(),
        Command::Run { names, options } => runner::run(&names, &options),
        Command::All { options } => runner::all(&options),
        Command::Inside { name, how } => inside::main(&name, &how),
        Command::Actor { name, json } => match program::main(&name, &json) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(format_args!("{name}: {error}"));
                ExitCode::FAILURE
            }
        },
    }
}
