//! Lines of the kernel's tracepoints about resets and states, as /sys/kernel/tracing/trace_pipe, trace-cmd and perf script print them
//! (include/trace/events/tcp.h and sock.h).

use std::collections::BTreeMap;

use super::Support;
use crate::knowledge::error_texts;
use crate::knowledge::reset_kinds::Kind as Reset;
use crate::value::words::{counted, thousands};

/// Different events that are told apart.
const MOST: usize = 1_000;

/// What one kind of event is told by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Reason, or state where the kernel (before 6.10) prints no reason.
    Sent(String),
    Received,
    /// A listener was closed.
    ListenerClosed,
}

/// Events that a text shows.
#[derive(Debug, Default)]
pub struct Events {
    /// Lines that were understood.
    pub lines: u64,
    /// By kind, local port and task.
    seen: BTreeMap<(Kind, u16, String), u64>,
}

/// `key=value` of the line.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// `nginx` of `nginx-4122 [001] ..s1. 12.5: tcp_send_reset: ...`, and of `nginx 4122 [001] 12.5: tcp:tcp_send_reset: ...`.
fn task(before: &str) -> Option<String> {
    let (task, _) = before.split_once('[')?;
    let task = task.trim();
    let (name, pid) = task.rsplit_once([' ', '-'])?;
    pid.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.trim().to_owned())
}

/// Kinds of reset that one may be, by the reason that the kernel states or, before 6.10, by the state.
fn kinds(said: &str) -> &'static [Reset] {
    match Reset::of_reason(said) {
        [] => Reset::of_state(said),
        kinds => kinds,
    }
}

impl Events {
    /// Takes the line if it is such an event.
    pub fn line(&mut self, line: &str) -> bool {
        const NAMES: [&str; 6] = [
            "tcp_send_reset",
            "tcp_receive_reset",
            "inet_sock_set_state",
            "tcp_retransmit_skb",
            "tcp_destroy_sock",
            "tcp_retransmit_synack",
        ];
        if line.starts_with("# tracer:") || line.starts_with("# entries-in-buffer") {
            self.lines += 1;
            return true;
        }
        // The heading of a trace is drawn with signs.
        if line.starts_with('#') {
            return self.lines > 0;
        }
        let found = NAMES.iter().find_map(|name| {
            let (before, rest) = line.split_once(&format!("{name}: "))?;
            let before = before.trim_end().trim_end_matches("tcp:").trim_end_matches("sock:");
            before.trim_end().ends_with(':').then_some((*name, before, rest))
        });
        let Some((name, before, rest)) = found else { return false };
        let port = |text: &str| text.rsplit(':').next().and_then(|port| port.parse().ok());
        let own = match field(rest, "sport") {
            Some(port) => port.parse().ok(),
            None => field(rest, "src").and_then(port),
        };
        let Some(own) = own else { return false };
        self.lines += 1;
        let state = |key: &str| field(rest, key).unwrap_or_default();
        let kind = match name {
            "tcp_send_reset" => {
                let stated = field(rest, "reason").filter(|reason| *reason != "NOT_SPECIFIED");
                Kind::Sent(stated.unwrap_or(state("state")).to_owned())
            }
            "tcp_receive_reset" => Kind::Received,
            "inet_sock_set_state" if state("oldstate") == "TCP_LISTEN" && state("newstate") == "TCP_CLOSE" => {
                Kind::ListenerClosed
            }
            _ => return true,
        };
        // What the softirq of an incoming packet interrupts has nothing to do with it.
        let own_doing = match &kind {
            Kind::Sent(said) => Reset::of_reason(said).first().is_some_and(|kind| kind.is_by_process()),
            Kind::Received => false,
            Kind::ListenerClosed => true,
        };
        let task = task(before).filter(|_| own_doing).unwrap_or_default();
        let key = (kind, own, task);
        if self.seen.len() < MOST || self.seen.contains_key(&key) {
            *self.seen.entry(key).or_default() += 1;
        }
        true
    }

