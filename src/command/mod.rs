//! One file per command: orchestration only. Everything that decides is in pure modules.

pub mod cli;
mod collect;
mod completions;
pub mod config;
mod explain;
mod explain_text;
pub mod full_screen;
mod lab;
pub mod man;
mod progress;
mod record;
mod scan;
mod terminal;
mod trace;
mod trace_output;
mod watch;

use std::process::ExitCode;

use crate::command::cli::{Cli, Command};
use crate::command::config::UsageError;
use crate::output::say;
use crate::value::escape::visible;

/// It ran; a finding reached `--fail-on`.
const FOUND: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;
/// Nothing could be collected.
const NOTHING: u8 = 3;
/// Interrupted before there was a result.
const INTERRUPTED: u8 = 130;

/// Runs a command; what failed is on standard error, and in the exit status.
pub fn run(cli: Cli) -> ExitCode {
    let terminal = terminal::terminal();
    let result = match cli.command {
        Command::Scan(args) => scan::run(&args, terminal),
        Command::Watch(args) => watch::run(&args, terminal),
        Command::Trace(args) => trace::run(&args, terminal),
        Command::Record(args) => record::run(&args, terminal),
        Command::Explain(args) => explain::run(&args, terminal),
        Command::Lab(args) => lab::run(args),
        Command::Completions(args) => completions::run(args.shell),
        Command::Man(args) => man::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
            say(format_args!("rstdoctor: {}", visible(&chain.join(": "))));
            ExitCode::from(if error.is::<UsageError>() || error.is::<explain::Unknown>() { USAGE } else { NOTHING })
        }
    }
}

const SAW_NOTHING: &str = "nothing could be collected: not one source of evidence could be read";

/// The reader of our output went away: `rstdoctor scan | head` is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
