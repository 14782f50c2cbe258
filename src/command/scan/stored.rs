//! A diagnosis of what a store holds of some time.

use std::sync::atomic::Ordering;

use anyhow::{Context, bail};

use crate::command::history::{past, point};
use crate::diagnosis::filter::Filter;
use crate::diagnosis::node::diagnose_all;
use crate::diagnosis::{Diagnosis, Status};
use crate::history::{Wanted, millis};
use crate::input::{Part, Stored, parts};
use crate::output::say;
use crate::session::observe;
use crate::value::Stop;
use crate::value::escape::visible;

/// Judges each part of the time of which there is raw evidence; the worst is the answer, and the others are told.
///
/// # Errors
/// There is no store, or no raw evidence of that time: then what the index says of it.
pub fn judged(stored: &Stored, filter: &Filter, stop: &Stop) -> anyhow::Result<Diagnosis> {
    let (parts, wrong) = parts(stored)?;
    wrong.iter().for_each(|text| say(visible(&format!("rstdoctor: {text}"))));
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
    judged.into_iter().find(|(span, _)| *span == worst).map(|(_, diagnosis)| diagnosis).context("nothing was judged")
}

/// What is known of a time without raw evidence.
fn instead(stored: &Stored) -> anyhow::Result<String> {
    let wanted = Wanted { since: millis(stored.since), until: millis(stored.until), ..Wanted::default() };
    let (past, _) = past(&stored.directory, wanted, 1)?;
    let span = format!("{} to {}", point(stored.since), point(stored.until));
    if past.is_empty() {
        return Ok(format!("nothing was recorded of {span}"));
    }
    let verdict = past.account.status.map_or("unknown", Status::name).to_uppercase();
    let episodes: Vec<String> = past
        .episodes
        .iter()
        .filter(|episode| episode.is_fault())
        .map(|e| format!("{} at {}", e.id, e.place.words()))
        .collect();
    let what = if episodes.is_empty() { String::new() } else { format!(" ({})", episodes.join(", ")) };
    Ok(format!(
        "no raw evidence was kept of {span}, which is kept around faults and once an hour; the verdict then was {verdict}{what}. \
         rstdoctor history tells more"
    ))
}
