//! `rstdoctor record`: raw evidence into a file.

use std::process::ExitCode;

use super::progress::Progress;
use super::{collect, say};
use crate::cli::RecordArgs;
use crate::config::{self, Terminal};
use crate::diagnosis::diagnose;
use crate::render::escape::visible;
use crate::words;

pub fn run(args: &RecordArgs, terminal: Terminal) -> anyhow::Result<ExitCode> {
    let config = config::record(args, terminal)?;
    let stop = collect::stop_on_signals()?;
    let progress = Progress::start("recording", config.live.duration, config.progress);
    let observation = collect::record(&config, &stop);
    drop(progress);
    let observation = observation?;
    let file = config.output.display();
    say(visible(&diagnose(&observation).summary));
    let recorded = words::seconds(observation.duration());
    say(format_args!("Recorded {recorded} to {file}. Diagnose it anywhere with:\n  rstdoctor scan --from {file}"));
    Ok(ExitCode::SUCCESS)
}
