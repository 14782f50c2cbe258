//! Parses the command line, calls the library, and turns the outcome into an exit status.

use std::process::ExitCode;

use clap::Parser;
use rstdoctor::command::cli::{self, Cli};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => rstdoctor::command::run(cli),
        Err(error) => {
            let error = cli::with_hint(error);
            // Where it cannot be written, the status says it.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}
