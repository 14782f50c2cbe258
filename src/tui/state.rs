//! What the screen shows, and how keys and ticks change it.

use std::path::PathBuf;
use std::time::Duration;

use super::glyphs::Glyphs;
use super::history::History;
use super::keys::{self, Key, Meaning};
use crate::diagnosis::Status;
use crate::render::json::rfc3339_seconds;
use crate::timeline::{self, Episode, Tick};
use crate::value::Moment;

/// What does not change while it runs.
#[derive(Debug, Clone)]
pub struct Setup {
    pub glyphs: Glyphs,
    /// The recording that is played; `None` for a live host.
    pub playback: Option<Playback>,
    pub size: (u16, u16),
    pub interval: Duration,
    /// The network namespace as it was asked for.
    pub netns: Option<String>,
}

impl Setup {
    pub fn new(colour: bool, unicode: bool, size: (u16, u16), interval: Duration, playback: Option<Playback>) -> Self {
        Self { glyphs: Glyphs { colour, unicode }, playback, size, interval, netns: None }
    }
}

/// A recording that is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Playback {
    /// Of its file.
    pub name: String,
    pub started: Moment,
    pub length: Duration,
}

#[derive(Debug)]
pub enum Event {
    Key(Key),
    Resize(u16, u16),
    Tick(Box<Tick>),
    /// What became of [`Order::Save`].
    Saved(String),
    /// The recording is at its end.
    Over,
    /// What the clock says, about once a second.
    Second(Moment),
}

/// What the state cannot do itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    Quit,
    Suspend,
    Redraw,
    Interval(Duration),
    Play(Play),
    Save(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Play {
    Stop,
    Go,
    /// One tick, and stop.
    Step,
    /// Times as fast as it was recorded.
    Speed(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    Causes,
    Ledger,
    Listeners,
    Sockets,
    Resets,
}

impl Pane {
    /// The orders that `s` goes through, the usual one first.
    pub fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Ledger => &["number in this run", "rate now", "first seen"],
            Self::Listeners => &["trouble in this run", "queue now", "port"],
            _ => &[],
        }
    }
}

impl Pane {
    pub const ALL: [Self; 5] = [Self::Causes, Self::Ledger, Self::Listeners, Self::Sockets, Self::Resets];
}

/// The latest tick and what came before.
#[derive(Debug, Clone, Default)]
pub struct Run {
    pub tick: Option<Box<Tick>>,
    pub history: History,
}

/// A text over the panes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    Cause(timeline::Key),
    Help,
}

/// What a picture had room for: keys move within that. What was not drawn yet has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Rows of each pane's content, `None` of one that was not drawn.
    pub rows: [Option<usize>; 5],
    /// Lines of the text over the panes, and how many are shown.
    pub over: Option<(usize, usize)>,
}

#[derive(Debug)]
pub struct State {
    pub setup: Setup,
    live: Run,
    /// What is shown instead while the picture is held still.
    held: Option<Box<Run>>,
    now: Moment,
    pub size: (u16, u16),
    pub focus: Pane,
    chosen: [usize; 5],
    drawn: Drawn,
    /// The chosen cause, wherever it moves.
    cause: Option<timeline::Key>,
    pub sorted: [usize; 5],
    pub over: Option<(Over, usize)>,
    pub filter: String,
    pub typing: bool,
    pub interval: Duration,
    pub speed: f64,
    /// A playback that was stopped.
    pub stopped: bool,
    pub ended: bool,
    pub message: Option<String>,
}

/// What + and - choose from.
const INTERVALS: [Duration; 7] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];
const SPEEDS: [f64; 8] = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0];
const LONGEST_FILTER: usize = 32;

