//! Packets as tcpdump and tshark print them, a line or two each: the connections are followed as those of a capture.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use regex::bytes::{Captures, Regex, RegexBuilder};

use super::Support;
use crate::capture::link::{ACK, FIN, Held, Options, RST, SYN, Segment};
use crate::capture::{Flows, Reading, Story, Told, Tracker};
use crate::knowledge::error_texts;
use crate::value::words::counted;

/// Hosts without an address, and directions of connections, that are remembered.
const MOST: usize = 20_000;
/// Numbers that differ by more were not counted from the same beginning: tcpdump prints the first ones as they are, and the rest
/// relative to them.
const FAR: u32 = 1 << 27;

fn pattern(pattern: &str) -> Option<Regex> {
    // A test reads lines by all of them.
    RegexBuilder::new(pattern).unicode(false).build().ok()
}

/// `15:49:30.58 eth0 In IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [S], ...`; with -e addresses of the link before, with -v on a line
/// of its own.
static PACKET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(
        r"^\s*(?:\d{4}-\d\d-\d\d )?(?:(?:(\d\d):(\d\d):(\d\d(?:\.\d+)?)|(\d+\.\d+)) )?.*?(\S+) > (\S+): (?:tcp )?Flags \[([SFRPUEW.]+)\](.*)$",
    )
});
/// The first line of a packet with -v.
static ABOVE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(
        r"^(?:\d{4}-\d\d-\d\d )?(?:(\d\d):(\d\d):(\d\d(?:\.\d+)?)|(\d+\.\d+)) ?.*\b(?:IP|IP6|ethertype \S+ \(0x[0-9a-f]+\), length \d+:)\s*\(.*?(?:ttl|hlim) (\d+)(?:, id (\d+))?.*\)\s*$",
    )
});
/// `    1 0.000000 172.16.0.8 → 172.16.0.102 TCP 62 1074 → 80 [SYN] Seq=0 Win=65535 Len=0`.
static TSHARK: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(
        r"^\s*\d+\s+(\d+\.\d+)\s+(\S+)\s+(?:\xE2\x86\x92|->)\s+(\S+)\s+\S+\s+\d+\s+(?:\[[A-Z][^\]]*\] )?(\d+)\s+(?:\xE2\x86\x92|->)\s+(\d+)\s+\[([A-Z, ]+)\](.*)$",
    )
});
static NUMBERS: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r"\b(seq|ack|win|length|Seq|Ack|Win|Len)[ =](\d+)(?::(\d+))?"));
static TIMESTAMPS: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r"(?:TS val|TSval=)\s?(\d+) (?:ecr|TSecr=)\s?(\d+)"));

/// Services by the names that tcpdump prints (IANA).
const PORTS: [(&str, u16); 26] = [
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("http", 80),
    ("kerberos", 88),
    ("pop3", 110),
    ("sunrpc", 111),
    ("netbios-ssn", 139),
    ("imap2", 143),
    ("bgp", 179),
    ("ldap", 389),
    ("https", 443),
    ("microsoft-ds", 445),
    ("submission", 587),
    ("ldaps", 636),
    ("imaps", 993),
    ("nfs", 2049),
    ("mysql", 3306),
    ("ms-wbt-server", 3389),
    ("postgresql", 5432),
    ("amqp", 5672),
    ("x11", 6000),
    ("http-alt", 8080),
    ("webcache", 8080),
];

/// Packets that a text shows.
#[derive(Debug, Default)]
pub struct Packets {
    /// Lines of packets that were understood.
    pub packets: u64,
    tracker: Tracker,
    /// Hosts that are written in another way than by their address.
    names: HashMap<String, Ipv4Addr>,
    /// The first number of each direction.
    bases: HashMap<(SocketAddr, SocketAddr), u32>,
    /// TTL and IP id of the packet whose other line follows, and its time.
    above: Option<(Option<Duration>, Option<u8>, Option<u16>)>,
    read: OnceCell<Flows>,
}

