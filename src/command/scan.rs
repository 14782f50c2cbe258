//! `rstdoctor scan`: one diagnosis.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::progress::Progress;
use super::terminal::local_time;
use super::{FOUND, NOTHING, SAW_NOTHING, collect, stop_for};
use crate::command::cli::{Format, ScanArgs};
use crate::command::config::{self, Origin, Scan, Terminal};
use crate::diagnosis::{Diagnosis, diagnose_unless};
use crate::observation::Observation;
use crate::output::{Output, say};
use crate::render::{self, Options};
use crate::runtime::signals::INTERRUPTED;

pub fn run(args: &ScanArgs, terminal: Terminal) -> anyhow::Result<ExitCode> {
    let config = config::scan(args, terminal)?;
    let stop = stop_for(&config.origin)?;
    let wait = match &config.origin {
        Origin::Live(live) => live.duration,
        Origin::Recording(_) => Duration::ZERO,
    };
    let progress = Progress::start("watching", wait, config.terminal.progress);
    let collected = collect::observe(&config.origin, &config.filter, &stop);
    drop(progress);
    let stopped = || stop.load(Ordering::Relaxed);
    let observation = collected?;
    let view = observation.as_ref().and_then(Observation::view);
    let Some(diagnosis) = view.and_then(|view| diagnose_unless(view, &config.filter, &stopped)) else {
        say("rstdoctor: interrupted before there was a result");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let text = match config.format {
        Format::Table => {
            let local_time = local_time(diagnosis.started.wall);
            let text = render::table(&diagnosis, &Options { local_time, ..config.options.clone() });
            config.terminal.shown(&text).into_owned()
        }
        Format::Json => render::json::text(&render::json::report(&diagnosis))?,
    };
    Output::start(0, &stop)?.print(&text)?;
    Ok(status(&diagnosis, &config))
}

fn status(diagnosis: &Diagnosis, config: &Scan) -> ExitCode {
    if diagnosis.saw_nothing() {
        say(format!("rstdoctor: {SAW_NOTHING}"));
        return ExitCode::from(NOTHING);
    }
    match config.fail_on {
        Some(level) if diagnosis.reaches(level) => ExitCode::from(FOUND),
        _ => ExitCode::SUCCESS,
    }
}
