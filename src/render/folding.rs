//! Resets that are alike and many: a person at a terminal reads a few of each second, and how many more there were.

use std::fmt::Write as _;

use crate::reset::Kind;
use crate::source::reset_events::Direction;
use crate::trace::Reset;
use crate::value::escape::visible;
use crate::value::words::thousands;

/// Lines of one kind in a second.
const MOST: u64 = 5;
/// Kinds that are told apart in a second; of the others every line is shown.
const KINDS: usize = 64;

/// What resets have in common that are folded together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Alike {
    direction: Direction,
    what: Kind,
    pid: Option<u32>,
    /// The port of the service: of the two the smaller one.
    port: Option<u16>,
}

/// The resets of the current second.
#[derive(Debug, Default)]
pub struct Folding {
    second: u64,
    seen: Vec<(Alike, u64, String)>,
}

impl Folding {
    /// Whether this one gets a line. A new second first tells what the last one had more of.
    pub fn admits(&mut self, out: &mut String, reset: &Reset) -> bool {
        if self.second != reset.wall.as_secs() {
            self.tell(out);
            self.second = reset.wall.as_secs();
        }
        let ends = [reset.joined.local(), reset.joined.peer()];
        let alike = Alike {
            direction: reset.joined.direction(),
            what: reset.what,
            pid: reset.process.as_ref().map(|process| process.pid),
            port: ends.into_iter().flatten().map(|end| end.port()).min(),
        };
        let has_room = self.seen.len() < KINDS;
        match self.seen.iter_mut().find(|(seen, ..)| *seen == alike) {
            Some((_, count, _)) => {
                *count += 1;
                *count <= MOST
            }
            None if has_room => {
                let process = reset.process.as_ref().map(|process| format!(", {}", visible(&process.name)));
                let port = alike.port.map(|port| format!(", port {port}")).unwrap_or_default();
                let text = format!("{}{}{port}", alike.what.words(), process.unwrap_or_default());
                self.seen.push((alike, 1, text));
                true
            }
            None => true,
        }
    }

    /// Tells what had no line, and forgets it.
    pub fn tell(&mut self, out: &mut String) {
        for (_, count, text) in self.seen.drain(..).filter(|(_, count, _)| *count > MOST) {
            let _ = writeln!(out, "... {} more in this second: {text}", thousands(count - MOST));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trace::testing::{event, joined};

    #[test]
    fn of_many_alike_a_few_are_shown_and_the_rest_is_counted_with_the_next_second() {
        let mut folding = Folding::default();
        let mut out = String::new();
        let mut shown = 0;
        for number in 0..1_210 {
            let peer = format!("10.0.3.7:{}", 40_000 + number);
            let mut reset = joined(Some(event(Direction::Sent, "10.0.0.9:9000", &peer)), None);
            reset.wall = Duration::from_secs(7);
            shown += u64::from(folding.admits(&mut out, &reset));
        }
        assert_eq!((shown, out.as_str()), (5, ""));
        let mut other = joined(Some(event(Direction::Received, "10.0.0.9:9000", "10.0.3.7:50000")), None);
        other.wall = Duration::from_secs(8);
        assert!(folding.admits(&mut out, &other));
        assert!(out.starts_with("... 1,205 more in this second: ") && out.ends_with(", port 9000\n"), "{out}");
        out.clear();
        folding.tell(&mut out);
        assert_eq!(out, "");
    }
}
