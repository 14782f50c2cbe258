//! `rstdoctor trace`: each reset as it happens.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::known::faults::Span;
use super::terminal::reader_is_gone;
use super::{collect, stop_for};
use crate::ask::{Host, Probe};
use crate::command::cli::TraceArgs;
use crate::command::config::{self, Origin, Terminal, Trace};
use crate::diagnosis::filter::Filter;
use crate::input::{Namespace, Opened};
use crate::output::{self, Output};
use crate::render::folding::Folding;
use crate::render::json;
use crate::render::trace::{self as text, Lines};
use crate::reset::Surroundings;
use crate::session::{Plan, SETTLED, Session, Step, StreamFailures};
use crate::source::owners::Owners;
use crate::source::{connections, listeners, owners, sysctl};
use crate::trace::{Batch, Holders, Reset, Summary, Tracer};
use crate::value::escape::visible;
use crate::value::{Failure, Moment, NetnsId, Observed, Stop};

/// A socket is destroyed once its process closed it. So long a reset is held back for that.
const PATIENCE: Duration = Duration::from_millis(100);
/// What waits for its partners is looked at anew each time: not more often than this.
const JOIN_EVERY: Duration = Duration::from_millis(40);
/// Resets in one reading that make it busy.
const MANY: usize = 500;
/// What may wait for the reader of our output. A terminal keeps scrolling after Ctrl-C for as long as this takes.
const WAITING: usize = 4 << 20;
const WAITING_TERMINAL: usize = 64 << 10;
/// How often to look who listens: that often, and at most a hundredth of the time.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_SHARE: u32 = 100;
/// So long in one look the connections of one network namespace after the other are asked for.
const CONNECTIONS: Duration = Duration::from_millis(200);

mod stored;

pub fn run(args: &TraceArgs, terminal: Terminal) -> anyhow::Result<ExitCode> {
    let config = config::trace(args, terminal)?;
    let stop = stop_for(&config.origin)?;
    if let Origin::Stored(asked) = &config.origin {
        return stored::run(&config, asked, &stop);
    }
    let opened = collect::open(&config.origin, &Filter::default(), &stop)?;
    show(&config, opened, &stop)
}

/// Until it ends, or enough was shown.
///
/// # Errors
/// Nothing can be seen, or the output cannot be written.
pub fn show(config: &Trace, opened: Opened, stop: &Stop) -> anyhow::Result<ExitCode> {
    let output = output(config, stop)?;
    let mut writer = Writer::new(config, &output);
    let Told { summary, gone, .. } = show_part(config, opened, &mut writer)?;
    finish(config, output, &summary, gone)
}

fn output(config: &Trace, stop: &Stop) -> anyhow::Result<Output> {
    let waiting = if config.terminal.width.is_some() { WAITING_TERMINAL } else { WAITING };
    Ok(Output::start(waiting, stop)?)
}

/// What became of a recording, or of all that was live.
struct Told {
    summary: Summary,
    /// The reader of the output.
    gone: bool,
    enough: bool,
}

fn show_part(config: &Trace, opened: Opened, writer: &mut Writer<'_>) -> anyhow::Result<Told> {
    let mut tracing = Tracing::start(config, opened)?;
    let (gone, enough) = loop {
        let gone = writer.output.has_failed() || reader_is_gone();
        let (batch, last) = tracing.next(gone);
        let busy = batch.resets.len() >= MANY;
        let enough = writer.write(batch, &mut tracing.tracer)?;
        writer.output.flush();
        if last || enough {
            break (gone, enough);
        }
        if !busy {
            tracing.look();
        }
    };
    writer.last()?;
    let mut summary = tracing.tracer.summary(tracing.session.now(), writer.not_shown);
    if enough {
        // The rest of the reading is in no other count.
        summary.counted = None;
    }
    Ok(Told { summary, gone, enough })
}

