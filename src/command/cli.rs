//! The command line as clap sees it: everything optional, no defaults, no logic. `config` gives it a meaning.

mod recorder;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::cause::Severity;
use crate::render::{FORMATS, Format, Plugin};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub use recorder::{AgentArgs, HistoryArgs, HistoryFormat, Span, When};

/// Finds out who reset your TCP connections, why, and what to change.
///
/// rstdoctor reads the kernel's own evidence, accounts for every reset, and prints ranked causes, each with its evidence,
/// what was ruled out, what could not be checked, and the exact remedy. It works without root, sees more with each
/// privilege, and changes nothing.
#[derive(Debug, Clone, Parser)]
#[command(name = "rstdoctor", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Start with: rstdoctor scan")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// For a word that stands where none belongs, like `rstdoctor scan 80`, what it may have been meant for.
/// Of one that is no text, which it is.
pub fn with_hint(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    if error.kind() == ErrorKind::InvalidUtf8 {
        let wrong: Vec<_> = arguments.iter().filter(|argument| argument.to_str().is_none()).collect();
        return Cli::command().error(ErrorKind::InvalidUtf8, format!("an argument is not UTF-8: {wrong:?}"));
    }
    let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    if !["scan", "watch", "trace"].iter().any(|command| usage.contains(&format!("rstdoctor {command}"))) {
        return error;
    }
    let given = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(given)) if error.kind() == ErrorKind::UnknownArgument => given.clone(),
        _ => return error,
    };
    let hint = match given.parse::<u16>() {
        _ if given.starts_with('-') => return error,
        Ok(_) => format!("a port is given by --port {given}, a process by --pid {given}, a time by --duration {given}"),
        Err(_) => "a service is given by --port, a process by --process, a recording by --from".to_owned(),
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
    error
}

/// The plugin as which a command line was meant that cannot be parsed.
pub fn plugin(arguments: &[OsString]) -> Option<&'static Plugin> {
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let (first, rest) = words.split_first().filter(|(first, _)| *first == "scan")?;
    let named = std::iter::once(first).chain(rest).zip(rest).find_map(|(before, word)| match &**before {
        "--format" | "-f" => Some(&**word),
        _ => word.strip_prefix("--format=").or_else(|| word.strip_prefix("-f=")).or_else(|| word.strip_prefix("-f")),
    });
    FORMATS.iter().find(|format| Some(format.name) == named)?.plugin.as_ref()
}

