use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::numbers::idle_timeout as numbers;
use super::{EvidenceItem, Finding, Judgement, Remedy, Severity, Subject, Verdict};
use super::{place, wording};
use crate::attribution::Ended;
use crate::evidence::Evidence;
use crate::knowledge::idle_timeouts::devices_near;
use crate::reset::End;
use crate::source::reset_events::Direction;
use crate::source::socket_dump::Sample;
use crate::value::{Missing, words};

cause! {
    /// ## What happens
    ///
    /// A load balancer, NAT or firewall on the path forgets a connection after a fixed time without data. The next request
    /// is answered with a RST in the peer's name, or with silence: the first request after a pause fails.
    ///
    /// ## How it shows
    ///
    /// Connections are reset at their first use after the same idle age: 60 s (AWS ALB), 240 s (Azure), 350 s (AWS NLB, NAT).
    ///
    /// ## How to confirm
    ///
    /// `ss -tni` shows `lastrcv:` of the connections before they die; a test connection dies between two ages.
    ///
    /// ## What to change
    ///
    /// Close pooled connections earlier than the device, or keep them alive: SO_KEEPALIVE in the application and
    /// `net.ipv4.tcp_keepalive_time` below the limit.
    ///
    /// ## Look-alikes
    ///
    /// A server that closes idle connections by itself. A pool that retires its own.
    IDLE_TIMEOUT {
        id: "idle-timeout",
        title: "Idle connections die on the path",
        explains: ["peer-reset", "middlebox-reset", "retransmission-timeout"],
        needs: [Window, ResetEvents, Sockets],
        judge: judge,
    }
}

/// Below this age no device on a path forgets a connection by default; the shortest known limit is 60 s.
const SHORTEST_S: f64 = 30.0;
/// A device can be set to less, but nobody calls a shorter pause an idle connection.
const SHORTEST_SET_S: f64 = 1.0;

/// Where connections died, and how idle they had been, seconds.
type Dead = BTreeMap<SocketAddr, Vec<f64>>;

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let dead = by_destroyed_socket(e.ended().unwrap_or_default());
    let findings: Vec<_> = dead.into_iter().filter_map(|(peer, ages)| finding(e, peer, ages)).collect();
    if !findings.is_empty() {
        return Ok(Verdict::Found(findings));
    }
    match by_sweep(e) {
        Ok(dead) => {
            let findings: Vec<_> = dead.into_iter().filter_map(|(peer, ages)| finding(e, peer, ages)).collect();
            Ok(Verdict::from_findings(findings, "no connection was reset, or given up, at its first use after a pause"))
        }
        Err(missing) => match e.endings() {
            Ok(words) if words.ended_early.is_none() => {
                Ok(Verdict::RuledOut("no connection was reset, or given up, at its first use after a pause".into()))
            }
            _ => Err(missing),
        },
    }
}