fn finish(config: &Trace, output: Output, summary: &Summary, gone: bool) -> anyhow::Result<ExitCode> {
    let terminal = config.terminal;
    if config.json {
        // Nothing more comes, so there is time to wait for the reader.
        output.print(&json::line(&json::summary(summary))?)?;
    }
    output.finish()?;
    if !config.json && !gone {
        let gap = if terminal.progress { "\n" } else { "" };
        let summary = text::summary(summary, terminal.columns());
        output::say(format_args!("{gap}{}", terminal.shown(summary.trim_end())));
    }
    Ok(ExitCode::SUCCESS)
}

const EVENTS: &str = "reset tracepoints";
const PACKETS: &str = "RST packets";

fn ended(what: &str, failure: &Failure) -> String {
    format!("{what} ended: {failure}")
}

/// The kernel's side, or a recording's.
struct Tracing {
    host: Box<dyn Host>,
    /// What was asked for.
    namespace: Namespace,
    session: Session,
    tracer: Tracer,
    /// The namespaces that are traced.
    known: BTreeSet<NetnsId>,
    /// When the latest reading before this one was, CLOCK_BOOTTIME: what is older has certainly been read.
    previous: Duration,
    /// What happened before was handed out.
    handed_out: Duration,
    /// Destroyed sockets still come, for which a reset is held back.
    destroyed: bool,
    looked: Moment,
    look_every: Duration,
    /// A running kernel is asked.
    live: bool,
    /// Who listens was seen: in a recording that may stand behind its first frame.
    seen: bool,
    noted: BTreeSet<String>,
}

impl Tracing {
    /// Opens what this user may open.
    fn start(config: &Trace, opened: Opened) -> anyhow::Result<Self> {
        let Opened { mut host, plan, namespace, .. } = opened;
        let session = Session::open(&mut *host, &Plan { sockets: false, ..plan })?;
        let start = session.opened();
        let kernel = session.host_snapshot().facts.kernel.clone().unwrap_or_default();
        let tracer = Tracer::new(config.filter.clone(), &kernel, start);
        let noted = BTreeSet::new();
        let mut tracing = Self {
            host,
            namespace,
            session,
            tracer,
            known: BTreeSet::new(),
            previous: start.mono,
            handed_out: Duration::ZERO,
            destroyed: true,
            looked: start,
            look_every: LOOK,
            live: matches!(config.origin, Origin::Live(_)),
            seen: false,
            noted,
        };
        tracing.observe();
        tracing.look_now();
        let StreamFailures { events, packets, .. } = tracing.session.failures();
        // Told here in other words.
        let told = [events.map(|failure| ended(EVENTS, failure)), packets.map(|failure| ended(PACKETS, failure))];
        let told: Vec<String> = told.into_iter().flatten().collect();
        match (events.cloned(), packets.cloned()) {
            (None, None) => {}
            (None, Some(packets)) => {
                tracing.note(&format!("RST packets are not seen: {packets}. No firewall rejects and no TTL are shown"));
            }
            (Some(events), None) => tracing.note(&format!(
                "Resets are not traced: {events}. Only the packets are shown: without process, state and kernel reason"
            )),
            (Some(events), Some(packets)) if !tracing.live => {
                bail!("no reset can be seen in what was recorded. Reset tracepoints: {events}. RST packets: {packets}")
            }
            (Some(events), Some(packets)) if tracing.session.host_snapshot().facts.uid.is_some_and(|uid| uid != 0) => {
                bail!("this user may not see resets: use sudo. Reset tracepoints: {events}. RST packets: {packets}")
            }
            (Some(events), Some(packets)) => {
                bail!("no reset can be seen. Reset tracepoints: {events}. RST packets: {packets}")
            }
        }
        tracing.noted.extend(told);
        if config.terminal.progress && matches!(config.origin, Origin::Live(_)) {
            let how = if config.endless() { ", Ctrl-C ends it" } else { "" };
            let what = match tracing.known.len() {
                1 => "this network namespace".to_owned(),
                count => format!("{count} network namespaces"),
            };
            output::say(format_args!("Tracing resets of {what}{how}."));
        }
        Ok(tracing)
    }

