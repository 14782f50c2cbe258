//! The reset tracepoints of this host, streamed as `source::reset_events` describes.
//!
//! Everything hangs on perf event descriptors, which vanish with the process however it ends; nothing is written to
//! tracefs. Two events on tcp_send_reset: resets by the socket itself come with the kernel call chain; answers to a segment, of
//! which there may be a flood, only where the kernel gives no reason for them.

use std::io;
use std::path::Path;
use std::time::Duration;

pub use super::cpu::Details;
use super::cpu::{self, Cpu, KnownTracepoint, WANTED, refused};
use super::namespace::Handle;
use super::scope::Scope;
use super::sys::PerfRing;
use super::{clock, needs, perf, trace_context, tracefs};
use crate::source::reset_events::format::Format;
use crate::source::reset_events::{FINAL, MAGIC, SETTLED_NS};
use crate::stream::{self, Kind, append, send};
use crate::value::{Failure, FailureKind};

type Sink<'a> = dyn FnMut(&[u8]) + 'a;

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

/// The open tracepoints.
pub struct Tracepoints {
    header: Vec<u8>,
    cpus: Vec<Cpu>,
    scope: Scope,
    /// CLOCK_MONOTONIC, ns.
    counts_read: u64,
    drained: u64,
    symbols_sent: bool,
    /// A count was higher than the records that had come.
    missing: bool,
}

impl Tracepoints {
    /// Opens them on every online CPU. The addresses of the network namespaces under observation tell which events belong to
    /// one of them.
    pub fn open(observed: Vec<Handle>, details: Details) -> Result<Self, Failure> {
        let (read, way) = tracefs::with(|root| read_formats(root, details))?;
        let (formats, mut notes) = read?;
        notes.extend(way.map(|way| format!("tracefs {way}")));
        let mut header = Vec::new();
        if !formats.iter().any(|(name, _, _)| name.starts_with("tcp/")) {
            return Err(Failure::new(FailureKind::Absent, "this kernel has no reset tracepoints")
                .needs("Linux 4.16 or later with CONFIG_TRACEPOINTS"));
        }
        let found = |(name, _, format): &Named| KnownTracepoint {
            name,
            id: format.id,
            reasons: format.field("reason").is_some(),
        };
        let tracepoints: Vec<_> = formats.iter().map(found).collect();
        let cpus = cpu::open_all(&tracepoints, details, &mut notes)?;
        let mut start = format!("{MAGIC}\nendian {}\n", if cfg!(target_endian = "big") { "big" } else { "little" });
        for cpu in &cpus {
            for event in &cpu.events {
                start.push_str(&format!(
                    "event {} {} {:#x} {}\n",
                    event.id,
                    cpu.number,
                    event.sample_type(),
                    event.name
                ));
            }
        }
        append(&mut header, Kind::Start, 0, start.as_bytes());
        for (_, text, _) in &formats {
            append(&mut header, Kind::Format, 0, text.as_bytes());
        }
        for note in notes {
            append(&mut header, Kind::Note, 0, note.as_bytes());
        }
        let scope = Scope::new(observed);
        scope.append(&mut header);
        // Enabled before the processes are listed, so that none falls between the list and the side-band.
        for event in cpus.iter().flat_map(Cpu::all_events) {
            event.enable().map_err(|error| refused(&error))?;
        }
        append(&mut header, Kind::Tasks, 0, trace_context::tasks().as_bytes());
        Ok(Self { header, cpus, scope, counts_read: 0, drained: 0, symbols_sent: false, missing: false })
    }

    /// From now on these network namespaces are under observation.
    pub fn observe(&mut self, observed: Vec<Handle>) {
        self.scope.observe(observed);
    }

