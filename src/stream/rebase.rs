//! A stream that begins in the middle: what it said once and for all comes again, and its running totals count from there.

use std::collections::BTreeMap;

use super::{Blocks, Kind, append};

/// How a stream has to begin, to go on from some point: what it said that stays true, and what its running totals were.
#[derive(Clone, Default)]
pub struct StreamStart {
    blocks: Vec<(Kind, u16, Vec<u8>)>,
    /// In reset events the first number of a line is the event that it is about; otherwise a line is one number.
    totals: BTreeMap<String, Vec<u64>>,
}

impl StreamStart {
    /// Takes what the stream said next; it holds whole blocks.
    pub fn absorb(&mut self, stream: &[u8]) {
        blocks(stream, &mut |kind, cpu, payload| match kind {
            Kind::Records | Kind::Clock => {}
            Kind::Counts => {
                let lines = String::from_utf8_lossy(payload);
                self.totals.extend(lines.lines().map(numbers));
            }
            Kind::Scope | Kind::Tasks | Kind::Symbols => self.replace(kind, cpu, payload),
            Kind::Start | Kind::Format | Kind::Note => {
                if !self.blocks.iter().any(|(of, _, known)| *of == kind && known == payload) {
                    self.blocks.push((kind, cpu, payload.to_vec()));
                }
            }
        });
    }

    /// Takes the only block of its kind.
    pub fn replace(&mut self, kind: Kind, cpu: u16, payload: &[u8]) {
        self.blocks.retain(|(of, ..)| *of != kind);
        self.blocks.push((kind, cpu, payload.to_vec()));
    }

    /// The blocks with which the stream has to begin; none the second time.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.blocks).into_iter().map(as_bytes).collect()
    }

    /// Its running totals as a block; nothing where it has none.
    pub fn counts(&self) -> Option<Vec<u8>> {
        let words = |(name, numbers): (&String, &Vec<u64>)| {
            let name = Some(name.clone()).filter(|name| !name.is_empty());
            name.into_iter().chain(numbers.iter().map(u64::to_string)).collect::<Vec<_>>().join(" ") + "\n"
        };
        // A line of words says something else than a total.
        let lines: String = self.totals.iter().filter(|(_, numbers)| !numbers.is_empty()).map(words).collect();
        (!lines.is_empty()).then(|| as_bytes((Kind::Counts, 0, lines.into_bytes())))
    }

    /// What comes next, with its totals counted from here.
    pub fn rebased(&self, stream: &[u8]) -> Vec<u8> {
        self.shifted(stream, u64::saturating_sub)
    }

    /// What a stream says that began anew at this point, as if this one went on: its totals are added to those of this one.
    pub fn continued(&self, stream: &[u8]) -> Vec<u8> {
        self.shifted(stream, u64::saturating_add)
    }

    fn shifted(&self, stream: &[u8], shift: fn(u64, u64) -> u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(stream.len());
        blocks(stream, &mut |kind, cpu, payload| {
            if kind != Kind::Counts {
                return append(&mut out, kind, cpu, payload);
            }
            let text = String::from_utf8_lossy(payload);
            let rebased: String = text.split_inclusive('\n').map(|line| self.line(line, shift)).collect();
            append(&mut out, kind, cpu, rebased.as_bytes());
        });
        out
    }

    fn line(&self, whole: &str, shift: fn(u64, u64) -> u64) -> String {
        let line = whole.trim_end_matches('\n');
        let (name, numbers) = numbers(line);
        // A line of words says something else than a total.
        if numbers.is_empty() {
            return whole.to_owned();
        }
        let before = self.totals.get(&name);
        let since = numbers.iter().enumerate().map(|(index, number)| {
            let before = before.and_then(|before| before.get(index)).copied().unwrap_or(0);
            shift(*number, before).to_string()
        });
        let name = Some(name).filter(|name| !name.is_empty());
        name.into_iter().chain(since).collect::<Vec<_>>().join(" ") + &whole[line.len()..]
    }
}

fn as_bytes((kind, cpu, payload): (Kind, u16, Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, kind, cpu, &payload);
    out
}

/// What a line is about, and its totals.
fn numbers(line: &str) -> (String, Vec<u64>) {
    let words: Vec<&str> = line.split(' ').collect();
    let (name, rest) = if words.len() > 1 { (words[0], &words[1..]) } else { ("", &words[..]) };
    (name.to_owned(), rest.iter().map_while(|word| word.parse().ok()).collect())
}

/// Up to what is no block.
fn blocks(stream: &[u8], each: &mut dyn FnMut(Kind, u16, &[u8])) {
    let _ = Blocks::new("stream").feed(stream, &mut |kind, cpu, payload| {
        each(kind, cpu, payload);
        Ok(())
    });
}