    /// What comes next, and whether it is the last.
    fn next(&mut self, end: bool) -> (Batch, bool) {
        while !end && !matches!(self.session.step(&mut *self.host), Step::Over) {
            if !self.seen {
                self.look_now();
            }
            let now = self.session.now();
            let wait = SETTLED + if self.destroyed { PATIENCE } else { Duration::ZERO };
            let until = std::mem::replace(&mut self.previous, now.mono).saturating_sub(wait);
            if until < self.handed_out + JOIN_EVERY {
                continue;
            }
            self.handed_out = until;
            let live = self.session.live(until);
            self.destroyed = !live.destroyed_ended;
            let batch = self.tracer.step(live, now, false);
            self.note_all();
            return (batch, false);
        }
        let live = self.session.close_live(&mut *self.host, end).unwrap_or_default();
        let batch = self.tracer.step(live, self.session.now(), true);
        self.note_all();
        (batch, true)
    }

    fn look(&mut self) {
        if self.session.now().mono.saturating_sub(self.looked.mono) >= self.look_every {
            for id in self.session.follow(&mut *self.host) {
                self.known.remove(&id);
                self.tracer.forget(id);
            }
            self.observe();
            self.look_now();
        }
    }

    /// Tells the tracer of the namespaces that it does not know yet.
    fn observe(&mut self) {
        for snapshot in self.session.snapshots() {
            let id = snapshot.netns;
            if self.known.insert(id) {
                let ephemeral = sysctl::ephemeral_ports(&snapshot.sysctls);
                let location = self.session.node().map(|node| node.location(id)).filter(|location| !location.own);
                let around = Surroundings { ephemeral, ..Surroundings::default() };
                self.tracer.observe(id, around, location.map(Arc::new));
            }
        }
    }

    /// Who listens and who holds connections. A recording holds it at its ends only.
    fn look_now(&mut self) {
        self.looked = self.session.now();
        let probe: &mut dyn Probe = &mut *self.host;
        let mut spent = Duration::ZERO;
        let mut seen = Vec::new();
        let mut inodes = BTreeSet::new();
        for id in &self.known {
            let (listening, took) = listeners::collect(probe, *id);
            spent += took;
            let (Observed::Full(listening) | Observed::Partial(listening, _)) = listening else { continue };
            // It walks the sockets of the whole host, for each namespace again.
            let (held, took) = match spent < CONNECTIONS {
                true => connections::collect(probe, *id),
                false => Default::default(),
            };
            spent += took;
            let held_inodes = held.iter().map(|connection| connection.inode);
            inodes.extend(listening.iter().map(|listener| listener.inode).chain(held_inodes).map(u64::from));
            seen.push((*id, listening, held));
        }
        if seen.is_empty() {
            return;
        }
        self.seen = true;
        let (owners, took) = owners::collect(probe, inodes, BTreeSet::new());
        self.look_every = LOOK.max((spent + took) * LOOK_SHARE);
        let known = self.session.host_snapshot().owners.value().map(Arc::as_ref);
        let none = Owners::default();
        let owners = owners.value().or(known).unwrap_or(&none);
        for (id, listening, held) in seen {
            self.tracer.look(id, Holders::new(&listening, &held, owners));
        }
    }

    /// What a stream lacks, and what ended it, each once.
    fn note_all(&mut self) {
        let failures = self.session.failures();
        let ended = [(EVENTS, failures.events), (PACKETS, failures.packets)]
            .into_iter()
            .filter_map(|(what, failure)| Some(ended(what, failure?)));
        let errors = failures.errors.iter().map(ToString::to_string);
        // By which way a recorder reached tracefs says nothing of here.
        let told = self.tracer.missing().iter().filter(|missing| self.live || missing.name != "tracefs");
        let missing = told.map(|missing| format!("{}: {}", missing.name, missing.reason));
        let gone = (!self.namespace.is_reachable()).then(|| Namespace::GONE.to_owned());
        for text in ended.chain(errors).chain(missing).chain(gone).collect::<Vec<_>>() {
            self.note(&text);
        }
    }

