//! Packets as tcpdump and tshark print them, a line or two each: the connections are followed as those of a capture.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

use regex::bytes::{Captures, Regex, RegexBuilder};

use super::{Support, Taken};
use crate::capture::link::{ACK, FIN, Held, Options, RST, SYN, Segment};
use crate::capture::{Flows, Reading, Story, Sure, Told, Tracker};
use crate::knowledge::error_texts;
use crate::source::reset_packets::Quoted;
use crate::value::words::counted;
use clock::{Clock, When};
use line::{End, Line, Printed, Unreachable};

mod clock;
mod line;
#[cfg(test)]
mod tests;

/// Hosts without an address, and directions of connections, that are remembered.
const MOST: usize = 20_000;
/// Connections between two hosts that are told apart where a line names no ports.
const BESIDE: usize = 64;
const PSH: u8 = 0x08;

fn pattern(pattern: &str) -> Option<Regex> {
    // A test reads lines by all of them.
    RegexBuilder::new(pattern).unicode(false).build().ok()
}

static NUMBERS: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r"\b(seq|ack|win|length|Seq|Ack|Win|Len)[ =](\d+)(?::(\d+))?"));
/// Of tcpdump before 4.0: first and last number, length.
static RANGE: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"^(\d+):\d+\((\d+)\)"));
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

/// Lines that -A prints below a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Data {
    #[default]
    None,
    /// The line before was of a packet.
    May,
    /// Its header was printed; what follows is its data, whatever that is.
    Is,
}

/// Packets that a text shows.
#[derive(Debug, Default)]
pub struct Packets {
    /// Lines of packets that were understood.
    pub packets: u64,
    /// Lines of packets of which too little was understood: what they were is missing in the connections.
    unread: u64,
    /// Those that tcpdump -q printed.
    quiet: u64,
    /// What tcpdump -A prints of a packet follows, or may follow.
    data: Data,
    tracker: Tracker,
    clock: Clock,
    /// Hosts that are written in another way than by their address.
    names: HashMap<String, Ipv4Addr>,
    /// The first number of each direction.
    bases: HashMap<Ends, u32>,
    /// Connections between two hosts that are open, as initiator and acceptor; their segments have timestamps.
    open: HashMap<(IpAddr, IpAddr), Vec<(Ends, bool)>>,
    /// The last connect of each host.
    asked: HashMap<IpAddr, Ends>,
    /// TTL and IP id of the packet whose other line follows, and its time.
    above: Option<(Option<When>, Option<u8>, Option<u16>)>,
    /// The packet that an ICMP error quotes follows (-v).
    quoting: bool,
    read: OnceCell<Flows>,
}

type Ends = (SocketAddr, SocketAddr);

/// A header of IPv4 or IPv6 as characters, those that cannot be printed as dots.
fn is_header(text: &str) -> bool {
    let text = text.trim_start_matches('\t');
    let dots = text.chars().take(40).filter(|c| *c == '.').count();
    (text.starts_with('E') || text.starts_with('`')) && dots >= 4 && !text.chars().take(8).any(char::is_whitespace)
}

fn between(from: IpAddr, to: IpAddr) -> (IpAddr, IpAddr) {
    if from <= to { (from, to) } else { (to, from) }
}

impl Packets {
    /// Takes the line if it is of a capture.
    pub(super) fn line(&mut self, text: &str) -> Taken {
        const ABOUT: [&str; 5] = [
            "packets captured",
            "packets received by filter",
            "packets dropped by ",
            "packet captured",
            "packets dropped",
        ];
        let about = ABOUT.iter().any(|words| text.contains(words)) && text.starts_with(|c: char| c.is_ascii_digit());
        let inside = self.packets > 0;
        let of_a_session = text.starts_with("listening on ") && (inside || text.contains("link-type"))
            || text.starts_with("Capturing on '")
            || text.trim() == "^C" && inside;
        if about || of_a_session || text.starts_with("tcpdump: ") {
            return Taken::Understood;
        }
        let data = std::mem::take(&mut self.data);
        // What an ICMP error quotes is indented further than it.
        let quoted = std::mem::take(&mut self.quoting) && text.starts_with(['\t', ' ']);
        let Some(line) = line::read(text) else {
            // An error that the data tells of is one for all that.
            let is_data = data == Data::Is || data == Data::May && is_header(text);
            if !is_data || !error_texts::matches(text.as_bytes()).is_empty() {
                return Taken::No;
            }
            self.data = Data::Is;
            return Taken::Understood;
        };
        self.data = Data::May;
        self.read = OnceCell::new();
        let understood = match line {
            Line::Above { when: None, .. } if quoted => {
                self.quoting = true;
                true
            }
            Line::Segment(printed) if quoted && printed.when.is_none() => true,
            Line::Above { when, ttl, id } => {
                self.above = Some((when, ttl, id));
                true
            }
            Line::Segment(printed) => self.segment(&printed),
            Line::Data { when, from, to, frame } => self.data(when, (from, to), frame),
            // Of captures with nothing of TCP in them nobody asks here.
            Line::Error(_) | Line::Other if self.packets == 0 => return Taken::No,
            Line::Error(error) => {
                self.error(&error);
                true
            }
            Line::Quiet => {
                self.quiet += 1;
                false
            }
            Line::Other => true,
            Line::Unread => false,
        };
        self.unread += u64::from(!understood);
        if understood { Taken::Understood } else { Taken::Unread }
    }

