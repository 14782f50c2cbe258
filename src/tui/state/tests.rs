//! What keys and ticks do.

use super::super::rows;
use super::*;
use crate::diagnosis::filter::Filter;
use crate::observation::testing::{Case, process};
use crate::timeline::Watch;
use crate::tui::detail;

/// The tick at this second: nginx on 8080 loses connections, redis on 6379 is well.
pub fn ticks(count: u64) -> Vec<Tick> {
    let mut watch = Watch::new(Filter::default());
    let tick = |second: u64| {
        let case = Case::new()
            .counter("Tcp.OutRsts", 10, 0)
            .counter("TcpExt.ListenOverflows", 2_000, 312)
            .counter("TcpExt.ListenDrops", 3_000, 312)
            .listener("0.0.0.0:8080", 511, 512, 60, &process(4121, "nginx"))
            .listener_drops(312)
            .queue(512, 512, 9)
            .listener("127.0.0.1:6379", 511, 0, 0, &process(800, "redis-server"));
        let length = case.view().duration();
        let case = case.later(length * u32::try_from(second).expect("a small number"));
        watch.tick(&mut case.window(true), &mut |_, _| None).expect("a namespace")
    };
    (0..count).map(tick).collect()
}

pub fn state(playback: bool) -> State {
    let playback = playback.then(|| Playback {
        name: "web.rst".to_owned(),
        started: Moment::default(),
        length: Duration::from_secs(30),
    });
    let setup = Setup::new(true, true, (80, 24), Duration::from_secs(2), playback);
    let mut state = State::new(setup, Moment::default());
    ticks(1).into_iter().for_each(|tick| assert_eq!(state.update(Event::Tick(Box::new(tick))), None));
    state
}

fn press(state: &mut State, keys: &str) -> Vec<Order> {
    keys.chars().filter_map(|letter| state.update(Event::Key(Key::Char(letter)))).collect()
}

/// As the screen does after every event.
fn draw(state: &mut State) {
    let (width, height) = state.size;
    let mut buffer = ratatui::buffer::Buffer::empty(ratatui::layout::Rect::new(0, 0, width, height));
    let drawn = crate::tui::draw(state, &mut buffer);
    state.drawn(drawn);
}

#[test]
fn q_and_control_c_end_it() {
    assert_eq!(press(&mut state(false), "q"), [Order::Quit]);
    assert_eq!(state(false).update(Event::Key(Key::Control('c'))), Some(Order::Quit));
}

#[test]
fn control_c_ends_it_while_a_filter_is_typed_or_a_text_is_open() {
    for keys in ["/ngi", "?"] {
        let mut state = state(false);
        press(&mut state, keys);
        assert_eq!(state.update(Event::Key(Key::Control('c'))), Some(Order::Quit), "{keys}");
    }
}

#[test]
fn q_in_an_open_text_closes_it_first() {
    let mut state = state(false);
    assert_eq!(press(&mut state, "?q"), []);
    assert_eq!(state.over, None);
    assert_eq!(press(&mut state, "q"), [Order::Quit]);
}

