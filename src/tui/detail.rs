//! The texts over the panes: a cause in full, and the help.

use super::keys::BINDINGS;
use super::rows::state_word;
use super::state::{Over, State};
use crate::cause;
use crate::render::block::{self, About, Detail, Root};
use crate::render::layout::Page;
use crate::render::markdown;
use crate::render::watch::{clock, ordinal};
use crate::timeline::{Episode, Key, Phase};
use crate::value::words::{amount, percent, rate, seconds};

/// The lines of the text that is open, none if there is none.
pub fn lines(state: &State) -> Vec<String> {
    let mut page = Page::new(state.size.0.saturating_sub(2), false);
    match &state.over {
        None => return Vec::new(),
        Some((Over::Help, _)) => help(&mut page),
        Some((Over::Cause(key), _)) => {
            let episodes = state.run().tick.as_ref().map_or(&[][..], |tick| &tick.episodes);
            match episodes.iter().position(|episode| episode.key == *key) {
                Some(index) => cause(&mut page, episodes, index, state),
                None => page.line("This cause ended, and is no longer remembered."),
            }
        }
    }
    page.finish().lines().map(str::to_owned).collect()
}

/// Who, remedy and evidence of the worst cause that goes on, in brief.
pub fn first(state: &State, width: u16) -> Vec<String> {
    const BRIEF: Detail = Detail { remedies: 1, next_remedy: false, persist: true, lines: Some(6), whole_notes: true };
    let Some(tick) = &state.run().tick else { return Vec::new() };
    let alarms = tick.episodes.iter().filter(|episode| episode.phase != Phase::Ended && episode.is_alarm());
    let Some(worst) = alarms.min_by_key(|episode| episode.severity) else { return Vec::new() };
    let mut page = Page::new(width, false);
    block::title(&mut page, None, &worst.latest);
    let about = About::of(&tick.diagnosis, state.setup.netns.as_deref());
    block::body(&mut page, &worst.latest, None, &about, &BRIEF);
    page.finish().lines().map(str::to_owned).collect()
}

fn cause(page: &mut Page, episodes: &[Episode], index: usize, state: &State) {
    let Some(episode) = episodes.get(index) else { return };
    let ranked = &episode.latest;
    let sure = percent(ranked.finding.confidence);
    page.heading(&format!("{}  {}   {}, {sure} sure", index + 1, ranked.title, state_word(episode)));
    block::field(page, "what", &format!("{}.", ranked.finding.sentence()));
    block::field(page, "when", &when(episode, state));
    let root = ranked.because_of.and_then(|root| {
        let tick = state.run().tick.as_ref()?;
        let key = tick.diagnosis.causes.get(root.place).filter(|cause| cause.id == root.id).map(Key::of)?;
        let place = episodes.iter().position(|other| other.key == key && other.phase != Phase::Ended)?;
        Some(Root { number: Some(place + 1), title: episodes.get(place)?.latest.title })
    });
    let about = state
        .run()
        .tick
        .as_ref()
        .map(|tick| About::of(&tick.diagnosis, state.setup.netns.as_deref()))
        .unwrap_or_default();
    block::body(page, ranked, root, &about, &Detail::ALL);
    page.gap();
    if let Some(known) = cause::by_id(ranked.id) {
        markdown::title(page, &format!("About {}", known.title), known.id);
        page.gap();
        markdown::write(page, known.doc);
    }
}

fn when(episode: &Episode, state: &State) -> String {
    let impact = &episode.latest.finding.impact;
    let mut text = match (episode.phase, episode.from_start) {
        (Phase::Ended, _) => format!("from {} to {}, now ended", clock(episode.since), clock(episode.last)),
        (_, true) => format!("since before {}, when watching began", clock(episode.since)),
        (_, false) => {
            let ago = state.now().mono.saturating_sub(episode.since.mono);
            format!("since {}, {}", clock(episode.since), seconds(ago))
        }
    };
    if episode.times > 1 {
        text.push_str(&format!(", for the {} time", ordinal(episode.times)));
    }
    text.push_str(&format!(
        "; {} in all, now {} per s, at most {}",
        amount(episode.events, impact.unit),
        rate(if episode.phase == Phase::Active { impact.per_s } else { 0.0 }),
        rate(episode.peak_per_s)
    ));
    if let Some(usual) = episode.usual {
        text.push_str(&format!(", usual here {}", rate(usual.mean)));
    }
    text
}

fn help(page: &mut Page) {
    page.heading("Keys");
    for binding in BINDINGS {
        page.field(&format!("  {}", binding.shown), 22, binding.help);
    }
    page.gap();
    page.heading("What the screen says");
    for (label, text) in WORDS {
        page.field(&format!("  {label}"), 22, text);
    }
}

const WORDS: [(&str, &str); 11] = [
    ("since", "how long it has gone on; for what ended, how long ago that was"),
    ("unchecked", "causes that this user cannot see; run as root"),
    ("per s", "of the latest tick: what was lost, reset or refused each second"),
    ("over time", "one column for each tick, the latest on the right; a dot is none"),
    ("usual", "the rate that this run has learned, after a minute; more than chance explains makes it worse"),
    ("98 % sure", "how often such a finding was right in the lab"),
    ("quiet", "not in the latest tick, but it came and went before, so it is not called ended yet"),
    ("seen, harmless", "it explains numbers and is no alarm"),
    ("queue", "longest accept queue of the tick (Recv-Q) / its backlog (Send-Q)"),
    ("most", "longest accept queue of the run; lost ≤: connections lost in the run, at most"),
    ("unexplained", "counted by the kernel, and no reason is known"),
];
