//! What the screen remembers of a run. All of it is bounded, however long the run is.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::naming::named;
use crate::cause::Severity;
use crate::evidence::ledger::Account;
use crate::observation::delta::per_second;
use crate::render::{verdict, watch as text};
use crate::timeline::{Tick, What};
use crate::trace::Reset;
use crate::value::words::rate;
use crate::value::{Moment, TcpState};

/// Ticks of a rate, single resets, and things that happened.
const RATES: usize = 240;
const RESETS: usize = 500;
const HAPPENED: usize = 200;
/// Rows of the ledger, and listeners.
const ROWS: usize = 128;
const LISTENERS: usize = 4096;

#[derive(Debug, Clone, Default)]
pub struct History {
    ticks: usize,
    pub ledger: Vec<Side>,
    pub listeners: BTreeMap<(IpAddr, u16), High>,
    /// Oldest first.
    pub resets: VecDeque<Reset>,
    /// Oldest first.
    pub happened: VecDeque<Happened>,
    pub sockets: Option<Sockets>,
}

/// One side of the ledger over the run.
#[derive(Debug, Clone)]
pub struct Side {
    pub name: &'static str,
    /// It was counted in the latest tick.
    pub observed: bool,
    pub total: Row,
    pub unexplained: Row,
    /// In the order in which they came.
    pub lines: Vec<Row>,
}

#[derive(Debug, Clone, Default)]
pub struct Row {
    pub label: String,
    /// Of the latest tick.
    pub now: u64,
    pub per_s: f64,
    pub run: u64,
    pub rates: VecDeque<f64>,
}

impl Row {
    /// A row that was nothing in the ticks so far.
    fn new(label: &str, ticks: usize) -> Self {
        Self { label: label.to_owned(), rates: std::iter::repeat_n(0.0, ticks.min(RATES)).collect(), ..Self::default() }
    }

    fn push(&mut self, count: u64, per_s: f64) {
        (self.now, self.per_s) = (count, per_s);
        self.run = self.run.saturating_add(count);
        bounded(&mut self.rates, per_s, RATES);
    }
}

/// The most that was seen of a listener.
#[derive(Debug, Clone, Default)]
pub struct High {
    pub queue: u32,
    pub lost: u64,
    seen: usize,
}

/// One line of the strip at the bottom.
#[derive(Debug, Clone)]
pub struct Happened {
    pub at: Moment,
    pub word: &'static str,
    pub text: String,
    /// It came with the latest tick.
    pub fresh: bool,
}

/// The two latest sweeps.
#[derive(Debug, Clone, Default)]
pub struct Sockets {
    pub now: BTreeMap<TcpState, u64>,
    pub before: Option<BTreeMap<TcpState, u64>>,
    pub orphans: Option<u64>,
}

impl History {
    pub fn tick(&mut self, tick: &Tick) {
        self.ledger(tick);
        self.listeners(tick);
        self.happened(tick);
        if let Some(now) = &tick.diagnosis.sockets {
            let swept = tick.sweep.taken.is_some();
            let last = self.sockets.take().unwrap_or_default();
            let before = if swept && !last.now.is_empty() { Some(last.now) } else { last.before };
            self.sockets = Some(Sockets { now: now.clone(), before, orphans: tick.diagnosis.orphans });
        }
        for reset in &tick.resets {
            bounded(&mut self.resets, reset.clone(), RESETS);
        }
        self.ticks += 1;
    }

    fn ledger(&mut self, tick: &Tick) {
        let ledger = &tick.diagnosis.ledger;
        let window = tick.diagnosis.window;
        let sides = [
            ("sent", &ledger.sent),
            ("received", &ledger.received),
            ("firewall", &ledger.firewall),
            ("lost", &ledger.dropped),
        ];
        if self.ledger.is_empty() {
            self.ledger = sides.map(|(name, _)| Side::new(name)).into();
        }
        for (side, (_, account)) in self.ledger.iter_mut().zip(sides) {
            side.push(account, self.ticks, &|count| per_second(count, window));
        }
    }

    fn listeners(&mut self, tick: &Tick) {
        for row in &tick.diagnosis.listeners {
            let high = self.listeners.entry((row.address, row.port)).or_default();
            high.queue = high.queue.max(row.recv_q);
            high.lost = high.lost.saturating_add(row.drops.unwrap_or(0));
            high.seen = self.ticks;
        }
        if self.listeners.len() > LISTENERS {
            let ticks = self.ticks;
            self.listeners.retain(|_, high| high.seen == ticks);
        }
    }

    fn happened(&mut self, tick: &Tick) {
        self.happened.iter_mut().for_each(|happened| happened.fresh = false);
        for event in tick.events.iter().filter(|event| text::is_told(event)) {
            let name = named(event.title, &event.key.place, usize::MAX);
            let name = match event.severity {
                Severity::Info => name,
                alarm => format!("{}  {name}", verdict::word(alarm)),
            };
            let (at, text) = match event.what {
                What::Ended => (event.at, text::told(event)),
                What::Worsened => (event.at, format!("{name}: {} per s", rate(event.per_s))),
                // When its first window began, as everywhere else on the screen.
                _ => (before(event.at, event.lasted), name),
            };
            self.remember(at, event.what.name(), text);
        }
        for change in &tick.changes {
            self.remember(change.at, "note", change.text.clone());
        }
    }

    /// Something that the user did.
    pub fn note(&mut self, at: Moment, text: String) {
        self.remember(at, "note", text);
    }

    fn remember(&mut self, at: Moment, word: &'static str, text: String) {
        bounded(&mut self.happened, Happened { at, word, text, fresh: true }, HAPPENED);
    }
}

impl Side {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            observed: false,
            total: Row::new("in total", 0),
            unexplained: Row::new("unexplained", 0),
            lines: Vec::new(),
        }
    }

    fn push(&mut self, account: &Account, ticks: usize, per_s: &dyn Fn(u64) -> f64) {
        self.observed = account.total.is_ok();
        let push = |row: &mut Row, count: u64| row.push(count, per_s(count));
        push(&mut self.total, account.total.clone().unwrap_or(0));
        push(&mut self.unexplained, account.unexplained().unwrap_or(0));
        for line in &account.lines {
            if self.lines.len() < ROWS && self.lines.iter().all(|row| row.label != line.label) {
                self.lines.push(Row::new(&line.label, ticks));
            }
        }
        for row in &mut self.lines {
            let count = account.lines.iter().filter(|line| line.label == row.label).map(|line| line.count).sum();
            push(row, count);
        }
    }

    /// Nothing happened on this side in the whole run.
    pub fn is_quiet(&self) -> bool {
        self.total.run == 0
    }
}

fn before(at: Moment, by: Duration) -> Moment {
    Moment { mono: at.mono.saturating_sub(by), wall: at.wall.saturating_sub(by), ..at }
}

fn bounded<T>(ring: &mut VecDeque<T>, item: T, most: usize) {
    if ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(item);
}
