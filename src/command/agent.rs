//! `rstdoctor agent`: the flight recorder.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::SAW_NOTHING;
use super::hook::Hook;
use crate::ask::Host;
use crate::command::cli::AgentArgs;
use crate::command::config::{self, Agent, Origin};
use crate::command::state::home;
use crate::diagnosis::filter::Filter;
use crate::history::{Account, Entry, Recorder, Started, Stopped, millis};
use crate::input::{self, Opened};
use crate::kernel::clock::now;
use crate::metrics::Own;
use crate::output::say;
use crate::recording::write::RecordError;
use crate::recording::{Closed, RedactingHost, SegmentingHost, Segments};
use crate::runtime::service_manager::ServiceManager;
use crate::runtime::signals;
use crate::runtime::{give_memory_back, map_large_pieces};
use crate::store::{Journal, Reading, Retention, Store, StoreFile};
use crate::timeline::{Driver, Next, Phase, Tick, Watch};
use crate::value::Moment;
use crate::value::escape::visible;
use crate::value::words;

mod exporter;
mod resume;

use exporter::Exporter;

/// What is too old is deleted, and free memory given back, that often.
const EXPIRY: Duration = Duration::from_secs(60);
/// What goes on failing is said again that often.
const REMINDED: Duration = Duration::from_secs(3600);
const MOST_SAID: usize = 16;
/// For so long after it began an episode is worth its raw evidence, and then again when it worsens or ends.
const WORTH_RAW: Duration = Duration::from_secs(180);

pub fn run(args: &AgentArgs) -> anyhow::Result<ExitCode> {
    let config = config::agent(args, &home())?;
    // It runs for months; a storm that others trace is over in seconds, and must not wait for memory.
    map_large_pieces();
    let (stop, hangup) = signals::service()?;
    let mut manager = ServiceManager::new();
    let store = Store::open(&config.store, config.limits)?;
    let exporter = Exporter::start(&config)?;
    let mut hook = Hook::start(config.exec.clone())?;
    if let Some(text) = Reading::open(&config.store)?.newer() {
        say(visible(&format!(
            "rstdoctor: {text}; this one writes to the store, and neither reads what the other wrote"
        )));
    }
    let watch = resume::watch(&config.store, now()).unwrap_or_else(|| Watch::new(Filter::default()));
    let store = Arc::new(Mutex::new(store));
    let Opened { host, plan, .. } = input::open(&Origin::Live(config.live.clone()), &stop)?;
    let host: Box<dyn Host> = if config.redact { Box::new(RedactingHost::new(host)) } else { host };
    let opener = Arc::clone(&store);
    let open = move |at| locked(&opener).recording(at);
    let mut host = SegmentingHost::new(host, Box::new(open), largest(&config), config.redact);
    let mut recording = Recording::new(&config, store, host.segments());
    let mut driver = Driver::resume(&mut host, &plan, config.interval, watch.unattended())?;
    manager.ready(&format!("recording to {}", config.store.display()));
    say(visible(&format!("rstdoctor: recording to {}", config.store.display())));
    while !stop.load(Ordering::Relaxed) {
        manager.alive();
        match driver.advance() {
            Next::Looked => continue,
            Next::Tick(tick) => {
                if tick.number == 1 && tick.diagnosis.saw_nothing() {
                    anyhow::bail!(SAW_NOTHING);
                }
                let account = recording.recorder.account(&tick);
                recording.tick(&tick, &account);
                hook.tick(&tick);
                if let Err(text) = exporter.tick(&tick, &account, || recording.own()) {
                    recording.say_once(text);
                }
            }
            Next::Over => break,
        }
        if hangup.swap(false, Ordering::Relaxed) {
            recording.rotate();
        }
    }
    manager.stopping();
    drop(driver);
    hook.finish();
    exporter.finish();
    recording.finish(host.finish())?;
    Ok(ExitCode::SUCCESS)
}

