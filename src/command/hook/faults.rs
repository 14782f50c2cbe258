//! Which faults the one behind the command knows of, and what is news to him: one fault is one page.
//!
//! What may follow from something else is held back for one tick, in which that is most often found. Who was told of it without
//! that is told when it is found later, and when what explained it is over and it goes on.

use std::collections::HashMap;

use crate::history::{Event, Root};
use crate::timeline::{Episode, Key, Phase, Tick, What};

/// What follows from a fault may end so many ticks after it.
const LINGERS: u32 = 3;

/// What is told.
pub struct Told {
    pub what: &'static str,
    pub event: Event,
}

/// By place; those that the ticks tell of.
#[derive(Default)]
pub struct Faults(HashMap<Key, Known>);

#[derive(Default)]
struct Known {
    /// How often it was told to have begun.
    times: u32,
    stage: Stage,
}

/// Of this time.
#[derive(Default)]
enum Stage {
    /// It is no fault so far, or over.
    #[default]
    Untold,
    /// It is told with the next tick.
    Held(Box<Event>),
    /// With what it follows from.
    Told(Option<Root>),
}

impl Faults {
    /// What is to be told with this tick, what follows from nothing first.
    pub fn take(&mut self, tick: &Tick) -> Vec<Told> {
        self.0.retain(|key, _| tick.episode(key).is_some());
        let mut told = Vec::new();
        for episode in &tick.episodes {
            let event = tick.events.iter().find(|event| event.key == episode.key && event.what != What::Eased);
            let event = event.and_then(|event| told_of(episode, event, tick));
            let begins = event.as_ref().is_some_and(|event| matches!(event.what, What::Appeared | What::Again));
            // What was there before this program was told by the one before it.
            let met = || match episode.faulted && !begins && (event.is_some() || episode.phase != Phase::Ended) {
                true => Known { times: episode.times, stage: Stage::Told(None) },
                false => Known::default(),
            };
            let known = self.0.entry(episode.key.clone()).or_insert_with(met);
            known.take(episode, event, tick, &mut told);
        }
        told.sort_by_key(|told| told.event.because_of.is_some());
        told
    }

    /// What is still held back, when there is no further tick.
    pub fn rest(&mut self) -> Vec<Told> {
        let mut rest = Vec::new();
        for known in self.0.values_mut() {
            if let Stage::Held(event) = std::mem::take(&mut known.stage) {
                known.begins(*event, &mut rest);
            }
        }
        rest
    }
}

impl Known {
    fn take(&mut self, episode: &Episode, event: Option<Event>, tick: &Tick, told: &mut Vec<Told>) {
        let root = root(episode, tick);
        let ends = event.as_ref().is_some_and(|event| event.what == What::Ended);
        let fault =
            event.filter(|event| ends || event.is_fault()).map(|event| Event { because_of: root.clone(), ..event });
        self.stage = match (std::mem::take(&mut self.stage), fault) {
            (Stage::Untold, Some(event)) if !ends && episode.may_yet_follow() => Stage::Held(Box::new(event)),
            (Stage::Untold, Some(event)) if !ends => self.begins(event, told),
            (Stage::Untold, _) => Stage::Untold,
            (Stage::Held(event), Some(ended)) if ends => {
                self.begins(Event { because_of: root, ..*event }, told);
                self.ends(ended, told)
            }
            (Stage::Held(_), Some(worse)) => self.begins(worse, told),
            (Stage::Held(event), None) => self.begins(Event { because_of: root, ..*event }, told),
            (Stage::Told(because_of), Some(ended)) if ends => self.ends(Event { because_of, ..ended }, told),
            (Stage::Told(_), Some(event)) => self.goes_on(event.what.name(), event, told),
            (Stage::Told(because_of), None) => {
                let what = match &because_of {
                    None if root.is_some() => "explained",
                    Some(_) if root.is_none() && outlives(episode, tick) => What::Worsened.name(),
                    _ => {
                        self.stage = Stage::Told(root.or(because_of));
                        return;
                    }
                };
                match told_of(episode, &episode.event(What::Worsened, tick.at), tick) {
                    Some(event) => self.goes_on(what, Event { because_of: root, ..event }, told),
                    None => Stage::Told(because_of),
                }
            }
        };
    }

    fn begins(&mut self, mut event: Event, told: &mut Vec<Told>) -> Stage {
        let what = if self.times == 0 { What::Appeared } else { What::Again };
        self.times = self.times.saturating_add(1);
        event.what = what;
        self.goes_on(what.name(), event, told)
    }

    fn goes_on(&self, what: &'static str, event: Event, told: &mut Vec<Told>) -> Stage {
        let stage = Stage::Told(event.because_of.clone());
        told.push(Told { what, event: Event { times: self.times, ..event } });
        stage
    }

    fn ends(&self, event: Event, told: &mut Vec<Told>) -> Stage {
        self.goes_on(What::Ended.name(), event, told);
        Stage::Untold
    }
}

/// What happened to it, with the events of this time.
fn told_of(episode: &Episode, event: &crate::timeline::Event, tick: &Tick) -> Option<Event> {
    let event = Event::of(event, tick)?;
    Some(Event { events: event.events.saturating_sub(episode.earlier), ..event })
}

/// What explains it, where that is told as well and is no milder: who is called for what follows from nothing misses nothing.
fn root(episode: &Episode, tick: &Tick) -> Option<Root> {
    let root = tick.episode(&episode.root.as_ref()?.key)?;
    let is_told = root.phase != Phase::Ended && root.is_alarm() && root.severity <= episode.severity;
    is_told.then(|| Root::of(episode, tick)).flatten()
}

/// It goes on, and what explained it has been over for longer than what follows takes to end.
fn outlives(episode: &Episode, tick: &Tick) -> bool {
    let root = episode.root.as_ref().and_then(|root| tick.episode(&root.key));
    let over = |root: &Episode| {
        root.phase == Phase::Ended && tick.at.mono.saturating_sub(root.last.mono) > tick.interval * LINGERS
    };
    episode.phase == Phase::Active && episode.is_alarm() && root.is_none_or(over)
}

#[cfg(test)]
mod tests;
