//! The flight recorder, and who looks back.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::InNetns;
use crate::input::Stored;

/// Which time of a store.
#[derive(Debug, Clone, Default, Args)]
pub struct When {
    /// What rstdoctor agent stored of this time: 03:12, "2026-11-26 03:12:30", 2026-11-26T03:12:00Z, 2h ago
    #[arg(long, value_name = "TIME", conflicts_with_all = ["since", "until"])]
    pub at: Option<String>,
    #[command(flatten)]
    pub span: Span,
}

/// From when to when of a store.
#[derive(Debug, Clone, Default, Args)]
pub struct Span {
    /// What rstdoctor agent stored from this time on: 03:12, "2026-11-26 03:12:30", 24h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Up to this time [default: now]
    #[arg(long, value_name = "TIME", requires = "since")]
    pub until: Option<String>,
    /// Directory of the store [default: that of rstdoctor agent]
    #[arg(long, value_name = "DIRECTORY")]
    pub store: Option<PathBuf>,
    /// Times without a zone are UTC
    #[arg(long)]
    pub utc: bool,
    /// What these mean, once the clock and the environment were asked.
    #[arg(skip)]
    pub stored: Option<Stored>,
}

impl When {
    /// No time of a store is asked for.
    pub fn is_now(&self) -> bool {
        self.at.is_none() && self.span.since.is_none()
    }
}

/// Run all the time and keep what happened: the flight recorder
///
/// Looks like watch does, and keeps what it sees in a store: an account of each minute, every episode of a cause, and the raw
/// evidence of the minutes around each. rstdoctor history lists it; scan --at judges any time of it. It holds addresses, process
/// names and command lines unless --redact is given; its directory is readable by its owner only. INT or TERM ends it, HUP begins
/// new files. It tells systemd that it is ready and alive. Exit status: 0 it was asked to end; 2 wrong usage; 3 it could not begin.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentArgs {
    /// Directory of the store [default: /var/lib/rstdoctor for root, else
    /// $XDG_STATE_HOME/rstdoctor or ~/.local/state/rstdoctor]
    #[arg(long, value_name = "DIRECTORY")]
    pub store: Option<PathBuf>,
    /// Delete what is older, up to an hour later: 12h, 7d; at least 1h [default: 7d]
    #[arg(long, value_name = "TIME")]
    pub keep: Option<String>,
    /// Never hold more than this; the oldest goes first: 500M, 2G [default: 500M]
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<String>,
    /// Time between two ticks: 2, 500ms, 1m [default: 2s]
    #[arg(short, long, value_name = "TIME", allow_hyphen_values = true)]
    pub interval: Option<String>,
    /// Serve metrics for Prometheus at this address; a port alone is one of 127.0.0.1
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Write metrics to this file with each tick, for the textfile collector of node_exporter
    #[arg(long, value_name = "FILE.prom")]
    pub textfile: Option<PathBuf>,
    /// Run this command when an episode appears, worsens or ends, with what happened as JSON on its standard input
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
    /// Replace addresses, host and process names before anything is stored, the same by the same
    #[arg(long)]
    pub redact: bool,
    #[command(flatten)]
    pub place: InNetns,
    /// Do not use the reset tracepoints
    #[arg(long)]
    pub no_events: bool,
}

/// List what happened, from the store of rstdoctor agent
///
/// Episodes with their time, cause, place and harm; each service over the time as one line; the resets that were counted; and
/// what was not recorded. scan --at judges the stored evidence of an episode again. Exit status: 0 it ran, whatever happened; 2
/// wrong usage; 3 there is no store, or nothing of that time.
#[derive(Debug, Clone, Default, Args)]
pub struct HistoryArgs {
    /// From this time on: 24h for a day ago, 03:12, "2026-11-26 03:12", 2026-11-26T03:12:00Z [default: 24h]
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Up to this time [default: now]
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only what concerns these ports, served or called, by number or name of the service
    #[arg(long, value_name = "N|NAME", value_delimiter = ',', allow_negative_numbers = true)]
    pub port: Vec<String>,
    /// Only what concerns processes of this name, as in /proc/PID/comm
    #[arg(long, value_name = "NAME")]
    pub process: Option<String>,
    /// Only what is in another network namespace than the agent's own, by its name as history shows it
    #[arg(long, value_name = "NAME")]
    pub netns: Option<String>,
    /// Only episodes of this cause
    #[arg(long, value_name = "CAUSE")]
    pub cause: Option<String>,
    /// The same as --format json
    #[arg(long)]
    pub json: bool,
    /// How to print it [default: table]
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<HistoryFormat>,
    /// Also episodes that are no fault
    #[arg(long)]
    pub all: bool,
    /// Directory of the store [default: that of rstdoctor agent]
    #[arg(long, value_name = "DIRECTORY")]
    pub store: Option<PathBuf>,
    /// Times without a zone are UTC, and are shown so
    #[arg(long)]
    pub utc: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HistoryFormat {
    /// For people
    Table,
    /// rstdoctor/history/v1
    Json,
    /// For a ticket
    Markdown,
    /// One page that needs nothing else
    Html,
}
