//! The events on one CPU, and the rings that they write into.

use std::io;

use rustix::process::{Resource, getrlimit};

use super::needs;
use super::perf::{self, Count, Event, Flag};
use super::sys::{PerfEventAttr, PerfRing};
use crate::value::{Failure, FailureKind};

/// All rings for records together, and the limits of one. 8 MiB hold about 64,000 records: 200 ms at 320,000 a second and CPU.
const ALL_RINGS: usize = 64 << 20;
const MAX_RING: usize = 8 << 20;
const MIN_RING: usize = 32 << 10;
/// A ring smaller than this is worth a word.
const SMALL_RING: usize = 128 << 10;
/// The limit of a ring for the side-band.
const SIDE_RING: usize = 128 << 10;

const SAMPLE: u64 = perf::SAMPLE_IDENTIFIER | perf::SAMPLE_TID | perf::SAMPLE_TIME | perf::SAMPLE_RAW;
/// Frames kept of a call chain: do_exit() is about the twelfth.
const MAX_STACK: u16 = 24;

/// What is recorded of which tracepoint.
pub struct Wanted {
    pub name: &'static str,
    filter: Option<&'static str>,
    chain: Chain,
    /// A kernel may lack it: what it tells is then missing, and nothing else.
    pub optional: bool,
}

/// Signals that end a process by default, where it does not handle them.
const FATAL: &str = "sa_handler == 0 && (sig == 3 || sig == 4 || sig == 5 || sig == 6 || sig == 7 || sig == 8 || sig == 11 || \
                     sig == 24 || sig == 31)";

/// Whether records have the kernel's call chain, which costs about a microsecond each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chain {
    Never,
    Always,
    /// Where the tracepoint does not tell the reason. Such a kernel reports few answers (Linux 6.9 and before).
    WithoutReason,
}

/// What is recorded beside the resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Details {
    #[default]
    All,
    /// No call chains, and no errors of sockets: with which the cost of both is measured.
    Few,
}

impl Details {
    /// Whether this one is recorded at all.
    pub fn have(self, wanted: &Wanted) -> bool {
        self == Self::All || wanted.name != ERRORS
    }
}

/// A tracepoint of this kernel.
pub struct KnownTracepoint {
    pub name: &'static str,
    pub id: u64,
    /// It has a field for the reason.
    pub reasons: bool,
}

/// Since 5.14.
const ERRORS: &str = "sock/inet_sk_error_report";

/// FIN_WAIT2 and LAST_ACK to CLOSE end every normal connection: a record of each would cost too much and say too little.
pub const WANTED: [Wanted; 7] = [
    Wanted { name: "tcp/tcp_send_reset", filter: Some("skbaddr != 0"), chain: Chain::WithoutReason, optional: false },
    Wanted { name: "tcp/tcp_send_reset", filter: Some("skbaddr == 0"), chain: Chain::Always, optional: false },
    Wanted { name: "tcp/tcp_receive_reset", filter: None, chain: Chain::Never, optional: false },
    Wanted {
        name: "sock/inet_sock_set_state",
        filter: Some("protocol == 6 && newstate == 7 && oldstate != 5 && oldstate != 9"),
        chain: Chain::Never,
        optional: false,
    },
    // Without an error it reports what lies in the error queue: timestamps, completed zero-copy sends.
    Wanted { name: ERRORS, filter: Some("protocol == 6 && error != 0"), chain: Chain::Never, optional: true },
    // SIGKILL to the threads of a process that ends by itself is delivered too, but nobody generated it.
    Wanted {
        name: "signal/signal_generate",
        filter: Some("sig == 6 || sig == 9 || sig == 15"),
        chain: Chain::Never,
        optional: true,
    },
    Wanted { name: "signal/signal_deliver", filter: Some(FATAL), chain: Chain::Never, optional: true },
];

const _: () = assert!(WANTED.len() <= perf::GROUP_MOST, "the counts of a group have room for all");

/// One of [`WANTED`] on one CPU.
#[derive(Debug)]
pub struct CpuEvent {
    /// By which records name it.
    pub id: u64,
    pub name: &'static str,
    /// Its records have the kernel's call chain.
    pub chain: bool,
    pub event: Event,
}

impl CpuEvent {
    /// The perf sample type of its records.
    pub fn sample_type(&self) -> u64 {
        sample_type(self.chain)
    }
}