    /// How many resets were sent and received, in words.
    pub fn remarks(&self) -> Vec<String> {
        let of = |keep: &dyn Fn(&Kind) -> bool| -> u64 {
            self.seen.iter().filter(|((kind, ..), _)| keep(kind)).map(|(_, count)| count).sum()
        };
        let (sent, received) = (of(&|kind| matches!(kind, Kind::Sent(_))), of(&|kind| *kind == Kind::Received));
        if self.lines == 0 {
            return Vec::new();
        }
        vec![format!("events: {} sent, {} received", counted(sent, "RST"), thousands(received))]
    }

    pub(super) fn rank(&self, support: &mut Support<'_>) {
        for ((kind, port, task), count) in &self.seen {
            let by = if task.is_empty() { String::new() } else { format!(" by {task}") };
            let size = (*count as f64).log10() + 2.0;
            let mut add = |id: &'static str, score: f64, reason| {
                let text = error_texts::counter_of(id).or_else(|| error_texts::counter("Tcp", "OutRsts"));
                if let Some(text) = text {
                    support(id, score, reason, text);
                }
            };
            match kind {
                Kind::Sent(said) => {
                    let causes = kinds(said).iter().flat_map(|kind| kind.causes().iter().map(move |id| (*kind, *id)));
                    for (rank, (kind, id)) in causes.enumerate() {
                        let count = counted(*count, "RST");
                        let reason = format!("{count} sent from port {port}{by}, {said}: {}", kind.words());
                        add(id, size / (rank + 1) as f64, reason);
                    }
                }
                Kind::Received => {
                    let said = format!("{} received at port {port}: the other end sent them", counted(*count, "RST"));
                    add("peer-reset", size / 2.0, said);
                }
                Kind::ListenerClosed => {
                    let said = format!("the listener of port {port} was closed{by}, with what waited in its queue");
                    add("listener-closed", size / 2.0, said);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Events, Vec<(&'static str, String)>) {
        let mut events = Events::default();
        assert!(text.lines().all(|line| events.line(line)), "{text}");
        let mut all = Vec::new();
        events.rank(&mut |id, _, reason, _| all.push((id, reason)));
        (events, all)
    }

    #[test]
    fn a_reason_that_the_kernel_states_is_the_cause() {
        let (events, causes) = read(
            "# tracer: nop\n#              | |         |   |||||     |         |\n           nginx-4122    [001] ..s1.  1234.567890: tcp_send_reset: skbaddr=00000000aa skaddr=00000000bb src=10.0.0.1:80 dest=10.0.0.2:40000 state=TCP_ESTABLISHED reason=TCP_ABORT_ON_CLOSE\n",
        );
        let said = "1 RST sent from port 80 by nginx, TCP_ABORT_ON_CLOSE: closed with unread data".to_owned();
        assert_eq!(causes[0], ("close-with-unread-data", said));
        assert_eq!(events.remarks(), ["events: 1 RST sent, 0 received"]);
    }

    #[test]
    fn what_perf_prints_is_read_and_a_softirq_names_nobody() {
        let (_, causes) = read(
            "swapper     0 [001]  1234.567890: tcp:tcp_receive_reset: family=AF_INET sport=5432 dport=40000 saddr=10.0.0.1 daddr=10.0.0.2 saddrv6=::ffff:10.0.0.1 daddrv6=::ffff:10.0.0.2 sock_cookie=1\n  <idle>-0  [000] ..s2. 5.1: tcp_send_reset: skbaddr=0 skaddr=0 src=[::1]:81 dest=[::1]:4 state=UNKNOWN reason=NO_SOCKET\n",
        );
        let ids: Vec<_> = causes.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, ["port-without-listener", "stale-connection", "wrong-bind-address", "peer-reset"]);
        assert!(causes.iter().all(|(_, reason)| !reason.contains("idle") && !reason.contains("swapper")), "{causes:?}");
    }

    #[test]
    fn what_is_no_event_is_left() {
        for line in ["calling tcp_send_reset: now", "tcp_send_reset", "# a comment", "", "x: tcp_send_reset: src=a"] {
            assert!(!Events::default().line(line), "{line}");
        }
    }
}
