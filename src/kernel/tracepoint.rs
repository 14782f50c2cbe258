//! The reset tracepoints of this host, streamed as `source::reset_events` describes.
//!
//! Everything hangs on perf event descriptors, which vanish with the process however it ends; nothing is written to
//! tracefs. Two events on tcp_send_reset: answers to a segment come without, resets by the socket itself with the kernel
//! call chain, so that a flood of answers stays cheap.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::perf::{self, Attr, Event, Flag, Ring};
use super::trace_context;
use crate::source::reset_events::format::Format;
use crate::source::reset_events::{FINAL, MAGIC, SETTLED_NS};
use crate::stream::{self, Kind, append, send};
use crate::value::{Failure, FailureKind};

type Sink<'a> = dyn FnMut(&[u8]) + 'a;

/// All rings together, and the limits of one. 8 MiB hold about 64,000 records: 200 ms at 320,000 a second and CPU.
const ALL_RINGS: usize = 64 << 20;
const MAX_RING: usize = 8 << 20;
const MIN_RING: usize = 32 << 10;
const SIDE_RING: usize = 128 << 10;

const SAMPLE: u64 = perf::SAMPLE_IDENTIFIER | perf::SAMPLE_TID | perf::SAMPLE_TIME | perf::SAMPLE_RAW;
/// Frames kept of a call chain: do_exit() is about the twelfth.
const MAX_STACK: u16 = 24;

/// When a count of the kernel's is read. Each reading interrupts the CPU that it is of, so it is not done at each look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// About once a second, and with records.
    Seldom,
    /// A window ends: what was counted and brought no record is to be known.
    Now,
    /// And nothing is recorded after this, so that the counts are exactly those of the records, or of what was lost of them.
    Final,
}

struct Wanted {
    name: &'static str,
    filter: Option<&'static str>,
    chain: bool,
}

/// FIN_WAIT2 and LAST_ACK to CLOSE end every normal connection: a record of each would cost too much and say too little.
const WANTED: [Wanted; 4] = [
    Wanted { name: "tcp/tcp_send_reset", filter: Some("skbaddr != 0"), chain: false },
    Wanted { name: "tcp/tcp_send_reset", filter: Some("skbaddr == 0"), chain: true },
    Wanted { name: "tcp/tcp_receive_reset", filter: None, chain: false },
    Wanted {
        name: "sock/inet_sock_set_state",
        filter: Some("protocol == 6 && newstate == 7 && oldstate != 5 && oldstate != 9"),
        chain: false,
    },
];

/// The open tracepoints.
#[derive(Debug)]
pub struct Tracepoints {
    header: Vec<u8>,
    cpus: Vec<Cpu>,
    /// CLOCK_MONOTONIC, ns.
    addresses_read: u64,
    counts_read: u64,
    drained: u64,
    symbols_sent: bool,
    /// A count was higher than the records that had come.
    missing: bool,
}

#[derive(Debug)]
struct Cpu {
    number: u32,
    ring: Ring,
    /// Records of events that the ring has given, and how many more were counted the last time they were compared.
    samples: u64,
    missing: u64,
    side: Option<Ring>,
    events: Vec<(u64, bool, Event)>,
    /// Keeps the side-band alive.
    _dummy: Option<Event>,
}