#[derive(Debug)]
pub struct Cpu {
    pub number: u32,
    /// One group: the first one leads it, and has the ring.
    pub events: Vec<CpuEvent>,
    pub ring: PerfRing,
    /// Comm, fork, exit and namespace records, in a ring of their own: a fork storm cannot push out resets.
    pub side: Option<(Event, PerfRing)>,
    /// Records of events that the ring has given, and how many more were counted the last time they were compared.
    pub samples: u64,
    missing: u64,
}

impl Cpu {
    /// So many were counted, and more of them than before have no record, although none is under way.
    pub fn lacks(&mut self, counted: u64) -> bool {
        if !self.ring.is_empty() {
            return false;
        }
        let missing = counted.saturating_sub(self.samples);
        std::mem::replace(&mut self.missing, missing) < missing
    }

    /// What its events have counted, in their order; nothing where the kernel does not tell.
    pub fn counts(&self) -> Vec<(&CpuEvent, Count)> {
        let read = self.events.first().and_then(|leader| leader.event.counts().ok()).unwrap_or_default();
        let of = |event: &CpuEvent| read.iter().find(|count| count.id == event.id).copied();
        self.events.iter().filter_map(|event| Some((event, of(event)?))).collect()
    }

    pub fn all_events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().map(|event| &event.event).chain(self.side.as_ref().map(|(event, _)| event))
    }
}

/// Opens these tracepoints on every CPU that is online, not yet enabled.
///
/// # Errors
/// This user may not, or no ring finds room.
pub fn open_all(
    tracepoints: &[KnownTracepoint],
    details: Details,
    notes: &mut Vec<String>,
) -> Result<Vec<Cpu>, Failure> {
    let mut opened = Vec::new();
    for number in online() {
        match Opened::new(number, tracepoints, details, notes) {
            Ok(events) => opened.push(events),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(refused(&error)),
        }
    }
    if opened.is_empty() {
        return Err(Failure::new(FailureKind::Broken, "no CPU accepted the reset tracepoints"));
    }
    let rings = map_all(&opened, notes)?;
    opened
        .into_iter()
        .zip(rings)
        .map(|(opened, rings)| opened.with(rings))
        .collect::<io::Result<_>>()
        .map_err(|error| refused(&error))
}

