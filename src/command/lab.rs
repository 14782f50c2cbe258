//! `rstdoctor lab`: hands the arguments to the lab.

use std::process::ExitCode;

use crate::command::cli::{LabArgs, LabCommand, LabOptions};
use crate::command::config;
use crate::lab::{self, Command, How, Options};
use crate::recording::RecordingFile;

pub fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    Ok(lab::run(match args.command {
        LabCommand::List => Command::List,
        LabCommand::Run(run) => {
            let mut options = options(&run.options)?;
            if let Some(path) = &run.record {
                // Said before the fault is made. Without a frame nothing of it stays.
                drop(RecordingFile::create(path)?);
            }
            options.how.record = run.record;
            Command::Run { names: run.names, options }
        }
        LabCommand::All(all) => Command::All { options: options(&all)? },
        LabCommand::Inside(inside) => {
            let interval = config::tick_interval(inside.interval.as_ref())?;
            let patience = inside.patience.unwrap_or_default();
            Command::Inside {
                name: inside.name,
                how: How {
                    record: inside.record,
                    evidence: inside.evidence,
                    interval,
                    levels: inside.levels,
                    node: false,
                    patience,
                },
            }
        }
        LabCommand::Actor(actor) => Command::Actor { name: actor.name, json: actor.json },
    }))
}

fn options(args: &LabOptions) -> anyhow::Result<Options> {
    let interval = config::tick_interval(args.interval.as_ref())?;
    let patience = args.patience.unwrap_or_default();
    // The scenario runs in a directory of its own.
    let evidence = args.evidence.as_deref().map(std::path::absolute).transpose()?;
    let how = How { record: None, evidence, interval, levels: args.levels, node: false, patience };
    Ok(Options { counters: args.counters, json: args.json, jobs: config::jobs(args.jobs)?, how })
}
