//! One line of tcpdump or tshark: what kind it is, and what stands in it.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::civil::Date;
use regex::bytes::{Captures, Regex};

use super::clock::When;
use super::pattern;
use crate::capture::link::{ACK, FIN, RST, SYN};
use crate::source::reset_packets::Code;

const PSH: u8 = 0x08;
const URG: u8 = 0x20;

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    Segment(Printed<'a>),
    /// tshark names the protocol above TCP, and neither ports nor flags: data, in a frame of so many bytes.
    Data {
        when: Option<When>,
        from: &'a str,
        to: &'a str,
        frame: u32,
    },
    /// The first line of a packet with -v.
    Above {
        when: Option<When>,
        ttl: Option<u8>,
        id: Option<u16>,
    },
    Error(Unreachable<'a>),
    /// A packet of TCP as tcpdump -q prints it: without its flags.
    Quiet,
    /// Of a capture, and nothing of TCP in it.
    Other,
    /// Of a TCP packet, and too little is left of it.
    Unread,
}

/// A segment as it was printed.
#[derive(Debug, PartialEq, Eq)]
pub struct Printed<'a> {
    pub when: Option<When>,
    pub from: End<'a>,
    pub to: End<'a>,
    pub flags: u8,
    pub reserved: bool,
    /// Numbers and options.
    pub rest: &'a str,
}

/// Host and port, each as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End<'a> {
    pub host: &'a str,
    pub port: &'a str,
}

/// An ICMP error, and what it says of the packet that it is about.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreachable<'a> {
    pub when: Option<When>,
    pub code: Code,
    pub reporter: &'a str,
    pub to: &'a str,
    pub host: Option<&'a str>,
    pub port: Option<&'a str>,
}

/// Quotation marks of mails and numbers of packets may stand before it, and a time.
const LEAD: &str = r"^[\s>|]*(?:\d+\s+)?(?:(?:(?P<date>\d{4}-\d\d-\d\d)[ T])?(?:(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d(?:[.,]\d+)?)Z?|(?P<e>\d+[.]\d+))\s+)?";

fn behind_lead(rest: &str) -> Option<Regex> {
    pattern(&format!("{LEAD}{rest}"))
}

/// `15:49:30.58 eth0 In IP 10.0.0.1.60868 > 10.0.0.2.bgp: Flags [S], ...`; with -e addresses of the link before, with -v on a line
/// of its own; where the line is cut, even the flags may be not all.
static PACKET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    behind_lead(r".*?(?P<from>\S+) > (?P<to>\S+): (?:tcp )?Flags \[(?P<flags>[SFRPUEWe.]+|none)(?:$|\](?P<rest>.*)$)")
});
/// tcpdump before 4.0: `10.0.0.1.40000 > 10.0.0.2.80: S 123:123(0) ack 7 win 65535`.
static OLD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    behind_lead(
        r".*?(?P<from>\S+) > (?P<to>\S+): (?P<flags>[SFRPWE.]+) (?:\[[^\]]*\] )?(?P<rest>(?:\d+:\d+\(\d+\) )?(?:ack \d+ )?win \d+.*)$",
    )
});
/// `IP 10.0.0.1.40000 > 10.0.0.2.80: tcp 517` (-q).
static QUIET: LazyLock<Option<Regex>> =
    LazyLock::new(|| behind_lead(r"(?:.*\b)?IP6? (?P<from>\S+) > (?P<to>\S+): tcp \d+(?: \(DF\))?\s*$"));
