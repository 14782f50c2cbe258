//! Packets as tcpdump prints them, a line each: who reset which connection, and in which phase.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

use super::Support;
use crate::knowledge::error_texts;
use crate::value::words::counted;

/// Connections that are followed; packets of further ones are only counted.
const CONNECTIONS: usize = 4_096;
/// Seconds without a packet that are a pause.
const PAUSE: f64 = 5.0;

static PACKET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let pattern = r"^(?:\d{4}-\d\d-\d\d )?(?:(\d\d):(\d\d):(\d\d(?:\.\d+)?)|(\d+\.\d+))? ?(?:\S+ +(?:In|Out|P|B|M) +)?(?:IP6? )?(?:\([^)]*\) ?)?(\S+) > (\S+): (?:tcp )?Flags \[([SFRPUEW.]+)\]";
    RegexBuilder::new(pattern).unicode(false).build().ok()
});

/// What one side of a connection sent.
#[derive(Debug, Default, Clone)]
struct Side {
    syns: u64,
    bytes: u64,
    fin: bool,
    resets: u64,
    /// Data or acknowledgments after its own RST.
    after_reset: bool,
    /// Data came in after it had sent FIN, before it sent RST.
    data_after_fin: bool,
}

#[derive(Debug, Default, Clone)]
struct Connection {
    /// The side whose packet came first, and the other.
    sides: [Side; 2],
    accepted: bool,
    last: Option<f64>,
    /// Seconds without packets before the one that the first RST answered or came in place of.
    pause: f64,
    reset: bool,
}

/// What happened to a connection, as far as its packets tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Story {
    /// RST against RST or data after it: it did not come from the peer.
    Injected,
    Refused,
    Unanswered,
    /// Opened, and reset by who opened it, without data.
    Probe,
    /// The side that had sent FIN answered data with RST.
    LateData,
    AfterPause,
    /// In the middle of an exchange.
    Reset,
    Whole,
}

/// Packets that a text shows.
#[derive(Debug, Default)]
pub struct Packets {
    /// Lines that were understood.
    pub packets: u64,
    pub resets: u64,
    connections: HashMap<(String, String), Connection>,
}

impl Packets {
    /// Takes the line if it shows a TCP packet.
    pub fn line(&mut self, line: &str) -> bool {
        if self.packets > 0 && (line.starts_with("tcpdump: ") || line.starts_with("listening on "))
            || line.contains("packets captured")
        {
            return true;
        }
        if !line.contains("Flags [") {
            return line.starts_with("tcpdump: ") || line.starts_with("listening on ") && line.contains("link-type");
        }
        let Some(captures) = PACKET.as_ref().and_then(|regex| regex.captures(line.as_bytes())) else { return false };
        let text = |group: usize| captures.get(group).and_then(|found| std::str::from_utf8(found.as_bytes()).ok());
        let number = |group: usize| text(group).and_then(|text| text.parse::<f64>().ok());
        let day = number(1).zip(number(2)).zip(number(3)).map(|((h, m), s)| h * 3600.0 + m * 60.0 + s);
        let (Some(from), Some(to), Some(flags)) = (text(5), text(6), text(7)) else { return false };
        let length = line.rsplit_once("length ").map_or("", |(_, rest)| rest);
        let bytes =
            length.split(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok()).unwrap_or(0);
        self.packets += 1;
        self.resets += u64::from(flags.contains('R'));
        self.packet(from, to, flags, bytes, day.or_else(|| number(4)));
        true
    }

    fn packet(&mut self, from: &str, to: &str, flags: &str, bytes: u64, at: Option<f64>) {
        let (forth, back) = ((from.to_owned(), to.to_owned()), (to.to_owned(), from.to_owned()));
        let (key, sender) = if self.connections.contains_key(&back) { (back, 1) } else { (forth, 0) };
        if self.connections.len() >= CONNECTIONS && !self.connections.contains_key(&key) {
            return;
        }
        let connection = self.connections.entry(key).or_default();
        let pause = at.zip(connection.last).map_or(0.0, |(at, last)| at - last);
        connection.last = at.or(connection.last);
        let [first, second] = &mut connection.sides;
        let (side, other) = if sender == 0 { (first, second) } else { (second, first) };
        if flags.contains('R') {
            connection.reset = true;
            side.resets += 1;
            return;
        }
        if !connection.reset {
            connection.pause = pause;
        }
        side.syns += u64::from(flags.contains('S') && !flags.contains('.'));
        connection.accepted |= flags.contains('S') && flags.contains('.');
        side.fin |= flags.contains('F');
        side.after_reset |= side.resets > 0;
        if bytes > 0 {
            side.bytes = side.bytes.saturating_add(bytes);
            other.data_after_fin |= other.fin;
        }
    }

    /// Connections by what happened to them, with one as an example.
    pub fn stories(&self) -> Vec<(Story, u64, String)> {
        let mut stories: Vec<(Story, u64, String)> = Vec::new();
        let mut connections: Vec<_> = self.connections.iter().collect();
        connections.sort_by_key(|(ends, _)| *ends);
        for ((from, to), connection) in connections {
            let story = story(connection);
            match stories.iter_mut().find(|(known, ..)| *known == story) {
                Some((_, count, _)) => *count += 1,
                None => stories.push((story, 1, format!("{from} > {to}"))),
            }
        }
        stories.sort();
        stories
    }