impl State {
    pub fn new(setup: Setup, now: Moment) -> Self {
        Self {
            now,
            size: setup.size,
            interval: setup.interval,
            setup,
            live: Run::default(),
            held: None,
            focus: Pane::Causes,
            chosen: [0; 5],
            drawn: Drawn { rows: [None; 5], over: None },
            cause: None,
            sorted: [0; 5],
            over: None,
            filter: String::new(),
            typing: false,
            speed: 1.0,
            stopped: false,
            ended: false,
            message: None,
        }
    }

    /// What is shown.
    pub fn run(&self) -> &Run {
        self.held.as_deref().unwrap_or(&self.live)
    }

    /// The time that ages are counted to: with the picture it stands still.
    pub fn now(&self) -> Moment {
        let held = self.held.as_ref().and_then(|held| held.tick.as_ref());
        held.map_or(self.now, |tick| tick.at)
    }

    /// Ticks that came while the picture was held, and the verdict of the latest; `None` if it is not held.
    pub fn behind(&self) -> Option<(u64, Option<Status>)> {
        let number = |run: &Run| run.tick.as_ref().map_or(0, |tick| tick.number);
        let status = self.live.tick.as_ref().map(|tick| tick.status);
        self.held.as_ref().map(|held| (number(&self.live) - number(held), status))
    }

    /// Whether what was typed at `/` asks for a row of these ports and names. Digits are the beginning of a port while they are typed, and then the port.
    pub fn keeps(&self, ports: impl IntoIterator<Item = u16>, names: &[&str]) -> bool {
        let wanted = self.filter.trim().to_lowercase();
        if wanted.is_empty() {
            return true;
        }
        if wanted.bytes().all(|byte| byte.is_ascii_digit()) {
            let is_it = |port: u16| match self.typing {
                true => port.to_string().starts_with(&wanted),
                false => port.to_string() == wanted,
            };
            return ports.into_iter().any(is_it);
        }
        names.iter().any(|name| name.to_lowercase().contains(&wanted))
    }

    /// The episodes that the filter keeps, in the order in which a person reads them.
    pub fn causes(&self) -> Vec<&Episode> {
        let episodes = self.run().tick.as_ref().map_or(&[][..], |tick| &tick.episodes);
        episodes.iter().filter(|episode| self.is_kept(episode)).collect()
    }

    /// What has no port, like a limit of the whole host, concerns each of them.
    fn is_kept(&self, episode: &Episode) -> bool {
        let subjects = &episode.latest.finding.subjects;
        let ports: Vec<u16> = subjects.iter().filter_map(|subject| subject.port).collect();
        if ports.is_empty() && self.filter.trim().bytes().all(|byte| byte.is_ascii_digit()) {
            return true;
        }
        let mut names: Vec<&str> = subjects.iter().filter_map(|subject| subject.process.as_deref()).collect();
        names.push(episode.latest.title);
        self.keeps(ports, &names)
    }

    /// The row that is chosen in a pane of that many.
    pub fn chosen(&self, pane: Pane, rows: usize) -> usize {
        let by_key = match (pane, &self.cause) {
            (Pane::Causes, Some(key)) => self.causes().iter().position(|episode| episode.key == *key),
            _ => None,
        };
        by_key.unwrap_or(self.chosen[pane as usize]).min(rows.saturating_sub(1))
    }

    /// Takes what the latest picture had room for. What was chosen beyond an end is at the end.
    pub fn drawn(&mut self, drawn: Drawn) {
        self.drawn = drawn;
        for (chosen, rows) in self.chosen.iter_mut().zip(drawn.rows) {
            *chosen = rows.map_or(*chosen, |rows| (*chosen).min(rows.saturating_sub(1)));
        }
        if let (Some((_, at)), Some((lines, shown))) = (&mut self.over, drawn.over) {
            *at = (*at).min(lines.saturating_sub(shown));
        }
    }

