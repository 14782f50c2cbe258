//! Bytes of the keyboard as keys: ASCII and UTF-8, and the sequences that xterm, tmux, screen and the Linux console send for
//! the keys that are used (xterm's ctlseqs, "PC-Style Function Keys"; console_codes(4)).

use super::Key;

/// No sequence of a key is longer; what is, is dropped.
const LONGEST: usize = 16;
const ESC: u8 = 0x1b;

/// What was read and is no whole key yet.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
}

impl Input {
    /// The keys in what was read so far.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.bytes.extend_from_slice(bytes);
        let mut keys = Vec::new();
        while let Some((key, used)) = first(&self.bytes) {
            self.bytes.drain(..used);
            keys.extend(key);
        }
        keys
    }

    /// More has to come before it can be told what was pressed. A lone Escape looks like the beginning of a sequence.
    pub fn is_waiting(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Nothing more came in time: what waits was no sequence.
    pub fn settle(&mut self) -> Option<Key> {
        let waiting = std::mem::take(&mut self.bytes);
        (waiting.first() == Some(&ESC)).then_some(Key::Escape)
    }
}

/// The first key, if it is one of ours, and how many bytes it took. `None` if it is not whole.
fn first(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    match *bytes.first()? {
        ESC => sequence(bytes),
        b'\r' | b'\n' => Some((Some(Key::Enter), 1)),
        b'\t' => Some((Some(Key::Tab), 1)),
        0x7f | 0x08 => Some((Some(Key::Backspace), 1)),
        control @ 1..=26 => Some((Some(Key::Control(char::from(control - 1 + b'a'))), 1)),
        byte if byte < 0x20 => Some((None, 1)),
        byte if byte < 0x80 => Some((Some(Key::Char(char::from(byte))), 1)),
        byte => {
            let length = match byte {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => return Some((None, 1)),
            };
            // A byte that continues nothing is skipped, so that one broken character does not take the next with it.
            let rest = bytes.get(1..).unwrap_or_default().iter().take(length - 1);
            if rest.clone().any(|byte| byte & 0xc0 != 0x80) {
                return Some((None, 1));
            }
            let whole = bytes.get(..length)?;
            Some((std::str::from_utf8(whole).ok().and_then(|text| text.chars().next()).map(Key::Char), length))
        }
    }
}

fn sequence(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    match *bytes.get(1)? {
        b'[' => {}
        b'O' => return Some((letter(*bytes.get(2)?), 3)),
        // Escape, and then something else at once. Alt and a key looks the same; no such key is used.
        _ => return Some((Some(Key::Escape), 1)),
    }
    // The Linux console's function keys: ESC [ [ A.
    if bytes.get(2) == Some(&b'[') {
        return bytes.get(3).map(|_| (None, 4));
    }
    let end = bytes.iter().skip(2).position(|byte| (0x40..=0x7e).contains(byte)).map(|end| end + 2);
    let Some(end) = end else { return (bytes.len() > LONGEST).then_some((None, bytes.len())) };
    let key = match bytes.get(end) {
        Some(b'~') => match bytes.get(2..end).unwrap_or_default() {
            b"1" | b"7" => Some(Key::Home),
            b"4" | b"8" => Some(Key::End),
            b"5" => Some(Key::PageUp),
            b"6" => Some(Key::PageDown),
            _ => None,
        },
        // With Shift or Control it is another key: ESC [ 1 ; 5 A.
        Some(last) if end == 2 => letter(*last),
        _ => None,
    };
    Some((key, end + 1))
}

fn letter(byte: u8) -> Option<Key> {
    Some(match byte {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        b'Z' => Key::BackTab,
        // The keypad's Enter.
        b'M' => Key::Enter,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        Input::default().read(bytes)
    }

    #[test]
    fn keys_of_common_terminals_are_understood() {
        assert_eq!(keys(b"\x1b[A\x1bOB\x1b[5~\x1b[6~"), [Key::Up, Key::Down, Key::PageUp, Key::PageDown]);
        assert_eq!(keys(b"\x1b[H\x1b[1~\x1bOF\x1b[8~"), [Key::Home, Key::Home, Key::End, Key::End]);
        assert_eq!(keys("q?é数".as_bytes()), ['q', '?', 'é', '数'].map(Key::Char));
        assert_eq!(
            keys(b"\r\t\x1b[Z\x7f\x03"),
            [Key::Enter, Key::Tab, Key::BackTab, Key::Backspace, Key::Control('c')]
        );
    }

    #[test]
    fn a_sequence_may_come_in_pieces() {
        let mut input = Input::default();
        assert_eq!(input.read(b"\x1b"), []);
        assert_eq!(input.read(b"["), []);
        assert!(input.is_waiting());
        assert_eq!(input.read(b"Aj"), [Key::Up, Key::Char('j')]);
    }

    #[test]
    fn escape_alone_is_a_key_once_nothing_follows() {
        let mut input = Input::default();
        assert_eq!(input.read(b"\x1b"), []);
        assert_eq!(input.settle(), Some(Key::Escape));
        assert!(!input.is_waiting());
    }

    #[test]
    fn other_keys_do_nothing() {
        assert_eq!(keys(b"\x1b[15~\x1b[1;5A\x1b[[A\x1b[<0;3;4Mj"), [Key::Char('j')]);
    }

    #[test]
    fn escape_and_a_key_typed_fast_are_both_seen() {
        assert_eq!(keys(b"\x1bw\x1b\x1b[A"), [Key::Escape, Key::Char('w'), Key::Escape, Key::Up]);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_typed_memory_is_bounded(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut input = Input::default();
            bytes.iter().for_each(|byte| { input.read(&[*byte]); });
            proptest::prop_assert!(input.bytes.len() <= LONGEST);
            input.settle();
            proptest::prop_assert_eq!(input.read(b"j"), [Key::Char('j')]);
        }
    }
}