impl Command {
    /// Whether its reader takes exit statuses of its own.
    pub fn plugin(&self) -> Option<&'static Plugin> {
        match self {
            Self::Scan(args) => args.format?.plugin.as_ref(),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    Scan(ScanArgs),
    Watch(WatchArgs),
    Trace(TraceArgs),
    Record(RecordArgs),
    Agent(AgentArgs),
    History(HistoryArgs),
    Recording(RecordingArgs),
    Explain(ExplainArgs),
    Lab(LabArgs),
    Schema(SchemaArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Diagnose this host: what refuses, drops or resets connections now
///
/// Watches for a few seconds and prints one diagnosis on one screen; --all has the tables. Ctrl-C ends it early: what was seen
/// is judged. Exit status: 0 it ran, whatever it found; 1 a finding reached --fail-on or, with --fail-on, the verdict is UNKNOWN
/// or the port or process that was named is not there; 2 wrong usage; 3 nothing could be collected; 130 interrupted before
/// there was a result. --format nagios has the statuses of a plugin: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
#[derive(Debug, Clone, Default, Args)]
pub struct ScanArgs {
    /// How long to watch: 3, 500ms, 1m; 0 judges from totals since boot only [default: 3s]
    #[arg(short, long, value_name = "TIME")]
    pub duration: Option<String>,
    /// The same as --format json
    #[arg(long)]
    pub json: bool,
    /// How to print the diagnosis [default: table]
    #[arg(short, long, value_name = "FORMAT", value_parser = format_parser())]
    pub format: Option<&'static Format>,
    /// Judge evidence from elsewhere instead of this host: a recording made by rstdoctor record, a packet capture (pcap, pcapng),
    /// text as people paste it (netstat -s, nstat, ss, sysctl -a, tcpdump, a log); also packed by gzip or zstd; two texts are what
    /// happened between, two captures the two ends of connections; - reads standard input
    #[arg(long, value_name = "WHAT", num_args = 1.., action = clap::ArgAction::Append)]
    pub from: Vec<PathBuf>,
    /// With a capture: an address of the host on which it was made, where it cannot be told from the packets
    #[arg(long, value_name = "ADDRESS", requires = "from", value_delimiter = ',')]
    pub local: Vec<IpAddr>,
    #[command(flatten)]
    pub look: Look,
    /// Exit with status 1 if an active finding or a risk is at least this severe, or if that cannot be said
    #[arg(long, value_name = "SEVERITY")]
    pub fail_on: Option<FailOn>,
    /// Show everything: reasons, all listeners, sockets, limits
    #[arg(long)]
    pub all: bool,
    /// One line: the verdict
    #[arg(short, long)]
    pub quiet: bool,
}

/// Which network namespaces: without either, all of this node that may be entered, or the own one if it was entered with ip netns
/// exec or nsenter.
#[derive(Debug, Clone, Default, Args)]
pub struct InNetns {
    /// Only this network namespace: its name, a process id, a path, or the container or pod in it
    #[arg(long, value_name = "NAME|PID|PATH|CONTAINER|POD")]
    pub netns: Option<String>,
    /// Only the network namespace of this process, no containers and pods
    ///
    /// The kernel cannot narrow the reset tracepoints to a namespace: those of the whole host are read. Other namespaces are left
    /// out of what is judged, not of a recording or a store. --no-events reads none.
    #[arg(long)]
    pub this_netns: bool,
}

/// Where to look, and at what.
#[derive(Debug, Clone, Default, Args)]
pub struct Look {
    #[command(flatten)]
    pub when: When,
    /// Only what concerns these local or remote ports, by number or name of the service; adds who holds them and whether they can
    /// be bound
    #[arg(long, value_name = "N|NAME", value_delimiter = ',', allow_negative_numbers = true)]
    pub port: Vec<String>,
    /// Only what concerns this process
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub pid: Option<u32>,
    /// Only what concerns processes of this name, as in /proc/PID/comm
    #[arg(long, value_name = "NAME")]
    pub process: Option<String>,
    #[command(flatten)]
    pub place: InNetns,
    /// Do not use the reset tracepoints
    #[arg(long)]
    pub no_events: bool,
}

/// Watch live while the fault is reproduced
///
/// On a terminal a screen: verdict, causes with their rate over time, the reset ledger, listeners, the latest resets; ? lists
/// the keys. Without a terminal, or with --no-tui, a line whenever a cause appears, worsens or ends, or something else
/// changes, and a summary at the end. Of a store, with --at, it plays the hour from then on, as far as there is raw evidence in one
/// piece; --fail-on judges all that is played. Exit status: 0 it ran, also when interrupted; 1 a finding reached --fail-on at any time or,
/// with --fail-on, too little was seen all the time; 2 wrong usage; 3 nothing could be collected.
#[derive(Debug, Clone, Default, Args)]
pub struct WatchArgs {
    /// Time between two ticks: 2, 500ms, 1m [default: 2s]
    #[arg(short, long, value_name = "TIME", allow_hyphen_values = true)]
    pub interval: Option<String>,
    /// End after this many ticks [default: at Ctrl-C]
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// One report per tick and line, as JSON (rstdoctor schema report)
    #[arg(long)]
    pub json: bool,
    /// Lines instead of a screen, also on a terminal
    #[arg(long)]
    pub no_tui: bool,
    /// Exit with status 1 if a finding was at least this severe, or if too little was seen in all ticks
    #[arg(long, value_name = "SEVERITY")]
    pub fail_on: Option<FailOn>,
    /// Show a recording made by rstdoctor record instead of this host
    #[arg(long, value_name = "RECORDING")]
    pub from: Option<PathBuf>,
    /// Run this command when an episode appears, worsens or ends, with what happened as JSON on its standard input
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
    #[command(flatten)]
    pub look: Look,
}

/// Show each reset as it happens, one line each
///
/// Ends with a summary after --count resets, after --duration, or at Ctrl-C. A reset between two programs of this host has two
/// lines: one sends it, the other receives it. It never holds up the kernel: what cannot be read or written in time is
/// counted and said. The process is the one that the kernel names or, where it names none, the one that held the connection
/// when that was last looked up, or that listens on the local port. Idle time and bytes are heard when the socket is destroyed,
/// so a line comes about 0.2 s late, and is without them where the process keeps the socket for longer; that costs the kernel
/// 2 to 4 us for each connection that ends, and stops above 20,000 a second. Needs root, or CAP_PERFMON with CAP_DAC_READ_SEARCH and CAP_SYSLOG; with CAP_NET_RAW alone it shows the packets.
#[derive(Debug, Clone, Default, Args)]
pub struct TraceArgs {
    /// Show the resets of a recording made by rstdoctor record instead of this host's
    #[arg(long, value_name = "RECORDING")]
    pub from: Option<PathBuf>,
    #[command(flatten)]
    pub span: Span,
    /// One JSON object per line, the summary last (rstdoctor schema trace)
    #[arg(long)]
    pub json: bool,
    /// Only resets that this host sent
    #[arg(long)]
    pub sent: bool,
    /// Only resets that this host received
    #[arg(long)]
    pub received: bool,
    /// Only these local or remote ports, by number or name of the service
    #[arg(long, value_name = "N|NAME", value_delimiter = ',', allow_negative_numbers = true)]
    pub port: Vec<String>,
    /// Only processes of this name, as in /proc/PID/comm
    #[arg(long, value_name = "NAME")]
    pub process: Option<String>,
    /// End after this many resets
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    pub count: Option<u64>,
    /// End after this time: 30, 500ms, 10m [default: at Ctrl-C]
    #[arg(short, long, value_name = "TIME")]
    pub duration: Option<String>,
    #[command(flatten)]
    pub place: InNetns,
}

/// Write a recording that can be diagnosed elsewhere
///
/// Records the raw bytes that the kernel gives, so that `rstdoctor scan --from FILE` repeats the diagnosis anywhere. The file
/// gets its name with the first tick and grows from then on: whatever ends the program, it can be judged up to the last tick.
/// It holds addresses, host and process names and the command lines of processes with sockets, unless --redact is given.
#[derive(Debug, Clone, Default, Args)]
pub struct RecordArgs {
    /// File to write; it must not exist
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How long to record: 30, 500ms, 10m [default: 30s]
    #[arg(short, long, value_name = "TIME")]
    pub duration: Option<String>,
    /// Time between two ticks, at which watch --from can stop [default: 1s]
    #[arg(short, long, value_name = "TIME")]
    pub interval: Option<String>,
    /// Replace addresses, host and process names, the same by the same
    #[arg(long)]
    pub redact: bool,
    #[command(flatten)]
    pub place: InNetns,
    /// Do not use the reset tracepoints
    #[arg(long)]
    pub no_events: bool,
}

/// Look into a recording
#[derive(Debug, Clone, Args)]
pub struct RecordingArgs {
    #[command(subcommand)]
    pub command: RecordingCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub enum RecordingCommand {
    /// List what a recording holds, or print the answers to one question
    Show(ShowArgs),
}

#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Question as the list names it, with or without its scope: host/socket_owners, file/proc/net/snmp
    #[arg(value_name = "KEY")]
    pub key: Option<String>,
}

/// Say what a cause or an error text means, and what to change
///
/// Takes the id or title of a cause, or an error text as a program printed it. `-` reads a log from standard input and
/// counts the error texts in it. Without an argument, all causes are listed.
#[derive(Debug, Clone, Default, Args)]
pub struct ExplainArgs {
    /// Cause, error text, or - for a log on standard input
    #[arg(value_name = "CAUSE|ERROR TEXT|-", trailing_var_arg = true, allow_hyphen_values = true)]
    pub what: Vec<String>,
}

/// Print the JSON Schema of what this version prints with --json
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    #[arg(value_name = "DOCUMENT")]
    pub document: Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// scan --json, and each line of watch --json
    Report,
    /// Each line of trace --json
    Trace,
    /// history --json
    History,
}

/// Print the completion script of a shell
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Print the manual page, or write all pages into a directory
#[derive(Debug, Clone, Default, Args)]
pub struct ManArgs {
    /// Write every page into this directory
    #[arg(value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

/// One of [`FORMATS`], by its name.
fn format_parser() -> impl TypedValueParser<Value = &'static Format> {
    let names = FORMATS.iter().map(|format| PossibleValue::new(format.name).help(format.help));
    PossibleValuesParser::new(names)
        .try_map(|name| FORMATS.iter().find(|format| format.name == name).ok_or("not known"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    Info,
    Warning,
    Critical,
}

impl FailOn {
    pub fn severity(self) -> Severity {
        match self {
            Self::Info => Severity::Info,
            Self::Warning => Severity::Warning,
            Self::Critical => Severity::Critical,
        }
    }
}

/// Reproduce faults in network namespaces of their own and check the diagnosis
///
/// Each scenario makes one fault for real, on the running kernel, and is diagnosed by the code that scan runs. Nothing
/// outside the scenario's own namespaces is touched or contacted, and nothing is left behind. Exit status: 0 all that ran
/// passed; 1 a scenario failed; 2 wrong usage; 130 interrupted.
#[derive(Debug, Clone, Args)]
pub struct LabArgs {
    #[command(subcommand)]
    pub command: LabCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub enum LabCommand {
    /// List the scenarios, one line each
    List,
    /// Run some scenarios
    Run(LabRunArgs),
    /// Run every scenario and print a table
    All(LabOptions),
    /// One scenario, inside its namespaces
    #[command(hide = true)]
    Inside(LabInsideArgs),
    /// A server or client of a scenario
    #[command(hide = true)]
    Actor(LabActorArgs),
}

#[derive(Debug, Clone, Args)]
pub struct LabRunArgs {
    /// Scenarios as rstdoctor lab list names them
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Write a recording of the observation; takes a single scenario
    #[arg(long, value_name = "FILE", conflicts_with = "evidence")]
    pub record: Option<PathBuf>,
    #[command(flatten)]
    pub options: LabOptions,
}

#[derive(Debug, Clone, Default, Args)]
pub struct LabOptions {
    /// Print how the observed namespace's counters moved
    #[arg(long)]
    pub counters: bool,
    /// One JSON object per scenario
    #[arg(long)]
    pub json: bool,
    /// Observe in ticks this far apart, as watch does; the diagnosis is still of the whole
    #[arg(short, long, value_name = "TIME")]
    pub interval: Option<String>,
    /// Scenarios that run at the same time [default: 1]
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Also judge what an ordinary user, no events and counters alone would have told; in the JSON only
    #[arg(long, conflicts_with = "interval")]
    pub levels: bool,
    /// Keep of each scenario, in DIRECTORY/NAME: a recording, captures of both ends, netstat -s before and after, the log, and the
    /// truth (root; tcpdump and netstat)
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["interval", "levels"])]
    pub evidence: Option<PathBuf>,
    /// Let everything take N times longer, where the machine is emulated [default: 1]
    #[arg(long, hide = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub patience: Option<u32>,
}

#[derive(Debug, Clone, Args)]
pub struct LabInsideArgs {
    pub name: String,
    #[arg(long)]
    pub record: Option<PathBuf>,
    #[arg(long)]
    pub evidence: Option<PathBuf>,
    #[arg(long)]
    pub interval: Option<String>,
    #[arg(long)]
    pub levels: bool,
    #[arg(long)]
    pub patience: Option<u32>,
}

#[derive(Debug, Clone, Args)]
pub struct LabActorArgs {
    pub name: String,
    pub json: String,
}
