//! What is around the panes: who and when, the verdict, what to know about this tick, the latest things that happened, and
//! the keys.

use super::{BOLD, Buffer, DIM, HEAD, PLAIN, Rect, State, fit, put, wrap};
use crate::diagnosis::Diagnosis;
use crate::render::verdict::status;
use crate::render::watch::clock;
use crate::timeline::{Episode, Phase, Tick};
use crate::tui::keys::BINDINGS;
use crate::tui::rows;
use crate::tui::state::{Over, Playback};
use crate::value::words::{counted, seconds};

pub fn above(state: &State, buffer: &mut Buffer, area: Rect) {
    let line = |y: u16| Rect { y: area.y + y, height: 1, ..area };
    let time = clock(state.now());
    let width = usize::from(area.width);
    put(buffer, line(0), &fit(&header(state), width.saturating_sub(time.len() + 2), false), DIM);
    let right = Rect { x: area.width.saturating_sub(time.len() as u16), ..line(0) };
    put(buffer, right, &time, DIM);
    let Some(tick) = &state.run().tick else {
        let text = match &state.setup.playback {
            Some(_) => "The recording is being read.".to_owned(),
            None => format!("The first tick comes after {}.", seconds(state.interval)),
        };
        return put(buffer, line(1), &text, BOLD);
    };
    let top = top(tick);
    let word = status(tick.status);
    let text = match top {
        Some(episode) => format!("{}.", episode.latest.finding.sentence()),
        None => tick.sentence().to_owned(),
    };
    let indent = word.len() as u16 + 2;
    put(buffer, line(1), word, state.setup.glyphs.status(tick.status));
    let room = area.width - indent;
    let mut lines = wrap(&text, usize::from(room));
    if lines.len() > 2 {
        lines.truncate(2);
        lines[1].push_str(" …");
    }
    for (y, text) in (1..).zip(&lines) {
        put(buffer, Rect { x: area.x + indent, width: room, ..line(y) }, text, BOLD);
    }
    let style = if state.behind().is_some() { BOLD } else { PLAIN };
    put(buffer, line(3), &fit(&notes(state, tick, top).join(" · "), width, false), style);
    if let Some(text) = fix(state) {
        put(buffer, line(4), &fit(&text, width, false), BOLD);
    }
}

/// The first step against what is worst, where it fits on a line of its own.
pub fn fix(state: &State) -> Option<String> {
    let top = top(state.run().tick.as_ref()?)?;
    let first = top.latest.finding.remedies.first()?;
    state.over.is_none().then(|| format!("fix  {}  (Enter: how)", first.text))
}

