//! One file per command: orchestration only. Everything that decides is in pure modules.

mod agent;
pub mod cli;
mod collect;
mod completions;
pub mod config;
mod explain;
mod explain_log;
mod explain_text;
pub mod full_screen;
mod history;
mod hook;
mod known;
mod lab;
pub mod man;
mod manual;
mod progress;
mod record;
mod recording;
mod scan;
mod schema;
mod services;
mod state;
mod terminal;
pub mod trace;
mod watch;
mod when;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Context;

use crate::command::cli::{Cli, Command};
use crate::command::config::{Origin, Terminal, UsageError};
use crate::output::{self, say};
use crate::render::Plugin;
use crate::runtime::privilege;
use crate::runtime::signals::{self, INTERRUPTED};
use crate::value::Stop;
use crate::value::escape::visible;

/// It ran; a finding reached `--fail-on`.
const FOUND: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;
/// Nothing could be collected.
const NOTHING: u8 = 3;

/// Runs a command; what failed is on standard error, and in the exit status.
pub fn run(mut cli: Cli) -> ExitCode {
    let terminal = terminal::terminal();
    let plugin = cli.command.plugin();
    let result = give_up_privileges(&cli.command)
        .and_then(|()| Ok(services::resolve(&mut cli.command)?))
        .and_then(|()| Ok(when::resolve(&mut cli.command)?))
        .and_then(|()| perform(cli.command, terminal));
    match (result, plugin) {
        (Ok(code), _) => code,
        (Err(error), _) if is(&error, ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        // A plugin says in its line what is wrong.
        (Err(error), Some(plugin)) => failed(plugin, &format!("{error:#}")),
        (Err(error), None) => {
            let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
            say(format_args!("rstdoctor: {}", visible(&chain.join(": "))));
            let wrong_usage = error.is::<UsageError>() || error.is::<explain::Unknown>();
            let unread = is(&error, ErrorKind::TimedOut);
            match (wrong_usage, unread) {
                (true, _) => ExitCode::from(USAGE),
                (false, true) => ExitCode::from(INTERRUPTED),
                (false, false) => ExitCode::from(NOTHING),
            }
        }
    }
}

/// What a command line that is none comes to.
pub fn not_understood(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if let Some(plugin) = cli::plugin(arguments).filter(|_| error.use_stderr()) {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default();
        return failed(plugin, what.strip_prefix("error: ").unwrap_or(what));
    }
    let status = u8::try_from(error.exit_code()).unwrap_or(USAGE);
    match error.print().and_then(|()| io::stdout().flush()) {
        // Help that was asked for and cannot be written.
        Err(error) if status == 0 && error.kind() != ErrorKind::BrokenPipe => {
            say(format_args!("rstdoctor: {}", output::of_stdout(error)));
            ExitCode::from(NOTHING)
        }
        _ => ExitCode::from(status),
    }
}

fn failed(plugin: &Plugin, why: &str) -> ExitCode {
    let (line, status) = (plugin.failed)(why);
    // Where it cannot be written, the status says it.
    let _ = output::print(line);
    ExitCode::from(status)
}

fn perform(command: Command, terminal: Terminal) -> anyhow::Result<ExitCode> {
    match command {
        Command::Scan(args) => scan::run(&args, terminal),
        Command::Watch(args) => watch::run(&args, terminal),
        Command::Trace(args) => trace::run(&args, terminal),
        Command::Record(args) => record::run(&args, terminal),
        Command::Agent(args) => agent::run(&args),
        Command::History(args) => history::run(&args, terminal),
        Command::Recording(args) => recording::run(&args),
        Command::Explain(args) => explain::run(&args, terminal),
        Command::Lab(args) => lab::run(args),
        Command::Completions(args) => completions::run(args.shell),
        Command::Man(args) => man::run(&args),
        Command::Schema(args) => schema::run(&args),
    }
}

/// Capabilities of the program file are for looking at this host. What else a user asks is done with the user's own rights.
fn give_up_privileges(command: &Command) -> anyhow::Result<()> {
    anyhow::ensure!(!privilege::is_borrowed(), "it is not made to be a set-user-ID program; see SECURITY.md");
    let looks_at_this_host = match command {
        Command::Scan(args) => args.from.is_empty() && args.look.when.is_now(),
        Command::Watch(args) => args.from.is_none() && args.look.when.is_now(),
        Command::Trace(args) => args.from.is_none() && args.span.since.is_none(),
        Command::Record(_) | Command::Agent(_) => true,
        Command::Recording(_)
        | Command::History(_)
        | Command::Explain(_)
        | Command::Lab(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Schema(_) => false,
    };
    if !looks_at_this_host {
        privilege::drop_borrowed().context("the capabilities of the program file cannot be given up")?;
    }
    Ok(())
}

/// A live window ends early at a signal, and is judged; with a recording there is nothing to wait for, and the signal ends it all.
fn stop_for(origin: &Origin) -> io::Result<Stop> {
    match origin {
        Origin::Live(_) => signals::stop_on_signals(),
        Origin::Recording(_) | Origin::Given(_) | Origin::Stored(_) => signals::end_on_signals(),
    }
}

const SAW_NOTHING: &str = "nothing could be collected: not one source of evidence could be read";

/// BrokenPipe: the reader of our output went away, and `rstdoctor scan | head` is no failure. TimedOut: it does not read, and we
/// were asked to end.
fn is(error: &anyhow::Error, kind: ErrorKind) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|io| io.kind() == kind)
}
