//! Connections that have something to tell, in bounded memory: the first with all that was seen of them, of the others what they
//! tell, by place, and how many they were.

use std::collections::{BTreeMap, VecDeque};

use super::around::Around;
use super::flow::Flow;
use super::flows::Told;
use super::reading::readings;
use super::story::{Alike, alike};

/// Kept with all that was seen of them, about 1.5 kB each.
const WHOLE: usize = 4_096;
/// With a second capture all connections are kept, to be joined.
pub(super) const WHOLE_OF_TWO: usize = 20_000;
/// What a client tries beside a connection is seen a moment later: so many wait for it.
const WAITING: usize = 1_024;
/// Stories and places that are told apart.
const ALIKE: usize = 512;
/// Of each, so many are kept whole.
const EXAMPLES: u64 = 3;

/// Those of a capture.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    whole: Vec<Flow>,
    waiting: VecDeque<Box<Flow>>,
    read: Vec<Told>,
    further: BTreeMap<Alike, u64>,
    /// Of one place and story more are kept whole than of another; how many of each.
    examples: BTreeMap<Alike, u64>,
    dropped: u64,
    /// Nothing is folded: another capture tells what each of them is.
    pub all: bool,
}

impl Kept {
    /// Takes a connection that will not be followed any more.
    pub fn take(&mut self, flow: Box<Flow>, around: &Around<'_>) {
        let most = if self.all { WHOLE_OF_TWO } else { WHOLE };
        if self.whole.len() < most {
            self.whole.push(*flow);
            return;
        }
        if self.all {
            self.dropped += 1;
            return;
        }
        self.waiting.push_back(flow);
        if self.waiting.len() > WAITING
            && let Some(first) = self.waiting.pop_front()
        {
            self.fold(first, around);
        }
    }

    fn fold(&mut self, flow: Box<Flow>, around: &Around<'_>) {
        let readings = readings(&flow, around);
        let key = readings.first().map(|reading| alike(&flow, reading));
        let room = |known: &BTreeMap<Alike, u64>, key: &Alike| known.len() < ALIKE || known.contains_key(key);
        if let Some(key) = key
            && room(&self.examples, &key)
        {
            let examples = self.examples.entry(key).or_default();
            if *examples < EXAMPLES {
                *examples += 1;
                self.read.push(Told { flow: *flow, readings });
                return;
            }
            *self.further.entry(key).or_default() += 1;
        }
        self.dropped += 1;
    }

    /// All that are kept, in the order in which they began; how many are not, and what those tell.
    pub fn finish(mut self, around: &Around<'_>) -> (Vec<Told>, u64, BTreeMap<Alike, u64>) {
        for flow in std::mem::take(&mut self.waiting) {
            self.fold(flow, around);
        }
        let mut told = self.read;
        told.extend(std::mem::take(&mut self.whole).into_iter().map(|flow| {
            let readings = readings(&flow, around);
            Told { flow, readings }
        }));
        told.sort_by_key(|told| told.flow.number);
        (told, self.dropped, self.further)
    }
}
