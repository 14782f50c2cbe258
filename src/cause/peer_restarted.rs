use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::numbers::peer_restarted as numbers;
use super::{EvidenceItem, Finding, Judgement, Remedy, Subject, Verdict, Verify};
use super::{place, severity, wording};
use crate::attribution::Ended;
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::reset::Kind;
use crate::source::reset_events::Direction;
use crate::source::socket_dump::{GroupKind, SocketDump};
use crate::value::shell::ShellCommand;
use crate::value::{TcpState, words};

cause! {
    /// ## What happens
    ///
    /// The program that this host is connected to restarted, or crashed. Its open connections are reset ("Connection reset by
    /// peer"), and until it listens again connects are refused ("Connection refused").
    ///
    /// ## How it shows
    ///
    /// To one destination: RSTs in open connections, and within seconds RSTs in answer to SYNs (tcp:tcp_receive_reset in
    /// ESTABLISHED, then in SYN_SENT).
    ///
    /// ## How to confirm
    ///
    /// On the other host: `systemctl status` and `journalctl` of the service at the time of the first reset.
    ///
    /// ## What to change
    ///
    /// Find out there why it ended. For planned restarts: several instances, one restarted after the other, each drained
    /// first; let clients try again.
    ///
    /// ## Look-alikes
    ///
    /// A service that resets connections while it runs (peer-reset), and one that was down before (upstream-refused). One of
    /// several servers behind the address restarted, while others accept.
    PEER_RESTARTED {
        id: "peer-restarted",
        title: "The other end restarted",
        explains: ["peer-reset", "upstream-refused"],
        needs: [Window, ResetEvents],
        judge: judge,
    }
}

const UNIT: &str = "resets and refused connects";
/// Refusals begin within this time of the resets: a process that ends closes its listener and its connections at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A process that ends closes its files in the order of their numbers (Linux 6.12, fs/file.c, close_files), a listener mostly
/// before its connections: on a busy machine, or where it is closed on purpose first, refusals come so long before the resets.
const CLOSING: Duration = Duration::from_millis(500);
/// Resets farther apart than this are of two ends.
const APART: Duration = Duration::from_secs(1);

/// What a destination did, each in order of time.
#[derive(Default)]
struct History {
    resets: Vec<Duration>,
    refusals: Vec<Duration>,
}

/// One end of the program.
struct End {
    resets: u64,
    refusals: u64,
    from: Duration,
    /// The first refusal and the last.
    down_from: Duration,
    to: Duration,
}

impl History {
    /// Resets that refusals follow, one for each time that the program ended. Refusals that were there before are of one that was
    /// down already.
    fn ends(&self) -> Vec<End> {
        let mut ends: Vec<End> = Vec::new();
        let mut rest = self.resets.as_slice();
        while let Some(from) = rest.first().copied() {
            let count = rest.windows(2).take_while(|pair| pair[1].saturating_sub(pair[0]) <= APART).count() + 1;
            let (cluster, later) = rest.split_at(count);
            rest = later;
            let last = cluster.last().copied().unwrap_or(from);
            let until = later.first().copied().unwrap_or(Duration::MAX);
            let closing = from.saturating_sub(CLOSING);
            let before = self.refusals.iter().any(|at| *at < closing && *at + APART >= from);
            let counted = ends.last().map(|end| end.to);
            let ours = |at: &&Duration| (closing..until).contains(*at) && counted.is_none_or(|last| **at > last);
            let refused: Vec<_> = self.refusals.iter().filter(ours).copied().collect();
            let soon = refused.iter().any(|at| (from..=last + AT_ONCE).contains(at));
            if soon && !before {
                let (down_from, to) =
                    (refused.first().copied().unwrap_or(last), refused.last().copied().unwrap_or(last));
                let from = from.min(down_from);
                ends.push(End { resets: count as u64, refusals: refused.len() as u64, from, down_from, to });
            }
        }
        ends
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    e.resets_of("peer-reset", Direction::Received)?;
    let called: Vec<SocketAddr> = e
        .attribution()?
        .groups
        .iter()
        .filter(|group| group.kind == Kind::UpstreamRefused)
        .filter_map(|group| Some(SocketAddr::new(group.peer?, group.peer_port?)))
        .collect();
    let mut histories: BTreeMap<SocketAddr, History> = BTreeMap::new();
    for reset in e.resets().iter().filter(|reset| reset.direction() == Direction::Received && reset.event.is_some()) {
        let Some(peer) = reset.peer().filter(|peer| called.contains(peer)) else { continue };
        let history = histories.entry(peer).or_default();
        if reset.is_refused_connect() {
            history.refusals.push(reset.at());
        } else if matches!(reset.state_before(), Some(TcpState::Established | TcpState::CloseWait)) {
            history.resets.push(reset.at());
        }
    }
    let findings = histories.iter().filter_map(|(called, history)| finding(e, *called, history.ends())).collect();
    Ok(Verdict::from_findings(findings, "no destination reset open connections and then refused new ones"))
}

/// Connections to it that got data between the two times, and so were served then.
fn served(e: &Evidence<'_>, called: SocketAddr, from: Duration, to: Duration) -> usize {
    let data_at = |ended: &&Ended<'_>| {
        ended.socket.at.saturating_sub(Duration::from_millis(u64::from(ended.socket.data_received_ms)))
    };
    let open = |ended: &&Ended<'_>| ended.called == Some(called) && ended.socket.bytes_received > Some(1);
    let ended = e.ended().unwrap_or_default();
    ended.iter().filter(open).filter(|ended| (from..to).contains(&data_at(ended))).count()
}

