//! From the stream to [`ResetEvents`]. Pure; memory is bounded whatever comes in.
//!
//! Records that explain each other (a state change and the reset around it, a bogus receive and the reset that follows)
//! are written by one CPU within one call of the kernel, so they are matched per CPU, by socket address.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::call_chain::Symbols;
use super::deaths::{Deaths, Signal};
use super::format::{Field, Format, Order};
use super::layout::Layout;
use super::losses::Losses;
use super::record::{self, Change, Record, Sample};
use super::scope::Scope;
use super::tally::Tallies;
use super::tasks::Tasks;
use super::{
    Direction, FINAL, ListenerClosed, MAGIC, MAX_LISTENERS, Missing, ResetEvent, ResetEvents, SETTLED_NS, SocketError,
    Task,
};
use crate::stream::{self, Content, Kind, Parser};
use crate::value::{Errno, NetnsId, ParseError, TcpState};

const SOURCE: &str = "reset events";

/// Single events kept between two calls of [`ResetParser::take`], about 16 MB.
const MAX_EVENTS: usize = 50_000;
/// Errors of sockets kept between two calls, about 2 MB.
const MAX_ERRORS: usize = 20_000;
/// State changes and received resets per CPU that wait for their partner.
const MAX_WAITING: usize = 64;
/// How far apart the records of one kernel call may be: generous, it is microseconds unless the CPU is taken away.
const TOGETHER_NS: u64 = 50_000_000;

/// TRACE_FLAG_HARDIRQ | TRACE_FLAG_SOFTIRQ | TRACE_FLAG_NMI (include/linux/trace_events.h): the same bits since 2.6.
const INTERRUPT_FLAGS: u64 = 0x08 | 0x10 | 0x40;

/// Collects the answers to `Ask::ResetEvents`. A received reset may be handed over one drain late.
pub type ResetParser = Parser<Events>;

/// What the blocks say.
#[derive(Default)]
pub struct Events {
    started: bool,
    order: Order,
    /// perf event id to what it is.
    events: HashMap<u64, Event>,
    tasks: Tasks,
    scope: Scope,
    symbols: Symbols,
    /// CLOCK_BOOTTIME minus CLOCK_MONOTONIC, ns.
    boot_offset: u64,
    /// CLOCK_MONOTONIC when the previous and the current drain began.
    drains: (u64, u64),
    cpus: BTreeMap<u16, Cpu>,
    losses: Losses,
    deaths: Deaths,
    tallies: Tallies,
    /// Processes that closed a listener, and that are not known to have ended.
    closers: BTreeSet<u32>,
    out: ResetEvents,
}

struct Event {
    tracepoint: String,
    /// `None` until its format was read.
    layout: Option<Arc<Layout>>,
    sample_type: u64,
    /// Records of it so far.
    read: u64,
    /// The kernel's count when it was read last.
    count: u64,
}

#[derive(Default)]
struct Cpu {
    /// Sockets that went to CLOSE: address, old state, ns.
    closed: VecDeque<(u64, TcpState, u64)>,
    /// Received resets: whether a RST really came in, and in which state, is told by the records that follow.
    received: VecDeque<(u64, u64, ResetEvent)>,
}

impl ResetParser {
    /// Single events that the next [`Self::take`] hands over.
    pub fn waiting(&self) -> usize {
        self.content.out.events.len()
    }

    /// When the latest drain began, CLOCK_BOOTTIME; zero before the first.
    pub fn drained(&self) -> Duration {
        Duration::from_nanos(self.content.drains.1.saturating_add(self.content.boot_offset))
    }
}

impl Content for Events {
    type Parsed = ResetEvents;
    const SOURCE: &'static str = SOURCE;