impl Tracepoints {
    /// Opens them on every online CPU. The calling thread must be in the network namespace under observation: its inode
    /// and addresses tell which events belong there.
    pub fn open() -> Result<Self, Failure> {
        let root = tracefs()?;
        let mut header = Vec::new();
        let mut formats = Vec::new();
        let mut notes = Vec::new();
        for wanted in &WANTED {
            match formats.iter().any(|(name, _, _)| *name == wanted.name) {
                true => {}
                false => match read_format(&root, wanted.name) {
                    Ok((text, format)) => formats.push((wanted.name, text, format)),
                    Err(failure) if failure.kind == FailureKind::Denied => return Err(failure),
                    Err(failure) => notes.push(format!("{} {failure}", wanted.name)),
                },
            }
        }
        if !formats.iter().any(|(name, _, _)| name.starts_with("tcp/")) {
            return Err(Failure::new(FailureKind::Absent, "this kernel has no reset tracepoints")
                .needs("Linux 4.16 or later with CONFIG_TRACEPOINTS"));
        }
        let online = online_cpus();
        let ring = (ALL_RINGS / online.len().max(1)).clamp(MIN_RING, MAX_RING);
        let ring = 1 << ring.ilog2();
        let mut cpus = Vec::new();
        for number in online {
            match Cpu::open(number, &formats, ring, &mut notes) {
                Ok(cpu) => cpus.push(cpu),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(refused(&error)),
            }
        }
        if cpus.is_empty() {
            return Err(Failure::new(FailureKind::Broken, "no CPU accepted the reset tracepoints"));
        }
        let mut start = format!("{MAGIC}\nendian {}\n", if cfg!(target_endian = "big") { "big" } else { "little" });
        for cpu in &cpus {
            for ((id, chain, _), name) in cpu.events.iter().zip(cpu.names(&formats)) {
                let bits = SAMPLE | if *chain { perf::SAMPLE_CALLCHAIN } else { 0 };
                start.push_str(&format!("event {id} {} {bits:#x} {name}\n", cpu.number));
            }
        }
        append(&mut header, Kind::Start, 0, start.as_bytes());
        for (_, text, _) in &formats {
            append(&mut header, Kind::Format, 0, text.as_bytes());
        }
        for note in notes {
            append(&mut header, Kind::Note, 0, note.as_bytes());
        }
        append(&mut header, Kind::Scope, 0, trace_context::scope().as_bytes());
        // Enabled before the processes are listed, so that none falls between the list and the side-band.
        for event in cpus.iter().flat_map(|cpu| cpu.events.iter().map(|(_, _, e)| e).chain(&cpu._dummy)) {
            event.enable().map_err(|error| refused(&error))?;
        }
        append(&mut header, Kind::Tasks, 0, trace_context::tasks().as_bytes());
        Ok(Self {
            header,
            cpus,
            addresses_read: trace_context::clocks().0,
            counts_read: 0,
            drained: 0,
            symbols_sent: false,
            missing: false,
        })
    }

    /// Everything that arrived since the previous call.
    pub fn drain(&mut self, wanted: Counts, sink: &mut Sink<'_>) -> Result<(), Failure> {
        const ADDRESSES_EVERY_NS: u64 = 5_000_000_000;
        const COUNTS_EVERY_NS: u64 = 900_000_000;
        let last = wanted == Counts::Final;
        let again = std::mem::take(&mut self.missing);
        if again && !last {
            // A record that is only late has come by then, and the reader can tell it from one that never comes.
            let since = trace_context::clocks().0.saturating_sub(self.drained);
            std::thread::sleep(Duration::from_nanos(SETTLED_NS.saturating_sub(since)));
        }
        // Before the events end, which takes milliseconds: this is the time that the reader's counters belong to.
        let (mono, boot) = trace_context::clocks();
        self.drained = mono;
        if last {
            self.stop().map_err(|error| refused(&error))?;
        }
        let header = std::mem::take(&mut self.header);
        if !header.is_empty() {
            sink(&header);
        }
        send(sink, Kind::Clock, 0, format!("{mono} {boot}").as_bytes());
        if mono.saturating_sub(self.addresses_read) > ADDRESSES_EVERY_NS {
            self.addresses_read = mono;
            send(sink, Kind::Scope, 0, trace_context::scope().as_bytes());
        }
        let seldom = mono.saturating_sub(self.counts_read) >= COUNTS_EVERY_NS;
        let count_all = wanted != Counts::Seldom || again || seldom;
        if count_all {
            self.counts_read = mono;
        }
        // The samples' end is fixed first: then the side-band below is sure to know every process in them.
        let heads: Vec<u64> = self.cpus.iter().map(|cpu| cpu.ring.head()).collect();
        let mut counts = String::new();
        let mut chains = false;
        let mut counted = vec![None; self.cpus.len()];
        for (cpu, counted) in self.cpus.iter().zip(&mut counted) {
            if let Some(side) = &cpu.side {
                drain_ring(side, side.head(), cpu.number, sink);
            }
            // Reading a count interrupts its CPU. Those without records are not spared for long: records can be missing.
            if cpu.ring.is_empty() && !count_all {
                continue;
            }
            for (id, chain, event) in &cpu.events {
                if let Ok((count, lost)) = event.counts() {
                    *counted.get_or_insert(0) += count;
                    chains |= *chain && count > 0;
                    let lost = lost.map(|lost| format!(" {lost}")).unwrap_or_default();
                    counts.push_str(&format!("{id} {count}{lost}\n"));
                }
            }
        }
        // Reading kallsyms takes some 60 ms: only when there is an address to name.
        if chains && !self.symbols_sent {
            self.symbols_sent = true;
            match trace_context::symbols() {
                Ok(text) => send(sink, Kind::Symbols, 0, text.as_bytes()),
                Err(reason) => send(sink, Kind::Note, 0, format!("kallsyms {reason}").as_bytes()),
            }
        }
        for ((cpu, head), counted) in self.cpus.iter_mut().zip(heads).zip(counted) {
            cpu.samples += drain_ring(&cpu.ring, head, cpu.number, sink);
            self.missing |= counted.is_some_and(|counted| cpu.lacks(counted));
        }
        if last {
            counts.push_str(FINAL);
        }
        send(sink, Kind::Counts, 0, counts.as_bytes());
        Ok(())
    }