fn locked(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So that several recordings always fit, bytes of answers, which pack to a fifth or less.
fn largest(config: &Agent) -> u64 {
    config.limits.size / 4
}

/// Raw evidence cannot be written.
struct RawLost {
    since: Moment,
    /// Until when the index tells so.
    told: Moment,
    why: String,
}

/// What becomes of ticks.
struct Recording {
    config: Agent,
    store: Arc<Mutex<Store>>,
    segments: Segments<StoreFile>,
    journal: Journal,
    recorder: Recorder,
    retention: Retention,
    started: bool,
    expired: Moment,
    forgotten: Moment,
    raw_lost: Option<RawLost>,
    /// What was said of the store, so that it is said once.
    said: Vec<String>,
}

impl Recording {
    fn new(config: &Agent, store: Arc<Mutex<Store>>, segments: Segments<StoreFile>) -> Self {
        Self {
            config: config.clone(),
            store,
            segments,
            journal: Journal::new(config.redact),
            recorder: Recorder::default(),
            retention: Retention::new(config.limits),
            started: false,
            expired: Moment::default(),
            forgotten: Moment::default(),
            raw_lost: None,
            said: Vec::new(),
        }
    }

    fn tick(&mut self, tick: &Tick, account: &Account) {
        if !std::mem::replace(&mut self.started, true) {
            self.write(tick.at, &started(&self.config, tick));
        }
        for entry in self.recorder.tick(tick, account) {
            self.write(tick.at, &entry);
        }
        if is_worth_raw(tick) {
            self.retention.trouble();
        }
        if let Some(error) = self.segments.failed() {
            self.raw_failed(tick.at, error);
        }
        for closed in self.segments.closed() {
            let path = closed.out.path().to_owned();
            let bytes = closed.out.written();
            let from = closed.from;
            self.keep(tick.at, closed);
            let boring = self.retention.ended(path, from, bytes);
            let deleted = boring.map_or(Ok(()), |path| locked(&self.store).delete(&path));
            if let Err(error) = deleted {
                self.failed(error.into());
            }
        }
        if tick.at.mono.saturating_sub(self.expired.mono) >= EXPIRY {
            self.expired = tick.at;
            give_memory_back();
            let expired = locked(&self.store).expire(tick.at);
            if let Err(error) = expired {
                self.failed(error.into());
            }
        }
        if tick.at.mono.saturating_sub(self.forgotten.mono) >= REMINDED {
            self.forgotten = tick.at;
            self.said.clear();
        }
    }

    fn write(&mut self, at: Moment, entry: &Entry) {
        let lost = self.journal.lost_since();
        let written = self.journal.push(&mut locked(&self.store), at, entry);
        if let Err(error) = written {
            self.failed(error);
        } else if let Some(since) = lost.filter(|_| self.journal.lost_since().is_none()) {
            // The next failure is another one.
            self.said.clear();
            say(format!(
                "rstdoctor: the store is written again; what happened in the {} before is not in it",
                words::seconds(at.mono.saturating_sub(since.mono))
            ));
        }
    }

    fn keep(&mut self, at: Moment, closed: Closed<StoreFile>) {
        match closed.out.persist() {
            Err(error) => self.raw_failed(at, error),
            Ok(()) => self.raw_again(closed.from),
        }
    }

    fn raw_failed(&mut self, at: Moment, error: RecordError) {
        let why = error.why();
        let since = self.raw_lost.as_ref().map_or(at, |lost| lost.since);
        let lost = RawLost { since, told: at, why };
        if let Some(before) = self.raw_lost.replace(lost).filter(|before| before.told.mono < at.mono) {
            self.write(at, &before.entry(before.told, at));
        }
        self.failed(error);
    }

    /// A recording is whole that began then.
    fn raw_again(&mut self, from: Moment) {
        if let Some(lost) = self.raw_lost.take_if(|lost| from.mono > lost.since.mono) {
            if from.mono > lost.told.mono {
                self.write(from, &lost.entry(lost.told, from));
            }
            self.said.clear();
            let length = words::seconds(from.mono.saturating_sub(lost.since.mono));
            say(format!("rstdoctor: recordings are written again; no raw evidence was kept of the {length} before"));
        }
    }

    /// It goes on without: what is seen is still served and told.
    fn failed(&mut self, error: RecordError) {
        let text = format!("{:#}", anyhow::Error::from(error));
        self.say_once(format!("{text}; what was written stays, and it is tried again"));
    }

    fn say_once(&mut self, text: String) {
        if self.said.len() < MOST_SAID && !self.said.contains(&text) {
            say(visible(&format!("rstdoctor: {text}")));
            self.said.push(text);
        }
    }

    fn own(&self) -> Own {
        let store = locked(&self.store);
        Own {
            store_bytes: Some(store.used()),
            store_deleted: store.deleted(),
            store_failing: self.journal.lost_since().is_some() || self.raw_lost.is_some(),
            ..exporter::own()
        }
    }

    fn rotate(&mut self) {
        self.segments.rotate();
        if let Err(error) = self.journal.close() {
            self.failed(error);
        }
    }

    /// `last`: what became of the recording that was open.
    fn finish(mut self, last: Result<Option<Closed<StoreFile>>, RecordError>) -> Result<(), RecordError> {
        let at = now();
        match last {
            Err(error) => self.raw_failed(at, error),
            Ok(closed) => closed.into_iter().for_each(|closed| self.keep(at, closed)),
        }
        if !self.started {
            return Ok(());
        }
        if let Some(lost) = self.raw_lost.take().filter(|lost| lost.told.mono < at.mono) {
            self.write(at, &lost.entry(lost.told, at));
        }
        if let Some(entry) = self.recorder.rest() {
            self.write(at, &entry);
        }
        let stopped = Stopped { at: millis(at.wall) };
        self.write(at, &Entry::Stopped(stopped));
        self.journal.close()
    }
}

impl RawLost {
    fn entry(&self, from: Moment, until: Moment) -> Entry {
        Entry::RawLost { from: millis(from.wall), until: millis(until.wall), why: self.why.clone() }
    }
}

/// Something is wrong, and has not been for long: of a fault that goes on for days the first minutes say it all.
fn is_worth_raw(tick: &Tick) -> bool {
    let on = tick.episodes.iter().filter(|episode| episode.phase == Phase::Active && episode.is_alarm());
    let young = |since: Moment| tick.at.mono.saturating_sub(since.mono) <= WORTH_RAW;
    on.into_iter().any(|episode| young(episode.since)) || tick.events.iter().any(|event| !event.harmless)
}

fn started(config: &Agent, tick: &Tick) -> Entry {
    Entry::Started(Started {
        at: millis(tick.diagnosis.started.wall),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        interval_s: config.interval.as_secs_f64(),
        hostname: tick.diagnosis.host.hostname.clone(),
        kernel: tick.diagnosis.host.kernel.clone(),
        redacted: config.redact,
        tells_roots: true,
    })
}