#[test]
fn enter_opens_the_chosen_cause_and_escape_closes_it() {
    let mut state = state(false);
    state.update(Event::Key(Key::Enter));
    let text = detail::lines(&state).join("\n");
    for part in ["Accept queue overflow", "fix", "verify", "because", "somaxconn", "What happens", "What to change"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    state.update(Event::Key(Key::Escape));
    assert_eq!(state.over, None);
}

#[test]
fn an_open_text_scrolls_to_its_end_and_not_beyond() {
    let mut state = state(false);
    state.update(Event::Key(Key::Enter));
    draw(&mut state);
    let at = |state: &State| state.over.as_ref().map(|(_, at)| *at);
    state.update(Event::Key(Key::End));
    draw(&mut state);
    let last = at(&state);
    assert!(last > Some(0) && last < Some(200), "{last:?}");
    press(&mut state, "jj");
    assert_eq!(at(&state), last);
    press(&mut state, "k");
    assert_eq!(at(&state), last.map(|last| last - 1));
    // A larger window shows more of it.
    state.update(Event::Resize(80, 200));
    draw(&mut state);
    assert_eq!(at(&state), Some(0));
}

#[test]
fn panes_are_chosen_by_number_and_in_turn() {
    let mut state = state(false);
    press(&mut state, "4");
    assert_eq!(state.focus, Pane::Sockets);
    for wanted in [Pane::Resets, Pane::Causes, Pane::Ledger] {
        state.update(Event::Key(Key::Tab));
        assert_eq!(state.focus, wanted);
    }
    state.update(Event::Key(Key::BackTab));
    assert_eq!(state.focus, Pane::Causes);
}

#[test]
fn a_filter_works_while_it_is_typed() {
    let mut state = state(false);
    let rows = |state: &State| rows::of(state, Pane::Listeners, 80).rows.len();
    assert_eq!(rows(&state), 2);
    press(&mut state, "/80");
    assert_eq!((rows(&state), state.causes().len()), (1, 1));
    press(&mut state, "81");
    assert_eq!((rows(&state), state.causes().len()), (0, 0));
    for _ in 0..4 {
        state.update(Event::Key(Key::Backspace));
    }
    press(&mut state, "REDIS");
    assert_eq!((rows(&state), state.causes().len()), (1, 0));
    // q is a letter here.
    assert_eq!(press(&mut state, "q"), []);
    state.update(Event::Key(Key::Escape));
    assert_eq!((rows(&state), state.typing), (2, false));
}

#[test]
fn enter_keeps_a_filter_and_escape_clears_it_later() {
    let mut state = state(false);
    press(&mut state, "/6379");
    state.update(Event::Key(Key::Enter));
    assert_eq!((state.typing, state.filter.as_str()), (false, "6379"));
    state.update(Event::Key(Key::Escape));
    assert_eq!(state.filter, "");
}

#[test]
fn a_held_picture_stays_while_ticks_are_counted() {
    let mut state = state(false);
    press(&mut state, "p");
    ticks(4).into_iter().skip(1).for_each(|tick| assert_eq!(state.update(Event::Tick(Box::new(tick))), None));
    let shown = |state: &State| state.run().tick.as_ref().map(|tick| tick.number);
    assert_eq!((shown(&state), state.behind().map(|(ticks, _)| ticks)), (Some(1), Some(3)));
    press(&mut state, "p");
    assert_eq!((shown(&state), state.behind()), (Some(4), None));
    assert_eq!(state.run().history.ledger.last().map(|lost| lost.total.run), Some(4 * 312), "none was missed");
}

#[test]
fn a_playback_is_stopped_stepped_and_hurried() {
    let mut state = state(true);
    let orders = press(&mut state, "p n+-p");
    let wanted = [Play::Stop, Play::Step, Play::Step, Play::Speed(2.0), Play::Speed(1.0), Play::Go];
    assert_eq!(orders, wanted.map(Order::Play));
    assert!(!state.stopped);
}

#[test]
fn a_live_view_has_no_steps_and_says_so() {
    let mut state = state(false);
    assert_eq!(press(&mut state, " "), []);
    assert!(state.message.is_some_and(|message| message.contains("playback")));
}

#[test]
fn the_interval_moves_between_its_bounds() {
    let mut state = state(false);
    let seconds = |orders: Vec<Order>| -> Vec<f64> {
        let interval = |order| match order {
            Order::Interval(interval) => interval.as_secs_f64(),
            other => panic!("{other:?}"),
        };
        orders.into_iter().map(interval).collect()
    };
    assert_eq!(seconds(press(&mut state, "++++++")), [5.0, 10.0, 30.0, 60.0, 60.0, 60.0]);
    assert_eq!(seconds(press(&mut state, "-------")), [30.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.5]);
}

#[test]
fn an_interval_of_its_own_moves_to_the_next_usual_one() {
    let setup = Setup::new(true, true, (80, 24), Duration::from_millis(1500), None);
    let mut state = State::new(setup, Moment::default());
    assert_eq!(press(&mut state, "+"), [Order::Interval(Duration::from_secs(2))]);
}

#[test]
fn a_recording_is_named_after_host_and_time() {
    let mut state = state(false);
    let [Order::Save(path)] = &press(&mut state, "w")[..] else { panic!("an order to save") };
    let name = path.to_string_lossy();
    assert!(name.starts_with("rstdoctor-") && name.ends_with("Z.rst") && !name.contains('/'), "{name}");
    state.update(Event::Saved("written".to_owned()));
    assert_eq!(state.message.as_deref(), Some("written"));
    press(&mut state, "j");
    assert_eq!(state.message, None, "the next key takes it away");
}

#[test]
fn a_hostile_host_name_makes_no_path() {
    let mut state = state(false);
    let mut tick = ticks(2).remove(1);
    tick.diagnosis.host.hostname = Some("../../etc/\x1b[31m;rm -rf".to_owned());
    state.update(Event::Tick(Box::new(tick)));
    let [Order::Save(path)] = &press(&mut state, "w")[..] else { panic!("an order to save") };
    assert_eq!(path.components().count(), 1, "{path:?}");
}

#[test]
fn listeners_are_sorted_in_turn() {
    let mut state = state(false);
    let first = |state: &State| rows::of(state, Pane::Listeners, 80).rows[0][0].text.clone();
    assert_eq!(first(&state), "0.0.0.0:8080", "trouble first");
    press(&mut state, "3ss");
    assert_eq!(first(&state), "127.0.0.1:6379", "by port");
    press(&mut state, "s");
    assert_eq!(first(&state), "0.0.0.0:8080");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut state = state(false);
    for tick in ticks(1000) {
        state.update(Event::Tick(Box::new(tick)));
    }
    let history = &state.run().history;
    assert!(history.ledger.iter().all(|side| side.total.rates.len() <= 240 && side.lines.len() <= 128));
    assert!(history.happened.len() <= 200 && history.resets.len() <= 500 && history.listeners.len() <= 4096);
}

proptest::proptest! {
    /// Whatever is typed, and whatever the size: no panic, and Ctrl-C ends it.
    #[test]
    fn no_keys_lead_nowhere(keys in "[ -~]{0,40}", width in 0u16..200, height in 0u16..60) {
        let mut state = state(false);
        state.update(Event::Resize(width, height));
        press(&mut state, &keys);
        state.update(Event::Key(Key::Enter));
        let mut buffer = ratatui::buffer::Buffer::empty(ratatui::layout::Rect::new(0, 0, width, height));
        crate::tui::draw(&state, &mut buffer);
        proptest::prop_assert_eq!(state.update(Event::Key(Key::Control('c'))), Some(Order::Quit));
    }
}
