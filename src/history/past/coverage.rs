//! Which parts of the time are known.

use std::collections::BTreeSet;

use super::{JOINS, Past, Span, Wanted};

/// A shorter time without an account is none: times are rounded, and shown by the second.
const SLIGHT: u64 = 1_000;

/// A time of which something is not known, and why where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub span: Span,
    pub why: Option<Why>,
}

/// Why something is not known although the recorder ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It was seen and could not be written: what the system said.
    NotWritten(String),
    /// It was written, and this file of the store cannot be read there.
    Unreadable(String),
    /// The recorder was killed, or the power went.
    CutOff,
}

impl Why {
    /// `could not be written: No space left on device`.
    pub fn words(&self) -> String {
        match self {
            Self::NotWritten(why) => format!("could not be written: {why}"),
            Self::Unreadable(file) => format!("was recorded, and cannot be read: {file}"),
            Self::CutOff => "was not recorded, because the recorder was killed or the power went".to_owned(),
        }
    }
}

impl Past {
    /// Says that something is wrong with the store; `lost`: a file, and the time of its entries that cannot be read.
    pub fn damaged(&mut self, text: String, lost: Option<(&str, Span)>) {
        self.problems.push(text);
        let gap = |(file, span): (&str, Span)| Gap { span, why: Some(Why::Unreadable(file.to_owned())) };
        self.flaws.extend(lost.map(gap));
    }

    /// The recorder had no time to say that it ends; its latest entry is from then.
    pub fn cut_off(&mut self, at: u64) {
        self.cuts.push(at);
    }

    /// Not all raw evidence of this time was kept.
    pub(super) fn raw_lost(&mut self, span: Span, why: String) {
        let Some(span) = self.wanted.clip(span) else { return };
        let why = Some(Why::NotWritten(why));
        match self.raw_missing.last_mut() {
            Some(last) if last.why == why && (last.span.from..=last.span.until).contains(&span.from) => {
                last.span.until = last.span.until.max(span.until);
            }
            _ => self.raw_missing.push(Gap { span, why }),
        }
    }

    /// Why something of the time could not be written, each reason once.
    pub fn not_written(&self) -> BTreeSet<&str> {
        let reasons = self.flaws.iter().chain(&self.raw_missing).filter_map(|flaw| match &flaw.why {
            Some(Why::NotWritten(why)) => Some(why.as_str()),
            _ => None,
        });
        reasons.collect()
    }

    pub(super) fn cover(&mut self, span: Span) {
        match self.covered.last_mut() {
            Some(last) if self.joined && span.from <= last.until.saturating_add(JOINS) && span.from >= last.from => {
                last.until = last.until.max(span.until);
            }
            _ => self.covered.push(span),
        }
        self.joined = true;
    }

    pub(super) fn settle_coverage(&mut self) {
        // Of a minute of which some could not be written the sum is known, and not what happened.
        for flaw in &self.flaws {
            self.covered = self.covered.iter().flat_map(|span| without(*span, flaw.span)).collect();
        }
        self.covered = self.covered.iter().filter_map(|span| self.wanted.clip(*span)).collect();
        self.covered.sort_by_key(|span| span.from);
        self.flaws = std::mem::take(&mut self.flaws)
            .into_iter()
            .filter_map(|flaw| Some(Gap { span: self.wanted.clip(flaw.span)?, ..flaw }))
            .collect();
        self.flaws.sort_by_key(|flaw| flaw.span.from);
        self.missing = self.gaps();
    }

    /// Which parts of the time were recorded, in the width of the rows.
    pub fn recorded(&self) -> Vec<bool> {
        let mut recorded = vec![false; self.buckets];
        for span in &self.covered {
            let (from, until) = (self.bucket(span.from), self.bucket(span.until.saturating_sub(1).max(span.from)));
            recorded.iter_mut().take(until + 1).skip(from).for_each(|part| *part = true);
        }
        recorded
    }

    /// Each with its reason: where one is known for a part of it only, that part is a gap of its own.
    fn gaps(&self) -> Vec<Gap> {
        let Wanted { since, until, .. } = self.wanted;
        let end = Span { from: until, until };
        let (mut gaps, mut at) = (Vec::new(), since);
        for span in self.covered.iter().chain([&end]) {
            if span.from > at.saturating_add(SLIGHT) {
                self.explain(Span { from: at, until: span.from }, &mut gaps);
            }
            at = at.max(span.until);
        }
        gaps
    }

    fn explain(&self, gap: Span, gaps: &mut Vec<Gap>) {
        let mut at = gap.from;
        let plain = |from: u64, until: u64, gaps: &mut Vec<Gap>| {
            let cut = self.cuts.iter().any(|cut| (from.saturating_sub(SLIGHT)..=until).contains(cut));
            if until > from.saturating_add(SLIGHT) {
                gaps.push(Gap { span: Span { from, until }, why: cut.then_some(Why::CutOff) });
            }
        };
        for flaw in &self.flaws {
            let span = Span { from: flaw.span.from.max(at), until: flaw.span.until.min(gap.until) };
            if span.from < span.until {
                plain(at, span.from, gaps);
                gaps.push(Gap { span, why: flaw.why.clone() });
                at = span.until;
            }
        }
        plain(at, gap.until, gaps);
    }
}

/// What is left of a time.
fn without(whole: Span, part: Span) -> impl Iterator<Item = Span> {
    let before = Span { from: whole.from, until: whole.until.min(part.from) };
    let after = Span { from: whole.from.max(part.until), until: whole.until };
    [before, after].into_iter().filter(|span| span.from < span.until)
}