    /// Everything that arrived since the previous call.
    pub fn drain(&mut self, wanted: Counts, sink: &mut Sink<'_>) -> Result<(), Failure> {
        const COUNTS_EVERY_NS: u64 = 900_000_000;
        let last = wanted == Counts::Final;
        let again = std::mem::take(&mut self.missing);
        if again && !last {
            // A record that is only late has come by then, and the reader can tell it from one that never comes.
            let since = clock::monotonic_and_boottime().0.saturating_sub(self.drained);
            std::thread::sleep(Duration::from_nanos(SETTLED_NS.saturating_sub(since)));
        }
        // Before the events end, which takes milliseconds: this is the time that the reader's counters belong to.
        let (mono, boot) = clock::monotonic_and_boottime();
        self.drained = mono;
        if last {
            self.stop().map_err(|error| refused(&error))?;
        }
        let header = std::mem::take(&mut self.header);
        if !header.is_empty() {
            sink(&header);
        }
        send(sink, Kind::Clock, 0, format!("{mono} {boot}").as_bytes());
        let seldom = mono.saturating_sub(self.counts_read) >= COUNTS_EVERY_NS;
        let count_all = wanted != Counts::Seldom || again || seldom;
        if count_all {
            self.counts_read = mono;
        }
        // The samples' end is fixed first: then the side-band and the addresses below are sure to know every process and
        // address in them.
        let heads: Vec<u64> = self.cpus.iter().map(|cpu| cpu.ring.head()).collect();
        self.scope.update(sink);
        let mut counts = String::new();
        let mut chains = false;
        let mut counted = vec![None; self.cpus.len()];
        for (cpu, counted) in self.cpus.iter_mut().zip(&mut counted) {
            if let Some((_, side)) = &mut cpu.side {
                let head = side.head();
                drain_ring(side, head, cpu.number, sink);
            }
            // Reading a count interrupts its CPU. Those without records are not spared for long: records can be missing.
            if cpu.ring.is_empty() && !count_all {
                continue;
            }
            for (event, count) in cpu.counts() {
                let sum: &mut u64 = counted.get_or_insert(0);
                *sum = sum.saturating_add(count.matching);
                chains |= event.chain && count.matching > 0;
                let lost = count.lost.map(|lost| format!(" {lost}")).unwrap_or_default();
                counts.push_str(&format!("{} {}{lost}\n", event.id, count.matching));
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
            cpu.samples += drain_ring(&mut cpu.ring, head, cpu.number, sink);
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
        for event in self.cpus.iter().flat_map(|cpu| &cpu.events) {
            event.event.disable()?;
        }
        std::thread::sleep(UNDER_WAY);
        Ok(())
    }

    /// Bytes mapped for rings.
    pub fn ring_bytes(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.ring.size() + cpu.side.as_ref().map_or(0, |(_, side)| side.size())).sum()
    }
}

type Named = (&'static str, String, Format);

/// The formats of the tracepoints that are wanted, and what is to be said of those that are not there.
fn read_formats(root: &Path, details: Details) -> Result<(Vec<Named>, Vec<String>), Failure> {
    let mut formats: Vec<Named> = Vec::new();
    let mut notes = Vec::new();
    for wanted in WANTED.iter().filter(|wanted| details.have(wanted)) {
        if formats.iter().any(|(name, ..)| *name == wanted.name) {
            continue;
        }
        match read_format(root, wanted.name) {
            Ok((text, format)) => formats.push((wanted.name, text, format)),
            Err(failure) if failure.kind == FailureKind::Denied => return Err(failure),
            Err(_) if wanted.optional => {}
            Err(failure) => notes.push(format!("{} {failure}", wanted.name)),
        }
    }
    Ok((formats, notes))
}

fn read_format(root: &Path, name: &str) -> Result<(String, Format), Failure> {
    let path = root.join("events").join(name).join("format");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let text = format!("{}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                Failure::new(FailureKind::Denied, text).needs(needs::capability(needs::events()))
            }
            io::ErrorKind::NotFound => Failure::new(FailureKind::Absent, "this kernel does not have the tracepoint"),
            _ => Failure::new(FailureKind::Broken, text),
        }
    })?;
    let format = Format::parse(&text).map_err(|error| Failure::new(FailureKind::Broken, error.to_string()))?;
    Ok((text, format))
}

/// How many of the records were samples.
fn drain_ring(ring: &mut PerfRing, head: u64, cpu: u32, sink: &mut Sink<'_>) -> u64 {
    let mut samples = 0;
    ring.drain(head, |first, second| {
        let length = first.len() + second.len();
        sink(&stream::head(Kind::Records, cpu as u16, length as u32));
        sink(first);
        if !second.is_empty() {
            sink(second);
        }
        samples = perf::samples(first, second);
    });
    samples
}