/// The events of one CPU before they have rings.
struct Opened {
    number: u32,
    events: Vec<(&'static str, bool, Event)>,
    side: Option<Event>,
}

type Rings = (PerfRing, Option<PerfRing>);

impl Opened {
    fn new(
        number: u32,
        tracepoints: &[KnownTracepoint],
        details: Details,
        notes: &mut Vec<String>,
    ) -> io::Result<Self> {
        let mut events: Vec<(&'static str, bool, Event)> = Vec::new();
        for wanted in &WANTED {
            let Some(found) = tracepoints.iter().find(|found| found.name == wanted.name) else { continue };
            let chain = match wanted.chain {
                _ if details == Details::Few => false,
                Chain::Never => false,
                Chain::Always => true,
                Chain::WithoutReason => !found.reasons,
            };
            let leader = events.first().map(|(.., first)| first);
            let event = open(found.id, chain, number, leader)?;
            if let Some(filter) = wanted.filter {
                event.filter(filter)?;
            }
            events.push((wanted.name, chain, event));
        }
        let side = side_band(number)
            .inspect_err(|error| note(notes, format!("processes that started later have no name: {error}")));
        Ok(Self { number, events, side: side.ok() })
    }

    /// Rings of these sizes.
    fn map(&self, ring: usize, side: Option<usize>) -> io::Result<Rings> {
        let (.., first) = self.events.first().ok_or_else(|| io::Error::other("no tracepoint to open"))?;
        let side = self.side.as_ref().zip(side).map(|(event, size)| event.map(size)).transpose()?;
        Ok((first.map(ring)?, side))
    }

    fn with(self, (ring, side): Rings) -> io::Result<Cpu> {
        // Only now has the first one a ring to share.
        if let Some(((.., first), others)) = self.events.split_first() {
            others.iter().try_for_each(|(.., event)| event.output_to(first))?;
        }
        let named =
            |(name, chain, event): (&'static str, bool, Event)| Ok(CpuEvent { id: event.id()?, name, chain, event });
        let events = self.events.into_iter().map(named).collect::<io::Result<_>>()?;
        Ok(Cpu { number: self.number, events, ring, side: self.side.zip(side), samples: 0, missing: 0 })
    }
}

fn open(id: u64, chain: bool, cpu: u32, leader: Option<&Event>) -> io::Result<Event> {
    let mut attr = PerfEventAttr::new(perf::TYPE_TRACEPOINT, id).with(&[
        Flag::Disabled,
        Flag::UseClockid,
        Flag::ExcludeCallchainUser,
    ]);
    attr.sample_period = 1;
    attr.sample_type = sample_type(chain);
    attr.clockid = libc::CLOCK_MONOTONIC;
    attr.sample_max_stack = if chain { MAX_STACK } else { 0 };
    Event::in_group(attr, cpu, leader)
}

fn sample_type(chain: bool) -> u64 {
    SAMPLE | if chain { perf::SAMPLE_CALLCHAIN } else { 0 }
}

/// Comm, fork, exit and namespace records.
fn side_band(cpu: u32) -> io::Result<Event> {
    let mut attr = PerfEventAttr::new(perf::TYPE_SOFTWARE, perf::SW_DUMMY).with(&[
        Flag::Disabled,
        Flag::Comm,
        Flag::Task,
        Flag::SampleIdAll,
        Flag::UseClockid,
    ]);
    attr.clockid = libc::CLOCK_MONOTONIC;
    // Fork and exec of one process may stand in the rings of two CPUs: only the time tells their order.
    attr.sample_type = perf::SAMPLE_TIME;
    // PERF_RECORD_NAMESPACES came with 4.12, but needs CONFIG_NAMESPACES.
    Event::open(&attr.with(&[Flag::Namespaces]), cpu).or_else(|_| Event::open(&attr, cpu))
}

/// Rings of one size for all CPUs, as large as the limit of locked memory allows: the resets of a CPU without a ring would be
/// lost, however much room another one has.
fn map_all(opened: &[Opened], notes: &mut Vec<String>) -> Result<Vec<Rings>, Failure> {
    let most = (ALL_RINGS / opened.len().max(1)).clamp(MIN_RING, MAX_RING);
    let mut size = 1 << most.ilog2();
    let mut side = Some(SIDE_RING.min(size / 2));
    loop {
        match opened.iter().map(|cpu| cpu.map(size, side)).collect::<io::Result<Vec<_>>>() {
            Ok(rings) => {
                if size < SMALL_RING {
                    note(notes, format!("rings of only {size} bytes: a burst may be lost ({})", locked_memory()));
                }
                if side.is_none() {
                    note(notes, format!("processes that started later have no name ({})", locked_memory()));
                }
                return Ok(rings);
            }
            // Beyond kernel.perf_event_mlock_kb and RLIMIT_MEMLOCK (kernel/events/core.c perf_mmap).
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOMEM)) => {
                return Err(refused(&error));
            }
            Err(_) if size > MIN_RING => {
                size /= 2;
                side = Some(SIDE_RING.min(size / 2));
            }
            Err(_) if side.is_some() => side = None,
            Err(error) => {
                let text = format!("no room for the rings of the reset tracepoints: {error}; {}", locked_memory());
                return Err(Failure::new(FailureKind::Denied, text)
                    .needs("more locked memory: a higher `ulimit -l` or kernel.perf_event_mlock_kb, or CAP_IPC_LOCK"));
            }
        }
    }
}

/// How much may be locked, for a message.
fn locked_memory() -> String {
    let of_perf = std::fs::read_to_string("/proc/sys/kernel/perf_event_mlock_kb").unwrap_or_default();
    let limit = getrlimit(Resource::Memlock).current;
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
    format!("kernel.perf_event_mlock_kb is {} for each CPU, the limit of locked memory {limit}", of_perf.trim())
}

fn note(notes: &mut Vec<String>, text: String) {
    if notes.len() < 16 && !notes.contains(&text) {
        notes.push(text);
    }
}

/// What an error of perf events means for the one who asked.
pub fn refused(error: &io::Error) -> Failure {
    let text = format!("perf_event_open: {error}");
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            let capability = "CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8)";
            Failure::new(FailureKind::Denied, text).needs(needs::capability(capability))
        }
        Some(libc::ENOSYS) => Failure::new(FailureKind::Absent, text).needs("a kernel with CONFIG_PERF_EVENTS"),
        Some(libc::EMFILE) => {
            Failure::new(FailureKind::Broken, text).needs("a higher limit of open files (ulimit -n), eight per CPU")
        }
        _ => Failure::new(FailureKind::Broken, text),
    }
}

/// `0-3,8` as in /sys/devices/system/cpu/online.
fn online() -> Vec<u32> {
    const MAX_CPUS: u32 = 8192;
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_else(|_| "0".to_owned());
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some(low.parse::<u32>().ok()?..=high.parse::<u32>().ok()?.min(MAX_CPUS))
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}