/// So many were served while others were refused: it comes back each time.
const BETWEEN: usize = 3;

/// It accepts connections again: one is open or was served, or none was refused for a while.
fn is_back(e: &Evidence<'_>, called: SocketAddr, last: &End) -> bool {
    let open = |dump: &SocketDump| {
        let groups = dump.groups.iter().filter(|group| group.kind == GroupKind::Established);
        groups.flat_map(|group| &group.samples).any(|sample| sample.peer == called)
    };
    e.socket_dump().is_ok_and(open) || last.to + AT_ONCE < e.ends_at() || served(e, called, last.to, Duration::MAX) > 0
}

fn finding(e: &Evidence<'_>, called: SocketAddr, ends: Vec<End>) -> Option<Finding> {
    let (first, last) = (ends.first()?, ends.last()?);
    let resets: u64 = ends.iter().map(|end| end.resets).sum();
    let refusals: u64 = ends.iter().map(|end| end.refusals).sum();
    let count = resets + refusals;
    let between: usize = ends.iter().map(|end| served(e, called, end.down_from, end.to)).sum();
    let ended = match ends.len() {
        _ if between >= BETWEEN => "restarts again and again".to_owned(),
        1 if is_back(e, called, last) => "restarted".to_owned(),
        1 => "stopped, and is not back".to_owned(),
        n => format!("restarted {n} times"),
    };
    let down: Duration = ends.iter().map(|end| end.to.saturating_sub(end.from)).sum();
    let how_long = match between {
        BETWEEN.. => format!(", {} served between them", words::thousands(between as u64)),
        _ => format!(" for {}", words::seconds(down)),
    };
    let summary = format!(
        "{called} {ended}: {} reset, then {} refused{how_long}, in {}",
        words::counted(resets, "open connection"),
        words::counted(refusals, "connect"),
        words::seconds(e.window())
    );
    let harm = e.harm(Target::Called(called), count, Some([first.from, last.to]));
    let finding = wording::active(e, severity::to_callers(e, &harm), numbers::RESET_THEN_REFUSED, count, UNIT, summary)
        .subject(Subject::peer(called.ip(), Some(called.port())).counted(count))
        .subjects(place::callers(e, called))
        .evidence(EvidenceItem::value(
            "reset_events",
            "ESTABLISHED",
            resets as f64,
            format!("{} arrived in open connections", words::counted(resets, "RST")),
        ))
        .evidence(EvidenceItem::value(
            "reset_events",
            "SYN_SENT",
            refusals as f64,
            format!(
                "{} answered a connect, the first within {} of them",
                words::counted(refusals, "RST"),
                words::seconds(AT_ONCE)
            ),
        ))
        .harm(harm);
    Some(
        finding
            .remedy(Remedy::new(
                format!("Find out on {} why the program on port {} ended: a deploy, a crash, its memory", called.ip(), called.port()),
                "its log of that time names the reason",
            ))
            .remedy(
                Remedy::new(
                    "For planned restarts: restart one instance after the other, each drained first; let clients try again",
                    Verify::scan("shows neither resets nor refusals during the next restart"),
                )
                .command(ShellCommand::new("nc -vz").arg(called.ip()).arg(called.port())),
            ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;
    use crate::value::Observed;

    const SERVER: [&str; 2] = ["10.0.0.9:0", "10.0.7.1:5432"];

    /// Resets at each of these milliseconds, and refusals from the second to the third number.
    fn restarts(at: &[[u64; 3]]) -> Case {
        let mut case = Case::new();
        for [reset, from, to] in at {
            let resets = 5;
            let refusals = ((to - from) / 50) as u16;
            let before = case.events.value().map_or(0, Vec::len);
            case = case.received(resets, TcpState::Established, SERVER).received(refusals, TcpState::SynSent, SERVER);
            if let Observed::Full(events) = &mut case.events {
                for (index, event) in events.iter_mut().skip(before).enumerate() {
                    let index = index as u64;
                    let ms = if index < 5 { reset + index } else { from + (index - 5) * 50 };
                    event.at = Duration::from_secs(1000) + Duration::from_millis(ms);
                    event.cookie = Some(before as u64 * 1000 + index);
                }
            }
        }
        case
    }

    #[test]
    fn resets_and_then_refusals_are_one_restart() {
        let finding = restarts(&[[100, 150, 850]]).finding(&PEER_RESTARTED);
        assert!(
            finding.summary.starts_with("10.0.7.1:5432 restarted: 5 open connections reset, then 14 connects"),
            "{}",
            finding.summary
        );
    }

    #[test]
    fn three_of_them_are_said_as_three() {
        let finding = restarts(&[[100, 150, 300], [1500, 1550, 1700], [2800, 2850, 2950]]).finding(&PEER_RESTARTED);
        assert!(finding.summary.contains("restarted 3 times: 15 open connections"), "{}", finding.summary);
    }

    #[test]
    fn a_listener_that_is_closed_a_moment_before_its_connections_is_one_end() {
        let finding = restarts(&[[1_400, 1_100, 1_900]]).finding(&PEER_RESTARTED);
        assert!(finding.summary.contains("5 open connections reset, then 16 connects refused"), "{}", finding.summary);
        assert!(
            restarts(&[[1_400, 800, 1_900]]).is_ruled_out(&PEER_RESTARTED),
            "refused for longer: it was down before"
        );
    }

    #[test]
    fn a_server_that_was_down_before_or_only_resets_did_not_restart() {
        assert!(restarts(&[[800, 100, 900]]).is_ruled_out(&PEER_RESTARTED));
        let only = Case::new().received(20, TcpState::Established, SERVER);
        assert!(only.is_ruled_out(&PEER_RESTARTED));
    }

    #[test]
    fn without_events_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&PEER_RESTARTED), Some("reset_events"));
    }

    #[test]
    fn one_that_serves_between_the_refusals_is_not_called_gone() {
        let case = |served: u16| {
            let mut number = 0;
            restarts(&[[100, 150, 2_900]]).destroyed_sockets(served, SERVER, 0, 0).each_destroyed(move |socket| {
                number += 1;
                socket.at = Duration::from_secs(1000) + Duration::from_millis(1_000 + number * 10);
                (socket.data_received_ms, socket.data_sent_ms) = (1, 2);
                (socket.bytes_received, socket.bytes_sent) = (Some(900), Some(90));
            })
        };
        let summary = |served| case(served).finding(&PEER_RESTARTED).summary;
        assert!(summary(40).contains("restarts again and again: 5 open connections reset, then"), "{}", summary(40));
        assert!(summary(40).contains("refused, 40 served between them, in"), "{}", summary(40));
        assert!(summary(0).contains("stopped, and is not back"), "{}", summary(0));
    }
}