/// Own connections whose first use after a pause was reset, or never answered. Where others to the same server died
/// without a pause, it is the server that went away.
fn by_destroyed_socket(deaths: &[Ended<'_>]) -> Dead {
    let mut dead = Dead::new();
    let mut busy: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for death in deaths {
        let Some(called) = death.called.filter(|_| matches!(death.end, End::Reset | End::GaveUp)) else { continue };
        let pause = death.socket.pause().filter(|_| death.socket.asked_last() && death.socket.unacknowledged > 0);
        match pause.map(|pause| pause.as_secs_f64()) {
            Some(pause) if pause >= SHORTEST_SET_S => dead.entry(called).or_default().push(pause),
            _ => *busy.entry(called).or_default() += 1,
        }
    }
    dead.retain(|called, ages| busy.get(called).is_none_or(|busy| busy * 5 <= ages.len()));
    dead
}

/// How long a connection was idle is known from the sweep before it died, by its cookie.
fn by_sweep(e: &Evidence<'_>) -> Result<Dead, Missing> {
    e.reset_events()?;
    let socket_dump = e.socket_dump_before()?;
    if !e.sweep_before_is_fresh() {
        let why = "the latest look at all sockets was long before the window: what a connection did since is not known";
        return Err(Missing::new("sockets", why));
    }
    let samples: BTreeMap<u64, &Sample> =
        socket_dump.groups.iter().flat_map(|group| &group.samples).map(|sample| (sample.cookie, sample)).collect();
    let start = e.looked_before_at();
    let mut dead = Dead::new();
    let events = e.resets().iter().filter_map(|reset| reset.event.as_ref());
    for event in events.filter(|event| event.direction == Direction::Received) {
        let Some(sample) = event.cookie.and_then(|cookie| samples.get(&cookie)) else { continue };
        let Some(idle_ms) = sample.idle_ms else { continue };
        let idle = f64::from(idle_ms) / 1000.0 + event.at.saturating_sub(start).as_secs_f64();
        if idle >= SHORTEST_S {
            dead.entry(sample.peer).or_default().push(idle);
        }
    }
    Ok(dead)
}

/// One dead connection proves nothing, unless its age is that of a known device; a short age only if many share it.
fn finding(e: &Evidence<'_>, peer: SocketAddr, mut ages: Vec<f64>) -> Option<Finding> {
    ages.sort_by(f64::total_cmp);
    let (youngest, oldest) = (*ages.first()?, *ages.last()?);
    let known = devices_near(youngest);
    let confidence = match (ages.len(), known.is_empty()) {
        (5.., _) if youngest < SHORTEST_S && oldest <= numbers::SAME_AGE * youngest => numbers::SHARED_AGE,
        _ if youngest < SHORTEST_S => return None,
        (1, true) => return None,
        (1, false) => numbers::ONE_NEAR_KNOWN,
        (2, true) => numbers::TWO,
        (2, false) | (_, true) => numbers::SEVERAL,
        (_, false) => numbers::SEVERAL_NEAR_KNOWN,
    };
    let count = ages.len() as u64;
    let severity = if count >= numbers::WARNING { Severity::Warning } else { Severity::Info };
    let summary = format!(
        "{} to {peer} died at the first use after {} idle or more",
        words::counted(count, "connection"),
        if youngest < SHORTEST_S { format!("{youngest:.1} s") } else { format!("{youngest:.0} s") }
    );
    let mut finding = wording::active(e, severity, confidence, count, "resets", summary)
        .subject(Subject::peer(peer.ip(), Some(peer.port())).counted(count))
        .subjects(place::callers(e, peer))
        .evidence(EvidenceItem::value(
            "sockets",
            "idle_s",
            youngest,
            match (format!("{youngest:.1} s"), format!("{oldest:.1} s")) {
                (youngest, oldest) if youngest == oldest => {
                    format!("they had been idle for {oldest} when they were used")
                }
                (youngest, oldest) => format!("they had been idle for {youngest} to {oldest} when they were used"),
            },
        ));
    if !known.is_empty() {
        let names: Vec<_> = known.iter().map(|limit| format!("{} ({} s)", limit.name, limit.seconds)).collect();
        let text = format!("known idle limits near that: {}", names.join(", "));
        finding = finding.evidence(EvidenceItem::fact("knowledge", "idle_timeouts", text));
    }
    let limit = youngest * numbers::POOL_LIMIT;
    let limit = if limit < 10.0 { format!("{limit:.1}") } else { format!("{limit:.0}") };
    let finding = finding
        .against(EvidenceItem::fact(
            "reset_packets",
            "ttl",
            "the peer itself may have an idle limit and end it by RST, or may have been restarted",
        ))
        .remedy(Remedy::new(
            format!("Let the pool drop connections that are idle for more than {limit} s"),
            "the first request after a pause succeeds",
        ));
    // In whole seconds, and below what was measured.
    let probe = (youngest / 2.0).min(300.0) as u64;
    Some(match probe {
        0 => finding,
        _ => finding.remedy(Remedy::sysctl(
            "Or keep them alive: SO_KEEPALIVE in the application, and probes below the limit",
            "net.ipv4.tcp_keepalive_time",
            probe,
            "ss -tno shows timer:(keepalive,...) on these connections",
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;
    use crate::source::socket_dump::{Group, GroupKind, SocketDump};
    use crate::value::TcpState;

    fn idle(count: u16, idle_ms: u32) -> Case {
        let sample = |number: u16| Sample {
            local: ([10, 0, 0, 9], 40_000 + number).into(),
            peer: ([10, 0, 7, 1], 5432).into(),
            inode: 1,
            cookie: u64::from(number) + 1000,
            idle_ms: Some(idle_ms),
        };
        let group = Group {
            kind: GroupKind::IdleWithoutKeepalive,
            port: 5432,
            accepted: false,
            sockets: u64::from(count),
            unread_bytes: 0,
            oldest_idle_ms: Some(idle_ms),
            samples: (0..count).map(sample).collect(),
        };
        let socket_dump = SocketDump { groups: vec![group], ..SocketDump::default() };
        Case::new().socket_dump(socket_dump.clone(), socket_dump).received(
            count,
            TcpState::Established,
            ["10.0.0.9:0", "10.0.7.1:5432"],
        )
    }

    #[test]
    fn connections_that_die_at_350_s_point_to_the_device() {
        let finding = idle(4, 350_000).finding(&IDLE_TIMEOUT);
        assert!(finding.confidence >= 0.8 && finding.subjects[0].port == Some(5432));
        assert!(finding.evidence[1].text.contains("Network Load Balancer"), "{:?}", finding.evidence);
    }

    /// A live view looks at all sockets now and then; a connection may have been busy since.
    #[test]
    fn a_sweep_from_long_before_says_nothing_about_the_pause() {
        let mut case = idle(10, 20);
        case.netns.before.dumped.mono -= std::time::Duration::from_secs(60);
        assert!(matches!(case.judge(&IDLE_TIMEOUT), Err(Missing { source: "sockets", .. })));
        let busy = case.destroyed_sockets(10, CALLED, 20, 0);
        assert!(matches!(busy.judge(&IDLE_TIMEOUT), Ok(Verdict::RuledOut(_))), "last words know better");
    }

    const CALLED: [&str; 2] = ["10.0.0.9:0", "10.0.7.1:5432"];

    #[test]
    fn last_words_tell_the_pause_before_the_reset() {
        let case = Case::new().received(6, TcpState::Established, CALLED).destroyed_sockets(6, CALLED, 350_400, 0);
        let finding = case.finding(&IDLE_TIMEOUT);
        assert!(finding.confidence >= 0.8 && finding.subjects[0].port == Some(5432), "{finding:?}");
        assert!(finding.evidence[1].text.contains("NAT gateway"), "{:?}", finding.evidence);
    }

    #[test]
    fn a_device_that_drops_is_found_by_the_pause_before_the_retransmissions() {
        let finding = Case::new().destroyed_sockets(6, CALLED, 240_300, 3).finding(&IDLE_TIMEOUT);
        assert!(finding.evidence[1].text.contains("Azure"), "{:?}", finding.evidence);
    }

    #[test]
    fn a_server_that_closed_first_or_that_resets_busy_connections_too_is_not_this() {
        let closed = Case::new().received(6, TcpState::CloseWait, CALLED).destroyed_sockets(6, CALLED, 60_400, 0);
        assert!(closed.is_ruled_out(&IDLE_TIMEOUT));
        let restarted = Case::new()
            .received(6, TcpState::Established, CALLED)
            .destroyed_sockets(3, CALLED, 60_400, 0)
            .destroyed_sockets(6, CALLED, 20, 0);
        assert!(restarted.is_ruled_out(&IDLE_TIMEOUT));
    }

    #[test]
    fn busy_connections_that_are_reset_are_not_this() {
        assert!(idle(4, 200).is_ruled_out(&IDLE_TIMEOUT));
    }

    #[test]
    fn without_events_or_a_sweep_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&IDLE_TIMEOUT), Some("reset_events"));
        assert_eq!(Case::new().tracepoints().missing(&IDLE_TIMEOUT), Some("sockets"));
    }
}