impl Packets {
    /// Takes the line if it shows a TCP packet.
    pub fn line(&mut self, line: &str) -> bool {
        if line.starts_with("tcpdump: ")
            || line.contains("packets captured")
            || line.contains("packets received by filter")
        {
            return true;
        }
        if line.starts_with("listening on ") && (self.packets > 0 || line.contains("link-type")) {
            return true;
        }
        let taken = match line {
            line if line.contains("Flags [") => self.tcpdump(line),
            line if line.contains("ttl ") || line.contains("hlim ") => self.above(line),
            line if line.contains(" → ") || line.contains(" -> ") => self.tshark(line),
            _ => false,
        };
        if taken {
            self.read = OnceCell::new();
        }
        taken
    }

    fn above(&mut self, line: &str) -> bool {
        let Some(found) = ABOVE.as_ref().and_then(|regex| regex.captures(line.as_bytes())) else { return false };
        let (ttl, id) = (text(&found, 5).parse().ok(), text(&found, 6).parse().ok());
        self.above = Some((time(&found), ttl, id));
        true
    }

    fn tcpdump(&mut self, line: &str) -> bool {
        let Some(found) = PACKET.as_ref().and_then(|regex| regex.captures(line.as_bytes())) else { return false };
        let text = |group: usize| text(&found, group);
        let (from, to) = (self.end(text(5)), self.end(text(6)));
        let (Some(from), Some(to)) = (from, to) else { return false };
        let mut flags = 0;
        for letter in text(7).chars() {
            flags |= match letter {
                'F' => FIN,
                'S' => SYN,
                'R' => RST,
                'P' => 0x08,
                '.' => ACK,
                'U' => 0x20,
                _ => 0,
            };
        }
        let above = self.above.take().unwrap_or_default();
        let at = time(&found).or(above.0);
        self.packet(at, (from, to), flags, text(8), (above.1, above.2));
        true
    }

    fn tshark(&mut self, line: &str) -> bool {
        let Some(found) = TSHARK.as_ref().and_then(|regex| regex.captures(line.as_bytes())) else { return false };
        let text = |group: usize| text(&found, group);
        let port = |group: usize| text(group).parse::<u16>().ok();
        let (Some(from_port), Some(to_port)) = (port(4), port(5)) else { return false };
        let (Some(from), Some(to)) = (self.host(text(2)), self.host(text(3))) else { return false };
        let mut flags = 0;
        for word in text(6).split(',') {
            flags |= match word.trim() {
                "FIN" => FIN,
                "SYN" => SYN,
                "RST" => RST,
                "PSH" => 0x08,
                "ACK" => ACK,
                "URG" => 0x20,
                _ => 0,
            };
        }
        let at = text(1).parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let ends = (SocketAddr::new(from, from_port), SocketAddr::new(to, to_port));
        self.packet(at, ends, flags, text(7), (None, None));
        true
    }

