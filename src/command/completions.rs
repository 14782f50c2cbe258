//! `rstdoctor completions`: for packagers.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::command::cli::Cli;
use crate::output;

pub fn run(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rstdoctor", &mut script);
    output::print(script)?;
    Ok(ExitCode::SUCCESS)
}
