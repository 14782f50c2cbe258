//! The thread behind the keyboard.

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rustix::event::PollFlags;

use super::message::Message;
use crate::command::full_screen;
use crate::command::terminal::poll;
use crate::runtime;
use crate::tui::{Event, Key};

const SECOND: Duration = Duration::from_secs(1);
/// How long crossterm looks for more: in no time at all it looks at nothing.
const MOMENT: Duration = Duration::from_millis(1);
const BACKGROUND: Duration = Duration::from_millis(50);

/// Reads the keyboard until the terminal is gone, or nobody listens any more.
///
/// # Errors
/// No thread can be started.
pub fn start(sender: SyncSender<Message>) -> io::Result<()> {
    runtime::thread::start("keyboard", move || {
        while read(&sender).is_some() {}
        let _ = sender.send(Message::Hangup);
    })
    .map(|_| ())
}

/// What was typed, if it was within a second. crossterm is asked only when there is something: in the background a read would
/// stop the process, and from a terminal that is gone it would read nothing without end.
fn read(sender: &SyncSender<Message>) -> Option<()> {
    let ready = poll(&io::stdin(), PollFlags::IN, SECOND);
    if ready.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        return None;
    }
    if !ready.is_empty() && !full_screen::is_foreground() {
        thread::sleep(BACKGROUND);
        return Some(());
    }
    while !ready.is_empty() && event::poll(MOMENT).ok()? {
        if let event::Event::Key(key) = event::read().ok()? {
            for key in if key.code == KeyCode::Esc { escaped()? } else { meant(key) } {
                sender.send(Message::Event(Event::Key(key))).ok()?;
            }
        }
    }
    Some(())
}

/// The keys where Escape was read. What follows at once may be the rest of another key's sequence, which a slow link delivered
/// in two pieces: that is none at all. `None` if the keyboard is gone.
fn escaped() -> Option<Vec<Key>> {
    let mut keys = vec![Key::Escape];
    let Some(next) = soon()? else { return Some(keys) };
    if !matches!(next.code, KeyCode::Char('[' | 'O')) {
        keys.extend(meant(next));
        return Some(keys);
    }
    let ends =
        |key: KeyEvent| matches!(key.code, KeyCode::Char(letter) if letter.is_ascii_alphabetic() || letter == '~');
    while soon()?.is_some_and(|key| !ends(key)) {}
    Some(Vec::new())
}

/// The key that comes within a moment.
fn soon() -> Option<Option<KeyEvent>> {
    const PIECES: Duration = Duration::from_millis(30);
    if !poll(&io::stdin(), PollFlags::IN, PIECES).contains(PollFlags::IN) || !event::poll(MOMENT).ok()? {
        return Some(None);
    }
    Some(event::read().ok()?.as_key_event())
}

/// The keys of ours in an event.
fn meant(key: KeyEvent) -> Vec<Key> {
    if key.kind == KeyEventKind::Release {
        return Vec::new();
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let found = match key.code {
        // Some terminals send it for Backspace.
        KeyCode::Char('h') if control => Key::Backspace,
        KeyCode::Char('j') if control => Key::Enter,
        KeyCode::Char(letter) if control => Key::Control(letter),
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Backspace => Key::Backspace,
        // With Shift or Control they are other keys.
        _ if !key.modifiers.is_empty() => return Vec::new(),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return Vec::new(),
    };
    // Escape and a key typed fast look the same as the key with Alt, which is not used.
    match key.modifiers.contains(KeyModifiers::ALT) {
        true => vec![Key::Escape, found],
        false => vec![found],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Vec<Key> {
        meant(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn keys_are_told_apart_as_the_help_names_them() {
        assert_eq!(key(KeyCode::Char('G'), KeyModifiers::SHIFT), [Key::Char('G')]);
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), [Key::Control('c')]);
        assert_eq!(key(KeyCode::BackTab, KeyModifiers::SHIFT), [Key::BackTab]);
        assert_eq!(key(KeyCode::Up, KeyModifiers::NONE), [Key::Up]);
        assert_eq!(key(KeyCode::Up, KeyModifiers::CONTROL), []);
        assert_eq!(key(KeyCode::F(5), KeyModifiers::NONE), []);
    }

    #[test]
    fn escape_and_a_key_typed_fast_are_both_seen() {
        assert_eq!(key(KeyCode::Char('w'), KeyModifiers::ALT), [Key::Escape, Key::Char('w')]);
    }
}