    fn packet(
        &mut self,
        at: Option<Duration>,
        (from, to): (SocketAddr, SocketAddr),
        flags: u8,
        rest: &str,
        (ttl, ip_id): (Option<u8>, Option<u16>),
    ) {
        let (mut seq, mut ack, mut window, mut length) = (None, None, 0, 0);
        for found in NUMBERS.iter().flat_map(|regex| regex.captures_iter(rest.as_bytes())) {
            let number = text(&found, 2).parse::<u32>().ok();
            match text(&found, 1) {
                "seq" | "Seq" => seq = seq.or(number),
                "ack" | "Ack" => ack = ack.or(number),
                "win" | "Win" => window = number.unwrap_or(0),
                _ => length = number.unwrap_or(0),
            }
        }
        // Without a number it is a bare ACK, whose own number nobody prints.
        let base = self.bases.get(&(from, to)).copied();
        let seq = match (seq, base) {
            (Some(printed), Some(base)) if flags & SYN == 0 => absolute(base, printed),
            (Some(printed), _) => printed,
            (None, _) => self.tracker.next(from, to).unwrap_or(0),
        };
        let ack = match (ack, self.bases.get(&(to, from)).copied()) {
            (Some(printed), Some(base)) => absolute(base, printed),
            (printed, _) => printed.unwrap_or(0),
        };
        if self.bases.len() < MOST || base.is_some() {
            if flags & SYN != 0 || base.is_none() && flags & RST == 0 {
                self.bases.insert((from, to), seq);
            }
            if flags & ACK != 0 && flags & RST == 0 {
                self.bases.entry((to, from)).or_insert(ack.wrapping_sub(1));
            }
        }
        let timestamps = TIMESTAMPS
            .as_ref()
            .and_then(|regex| regex.captures(rest.as_bytes()))
            .and_then(|found| Some((text(&found, 1).parse().ok()?, text(&found, 2).parse().ok()?)));
        let options = rest.contains("options [") && !rest.contains("options []") || timestamps.is_some();
        let at = self.tracker.time(at);
        let segment = Segment {
            at,
            from,
            to,
            flags,
            reserved: false,
            seq,
            ack,
            window: u16::try_from(window).unwrap_or(u16::MAX),
            length: length.min(1 << 20),
            data: b"",
            ttl,
            ip_id,
            options: Options { any: options, scale: None, timestamps, unknown: false },
            stated: None,
            sent_here: None,
        };
        self.packets += 1;
        self.tracker.packet(Held::Segment(segment), at, 0, 1, false);
    }

    /// `10.0.0.1.60868`, `2001:db8::1.443`, `host.example.https`, `xxx.xxx.x06.26.443`.
    fn end(&mut self, text: &str) -> Option<SocketAddr> {
        let (host, port) = text.rsplit_once('.')?;
        let known = || PORTS.iter().find(|(name, _)| *name == port).map(|(_, number)| *number);
        // A service that is not known here still is the same one in each of its packets.
        let port = port.parse().ok().or_else(known).unwrap_or(0);
        Some(SocketAddr::new(self.host(host)?, port))
    }

    fn host(&mut self, text: &str) -> Option<IpAddr> {
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        if text.is_empty() || !text.chars().all(|c| c.is_alphanumeric() || "-._:*".contains(c)) {
            return None;
        }
        let next = u32::try_from(self.names.len()).ok().filter(|next| (*next as usize) < MOST);
        let known = self.names.get(text).copied();
        let stand_in = match (known, next) {
            (Some(known), _) => known,
            (None, Some(next)) => {
                // Never anybody's (RFC 1112, 4: class E).
                let stand_in = Ipv4Addr::from(0xf000_0001 + next);
                self.names.insert(text.to_owned(), stand_in);
                self.tracker.name(stand_in.into(), text);
                stand_in
            }
            (None, None) => return None,
        };
        Some(stand_in.into())
    }

    /// The connections, and what is read from them.
    pub fn flows(&self) -> &Flows {
        self.read.get_or_init(|| self.tracker.clone().finish("text", None))
    }

    /// Connections by what happened to them, with one as an example.
    fn stories(&self) -> Vec<(Story, bool, u64, &Told, &Reading)> {
        let mut stories: Vec<(Story, bool, u64, &Told, &Reading)> = Vec::new();
        for told in &self.flows().told {
            for reading in &told.readings {
                match stories.iter_mut().find(|known| (known.0, known.1) == (reading.story, reading.harmless)) {
                    Some((_, _, count, ..)) => *count += 1,
                    None => stories.push((reading.story, reading.harmless, 1, told, reading)),
                }
            }
        }
        stories
    }

