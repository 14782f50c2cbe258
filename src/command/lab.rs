//! `rstdoctor lab`: hands the arguments to the lab.

use std::process::ExitCode;

use crate::cli::{LabArgs, LabCommand, LabOptions};
use crate::config::{self, UsageError};
use crate::lab::{self, Command, Options};

pub fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    Ok(lab::run(match args.command {
        LabCommand::List => Command::List,
        LabCommand::Run(run) => {
            Command::Run { names: run.names, options: Options { record: run.record, ..options(&run.options)? } }
        }
        LabCommand::All(all) => Command::All { options: options(&all)? },
        LabCommand::Inside(inside) => Command::Inside { name: inside.name, record: inside.record, first: inside.first },
        LabCommand::Actor(actor) => Command::Actor { name: actor.name, json: actor.json },
    }))
}

fn options(args: &LabOptions) -> Result<Options, UsageError> {
    Ok(Options { counters: args.counters, json: args.json, jobs: config::jobs(args.jobs)?, record: None })
}
