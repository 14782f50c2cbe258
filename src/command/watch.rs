//! `rstdoctor watch`: tick after tick, as lines or JSON. The screen is in `screen`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::terminal::reader_is_gone;
use super::{NOTHING, SAW_NOTHING, collect};
use crate::ask::Host;
use crate::command::cli::WatchArgs;
use crate::command::config::{self, Origin, Terminal, Watch, WatchOutput};
use crate::kernel::LiveHost;
use crate::kernel::namespace::Entered;
use crate::output::{Output, say};
use crate::recording::Window;
use crate::recording::{History, RollingHost};
use crate::render::{json, watch as text};
use crate::runtime::signals;
use crate::session::Plan;
use crate::timeline::{Change, ChangeKind, Driver, Next, Tick};
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
    let stop = match &config.origin {
        Origin::Live(_) => signals::stop_on_signals()?,
        Origin::Recording(_) => signals::end_on_signals()?,
    };
    let mut view = View::open(&config, &stop)?;
    let mut driver = Driver::start(&mut *view.host, &view.plan, config.interval, config.filter.clone())?;
    let mut lines = text::Lines::new(terminal.width);
    let output = Output::start(0, &stop)?;
    while !stop.load(Ordering::Relaxed) && !reader_is_gone() {
        let mut tick = match driver.advance() {
            Next::Looked => continue,
            Next::Tick(tick) => tick,
            Next::Over => break,
        };
        view.namespace.complete(&mut tick);
        if tick.number == 1 && tick.diagnosis.saw_nothing() {
            say(format!("rstdoctor: {SAW_NOTHING}"));
            return Ok(ExitCode::from(NOTHING));
        }
        output.print(&match config.output {
            WatchOutput::Json => json::line(&json::tick(&tick))?,
            _ => lines.tick(&tick),
        })?;
        if config.count == Some(tick.number) {
            break;
        }
    }
    if config.output != WatchOutput::Json {
        output.print(&lines.summary(driver.watch()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the ticks come from.
pub struct View {
    pub host: Box<dyn Host>,
    pub plan: Plan,
    pub namespace: Namespace,
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
        Ok(match &config.origin {
            Origin::Live(live) => {
                let entered = collect::enter(live)?;
                let mut host = LiveHost::new(Arc::clone(stop));
                collect::must_exist(&mut host, &config.filter)?;
                let (plan, namespace) = (collect::plan(live), Namespace { entered, gone: false });
                if config.output == WatchOutput::Screen {
                    // Only a person can ask for them.
                    let host = Box::new(RollingHost::new(host));
                    let history = Some(host.history());
                    return Ok(Self { host, plan, namespace, history, recorded: None });
                }
                Self { host: Box::new(host), plan, namespace, history: None, recorded: None }
            }
            Origin::Recording(path) => {
                let recording = collect::open(path)?;
                // The recorded frames decide what follows; only that there is an end matters.
                let recorded = recording.windows().first().copied();
                let plan = Plan::scan(recorded.map_or(Duration::ZERO, |window| window.planned));
                Self { host: Box::new(recording), plan, namespace: Namespace::default(), history: None, recorded }
            }
        })
    }
}

/// The namespace under observation, where it was asked for.
#[derive(Default)]
pub struct Namespace {
    entered: Option<Entered>,
    gone: bool,
}

impl Namespace {
    /// Adds what only the host knows: its name, and that it went away.
    pub fn complete(&mut self, tick: &mut Tick) {
        let Some(entered) = &self.entered else { return };
        tick.diagnosis.netns_name.clone_from(&entered.name);
        if !self.gone && !entered.is_reachable() {
            self.gone = true;
            let text = "the network namespace is gone: what is still seen of it lives as long as something is in it";
            tick.changes.push(Change { at: tick.at, kind: ChangeKind::NamespaceGone, text: text.to_owned() });
        }
    }
}
