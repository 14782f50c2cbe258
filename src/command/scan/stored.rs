//! A diagnosis of what a store holds of some time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::command::history::{past, point};
use crate::diagnosis::filter::Filter;
use crate::diagnosis::node::diagnose_all;
use crate::diagnosis::{Diagnosis, Status};
use crate::history::{Place, Wanted, millis};
use crate::input::{Part, Stored, parts};
use crate::kernel::clock;
use crate::output::say;
use crate::session::observe;
use crate::timeline::Key;
use crate::value::Stop;
use crate::value::escape::visible;

/// Of what is not over the latest ticks are judged, from so long ago to so long ago: the newest may not be written yet.
const LATEST: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(4));

/// Judges each part of the time of which there is raw evidence; the worst is the answer, and the others are told.
///
/// # Errors
/// There is no store, or no raw evidence of that time: then what the index says of it.
pub fn judged(stored: &Stored, filter: &Filter, stop: &Stop) -> anyhow::Result<Diagnosis> {
    let (mut parts, wrong) = parts(stored)?;
    wrong.iter().for_each(|text| say(visible(&format!("rstdoctor: {text}"))));
    let now = clock::now().wall;
    if parts.is_empty() && stored.until > now {
        parts = latest(stored, now)?;
    }
    if parts.is_empty() {
        bail!("{}", instead(stored)?);
    }
    let mut judged: Vec<(String, Diagnosis)> = Vec::new();
    for Part { from, until, mut opened } in parts {
        let observation = observe(&mut *opened.host, &opened.plan)?;
        let diagnosis = diagnose_all(&observation, filter, &|| stop.load(Ordering::Relaxed));
        let Some(diagnosis) = diagnosis else { bail!("interrupted before there was a result") };
        judged.push((format!("{} to {}", point(from.wall), point(until.wall)), diagnosis));
    }
    // What is unknown is worse than well, and no fault; of several the first.
    let rank = |(_, diagnosis): &&(String, Diagnosis)| match diagnosis.status {
        Status::Critical => 0,
        Status::Warning => 1,
        Status::Unknown => 2,
        Status::Ok => 3,
    };
    let worst =
        judged.iter().min_by_key(rank).map(|(span, _)| span.clone()).context("no network namespace was recorded")?;
    if judged.len() > 1 {
        say(format_args!(
            "rstdoctor: raw evidence was kept of {} parts of that time; this is the worst of them:",
            judged.len()
        ));
        for (span, diagnosis) in &judged {
            let mark = if *span == worst { ">" } else { " " };
            say(visible(&format!("{mark} {span}  {}: {}", diagnosis.status.name().to_uppercase(), diagnosis.summary)));
        }
    }
    let worst = judged.into_iter().find(|(span, _)| *span == worst).map(|(_, diagnosis)| diagnosis);
    let worst = worst.context("nothing was judged")?;
    if let Some(text) = began_later(stored, &worst)? {
        say(visible(&format!("rstdoctor: {text}")));
    }
    Ok(worst)
}

/// What was recorded last, where the time that was asked for is not over.
fn latest(stored: &Stored, now: Duration) -> anyhow::Result<Vec<Part>> {
    let (since, until) = (now.saturating_sub(LATEST.0), now.saturating_sub(LATEST.1));
    let latest: Vec<Part> = parts(&Stored { since, until, ..stored.clone() })?.0.pop().into_iter().collect();
    if let Some(part) = latest.first() {
        let span = format!("{} to {}", point(part.from.wall), point(part.until.wall));
        say(format_args!("rstdoctor: {} is not recorded yet; the latest that is: {span}", point(stored.since)));
    }
    Ok(latest)
}

/// What is judged ends at a tick that looked at all sockets, some time after the one that was asked for. That a cause which leads
/// the report began only then is known from the index.
fn began_later(stored: &Stored, diagnosis: &Diagnosis) -> anyhow::Result<Option<String>> {
    let Some(ranked) = diagnosis.causes.first() else { return Ok(None) };
    let place = Place::at(&Key::of(ranked).place, &ranked.finding, diagnosis);
    let end = diagnosis.started.wall.saturating_add(diagnosis.window);
    let wanted = Wanted {
        since: millis(diagnosis.started.wall),
        until: millis(end),
        cause: Some(ranked.id.to_owned()),
        ..Wanted::default()
    };
    let (past, _) = past(&stored.directory, wanted, 1)?;
    let own = past.episodes.iter().filter(|episode| episode.place.is_same(&place));
    let began = own.map(|episode| episode.span.from).min().filter(|from| *from >= millis(stored.until));
    Ok(began.map(|from| {
        format!(
            "{} at {} began at {}, after the time that was asked for; what is judged is {} to {}",
            ranked.id,
            place.words(),
            point(Duration::from_millis(from)),
            point(diagnosis.started.wall),
            point(end)
        )
    }))
}

/// What is known of a time without raw evidence.
fn instead(stored: &Stored) -> anyhow::Result<String> {
    let wanted = Wanted { since: millis(stored.since), until: millis(stored.until), ..Wanted::default() };
    let (past, _) = past(&stored.directory, wanted, 1)?;
    let span = format!("{} to {}", point(stored.since), point(stored.until));
    if past.account.status.is_none() && stored.until > clock::now().wall {
        return Ok(format!("{span} is not recorded yet; a tick is once its window is over"));
    }
    if past.is_empty() {
        return Ok(format!("nothing was recorded of {span}"));
    }
    let Some(status) = past.account.status else {
        return Ok(format!("no verdict of {span} is stored: where nothing is wrong one is once a minute"));
    };
    let verdict = status.name().to_uppercase();
    let episodes: Vec<String> = past
        .episodes
        .iter()
        .filter(|episode| episode.is_fault())
        .map(|e| format!("{} at {}", e.id, e.place.words()))
        .collect();
    let what = if episodes.is_empty() { String::new() } else { format!(" ({})", episodes.join(", ")) };
    Ok(format!(
        "no raw evidence was kept of {span}, which is kept around faults and at most once an hour; the verdict then was {verdict}{what}. \
         rstdoctor history tells more"
    ))
}
