//! A row of windows without a gap: each begins with the snapshot that closed the one before.
//!
//! A window is cheap: counters, listeners, streams, and every few seconds the settings. All sockets and their owners are
//! looked at only when the caller asks for it; until then the two latest sweeps stay, so that what they show neither
//! vanishes nor seems to move.

use std::collections::VecDeque;
use std::time::Duration;

use super::looks::Looks;
use super::streams::{self, Resets};
use super::{NothingObserved, Plan, next_due, observation, open};
use crate::ask::{Frame, Host};
use crate::observation::{Observation, Snapshot};
use crate::source::listeners::{self, Listener};
use crate::source::reset_events::ResetEvent;
use crate::value::{Failure, FailureKind, Moment, Observed};

/// Between two looks while queues are short and little arrives. The streams of the kernel hold more than comes in that
/// time outside a storm.
const RELAXED: Duration = Duration::from_millis(200);
/// Between two looks at the sysctls: 26 small files cost a fifth of a tick.
const SETTINGS: Duration = Duration::from_secs(5);
/// Resets of earlier windows that are remembered, and for how long: a connection speaks its last words when its process
/// closes it, seconds after it was reset.
const RECENT: usize = 2_000;
const RECENT_FOR: Duration = Duration::from_secs(30);
/// Bytes of the streams in one look from which on the next comes sooner.
const MUCH: usize = 64 << 10;

/// What one frame was.
#[derive(Debug)]
pub enum Step {
    /// A look at the listeners.
    Looked,
    /// A window was closed.
    Tick(Box<Ticked>),
    /// No look and no tick follows.
    Over,
}

/// A window that was closed.
#[derive(Debug)]
pub struct Ticked {
    pub observation: Observation,
    /// All sockets were looked at for it.
    pub swept: bool,
    /// How long after its time on the grid it came.
    pub late: Duration,
    /// The distance of the grid.
    pub interval: Duration,
}

/// Drives a host through windows.
pub struct Watching {
    opened: Moment,
    end: Duration,
    poll_every: Duration,
    /// Polls come more seldom while nothing happens.
    relaxed: bool,
    interval: Duration,
    poll_due: Duration,
    tick_due: Duration,
    /// Closed the latest window.
    previous: Snapshot,
    /// The sweep before the latest one.
    earlier: Snapshot,
    /// When the settings were looked at last.
    settings: Moment,
    looks: Looks,
    resets: Resets,
    /// Resets that came while the streams were read at the end of the latest window: they belong to the next.
    later: Vec<ResetEvent>,
    /// Resets of the windows before, oldest first.
    recent: VecDeque<ResetEvent>,
}

impl Watching {
    /// Opens the first window. It ends after `plan.window`; [`Duration::MAX`] is never.
    ///
    /// # Errors
    /// When the host opens no window.
    pub fn start(host: &mut dyn Host, plan: &Plan, interval: Duration, relaxed: bool) -> Result<Self, NothingObserved> {
        let mut looks = Looks::default();
        let netns = super::namespace(host);
        let mut resets = Resets::new(netns, plan.events);
        let (first, later) = open(host, netns, &mut looks, &mut resets)?;
        Ok(Self {
            opened: first.at,
            end: plan.window,
            poll_every: plan.poll_every,
            relaxed,
            interval,
            poll_due: plan.poll_every,
            tick_due: interval,
            settings: first.dumped,
            earlier: first.clone(),
            previous: first,
            looks,
            resets,
            later,
            recent: VecDeque::new(),
        })
    }

    /// The ticks from now on are this far apart; the next comes that long after `now`.
    pub fn set_interval(&mut self, interval: Duration, now: Moment) {
        self.interval = interval;
        self.tick_due = self.passed(now) + interval;
    }

    /// The next window looks at the settings, too.
    pub fn settings_next(&mut self) {
        self.settings = Moment::default();
    }

    /// Waits for the next frame and looks. A recording may hold other frames than are due: whichever follows is taken.
    pub fn step(&mut self, host: &mut dyn Host) -> Step {
        let poll = Frame::Poll { due: self.poll_due, end: self.end };
        let tick = Frame::Tick { due: self.tick_due, end: self.end };
        let (first, second) = if self.tick_due <= self.poll_due { (tick, poll) } else { (poll, tick) };
        let opened = |frame, host: &mut dyn Host| host.frame(frame).map(|at| (frame, at));
        let Some((frame, at)) = opened(first, host).or_else(|| opened(second, host)) else { return Step::Over };
        match frame {
            Frame::Tick { .. } => {
                let late = self.passed(at).saturating_sub(host.due(self.tick_due));
                self.tick_due = next_due(self.tick_due, self.passed(at), self.interval);
                let observation = self.close(host, at);
                Step::Tick(Box::new(Ticked { observation, swept: false, late, interval: self.interval }))
            }
            _ => {
                let busy = self.look(host);
                let every = if self.relaxed && !busy { RELAXED.max(self.poll_every) } else { self.poll_every };
                self.poll_due = next_due(self.poll_due, self.passed(at), every);
                Step::Looked
            }
        }
    }