    fn block(&mut self, kind: Kind, cpu: u16, payload: &[u8]) -> Result<(), ParseError> {
        let broken = |problem: String| ParseError::new(SOURCE, None, problem);
        if !self.started && kind != Kind::Start {
            return Err(broken("the stream does not begin with a start block".to_owned()));
        }
        if kind == Kind::Records {
            return self.records(cpu, payload);
        }
        let text = stream::text(SOURCE, kind, payload)?;
        match kind {
            Kind::Start => self.start(text)?,
            Kind::Format => {
                let layout = Arc::new(Layout::new(Format::parse(text)?));
                for event in self.events.values_mut().filter(|event| event.tracepoint == layout.format.name) {
                    event.layout = Some(Arc::clone(&layout));
                }
            }
            Kind::Scope => self.scope.read(text),
            Kind::Tasks => self.tasks.list(text).into_iter().for_each(|netns| self.scope.namespace(netns)),
            Kind::Symbols => self.symbols = Symbols::read(text),
            Kind::Clock => {
                let mut words = text.split_whitespace().map(|word| word.parse::<u64>().ok());
                let (Some(Some(mono)), Some(Some(boot))) = (words.next(), words.next()) else {
                    return Err(broken(format!("clock block {text:?} has no two numbers")));
                };
                self.boot_offset = boot.saturating_sub(mono);
                self.drains = (self.drains.1, mono);
                self.tasks.next_drain();
                self.release_all(self.drains.0);
            }
            Kind::Counts => {
                let last = text.ends_with(FINAL);
                let settled = self.drains.1.saturating_sub(self.drains.0) >= SETTLED_NS;
                for line in text.lines() {
                    let mut words = line.split(' ').map(|word| word.parse::<u64>().ok());
                    let (Some(Some(id)), Some(Some(count))) = (words.next(), words.next()) else { continue };
                    // Only lost resets count: a lost state change costs an old state, not a reset.
                    let of_resets = |event: &&mut Event| event.tracepoint == SEND || event.tracepoint == RECEIVE;
                    let Some(event) = self.events.get_mut(&id).filter(of_resets) else { continue };
                    // What was counted some time ago has its record by now, or never will.
                    let before = std::mem::replace(&mut event.count, count);
                    let settled = if settled { before.saturating_sub(event.read) } else { 0 };
                    let lost = match (last, words.next().flatten()) {
                        (true, _) => Some(count.saturating_sub(event.read)),
                        (false, None) => Some(settled).filter(|lost| *lost > 0),
                        (false, Some(said)) => Some(said.max(settled)),
                    };
                    if let Some(lost) = lost {
                        self.losses.total(id, event.tracepoint == SEND, lost);
                    }
                }
                if last {
                    self.end();
                }
            }
            Kind::Note => {
                let (name, reason) = text.split_once(' ').unwrap_or((text, ""));
                let missing = Missing { name: name.to_owned(), reason: reason.to_owned() };
                if !self.out.account.missing.contains(&missing) && self.out.account.missing.len() < 32 {
                    self.out.account.missing.push(missing);
                }
            }
            Kind::Records => {}
        }
        Ok(())
    }

    fn take(&mut self) -> ResetEvents {
        let missing = self.out.account.missing.clone();
        // In a storm as many come again: not grown anew each time.
        let events = Vec::with_capacity(self.out.events.len());
        let errors = Vec::with_capacity(self.out.errors.len());
        let mut out = std::mem::replace(&mut self.out, ResetEvents { events, errors, ..ResetEvents::default() });
        let reports = |tracepoint: &str| self.events.values().any(|event| event.tracepoint == tracepoint);
        out.account.reports_errors = reports(ERROR);
        out.account.reports_signals = reports(DELIVER);
        // The record of an end comes by another ring, and may come later.
        self.tasks.settle();
        out.account.ended = self.closers.iter().copied().filter(|pid| self.tasks.has_exited(*pid)).collect();
        self.closers.retain(|pid| !out.account.ended.contains(pid));
        out.events.sort_by_cached_key(|event| event.at);
        out.errors.sort_by_key(|error| error.at);
        out.account.listeners_closed.sort_by_key(|listener| listener.at);
        out.tallies = self.tallies.take();
        out.account.deaths = self.deaths.take(self.drains.1);
        (out.account.lost, out.account.lost_sent, out.account.lost_either) = self.losses.take();
        self.out.account.missing = missing;
        out
    }

    fn end(&mut self) {
        self.release_all(u64::MAX);
    }
}