static ABOVE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    behind_lead(
        r".*\b(?:IP|IP6|ethertype \S+ \(0x[0-9a-f]+\), length \d+:)\s*\(.*?(?:ttl|hlim) (?P<ttl>\d+)(?:, id (?P<id>\d+))?.*\)\s*$",
    )
});
/// `    1 0.000000 172.16.0.8 → 172.16.0.102 TCP 62 1074 → 80 [SYN] Seq=0 Win=65535 Len=0`; Wireshark's own text has no first arrow.
static TSHARK: LazyLock<Option<Regex>> = LazyLock::new(|| {
    behind_lead(
        r"(?P<from>\S+)\s+(?:\d+\s+)?(?:(?:\xE2\x86\x92|->)\s+)?(?P<to>\S+)\s+(?:\d+\s+)?(?P<protocol>[A-Za-z]\S*)\s+(?P<frame>\d+)\s+(?P<info>\S.*)$",
    )
});
static TSHARK_TCP: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(
        r"^(?:\[[A-Z][^\]]*\] ?)*(?P<from>\d+)\s+(?:\xE2\x86\x92|->|>)\s+(?P<to>\d+)\s+\[(?P<flags>[A-Za-z<>, ]+)\](?P<rest>.*)$",
    )
});
/// `IP 10.0.0.2 > 10.0.0.1: ICMP 10.0.0.2 tcp port 80 unreachable, length 68`.
static ICMP: LazyLock<Option<Regex>> = LazyLock::new(|| {
    behind_lead(
        r".*?(?P<from>\S+) > (?P<to>\S+): (?:\[icmp6 sum ok\] )?ICMP6?,? (?:host |net |destination unreachable, unreachable )?(?P<kind>(?:port|route|address|prohibited),? )?(?P<host>[0-9A-Fa-f.:]+)(?: (?P<protocol>tcp|udp) port (?P<port>[^\s,]+))?(?P<why>.*)$",
    )
});

/// Protocols of tshark that do not run over TCP.
const WITHOUT_TCP: [&str; 24] = [
    "UDP",
    "DNS",
    "MDNS",
    "LLMNR",
    "NBNS",
    "ARP",
    "ICMP",
    "ICMPv6",
    "IGMPv2",
    "IGMPv3",
    "DHCP",
    "DHCPv6",
    "NTP",
    "QUIC",
    "SSDP",
    "SNMP",
    "TFTP",
    "RTP",
    "SIP",
    "STP",
    "LLDP",
    "OSPF",
    "VRRP",
    "WireGuard",
];

/// Reads a line; `None` where it is of nothing like this.
pub fn read(line: &str) -> Option<Line<'_>> {
    let is = |part: &str| line.contains(part);
    if line.trim_start().starts_with("0x") && line.trim_start().get(6..8) == Some(": ") {
        return Some(Line::Other);
    }
    if is("Flags [") && is(" > ") {
        return Some(segment(PACKET.as_ref(), line).unwrap_or(Line::Unread));
    }
    if is("ICMP") && is(" > ") {
        return Some(error(line).unwrap_or(Line::Other));
    }
    if is(": tcp ") && is(" > ") && QUIET.as_ref()?.is_match(line.as_bytes()) {
        return Some(Line::Quiet);
    }
    if is(" win ") && is(" > ") {
        return segment(OLD.as_ref(), line);
    }
    if is("ttl ") || is("hlim ") {
        let found = ABOVE.as_ref()?.captures(line.as_bytes())?;
        return Some(Line::Above { when: when(&found), ttl: number(&found, "ttl"), id: number(&found, "id") });
    }
    tshark(line)
}

fn segment<'a>(regex: Option<&Regex>, line: &'a str) -> Option<Line<'a>> {
    let found = regex?.captures(line.as_bytes())?;
    let end = |name: &str| group(&found, name).rsplit_once('.').map(|(host, port)| End { host, port });
    let (from, to, rest) = (end("from")?, end("to")?, group(&found, "rest"));
    let letters = group(&found, "flags");
    let flag = |letter| match letter {
        'F' => FIN,
        'S' => SYN,
        'R' => RST,
        'P' => PSH,
        '.' => ACK,
        'U' => URG,
        _ => 0,
    };
    let mut flags = if letters == "none" { 0 } else { letters.chars().map(flag).fold(0, |all, flag| all | flag) };
    // The old form has no letter for it.
    if rest.contains("ack ") {
        flags |= ACK;
    }
    Some(Line::Segment(Printed { when: when(&found), from, to, flags, reserved: false, rest }))
}

