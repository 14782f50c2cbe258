//! What the live view looks like: pictures made of recordings, compared with those in tests/screens. Look at each by eye
//! before it is renewed with `RSTDOCTOR_UPDATE=1 cargo test --test it screens::`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use rstdoctor::diagnosis::filter::Filter;
use rstdoctor::evidence::ledger::Account;
use rstdoctor::observation::Observation;
use rstdoctor::recording::ReplayHost;
use rstdoctor::session::{Plan, Window, observe};
use rstdoctor::timeline::{Phase, Tick, Watch};
use rstdoctor::tui::{self, Event, Key, Playback, Setup, State};

const SIZES: [(u16, u16); 2] = [(80, 24), (160, 50)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What was recorded of a fault: `accept-queue-overflow/positive`.
fn recorded(name: &str) -> Observation {
    let mut host = ReplayHost::open(&root().join("fixtures").join(name).with_extension("rst")).expect("a recording");
    let window = host.windows().first().expect("a window").planned;
    observe(&mut host, &Plan::scan(window)).expect("an observation")
}

/// The observations one after the other, as ticks.
fn ticks(observations: &[&Observation]) -> Vec<Tick> {
    let mut watch = Watch::new(Filter::default());
    let mut at = observations.first().expect("one").view().expect("a namespace").before().at;
    // A clock that nobody minds.
    at.wall = Duration::from_secs(1_795_183_331);
    let of = |observation: &&Observation| {
        let mut observation = (*observation).clone();
        let length = observation.view().expect("a namespace").duration();
        let began = at;
        at.mono += length;
        at.wall += length;
        for netns in observation.netns.values_mut() {
            netns.before.at = began;
            (netns.after.at, netns.after.dumped) = (at, at);
        }
        let mut window = Window { observation, dumped: true, late: Duration::ZERO, interval: length };
        watch.tick(&mut window, &mut |_, _| None).expect("a namespace")
    };
    observations.iter().map(of).collect()
}

/// Two hosts' ticks as if it were one.
fn joined(first: Vec<Tick>, second: Vec<Tick>) -> Vec<Tick> {
    let add = |to: &mut Account, from: Account| {
        to.total = Ok(to.total.clone().unwrap_or(0) + from.total.unwrap_or(0));
        to.lines.extend(from.lines);
    };
    let both = |(mut tick, other): (Tick, Tick)| {
        let known: Vec<_> = tick.episodes.iter().map(|episode| episode.key.clone()).collect();
        tick.episodes.extend(other.episodes.into_iter().filter(|episode| !known.contains(&episode.key)));
        tick.events.extend(other.events.into_iter().filter(|event| !known.contains(&event.key)));
        tick.episodes.sort_by_key(|episode| (episode.phase == Phase::Ended, episode.severity));
        let (to, from) = (&mut tick.diagnosis, other.diagnosis);
        let ports: Vec<_> = to.listeners.iter().map(|row| row.port).collect();
        to.listeners.extend(from.listeners.into_iter().filter(|row| !ports.contains(&row.port)));
        add(&mut to.ledger.sent, from.ledger.sent);
        add(&mut to.ledger.received, from.ledger.received);
        add(&mut to.ledger.dropped, from.ledger.dropped);
        tick
    };
    first.into_iter().zip(second).map(both).collect()
}

fn state(ticks: Vec<Tick>, size: (u16, u16), unicode: bool) -> State {
    let start = ticks.first().expect("a tick").at;
    let mut state = State::new(Setup::new(true, unicode, size, Duration::from_secs(2), None), start);
    for tick in ticks {
        state.update(Event::Tick(Box::new(tick)));
    }
    state
}

fn picture(state: &State) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, state.size.0, state.size.1));
    let _ = tui::draw(state, &mut buffer);
    buffer
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned() + "\n"
    };
    buffer.content.chunks(width).map(line).collect()
}

/// At both sizes, after some keys.
fn check(name: &str, ticks: &[Tick], keys: &[Key]) {
    for size in SIZES {
        let mut state = state(ticks.to_vec(), size, true);
        keys.iter().for_each(|key| assert_eq!(state.update(Event::Key(*key)), None));
        let found = text(&picture(&state));
        let file = root().join(format!("tests/screens/{name}-{}x{}.txt", size.0, size.1));
        if std::env::var_os("RSTDOCTOR_UPDATE").is_some() {
            fs::create_dir_all(file.parent().expect("a directory")).expect("tests/screens");
            fs::write(&file, found).expect("write the screen");
            continue;
        }
        let wanted = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            found == wanted,
            "{}: it now looks like this. If it is better: RSTDOCTOR_UPDATE=1 cargo test --test it screens::\n{found}",
            relative(&file)
        );
    }
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// Connections come and go, and a health check ends with RST: nothing is wrong.
const QUIET: &str = "health-check-resets/positive";

fn healthy() -> Vec<Tick> {
    let quiet = recorded(QUIET);
    ticks(&[&quiet; 12])
}

