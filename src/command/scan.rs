//! `rstdoctor scan`: one diagnosis.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::progress::Progress;
use super::terminal::local_time;
use super::{FOUND, NOTHING, SAW_NOTHING, collect, stop_for};
use crate::command::cli::ScanArgs;
use crate::command::collect::{Absent, Collected};
use crate::command::config::{self, Origin, Scan, Terminal};
use crate::diagnosis::Diagnosis;
use crate::diagnosis::node::diagnose_all;
use crate::observation::Observation;
use crate::output::{Output, say};
use crate::render::Options;
use crate::runtime::signals::INTERRUPTED;
use crate::value::Stop;
use crate::value::escape::visible;
use crate::value::words::seconds;

mod since;
mod stored;

/// A shorter window that was interrupted is no result.
const WORTH_JUDGING: Duration = Duration::from_millis(500);

pub fn run(args: &ScanArgs, terminal: Terminal) -> anyhow::Result<ExitCode> {
    let config = config::scan(args, terminal)?;
    let stop = stop_for(&config.origin)?;
    match judged(&config, &stop) {
        Ok(Some(diagnosis)) => {
            Output::start(0, &stop)?.print(&text(&diagnosis, &config)?)?;
            Ok(status(&diagnosis, &config))
        }
        Ok(None) => {
            say("rstdoctor: interrupted before there was a result");
            Ok(ExitCode::from(INTERRUPTED))
        }
        // What was asked for is not there: a check of it fails.
        Err(error) if config.fail_on.is_some() && config.format.plugin.is_none() && error.is::<Absent>() => {
            say(format_args!("rstdoctor: {error}"));
            Ok(ExitCode::from(FOUND))
        }
        Err(error) => Err(error),
    }
}

/// `None` if it was interrupted before there was enough to judge.
fn judged(config: &Scan, stop: &Stop) -> anyhow::Result<Option<Diagnosis>> {
    if let Origin::Stored(asked) = &config.origin {
        return stored::judged(asked, &config.filter, stop).map(Some);
    }
    let wait = match &config.origin {
        Origin::Live(live) => live.duration,
        Origin::Recording(_) | Origin::Given(_) | Origin::Stored(_) => Duration::ZERO,
    };
    let progress = Progress::start("watching", wait, config.terminal.progress);
    let collected = collect::observe(&config.origin, &config.filter, stop);
    drop(progress);
    let Collected { observation, interrupted } = collected?;
    let Some(view) = Observation::view(&observation) else { return Ok(None) };
    if !interrupted {
        return Ok(diagnose_all(&observation, &config.filter, &|| stop.load(Ordering::Relaxed)));
    }
    if view.duration() < WORTH_JUDGING {
        return Ok(None);
    }
    say(format_args!("rstdoctor: interrupted after {} of {}", seconds(view.duration()), seconds(wait)));
    Ok(diagnose_all(&observation, &config.filter, &|| false))
}

fn text(diagnosis: &Diagnosis, config: &Scan) -> anyhow::Result<String> {
    let print = config.format.print;
    if !config.format.for_people {
        return print(diagnosis, &config.options);
    }
    let zone = match &config.origin {
        Origin::Stored(asked) => Some(asked.zone.clone()),
        Origin::Live(_) | Origin::Recording(_) | Origin::Given(_) => None,
    };
    let options = Options { local_time: local_time(diagnosis.started.wall, zone), ..config.options.clone() };
    Ok(config.terminal.shown(&print(diagnosis, &options)?).into_owned())
}

fn status(diagnosis: &Diagnosis, config: &Scan) -> ExitCode {
    if let Some(plugin) = &config.format.plugin {
        return ExitCode::from((plugin.status)(diagnosis));
    }
    if diagnosis.saw_nothing() {
        say(format!("rstdoctor: {SAW_NOTHING}"));
        return ExitCode::from(NOTHING);
    }
    let Some(level) = config.fail_on.filter(|level| diagnosis.fails(*level)) else { return ExitCode::SUCCESS };
    // A verdict of OK and a check that failed need a word between them.
    if let Some(absent) = diagnosis.absent().filter(|_| !diagnosis.reaches(level)) {
        say(format_args!("rstdoctor: the check failed: {}", visible(&absent)));
    }
    ExitCode::from(FOUND)
}
