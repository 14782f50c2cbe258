//! A diagnosis of what a store holds of some time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};

use super::since::adapt;
use crate::command::known::faults::{Fault, Span, joined, times};
use crate::command::known::{Known, list, span};
use crate::diagnosis::filter::Filter;
use crate::diagnosis::node::diagnose_all;
use crate::diagnosis::{Diagnosis, Status};
use crate::input::{Part, Stored, Unread, missing, partial, parts, written_until};
use crate::kernel::clock;
use crate::observation::Input;
use crate::output::{note, say};
use crate::session::observe_from;
use crate::value::Stop;
use crate::value::escape::visible;

/// Of what is not over the latest ticks are judged, from so long ago to so long ago: the newest may not be written yet.
const LATEST: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(4));
/// Who asks about a time that is not longer asks about that, as a live scan would.
const MOMENT: Duration = Duration::from_secs(10);
/// What is worse than its moment shows was judged by the recorder with so much before it.
const BESIDE: Duration = Duration::from_secs(30);

/// A part of the time that is judged as one window.
struct Judged {
    part: Part,
    /// What it is not, or not all of.
    note: Option<String>,
}

/// Judges the times of the faults that the index tells of, as far as there is raw evidence, and where there is none of them each
/// part of the time; the worst is the answer, and the others are told.
///
/// # Errors
/// There is no store, or no raw evidence of that time, or of the worst of it: then what the index says.
pub fn judged(stored: &Stored, filter: &Filter, stop: &Stop) -> anyhow::Result<Diagnosis> {
    let (mut found, wrong) = parts(stored)?;
    wrong.iter().for_each(|unread| note(&unread.text));
    let now = clock::now().wall;
    if found.is_empty() && stored.until > now {
        found = latest(stored, now)?;
    }
    let known = Known::of(stored, filter)?;
    if found.is_empty() {
        known.problems.iter().for_each(|text| note(text));
        bail!("{}", known.instead(stored, !wrong.is_empty()));
    }
    let held: Vec<Span> = found.iter().map(span).collect();
    let (faults, unheld) = match filter.pid {
        // The index does not tell of single processes.
        Some(_) => Default::default(),
        None => (known.faults(stored), known.outside(stored, &held)),
    };
    let none = if wrong.is_empty() { "there is no raw evidence" } else { "there is no raw evidence that can be read" };
    let mut judged: Vec<(Part, Diagnosis)> = Vec::new();
    for Judged { mut part, note } in chosen(stored, found, &faults)? {
        let unheld = (!unheld.is_empty()).then(|| format!("{none} of {}", list(&unheld, stored)));
        let notes: Vec<String> = note.into_iter().chain(unheld).collect();
        part.opened.plan.covers.input = Input::Store;
        part.opened.plan.covers.status = (!notes.is_empty()).then(|| partial(notes.join("; ")));
        let observation = observe_from(&mut *part.opened.host, &part.opened.plan, part.from.mono)?;
        let diagnosis = diagnose_all(&observation, filter, &|| stop.load(Ordering::Relaxed));
        let Some(mut diagnosis) = diagnosis else { bail!("interrupted before there was a result") };
        adapt(&mut diagnosis, &observation, part.until);
        judged.push((part, diagnosis));
    }
    judged.sort_by_key(|(part, _)| part.from.wall);
    let worst = worst(&judged).context("no network namespace was recorded")?;
    let (part, diagnosis) = judged.get(worst).context("nothing was judged")?;
    let when = |part: &Part| stored.span(part.from.wall, part.until.wall);
    if let Some(fault) = unheld.iter().find(|fault| is_worse(fault, diagnosis.status)) {
        bail!(
            "{none} of the worst of {}: {}. Of {} there is some, and it says {}: {}. rstdoctor history tells more",
            stored.asked(),
            list(std::slice::from_ref(fault), stored),
            when(part),
            diagnosis.status.name().to_uppercase(),
            diagnosis.summary.trim_end_matches('.')
        );
    }
    // Of a moment one may have asked for one in which it paused.
    if !is_moment(stored) && diagnosis.status == Status::Ok && !faults.is_empty() {
        bail!(
            "the recorder's verdict of {} was {}. What raw evidence there is of {} shows nothing of it. rstdoctor history tells more",
            stored.asked(),
            list(&faults, stored),
            when(part)
        );
    }
    let hidden = |unread: &&Unread| is_moment(stored) || !known.tells_of(unread.from, unread.until);
    if let Some(unread) = wrong.iter().find(hidden).filter(|_| diagnosis.status == Status::Ok) {
        bail!(
            "{none} of {}, and nothing else is known of what was wrong then. Of {} there is some, and it says OK",
            stored.span(unread.from, unread.until),
            when(part)
        );
    }
    if judged.len() > 1 {
        note(&format!(
            "{} parts of that time were judged (scan --since and --until show each), and this is the worst:",
            judged.len()
        ));
        for (index, (part, diagnosis)) in judged.iter().enumerate() {
            let mark = if index == worst { ">" } else { " " };
            let verdict = diagnosis.status.name().to_uppercase();
            // What else it says is of a page that is not shown.
            let first = diagnosis.summary.split_once(". ").map_or(diagnosis.summary.as_str(), |(first, _)| first);
            say(visible(&format!("{mark} {}  {verdict}: {}", when(part), first.trim_end_matches('.'))));
        }
    }
    if let Some(failure) = part.opened.plan.covers.status.as_ref().and_then(|status| status.failure.as_ref()) {
        note(&failure.reason);
    }
    let shown: Vec<Span> = judged.iter().map(|(part, _)| span(part)).collect();
    let is_left =
        |fault: &&Fault| !unheld.contains(fault) && shown.iter().all(|span| fault.span.within(*span).is_none());
    let left: Vec<Fault> = faults.iter().filter(is_left).cloned().collect();
    if !left.is_empty() {
        note(&format!(
            "not judged, because there were so many, or so little of it is in that time: {}",
            list(&left, stored)
        ));
    }
    let within = span(part);
    let milder = faults.iter().filter(|fault| fault.span.within(within).is_some());
    let milder: Vec<Fault> = milder.filter(|fault| is_worse(fault, diagnosis.status)).cloned().collect();
    if !milder.is_empty() {
        note(&format!("the recorder's verdict was worse then: {}", list(&milder, stored)));
        if is_moment(stored) {
            let (since, until) = (stored.since.saturating_sub(BESIDE), stored.until.saturating_add(BESIDE));
            return self::judged(&stored.at(since, until), filter, stop);
        }
    }
    judged.into_iter().nth(worst).map(|(_, diagnosis)| diagnosis).context("nothing was judged")
}