    fn segment(&mut self, printed: &Printed<'_>) -> bool {
        let above = self.above.take().unwrap_or_default();
        let (Some(from), Some(to)) = (self.end(printed.from), self.end(printed.to)) else { return false };
        let rest = printed.rest;
        let (mut seq, mut ack, mut window, mut length) = (None, None, None, None);
        for found in NUMBERS.iter().flat_map(|regex| regex.captures_iter(rest.as_bytes())) {
            let number = text(&found, 2).parse::<u32>().ok();
            match text(&found, 1) {
                "seq" | "Seq" => seq = seq.or(number),
                "ack" | "Ack" => ack = ack.or(number),
                "win" | "Win" => window = number,
                _ => length = number,
            }
        }
        if let Some(found) = RANGE.as_ref().and_then(|regex| regex.captures(rest.as_bytes())) {
            (seq, length) = (text(&found, 1).parse().ok(), text(&found, 2).parse().ok());
        }
        let timestamps = TIMESTAMPS
            .as_ref()
            .and_then(|regex| regex.captures(rest.as_bytes()))
            .and_then(|found| Some((text(&found, 1).parse().ok()?, text(&found, 2).parse().ok()?)));
        let any = rest.contains("options [") && !rest.contains("options []") || timestamps.is_some();
        let flags = printed.flags;
        // Who pushes has something to send, also where the line is cut before it says how much.
        let whole = length.is_some() || flags & PSH == 0;
        let options = Options { any, scale: None, timestamps, unknown: !whole };
        let length = length.unwrap_or(u32::from(flags & PSH != 0)).min(1 << 20);
        // A window that is not printed was not closed.
        let open = if flags & RST == 0 { u32::MAX } else { 0 };
        let window = u16::try_from(window.unwrap_or(open)).unwrap_or(u16::MAX);
        let numbers = Numbers { seq, ack, window, length };
        self.follow((from, to), flags, timestamps.is_some());
        let when = printed.when.or(above.0);
        self.packet(when, (from, to), (flags, printed.reserved), &numbers, options, (above.1, above.2));
        whole
    }

    /// Data of the one connection that is open between the two hosts.
    fn data(&mut self, when: Option<When>, (from, to): (&str, &str), frame: u32) -> bool {
        let (Some(from), Some(to)) = (self.host(from), self.host(to)) else { return false };
        let Some([(ends, timestamps)]) = self.open.get(&between(from, to)).map(Vec::as_slice) else { return false };
        let (ends, timestamps) = (*ends, *timestamps);
        let (here, there) = if ends.0.ip() == from { ends } else { (ends.1, ends.0) };
        // Ethernet, IP, TCP, and its timestamps with their padding (RFC 7323, appendix A).
        let heads = 14 + if from.is_ipv4() { 20 } else { 40 } + 20 + if timestamps { 12 } else { 0 };
        let numbers = Numbers {
            seq: None,
            ack: self.tracker.next(there, here),
            window: u16::MAX,
            length: frame.saturating_sub(heads).clamp(1, 1 << 20),
        };
        let options = Options { any: timestamps, scale: None, timestamps: None, unknown: true };
        self.packet(when, (here, there), (ACK | PSH, false), &numbers, options, (None, None));
        true
    }

    /// Which connections are open between two hosts.
    fn follow(&mut self, (from, to): Ends, flags: u8, timestamps: bool) {
        let pair = between(from.ip(), to.ip());
        if flags & (SYN | ACK) == SYN && (self.asked.len() < MOST || self.asked.contains_key(&from.ip())) {
            self.asked.insert(from.ip(), (from, to));
        }
        if self.open.len() >= MOST && !self.open.contains_key(&pair) {
            return;
        }
        let open = self.open.entry(pair).or_default();
        let known = open.iter().position(|(ends, _)| *ends == (from, to) || *ends == (to, from));
        match known {
            Some(at) if flags & (RST | FIN) != 0 => drop(open.swap_remove(at)),
            Some(_) => {}
            None if flags & (RST | FIN) == 0 && open.len() < BESIDE => {
                let ends = if flags & (SYN | ACK) == SYN | ACK { (to, from) } else { (from, to) };
                open.push((ends, timestamps));
            }
            None => {}
        }
    }

