//! What each key means. The help is made of the same table.

use super::Pane;

/// A key, as far as it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Control(char),
    Enter,
    Escape,
    Tab,
    BackTab,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Quit,
    Help,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    Close,
    NextPane,
    PreviousPane,
    Pane(Pane),
    Filter,
    Sort,
    Pause,
    Step,
    More,
    Less,
    Save,
    Redraw,
    Suspend,
}

/// Some keys and what they do.
#[derive(Debug)]
pub struct Binding {
    pub keys: &'static [(Key, Meaning)],
    /// As people name them; empty if the help does not mention it.
    pub shown: &'static str,
    pub help: &'static str,
    /// The word for the last line of the screen, for those that a beginner needs.
    pub hint: Option<&'static str>,
}

const fn binding(
    keys: &'static [(Key, Meaning)],
    shown: &'static str,
    help: &'static str,
    hint: Option<&'static str>,
) -> Binding {
    Binding { keys, shown, help, hint }
}

/// In the order of the help.
pub const BINDINGS: &[Binding] = &[
    binding(
        &[(Key::Enter, Meaning::Open)],
        "Enter",
        "open the chosen cause: who, what to change, how to verify, why to believe it",
        Some("what to do"),
    ),
    binding(&[(Key::Escape, Meaning::Close)], "Esc", "close it; or clear the filter", None),
    binding(
        &[
            (Key::Up, Meaning::Up),
            (Key::Down, Meaning::Down),
            (Key::Char('k'), Meaning::Up),
            (Key::Char('j'), Meaning::Down),
        ],
        "arrows j k",
        "choose a row, or scroll",
        None,
    ),
    binding(
        &[
            (Key::PageUp, Meaning::PageUp),
            (Key::PageDown, Meaning::PageDown),
            (Key::Control('b'), Meaning::PageUp),
            (Key::Control('f'), Meaning::PageDown),
            (Key::Home, Meaning::First),
            (Key::End, Meaning::Last),
            (Key::Char('g'), Meaning::First),
            (Key::Char('G'), Meaning::Last),
        ],
        "PgUp PgDn Home End",
        "by pages, to the first or last row",
        None,
    ),
    binding(
        &[
            (Key::Tab, Meaning::NextPane),
            (Key::BackTab, Meaning::PreviousPane),
            (Key::Right, Meaning::NextPane),
            (Key::Left, Meaning::PreviousPane),
            (Key::Char('1'), Meaning::Pane(Pane::Causes)),
            (Key::Char('2'), Meaning::Pane(Pane::Ledger)),
            (Key::Char('3'), Meaning::Pane(Pane::Listeners)),
            (Key::Char('4'), Meaning::Pane(Pane::Sockets)),
            (Key::Char('5'), Meaning::Pane(Pane::Resets)),
        ],
        "Tab 1-5",
        "switch panes; 4 (sockets) and 5 (latest resets) need room, or being asked for",
        Some("pane"),
    ),
    binding(
        &[(Key::Char('/'), Meaning::Filter)],
        "/",
        "show only a port (8080) or a process (nginx): Enter keeps it, Esc clears it",
        Some("filter"),
    ),
    binding(
        &[(Key::Char('s'), Meaning::Sort)],
        "s",
        "sort the listeners, or the resets by reason, otherwise",
        Some("sort"),
    ),
    binding(
        &[(Key::Char('p'), Meaning::Pause)],
        "p",
        "hold the picture still; the ticks go on and are counted. A playback stops",
        Some("pause"),
    ),
    binding(
        &[(Key::Char(' '), Meaning::Step), (Key::Char('n'), Meaning::Step)],
        "Space n",
        "in a playback: one tick further",
        None,
    ),
    binding(
        &[(Key::Char('+'), Meaning::More), (Key::Char('='), Meaning::More), (Key::Char('-'), Meaning::Less)],
        "+ -",
        "a longer or shorter interval; in a playback faster or slower",
        None,
    ),
    binding(
        &[(Key::Char('w'), Meaning::Save)],
        "w",
        "write a recording of the last minutes into this directory",
        Some("save"),
    ),
    binding(&[(Key::Char('?'), Meaning::Help), (Key::Char('h'), Meaning::Help)], "?", "this help", Some("help")),
    binding(
        &[
            (Key::Char('q'), Meaning::Quit),
            (Key::Char('Q'), Meaning::Quit),
            (Key::Control('c'), Meaning::Quit),
            (Key::Control('d'), Meaning::Quit),
        ],
        "q Ctrl-C",
        "end, with a summary of what was seen",
        Some("quit"),
    ),
    binding(
        &[(Key::Control('l'), Meaning::Redraw), (Key::Control('z'), Meaning::Suspend)],
        "Ctrl-L Ctrl-Z",
        "draw everything anew; suspend to the shell, fg comes back",
        None,
    ),
];

/// `None` for a key that does nothing.
pub fn meaning(key: Key) -> Option<Meaning> {
    BINDINGS.iter().flat_map(|binding| binding.keys).find(|(known, _)| *known == key).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things() {
        let mut all: Vec<String> =
            BINDINGS.iter().flat_map(|binding| binding.keys).map(|(key, _)| format!("{key:?}")).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn the_keys_that_people_expect_work() {
        assert_eq!(meaning(Key::Char('q')), Some(Meaning::Quit));
        assert_eq!(meaning(Key::Control('c')), Some(Meaning::Quit));
        assert_eq!(meaning(Key::Char('?')), Some(Meaning::Help));
        assert_eq!(meaning(Key::Char('x')), None);
    }
}
