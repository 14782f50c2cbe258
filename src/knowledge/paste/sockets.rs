//! `ss -lnt`, `ss -tan`, `netstat -ant`, `ss -s`, counts of states, `/proc/net/sockstat`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Support;
use crate::knowledge::error_texts;
use crate::value::words::{counted, thousands};

/// A listener whose accept queue is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    pub address: String,
    /// Connections that wait, and how many may.
    pub waiting: u64,
    pub limit: u64,
    pub process: Option<String>,
}

/// A listener as it is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    pub local: SocketAddr,
    pub waiting: u32,
    pub limit: u32,
}

/// Sockets that a text shows.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Lines that were understood.
    pub lines: u64,
    pub listeners: u64,
    /// Those with an address, as they were printed, at most [`LISTENERS`].
    pub listening: Vec<Listening>,
    /// At most [`MOST`].
    pub full: Vec<Full>,
    /// Sockets by state, as `ss` names it.
    states: BTreeMap<&'static str, u64>,
    /// Sockets that were never connected, or closed and not given back, of `ss -s`.
    closed: u64,
    orphans: u64,
    mem_pages: u64,
    /// Of /proc/net/tcp: ports of listeners with connections that wait, and how many.
    waiting: Vec<(u64, u64)>,
    /// The line of TCP in /proc/net/sockstat.
    sockstat: Option<String>,
}

/// Listeners that are kept.
const LISTENERS: usize = 10_000;
/// Full listeners that are kept.
const MOST: usize = 256;

const STATES: [(&str, &str); 11] = [
    ("ESTAB", "ESTABLISHED"),
    ("SYN-SENT", "SYN_SENT"),
    ("SYN-RECV", "SYN_RECV"),
    ("FIN-WAIT-1", "FIN_WAIT1"),
    ("FIN-WAIT-2", "FIN_WAIT2"),
    ("TIME-WAIT", "TIME_WAIT"),
    ("CLOSE-WAIT", "CLOSE_WAIT"),
    ("LAST-ACK", "LAST_ACK"),
    ("CLOSING", "CLOSING"),
    ("LISTEN", "LISTENING"),
    ("UNCONN", "CLOSE"),
];

fn state(word: &str) -> Option<&'static str> {
    STATES.iter().find(|(ss, netstat)| *ss == word || *netstat == word).map(|(ss, _)| *ss)
}

/// First words of lines around the sockets that say nothing by themselves.
const FRAME: [&str; 14] = [
    "Active",
    "Transport",
    "RAW",
    "UDP",
    "TCP",
    "INET",
    "FRAG",
    "*",
    "Total:",
    "sockets:",
    "UDP:",
    "UDPLITE:",
    "RAW:",
    "FRAG:",
];

/// Sockets other than TCP, as ss and netstat name their kinds.
const OTHERS: [&str; 22] = [
    "nl", "u_str", "u_dgr", "u_seq", "p_raw", "p_dgr", "udp", "udp6", "raw", "raw6", "udplite", "udplite6", "icmp6",
    "sctp", "dccp", "mptcp", "xdp", "v_str", "v_dgr", "tipc", "unix", "ti_rd",
];

/// `0.0.0.0:80`, `*:80`, `:::80`, `[::]:80`, `127.0.0.53%lo:53`.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').split('%').next()?;
    let host = if host == "*" { "0.0.0.0" } else { host };
    Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?))
}

impl Sockets {
    /// Takes the line if it shows sockets.
    pub fn line(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().take(12).collect();
        let taken = self.socket(line, &words)
            || self.kernel_line(&words)
            || self.count(&words)
            || self.summary(line, &words)
            || self.frame(line);
        self.lines += u64::from(taken);
        taken
    }