    /// One sentence for each kind.
    pub fn remarks(&self) -> Vec<String> {
        let flows = self.flows();
        let remark = |(story, _, count, told, reading): &(Story, bool, u64, &Told, &Reading)| {
            let ends = format!("{} > {}", flows.name(told.flow.initiator), flows.name(told.flow.acceptor));
            let because = match reading.because.first() {
                Some(because) => format!("; {because}"),
                None => String::new(),
            };
            format!("{}: {} ({ends}{because})", counted(*count, "connection"), story.words())
        };
        self.stories().iter().map(remark).collect()
    }

    pub(super) fn rank(&self, support: &mut Support<'_>) {
        for (story, harmless, count, _, reading) in self.stories() {
            let Some(id) = story.cause() else { continue };
            let words = match story {
                Story::Forged | Story::Injected | Story::Passed => "curl: (35)",
                Story::Refused | Story::TriedElsewhere => "111",
                Story::Unanswered | Story::NoRoute | Story::Lost | Story::QueueFull => "110",
                Story::LateData => "TCPAbortOnData",
                Story::UnreadData | Story::WrongProtocol | Story::Probe => "TCPAbortOnClose",
                _ => "104",
            };
            let Some(text) = error_texts::meant(words).into_iter().next() else { continue };
            let weight = if harmless { 3.0 } else { 6.0 } + (count as f64).log10();
            for (rank, id) in std::iter::once(&id).chain(reading.others).enumerate() {
                let reason = format!("{}: {}", counted(count, "connection"), story.words());
                support(id, weight / (rank + 1) as f64, reason, text);
            }
        }
    }

    /// What was read, in a few words.
    pub fn summary(&self) -> String {
        let flows = self.flows();
        format!(
            "{} of {}, {}",
            counted(self.packets, "packet"),
            counted(flows.connections, "connection"),
            counted(flows.resets, "reset")
        )
    }
}

/// Of a number that may be printed relative to the first one of its direction.
fn absolute(base: u32, printed: u32) -> u32 {
    let distance = printed.wrapping_sub(base);
    if distance > FAR && distance < FAR.wrapping_neg() { base.wrapping_add(printed) } else { printed }
}

fn text<'a>(found: &Captures<'a>, group: usize) -> &'a str {
    found.get(group).and_then(|found| std::str::from_utf8(found.as_bytes()).ok()).unwrap_or_default()
}

