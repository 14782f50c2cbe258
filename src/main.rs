//! Parses the command line, calls the library, and turns the outcome into an exit status.

use std::process::ExitCode;

use clap::Parser;
use rstdoctor::command::cli::{self, Cli};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => rstdoctor::command::run(cli),
        Err(error) => {
            let arguments: Vec<_> = std::env::args_os().skip(1).collect();
            rstdoctor::command::not_understood(&cli::with_hint(error, &arguments), &arguments)
        }
    }
}
