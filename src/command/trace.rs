//! `rstdoctor trace`: each reset as it happens.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::bail;

use super::terminal::reader_is_gone;
use crate::ask::{self, Ask, Clock, Frame, Probe, What};
use crate::command::cli::TraceArgs;
use crate::command::config::{self, Terminal, Trace};
use crate::kernel::clock::now;
use crate::kernel::{LiveHost, namespace};
use crate::output::{self, Output};
use crate::render::json;
use crate::render::trace::{self as text, Lines};
use crate::runtime::signals;
use crate::source::{connections, listeners, namespaces, owners, sysctl};
use crate::trace::{Batch, Holders, Reset, Session};
use crate::value::escape::visible;
use crate::value::{Failure, Moment, NetnsId};

/// Between two readings. In a storm the rings of the kernel fill within 100 ms.
const QUIET: Duration = Duration::from_millis(50);
const BUSY: Duration = Duration::from_millis(10);
/// Resets in one reading that make it busy.
const MANY: usize = 500;
/// What may wait for the reader of our output. A terminal keeps scrolling after Ctrl-C for as long as this takes.
const WAITING: usize = 4 << 20;
const WAITING_TERMINAL: usize = 64 << 10;
/// How often to look who listens: that often, and at most a hundredth of the time.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_SHARE: u32 = 100;

