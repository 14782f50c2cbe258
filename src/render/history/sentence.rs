//! How bad it was, in one sentence.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Ending, Episode, Past, Row, total};
use crate::value::words::{amount, counted, thousands};

/// One sentence: how bad it was.
pub fn sentence(past: &Past) -> String {
    if let Some(process) = past.unknown_process() {
        return format!(
            "No process called {process:?} is known there: what was recorded of this time names those that served connections or had \
             to do with a fault."
        );
    }
    let all: Vec<&Episode> = past.episodes.iter().filter(|episode| episode.is_fault()).collect();
    let is_root =
        |episode: &&Episode| episode.root.and_then(|root| past.episodes.get(root)).is_none_or(|root| !root.is_fault());
    let faults: Vec<&Episode> = all.iter().copied().filter(is_root).collect();
    let following = (all.len() - faults.len()) as u64;
    let ended_so = |ending| faults.iter().filter(|episode| episode.ending == ending).count() as u64;
    let episodes = match (faults.len() as u64, ended_so(Ending::GoesOn), ended_so(Ending::NotSeen)) {
        (0, ..) if past.is_empty() => return nothing(past),
        (0, ..) if past.is_open() => {
            return "No fault has begun; what went well is counted by the minute, and this minute is not over."
                .to_owned();
        }
        (0, ..) => "No fault was found".to_owned(),
        (1, 0, 0) => "1 episode, over".to_owned(),
        (1, 1, _) => "1 episode, which goes on".to_owned(),
        (1, ..) => "1 episode, whose end was not seen".to_owned(),
        (all, on, unseen) => {
            let on = match on {
                0 if unseen == 0 => ", all over".to_owned(),
                0 => String::new(),
                1 => ", 1 of them goes on".to_owned(),
                on if on == all => ", all of them go on".to_owned(),
                on => format!(", {} of them go on", thousands(on)),
            };
            let unseen =
                if unseen > 0 { format!(", the end of {} was not seen", thousands(unseen)) } else { String::new() };
            format!("{}{on}{unseen}", counted(all, "episode"))
        }
    };
    let episodes = match (following, faults.len()) {
        (0, _) => episodes,
        (following, 1) => format!("{episodes}, and {following} that {} from it", follow(following)),
        (following, _) => format!("{episodes}, and {} that {} from them", thousands(following), follow(following)),
    };
    let unknown = match (past.account.unknown, past.account.ticks) {
        (0, _) => String::new(),
        (unknown, all) => format!(" In {} of {} looks too little was seen for a verdict.", unknown, all),
    };
    format!("{episodes}{}.{unknown}", harm(past, &faults))
}

fn follow(count: u64) -> &'static str {
    if count == 1 { "follows" } else { "follow" }
}

fn nothing(past: &Past) -> String {
    match past.missing.iter().find_map(|gap| gap.why.as_ref()) {
        Some(why) => format!("Nothing is known of this time: it {}.", why.words()),
        None => "Nothing was recorded of this time.".to_owned(),
    }
}

/// What became of connections at all services. Of one cause that is not known: a service fails in several ways.
fn harm(past: &Past, faults: &[&Episode]) -> String {
    let sum = |of: fn(&Row) -> Option<u64>| {
        let counts: Vec<u64> = past.services.iter().filter_map(of).filter(|count| *count > 0).collect();
        (total(&counts), counts.len() as u64)
    };
    let (failed, failing) = sum(|row| row.service.failures);
    let (lost, losing) = sum(|row| row.service.drops);
    if past.wanted.cause.is_some() {
        return String::new();
    }
    let failed = match failed {
        0 => String::new(),
        failed => format!("; {} failed at {}", counted(failed, "connection"), counted(failing, "service")),
    };
    let lost = match lost {
        0 => String::new(),
        1 => format!("; 1 attempt was lost at {}", counted(losing, "service")),
        lost => format!(
            "; up to {} attempts, retries included, were lost at {}",
            thousands(lost),
            counted(losing, "service")
        ),
    };
    format!("{failed}{lost}{}", elsewhere(past, faults))
}

/// What failed at places of which there is no row: a port that nobody listens on, or another host.
fn elsewhere(past: &Past, faults: &[&Episode]) -> String {
    let served: BTreeSet<_> =
        past.services.iter().map(|row| (row.service.place.port, &row.service.place.netns)).collect();
    let mut units: BTreeMap<&str, u64> = BTreeMap::new();
    for episode in faults {
        if episode.place.port.is_some() && !served.contains(&(episode.place.port, &episode.place.netns)) {
            *units.entry(&episode.unit).or_default() += episode.events;
        }
    }
    let units: Vec<_> =
        units.iter().filter(|(_, events)| **events > 0).map(|(unit, events)| amount(*events, unit)).collect();
    match units.is_empty() {
        true => String::new(),
        false => format!("; {} where no service of this host listens", units.join(" and ")),
    }
}
