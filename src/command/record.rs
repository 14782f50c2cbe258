//! `rstdoctor record`: raw evidence into a file.

use std::process::ExitCode;

use anyhow::Context;

use super::collect;
use super::progress::Progress;
use crate::command::cli::RecordArgs;
use crate::command::config::{self, Terminal};
use crate::diagnosis::filter::Filter;
use crate::diagnosis::node::diagnose_all;
use crate::output::say;
use crate::runtime::signals;
use crate::value::escape::visible;
use crate::value::words;

pub fn run(args: &RecordArgs, terminal: Terminal) -> anyhow::Result<ExitCode> {
    let config = config::record(args, terminal)?;
    let stop = signals::stop_on_signals()?;
    let progress = Progress::start("recording", config.live.duration, config.progress);
    let recorded = collect::record(&config, &stop);
    drop(progress);
    recorded?;
    // What was written is read again: a recording that nobody can open is told of here and not by the colleague.
    let observation = collect::replay(&config.output)?;
    let file = config.output.display();
    let diagnosis = diagnose_all(&observation, &Filter::default(), &|| false);
    let diagnosis = diagnosis.context("the recording holds no network namespace")?;
    say(visible(&diagnosis.summary));
    let recorded = words::seconds(diagnosis.window);
    let kept = match config.redact {
        true => "Addresses, names and command lines in it are replaced.",
        false => "It holds addresses, processes and their command lines; record --redact replaces them.",
    };
    say(format_args!(
        "Recorded {recorded} to {file}. {kept} Diagnose it anywhere with:\n  rstdoctor scan --from {file}"
    ));
    Ok(ExitCode::SUCCESS)
}