    /// Closes the last window, with a sweep. `None` when the host has no closing frame.
    pub fn finish(&mut self, host: &mut dyn Host) -> Option<Ticked> {
        let at = host.frame(Frame::After { end: self.end })?;
        self.settings_next();
        let mut observation = self.close(host, at);
        let swept = self.sweep(host, &mut observation);
        Some(Ticked { observation, swept, late: Duration::ZERO, interval: self.interval })
    }

    /// Looks at all sockets and their owners for the window that was just closed. False if the host does not
    /// have them now: a recording may hold them in some windows only.
    pub fn sweep(&self, host: &mut dyn Host, observation: &mut Observation) -> bool {
        let mut fresh = Snapshot::empty(observation.after.netns, observation.after.at);
        fresh.listeners = observation.after.listeners.clone();
        let traced = observation.listener_traces.values().map(|trace| &trace.last);
        fresh.sockets(host, traced, &observation.after.known_processes());
        if matches!(&fresh.socket_dump, Observed::Unavailable(Failure { kind: FailureKind::NotCollected, .. })) {
            return false;
        }
        // It was carried here from the latest sweep.
        carry_dump(&observation.after, &mut observation.before);
        carry_dump(&fresh, &mut observation.after);
        true
    }

    /// The next window begins where this one ended. Call it with each window that was closed.
    pub fn remember(&mut self, observation: Observation) {
        // What a list that was read in part lacks is not new in the next window.
        self.looks = Looks::from(match &observation.after.listeners {
            Observed::Full(listeners) => Some(listeners),
            _ => None,
        });
        if let Some(events) = observation.reset_events.value() {
            self.recent.extend(events.events.iter().rev().take(RECENT).rev().cloned());
        }
        let old = |event: &ResetEvent| event.at + RECENT_FOR < observation.after.at.mono;
        while self.recent.len() > RECENT || self.recent.front().is_some_and(old) {
            self.recent.pop_front();
        }
        (self.earlier, self.previous) = (observation.before, observation.after);
    }

    fn passed(&self, at: Moment) -> Duration {
        at.mono.saturating_sub(self.opened.mono)
    }

    /// True if it is worth looking again soon.
    fn look(&mut self, host: &mut dyn Host) -> bool {
        let much = self.resets.drain(host) >= MUCH;
        let listeners = listeners::collect(host, self.previous.netns).0;
        let Some(listeners) = listeners.value() else { return much };
        self.looks.look(listeners);
        // A quarter full: at the next relaxed look it may have been full and empty again.
        let filling = |l: &Listener| u64::from(l.recv_q) * 4 > u64::from(l.backlog);
        much || listeners.iter().any(filling)
    }

    /// A recording may hold them in some windows only.
    fn settings(&mut self, host: &mut dyn Host, before: &Snapshot, after: &mut Snapshot) {
        carry_settings(before, after);
        if after.at.mono.saturating_sub(self.settings.mono) < SETTINGS {
            return;
        }
        let mut fresh = Snapshot::empty(after.netns, after.at);
        fresh.context(host);
        if fresh.sysctls.values().any(|value| value.value().is_some()) {
            carry_settings(&fresh, after);
            self.settings = after.at;
        }
    }

    fn close(&mut self, host: &mut dyn Host, at: Moment) -> Observation {
        let mut after = Snapshot::empty(self.previous.netns, at);
        after.counters(host);
        let end = self.resets.drain_at_end(host);
        let mut looks = std::mem::take(&mut self.looks);
        after.listeners(host, &mut looks);
        // `remember` gives it its successor.
        let mut before = std::mem::replace(&mut self.previous, Snapshot::empty(after.netns, at));
        carry_dump(&before, &mut after);
        self.settings(host, &before, &mut after);
        carry_dump(&self.earlier, &mut before);
        let mut observation = observation(before, after, looks);
        self.resets.take().into_observation(&mut observation);
        let later = streams::take_later(&mut observation, end);
        streams::put_first(&mut observation, std::mem::replace(&mut self.later, later));
        observation.earlier_resets = self.recent.iter().cloned().collect();
        observation
    }
}

/// The part of a snapshot that a sweep gives.
fn carry_dump(from: &Snapshot, to: &mut Snapshot) {
    to.dumped = from.dumped;
    to.socket_dump = from.socket_dump.clone();
    to.owners = from.owners.clone();
    carry_sources(from, to, &["sockets", "owners"]);
}

fn carry_settings(from: &Snapshot, to: &mut Snapshot) {
    to.sysctls = from.sysctls.clone();
    to.host = from.host.clone();
    carry_sources(from, to, &["sysctl", "host"]);
}

fn carry_sources(from: &Snapshot, to: &mut Snapshot, names: &[&str]) {
    to.sources.retain(|source| !names.contains(&source.name));
    to.sources.extend(from.sources.iter().filter(|source| names.contains(&source.name)).cloned());
}