    /// `LISTEN 129 128 :::30720 :::*`, `tcp 0 0 10.0.0.1:80 10.0.0.2:5120 ESTABLISHED`, with or without ss' first column.
    fn socket(&mut self, line: &str, words: &[&str]) -> bool {
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let (state, recv, send, local) = match *words {
            // Windows prints no queues.
            ["TCP", local, _, last, ..] if state(last).is_some() => (state(last), Some(0), None, local),
            ["tcp" | "tcp6", _, _, local, _, last, ..] if state(last).is_some() => {
                (state(last), number(1), None, local)
            }
            ["tcp", first, _, _, local, ..] => (state(first), number(2), number(3), local),
            [first, _, _, local, ..] => (state(first), number(1), number(2), local),
            _ => return false,
        };
        let (Some(state), Some(recv), true) = (state, recv, local.contains(':')) else { return false };
        if state == "LISTEN" {
            self.listeners += 1;
            if let (Some(limit), Some(local), true) = (send, address(local), self.listening.len() < LISTENERS) {
                let bounded = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
                let listening = Listening { local, waiting: bounded(recv), limit: bounded(limit) };
                if !self.listening.iter().rev().take(512).any(|known| known.local == local) {
                    self.listening.push(listening);
                }
            }
            // A listener may be pasted twice.
            let known = self.full.iter().any(|full| full.address == local);
            if let Some(limit) = send.filter(|limit| *limit > 0 && recv > *limit && !known && self.full.len() < MOST) {
                let process = line
                    .split_once("users:((\"")
                    .and_then(|(_, rest)| rest.split_once('"'))
                    .map(|(name, _)| name.to_owned());
                self.full.push(Full { address: local.to_owned(), waiting: recv, limit, process });
            }
        } else {
            self.add(state, 1);
        }
        true
    }

    /// `   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 ...` of /proc/net/tcp and tcp6 (get_tcp4_sock, net/ipv4/tcp_ipv4.c).
    fn kernel_line(&mut self, words: &[&str]) -> bool {
        let [slot, local, peer, code, queues, ..] = *words else { return false };
        let hex = |text: &str, long: &[usize]| {
            let (address, port) = text.split_once(':')?;
            let sound = long.contains(&address.len()) && address.bytes().all(|byte| byte.is_ascii_hexdigit());
            u64::from_str_radix(port, 16).ok().filter(|_| sound)
        };
        let numbered = slot.strip_suffix(':').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        let ends = hex(local, &[8, 32]).zip(hex(peer, &[8, 32]));
        let (true, Some((port, _)), Some(waiting)) = (numbered, ends, hex(queues, &[8])) else { return false };
        // enum in include/net/tcp_states.h.
        const CODES: [&str; 11] = [
            "ESTAB",
            "SYN-SENT",
            "SYN-RECV",
            "FIN-WAIT-1",
            "FIN-WAIT-2",
            "TIME-WAIT",
            "UNCONN",
            "CLOSE-WAIT",
            "LAST-ACK",
            "LISTEN",
            "CLOSING",
        ];
        let state = u8::from_str_radix(code, 16).ok().and_then(|code| code.checked_sub(1));
        match state.and_then(|at| CODES.get(usize::from(at))) {
            Some(&"LISTEN") => {
                self.listeners += 1;
                // It does not print the limit.
                if waiting > 0 && self.waiting.len() < MOST {
                    self.waiting.push((port, waiting));
                }
            }
            Some(state) => self.add(state, 1),
            None => return false,
        }
        true
    }

    /// `3068 CLOSE-WAIT`, `CLOSE_WAIT 3068`: sorted and counted.
    fn count(&mut self, words: &[&str]) -> bool {
        let [a, b] = *words else { return false };
        let (name, count) = if state(a).is_some() { (a, b) } else { (b, a) };
        let (Some(state), Ok(count)) = (state(name), count.parse()) else { return false };
        self.add(state, count);
        true
    }