    pub fn update(&mut self, event: Event) -> Option<Order> {
        match event {
            Event::Key(key) => return self.key(key),
            Event::Resize(columns, rows) => {
                self.size = (columns, rows);
            }
            Event::Tick(tick) => {
                if self.setup.playback.is_some() || tick.at.mono > self.now.mono {
                    self.now = tick.at;
                }
                self.live.history.tick(&tick);
                self.live.tick = Some(tick);
            }
            Event::Saved(text) => {
                self.live.history.note(self.now, text.clone());
                self.message = Some(text);
            }
            Event::Over => self.ended = true,
            Event::Second(now) if self.setup.playback.is_none() => self.now = now,
            Event::Second(_) => {}
        }
        None
    }

    fn key(&mut self, key: Key) -> Option<Order> {
        self.message = None;
        if self.typing && self.typed(key) {
            return None;
        }
        let meaning = keys::meaning(key)?;
        if let Some((over, _)) = &self.over {
            let help = *over == Over::Help;
            match meaning {
                Meaning::Up => self.scroll(|at, _| at.saturating_sub(1)),
                Meaning::Down => self.scroll(|at, _| at.saturating_add(1)),
                Meaning::PageUp => self.scroll(|at, page| at.saturating_sub(page)),
                Meaning::PageDown | Meaning::Step => self.scroll(|at, page| at.saturating_add(page)),
                Meaning::First => self.scroll(|_, _| 0),
                Meaning::Last => self.scroll(|_, _| usize::MAX),
                // The same key again closes, and so does q: it ends the program only from the panes.
                Meaning::Close | Meaning::Open => self.over = None,
                Meaning::Help if help => self.over = None,
                Meaning::Help => self.over = Some((Over::Help, 0)),
                Meaning::Quit if key == Key::Char('q') => self.over = None,
                Meaning::Quit | Meaning::Redraw | Meaning::Suspend | Meaning::Save | Meaning::More | Meaning::Less => {
                    return self.meant(meaning);
                }
                Meaning::Pause => return self.pause(),
                _ => {}
            }
            return None;
        }
        self.meant(meaning)
    }

    fn meant(&mut self, meaning: Meaning) -> Option<Order> {
        let page = usize::from(self.size.1 / 3).max(1);
        match meaning {
            Meaning::Quit => return Some(Order::Quit),
            Meaning::Suspend => return Some(Order::Suspend),
            Meaning::Redraw => return Some(Order::Redraw),
            Meaning::Help => self.over = Some((Over::Help, 0)),
            Meaning::Up => self.choose(|at| at.saturating_sub(1)),
            Meaning::Down => self.choose(|at| at.saturating_add(1)),
            Meaning::PageUp => self.choose(|at| at.saturating_sub(page)),
            Meaning::PageDown => self.choose(|at| at.saturating_add(page)),
            Meaning::First => self.choose(|_| 0),
            Meaning::Last => self.choose(|_| usize::MAX),
            Meaning::Open => self.open(),
            Meaning::Close => self.filter.clear(),
            Meaning::NextPane => self.focus = self.neighbour(1),
            Meaning::PreviousPane => self.focus = self.neighbour(Pane::ALL.len() - 1),
            Meaning::Pane(pane) => self.focus = pane,
            Meaning::Filter => self.typing = true,
            Meaning::Sort => self.sort(),
            Meaning::Pause => return self.pause(),
            Meaning::Step => return self.step(),
            Meaning::More => return self.change(1),
            Meaning::Less => return self.change(-1),
            Meaning::Save => return self.save(),
        }
        None
    }

