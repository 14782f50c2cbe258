//! What a recording may hold of a reset event. Of each record only the fields that are known remain; kernel addresses become numbers that tell
//! equal from different and inside a known function from outside, and nothing else.

use std::collections::HashMap;

use super::MAGIC;
use super::format::{Field, Format, Order};
use super::layout::Layout;
use super::record::{self, CONTEXT_MARKS};
use crate::ask::What;
use crate::source::pseudonyms::Pseudonyms;
use crate::source::redaction::{BlockRedaction, Redaction, Rule, note, plain, scope};
use crate::source::text::unescape;
use crate::stream::Kind;

pub const REDACTION: Rule = Rule {
    source: "reset events",
    asks: |what| *what == What::ResetEvents,
    redaction: Redaction::Stream(|| Box::<Events>::default()),
};
pub const TASKS: Rule = Rule::text("tasks", |what| *what == What::Tasks, |names, text| tasks(names, &text));

/// perf_event_open(2).
const RECORD_COMM: u32 = 3;
const RECORD_SAMPLE: u32 = 9;
/// LOST, EXIT, FORK, LOST_SAMPLES, NAMESPACES: numbers of processes and namespaces.
const NUMBERS_ONLY: [u32; 5] = [2, 4, 7, 13, 16];
const RECORD_HEAD: usize = 8;

/// What the blocks so far say about those that follow.
#[derive(Default)]
struct Events {
    order: Order,
    /// perf event id to tracepoint and sample type.
    events: HashMap<u64, (String, u64)>,
    layouts: HashMap<String, Layout>,
    /// Start, end and new start of the functions that are told apart.
    functions: Vec<(u64, u64, u64)>,
    /// Socket addresses in the order of appearance.
    sockets: HashMap<u64, u64>,
}

impl BlockRedaction for Events {
    fn block(&mut self, names: &mut Pseudonyms, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
        let text = || std::str::from_utf8(payload).ok();
        match kind {
            Kind::Start => self.start(text()?),
            Kind::Format => {
                let layout = Layout::new(Format::parse(text()?).ok()?);
                self.layouts.insert(layout.format.name.clone(), layout);
                Some(payload.to_vec())
            }
            Kind::Scope => scope(names, payload),
            Kind::Tasks => tasks(names, payload),
            Kind::Symbols => self.symbols(text()?),
            Kind::Clock | Kind::Counts => plain(payload),
            Kind::Note => note(payload),
            Kind::Records => self.records(names, payload),
        }
    }
}

impl Events {
    fn start(&mut self, text: &str) -> Option<Vec<u8>> {
        *self = Self::default();
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return None;
        }
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            match words.as_slice() {
                ["endian", "big"] => self.order = Order::Big,
                ["endian", "little"] => {}
                ["event", id, _cpu, bits, name] => {
                    let bits = u64::from_str_radix(bits.trim_start_matches("0x"), 16).ok()?;
                    let tracepoint = name.rsplit('/').next()?.to_owned();
                    self.events.insert(id.parse().ok()?, (tracepoint, bits));
                }
                _ => return None,
            }
        }
        Some(text.as_bytes().to_vec())
    }

    fn symbols(&mut self, text: &str) -> Option<Vec<u8>> {
        let mut out = String::new();
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split(' ');
            let number = |word: &str| u64::from_str_radix(word, 16).ok();
            let (start, end, name) = (number(words.next()?)?, number(words.next()?)?, words.next()?);
            let moved = (index as u64 + 1) << 32;
            let length = end.checked_sub(start).filter(|length| *length < 1 << 32)?;
            self.functions.push((start, end, moved));
            out.push_str(&format!("{moved:x} {:x} {name}\n", moved + length));
        }
        Some(out.into_bytes())
    }

    fn records(&mut self, names: &mut Pseudonyms, payload: &[u8]) -> Option<Vec<u8>> {
        let (mut rest, mut out) = (payload, Vec::with_capacity(payload.len()));
        while !rest.is_empty() {
            let kind = self.order.number(rest.get(..4)?)? as u32;
            let size = self.order.number(rest.get(6..RECORD_HEAD)?)? as usize;
            let (record, behind) = rest.split_at_checked(size).filter(|_| size > RECORD_HEAD)?;
            rest = behind;
            match kind {
                RECORD_COMM => out.extend(self.comm(names, record)?),
                RECORD_SAMPLE => {
                    let mut record = record.to_vec();
                    // A sample of an event that was not announced says nothing to anybody.
                    if self.sample(names, &mut record)? {
                        out.extend(record);
                    }
                }
                kind if NUMBERS_ONLY.contains(&kind) => out.extend_from_slice(record),
                _ => {}
            }
        }
        Some(out)
    }

    /// Head, pid, tid, the name with zeros up to a multiple of 8 bytes, the time.
    fn comm(&self, names: &mut Pseudonyms, record: &[u8]) -> Option<Vec<u8>> {
        const NAME: usize = RECORD_HEAD + 8;
        let name = record.get(NAME..)?.split(|byte| *byte == 0).next()?;
        let time = record.get(NAME + (name.len() + 1).next_multiple_of(8)..)?;
        let mut out = record.get(..NAME)?.to_vec();
        out.extend(names.process(name));
        out.resize((out.len() + 1).next_multiple_of(8), 0);
        out.extend_from_slice(time);
        let size = out.len() as u64;
        self.order.put(size, out.get_mut(6..RECORD_HEAD)?);
        Some(out)
    }

    /// Rewrites the call chain and the raw data. False for an event that is not known.
    fn sample(&mut self, names: &mut Pseudonyms, record: &mut [u8]) -> Option<bool> {
        const BODY: usize = RECORD_HEAD + 8;
        let id = self.order.number(record.get(RECORD_HEAD..BODY)?)?;
        let Some((tracepoint, sample_type)) = self.events.get(&id) else { return Some(false) };
        let Some(layout) = self.layouts.get(tracepoint) else { return Some(false) };
        let body = record.get(BODY..)?;
        let sample = record::sample(body, *sample_type, self.order)?;
        let place = |part: &[u8]| BODY + (part.as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
        let (chain, raw) = (place(sample.chain), place(sample.raw));
        let (chain, raw) = (chain..chain + sample.chain.len(), raw..raw + sample.raw.len());
        if !chain.is_empty() {
            for entry in record.get_mut(chain)?.chunks_exact_mut(8) {
                let address = self.order.number(entry)?;
                self.order.put(self.function(address), entry);
            }
        }
        let old = record.get(raw.clone())?.to_vec();
        let tail = record.get_mut(raw.start..)?;
        tail.fill(0);
        let new = tail.get_mut(..old.len())?;
        fields(layout, names, &mut self.sockets, self.order, &old, new)?;
        Some(true)
    }

    /// Where an address of a call chain lies in the functions that are told apart; 0 for anywhere else.
    fn function(&self, address: u64) -> u64 {
        if address >= CONTEXT_MARKS {
            return address;
        }
        // A return address lies behind the call.
        let inside = |(start, end, _): &&(u64, u64, u64)| (*start..*end).contains(&address.wrapping_sub(1));
        self.functions.iter().find(inside).map_or(0, |(start, _, moved)| moved + (address - start))
    }
}

