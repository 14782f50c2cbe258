//! `rstdoctor watch`: tick after tick, as lines or JSON. The screen is in `screen`.

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::bail;

use super::hook::Hook;
use super::terminal::reader_is_gone;
use super::{FOUND, NOTHING, SAW_NOTHING, collect, stop_for};
use crate::ask::Host;
use crate::cause::Severity;
use crate::command::cli::WatchArgs;
use crate::command::config::{self, Origin, Terminal, Watch, WatchOutput};
use crate::command::known::{Known, list, span};
use crate::input::{Namespace, Opened, Stored, parts};
use crate::output::{Output, note, say};
use crate::recording::{History, RollingHost, Window};
use crate::render::{json, watch as text};
use crate::session::Plan;
use crate::timeline::{self, Change, ChangeKind, Driver, Next, Tick};
use crate::value::Stop;

mod keyboard;
mod message;
mod playing;
mod screen;

pub fn run(args: &WatchArgs, terminal: Terminal) -> anyhow::Result<ExitCode> {
    let config = config::watch(args, terminal)?;
    if config.output == WatchOutput::Screen {
        return screen::run(&config);
    }
    let stop = stop_for(&config.origin)?;
    let mut view = View::open(&config, &stop)?;
    let mut driver = Driver::start(&mut *view.host, &view.plan, config.interval, config.filter.clone())?;
    let mut lines = text::Lines::new(terminal.width);
    let output = Output::start(0, &stop)?;
    let mut hook = Hook::start(config.exec.clone())?;
    while !stop.load(Ordering::Relaxed) && !reader_is_gone() {
        let mut tick = match driver.advance() {
            Next::Looked => continue,
            Next::Tick(tick) => tick,
            Next::Over => break,
        };
        view.namespace.complete(&mut tick);
        hook.tick(&tick);
        if tick.number == 1 && tick.diagnosis.saw_nothing() {
            say(format!("rstdoctor: {SAW_NOTHING}"));
            return Ok(ExitCode::from(NOTHING));
        }
        output.print(&match config.output {
            WatchOutput::Json => json::line(&json::tick(&tick))?,
            _ => terminal.shown(&lines.tick(&tick)).into_owned(),
        })?;
        if config.count == Some(tick.number) {
            break;
        }
    }
    if config.output != WatchOutput::Json {
        output.print(&terminal.shown(&lines.summary(driver.watch())))?;
    }
    hook.finish();
    Ok(status(&config, driver.watch()))
}

/// Whether a finding reached `--fail-on` at any time, or too little was seen all the time.
fn status(config: &Watch, seen: &timeline::Watch) -> ExitCode {
    let Some(level) = config.fail_on else { return ExitCode::SUCCESS };
    let reached = seen.episodes().iter().any(|episode| match level {
        Severity::Info => episode.latest.finding.state.is_now(),
        level => episode.faulted && episode.worst <= level,
    });
    let blind = seen.ticks() > 0 && seen.unknown() == seen.ticks();
    if reached || blind { ExitCode::from(FOUND) } else { ExitCode::SUCCESS }
}

/// Where the ticks come from.
pub struct View {
    pub host: Box<dyn Host>,
    pub plan: Plan,
    pub namespace: Reachable,
    /// The last minutes of a live host, for a recording of them.
    pub history: Option<History>,
    /// What of a recording is played.
    pub recorded: Option<Window>,
}

impl View {
    /// Enters the namespace, or opens the recording.
    ///
    /// # Errors
    /// Either is not possible.
    pub fn open(config: &Watch, stop: &Stop) -> anyhow::Result<Self> {
        if let Origin::Stored(asked) = &config.origin {
            tell(asked, config)?;
        }
        let Opened { host, plan, namespace, recorded } = collect::open(&config.origin, &config.filter, stop)?;
        let namespace = Reachable { namespace, gone: false };
        if recorded.is_none() && config.output == WatchOutput::Screen {
            // Only a person can ask for them.
            let host = Box::new(RollingHost::new(host));
            let history = Some(host.history());
            return Ok(Self { host, plan, namespace, history, recorded });
        }
        Ok(Self { host, plan, namespace, history: None, recorded })
    }
}

/// What of a store is not in the one part of it that is played.
///
/// # Errors
/// There is no raw evidence: then what the index knows.
fn tell(asked: &Stored, config: &Watch) -> anyhow::Result<()> {
    let (parts, wrong) = parts(asked)?;
    wrong.iter().for_each(|unread| note(&unread.text));
    let known = Known::of(asked, &config.filter)?;
    let Some(played) = parts.first() else { bail!("{}", known.instead(asked, !wrong.is_empty())) };
    let missing = known.outside(asked, &[span(played)]);
    if !missing.is_empty() && config.filter.pid.is_none() {
        note(&format!("not played: {}", list(&missing, asked)));
    }
    Ok(())
}

/// Whether what was asked for still leads to the namespace.
pub struct Reachable {
    namespace: Namespace,
    gone: bool,
}

impl Reachable {
    /// Adds to the tick that it went away, once.
    pub fn complete(&mut self, tick: &mut Tick) {
        if !self.gone && !self.namespace.is_reachable() {
            self.gone = true;
            let text = Namespace::GONE.to_owned();
            tick.changes.push(Change { at: tick.at, kind: ChangeKind::NamespaceGone, text });
        }
    }
}