    /// A key while the filter is typed. False if it means what it always means.
    fn typed(&mut self, key: Key) -> bool {
        match key {
            Key::Char(letter) if self.filter.chars().count() < LONGEST_FILTER => self.filter.push(letter),
            Key::Char(_) => {}
            Key::Backspace if self.filter.is_empty() => self.typing = false,
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.filter.clear();
            }
            _ => return false,
        }
        true
    }

    fn neighbour(&self, by: usize) -> Pane {
        Pane::ALL[(self.focus as usize + by) % Pane::ALL.len()]
    }

    fn choose(&mut self, to: impl Fn(usize) -> usize) {
        // The causes are known by themselves; how many rows the others have depends on their width.
        let rows = match self.focus {
            Pane::Causes => self.causes().len(),
            pane => self.drawn.rows[pane as usize].unwrap_or(usize::MAX),
        };
        let chosen = to(self.chosen(self.focus, rows)).min(rows.saturating_sub(1));
        self.chosen[self.focus as usize] = chosen;
        if self.focus == Pane::Causes {
            self.cause = self.causes().get(chosen).map(|episode| episode.key.clone());
        }
    }

    fn open(&mut self) {
        let causes = self.causes();
        match causes.get(self.chosen(Pane::Causes, causes.len())) {
            Some(episode) => self.over = Some((Over::Cause(episode.key.clone()), 0)),
            None if self.filter.is_empty() => {
                self.message = Some("no cause was found, so there is none to open".to_owned());
            }
            None => self.message = Some("no cause of this port or process: Esc shows all".to_owned()),
        }
    }

    fn scroll(&mut self, to: impl Fn(usize, usize) -> usize) {
        let last = self.drawn.over.map_or(usize::MAX, |(lines, shown)| lines.saturating_sub(shown));
        let page = self.drawn.over.map_or(1, |(_, shown)| shown.saturating_sub(1).max(1));
        if let Some((_, at)) = &mut self.over {
            *at = to(*at, page).min(last);
        }
    }

    fn sort(&mut self) {
        let names = self.focus.orders();
        if names.is_empty() {
            self.message = Some("s sorts the listeners (3) and the resets by reason (2)".to_owned());
            return;
        }
        let sorted = &mut self.sorted[self.focus as usize];
        *sorted = (*sorted + 1) % names.len();
    }

    fn pause(&mut self) -> Option<Order> {
        if self.setup.playback.is_some() {
            self.stopped = !self.stopped;
            return Some(Order::Play(if self.stopped { Play::Stop } else { Play::Go }));
        }
        self.held = match self.held.take() {
            Some(_) => None,
            None => Some(Box::new(self.live.clone())),
        };
        None
    }

    fn step(&mut self) -> Option<Order> {
        if self.setup.playback.is_none() {
            self.message = Some("steps are for a playback (watch --from); p holds the picture".to_owned());
            return None;
        }
        self.stopped = true;
        Some(Order::Play(Play::Step))
    }

    fn change(&mut self, by: isize) -> Option<Order> {
        if self.setup.playback.is_some() {
            self.speed = next(&SPEEDS, self.speed, by);
            return Some(Order::Play(Play::Speed(self.speed)));
        }
        self.interval = next(&INTERVALS, self.interval, by);
        Some(Order::Interval(self.interval))
    }

    fn save(&mut self) -> Option<Order> {
        if self.setup.playback.is_some() {
            self.message = Some("this is a recording already".to_owned());
            return None;
        }
        self.message = Some("a recording of the last minutes is written with the next tick".to_owned());
        Some(Order::Save(self.name()))
    }

    /// `rstdoctor-web-3-20261120T140211Z.rst`; of the host's name, what no shell and no directory minds.
    fn name(&self) -> PathBuf {
        let host = self.live.tick.as_ref().and_then(|tick| tick.diagnosis.host.hostname.clone()).unwrap_or_default();
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
        let time: String = rfc3339_seconds(self.now.wall).chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        PathBuf::from(if host.is_empty() {
            format!("rstdoctor-{time}.rst")
        } else {
            format!("rstdoctor-{host}-{time}.rst")
        })
    }
}

/// The neighbour of a value that need not be in the list.
fn next<T: Copy + PartialOrd>(list: &[T], value: T, by: isize) -> T {
    let found = if by > 0 {
        list.iter().find(|other| **other > value)
    } else {
        list.iter().rev().find(|other| **other < value)
    };
    found.copied().unwrap_or(value)
}

#[cfg(test)]
pub mod tests;