pub fn run(args: &TraceArgs, terminal: Terminal) -> anyhow::Result<ExitCode> {
    let config = config::trace(args, terminal)?;
    let stop = signals::stop_on_signals()?;
    if let Some(spec) = &config.netns {
        namespace::enter(spec)?;
    }
    let mut tracer = Tracer::start(&config, &stop)?;
    let waiting = if terminal.width.is_some() { WAITING_TERMINAL } else { WAITING };
    let output = Output::start(waiting, &stop)?;
    let mut writer = Writer::new(&config, &output);
    let end = config.duration.map(|duration| tracer.start.mono + duration);
    let (gone, enough) = loop {
        let began = now();
        let gone = output.has_failed() || reader_is_gone();
        let last = gone || stop.load(Ordering::Relaxed) || end.is_some_and(|end| began.mono >= end);
        let batch = tracer.read(began, last);
        let busy = batch.resets.len() >= MANY;
        let enough = writer.write(batch, &mut tracer.session)?;
        output.flush();
        if last || enough {
            break (gone, enough);
        }
        if !busy {
            tracer.look(began);
        }
        let pause = if busy { BUSY } else { QUIET };
        std::thread::sleep(end.map_or(pause, |end| pause.min(end.saturating_sub(now().mono))));
    };
    let mut summary = tracer.session.summary(now(), writer.not_shown);
    if enough {
        // The rest of the reading is in no other count.
        summary.counted = None;
    }
    if config.json {
        // Nothing more comes, so there is time to wait for the reader.
        output.print(&json::line(&json::summary(&summary))?)?;
    }
    output.finish()?;
    if !config.json && !gone {
        let gap = if terminal.progress { "\n" } else { "" };
        output::say(format_args!("{gap}{}", text::summary(&summary, terminal.columns()).trim_end()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The kernel's side.
struct Tracer {
    host: LiveHost,
    netns: NetnsId,
    session: Session,
    start: Moment,
    /// Sources that still answer.
    events: bool,
    packets: bool,
    words: bool,
    looked: Moment,
    look_every: Duration,
    noted: BTreeSet<String>,
}

impl Tracer {
    /// Opens what this user may open.
    fn start(config: &Trace, stop: &Arc<AtomicBool>) -> anyhow::Result<Self> {
        let mut host = LiveHost::new(Arc::clone(stop));
        let namespaces = namespaces::collect(&mut host).0;
        let netns = namespaces.value().and_then(|all| all.first()).map(|namespace| namespace.id).unwrap_or_default();
        let mut file = |path: &str| {
            let bytes = ask::read(&mut host, &Ask::netns(netns, What::File(path.to_owned()))).0.unwrap_or_default();
            String::from_utf8_lossy(&bytes).trim().to_owned()
        };
        let kernel = file("/proc/sys/kernel/osrelease");
        let range = file("/proc/sys/net/ipv4/ip_local_port_range");
        let range = sysctl::parse_port_range(&range).unwrap_or(sysctl::DEFAULT_PORT_RANGE);
        let start = now();
        let session = Session::new(config.filter.clone(), &kernel, range, start);
        let noted = BTreeSet::new();
        let mut tracer = Self {
            host,
            netns,
            session,
            start,
            events: true,
            packets: true,
            words: true,
            looked: start,
            look_every: LOOK,
            noted,
        };
        tracer.look_now(start);
        // Events first: then no packet comes from before the events.
        match (tracer.read_events(), tracer.read_packets()) {
            (Ok(()), Ok(())) => {}
            (Ok(()), Err(packets)) => {
                tracer.note(&format!("RST packets are not seen: {packets}. No firewall rejects and no TTL are shown"));
            }
            (Err(events), Ok(())) => tracer.note(&format!(
                "Resets are not traced: {events}. Only the packets are shown: without process, state and kernel reason"
            )),
            (Err(events), Err(packets)) => {
                bail!("no reset can be seen. Reset tracepoints: {events}. RST packets: {packets}")
            }
        }
        tracer.read_words();
        if config.terminal.progress {
            let how = if config.duration.is_none() { ", Ctrl-C ends it" } else { "" };
            output::say(format_args!("Tracing resets of this network namespace{how}."));
        }
        Ok(tracer)
    }

    fn read(&mut self, began: Moment, last: bool) -> Batch {
        if last {
            self.host.frame(Frame::After { end: Duration::ZERO });
            // Events last: a packet that came after them would look like one that TCP did not send.
            let packets = self.read_packets();
            self.note_end("RST packets", packets);
        }
        let events = self.read_events();
        self.note_end("reset tracepoints", events);
        if !last {
            let packets = self.read_packets();
            self.note_end("RST packets", packets);
        }
        self.read_words();
        let batch = if last { self.session.finish(began) } else { self.session.step(began) };
        let errors: Vec<_> = self.session.errors().map(ToString::to_string).collect();
        let missing = self.session.missing().iter().map(|missing| format!("{}: {}", missing.name, missing.reason));
        for text in errors.into_iter().chain(missing.collect::<Vec<_>>()) {
            self.note(&text);
        }
        batch
    }

    fn read_events(&mut self) -> Result<(), Failure> {
        let session = &mut self.session;
        if !self.events {
            return Ok(());
        }
        let result = self.host.ask(&Ask::host(What::ResetEvents), &mut |bytes| session.feed_events(bytes)).result;
        self.events = result.is_ok();
        result
    }

    /// After the others: what a reset ended is heard after the reset. Without it some details are absent.
    fn read_words(&mut self) {
        let session = &mut self.session;
        if self.words {
            let result = self
                .host
                .ask(&Ask::netns(self.netns, What::DestroyedSockets), &mut |bytes| session.feed_words(bytes))
                .result;
            self.words = result.is_ok();
        }
    }

    fn read_packets(&mut self) -> Result<(), Failure> {
        let session = &mut self.session;
        if !self.packets {
            return Ok(());
        }
        let result =
            self.host.ask(&Ask::netns(self.netns, What::ResetPackets), &mut |bytes| session.feed_packets(bytes)).result;
        self.packets = result.is_ok();
        result
    }

    fn look(&mut self, now: Moment) {
        if now.mono.saturating_sub(self.looked.mono) >= self.look_every {
            self.look_now(now);
        }
    }

    fn look_now(&mut self, now: Moment) {
        let (listening, took) = listeners::collect(&mut self.host, self.netns);
        self.looked = now;
        let Some(listening) = listening.value() else { return };
        let (held, longer) = connections::collect(&mut self.host, self.netns);
        let held_inodes = held.iter().map(|connection| connection.inode);
        let inodes = listening.iter().map(|listener| listener.inode).chain(held_inodes).map(u64::from).collect();
        let (owners, longest) = owners::collect(&mut self.host, inodes, BTreeSet::new());
        self.look_every = LOOK.max((took + longer + longest) * LOOK_SHARE);
        if let Some(owners) = owners.value() {
            self.session.look(Holders::new(listening, &held, owners));
        }
    }

    fn note_end(&mut self, what: &str, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.note(&format!("{what} ended: {failure}"));
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
    lines: Lines,
    json: bool,
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
            lines: Lines::new(config.terminal.width),
            json: config.json,
            left: config.count.unwrap_or(u64::MAX),
            gap_lost: 0,
            gap_skipped: 0,
            not_shown: 0,
            text: String::new(),
        }
    }

    /// True when as many resets as wanted were shown.
    fn write(&mut self, batch: Batch, session: &mut Session) -> anyhow::Result<bool> {
        self.gap_lost += batch.lost;
        self.gap_skipped += batch.not_examined;
        let mut has_room = true;
        for reset in &batch.resets {
            session.count(reset);
            // What will not fit is not even put into words.
            let shown = has_room && {
                self.text.clear();
                self.gap()?;
                self.line(reset)?;
                self.output.offer(&self.text)
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
