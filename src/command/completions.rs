//! `rstdoctor completions`: for packagers.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::command::cli::Cli;

pub fn run(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rstdoctor", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
