//! What the index of a store knows of some time: what is said where there is no raw evidence of it.

use std::time::Duration;

use super::history::past;
use crate::cause::Severity;
use crate::diagnosis::Status;
use crate::diagnosis::filter::Filter;
use crate::history::{Gap, Past, Wanted, millis};
use crate::input::{Part, Stored};
use crate::kernel::clock;
use faults::{Fault, Span};

pub mod faults;

pub struct Known {
    past: Past,
    /// Files of the index that may tell more, and why they do not.
    pub problems: Vec<String>,
}

impl Known {
    /// # Errors
    /// There is no store, or it cannot be read.
    pub fn of(stored: &Stored, filter: &Filter) -> anyhow::Result<Self> {
        let wanted = Wanted {
            since: millis(stored.since),
            until: millis(stored.until),
            ports: filter.ports.clone(),
            process: filter.process.clone(),
            ..Wanted::default()
        };
        let (past, problems) = past(&stored.directory, wanted, 1)?;
        Ok(Self { past, problems })
    }

    /// The faults, as far as they lie in the time that was asked for.
    pub fn faults(&self, stored: &Stored) -> Vec<Fault> {
        let asked = Span { from: stored.since, until: stored.until };
        let faults = self.past.episodes.iter().filter(|episode| episode.is_fault());
        let of = |episode: &crate::history::Episode| {
            // The index cuts off what is less than a millisecond: a tick is not before its own time.
            let from = Duration::from_millis(episode.span.from.saturating_add(1));
            let until = Duration::from_millis(episode.span.until);
            let whole = Span { from, until };
            let place = &episode.place;
            Some(Fault {
                span: whole.within(asked)?,
                whole,
                critical: episode.severity == Severity::Critical,
                id: episode.id.clone(),
                listener: place.port.map(|port| (port, place.netns.clone())),
                what: format!("{} at {}", episode.id, episode.place.words()),
            })
        };
        faults.filter_map(of).collect()
    }

    /// Those of them that these times do not show.
    pub fn outside(&self, stored: &Stored, held: &[Span]) -> Vec<Fault> {
        self.faults(stored).into_iter().filter(|fault| !fault.span.is_shown_by(held)).collect()
    }

    /// All of this time is in the index.
    pub fn tells_of(&self, from: Duration, until: Duration) -> bool {
        let span = Span { from, until };
        let gap = |gap: &Gap| Span {
            from: Duration::from_millis(gap.span.from),
            until: Duration::from_millis(gap.span.until),
        };
        self.past.missing.iter().all(|own| gap(own).within(span).is_none())
    }

    /// What is known of a time without raw evidence. `unread`: files that may hold some cannot be read.
    pub fn instead(&self, stored: &Stored, unread: bool) -> String {
        let (span, past) = (stored.asked(), &self.past);
        if past.account.status.is_none() && stored.until > clock::now().wall {
            return format!("{span} is not recorded yet; a tick is once its window is over");
        }
        let lost = past.not_written().into_iter().collect::<Vec<_>>().join("; ");
        if past.is_empty() {
            return match (unread, !self.problems.is_empty(), lost.is_empty()) {
                (true, ..) => format!("nothing that can be read was recorded of {span}"),
                (_, true, _) => format!("there is no raw evidence of {span}, and not all of the index can be read"),
                (_, _, false) => format!("what happened in {span} could not be written: {lost}"),
                _ => format!("nothing was recorded of {span}"),
            };
        }
        let why = match (unread, lost.is_empty()) {
            (true, _) => format!("there is no raw evidence of {span} that can be read"),
            (false, false) => format!("there is no raw evidence of {span}, of which not all could be written: {lost}"),
            (false, true) => format!("there is no raw evidence of {span}"),
        };
        let faults = self.faults(stored);
        match past.account.status {
            // It is by ticks and minutes, and a fault may have been there in a part of one only.
            Some(status) if faults.is_empty() && status == Status::Ok => {
                format!("{why}, which is kept around faults and at most once an hour; the verdict then was OK")
            }
            None if faults.is_empty() => {
                format!("{why}, and no verdict is stored: where nothing is wrong one is once a minute")
            }
            status => {
                let status = status.map_or("unknown", Status::name).to_uppercase();
                let faults = if faults.is_empty() { String::new() } else { format!(" ({})", list(&faults, stored)) };
                format!("{why}; the verdict then was {status}{faults}. rstdoctor history tells more")
            }
        }
    }
}

/// The time of which there is raw evidence.
pub fn span(part: &Part) -> Span {
    Span { from: part.from.wall, until: part.until.wall }
}

/// Faults and when they were, the first of them.
pub fn list(faults: &[Fault], stored: &Stored) -> String {
    const MOST: usize = 5;
    let each = faults.iter().take(MOST).map(|fault| {
        let word = if fault.critical { "CRITICAL" } else { "WARNING" };
        format!("{word} {}, {}", fault.what, stored.span(fault.span.from, fault.span.until))
    });
    let mut list: Vec<String> = each.collect();
    if faults.len() > MOST {
        list.push(format!("{} more", faults.len() - MOST));
    }
    list.join("; ")
}