/// Quiet, and then a fault that goes on.
fn fault(name: &str, since: usize) -> Vec<Tick> {
    let quiet = recorded(QUIET);
    let fault = recorded(name);
    let row: Vec<_> = (0..20).map(|tick| if tick < since { &quiet } else { &fault }).collect();
    ticks(&row)
}

#[test]
fn healthy_host() {
    check("healthy", &healthy(), &[]);
}

#[test]
fn one_fault() {
    check("one-fault", &fault("accept-queue-overflow/positive", 12), &[]);
}

#[test]
fn several_faults() {
    let both = joined(fault("accept-queue-overflow/positive", 12), fault("close-with-unread-data/positive", 8));
    check("several-faults", &joined(both, fault("port-without-listener/positive", 16)), &[]);
}

#[test]
fn a_fault_that_ended() {
    let (quiet, fault) = (recorded(QUIET), recorded("accept-queue-overflow/positive"));
    let row: Vec<_> = (0..20).map(|tick| if (5..12).contains(&tick) { &fault } else { &quiet }).collect();
    check("ended", &ticks(&row), &[]);
}

#[test]
fn a_cause_opened() {
    check("cause-opened", &fault("accept-queue-overflow/positive", 12), &[Key::Enter]);
}

/// Without reset events, and without the names of other users' processes.
#[test]
fn unprivileged() {
    let quiet = "health-check-resets/degraded";
    let (mut quiet, mut fault) = (recorded(quiet), recorded("close-with-unread-data/degraded"));
    for observation in [&mut quiet, &mut fault] {
        observation.host.after.facts.uid = Some(1000);
    }
    let row: Vec<_> = (0..12).map(|tick| if tick < 3 { &quiet } else { &fault }).collect();
    check("unprivileged", &ticks(&row), &[Key::Char('5')]);
}

#[test]
fn help() {
    check("help", &healthy(), &[Key::Char('?')]);
}

#[test]
fn a_playback_says_how_far_it_has_come() {
    let ticks = healthy();
    let started = ticks[0].diagnosis.started;
    let length = ticks[11].at.mono - started.mono;
    let playback = Playback { name: "rstdoctor-web-3-20261120T140211Z.rst".to_owned(), started, length };
    let mut state = State::new(Setup::new(true, true, (80, 24), Duration::from_secs(2), Some(playback)), started);
    let seconds = |length: Duration| length.as_secs_f64().round();
    for tick in ticks {
        let expected =
            format!("playing {} of {} s, 1 x, rstdoctor-web-3-", seconds(tick.at.mono - started.mono), seconds(length));
        state.update(Event::Tick(Box::new(tick)));
        let text = text(&picture(&state));
        assert!(text.lines().next().is_some_and(|header| header.contains(&expected)), "{expected}:\n{text}");
    }
}

#[test]
fn an_ascii_terminal_gets_ascii_only() {
    for keys in [&[][..], &[Key::Enter], &[Key::Char('?')]] {
        let mut state = state(fault("accept-queue-overflow/positive", 12), (80, 24), false);
        keys.iter().for_each(|key| drop(state.update(Event::Key(*key))));
        let text = text(&picture(&state));
        assert!(text.is_ascii(), "{text}");
    }
}

#[test]
fn without_colour_the_same_words_are_there() {
    let ticks = fault("accept-queue-overflow/positive", 12);
    let coloured = picture(&state(ticks.clone(), (80, 24), true));
    assert!(coloured.content.iter().any(|cell| cell.fg != Color::Reset));
    let setup = Setup::new(false, true, (80, 24), Duration::from_secs(2), None);
    let mut plain = State::new(setup, ticks[0].at);
    ticks.into_iter().for_each(|tick| drop(plain.update(Event::Tick(Box::new(tick)))));
    let plain = picture(&plain);
    assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert_eq!(text(&plain), text(&coloured));
}

/// Whatever the size, nothing panics, and a person can read what is wrong or that it is too small.
#[test]
fn every_size_can_be_drawn() {
    let ticks = fault("accept-queue-overflow/positive", 12);
    for keys in [&[][..], &[Key::Enter], &[Key::Char('5')]] {
        let mut state = state(ticks.clone(), (80, 24), true);
        keys.iter().for_each(|key| drop(state.update(Event::Key(*key))));
        for (width, height) in (0..200).step_by(7).flat_map(|w| (0..70).step_by(3).map(move |h| (w, h))) {
            state.update(Event::Resize(width, height));
            let text = text(&picture_of(&state, width, height));
            let says = text.contains("CRITICAL") || text.contains("too small") || width < 60 || height == 0;
            assert!(says, "{width} x {height}:\n{text}");
        }
    }
}

fn picture_of(state: &State, width: u16, height: u16) -> Buffer {
    if width == 0 || height == 0 {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        tui::draw(state, &mut buffer);
        return Buffer::empty(Rect::new(0, 0, 1, 1));
    }
    picture(state)
}