fn tshark(line: &str) -> Option<Line<'_>> {
    let found = TSHARK.as_ref()?.captures(line.as_bytes())?;
    let (when, from, to) = (when(&found), group(&found, "from"), group(&found, "to"));
    let is_host = |host: &str| host.parse::<std::net::IpAddr>().is_ok();
    // Without a time or between other things than hosts it may be anything.
    when?;
    let (protocol, info) = (group(&found, "protocol"), group(&found, "info"));
    // A further column, of a TTL or stream, may stand before it.
    let columns = [Some(info), info.split_once(char::is_whitespace).map(|(_, rest)| rest.trim_start())];
    let tcp = columns.into_iter().flatten().find_map(|info| TSHARK_TCP.as_ref()?.captures(info.as_bytes()));
    let Some(tcp) = tcp else {
        if !is_host(from) || !is_host(to) {
            return None;
        }
        return Some(match protocol {
            "ICMP" | "ICMPv6" => unreachable(info).map_or(Line::Other, |code| {
                Line::Error(Unreachable { when, code, reporter: from, to, host: None, port: None })
            }),
            protocol if WITHOUT_TCP.contains(&protocol) => Line::Other,
            _ => Line::Data { when, from, to, frame: number(&found, "frame")? },
        });
    };
    let words = group(&tcp, "flags");
    let flag = |word: &str| match word.trim() {
        "FIN" => FIN,
        "SYN" => SYN,
        "RST" => RST,
        "PSH" => PSH,
        "ACK" => ACK,
        "URG" => URG,
        _ => 0,
    };
    Some(Line::Segment(Printed {
        when,
        from: End { host: from, port: group(&tcp, "from") },
        to: End { host: to, port: group(&tcp, "to") },
        flags: words.split(',').map(flag).fold(0, |all, flag| all | flag),
        reserved: words.contains("Reserved"),
        rest: group(&tcp, "rest"),
    }))
}

/// Wireshark's words for the code of "destination unreachable".
fn unreachable(info: &str) -> Option<Code> {
    let why = info.strip_prefix("Destination unreachable (").or(info.strip_prefix("Destination Unreachable ("))?;
    let why = why.to_ascii_lowercase();
    Some(match () {
        () if why.contains("prohibited") || why.contains("filtered") => Code::Prohibited,
        () if why.starts_with("port") => Code::Port,
        () => Code::Host,
    })
}

fn error(line: &str) -> Option<Line<'_>> {
    let found = ICMP.as_ref()?.captures(line.as_bytes())?;
    let (kind, why) = (group(&found, "kind"), group(&found, "why"));
    let port = Some(group(&found, "port")).filter(|port| !port.is_empty());
    let v6 = line.contains("ICMP6");
    if group(&found, "protocol") == "udp" || !v6 && !why.contains("unreachable") || v6 && kind.is_empty() {
        return None;
    }
    let code = match (port, kind.trim_end_matches([' ', ','])) {
        (_, "prohibited") => Code::Prohibited,
        _ if why.contains("prohibited") => Code::Prohibited,
        (Some(_), _) | (_, "port") => Code::Port,
        _ => Code::Host,
    };
    Some(Line::Error(Unreachable {
        when: when(&found),
        code,
        reporter: group(&found, "from"),
        to: group(&found, "to"),
        host: Some(group(&found, "host")),
        port,
    }))
}

fn group<'a>(found: &Captures<'a>, name: &str) -> &'a str {
    found.name(name).and_then(|found| std::str::from_utf8(found.as_bytes()).ok()).unwrap_or_default()
}

fn number<T: std::str::FromStr>(found: &Captures<'_>, name: &str) -> Option<T> {
    group(found, name).parse().ok()
}

fn when(found: &Captures<'_>) -> Option<When> {
    let seconds = |name: &str| group(found, name).replace(',', ".").parse::<f64>().ok();
    let of_day = match (seconds("h"), seconds("m"), seconds("s")) {
        (Some(hours), Some(minutes), Some(seconds)) => Some(hours * 3_600.0 + minutes * 60.0 + seconds),
        _ => None,
    };
    let at = Duration::try_from_secs_f64(of_day.or(seconds("e"))?).ok()?;
    let day = days(group(found, "date")).filter(|_| of_day.is_some());
    let dated = day.map_or(Duration::ZERO, |day| Duration::from_secs(day * 86_400));
    Some(When { at: dated.checked_add(at)?, of_day: of_day.is_some() && day.is_none() })
}

/// `2026-11-27` as days since the epoch.
fn days(date: &str) -> Option<u64> {
    let date: Date = date.parse().ok()?;
    let days = date.since(Date::constant(1970, 1, 1)).ok()?.get_days();
    u64::try_from(days).ok()
}