impl Events {
    fn start(&mut self, text: &str) -> Result<(), ParseError> {
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return Err(ParseError::new(SOURCE, Some(1), format!("does not begin with {MAGIC:?}")));
        }
        self.end();
        // A later observation in the same recording: sockets and pids of the former say nothing about it.
        let (tallies, out) = (std::mem::take(&mut self.tallies), std::mem::take(&mut self.out));
        let losses = std::mem::take(&mut self.losses).closed();
        *self = Self { started: true, tallies, out, losses, ..Self::default() };
        for (index, line) in lines.enumerate() {
            let mut words = line.split(' ');
            match words.next() {
                Some("endian") if words.next() == Some("big") => self.order = Order::Big,
                Some("event") => {
                    let (id, _cpu, bits, name) = (words.next(), words.next(), words.next(), words.next());
                    let id = id.and_then(|id| id.parse().ok());
                    let bits = bits.and_then(|bits| u64::from_str_radix(bits.trim_start_matches("0x"), 16).ok());
                    let (Some(id), Some(sample_type), Some(name)) = (id, bits, name) else {
                        return Err(ParseError::new(SOURCE, Some(index + 2), format!("event {line:?} not understood")));
                    };
                    let tracepoint = name.rsplit('/').next().unwrap_or(name).to_owned();
                    self.events.insert(id, Event { tracepoint, layout: None, sample_type, read: 0, count: 0 });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn records(&mut self, cpu: u16, mut bytes: &[u8]) -> Result<(), ParseError> {
        while let Some(record) = record::next(&mut bytes, self.order) {
            match record.map_err(|problem| ParseError::new(SOURCE, None, format!("CPU {cpu}: {problem}")))? {
                Record::Sample { id, body } => {
                    let Some(event) = self.events.get_mut(&id) else { continue };
                    event.read += 1;
                    let sample = record::sample(body, event.sample_type, self.order).ok_or_else(|| {
                        ParseError::new(SOURCE, None, format!("a sample of {} is malformed", event.tracepoint))
                    })?;
                    if let Some(layout) = event.layout.clone() {
                        self.sample(cpu, &layout, &sample);
                    }
                }
                Record::Lost { lost } => self.losses.record(lost),
                Record::Task { time, change } => {
                    match change {
                        Change::Namespaces { net, .. } => self.scope.namespace(NetnsId(net)),
                        Change::Exit { tid } => self.deaths.exited(tid, time),
                        _ => {}
                    }
                    self.tasks.see(time, change);
                }
                Record::Other => {}
            }
        }
        Ok(())
    }

    fn sample(&mut self, cpu: u16, layout: &Layout, sample: &Sample<'_>) {
        self.tasks.settle();
        let (tracepoint, order) = (layout.format.name.as_str(), self.order);
        let number = |field: Option<Field>| field.and_then(|f| f.number(sample.raw, order));
        if let Some(signal) = number(layout.signal) {
            let sender = (tracepoint == GENERATE).then_some(sample.pid);
            let target = match sender {
                Some(_) => number(layout.target).and_then(|pid| u32::try_from(pid).ok()),
                None => Some(sample.pid),
            };
            let code = number(layout.code).unwrap_or(0) as i32;
            if let (Some(target), Ok(number)) = (target, u8::try_from(signal)) {
                let signal = Signal { time: sample.time, number, target, sender, code };
                self.deaths.see(signal, self.boot_offset, &self.tasks);
            }
            return;
        }
        let Some((local, peer)) = layout.ends(sample.raw, order) else { return };
        let state = |field| number(field).and_then(|n| TcpState::from_number(u8::try_from(n).ok()?));
        let sk = number(layout.sk).unwrap_or(0);
        let softirq = number(layout.flags).unwrap_or(0) & INTERRUPT_FLAGS != 0;
        let process = self.tasks.get(sample.pid);
        let of_task = match process {
            Some(process) if process.kernel => None,
            _ => self.tasks.netns(process, sample.tid),
        };
        let at = Duration::from_nanos(sample.time.saturating_add(self.boot_offset));
        if tracepoint == ERROR {
            let errno = number(layout.error).and_then(|errno| u16::try_from(errno).ok()).unwrap_or(0);
            // Two kinds of errors come with a segment of the peer, on loopback in the context of its sender; others from a timer.
            let of_task = of_task.filter(|_| [Errno::RESET, Errno::REFUSED, Errno::PIPE].contains(&Errno(errno)));
            let netns = self.scope.place(local.ip(), softirq, of_task);
            if let Some(peer) = peer.filter(|_| errno != 0) {
                self.error(SocketError { at, local, peer, errno: Errno(errno), netns });
            }
            return;
        }
        let task = (!softirq && sample.pid != 0)
            .then(|| Task { pid: sample.pid, name: process.map(|p| p.name.clone()).unwrap_or_default() });
        let received = tracepoint == RECEIVE;
        // No skb: the socket itself wants to reset, nothing is answered (comment at tcp_send_reset, trace/events/tcp.h).
        let active = tracepoint == SEND && number(layout.skb) == Some(0);
        // In a softirq that is a timer, which runs in the context of anybody.
        let netns = self.scope.place(local.ip(), softirq, of_task.filter(|_| !(softirq && active)));
        let elsewhere = netns.is_some_and(|netns| !self.scope.is_observed(netns));
        let waiting = self.cpus.entry(cpu).or_default();

        if tracepoint == STATE {
            let Some(old) = state(layout.old_state) else { return };
            if state(layout.new_state) != Some(TcpState::Close) {
                return;
            }
            if old == TcpState::Listen {
                if self.out.account.listeners_closed.len() < MAX_LISTENERS && !elsewhere {
                    if self.closers.len() < MAX_LISTENERS {
                        self.closers.extend(task.as_ref().map(|task| task.pid));
                    }
                    self.out.account.listeners_closed.push(ListenerClosed { at, local, task, netns });
                }
                return;
            }
            // tcp_reset() calls tcp_done() last: the state in which the RST arrived.
            if let Some((_, _, event)) =
                waiting.received.iter_mut().rev().find(|(of, _, event)| *of == sk && event.state.is_none())
            {
                (event.state, event.old_state) = (Some(old), Some(old));
                // On loopback the answer to a SYN arrives in the context of the one that sends it (net/core/dev.c netif_rx,
                // __local_bh_enable_ip), unless ksoftirqd takes over.
                if old == TcpState::SynSent && event.on_loopback() && sample.pid != 0 {
                    let program = process.filter(|process| !process.kernel);
                    event.task = program.map(|program| Task { pid: sample.pid, name: program.name.clone() });
                }
            }
            push(&mut waiting.closed, (sk, old, sample.time));
            return;
        }
        let (caller, exiting) = self.symbols.path(sample.chain, order);
        let mut event = ResetEvent {
            at,
            direction: if received { Direction::Received } else { Direction::Sent },
            local,
            peer,
            state: state(layout.state),
            old_state: None,
            reason: number(layout.reason)
                .map(|n| layout.format.symbol("reason", n).map_or(n.to_string(), str::to_owned)),
            task,
            softirq,
            active,
            caller,
            exiting,
            netns,
            cookie: number(layout.cookie),
        };
        if received {
            let overflow = if waiting.received.len() >= MAX_WAITING { waiting.received.pop_front() } else { None };
            waiting.received.push_back((sk, sample.time, event));
            if let Some((_, _, event)) = overflow {
                self.emit(event);
            }
        } else {
            let together = |then: u64| sample.time.abs_diff(then) < TOGETHER_NS;
            // Data after close: the kernel resets the connection as if a RST had come in, then sends one itself.
            let may_be_bogus = !active && sk != 0 && event.reason.as_deref().is_none_or(|r| r == "TCP_ABORT_ON_DATA");
            if may_be_bogus
                && let Some(index) = waiting.received.iter().rposition(|(of, then, _)| *of == sk && together(*then))
            {
                waiting.received.remove(index);
                self.out.account.read += 1;
                self.out.account.bogus_received += 1;
            }
            if sk != 0
                && event.state.is_none_or(|state| state == TcpState::Close)
                && let Some(index) = waiting.closed.iter().rposition(|(of, _, then)| *of == sk && together(*then))
            {
                event.old_state = waiting.closed.remove(index).map(|(_, old, _)| old);
            }
            self.emit(event);
        }
        self.release(cpu, sample.time.saturating_sub(TOGETHER_NS));
    }

    fn release_all(&mut self, before: u64) {
        for cpu in self.cpus.keys().copied().collect::<Vec<_>>() {
            self.release(cpu, before);
        }
    }

    /// Lets go of received resets of a CPU that are older than `before` (CLOCK_MONOTONIC ns): nothing will join them.
    fn release(&mut self, cpu: u16, before: u64) {
        while let Some(waiting) = self.cpus.get_mut(&cpu)
            && waiting.received.front().is_some_and(|(_, time, _)| *time < before)
            && let Some((_, _, event)) = waiting.received.pop_front()
        {
            self.emit(event);
        }
    }

    fn error(&mut self, error: SocketError) {
        if error.netns.is_some_and(|netns| !self.scope.is_observed(netns)) {
            return;
        }
        if self.out.errors.len() < MAX_ERRORS {
            self.out.errors.push(error);
        } else {
            self.out.errors_dropped += 1;
        }
    }

    fn emit(&mut self, event: ResetEvent) {
        self.out.account.read += 1;
        let scope = &self.scope;
        if event.netns.is_some_and(|netns| !scope.is_observed(netns)) {
            self.out.account.elsewhere += 1;
        } else if self.out.events.len() < MAX_EVENTS {
            self.out.events.push(event);
        } else {
            self.out.dropped += 1;
            self.tallies.count(&event, scope.ephemeral(event.netns));
        }
    }
}

const SEND: &str = "tcp_send_reset";
const RECEIVE: &str = "tcp_receive_reset";
const STATE: &str = "inet_sock_set_state";
const ERROR: &str = "inet_sk_error_report";
const GENERATE: &str = "signal_generate";
const DELIVER: &str = "signal_deliver";

fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= MAX_WAITING {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests;