fn is_worse(fault: &Fault, status: Status) -> bool {
    match status {
        Status::Critical => false,
        Status::Warning => fault.critical,
        Status::Unknown | Status::Ok => true,
    }
}

fn is_moment(stored: &Stored) -> bool {
    stored.until.saturating_sub(stored.since) <= MOMENT
}

/// What is unknown is worse than well, and no fault; of several the longest: a fault that was over soon after the beginning of what
/// was asked for is not what was meant.
fn worst(judged: &[(Part, Diagnosis)]) -> Option<usize> {
    let rank = |status| match status {
        Status::Critical => 0,
        Status::Warning => 1,
        Status::Unknown => 2,
        Status::Ok => 3,
    };
    let length = |part: &Part| std::cmp::Reverse(part.until.mono.saturating_sub(part.from.mono));
    let of = |(part, diagnosis): &(Part, Diagnosis)| (rank(diagnosis.status), length(part));
    (0..judged.len()).min_by_key(|index| judged.get(*index).map(of))
}

/// The parts as they are, or the times of the faults in them; without those in which there is only a rest of some.
fn chosen(stored: &Stored, found: Vec<Part>, faults: &[Fault]) -> anyhow::Result<Vec<Judged>> {
    let mut chosen = Vec::new();
    let now = written_until(stored)?;
    let faults = joined(faults);
    let of = |part: &Part| -> (Vec<Fault>, Vec<Fault>) {
        let (mut own, mut rests) = (Vec::new(), Vec::new());
        for fault in faults.iter().filter_map(|fault| fault.within(span(part))) {
            fault.map_or_else(|rest| rests.push(rest), |fault| own.push(fault));
        }
        (own, rests)
    };
    let any = !is_moment(stored) && found.iter().any(|part| !of(part).0.is_empty());
    for part in found {
        let (own, rests) = of(&part);
        let times = match is_moment(stored) {
            true => Vec::new(),
            false if any && own.is_empty() && !rests.is_empty() => continue,
            false if any => times(&own),
            false => times(&rests),
        };
        let before = chosen.len();
        for time in times {
            let parts = parts(&stored.at(time.from, time.until))?.0;
            chosen.extend(parts.into_iter().map(|part| {
                let when = stored.span(part.from.wall, part.until.wall);
                Judged { part, note: Some(format!("judged is {when}, the time of a fault within {}", stored.asked())) }
            }));
        }
        if chosen.len() == before {
            let note = missing(stored, part.from.wall, part.until.wall, part.cut, now);
            chosen.push(Judged { part, note });
        }
    }
    Ok(chosen)
}

/// What was recorded last, where the time that was asked for is not over.
fn latest(stored: &Stored, now: Duration) -> anyhow::Result<Vec<Part>> {
    let (since, until) = (now.saturating_sub(LATEST.0), now.saturating_sub(LATEST.1));
    let latest: Vec<Part> = parts(&stored.at(since, until))?.0.pop().into_iter().collect();
    if let Some(part) = latest.first() {
        let span = stored.span(part.from.wall, part.until.wall);
        say(format_args!("rstdoctor: {} is not recorded yet; the latest that is: {span}", stored.point(stored.since)));
    }
    Ok(latest)
}