fn header(state: &State) -> String {
    let tick = state.run().tick.as_deref();
    let diagnosis = tick.map(|tick| &tick.diagnosis);
    let parts = [
        Some("rstdoctor watch".to_owned()),
        diagnosis.and_then(|diagnosis| diagnosis.host.hostname.clone()),
        diagnosis.and_then(|diagnosis| diagnosis.netns_name.as_ref().map(|name| format!("netns {name}"))),
        diagnosis.filter(|d| !d.filter.is_empty()).map(|diagnosis| format!("only {}", diagnosis.filter)),
        Some(match &state.setup.playback {
            Some(playback) => playing(playback, tick, state.speed),
            None => format!("a tick every {}", seconds(state.interval)),
        }),
        diagnosis.and_then(|d| Some(uid(d.host.uid.filter(|uid| *uid != 0)?, d))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

/// How far a playback has come, and how fast it goes.
fn playing(playback: &Playback, tick: Option<&Tick>, speed: f64) -> String {
    let played = tick.map(|tick| tick.at.mono.saturating_sub(playback.started.mono)).unwrap_or_default();
    let whole = playback.length.as_secs_f64();
    format!("playing {:.0} of {whole:.0} s, {speed} x, {}", played.as_secs_f64().min(whole), playback.name)
}

/// An ordinary user may be told that all is well because much cannot be seen.
fn uid(uid: u32, diagnosis: &Diagnosis) -> String {
    match diagnosis.not_checked.iter().filter(|cause| cause.missing.needs.is_some()).count() {
        0 => format!("uid {uid}"),
        unchecked => format!("uid {uid}, {unchecked} unchecked"),
    }
}

/// The worst of what goes on and is wrong: the sentence belongs to the word before it.
fn top(tick: &Tick) -> Option<&Episode> {
    let alarms = tick.episodes.iter().filter(|episode| episode.phase != Phase::Ended && episode.is_alarm());
    alarms.min_by_key(|episode| episode.severity)
}

/// What has to be known to read this tick; the most urgent first.
fn notes(state: &State, tick: &Tick, top: Option<&Episode>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some((behind, latest)) = state.behind() {
        let changed = latest.filter(|latest| *latest != tick.status).map(|latest| format!(", now {}", status(latest)));
        let (at, changed) = (clock(tick.at), changed.unwrap_or_default());
        notes.push(format!("PAUSED at {at}, {} came since{changed} (p goes on)", counted(behind, "tick")));
    }
    match (state.ended, state.stopped) {
        (true, _) => notes.push("END of the recording: this is its last tick".to_owned()),
        (_, true) => notes.push("STOPPED (p goes on, Space steps)".to_owned()),
        _ => {}
    }
    if let Some(late) = tick.late {
        notes.push(format!("this tick came {} late", seconds(late)));
    }
    if let Some(episode) = top {
        if episode.phase == Phase::Quiet {
            notes.push(format!("not in this tick, last seen {} ago", rows::ago(state.now(), episode.last)));
        }
        let ago = rows::ago(state.now(), episode.since);
        notes.push(match episode.from_start {
            true => format!("for {ago} or longer"),
            false => format!("since {}, {ago} ago", clock(episode.since)),
        });
        let others = tick.episodes.iter().filter(|e| e.phase != Phase::Ended && e.is_alarm()).count() as u64 - 1;
        if others > 0 {
            // The filter may keep them out of sight.
            let where_ = if state.filter.is_empty() { " below" } else { "" };
            notes.push(format!("{others} more{where_}"));
        }
    }
    if let Some(left) = tick.learning {
        notes.push(format!("learning what is usual: {:.0} s left", left.as_secs_f64().ceil()));
    }
    if tick.sweep.age.as_secs() > 10 {
        notes.push(format!("sockets seen {} ago", seconds(tick.sweep.age)));
    }
    notes
}

/// What happened, the latest last, as much as there is room for.
pub fn strip(state: &State, buffer: &mut Buffer, area: Rect) {
    let inner = Rect { x: area.x + 2, width: area.width - 2, ..area };
    buffer.set_style(Rect { height: 1, ..inner }, HEAD);
    put(buffer, Rect { height: 1, ..inner }, "Latest changes", HEAD.patch(BOLD));
    let happened = &state.run().history.happened;
    let room = usize::from(area.height - 1);
    if happened.is_empty() && state.run().tick.is_some() {
        put(buffer, Rect { y: area.y + 1, height: 1, ..inner }, "none so far", DIM);
    }
    for (y, entry) in (area.y + 1..).zip(happened.iter().skip(happened.len().saturating_sub(room))) {
        let text = format!("{}  {:8}  {}", clock(entry.at), entry.word, entry.text);
        let style = if entry.fresh { BOLD } else { PLAIN };
        put(buffer, Rect { y, height: 1, ..inner }, &fit(&text, usize::from(inner.width), false), style);
    }
}

/// The keys, or what is open: `over` says how many lines that has, and how many are shown.
pub fn below(state: &State, buffer: &mut Buffer, area: Rect, over: Option<(usize, usize)>) {
    let hints = || {
        let hints = BINDINGS.iter().filter_map(|binding| {
            let key = binding.shown.split(' ').next()?;
            Some(format!("{key} {}", binding.hint?))
        });
        hints.collect::<Vec<_>>().join("  ")
    };
    let text = match (&state.message, &state.over) {
        _ if state.typing => format!("/{}_   a port or a process; Enter keeps it, Esc clears it", state.filter),
        (Some(message), _) => message.clone(),
        (None, Some((text, first))) => {
            let (lines, shown) = over.unwrap_or_default();
            let first = (*first).min(lines.saturating_sub(shown));
            let last = first + shown;
            let what = if *text == Over::Help { "help" } else { "cause" };
            format!("{what}, lines {}-{last} of {lines}   arrows PgUp PgDn scroll   Esc closes", first + 1)
        }
        (None, None) if !state.filter.is_empty() => {
            let kept = state.causes().len() as u64;
            format!("only {}: {} (Esc shows all)   {}", state.filter, counted(kept, "cause"), hints())
        }
        (None, None) => hints(),
    };
    put(buffer, area, &fit(&text, usize::from(area.width), false), DIM);
}