    /// Says something on standard error, once.
    fn note(&mut self, text: &str) {
        if self.noted.len() < 64 && self.noted.insert(text.to_owned()) {
            output::say(format_args!("rstdoctor: {}", visible(text)));
        }
    }
}

/// The side of the reader of our output.
struct Writer<'a> {
    output: &'a Output,
    terminal: Terminal,
    lines: Lines,
    /// At a terminal.
    folding: Option<Folding>,
    json: bool,
    /// The kernel goes on, whether the reader takes the lines or not. A recording waits for it.
    live: bool,
    /// Of a store, what was asked for: what is recorded begins and ends with a tick, and earlier where the sockets were looked at.
    within: Option<Span>,
    /// Resets that may still be shown.
    left: u64,
    /// Since the last line that was written.
    gap_lost: u64,
    gap_skipped: u64,
    not_shown: u64,
    text: String,
}

impl<'a> Writer<'a> {
    fn new(config: &Trace, output: &'a Output) -> Self {
        Self {
            output,
            terminal: config.terminal,
            lines: Lines::new(config.terminal.width),
            folding: (config.terminal.width.is_some() && !config.json).then(Folding::default),
            json: config.json,
            live: matches!(config.origin, Origin::Live(_)),
            within: None,
            left: config.count.unwrap_or(u64::MAX),
            gap_lost: 0,
            gap_skipped: 0,
            not_shown: 0,
            text: String::new(),
        }
    }

    /// True when as many resets as wanted were shown.
    fn write(&mut self, batch: Batch, tracer: &mut Tracer) -> anyhow::Result<bool> {
        self.gap_lost += batch.lost;
        self.gap_skipped += batch.not_examined;
        let mut has_room = true;
        let within = self.within;
        let own = |reset: &&Reset| within.is_none_or(|span| span.from <= reset.wall && reset.wall <= span.until);
        for reset in batch.resets.iter().filter(own) {
            tracer.count(reset);
            // What will not fit is not even put into words.
            let shown = has_room && {
                self.text.clear();
                self.gap()?;
                if self.folding.as_mut().is_none_or(|folding| folding.admits(&mut self.text, reset)) {
                    self.line(reset)?;
                }
                let text = if self.json { self.text.as_str().into() } else { self.terminal.shown(&self.text) };
                let taken = self.output.offer(&text);
                if !taken && !self.live {
                    self.output.print(&text)?;
                }
                taken || !self.live
            };
            has_room &= shown;
            if shown {
                (self.gap_lost, self.gap_skipped) = (0, 0);
                self.left -= 1;
            } else {
                self.gap_skipped += 1;
                self.not_shown += 1;
            }
            if self.left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What was folded and not told yet.
    fn last(&mut self) -> anyhow::Result<()> {
        self.text.clear();
        self.folding.iter_mut().for_each(|folding| folding.tell(&mut self.text));
        if !self.text.is_empty() {
            self.output.print(&self.terminal.shown(&self.text))?;
        }
        Ok(())
    }

    fn gap(&mut self) -> anyhow::Result<()> {
        if self.gap_lost + self.gap_skipped > 0 {
            match self.json {
                true => self.text.push_str(&json::line(&json::gap(self.gap_lost, self.gap_skipped))?),
                false => self.lines.gap(&mut self.text, self.gap_lost, self.gap_skipped),
            }
        }
        Ok(())
    }

    fn line(&mut self, reset: &Reset) -> anyhow::Result<()> {
        match self.json {
            true => self.text.push_str(&json::line(&json::reset(reset))?),
            false => self.lines.reset(&mut self.text, reset),
        }
        Ok(())
    }
}