/// Copies what is known of the raw data.
fn fields(
    layout: &Layout,
    names: &mut Pseudonyms,
    sockets: &mut HashMap<u64, u64>,
    order: Order,
    old: &[u8],
    new: &mut [u8],
) -> Option<()> {
    let keep = [
        layout.flags,
        layout.state,
        layout.old_state,
        layout.new_state,
        layout.reason,
        layout.error,
        layout.cookie,
        layout.signal,
        layout.code,
        layout.target,
        layout.sport,
        layout.dport,
    ];
    for field in keep.into_iter().flatten() {
        slot(new, field)?.copy_from_slice(field.bytes(old)?);
    }
    if let Some(field) = layout.skb {
        order.put(u64::from(field.number(old, order)? != 0), slot(new, field)?);
    }
    if let Some(field) = layout.sk {
        let address = field.number(old, order)?;
        let next = sockets.len() as u64 + 1;
        let number = if address == 0 { 0 } else { *sockets.entry(address).or_insert(next) };
        order.put(number, slot(new, field)?);
    }
    for field in [layout.saddr, layout.daddr, layout.saddr_v6, layout.daddr_v6].into_iter().flatten() {
        let (from, to) = (field.bytes(old)?, slot(new, field)?);
        if from.len() < 28 {
            to.copy_from_slice(from);
            names.octets(to)?;
            continue;
        }
        // struct sockaddr_in, sockaddr_in6: family and port, then the address.
        const AF_INET: u64 = 2;
        const AF_INET6: u64 = 10;
        to.get_mut(..4)?.copy_from_slice(from.get(..4)?);
        let address = match order.number(from.get(..2)?)? {
            AF_INET => 4..8,
            AF_INET6 => 8..24,
            _ => continue,
        };
        to.get_mut(address.clone())?.copy_from_slice(from.get(address.clone())?);
        names.octets(to.get_mut(address)?)?;
    }
    Some(())
}

fn slot(raw: &mut [u8], field: Field) -> Option<&mut [u8]> {
    raw.get_mut(field.offset..field.offset.checked_add(field.size)?)
}

/// `PID NETNS|- user|kernel COMM`.
fn tasks(names: &mut Pseudonyms, text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut out = Vec::with_capacity(text.len());
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        for _ in 0..3 {
            out.extend(plain(words.next()?.as_bytes())?);
            out.push(b' ');
        }
        out.extend(names.process(&unescape(words.next()?.as_bytes())));
        out.push(b'\n');
    }
    Some(out)
}