/// Of day, or since the epoch: the first four groups.
fn time(found: &Captures<'_>) -> Option<Duration> {
    let number = |group: usize| text(found, group).parse::<f64>().ok();
    let seconds = match (number(1), number(2), number(3)) {
        (Some(hours), Some(minutes), Some(seconds)) => hours * 3_600.0 + minutes * 60.0 + seconds,
        _ => number(4)?,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stories(text: &str) -> Vec<Story> {
        let mut packets = Packets::default();
        text.lines().for_each(|line| assert!(packets.line(line), "{line}"));
        packets.stories().iter().map(|(story, ..)| *story).collect()
    }

    #[test]
    fn each_phase_is_told() {
        let of = |text: &str| stories(text)[0];
        let syn = "15:49:30.581073 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [S], seq 3001417275, win 64240, length 0\n";
        let ack = "15:49:30.581345 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [S.], seq 1417276495, ack 3001417276, win 64148, length 0\n";
        let third = "15:49:30.581400 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [.], ack 1, win 502, length 0\n";
        let data =
            "15:49:30.581530 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [P.], seq 1:97, ack 1, win 502, length 96: BGP\n";
        let fin = "15:49:30.581567 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [F.], seq 1, ack 1, win 251, length 0\n";
        let rst = "15:49:30.581711 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [R], seq 1417276496, win 0, length 0\n";
        let own = "15:49:30.582971 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [R.], seq 1, ack 1, win 502, length 0\n";
        let refused =
            "15:49:30.581345 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [R.], seq 0, ack 3001417276, win 0, length 0\n";
        let idle =
            "15:55:30.581530 IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [P.], seq 97:193, ack 1, win 502, length 96\n";
        let late_rst = "15:55:30.581711 IP 10.0.0.2.bgp > 10.0.0.1.60868: Flags [R], seq 1417276496, win 0, length 0\n";
        assert_eq!(of(&[syn, refused].concat()), Story::Refused);
        assert_eq!(of(&[syn, syn, syn].concat()), Story::Unanswered);
        assert_eq!(of(&[syn, ack, own].concat()), Story::Probe);
        assert_eq!(of(&[syn, ack, third, fin, data, rst].concat()), Story::TurnedAway);
        assert_eq!(of(&[syn, ack, third, data, rst].concat()), Story::Stale);
        assert_eq!(of(&[syn, ack, third, data, idle, late_rst].concat()), Story::AfterPause);
        assert!(stories(&[syn, ack, third, data].concat()).is_empty());
    }

    #[test]
    fn forms_of_other_options_and_of_tshark_are_read() {
        let verbose = "15:49:30.58 IP (tos 0x0, ttl 64, id 4660, offset 0, flags [DF], proto TCP (6), length 60)\n    10.0.0.1.40000 > 10.0.0.2.80: Flags [S], cksum 0x1 (correct), seq 1, win 64240, options [mss 1460], length 0\n15:49:30.59 IP (tos 0x0, ttl 61, id 0, offset 0, flags [DF], proto TCP (6), length 40)\n    10.0.0.2.80 > 10.0.0.1.40000: Flags [R.], cksum 0x1 (correct), seq 0, ack 2, win 0, length 0";
        let link = "1700000000.5 aa:bb:cc:00:00:01 > aa:bb:cc:00:00:02, ethertype IPv4 (0x0800), length 74: 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 1, win 64240, length 0\n1700000000.6 aa:bb:cc:00:00:02 > aa:bb:cc:00:00:01, ethertype IPv4 (0x0800), length 54: 10.0.0.2.80 > 10.0.0.1.40000: Flags [R.], seq 0, ack 2, win 0, length 0";
        let tshark = "    1 0.000000000   10.0.0.1 → 10.0.0.2   TCP 74 40000 → 80 [SYN] Seq=0 Win=64240 Len=0 MSS=1460\n    2 0.000100000   10.0.0.2 → 10.0.0.1   TCP 54 80 → 40000 [RST, ACK] Seq=1 Ack=1 Win=0 Len=0";
        let cooked = "12:00:00.1 eth0  Out IP6 fe80::1.40000 > fe80::2.80: Flags [S], seq 1, win 1, length 0\n12:00:00.2 eth0  In  IP6 fe80::2.80 > fe80::1.40000: Flags [R.], seq 0, ack 2, win 0, length 0";
        for text in [verbose, link, tshark, cooked] {
            assert_eq!(stories(text), [Story::Refused], "{text}");
        }
        let mut packets = Packets::default();
        assert!(verbose.lines().all(|line| packets.line(line)));
        assert_eq!(packets.flows().told[0].flow.resets[0].ttl, Some(61));
    }

    #[test]
    fn masked_hosts_keep_their_names() {
        let text = "22:10:01.1 IP xxx.xxx.x06.26.5000 > 151.101.xx.xxx.443: Flags [S], seq 5, win 1, length 0\n22:10:02.1 IP xxx.xxx.x06.26.5000 > 151.101.xx.xxx.443: Flags [S], seq 5, win 1, length 0";
        let mut packets = Packets::default();
        text.lines().for_each(|line| assert!(packets.line(line)));
        assert!(packets.remarks()[0].contains("xxx.xxx.x06.26:5000 > 151.101.xx.xxx:443"), "{:?}", packets.remarks());
    }

    #[test]
    fn what_is_no_packet_is_left() {
        for line in ["everything is fine", "Flags [S]", "14:02:11 IP a > b: UDP, length 3", "a -> b", "ttl 64", ""] {
            assert!(!Packets::default().line(line), "{line}");
        }
    }
}