    /// `TCP:   41047 (estab 74, closed 40940, orphaned 0, synrecv 0, timewait 3/0), ports 12036`, and that of sockstat.
    fn summary(&mut self, line: &str, words: &[&str]) -> bool {
        if words.first() != Some(&"TCP:") {
            return false;
        }
        let clean = line.replace(['(', ')', ',', '/'], " ");
        let words: Vec<&str> = clean.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1)?.parse::<u64>().ok()
        };
        let Some(tw) = after("timewait").or_else(|| after("tw")) else { return false };
        self.states.entry("TIME-WAIT").or_insert(tw);
        if line.starts_with("TCP: inuse ") {
            self.sockstat = Some(line.trim_end().to_owned());
        }
        if let Some(estab) = after("estab") {
            self.states.entry("ESTAB").or_insert(estab);
            self.closed = after("closed").unwrap_or(0).saturating_sub(tw);
        }
        self.orphans = self.orphans.max(after("orphaned").or_else(|| after("orphan")).unwrap_or(0));
        self.mem_pages = self.mem_pages.max(after("mem").unwrap_or(0));
        true
    }

    fn frame(&self, line: &str) -> bool {
        let opens = line.contains("Recv-Q")
            || line.trim_start().starts_with("sl  local_address")
            || line.trim_end() == "Active Connections"
            || self.lines > 0 && line.contains("Local Address")
            || line.starts_with("Active Internet connections")
            || line.starts_with("Active UNIX domain sockets")
            || line.starts_with("sockets: used ");
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let other = OTHERS.contains(&first) && words.nth(3).is_some() || line.starts_with("Proto RefCnt");
        // ss -i, -m, -e and -o print more of a socket, on a line of its own where it is long.
        let more = line.starts_with([' ', '\t'])
            && ["skmem:", "rto:", "cwnd:", "mss:", "ino:", "timer:"].iter().any(|word| line.contains(word));
        opens || self.lines > 0 && (FRAME.contains(&first) || other || more)
    }

    fn add(&mut self, state: &'static str, count: u64) {
        let known = self.states.entry(state).or_default();
        *known = known.saturating_add(count);
    }

    /// The line of TCP as /proc/net/sockstat has it.
    pub fn sockstat(&self) -> Option<Vec<u8>> {
        self.sockstat.as_ref().map(|line| format!("{line}\n").into_bytes())
    }

    /// Sockets in a state, by the name that `ss` gives it.
    pub fn in_state(&self, state: &str) -> u64 {
        self.states.get(state).copied().unwrap_or(0)
    }

    /// What the sockets show, in words: the states with many sockets, and full queues.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(worst) = self.full.iter().max_by_key(|full| full.waiting) {
            let owner = worst.process.as_ref().map_or(String::new(), |name| format!(" of {name}"));
            let and = if self.full.len() > 1 { format!(", and {} more", self.full.len() - 1) } else { String::new() };
            remarks.push(format!(
                "accept queue full: {}{owner}, {} of {}{and}",
                worst.address, worst.waiting, worst.limit
            ));
        }
        if let Some((port, waiting)) = self.waiting.iter().max_by_key(|(_, waiting)| *waiting) {
            let what = counted(*waiting, "connection");
            remarks.push(format!("{what} wait to be accepted on port {port}; ss -lnt says how many may"));
        }
        let many: Vec<_> = self
            .states
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(state, count)| format!("{} {state}", thousands(*count)))
            .collect();
        if !many.is_empty() {
            remarks.push(format!("sockets: {}", many.join(", ")));
        }
        if self.unconnected() {
            remarks.push(format!(
                "{} sockets neither connected nor given back: descriptors that leak, with or without a local port",
                thousands(self.closed)
            ));
        }
        remarks
    }

    /// Many sockets that were created, and perhaps bound, and never connected or closed.
    fn unconnected(&self) -> bool {
        let live: u64 = self.states.values().fold(0, |sum, count| sum.saturating_add(*count));
        self.closed >= 1_000 && self.closed > live.saturating_mul(10)
    }

    pub(super) fn rank(&self, support: &mut Support<'_>) {
        let text = |words: &str| error_texts::meant(words).into_iter().next();
        let mut say = |id: &'static str, score: f64, reason: String, words: &str| {
            if let Some(text) = text(words) {
                support(id, score, reason, text);
            }
        };
        if let Some(worst) = self.full.iter().max_by_key(|full| full.waiting) {
            let reason = format!(
                "{} with more connections waiting than fit: {} has {} of {}",
                counted(self.full.len() as u64, "listener"),
                worst.address,
                worst.waiting,
                worst.limit
            );
            // Many full queues at once are no lack of backlog.
            let stalled = if self.full.len() > 2 { 30.0 } else { 9.0 };
            say(
                "accept-loop-stalled",
                stalled,
                format!("{reason}: if that does not change, nobody accepts"),
                "ListenOverflows",
            );
            say("accept-queue-overflow", 12.0, reason, "ListenOverflows");
        }
        for (state, least, id, words) in [
            ("CLOSE-WAIT", 20, "close-wait-leak", "24"),
            ("SYN-SENT", 3, "connect-unanswered", "TCPSynRetrans"),
            ("SYN-RECV", 100, "syn-queue-overflow", "TCPReqQFullDoCookies"),
            ("SYN-RECV", 100, "syn-flood", "TCPReqQFullDoCookies"),
            ("TIME-WAIT", 20_000, "ephemeral-ports-exhausted", "99"),
        ] {
            let count = self.in_state(state);
            if count >= least {
                say(
                    id,
                    4.0 + (count as f64 / least as f64).log10(),
                    format!("{} sockets in {state}", thousands(count)),
                    words,
                );
            }
        }
        if self.unconnected() {
            let reason = format!("{} sockets that never connected hold descriptors and ports", thousands(self.closed));
            say("ephemeral-ports-exhausted", 6.0, reason.clone(), "99");
            say("fd-exhaustion", 5.0, reason, "24");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Sockets {
        let mut sockets = Sockets::default();
        text.lines().for_each(|line| {
            sockets.line(line);
        });
        sockets
    }

    #[test]
    fn full_queues_are_seen() {
        let sockets = read(
            "State Recv-Q Send-Q Local Address:Port Peer Address:Port\nLISTEN 129 128 :::30720 :::* users:((\"kube-proxy\",pid=1448,fd=21))\nLISTEN 3 128 :::31460 :::*\nLISTEN 0 0 10.0.0.1:1 *:*",
        );
        assert_eq!((sockets.lines, sockets.listeners), (4, 3));
        assert_eq!(sockets.full[0].process.as_deref(), Some("kube-proxy"));
        assert_eq!(sockets.full.len(), 1);
    }

    #[test]
    fn states_are_counted_in_all_forms() {
        let sockets = read(
            "ESTAB 0 0 10.79.0.2:8080 10.79.0.1:41666\ntcp 0 0 10.0.0.1:80 10.0.0.2:5120 ESTABLISHED\n   3068 CLOSE-WAIT\nCLOSE_WAIT 2",
        );
        assert_eq!((sockets.in_state("ESTAB"), sockets.in_state("CLOSE-WAIT")), (2, 3070));
    }

    #[test]
    fn a_leak_of_unconnected_sockets_is_seen() {
        let sockets = read("TCP:   41047 (estab 74, closed 40940, orphaned 0, synrecv 0, timewait 3/0), ports 12036");
        assert!(sockets.unconnected());
        assert!(!read("TCP:   32 (estab 6, closed 25, orphaned 0, timewait 0)").unconnected());
    }

    #[test]
    fn what_is_no_socket_is_left() {
        for line in ["everything is fine", "LISTEN to me", "TCP: hello", "tcp 1 2", "State of the art", "RAW data", ""]
        {
            assert!(!Sockets::default().line(line), "{line}");
        }
    }
}
