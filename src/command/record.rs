//! `rstdoctor record`: raw evidence into a file.

use std::process::ExitCode;

use super::progress::Progress;
use super::{INTERRUPTED, collect};
use crate::cli::RecordArgs;
use crate::config::{self, Terminal};
use crate::render::escape::visible;
use crate::words;

pub fn run(args: &RecordArgs, terminal: Terminal) -> anyhow::Result<ExitCode> {
    let config = config::record(args, terminal)?;
    let stop = collect::stop_on_signals()?;
    let progress = Progress::start("recording", config.live.duration, config.progress);
    let windows = collect::record(&config, &stop);
    drop(progress);
    let windows = windows?;
    if windows == 0 {
        eprintln!("rstdoctor: interrupted before a window was complete");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let file = config.output.display().to_string();
    let file = visible(&file);
    let windows = words::counted(windows as u64, "window");
    eprintln!("recorded {windows} to {file}; diagnose it with: rstdoctor scan --from {file}");
    Ok(ExitCode::SUCCESS)
}
