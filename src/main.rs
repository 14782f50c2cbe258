//! Parses the command line, calls the library, and turns the outcome into an exit status.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    rstdoctor::command::run(rstdoctor::command::cli::Cli::parse())
}
