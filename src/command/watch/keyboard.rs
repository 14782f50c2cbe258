//! The thread behind the keyboard.

use std::os::fd::AsRawFd;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::screen::Message;
use crate::command::full_screen;
use crate::tui::{Event, Key};

const SECOND: Duration = Duration::from_secs(1);
/// What was read was either a key or not, and is known at once; crossterm looks at nothing in no time at all.
const MOMENT: Duration = Duration::from_millis(1);
const BACKGROUND: Duration = Duration::from_millis(50);

enum Stdin {
    Quiet,
    Readable,
    Gone,
}

/// Reads the keyboard for ever. In the background it keeps away from it: a read would stop the process. From a terminal that
/// is gone crossterm would read nothing without end.
pub fn start(sender: SyncSender<Message>) {
    thread::spawn(move || {
        let send = |message| sender.send(message).is_ok();
        loop {
            let goes_on = match stdin(SECOND) {
                Stdin::Quiet => true,
                Stdin::Readable if !full_screen::is_foreground() => {
                    thread::sleep(BACKGROUND);
                    true
                }
                Stdin::Readable => match typed() {
                    Ok(keys) => keys.into_iter().all(|key| send(Message::Event(Event::Key(key)))),
                    Err(_) => send(Message::Hangup) && false,
                },
                Stdin::Gone => send(Message::Hangup) && false,
            };
            if !goes_on {
                return;
            }
        }
    });
}

/// Waits until something can be read at standard input, be it the end.
fn stdin(wait: Duration) -> Stdin {
    let mut stdin = libc::pollfd { fd: std::io::stdin().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd, which lives until after the call.
    match unsafe { libc::poll(&raw mut stdin, 1, wait) } {
        1.. if stdin.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 => Stdin::Gone,
        1.. => Stdin::Readable,
        _ => Stdin::Quiet,
    }
}

fn typed() -> std::io::Result<Vec<Key>> {
    let mut keys = Vec::new();
    while event::poll(MOMENT)? {
        if let event::Event::Key(key) = event::read()? {
            keys.extend(meant(key));
        }
    }
    Ok(keys)
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