    /// One sentence for each kind.
    pub fn remarks(&self) -> Vec<String> {
        self.stories()
            .iter()
            .map(|(story, count, example)| format!("{}: {} ({example})", counted(*count, "connection"), what(*story)))
            .collect()
    }

    pub(super) fn rank(&self, support: &mut Support<'_>) {
        for (story, count, _) in self.stories() {
            let (causes, words): (&[&'static str], _) = match story {
                Story::Injected => (&["middlebox-reset"], "curl: (35)"),
                Story::Refused => (&["port-without-listener", "wrong-bind-address", "firewall-reject"], "111"),
                Story::Unanswered => (&["connect-unanswered", "accept-queue-overflow"], "110"),
                Story::Probe => (&["health-check-resets", "handshake-reset"], "TCPAbortOnClose"),
                Story::LateData => (&["late-data-after-close", "close-with-unread-data"], "TCPAbortOnData"),
                Story::AfterPause => (&["idle-timeout", "peer-idle-limit", "stale-connection"], "104"),
                Story::Reset => (&["close-with-unread-data", "process-exit", "abortive-close"], "104"),
                Story::Whole => continue,
            };
            let Some(text) = error_texts::meant(words).into_iter().next() else { continue };
            for (rank, id) in causes.iter().enumerate() {
                let reason = format!("{}: {}", counted(count, "connection"), what(story));
                support(id, (6.0 + (count as f64).log10()) / (rank + 1) as f64, reason, text);
            }
        }
    }

    /// What was read, in a few words.
    pub fn summary(&self) -> String {
        format!(
            "{} of {}, {}",
            counted(self.packets, "packet"),
            counted(self.connections.len() as u64, "connection"),
            counted(self.resets, "reset")
        )
    }
}

/// The story in a few words.
fn what(story: Story) -> &'static str {
    match story {
        Story::Injected => "the side that \"reset\" went on sending, or answered later: that RST was not its own",
        Story::Refused => "SYN answered by RST",
        Story::Unanswered => "SYN sent again and not answered",
        Story::Probe => "opened and reset at once by who opened it, no data",
        Story::LateData => "closed (FIN), then data came and was answered by RST",
        Story::AfterPause => "reset at the first packet after a pause",
        Story::Reset => "reset in the middle",
        Story::Whole => "no reset",
    }
}

fn story(connection: &Connection) -> Story {
    let [opener, other] = &connection.sides;
    let reset = connection.reset;
    if other.after_reset && other.resets > 0 && connection.accepted {
        return Story::Injected;
    }
    if !reset {
        let silent = opener.syns > 1 && !connection.accepted;
        return if silent { Story::Unanswered } else { Story::Whole };
    }
    if opener.syns > 0 && !connection.accepted && other.resets > 0 {
        Story::Refused
    } else if connection.accepted && opener.resets > 0 && opener.bytes + other.bytes == 0 {
        Story::Probe
    } else if connection.sides.iter().any(|side| side.resets > 0 && side.fin) {
        Story::LateData
    } else if connection.pause >= PAUSE {
        Story::AfterPause
    } else {
        Story::Reset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Packets {
        let mut packets = Packets::default();
        text.lines().for_each(|line| assert!(packets.line(line), "{line}"));
        packets
    }

    #[test]
    fn each_phase_is_told() {
        let of = |text: &str| read(text).stories()[0].0;
        let syn = "15:49:30.581073 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [S], seq 1, win 64240, length 0\n";
        let ack = "15:49:30.581345 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [S.], seq 1, ack 2, win 64148, length 0\n";
        let data =
            "15:49:30.581530 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [P.], seq 1:97, ack 1, win 502, length 96: BGP\n";
        let fin = "15:49:30.581567 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [F.], seq 1, ack 1, win 251, length 0\n";
        let rst = "15:49:30.581711 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [R], seq 1417276597, win 0, length 0\n";
        let own = "15:49:30.582971 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [R.], seq 1, ack 1, win 502, length 0\n";
        let late = "15:49:30.678672 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [.], ack 518, win 285, length 0\n";
        let idle =
            "15:55:30.581530 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [P.], seq 1:97, ack 1, win 502, length 96\n";
        assert_eq!(of(&[syn, rst].concat()), Story::Refused);
        assert_eq!(of(&[syn, syn, syn].concat()), Story::Unanswered);
        assert_eq!(of(&[syn, ack, own].concat()), Story::Probe);
        assert_eq!(of(&[syn, ack, data, fin, rst].concat()), Story::LateData);
        assert_eq!(of(&[syn, ack, data, rst].concat()), Story::Reset);
        assert_eq!(of(&[syn, ack, data, rst, rst, late].concat()), Story::Injected);
        assert_eq!(of(&[syn, ack, data, idle, rst].concat()), Story::AfterPause);
        assert_eq!(of(&[syn, ack, data].concat()), Story::Whole);
    }

    #[test]
    fn what_is_no_packet_is_left() {
        for line in ["everything is fine", "Flags [S]", "14:02:11 IP a > b: UDP, length 3", ""] {
            assert!(!Packets::default().line(line), "{line}");
        }
    }
}