    fn stop(&self) -> io::Result<()> {
        /// The record of an event that was under way is written within this time.
        const UNDER_WAY: Duration = Duration::from_millis(1);
        for (_, _, event) in self.cpus.iter().flat_map(|cpu| &cpu.events) {
            event.disable()?;
        }
        std::thread::sleep(UNDER_WAY);
        Ok(())
    }

    /// Bytes mapped for rings.
    pub fn ring_bytes(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.ring.size() + cpu.side.as_ref().map_or(0, Ring::size)).sum()
    }
}

impl Cpu {
    /// So many were counted, and more of them than before have no record, although none is under way.
    fn lacks(&mut self, counted: u64) -> bool {
        if !self.ring.is_empty() {
            return false;
        }
        let missing = counted.saturating_sub(self.samples);
        std::mem::replace(&mut self.missing, missing) < missing
    }

    fn open(
        number: u32,
        formats: &[(&'static str, String, Format)],
        ring_size: usize,
        notes: &mut Vec<String>,
    ) -> io::Result<Self> {
        let mut events: Vec<(u64, bool, Event)> = Vec::new();
        let mut ring = None;
        for wanted in &WANTED {
            let Some((_, _, format)) = formats.iter().find(|(name, _, _)| *name == wanted.name) else { continue };
            let mut attr = Attr::new(perf::TYPE_TRACEPOINT, format.id).with(&[
                Flag::Disabled,
                Flag::UseClockid,
                Flag::ExcludeCallchainUser,
            ]);
            attr.sample_period = 1;
            attr.sample_type = SAMPLE | if wanted.chain { perf::SAMPLE_CALLCHAIN } else { 0 };
            attr.clockid = libc::CLOCK_MONOTONIC;
            attr.sample_max_stack = if wanted.chain { MAX_STACK } else { 0 };
            attr.read_format = perf::FORMAT_LOST;
            let event = Event::open(&attr, number).or_else(|error| match error.raw_os_error() {
                // Before 6.0.
                Some(libc::EINVAL) => {
                    attr.read_format = 0;
                    Event::open(&attr, number)
                }
                _ => Err(error),
            })?;
            if let Some(filter) = wanted.filter {
                event.filter(filter)?;
            }
            match events.first() {
                Some((_, _, first)) => event.output_to(first)?,
                None => ring = Some(map_largest(&event, ring_size, number, notes)?),
            }
            events.push((event.id()?, wanted.chain, event));
        }
        let ring = ring.ok_or_else(|| io::Error::other("no tracepoint to open"))?;
        let (side, dummy) = match side_band(number) {
            Ok((ring, event)) => (Some(ring), Some(event)),
            Err(error) => {
                note(notes, format!("processes those that started later have no name: {error}"));
                (None, None)
            }
        };
        Ok(Self { number, ring, samples: 0, missing: 0, side, events, _dummy: dummy })
    }

    /// Tracepoint name of each event, in the order opened.
    fn names(&self, formats: &[(&'static str, String, Format)]) -> impl Iterator<Item = &'static str> {
        let present: Vec<&'static str> = formats.iter().map(|(name, _, _)| *name).collect();
        WANTED.iter().map(|wanted| wanted.name).filter(move |name| present.contains(name))
    }
}

fn map_largest(event: &Event, mut size: usize, cpu: u32, notes: &mut Vec<String>) -> io::Result<Ring> {
    loop {
        match Ring::map(event, size) {
            // Locked memory beyond kernel.perf_event_mlock_kb needs CAP_IPC_LOCK.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && size / 2 >= MIN_RING => size /= 2,
            Err(error) => return Err(error),
            Ok(ring) => {
                if size < MIN_RING * 4 {
                    note(notes, format!("ring only {size} bytes for CPU {cpu}: a burst may be lost"));
                }
                return Ok(ring);
            }
        }
    }
}

/// Comm, fork, exit and namespace records, in a ring of their own: a fork storm cannot push out resets.
fn side_band(cpu: u32) -> io::Result<(Ring, Event)> {
    let mut attr = Attr::new(perf::TYPE_SOFTWARE, perf::SW_DUMMY).with(&[
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
    let event = Event::open(&attr.with(&[Flag::Namespaces]), cpu).or_else(|_| Event::open(&attr, cpu))?;
    Ok((Ring::map(&event, SIDE_RING).or_else(|_| Ring::map(&event, MIN_RING))?, event))
}

fn note(notes: &mut Vec<String>, text: String) {
    if notes.len() < 16 && !notes.contains(&text) {
        notes.push(text);
    }
}

/// Where tracefs is mounted; never mounts it.
fn tracefs() -> Result<PathBuf, Failure> {
    const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    const NEEDS: &str = "root and tracefs (mount -t tracefs tracefs /sys/kernel/tracing)";
    let mut denied = None;
    for place in PLACES.map(Path::new) {
        match std::fs::metadata(place.join("events")) {
            Ok(_) => return Ok(place.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied = Some(place),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(place) => Failure::new(FailureKind::Denied, format!("{} is not readable", place.display()))
            .needs("root (or CAP_PERFMON and a tracefs that this user may read)"),
        None => Failure::new(FailureKind::Absent, "tracefs is not mounted at /sys/kernel/tracing").needs(NEEDS),
    })
}

fn read_format(root: &Path, name: &str) -> Result<(String, Format), Failure> {
    let path = root.join("events").join(name).join("format");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let text = format!("{}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied => Failure::new(FailureKind::Denied, text)
                .needs("root (or CAP_PERFMON and a tracefs that this user may read)"),
            io::ErrorKind::NotFound => Failure::new(FailureKind::Absent, "this kernel does not have the tracepoint"),
            _ => Failure::new(FailureKind::Broken, text),
        }
    })?;
    let format = Format::parse(&text).map_err(|error| Failure::new(FailureKind::Broken, error.to_string()))?;
    Ok((text, format))
}

fn refused(error: &io::Error) -> Failure {
    let text = format!("perf_event_open: {error}");
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            Failure::new(FailureKind::Denied, text).needs("root or CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8)")
        }
        Some(libc::ENOSYS) => Failure::new(FailureKind::Absent, text).needs("a kernel with CONFIG_PERF_EVENTS"),
        Some(libc::EMFILE) => {
            Failure::new(FailureKind::Broken, text).needs("a higher limit of open files (ulimit -n), five per CPU")
        }
        _ => Failure::new(FailureKind::Broken, text),
    }
}

/// `0-3,8` as in /sys/devices/system/cpu/online.
fn online_cpus() -> Vec<u32> {
    const MAX_CPUS: u32 = 8192;
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_else(|_| "0".to_owned());
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some(low.parse::<u32>().ok()?..=high.parse::<u32>().ok()?.min(MAX_CPUS))
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// How many of the records were samples.
fn drain_ring(ring: &Ring, head: u64, cpu: u32, sink: &mut Sink<'_>) -> u64 {
    let mut samples = 0;
    ring.drain(head, |length, first, second| {
        sink(&stream::head(Kind::Records, cpu as u16, length as u32));
        sink(first);
        if !second.is_empty() {
            sink(second);
        }
        samples = perf::samples(first, second);
    });
    samples
}