    /// An ICMP error about the connect that was just made.
    fn error(&mut self, error: &Unreachable<'_>) {
        self.quoting = true;
        let above = self.above.take().and_then(|(when, ..)| when);
        let at = self.clock.read(error.when.or(above));
        let at = self.tracker.time(at);
        let (Some(reporter), Some(to)) = (self.host(error.reporter), self.host(error.to)) else { return };
        let Some((source, destination)) = self.asked.get(&to).copied() else { return };
        let about = |host: &str| self.names.get(host).copied().map(IpAddr::V4).or_else(|| host.parse().ok());
        let port = error.port.map(port);
        let same = error.host.is_none_or(|host| about(host) == Some(destination.ip()))
            && port.is_none_or(|port| port == destination.port());
        if same {
            let quoted = Quoted { code: error.code, reporter, to, source, destination, flags: SYN };
            self.tracker.packet(Held::Error(quoted), at, 0, 1, false);
        }
    }

    fn packet(
        &mut self,
        when: Option<When>,
        (from, to): Ends,
        (flags, reserved): (u8, bool),
        numbers: &Numbers,
        options: Options,
        (ttl, ip_id): (Option<u8>, Option<u16>),
    ) {
        // Without a number it is a bare ACK, whose own number nobody prints.
        let base = self.bases.get(&(from, to)).copied();
        let seq = match (numbers.seq, base) {
            (Some(printed), Some(base)) if flags & SYN == 0 => absolute(base, printed),
            (Some(printed), _) => printed,
            (None, _) => self.tracker.next(from, to).unwrap_or(0),
        };
        let ack = match (numbers.ack, self.bases.get(&(to, from)).copied()) {
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
        let at = self.clock.read(when);
        let at = self.tracker.time(at);
        let segment = Segment {
            at,
            from,
            to,
            flags,
            reserved,
            seq,
            ack,
            window: numbers.window,
            length: numbers.length,
            data: b"",
            ttl,
            ip_id,
            options,
            stated: None,
            sent_here: None,
        };
        self.packets += 1;
        self.tracker.packet(Held::Segment(segment), at, 0, 1, false);
    }

    /// `10.0.0.1.60868`, `2001:db8::1.443`, `host.example.https`, `xxx.xxx.x06.26.443`.
    fn end(&mut self, end: End<'_>) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host(end.host)?, port(end.port)))
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
        self.read.get_or_init(|| {
            let mut flows = self.tracker.clone().finish("text", None);
            if self.unread > 0 {
                let why =
                    format!("{} of packets tell too little, and may tell otherwise", counted(self.unread, "line"));
                for reading in flows.told.iter_mut().flat_map(|told| &mut told.readings) {
                    reading.sure = Sure::Perhaps;
                    reading.because.push(why.clone());
                }
            }
            flows
        })
    }

    /// What is missing where the packets were printed without their flags.
    pub fn lacks(&self) -> Option<String> {
        let count = counted(self.quiet, "packet");
        (self.quiet > 0).then(|| {
            format!("{count} as tcpdump -q prints them, without flags: whether one is a RST cannot be told; print them without -q")
        })
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
        for ((story, harmless, _), further) in &self.flows().further {
            if let Some(known) = stories.iter_mut().find(|known| (known.0, known.1) == (*story, *harmless)) {
                known.2 += further;
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
        self.stories().iter().map(remark).chain(self.lacks()).collect()
    }

    pub(super) fn rank(&self, support: &mut Support<'_>) {
        for (story, harmless, count, _, reading) in self.stories() {
            let Some(id) = story.cause() else { continue };
            let words = match story {
                Story::Forged | Story::Injected | Story::Passed => "curl: (35)",
                Story::Refused | Story::TriedElsewhere => "111",
                Story::Unanswered | Story::NoRoute | Story::Lost | Story::QueueFull => "110",
                Story::LateData => "TCPAbortOnData",
                Story::UnreadData | Story::WrongProtocol => "TCPAbortOnClose",
                Story::Probe | Story::Scanned | Story::HandshakeReset => {
                    "recv() failed (104: Connection reset by peer) while waiting for request"
                }
                Story::GaveUp | Story::Cancelled | Story::Left => "499",
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

/// Of a number that may be printed relative to the first one of its direction: tcpdump prints the first ones as they are, and the rest
/// relative to them, unless it was told otherwise (-S). Whichever leaves less between the two was meant.
fn absolute(base: u32, printed: u32) -> u32 {
    let distance = printed.wrapping_sub(base);
    if printed < distance { base.wrapping_add(printed) } else { printed }
}

fn text<'a>(found: &Captures<'a>, group: usize) -> &'a str {
    found.get(group).and_then(|found| std::str::from_utf8(found.as_bytes()).ok()).unwrap_or_default()
}

/// A service that is not known here still is the same one in each of its packets.
fn port(text: &str) -> u16 {
    let known = || PORTS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    text.parse().ok().or_else(known).unwrap_or(0)
}

/// What a line says of its segment; a number that may be relative, as it is printed.
struct Numbers {
    seq: Option<u32>,
    ack: Option<u32>,
    window: u16,
    length: u32,
}
